"""Settings that keep CUDA from GPUs that are well: compute mode, MIG, licences, variables."""

from __future__ import annotations

from gpudoctor.facts import Gpu, GpuProcess, Unknown
from gpudoctor.findings import Evidence, Finding
from gpudoctor.visible import visible

from ..words import listing
from .devices import alive
from .machine import Machine, finding, gpu_name, seen

ORDER = "CUDA_DEVICE_ORDER"
PERSISTENCE_SERVICE = "nvidia-persistenced"
# NVIDIA DCGM's list (nvvs/src/Software.cpp), and the one that makes every launch wait
DEBUG_VARIABLES = (
    "CUDA_LAUNCH_BLOCKING",
    "NSIGHT_CUDA_DEBUGGER",
    "CUDA_INJECTION32_PATH",
    "CUDA_INJECTION64_PATH",
    "CUDA_AUTO_BOOST",
    "CUDA_ENABLE_COREDUMP_ON_EXCEPTION",
    "CUDA_COREDUMP_FILE",
    "CUDA_DEVICE_WAITS_ON_EXCEPTION",
    "CUDA_PROFILE",
)
_SWITCHES = ("CUDA_LAUNCH_BLOCKING", "CUDA_PROFILE", "CUDA_ENABLE_COREDUMP_ON_EXCEPTION", "CUDA_DEVICE_WAITS_ON_EXCEPTION")


def shut_out(machine: Machine) -> Finding | None:
    """Every GPU that CUDA would show refuses new work, by its compute mode or because MIG has no instance."""
    shown = _shown(machine)
    reasons = [_refusal(machine, gpu) for gpu in shown]
    # one GPU that takes work is enough; the others may be kept for somebody on purpose
    return reasons[0] if reasons and all(reasons) else None


def findings(machine: Machine) -> tuple[Finding, ...]:
    """What is worth knowing while CUDA works."""
    found = (_unlicensed(machine), _order(machine), _debug_variables(machine), _persistence(machine))
    return tuple(item for item in found if item is not None)


def _shown(machine: Machine) -> tuple[Gpu, ...]:
    """The GPUs that the target sees; all that work where that is not known, or the variable names none (PyTorch's affair)."""
    seen_by_cuda = visible(machine.facts)
    working = alive(machine)
    if isinstance(seen_by_cuda, Unknown) or not seen_by_cuda.certain or not seen_by_cuda.gpus:
        return working
    return tuple(gpu for gpu in seen_by_cuda.gpus if gpu in working)


def _refusal(machine: Machine, gpu: Gpu) -> Finding | None:
    if gpu.mig is True and gpu.mig_devices == ():
        return _no_instance(machine, gpu)
    if gpu.compute_mode == "prohibited":
        return _prohibited(machine, gpu)
    holder = _holder(gpu) if gpu.compute_mode in ("exclusive-process", "exclusive-thread") else None
    return _taken(machine, gpu, holder) if holder else None


def _holder(gpu: Gpu) -> GpuProcess | None:
    processes = () if isinstance(gpu.processes, Unknown) else gpu.processes
    return next((process for process in processes if process.kind == "compute"), None)


def _no_instance(machine: Machine, gpu: Gpu) -> Finding:
    return finding(
        "mig-no-instance",
        f"{gpu_name(gpu)} is in MIG mode and has no instance to work on",
        "In MIG mode a GPU is used through instances, and none has been made, so CUDA finds no device. Create one, or have an "
        "administrator switch MIG off when nobody needs it: that resets the GPU and ends what runs on it.",
        (seen(f"NVML, {gpu_name(gpu)}", "MIG enabled, no MIG device"),),
        machine.fix("driver#create-mig-instance", GPU=str(gpu.index)),
    )


def _prohibited(machine: Machine, gpu: Gpu) -> Finding:
    return finding(
        "compute-mode",
        f"{gpu_name(gpu)} is in compute mode prohibited: CUDA may not use it",
        "An administrator's setting forbids computing on this GPU, often to keep it for a display. CUDA then says that all "
        "devices are busy or unavailable. Ask who set it before changing it; it lasts until the next restart.",
        (seen(f"NVML, {gpu_name(gpu)}", "compute mode: prohibited"),),
        machine.fix("driver#compute-mode", GPU=str(gpu.index)),
    )


def _taken(machine: Machine, gpu: Gpu, holder: GpuProcess) -> Finding:
    who = f"{holder.command or 'a process'} (pid {holder.pid}{f', user {holder.user}' if holder.user else ''})"
    return finding(
        "compute-mode",
        f"{gpu_name(gpu)} admits one process (exclusive mode), and {who} is on it",
        "In exclusive-process mode a second CUDA program is refused with 'devices are busy or unavailable'. That is a rule of this "
        "machine, not a defect: wait for the other process, or ask its owner. Changing the mode would break the rule for all.",
        (seen(f"NVML, {gpu_name(gpu)}", f"compute mode: {gpu.compute_mode}; compute process: {who}"),),
        machine.fix("driver#wait-for-gpu", GPU=str(gpu.index), PID=str(holder.pid)),
    )


def _unlicensed(machine: Machine) -> Finding | None:
    gpu = next((gpu for gpu in alive(machine) if gpu.vgpu_licensed is False), None)
    if gpu is None:
        return None
    return finding(
        "vgpu-unlicensed",
        f"{gpu_name(gpu)} is a virtual GPU without a licence",
        "A vGPU that gets no licence works at first and is then slowed down step by step, with CUDA restricted. The licence comes "
        "from a server of whoever runs the hypervisor; the guest's driver must stay the one that belongs to it.",
        (seen(f"NVML, {gpu_name(gpu)}", "vGPU software: unlicensed"),),
        machine.fix("driver#vgpu-licence"),
        severity="warn",
    )


def _order(machine: Machine) -> Finding | None:
    """Only where somebody picks by number: two kinds of GPU, both visible, and no order set."""
    shown = _shown(machine)
    names = list(dict.fromkeys(gpu.name for gpu in shown if isinstance(gpu.name, str)))
    if len(names) < 2 or machine.facts.variable(ORDER) is not None or isinstance(machine.facts.variables, Unknown):
        return None
    return finding(
        "device-order",
        f"CUDA numbers these GPUs by speed, nvidia-smi by slot: {listing(names)}",
        "cuda:0 is the fastest GPU, which need not be GPU 0 of nvidia-smi; a number may therefore mean another card than you "
        "think. CUDA_DEVICE_ORDER=PCI_BUS_ID makes both the same. Nothing is broken.",
        tuple(seen(f"NVML, GPU {gpu.index}", f"{gpu.name} at {gpu.pci_address}") for gpu in shown[:4]),
        machine.fix("pytorch#device-order"),
        severity="warn",
    )


def _debug_variables(machine: Machine) -> Finding | None:
    found = [(name, value) for name in DEBUG_VARIABLES if (value := _set(machine, name))]
    if not found:
        return None
    names = [name for name, _ in found]
    return finding(
        "bad-cuda-env",
        f"{listing(names)} {'is' if len(names) == 1 else 'are'} set: CUDA runs in a debugging mode",
        "These variables are left over from a search for an error. CUDA_LAUNCH_BLOCKING makes every launch wait, the others load "
        "a tool into each CUDA program or change how it ends. Results are right, speed is not.",
        tuple(seen("environment", f"{name}={value}") for name, value in found),
        machine.fix("pytorch#unset-debug-variables", NAME=names[0]),
        severity="warn",
    )


def _set(machine: Machine, name: str) -> str | None:
    value = machine.facts.variable(name)
    return None if value in (None, "") or (name in _SWITCHES and value == "0") else value


def _persistence(machine: Machine) -> Finding | None:
    """Only on data-centre cards without a display, where each job would wait for the driver to wake."""
    gpus = alive(machine)
    place, service = machine.place, machine.service(PERSISTENCE_SERVICE)
    if not gpus or place.container or place.wsl or place.vendor or (service is not None and service.active == "active"):
        return None
    if any(model.kind != "datacenter" for model in machine.models) or any(gpu.display_active is not False for gpu in gpus):
        return None
    if any(gpu.persistence is not False for gpu in gpus):
        return None
    return finding(
        "persistence-off",
        "Persistence mode is off: the driver wakes these GPUs anew for each job, 1 to 3 seconds per GPU",
        "Without a display nothing keeps the driver's state alive between jobs. nvidia-persistenced does. It is a matter of "
        "waiting time only; nothing is wrong.",
        (seen("NVML", f"persistence mode off on {len(gpus)} GPU{'' if len(gpus) == 1 else 's'}"), _service_state(machine)),
        machine.fix("driver#persistence"),
        severity="note",
    )


def _service_state(machine: Machine) -> Evidence | None:
    service = machine.service(PERSISTENCE_SERVICE)
    active = service.active if service else "not installed"
    return None if isinstance(active, Unknown) else seen(f"systemctl is-active {PERSISTENCE_SERVICE}", active)
