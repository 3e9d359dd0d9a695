"""Under WSL the driver is Windows': no kernel module, no /dev/nvidia*, no process list, and that is as it should be."""

from __future__ import annotations

from gpudoctor.facts import LibraryFile, Unknown
from gpudoctor.findings import Finding

from .machine import CUDA_LIBRARY, NVML_LIBRARY, Machine, finding, nvml_said, seen
from .presence import LIBRARY_ABSENT

_WINDOWS_LIBRARIES = "/usr/lib/wsl/"


def root(machine: Machine) -> Finding | None:
    """The cause that is WSL's own; None elsewhere."""
    if not machine.place.wsl or machine.answers:
        return None
    if machine.place.wsl == 1:
        return _version_one(machine)
    return linux_driver(machine) or (_windows_side(machine) if _failed(machine) else None)


def linux_driver(machine: Machine) -> Finding | None:
    """The loader finds a Linux driver's libcuda.so.1 before the one that Windows mounts."""
    if machine.place.wsl != 2 or machine.place.container:
        return None
    for soname in (CUDA_LIBRARY, NVML_LIBRARY):
        first = next(iter(machine.libraries(soname)), None)
        if first is not None and not _from_windows(first):
            return _linux_driver(machine, first)
    return None


def nothing_visible(machine: Machine) -> Finding | None:
    """NVML answers under WSL and lists no GPU."""
    return _windows_side(machine) if machine.place.wsl and not machine.gpus else None


def _failed(machine: Machine) -> bool:
    if machine.nvml is None:
        return False
    looked = machine.driver is not None and not isinstance(machine.driver.libraries, Unknown)
    return machine.code != LIBRARY_ABSENT or looked or bool(machine.nvml.error)


def _from_windows(file: LibraryFile) -> bool:
    return _WINDOWS_LIBRARIES in file.path or _WINDOWS_LIBRARIES in file.real_path


def _version_one(machine: Machine) -> Finding:
    return finding(
        "wsl2-gpu-setup",
        "This is WSL version 1, which has no GPU; CUDA needs version 2",
        "WSL 1 translates system calls and cannot reach a GPU, whatever is installed in it. The distribution can be "
        "converted from Windows and keeps its files.",
        (seen("/proc/version", "WSL version 1"),),
        machine.fix("wsl#update-windows-driver", where="windows"),
    )


def _windows_side(machine: Machine) -> Finding:
    dxg = machine.has_node("/dev/dxg")
    lacks = (
        "Windows does not offer the GPU to this distribution (/dev/dxg is missing)"
        if dxg is False
        else "the driver does not answer"
    )
    return finding(
        "wsl2-gpu-setup",
        f"WSL2: {lacks}",
        "Under WSL2 the driver lives in Windows, which lends its libraries to Linux. The Windows driver or WSL itself is too "
        "old, or Windows has no working NVIDIA GPU. Do not install a Linux driver in here: it would hide the libraries of Windows.",
        (nvml_said(machine), seen("/dev/dxg", {True: "there", False: "missing", None: "not known"}[dxg])),
        machine.fix("wsl#update-windows-driver", where="windows"),
    )


def _linux_driver(machine: Machine, first: LibraryFile) -> Finding:
    package = machine.package("libnvidia-compute", "nvidia-driver", "nvidia-utils", "cuda-drivers")
    return finding(
        "wsl-linux-driver",
        f"A Linux driver is installed in WSL2: {first.soname} is taken from {first.path}, not from /usr/lib/wsl/lib",
        "A Linux driver looks for a kernel module that WSL2 does not have, and it stands before the libraries that Windows "
        "provides. Remove it, and keep the CUDA toolkit's own packages if you compile.",
        (
            seen(first.path, f"{first.soname} {first.version or ''} by {first.origin}"),
            seen("/var/lib/dpkg/status", f"{package.name} {package.version}") if package else None,
            nvml_said(machine),
        ),
        machine.fix("wsl#remove-linux-driver"),
    )
