"""What a line of a section fetches from a network, read from the line itself. Pure: text in, plain data out.

Lines are those of a step, with their values filled in. What is fetched is also told in words (``apt:gcc-12``,
``wheel:torch==2.8.0+cu126``), by which it is known whether a bundle holds it.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpudoctor.facts import Facts, Unknown

_WITH_VALUE = frozenset(
    {
        "--index-url",
        "--extra-index-url",
        "--find-links",
        "--python",
        "--reinstall-package",
        "--upgrade-package",
        "-o",
        "--option",
        "--target-release",
    }
)
_RUNNING = re.compile(r"\$\(uname -r\)")
_NEWEST = re.compile(r"\$\(linux-version list \| linux-version sort \| tail -n 1\)")
_SETTINGS = re.compile(r"\| sudo tee (/etc/apt/\S+)$")
_SPEAKS_OF_FILE = re.compile(r"~/[\w.-]+\.(?:deb|key)\b")
_OF_A_PROJECT = {
    "conda": "conda fetches by itself; conda's own offline mode needs its package cache (conda-pack moves a whole environment)",
    "pixi": "pixi fetches by itself; pixi-pack moves a whole environment",
    "poetry": "poetry resolves a project against its indexes; take the project's environment along, or use pip in a venv",
    "uv": "uv resolves a project for all platforms against its indexes; take its environment along, or use uv pip in a venv",
}


@dataclass(frozen=True, slots=True)
class Packages:
    """apt-get install. ``options`` are those that change what is chosen."""

    names: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Driver:
    """ubuntu-drivers install: the packages follow from the branch and the kernel."""

    branch: str
    compute_only: bool


@dataclass(frozen=True, slots=True)
class Wheels:
    """pip install, or uv pip install."""

    requirements: tuple[str, ...]
    index: str | None
    alone: bool
    """Without what they depend on."""


@dataclass(frozen=True, slots=True)
class Download:
    """wget or curl of one file; ``name`` is the last part of its address, ``to`` where the line puts it."""

    name: str
    to: str


@dataclass(frozen=True, slots=True)
class Unpacked:
    """dpkg --install of a file that was downloaded: it may bring an archive and its key."""

    file: str


@dataclass(frozen=True, slots=True)
class Settings:
    """apt's settings, which decide what it chooses; ``path`` begins with /etc/apt."""

    path: str


@dataclass(frozen=True, slots=True)
class Looked:
    """A look at a downloaded file that may end the section, such as at a key's fingerprint."""


@dataclass(frozen=True, slots=True)
class Beyond:
    """It fetches what no bundle can bring; ``why`` is a clause."""

    why: str


Fetch = Packages | Driver | Wheels | Download | Unpacked | Settings | Looked | Beyond


@dataclass(frozen=True, slots=True)
class Kernels:
    """What a machine answers to ``uname -r``, and its newest kernel, which ``linux-version`` names; empty where nobody knows."""

    running: str
    newest: str


def kernels(facts: Facts) -> Kernels:
    """Those of a machine."""
    running = "" if isinstance(facts.system, Unknown) else facts.system.kernel
    images = () if isinstance(facts.kernel, Unknown) else facts.kernel.images
    known = () if isinstance(images, Unknown) else images
    return Kernels(running, next((image.release for image in known if image.newest), running))


def of(lines: Iterable[str], kernels: Kernels) -> list[tuple[str, Fetch]]:
    """Each line that has to do with fetching, and what."""
    found: list[tuple[str, Fetch]] = []
    for line in lines:
        fetch = _of_line(_NEWEST.sub(lambda _: kernels.newest, _RUNNING.sub(lambda _: kernels.running, line)))
        if fetch is not None:
            found.append((line, fetch))
    return found


def words(fetch: Fetch) -> tuple[str, ...]:
    """What is fetched, in the words of a manifest; empty for what fetches nothing by itself."""
    if isinstance(fetch, Packages):
        return tuple(f"apt:{name}" for name in fetch.names)
    if isinstance(fetch, Driver):
        return (f"driver:{fetch.branch}{' (compute only)' if fetch.compute_only else ''}",)
    if isinstance(fetch, Wheels):
        return tuple(f"wheel:{requirement}" for requirement in fetch.requirements)
    if isinstance(fetch, Download):
        return (f"file:{fetch.name}",)
    return (f"beyond:{fetch.why}",) if isinstance(fetch, Beyond) else ()


def _of_line(line: str) -> Fetch | None:
    settings = _SETTINGS.search(line)
    if settings:
        return Settings(settings[1])
    said = shlex.split(line)
    as_root = said[:1] == ["sudo"]
    said = said[as_root:]
    if said[0] == "apt-get" and "install" in said and not {"-s", "--simulate"} & set(said):
        return _packages(said[said.index("install") + 1 :])
    if said[:2] == ["ubuntu-drivers", "install"]:
        branch = next((word.removeprefix("nvidia:") for word in said if word.startswith("nvidia:")), "")
        return Driver(branch, "--gpgpu" in said)
    if said[0] in ("wget", "curl"):
        return _download(said)
    if said[:2] == ["dpkg", "--install"]:
        return Unpacked(said[2])
    if said[1:4] == ["-m", "pip", "install"]:
        return _wheels(said[4:])
    if said[:3] == ["uv", "pip", "install"]:
        return _wheels(said[3:])
    if _is_of_a_project(said):
        return Beyond(_OF_A_PROJECT[said[0]])
    return Looked() if not as_root and _SPEAKS_OF_FILE.search(line) else None


def _is_of_a_project(said: Sequence[str]) -> bool:
    verbs = {"conda": {"install", "create"}, "pixi": {"add", "install"}, "poetry": {"add", "install"}, "uv": {"add", "sync"}}
    return bool(verbs.get(said[0], set()) & set(said[1:4]))


def _packages(said: Sequence[str]) -> Packages:
    """--only-upgrade is left out: on a machine that is not this one nothing is known to be installed."""
    names, options = _told(said)
    return Packages(names, tuple(option for option in options if option in ("--reinstall", "--allow-downgrades", "--fix-broken")))


def _wheels(said: Sequence[str]) -> Fetch:
    requirements, options = _told(said)
    if "--no-build-isolation" in options:
        return Beyond("it is compiled on the machine itself, from a source that may fetch more")
    index = said[said.index("--index-url") + 1] if "--index-url" in said else None
    return Wheels(requirements, index, "--no-deps" in options)


def _told(said: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what is asked for, options)."""
    named: list[str] = []
    options: list[str] = []
    value = False
    for word in said:
        if value:
            value = False
        elif word.startswith("-"):
            options.append(word)
            value = word in _WITH_VALUE
        else:
            named.append(word)
    return tuple(named), tuple(options)


def _download(said: Sequence[str]) -> Download:
    to = next(word for option, word in itertools.pairwise(said) if option in ("--output-document", "--output"))
    address = next(word for word in said if word.startswith(("http://", "https://")))
    return Download(address.rpartition("/")[2], to)
