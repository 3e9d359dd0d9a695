"""Fills a model: from the mapped files of a checkpoint, straight to its device, or with random numbers made there.

A file is read once, in the order in which it lies on the disk, a few MiB at a time; no tensor exists twice. Each process of a
split model reads the part that is its own, however many parts the files are in.
"""

from __future__ import annotations

import importlib
import math
import mmap
import os
import sys
import time
import warnings
import zlib
from typing import Callable, NamedTuple

import torch

from .model import SPLIT, Llama
from .plan import Piece, Plan

STEP = 16 << 20
"""Bytes read, or dequantised to, in one go: small beside any model, large beside the cost of asking for them."""
TILE = 256
"""Rows that are turned into columns at once."""
KINDS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
ROTATED = ("query", "key", "query_bias", "key_bias", "query_norm", "key_norm")
"""What has one row for each number of a head that is rotated."""
NOISE, SLACK = 1 << 18, 1 << 16
"""How many random numbers there are, and within how many of them the first one of a tensor lies."""
NOISE_SIZE = 4 * (NOISE + SLACK)
"""Bytes of them, in float32."""
LIVELY = {"query": 4.0, "out": 4.0, "down": 4.0}
"""Factors without which greedy text soon repeats one token: attention that chooses, layers that outweigh the embedding."""

Say = Callable[..., None]
Carry = Callable[[torch.Tensor], torch.Tensor]


def silent(**_values: object) -> None:
    """For whoever does not want to hear."""


@torch.inference_mode()
def load(model: Llama, plan: Plan, rank: int = 0, world: int = 1, say: Say = silent) -> None:
    """Read the plan's pieces into the model; of a model that is split among ``world`` processes, the part of ``rank``.

    Raises RuntimeError, in words, where files and plan do not fit each other or a library is missing; OSError where a file
    cannot be opened.
    """
    parts = parts_of(model.tensors(), plan, rank, world)
    head = plan.shape.head_dim if plan.halves and plan.shape is not None else None
    progress = Progress(sum(part.bytes for part in parts), say)
    files = {number: mapped(plan, number) for number in sorted({piece.file for piece in plan.pieces})}
    carry = carrier(model.norm.device)
    for part in parts:
        rotated = part.piece.name.rpartition(".")[2] in ROTATED
        copy(part, files[part.piece.file], head if rotated else None, carry, progress)
    for piece in plan.pieces:
        if piece.name == "rope_factors":
            model.set_rope_factors(rows_of(piece, files[piece.file], 0, piece.shape[0]).float().clone())
    if model.norm.is_cuda:
        torch.cuda.synchronize(model.norm.device)
    progress.end()


class Progress:
    """Says how much is there, at most ten times a second, and at the end."""

    def __init__(self, total: int, say: Say) -> None:
        """``total``: bytes, as they are in the files."""
        self.total, self.say, self.done, self.next = total, say, 0, 0.0

    def add(self, size: int) -> None:
        """So many bytes more are there."""
        self.done += size
        now = time.monotonic()
        if now >= self.next and self.done < self.total:
            self.next = now + 0.1
            self.say(loaded=self.done, of=self.total)

    def end(self) -> None:
        """All are there."""
        self.say(loaded=self.total, of=self.total)


class Part(NamedTuple):
    """What one piece of a file holds for this process."""

    piece: Piece
    target: torch.Tensor
    """View of the model that takes exactly this part."""
    start: tuple[int, ...]
    """Where in the piece the part begins, for each dimension."""

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return self.piece.size * self.target.numel() // math.prod(self.piece.shape)


def parts_of(tensors: dict[str, torch.Tensor], plan: Plan, rank: int, world: int) -> list[Part]:
    """What to copy where, in the order of the files; raises RuntimeError unless every tensor is filled, once."""
    missing = {name: tensor.numel() for name, tensor in tensors.items()}
    joined: dict[str, int] = {}
    parts: list[Part] = []
    for piece in plan.pieces:
        if piece.name == "rope_factors" or (piece.name == "head" and "head" not in tensors):
            continue  # a head beside tied embeddings is a copy of them
        if piece.name not in tensors:
            raise RuntimeError("the checkpoint has a tensor %s, which a model of this shape does not have" % piece.name)
        part = part_of(piece, joined.get(piece.name, 0), tensors[piece.name], rank, world)
        if piece.dim is not None:
            joined[piece.name] = joined.get(piece.name, 0) + piece.shape[piece.dim]
        missing[piece.name] -= part.target.numel()
        if part.target.numel():
            parts.append(part)
    wrong = [name for name, count in missing.items() if count]
    if wrong:
        raise RuntimeError("the checkpoint has too few or too many numbers for %s (%d such tensors)" % (wrong[0], len(wrong)))
    return sorted(parts, key=lambda part: (part.piece.file, part.piece.offset))


def part_of(piece: Piece, begin: int, tensor: torch.Tensor, rank: int, world: int) -> Part:
    """The overlap of a piece, which begins at ``begin`` along its ``dim``, with what this process holds of the tensor."""
    split = SPLIT.get(piece.name.rpartition(".")[2])
    whole = tuple(size * world if dim == split else size for dim, size in enumerate(tensor.shape))
    if len(piece.shape) != len(whole) or any(
        begin + size > there if dim == piece.dim else size != there for dim, (size, there) in enumerate(zip(piece.shape, whole))
    ):
        raise RuntimeError(
            "%s has the shape %s in the checkpoint; the model's is %s" % (piece.name, list(piece.shape), list(whole))
        )
    start: list[int] = []
    for dim, (size, here) in enumerate(zip(piece.shape, tuple(tensor.shape))):
        first = begin if dim == piece.dim else 0
        mine = here * rank if dim == split else 0
        low = min(max(first, mine), mine + here)
        high = max(low, min(first + size, mine + here))
        tensor = tensor.narrow(dim, low - mine, high - low)
        start.append(max(0, low - first))
    return Part(piece, tensor, tuple(start))


def mapped(plan: Plan, number: int) -> File:
    """One of the plan's files in memory, read only; raises RuntimeError where it is shorter than its pieces.

    Its length is asked of the open file just before: to touch what is mapped beyond the end would end the process.
    """
    path = plan.files[number]
    size = max(piece.offset + piece.size for piece in plan.pieces if piece.file == number)
    with open(path, "rb") as opened:
        there = os.fstat(opened.fileno()).st_size
        if there < size or not there:
            raise RuntimeError(
                "%s has %d bytes, and its tensors need %d: it was cut off, or is being written" % (path, there, size)
            )
        # read only and shared: before it maps a file privately, to be written, Linux wants to have memory of that size
        return File(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))


class File:
    """A mapped file as a tensor of bytes."""

    def __init__(self, memory: mmap.mmap) -> None:
        """The tensor keeps the mapping open."""
        self.memory = memory
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it cannot be written is meant
            self.bytes = torch.frombuffer(memory, dtype=torch.uint8)

    def fetch(self, offset: int, size: int) -> None:
        """Let the disk begin with what is read next: a copy waits for each page otherwise."""
        begin = offset // mmap.PAGESIZE * mmap.PAGESIZE
        end = min(offset + size, len(self.memory))
        if end > begin:
            self.memory.madvise(mmap.MADV_WILLNEED, begin, end - begin)

    def forget(self, offset: int, size: int) -> None:
        """Give back what has been read: it stays in the system's cache, and no longer counts as this process's memory."""
        begin = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (offset + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > begin:
            self.memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)


def copy(part: Part, file: File, head: int | None, carry: Carry, progress: Progress) -> None:
    """Copy one part, some rows at a time; ``head`` is the width of a head whose rotary pairs are halves."""
    piece, rows, unit = part.piece, len(part.target), head or 1
    if part.start[0] % unit or rows % unit:
        raise RuntimeError("%s is cut within a head, and its rows are not in Meta's order" % piece.name)
    row = row_bytes(piece)
    at_once = max(1, STEP // max(row, 4 * math.prod(piece.shape[1:])) // unit) * unit
    for done in range(0, rows, at_once):
        first, count = part.start[0] + done, min(at_once, rows - done)
        offset = piece.offset + first * row
        file.fetch(offset + count * row, at_once * row)
        source = rows_of(piece, file, first, count)
        if source.dim() == 2:
            source = source.narrow(1, part.start[1], part.target.shape[1])
        place(part.target.narrow(0, done, count), carry(source), head)
        file.forget(offset, count * row)
        progress.add(part.bytes * count // rows)


def place(target: torch.Tensor, source: torch.Tensor, head: int | None) -> None:
    """Write; with ``head`` (its width) from the order (i, i + head / 2) of rotary pairs into (2 i, 2 i + 1)."""
    if target.dim() == 2 and target.stride(0) == 1 and not target.is_cuda:
        place_columns(target, source, head)
        return
    if head is not None:
        source = source.unflatten(0, (-1, 2, head // 2))
        target = target.unflatten(0, (-1, head // 2, 2)).transpose(1, 2)
    target.copy_(source)


def place_columns(target: torch.Tensor, source: torch.Tensor, head: int | None) -> None:
    """As ``place``, into a matrix that lies in memory column by column.

    Turned some rows at a time, in the processor's cache, it takes a quarter of the time of a plain copy (2.8 against 0.7 GB/s).
    """
    unit = head or 1
    at_once = max(1, TILE // unit) * unit
    for some, rows in zip(target.split(at_once), source.split(at_once)):
        in_order = rows if head is None else rows.unflatten(0, (-1, 2, head // 2)).transpose(1, 2).flatten(0, 2)
        some.copy_(in_order.to(target.dtype).t().contiguous().t())


def rows_of(piece: Piece, file: File, first: int, count: int) -> torch.Tensor:
    """Some rows of a piece as numbers (count, ...): still those in the file where they can be used as they are."""
    row = row_bytes(piece)
    begin, size = piece.offset + first * row, count * row
    if piece.kind not in KINDS:
        return dequantised(memoryview(file.memory)[begin : begin + size], count, piece)
    raw = file.bytes.narrow(0, begin, size)
    kind = KINDS[piece.kind]
    if raw.storage_offset() % kind.itemsize:
        raw = raw.clone()  # memory of its own begins at a multiple of the numbers' size
    return raw.view(kind).view(count, *piece.shape[1:])


def row_bytes(piece: Piece) -> int:
    """Bytes of one row in the file; raises RuntimeError where the piece contradicts itself."""
    row, rest = divmod(piece.size, max(1, piece.shape[0]))
    known = KINDS.get(piece.kind)
    if rest or row <= 0 or piece.offset < 0 or (known is not None and row != math.prod(piece.shape[1:]) * known.itemsize):
        numbers = (piece.name, piece.size, list(piece.shape), piece.kind)
        raise RuntimeError("%s has %d bytes in the checkpoint for %s numbers of kind %s" % numbers)
    return row


def dequantised(raw: memoryview, rows: int, piece: Piece) -> torch.Tensor:
    """Rows of a GGUF quantisation as float32 (rows, ...), by the user's own gguf library, which knows them all."""
    try:
        quants = importlib.import_module("gguf.quants")
        numpy = importlib.import_module("numpy")
    except ImportError as error:
        raise RuntimeError(
            "these weights are quantised (%s), and the library that reads them is not there (%s). To install it: "
            "%s -m pip install gguf" % (piece.kind, error, sys.executable)
        ) from error
    try:
        kind = importlib.import_module("gguf.constants").GGMLQuantizationType[piece.kind]
        wide = quants.dequantize(numpy.frombuffer(raw, numpy.uint8).reshape(rows, -1), kind)
    except (KeyError, NotImplementedError, ValueError) as error:
        raise RuntimeError("the gguf library here cannot read %s, of kind %s: %s" % (piece.name, piece.kind, error)) from error
    return torch.frombuffer(numpy.ascontiguousarray(wide, numpy.float32), dtype=torch.float32).view(rows, *piece.shape[1:])


def carrier(device: torch.device) -> Carry:
    """What brings numbers to the device before they are put in their place."""
    if device.type != "cuda":
        return lambda source: source
    try:
        return Ferry(device)
    except RuntimeError:  # no memory may be locked here
        return lambda source: source.to(device)


class Ferry:
    """Carries numbers to a GPU by two page-locked buffers: while one is on its way, the other is filled from the file.

    From memory that is not locked CUDA copies at a fraction of the bus's speed, and no step overlaps another.
    """

    def __init__(self, device: torch.device) -> None:
        """Lock the memory; raises RuntimeError where that is not allowed."""
        self.device, self.turn = device, 0
        self.buffers = [torch.empty(2 * STEP, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        with torch.cuda.device(device):
            self.left = [torch.cuda.Event() for _ in range(2)]

    def __call__(self, source: torch.Tensor) -> torch.Tensor:
        """The numbers on the device; they may still be on their way there, ahead of what is asked of it next."""
        size = source.numel() * source.element_size()
        if size > len(self.buffers[0]):  # a row longer than a step
            return source.to(self.device)
        self.turn = 1 - self.turn
        self.left[self.turn].synchronize()
        buffer = self.buffers[self.turn][:size].view(source.dtype).view(source.shape)
        buffer.copy_(source)
        there = buffer.to(self.device, non_blocking=True)
        with torch.cuda.device(self.device):
            self.left[self.turn].record()
        return there


@torch.inference_mode()
def randomise(model: Llama, seed: int, rank: int = 0, world: int = 1, say: Say = silent) -> None:
    """Fill the model with random numbers, the same for a seed on each device and however the model is split.

    Norms are one and biases small; a matrix has the variance 1 / in, which keeps the size of what it multiplies, times LIVELY.
    Rows are windows of one sequence of normal numbers, each some steps further on: a number costs no more than to write it.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = model.tensors()
    length = max([NOISE] + [sum(tensor.shape) * world for tensor in tensors.values()])
    noise = torch.randn(length + SLACK, generator=generator).to(model.norm.device, model.norm.dtype)
    progress = Progress(sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), say)
    for name, tensor in tensors.items():
        kind = name.rpartition(".")[2]
        if kind.endswith("norm"):
            tensor.fill_(1)
        else:
            window, whole = window_of(noise, tensor, SPLIT.get(kind), rank, world, zlib.crc32(b"%d %s" % (seed, name.encode())))
            scale = 0.02 if kind.endswith("bias") else whole[-1] ** -0.5
            torch.mul(window, scale * LIVELY.get(kind, 1.0), out=tensor)
        progress.add(tensor.numel() * tensor.element_size())
    progress.end()


def window_of(
    noise: torch.Tensor, tensor: torch.Tensor, split: int | None, rank: int, world: int, place: int
) -> tuple[torch.Tensor, tuple[int, ...]]:
    """A view of ``noise`` as the numbers of this process's part of a tensor, and the shape of the whole tensor."""
    whole = tuple(size * world if dim == split else size for dim, size in enumerate(tensor.shape))
    # an odd number of steps from row to row: as many as the noise has room for
    strides = ((len(noise) - SLACK - whole[-1]) // whole[0] - 1 | 1, 1)[-len(whole) :]
    start = place % SLACK
    if split is not None:
        start += rank * tensor.shape[split] * strides[split]
    return noise.as_strided(tensor.shape, strides, start), whole
