"""Decoding with a stopwatch: one sequence, greedily, with what decodes fastest on this device."""

from __future__ import annotations

import contextlib
import time
from typing import Callable, Iterator, NamedTuple, Sequence

import torch

from .bandwidth import BUFFER
from .device import settle
from .generate import Model, Step, decode, generate
from .model import Llama
from .plan import Plan

PACE = 0.1  # seconds between two words on progress


class Run(NamedTuple):
    """One sequence: what was generated, and how fast."""

    tokens: list[int]
    tokens_per_second: float | None
    """The first token apart; None where there was no other."""


class Watch:
    """A decode step that knows when the first was made, and says how many there are."""

    def __init__(self, step: Step, say: Callable[..., None]) -> None:
        """Watch ``step``."""
        self.step, self.say, self.steps = step, say, 0
        self.began = self.said = 0.0

    def __call__(self, model: Model, tokens: torch.Tensor, position: int) -> torch.Tensor:
        """As ``decode``."""
        if self.steps == 0:
            settle(tokens.device)  # the first token is there
            self.began = time.perf_counter()
        self.steps += 1
        if time.perf_counter() > self.said + PACE:
            self.said = time.perf_counter()
            self.say(token=self.steps)
        return self.step(model, tokens, position)


@contextlib.contextmanager
def threads(plan: Plan) -> Iterator[None]:
    """One thread for a small model of random numbers, which is there to be right, not fast; as many as PyTorch likes otherwise.

    Threads that wait for each other after each of its hundreds of small steps gain a third on an idle machine, and take fifty
    times as long on one that is busy.
    """
    before = torch.get_num_threads()
    small = plan.shape is not None and not plan.pieces and plan.shape.parameters * 4 < BUFFER
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)


def fastest(model: Model, note: Callable[[str], None]) -> Step:
    """The decode step for one sequence: on a GPU as a CUDA graph, unless the model or this build cannot be captured."""
    if not isinstance(model, Llama) or not model.norm.is_cuda:
        return decode
    from .graph import Graph

    try:
        return Graph(model, 1)
    except RuntimeError as error:
        torch.cuda.synchronize()  # what is broken beyond the capture shows itself here
        note("decoded without a CUDA graph: " + str(error).split("\n", 1)[0])
        return decode


def decoded(model: Model, prompt: Sequence[int], new: int, step: Step, say: Callable[..., None]) -> Run:
    """``new`` greedy tokens after ``prompt``, timed. No end of sequence is looked for: that would wait for each token."""
    watch = Watch(step, say)
    (completion,) = generate(model, [prompt], new, temperature=0, step=watch)
    seconds = time.perf_counter() - watch.began  # the tokens have come from the device
    return Run(completion.tokens, watch.steps / seconds if watch.steps and seconds > 0 else None)
