"""PyTorch: the target interpreter has to have a build that this driver and these GPUs can run, and it has to start.

pip's PyTorch brings its own CUDA, cuDNN and NCCL. It needs a driver that serves its CUDA and machine code for the GPU,
and nothing else. Everything here but the last question is read from its files; only ``is_available`` needs the import,
which a child did.

Installed:

* ``torch-not-installed``, ``wrong-interpreter``: it is not in this environment, perhaps in another one.
* ``torch-cpu-only-build``: it is there, built without CUDA (or for AMD's ROCm).
* ``torch-duplicate-installs``: two copies' metadata in one environment.

Fit:

* ``driver-too-old-for-cuda``: the driver serves an older CUDA major than the build. Within one major every build runs
  (minor-version compatibility) and nothing is said.
* ``forward-compat-unsupported``: a cuda-compat library in place of the driver's own, on a card for which it is not meant.
* ``torch-gpu-arch-too-new``, ``torch-gpu-arch-too-old``: no machine code for the GPU.

Start:

* ``cuda-runtime-library-missing``, ``cuda-library-conflict``: its CUDA libraries are not there, or older ones are taken.
* ``torch-import-hangs``, ``torch-import-crashes``, ``torch-import-fails``: importing it went wrong.
* ``cuda-visible-devices-wrong``: CUDA_VISIBLE_DEVICES hides every GPU.
* ``cuda-not-available``: all of this is well, and yet ``is_available()`` is False.

The smoke test adds what shows only at work: a library that is opened at its first use, a kernel without code for the GPU.

Compiled against it:

* ``torchvision-mismatch``: torchvision or torchaudio that was made for another PyTorch.
* ``extension-abi-mismatch``: flash-attn or its like, built for another PyTorch or another CUDA major.
* ``extension-built-without-cuda``: a package that was built for the CPU alone.
* ``bitsandbytes-cuda-setup``: bitsandbytes has no library for this CUDA.
* ``extension-lacks-gpu-arch``: an extension was built for another GPU; only an error text tells that.

One cause is named at a time: a build that must be replaced anyway is not judged further.
"""

from __future__ import annotations

from gpudoctor.facts import Facts, Torch, Unknown
from gpudoctor.findings import Check, Finding, Verdict, listed_codes
from gpudoctor.visible import visible

from . import architecture, at_work, companions, driver_match, importing, installed
from .part import Part


def judge(facts: Facts, required: bool) -> Verdict:  # noqa: ARG001 - the signature of every check
    """The PyTorch of the target interpreter."""
    if isinstance(facts.torch, Unknown):
        return Verdict(f"unknown: {facts.torch.why}", unknown=(f"PyTorch: {facts.torch.why}",))
    absent = installed.absence(facts)
    if absent is not None:
        return Verdict(_line(absent), (absent,))
    torch = facts.torch
    if torch is None:  # absence() has said so; for the type checker
        return Verdict("not installed")
    fit = _fit(facts, torch)
    if fit.fails:
        return Verdict(_line(fit.findings[0]), fit.findings)
    start = importing.judge(facts, torch)
    used = () if start.fails else at_work.judge(facts, torch)
    findings = (*fit.findings, *start.findings, *used, *companions.judge(facts, torch), *installed.duplicates(facts, torch))
    faults = tuple(finding for finding in findings if finding.severity == "fail")
    unknown = (*fit.unknown, *start.unknown)
    summary = _line(faults[0]) if faults else _summary(facts, torch, (*fit.words, *(f"not known: {item}" for item in unknown[:1])))
    return Verdict(summary, findings, unknown)


def _line(finding: Finding) -> str:
    """The finding in the check's own line, where its title says PyTorch already."""
    return finding.summary.removeprefix("PyTorch ")


def _fit(facts: Facts, torch: Torch) -> Part:
    """GPU and driver. A build without code for the GPU goes, whatever the driver."""
    code = architecture.judge(facts, torch)
    if code.fails:
        return code
    served = driver_match.judge(facts, torch)
    return Part((*served.findings, *code.findings), (*code.words, *served.words), (*code.unknown, *served.unknown))


def _summary(facts: Facts, torch: Torch, words: tuple[str, ...]) -> str:
    """As 2.5.1+cu124 (CUDA 12.4), sees 1 GPU; code for 8.9 by sm_86; driver 535.86.10 runs it by minor-version compatibility."""
    seen = visible(facts)
    count = importing.device_count(facts)
    if count is None:
        looks = "not imported" if importing.not_asked(facts) else "imported without asking for the GPU"
        looks = "whole, but a library that its import meets is at fault" if importing.failed(facts) else looks
    else:
        looks = f"sees {count} GPU{'' if count == 1 else 's'}"
    if not isinstance(seen, Unknown) and seen.value is not None and seen.gpus:
        looks += f" (CUDA_VISIBLE_DEVICES={seen.value})"
    return "; ".join((f"{torch.version} (CUDA {torch.cuda}), {looks}", *words))


CHECK = Check(
    name="pytorch",
    title="PyTorch",
    needs=("driver",),
    codes=listed_codes(__doc__),
    judge=judge,
)
