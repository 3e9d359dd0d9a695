"""What is known about CUDA, drivers, GPUs and PyTorch builds: tables with a source for each row.

The numbers live in the ``*.toml`` files beside this one and nowhere else. Each module reads its table on first use and
hands out frozen rows. What is newer than the tables is not in them: the answer is then None, "unknown to the data of
``collected()``", never a fault.
"""

from __future__ import annotations

from gpudoctor.knowledge.cudnn_nccl import cudnn_version, nccl_version
from gpudoctor.knowledge.table import read

__all__ = ["collected", "cudnn_version", "nccl_version"]


def collected() -> str:
    """The day on which the data was collected: 2026-11-22."""
    return str(read("torch_builds")["collected"])
