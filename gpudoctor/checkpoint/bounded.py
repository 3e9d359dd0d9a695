"""Reads of bounded size from files that may be anything: cut short, a pipe, a pointer to the real one, gigabytes long.

Every read is a ``pread``: a file that shrinks meanwhile gives NotACheckpoint (a mapped one would end the process with SIGBUS).
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpudoctor.checkpoint.found import NotACheckpoint

_LFS = b"version https://git-lfs.github.com/spec/"  # https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: below 1024 bytes
_JSON_LIMIT = 32 << 20  # the index of a model with a hundred thousand tensors is 10 MiB
_MOST_VALUES = 1 << 19  # of one JSON text: a tensor in a header has ten, in an index one; each takes up to 200 bytes of memory
_DIGITS = 25  # more than any size has; what is longer takes quadratic time to convert


@dataclass(frozen=True, slots=True)
class File:
    """A file open for reading."""

    path: str
    descriptor: int
    size: int

    def at(self, offset: int, count: int) -> bytes:
        """Exactly ``count`` bytes from ``offset``; raises NotACheckpoint where the file ends before."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise self.short(offset + count)
        data = b""
        while len(data) < count:
            more = os.pread(self.descriptor, count - len(data), offset + len(data))
            if not more:
                raise self.short(offset + count)
            data += more
        return data

    def short(self, expected: int) -> NotACheckpoint:
        """What to raise when the file has fewer bytes than its header speaks of."""
        sizes = (
            f"it has {self.size} bytes, and its header speaks of {expected}" if expected < 1 << 63 else f"it has {self.size} bytes"
        )
        return NotACheckpoint(f"{self.path} is cut short or damaged: {sizes}. If it was downloaded, the download is not complete.")


@contextlib.contextmanager
def opened(path: str) -> Iterator[File]:
    """The regular file ``path``; raises NotACheckpoint for what cannot be read, is no file, or only points to one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe must not wait for its writer
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such name"
        raise NotACheckpoint(f"{path} cannot be read: {reason}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotACheckpoint(f"{path} is not a regular file")
        if os.pread(descriptor, len(_LFS), 0) == _LFS:
            raise NotACheckpoint(f"{path} is a git-lfs pointer, not the file itself: run `git lfs pull` in that folder")
        yield File(path, descriptor, status.st_size)
    except OSError as error:
        raise NotACheckpoint(f"{path} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)


def content(path: str, limit: int) -> bytes:
    """The whole file; raises NotACheckpoint where it is larger than ``limit`` bytes."""
    with opened(path) as file:
        if file.size > limit:
            raise NotACheckpoint(f"{path} has {file.size} bytes; such a file has at most {limit}")
        return file.at(0, file.size)


def json_object(path: str) -> dict[str, Any]:
    """The JSON object in a file; raises NotACheckpoint."""
    data = content(path, _JSON_LIMIT)
    if not data:
        raise NotACheckpoint(f"{path} is empty; the download is not complete")
    return json_of(data, path)


def json_of(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in ``data``; ``where`` is named in NotACheckpoint."""
    if sum(map(data.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise NotACheckpoint(f"{where} is not the JSON that was expected: it has more than {_MOST_VALUES} values")
    try:
        value = json.loads(data.decode(), parse_int=_number, parse_constant=_refuse, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise NotACheckpoint(f"{where} is not the JSON that was expected: {reason}") from None
    if not isinstance(value, dict):
        raise NotACheckpoint(f"{where} is not the JSON object that was expected")
    return value


def _number(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return named
