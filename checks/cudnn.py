"""cuDNN: PyTorch brings its own, which has to be whole and to be the one that the loader takes.

The system's cuDNN is not needed by PyTorch's wheels and is judged only when ``--require cudnn`` asks for it. It matters
without being asked for when it stands before PyTorch's own. PyTorch refuses a cuDNN of another major version, or of an
earlier minor, than the one it was compiled against (torch/backends/cudnn/__init__.py); a later one is fine.

* ``cudnn-library-missing``: files of PyTorch's cuDNN are not there; or none of the system where one was asked for.
* ``cudnn-version-mismatch``: the copy that is taken is older, of another major, or too new for a GPU before Turing.
* ``cudnn-init-failed``: it is there and fits, and did not start in the smoke test.
"""

from __future__ import annotations

from gpudoctor import symptoms
from gpudoctor.facts import Facts, Nvml, Resolution, Torch, TorchImport, Unknown
from gpudoctor.findings import Check, Evidence, Finding, Fix, Verdict, listed_codes
from gpudoctor.knowledge import cudnn_nccl
from gpudoctor.knowledge.table import version_key

from .cards import capability_of
from .ending import ending
from .pytorch import cure, own_libraries
from .words import capped, listing

_TURING = (7, 5)
_NOT_THERE = ("library-missing", "library-empty", "cudnn-not-loaded")
_OF_ANOTHER = ("cudnn-mismatch", "cudnn-old-gpu")
_MIXED = ("undefined-symbol", "library-version-missing")


def judge(facts: Facts, required: bool) -> Verdict:
    """The cuDNN of PyTorch, and the system's where it is asked for or in the way."""
    system = own_libraries.not_on_the_system(facts, "cudnn", _not_on_the_system()) if required else ()
    if isinstance(facts.torch, Unknown):
        return Verdict(f"unknown: {facts.torch.why}", system, (f"PyTorch's cuDNN: {facts.torch.why}",))
    if facts.torch is None or facts.torch.cuda is None:
        return Verdict("comes with a CUDA build of PyTorch", system)
    torch = facts.torch
    fault = _missing(facts, torch) or _other_version(facts, torch) or _too_new(facts, torch) or _not_started(facts, torch)
    findings = (*((fault,) if fault else ()), *system)
    well = own_libraries.line(facts, "cudnn", _resolution(torch), unversioned="PyTorch's own")
    return Verdict(findings[0].summary if findings else well, findings)


def _resolution(torch: Torch) -> Resolution | None:
    """The file that computes: libcudnn.so itself only dispatches to the parts that it opens at first use."""
    for stem in ("libcudnn_graph.so", "libcudnn_ops_infer.so", "libcudnn.so"):
        found = next((r for r in torch.resolutions if r.soname.startswith(stem) and r.taken), None)
        if found is not None:
            return found
    return None


# ---------------------------------------------------------------- faults


def _missing(facts: Facts, torch: Torch) -> Finding | None:
    known = () if isinstance(torch.missing_libraries, Unknown) else torch.missing_libraries
    names = [name for name in known if name.startswith("libcudnn")]
    if isinstance(facts.torch_import, TorchImport) and facts.torch_import.version is not None:
        # it started, so what it is linked to was found; the parts of cuDNN are opened at first use only
        names = [name for name in names if name.startswith("libcudnn_")]
    error = _error(facts)
    said = [s.value("library") or "" for s in symptoms.read(error, _source(facts)) if s.id in _NOT_THERE]
    names += [name for name in said if name.rpartition("/")[2].startswith("libcudnn") and name not in names]
    if not names:
        return None
    lines = [Evidence(f"{torch.path}/lib", f"{name} is not on its search path") for name in names]
    lines += [Evidence(_source(facts), capped(error))] if error else []
    return Finding(
        code="cudnn-library-missing",
        severity="fail",
        summary=f"PyTorch {torch.version} does not find {listing(names)}",
        cause=(
            "cuDNN comes with PyTorch, in its own nvidia-cudnn package: that is incomplete here. The same build, installed "
            "again, brings it back. A cuDNN of the system would not be looked at."
        ),
        evidence=tuple(lines),
        fix=cure.reinstall(facts, torch),
        stands_alone=True,
    )


def _other_version(facts: Facts, torch: Torch) -> Finding | None:
    found = _resolution(torch)
    if found and found.taken and found.taken != found.own and found.taken_version:
        wanted = torch.cudnn_built_for if isinstance(torch.cudnn_built_for, str) else found.own_version
        if wanted and not compatible(found.taken_version, wanted):
            summary = own_libraries.takes_another(found, "cuDNN", found.own_version or wanted)
            return _mismatch(summary, torch, own_libraries.both_copies(found), own_libraries.off_the_path(found))
    end = ending(facts)
    texts = (*_OF_ANOTHER, *_MIXED) if end is not None and end.kind == "cudnn" else _OF_ANOTHER
    said = next((s for s in symptoms.read(_error(facts), "torch.backends.cudnn") if s.id in texts), None)
    if said is None:
        return None
    summary = f"PyTorch {torch.version} refuses the cuDNN that is loaded"
    evidence = (Evidence("torch.backends.cudnn", said.text),)
    return _mismatch(summary, torch, evidence, own_libraries.own_copy_again(facts, torch))


def compatible(taken: str, wanted: str) -> bool:
    """PyTorch's own rule: the same major and no earlier minor. What cannot be read is not called a fault."""
    have, need = version_key(taken)[:2], version_key(wanted)[:2]
    return len(have) < 2 or len(need) < 2 or (have[0] == need[0] and have[1] >= need[1])


def _mismatch(summary: str, torch: Torch, evidence: tuple[Evidence, ...], fix: Fix) -> Finding:
    return Finding(
        code="cudnn-version-mismatch",
        severity="fail",
        summary=summary,
        cause=(
            f"PyTorch {torch.version} works with the cuDNN that it was compiled against or a later one of the same major. It "
            "brings its own: what stands before it has to go from the path. Do not copy cuDNN's files anywhere, and install "
            "nothing."
        ),
        evidence=evidence,
        fix=fix,
        stands_alone=True,
    )


def _too_new(facts: Facts, torch: Torch) -> Finding | None:
    """From some version on cuDNN has nothing for GPUs before Turing, and PyTorch stops with an error there."""
    found, last = _resolution(torch), cudnn_nccl.pre_turing_cudnn()
    version = (found.taken_version or found.own_version) if found else None
    if version is None or version_key(version)[:2] <= version_key(last)[:2] or not isinstance(facts.nvml, Nvml):
        return None
    capabilities = [(gpu, capability_of(gpu)) for gpu in facts.nvml.gpus]
    old = next((gpu for gpu, capability in capabilities if capability and version_key(capability) < _TURING), None)
    if old is None or any(capability and version_key(capability) >= _TURING for _, capability in capabilities):
        return None
    return Finding(
        code="cudnn-version-mismatch",
        severity="fail",
        summary=f"cuDNN {version} has no code for {old.name}; {last} is the last that has",
        cause=(
            f"PyTorch {torch.version} has code for this GPU, but its cuDNN was replaced by one that has not. The build that "
            "PyTorch names itself, installed again, is one that does."
        ),
        evidence=(
            Evidence("the loader", f"cuDNN {version}"),
            Evidence("NVML", f"{old.name}, compute capability {capability_of(old)}"),
        ),
        fix=cure.reinstall(facts, torch),
    )


def _not_started(facts: Facts, torch: Torch) -> Finding | None:
    end = ending(facts)
    if end is None or end.kind != "cudnn" or end.symptom is None or end.symptom.id != "cudnn-not-initialized":
        return None
    return Finding(
        code="cudnn-init-failed",
        severity="fail",
        summary=f"cuDNN did not start when PyTorch {torch.version} first used it",
        cause=(
            "Its files are there and of one version. Either no GPU memory was left for it, or its parts come from two packages "
            "whose versions differ. See how much memory is free first; then bring PyTorch's own cuDNN back. A cuDNN of the system "
            "would not be looked at."
        ),
        evidence=(end.evidence,),
        fix=cure.reinstall(facts, torch),
        stands_alone=True,
    )


def _error(facts: Facts) -> str:
    """What the import said, or the smoke test where cuDNN stopped that."""
    end = ending(facts)
    if end is not None and end.kind == "cudnn":
        return end.symptom.text if end.symptom else ""
    return (facts.torch_import.error or "") if isinstance(facts.torch_import, TorchImport) else ""


def _source(facts: Facts) -> str:
    return "import torch" if (end := ending(facts)) is None or end.kind != "cudnn" else end.evidence.source


def _not_on_the_system() -> Finding:
    return Finding(
        code="cudnn-library-missing",
        severity="fail",
        summary="No cuDNN of the system, which --require cudnn asks for",
        cause=(
            "PyTorch's wheels do not need it: they bring their own. It is for programs in C and C++, TensorRT, or a PyTorch "
            "built from source."
        ),
        evidence=(Evidence("/usr/lib, /usr/local", "no libcudnn.so"),),
        fix=Fix("cudnn#install"),
        stands_alone=True,
        blocks=False,
    )


CHECK = Check(
    name="cudnn",
    title="cuDNN",
    needs=("pytorch",),
    codes=listed_codes(__doc__),
    judge=judge,
)
