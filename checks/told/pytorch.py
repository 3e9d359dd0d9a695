"""PyTorch's build against the card, and what is compiled against PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

from gpudoctor.knowledge import pasted
from gpudoctor.knowledge.table import version_key

from . import driver
from .told import Suspect, Told

EXTENSIONS = (
    "flash_attn",
    "flashattn",
    "xformers",
    "mmcv",
    "selective_scan",
    "mamba",
    "causal_conv",
    "apex",
    "fused_",
    "pointnet",
    "spconv",
    "torch_scatter",
    "torch_sparse",
    "deform",
    "exllama",
    "gptq",
    "awq",
    "nvdiffrast",
    "pytorch3d",
    "tinycudann",
    "gaussian",
    "simple_knn",
    "natten",
    "dcn",
    "correlation",
    "minkowski",
    "torchsparse",
    "maskrcnn",
    "detectron2",
    "roi",
    "iou3d",
    "quant_cuda",
    "rasterizer",
    "gridencoder",
    "raymarching",
    "sageattention",
    "bitsandbytes",
    "llama_cpp",
    "ggml",
    "ctranslate2",
    "groundingdino",
    "vllm",
    "cupy",
)
TURING = (7, 5)
NO_CODE = ("cuda-no-kernel-image", "cuda-no-kernel-image-short", "cuda-invalid-function")
WARNED = (
    "torch-arch-unsupported",
    "torch-arch-unsupported-short",
    "torch-arch-not-included",
    "torch-found-gpu-cc",
    "torch-found-gpu-old",
    "torch-arch-too-old",
    "torch-minimum-capability",
)


def without_cuda(told: Told) -> Iterator[Suspect]:
    """A build without CUDA, by its own words or by its version."""
    said = told.said("torch-cpu-build", "torch-not-linked-with-cuda")
    if said:
        if told.os == "macos" or (told.has(*driver.NO_CARD) and not told.gpus):
            yield Suspect("no-nvidia-gpu", 93, said)
        yield Suspect("torch-cpu-only-build", 92, said)
    unavailable = told.said(*driver.UNAVAILABLE, "nccl-no-gpu-short", "bnb-without-gpu")
    shown = told.said("torch-cpuonly-package", "torch-built-without-cuda")
    if unavailable and told.without_cuda:
        macos = told.os == "macos"
        yield Suspect("no-nvidia-gpu" if macos else "torch-cpu-only-build", 94, (*unavailable, *shown))
    elif told.has("webui-no-gpu", "torch-deserialize-no-cuda", "ultralytics-device", "needs-a-gpu"):
        yield Suspect("torch-cpu-only-build", 62, unavailable)


def no_code(told: Told) -> Iterator[Suspect]:
    """The card against the build: newer, older, or served, so that an extension is what lacks the code."""
    warned, said = told.said(*WARNED), told.said(*NO_CODE)
    if not warned and not said and not told.has("torch-arch-flags-unknown", "needs-capability"):
        return
    age = _age(told)
    words = (*warned, *said)
    if warned:
        yield Suspect(
            "torch-gpu-arch-too-new" if age == "new" else "torch-gpu-arch-too-old", 95 if age else 88, words, _card(told, age)
        )
        return
    named = told.names(*EXTENSIONS) or told.has("clue-arch-list-cures")
    invalid = told.has("cuda-invalid-function") and not told.has("cuda-no-kernel-image", "cuda-no-kernel-image-short")
    flags = told.said("clue-arch-flags")
    if words and flags:
        yield Suspect("extension-lacks-gpu-arch", 84, (*words, *flags))
    elif words and (named or invalid):
        yield Suspect("extension-lacks-gpu-arch", 84 if named and age != "new" else 70, words)
    if words and age and not (invalid and named):
        yield Suspect(f"torch-gpu-arch-too-{age}", 82, words, _card(told, age))
    elif words and not named:
        yield Suspect("torch-gpu-arch-too-old", 56, words)
        yield Suspect("torch-gpu-arch-too-new", 54, words)
        yield Suspect("extension-lacks-gpu-arch", 52, words)
    unknown = told.said("torch-arch-flags-unknown")
    if unknown:
        yield Suspect("torch-gpu-arch-too-new", 80, unknown)
        yield Suspect("nvcc-arch-unsupported", 64, unknown)
    needs = told.said("needs-capability")
    if needs and not told.has("bf16-words", "bf16-unsupported", "flash-too-old", "torch-minimum-capability"):
        yield Suspect("torch-gpu-arch-too-old", 74, needs)


def _capability(told: Told) -> str | None:
    for symptom in told.said("torch-found-gpu-old", "torch-found-gpu-cc", "torch-arch-unsupported", "torch-arch-unsupported-short"):
        found = symptom.value("capability") or _dotted(symptom.value("sm"))
        if found:
            return found
    return next((capability for _, capability in told.gpus if capability), None)


def _dotted(sm: str | None) -> str | None:
    return f"{sm[:-1]}.{sm[-1]}" if sm and sm.isdigit() and len(sm) > 1 else None


def _age(told: Told) -> str | None:
    """new, old, or None where the build has code for the card, or too little is known."""
    capability = _capability(told)
    if capability is None:
        return "old" if told.has("torch-arch-too-old", "torch-minimum-capability") else None
    card = version_key(capability)
    if told.has("torch-arch-too-old", "torch-found-gpu-old", "torch-found-gpu-cc", "torch-minimum-capability"):
        return "new" if card >= (12, 0) and not told.has("torch-arch-too-old") else "old"
    supported = told.first("torch-supports-capabilities")
    codes = (
        [version_key(d) for word in (supported.value("supported") or "").split() if (d := _dotted(word.partition("_")[2]))]
        if supported
        else []
    )
    if codes:
        return "new" if card > max(codes) else "old" if card < min(codes) else "new"
    by_cuda = _by_cuda(told.torch_cuda, capability)
    if by_cuda is None and told.has("torch-arch-unsupported", "torch-arch-unsupported-short"):
        return "new" if card >= TURING else "old"
    return by_cuda


def _by_cuda(cuda: str | None, capability: str) -> str | None:
    card = version_key(capability)
    if cuda is None:
        return "new" if card >= (10, 0) else "old" if card < (5, 0) else None
    newest, oldest = pasted.newest_capability(cuda), pasted.oldest_capability(cuda)
    if newest and card > version_key(newest):
        return "new"
    return "old" if oldest and card < version_key(oldest) else None


def _card(told: Told, age: str | None) -> str:
    capability = _capability(told)
    name = next((name for name, has in told.gpus if has == capability), None) or "The GPU"
    if capability is None or age is None:
        return ""
    build = f"PyTorch {told.torch.version}" if told.torch else "this build of PyTorch"
    than = "newer" if age == "new" else "older"
    return f"{name} (compute capability {capability}) is {than} than any GPU for which {build} has code"


def packages(told: Told) -> Iterator[Suspect]:
    """A package that was built for the CPU alone, unless PyTorch itself was."""
    said = told.said("not-compiled-with-gpu")
    said = tuple(
        symptom for symptom in said if "bitsandbytes" not in symptom.text and "flash attention" not in symptom.text.lower()
    )
    if said and not told.has("torch-cpu-build", "torch-not-linked-with-cuda"):
        yield Suspect("extension-built-without-cuda", 90, said)
    setup = told.said("bnb-without-gpu")
    if setup:
        yield Suspect(
            "bitsandbytes-cuda-setup",
            55 if told.has("torch-cpu-build", "torch-not-linked-with-cuda") or told.without_cuda else 78,
            setup,
        )
    dll = told.said("extension-dll-failed")
    if dll:
        vision = any("torchvision" in symptom.text or "torchaudio" in symptom.text for symptom in dll)
        yield Suspect(
            "torchvision-mismatch" if vision else "extension-abi-mismatch", 78 if vision or told.names(*EXTENSIONS) else 46, dll
        )


def less_for_builds(told: Told, suspect: Suspect) -> int:
    """What follows from a PyTorch without CUDA, or from a missing driver, is no cause of its own."""
    if suspect.code == "bitsandbytes-cuda-setup" and told.has(*driver.NO_DRIVER, "torch-driver-old"):
        return 25
    cpu = told.has("torch-cpu-build", "torch-not-linked-with-cuda") or told.without_cuda
    if cpu and suspect.code in ("bitsandbytes-cuda-setup", "extension-built-without-cuda", "driver-not-installed"):
        return 20
    if (
        suspect.code == "torch-cpu-only-build"
        and suspect.sure < 90
        and told.has(*driver.NO_DRIVER, "torch-driver-old", "cuda-unknown", "torch-unknown-error")
    ):
        return 25
    if suspect.code == "extension-built-without-cuda" and told.has("cuda-toolkit-missing", "undefined-symbol-short"):
        return 15
    if suspect.code == "extension-abi-mismatch" and told.has("nccl-symbol"):
        return 20
    return 0


RULES = (without_cuda, no_code, packages)
DOUBTS = (less_for_builds,)
