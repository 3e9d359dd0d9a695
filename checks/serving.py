"""The driver as the CUDA programs of the target meet it, and the one that a build has to run on.

Where the driver is dead, a build has to run on the one that the driver's own cure would install.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpudoctor.facts import CudaDriver, Facts, Nvml, Unknown
from gpudoctor.knowledge import cuda, drivers

from .driver.machine import machine_of
from .place import apt_branch, installed_packages


@dataclass(frozen=True, slots=True)
class Serving:
    """The driver as CUDA programs meet it. ``cuda`` is major*1000 + minor*10, of the libcuda that the target loads."""

    version: str | None
    cuda: int | None
    compat: str | None
    """The folder of a cuda-compat library that is loaded in place of the driver's own."""

    @property
    def words(self) -> str:
        """Such as: driver 535.86.10, with the CUDA that it serves where that is known."""
        name = f"driver {self.version}" if self.version else "the driver"
        return name if self.cuda is None else f"{name}, which serves CUDA {cuda.decode(self.cuda)}"


@dataclass(frozen=True, slots=True)
class DriverForBuilds:
    """The driver that a build of PyTorch has to run on. ``cuda`` is None where only the version is known."""

    version: str
    cuda: int | None
    in_place: bool
    """It is installed; False for the one that has yet to be."""


def serving(facts: Facts) -> Serving:
    """The driver that is in place; parts that nobody could ask are None."""
    nvml = facts.nvml if isinstance(facts.nvml, Nvml) else None
    loaded = facts.cuda_driver if isinstance(facts.cuda_driver, CudaDriver) else None
    version = nvml.driver_version if nvml and isinstance(nvml.driver_version, str) else None
    if version is None and not isinstance(facts.driver, Unknown) and isinstance(facts.driver.module_version, str):
        version = facts.driver.module_version
    number = loaded.version if loaded else None
    if number is None and nvml and isinstance(nvml.cuda_version, int):
        number = nvml.cuda_version
    path = (loaded.path if loaded else None) or ""
    return Serving(version, number, path.rpartition("/")[0] if "/compat/" in path else None)


def driver_for_builds(facts: Facts) -> DriverForBuilds:
    """The driver that is in place, at work or not; where there is none, the one to be installed for this GPU."""
    found = serving(facts)
    if found.version is not None:
        number = found.cuda if found.compat is None else _own_cuda(facts)
        return DriverForBuilds(found.version, number, in_place=True)
    installed = _installed(facts)
    if installed is not None:
        return DriverForBuilds(installed, None, in_place=True)
    number = recommended_branch(facts)
    branch = drivers.branch(number)
    return DriverForBuilds(_newest_of(number), cuda.encode(branch.cuda) or None if branch else None, in_place=False)


def recommended_branch(facts: Facts) -> int:
    """The driver branch that the driver's check advises for the cards of this machine."""
    return int(machine_of(facts).wanted_branch.partition("-")[0])


def _newest_of(branch: int) -> str:
    """The newest known release of a branch; a version that is older than all of them where none is known."""
    row = drivers.branch(branch)
    return (row.latest if row else None) or f"{branch}.0"


def _installed(facts: Facts) -> str | None:
    """The version of a driver whose module is not at work: its cure keeps the branch. By its libraries, else its packages."""
    if isinstance(facts.driver, Unknown):
        return None
    libraries = () if isinstance(facts.driver.libraries, Unknown) else facts.driver.libraries
    # a cuda-compat library or a stub is no driver
    own = (
        lib.version
        for lib in libraries
        if lib.soname == "libcuda.so.1" and "/compat/" not in lib.path and "/stubs/" not in lib.path
    )
    version = next((version for version in own if version), None)
    if version is not None:
        return version
    number = re.match(r"\d+", apt_branch(installed_packages(facts.driver)) or "")
    return _newest_of(int(number.group())) if number and drivers.branch(int(number.group())) else None


def _own_cuda(facts: Facts) -> int | None:
    """The CUDA of the driver itself where a cuda-compat library stands before it."""
    if isinstance(facts.nvml, Unknown) or isinstance(facts.nvml.driver_version, Unknown):
        return None
    known = cuda.cuda_of_driver(facts.nvml.driver_version)
    return cuda.encode(known) if known else None
