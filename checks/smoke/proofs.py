"""What the smoke test computed, where it is not what it should be."""

from __future__ import annotations

from gpudoctor.facts import Facts, Smoke
from gpudoctor.findings import Evidence, Finding, Fix

from ..pytorch import cure

_OVERFLOW = (
    "fp16 ends at 65504, and models that were trained in bf16 go beyond it: the weights are well, the dtype is not the model's. "
    "bf16 has the same size on a GPU from Ampere on, fp32 works everywhere. If it stays so in fp32, the file is damaged, or the "
    "card's memory is."
)
_DAMAGED_FILE = (
    "does not overflow with a sound model: the file was damaged or cut when it was copied, or it never held a sound model. Compare "
    "its checksum before anything else. GPU and PyTorch computed with what they were given."
)
_RANDOM = "The weights were random and small, for which no dtype overflows. What returned a number that it should not is"
_OF_THE_CPU = "PyTorch's code, or the machine's memory."
_LOST_BETWEEN = (
    "Data was lost or changed on the way between GPUs. On PCI Express that is mostly the IOMMU or access control (ACS) of a "
    "bridge. Do not train or run anything on several of these GPUs until it is cured."
)
_CARD_FIRST = "Changed clocks or voltages come first, then the card itself, then damaged files of PyTorch."


def findings(facts: Facts, smoke: Smoke) -> tuple[Finding, ...]:
    """The proofs that failed; numbers that are none make the comparisons beside the point."""
    found = (_all_reduce(facts, smoke), _finite(facts, smoke) or _agreement(facts, smoke) or _repeatable(facts, smoke))
    return tuple(finding for finding in found if finding is not None)


def _finite(facts: Facts, smoke: Smoke) -> Finding | None:
    if smoke.finite is not False:
        return None
    why, fix = _why_not_finite(facts, smoke)
    return Finding(
        code="logits-not-finite",
        severity="fail",
        summary=f"{smoke.checkpoint} in {smoke.dtype or 'its dtype'} gives NaN or infinity instead of logits",
        cause=why,
        evidence=(Evidence("smoke test", "not all logits are finite numbers"), _made_of(smoke)),
        fix=fix,
        stands_alone=smoke.device == "cpu",
    )


def _why_not_finite(facts: Facts, smoke: Smoke) -> tuple[str, Fix]:
    if smoke.weights == "real" and smoke.dtype == "fp16":
        return _OVERFLOW, Fix("smoke#choose-dtype")
    if smoke.weights == "real":
        return f"{smoke.dtype or 'This dtype'} {_DAMAGED_FILE}", Fix("smoke#compare-checksums")
    if smoke.device == "cpu":
        return f"{_RANDOM} {_OF_THE_CPU}", cure.with_environment(facts, "smoke#keep-the-error")
    return f"{_RANDOM} a kernel, or the card's memory. {_CARD_FIRST}", Fix("hardware#unstable-gpu")


def _made_of(smoke: Smoke) -> Evidence:
    return Evidence(
        "smoke test", f"{smoke.weights} weights, {smoke.dtype or 'dtype unknown'}, on {smoke.device_name or smoke.device}"
    )


def _agreement(facts: Facts, smoke: Smoke) -> Finding | None:  # noqa: ARG001 - the signature of every proof
    if smoke.difference is None or smoke.tolerance is None or smoke.difference <= smoke.tolerance:
        return None  # NaN is not less: it is a difference
    return Finding(
        code="cpu-gpu-disagree",
        severity="fail",
        summary=f"GPU and CPU differ by {smoke.difference:.2g} of the largest logit; rounding explains {smoke.tolerance:.2g}",
        cause=(
            "The same weights and tokens were computed twice, and one of the two is wrong; nearly always it is the GPU. Clocks or "
            "voltages that were changed come first, then failing memory or power, then damaged files of PyTorch. Until it is "
            "found, results of this card are not to be trusted, although no error is shown."
        ),
        evidence=(
            Evidence("smoke test", f"largest difference {smoke.difference:.3g}, tolerance {smoke.tolerance:.3g}"),
            _made_of(smoke),
        ),
        fix=Fix("hardware#unstable-gpu"),
    )


def _repeatable(facts: Facts, smoke: Smoke) -> Finding | None:
    if smoke.repeatable is not False:
        return None
    where, step = ("this CPU", "smoke#keep-the-error") if smoke.device == "cpu" else ("this GPU", "hardware#unstable-gpu")
    return Finding(
        code="generation-not-repeatable",
        severity="warn",
        summary=f"Two greedy runs on {where} gave different tokens",
        cause=(
            "Without sampling the same kernels on the same numbers give the same tokens. Two logits that are nearly equal and a "
            "kernel that adds in another order can tip one token; if it happens again with other prompts, think of memory, clocks "
            "and power. It alone is no reason to replace anything."
        ),
        evidence=(Evidence("smoke test", "the second greedy run differs from the first"), _made_of(smoke)),
        fix=cure.with_environment(facts, step) if smoke.device == "cpu" else Fix(step),
    )


def _all_reduce(facts: Facts, smoke: Smoke) -> Finding | None:
    if smoke.all_reduce is not False:
        return None
    why, fix = _why_no_sum(facts, smoke)
    return Finding(
        code="all-reduce-wrong",
        severity="fail",
        summary=f"A sum over {smoke.processes} process{'' if smoke.processes == 1 else 'es'} ({smoke.backend}) is not the sum",
        cause=f"Each process brought known numbers, and what came back is something else, without an error. {why}",
        evidence=(Evidence("smoke test, phase nccl", "the all-reduce of known numbers gave other numbers"),),
        fix=fix,
        stands_alone=smoke.device == "cpu",
    )


def _why_no_sum(facts: Facts, smoke: Smoke) -> tuple[str, Fix]:
    if smoke.device == "cpu":
        return f"It is {_OF_THE_CPU}", cure.with_environment(facts, "smoke#keep-the-error")
    if smoke.processes == 1:
        return f"One GPU alone sent it nowhere: its kernels or its memory are at fault. {_CARD_FIRST}", Fix("hardware#unstable-gpu")
    return _LOST_BETWEEN, Fix("nccl#peer-to-peer")
