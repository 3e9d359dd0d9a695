"""The memory of each GPU, or MIG instance, that the target sees; who holds it, in words and as evidence."""

from __future__ import annotations

from dataclasses import dataclass

from gpudoctor.facts import Facts, Gpu, GpuProcess, MigDevice, Unknown
from gpudoctor.findings import Evidence
from gpudoctor.visible import Visible

from ..words import gib, listing

GIB = 1 << 30
_GRACE = ("GH200", "GB200", "GB300")


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of one GPU, or of one MIG instance of it."""

    label: str
    total: int
    free: int
    gpu: Gpu
    instance: MigDevice | None

    @property
    def full(self) -> bool:
        """Less than a tenth of it, or less than 1 GiB, is free."""
        return self.free < min(max(self.total // 10, GIB), self.total)

    @property
    def processes(self) -> tuple[GpuProcess, ...]:
        """Those that hold some of it."""
        return () if isinstance(self.gpu.processes, Unknown) else self.gpu.processes

    def held(self, *, kind: str | None = None) -> int:
        """Bytes that the processes (of that kind) account for."""
        used = (process.used for process in self.processes if kind in (None, process.kind))
        return sum(size for size in used if isinstance(size, int))

    @property
    def hidden(self) -> int | None:
        """Bytes that no process accounts for; None where the process list does not tell all."""
        lists_all = not isinstance(self.gpu.processes, Unknown) and all(isinstance(p.used, int) for p in self.processes)
        if not lists_all or self.instance is not None or isinstance(self.gpu.memory_used, Unknown):
            return None
        # part of a Grace chip's GPU memory may be the kernel's own page cache
        return None if any(name in str(self.gpu.name) for name in _GRACE) else self.gpu.memory_used - self.held()


def memories_of(seen: Visible) -> list[Memory]:
    """The GPUs that the target sees, each in its own memory; a GPU in MIG mode by its instances."""
    found: list[Memory] = []
    for gpu in seen.gpus:
        instances = [] if isinstance(gpu.mig_devices, Unknown) else [i for i in gpu.mig_devices if i in seen.mig]
        if gpu.mig is True:
            for instance in instances:
                if isinstance(instance.memory_total, int) and isinstance(instance.memory_free, int):
                    label = f"MIG instance {instance.uuid[:12]} of GPU {gpu.index}"
                    found.append(Memory(label, instance.memory_total, instance.memory_free, gpu, instance))
        elif isinstance(gpu.memory_total, int) and isinstance(gpu.memory_free, int):
            found.append(Memory(f"GPU {gpu.index}", gpu.memory_total, gpu.memory_free, gpu, None))
    return found


def summary(facts: Facts, memories: list[Memory]) -> str:
    """What is free, in one line."""
    if len(memories) == 1:
        only = memories[0]
        return f"{gib(only.free)} of {gib(only.total)} GiB free{held_by(facts, only)}"
    if len(memories) <= 3:
        return "; ".join(f"{m.label}: {gib(m.free)} of {gib(m.total)} GiB free{held_by(facts, m)}" for m in memories)
    free = sorted(memory.free for memory in memories)
    totals = sorted({gib(memory.total) for memory in memories})
    span = gib(free[0]) if gib(free[0]) == gib(free[-1]) else f"{gib(free[0])} to {gib(free[-1])}"
    busy = [memory for memory in memories if memory.full]
    words = f"; nearly full: {listing([memory.label for memory in busy])}" if busy else ""
    return f"{len(memories)} devices, {span} of {' or '.join(totals)} GiB free{words}"


def held_by(facts: Facts, memory: Memory) -> str:
    """Such as: ; Xorg and firefox hold 0.65 GiB, and what nobody accounts for where that is much."""
    text = ""
    known = [(p.used, p) for p in memory.processes if isinstance(p.used, int) and p.used > 0]
    if known and memory.instance is None:
        known.sort(key=lambda pair: -pair[0])
        names = tuple(dict.fromkeys(program(process, facts) for _, process in known))
        verb = "hold" if len(names) > 1 else "holds"
        text = f"; {listing(names, 3)} {verb} {gib(memory.held())} GiB"
    hidden = memory.hidden
    if hidden is not None and hidden > max(GIB, memory.total // 4):
        text += f"; {gib(hidden)} GiB are held by no process that can be seen from here"
    return text


def program(process: GpuProcess, facts: Facts) -> str:
    """The program, and whose it is where that is somebody else."""
    words = (process.command or "").split()
    program = words[0].rsplit("/", 1)[-1].rstrip(":") if words else f"process {process.pid}"
    me = None if isinstance(facts.system, Unknown) else facts.system.user.name
    other = process.kind == "compute" and process.user is not None and process.user != me
    return f"{program} of {process.user}" if other else program


def listed(memory: Memory) -> tuple[Evidence, ...]:
    """What is free, and the largest holders."""
    lines = [Evidence(f"NVML, {memory.label}", f"{gib(memory.free)} of {gib(memory.total)} GiB free")]
    for process in sorted(memory.processes, key=lambda p: p.used if isinstance(p.used, int) else 0, reverse=True)[:8]:
        size = f"{process.used >> 20} MiB" if isinstance(process.used, int) else "unknown size"
        state = " (zombie)" if process.state == "Z" else " (in uninterruptible sleep)" if process.state == "D" else ""
        who = process.user or "unknown user"
        command = (process.command or "command not to be seen")[:120]
        lines.append(Evidence(f"NVML, {memory.label}, process {process.pid}", f"{size}, {process.kind}, {who}: {command}{state}"))
    return tuple(lines)
