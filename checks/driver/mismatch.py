"""The loaded module and the libraries are of different versions: reboot only into a module that fits."""

from __future__ import annotations

from gpudoctor.facts import KernelImage, LibraryFile, Package
from gpudoctor.findings import Evidence, Finding, Fix

from ..place import upstream_branch
from . import kernel_modules, secure_boot
from .machine import NVML_LIBRARY, Machine, branch_of, finding, nvml_said, seen

VERSION_MISMATCH = 18  # NVML_ERROR_LIB_RM_VERSION_MISMATCH


def root(machine: Machine) -> Finding | None:
    """NVML says that they differ, or NVML is silent and the files show it."""
    library = machine.library_version()
    silent = machine.nvml is None or bool(machine.nvml.crashed or machine.nvml.hung)
    differ = silent and machine.module is not None and library is not None and library != machine.module
    if machine.code != VERSION_MISMATCH and not differ:
        return None
    if machine.place.container:
        return _in_container(machine)
    return two_sources(machine) or _mismatch(machine)


def two_sources(machine: Machine) -> Finding | None:
    """The driver came twice: by NVIDIA's .run installer over packages, or as packages of two branches."""
    library = machine.package("libnvidia-compute")
    if machine.driver is not None and machine.driver.runfile and library is not None:
        return _runfile_over_packages(machine, library)
    return two_branches(machine)


def two_branches(machine: Machine) -> Finding | None:
    """Packages of the libraries and of the modules' source are installed from different branches."""
    library, source = machine.package("libnvidia-compute"), machine.package("nvidia-dkms")
    if library is None or source is None:
        return None
    of_library, of_source = upstream_branch(library.version), upstream_branch(source.version)
    if of_library is None or of_source is None or of_library == of_source:
        return None  # a transitional package bears an old name and the new version
    odd = library if _kept(machine) == of_source else source
    return finding(
        "mixed-driver-packages",
        f"Libraries of driver {of_library} are installed beside kernel modules of driver {of_source}",
        "One driver's module does not work with another's libraries. Usually two archives were mixed (Ubuntu's and NVIDIA's), or "
        "a branch was changed half way. Keep one branch from one source; remove the other by the exact names of its packages, "
        "never by a wildcard: that would take the container toolkit along.",
        (_dpkg(library), _dpkg(source), _loaded(machine)),
        machine.fix("driver#keep-one-branch", PACKAGE=odd.name),
    )


def _kept(machine: Machine) -> int | None:
    """The branch that is installed as a whole, by its metapackage; where none is, that of the loaded module."""
    whole = machine.package("nvidia-driver-", "nvidia-headless-")
    loaded = branch_of(machine.module)
    return upstream_branch(whole.version) if whole else int(loaded) if loaded else None


def _runfile_over_packages(machine: Machine, library: Package) -> Finding:
    return finding(
        "mixed-driver-packages",
        f"NVIDIA's .run installer was used over the driver packages ({library.name} {library.version})",
        "Both put files of the same names into the same folders, so the module and the libraries come from different versions, "
        "and each upgrade does it again. Remove the .run driver with its own uninstaller; the packages then stand alone.",
        (seen("/usr/bin/nvidia-uninstall", "there"), _dpkg(library), _loaded(machine), nvml_said(machine)),
        machine.fix("driver#remove-runfile-driver", BRANCH=machine.branch),
    )


def _in_container(machine: Machine) -> Finding:
    return finding(
        "driver-library-mismatch",
        f"The libraries in this container ({_library_words(machine)}) differ from its host's driver ({_module_words(machine)})",
        "The libraries were put in when the container started (or stand in its image), and the host's driver has changed since. "
        "They must equal the host's module. Do not install a driver in the container.",
        (_loaded(machine), _library(machine), nvml_said(machine)),
        machine.fix("container-toolkit#recreate-container", where="host"),
    )


def _mismatch(machine: Machine) -> Finding:
    boots = machine.boots
    stray = _stray(machine)
    fix, words = _cure(machine, boots, stray)
    why = (
        "An upgrade replaced the files while the old module stayed loaded."
        if stray is None
        else "Two copies of the library are installed."
    )
    return finding(
        "driver-library-mismatch",
        f"The loaded kernel module is {_module_words(machine)}, the libraries are {_library_words(machine)}",
        f"{why} {words} Do not reinstall the driver or CUDA.",
        (_loaded(machine), _library(machine), _next_module(boots), nvml_said(machine)),
        fix,
    )


def _cure(machine: Machine, boots: KernelImage | None, stray: LibraryFile | None) -> tuple[Fix, str]:
    if stray is not None:
        words = f"Here {stray.path} stands first, and the copy that equals the module comes later: take the first away."
        return machine.fix("driver#remove-stray-libcuda", FILE=stray.path), words
    if boots is None:
        words = "A restart loads the new module; make sure first that one exists for the kernel that boots."
        return machine.fix("kernel-modules#reboot-into-installed-driver"), words
    if boots.module_path is None or not _equal(boots, machine.library_version()):
        has = f"only {boots.module_version}" if isinstance(boots.module_version, str) else "no module"
        words = f"A restart alone would not help: kernel {boots.release}, which boots next, has {has}. Provide its module first."
        return kernel_modules.provide_and_restart(machine, boots.release), words
    if machine.kernel is not None and secure_boot.trusted(boots, machine.kernel) is False:
        words = f"A restart alone would not help: Secure Boot would refuse the module of kernel {boots.release}. Cure that first."
        return secure_boot.cure(machine, boots), words
    words = f"The module of kernel {boots.release}, which boots next, equals the libraries: a restart is all that is needed."
    return machine.fix("kernel-modules#reboot-into-installed-driver"), words


def _equal(image: KernelImage, library: str | None) -> bool:
    """The module on disk is the libraries' own; what cannot be compared is taken to be."""
    return library is None or not isinstance(image.module_version, str) or image.module_version == library


def _stray(machine: Machine) -> LibraryFile | None:
    """The first copy, when it differs from the module and a later one does not."""
    copies = machine.libraries(NVML_LIBRARY)
    if len(copies) < 2 or copies[0].version == machine.module:
        return None
    return copies[0] if any(copy.version == machine.module for copy in copies[1:]) else None


def _module_words(machine: Machine) -> str:
    return machine.module or "another version"


def _library_words(machine: Machine) -> str:
    return machine.library_version() or (f"of branch {machine.place.branch}" if machine.place.branch else "another version")


def _loaded(machine: Machine) -> Evidence | None:
    return seen("/sys/module/nvidia/version", machine.module) if machine.module else None


def _library(machine: Machine) -> Evidence | None:
    first = next(iter(machine.libraries(NVML_LIBRARY)), None)
    return seen(first.path, f"{first.version or 'version not known'} (branch {branch_of(first.version) or '?'})") if first else None


def _next_module(boots: KernelImage | None) -> Evidence | None:
    if boots is None:
        return None
    version = boots.module_version if isinstance(boots.module_version, str) else "version not known"
    return seen(boots.module_path or f"/lib/modules/{boots.release}", version if boots.module_path else "no nvidia module")


def _dpkg(package: Package) -> Evidence:
    return seen("/var/lib/dpkg/status", f"{package.name} {package.version}: {package.state}")
