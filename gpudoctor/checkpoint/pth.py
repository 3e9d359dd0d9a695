"""A .pth (or pytorch_model.bin) file: a zip archive of stored entries that ``torch.save`` wrote, and where its tensors lie in it.

Entries: ``<stem>/data.pkl`` is the pickled state dict, ``<stem>/data/<key>`` the numbers of one storage, ``<stem>/byteorder`` says
little or big. What is stored uncompressed can be mapped from the file as it stands.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gpudoctor.checkpoint import legacy, pickles
from gpudoctor.checkpoint.bounded import File, opened
from gpudoctor.checkpoint.found import NotACheckpoint, Stored
from gpudoctor.checkpoint.layout import numbers
from gpudoctor.checkpoint.legacy import WIDTHS, Room

if TYPE_CHECKING:
    from zipfile import ZipInfo

STORED = 0  # zip's number for what is not compressed
_LIMIT = 4 << 20  # bytes of directory or of pickle: 723 tensors have 90 and 60 KiB


def read(path: str) -> dict[str, Stored]:
    """Every tensor of the state dict by its name, each one stretch of the file; raises NotACheckpoint. Nothing in it is run."""
    with opened(path) as file:
        if legacy.begins(file):
            raise NotACheckpoint(
                f"{path} is in the format of PyTorch before 1.6, which is not read: load it there and save it again"
            )
        tensors, rooms = _archive(file)
        return {name: _stored(file, name, tensor, rooms[tensor.storage.key]) for name, tensor in tensors.items()}


def listed(path: str) -> dict[str, Stored]:
    """Every tensor by its name, to be counted, not mapped: also of the older format, and those whose rows lie apart.

    A place is where the tensor begins. Raises NotACheckpoint. Nothing in the file is run.
    """
    with opened(path) as file:
        tensors, rooms = legacy.archive(file) if legacy.begins(file) else _archive(file)
        found = {name: _counted(file, name, tensor, rooms[tensor.storage.key]) for name, tensor in tensors.items()}
    held: dict[str, set[tuple[int, int]]] = {}
    for name, stored in found.items():
        held.setdefault(tensors[name].storage.key, set()).add((stored.offset, stored.size))
    for key, places in held.items():
        if sum(size for _, size in places) > rooms[key].size:
            raise NotACheckpoint(f"{path}: tensors that are not the same lie on one another in {rooms[key].name}")
    return found


def _archive(file: File) -> tuple[dict[str, pickles.Tensor], dict[str, Room]]:
    """The tensors of a zip archive, and where it keeps each storage that they name."""
    entries = _entries(file)
    stem = _stem(file, entries)
    order = entries.get(f"{stem}/byteorder")
    if order is not None and file.at(_start(file, order), min(order.file_size, 16)) != b"little":
        raise NotACheckpoint(f"{file.path} was written on a big-endian machine; its numbers would have to be turned round")
    pickle = entries[f"{stem}/data.pkl"]
    if pickle.file_size > _LIMIT:
        raise NotACheckpoint(f"{file.path}: its pickle has {pickle.file_size} bytes; that of a state dict has at most {_LIMIT}")
    found = pickles.tensors(file.at(_start(file, pickle), pickle.file_size), file.path)
    rooms: dict[str, Room] = {}
    for name, tensor in found.items():
        key, entry = tensor.storage.key, f"{stem}/data/{tensor.storage.key}"
        if key not in rooms:
            if entry not in entries:
                raise NotACheckpoint(f"{file.path}: {name} should be in {entry}, which is not there")
            rooms[key] = Room(entry, _start(file, entries[entry]), entries[entry].file_size)
    _apart(file, rooms.values())
    return found, rooms


def _apart(file: File, rooms: Iterable[Room]) -> None:
    """Raises NotACheckpoint where two entries lie on one another: that is how a kilobyte is made to look like a terabyte."""
    end, before = 0, ""
    for room in sorted(rooms, key=lambda room: (room.start, room.size)):
        if room.start < end:
            raise NotACheckpoint(f"{file.path} is damaged: {before} and {room.name} lie on one another")
        end, before = room.start + room.size, room.name


class _Headers(io.RawIOBase):
    """The file as ``zipfile`` wants it, which may read no more than a directory."""

    def __init__(self, file: File) -> None:
        super().__init__()
        self.file, self.position = file, 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = (0, self.position, self.file.size)[whence] + offset
        if self.position < 0:
            raise ValueError("before the file's beginning")
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, count: int = -1) -> bytes:
        left = max(0, self.file.size - self.position)
        count = left if count < 0 else min(count, left)
        if count > _LIMIT:
            raise ValueError("a directory of more than four megabytes")
        data = self.file.at(self.position, count)
        self.position += count
        return data


def _entries(file: File) -> dict[str, ZipInfo]:
    import zipfile  # noqa: PLC0415 - safetensors and GGUF are read without it, and sooner

    try:
        with zipfile.ZipFile(_Headers(file)) as archive:
            return {entry.filename: entry for entry in archive.infolist()}
    # all of these are what zipfile raises for a damaged, encrypted or hostile directory
    except (zipfile.BadZipFile, struct.error, ValueError, OverflowError, NotImplementedError, RuntimeError) as error:
        if file.size and file.at(0, min(4, file.size)) == b"PK\x03\x04":
            raise NotACheckpoint(
                f"{file.path} is cut short or damaged: its directory, which stands at the end, cannot be read ({error}). "
                "If it was downloaded, the download is not complete."
            ) from None
        raise NotACheckpoint(f"{file.path} is not a file that torch.save wrote: it is no zip archive") from None


def _stem(file: File, entries: dict[str, ZipInfo]) -> str:
    stems = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(stems) != 1:
        raise NotACheckpoint(f"{file.path} is a zip archive, but not one that torch.save wrote: it has {len(stems)} data.pkl")
    return stems[0]


def _start(file: File, entry: ZipInfo) -> int:
    """Where the entry's bytes begin, in the file; they are as many as it says."""
    if entry.compress_type != STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
        raise NotACheckpoint(f"{file.path}: {entry.filename} is compressed; torch.save stores it as it is")
    header = file.at(entry.header_offset, 30)
    name, extra = struct.unpack_from("<HH", header, 26)
    start = entry.header_offset + 30 + int(name) + int(extra)
    if header[:4] != b"PK\x03\x04" or start + entry.file_size > file.size:
        raise NotACheckpoint(f"{file.path} is cut short or damaged: {entry.filename} is not where the directory says")
    return start


def _stored(file: File, name: str, tensor: pickles.Tensor, room: Room) -> Stored:
    if not tensor.contiguous:
        raise NotACheckpoint(f"{file.path}: {name} is not contiguous (its rows lie apart); save it again with .contiguous()")
    width = WIDTHS[tensor.storage.kind]
    offset, size = tensor.offset * width, numbers(tensor.shape) * width
    if offset + size > room.size:
        raise NotACheckpoint(f"{file.path}: {name} needs {offset + size} bytes of {room.name}, which has {room.size}")
    return Stored(file.path, room.start + offset, tensor.shape, tensor.storage.kind, size)


def _counted(file: File, name: str, tensor: pickles.Tensor, room: Room) -> Stored:
    """The tensor without what is only repeated: along a stride of 0, every number is the same one."""
    width = WIDTHS[tensor.storage.kind]
    shape = tuple(1 if stride == 0 and size else size for size, stride in zip(tensor.shape, tensor.stride, strict=True))
    count = numbers(shape)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, tensor.stride, strict=True)) if count else -1
    needs = max(last + 1, count) * width
    if needs > room.size:
        raise NotACheckpoint(f"{file.path}: {name} needs {needs} bytes of {room.name}, which has {room.size}")
    return Stored(file.path, room.start + tensor.offset * width, shape, tensor.storage.kind, count * width)
