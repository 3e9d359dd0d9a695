"""Libraries that are missing, or another copy than is needed: of CUDA, of cuDNN, of an extension; told apart by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gpudoctor.facts import Symptom

from . import driver
from .told import Suspect, Told

_OF_CUDA = re.compile(
    r"(?i)^(?:_{0,2}nvJitLink|cublas|cusparse|cupti|cusolver|cufft|curand|nvrtc|__cuda|cuda[A-Z]|_{0,2}cudaPopCall|_{0,2}cudaPushCall|nvtx)"
)
_OF_DRIVER = re.compile(r"^cu(?:GetProc|Module|Library|Device|Ctx|Stream|Mem[A-Z]|Launch|Kernel|Event|Func|Graph|TensorMap|Init)")
_OF_TORCH = re.compile(
    r"(?:_ZN?K?[A-Z]?\d{0,3}|^_Z\w{0,40})(?:3c10|2at|5torch|c10|caffe2)|_ZNK?3c10|_ZNK?2at|_ZNK?5torch|c10|THPVariable|_ZN?\w{0,6}caffe2|THC|THP|torch"
)
_TORCHVISION = re.compile(r"torchvision|torchaudio")
_TORCH_OWN = re.compile(r"libtorch|libc10|/torch/lib|nvidia/\w{1,24}/lib")


def undefined(told: Told) -> Iterator[Suspect]:
    """Whose function is missing says which library is the wrong one."""
    for symptom in told.said("undefined-symbol-short", "undefined-symbol", "symbol-not-defined-in-file"):
        yield from _symbol(told, symptom)


def _symbol(told: Told, symptom: Symptom) -> Iterator[Suspect]:
    name, file = symptom.value("symbol") or "", symptom.value("file") or ""
    said, line = (symptom,), symptom.text
    if "nccl" in name.lower() or "bitsandbytes" in line.lower() or "libcudnn" in file:
        return  # rows of their own
    if name.startswith("cudnn"):
        yield Suspect("cudnn-version-mismatch", 90, said)
    elif _OF_DRIVER.match(name):
        return
    elif _OF_CUDA.match(name) or "libcublas" in line or "libcusparse" in line or "libnvJitLink" in line:
        yield Suspect("cuda-library-conflict", 93, said)
    elif _TORCHVISION.search(file or line):
        yield Suspect("torchvision-mismatch", 86, said)
    elif _OF_TORCH.search(name):
        own = bool(_TORCH_OWN.search(file))
        yield Suspect("cuda-library-conflict" if own and "_Z" not in name else "extension-abi-mismatch", 90, said)
    elif "libtorch" in file or "libc10" in file:
        yield Suspect("cuda-library-conflict", 80, said)
    elif told.complaint.names or ".cpython-" in line or "_C" in file:
        yield Suspect("extension-abi-mismatch", 72, said)
    else:
        yield Suspect("cuda-library-conflict", 50, said)


def missing(told: Told) -> Iterator[Suspect]:
    """A library of CUDA is not there; TensorFlow only remarks it where there is no GPU to use."""
    said = told.said("cuda-library-missing", "cuda-library-missing-reversed", "library-missing")
    said = tuple(symptom for symptom in said if not _has_rules_of_its_own(symptom.value("library") or ""))
    if said and not _only_remarked(told):
        sure = 92 if any((s.value("library") or "").startswith(_CUDA) for s in said) else 45
        yield Suspect("cuda-runtime-library-missing", sure, said)
    if told.has("tf-skip-gpus") and not said and not told.has("cudnn-library-missing"):
        yield Suspect("cuda-runtime-library-missing", 70, told.said("tf-skip-gpus"))


_CUDA = (
    "libcudart",
    "libcublas",
    "libcusparse",
    "libcufft",
    "libcurand",
    "libcusolver",
    "libnv",
    "libcupti",
    "libnccl",
    "libcufile",
    "libnpp",
)


def _has_rules_of_its_own(library: str) -> bool:
    return library.startswith(
        ("libcuda.so", "libcudnn", "libnvidia-ml", "libc10", "libtorch", "libnvinfer", "libbitsandbytes", "libnccl-net")
    )


def _only_remarked(told: Told) -> bool:
    """TensorFlow says what it did not find and goes on without a GPU."""
    return told.has("tf-ignore-cudart") and not told.has("tf-skip-gpus", "clue-smi-table")


def cudnn(told: Told) -> Iterator[Suspect]:
    """cuDNN that is not there, or cannot start."""
    said = told.said("cudnn-library-missing")
    if said and not (told.wsl and told.has("libcuda-missing")) and not _only_remarked(told):
        yield Suspect("cudnn-library-missing", 91, said)
    elif said and told.wsl:
        yield Suspect("wsl2-gpu-setup", 86, said)
    for symptom in told.said("library-missing"):
        if (symptom.value("library") or "").startswith("libcudnn"):
            yield Suspect("cudnn-library-missing", 92, (symptom,))
    yield from _status(told)


def _status(told: Told) -> Iterator[Suspect]:
    for symptom in told.said("cudnn-status", "cudnn-not-initialized"):
        status, said = symptom.value("status") or "", (symptom,)
        if status.startswith(("NOT_INITIALIZED", "ALLOC", "INTERNAL")):
            yield Suspect("cudnn-init-failed", 90 if status.startswith("NOT") else 78, said)
        elif status.startswith(("SUBLIBRARY", "VERSION")):
            yield Suspect("cudnn-version-mismatch", 92, said)
        elif status.startswith("ARCH"):
            yield Suspect("torch-gpu-arch-too-old", 72, said)
        elif status.startswith(("EXECUTION", "MAPPING")):
            yield Suspect("cudnn-init-failed", 62, said)
        else:
            yield Suspect("cudnn-version-mismatch", 52, said)


def cublas(told: Told) -> Iterator[Suspect]:
    """cuBLAS that does not start, mostly for want of memory."""
    said = told.said("cublas-not-initialized")
    if said:
        yield Suspect("workload-exceeds-vram", 58, said)
        yield Suspect("device-side-assert-index", 50, said)
    said = told.said("cublas-alloc-failed")
    if said:
        yield Suspect("workload-exceeds-vram", 66, said)
    said = told.said("cublas-not-supported")
    if said:
        bf16 = any("16BF" in symptom.text for symptom in said)
        yield Suspect("bf16-unsupported-gpu" if bf16 else "cuda-library-conflict", 82 if bf16 else 60, said)


def less_for_the_library(told: Told, suspect: Suspect) -> int:
    """A better word is in the same text."""
    if suspect.code == "cuda-runtime-library-missing" and told.has(
        "bnb-setup-failed", "bnb-cuda-setup", "bnb-binary", "torch-driver-old", *driver.NO_DRIVER
    ):
        return 30
    if (
        suspect.code == "cudnn-library-missing"
        and told.has("cudnn-mismatch-words", "cudnn-mismatch")
        and not told.has("cudnn-symbol-invalid-handle")
    ):
        return 12
    if suspect.code == "cudnn-init-failed" and told.has("oom-any", "cudnn-mismatch-words"):
        return 25
    if suspect.code == "extension-abi-mismatch" and told.has("torchvision-nms", "torchvision-ops"):
        return 20
    return 0


RULES = (undefined, missing, cudnn, cublas)
DOUBTS = (less_for_the_library,)
