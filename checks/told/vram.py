"""Out of GPU memory, by the numbers of the message: what was being allocated, who held what, what would fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gpudoctor.facts import Gpu, GpuProcess, Symptom, Unknown

from . import weights
from .told import Suspect, Told
from .weights import sized

_UNITS = {"bytes": 1, "kib": 1 << 10, "kb": 1 << 10, "mib": 1 << 20, "mb": 1 << 20, "gib": 1 << 30, "gb": 1 << 30, "tib": 1 << 40}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,4})?) (\w{2,5})")
_NUMBERS = ("cuda-out-of-memory", "cuda-out-of-memory-before-2-1", "oom-numbers-old", "oom-numbers-new", "oom-numbers-async")
_BARE = ("oom-any", "oom-name", "oom-allowed", "cuda-allocation-failed", "llamacpp-buffer", "oom-tried-only")
LOADING = ("clue-loads-model", "offload-to-cpu")
LLM = (
    "llama",
    "vicuna",
    "alpaca",
    "mistral",
    "mixtral",
    "qwen",
    "falcon",
    "bloom",
    "baichuan",
    "chatglm",
    "gemma",
    "deepseek",
    "internlm",
    "starcoder",
    "wizardlm",
    "mpt-",
    "yi-",
)
SMALL_SHARE, LARGE_SHARE, FULL = 0.35, 0.55, 0.7
CONTEXT = 1 << 30
"""More than a process has beside what PyTorch allocates."""


@dataclass(frozen=True)
class Numbers:
    """One message's sizes in bytes; None where it does not name them."""

    said: Symptom
    tried: int | None
    total: int
    free: int
    allocated: int | None
    reserved: int | None
    own: int | None

    @property
    def mine(self) -> int | None:
        """All that this process holds."""
        return self.own if self.own is not None else self.reserved if self.reserved is not None else self.allocated

    @property
    def others(self) -> int:
        """What neither is free nor belongs to this process, beyond its context."""
        if self.mine is None:
            return 0
        mine = self.mine
        context = 0 if self.own is not None else min(CONTEXT, self.total // 12)
        return max(0, self.total - self.free - mine - context)

    @property
    def unused(self) -> int | None:
        """Reserved by PyTorch and not allocated."""
        return None if self.reserved is None or self.allocated is None else max(0, self.reserved - self.allocated)


def numbers(symptom: Symptom) -> Numbers | None:
    """The sizes of the message; None where they are not all there, or cannot be true."""
    total, free = size(symptom, "total"), size(symptom, "free")
    if total is None or free is None or total <= 0:
        return None
    allocated, own = size(symptom, "allocated"), size(symptom, "own")
    reserved = size(symptom, "reserved")
    unused = size(symptom, "unused")
    if reserved is None and allocated is not None and unused is not None:
        reserved = allocated + unused
    if reserved is not None and allocated is not None and reserved < allocated:
        reserved += allocated  # PyTorch 1.0 to 1.3 wrote as cached what it had reserved and not allocated
    own = own if own is not None and own <= 2 * total else None  # some releases print nonsense here
    return Numbers(symptom, size(symptom, "tried"), total, free, allocated, reserved, own)


def size(symptom: Symptom, name: str) -> int | None:
    """A size that the text names, in bytes."""
    found = _SIZE.fullmatch(symptom.value(name) or "")
    unit = _UNITS.get(found.group(2).lower()) if found else None
    return round(float(found.group(1)) * unit) if found and unit else None


def out_of_memory(told: Told) -> Iterator[Suspect]:
    """The one of four causes that the numbers speak for, where there are any."""
    if told.has("memory-leak-words"):
        return  # what it once needed does fit
    messages = [found for symptom in told.said(*_NUMBERS) if (found := numbers(symptom))]
    if messages:
        yield from _by_numbers(
            told, max(messages, key=lambda found: (found.own is not None, found.allocated is not None, found.reserved is not None))
        )
    elif told.has(*_BARE):
        yield from _by_words(told)


def _by_numbers(told: Told, seen: Numbers) -> Iterator[Suspect]:
    said = (seen.said, *told.said("oom-other-process"))
    fragmented = _fragmented(seen)
    if fragmented:
        yield Suspect("vram-fragmentation", 90 if fragmented == "sure" else 70, said, _fragments(seen))
    held = _held(told, seen)
    if held:
        yield Suspect(
            "vram-held-by-other-process",
            held,
            (*said, *told.said("held-words")),
            _holders(told, seen),
            values=_pid(told),
            step=_holder_step(told),
        )
    larger = weights.larger_than(told, seen.total, seen.tried, seen.allocated)
    surely = larger is not None and larger.alone > seen.total
    if larger is not None and surely:
        yield Suspect("model-larger-than-vram", 93, said, larger.summary, f"{_holds(seen)} {larger.why}".strip())
    elif not held:
        yield from _by_phase(told, said, seen, larger)


def _by_phase(told: Told, said: tuple[Symptom, ...], seen: Numbers | None, larger: weights.Larger | None) -> Iterator[Suspect]:
    """Where in the program it was: building the model, computing, training."""
    summary, why = (larger.summary, larger.why) if larger else ("", "")
    words = _tried(seen)
    loading = told.has(*LOADING) or (told.has("clue-in-init") and not told.has("clue-computes"))
    if told.has("clue-optimizer"):
        yield Suspect("training-state-exceeds-vram", 88, (*said, *told.said("clue-optimizer")), words)
        return
    if told.has("clue-trains"):
        yield Suspect("workload-exceeds-vram", 74, said, words)
        yield Suspect("training-state-exceeds-vram", 70, said, words)
        return
    if told.has("clue-computes") and not loading:
        yield Suspect("workload-exceeds-vram", 82, said, words)
        return
    if loading:
        yield Suspect("model-larger-than-vram", 84, (*said, *told.said("clue-loads-model")[:2]), summary, why)
        yield Suspect("workload-exceeds-vram", 55 if not told.has("clue-computes") else 66, said, words)
        return
    big = weights.names_a_model(told) or told.names(*LLM)
    yield Suspect("model-larger-than-vram", 66 if big else 56, said, summary, why)
    yield Suspect("workload-exceeds-vram", 58, said, words)


def _by_words(told: Told) -> Iterator[Suspect]:
    """A message without its numbers."""
    said = told.said("oom-any", "oom-name", "oom-allowed", "cuda-allocation-failed", "llamacpp-buffer")
    if not said:
        return
    held = _held_on_screen(told)
    if told.has("held-words") or held:
        words = (*said, *told.said("held-words"))
        yield Suspect("vram-held-by-other-process", 86, words, held, values=_pid(told), step=_holder_step(told))
    elif told.has("clue-shared-machine"):
        yield Suspect("vram-held-by-other-process", 76, (*said, *told.said("clue-shared-machine")), step=_holder_step(told))
    elif told.has("cuda-allocation-failed") and not told.has(*LOADING, "clue-computes", "clue-trains", "clue-optimizer"):
        yield Suspect("vram-held-by-other-process", 62, said, step=_holder_step(told))
    if told.has("fragmentation-words"):
        yield Suspect("vram-fragmentation", 82, (*said, *told.said("fragmentation-words")))
    if told.has("llamacpp-buffer"):
        yield Suspect("model-larger-than-vram", 80, said)
        return
    larger = weights.larger_than(told, _total(told), None, None)
    yield from _by_phase(told, said, None, larger)


def _total(told: Told) -> int | None:
    return max((gpu.memory_total for gpu in _gpus(told) if isinstance(gpu.memory_total, int)), default=None)


def _fragmented(seen: Numbers) -> str:
    """sure: more lies unused in PyTorch's own pool than was asked for, and not a little; maybe: more is free than was asked for."""
    if seen.tried is None:
        return ""
    if seen.unused is not None and seen.unused > seen.tried and seen.unused > seen.total // 10:
        return "sure"
    return "maybe" if seen.free > seen.tried * 1.05 else ""


def _held(told: Told, seen: Numbers) -> int:
    """How surely others hold what is missing."""
    named = sum(size(symptom, "held") or 0 for symptom in told.said("oom-other-process"))
    share = max(seen.others, named) / seen.total
    mine = (seen.mine or 0) / seen.total
    if share > LARGE_SHARE and mine < SMALL_SHARE:
        return 94
    if share > mine and share > SMALL_SHARE:
        return 86
    if told.has("held-words") and share > 0.1:
        return 84
    return 0


def _held_on_screen(told: Told) -> str:
    """What nvidia-smi shows of a card that is full; empty where it shows none."""
    for gpu in _gpus(told):
        total, used = gpu.memory_total, gpu.memory_used
        if isinstance(total, int) and isinstance(used, int) and used > FULL * total:
            largest = _largest(gpu)
            who = f": {largest.command} (process {largest.pid})" if largest else ""
            return f"{sized(used)} of the {sized(total)} of GPU {gpu.index} are in use{who}"
    return ""


def _gpus(told: Told) -> tuple[Gpu, ...]:
    return () if isinstance(told.facts.nvml, Unknown) else told.facts.nvml.gpus


def _largest(gpu: Gpu) -> GpuProcess | None:
    """The process that holds most of it, of those whose share is shown."""
    shown = () if isinstance(gpu.processes, Unknown) else gpu.processes
    computing = [(process.used, process) for process in shown if process.kind == "compute" and isinstance(process.used, int)]
    return max(computing, key=lambda pair: pair[0])[1] if computing else None


def _holder_step(told: Told) -> str:
    return "memory#free-held-memory" if _pid(told) else "memory#find-hidden-holder"


def _pid(told: Told) -> tuple[tuple[str, str], ...]:
    named = sorted(told.said("oom-other-process"), key=lambda symptom: -(size(symptom, "held") or 0))
    if named:
        return (("PID", named[0].value("pid") or ""),)
    largest = next((process for gpu in _gpus(told) if (process := _largest(gpu))), None)
    return (("PID", str(largest.pid)),) if largest else ()


def _tried(seen: Numbers | None) -> str:
    if seen is None or seen.tried is None:
        return ""
    mine = f"; this process holds {sized(seen.mine)} of {sized(seen.total)}" if seen.mine else ""
    return f"{sized(seen.tried)} more were asked for, and {sized(seen.free)} are free{mine}"


def _holds(seen: Numbers) -> str:
    """Who held what when it failed."""
    if seen.mine is None:
        return ""
    rest = max(0, seen.total - seen.free - seen.mine)
    others = (
        f"; the rest, {sized(rest)}, is its CUDA context and what other programs hold, a desktop for one"
        if seen.own is None
        else ""
    )
    return f"When it failed, this process held {sized(seen.mine)} of {sized(seen.total)}, and {sized(seen.free)} were free{others}."


def _holders(told: Told, seen: Numbers) -> str:
    named = [f"process {s.value('pid')} holds {s.value('held')}" for s in told.said("oom-other-process")]
    who = "; ".join(named) if named else f"others hold about {sized(seen.others)}"
    mine = f"this program {sized(seen.mine)}" if seen.mine is not None else "this program little"
    return f"Of {sized(seen.total)} {who}, {mine}, and {sized(seen.free)} are free"


def _fragments(seen: Numbers) -> str:
    if seen.unused is not None and seen.tried is not None and seen.unused > seen.tried:
        return f"PyTorch holds {sized(seen.unused)} that it does not use, and finds no room for {sized(seen.tried)} in one piece"
    return f"{sized(seen.free)} are free, and {sized(seen.tried or 0)} do not fit in one piece"


RULES = (out_of_memory,)
