"""Takes in a text of any length, from a file or a pipe, in bounded memory: of one that is too long both ends are kept."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

HEAD = 1 << 20
TAIL = 3 << 20
_CHUNK = 1 << 18


class Stream(Protocol):
    """Whatever gives bytes, piece by piece, and none at its end."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Taken:
    """A text; ``cut`` says that its middle was left out."""

    text: str
    cut: bool


def take(stream: Stream) -> Taken:
    """Read the stream to its end and keep its first MiB and its last three."""
    head, tail, kept, cut = bytearray(), deque[bytes](), 0, False
    while chunk := stream.read(_CHUNK):
        room = HEAD - len(head)
        head += chunk[:room]
        rest = chunk[max(room, 0) :]
        if rest:
            tail.append(rest)
            kept += len(rest)
        while kept - (len(tail[0]) if tail else 0) >= TAIL:
            kept -= len(tail.popleft())
            cut = True
    middle = b"\n" if cut else b""
    return Taken(_decoded(bytes(head) + middle + b"".join(tail)), cut)


def _decoded(data: bytes) -> str:
    """UTF-8, or what Windows writes when a shell's output goes to a file (UTF-16 with its mark)."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace").replace("\0", "")
    return data.decode("utf-8", "replace").replace("\0", "")
