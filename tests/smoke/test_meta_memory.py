"""memory/runtimes/meta.py against every allocation of a forward pass that is made as Meta's code makes its own.

In float16, in which a CPU multiplies without buffers of its own; half precision is that of Meta's code. What several processes
share out is not measured: the sums divide by them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")

from gpudoctor.contents import Architecture
from gpudoctor.memory.model import Model
from gpudoctor.memory.need import Need, Work
from gpudoctor.memory.runtimes import meta
from tests.smoke.allocations import widest
from tests.smoke.meta_forward import Transformer, generated

TOLERANCE = 0.005
SHAPES = 48


def cases() -> Iterator[tuple[Architecture, Work]]:
    """Realistic proportions by chance, the same ones each time."""
    chance = random.Random(23)  # noqa: S311 - no secret: sizes
    for _ in range(SHAPES):
        head_dim, heads = chance.choice([(32, 4), (32, 8), (64, 4), (64, 8), (128, 4)])
        dim = heads * head_dim
        a = Architecture(
            family="llama",
            layers=chance.choice([1, 2]),
            dim=dim,
            heads=heads,
            kv_heads=chance.choice([count for count in (1, 2, 4, 8) if heads % count == 0]),
            head_dim=head_dim,
            hidden=chance.choice([dim * 8 // 3, dim * 7 // 2, dim * 4]),
            vocab=chance.choice([1000, 8000, 32000]),
            max_seq_len=2048,
        )
        prompt, new = chance.choice([1, 2, 8, 32, 100, 250]), chance.choice([1, 2, 40, 400])
        rows = chance.choice([1, 2, 5] if prompt * a.vocab < 10**6 else [1])
        yield a, Work(batch=rows, prompt=prompt, new=new, length=prompt + new + chance.choice([0, 0, 100]))


def name(case: tuple[Architecture, Work]) -> str:
    a, work = case
    return f"{a.layers}x{a.dim}-{a.heads}:{a.kv_heads}x{a.head_dim}-{a.hidden}-{a.vocab}-{work.batch}x{work.prompt}+{work.new}"


def model_of(a: Architecture) -> Model:
    matrices = a.dim * (2 * a.heads * a.head_dim + 2 * a.kv_heads * a.head_dim + 3 * a.hidden)
    ends = a.vocab * a.dim
    return Model("case", a, embedding=ends, head=ends, linear=a.layers * matrices, other=a.dim * (2 * a.layers + 1))


def counted(a: Architecture, work: Work) -> Need:
    return meta.need(model_of(a), work, None)


@pytest.mark.parametrize("case", list(cases()), ids=name)
def test_what_metas_code_holds_at_its_widest_is_what_was_counted(case: tuple[Architecture, Work]) -> None:
    a, work = case
    found = widest(lambda: generated(Transformer(a, work.batch, work.room, torch.float16), work.batch, work.prompt, work.tokens))
    need = counted(a, work)
    assert need.allocated - need.workspace == pytest.approx(found, rel=TOLERANCE)  # a CPU has no cuBLAS


def test_each_kind_of_widest_moment_is_among_the_cases() -> None:
    """Else a sum could be wrong and never be the largest."""
    kinds = set()
    for a, work in cases():
        first = meta.one_pass(a, work.batch, work.prompt, work.prompt, 1)
        kinds.add("a later pass" if meta.widest(a, work) > first else "the first pass")
        n = work.batch * work.prompt
        kinds.add("logits" if n * a.vocab * 6 + n * a.dim * 2 + (n * work.prompt * 2 if n > 1 else 0) >= first else "a layer")
    assert kinds == {"the first pass", "a later pass", "logits", "a layer"}
