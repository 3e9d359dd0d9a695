"""The container of a GGUF file: its metadata, and each tensor's kind, shape and place.

Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version, counts; the metadata, each a key, a type and a
value; per tensor a name, sizes (the fastest first), a kind and an offset; then, aligned, the data.
"""

from __future__ import annotations

import struct
from typing import Any

from gpudoctor.checkpoint.bounded import File, opened
from gpudoctor.checkpoint.found import NotACheckpoint, Stored
from gpudoctor.checkpoint.layout import in_line, numbers

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_FLOAT32, _STRING, _ARRAY = 6, 8, 9
_MOST_TENSORS, _MOST_KEYS = 1 << 17, 1 << 14  # a model of 61 layers and 256 experts has a thousand tensors; any has a hundred keys
_MOST_TEXT = 4 << 20  # bytes of one string; with a single emoji in it, it takes four times as many in memory
_MOST_ITEMS = 1 << 21  # elements of all arrays: the largest vocabularies have 262144 tokens and twice as many merges
_LIMIT = 64 << 20  # bytes of header: a vocabulary of 262144 tokens takes 16 MiB
_CHUNK = 1 << 20
_LARGEST = 3.4e38  # of a float32

BLOCKS = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""ggml's number of a kind -> its name, how many numbers a block has, and how many bytes (ggml/src/ggml-common.h)."""
INTEGERS = {24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8)}
"""Likewise, for tables that some models keep beside their weights."""
_KNOWN = {**BLOCKS, **INTEGERS}


def read(path: str) -> tuple[dict[str, Any], dict[str, Stored]]:
    """The metadata (arrays as tuples) and the tensors by their names; raises NotACheckpoint."""
    with opened(path) as file:
        cursor = _Cursor(file)
        if cursor.take(4) != MAGIC:
            raise NotACheckpoint(f"{path} is not a GGUF file")
        version, tensors, entries = cursor.unpack("IQQ")
        if version not in _VERSIONS:
            turned = " It was written for a big-endian machine." if version & 0xFFFF == 0 else ""
            raise NotACheckpoint(f"{path} is of version {version} of GGUF; 2 and 3 are read.{turned}")
        if tensors > _MOST_TENSORS or entries > _MOST_KEYS:
            raise NotACheckpoint(f"{path} is damaged: its header speaks of {tensors} tensors and {entries} keys")
        values = {cursor.string(): cursor.value() for _ in range(entries)}
        rows = [cursor.row() for _ in range(tensors)]
        if len(values) < entries or len({name for name, *_ in rows}) < tensors:
            raise NotACheckpoint(f"{path} is damaged: a name stands twice in its header")
        alignment = values.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 1 << 20:
            raise NotACheckpoint(f"{path} is damaged: its alignment is no number of bytes")
        base = -(-cursor.position // alignment) * alignment
        found = {name: _stored(file, name, shape, kind, base + offset) for name, shape, kind, offset in rows}
        in_line(found, base, path, alignment=alignment)
        return values, found


def _stored(file: File, name: str, shape: tuple[int, ...], number: int, offset: int) -> Stored:
    kind, block, width = _KNOWN.get(number, (f"kind {number}", 1, 0))
    if width == 0:
        raise NotACheckpoint(f"{file.path}: {name} is of {kind}, which this version does not know")
    if shape[-1:] and shape[-1] % block:
        raise NotACheckpoint(f"{file.path}: rows of {name} have {shape[-1]} numbers, which are no whole blocks of {kind}")
    size = numbers(shape) // block * width
    if offset + size > file.size:
        raise file.short(offset + size)
    return Stored(file.path, offset, shape, kind, size)


def _shortest(number: float) -> float:
    """The number that was meant by a float32: 1e-05, where widening its bits gives 9.999999747378752e-06."""
    for digits in range(1, 10):
        short = float(f"{number:.{digits}g}")
        if abs(short) < _LARGEST and struct.pack("<f", short) == struct.pack("<f", number):
            return short
    return number


class _Cursor:
    """Reads on from the file's beginning, a megabyte at a time."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.buffer, self.start, self.at = b"", 0, 0  # the buffer begins at ``start`` in the file; ``at`` counts in the buffer
        self.items = 0

    @property
    def position(self) -> int:
        """How far the file has been read."""
        return self.start + self.at

    def need(self, count: int) -> None:
        """See to it that the next ``count`` bytes are in the buffer; raises NotACheckpoint."""
        if self.at + count <= len(self.buffer):
            return
        position = self.position
        if position + count > min(self.file.size, _LIMIT):
            raise self.file.short(position + count) if position + count > self.file.size else self.damaged("its header is too long")
        self.buffer = self.file.at(position, min(max(count, _CHUNK), self.file.size - position))
        self.start, self.at = position, 0

    def damaged(self, reason: str) -> NotACheckpoint:
        """What to raise when the header cannot be meant."""
        return NotACheckpoint(f"{self.file.path} is damaged: {reason}")

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        self.need(count)
        self.at += count
        return self.buffer[self.at - count : self.at]

    def believe(self, size: int) -> None:
        """Raises NotACheckpoint for a string that no header has."""
        if _MOST_TEXT < size <= self.file.size:
            raise self.damaged(f"a string of {size} bytes")

    def unpack(self, form: str) -> tuple[Any, ...]:
        """The next numbers, in ``struct``'s notation."""
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def string(self) -> str:
        """The next string: its length, then UTF-8."""
        (size,) = self.unpack("Q")
        self.believe(size)
        return self.take(size).decode("utf-8", "replace")

    def strings(self, count: int) -> tuple[str, ...]:
        """The next ``count`` strings; a vocabulary has hundreds of thousands, so this one is written for speed."""
        found: list[str] = []
        length = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if self.at + 8 > len(self.buffer):
                self.need(8)
            (size,) = length(self.buffer, self.at)
            if self.at + 8 + size > len(self.buffer):
                self.believe(size)
                self.need(8 + size)
            self.at += 8 + size
            found.append(self.buffer[self.at - size : self.at].decode("utf-8", "replace"))
        return tuple(found)

    def value(self) -> Any:  # noqa: ANN401 - as many types as the format has
        """The next value, after its type."""
        (kind,) = self.unpack("I")
        if kind in _NUMBERS:
            (number,) = self.unpack(_NUMBERS[kind])
            return _shortest(number) if kind == _FLOAT32 else number
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise self.damaged(f"a value of type {kind}")
        inner, count = self.unpack("IQ")
        self.items += count
        if self.items > _MOST_ITEMS:
            raise self.damaged(f"an array of {count} elements")
        if inner == _STRING:
            return self.strings(count)
        if inner not in _NUMBERS:
            raise self.damaged(f"an array of type {inner}")
        return self.unpack(f"{count}{_NUMBERS[inner]}")

    def row(self) -> tuple[str, tuple[int, ...], int, int]:
        """The next tensor: name, shape with the fastest dimension last, kind, offset."""
        name = self.string()
        (count,) = self.unpack("I")
        if not 0 < count <= 4:
            raise self.damaged("a tensor of no dimension, or of more than four")
        *sizes, kind, offset = self.unpack(f"{count}QIQ")
        return name, tuple(reversed(sizes)), kind, offset
