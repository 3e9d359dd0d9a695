"""Every allocation that PyTorch makes on the CPU, as its profiler reports them: what a piece of work holds at its widest."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

from torch.profiler import ProfilerActivity, profile


def sizes(work: Callable[[], Any]) -> list[int]:
    """Bytes of each piece of memory that is taken, below 0 of each given back, in their order."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = work()
    del result  # what it holds was held to the end
    # the documented way, a trace file of JSON, takes ten times as long to read
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


def widest(work: Callable[[], Any]) -> int:
    """Bytes held at the widest moment, beside what was held at the start."""
    return max(accumulate(sizes(work), initial=0))
