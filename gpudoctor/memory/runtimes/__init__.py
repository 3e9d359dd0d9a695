"""The programs that people run models with, and the arithmetic of each: one file per program, and here the table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.memory.model import Model
from gpudoctor.memory.need import Need, Work
from gpudoctor.memory.runtimes import llama_cpp, meta, own, transformers, vllm


@dataclass(frozen=True, slots=True)
class Runtime:
    """One program. ``need`` counts for a model, the work, and a dtype (None: as its files have it)."""

    name: str
    """As ``--runtime`` wants it."""
    need: Callable[[Model, Work, Dtype | None], Need]
    reserves: bool
    """The cache is reserved for ``Work.room`` positions, whatever is generated."""


TRANSFORMERS = Runtime("transformers", transformers.need, reserves=False)
LLAMA_CPP = Runtime("llama.cpp", llama_cpp.need, reserves=True)
RUNTIMES = (
    Runtime("gpudoctor", own.need, reserves=True),
    Runtime("meta", meta.need, reserves=True),
    TRANSFORMERS,
    Runtime("vllm", vllm.need, reserves=True),
    LLAMA_CPP,
)


def by_name(name: str) -> Runtime | None:
    """The runtime of that name; None where there is none."""
    return next((runtime for runtime in RUNTIMES if runtime.name == name), None)
