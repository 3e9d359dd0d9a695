"""The driver in one line, when all is well."""

from __future__ import annotations

from gpudoctor.facts import CudaDriver
from gpudoctor.knowledge import cuda

from .kernel_log import version_of_module
from .machine import Machine


def line(machine: Machine) -> str:
    """Such as: 535.86.10 serves CUDA 12.2, and by minor-version compatibility every 12.x build."""
    version = driver_version(machine)
    speaks = cuda_version(machine, version)
    if version is None:
        return f"the driver serves CUDA {speaks}" if speaks else "the driver answers"
    return f"{version} serves {_builds(version, speaks)}" if speaks else f"{version} answers"


def asleep(machine: Machine) -> str:
    """The suspended GPU of a hybrid laptop, which must not be woken only to look at it."""
    version = driver_version(machine)
    speaks = cuda_version(machine, version)
    serves = f"{version} is loaded{f' and serves CUDA {speaks}' if speaks else ''}; " if version else ""
    return f"{serves}{machine.card_names} is asleep to save power and was not woken"


def by_libcuda(machine: Machine) -> str:
    """The driver works where NVML cannot be asked: a Jetson, a container without NVML, a library path of nvidia-smi's own."""
    version = driver_version(machine)
    speaks = cuda_version(machine, version)
    if version and speaks:
        return f"{version} serves {_builds(version, speaks)}; NVML is not there to ask"
    whose = f"the driver of {machine.place.vendor}" if machine.place.vendor else "the driver"
    return f"{whose} serves CUDA {speaks}; NVML is not there to ask" if speaks else f"{whose} works; NVML is not there to ask"


def driver_version(machine: Machine) -> str | None:
    """NVML's word, else the module's."""
    told = machine.nvml.driver_version if machine.nvml else None
    if isinstance(told, str):
        return told
    return (machine.smi.driver_version if machine.smi else None) or version_of_module(machine)


def cuda_version(machine: Machine, version: str | None) -> str | None:
    """NVML's word, else libcuda's, else nvidia-smi's, else the table's for this branch."""
    told = machine.nvml.cuda_version if machine.nvml else None
    if isinstance(told, int):
        return cuda.decode(told)
    library = machine.facts.cuda_driver
    if isinstance(library, CudaDriver) and library.version is not None:
        return cuda.decode(library.version)
    if machine.smi and machine.smi.cuda_version:
        return machine.smi.cuda_version
    return cuda.cuda_of_driver(version) if version else None


def _builds(version: str, speaks: str) -> str:
    digits = speaks.partition(".")[0]
    if not digits.isdecimal() or len(digits) > 4:
        return f"CUDA {speaks}"  # a number that no CUDA has: a driver may lie, and a report may say anything
    major = int(digits)
    earlier = [f"{older}.x" for older in cuda.majors() if older < major]
    # from the second major on it is worth saying: people take a driver of 13 for one that cannot run 12
    also = f"; {', '.join(earlier[:-1])} and {earlier[-1]} builds run too" if len(earlier) > 1 else ""
    if cuda.serves(version, major):
        return f"CUDA {speaks}, and by minor-version compatibility every {major}.x build{also}"
    return f"CUDA {speaks}{also}"
