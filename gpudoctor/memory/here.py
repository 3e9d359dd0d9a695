"""The cards of this machine, as its facts tell of them: what a program of the user's could use now."""

from __future__ import annotations

from dataclasses import replace

from gpudoctor.cards import has_gpu, shares_memory
from gpudoctor.facts import Facts, Gpu, GpuProcess, MigDevice, System, Unknown
from gpudoctor.memory.card import MARGIN, Card, Holder
from gpudoctor.visible import Visible, visible


def cards(facts: Facts) -> tuple[Card, ...] | Unknown:
    """The GPUs and MIG instances that CUDA would show, the one with most free memory first; Unknown where nobody can say."""
    if shares_memory(facts):
        return _shared(facts)
    seen = visible(facts)
    if isinstance(seen, Unknown):
        return Unknown("this machine has no NVIDIA GPU") if has_gpu(facts) is False else seen
    found = _of(seen, facts.system.user.name if isinstance(facts.system, System) else None)
    if found:
        names = [card.name for card in found]
        found = [replace(card, alike=names.count(card.name)) for card in found]
        return tuple(sorted(found, key=lambda card: -card.free))
    if has_gpu(facts) is False:
        return Unknown("this machine has no NVIDIA GPU")
    return Unknown("no GPU is visible (CUDA_VISIBLE_DEVICES)" if seen.hidden else "the driver shows no GPU with its memory")


def _of(seen: Visible, me: str | None) -> list[Card]:
    found: list[Card | None] = []
    for gpu in seen.gpus:
        instances = () if isinstance(gpu.mig_devices, Unknown) else tuple(one for one in gpu.mig_devices if one in seen.mig)
        found += [of_gpu(gpu, me, instance) for instance in instances] if gpu.mig is True else [of_gpu(gpu, me)]
    return [card for card in found if card is not None]


def of_gpu(gpu: Gpu, me: str | None, instance: MigDevice | None = None) -> Card | None:
    """A GPU as NVML sees it, asked by the user ``me``; None where it does not tell the sizes."""
    total, free = (gpu.memory_total, gpu.memory_free) if instance is None else (instance.memory_total, instance.memory_free)
    if not isinstance(total, int) or not isinstance(free, int):
        return None
    processes = () if isinstance(gpu.processes, Unknown) or instance is not None else gpu.processes
    holders = sorted((_holder(process, me) for process in processes), key=lambda holder: -(holder.used or 0))
    name = instance.name if instance is not None else gpu.name if isinstance(gpu.name, str) else f"GPU {gpu.index}"
    capability = gpu.compute_capability if isinstance(gpu.compute_capability, str) else None
    return Card(name, total, free, 1, tuple(holders), here=True, part=instance is not None, capability=capability)


def _holder(process: GpuProcess, me: str | None) -> Holder:
    words = (process.command or "").split()
    program = words[0].rsplit("/", 1)[-1].rstrip(":") if words else f"process {process.pid}"
    return Holder(
        process.pid,
        program,
        process.user,
        process.kind,
        process.used if isinstance(process.used, int) else None,
        mine=me is not None and process.user == me,
    )


def _shared(facts: Facts) -> tuple[Card, ...] | Unknown:
    """Where CPU and GPU use one memory, what the system says is available counts: NVML and CUDA have no true figure."""
    if not isinstance(facts.system, System):
        return Unknown("the available memory could not be read")
    total, free = facts.system.memory_total, facts.system.memory_available
    if isinstance(total, Unknown) or isinstance(free, Unknown):
        return Unknown("the available memory could not be read")
    names = [] if isinstance(facts.nvml, Unknown) else [gpu.name for gpu in facts.nvml.gpus if isinstance(gpu.name, str)]
    return (Card(names[0] if names else "the GPU", total, max(0, free - MARGIN), here=True, shared=True),)


def room(facts: Facts) -> int | None:
    """The machine's own memory that a program may still take: what is available, or a container's limit where that is less."""
    if not isinstance(facts.system, System) or isinstance(facts.system.memory_available, Unknown):
        return None
    return min(facts.system.memory_available, facts.system.memory_limit or facts.system.memory_available)
