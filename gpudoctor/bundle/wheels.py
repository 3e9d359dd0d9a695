"""pip's part of a bundle: wheels for the offline machine's Python, with all that they depend on there.

pip fetches for another Python than the one that runs it, but it judges what a wheel depends on ("; python_version < ...") by the
one that runs it. So what it brought is gone through by the markers of the Python that is meant, and what is missing is fetched
as well, until nothing is.
"""

from __future__ import annotations

import re
import shlex
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from gpudoctor.bundle.bench import Bench, NotPrepared
from gpudoctor.bundle.fetches import Wheels
from gpudoctor.facts import Interpreter
from gpudoctor.report.words import shortened

ROUNDS = 8
_OLDEST = {"x86_64": 5, "aarch64": 17}
"""The glibc 2.x of the oldest manylinux tag of each machine (PEP 513, PEP 599)."""
_NAMED = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True, slots=True)
class Pip:
    """A pip that can be run here, and the Python that the wheels are for."""

    program: str
    target: Interpreter


def found(bench: Bench, target: Interpreter, *, same_machine: bool) -> Pip:
    """The first Python here that has a pip: the one that the wheels are for, our own, the one on PATH. Raises NotPrepared."""
    own = [target.path] if same_machine else []
    for python in dict.fromkeys([*own, sys.executable, "python3"]):
        if bench.ask(shlex.join([python, "-m", "pip", "--version"]), "environment").exit_code == 0:
            return Pip(python, target)
    raise NotPrepared(
        "No Python here has pip, and pip has to fetch the wheels (uv cannot download them). Install it "
        f"(sudo apt-get install python3-pip), or run gpudoctor from a venv. {bench.again()}"
    )


def platforms(target: Interpreter) -> tuple[str, ...]:
    """The platform tags of wheels that this Python takes, best first; empty where its C library is not known."""
    match = re.fullmatch(r"2\.(\d+)", target.glibc or "")
    if match is None or target.machine not in _OLDEST:
        return ()
    tags: list[str] = []
    for minor in range(int(match[1]), _OLDEST[target.machine] - 1, -1):
        tags.append(f"manylinux_2_{minor}_{target.machine}")
        if minor in _NAMED:
            tags.append(f"{_NAMED[minor]}_{target.machine}")
    return (*tags, f"linux_{target.machine}")


def download(bench: Bench, pip: Pip, wheels: Wheels, folder: Path) -> None:
    """Fetch these into ``folder`` with what they depend on. Raises NotPrepared."""
    with bench.writing():
        folder.mkdir(parents=True, exist_ok=True)
    asked, missing = list(wheels.requirements), []
    for _ in range(ROUNDS):
        _fetch(bench, pip, [*asked], wheels, folder)
        with bench.writing():
            missing = [] if wheels.alone else sorted(lacking(folder, wheels.requirements, pip.target))
        if not missing:
            return
        asked += [word for word in missing if word not in asked]
    raise NotPrepared(f"pip does not bring {', '.join(missing)}, which {', '.join(wheels.requirements)} needs. {bench.again()}")


def _fetch(bench: Bench, pip: Pip, asked: Sequence[str], wheels: Wheels, folder: Path) -> None:
    shown = ["pip", "download", *(["--no-deps"] if wheels.alone else []), *asked]
    shown += ["--index-url", wheels.index] if wheels.index else []
    target = pip.target
    chosen = ["--only-binary=:all:", "--implementation", "cp", "--abi", target.tag, "--python-version", _number(target)]
    chosen += [word for tag in platforms(target) for word in ("--platform", tag)]
    words = [pip.program, "-m", *shown[:2], "--dest", str(folder), *chosen, *shown[2:]]
    bench.run(shlex.join(shown), shlex.join(words), "environment", {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})


# ------------------------------------------------------------ whether it is all there


def lacking(folder: Path, requirements: Iterable[str], target: Interpreter) -> set[str]:
    """What these requirements need on that Python and no wheel of the folder satisfies; raises OSError."""
    wheels = _wheels(folder)
    environment = environment_of(target)
    missing: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(word) for word in requirements]
    while waiting:
        wanted = waiting.pop()
        fitting = [path for version, path in wheels.get(canonicalize_name(wanted.name), []) if _fits(wanted, version)]
        if not fitting:
            missing.add(str(Requirement(f"{wanted.name}{_extras(wanted)}{wanted.specifier}")))
            continue
        for path in fitting:
            key = (path.name, frozenset(wanted.extras))
            if key not in seen:
                seen.add(key)
                waiting += _needs(path, wanted.extras, environment)
    return missing


def environment_of(target: Interpreter) -> dict[str, str]:
    """The values of markers on that Python (PEP 508)."""
    number = _number(target)
    python = ".".join(number.split(".")[:2])
    given = {name: str(value) for name, value in default_environment().items()}
    given["python_version"], given["python_full_version"], given["implementation_version"] = python, number, number
    given["implementation_name"], given["platform_python_implementation"] = "cpython", "CPython"
    given["os_name"], given["sys_platform"], given["platform_system"] = "posix", "linux", "Linux"
    given["platform_machine"], given["platform_release"], given["platform_version"] = target.machine, "", ""
    return given


def _number(target: Interpreter) -> str:
    """The version as pip takes it: digits and dots alone."""
    match = re.match(r"\d+(?:\.\d+){1,2}", target.version)
    return match[0] if match else target.version


def _fits(wanted: Requirement, version: Version) -> bool:
    return wanted.url is None and wanted.specifier.contains(version, prereleases=True)


def _extras(wanted: Requirement) -> str:
    return f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""


def _wheels(folder: Path) -> dict[str, list[tuple[Version, Path]]]:
    """Every wheel by its name. One that is cut short is removed: it counts as missing, and is fetched again."""
    known: dict[str, list[tuple[Version, Path]]] = {}
    for path in sorted(folder.glob("*.whl")):
        try:
            name, version, _, _ = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if not zipfile.is_zipfile(path):
            path.unlink()
            continue
        known.setdefault(name, []).append((version, path))
    return known


def _needs(path: Path, extras: Iterable[str], environment: dict[str, str]) -> Iterator[Requirement]:
    """What a wheel's METADATA requires there."""
    with zipfile.ZipFile(path) as archive:
        name = next(entry for entry in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", entry))
        lines = HeaderParser().parsestr(archive.read(name).decode("utf-8", "replace")).get_all("Requires-Dist", [])
    for line in lines:
        try:
            needed = Requirement(line)
        except InvalidRequirement as error:
            raise NotPrepared(f"{path.name} requires {shortened(line)!r}, which cannot be read: {error}") from error
        marker = needed.marker
        if marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)):
            yield needed
