"""How the smoke test ended, as the check of every layer reads it: one reading, so that one layer names the cause.

A test that came through, was left out or could not be asked has no ending. What the process said last decides: the traceback
before what stood on stderr earlier, where libraries print warnings that stopped nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gpudoctor import symptoms
from gpudoctor.facts import Facts, Smoke, Symptom
from gpudoctor.findings import Evidence

from .words import capped

Kind = Literal[
    "hang",
    "killed",
    "proof",
    "assert",
    "gpu-fault",
    "gpu-memory",
    "no-code",
    "ptx",
    "cudnn",
    "library",
    "nccl",
    "port",
    "host-memory",
    "devices",
    "half",
    "bf16",
    "ordinal",
    "package",
    "too-large",
    "crash",
    "error",
]
"""proof: it gave up because a proof failed; package: a Python package reads the checkpoint, and is not there; too-large: it
counted before it loaded anything, and stopped; error: nothing known."""

# The first kind that has a text in the error is the cause; the others follow from it.
_TEXTS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("assert", ("cuda-device-assert", "cuda-index-assert")),
    ("gpu-fault", ("cuda-fault",)),
    ("gpu-memory", ("cuda-out-of-memory", "cuda-out-of-memory-before-2-1", "cuda-allocation-failed")),
    ("no-code", ("cuda-no-kernel-image",)),
    ("ptx", ("cuda-ptx-too-new",)),
    ("cudnn", ("cudnn-not-loaded", "cudnn-mismatch", "cudnn-old-gpu", "cudnn-not-initialized")),
    ("library", ("nvrtc-builtins", "library-missing", "library-empty", "undefined-symbol", "library-version-missing")),
    ("port", ("rendezvous-port-in-use",)),
    ("host-memory", ("host-out-of-memory", "python-out-of-memory", "bad-alloc")),
    ("devices", ("tensors-on-different-devices",)),
    ("half", ("half-not-supported",)),
    ("bf16", ("bf16-needs-ampere", "bf16-unsupported")),
    ("ordinal", ("cuda-invalid-device",)),
    (
        "nccl",
        (
            "nccl-duplicate-gpu",
            "nccl-ranks-share-gpu",
            "nccl-shm",
            "nccl-no-interface",
            "nccl-cuda-failure",
            "nccl-timeout",
            "torch-no-nccl",
            "nccl-no-gpu",
            "nccl-error",
        ),
    ),
)
_CUBLAS: dict[str, Kind] = {
    "ALLOC_FAILED": "gpu-memory",
    "ARCH_MISMATCH": "no-code",
    "EXECUTION_FAILED": "gpu-fault",
    "INTERNAL_ERROR": "gpu-fault",
    "MAPPING_ERROR": "gpu-fault",
}
_FROM_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGXCPU")
_RANK = re.compile(r"\brank (\d{1,6}) was ended by (SIG[A-Z0-9]{2,10})")
_PACKAGE = re.compile(r"\bTo install it: .{1,4096} -m pip install ([\w.-]{1,40})\s*\Z")
"""How the worker ends where the reader of a checkpoint is another package."""
_CUDNN = "libcudnn"
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Ending:
    """What stopped the smoke test."""

    kind: Kind
    smoke: Smoke
    symptom: Symptom | None = None
    """The known text that says so."""
    signal: str | None = None
    """The signal that ended it, or one of its processes."""

    @property
    def evidence(self) -> Evidence:
        """Where it was, and its own words."""
        words = capped(self.smoke.error or "") if self.symptom is None else self.symptom.text
        parts = [part for part in (self._how, _beginning(words)) if part]
        return Evidence(f"smoke test, phase {self.smoke.phase}", ": ".join(parts) or "it ended without a word")

    @property
    def package(self) -> str | None:
        """The Python package that would have read the checkpoint."""
        found = _PACKAGE.search(self.smoke.error or "")
        return found.group(1) if found else None

    @property
    def _how(self) -> str:
        if self.signal:
            return f"ended by {self.signal}"
        return f"no word for too long, given up after {self.smoke.seconds_total:.0f} s" if self.smoke.hung else ""


def _beginning(text: str) -> str:
    """The first words of a known text, which are the ones that it is known by."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN].rpartition(' ')[0]} ..."


def ending(facts: Facts) -> Ending | None:
    """How the smoke test ended before its time; None where it did not, or was not made."""
    smoke = facts.smoke
    if not isinstance(smoke, Smoke) or smoke.came_through:
        return None
    signal = smoke.signal or _signal_of_a_rank(smoke)
    if smoke.hung:
        return Ending("hang", smoke)
    if signal in _FROM_OUTSIDE:
        return Ending("killed", smoke, signal=signal)
    if smoke.finite is False or smoke.all_reduce is False:
        return Ending("proof", smoke)
    if _PACKAGE.search(smoke.error or ""):
        return Ending("package", smoke)
    kind, symptom = _told(smoke)
    if kind is not None:
        return Ending(kind, smoke, symptom, signal)
    if smoke.phase == "memory" and smoke.needed_memory and smoke.free_memory and smoke.needed_memory > smoke.free_memory:
        return Ending("too-large", smoke)
    return Ending("crash" if signal else "error", smoke, symptom, signal)


def _signal_of_a_rank(smoke: Smoke) -> str | None:
    found = _RANK.search(smoke.error or "")
    return found.group(2) if found else None


def _told(smoke: Smoke) -> tuple[Kind | None, Symptom | None]:
    """The cause by the last words, else by what stood on stderr; without a kind, a known text that has none."""
    last = symptoms.read(smoke.error or "", "smoke test")
    kind, symptom = _first(last)
    if kind is None:
        kind, earlier = _first(smoke.symptoms)
        # a library that a package looked for and did without
        kind = None if kind == "library" else kind
        symptom = symptom if kind is None else earlier
    return kind, symptom or next(iter(last), None)


def _first(found: tuple[Symptom, ...]) -> tuple[Kind | None, Symptom | None]:
    kinds = {symptom: _kind(symptom) for symptom in found}
    for kind, _ in _TEXTS:
        for symptom in sorted(kinds, key=_rank):
            if kinds[symptom] == kind:
                return kind, symptom
    return None, None


def _kind(symptom: Symptom) -> Kind | None:
    if symptom.id == "cublas-error":
        return _CUBLAS.get(symptom.value("status") or "")
    if symptom.id == "nccl-cuda-failure" and "out of memory" in (symptom.value("words") or ""):
        return "gpu-memory"
    if any(value.rpartition("/")[2].startswith(_CUDNN) for _, value in symptom.values):
        return "cudnn"
    return next((kind for kind, ids in _TEXTS if symptom.id in ids), None)


def _rank(symptom: Symptom) -> int:
    """Of one kind's texts the one that tells most."""
    order = [name for _, ids in _TEXTS for name in ids]
    return order.index(symptom.id) if symptom.id in order else len(order)
