"""Where the smoke test computes and in which dtype, and how much memory there is and was taken. Sizes are bytes."""

from __future__ import annotations

import re

import torch

from . import footprint
from .plan import Plan

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BF16_CAPABILITY = (8, 0)  # Ampere: what is older computes bf16 in software or not at all
HOPPER = (9, 0)
SLACK = 128 << 20  # kernels that are loaded when first used, and what the allocator keeps in pieces
CGROUPS = (  # limit and use of version 2, then of version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def choose(plan: Plan, rank: int = 0) -> torch.device:
    """The plan's device, else a GPU where PyTorch has one; of several the one of this process's number.

    Raises what PyTorch raises for a GPU that it cannot use.
    """
    kind = plan.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cpu":
        return torch.device("cpu")
    torch.cuda.set_device(rank)
    return torch.device(kind, rank)


def name(device: torch.device) -> str:
    """What its maker calls it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    found = re.search(r"^model name\s*:\s*(.+)$", text("/proc/cpuinfo"), re.MULTILINE)
    return found.group(1).strip() if found else "CPU"


def dtype(plan: Plan, device: torch.device) -> tuple[str, str | None]:
    """The dtype to compute in, and a note where it is another than the checkpoint's for want of hardware."""
    if device.type == "cpu":
        return plan.dtype or "fp32", None
    return gpu_dtype(plan, torch.cuda.get_device_capability(device))


def gpu_dtype(plan: Plan, capability: tuple[int, int]) -> tuple[str, str | None]:
    """As ``dtype``: what was asked for by name is taken or refused; else it is the checkpoint's own if that has 16 bits.

    Raises RuntimeError for bf16 on a GPU that lacks it.
    """
    knows = capability >= BF16_CAPABILITY
    lacks = "bf16 needs compute capability %d.%d; this GPU has %d.%d" % (BF16_CAPABILITY + capability)
    if plan.dtype == "bf16" and not knows:
        raise RuntimeError(lacks)
    own = stored(plan)
    if plan.dtype is None and own == "bf16" and not knows:
        return "fp16", "computed in fp16: " + lacks
    return plan.dtype or own or ("bf16" if knows else "fp16"), None


def stored(plan: Plan) -> str | None:
    """The 16-bit dtype in which most of the checkpoint's bytes are, or None."""
    sizes = {kind: sum(piece.size for piece in plan.pieces if piece.kind == kind) for kind in {piece.kind for piece in plan.pieces}}
    return {"F16": "fp16", "BF16": "bf16"}.get(max(sizes, key=lambda kind: sizes[kind])) if sizes else None


def workspace(device: torch.device) -> int:
    """What PyTorch gives cuBLAS on this device: once for each stream that computes, and a CUDA graph is captured on two more."""
    if device.type == "cpu":
        return 0
    hopper = torch.cuda.get_device_capability(device) >= HOPPER
    return footprint.STREAMS * (footprint.WORKSPACE_HOPPER if hopper else footprint.WORKSPACE)


def free(device: torch.device, processes: int = 1) -> int:
    """What one of so many processes may take: of a GPU of its own what CUDA says, of the host's memory its share."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_on_host() // processes


def free_on_host() -> int:
    """MemAvailable, or what a container's limit leaves where that is less."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", text("/proc/meminfo"), re.MULTILINE)
    left = [int(found.group(1)) * 1024] if found else []
    for limit, used in CGROUPS:
        most, taken = text(limit).strip(), text(used).strip()
        if most.isdigit() and taken.isdigit():
            # files in the page cache count as used and go when room is needed
            pages = re.search(r"^(?:total_)?inactive_file (\d+)$", text(used.rsplit("/", 1)[0] + "/memory.stat"), re.MULTILINE)
            left.append(max(0, int(most) - int(taken) + (int(pages.group(1)) if pages else 0)))
    return min(left) if left else 0


def room(device: torch.device, plan: Plan) -> int:
    """Free memory, at most the plan's budget; a GPU's allocator is held to it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    there = free(device, plan.processes)
    there = there if plan.budget is None else min(there, plan.budget)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved(device) + there) / total), device)
    return there


def peak(device: torch.device) -> int | None:
    """The most that PyTorch had allocated on a GPU; on a CPU the most that this process had in memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    found = re.search(r"^VmHWM:\s*(\d+) kB", text("/proc/self/status"), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def settle(device: torch.device) -> None:
    """Wait until the device has done all it was told: a GPU runs behind the program."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def text(path: str) -> str:
    """A small file, such as the kernel's, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""
