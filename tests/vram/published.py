"""Published measurements of memory, and what gpudoctor counts for each. README.md says what is in published.jsonl."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gpudoctor.knowledge import dtypes, models
from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.memory import card as cards
from gpudoctor.memory.card import Card
from gpudoctor.memory.model import Model, of_known
from gpudoctor.memory.need import GIB, Need, Work, kv_cache
from gpudoctor.memory.runtimes import by_name, transformers
from gpudoctor.memory.verdict import Answer, verdict

FILE = Path(__file__).with_name("published.jsonl")
NUMBERS = {
    "nf4-dq": "int4",  # scales quantised once more, as ours is
    "nf4": "int4",
    "bnb-int8": "int8",
    "ao-int8wo": "int8",
    "ao-float8wo": "fp8",
    "ao-int4wo-64": "gptq-int4",
    "gptq-int4-g32": "gptq-int4",
    "gguf-Q4_K_M-MLC": "Q4_K_M",
    "gguf-F16": "fp16",
}
"""The rows' words for kinds of numbers that are not ours -> ours, or the nearest."""
NO_CARD = {"unknown", "various", "H100 (guess)", "H100-class", "4090+3090Ti"}
PROMPT = 32
"""Where a row says nothing of it, as with Meta's examples: tokens that are read at once."""
OURS = {"meta-llama": "meta", "vllm": "vllm", "llama.cpp": "llama.cpp", "ik_llama.cpp": "llama.cpp"}
AFTER_THE_LAST = "hf-transformers-4.51"
"""These rows tell what is allocated after the last token, not the peak; docs/memory-published.md shows by what that is seen."""
NEAR = 0.05
"""How near need and card are where a verdict is hard."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. ``gib`` is what was measured, or of a run that was out of memory the card's own size."""

    id: str
    model: str
    numbers: str
    runtime: str
    kind: str
    """total, weights or kv."""
    gib: float
    fits: bool
    gpu: str
    gpus: int
    per_gpu: bool
    """Of several GPUs the fullest was measured, not their sum."""
    measure: str
    source: str
    raw: str = ""
    note: str = ""
    batch: int = 1
    prompt: int | None = None
    new: int | None = None
    max_seq_len: int | None = None
    max_batch_size: int | None = None

    @property
    def known(self) -> Model:
        """From our table."""
        known = models.by_name(self.model)
        assert known is not None
        return of_known(known)

    @property
    def dtype(self) -> Dtype:
        """In our words."""
        wanted = NUMBERS.get(self.numbers, self.numbers.removeprefix("gguf-"))
        return dtypes.of(wanted)

    @property
    def version(self) -> str | None:
        """Of transformers: 4.46; where a row says 4.3x, the last one."""
        if not self.runtime.startswith("hf-transformers-"):
            return None
        return self.runtime.rpartition("-")[2].replace("x", "9")

    @property
    def card(self) -> Card | None:
        """The GPU; where the row tells its usable size in parentheses, of that size. None where nobody knows which."""
        if self.gpu in NO_CARD:
            return None
        told = re.search(r"\(([\d.]+) GiB\)", self.gpu)
        if told is not None:
            return Card(self.gpu, None, int(float(told[1]) * GIB), self.gpus)
        return cards.named(re.sub(r"80G$", "80GB", self.gpu))

    def need(self, gpus: int = 1) -> Need:
        """On the fullest of so many GPUs, or on one that holds all. Frameworks that are not ours count as transformers."""
        hopper = self.gpu.startswith(("H20", "H100"))
        batch = self.max_batch_size or self.batch
        work = Work(batch, PROMPT if self.prompt is None else max(1, self.prompt), self.new or 1, self.max_seq_len, gpus, hopper)
        runtime = by_name(OURS.get(self.runtime, "transformers"))
        assert runtime is not None
        if runtime.name == "transformers":
            return transformers.need(self.known, work, self.dtype, self.version)
        return runtime.need(self.known, work, self.dtype)

    @property
    def counted(self) -> float:
        """GiB, of what the row measures."""
        if self.kind == "kv":
            return kv_cache(self.known.architecture, self.prompt or 0, 2, windows=True, latent=True) / GIB
        need = self.need(self.gpus if self.per_gpu else 1)
        if self.kind == "weights":
            return (need.weights if self.runtime == "vllm" else self.known.bytes_as(self.dtype)) / GIB
        if self.runtime == AFTER_THE_LAST:
            return (need.weights + need.kv_cache + need.workspace) / GIB
        return self.peak

    @property
    def peak(self) -> float:
        """GiB at the widest moment. Each of several GPUs that are summed has activations of its own; the logits one has."""
        if self.per_gpu or self.gpus == 1:
            return self.need(self.gpus).allocated / GIB
        need, new = self.need(), transformers.need(self.known, Work(1, self.prompt or PROMPT, self.new or 1), self.dtype)
        return (need.allocated + (self.gpus - 1) * (min(new.activations, need.activations) + need.workspace)) / GIB

    @property
    def error(self) -> float:
        """Of what was counted, as a part of what was measured: above 0 too much was counted."""
        return self.counted / self.gib - 1

    @property
    def verdict(self) -> Answer | None:
        """What would have been said of this run on this card; None where nobody knows the card, or nothing was run."""
        card = self.card
        return None if card is None or self.kind != "total" else verdict(self.need(self.gpus), card.free)

    @property
    def hard(self) -> bool:
        """The card's memory is within 5 % of what we count."""
        card = self.card
        if card is None or self.kind != "total":
            return False
        total = self.need(self.gpus).total
        return abs(card.free - total) <= NEAR * total


@cache
def rows() -> tuple[Row, ...]:
    """All of them."""
    return tuple(Row(**json.loads(line)) for line in FILE.read_text("utf-8").splitlines())


def mean(errors: list[float]) -> float:
    """The mean absolute error."""
    return sum(abs(error) for error in errors) / len(errors)


def left_in_blocks(row: Row) -> float:
    """GiB that PyTorch's allocator counts as given away with the matrices of a Llama-like model in 16 bits.

    From 10 MiB on a matrix gets segments of 2 MiB; what is left of them is cut off only if it is more than 1 MiB
    (https://github.com/pytorch/pytorch/blob/v2.4.0/c10/cuda/CUDACachingAllocator.cpp: kRoundLarge, kSmallSize).
    """
    a = row.known.architecture
    query, pairs = a.heads * a.head_dim, a.kv_heads * a.head_dim
    widths = (query, query, pairs, pairs, a.hidden, a.hidden, a.hidden)
    rests = [-(2 * a.dim * width) % (2 << 20) for width in widths if 2 * a.dim * width >= 10 << 20]
    return a.layers * sum(rest for rest in rests if rest <= 1 << 20) / GIB
