"""NCCL and the meeting of several processes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import driver
from .told import Suspect, Told

_RAISED = re.compile(r"(?i)\b(?:RuntimeError|OSError|errno|socket|code: -98)")
_NOT_BUILT_IN = (
    "NCCL is a part of the build: on Linux it is missing where pip or conda took the CPU's. Another build of PyTorch is all that "
    "is needed; CUDA toolkit, cuDNN and NCCL need not be installed, and installing them does not put NCCL in. Where the driver is "
    "not there yet, it is the other thing that is needed."
)


def not_built_in(told: Told) -> Iterator[Suspect]:
    """Windows and macOS have no NCCL; a build without CUDA has none either; the rest is a build that left it out."""
    said = told.said("torch-no-nccl", "torch-no-nccl-short")
    if not said:
        return
    if told.os in ("windows", "macos") or told.has("clue-windows-redirects"):
        yield Suspect("nccl-unsupported-os", 95, said)
    elif told.has(*driver.NO_CARD) and not told.gpus:
        yield Suspect("no-nvidia-gpu", 90, (*said, *told.said(*driver.NO_CARD)))
    if told.without_cuda:
        yield Suspect("torch-cpu-only-build", 93, (*said, *told.said("torch-cpuonly-package", "torch-built-without-cuda")))
    yield Suspect(
        "nccl-not-in-torch-build", 86, said, "This PyTorch was built without NCCL, as every build without CUDA is", _NOT_BUILT_IN
    )
    if not told.without_cuda:
        yield Suspect("torch-cpu-only-build", 60, said)


def shared_gpu(told: Told) -> Iterator[Suspect]:
    """By "invalid usage" NCCL mostly means two processes on one GPU; the lines behind it say so, where they were pasted."""
    said = told.said("nccl-invalid-usage")
    if said:
        yield Suspect("nccl-duplicate-gpu", 74, said)


def silence(told: Told) -> Iterator[Suspect]:
    """Processes that wait for each other in vain."""
    said = told.said("nccl-hang", "nccl-timeout", "nccl-timeout-words")
    if told.has("clue-uneven-ranks"):  # the program makes some wait for what the others never do
        return
    if said:
        apart = told.said("clue-p2p-disabled", "clue-acs", "clue-acs-off")
        yield Suspect("nccl-p2p-failure", 90 if apart else 64, (*said, *apart))
    elif told.has("clue-p2p-disabled") and told.has("clue-acs"):
        yield Suspect("nccl-p2p-failure", 80, told.said("clue-p2p-disabled", "clue-acs"))
    elif told.has("clue-hangs") and told.has("clue-acs-off"):
        yield Suspect("nccl-p2p-failure", 78, told.said("clue-hangs", "clue-acs-off"))


def failed(told: Told) -> Iterator[Suspect]:
    """NCCL's own name for what went wrong, where nothing else in the text says more."""
    for symptom in told.said("nccl-error", "nccl-cuda-failure"):
        words = f"{symptom.value('kind') or ''} {symptom.value('words') or ''}"
        if "ncclSystemError" in words and told.container:
            yield Suspect("nccl-shm-too-small", 62, (symptom,))
        if "ncclSystemError" in words or "ncclInternalError" in words:
            yield Suspect("nccl-init-failed", 50, (symptom,))
        if "ncclUnhandledCudaError" in words:
            yield Suspect("nccl-p2p-failure", 50, (symptom,))
            yield Suspect("nccl-init-failed", 48, (symptom,))
        if "invalid device ordinal" in words:
            yield Suspect("invalid-device-ordinal", 84, (symptom,))
        if "driver version is insufficient" in words:
            yield Suspect("driver-too-old-for-cuda", 84, (symptom,))
        if "out of memory" in words:
            yield Suspect("vram-held-by-other-process", 62, (symptom,))
        if "peer" in words:
            yield Suspect("nccl-p2p-failure", 90, (symptom,))


def port(told: Told) -> Iterator[Suspect]:
    """A port that is taken is a fault of the run only where processes were to meet at it."""
    said = told.said("port-in-use", "port-in-use-eaddr", "port-errno-98")
    if not said:
        return
    if told.has("clue-c10d", "rendezvous-port-in-use"):
        yield Suspect("rendezvous-port-in-use", 93, said, values=(("PORT", _number(told)),))
    elif not told.has("clue-web-server") and any(_RAISED.search(symptom.text) for symptom in said):
        yield Suspect("rendezvous-port-in-use", 72, said, values=(("PORT", _number(told)),))


def _number(told: Told) -> str:
    known = told.first("rendezvous-port-in-use")
    return (known.value("port") if known else None) or "29500"


RULES = (not_built_in, shared_gpu, silence, failed, port)
