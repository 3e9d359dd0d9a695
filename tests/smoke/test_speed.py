"""How fast the loop is on a CPU: against transformers, and against what the memory can deliver. One thread, float32."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")
pytest.importorskip("transformers", reason="transformers is the reference of these tests; .ci/run installs it")

from gpudoctor.smoke.generate import generate
from gpudoctor.smoke.plan import STORIES15M
from tests.smoke.reference import ours, reference

TOKENS = 128


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def test_speed_against_transformers_and_against_the_memory() -> None:
    """Measured in turns, since a machine is not equally fast all the time; the medians of seven rounds."""
    shape = dataclasses.replace(STORIES15M, max_seq_len=256)
    their = reference(shape)
    mine = ours(shape, their)
    buffer = torch.ones(64 << 20)  # 256 MiB of float32
    start = [1, 5, 100, 7]
    work: dict[str, Callable[[], object]] = {
        "memory": buffer.sum,
        "ours": lambda: generate(mine, [start], TOKENS, temperature=0),
        "transformers": lambda: their.generate(torch.tensor([start]), max_new_tokens=TOKENS, do_sample=False),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [{name: seconds(run) for name, run in work.items()} for _ in range(8)][1:]
    finally:
        torch.set_num_threads(threads)
    limits = [buffer.nbytes / taken["memory"] / (shape.parameters * 4) for taken in rounds]
    speeds = [TOKENS / taken["ours"] for taken in rounds]
    share = statistics.median(speed / limit for speed, limit in zip(speeds, limits, strict=True))
    ratio = statistics.median(taken["transformers"] / taken["ours"] for taken in rounds)
    sys.stdout.write(f"{statistics.median(speeds):.0f} tok/s, {share:.2f} of the memory's limit, {ratio:.1f} x transformers\n")
    assert ratio >= 2.5
    assert share >= 0.55
