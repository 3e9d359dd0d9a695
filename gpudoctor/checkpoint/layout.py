"""Which tensors a Llama has, and where they are found: the part that every format shares."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from gpudoctor.checkpoint.found import NotACheckpoint, Stored
from gpudoctor.checkpoint.values import shown
from gpudoctor.contents import Architecture
from gpudoctor.smoke.plan import Piece, Shape

Names = Mapping[str, str]
"""How a format calls the tensors of ``plan.Piece``: ``{}`` stands for the number of the layer."""
Tensors = Mapping[str, Stored]

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Kinds of numbers that PyTorch can compute with as they stand, and their bytes."""
# the largest published models: 126 layers, 16384 wide, a vocabulary of 262144
LIMITS = {
    "layers": 4096,
    "dim": 1 << 20,
    "hidden": 1 << 24,
    "vocab": 1 << 24,
    "heads": 1 << 16,
    "kv_heads": 1 << 16,
    "head_dim": 1 << 16,
}


def doubt(shape: Shape, where: str) -> Shape:
    """The shape, if a model can have it; raises NotACheckpoint otherwise."""
    for field, limit in LIMITS.items():
        value = getattr(shape, field)
        if not 0 < value <= limit:
            raise NotACheckpoint(f"{where}: a model with {field} = {value} is not one that gpudoctor reads")
    if shape.heads % shape.kv_heads:
        raise NotACheckpoint(f"{where}: {shape.heads} query heads cannot share {shape.kv_heads} key-value heads")
    if shape.head_dim % 2:
        raise NotACheckpoint(f"{where}: heads are {shape.head_dim} wide; rotary embeddings need an even width")
    if not 0 < shape.max_seq_len < 1 << 31:
        raise NotACheckpoint(f"{where}: a context of {shape.max_seq_len} tokens")
    return shape


def believed(found: Architecture, where: str) -> Architecture:
    """The numbers, if some model can have them; raises NotACheckpoint otherwise. Unlike ``doubt``, of any family."""
    for field, limit in LIMITS.items():
        value = getattr(found, field)
        if not 0 <= value <= limit:
            raise NotACheckpoint(f"{where}: a model with {field} = {value} is not one that anybody has")
    return found


def needed(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of the model by the name that ``plan.Piece`` gives it, and its shape."""
    yield "embedding", (shape.vocab, shape.dim)
    yield "norm", (shape.dim,)
    if not shape.tied:
        yield "head", (shape.vocab, shape.dim)
    layer = _layer(shape)
    for number in range(shape.layers):
        for name, size in layer.items():
            yield f"layers.{number}.{name}", size


def _layer(shape: Shape) -> dict[str, tuple[int, ...]]:
    query, pair = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes: dict[str, tuple[int, ...]] = {
        "attention_norm": (shape.dim,),
        "query": (query, shape.dim),
        "key": (pair, shape.dim),
        "value": (pair, shape.dim),
        "out": (shape.dim, query),
        "ffn_norm": (shape.dim,),
        "gate": (shape.hidden, shape.dim),
        "up": (shape.hidden, shape.dim),
        "down": (shape.dim, shape.hidden),
    }
    if shape.qkv_bias:
        sizes.update(query_bias=(query,), key_bias=(pair,), value_bias=(pair,))
    if shape.qk_norm:
        sizes.update(query_norm=(shape.head_dim,), key_norm=(shape.head_dim,))
    return sizes


def called(name: str, names: Names) -> str:
    """``layers.3.query`` as the format calls it."""
    if not name.startswith("layers."):
        return names[name]
    _, number, last = name.split(".")
    return names[last].format(number)


def pieces(shape: Shape, names: Names, tensors: Tensors, where: str) -> tuple[tuple[str, ...], tuple[Piece, ...]]:
    """The files and the place of every tensor in them; raises NotACheckpoint where one is missing or has another shape."""
    files: dict[str, int] = {}
    found: list[Piece] = []
    for name, size in needed(shape):
        theirs = called(name, names)
        stored = tensors.get(theirs)
        if stored is None:
            raise NotACheckpoint(f"{where} has no tensor {theirs}, which a model of this shape needs")
        if stored.shape != size:
            raise NotACheckpoint(f"{where}: {theirs} has shape {by(stored.shape)}; the model's numbers ask for {by(size)}")
        found.append(piece(name, stored, files))
    return tuple(files), tuple(found)


def piece(name: str, stored: Stored, files: dict[str, int], *, dim: int | None = None) -> Piece:
    """A ``plan.Piece`` for a stored tensor; its file is added to ``files`` where it is new."""
    number = files.setdefault(os.path.abspath(stored.file), len(files))
    return Piece(name, number, stored.offset, stored.shape, stored.kind, stored.size, dim)


def commonest(found: Sequence[Piece]) -> str:
    """The commonest kind of the matrices; empty where there are none."""
    kinds = Counter(one.kind for one in found if len(one.shape) > 1)
    return kinds.most_common(1)[0][0] if kinds else ""


def by(shape: Sequence[int]) -> str:
    """A shape in words: 4096 x 11008."""
    return " x ".join(str(size) for size in shape) or "of a single number"


def numbers(shape: Sequence[int]) -> int:
    """How many numbers a tensor has."""
    return math.prod(shape)


def in_line(tensors: Tensors, begin: int, where: str, *, alignment: int = 1) -> int:
    """Where the last tensor ends, each beginning where the one before it ends (the next multiple of ``alignment`` from it).

    Raises NotACheckpoint where two lie on one another or bytes between them belong to none: neither format allows it, and what
    counts a stretch twice can make a terabyte of a kilobyte.
    """
    end, before = begin, "the header"
    for name, stored in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].size)):
        expected = begin + -(-(end - begin) // alignment) * alignment
        if stored.offset != expected:
            how = (
                "lie on one another" if stored.offset < expected else f"have {stored.offset - expected} bytes of none between them"
            )
            raise NotACheckpoint(f"{where} is damaged: {shown(before)} and {shown(name)} {how}")
        end, before = stored.offset + stored.size, name
    return end
