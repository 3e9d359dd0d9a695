"""The whole answer of `fit`: what is needed, against what, with the ways out and what loading takes of the machine itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gpudoctor.knowledge import dtypes
from gpudoctor.memory.host import Host, host
from gpudoctor.memory.need import Need, Work
from gpudoctor.memory.options import Option, options
from gpudoctor.memory.question import Question
from gpudoctor.memory.verdict import Answer

LENGTHS = (512, 2048, 8192, 32768, 131072)
"""Tokens in all, for the table."""
Outcome = Literal["fits", "tight", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of the table: bytes, and whether that fits."""

    need: int
    verdict: Answer | None


@dataclass(frozen=True, slots=True)
class Loading:
    """What loading takes of the machine, and what is there. Sizes are bytes; None: not looked at, or not to be seen."""

    host: Host
    memory_free: int | None
    disk_free: int | None

    @property
    def killed(self) -> bool:
        """The machine's own memory is not enough: the kernel would end the program while it loads."""
        return self.memory_free is not None and self.host.memory > self.memory_free

    @property
    def no_room(self) -> bool:
        """The download does not fit the disk."""
        return self.disk_free is not None and self.host.download > self.disk_free


@dataclass(frozen=True, slots=True)
class Count:
    """A question with its answer."""

    question: Question
    need: Need
    verdict: Answer | None
    options: tuple[Option, ...]
    loading: Loading
    notes: tuple[str, ...]
    why_no_card: str | None
    """Why nobody knows what is free; None where it is known."""

    @property
    def outcome(self) -> Outcome:
        """The verdict on card, memory and disk together."""
        if self.verdict == "no" or self.loading.killed or self.loading.no_room:
            return "no"
        return self.verdict or "unknown"


def count(
    question: Question,
    *,
    notes: tuple[str, ...] = (),
    why_no_card: str | None = None,
    memory_free: int | None = None,
    disk_free: int | None = None,
) -> Count:
    """Answer it."""
    loading = Loading(host(question.model, question.work, question.dtype, question.runtime.name), memory_free, disk_free)
    ways = tuple(option for option in options(question) if memory_free is None or option.host <= memory_free)
    return Count(question, question.need, question.verdict, ways, loading, notes, why_no_card)


def table(question: Question) -> tuple[tuple[int, ...], tuple[tuple[str, tuple[Cell, ...]], ...]]:
    """(lengths, rows): the need over dtypes and lengths, for the same number of sequences."""
    own, asked = question.model.architecture.max_seq_len, question.work.room
    usual = {length for length in LENGTHS if length <= own}
    lengths = tuple(sorted({asked, *sorted({*usual, min(own, LENGTHS[-1])})[-4:]}))
    rows = [(asked.numbers, tuple(_cell(asked, length) for length in lengths)) for asked in _in_other_numbers(question)]
    return lengths, tuple(rows)


def _in_other_numbers(question: Question) -> list[Question]:
    """The question itself, then in fewer bits, as far as this runtime knows them and the files can be made so."""
    quantised = question.model.contents is not None and question.model.contents.quantization is not None
    kinds = ("gguf",) if quantised or question.runtime.name == "llama.cpp" else ("float", "on-load")
    able = [d for d in dtypes.known() if question.runtime.name in d.runtimes and d.kind in kinds]
    size = question.model.bytes_as(question.dtype)
    fewer = [question.but(dtype=dtype) for dtype in able if question.keeps(dtype) and question.model.bytes_as(dtype) < 0.9 * size]
    return [question, *sorted(fewer, key=lambda asked: -asked.model.bytes_as(asked.dtype))][:6]


def _cell(question: Question, length: int) -> Cell:
    work = of_length(question.work, length)
    asked = question.but(work=work)
    return Cell(asked.need.total, asked.verdict)


def of_length(work: Work, length: int) -> Work:
    """The same work with so many tokens in all, as large a part of them read at once as before."""
    prompt = max(1, min(length, work.prompt * length // max(1, work.room)))
    return replace(work, prompt=prompt, new=length - prompt, length=None if work.length is None else length)
