"""Who holds the GPUs' memory: a process, nobody to be seen, the desktop, an earlier job."""

from __future__ import annotations

from gpudoctor.facts import Facts, GpuProcess, Unknown
from gpudoctor.findings import Finding, Fix

from ..place import in_wsl
from ..words import gib, listing
from .memories import Memory, listed, program

_CI = ("CI", "GITHUB_ACTIONS")


def held(facts: Facts, memories: list[Memory]) -> Finding | None:
    """Nothing is left on any visible GPU, because of processes or of a holder that no list shows."""
    if not all(memory.full for memory in memories):
        return None
    for memory in memories:
        if memory.held(kind="compute") > memory.total // 2:
            return _by_processes(memory, facts)
    for memory in memories:
        if memory.hidden is not None and memory.hidden > memory.total // 2 and not sees_part(facts):
            return _by_nobody(memory)
    return None


def _by_processes(memory: Memory, facts: Facts) -> Finding:
    largest = computing(memory)[0]
    names = named(memory, facts)
    dead = _dead(largest)
    how = (
        "It is already dead or stuck in the kernel and keeps its memory: ending it again does nothing. A zombie goes with "
        "its parent; one in uninterruptible sleep goes with a reboot."
        if dead
        else "It may be somebody's work: save it before you end it. Another user's process can be ended by that user and by root."
    )
    return Finding(
        code="vram-held-by-other-process",
        severity="fail",
        summary=(
            f"{memory.label} has {gib(memory.free)} of {gib(memory.total)} GiB free: {names} "
            f"{'hold' if len(computing(memory)) > 1 else 'holds'} the rest"
        ),
        cause=f"Whatever allocates GPU memory now fails with out of memory. Driver and PyTorch are not at fault. {how}",
        evidence=listed(memory),
        fix=release(largest),
    )


def computing(memory: Memory) -> list[GpuProcess]:
    """The processes that compute and whose share is known, the largest first."""
    known = [(process.used, process) for process in memory.processes if process.kind == "compute" and isinstance(process.used, int)]
    return [process for _, process in sorted(known, key=lambda pair: -pair[0])]


def named(memory: Memory, facts: Facts) -> str:
    """Such as: python of eve (process 4242) and python (process 4243)."""
    return listing(tuple(dict.fromkeys(f"{program(p, facts)} (process {p.pid})" for p in computing(memory))), 3)


def release(process: GpuProcess) -> Fix:
    """End the process, or find what keeps a dead one."""
    if _dead(process):
        return Fix("memory#find-hidden-holder")
    return Fix("memory#free-held-memory", (("PID", str(process.pid)), ("USER", process.user or "its owner")))


def _dead(process: GpuProcess) -> bool:
    return process.state in ("Z", "D")


def _by_nobody(memory: Memory) -> Finding:
    return Finding(
        code="vram-held-by-other-process",
        severity="fail",
        summary=(
            f"{memory.label} has {gib(memory.free)} of {gib(memory.total)} GiB free, and no process accounts for "
            f"{gib(memory.hidden or 0)} GiB"
        ),
        cause=(
            "The holder is an orphaned worker, a zombie, or a process of a container or another user that this user may not see. "
            "The files of /dev/nvidia* tell who has the GPU open; a holder in uninterruptible sleep ends with a reboot only."
        ),
        evidence=listed(memory),
        fix=Fix("memory#find-hidden-holder"),
    )


def sees_part(facts: Facts) -> bool:
    """Inside a container, WSL or a vGPU guest the process list leaves out the neighbours."""
    if isinstance(facts.system, Unknown):
        return True
    guest = not isinstance(facts.nvml, Unknown) and any(gpu.virtualization == "vgpu" for gpu in facts.nvml.gpus)
    return facts.system.container is not None or in_wsl(facts) or guest


def unseen_holder(facts: Facts, memories: list[Memory]) -> tuple[str, ...]:
    """What to call unknown: every GPU is full, and the process list cannot say by whom."""
    if not all(memory.full and memory.held() <= memory.total // 2 for memory in memories):
        return ()
    why = "the process list does not show what runs outside" if sees_part(facts) else "the process list is incomplete"
    return tuple(f"who holds the memory of {m.label} ({gib(m.free)} of {gib(m.total)} GiB free): {why}" for m in memories)


def leftover(facts: Facts, memories: list[Memory]) -> Finding | None:
    """Somebody computes before this CI job does."""
    if not any(facts.variable(name) for name in _CI):
        return None
    for memory in memories:
        running = [process for process in memory.processes if process.kind == "compute"]
        if running:
            names = listing([f"{program(process, facts)} (process {process.pid})" for process in running], 3)
            return Finding(
                code="ci-leftover-proc",
                severity="warn",
                summary=f"{names} {'compute' if len(running) > 1 else 'computes'} on {memory.label} before this CI job does",
                cause=(
                    "An earlier job on this runner left it behind, or the runner is shared. This job lacks its memory, and "
                    "its work makes measured times meaningless. A hook at the end of each job that ends what the job "
                    "started cures it."
                ),
                evidence=listed(memory),
                fix=Fix("memory#leftover-processes"),
            )
    return None


def display(memories: list[Memory]) -> Finding | None:
    """The desktop holds more than a quarter of a card."""
    for memory in memories:
        size = memory.held(kind="graphics")
        if memory.instance is None and size > memory.total // 4:
            return Finding(
                code="vram-display",
                severity="note",
                summary=f"The desktop holds {gib(size)} of {gib(memory.total)} GiB on {memory.label}",
                cause=(
                    "The monitor is plugged into the card that computes. On another GPU of the machine the desktop would leave "
                    "this memory free."
                ),
                evidence=listed(memory),
                fix=Fix("memory#move-display"),
            )
    return None
