"""Writes ELF files of a few hundred bytes that hold what a loader reads: headers, a dynamic section, and named sections."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence

MACHINES = {"x86_64": 62, "aarch64": 183}


def small_elf(
    *,
    soname: str | None = None,
    needed: Sequence[str] = (),
    rpath: str | None = None,
    runpath: str | None = None,
    sections: Mapping[str, bytes] | None = None,
    machine: int | None = None,
) -> bytes:
    """A 64-bit little-endian shared object; ``sections`` such as {".rodata": b"..."} are added as they are."""
    names = bytearray(b"\0")

    def name(text: str) -> int:
        names.extend(text.encode() + b"\0")
        return len(names) - len(text.encode()) - 1

    tags = [(1, name(library)) for library in needed]
    tags += [(tag, name(text)) for tag, text in ((14, soname), (15, rpath), (29, runpath)) if text is not None]
    extra = dict(sections or {})
    names += extra.pop(".dynstr", b"")
    body: list[tuple[str, int, int, bytes]] = []  # name, type, offset, data
    offset = 64 + 2 * 56
    for section, kind, data in ((".dynstr", 3, bytes(names)), *((key, 1, value) for key, value in extra.items())):
        offset = -(-offset // 16) * 16
        body.append((section, kind, offset, data))
        offset += len(data)
    offset = -(-offset // 16) * 16
    entries = [*tags, (5, body[0][2]), (10, len(names)), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    body.append((".dynamic", 6, offset, dynamic))
    return _file(body, len(dynamic), machine if machine is not None else MACHINES.get(os.uname().machine, 62))


def _file(body: list[tuple[str, int, int, bytes]], dynamic_size: int, machine: int) -> bytes:
    titles = b"\0" + b"".join(section.encode() + b"\0" for section, *_ in body) + b".shstrtab\0"
    titles_at = body[-1][2] + len(body[-1][3])
    table_at = -(-(titles_at + len(titles)) // 16) * 16
    headers = [bytes(64)]
    for section, kind, offset, data in [*body, (".shstrtab", 3, titles_at, titles)]:
        at = titles.index(b"\0" + section.encode() + b"\0") + 1
        link = 1 if section == ".dynamic" else 0
        width = 16 if section == ".dynamic" else 0
        headers.append(struct.pack("<IIQQQQIIQQ", at, kind, 2, offset, offset, len(data), link, 0, 1, width))
    size = table_at + 64 * len(headers)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, table_at, 0, 64, 56, 2, 64, len(headers), len(headers) - 1)
    segments = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, size, size, 4096)
    segments += struct.pack("<IIQQQQQQ", 2, 4, body[-1][2], body[-1][2], body[-1][2], dynamic_size, dynamic_size, 8)
    whole = bytearray(size)
    for at, data in [(0, header), (64, segments), (titles_at, titles), (table_at, b"".join(headers))]:
        whole[at : at + len(data)] = data
    for _, _, at, data in body:
        whole[at : at + len(data)] = data
    return bytes(whole)


def fat_binary(entries: Sequence[tuple[int, int]]) -> bytes:
    """One fat binary of .nv_fatbin: (kind, architecture) each, kind 1 PTX and 2 machine code, with eight bytes of payload."""
    parts = b"".join(_device_code(kind, architecture) for kind, architecture in entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(parts)) + parts


def _device_code(kind: int, architecture: int) -> bytes:
    return struct.pack("<HHIQIIHHI", kind, 0x101, 64, 8, 0, 0, 0, 0, architecture).ljust(64, b"\0") + bytes(8)
