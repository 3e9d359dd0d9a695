"""NVML is well and CUDA is not: the causes that lie in the driver's layer, at most one of them."""

from __future__ import annotations

from gpudoctor.facts import LibraryFile, Symptom, Unknown
from gpudoctor.findings import Evidence, Finding, Fix

from . import presence, wsl
from .machine import CUDA_LIBRARY, Machine, finding, seen

UVM_NODE = "/dev/nvidia-uvm"
UVM_MODULE = "nvidia_uvm"
FABRIC_MANAGER = "nvidia-fabricmanager"
NOT_INITIALISED, UNSUPPORTED_COMBINATION = "802", "803"
_FABRIC_TROUBLE = ("not-started", "in-progress", "failed")


def root(machine: Machine) -> Finding | None:
    """The first that applies; None when PyTorch reached a GPU, whatever else looks odd."""
    if machine.cuda_works:
        return None
    return (
        wsl.linux_driver(machine)
        or presence.damaged_library(machine)
        or presence.stub_library(machine)
        or library_missing(machine)
        or combination(machine)
        or fabric(machine)
        or unknown_error(machine)
    )


def library_missing(machine: Machine) -> Finding | None:
    """libnvidia-ml.so.1 answers and libcuda.so.1 is nowhere, as libcuda's own probe or PyTorch says too."""
    if machine.driver is None or isinstance(machine.driver.libraries, Unknown) or machine.libraries(CUDA_LIBRARY):
        return None
    probe = None if isinstance(machine.facts.cuda_driver, Unknown) else machine.facts.cuda_driver
    said = next((s for s in machine.torch_symptoms() if s.id == "torch-no-driver"), None)
    if said is None and (probe is None or probe.version is not None or probe.path is not None):
        return None
    return _library_missing(
        machine, (seen(said.source, said.text) if said else None, seen("loader", probe.error) if probe else None)
    )


def combination(machine: Machine) -> Finding | None:
    """CUDA's error 803: the libcuda.so.1 in use is not of the loaded module's version."""
    said = _cuda_error(machine, UNSUPPORTED_COMBINATION)
    first = next(iter(machine.libraries(CUDA_LIBRARY)), None)
    differs = _differs(machine, first)
    failed = machine.torch is not None and machine.torch.available is False
    if said is None and not (differs and failed and first is not None and "/compat" not in first.path):
        return None
    return _combination(machine, said, first)


def fabric(machine: Machine) -> Finding | None:
    """NVSwitch machines: CUDA starts only when the fabric manager has set the switches up (error 802)."""
    said = _cuda_error(machine, NOT_INITIALISED)
    waiting = [gpu for gpu in machine.gpus if gpu.fabric in _FABRIC_TROUBLE]
    completed = any(gpu.fabric == "completed" for gpu in machine.gpus)
    idle = bool(machine.switches) and not completed and _manager_is_down(machine)
    if said is None and not waiting and not idle:
        return None
    return _fabric(machine, said, f"GPU {waiting[0].index}: {waiting[0].fabric}" if waiting else None)


def unknown_error(machine: Machine) -> Finding | None:
    """CUDA's unknown error (999): the module nvidia_uvm is absent, or stale after a suspend."""
    said = next((s for s in machine.torch_symptoms() if s.id == "torch-unknown-error"), None)
    blind = machine.torch is not None and machine.torch.available is False and bool(machine.torch.cuda)
    unexplained = blind and not machine.torch_symptoms() and machine.facts.variable("CUDA_VISIBLE_DEVICES") is None
    if said is None and not (unexplained and _uvm_loaded(machine) is False and not machine.place.wsl):
        return None
    return _unknown_error(machine, said)


def _cuda_error(machine: Machine, code: str) -> Symptom | None:
    return next((s for s in machine.torch_symptoms() if s.id == "cuda-device-count" and s.value("code") == code), None)


def _library_missing(machine: Machine, evidence: tuple[Evidence | None, ...]) -> Finding:
    if machine.place.container:
        return finding(
            "container-no-gpu-access",
            f"This {machine.place.container} container was given the GPU for nvidia-smi only: libcuda.so.1 is missing",
            "NVIDIA_DRIVER_CAPABILITIES chose utility without compute when the container started, so the host's libcuda.so.1 was "
            "left out. It comes from the host at start, never from the image: do not install a driver in here.",
            evidence,
            machine.fix("container-toolkit#run-with-gpus", where="host"),
        )
    return finding(
        "driver-not-installed",
        "NVML answers, but the driver's libcuda.so.1 is not installed",
        "The installed packages are those for monitoring without those for computing, or files of the driver were removed. "
        "libcuda.so.1 is the driver's: no CUDA toolkit brings it.",
        evidence,
        machine.fix("driver#reinstall-libraries", BRANCH=machine.branch),
    )


def _differs(machine: Machine, first: LibraryFile | None) -> bool:
    return bool(first and first.version and machine.module and first.version != machine.module)


def _combination(machine: Machine, said: Symptom | None, first: LibraryFile | None) -> Finding:
    path = first.path if first else CUDA_LIBRARY
    version = (first.version if first else None) or "another version"
    stray = first is not None and _differs(machine, first)
    fix = machine.fix("driver#remove-stray-libcuda", FILE=path)
    if machine.place.container and not stray:
        fix = machine.fix("container-toolkit#recreate-container", where="host")
    return finding(
        "libcuda-kernel-combination-803",
        f"CUDA takes libcuda {version} from {path}; the loaded module is {machine.module or 'another version'}",
        "libcuda.so.1 belongs to the driver and must be of the module's version. A stray copy (an image, a conda package, an old "
        "driver) stands before the driver's own. NVML is well: the driver need not be reinstalled.",
        (
            seen(said.source, said.text) if said else None,
            seen(path, f"{version}, found by {first.origin}") if first else None,
            seen("/sys/module/nvidia/version", machine.module) if machine.module else None,
        ),
        fix,
    )


def _manager_is_down(machine: Machine) -> bool:
    service = machine.service(FABRIC_MANAGER)
    if service is not None and service.installed:
        return isinstance(service.active, str) and service.active not in ("active", "activating", "reloading")
    if machine.driver is None or isinstance(machine.driver.services, Unknown) or isinstance(machine.driver.packages, Unknown):
        return False
    return machine.package(FABRIC_MANAGER) is None


def _fabric(machine: Machine, said: Symptom | None, state: str | None) -> Finding:
    fix, words = _fabric_cure(machine)
    return finding(
        "fabric-manager-not-running",
        f"The NVLink fabric of these GPUs is not set up, so CUDA does not start: {words}",
        "On machines with NVSwitch the fabric manager connects the GPUs at boot, and until then CUDA answers 802 (system not "
        "yet initialized) while nvidia-smi looks well. If it does run and the error stays: confidential computing that is not "
        "ready, NVLSM with ib_umad on B200, IMEX, or, in a virtual machine, the fabric manager of its host. PyTorch is well.",
        (
            seen(said.source, said.text) if said else None,
            seen("NVML, fabric state", state) if state else None,
            _service_evidence(machine),
            seen("/sys/bus/pci/devices", f"{len(machine.switches)} NVSwitches") if machine.switches else None,
        ),
        fix,
    )


def _fabric_cure(machine: Machine) -> tuple[Fix, str]:
    version = machine.nvml.driver_version if machine.nvml else None
    service, package = machine.service(FABRIC_MANAGER), machine.package(FABRIC_MANAGER)
    if isinstance(version, str) and package is not None and version not in package.version:
        fix = machine.fix("fabric-manager#match-version", VERSION=version, BRANCH=machine.branch)
        return fix, f"the fabric manager is {package.version}, the driver {version}; they must be equal"
    if package is None and (service is None or not service.installed):
        return machine.fix("fabric-manager#install", BRANCH=machine.branch), "the fabric manager is not installed"
    running = service is not None and service.active == "active"
    words = "the fabric manager runs, but has not completed its work" if running else "the fabric manager is not running"
    return machine.fix("fabric-manager#start"), words


def _service_evidence(machine: Machine) -> Evidence | None:
    service = machine.service(FABRIC_MANAGER)
    return seen(f"systemctl is-active {FABRIC_MANAGER}", service.active) if service and isinstance(service.active, str) else None


def _uvm_loaded(machine: Machine) -> bool | None:
    if machine.kernel is None or isinstance(machine.kernel.loaded, Unknown):
        return None
    return UVM_MODULE in machine.kernel.loaded


def _unknown_error(machine: Machine, said: Symptom | None) -> Finding:
    suspended = machine.kernel is not None and machine.kernel.suspended_since_boot is True
    absent = _uvm_loaded(machine) is False or machine.has_node(UVM_NODE) is False
    if suspended and not absent:
        step, words = "kernel-modules#reload-uvm", "nvidia_uvm lost its state when the machine slept"
    else:
        step, words = "kernel-modules#load-uvm", f"nvidia_uvm is not {'loaded' if absent else 'answering'}"
    if machine.place.container and absent:
        words = f"{UVM_NODE} is not in this container"
    return finding(
        "cuda-unknown-error-uvm",
        f"CUDA says unknown error although the driver answers: {words}",
        "CUDA needs a second kernel module, nvidia_uvm, beside the one that nvidia-smi uses. It was not loaded, was not given to "
        "the container, or did not survive a suspend or an upgrade. Neither PyTorch nor the driver need be reinstalled.",
        (
            seen(said.source, said.text) if said else None,
            seen("/dev/nvidia-uvm", {True: "there", False: "missing", None: "not known"}[machine.has_node(UVM_NODE)]),
            seen("/proc/modules", f"nvidia_uvm {'loaded' if _uvm_loaded(machine) else 'not seen'}"),
        ),
        machine.fix(step),
    )
