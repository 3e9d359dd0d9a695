"""What loading takes of the machine itself: its memory and its disk. "Killed" while loading is as common as out of memory.

What is read as a pickle is unpickled as a whole; safetensors and GGUF are mapped, and a page that was read may go again.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.memory.model import Model
from gpudoctor.memory.need import GIB, Work

PROCESS = GIB
"""A Python with PyTorch and its CUDA libraries, in memory that is its own: 0.6 to 1.2 GiB."""
STAGED = 64 << 20
"""Pieces on their way to the GPU."""


@dataclass(frozen=True, slots=True)
class Host:
    """Bytes of the machine's own memory while loading, and bytes to download; in words where they come from."""

    memory: int
    download: int
    """0 where the files are here."""
    why: str


def host(model: Model, work: Work, dtype: Dtype | None, runtime: str) -> Host:
    """What this runtime takes while it loads this model."""
    size = model.bytes_as(None)
    download = 0 if model.contents is not None else size
    if runtime == "gpudoctor":
        return Host(PROCESS * work.gpus + STAGED, 0, "weights go to the GPU a few MiB at a time; a known name needs no files")
    if runtime == "meta":
        return Host(size + PROCESS * work.gpus, download, "each .pth file is unpickled as a whole before it is copied")
    if runtime == "llama.cpp":
        table = model.bytes_as(dtype, "embedding")
        ready_made = 0 if model.contents is not None else model.bytes_as(dtype)
        return Host(table + STAGED, ready_made, "the file is mapped; the token table stays")
    if runtime == "vllm":
        return Host(PROCESS * work.gpus + _largest(model, size), download, "one file of weights at a time, beside vLLM itself")
    pickled = model.contents is not None and model.contents.pickled
    if pickled:
        return Host(PROCESS + _largest(model, size), download, "a pickle (.bin) is read as a whole, file by file")
    return Host(PROCESS + STAGED, download, 'with device_map="auto"; without it the whole model passes through memory first')


def _largest(model: Model, size: int) -> int:
    """The largest file; of a model that is not here, a usual shard."""
    if model.contents is None:
        return min(size, 5 * 10**9)
    return max(size for _, size in model.contents.files)
