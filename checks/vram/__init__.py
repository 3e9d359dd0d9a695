"""VRAM: how much memory of each GPU is free, who holds the rest, and whether it was enough for the smoke test.

A model that would fit an empty card does not fit beside another process. The figures are NVML's, for the GPUs that CUDA
would show to the target (CUDA_VISIBLE_DEVICES, MIG instances instead of their parent). Where GPU and CPU share one memory
(GB10, Jetson), NVML has no true figure: there the machine's available memory is judged.

What is free now:

* ``vram-held-by-other-process``: no visible GPU has a tenth of its memory (or 1 GiB) free, and processes hold more than
  half of one; also memory that no process accounts for, and what was held where the smoke test would have fitted an empty
  card. In a container or WSL the process list is not the whole truth: who holds it is unknown there, nobody is accused.
* ``vram-display``: the desktop holds more than a quarter of a card.
* ``ci-leftover-proc``: in a CI job somebody computes on the GPU before the job does.
* ``unified-memory-low``: less than a tenth of a shared memory is available.

The model that was asked about (``--model``), counted before anything is loaded:

* ``model-barely-fits``: by what cannot be counted beforehand it may run or not.
* the four below, where it does not fit.

What the smoke test ran out of:

* ``model-larger-than-vram``: the weights alone are larger than the GPU's whole memory.
* ``workload-exceeds-vram``: the weights fit; together with cache and activations of these prompts they do not.
* ``vram-fragmentation``: PyTorch holds memory that it does not use, in pieces too small for what was asked.

Told by a text alone:

* ``training-state-exceeds-vram``: the weights fit; gradients and the optimizer's state beside them do not.
* ``kv-cache-exceeds-vram``: the weights fit; the cache for the length that a server is to offer does not.
"""

from __future__ import annotations

from gpudoctor.cards import shares_memory
from gpudoctor.facts import Facts, Unknown
from gpudoctor.findings import Check, Evidence, Finding, Fix, Verdict, listed_codes
from gpudoctor.visible import Visible, visible

from ..cards import asleep
from ..words import gib
from . import holders, shortage, wanted
from .memories import Memory, memories_of, summary


def judge(facts: Facts, required: bool) -> Verdict:  # noqa: ARG001 - the signature of every check
    """Free and held memory of the GPUs that the target sees, and whether the smoke test ran out of it."""
    verdict = _judge_shared(facts) if shares_memory(facts) else _judge_free(facts)
    if verdict.status != "fail":
        verdict = _with_model(verdict, wanted.judge(facts))
    short = shortage.shortage(facts)
    if short is None or verdict.status == "fail":
        return verdict
    return Verdict(short.summary, (short,))


def _with_model(verdict: Verdict, model: Verdict | None) -> Verdict:
    """What is true of the card, and what of the model on it."""
    if model is None:
        return verdict
    unknown = (*model.unknown, *verdict.unknown)
    return Verdict(model.summary, (*model.findings, *verdict.findings), tuple(dict.fromkeys(unknown)))


def _judge_free(facts: Facts) -> Verdict:
    seen = visible(facts)
    if isinstance(seen, Unknown) and asleep(facts):
        return Verdict("not asked: the GPU is asleep, and looking would wake it")
    if isinstance(seen, Unknown):
        return Verdict(f"free memory is unknown: {seen.why}", unknown=(f"free GPU memory: {seen.why}",))
    memories = memories_of(seen)
    if not memories:
        return _nothing(seen)
    findings = _held(facts, memories)
    unknown = holders.unseen_holder(facts, memories) if not findings else ()
    return Verdict(summary(facts, memories), findings, unknown)


def _held(facts: Facts, memories: list[Memory]) -> tuple[Finding, ...]:
    """A fault makes the rest of it beside the point."""
    judged = (holders.held(facts, memories), holders.leftover(facts, memories), holders.display(memories))
    findings = tuple(finding for finding in judged if finding is not None)
    return tuple(finding for finding in findings if finding.severity == "fail") or findings


def _nothing(seen: Visible) -> Verdict:
    if seen.hidden or not seen.gpus:
        return Verdict("no GPU is visible, so there is no GPU memory to judge")
    whys = [why for gpu in seen.gpus for why in (gpu.memory_free,) if isinstance(why, Unknown)]
    if any(gpu.mig is True for gpu in seen.gpus):
        return Verdict("no MIG instance is visible, so there is no GPU memory to judge")
    why = whys[0].why if whys else "NVML did not say"
    return Verdict(f"free memory is unknown: {why}", unknown=(f"free GPU memory: {why}",))


def _judge_shared(facts: Facts) -> Verdict:
    """GPU and CPU use one memory."""
    if isinstance(facts.system, Unknown):
        return Verdict(f"available memory is unknown: {facts.system.why}", unknown=(f"available memory: {facts.system.why}",))
    available, total = facts.system.memory_available, facts.system.memory_total
    if isinstance(available, Unknown) or isinstance(total, Unknown):
        return Verdict("available memory is unknown", unknown=("MemAvailable of /proc/meminfo",))
    words = f"{gib(available)} of {gib(total)} GiB available in the memory that CPU and GPU share"
    if available >= total // 10:
        return Verdict(words)
    low = Finding(
        code="unified-memory-low",
        severity="warn",
        summary=f"Only {gib(available)} of {gib(total)} GiB are available in the memory that CPU and GPU share",
        cause=(
            "GPU and CPU use the same memory here: neither NVML's nor CUDA's free figure is true, MemAvailable is. To allocate "
            "more than that freezes the machine instead of failing with out of memory."
        ),
        evidence=(Evidence("/proc/meminfo", f"MemAvailable: {available >> 10} kB of MemTotal: {total >> 10} kB"),),
        fix=Fix("memory#unified-memory"),
    )
    return Verdict(words, (low,))


CHECK = Check(
    name="vram",
    title="VRAM",
    needs=("driver",),
    codes=listed_codes(__doc__),
    judge=judge,
)
