"""One machine of this world: its root, its programs, its starts, and the doctor that looks at it from outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import trees
from tests.root import cards
from tests.root.base import base, copy
from tests.root.versions import FLAVOUR, NEW, OLD, driver_package, library_branch
from tests.root.world import CHROOT, SEARCH, SECURE_BOOT, STATE, source, write

Json = Any  # a report

TIME_LIMIT = 300.0
DOCTOR_LIMIT = 90.0
ENVIRON = {
    "PATH": SEARCH,
    "HOME": "/root",
    "USER": "root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "APT_CONFIG": f"/{STATE}/assume-yes.conf",
}
PRELUDE = 'sudo() { "$@"; }'
"""Who is root runs the words of sudo directly, as the setup verb does."""


@dataclass(frozen=True)
class Done:
    """How a command inside the machine ended."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Machine:
    """A machine below ``root``. ``home`` is a folder outside for whoever looks at it: its doctor's HOME, its Python."""

    root: Path
    home: Path
    card: cards.Card

    @classmethod
    def fresh(cls, folder: Path, card: cards.Card = cards.RTX_4070) -> Machine:
        """Ubuntu 22.04, just installed, with that card, no driver and Secure Boot off; nouveau has the card."""
        root, home = folder / "machine", folder / "home"
        copy(base(), root)
        home.mkdir()
        cards.put_in(root, card)
        machine = cls(root, home, card)
        machine.boot()
        return machine

    @classmethod
    @contextmanager
    def lent(cls, folder: Path, card: cards.Card = cards.RTX_4070) -> Iterator[Machine]:
        """A fresh machine whose space is given back in the end."""
        machine = cls.fresh(folder, card)
        try:
            yield machine
        finally:
            machine.remove()

    def remove(self) -> None:
        """Give its space back; nothing of it is mounted."""
        shutil.rmtree(self.root, ignore_errors=True)

    # ---- inside

    def run(self, *command: str, check: bool = True, stdin: str = "") -> Done:
        """Run a program inside, as root and without questions."""
        done = subprocess.run(
            [CHROOT, str(self.root), *command],
            input=stdin,
            env=ENVIRON,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=TIME_LIMIT,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} exited {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return Done(done.returncode, done.stdout, done.stderr)

    def shell(self, line: str, *, check: bool = True, stdin: str = "") -> Done:
        """Run one line of a page as the setup verb does."""
        return self.run("/bin/bash", "-euo", "pipefail", "-c", f"{PRELUDE}; {line}", check=check, stdin=stdin)

    def install(self, *packages: str) -> None:
        """Install packages by apt."""
        self.run("apt-get", "update", "-q")
        self.run("apt-get", "install", *packages)

    def install_driver(self, spelling: str, age: int = OLD, *, dkms: bool = False, headless: bool = False) -> None:
        """The driver of that spelling, all of one age; the module prebuilt for the kernel's flavour, or built by DKMS."""
        version, branch = driver_package(spelling, age), library_branch(spelling)
        names = [f"nvidia-headless-no-dkms-{spelling}" if headless else f"nvidia-driver-{spelling}", f"nvidia-utils-{branch}"]
        names += [f"libnvidia-compute-{branch}", f"nvidia-compute-utils-{branch}", f"nvidia-kernel-common-{branch}"]
        names += [f"nvidia-dkms-{spelling}"] if dkms else []
        modules = [] if dkms else [f"linux-modules-nvidia-{spelling}-{FLAVOUR}"]
        self.install(*(f"{name}={version}" for name in names), *modules)

    def time_passes(self) -> None:
        """From now on the archive has newer kernels and drivers."""
        write(self.root, {"etc/apt/sources.list": source(OLD) + source(NEW)})
        self.run("apt-get", "update", "-q")

    # ---- starts and settings

    def boot(self, *, confirm_enrolment: bool = False) -> None:
        """Restart: the newest kernel runs, whatever module may be loaded is; somebody at the screen may confirm a pending key."""
        self.run("boot-machine", *(["--confirm-enrolment"] if confirm_enrolment else []))

    @property
    def reboots_asked_for(self) -> int:
        """How often ``reboot`` was called inside."""
        path = self.root / STATE / "reboots"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def secure_boot(self, *, on: bool) -> None:
        """Set the firmware's switch; it counts from the next start."""
        (self.root / SECURE_BOOT).write_bytes(bytes.fromhex("0600000001" if on else "0600000000"))

    def remember(self, name: str, text: str = "") -> None:
        """Set a circumstance of the world: no-nodes, no-uvm, no-network, source-too-old, kernel-arguments."""
        write(self.root, {f"{STATE}/{name}": text})

    def forget(self, name: str) -> None:
        """Undo ``remember``."""
        (self.root / STATE / name).unlink(missing_ok=True)

    def has(self, path: str) -> bool:
        """Whether something lies at that path inside (a link counts as itself)."""
        return os.path.lexists(self.root / path.lstrip("/"))

    def read(self, path: str) -> str:
        """A file's text."""
        return (self.root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")

    # ---- from outside

    def environ(self) -> dict[str, str]:
        """For a doctor outside: the machine's programs, libraries and NVML, as they are at the time of each call."""
        return {
            "PATH": f"{self.root}/usr/share/outside",
            "LD_LIBRARY_PATH": str(self._libraries()),
            "FAKE_NVML_FILE": f"{self.root}/{STATE}/nvml",
            "HOME": str(self.home),
            "XDG_STATE_HOME": f"{self.home}/.local/state",
            "XDG_CACHE_HOME": f"{self.home}/.cache",
            "USER": "root",
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def _libraries(self) -> Path:
        """A folder whose links lead to the machine's libraries, or nowhere: its own folder would bring its glibc along."""
        folder = self.home / "libraries"
        if not folder.is_dir():
            folder.mkdir()
            for soname in ("libnvidia-ml.so.1", "libcuda.so.1"):
                (folder / soname).symlink_to(self.root / "usr/lib/x86_64-linux-gnu" / soname)
        return folder

    def python(self, tree: str = "torch-2.8.0-cu128") -> Path:
        """An interpreter with a stand-in for that PyTorch, which finds the GPU when the machine's driver is well."""
        folder = self.home / "llama"
        if not folder.is_dir():
            python = trees.make_environment(folder)
            site = trees.site_packages(python)
            trees.install(tree, site)
            trees.importable(site, behaviour={"gpu": self.card.name, "smoke": {}})
            answers = site / "torch/behaviour.json"
            build = {key: value for key, value in json.loads(answers.read_text()).items() if key != "available"}
            answers.unlink()
            answers.symlink_to(self.root / STATE / "torch.json")
            self.remember("torch-build.json", json.dumps(build))
            self.run("module-state")
        return folder / "bin/python"

    def doctor(self, *arguments: str, stdin: str = "", environ: Mapping[str, str] | None = None) -> Done:
        """Run the doctor on this machine."""
        done = subprocess.run(
            [sys.executable, "-m", "gpudoctor", *arguments],
            input=stdin,
            env={**self.environ(), **(environ or {})},
            cwd=self.home,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=DOCTOR_LIMIT,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def report(self, *arguments: str) -> Json:
        """``gpudoctor check`` of this machine as JSON; without PyTorch and smoke test unless asked otherwise."""
        asked = arguments or ("--no-import", "--no-smoke")
        done = self.doctor("check", "--root", str(self.root), "--python", str(self.python()), *asked, "--format", "json")
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"no report (exit {done.code}):\n{done.stdout[:500]}\n{done.stderr[-2000:]}") from None
