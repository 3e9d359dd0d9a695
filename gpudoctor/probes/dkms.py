"""For which kernels DKMS holds the NVIDIA module, from its tree in /var/lib/dkms; the ``dkms`` program is not asked.

The tree (dkms 2.8 and 3): MODULE/VERSION/KERNEL/ARCH/module/*.ko is a finished build, MODULE/kernel-KERNEL-ARCH a link to
the one that is installed, MODULE/VERSION/build/make.log the log of a build that failed (its first line names the kernel).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from gpudoctor.facts import DkmsBuild, Unknown
from gpudoctor.probes import links

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpudoctor.probes.scope import Scope

TREE = "/var/lib/dkms"
_NOT_THE_DRIVER = ("nvidia-fs", "nvidia-peermem")
_LOG_HEAD = re.compile(r"for kernel (?P<kernel>[\w.+~-]{1,128})")
_TELLING = re.compile(
    r"\b(?:fatal )?error:|\*\*\* |unrecognized command.line option|No such file or directory|command not found"
    r"|Killed|No space left|modpost: |Unable to determine|cannot be found",
    re.IGNORECASE,
)
_LOG_LIMIT = 4 << 20
_TELLING_LINES = 6


def builds(scope: Scope) -> tuple[DkmsBuild, ...] | Unknown:
    """One entry per version and kernel; a version that was built for no kernel has state "added" and an empty kernel."""
    modules = [name for name in scope.names(TREE) if name.startswith("nvidia") and name not in _NOT_THE_DRIVER]
    if not modules and links.exists(scope, TREE) and not os.access(scope.path(TREE), os.R_OK):
        return Unknown(f"{TREE} may not be read by this user")
    return tuple(build for module in modules for build in _of_module(scope, f"{TREE}/{module}"))


def _of_module(scope: Scope, folder: str) -> Iterator[DkmsBuild]:
    for version in scope.names(folder):
        if version[:1].isdigit() and links.exists(scope, f"{folder}/{version}"):
            yield from _of_version(scope, folder, links.printable(version))


def _of_version(scope: Scope, folder: str, version: str) -> Iterator[DkmsBuild]:
    found: dict[str, DkmsBuild] = {}
    for kernel in scope.names(f"{folder}/{version}"):
        for arch in scope.names(f"{folder}/{version}/{kernel}") if kernel not in ("build", "source") else ():
            built = _built(scope, folder, version, kernel, arch)
            if built is not None:
                found[kernel] = built
    failed = _failed(version, scope.text(f"{folder}/{version}/build/make.log", _LOG_LIMIT))
    if failed is not None:
        found.setdefault(failed.kernel, failed)
    yield from found.values() or [DkmsBuild(version, "", "added", None)]


def _built(scope: Scope, folder: str, version: str, kernel: str, arch: str) -> DkmsBuild | None:
    place = f"{folder}/{version}/{kernel}/{arch}"
    if any(".ko" in name for name in scope.names(f"{place}/module")):
        installed = _target(scope, f"{folder}/kernel-{kernel}-{arch}").startswith(f"{version}/")
        return DkmsBuild(version, links.printable(kernel), "installed" if installed else "built", None)
    log = scope.text(f"{place}/log/make.log", _LOG_LIMIT)
    return None if log is None else DkmsBuild(version, links.printable(kernel), "failed", telling_lines(log))


def _failed(version: str, log: str | None) -> DkmsBuild | None:
    """The build folder is removed after success: a log that still lies in it is that of a failure."""
    head = _LOG_HEAD.search(log[:400]) if log else None
    return DkmsBuild(version, head["kernel"], "failed", telling_lines(log)) if head and log else None


def telling_lines(log: str) -> str | None:
    """The first lines that name an error and the last ones of the log, at most six; None for an empty log."""
    lines = [line.strip()[:300] for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    return "\n".join((telling or lines)[:_TELLING_LINES]) or None


def _target(scope: Scope, path: str) -> str:
    try:
        target = os.readlink(scope.path(path))
    except OSError:
        return ""
    # relative as dkms writes it: VERSION/KERNEL/ARCH; an absolute one names the same folder
    return "/".join(target.rstrip("/").split("/")[-3:])
