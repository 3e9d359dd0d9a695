"""What a program says of its Python environment: collect_env of PyTorch, vLLM, Accelerate, Detectron2 and MMCV, and pip list."""

from __future__ import annotations

import re

from gpudoctor.facts import Companion, LibraryCopy, Torch, Unknown
from gpudoctor.knowledge import pasted
from gpudoctor.pasted import fields
from gpudoctor.pasted.fields import NOT_THERE, Fields

_VERSION = re.compile(r"(\d{1,2}\.\d{1,3}(?:\.\d{1,4})?(?:\.?(?:dev|rc|a|b|post)\d{0,8})?(?:\+[\w.]{1,24})?)")
_TORCH_VERSION = ("pytorch version", "pytorch", "torch version", "pytorch version (gpu?)", "torch", "torch.__version__")
_TORCH_CUDA = (
    "cuda used to build pytorch",
    "pytorch cuda version",
    "torch.version.cuda",
    "cuda version (torch)",
    "pytorch built cuda",
)
_CUDA_IN_WORDS = re.compile(
    r"(?i)\b(?:py)?torch[ =@-]{0,3}v?\d[\w.]{1,14}[^\n]{0,24}?\b(?:with |\(|for )?cu(?:da)?[ -]?(\d{1,2}\.\d)\b"
)
_TORCH_IN_WORDS = re.compile(
    r"(?i)(?<!in )(?<!at least )\b(?:py)?torch(?:[ =@-]{1,6}|[\W]{0,3}version\W{1,4})"
    r"v?(\d{1,2}\.\d{1,2}(?:\.\d{1,3})?(?:\.?(?:dev|rc|a|b)\d{0,8})?(?:\+[\w.]{1,24})?)"
)
_CUDA_OF_TAG = re.compile(r"\+cu(\d{2,3})\b")
_CUDA_OF_CONDA = re.compile(r"(?:py\d[\d.]{0,4}[_-]cuda|cuda)(\d{1,2}\.\d)")
_BUILT_CUDA = re.compile(r"(?i)(?:pytorch compiled|built|compiled) with cuda (?:version )?(\d{1,2}\.\d)")
_PACKAGE = re.compile(
    r"(?im)^[ \t>*|-]{0,4}(?:\[(?:pip3?|conda)\] )?"
    r"(torch|pytorch|torchvision|torchaudio|flash[-_]attn|bitsandbytes|xformers|vllm|triton|mmcv(?:-full)?|detectron2|deepspeed|apex)"
    r"(?:[ \t]{1,40}|==|[ \t]{0,2}: )(\d[\w.+]{1,40})(?:[ \t]{1,20}(\S{1,60}))?"
)


def read(text: str) -> Fields:
    """The fields of whatever describes itself in the text."""
    return fields.read(text)


def torch(described: Fields, text: str) -> Torch | None | Unknown:
    """The PyTorch that the text names; Unknown where it names none."""
    version = _version(described, text)
    if version is None:
        return Unknown(NOT_THERE)
    hip = version.partition("+rocm")[2] or None
    without = "+cpu" in version or described.get("cuda used to build pytorch", "").lower() == "none"
    cuda = None if without or hip else _cuda(described, text, version) or pasted.default_cuda(version)
    return _torch(version, cuda, hip)


def _version(described: Fields, text: str) -> str | None:
    said = fields.value(described, *_TORCH_VERSION)
    match = _VERSION.search(said or "")
    if match is None:
        listed = {name: version for name, version, _ in _PACKAGE.findall(text)}
        match = _VERSION.match(listed.get("torch") or listed.get("pytorch") or "") or _TORCH_IN_WORDS.search(text)
    return match.group(1) if match else None


def _cuda(described: Fields, text: str, version: str) -> str | None:
    tag = _CUDA_OF_TAG.search(version)
    if tag:
        return f"{tag.group(1)[:-1]}.{tag.group(1)[-1]}"
    said = _short(fields.value(described, *_TORCH_CUDA))
    if said:
        return said
    conda = next(
        (_CUDA_OF_CONDA.search(build) for name, _, build in _PACKAGE.findall(text) if name in ("torch", "pytorch") and build), None
    )
    match = conda or _BUILT_CUDA.search(text) or _CUDA_IN_WORDS.search(text)
    return match.group(1) if match else None


def _short(version: str | None) -> str | None:
    match = re.match(r"(\d{1,2}\.\d)", version or "")
    return match.group(1) if match else None


def _torch(version: str, cuda: str | None, hip: str | None) -> Torch:
    why = Unknown(NOT_THERE)
    return Torch(
        version=version,
        cuda=cuda,
        hip=hip,
        git=None,
        path="torch",
        installer=None,
        sm=why,
        ptx=why,
        nccl_built_in=why,
        cudnn_built_for=why,
        pins=(),
        missing_libraries=why,
        duplicates=(),
        missing_files=(),
        missing_bytecode=False,
        resolutions=(),
    )


def companions(described: Fields, text: str) -> tuple[Companion, ...] | Unknown:
    """Packages compiled against PyTorch, with their versions; Unknown where the text names none."""
    found = {name.lower().replace("_", "-"): version for name, version, _ in _PACKAGE.findall(text)}
    said = {name: match.group(1) for name in ("torchvision", "torchaudio") if (match := _VERSION.match(described.get(name, "")))}
    all_of_them = {name: version for name, version in {**said, **found}.items() if name not in ("torch", "pytorch", "triton")}
    listed = tuple(Companion(name, version, None, None, None) for name, version in sorted(all_of_them.items()))
    return listed or Unknown(NOT_THERE)


def libraries(described: Fields) -> tuple[LibraryCopy, ...] | Unknown:
    """The cuDNN that collect_env found."""
    match = re.search(r"(\d{1,2}\.\d{1,2}\.\d{1,3})", fields.value(described, "cudnn version") or "")
    if match is None:
        return Unknown(NOT_THERE)
    return (LibraryCopy("cudnn", match.group(1), "the text", "system", None, None),)
