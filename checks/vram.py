"""VRAM: how much memory of each GPU is free, and who holds the rest.

A model that would fit an empty card does not fit beside another process. This check says what is free now; whether a
given model fits is a question of its own. The figures are NVML's, for the GPUs that CUDA would show to the target
(CUDA_VISIBLE_DEVICES, MIG instances instead of their parent). Where GPU and CPU share one memory (GB10, Jetson), NVML has
no true figure: there the machine's available memory is judged.

* ``vram-held-by-other-process``: no visible GPU has a tenth of its memory (or 1 GiB) free, and processes hold more than
  half of one; also memory that no process accounts for. In a container or WSL the process list is not
  the whole truth: who holds it is unknown there, nobody is accused.
* ``vram-display``: the desktop holds more than a quarter of a card.
* ``ci-leftover-proc``: in a CI job somebody computes on the GPU before the job does.
* ``unified-memory-low``: less than a tenth of a shared memory is available.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpudoctor.facts import Facts, Gpu, GpuProcess, MigDevice, Unknown
from gpudoctor.findings import Check, Evidence, Finding, Fix, Verdict, listed_codes
from gpudoctor.knowledge import gpus as table

from .cards import asleep
from .place import in_wsl, on_jetson
from .visible import Visible, visible
from .words import gib, listing

GIB = 1 << 30
_GRACE = ("GH200", "GB200", "GB300")
_CI = ("CI", "GITHUB_ACTIONS")


@dataclass(frozen=True, slots=True)
class _Memory:
    """The memory of one GPU, or of one MIG instance of it."""

    label: str
    total: int
    free: int
    gpu: Gpu
    instance: MigDevice | None

    @property
    def full(self) -> bool:
        return self.free < min(max(self.total // 10, GIB), self.total)

    @property
    def processes(self) -> tuple[GpuProcess, ...]:
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


def judge(facts: Facts, required: bool) -> Verdict:  # noqa: ARG001 - the signature of every check
    """Free and held memory of the GPUs that the target sees."""
    if _shared(facts):
        return _judge_shared(facts)
    seen = visible(facts)
    if isinstance(seen, Unknown) and asleep(facts):
        return Verdict("not asked: the GPU is asleep, and looking would wake it")
    if isinstance(seen, Unknown):
        return Verdict(f"free memory is unknown: {seen.why}", unknown=(f"free GPU memory: {seen.why}",))
    memories = _memories(seen)
    if not memories:
        return _nothing(seen)
    findings = tuple(f for f in (_held(facts, memories), _leftover(facts, memories), _display(memories)) if f is not None)
    if any(finding.severity == "fail" for finding in findings):
        findings = tuple(finding for finding in findings if finding.severity == "fail")
    unknown = _unseen_holder(facts, memories) if not findings else ()
    return Verdict(_summary(facts, memories), findings, unknown)


def _nothing(seen: Visible) -> Verdict:
    if seen.hidden or not seen.gpus:
        return Verdict("no GPU is visible, so there is no GPU memory to judge")
    whys = [why for gpu in seen.gpus for why in (gpu.memory_free,) if isinstance(why, Unknown)]
    if any(gpu.mig is True for gpu in seen.gpus):
        return Verdict("no MIG instance is visible, so there is no GPU memory to judge")
    why = whys[0].why if whys else "NVML did not say"
    return Verdict(f"free memory is unknown: {why}", unknown=(f"free GPU memory: {why}",))


def _memories(seen: Visible) -> list[_Memory]:
    found: list[_Memory] = []
    for gpu in seen.gpus:
        instances = [] if isinstance(gpu.mig_devices, Unknown) else [i for i in gpu.mig_devices if i in seen.mig]
        if gpu.mig is True:
            for instance in instances:
                if isinstance(instance.memory_total, int) and isinstance(instance.memory_free, int):
                    label = f"MIG instance {instance.uuid[:12]} of GPU {gpu.index}"
                    found.append(_Memory(label, instance.memory_total, instance.memory_free, gpu, instance))
        elif isinstance(gpu.memory_total, int) and isinstance(gpu.memory_free, int):
            found.append(_Memory(f"GPU {gpu.index}", gpu.memory_total, gpu.memory_free, gpu, None))
    return found


# ---------------------------------------------------------------- words


def _summary(facts: Facts, memories: list[_Memory]) -> str:
    if len(memories) == 1:
        only = memories[0]
        return f"{gib(only.free)} of {gib(only.total)} GiB free{_holders(facts, only)}"
    if len(memories) <= 3:
        return "; ".join(f"{m.label}: {gib(m.free)} of {gib(m.total)} GiB free{_holders(facts, m)}" for m in memories)
    free = sorted(memory.free for memory in memories)
    totals = sorted({gib(memory.total) for memory in memories})
    span = gib(free[0]) if gib(free[0]) == gib(free[-1]) else f"{gib(free[0])} to {gib(free[-1])}"
    busy = [memory for memory in memories if memory.full]
    words = f"; nearly full: {listing([memory.label for memory in busy])}" if busy else ""
    return f"{len(memories)} devices, {span} of {' or '.join(totals)} GiB free{words}"


def _holders(facts: Facts, memory: _Memory) -> str:
    """Such as: ; Xorg and firefox hold 0.65 GiB, and what nobody accounts for where that is much."""
    text = ""
    known = [(p.used, p) for p in memory.processes if isinstance(p.used, int) and p.used > 0]
    if known and memory.instance is None:
        known.sort(key=lambda pair: -pair[0])
        names = tuple(dict.fromkeys(_name(process, facts) for _, process in known))
        verb = "hold" if len(names) > 1 else "holds"
        text = f"; {listing(names, 3)} {verb} {gib(memory.held())} GiB"
    hidden = memory.hidden
    if hidden is not None and hidden > max(GIB, memory.total // 4):
        text += f"; {gib(hidden)} GiB are held by no process that can be seen from here"
    return text


def _name(process: GpuProcess, facts: Facts) -> str:
    """The program, and whose it is where that is somebody else."""
    words = (process.command or "").split()
    program = words[0].rsplit("/", 1)[-1].rstrip(":") if words else f"process {process.pid}"
    me = None if isinstance(facts.system, Unknown) else facts.system.user.name
    other = process.kind == "compute" and process.user is not None and process.user != me
    return f"{program} of {process.user}" if other else program


def _evidence(memory: _Memory) -> tuple[Evidence, ...]:
    lines = [Evidence(f"NVML, {memory.label}", f"{gib(memory.free)} of {gib(memory.total)} GiB free")]
    for process in sorted(memory.processes, key=lambda p: p.used if isinstance(p.used, int) else 0, reverse=True)[:8]:
        size = f"{process.used >> 20} MiB" if isinstance(process.used, int) else "unknown size"
        state = " (zombie)" if process.state == "Z" else " (in uninterruptible sleep)" if process.state == "D" else ""
        who = process.user or "unknown user"
        command = (process.command or "command not to be seen")[:120]
        lines.append(Evidence(f"NVML, {memory.label}, process {process.pid}", f"{size}, {process.kind}, {who}: {command}{state}"))
    return tuple(lines)


# ---------------------------------------------------------------- findings


def _held(facts: Facts, memories: list[_Memory]) -> Finding | None:
    """Nothing is left on any visible GPU, because of processes or of a holder that no list shows."""
    if not all(memory.full for memory in memories):
        return None
    for memory in memories:
        if memory.held(kind="compute") > memory.total // 2:
            return _by_processes(memory, facts)
    for memory in memories:
        if memory.hidden is not None and memory.hidden > memory.total // 2 and not _sees_part(facts):
            return _by_nobody(memory)
    return None


def _by_processes(memory: _Memory, facts: Facts) -> Finding:
    holders = [process for process in memory.processes if process.kind == "compute" and isinstance(process.used, int)]
    holders.sort(key=lambda process: -process.used if isinstance(process.used, int) else 0)
    largest = holders[0]
    names = listing(tuple(dict.fromkeys(f"{_name(p, facts)} (process {p.pid})" for p in holders)), 3)
    dead = largest.state in ("Z", "D")
    fix = (
        Fix("memory#find-hidden-holder")
        if dead
        else Fix("memory#free-held-memory", (("PID", str(largest.pid)), ("USER", largest.user or "its owner")))
    )
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
            f"{'hold' if len(holders) > 1 else 'holds'} the rest"
        ),
        cause=f"Whatever allocates GPU memory now fails with out of memory. Driver and PyTorch are not at fault. {how}",
        evidence=_evidence(memory),
        fix=fix,
    )


def _by_nobody(memory: _Memory) -> Finding:
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
        evidence=_evidence(memory),
        fix=Fix("memory#find-hidden-holder"),
    )


def _sees_part(facts: Facts) -> bool:
    """Inside a container, WSL or a vGPU guest the process list leaves out the neighbours."""
    if isinstance(facts.system, Unknown):
        return True
    guest = not isinstance(facts.nvml, Unknown) and any(gpu.virtualization == "vgpu" for gpu in facts.nvml.gpus)
    return facts.system.container is not None or in_wsl(facts) or guest


def _unseen_holder(facts: Facts, memories: list[_Memory]) -> tuple[str, ...]:
    """What to call unknown: every GPU is full, and the process list cannot say by whom."""
    if not all(memory.full and memory.held() <= memory.total // 2 for memory in memories):
        return ()
    why = "the process list does not show what runs outside" if _sees_part(facts) else "the process list is incomplete"
    return tuple(f"who holds the memory of {m.label} ({gib(m.free)} of {gib(m.total)} GiB free): {why}" for m in memories)


def _leftover(facts: Facts, memories: list[_Memory]) -> Finding | None:
    if not any(facts.variable(name) for name in _CI):
        return None
    for memory in memories:
        running = [process for process in memory.processes if process.kind == "compute"]
        if running:
            names = listing([f"{_name(process, facts)} (process {process.pid})" for process in running], 3)
            return Finding(
                code="ci-leftover-proc",
                severity="warn",
                summary=f"{names} {'compute' if len(running) > 1 else 'computes'} on {memory.label} before this CI job does",
                cause=(
                    "An earlier job on this runner left it behind, or the runner is shared. This job lacks its memory, and "
                    "its work makes measured times meaningless. A hook at the end of each job that ends what the job "
                    "started cures it."
                ),
                evidence=_evidence(memory),
                fix=Fix("memory#leftover-processes"),
            )
    return None


def _display(memories: list[_Memory]) -> Finding | None:
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
                evidence=_evidence(memory),
                fix=Fix("memory#move-display"),
            )
    return None


# ---------------------------------------------------------------- one memory for CPU and GPU


def _shared(facts: Facts) -> bool:
    """GPU and CPU share one memory: a Jetson, or a GPU of our table that says so."""
    if on_jetson(facts):
        return True
    if isinstance(facts.nvml, Unknown):
        return False
    rows = [table.by_name(gpu.name) for gpu in facts.nvml.gpus if isinstance(gpu.name, str)]
    return any(row is not None and row.unified for row in rows)


def _judge_shared(facts: Facts) -> Verdict:
    if isinstance(facts.system, Unknown):
        return Verdict(f"available memory is unknown: {facts.system.why}", unknown=(f"available memory: {facts.system.why}",))
    available, total = facts.system.memory_available, facts.system.memory_total
    if isinstance(available, Unknown) or isinstance(total, Unknown):
        return Verdict("available memory is unknown", unknown=("MemAvailable of /proc/meminfo",))
    summary = f"{gib(available)} of {gib(total)} GiB available in the memory that CPU and GPU share"
    if available >= total // 10:
        return Verdict(summary)
    low = Finding(
        code="unified-memory-low",
        severity="warn",
        summary=f"Only {gib(available)} of {gib(total)} GiB are available in the memory that CPU and GPU share",
        cause=(
            "GPU and CPU use the same memory here: neither NVML's nor CUDA's free figure is true, MemAvailable is. To allocate "
            "more than that freezes the machine instead of failing with out of memory."
        ),
        evidence=(Evidence("/proc/meminfo", f"MemAvailable: {available >> 10} kB of MemTotal: {total >> 10} kB"),),
        fix=Fix("memory#unified-memory"),
    )
    return Verdict(summary, (low,))


CHECK = Check(
    name="vram",
    title="VRAM",
    needs=("driver",),
    codes=listed_codes(__doc__),
    judge=judge,
)
