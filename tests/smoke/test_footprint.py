"""The sums of smoke/footprint.py against every allocation that our own loop makes, from the first weight to the last token.

What a CPU does that no GPU does is kept below the tolerance by the choice of sizes: in bf16 attention works in buffers of some
100 kB for each thread, and in float32 the product of a matrix and one vector is shared out among threads (``model.linear``).
Hence one thread, and in bf16 matrices of a few MB.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")

from gpudoctor.smoke.footprint import Pass, footprint
from gpudoctor.smoke.generate import generate
from gpudoctor.smoke.model import Llama
from gpudoctor.smoke.plan import Shape
from tests.smoke.allocations import widest

TOLERANCE = 0.005
SHAPES = 48


class Case(NamedTuple):
    shape: Shape
    work: Pass
    dtype: str

    def __str__(self) -> str:
        s, w = self.shape, self.work
        extra = "".join(f"-{word}" for word, on in (("logprobs", w.every), ("sampled", w.sampled), ("tied", s.tied)) if on)
        model = f"{self.dtype}-{s.layers}x{s.dim}-{s.heads}:{s.kv_heads}x{s.head_dim}-{s.hidden}-{s.vocab}"
        return f"{model}-{w.rows}x{w.prompt}+{w.length - w.prompt}{extra}"


def cases() -> Iterator[Case]:
    """Realistic proportions by chance, the same ones each time; every option comes several times."""
    chance = random.Random(20)  # noqa: S311 - no secret: sizes
    for number in range(SHAPES):
        half = number % 3 == 0
        head_dim, heads = chance.choice([(64, 8)] if half else [(32, 4), (32, 8), (64, 4), (64, 8)])
        dim = heads * head_dim
        shape = Shape(
            dim=dim,
            layers=chance.choice([1, 2, 3]),
            heads=heads,
            kv_heads=chance.choice([count for count in (1, 2, 4, 8) if heads % count == 0]),
            head_dim=head_dim,
            hidden=chance.choice([dim * 8 // 3, dim * 7 // 2, dim * 4]),
            vocab=32000 if half else chance.choice([1000, 8000, 32000]),
            max_seq_len=2048,
            tied=number % 4 == 1,
            qkv_bias=number % 5 == 2,
            qk_norm=number % 7 == 3,
        )
        prompt, new = chance.choice([1, 2, 7, 60, 128, 300, 700, 1200]), chance.choice([1, 2, 3, 8, 60])
        rows = chance.choice([1, 2, 3, 8] if prompt * shape.vocab < 10**6 else [1])  # all logits take long to compute
        work = Pass(rows, prompt, prompt + new, every=number % 5 < 2, sampled=number % 8 < 3)
        yield Case(shape, work, "bfloat16" if half else "float32")


def measured(case: Case) -> int:
    shape, work = case.shape, case.work

    def run() -> object:
        model = Llama(shape, torch.empty(0, dtype=getattr(torch, case.dtype)), work.rows, work.length)
        for tensor in model.tensors().values():
            tensor.zero_()
        temperature = 0.8 if work.sampled else 0.0
        prompts = [[1] * work.prompt] * work.rows
        return generate(model, prompts, work.length - work.prompt, temperature=temperature, logprobs=work.every)

    return widest(run)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_what_our_loop_holds_at_its_widest_is_what_was_counted(case: Case) -> None:
    counted = footprint(case.shape, getattr(torch, case.dtype).itemsize, case.work).total
    found = measured(case)
    assert counted == pytest.approx(found, rel=TOLERANCE)


def test_most_cases_are_right_to_the_byte() -> None:
    few = [case for case in cases() if case.dtype == "float32" and case.work.prompt in (60, 128) and not case.work.sampled][:6]
    assert [footprint(case.shape, 4, case.work).total - measured(case) for case in few] == [0] * len(few)


def test_the_part_that_is_not_weights_is_counted_as_closely() -> None:
    """A long prompt through narrow layers: nine tenths are the cache and what passes through."""
    shape = Shape(dim=128, layers=2, heads=4, kv_heads=2, head_dim=32, hidden=448, vocab=1000, max_seq_len=2048)
    for work in (Pass(4, 1200, 1210), Pass(4, 700, 710, every=True)):
        counted = footprint(shape, 4, work)
        assert counted.weights < 0.1 * counted.total
        assert counted.total == pytest.approx(measured(Case(shape, work, "float32")), rel=TOLERANCE)
