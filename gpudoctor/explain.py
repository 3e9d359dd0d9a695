"""What a pasted text complains of: the checks' findings on its facts, the likeliest cause first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpudoctor import symptoms
from gpudoctor.diagnose import built_in, diagnose
from gpudoctor.facts import Facts, Symptom
from gpudoctor.findings import Check, Finding

SETTLED = 60
"""Per cent from which the first finding is called the cause."""
FURTHER, CLOSE = 2, 35
"""How many other causes are named, and by how much less sure they may be."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer. ``findings`` is empty where nothing in the text is a fault of the environment."""

    findings: tuple[Finding, ...]
    asks: str | None
    """The one thing that would settle it, where the text does not; None where it does, or is no fault of the environment."""
    harmless: tuple[Symptom, ...] = ()
    """Known texts that need no action."""
    ordinary: tuple[Symptom, ...] = ()
    """Errors that are none of the environment's."""

    @property
    def settled(self) -> bool:
        """The first finding is the cause."""
        return bool(self.findings) and self.asks is None


def explain(facts: Facts, checks: Sequence[Check] | None = None) -> Explanation:
    """Judge a text's facts by the same checks that judge a machine's."""
    if facts.complaint is None:
        return Explanation((), None)
    # what a text complains of is ranked: no fault blocks another
    judges = [replace(check, needs=()) for check in (built_in() if checks is None else checks)]
    diagnosis = diagnose(facts, checks=judges)
    found = sorted((f for check in diagnosis.checks for f in check.findings), key=lambda finding: -finding.sure)
    first = found[:1]
    close = [finding for finding in found[1:] if finding.sure >= found[0].sure - CLOSE][:FURTHER]
    kinds = {symptom: row.kind for symptom in facts.complaint.symptoms if (row := symptoms.row_of(symptom.id)) is not None}
    return Explanation(
        tuple(first + close),
        _asks(facts, found),
        tuple(symptom for symptom, kind in kinds.items() if kind == "harmless"),
        tuple(symptom for symptom, kind in kinds.items() if kind == "ordinary"),
    )


def _asks(facts: Facts, found: Sequence[Finding]) -> str | None:
    if found and found[0].sure >= SETTLED:
        return None
    complaint = facts.complaint
    if found:
        return f"whether {found[0].apart}" if found[0].apart else "the lines before this message, from the first error on"
    if complaint is None:
        return None
    vague = [
        s for s in complaint.symptoms if (row := symptoms.row_of(s.id)) is not None and row.kind == "complaint" and s.id in VAGUE
    ]
    return VAGUE[vague[0].id] if vague else None


VAGUE = {
    "cuda-error": "the whole text from the first error on, of a run with CUDA_LAUNCH_BLOCKING=1",
    "cuda-fault": "the whole text of a run with CUDA_LAUNCH_BLOCKING=1, and what `sudo dmesg | grep Xid` says",
    "cublas-error": "the whole text from the first error on",
    "nccl-error": "the lines of a run with NCCL_DEBUG=INFO before this one",
    "bad-alloc": "what `free -h` says while it is loaded",
    "python-out-of-memory": "what `free -h` says while it is loaded",
    "library-version-missing": "what `pip show` says of the package that the message names, and `ldd --version`",
    "hung-task": "what `sudo dmesg` says before this line",
}
"""Complaints without a cause: what would tell it."""
