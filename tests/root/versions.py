"""The versions that the archives of this world have. Time passes once: what is NEW lies in the archive of updates."""

from __future__ import annotations

OLD, NEW = 0, 1
KERNELS = ("6.8.0-40-generic", "6.8.0-45-generic")
FLAVOUR = "generic-hwe-22.04"
COMPILER = "gcc-12"
DRIVERS = {535: ("535.183.01", "535.309.01"), 580: ("580.95.05", "580.178.04")}
SPELLINGS = tuple(f"{number}{server}{flavour}" for number in DRIVERS for server in ("", "-server") for flavour in ("", "-open"))
FROM_NVIDIA = {580: "580.200.01", 615: "615.71.09"}
CUDA = "13-0"
"""As the toolkit's package has it; its folder has a dot."""


def kernel_package(age: int) -> str:
    """The version of everything that is built with a kernel."""
    return f"{KERNELS[age].rpartition('-')[0]}.{KERNELS[age].split('-')[1]}~22.04.1"


def driver(spelling: str, age: int) -> str:
    """The driver's own version: of 580-server-open the second is 580.178.04."""
    return DRIVERS[int(spelling.partition("-")[0])][age]


def driver_package(spelling: str, age: int) -> str:
    """The version of the driver's packages."""
    return f"{driver(spelling, age)}-0ubuntu0.22.04.1"


def library_branch(spelling: str) -> str:
    """As the library packages are named."""
    return spelling.removesuffix("-open")
