"""Fills a folder with everything that a plan will fetch, so that the plan can be carried out where there is no network.

What is being fetched lies in ``partial`` below the folder. The list of what the bundle holds is written last; so a preparation
that was cut off is none, and goes on when it is started again.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpudoctor.bundle import fetches, manifest, wheels
from gpudoctor.bundle.archives import Apt
from gpudoctor.bundle.bench import Bench
from gpudoctor.bundle.fetches import Beyond, Download, Driver, Fetch, Kernels, Looked, Packages, Settings, Unpacked, Wheels
from gpudoctor.bundle.manifest import FILES, PARTIAL, STATUS, WHEELS, Held, LeftOut, Manifest, Target
from gpudoctor.facts import Interpreter
from gpudoctor.setup.plan import Item, Plan

_OF_APT = (Packages, Driver, Unpacked, Settings)


class CannotPrepare(ValueError):
    """It cannot be prepared here, and nothing was begun; the message says why and what it would take, in one line."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be fetched, for which machine."""

    plan: Plan
    target: Target
    kernels: Kernels
    flavour: str | None
    interpreter: Interpreter | None
    same_machine: bool
    """It is for the machine that it is prepared on."""

    def of(self, item: Item) -> list[tuple[str, Fetch]]:
        """What a section fetches, line by line."""
        return fetches.of(item.step.commands, self.kernels)


@dataclass(frozen=True, slots=True)
class Here:
    """The machine that prepares."""

    os_id: str
    os_version: str
    machine: str


def folder_for(path: str) -> Path:
    """The folder that may be filled; raises CannotPrepare for one that holds something else."""
    folder = Path(path).absolute()
    try:
        names = set(os.listdir(folder)) if folder.exists() else set()
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        if not os.access(folder, os.W_OK):
            raise CannotPrepare(f"--bundle: {path} cannot be written")
    except OSError as error:
        raise CannotPrepare(f"--bundle: {path}: {error.strerror or error}") from error
    others = names - {STATUS, PARTIAL}
    if others and PARTIAL not in names:
        raise CannotPrepare(
            f"--bundle: {path} is neither empty nor a bundle (there is no {manifest.NAME} in it); name a new folder to prepare one"
        )
    if any(character in str(folder) for character in "\"\n'\\"):
        raise CannotPrepare(f"--bundle: apt cannot take packages from a folder of this name: {path}")
    return folder


def refusal(order: Order, here: Here, has_apt: bool) -> str | None:
    """Why this machine cannot prepare that; None where it can."""
    found = [fetch for item in order.plan.runnable for _, fetch in order.of(item)]
    target = order.target
    if any(isinstance(fetch, _OF_APT) for fetch in found):
        wanted = f"{target.os_id} {target.os_version} on {target.machine}"
        same = (here.os_id, here.os_version, here.machine) == (target.os_id, target.os_version, target.machine)
        if not (same and has_apt):
            have = f"{here.os_id} {here.os_version} on {here.machine}{'' if has_apt else ' without apt-get'}"
            return (
                f"the packages have to be fetched by apt on {wanted}, and this is {have}. "
                "Prepare on such a machine, a container or a virtual one will do"
            )
    if any(isinstance(fetch, Wheels) for fetch in found):
        if order.interpreter is None:
            return "nothing is known of the Python that the wheels are for; name it with --python"
        if not wheels.platforms(order.interpreter):
            libc = f"glibc {order.interpreter.glibc}" if order.interpreter.glibc else "an unknown C library"
            return f"wheels cannot be chosen for {order.interpreter.machine} with {libc}"
    return None


def left_out(order: Order, *, knows_what_is_installed: bool) -> dict[str, str]:
    """The runnable sections that no bundle can serve, and why: a clause."""
    found: dict[str, str] = {}
    for item in order.plan.runnable:
        for _, fetch in order.of(item):
            if isinstance(fetch, Beyond):
                found[item.step.step] = fetch.why
            if isinstance(fetch, Packages) and not fetch.names and not knows_what_is_installed:
                found[item.step.step] = (
                    f"what is missing there is not known: copy its /var/lib/dpkg/status to {STATUS} in this folder first"
                )
    return found


class Preparation:
    """One run. ``begins`` is told each section, ``reading`` the bytes of the bundle that are read so far.

    ``words`` is put beside the files, for whoever finds the folder.
    """

    def __init__(
        self, bench: Bench, order: Order, words: str, begins: Callable[[Item], None], reading: Callable[[int], None]
    ) -> None:
        self._bench, self._order, self._words, self._begins, self._reading = bench, order, words, begins, reading
        self._apt = Apt(bench, same_machine=order.same_machine)
        self._home = bench.partial / "home"
        self._wheels = bench.partial / WHEELS
        self._downloads: dict[str, Path] = {}

    def prepare(self) -> Manifest:
        """Fetch everything, and write down what there is. Raises NotPrepared."""
        without = left_out(self._order, knows_what_is_installed=self._apt.knows_what_is_installed)
        held = [item for item in self._order.plan.runnable if item.step.step not in without]
        with self._bench.writing():
            (self._home / ".gnupg").mkdir(parents=True, exist_ok=True)
            (self._home / ".gnupg").chmod(0o700)  # gpg complains otherwise
        self._apt.begin()
        for item in held:
            self._section(item)
        return self._written(held, without)

    def _section(self, item: Item) -> None:
        fetched = self._order.of(item)
        if fetched:
            self._begins(item)
        for line, fetch in fetched:
            self._line(line, fetch, item)

    def _line(self, line: str, fetch: Fetch, item: Item) -> None:
        if isinstance(fetch, Packages):
            self._apt.download(fetch)
        elif isinstance(fetch, Driver):
            self._apt.driver(fetch, dict(item.values).get("FLAVOUR", self._order.flavour), self._order.kernels.running)
        elif isinstance(fetch, Unpacked):
            self._apt.unpack(self._of_home(fetch.file))
        elif isinstance(fetch, Settings):
            self._apt.settings(line, fetch.path)
        elif isinstance(fetch, Download):
            self._run_at_home(line)
            self._downloads[fetch.name] = self._of_home(fetch.to)
        elif isinstance(fetch, Looked):
            self._run_at_home(line)
        elif isinstance(fetch, Wheels) and self._order.interpreter is not None:
            pip = wheels.found(self._bench, self._order.interpreter, same_machine=self._order.same_machine)
            wheels.download(self._bench, pip, fetch, self._wheels)

    def _of_home(self, path: str) -> Path:
        return self._home / path.removeprefix("~/")

    def _run_at_home(self, line: str) -> None:
        """The page's own line, with a home folder of its own and the target's answers to uname. Settings of the user's stay."""
        own = os.path.expanduser("~")
        home = {"HOME": self._bench.inside(self._home)}
        for name, file in (("WGETRC", ".wgetrc"), ("CURL_HOME", ".curlrc")):
            if name not in self._bench.environ and os.path.exists(f"{own}/{file}"):
                home[name] = own if name == "CURL_HOME" else f"{own}/{file}"
        self._bench.run(line, f"{_uname(self._order)}{line}", "machine", home)

    # ------------------------------------------------------------ what the bundle is

    def _written(self, held: Sequence[Item], without: Mapping[str, str]) -> Manifest:
        """Put everything in its place; the list of it comes last."""
        folder, (placed, archives) = self._bench.folder, self._apt.gathered()
        with self._bench.writing():
            moves = {place: path for path, place in placed}
            moves |= {f"{WHEELS}/{path.name}": path for path in sorted(self._wheels.glob("*.whl"))}
            moves |= {f"{FILES}/{name}": path for name, path in self._downloads.items()}
            files = manifest.measured(folder, (os.path.relpath(path, folder) for path in moves.values()), self._reading)
            listed = [manifest.File(place, file.size, file.sha256) for place, file in zip(moves, files, strict=True)]
            made = Manifest(
                prepared=manifest.now(),
                target=self._order.target,
                steps=tuple(Held(item.step.step, item.why, item.step.commands) for item in held),
                left_out=tuple(LeftOut(step, why) for step, why in without.items()),
                holds=tuple(
                    dict.fromkeys(word for item in held for _, fetch in self._order.of(item) for word in fetches.words(fetch))
                ),
                archives=tuple(archives),
                files=tuple(listed),
            )
            for place, path in moves.items():
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                path.replace(folder / place) if path.suffix in (".deb", ".whl") else shutil.copyfile(path, folder / place)
            (folder / "README.txt").write_text(self._words, encoding="utf-8")
            os.sync()
            manifest.write(folder, made)
        shutil.rmtree(self._bench.partial, ignore_errors=True)
        return made


def _uname(order: Order) -> str:
    told = {"-r": order.kernels.running, "-m": order.target.machine}
    answers = "".join(f"  {option}) printf '%s\\n' {shlex.quote(answer)} ;;\n" for option, answer in told.items())
    return f'uname() {{ case "$*" in\n{answers}  *) command uname "$@" ;;\nesac; }}\n'


def here(os_release: str) -> Here:
    """The machine that prepares, by the text of its os-release."""
    fields = {key: value.strip("\"'") for key, value in re.findall(r"^(\w+)=(.*)$", os_release, re.MULTILINE)}
    return Here(fields.get("ID", "linux"), fields.get("VERSION_ID", ""), os.uname().machine)
