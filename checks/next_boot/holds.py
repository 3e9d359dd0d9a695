"""Whether packages that are held back are the whole set: libraries and modules, and the kernel where the module fits one only."""

from __future__ import annotations

import re

from gpudoctor.facts import Package

from ..driver.machine import finding, seen
from ..place import upstream_branch
from ..words import listing
from .start import OF_ONE_KERNEL, Answer, Start, metapackages

# Ubuntu's packages of one branch. The fabric manager and what the container toolkit brings have versions of their own to follow.
_NUMBERED = re.compile(r"(?:lib)?nvidia-(?!fabricmanager|firmware|imex|nscq)[a-z][a-z0-9-]*?-(\d{3,4})(?:-server)?(?:-open)?")
_VIDEO = re.compile(r"xserver-xorg-video-nvidia-(\d{3,4})(?:-server)?")
_MODULES = re.compile(r"linux-modules-nvidia-(\d{3,4})-.+")


def whole(start: Start) -> Answer:
    """All of the set is held, or nothing of it."""
    mine = [package for package in start.machine.packages if _of_driver(start, package)]
    kernel = () if start.built_here else metapackages(start)
    held = {package.name for package in (*mine, *kernel) if package.held}
    # a name may be installed for two architectures; metapackages of the kernel depend on each other's version, so one holds all
    free = list(dict.fromkeys(package.name for package in mine if package.name not in held))
    if kernel and not any(package.held for package in kernel):
        free.append(kernel[0].name)
    if not held or not free:
        return None
    step = "driver#hold-driver" if start.machine.is_server else "driver#release-hold"
    return finding(
        "hold-incomplete",
        f"Only a part of the driver's packages is held back: {listing(sorted(held), 2)}, but not {listing(free, 2)}",
        "An upgrade, often an unattended one, moves the free part away from the held one, and the start after it has a module and "
        "libraries of two versions, or a kernel without a module. Hold the whole set or nothing. Where the machine is restarted "
        "now and then nothing is better: a hold keeps out security fixes too.",
        (seen("apt-mark showhold", listing(sorted(held), 6)), seen("/var/lib/dpkg/status", f"not held: {listing(free, 6)}")),
        start.machine.fix(step, BRANCH=start.machine.branch, FLAVOUR=start.flavour),
        severity="warn",
    )


def _of_driver(start: Start, package: Package) -> bool:
    """A part of the installed branch that has to keep step with the rest."""
    if OF_ONE_KERNEL.search(package.name):
        return False  # it stays what it is: the next kernel has its own
    match = _NUMBERED.fullmatch(package.name) or _VIDEO.fullmatch(package.name) or _MODULES.fullmatch(package.name)
    if match is None or match[1] != start.machine.branch.partition("-")[0]:
        return False
    # a transitional package bears an old name and the new version; modules have their kernel's
    return match.re is _MODULES or upstream_branch(package.version) in (None, int(match[1]))
