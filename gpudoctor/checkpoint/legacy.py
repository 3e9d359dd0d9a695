"""What ``torch.save`` wrote before version 1.6: pickles one after the other, then the numbers of each storage.

The pickles are a magic number, the protocol's number, the sizes of C's types, the state dict, and the keys of the storages in
the order in which they follow; each storage begins with how many numbers it has (``_legacy_save`` in torch/serialization.py).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gpudoctor.checkpoint import pickles
from gpudoctor.checkpoint.bounded import File
from gpudoctor.checkpoint.found import NotACheckpoint

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the number 0x1950a86a20f9469cfc6c, pickled
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of a number in a storage."""
_PROTOCOL = 1001
_LIMIT = 4 << 20  # bytes of all pickles together: 723 tensors have 60 KiB


@dataclass(frozen=True, slots=True)
class Room:
    """Where a storage is in the file, in bytes, and what to call it."""

    name: str
    start: int
    size: int


def begins(file: File) -> bool:
    """Whether the file is of this format."""
    return file.at(0, min(file.size, len(MAGIC))) == MAGIC


def archive(file: File) -> tuple[dict[str, pickles.Tensor], dict[str, Room]]:
    """The tensors of the state dict, and where each storage is; raises NotACheckpoint. Nothing in the file is run."""
    walked = pickles.values(file.at(0, min(file.size, _LIMIT)), file.path, 5)
    _, protocol, system, state, keys = walked.values
    if protocol != _PROTOCOL or not isinstance(system, dict) or not isinstance(keys, list):
        raise NotACheckpoint(f"{file.path} is damaged: it begins like a file of PyTorch before 1.6, and is none")
    if system.get("little_endian") is not True:
        raise NotACheckpoint(f"{file.path} was written on a big-endian machine; its numbers would have to be turned round")
    found, rooms, at = pickles.state(state, file.path), dict[str, Room](), walked.end
    for key in keys:
        kind = walked.storages.get(key) if isinstance(key, str) else None
        if kind is None or key in rooms:
            raise NotACheckpoint(f"{file.path} is damaged: it lists storages that its tensors do not have")
        (count,) = struct.unpack("<q", file.at(at, 8))
        if not 0 <= count <= (file.size - at - 8) // WIDTHS[kind]:
            raise file.short(at + 8 + max(0, count) * WIDTHS[kind])
        rooms[key] = Room(f"storage {key[:40]}", at + 8, count * WIDTHS[kind])
        at += 8 + count * WIDTHS[kind]
    absent = [name for name, tensor in found.items() if tensor.storage.key not in rooms]
    if absent:
        raise NotACheckpoint(f"{file.path} is damaged: it does not hold {absent[0]}")
    return found, rooms
