"""Several processes that compute one model: the process group, the proof that it adds up, and the start under torchrun.

torchrun's agent runs in this process, which has PyTorch imported already; each rank is a process of its own (``rank``). What the
ranks say comes over one pipe and is passed on here. They inherit no descriptor: they open this process's by /proc.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from typing import Any, Callable, NamedTuple

import torch
import torch.distributed as dist

from .device import free, settle
from .plan import Plan, Shape, to_json

Say = Callable[..., None]
PATIENCE = dt.timedelta(minutes=10)  # another rank may still load; it is the doctor who notices when none says a word
CPU_BYTES, GPU_BYTES = 8 << 20, 256 << 20  # of the all-reduce that is timed
PASSES = 5
LAUNCHER = ("PET_", "TORCHELASTIC_")
"""Variables by which torchrun takes options: those of a job around this one, with nodes of its own to wait for."""


class Place(NamedTuple):
    """Which of how many processes this one is."""

    rank: int = 0
    world: int = 1


# ---------------------------------------------------------------- the process group


def join(device: torch.device, place: Place) -> str | None:
    """Start torch.distributed as torchrun's processes do; the backend, or None where this build has none.

    A world of one needs no address, port or host name. Several processes find each other by the variables that torchrun sets.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    if os.path.exists("/sys/class/net/lo"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it asks what the host's name resolves to, and waits for that
    if place.world > 1:
        dist.init_process_group(backend, timeout=PATIENCE)
        return backend
    if lacks(backend) is not None:
        return None
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=PATIENCE)
    return backend


def lacks(backend: str) -> str | None:
    """Why there can be no process group, in words, or None."""
    if not dist.is_available():
        return "this PyTorch is built without torch.distributed"
    there = dist.is_nccl_available() if backend == "nccl" else getattr(dist, "is_gloo_available", lambda: True)()
    return None if there else "this PyTorch is built without %s" % {"nccl": "NCCL", "gloo": "Gloo"}[backend]


def adds_up(device: torch.device, place: Place) -> bool:
    """Whether an all-reduce of known numbers gives their sum: rank r brings (r + 1) times 0, 1, 2, ..."""
    numbers = torch.arange(1000.0, device=device)  # sums below 2^24, which float32 holds exactly
    brought = numbers * (place.rank + 1)
    dist.all_reduce(brought)
    return bool((brought == numbers * (place.world * (place.world + 1) // 2)).all())


def bus_bandwidth(device: torch.device, place: Place) -> int | None:
    """Bytes per second, counted as nccl-tests does: size / time x 2 (n - 1) / n. None for a process alone."""
    if place.world == 1:
        return None
    size = CPU_BYTES if device.type == "cpu" else min(GPU_BYTES, free(device) // 8)
    zeros = torch.zeros(size // 4, device=device)
    best = float("inf")
    for _ in range(PASSES):
        settle(device)
        started = time.perf_counter()
        dist.all_reduce(zeros)
        settle(device)
        best = min(best, time.perf_counter() - started)
    return int(zeros.numel() * 4 / best * 2 * (place.world - 1) / place.world)


def total(part: torch.Tensor) -> torch.Tensor:
    """The sum of all processes' parts."""
    dist.all_reduce(part)
    return part


def share(shape: Shape, world: int) -> Shape:
    """The shape of one process's part: so many of the heads and of the feed-forward part's width."""
    return dataclasses.replace(shape, heads=shape.heads // world, kv_heads=shape.kv_heads // world, hidden=shape.hidden // world)


# ---------------------------------------------------------------- the start


def launch(plan: Plan, say: Say) -> None:
    """Carry out the plan in ``plan.processes`` processes under torchrun, and pass on what they say.

    Where ranks fail, the one that was first is named last, by what it said or by how it ended.
    """
    read_end, write_end = os.pipe()
    plan_file = os.memfd_create("gpudoctor-plan")
    os.write(plan_file, json.dumps(to_json(plan)).encode("ascii"))
    os.environ.update(GPUDOCTOR_PARENT=str(os.getpid()), GPUDOCTOR_PLAN_FD=str(plan_file), GPUDOCTOR_REPORT_FD=str(write_end))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // plan.processes)))
    logs = plan.scratch or tempfile.mkdtemp(prefix="gpudoctor-")
    failures: dict[int, str] = {}
    relay = threading.Thread(target=pass_on, args=(read_end, say, failures, logs), daemon=True)
    relay.start()
    dead = torchrun(plan.processes, logs)
    os.close(write_end)
    relay.join(timeout=5)
    shutil.rmtree(logs, ignore_errors=True)
    if failures or dead:
        rank, why = blame(failures, dead)
        say(failed=why, rank=rank)


def torchrun(processes: int, logs: str) -> dict[int, int]:
    """Run the ranks to their end; the exit codes of those that failed by themselves, by rank."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for name in [name for name in os.environ if name.startswith(LAUNCHER)]:
        del os.environ[name]
    options = ["--standalone", "--local_addr=127.0.0.1", "--monitor_interval=0.1", "--log_dir=" + logs]
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rank.py")
    try:
        run.run(run.parse_args([*options, "--nproc_per_node=%d" % processes, script]))
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    return {}


def pass_on(read_end: int, say: Say, failures: dict[int, str], logs: str) -> None:
    """Say what the ranks write, until the last has gone. Failures are kept: which was the first is known at the end."""
    with os.fdopen(read_end, encoding="ascii", errors="replace") as lines:
        for line in lines:
            values: dict[str, Any] = json.loads(line)
            shutil.rmtree(logs, ignore_errors=True)  # torchrun wants a folder to start with; nothing is written to it
            if "failed" in values:
                failures.setdefault(int(values["rank"]), str(values["failed"]))
            else:
                say(**values)


def blame(failures: dict[int, str], dead: dict[int, int]) -> tuple[int, str]:
    """The rank that failed first, and why: when one dies, the others fail too, for want of an answer from it."""
    silent = [rank for rank in sorted(dead) if rank not in failures and dead[rank] != -signal.SIGTERM]  # that is torchrun's own
    if silent:
        return silent[0], "rank %d %s" % (silent[0], ending(dead[silent[0]]))
    return next(iter(failures.items()), (0, "torchrun ended the processes"))


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return "ended with exit code %d" % code
    try:
        return "was ended by %s" % signal.Signals(-code).name
    except ValueError:
        return "was ended by signal %d" % -code
