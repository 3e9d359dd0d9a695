"""Whether the smoke test took as much GPU memory as was counted before: what `fit` promises rests on that arithmetic."""

from __future__ import annotations

from gpudoctor.facts import Smoke
from gpudoctor.findings import Evidence, Finding, Fix

from ..words import gib

ALLOWED = 0.03
SMALL = 64 << 20
"""Bytes. Of a small model less than this may be a library's own buffers, which no shape tells of."""


def difference(smoke: Smoke) -> float | None:
    """By which part of the prediction the peak is more (or less); None where the two cannot be compared.

    On a CPU the peak is that of the whole process, its libraries and mapped files included.
    """
    if smoke.device != "cuda" or not smoke.predicted_memory or smoke.peak_memory is None:
        return None
    return smoke.peak_memory / smoke.predicted_memory - 1


def finding(smoke: Smoke) -> Finding | None:
    """The two are further apart than the arithmetic allows for."""
    off = difference(smoke)
    if off is None or smoke.predicted_memory is None or smoke.peak_memory is None:
        return None
    if abs(off) <= ALLOWED or abs(smoke.peak_memory - smoke.predicted_memory) <= SMALL:
        return None
    more = "more" if off > 0 else "less"
    return Finding(
        code="memory-not-as-predicted",
        severity="warn",
        summary=(
            f"The smoke test took {gib(smoke.peak_memory)} GiB of GPU memory; {gib(smoke.predicted_memory)} GiB were counted "
            f"before: {abs(off) * 100:.0f} % {more}"
        ),
        cause=(
            "The count follows from the model's shape, so either this PyTorch allocates what no other does, or the arithmetic of "
            "gpudoctor is wrong for this model. Your machine is not at fault. Until it is found, do not rely on `gpudoctor fit` "
            "for a model that only just fits."
        ),
        evidence=(Evidence("smoke test", f"peak {smoke.peak_memory} bytes, predicted {smoke.predicted_memory} bytes"),),
        fix=Fix("gpudoctor#report-a-bug"),
    )


def in_words(smoke: Smoke) -> str:
    """Such as: peak 12.90 GiB as predicted; empty on a CPU."""
    if smoke.peak_memory is None or smoke.device != "cuda":
        return ""
    off = difference(smoke)
    if off is None or smoke.predicted_memory is None:
        return f"peak {gib(smoke.peak_memory)} GiB"
    close = abs(off) <= ALLOWED or abs(smoke.peak_memory - smoke.predicted_memory) <= SMALL
    return f"peak {gib(smoke.peak_memory)} GiB {'as predicted' if close else f'where {gib(smoke.predicted_memory)} were predicted'}"
