"""Does it start: its CUDA libraries, the import, and ``torch.cuda.is_available()``.

An import that went well settles what its files alone would leave open: libraries that look missing or shadowed
were found all the same, and nothing is said of them.
"""

from __future__ import annotations

import re

from gpudoctor import symptoms
from gpudoctor.cards import on_jetson
from gpudoctor.facts import Facts, Nvml, Resolution, Torch, TorchImport, Unknown
from gpudoctor.findings import Evidence, Finding, Fix
from gpudoctor.knowledge.table import version_key
from gpudoctor.visible import VARIABLE, Visible, visible

from ..words import capped, listing
from . import cure, own_libraries
from .part import Part

_OF_OTHERS = ("libcudnn", "libnccl")
_MIXED = re.compile(r"nvJitLink|cublas|cusparse|cusolver|cupti|cudart|nvrtc|cufft", re.IGNORECASE)
_NCCL = re.compile(r"\bp?nccl[A-Z]|libnccl")
NOT_ASKED = "not asked for"


def judge(facts: Facts, torch: Torch) -> Part:
    """Whether PyTorch starts and sees the GPU."""
    said = facts.torch_import
    hidden = _hidden(facts)
    if isinstance(said, TorchImport):
        return Part(_told(facts, torch, said, hidden), unknown=_unexplained(facts, said))
    fault = missing(facts, torch) or shadowed(torch) or hidden
    if fault is not None:
        return Part((fault,))
    if isinstance(said, Unknown) and not not_asked(facts):
        return Part(unknown=(f"whether PyTorch starts and sees the GPU: {said.why}",))
    return Part()


def not_asked(facts: Facts) -> bool:
    """The import was left out on purpose: nothing is unknown that anybody wanted to know."""
    return isinstance(facts.torch_import, Unknown) and facts.torch_import.why == NOT_ASKED


def device_count(facts: Facts) -> int | None:
    """How many GPUs PyTorch counted; None when it was not imported or did not get that far."""
    said = facts.torch_import
    return said.device_count if isinstance(said, TorchImport) and said.available else None


def failed(facts: Facts) -> bool:
    """The import was tried and did not come through."""
    said = facts.torch_import
    return isinstance(said, TorchImport) and said.version is None


def _told(facts: Facts, torch: Torch, said: TorchImport, hidden: Finding | None) -> tuple[Finding, ...]:
    if said.hung:
        return (_hangs(facts, torch, said),)
    if said.signal is not None:
        return (shadowed(torch) or _crashes(facts, torch, said),)
    if said.version is None:
        known = missing(facts, torch) or shadowed(torch) or _classified(facts, torch, said)
        return () if known is None and _is_of_others(said) else (known or _fails(facts, torch, said),)
    # a GPU that is asleep is not asked: the import alone was made, and that is all there is to know
    if said.available or (said.available is None and said.phase == "import"):
        return ()
    if hidden is not None:
        return (hidden,)
    return (_not_available(facts, torch, said),) if driver_answers(facts) else ()


def driver_answers(facts: Facts) -> bool:
    """The driver is known to be there and to have a GPU, so that nothing below PyTorch explains its silence."""
    seen = visible(facts)
    return on_jetson(facts) or (not isinstance(seen, Unknown) and bool(seen.gpus))


def _unexplained(facts: Facts, said: TorchImport) -> tuple[str, ...]:
    """PyTorch sees no GPU, and nobody could ask the driver whether there is one."""
    if said.version is None or said.available is not False or driver_answers(facts) or _hidden(facts) is not None:
        return ()
    return ("why torch.cuda.is_available() is False: the driver could not be asked",)


# ---------------------------------------------------------------- libraries


def missing(facts: Facts, torch: Torch) -> Finding | None:
    """Sonames that nothing provides; cuDNN's are the business of its own check."""
    if isinstance(torch.missing_libraries, Unknown):
        return None
    names = [name for name in torch.missing_libraries if not name.startswith("libcudnn")]
    if not names and not torch.missing_files:
        return None
    lines = [Evidence(f"{torch.path}/lib", f"needs {name}, which no folder of its search path has") for name in names]
    lines += [Evidence("RECORD", f"{name} is listed and not there") for name in torch.missing_files]
    lines += [_pin(pin.name, pin.wanted, pin.installed) for pin in torch.pins if not pin.satisfied]
    what = listing(names) if names else f"files of its own ({listing(torch.missing_files, 2)})"
    return Finding(
        code="cuda-runtime-library-missing",
        severity="fail",
        summary=f"PyTorch {torch.version} lacks {what}",
        cause=(
            "These libraries come with PyTorch, as files of its own or of the nvidia packages that it names; an interrupted "
            "installation, or another package that moved one of them, leaves it without. The same build, installed "
            "again, brings them back. A CUDA toolkit is not what is missing."
        ),
        evidence=tuple(lines),
        fix=cure.reinstall(facts, torch),
        stands_alone=True,
    )


def _pin(name: str, wanted: str, installed: str | None) -> Evidence:
    return Evidence("PyTorch's own requirement", f"{name}{wanted}, installed: {installed or 'none'}")


def shadowed(torch: Torch) -> Finding | None:
    """An older CUDA library stands before PyTorch's own. A newer minor version of the same soname is no fault."""
    for found in torch.resolutions:
        if not found.soname.startswith(_OF_OTHERS) and is_older(found):
            return _conflict(torch, found)
    return None


def is_older(found: Resolution) -> bool:
    """The loader takes another copy than PyTorch's own, of an earlier version."""
    if found.taken is None or found.own is None or found.taken == found.own:
        return False
    taken, own = version_key(found.taken_version or ""), version_key(found.own_version or "")
    width = min(len(taken), len(own), 3)
    return bool(width) and taken[:width] < own[:width]


def _conflict(torch: Torch, found: Resolution) -> Finding:
    folder = (found.taken or "").rpartition("/")[0]
    return Finding(
        code="cuda-library-conflict",
        severity="fail",
        summary=own_libraries.takes_another(found, found.soname, found.own_version),
        cause=(
            f"PyTorch {torch.version} was linked against {found.own_version}; the older copy lacks functions that it calls, "
            f'which shows as "undefined symbol" at import or as failures later. PyTorch brings its own copy: take {folder} off '
            "the path, and install nothing."
        ),
        evidence=own_libraries.both_copies(found),
        fix=own_libraries.off_the_path(found),
        stands_alone=True,
    )


# ---------------------------------------------------------------- the import


def _while_importing(said: TorchImport) -> bool:
    """It ended in the import itself: a phase names the last step that was done."""
    return said.phase == "start"


def _hangs(facts: Facts, torch: Torch, said: TorchImport) -> Finding:
    importing = _while_importing(said)
    what = "import torch" if importing else "torch.cuda.is_available()"
    why = (
        "A file system that answers slowly or not at all, or another process that holds a lock on the same files, is the usual "
        "cause: nothing of CUDA has been asked yet at this point."
        + (" It has no compiled files (__pycache__) of its own, which makes a first import slow." if torch.missing_bytecode else "")
        if importing
        else "The import went well; the call into the driver did not return. Look at the driver, or at a process that blocks it."
    )
    return Finding(
        code="torch-import-hangs",
        severity="fail",
        summary=f"{what} gave no answer within {said.seconds:.0f} s",
        cause=why,
        evidence=(Evidence(what, f"no answer within {said.seconds:.1f} s"),),
        fix=cure.with_environment(facts, "pytorch#import-hangs"),
        stands_alone=importing,
    )


def _crashes(facts: Facts, torch: Torch, said: TorchImport) -> Finding:
    importing = _while_importing(said)
    what = "import torch" if importing else "torch.cuda.is_available()"
    return Finding(
        code="torch-import-crashes",
        severity="fail",
        summary=f"{what} ends the interpreter by {said.signal}",
        cause=(
            f"A library of PyTorch {torch.version}, or one that is loaded in its place, is damaged or does not fit this "
            "machine. The same build, installed again, replaces all of them. If it still crashes, another package's library is "
            "loaded first: LD_PRELOAD and LD_LIBRARY_PATH."
        ),
        evidence=(Evidence(what, f"ended by {said.signal}" + (f": {capped(said.error)}" if said.error else "")),),
        fix=cure.reinstall(facts, torch),
        stands_alone=importing,
    )


def _classified(facts: Facts, torch: Torch, said: TorchImport) -> Finding | None:
    """A known text of the loader: a missing library, or a symbol that an older copy lacks."""
    for symptom in symptoms.read(said.error or "", "import torch"):
        library = symptom.value("library") or ""
        words = " ".join(value for _, value in symptom.values)
        if library.startswith("libcudnn") or (_NCCL.search(words) and symptom.id != "library-missing"):
            return None
        if symptom.id in ("library-missing", "library-empty") and library.rpartition("/")[2].startswith("lib"):
            return _library_missing(facts, torch, said, library, empty=symptom.id == "library-empty")
        if symptom.id in ("undefined-symbol", "library-version-missing") and _MIXED.search(words):
            return _symbol(facts, torch, said, symptom.value("symbol") or symptom.value("version") or "a version")
    return None


def _is_of_others(said: TorchImport) -> bool:
    """The error is cuDNN's or NCCL's, and their check names it."""
    return names_cudnn(said.error or "") or names_nccl(said.error or "")


def names_cudnn(error: str) -> bool:
    """The import failed for a cuDNN library that is missing or of another version."""
    found = symptoms.read(error, "import torch")
    return any(s.id == "cudnn-mismatch" or (s.value("library") or "").startswith("libcudnn") for s in found)


def names_nccl(error: str) -> bool:
    """The import failed for a function that the loaded NCCL lacks."""
    found = symptoms.read(error, "import torch")
    return any(s.id in ("undefined-symbol", "library-version-missing") and _NCCL.search(str(s.values)) for s in found)


def _library_missing(facts: Facts, torch: Torch, said: TorchImport, library: str, *, empty: bool) -> Finding:
    state = "is empty or cut short" if empty else "is not found"
    return Finding(
        code="cuda-runtime-library-missing",
        severity="fail",
        summary=f"import torch fails: {library} {state}",
        cause=(
            f"PyTorch {torch.version} or a package that it loads needs this library, which comes with PyTorch's own packages. "
            "The same build, installed again, brings it back. A name that ends in another CUDA major belongs to a package that "
            "was built for that one."
        ),
        evidence=(Evidence("import torch", capped(said.error or "")),),
        fix=cure.reinstall(facts, torch),
        stands_alone=True,
    )


def _symbol(facts: Facts, torch: Torch, said: TorchImport, symbol: str) -> Finding:
    path = facts.variable("LD_LIBRARY_PATH")
    how = (
        f"LD_LIBRARY_PATH={path} puts other copies first."
        if path
        else "Packages of two CUDA releases are mixed in this environment."
    )
    return Finding(
        code="cuda-library-conflict",
        severity="fail",
        summary=f"import torch fails: a CUDA library that is loaded lacks {symbol}",
        cause=f"Another copy of the library than the one that PyTorch {torch.version} was linked against is taken. {how}",
        evidence=(Evidence("import torch", capped(said.error or "")),),
        fix=own_libraries.own_copy_again(facts, torch),
        stands_alone=True,
    )


def _fails(facts: Facts, torch: Torch, said: TorchImport) -> Finding:
    return Finding(
        code="torch-import-fails",
        severity="fail",
        summary=f"import torch fails: {capped((said.error or 'no message').strip().splitlines()[-1], 120)}",
        cause=(
            f"PyTorch {torch.version} is there and does not start, for a reason that its files do not show. The same build, "
            "installed again, cures a damaged installation; a file named torch.py in the folder where you start Python has the "
            "same effect."
        ),
        evidence=(Evidence("import torch", capped(said.error or "no message", 600)),),
        fix=cure.reinstall(facts, torch),
        stands_alone=True,
    )


# ---------------------------------------------------------------- is_available


def _hidden(facts: Facts) -> Finding | None:
    """CUDA_VISIBLE_DEVICES shows none of the GPUs that NVML lists."""
    seen = visible(facts)
    if isinstance(seen, Unknown) or not seen.hidden or not isinstance(facts.nvml, Nvml) or not facts.nvml.gpus:
        return None
    said = facts.torch_import
    if isinstance(said, TorchImport) and said.available:
        return None
    return _wrong_variable(facts, seen, facts.nvml)


def _wrong_variable(facts: Facts, seen: Visible, nvml: Nvml) -> Finding:
    count = len(nvml.gpus)
    entry = f"its entry {seen.invalid} names no GPU" if seen.invalid else "here it is empty"
    scheduler = None if isinstance(facts.system, Unknown) else facts.system.scheduler
    value = ",".join(str(gpu.index) for gpu in nvml.gpus)
    if scheduler:
        fix = Fix("pytorch#ask-for-gpus")
        name = scheduler.capitalize()
        whose = f" {name} sets this variable: do not change it. The job was given no GPU; ask for one when you submit it."
    else:
        fix = Fix("pytorch#fix-visible-devices", (("VALUE", value),))
        whose = f" NVML, which ignores the variable, lists {count} GPU{'' if count == 1 else 's'}."
    return Finding(
        code="cuda-visible-devices-wrong",
        severity="fail",
        summary=f"{VARIABLE}={seen.value} hides every GPU" if seen.value else f"{VARIABLE} is empty, which hides every GPU",
        cause=(
            f"CUDA reads the list from the left and stops at the first entry that names no device; {entry}.{whose} Driver "
            "and PyTorch are well."
        ),
        evidence=(Evidence("environment", f"{VARIABLE}={seen.value or ''}"), *_listed(nvml)),
        fix=fix,
        blocks=False,
    )


def _listed(nvml: Nvml) -> tuple[Evidence, ...]:
    return tuple(Evidence("NVML", f"GPU {gpu.index}: {gpu.name}, {gpu.uuid}") for gpu in nvml.gpus if isinstance(gpu.uuid, str))


def _not_available(facts: Facts, torch: Torch, said: TorchImport) -> Finding:
    text = capped(said.error or "it gave no reason")
    said_so = f"It said: {text}." if said.error else "It gave no reason."
    return Finding(
        code="cuda-not-available",
        severity="fail",
        summary="torch.cuda.is_available() is False although driver and build fit each other",
        cause=(
            f"The driver runs builds of CUDA {torch.cuda} and this one has code for the GPU, yet CUDA does not start in this "
            f"interpreter. {said_so} Do not reinstall driver or PyTorch on this alone: collect what the two say "
            "first."
        ),
        evidence=(Evidence("torch.cuda.is_available()", text),),
        fix=cure.with_environment(facts, "pytorch#collect-evidence"),
    )
