"""How cuDNN and NCCL number their versions."""

from __future__ import annotations

from gpudoctor.knowledge.table import read


def cudnn_version(number: int) -> str:
    """The version behind CUDNN_VERSION or torch.backends.cudnn.version(): 91002 is 9.10.2, 8902 is 8.9.2."""
    return _decode(number, read("cudnn_nccl")["cudnn"]["nine"])


def nccl_version(number: int) -> str:
    """The version behind NCCL_VERSION_CODE or ncclGetVersion: 22105 is 2.21.5, 2803 is 2.8.3."""
    return _decode(number, read("cudnn_nccl")["nccl"]["nine"])


def pre_turing_cudnn() -> str:
    """The last cuDNN that runs on devices below 7.5."""
    return str(read("cudnn_nccl")["cudnn"]["pre_turing_last"])


def _decode(number: int, five_digits_from: int) -> str:
    unit = 10000 if number >= five_digits_from else 1000
    return f"{number // unit}.{number % unit // 100}.{number % 100}"
