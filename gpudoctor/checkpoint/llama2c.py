"""A .bin file of llama2.c: a header of seven numbers and tensors in a fixed order, float32 or, in version 2, mostly int8.

Layouts: export.py of https://github.com/karpathy/llama2.c (``legacy_export`` is version 0, which run.c reads; ``version1_export``;
``version2_export``, which runq.c reads and whose matrices are each int8 numbers and then a float32 scale for each group).
The headers do not say the norm's epsilon or the rotary base: run.c has 1e-5 and 10000 built in.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gpudoctor.checkpoint import downloads, tokenizers
from gpudoctor.checkpoint.bounded import File, opened
from gpudoctor.checkpoint.found import Checkpoint, NotACheckpoint, Stored
from gpudoctor.checkpoint.layout import commonest, doubt, needed, numbers, piece
from gpudoctor.smoke.plan import Shape

MAGIC = b"24ka"  # 0x616b3432, "ak42", as a little-endian number
ANGLES = "angles"  # cosines and sines that version 0 keeps and nobody reads any more
_ORDERS = {
    0: ("embedding", "attention_norm", "query", "key", "value", "out", "ffn_norm", "gate", "down", "up", "norm", ANGLES, "head"),
    1: ("attention_norm", "ffn_norm", "norm", "embedding", "query", "key", "value", "out", "gate", "down", "up", "head"),
    2: ("attention_norm", "ffn_norm", "norm", "embedding", "query", "key", "value", "out", "gate", "down", "up", "head"),
}
"""The name of a layer's tensor stands for that of every layer, one after the other."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the file says of itself."""

    shape: Shape
    version: int
    start: int
    """Where the tensors begin."""
    group: int
    """Weights that share a scale; 0 where they are float32."""


def read(path: str) -> Checkpoint:
    """The checkpoint in the file; raises NotACheckpoint."""
    with opened(path) as file:
        head = header(file)
        if head.group:
            raise NotACheckpoint(f"{path} is a llama2.c file of version 2 (int8): export it with --version 0 or 1, in float32")
        shape, stored = head.shape, tensors(file, head)
    files: dict[str, int] = {}
    found = tuple(piece(name, one, files) for name, one in stored.items() if name != ANGLES)
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


def header(file: File) -> Header:
    """The file's header; raises NotACheckpoint where it cannot be one."""
    version, at = 0, 0
    if file.size >= 8 and file.at(0, 4) == MAGIC:
        (version,), at = struct.unpack("<i", file.at(4, 4)), 8
        if version not in _ORDERS:
            raise NotACheckpoint(f"{file.path} is a llama2.c file of version {version}; 0, 1 and 2 are known")
    dim, hidden, layers, heads, kv_heads, vocab, length = struct.unpack("<7i", file.at(at, 28))
    if min(dim, hidden, layers, heads, kv_heads, length) < 1 or dim % heads or vocab == 0:
        raise NotACheckpoint(
            f"{file.path} is no checkpoint: it is neither GGUF nor .pth, and its first numbers are not those of llama2.c"
        )
    tied, group = vocab > 0 if version == 0 else file.at(36, 1) != b"\0", 0
    if version == 2:
        (group,) = struct.unpack("<i", file.at(37, 4))
        if group < 1 or dim % group or hidden % group:
            raise NotACheckpoint(f"{file.path} is damaged: its rows are no whole groups of {group} numbers")
    head_dim = dim // heads
    shape = Shape(dim, layers, heads, kv_heads, head_dim, hidden, abs(vocab), length, norm_eps=1e-5, rope_theta=10000.0, tied=tied)
    return Header(doubt(shape, file.path), version, 256 if version else 28, group)


def tensors(file: File, head: Header) -> dict[str, Stored]:
    """Every tensor by the name that ``plan.Piece`` gives it, with its scales as NAME.scales; raises NotACheckpoint."""
    sizes = dict(needed(head.shape))
    sizes[ANGLES] = (head.shape.max_seq_len, head.shape.head_dim)
    found: dict[str, Stored] = {}
    start = head.start
    for name in _in_order(head.shape, head.version):
        count, small = numbers(sizes[name]), head.group and len(sizes[name]) > 1
        found[name] = Stored(file.path, start, sizes[name], "I8" if small else "F32", count if small else 4 * count)
        start += found[name].size
        if small:
            found[f"{name}.scales"] = Stored(file.path, start, (count // head.group,), "F32", 4 * count // head.group)
            start += 4 * count // head.group
    if start > file.size:
        raise file.short(start)
    if start < file.size:
        raise NotACheckpoint(f"{file.path} is no llama2.c file: as one it would have {start} bytes, and it has {file.size}")
    return found


def _in_order(shape: Shape, version: int) -> Iterator[str]:
    for name in _ORDERS[version]:
        if name in {"embedding", "norm", ANGLES}:
            yield name
        elif name != "head":
            yield from (f"layers.{number}.{name}" for number in range(shape.layers))
        elif not shape.tied:
            yield name
