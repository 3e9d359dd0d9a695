"""Where we are: who may act here, which kernel flavour and driver branch apt knows, whose driver this is.

A cure fits the place and the person: nothing is repaired inside a container that is broken on its host, nobody without
sudo is told to use it, and a vendor's own driver is never replaced by a stock one. The driver check and its fixes read
all of that from one ``Place``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpudoctor.facts import Driver, Facts, Nvml, Package, System, Unknown
from gpudoctor.knowledge import kernels

# Ubuntu's own ABI numbers have up to four digits; mainline builds (6.9.3-060903-generic) have no packages beside them
_UBUNTU_KERNEL = re.compile(r"^\d+\.\d+\.\d+-\d{1,4}-([a-z][a-z0-9-]*)$")
_CLOUD_FLAVOURS = ("aws", "azure", "gcp", "gke", "oracle", "ibm")
_CLOUD_PRODUCTS = (
    ("Amazon EC2", "aws"),
    ("Google Compute Engine", "gcp"),
    ("Microsoft Corporation Virtual Machine", "azure"),
    ("OracleCloud", "oracle"),
    ("Alibaba Cloud", "alibaba"),
)
_LAPTOP = re.compile(r"\b(Laptop|Mobile|Max-Q|Notebook|ThinkPad|ZenBook|MacBook|Latitude|XPS 1[3-7])\b", re.IGNORECASE)
_MODULES = re.compile(
    r"^(?:nvidia-driver|nvidia-headless-no-dkms|nvidia-headless|nvidia-dkms|nvidia-kernel-source|linux-modules-nvidia)"
    r"-(\d{3,4})(-server)?(-open)?(?:-|$)"
)
_LIBRARIES = re.compile(r"^(?:libnvidia-compute|nvidia-compute-utils|nvidia-utils|nvidia-kernel-common)-(\d{3,4})(-server)?$")
# NVIDIA's own repository: https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/version-locking.html
_UNNUMBERED = {
    "nvidia-open": "-open",
    "nvidia-dkms-open": "-open",
    "cuda-drivers": "",
    "nvidia-dkms": "",
    "nvidia-driver": "",
    "nvidia-driver-cuda": "",
    "libnvidia-compute": "",
}
_NUMBERED_BY_NVIDIA = re.compile(r"^(nvidia-open|cuda-drivers)-(\d{3,4})$")


@dataclass(frozen=True, slots=True)
class Place:
    """What a cure has to fit. None stands for "not so" or "not known"; nothing is decided by it alone."""

    container: str | None
    wsl: int
    vendor: str | None
    """Whose driver this is, as words that follow "the driver of": a Jetson, DGX OS, a vGPU guest; None for a stock driver."""
    cloud: str | None
    """aws, azure, gcp, oracle, alibaba: no screen and no keyboard at boot."""
    laptop: bool
    scheduler: str | None
    may_sudo: bool | None
    kernel: str
    """uname -r; empty when unknown."""
    flavour: str | None
    """The ending of this kernel's metapackages (generic-hwe-22.04, aws); None for a kernel that is not Ubuntu's."""
    branch: str | None
    """The installed driver as apt spells it: 535, 580-open, 580-server-open."""


def in_wsl(facts: Facts) -> bool:
    """In WSL the driver is that of Windows, with versions of its own."""
    return isinstance(facts.system, System) and facts.system.wsl > 0


def place_of(facts: Facts) -> Place:
    """The place that these facts describe."""
    system = None if isinstance(facts.system, Unknown) else facts.system
    packages = installed_packages(facts.driver)
    return Place(
        container=system.container if system else None,
        wsl=system.wsl if system else 0,
        vendor=_vendor(system, facts.nvml, packages),
        cloud=_cloud(system),
        laptop=_is_laptop(facts, system),
        scheduler=system.scheduler if system else None,
        may_sudo=None if system is None or isinstance(system.user.may_sudo, Unknown) else system.user.may_sudo,
        kernel=system.kernel if system else "",
        flavour=kernel_flavour(system.kernel, system.os_id, system.os_version) if system else None,
        branch=apt_branch(packages),
    )


def kernel_flavour(kernel: str, os_id: str, os_version: str) -> str | None:
    """How the metapackages that follow this kernel end; None when it is not one of Ubuntu's kernels.

    6.2.0-26-generic on 22.04 is generic-hwe-22.04, 5.15.0-91-generic is generic, 6.5.0-1014-aws is aws.
    """
    match = _UBUNTU_KERNEL.match(kernel)
    if os_id != "ubuntu" or match is None:
        return None
    known = kernels.flavour(os_version, kernel)
    return known.name if known else match.group(1)


def installed_packages(driver: Driver | Unknown) -> tuple[Package, ...]:
    """The packages whose files are in place; what was removed, or never finished installing, is left out."""
    if isinstance(driver, Unknown) or isinstance(driver.packages, Unknown):
        return ()
    return tuple(package for package in driver.packages if package.state == "installed")


def apt_branch(packages: tuple[Package, ...]) -> str | None:
    """The installed driver branch with the suffixes of its package names; of several the newest. None without a driver."""
    named = [spelling for package in packages if (spelling := _spelling(package)) is not None]
    if not named:
        return None
    number = max(number for number, _, _ in named)
    mine = [(server, is_open) for found, server, is_open in named if found == number]
    server = "-server" if any(server for server, _ in mine) else ""
    return f"{number}{server}{'-open' if any(is_open for _, is_open in mine) else ''}"


def upstream_branch(version: str) -> int | None:
    """The branch number that a package version starts with: 535.183.01-0ubuntu0.22.04.1 -> 535, 1:580.95 -> 580."""
    match = re.match(r"(?:\d+:)?(\d{3,4})\.\d", version)
    return int(match.group(1)) if match else None


def _spelling(package: Package) -> tuple[int, bool, bool] | None:
    """(number, server, open) of one package of the driver; None for any other and for a transitional one."""
    if package.name in _UNNUMBERED:
        number = upstream_branch(package.version)
        return None if number is None else (number, False, bool(_UNNUMBERED[package.name]))
    nvidia = _NUMBERED_BY_NVIDIA.match(package.name)
    if nvidia:
        return int(nvidia.group(2)), False, nvidia.group(1) == "nvidia-open"
    match = _MODULES.match(package.name) or _LIBRARIES.match(package.name)
    if match is None:
        return None
    number = int(match.group(1))
    own = upstream_branch(package.version)
    # nvidia-driver-535 of version 550.x only leads to its successor; modules for a kernel carry that kernel's version
    if own not in (None, number) and not package.name.startswith("linux-modules-"):
        return None
    is_open = match.re is _MODULES and bool(match.group(3))
    return number, bool(match.group(2)), is_open


def _vendor(system: System | None, nvml: Nvml | Unknown, packages: tuple[Package, ...]) -> str | None:
    if system and system.platform == "jetson":
        return "a Jetson"
    if system and system.platform == "dgx":
        return "DGX OS"
    guest = not isinstance(nvml, Unknown) and any(gpu.virtualization == "vgpu" for gpu in nvml.gpus)
    if guest or any("-grid" in package.name for package in packages):
        return "a vGPU guest"
    return None


def _cloud(system: System | None) -> str | None:
    if system is None:
        return None
    for words, cloud in _CLOUD_PRODUCTS:
        if words in (system.product or ""):
            return cloud
    match = _UBUNTU_KERNEL.match(system.kernel)
    flavour = match.group(1).partition("-")[0] if match else ""
    return flavour if flavour in _CLOUD_FLAVOURS else None


def _is_laptop(facts: Facts, system: System | None) -> bool:
    names = [(system.product if system else None) or ""]
    names += [] if isinstance(facts.pci, Unknown) else [device.name or "" for device in facts.pci]
    names += [] if isinstance(facts.nvml, Unknown) else [g.name for g in facts.nvml.gpus if isinstance(g.name, str)]
    return any(_LAPTOP.search(name) for name in names)
