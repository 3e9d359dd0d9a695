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
BUFFER = 256 << 20  # bytes of float32 that are summed
LEAST_RATIO, LEAST_SHARE = 2.5, 0.55


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measured(work: dict[str, Callable[[], object]], weights: int) -> tuple[float, float, float]:
    """(tokens per second, share of the memory's limit, times as fast as transformers): medians of seven rounds, taken in turns."""
    rounds = [{name: seconds(run) for name, run in work.items()} for _ in range(8)][1:]
    limits = [BUFFER / taken["memory"] / weights for taken in rounds]
    speeds = [TOKENS / taken["ours"] for taken in rounds]
    share = statistics.median(speed / limit for speed, limit in zip(speeds, limits, strict=True))
    return statistics.median(speeds), share, statistics.median(taken["transformers"] / taken["ours"] for taken in rounds)


def test_speed_against_transformers_and_against_the_memory() -> None:
    """Up to four times: where others on the same host take the memory's bandwidth, a loop that lives by it shows that first."""
    shape = dataclasses.replace(STORIES15M, max_seq_len=256)
    their = reference(shape)
    mine = ours(shape, their)
    buffer = torch.ones(BUFFER // 4)
    start = [1, 5, 100, 7]
    work: dict[str, Callable[[], object]] = {
        "memory": buffer.sum,
        "ours": lambda: generate(mine, [start], TOKENS, temperature=0),
        "transformers": lambda: their.generate(torch.tensor([start]), max_new_tokens=TOKENS, do_sample=False),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(4):
            speed, share, ratio = measured(work, shape.parameters * 4)
            sys.stdout.write(f"{speed:.0f} tok/s, {share:.2f} of the memory's limit, {ratio:.1f} x transformers\n")
            if ratio >= LEAST_RATIO and share >= LEAST_SHARE:
                return
    finally:
        torch.set_num_threads(threads)
    pytest.fail(f"in none of four measurements {LEAST_RATIO} x transformers and {LEAST_SHARE} of the memory's limit")
