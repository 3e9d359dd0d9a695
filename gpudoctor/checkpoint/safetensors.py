"""The header of a safetensors file: which tensors it holds, and where.

Layout (https://github.com/huggingface/safetensors#format): the header's length as a little-endian 64-bit number, the header in
JSON, the data. Offsets count from the end of the header.
"""

from __future__ import annotations

import struct
from typing import Any

from gpudoctor.checkpoint.bounded import File, json_of, opened
from gpudoctor.checkpoint.found import NotACheckpoint, Stored
from gpudoctor.checkpoint.layout import in_line, numbers

_LIMIT = 32 << 20  # bytes of header: a quarter of a million tensors; a model of 405 billion numbers has 1138
_LONGEST_KIND = 20
_BITS = {
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
    "F32": 32,
    "I32": 32,
    "U32": 32,
    "F16": 16,
    "BF16": 16,
    "I16": 16,
    "U16": 16,
    "I8": 8,
    "U8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "BOOL": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
"""Of each number; a kind that is not here may be of any size, but a number takes a bit at least."""


def read(path: str) -> dict[str, Stored]:
    """Every tensor of the file by its name; raises NotACheckpoint."""
    with opened(path) as file:
        (length,) = struct.unpack("<Q", file.at(0, 8))
        if length > _LIMIT and file.size > _LIMIT:
            raise NotACheckpoint(f"{path} is not a safetensors file: its header would have {length} bytes")
        header = json_of(file.at(8, length), f"the header of {path}")
        found = {name: _stored(file, name, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"}
        end = in_line(found, 8 + length, path)
        if end < file.size:
            raise NotACheckpoint(f"{path} is damaged: {file.size - end} bytes after its last tensor belong to none")
        return found


def _stored(file: File, name: str, entry: Any, base: int) -> Stored:  # noqa: ANN401 - JSON
    try:
        kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise NotACheckpoint(f"{file.path}: the header does not say where {name} is") from None
    counts = (*shape, begin, end)
    named = isinstance(kind, str) and 0 < len(kind) <= _LONGEST_KIND and kind.isprintable()
    if not named or len(shape) > 8 or not all(type(count) is int and 0 <= count < 1 << 63 for count in counts):
        raise NotACheckpoint(f"{file.path}: the header does not say where {name} is")
    size, bits = end - begin, numbers(shape) * _BITS.get(kind, 1)
    if size < 0 or (bits != 8 * size if kind in _BITS else bits > 8 * size):
        raise NotACheckpoint(f"{file.path}: {name} is said to have {size} bytes, which is not what its shape and {kind} make")
    if base + end > file.size:
        raise file.short(base + end)
    return Stored(file.path, base + begin, shape, kind, size)
