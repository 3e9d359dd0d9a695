"""What PyTorch lacks only once it computes: libraries that it opens at their first use, and code for this GPU.

The import loads few of its libraries; that it went well says nothing of libnvrtc, which compiles kernels at run time.
"""

from __future__ import annotations

from gpudoctor.facts import Facts, Torch, Unknown
from gpudoctor.findings import Finding, Fix
from gpudoctor.knowledge.table import version_key

from ..cards import capabilities
from ..ending import Ending, ending
from ..place import in_wsl
from ..serving import recommended_branch, serving
from . import cure, own_libraries


def judge(facts: Facts, torch: Torch) -> tuple[Finding, ...]:
    """The fault of the build that stopped the smoke test, if that was it."""
    end = ending(facts)
    if end is None:
        return ()
    found = {"library": _library, "no-code": _no_code, "ptx": _ptx}.get(end.kind)
    return () if found is None else (found(facts, torch, end),)


def _library(facts: Facts, torch: Torch, end: Ending) -> Finding:
    symptom = end.symptom
    name = (symptom.value("library") or "").rpartition("/")[2] if symptom else ""
    return _missing(facts, torch, end, name) if name else _conflict(facts, torch, end)


def _missing(facts: Facts, torch: Torch, end: Ending, name: str) -> Finding:
    return Finding(
        code="cuda-runtime-library-missing",
        severity="fail",
        summary=f"PyTorch {torch.version} opens {name} when it computes, and does not find it",
        cause=(
            "The import does not need it, so that everything looks well until the first kernel does. It comes with PyTorch's own "
            "packages, of which this one was removed, replaced or left unfinished. The same build, installed again, brings it "
            "back. A CUDA toolkit is not what is missing."
        ),
        evidence=(end.evidence,),
        fix=cure.reinstall(facts, torch),
        stands_alone=True,
    )


def _conflict(facts: Facts, torch: Torch, end: Ending) -> Finding:
    symptom = end.symptom
    what = (symptom.value("symbol") or symptom.value("version") if symptom else None) or "what PyTorch calls"
    path = facts.variable("LD_LIBRARY_PATH")
    how = f"LD_LIBRARY_PATH={path} puts other copies first." if path else "Packages of two releases are mixed in this environment."
    return Finding(
        code="cuda-library-conflict",
        severity="fail",
        summary=f"A library that is loaded when PyTorch {torch.version} computes lacks {what}",
        cause=f"Another copy of the library than the one that PyTorch was linked against is taken. {how}",
        evidence=(end.evidence,),
        fix=own_libraries.own_copy_again(facts, torch),
        stands_alone=True,
    )


def _no_code(facts: Facts, torch: Torch, end: Ending) -> Finding:
    """The files had promised otherwise, or could not be read: PyTorch's own word is the better one."""
    capability = next(iter(capabilities(facts)), None)
    built = () if isinstance(torch.sm, Unknown) else tuple(version_key(code.rstrip("af")) for code in torch.sm)
    newer = capability is None or not built or version_key(capability) > max(built)
    card = end.smoke.device_name or "this GPU"
    advice = cure.cuda_build(facts)
    return Finding(
        code="torch-gpu-arch-too-new" if newer else "torch-gpu-arch-too-old",
        severity="fail",
        summary=f"PyTorch {torch.version} has no code for {card}{f' (compute capability {capability})' if capability else ''}",
        cause=(
            f"PyTorch finds the GPU, and its first kernel fails. Driver and GPU are well: another build is needed. {advice.why}"
        ),
        evidence=(end.evidence,),
        fix=advice.fix,
        stands_alone=True,
    )


def _ptx(facts: Facts, torch: Torch, end: Ending) -> Finding:
    branch = recommended_branch(facts)
    fix = Fix("wsl#update-windows-driver") if in_wsl(facts) else Fix("driver#change-branch", (("BRANCH", str(branch)),))
    return Finding(
        code="driver-too-old-for-cuda",
        severity="fail",
        summary=f"PyTorch {torch.version} has code for this GPU only in a form (PTX) that this driver is too old to compile",
        cause=(
            f"The PTX was written by CUDA {torch.cuda}; {serving(facts).words}. Minor-version compatibility covers machine code "
            "and no newer PTX. A newer driver compiles it; a build of PyTorch with machine code for this GPU needs none of it."
        ),
        evidence=(end.evidence,),
        fix=fix,
    )
