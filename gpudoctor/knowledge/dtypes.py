"""In which numbers weights can be kept, and how many bits a weight takes in each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from gpudoctor.knowledge.table import Row, read, sources

Kind = Literal["float", "on-load", "files", "gguf"]


@dataclass(frozen=True, slots=True)
class Dtype:
    """One kind of numbers. Bits are per weight, with scales and zero points."""

    name: str
    aliases: tuple[str, ...]
    linear: float
    """Bits of a weight in the matrices of the layers."""
    rest: float
    """Bits of every other weight."""
    kind: Kind
    """float: any runtime; on-load: made while loading; files: the files have to be in it; gguf: files of llama.cpp."""
    runtimes: tuple[str, ...]
    capability: str | None
    """Least compute capability with which transformers keeps it so; None: any."""
    how: str
    sources: tuple[str, ...]

    @property
    def itemsize(self) -> int:
        """Bytes of a number that is computed with: cache and activations stay in 16 bits where weights have fewer."""
        return max(2, round(self.rest / 8))


@cache
def known() -> tuple[Dtype, ...]:
    """All of them, the widest first."""
    return tuple(_dtype(row) for row in read("dtypes")["dtype"])


def by_name(text: str) -> Dtype | None:
    """The dtype of that name, or of one of its other names; None where there is none."""
    return _index().get(_plain(text))


def of(name: str) -> Dtype:
    """The dtype of that name, which our table has."""
    return _index()[_plain(name)]


@cache
def _index() -> dict[str, Dtype]:
    return {_plain(name): dtype for dtype in known() for name in (dtype.name, *dtype.aliases)}


def _plain(text: str) -> str:
    return text.strip()[:40].casefold().replace("-", "").replace("_", "")


def _dtype(row: Row) -> Dtype:
    return Dtype(
        name=row["name"],
        aliases=tuple(row["aliases"]),
        linear=float(row["linear"]),
        rest=float(row["rest"]),
        kind=row["kind"],
        runtimes=tuple(row["runtimes"]),
        capability=row.get("capability"),
        how=row["how"],
        sources=sources("dtypes", row["source"]),
    )
