"""Which model a text is about, what its weights take, and what of it would fit a card.

A model is known by its name, by the number of its parameters, or by the matrix whose allocation failed: 86.00 MiB is one of
4096 x 11008 numbers in half precision, as the models of Llama's 7B size have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gpudoctor.knowledge import models
from gpudoctor.knowledge.models import KnownModel
from gpudoctor.memory.card import Card
from gpudoctor.memory.model import of_known
from gpudoctor.memory.need import Work
from gpudoctor.memory.options import Option, options
from gpudoctor.memory.question import Question
from gpudoctor.memory.runtimes import by_name

from ..words import gib
from .told import Told

BLOCK, LARGE = 2 << 20, 10 << 20
"""PyTorch asks for large blocks in whole steps of 2 MiB (c10/cuda/CUDACachingAllocator.cpp, get_allocation_size)."""
HALF, SINGLE = 2, 4
SHOWN = ("8-bit", "4-bit", "smaller-model", "offload")
_BILLIONS = re.compile(r"(\d{1,3}(?:\.\d{1,2})?)b")
_QUANTISED = re.compile(r"(?:4|8)[-_ ]?bit|gptq|awq|gguf|q[2-8]_|int[48]|bnb|qlora|fp8|nf4")


def sized(size: int) -> str:
    """A size as the messages have it: 86.00 MiB, 11.69 GiB."""
    return f"{size / (1 << 20):.2f} MiB" if size < 1 << 30 else f"{gib(size)} GiB"


@dataclass(frozen=True)
class Larger:
    """Weights against a card."""

    alone: int
    """Bytes of the weights."""
    summary: str
    why: str


def names_a_model(told: Told) -> bool:
    """The text names a model by name or size."""
    return _named(told) is not None or _billions(told) is not None


def larger_than(told: Told, total: int | None, tried: int | None, allocated: int | None) -> Larger | None:
    """The model that the text is about, where its half-precision weights fill most of the card or more."""
    if total is None or any(_QUANTISED.search(name) for name in told.complaint.names):
        return None
    matrix = of_matrix(tried) if tried else None
    known = _named(told) or (matrix.model if matrix and told.has("clue-c10d", "clue-loads-model", "clue-in-init") else None)
    if known is None and matrix is not None and allocated is not None and allocated > 0.7 * total:
        known = matrix.model
    billions = _billions(told)
    alone = of_known(known).bytes_as(None) if known else round(billions * 1e9 * HALF) if billions else 0
    if not alone or alone < 0.6 * total:
        return None
    name = known.name if known else f"a model of {billions:g} billion parameters"
    return Larger(
        alone, f"The weights of {name} take {sized(alone)} in fp16; the card has {sized(total)}", _why(known, matrix, alone, total)
    )


def _why(known: KnownModel | None, matrix: Matrix | None, alone: int, total: int) -> str:
    parts = []
    if matrix is not None:
        parts.append(f"What was being allocated is {matrix.words}: the failure is while the model is built, or loaded.")
    if alone > total:
        parts.append(
            "No batch size, sequence length or setting of the allocator helps, nor does closing other programs; driver and PyTorch "
            "are well."
        )
    else:
        parts.append("Beside the weights there is no room for the rest.")
    fits = _fitting(known, total) if known else ""
    return " ".join([*parts, fits]).strip()


def _fitting(known: KnownModel, total: int) -> str:
    """What would fit an empty card of that size, with the command of each."""
    runtime = by_name("transformers")
    if runtime is None:
        return ""
    question = Question(of_known(known), runtime, Work(), card=Card("this card", total, total))
    found = {option.action: option for option in options(question) if option.fits}
    ways = [_way(found[action]) for action in SHOWN if action in found]
    command = f"gpudoctor fit {known.name} --free {gib(total)}GiB"
    return f"What fits {sized(total)}: {'; '.join(ways)}. The commands of each: {command}." if ways else ""


def _way(option: Option) -> str:
    return f"{option.summary} ({sized(option.need)})"


@dataclass(frozen=True)
class Matrix:
    """A matrix of a known model."""

    rows: int
    columns: int
    width: int
    model: KnownModel

    @property
    def words(self) -> str:
        """Such as: one 4096 x 11008 matrix in half precision, as llama-2-7b has it."""
        kind = "half" if self.width == HALF else "single"
        size = sized(self.rows * self.columns * self.width)
        return f"one {self.rows} x {self.columns} matrix in {kind} precision ({size}), as {self.model.name} has it"


def of_matrix(tried: int) -> Matrix | None:
    """The matrix of a known model that takes so many bytes; None where none does. Llama's own come first."""
    for width in (HALF, SINGLE):
        for model in sorted(models.known(), key=lambda known: known.family != "llama"):
            for rows, columns in _matrices(model):
                if abs(_asked(rows * columns * width) - tried) < (1 << 20) // 100:
                    return Matrix(rows, columns, width, model)
    return None


def _matrices(model: KnownModel) -> Iterator[tuple[int, int]]:
    yield model.dim, model.hidden
    if model.expert_hidden:
        yield model.dim, model.expert_hidden
    yield model.vocab, model.dim


def _asked(size: int) -> int:
    return size if size < LARGE else -(-size // BLOCK) * BLOCK


def _named(told: Told) -> KnownModel | None:
    """The model that is named, by a name that our table has."""
    for name in told.complaint.names:
        found = models.by_name(name) or models.by_name(re.sub(r"[-_](?:chat|instruct|hf|base|v\d.*|it)\b.*$", "", name))
        if found is not None:
            return found
    return None


def _billions(told: Told) -> float | None:
    found = [float(match.group(1)) for name in told.complaint.names if (match := _BILLIONS.search(name))]
    return max((number for number in found if 0 < number <= 1000), default=None)
