"""The next start as the questions about it see it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpudoctor.facts import KernelImage, NextBoot, Package, Unknown
from gpudoctor.findings import Finding

from ..driver.machine import Machine
from ..place import kernel_flavour

Answer = Finding | Unknown | None
"""What a question comes to: a finding, what could not be known, or nothing to say."""

OF_ONE_KERNEL = re.compile(r"\d+\.\d+\.\d+-\d")
"""In the name of a package that belongs to a single kernel."""
_SERIES = re.compile(r"(\d+\.\d+)\.")


@dataclass(frozen=True, slots=True)
class Start:
    """A machine, the kernel that it boots next, and what /lib/modules has for that kernel."""

    machine: Machine
    boot: NextBoot
    release: str
    image: KernelImage

    @property
    def has_module(self) -> bool:
        """There is a module for this kernel: it makes sense to ask about it."""
        return self.image.module_path is not None

    @property
    def built_here(self) -> bool:
        """DKMS builds the module on this machine. What comes from the archive lies below kernel/."""
        return self.machine.needs_dkms and "/kernel/" not in (self.image.module_path or "")

    @property
    def packages_known(self) -> bool:
        """Somebody could read which packages are installed."""
        return self.machine.driver is not None and not isinstance(self.machine.driver.packages, Unknown)

    @property
    def flavour(self) -> str:
        """What ends the names of the metapackages that follow this kernel."""
        mine, system = metapackages(self), self.machine.system
        if mine:
            return modules_flavour(mine[0])
        return (kernel_flavour(self.release, system.os_id, system.os_version) if system else None) or suffix(self.release)


def start_of(machine: Machine) -> Start | Unknown:
    """The next start of this machine, as far as it is known."""
    boot = machine.facts.next_boot
    if isinstance(boot, Unknown):
        return boot
    if isinstance(boot.kernel, Unknown):
        return boot.kernel
    if machine.kernel is None or isinstance(machine.kernel.images, Unknown):
        return Unknown(f"the modules of {boot.kernel}, which boots next, could not be looked at")
    image = next((image for image in machine.images if image.release == boot.kernel), None)
    if image is None:
        return Unknown(f"/lib/modules has no folder for {boot.kernel}, which boots next, or too many others")
    return Start(machine, boot, boot.kernel, image)


def suffix(release: str) -> str:
    """generic of 6.8.0-41-generic, amd64 of 6.1.0-13-amd64; empty where a release has another form."""
    parts = release.split("-", 2)
    return parts[2] if len(parts) == 3 else ""


def metapackages(start: Start) -> tuple[Package, ...]:
    """The installed metapackages that bring new kernels of this one's flavour; of its own series where one is.

    Ubuntu 22.04 has linux-generic (5.15) and linux-generic-hwe-22.04 (newer ones) for kernels of one suffix.
    """
    fitting = tuple(package for package in start.machine.packages if _fits(package.name, suffix(start.release)))
    series = _SERIES.match(start.release)
    own = tuple(p for p in fitting if series and (of := _SERIES.match(p.version)) and of[1] == series[1])
    return own or fitting


def modules_flavour(package: Package) -> str:
    """linux-image-virtual-hwe-22.04 brings the generic kernel: its modules and headers are called generic-hwe-22.04."""
    name = _name(package.name)
    return f"generic{name.removeprefix('virtual')}" if name.startswith("virtual") else name


def _name(package: str) -> str:
    return package.removeprefix("linux-").removeprefix("image-")


def _fits(package: str, wanted: str) -> bool:
    if not wanted or not package.startswith("linux-") or OF_ONE_KERNEL.search(package):
        return False
    name = _name(package)
    if name.startswith(("headers", "modules", "objects", "signatures", "tools", "unsigned", "extra")):
        return False
    names = (wanted, "virtual") if wanted == "generic" else (wanted,)
    return any(name == one or name.startswith(f"{one}-") for one in names)
