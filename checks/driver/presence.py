"""Whether there is a card, a driver, and libraries that can be loaded at all."""

from __future__ import annotations

from gpudoctor.cards import AMD, INTEL
from gpudoctor.facts import LibraryFile, Package, Unknown
from gpudoctor.findings import Evidence, Finding

from .machine import CUDA_LIBRARY, NVML_LIBRARY, Machine, bound, card_name, finding, nvml_said, seen

LIBRARY_ABSENT = 12  # NVML_ERROR_LIBRARY_NOT_FOUND: also what nvidia-ml-py says of every other failure to load
_DAMAGED = ("file too short", "invalid elf header", "cannot read file data", "file data truncated", "truncated")


def another_vendor(machine: Machine) -> Finding | None:
    """The bus shows somebody else's graphics card, no NVIDIA card, and the driver has not said otherwise."""
    return no_card(machine) if machine.others else None


def no_card(machine: Machine) -> Finding | None:
    """No NVIDIA card on the bus, and nothing of NVIDIA's that works or refuses in its own words."""
    if machine.cards != () or machine.module is not None or machine.place.vendor == "a Jetson":
        return None
    if not machine.answers and machine.code not in (None, LIBRARY_ABSENT):
        return None  # NVML's own code is the truth about the driver; the bus may be hidden here
    return _no_card(machine)


def driver_without_card(machine: Machine) -> Finding | None:
    """The module was not loaded because no card answers to it: the bus was seen, and so was the module's word for it."""
    if machine.cards != ():
        return None
    said = machine.symptom("nvrm-no-gpu", "module-no-device")
    built = machine.running is not None and machine.running.module_path is not None
    return _no_card(machine) if said or (machine.others and built) else None


def damaged_library(machine: Machine) -> Finding | None:
    """The loader's first libnvidia-ml.so.1 (or libcuda.so.1) is empty or cut short; it never looks at the next one."""
    error = (machine.nvml.error or "") if machine.nvml and machine.code == LIBRARY_ABSENT else ""
    for soname in (NVML_LIBRARY, CUDA_LIBRARY):
        first = next(iter(machine.libraries(soname)), None)
        told = soname == NVML_LIBRARY and any(words in error.lower() for words in _DAMAGED)
        if told or (first is not None and first.size == 0):
            return _damaged(machine, soname, first, error)
    return None


def unloadable_library(machine: Machine) -> Finding | None:
    """The library is found and the loader refuses it: the other word size, no right to read it, a glibc too old for it."""
    first = next(iter(machine.libraries(NVML_LIBRARY)), None)
    error = (machine.nvml.error or "") if machine.nvml and machine.code == LIBRARY_ABSENT else ""
    if first is None or not error or "No such file" in error:
        return None
    return _damaged(machine, NVML_LIBRARY, first, error)


def stub_library(machine: Machine) -> Finding | None:
    """The loader takes the toolkit's stub, which exists to link against and drives nothing."""
    for soname in (CUDA_LIBRARY, NVML_LIBRARY):
        first = next(iter(machine.libraries(soname)), None)
        if first is None or not ("/stubs/" in first.path or "/stubs/" in first.real_path):
            continue
        folder = first.path.rpartition("/")[0]
        return finding(
            "stub-library",
            f"{soname} resolves to the CUDA toolkit's stub in {folder}, not to the driver",
            "A stub has the driver's symbols and none of its code: it is there for linking only. Its folder must not stand "
            "in LD_LIBRARY_PATH or ld.so.conf.d. Nothing need be reinstalled; deleting the stub would only break builds.",
            (seen(first.path, f"{soname} by {first.origin}"),),
            machine.fix("driver#remove-stubs-from-path"),
        )
    return None


def not_installed(machine: Machine) -> Finding | None:
    """NVML's library is nowhere: no driver, half a driver, or its kernel part alone."""
    if machine.code not in (None, LIBRARY_ABSENT) or machine.libraries(NVML_LIBRARY):
        return None
    # without NVML's word the files themselves must have been looked at
    if machine.code is None and (machine.driver is None or isinstance(machine.driver.libraries, Unknown)):
        return None
    broken = _unfinished(machine)
    if broken is not None:
        return _half_installed(machine, broken)
    owner = machine.package("libnvidia-compute-")
    if owner is not None:
        return _files_gone(machine, owner)
    if machine.module is not None:
        return _module_alone(machine, machine.module)
    return nothing_installed(machine) if machine.cards else None


def nothing_installed(machine: Machine) -> Finding:
    """A card and no driver for it."""
    holder = next((card for card in machine.cards or () if card.driver not in (None, "nvidia")), None)
    aside = (
        f" {holder.driver} holds the card meanwhile, as it should on a fresh system; installing the driver takes care of that."
        if holder
        else ""
    )
    return finding(
        "driver-not-installed",
        f"{machine.card_names} is there, but no NVIDIA driver is installed",
        "Neither the driver's libraries nor its packages are on this machine. The driver is all that the system must bring "
        f"for PyTorch: no CUDA toolkit, cuDNN or NCCL is needed beside it.{aside}",
        (*(bound(card) for card in (machine.cards or ())[:2]), nvml_said(machine), _no_packages(machine)),
        machine.fix(_install_step(machine), BRANCH=machine.wanted_branch),
    )


def _no_card(machine: Machine) -> Finding:
    there = [card_name(card) for card in machine.others if card.vendor in (AMD, INTEL)]
    words = f"; what is there: {', '.join(there[:3])}" if there else ""
    amd = any(card.vendor == AMD for card in machine.others)
    other = " An AMD card needs PyTorch's ROCm build, which gpudoctor does not examine." if amd else ""
    place = " A container sees what its host gives it." if machine.place.container else ""
    return finding(
        "no-nvidia-gpu",
        f"No NVIDIA GPU on the PCI bus{words}",
        "CUDA needs an NVIDIA GPU. If one is built in, it is unpowered, not seated, disabled in the firmware, or not passed "
        f"through to this virtual machine.{place}{other} Installing a driver or CUDA changes nothing until the bus shows the card.",
        (
            seen(
                "/sys/bus/pci/devices", ", ".join(card_name(card) for card in machine.others) or "no display controller of NVIDIA's"
            ),
            nvml_said(machine),
        ),
        machine.fix("hardware#no-nvidia-gpu"),
    )


def _damaged(machine: Machine, soname: str, first: LibraryFile | None, error: str) -> Finding:
    path = first.path if first else (machine.nvml.library if machine.nvml and machine.nvml.library else soname)
    size = f"{first.size} bytes" if first else "cut short"
    reason = size if first is None or first.size == 0 or not error else error.rpartition(": ")[2]
    step = "container-toolkit#remove-driver-files-from-image" if machine.place.container else "driver#reinstall-libraries"
    return finding(
        "zero-byte-lib",
        f"{path} cannot be loaded ({reason}), and the loader takes it first",
        "The loader stops at the first file of that name even when it cannot be loaded, so a good copy further on is never "
        "tried. Such files are left behind by container images (placeholders for the driver) and by installations that "
        "were cut off. The kernel module and PyTorch are not the matter.",
        (seen(path, error or f"{size}, found by {first.origin if first else 'the loader'}"),),
        machine.fix(step, BRANCH=machine.branch, FILE=path),
    )


def _half_installed(machine: Machine, package: Package) -> Finding:
    return finding(
        "driver-not-installed",
        f"{package.name} {package.version} is {package.state}: the driver's libraries are not in place",
        "The installation was begun and not finished, so the packages look present while libnvidia-ml.so.1 is missing. "
        "Finish that installation; do not add another driver beside it.",
        (seen("/var/lib/dpkg/status", f"{package.name} {package.version}: {package.state}"), nvml_said(machine)),
        machine.fix("driver#reinstall-libraries", BRANCH=machine.branch),
    )


def _files_gone(machine: Machine, package: Package) -> Finding:
    return finding(
        "driver-not-installed",
        f"{package.name} {package.version} is installed, but its libnvidia-ml.so.1 is gone",
        "dpkg lists the package, and the files that it brought are no longer there: the uninstaller of NVIDIA's .run driver or a "
        "clean-up by hand took them away. apt sees nothing to do; the package must be put in place again, in the same version.",
        (seen("/var/lib/dpkg/status", f"{package.name} {package.version}: {package.state}"), nvml_said(machine)),
        machine.fix("driver#reinstall-libraries", BRANCH=machine.branch),
    )


def _module_alone(machine: Machine, version: str) -> Finding:
    return finding(
        "driver-not-installed",
        f"The kernel module {version} is loaded, but libnvidia-ml.so.1 is not installed",
        "Half of the driver is here: its kernel module. Programs need the libraries of exactly the same version. Install "
        "them from the branch that is loaded; another branch would not fit this module.",
        (seen("/sys/module/nvidia/version", version), nvml_said(machine)),
        machine.fix(_install_step(machine), BRANCH=machine.branch),
    )


def _unfinished(machine: Machine) -> Package | None:
    packages = () if machine.driver is None or isinstance(machine.driver.packages, Unknown) else machine.driver.packages
    states = ("half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending")
    names = ("libnvidia-compute", "nvidia-driver", "nvidia-headless", "nvidia-utils", "nvidia-open", "cuda-drivers")
    return next((p for p in packages if p.state in states and p.name.startswith(names)), None)


def _install_step(machine: Machine) -> str:
    return "driver#install-server" if machine.is_server else "driver#install"


def _no_packages(machine: Machine) -> Evidence | None:
    if machine.driver is None or isinstance(machine.driver.packages, Unknown):
        return None
    return None if machine.place.branch else seen("/var/lib/dpkg/status", "no package of the NVIDIA driver is installed")
