"""What is installed, from the metadata beside it: names, versions, requirements and files of Python packages; nothing is run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from gpudoctor.facts import Interpreter, Pin
from gpudoctor.probes.scope import Scope

_METADATA_LIMIT = 1 << 20
_FOLDER = re.compile(r"^(?P<name>[A-Za-z0-9._]+?)-(?P<version>[^-]+)(?:-py[\d.]+)?(?:-[^-]+)?\.(?:dist|egg)-info$")
_PINNED = ("nvidia-", "triton", "pytorch-triton", "cuda-toolkit", "cuda-bindings")
# what ``import torch`` opens before anything else
_ESSENTIAL = re.compile(rb"^(torch/(?:__init__\.py|version\.py|_C\.[^/,]*so|lib/lib[^,/]*\.so[^,/]*)),", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Metadata:
    """One metadata folder (or file) of a distribution."""

    name: str
    version: str
    folder: str
    installer: str | None


def names(name: str, place: str) -> tuple[str, ...]:
    """The metadata folders of the distribution in a site-packages folder, sorted."""
    wanted = canonicalize_name(name)
    try:
        entries = sorted(os.listdir(place))
    except OSError:
        return ()
    matches = ((entry, _FOLDER.match(entry)) for entry in entries if entry.endswith("-info"))
    return tuple(entry for entry, match in matches if match and canonicalize_name(match["name"]) == wanted)


def of(name: str, places: Iterable[str], scope: Scope) -> tuple[Metadata, ...]:
    """All metadata of the distribution, in the order of the search path."""
    return tuple(
        _metadata(name, os.path.join(place, entry), scope)
        for place in dict.fromkeys(os.path.realpath(place) for place in places)
        for entry in names(name, place)
    )


def installed_version(name: str, place: str) -> str | None:
    """The version of an nvidia wheel in a site-packages folder.

    ``name`` is short: cudnn stands for nvidia_cudnn_cu12, nvidia_cudnn_cu13 and nvidia_cudnn.
    """
    wanted = re.compile(rf"nvidia_{name.replace('-', '_')}(?:_cu\d+)?-([^-]+)\.dist-info")
    try:
        found = sorted(match[1] for match in map(wanted.fullmatch, os.listdir(place)) if match)
    except OSError:
        return None
    return found[0] if found else None


def in_use(metadata: tuple[Metadata, ...], folder: os.PathLike[str], version: str | None) -> Metadata | None:
    """The metadata that belongs to the code in ``folder``: beside it, and of the version that the code states."""
    place = os.path.realpath(os.path.dirname(os.fspath(folder)))
    beside = [item for item in metadata if os.path.dirname(item.folder) == place] or list(metadata)
    same = [item for item in beside if version is not None and _public(item.version) == _public(version)]
    return next(iter(same or beside), None)


def duplicates(metadata: tuple[Metadata, ...], used: Metadata | None, target: Interpreter, scope: Scope) -> tuple[str, ...]:
    """Metadata of a further PyTorch: another folder, or conda's record of one that pip has since replaced."""
    further = [f"{item.version} ({os.path.basename(item.folder)})" for item in metadata if item != used]
    if used is not None and used.installer == "conda":
        return tuple(further)
    for name in scope.names(f"{target.prefix}/conda-meta"):
        match = re.match(r"^(?:pytorch|torch)-(\d[^-]*)-[^-]*\.json$", name)
        # conda's own install without an INSTALLER file (an egg-info) is the one in use, not another
        if match and not (used is not None and used.installer is None and _public(used.version) == _public(match[1])):
            further.append(f"{match[1]} (conda-meta/{name})")
    return tuple(further)


def essential_files(used: Metadata, scope: Scope) -> tuple[str, ...]:
    """Paths, relative to site-packages, that RECORD lists and without which PyTorch cannot start."""
    record = scope.data(os.path.join(used.folder, "RECORD")) or b""
    return tuple(match[1].decode("utf-8", "replace") for match in _ESSENTIAL.finditer(record))


def pins(used: Metadata, target: Interpreter, scope: Scope) -> tuple[Pin, ...]:
    """The nvidia-*, triton and cuda-toolkit requirements that hold for the target interpreter, and what is installed.

    A requirement with extras (cuda-toolkit[cublas,...]) stands for those of its own metadata, to any depth.
    """
    marker = _markers(target)
    versions = _installed(target.site_packages, scope)
    found: dict[str, Pin] = {}
    waiting = [(used.folder, frozenset[str]())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        folder, extras = waiting.pop(0)
        if (folder, extras) in seen or len(seen) > 20:
            continue
        seen.add((folder, extras))
        for requirement in requirements(folder, scope):
            name = canonicalize_name(requirement.name)
            if not name.startswith(_PINNED) or not _holds(requirement, marker, extras):
                continue
            installed = versions.get(name)
            found.setdefault(name, _pin(name, requirement, installed[0] if installed else None))
            if installed and requirement.extras:
                waiting.append((installed[1], frozenset(requirement.extras)))
    return tuple(found.values())


def requirements(folder: str, scope: Scope) -> Iterator[Requirement]:
    """The Requires-Dist entries of a metadata folder; what is no requirement is left out."""
    name = "METADATA" if folder.endswith(".dist-info") else "PKG-INFO"
    for line in header(scope.text(os.path.join(folder, name), _METADATA_LIMIT) or ""):
        key, _, value = line.partition(":")
        if key.lower() == "requires-dist":
            try:
                yield Requirement(value.strip())
            except InvalidRequirement:
                continue


def header(text: str) -> list[str]:
    """The header lines of a METADATA file: those before the first empty one."""
    lines = text.splitlines()
    return lines[: lines.index("")] if "" in lines else lines


def _metadata(name: str, folder: str, scope: Scope) -> Metadata:
    match = _FOLDER.match(os.path.basename(folder))
    installer = (scope.text(os.path.join(folder, "INSTALLER"), 256) or "").strip()
    return Metadata(name, match["version"] if match else "", folder, installer or None)


def _installed(places: Iterable[str], scope: Scope) -> dict[str, tuple[str, str]]:
    """Canonical name -> (version, metadata folder); the first on the path counts."""
    versions: dict[str, tuple[str, str]] = {}
    for place in places:
        for entry in scope.names(place):
            match = _FOLDER.match(entry) if entry.endswith("-info") else None
            if match:
                name = canonicalize_name(match["name"])
                versions.setdefault(name, (match["version"], os.path.join(place, entry)))
    return versions


def _pin(name: str, requirement: Requirement, installed: str | None) -> Pin:
    satisfied = installed is not None and _satisfies(installed, requirement)
    return Pin(name=name, wanted=str(requirement.specifier), installed=installed, satisfied=satisfied)


def _satisfies(installed: str, requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(Version(installed), prereleases=True)
    except InvalidVersion:
        return False


def _holds(requirement: Requirement, marker: dict[str, str], extras: frozenset[str]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({**marker, "extra": extra}) for extra in (extras or {""}))


def _markers(target: Interpreter) -> dict[str, str]:
    """The environment markers (PEP 508) of the target interpreter, not of ours."""
    return {
        "implementation_name": "cpython",
        "implementation_version": target.version,
        "os_name": "posix",
        "platform_machine": target.machine,
        "platform_python_implementation": "PyPy" if target.tag.startswith("pp") else "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": target.version,
        "python_version": ".".join(target.version.split(".")[:2]),
        "sys_platform": "linux",
    }


def _public(version: str) -> str:
    return version.partition("+")[0]
