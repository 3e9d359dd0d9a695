"""What a loader reads of a 64-bit ELF file, and what can be found in its sections, without loading it.

Sources: the System V ABI ("Object Files", "Dynamic Section") for the file, NVIDIA's ``fatbinary_section.h`` and the layout that
cuobjdump prints for the device code inside. Every read is a bounded ``pread``: a library of a gigabyte costs a few kilobytes,
and a file that shrinks meanwhile gives NotElf (a mapped one would kill the process with SIGBUS).
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 10, 14, 15, 29
_LIMIT = 1 << 20  # no program, section or dynamic table of a sound library comes near a megabyte
_NAME_LIMIT = 1 << 16
_CHUNK = 1 << 20
_SHT_NOBITS = 8
_FATBIN_MAGIC = 0xBA55ED50
_PTX, _CUBIN = 1, 2


class NotElf(ValueError):
    """The file cannot be read as a 64-bit little-endian ELF file; the message says why."""


class OtherMachine(NotElf):
    """A sound ELF file for another word size or machine: a loader that searches passes it over."""


@dataclass(frozen=True, slots=True)
class Dynamic:
    """The dynamic section: what the loader needs to know of a file before it maps it."""

    machine: int
    soname: str | None
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Where a section lies in the file, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Image:
    """An open ELF file."""

    descriptor: int
    size: int
    machine: int
    _loads: tuple[tuple[int, int, int], ...]
    _dynamic: tuple[int, int] | None
    _sections: tuple[int, int, int, int]

    def dynamic(self) -> Dynamic:
        """The dynamic section; empty for a file that has none. Raises NotElf."""
        entries = self._entries()
        offset = self._file_offset(next((value for tag, value in entries if tag == _DT_STRTAB), -1))
        limit = next((value for tag, value in entries if tag == _DT_STRSZ), 0)

        def strings(wanted: int) -> tuple[str, ...]:
            return tuple(self._string(offset, at, limit) for tag, at in entries if tag == wanted)

        return Dynamic(
            machine=self.machine,
            soname=next(iter(strings(_DT_SONAME)), None),
            needed=strings(_DT_NEEDED),
            rpath=tuple(part for text in strings(_DT_RPATH) for part in text.split(":")),
            runpath=tuple(part for text in strings(_DT_RUNPATH) for part in text.split(":")),
        )

    def section(self, name: str) -> Section | None:
        """The section of that name; None when there is none or the file has been stripped of its section table."""
        table, width, count, names_at = self._sections
        if count == 0 or width < 64 or names_at >= count:
            return None
        data = _read(self.descriptor, table, width * count)
        whole = len(data) // width  # fewer than the header says where the file is cut short
        if names_at >= whole:
            return None
        names = _section(data, names_at * width)
        wanted = name.encode()
        for index in range(whole):
            at = struct.unpack_from("<I", data, index * width)[0]
            if at < names.size and self._starts(names.offset + at, wanted + b"\0"):
                return _section(data, index * width)
        return None

    def text_with(self, section: Section, needle: bytes) -> str | None:
        """The first NUL-terminated string of the section that contains ``needle``; None when none does."""
        reach = 4096  # the longest string worth having, to either side
        end = min(section.offset + section.size, self.size)
        for start in range(section.offset, end, _CHUNK):
            data = _read(self.descriptor, start, min(_CHUNK + len(needle) - 1, end - start))
            found = data.find(needle)
            if found >= 0:
                first = max(section.offset, start + found - reach)
                around = _read(self.descriptor, first, min(2 * reach, end - first))
                at = start + found - first
                return around[around.rfind(b"\0", 0, at) + 1 :].split(b"\0", 1)[0].decode("utf-8", "replace")
        return None

    def contains(self, section: Section, needle: bytes) -> bool:
        """Whether the bytes occur in the section."""
        return self.text_with(section, needle) is not None

    def whole(self) -> bool:
        """Whether every segment that the loader would map is inside the file: False for a copy that was cut short."""
        return all(offset + size <= self.size for _, offset, size in self._loads)

    def device_code(self, *, most: int = 400) -> tuple[Counter[tuple[int, int]], int]:
        """(kind, architecture) of the device code in .nv_fatbin, each counted once per fat binary; how many of those.

        Kind 1 is PTX, 2 machine code. It looks at no more than ``most`` fat binaries.
        """
        seen: Counter[tuple[int, int]] = Counter()
        section = self.section(".nv_fatbin")
        if section is None:
            return seen, 0
        offset, end, binaries = section.offset, min(section.offset + section.size, self.size), 0
        while offset + 16 <= end and binaries < most:
            magic, _, header, size = struct.unpack("<IHHQ", _exactly(self.descriptor, offset, 16))
            if magic != _FATBIN_MAGIC or size > end - offset:
                break
            seen.update(self._entries_of_fatbin(offset + header, min(offset + header + size, end)))
            binaries += 1
            offset += -(-(header + size) // 8) * 8  # the next one begins at a multiple of eight
        return seen, binaries

    def _entries_of_fatbin(self, offset: int, end: int) -> set[tuple[int, int]]:
        kinds: set[tuple[int, int]] = set()
        while offset + 64 <= end:
            entry = _exactly(self.descriptor, offset, 64)
            kind, _, header, size = struct.unpack_from("<HHIQ", entry)
            if kind not in (_PTX, _CUBIN) or header < 32:
                break
            kinds.add((kind, struct.unpack_from("<I", entry, 28)[0]))
            offset += header + size
        return kinds

    def _entries(self) -> tuple[tuple[int, int], ...]:
        if self._dynamic is None:
            return ()
        offset, size = self._dynamic
        data = _read(self.descriptor, offset, min(size, _LIMIT))
        entries: list[tuple[int, int]] = []
        for tag, value in struct.iter_unpack("<qQ", data[: len(data) // 16 * 16]):
            if tag == 0:
                break
            entries.append((tag, value))
        return tuple(entries)

    def _file_offset(self, address: int) -> int:
        for virtual, offset, size in self._loads:
            if virtual <= address < virtual + size:
                return address - virtual + offset
        return -1

    def _string(self, table: int, at: int, limit: int) -> str:
        if table < 0 or at >= limit:
            raise NotElf("its dynamic section points outside its string table")
        data = _read(self.descriptor, table + at, min(_NAME_LIMIT, limit - at))
        text, end, _ = data.partition(b"\0")
        if not end:
            raise NotElf("a name in its dynamic section does not end")
        return text.decode("utf-8", "surrogateescape")

    def _starts(self, offset: int, wanted: bytes) -> bool:
        return _read(self.descriptor, offset, len(wanted)) == wanted


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Image]:
    """The ELF file at ``path``, open. Raises NotElf, also when it cannot be opened or read."""
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise NotElf(f"cannot be opened: {_reason(error)}") from error
    try:
        yield _parse(descriptor)
    finally:
        os.close(descriptor)


def dynamic(path: str | Path) -> Dynamic:
    """The dynamic section of the file at ``path``. Raises NotElf."""
    with opened(path) as image:
        return image.dynamic()


def _parse(descriptor: int) -> Image:
    size = _size(descriptor)
    header = _read(descriptor, 0, 64)
    if len(header) < 64:
        raise NotElf("file too short")
    if header[:4] != b"\x7fELF":
        raise NotElf("invalid ELF header")
    if header[4] != 2 or header[5] != 1:
        raise OtherMachine("not a 64-bit little-endian file")
    machine, segments_at, sections_at = *struct.unpack_from("<H", header, 18), *struct.unpack_from("<QQ", header, 32)
    segment_width, segments, section_width, sections, names = struct.unpack_from("<HHHHH", header, 54)
    if segments and segment_width < 56:
        raise NotElf("its program headers are too small")
    loads: list[tuple[int, int, int]] = []
    dynamic_at: tuple[int, int] | None = None
    table = _exactly(descriptor, segments_at, segment_width * segments)
    for index in range(segments):
        kind, _, offset, virtual, _, file_size = struct.unpack_from("<IIQQQQ", table, index * segment_width)
        if kind == _PT_LOAD:
            loads.append((virtual, offset, file_size))
        elif kind == _PT_DYNAMIC:
            dynamic_at = (offset, file_size)
    return Image(descriptor, size, machine, tuple(loads), dynamic_at, (sections_at, section_width, sections, names))


def _section(table: bytes, at: int) -> Section:
    if at + 40 > len(table):
        raise NotElf("its section table is cut short")
    kind, offset, size = struct.unpack_from("<I", table, at + 4)[0], *struct.unpack_from("<QQ", table, at + 24)
    return Section(offset, 0 if kind == _SHT_NOBITS else size)


def _exactly(descriptor: int, offset: int, size: int) -> bytes:
    data = _read(descriptor, offset, size)
    if len(data) < size:
        raise NotElf("file too short")
    return data


def _read(descriptor: int, offset: int, size: int) -> bytes:
    try:
        return os.pread(descriptor, min(size, 2 * _CHUNK + _LIMIT), offset) if size > 0 else b""
    except (OSError, OverflowError, ValueError) as error:
        raise NotElf(f"cannot be read: {_reason(error)}") from error


def _size(descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_size
    except OSError as error:
        raise NotElf(f"cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
