"""What is compiled: the toolkit, its compiler, and the CUDA that PyTorch was built with."""

from __future__ import annotations

from collections.abc import Iterator

from .told import Suspect, Told

IMPORT_FAILS = (
    "undefined-symbol-short",
    "extension-dll-failed",
    "cuda-invalid-function",
    "extension-cuda-module-missing",
    "extension-cuda-import",
)


def toolkit(told: Told) -> Iterator[Suspect]:
    """CUDA_HOME is None: there is no toolkit, or a PyTorch without CUDA did not look for one."""
    unset = told.said("cuda-home-unset")
    if unset and (told.nvcc or told.without_cuda) and not told.has("cuda-toolkit-env"):  # a build without CUDA looks for no toolkit
        yield Suspect("torch-cpu-only-build", 93, unset)
    said = told.said("cuda-none-path")
    if said and told.has("clue-compiles", "clue-cuda-home"):
        yield Suspect("cuda-toolkit-missing", 78, said)


def mismatch(told: Told) -> Iterator[Suspect]:
    """nvcc, or the CUDA that an extension was built with, is not PyTorch's."""
    nvcc, torch = told.nvcc, told.torch_cuda
    built = told.first("compiler-cuda-print")
    if torch is None:
        return
    words = told.said("compiler-cuda-print", "nvcc-version-print")
    if built and built.value("built") not in (None, torch) and told.has(*IMPORT_FAILS, "cuda-no-kernel-image-short"):
        yield Suspect("nvcc-torch-version-mismatch", 84, (*told.said(*IMPORT_FAILS), *words), _differ(built.value("built"), torch))
    elif nvcc and _major_differs(nvcc, torch) and (told.has(*IMPORT_FAILS) or _failed_to_import(told)):
        yield Suspect("nvcc-torch-version-mismatch", 82, (*told.said(*IMPORT_FAILS), *words), _differ(nvcc, torch))


def _failed_to_import(told: Told) -> bool:
    return told.has("extension-failed-to-import")


def _differ(nvcc: str | None, torch: str) -> str:
    return f"The extension is compiled with CUDA {nvcc}, and PyTorch with {torch}"


def _major_differs(nvcc: str, torch: str) -> bool:
    return nvcc.partition(".")[0] != torch.partition(".")[0] or (torch.startswith("10.") and nvcc != torch)


def at_run_time(told: Told) -> Iterator[Suspect]:
    """NVRTC, and the ptxas of Triton, are PyTorch's own compilers: what they do not know, that PyTorch does not."""
    said = told.said("nvrtc-arch")
    assembler = told.said("ptxas-arch")
    if assembler and told.has("clue-triton"):
        yield Suspect("torch-gpu-arch-too-new", 94, assembler)
    if said:
        yield Suspect("torch-gpu-arch-too-new", 80, said)


RULES = (toolkit, mismatch, at_run_time)
