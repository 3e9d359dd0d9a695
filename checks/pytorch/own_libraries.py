"""The CUDA libraries that PyTorch brings, and the copies of them that stand before or beside its own.

cuDNN and NCCL have checks of their own, which judge by the same means: whose copy the loader takes, what says so, and
what takes a foreign copy out of the way.
"""

from __future__ import annotations

from gpudoctor.facts import Facts, LibraryCopy, Resolution, Torch, Unknown
from gpudoctor.findings import Evidence, Finding, Fix

from ..words import listing
from . import cure

_OWN = ("wheel", "torch", "conda")
_OF_THE_SYSTEM = ("system", "toolkit")


def line(facts: Facts, kind: str, resolved: Resolution | None, *, unversioned: str) -> str:
    """The library in the one line of its check when all is well; ``unversioned`` are the words where no version is known."""
    if resolved and resolved.taken and resolved.own and resolved.taken != resolved.own:
        taken = f"{resolved.taken_version or 'a copy'} at {resolved.taken}"
        return f"{taken} is taken instead of PyTorch's own{f' {resolved.own_version}' if resolved.own_version else ''}; it fits"
    version = next(iter(_versions(facts, kind, _OWN)), None) or (resolved.own_version if resolved else None)
    others = _versions(facts, kind, _OF_THE_SYSTEM)
    beside = f"; the system's {listing(others)} is not used" if others else "; none of the system is needed"
    return f"{version}, PyTorch's own{beside}" if version else f"{unversioned}{beside}"


def takes_another(found: Resolution, name: str, own: str | None) -> str:
    """The summary of a finding: a foreign copy of the library ``name`` stands before PyTorch's own, of version ``own``."""
    return f"{found.taken_by or 'The loader'} puts {name} {found.taken_version} before PyTorch's own {own}"


def both_copies(found: Resolution) -> tuple[Evidence, Evidence]:
    """The copy that the loader takes, and PyTorch's own."""
    return (
        Evidence(found.taken_by or "the loader", f"{found.soname} -> {found.taken} ({found.taken_version})"),
        Evidence("PyTorch's own", f"{found.own} ({found.own_version})"),
    )


def off_the_path(found: Resolution) -> Fix:
    """Take the folder of the foreign copy off the loader's path."""
    return _unset_path((found.taken or "").rpartition("/")[0])


def own_copy_again(facts: Facts, torch: Torch) -> Fix:
    """For a foreign copy that nobody has seen: LD_LIBRARY_PATH goes where there is one, else the same build comes again."""
    path = facts.variable("LD_LIBRARY_PATH")
    return _unset_path(path) if path else cure.reinstall(facts, torch)


def not_on_the_system(facts: Facts, kind: str, finding: Finding) -> tuple[Finding, ...]:
    """``finding`` where ``--require`` asked for a copy outside PyTorch and there is none."""
    if isinstance(facts.libraries, Unknown) or _copies(facts, kind, (*_OF_THE_SYSTEM, "LD_LIBRARY_PATH")):
        return ()
    return (finding,)


def _unset_path(folder: str) -> Fix:
    return Fix("pytorch#unset-library-path", (("DIRECTORY", folder),))


def _copies(facts: Facts, kind: str, origins: tuple[str, ...]) -> tuple[LibraryCopy, ...]:
    """The copies of cuDNN or NCCL that come from there."""
    known = () if isinstance(facts.libraries, Unknown) else facts.libraries
    return tuple(copy for copy in known if copy.kind == kind and copy.origin in origins)


def _versions(facts: Facts, kind: str, origins: tuple[str, ...]) -> tuple[str, ...]:
    found = (copy.version for copy in _copies(facts, kind, origins) if isinstance(copy.version, str))
    return tuple(dict.fromkeys(found))
