"""Packages that were compiled against one PyTorch and one CUDA: torchvision, torchaudio, flash-attn and their like."""

from __future__ import annotations

import re

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from gpudoctor.facts import Companion, Facts, Interpreter, Torch, Unknown
from gpudoctor.findings import Evidence, Finding, Fix

from . import cure

_PAIRED = ("torchvision", "torchaudio")


def judge(facts: Facts, torch: Torch) -> tuple[Finding, ...]:
    """A finding for each that was made for another PyTorch than the one that is here."""
    if isinstance(facts.companions, Unknown):
        return ()
    found = (_judge(facts, torch, companion) for companion in facts.companions)
    return tuple(finding for finding in found if finding is not None)


def _judge(facts: Facts, torch: Torch, companion: Companion) -> Finding | None:
    if companion.name == "bitsandbytes":
        lacks = companion.problem or _no_library_of_this_major(torch, companion)
        return _bitsandbytes(facts, torch, companion, lacks) if lacks else None
    if companion.wants_cuda == "cpu":
        return _without_cuda(facts, torch, companion)
    reason = _torch_reason(torch, companion) or _cuda_reason(torch, companion) or companion.problem
    if reason is None:
        return None
    return _pair(facts, torch, companion, reason) if companion.name in _PAIRED else _extension(facts, torch, companion, reason)


def fits(wanted: str, version: str) -> bool:
    """Whether a torch version meets a requirement (==2.4.1, >=2.1) or the series of a file name (2.6). What cannot be read fits."""
    try:
        have = Version(version.partition("+")[0])
        if re.fullmatch(r"\d+(\.\d+)*", wanted):
            series = tuple(int(part) for part in wanted.split("."))
            return have.release[: len(series)] == series
        # a nightly or release candidate is what it leads to
        return SpecifierSet(wanted).contains(have.base_version, prereleases=True)
    except (InvalidVersion, InvalidSpecifier):
        return True


def _torch_reason(torch: Torch, companion: Companion) -> str | None:
    if companion.wants_torch is None or fits(companion.wants_torch, torch.version):
        return None
    return f"it was built for torch {companion.wants_torch.removeprefix('==')}"


def _cuda_reason(torch: Torch, companion: Companion) -> str | None:
    """Two CUDA majors in one process do not work; minors do."""
    if companion.wants_cuda is None or torch.cuda is None:
        return None
    if companion.wants_cuda.partition(".")[0] == torch.cuda.partition(".")[0]:
        return None
    return f"it was built with CUDA {companion.wants_cuda}, PyTorch with {torch.cuda}"


def _evidence(torch: Torch, companion: Companion) -> tuple[Evidence, ...]:
    wants = [f"torch {companion.wants_torch}"] if companion.wants_torch else []
    wants += [f"CUDA {companion.wants_cuda}"] if companion.wants_cuda else []
    wants += [companion.problem] if companion.problem else []
    said = f": {', '.join(wants)}" if wants else ""
    return (
        Evidence(f"{companion.name} {companion.version}", f"its files{said}"),
        Evidence(f"{torch.path}/version.py", f"torch {torch.version}, CUDA {torch.cuda}"),
    )


def _values(facts: Facts, torch: Torch, companion: Companion) -> tuple[tuple[str, str], ...]:
    target = facts.interpreter
    python = (("PYTHON", target.path),) if isinstance(target, Interpreter) else ()
    return (*python, ("NAME", companion.name), *cure.build_values(torch))


def _pair(facts: Facts, torch: Torch, companion: Companion, reason: str) -> Finding:
    return Finding(
        code="torchvision-mismatch",
        severity="fail",
        summary=f"{companion.name} {companion.version} does not belong to PyTorch {torch.version}: {reason}",
        cause=(
            f'Each {companion.name} is compiled against exactly one PyTorch; beside another one its import fails, with "operator '
            'torchvision::nms does not exist" or an undefined symbol. PyTorch itself is well and stays as it is.'
        ),
        evidence=_evidence(torch, companion),
        fix=Fix(cure.companion_step(facts), _values(facts, torch, companion)),
        blocks=False,
    )


def _extension(facts: Facts, torch: Torch, companion: Companion, reason: str) -> Finding:
    return Finding(
        code="extension-abi-mismatch",
        severity="fail",
        summary=f"{companion.name} {companion.version} does not fit PyTorch {torch.version}: {reason}",
        cause=(
            f"Compiled extensions use PyTorch's C++ interface, which changes with each release; {companion.name} then fails "
            "with an undefined symbol (_ZN3c10...). Install the build that was made for this PyTorch; PyTorch itself is well."
        ),
        evidence=_evidence(torch, companion),
        fix=Fix(cure.rebuild_step(facts), _values(facts, torch, companion)),
        blocks=False,
    )


def _without_cuda(facts: Facts, torch: Torch, companion: Companion) -> Finding:
    pair = companion.name in _PAIRED
    return Finding(
        code="extension-built-without-cuda",
        severity="fail",
        summary=f"{companion.name} {companion.version} is built without CUDA, beside PyTorch {torch.version} with CUDA",
        cause=(
            'Its operators exist for the CPU only: on the GPU they fail with "Not compiled with GPU support" or a missing '
            f"kernel of {companion.name}."
        ),
        evidence=_evidence(torch, companion),
        fix=Fix(cure.companion_step(facts) if pair else cure.rebuild_step(facts), _values(facts, torch, companion)),
        blocks=False,
    )


def _no_library_of_this_major(torch: Torch, companion: Companion) -> str | None:
    """bitsandbytes has a library for each CUDA ("11.7, 11.8"); newer ones fall back within a major."""
    if companion.wants_cuda is None or torch.cuda is None:
        return None
    majors = {version.strip().partition(".")[0] for version in companion.wants_cuda.split(",")}
    return None if torch.cuda.partition(".")[0] in majors else f"it has those for {companion.wants_cuda}"


def _bitsandbytes(facts: Facts, torch: Torch, companion: Companion, lacks: str) -> Finding:
    return Finding(
        code="bitsandbytes-cuda-setup",
        severity="fail",
        summary=f"bitsandbytes {companion.version} has no library for CUDA {torch.cuda}",
        cause=(
            f"bitsandbytes carries one library for each CUDA release and takes the one that equals PyTorch's: {lacks}. Without "
            'it 8-bit and 4-bit loading fails with "CUDA Setup failed". A CUDA toolkit would not help; a bitsandbytes that '
            "knows this CUDA does."
        ),
        evidence=_evidence(torch, companion),
        fix=Fix(cure.bitsandbytes_step(facts), _values(facts, torch, companion)),
        blocks=False,
    )
