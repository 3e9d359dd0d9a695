"""In a real root: a bundle is filled while the archives are there, and installed from when they are gone."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.root.deb import Deb
from tests.root.machine import Done, Machine

pytestmark = pytest.mark.root
Json = Any  # a manifest
TOOLKIT = ("cuda-toolkit#install", "--set", "CUDA_PACKAGE=cuda-toolkit-13-0", "--set", "CUDA=13.0")
OWN = ("etc/apt", "var/lib/apt", "var/cache/apt")
"""What belongs to the machine's own apt."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine.lent(tmp_path) as lent:
        yield lent


def command(machine: Machine, *arguments: str | Path) -> list[str]:
    return ["setup", "--root", str(machine.root), "--python", str(machine.python()), *map(str, arguments)]


def setup(machine: Machine, *arguments: str | Path) -> Done:
    path = f"{machine.environ()['PATH']}:{os.environ['PATH']}"
    return machine.doctor(*command(machine, *arguments), environ={"PATH": path})


def words(done: Done) -> str:
    return " ".join((done.stdout + done.stderr).split())


def manifest(bundle: Path) -> Json:
    return json.loads((bundle / "bundle.json").read_text())


def packages(bundle: Path) -> set[str]:
    return {Path(file["path"]).name.partition("_")[0] for file in manifest(bundle)["files"] if file["path"].endswith(".deb")}


def installed(machine: Machine, package: str) -> bool:
    return "Status: install ok installed" in machine.run("dpkg", "-s", package, check=False).stdout


def snapshot(machine: Machine, *folders: str) -> dict[str, str]:
    paths = [path for folder in folders for path in (machine.root / folder).rglob("*") if path.is_file() and not path.is_symlink()]
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.name not in ("lock", "extended_states")
    }


@contextmanager
def no_network(machine: Machine) -> Iterator[None]:
    """The archives are gone, of this disk too."""
    machine.remember("no-network")
    moved = [(machine.root / f"srv/{name}", machine.root / f"srv/{name}.gone") for name in ("archive", "web")]
    for here, gone in moved:
        here.rename(gone)
    yield
    for here, gone in moved:
        gone.rename(here)
    machine.forget("no-network")


def prepared(machine: Machine, *steps: str | Path) -> Path:
    bundle = machine.root / "mnt/a bundle"
    done = setup(machine, "--bundle", bundle, *steps)
    assert done.code == 0, done.stdout + done.stderr
    return bundle


def spoil(bundle: Path, pattern: str, *, also_the_list: bool) -> str:
    """Change one file, without changing its size; ``also_the_list``: by somebody who knows of the manifest."""
    path = next(bundle.rglob(pattern))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    if also_the_list:
        listed = manifest(bundle)
        entry = next(file for file in listed["files"] if file["path"] == str(path.relative_to(bundle)))
        entry["sha256"] = hashlib.sha256(data).hexdigest()
        (bundle / "bundle.json").write_text(json.dumps(listed))
    return str(path.relative_to(bundle))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Path]]:
    """A machine on which nothing is ever installed, and its bundle."""
    with Machine.lent(tmp_path_factory.mktemp("ready")) as machine:
        yield machine, prepared(machine)


@pytest.fixture
def copied(ready: tuple[Machine, Path]) -> Iterator[tuple[Machine, Path]]:
    """A copy of that bundle, to be spoilt; nothing of it may be installed."""
    machine, bundle = ready
    copy = shutil.copytree(bundle, machine.root / "mnt/a copy")
    yield machine, copy
    shutil.rmtree(copy)
    assert not installed(machine, "ubuntu-drivers-common")


def test_a_driver_is_installed_from_it_when_the_archives_are_gone(machine: Machine) -> None:
    before = snapshot(machine, *OWN)
    bundle = prepared(machine)
    assert snapshot(machine, *OWN) == before
    assert not (bundle / "partial").exists()
    with no_network(machine):
        done = setup(machine, "--yes", "--bundle", bundle)
        assert done.code == 4, done.stdout + done.stderr  # a restart is all that is left
        assert installed(machine, "nvidia-driver-580-open")
        assert "Then go on with: $ gpudoctor setup --bundle" in words(done)
        machine.boot()
        done = setup(machine, "--yes", "--bundle", bundle)
        assert done.code == 0, done.stdout + done.stderr
    assert snapshot(machine, *OWN) == before
    assert list((machine.root / "tmp").iterdir()) == []


def test_an_archive_whose_key_comes_with_a_section_counts_from_there_on(machine: Machine) -> None:
    bundle = prepared(machine, *TOOLKIT)
    assert [archive["brought"] for archive in manifest(bundle)["archives"]] == [True]
    assert packages(bundle) == {"cuda-keyring", "cuda-toolkit-13-0", "cuda-nvcc-13-0"}
    with no_network(machine):
        done = setup(machine, "--yes", "--bundle", bundle, *TOOLKIT)
        assert installed(machine, "cuda-toolkit-13-0"), done.stdout + done.stderr


def test_a_wrong_key_ends_the_preparation(machine: Machine) -> None:
    machine.forget("fingerprints.sed")  # the key of this world's archive then shows its true fingerprint
    bundle = machine.root / "mnt/bundle"
    done = setup(machine, "--bundle", bundle, *TOOLKIT)
    assert done.code == 1, done.stdout + done.stderr
    assert not (bundle / "bundle.json").exists()


@pytest.mark.parametrize("pattern", ["nvidia-driver-*.deb", "Packages", "InRelease"])
def test_a_damaged_file_is_named_and_nothing_is_done(pattern: str, copied: tuple[Machine, Path]) -> None:
    machine, bundle = copied
    path = spoil(bundle, pattern, also_the_list=False)
    done = setup(machine, "--yes", "--bundle", bundle)
    assert done.code == 2
    assert path in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("pattern", ["Packages", "InRelease"])
def test_a_list_that_somebody_changed_is_refused_by_apt(pattern: str, copied: tuple[Machine, Path]) -> None:
    machine, bundle = copied
    spoil(bundle, pattern, also_the_list=True)
    done = setup(machine, "--yes", "--bundle", bundle)
    assert done.code == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_package_that_somebody_changed_is_refused_by_apt(copied: tuple[Machine, Path]) -> None:
    machine, bundle = copied
    spoil(bundle, "ubuntu-drivers-common*.deb", also_the_list=True)
    done = setup(machine, "--yes", "--bundle", bundle)
    assert done.code == 1
    assert "is not the one that the archive's signed list names" in words(done)


def test_a_missing_file_is_named(copied: tuple[Machine, Path]) -> None:
    machine, bundle = copied
    next(bundle.rglob("nvidia-driver-*.deb")).unlink()
    done = setup(machine, "--yes", "--bundle", bundle)
    assert done.code == 2
    assert "nvidia-driver-580-open" in done.stderr


def test_a_key_that_the_machine_does_not_have_is_asked_for(copied: tuple[Machine, Path]) -> None:
    machine, bundle = copied
    keyring = machine.root / "usr/share/keyrings/ubuntu-archive-keyring.gpg"
    keyring.rename(keyring.with_suffix(".away"))
    done = setup(machine, "--yes", "--bundle", bundle)
    keyring.with_suffix(".away").rename(keyring)
    assert done.code == 2
    assert "/usr/share/keyrings/ubuntu-archive-keyring.gpg" in done.stderr


def test_another_release_is_refused(copied: tuple[Machine, Path]) -> None:
    machine, bundle = copied
    release = machine.root / "etc/os-release"
    text = release.read_text()
    release.write_text(text.replace("22.04", "24.04"))
    done = setup(machine, "--yes", "--bundle", bundle)
    release.write_text(text)
    assert done.code == 2
    assert "prepared for ubuntu 22.04 on x86_64, and this is ubuntu 24.04 on x86_64" in done.stderr


def test_a_bundle_outside_the_root_is_refused(copied: tuple[Machine, Path], tmp_path: Path) -> None:
    machine, bundle = copied
    outside = shutil.copytree(bundle, tmp_path / "outside")
    done = setup(machine, "--yes", "--bundle", outside)
    assert done.code == 2
    assert "copy or bind-mount it" in done.stderr
    assert setup(machine, "--bundle", tmp_path / "new").code == 2


def test_what_it_does_not_hold_is_not_begun(machine: Machine) -> None:
    bundle = prepared(machine, "kernel-modules#install-kernel-compiler", "--set", "COMPILER=gcc-12")
    with no_network(machine):
        done = setup(machine, "--yes", "--bundle", bundle)
    assert done.code == 1
    assert "Not by setup: the bundle does not hold ubuntu-drivers-common, 580-open" in words(done)


def test_for_another_machine_everything_comes_along_unless_it_is_known_to_be_there(machine: Machine, tmp_path: Path) -> None:
    report, step = tmp_path / "report.json", "secure-boot#create-signing-key"
    report.write_text(json.dumps(machine.report()))
    first, second = machine.root / "mnt/first", machine.root / "mnt/second"
    assert setup(machine, "--bundle", first, "--from", report, step).code == 0
    assert {"mokutil", "dkms", "shim-signed", "gcc-12"} <= packages(first)
    second.mkdir()
    shutil.copyfile(machine.root / "var/lib/dpkg/status", second / "status")
    assert setup(machine, "--bundle", second, "--from", report, step).code == 0
    assert "mokutil" not in packages(second)


def test_a_package_that_turns_out_to_be_needed_as_well_is_named(machine: Machine, tmp_path: Path) -> None:
    report, bundle, step = tmp_path / "report.json", machine.root / "mnt/bundle", "secure-boot#create-signing-key"
    report.write_text(json.dumps(machine.report()))
    bundle.mkdir()
    machine.install("gcc-12")
    shutil.copyfile(machine.root / "var/lib/dpkg/status", bundle / "status")
    machine.run("apt-get", "purge", "gcc-12")
    assert setup(machine, "--bundle", bundle, "--from", report, step).code == 0
    with no_network(machine):
        done = setup(machine, "--yes", "--bundle", bundle, step)
    assert done.code == 1
    assert "The bundle does not hold a package that this machine needs as well" in words(done)


def test_what_was_cut_off_goes_on_where_it_stopped(machine: Machine) -> None:
    bundle = machine.root / "mnt/bundle"
    steps = ("kernel-modules#install-kernel-compiler", "--set", "COMPILER=gcc-12", *TOOLKIT)
    web = machine.root / "srv/web"
    web.rename(web.with_name("gone"))
    done = setup(machine, "--bundle", bundle, *steps)
    assert done.code == 1, done.stdout + done.stderr
    assert "is not whole yet: run the same command again" in words(done)
    assert not (bundle / "bundle.json").exists()
    kept = (bundle / "partial/apt/archives").glob("gcc-12*.deb")
    stamps = {path.name: path.stat().st_mtime_ns for path in kept}
    assert stamps
    web.with_name("gone").rename(web)
    assert setup(machine, "--bundle", bundle, *steps).code == 0
    assert packages(bundle) >= {"gcc-12", "cuda-toolkit-13-0"}


def test_a_folder_of_something_else_is_left_alone(machine: Machine) -> None:
    done = setup(machine, "--bundle", machine.root / "etc")
    assert done.code == 2
    assert "neither empty nor a bundle" in done.stderr
    assert not (machine.root / "etc/partial").exists()


def test_a_full_disk_is_one_line(machine: Machine) -> None:
    small = machine.root / "mnt/small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(small)], check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        done = setup(machine, "--bundle", small / "bundle")
        assert done.code == 1, done.stdout + done.stderr
        assert "is not whole yet" in words(done)
        assert "Traceback" not in words(done)
        assert not (small / "bundle/bundle.json").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


# ------------------------------------------------------------ an archive with dists and pool, over http


class Site:
    """A mirror on loopback: signed, with lists that are offered compressed too. ``slow`` holds back its packages."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self._folder, self._key = folder / "site", folder / "key"
        self._gpg("--passphrase", "", "--quick-generate-key", "site", "ed25519", "sign", "never")
        (machine.root / "usr/share/keyrings/site.gpg").write_bytes(self._gpg("--export", "site"))
        self._release()
        self.slow = threading.Event()
        handler = self._handler()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{self._server.server_address[1]}/ubuntu"
        line = f"deb [arch=amd64 signed-by=/usr/share/keyrings/site.gpg] {address} jammy main\n"
        stanza = f"# ours\nTypes: deb\nURIs: {address}\nSuites: jammy-updates\nComponents: main\n"
        stanza += "Signed-By: /usr/share/keyrings/site.gpg\n"
        (machine.root / "etc/apt/sources.list").write_text(line)
        (machine.root / "etc/apt/sources.list.d/site.sources").write_text(stanza)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _gpg(self, *arguments: str, given: bytes = b"") -> bytes:
        self._key.mkdir(mode=0o700, exist_ok=True)
        call = ["gpg", "--homedir", str(self._key), "--batch", "--quiet", "--yes", *arguments]
        return subprocess.run(call, input=given, capture_output=True, check=True, timeout=60).stdout

    def _release(self) -> None:
        both = Deb("both", "1:1.0", {"Depends": "needed"})
        for suite, debs in (
            ("jammy", [Deb("gcc-12", "12.1", {"Depends": "both"}), both]),
            ("jammy-updates", [both, Deb("needed", "2")]),
        ):
            stanzas = []
            for deb in debs:
                data, place = deb.data(), f"pool/main/{deb.file_name}"
                (self._folder / "pool/main").mkdir(parents=True, exist_ok=True)
                (self._folder / place).write_bytes(data)
                stanzas.append(f"{deb.control}Filename: {place}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n")
            index = "\n".join(stanzas).encode()
            lists = {"main/binary-amd64/Packages": index, "main/binary-amd64/Packages.gz": gzip.compress(index)}
            sums = "".join(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n" for name, data in lists.items())
            text = f"Origin: Site\nSuite: {suite}\nCodename: {suite}\nDate: Sat, 01 Jun 2024 00:00:00 UTC\n"
            text += "Valid-Until: Sat, 08 Jun 2124 00:00:00 UTC\n"
            text += f"Architectures: amd64\nComponents: main\nAcquire-By-Hash: no\nSHA256:\n{sums}"
            (self._folder / f"dists/{suite}/main/binary-amd64").mkdir(parents=True)
            (self._folder / f"dists/{suite}/main/binary-amd64/Packages.gz").write_bytes(lists["main/binary-amd64/Packages.gz"])
            (self._folder / f"dists/{suite}/InRelease").write_bytes(
                self._gpg("--clear-sign", "--local-user", "site", given=text.encode())
            )

    def _handler(self) -> Callable[..., http.server.BaseHTTPRequestHandler]:
        site = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith(".deb") and site.slow.is_set():
                    time.sleep(20)
                super().do_GET()

            def translate_path(self, path: str) -> str:
                return str(site._folder / path.removeprefix("/ubuntu/").replace("%3a", ":"))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called there
                pass

        return Handler


@pytest.fixture
def site(machine: Machine, tmp_path: Path) -> Iterator[Site]:
    if shutil.which("gpg") is None:
        pytest.skip("there is no gpg")
    site = Site(machine, tmp_path)
    yield site
    site.close()


COMPILER = ("kernel-modules#install-kernel-compiler", "--set", "COMPILER=gcc-12")


def test_a_mirror_with_suites_is_carried_in_part(machine: Machine, site: Site) -> None:
    bundle = prepared(machine, *COMPILER)
    site.close()
    archives = manifest(bundle)["archives"]
    assert [(one["suite"], one["component"], one["architecture"]) for one in archives] == [
        ("jammy", "main", "amd64"),
        ("jammy-updates", "main", "amd64"),
    ]
    assert packages(bundle) == {"gcc-12", "both", "needed"}
    done = setup(machine, "--yes", "--bundle", bundle, *COMPILER)
    assert installed(machine, "gcc-12"), done.stdout + done.stderr
    assert installed(machine, "needed")
    assert "Err:" not in done.stdout


def test_ctrl_c_leaves_no_bundle_and_what_was_fetched(machine: Machine, site: Site) -> None:
    bundle = machine.root / "mnt/bundle"
    site.slow.set()
    path = f"{machine.environ()['PATH']}:{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-m", "gpudoctor", *command(machine, "--bundle", bundle, *COMPILER)],
        env={**machine.environ(), "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "gcc-12" in line and line.startswith("$ apt-get --download-only"):
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) != 0
    process.stdout.close()
    assert not (bundle / "bundle.json").exists()
    site.slow.clear()
    assert setup(machine, "--bundle", bundle, *COMPILER).code == 0
    assert packages(bundle) == {"gcc-12", "both", "needed"}
