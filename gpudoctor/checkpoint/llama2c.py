"""A .bin file of llama2.c: a header of seven numbers and float32 tensors in a fixed order.

Layouts: export.py of https://github.com/karpathy/llama2.c (``legacy_export`` is version 0, which run.c reads; ``version1_export``).
The headers do not say the norm's epsilon or the rotary base: run.c has 1e-5 and 10000 built in.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from gpudoctor.checkpoint import downloads, tokenizers
from gpudoctor.checkpoint.bounded import File, opened
from gpudoctor.checkpoint.found import Checkpoint, NotACheckpoint, Stored
from gpudoctor.checkpoint.layout import commonest, doubt, needed, numbers, piece
from gpudoctor.smoke.plan import Piece, Shape

MAGIC = b"24ka"  # 0x616b3432, "ak42", as a little-endian number
_ANGLES = "angles"  # cosines and sines that version 0 keeps and nobody reads any more
_ORDERS = {
    0: ("embedding", "attention_norm", "query", "key", "value", "out", "ffn_norm", "gate", "down", "up", "norm", _ANGLES, "head"),
    1: ("attention_norm", "ffn_norm", "norm", "embedding", "query", "key", "value", "out", "gate", "down", "up", "head"),
}
"""The name of a layer's tensor stands for that of every layer, one after the other."""


def read(path: str) -> Checkpoint:
    """The checkpoint in the file; raises NotACheckpoint."""
    with opened(path) as file:
        shape, version, start = _header(file)
        found, end = _pieces(shape, version, start, path)
        if end > file.size:
            raise file.short(end)
        if end < file.size:
            raise NotACheckpoint(f"{path} is no llama2.c file: as one it would have {end} bytes, and it has {file.size}")
    plan, why = tokenizers.llama2c(path, shape.vocab)
    return Checkpoint(
        path=path,
        name=downloads.model_name(path),
        format="llama2c",
        shape=shape,
        files=(os.path.abspath(path),),
        pieces=found,
        halves=False,
        foreign=None,
        tokenizer=plan,
        no_tokenizer=why,
        eos=(1, 2),  # run.c stops at 1, with which the next story would begin
        bos=1,
        dtype=commonest(found),
        size=sum(one.size for one in found),
    )


def _header(file: File) -> tuple[Shape, int, int]:
    """The shape, the version, and where the tensors begin."""
    version, at = 0, 0
    if file.size >= 8 and file.at(0, 4) == MAGIC:
        (version,), at = struct.unpack("<i", file.at(4, 4)), 8
        if version == 2:
            raise NotACheckpoint(f"{file.path} is a llama2.c file of version 2 (int8): export it with --version 0 or 1, in float32")
        if version not in _ORDERS:
            raise NotACheckpoint(f"{file.path} is a llama2.c file of version {version}; 0 and 1 are read")
    dim, hidden, layers, heads, kv_heads, vocab, length = struct.unpack("<7i", file.at(at, 28))
    if min(dim, hidden, layers, heads, kv_heads, length) < 1 or dim % heads or vocab == 0:
        raise NotACheckpoint(
            f"{file.path} is no checkpoint: it is neither GGUF nor .pth, and its first numbers are not those of llama2.c"
        )
    tied = vocab > 0 if version == 0 else file.at(36, 1) != b"\0"
    head_dim = dim // heads
    shape = Shape(dim, layers, heads, kv_heads, head_dim, hidden, abs(vocab), length, norm_eps=1e-5, rope_theta=10000.0, tied=tied)
    return doubt(shape, file.path), version, 256 if version else 28


def _pieces(shape: Shape, version: int, start: int, path: str) -> tuple[tuple[Piece, ...], int]:
    """The place of every tensor, and where the last one ends."""
    sizes = dict(needed(shape))
    sizes[_ANGLES] = (shape.max_seq_len, shape.head_dim)
    found: list[Piece] = []
    files: dict[str, int] = {}
    for name in _in_order(shape, version):
        size = 4 * numbers(sizes[name])
        if name != _ANGLES:
            found.append(piece(name, Stored(path, start, sizes[name], "F32", size), files))
        start += size
    return tuple(found), start


def _in_order(shape: Shape, version: int) -> Iterator[str]:
    for name in _ORDERS[version]:
        if name in {"embedding", "norm", _ANGLES}:
            yield name
        elif name != "head":
            yield from (f"layers.{number}.{name}" for number in range(shape.layers))
        elif not shape.tied:
            yield name
