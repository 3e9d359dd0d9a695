"""Whether the module comes along when an upgrade brings the next kernel."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gpudoctor.facts import Package, Unknown
from gpudoctor.findings import Evidence, Finding, Fix

from ..driver.machine import finding, seen
from ..words import listing
from . import module
from .start import Answer, Start, metapackages, modules_flavour

_PREBUILT = re.compile(r"linux-modules-nvidia-(\d{3,4})(?:-server)?(?:-open)?-(.+)")


def followed(start: Start) -> Answer:
    """What moves the kernel moves the module (or the headers that DKMS needs) too."""
    if not start.packages_known:
        return Unknown("which packages move the kernel and its module: this machine's packages cannot be read")
    moving = _moving(start)
    if not moving or _follow(start, moving) or _cured_by_others(start):
        return None
    what = "the headers that DKMS needs" if start.built_here else "the module"
    return finding(
        "module-does-not-follow-kernel",
        f"{moving[0].name} brings new kernels, and no package brings {what} along",
        "The next kernel upgrade comes without a module, and the restart after it without the GPU. It works today because what "
        f"kernel {start.release} needs was installed for that kernel alone. The metapackage of the same flavour follows upgrades.",
        (seen("/var/lib/dpkg/status", f"{moving[0].name} {moving[0].version}"), _instead(start)),
        _cure(start),
        severity="warn",
    )


def words(start: Start, answers: Sequence[Answer]) -> str:
    """Whether upgrades keep it so, for the line of a machine that is well; empty where a finding says more."""
    if any(isinstance(answer, Finding) for answer in answers):
        return ""
    if not metapackages(start):
        return "no metapackage moves this kernel"
    if not _moving(start):
        return "the kernel is held"
    return "headers and metapackages follow" if start.built_here else "metapackages follow"


def _moving(start: Start) -> tuple[Package, ...]:
    """The metapackages that will bring another kernel: none where one is held, since they depend on each other's version."""
    mine = metapackages(start)
    return () if any(package.held for package in mine) else mine


def _follow(start: Start, moving: tuple[Package, ...]) -> bool:
    names = {package.name for package in start.machine.packages}
    flavours = {modules_flavour(package) for package in moving}
    number = start.machine.branch.partition("-")[0]
    if not start.built_here and any(match[1] == number and match[2] in flavours for match in _prebuilt(start)):
        return True
    # linux-generic depends on linux-image-generic and linux-headers-generic
    whole = any(not package.name.startswith("linux-image-") for package in moving)
    return start.machine.needs_dkms and (whole or any(f"linux-headers-{flavour}" in names for flavour in flavours))


def _cured_by_others(start: Start) -> bool:
    """Another finding's cure brings the metapackage along: that of a module that is missing, or of headers that are."""
    return isinstance(module.there(start) or module.equal(start) or module.headers(start), Finding)


def _prebuilt(start: Start) -> list[re.Match[str]]:
    return [match for package in start.machine.packages if (match := _PREBUILT.fullmatch(package.name))]


def _instead(start: Start) -> Evidence | None:
    """What is installed in place of it: modules of another flavour, or for single kernels."""
    names = [match[0] for match in _prebuilt(start)]
    return seen("/var/lib/dpkg/status", f"installed are {listing(names, 3)}") if names and not start.built_here else None


def _cure(start: Start) -> Fix:
    machine = start.machine
    if machine.driver is not None and machine.driver.runfile and not start.built_here:
        return machine.fix("driver#remove-runfile-driver", BRANCH=machine.branch)
    if start.built_here:
        return machine.fix("kernel-modules#follow-with-headers", FLAVOUR=start.flavour)
    return machine.fix("kernel-modules#follow-the-kernel", BRANCH=machine.branch, FLAVOUR=start.flavour)
