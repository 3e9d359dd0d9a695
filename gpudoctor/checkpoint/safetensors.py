"""The header of a safetensors file: which tensors it holds, and where.

Layout (https://github.com/huggingface/safetensors#format): the header's length as a little-endian 64-bit number, the header in
JSON, the data. Offsets count from the end of the header.
"""

from __future__ import annotations

import struct
from typing import Any

from gpudoctor.checkpoint.bounded import File, json_of, opened
from gpudoctor.checkpoint.found import NotACheckpoint, Stored
from gpudoctor.checkpoint.layout import numbers

_LIMIT = 32 << 20  # bytes of header: a quarter of a million tensors; a model of 405 billion numbers has 1138
_WIDTHS = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


def read(path: str) -> dict[str, Stored]:
    """Every tensor of the file by its name; raises NotACheckpoint."""
    with opened(path) as file:
        (length,) = struct.unpack("<Q", file.at(0, 8))
        if length > _LIMIT and file.size > _LIMIT:
            raise NotACheckpoint(f"{path} is not a safetensors file: its header would have {length} bytes")
        header = json_of(file.at(8, length), f"the header of {path}")
        return {name: _stored(file, name, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"}


def _stored(file: File, name: str, entry: Any, base: int) -> Stored:  # noqa: ANN401 - JSON
    try:
        kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise NotACheckpoint(f"{file.path}: the header does not say where {name} is") from None
    counts = (*shape, begin, end)
    if not isinstance(kind, str) or len(shape) > 8 or not all(type(count) is int and 0 <= count < 1 << 63 for count in counts):
        raise NotACheckpoint(f"{file.path}: the header does not say where {name} is")
    size = end - begin
    if size < 0 or (kind in _WIDTHS and size != numbers(shape) * _WIDTHS[kind]):
        raise NotACheckpoint(f"{file.path}: {name} is said to have {size} bytes, which is not what its shape and {kind} make")
    if base + end > file.size:
        raise file.short(base + end)
    return Stored(file.path, base + begin, shape, kind, size)
