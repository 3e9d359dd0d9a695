"""How fast this machine's memory is, measured: the limit of decoding, which reads every weight once a token."""

from __future__ import annotations

import time

import torch

BUFFER = 256 << 20  # bytes: beyond every cache
LEAST = 128 << 20  # less would be read from a GPU's cache
PASSES = 5


def measured(device: torch.device, free: int) -> int | None:
    """Bytes per second; None where of ``free`` bytes none are left for it."""
    size = min(BUFFER, free // 4)
    if size < LEAST:
        return None
    try:
        return copied(device, size) if device.type == "cuda" else summed(size)
    except torch.cuda.OutOfMemoryError:  # the budget is used up
        return None


def summed(size: int = BUFFER) -> int:
    """Reads of main memory: summing a float32 buffer with as many threads as PyTorch uses."""
    buffer = torch.ones(size // 4)
    best = float("inf")
    for _ in range(PASSES):
        started = time.perf_counter()
        buffer.sum()
        best = min(best, time.perf_counter() - started)
    return int(size / best)


def copied(device: torch.device, size: int = BUFFER) -> int:
    """Reads and writes of a GPU's memory: copying one buffer to another, timed by the GPU's own clock."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(PASSES + 1):  # the first one wakes the clocks
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end) / 1e3)  # milliseconds
    return int(2 * size / best)
