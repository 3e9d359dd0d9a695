"""GPU memory that was not enough for the smoke test: what it needed, what there was, and whose the difference is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpudoctor.cards import shares_memory
from gpudoctor.facts import Facts, Smoke, Symptom, Unknown
from gpudoctor.findings import Evidence, Finding, Fix
from gpudoctor.visible import visible

from ..ending import Ending, ending
from ..words import gib
from . import holders
from .memories import GIB, Memory, listed, memories_of

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": GIB, "TiB": 1 << 40}
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,4})?) (bytes|[KMGT]iB)")


@dataclass(frozen=True, slots=True)
class Shortage:
    """One test's need against one device's memory. Sizes are bytes; None where nobody said."""

    ending: Ending
    memory: Memory | None
    """The device as NVML sees it."""
    total: int | None
    free: int | None
    """Before the test took any."""
    need: int | None
    weights: int | None

    @property
    def smoke(self) -> Smoke:
        """The test."""
        return self.ending.smoke

    @property
    def device(self) -> str:
        """GPU 0, or the card's name."""
        return self.memory.label if self.memory else self.smoke.device_name or "the GPU"

    @property
    def model(self) -> str:
        """Such as: llama-2-7b in bf16."""
        return f"{self.smoke.checkpoint} in {self.smoke.dtype}" if self.smoke.dtype else self.smoke.checkpoint

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What PyTorch said, what was counted, what NVML saw."""
        counted = f"needs {_gib(self.need)}, of which {_gib(self.weights)} are weights; {_gib(self.free)} were free"
        lines = (self.ending.evidence, Evidence("smoke test, before loading", counted))
        return (*lines, *(listed(self.memory) if self.memory else ()))


def shortage(facts: Facts) -> Finding | None:
    """The fault behind a smoke test that ran out of GPU memory, or saw that it would."""
    end = ending(facts)
    if end is None or end.kind not in ("gpu-memory", "too-large") or end.smoke.device == "cpu":
        return None
    short = _shortage(facts, end)
    if short.weights and short.total and short.weights > short.total:
        return _model_larger(short)
    if end.symptom is not None and _fragmented(end.symptom):
        return _fragmentation(short)
    if short.need and short.total and short.need > short.total:
        return _workload(short)
    return _held(facts, short) if _taken_by_others(short) else _workload(short)


def _shortage(facts: Facts, end: Ending) -> Shortage:
    smoke, said = end.smoke, end.symptom
    memory = _memory(facts, smoke)
    total = size(said, "total") or (memory.total if memory else None)
    if shares_memory(facts) and not isinstance(facts.system, Unknown) and isinstance(facts.system.memory_total, int):
        total = facts.system.memory_total
    free = smoke.free_memory or (memory.free if memory else None)
    width = BYTES.get(smoke.dtype or "")
    weights = smoke.parameters * width // max(smoke.processes, 1) if smoke.parameters and width else None
    return Shortage(end, memory, total, free, smoke.needed_memory, weights)


def _memory(facts: Facts, smoke: Smoke) -> Memory | None:
    """The device that the test used: the first, or the first of that name."""
    seen = visible(facts)
    if isinstance(seen, Unknown) or shares_memory(facts):
        return None
    memories = memories_of(seen)
    alike = [memory for memory in memories if memory.gpu.name == smoke.device_name]
    return next(iter(alike or memories), None)


def size(symptom: Symptom | None, name: str) -> int | None:
    """A size that an error text names, such as 64.81 MiB, in bytes."""
    found = _SIZE.fullmatch(symptom.value(name) or "") if symptom else None
    return int(float(found.group(1)) * _UNITS[found.group(2)]) if found else None


def _fragmented(said: Symptom) -> bool:
    """PyTorch held more without using it than it asked for: it was there, in pieces."""
    tried, unused = size(said, "tried"), size(said, "unused")
    reserved, allocated = size(said, "reserved"), size(said, "allocated")
    if unused is None and reserved is not None and allocated is not None:
        unused = reserved - allocated
    return bool(tried and unused and unused > tried)


def _taken_by_others(short: Shortage) -> bool:
    """It would have fitted an empty card; or others took what was free while it ran."""
    said, total = short.ending.symptom, short.total
    if short.need and short.free is not None and short.need > short.free:
        return True
    own, free = size(said, "own"), size(said, "free")
    if total and short.free is not None and own is not None and free is not None:
        return total - free - own > total - short.free + GIB // 2
    return bool(short.need is None and short.memory and short.memory.full)


# ---------------------------------------------------------------- findings


def _gib(number: int | None) -> str:
    return "an unknown size" if number is None else f"{gib(number)} GiB"


def _model_larger(short: Shortage) -> Finding:
    free = "" if short.free is None else f", of which {_gib(short.free)} were free"
    return Finding(
        code="model-larger-than-vram",
        severity="fail",
        summary=f"{short.model} needs {_gib(short.need or short.weights)}; {short.device} has {_gib(short.total)}{free}",
        cause=(
            f"{_gib(short.weights)} of that are weights, which are more than the whole card: no batch size, sequence length or "
            "setting of the allocator helps, nor does closing other programs. The same model in 8 or 4 bits, a smaller one, or "
            "some of its layers on the CPU does. Driver and PyTorch are well."
        ),
        evidence=short.evidence,
        fix=Fix("memory#fit-the-model"),
    )


def _workload(short: Shortage) -> Finding:
    larger = short.need and short.total and short.need > short.total
    what = f"needs {_gib(short.need)}" if larger else "ran out of GPU memory"
    free = "" if short.free is None else f", of which {_gib(short.free)} were free"
    return Finding(
        code="workload-exceeds-vram",
        severity="fail",
        summary=f"{short.model} {what}; {short.device} has {_gib(short.total)}{free}",
        cause=(
            f"The weights ({_gib(short.weights)}) fit. What does not are the key-value cache and the activations of these prompts "
            "beside them: both grow with the number of prompts and with their length. Driver and PyTorch are well."
        ),
        evidence=short.evidence,
        fix=Fix("memory#shorten-the-work"),
    )


def _fragmentation(short: Shortage) -> Finding:
    said = short.ending.symptom
    return Finding(
        code="vram-fragmentation",
        severity="fail",
        summary=(
            f"PyTorch holds {_gib(size(said, 'unused') or size(said, 'reserved'))} on {short.device} that it does not use, and "
            f"finds no room for {_gib(size(said, 'tried'))} in one piece"
        ),
        cause=(
            "The allocator keeps what it once got, in blocks; many sizes in turn leave gaps that no request fits. Segments that "
            "can grow avoid that. A larger card, or another driver, is not what is missing."
        ),
        evidence=short.evidence,
        fix=Fix("memory#expandable-segments"),
    )


def _held(facts: Facts, short: Shortage) -> Finding:
    who, fix = _holder(facts, short)
    needs = f"{short.model} needs {_gib(short.need)}" if short.need else f"{short.model} got no memory"
    return Finding(
        code="vram-held-by-other-process",
        severity="fail",
        summary=f"{needs}; {_gib(short.free)} of the {_gib(short.total)} of {short.device} were free: {who}",
        cause=(
            "On an empty card it would fit. Neither a smaller batch nor a setting of the allocator gives back what others hold. "
            "Driver and PyTorch are not at fault."
        ),
        evidence=short.evidence,
        fix=fix,
    )


def _holder(facts: Facts, short: Shortage) -> tuple[str, Fix]:
    """Who holds the rest, and the way to it."""
    memory = short.memory
    if memory is None:
        if shares_memory(facts):
            return "the system and other programs use the rest of this memory too", Fix("memory#unified-memory")
        return "who holds the rest cannot be seen from here", Fix("memory#find-hidden-holder")
    computing = holders.computing(memory)
    if computing:
        return f"{holders.named(memory, facts)} {'hold' if len(computing) > 1 else 'holds'} the rest", holders.release(computing[0])
    if memory.held(kind="graphics") > (memory.total - memory.free) // 2:
        return "the desktop holds the rest", Fix("memory#move-display")
    return "who holds the rest cannot be seen from here", Fix("memory#find-hidden-holder")
