"""Whether a smoke test may run beside whoever else uses this machine, on which device, and with how much memory at most.

A smoke test that is part of a look at the machine disturbs nobody: not a GPU on which somebody computes, nor one that is
kept for somebody, nor one that is asleep. Asked for by name it runs wherever it can. Both ways it is told how much memory is
free, so that it takes no more. Pure functions of facts.
"""

from __future__ import annotations

import dataclasses

from gpudoctor.cards import cards_on_bus, on_jetson, shares_memory
from gpudoctor.facts import Facts, GpuProcess, Nvml, PciDevice, Skipped, TorchImport, Unknown
from gpudoctor.probes.cuda_order import Device, first_devices
from gpudoctor.probes.scope import Request
from gpudoctor.smoke.plan import Plan

GIB = 1 << 30
LEAST_FREE = GIB
LEAST_MARGIN = 2 * GIB
BUSY_PER_CENT = 10
IDLE_INSTANCE = 256 << 20
"""A MIG instance on which nobody computes holds some ten MiB."""
SILENT = Unknown("the driver gave no answer in time")

_ASLEEP = Skipped("the GPU is asleep, and this would wake it; gpudoctor smoke does")
_NO_GPU = Skipped("this machine has no NVIDIA GPU")
_UNSEEN = Skipped("PyTorch sees no GPU")
_NO_ANSWER = Skipped("the driver gave no answer")
_BY_NAME = "gpudoctor smoke runs it all the same"


def permit(request: Request, facts: Facts, *, own: frozenset[int] = frozenset()) -> Plan | Skipped:
    """The plan with its device and budget, or why it does not run.

    ``facts`` are those of NVML, PCI, system, variables and the import of torch, as far as they are known by now. ``own`` are
    processes of the doctor's.
    """
    plan, asked = request.plan, request.asked
    if plan.device == "cpu":
        return _on_cpu(plan, facts)
    if not asked and _asleep(facts):
        return _ASLEEP
    if not _available(facts):
        if _gpu_is_there(facts):
            return _UNSEEN
        return _on_cpu(plan, facts) if asked and plan.device is None else _NO_GPU
    devices = first_devices(facts, plan.processes)
    budget = _budget(facts, devices)
    refusal = None if asked else _refusal(facts, devices, budget, own)
    return refusal or dataclasses.replace(plan, device="cuda", budget=budget)


# ---------------------------------------------------------------- is there a GPU


def _available(facts: Facts) -> bool:
    return isinstance(facts.torch_import, TorchImport) and facts.torch_import.available is True


def _gpu_is_there(facts: Facts) -> bool:
    """Anything tells of an NVIDIA GPU: the bus, a driver that lists one or does not return, a Jetson's name."""
    nvml = facts.nvml
    if isinstance(nvml, Nvml) and (nvml.gpus or nvml.hung or nvml.crashed):
        return True
    return nvml == SILENT or on_jetson(facts) or bool(_cards(facts))


def _asleep(facts: Facts) -> bool:
    """A card is suspended, and PyTorch was not asked, since that would have woken it."""
    imported = facts.torch_import
    asked = isinstance(imported, TorchImport) and imported.available is not None
    return not asked and any(card.power == "suspended" for card in _cards(facts))


def _cards(facts: Facts) -> tuple[PciDevice, ...]:
    found = cards_on_bus(facts)
    return () if isinstance(found, Unknown) else found


# ---------------------------------------------------------------- whom it would disturb


def _refusal(facts: Facts, devices: tuple[Device, ...], budget: int | None, own: frozenset[int]) -> Skipped | None:
    nvml = facts.nvml
    if nvml == SILENT or (isinstance(nvml, Nvml) and (nvml.hung or nvml.crashed)):
        return _NO_ANSWER
    if isinstance(facts.torch_import, TorchImport) and facts.torch_import.cuda is None:
        return _NO_GPU  # another maker's, behind the same names
    for device in devices:
        reason = _disturbs(facts, device, own)
        if reason is not None:
            return Skipped(reason)
    if budget is not None and budget < LEAST_FREE:
        return Skipped(f"{_gib(budget)} GiB of GPU memory are free for it")
    return None


def _disturbs(facts: Facts, device: Device, own: frozenset[int]) -> str | None:
    gpu = device.gpu
    if gpu.mig is True:
        if device.instance is None:
            return f"MIG is enabled on GPU {gpu.index}, and it has no instance"
        # NVML does not say in which instance a process is; others than ours are apart
        taken = device.used is not None and device.used > IDLE_INSTANCE
        return f"somebody holds {_gib(device.used or 0)} GiB of {device.label}; {_BY_NAME}" if taken else None
    working = [process for process in _computing(gpu.processes) if process.pid not in own]
    if working:
        more = f" and {len(working) - 1} more compute" if len(working) > 1 else " computes"
        return f"{_named(working[0], facts)}{more} on {device.label}; {_BY_NAME}"
    given = not isinstance(facts.system, Unknown) and facts.system.scheduler is not None
    if gpu.compute_mode == "prohibited" or (not given and str(gpu.compute_mode).startswith("exclusive")):
        return f"{device.label} is in compute mode {gpu.compute_mode}; {_BY_NAME}"
    return None if given or _all_seen(facts, device) else _signs_of_work(device)


def _computing(processes: tuple[GpuProcess, ...] | Unknown) -> list[GpuProcess]:
    """A zombie computes no more."""
    listed = () if isinstance(processes, Unknown) else processes
    return [process for process in listed if process.kind == "compute" and process.state != "Z"]


def _named(process: GpuProcess, facts: Facts) -> str:
    """Such as: process 1234 (python train.py) of mara."""
    me = None if isinstance(facts.system, Unknown) else facts.system.user.name
    command = f" ({process.command})" if process.command else ""
    owner = f" of {process.user}" if process.user is not None and process.user != me else ""
    return f"process {process.pid}{command}{owner}"


def _all_seen(facts: Facts, device: Device) -> bool:
    """The list of processes is the whole truth; in a container it is that of the container."""
    contained = not isinstance(facts.system, Unknown) and (facts.system.container is not None or facts.system.wsl > 0)
    return not contained and not isinstance(device.gpu.processes, Unknown)


def _signs_of_work(device: Device) -> str | None:
    """Where processes cannot be seen: a GPU that works, or of which more than half is held."""
    utilization, used, total = device.gpu.utilization, device.used, device.total
    if isinstance(utilization, int) and utilization > BUSY_PER_CENT:
        return f"{device.label} is busy ({utilization} %), and with what cannot be seen from here; {_BY_NAME}"
    if used is not None and isinstance(total, int) and used > total // 2:
        return f"somebody holds {_gib(used)} of {_gib(total)} GiB of {device.label}; {_BY_NAME}"
    return None


# ---------------------------------------------------------------- how much memory


def _on_cpu(plan: Plan, facts: Facts) -> Plan:
    spare = _spare(facts)
    return dataclasses.replace(plan, device="cpu", budget=None if spare is None else spare // max(plan.processes, 1))


def _budget(facts: Facts, devices: tuple[Device, ...]) -> int | None:
    """Bytes of each device that may be taken; None where nobody knows."""
    if shares_memory(facts):
        return _spare(facts)
    return min((device.free for device in devices if isinstance(device.free, int)), default=None)


def _spare(facts: Facts) -> int | None:
    """Available memory of the machine less a margin: a tenth of it, at least 2 GiB, but never more than half of what there is.

    To take all of it freezes a machine whose GPU has no memory of its own.
    """
    if isinstance(facts.system, Unknown):
        return None
    total, available = facts.system.memory_total, facts.system.memory_available
    if isinstance(total, Unknown) or isinstance(available, Unknown):
        return None
    available = min(available, facts.system.memory_limit or available)
    return max(available - min(max(total // 10, LEAST_MARGIN), available // 2), 0)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
