"""What ended the smoke test before its time, where no other layer's check names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gpudoctor import symptoms
from gpudoctor.facts import Complaint, Facts, Interpreter, Smoke, Symptom, System, Unknown
from gpudoctor.findings import Evidence, Finding, Fix
from gpudoctor.visible import visible

from ..cards import capabilities
from ..ending import Ending
from ..told import suspected
from ..words import capped, gib

# What a phase waits for, so that its silence has a meaning.
_WAITS = {
    "start": "the interpreter to start: a file system that does not answer",
    "import": "the import of PyTorch: a slow file system, or the driver",
    "device": "the driver to make a context: a driver that hangs, or GPUs that take long to wake",
    "nccl": "the processes to find each other and to exchange data: peer-to-peer access, the IOMMU, a firewall on the loopback",
    "memory": "an answer about free memory: the driver",
    "load": "the checkpoint's bytes: a slow or distant disk, or a machine that swaps",
    "first-token": "the first kernels: code that is compiled for this GPU at its first use, or a driver that hangs",
    "tokens": "a kernel: a GPU that was lost or hangs, or another process on it",
    "proofs": "the CPU, which computes the same again: few or busy cores, or a machine that swaps",
}
_OF_OTHERS = ("gpu-memory", "no-code", "ptx", "cudnn", "library", "nccl")
_XID = "nvrm-xid"
_OOM_KILLER = "oom-killer"


def finding(facts: Facts, end: Ending) -> Finding:
    """The fault. What belongs to another layer's check is quoted here all the same: where that one speaks, this one is silent."""
    if end.kind == "killed" and _memory_ran_out(facts, end.smoke):
        return _host_memory(facts, end)
    if end.kind == "too-large" and end.smoke.device == "cpu":
        return _host_memory(facts, end)
    return _JUDGES.get(end.kind, _fails)(facts, end)


def _fault(code: str, summary: str, cause: str, end: Ending, fix: Fix, *, more: tuple[Evidence, ...] = ()) -> Finding:
    """What happened on a CPU does not go away when the GPU's faults are cured."""
    evidence = (end.evidence, *more)
    own = end.smoke.device == "cpu" and end.kind not in _OF_OTHERS
    return Finding(code, "fail", summary, cause, evidence, fix, stands_alone=own)


# ---------------------------------------------------------------- it was stopped


def _hangs(facts: Facts, end: Ending) -> Finding:
    smoke = end.smoke
    busy = _computing(facts)
    return _fault(
        "smoke-hangs",
        f"The smoke test fell silent in phase {smoke.phase} and was ended after {smoke.seconds_total:.0f} s",
        f"In this phase it waits for {_WAITS.get(smoke.phase, 'its end')}.{busy} What was done before that phase is well. The "
        "kernel log and the process's own stack say more; a reinstallation would not change what it waits for.",
        end,
        Fix("smoke#look-where-it-hangs"),
        more=_xids(facts),
    )


def _computing(facts: Facts) -> str:
    """Others at work on the GPU, who make it slow."""
    seen = visible(facts)
    if isinstance(seen, Unknown):
        return ""
    loads = [(gpu.index, gpu.utilization) for gpu in seen.gpus if isinstance(gpu.utilization, int) and gpu.utilization > 80]
    return f" GPU {loads[0][0]} was busy with others' work at {loads[0][1]} % before it began." if loads else ""


def _killed(facts: Facts, end: Ending) -> Finding:
    job = facts.system.scheduler if isinstance(facts.system, System) else None
    who = f" Here {job} started it, and ends what uses more time or memory than was asked for." if job else ""
    return _fault(
        "smoke-killed",
        f"The smoke test was ended from outside by {end.signal} in phase {end.smoke.phase}",
        "The program did not end itself, and the GPU had no part in it. The kernel does this when memory runs out, so do "
        f"systemd-oomd and the limits of a container or a job, and people.{who} The log of whoever did it has the reason.",
        end,
        Fix("smoke#find-who-ended-it"),
    )


def _crashes(facts: Facts, end: Ending) -> Finding:
    if end.signal == "SIGBUS" and end.smoke.phase == "load" and end.smoke.weights == "real":
        return _shorter(end)
    signal = end.signal or "a signal"
    why = {
        "SIGILL": "The processor lacks an instruction that a library uses: a build for newer processors.",
        "SIGBUS": "A file became shorter while it was read, its disk failed, or shared memory was full.",
    }.get(signal, "A library did what it may not: one that is damaged, of another release, or loaded in place of the right one.")
    return _fault(
        "smoke-crashes",
        f"The smoke test crashed in phase {end.smoke.phase} ({signal})",
        f"{why} Up to that phase all went well. Where in which library it was tells more than a guess: look before reinstalling.",
        end,
        Fix("smoke#trace-a-crash", _python(facts)),
        more=_xids(facts),
    )


def _shorter(end: Ending) -> Finding:
    return _fault(
        "smoke-crashes",
        "The checkpoint could not be read to its end (SIGBUS): it became shorter while it was loaded, or its disk failed",
        "When the test began, its files were as long as their headers say. Something writes to them still (a download, a copy, a "
        "second process), or the disk or network file system returned an error. PyTorch and the GPU have no part in it.",
        end,
        Fix("smoke#compare-checksums"),
    )


def _memory_ran_out(facts: Facts, smoke: Smoke) -> bool:
    """The kernel's log says so, or the numbers do: it took, or was about to take, what there was."""
    log = () if isinstance(facts.kernel_log, Unknown) else facts.kernel_log
    if any(symptom.id == _OOM_KILLER and "python" in (symptom.value("name") or "") for symptom in log):
        return True
    there = _host_memory_there(facts)
    return smoke.device == "cpu" and bool(smoke.needed_memory and there and smoke.needed_memory > there)


def _host_memory_there(facts: Facts) -> int | None:
    """What the test could have had: MemAvailable, or the cgroup's limit where that is less."""
    if isinstance(facts.system, Unknown):
        return None
    known = (facts.system.memory_available, facts.system.memory_limit)
    return min((size for size in known if isinstance(size, int)), default=None)


def _host_memory(facts: Facts, end: Ending) -> Finding:
    smoke, there = end.smoke, _host_memory_there(facts)
    needs = f" needs {gib(smoke.needed_memory)} GiB" if smoke.needed_memory and smoke.device == "cpu" else ""
    free = smoke.free_memory if smoke.device == "cpu" and smoke.free_memory else there
    has = f"; {gib(free)} GiB were available" if free is not None else ""
    limit = facts.system.memory_limit if isinstance(facts.system, System) else None
    summary = f"{smoke.checkpoint}{needs}{has}"
    if not needs or (free is not None and smoke.needed_memory is not None and smoke.needed_memory <= free):
        summary = f"The machine's memory ran out in phase {smoke.phase}{f': {smoke.checkpoint}{needs}' if needs else ''}{has}"
    return _fault(
        "host-memory-too-small",
        summary,
        _why_host_memory(end, f" This process may use {gib(limit)} GiB: a limit of its container or job." if limit else ""),
        end,
        Fix("memory#host-memory"),
        more=_killers(facts),
    )


def _why_host_memory(end: Ending, whose: str) -> str:
    if end.kind == "too-large":
        where = "on a CPU the model lives in the machine's own memory"
        return f"This was counted before anything was loaded: {where}.{whose}{_smaller_dtype(end.smoke)}"
    return (
        f"This is the machine's own memory, not the GPU's.{whose} While a checkpoint is loaded it passes through it, in some "
        'formats as a whole; on a CPU the model lives there. "Killed" without another word is what it looks like otherwise.'
    )


def _smaller_dtype(smoke: Smoke) -> str:
    """Half the bytes of a number are half of the weights, which is nearly all of it."""
    if smoke.dtype != "fp32" or not smoke.needed_memory or not smoke.free_memory or smoke.needed_memory // 2 > smoke.free_memory:
        return ""
    return f" With --dtype bf16 it needs half of that, {gib(smoke.needed_memory // 2)} GiB, which there is."


def _killers(facts: Facts) -> tuple[Evidence, ...]:
    log = () if isinstance(facts.kernel_log, Unknown) else facts.kernel_log
    return tuple(Evidence(symptom.source, symptom.text) for symptom in log if symptom.id == _OOM_KILLER)[:2]


# ---------------------------------------------------------------- an error that is known


def _gpu_fault(facts: Facts, end: Ending) -> Finding:
    words = (end.symptom.value("words") or end.symptom.text) if end.symptom else "a kernel failed"
    if "ECC" in words or "NVLink" in words:
        fix = Fix("hardware#memory-errors", (("GPU", _gpu(facts)),))
        why = "The card itself reports it: its memory, or the link to another card, returned what was not written."
    else:
        fix = Fix("hardware#unstable-gpu")
        why = (
            "The smoke test's own code reads nothing out of bounds, and the same kernels work elsewhere. A card whose clocks or "
            "voltage were changed, failing memory or power, or damaged files of PyTorch are what is left, in this order."
        )
    return _fault(
        "gpu-fault",
        f"A kernel failed on the GPU in phase {end.smoke.phase}: {capped(words, 120)}",
        f"{why} Results of other programs on this card deserve the same doubt until it is cleared.",
        end,
        fix,
        more=_xids(facts),
    )


def _gpu(facts: Facts) -> str:
    seen = visible(facts)
    return "0" if isinstance(seen, Unknown) or not seen.gpus else str(seen.gpus[0].index)


def _xids(facts: Facts) -> tuple[Evidence, ...]:
    log: tuple[Symptom, ...] = () if isinstance(facts.kernel_log, Unknown) else facts.kernel_log
    return tuple(Evidence(symptom.source, symptom.text) for symptom in log if symptom.id == _XID)[-3:]


def _assert(facts: Facts, end: Ending) -> Finding:  # noqa: ARG001 - the signature of every judge
    return _fault(
        "device-side-assert-index",
        "A kernel was given an index that does not exist, mostly a token id that the model's vocabulary lacks",
        "The tokenizer and the weights do not belong together, or tokens were added to the tokenizer and the embedding was not "
        "resized. On a CPU the same error names the index. GPU and driver are well.",
        end,
        Fix("smoke#match-tokenizer"),
    )


def _devices(facts: Facts, end: Ending) -> Finding:  # noqa: ARG001 - the signature of every judge
    symptom = end.symptom
    pair = f"{symptom.value('first')} and {symptom.value('second')}" if symptom and symptom.value("first") else "two devices"
    return _fault(
        "tensors-on-different-devices",
        f"An operation got tensors of {pair}",
        "Part of the model, or its input, is on another device than the rest: in the code that runs it, or because a layer was "
        "left on the CPU for want of GPU memory. Nothing that is installed is at fault.",
        end,
        Fix("smoke#same-device"),
    )


def _half(facts: Facts, end: Ending) -> Finding:
    if end.smoke.device == "cuda":
        return _fails(facts, end)
    dtype = {"Half": "fp16", "BFloat16": "bf16"}.get((end.symptom.value("dtype") or "") if end.symptom else "", "16 bits")
    return _fault(
        "half-not-supported-on-cpu",
        f"PyTorch has no code to compute in {dtype} on this CPU",
        "16-bit numbers are the GPU's. Older releases of PyTorch lack many operations on them for CPUs; fp32 works everywhere. If "
        "a GPU was meant, see why it was not used.",
        end,
        Fix("smoke#choose-dtype"),
    )


def _bf16(facts: Facts, end: Ending) -> Finding:
    capability = next(iter(capabilities(facts)), None)
    has = f" (compute capability {capability})" if capability else ""
    return _fault(
        "bf16-unsupported-gpu",
        f"{end.smoke.device_name or 'This GPU'}{has} does not compute in bf16",
        "bfloat16 began with Ampere, compute capability 8.0. fp16 takes as much memory and is as fast here; models that were "
        "trained in bf16 may overflow in it, and fp32 never does. Nothing that is installed is at fault.",
        end,
        Fix("smoke#choose-dtype"),
    )


def _ordinal(facts: Facts, end: Ending) -> Finding:
    seen = visible(facts)
    has = "" if isinstance(seen, Unknown) else f"; {len(seen.gpus)} can be seen"
    count = end.smoke.processes
    return _fault(
        "invalid-device-ordinal",
        f"{count} process{'' if count == 1 else 'es'} asked for a GPU each{has}",
        "A process named a GPU that it does not have. torchrun's --nproc_per_node has to be the number of GPUs at most, of those "
        "that CUDA_VISIBLE_DEVICES shows. Driver and PyTorch are well.",
        end,
        Fix("smoke#one-process-per-gpu"),
    )


def _port(facts: Facts, end: Ending) -> Finding:  # noqa: ARG001 - the signature of every judge
    port = (end.symptom.value("port") if end.symptom else None) or "29500"
    return _fault(
        "rendezvous-port-in-use",
        f"Port {port}, at which the processes meet, is taken",
        "Another run uses it, often one that was left behind and still lives. Neither GPU nor NCCL was asked yet.",
        end,
        Fix("smoke#free-the-port", (("PORT", port),)),
    )


def _package(facts: Facts, end: Ending) -> Finding:
    package = end.package or ""
    own = isinstance(facts.interpreter, Interpreter) and facts.interpreter.owner == "uv"
    why = (
        "Its weights are quantised, and that package knows their formats"
        if package == "gguf"
        else "Its architecture is not Llama's"
    )
    return _fault(
        "checkpoint-package-missing",
        f"{end.smoke.checkpoint} is read by the Python package {package}, which is not installed here",
        f"{why}. Nothing else is missing: PyTorch and what was tested before are well.",
        end,
        Fix("smoke#install-package-with-uv" if own else "smoke#install-package", (*_python(facts), ("PACKAGE", package))),
    )


_OF_A_RUN = frozenset(
    {
        "checkpoint-missing",
        "cuda-fork-reinit",
        "file-is-lfs-pointer-or-truncated",
        "flash-attention-gpu-too-old",
        "gated-repo-unauthorized",
        "model-parallel-mismatch",
        "weights-only-unpickling",
    }
)
_SURE = 80
"""Per cent from which a text that nobody but the rules for pasted ones knows is believed."""


def _told(facts: Facts, end: Ending) -> Finding | None:
    """What the rules for pasted texts make of its last words, where that is a fault of how it was run."""
    read = symptoms.read(end.smoke.error or "", "smoke test", pasted=True)
    found = suspected(replace(facts, complaint=Complaint("smoke test", read)))
    if not found or found[0].code not in _OF_A_RUN or found[0].sure < _SURE:
        return None
    return replace(found[0], evidence=(end.evidence,), stands_alone=end.smoke.device == "cpu", sure=100, apart="")


def _fails(facts: Facts, end: Ending) -> Finding:
    known_to_others = _told(facts, end)
    if known_to_others is not None:
        return known_to_others
    smoke = end.smoke
    last = (smoke.error or "").strip().splitlines()
    words = capped(last[-1], 160) if last else "it ended without a word"
    known = f" That means: {symptoms.condition(end.symptom.id)}." if end.symptom is not None else ""
    return _fault(
        "smoke-fails",
        f"The smoke test failed in phase {smoke.phase}: {words}",
        f"The error is PyTorch's or Python's own, and none of those whose cause is known here.{known} What was done before that "
        "phase is well and needs no reinstallation.",
        end,
        Fix("smoke#keep-the-error", _python(facts)),
        more=(Evidence("the whole error", capped(smoke.error, 1000)),) if smoke.error and len(last) > 1 else (),
    )


def _python(facts: Facts) -> tuple[tuple[str, str], ...]:
    target = facts.interpreter
    return () if target is None or isinstance(target, Unknown) else (("PYTHON", target.path),)


_JUDGES: dict[str, Callable[[Facts, Ending], Finding]] = {
    "hang": _hangs,
    "killed": _killed,
    "crash": _crashes,
    "host-memory": _host_memory,
    "gpu-fault": _gpu_fault,
    "assert": _assert,
    "devices": _devices,
    "half": _half,
    "bf16": _bf16,
    "ordinal": _ordinal,
    "port": _port,
    "package": _package,
}
