"""What counts as right: finite, like the CPU, the same twice; and what decoding has to read."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")

from gpudoctor.smoke import bandwidth, proofs, weights
from gpudoctor.smoke.model import Llama, Slice
from gpudoctor.smoke.plan import STORIES15M, Shape

TINY = Shape(dim=64, layers=4, heads=4, kv_heads=2, head_dim=16, hidden=160, vocab=300, max_seq_len=64)
DEEP = dataclasses.replace(TINY, layers=24, qk_norm=True, qkv_bias=True)
PROMPT = list(range(1, 12))


def model(shape: Shape, dtype: object = torch.float32, kind: type[Llama] = Llama) -> Llama:
    made = kind(shape, torch.empty(0, dtype=dtype), 2, 24)
    weights.randomise(made, seed=3)
    return made


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_none_makes_logits_not_finite(number: float) -> None:
    logits = torch.zeros(1, 3, 50)
    assert proofs.finite(logits)
    logits[0, 1, 7] = number
    assert not proofs.finite(logits)


@pytest.mark.parametrize("shape", [TINY, DEEP, STORIES15M], ids=["tiny", "deep", "stories15M"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
def test_rounding_stays_within_a_dtypes_tolerance(shape: Shape, dtype: object) -> None:
    difference, tolerance = proofs.agreement(model(shape, dtype), PROMPT)
    assert difference < tolerance / 2
    assert (difference == 0) == (dtype == torch.float32)
    assert tolerance == proofs.TOLERANCE[dtype]


class Shifted(Llama):
    """Computes the right numbers in the wrong places, as a kernel that reads beside its row would."""

    def forward(self, tokens: Any, slice_: Slice, last: bool) -> Any:
        return super().forward(tokens, slice_, last).roll(1, -1)


class Empty(Llama):
    """Gives no numbers."""

    def forward(self, tokens: Any, slice_: Slice, last: bool) -> Any:
        return super().forward(tokens, slice_, last) * float("nan")


class Deaf(Llama):
    """Every position sees all, also what comes after it: attention whose mask is left out."""

    def visible(self, positions: Any, seen: int) -> Any:
        return torch.zeros_like(super().visible(positions, seen))


@pytest.mark.parametrize("kind", [Shifted, Deaf, Empty])
@pytest.mark.parametrize("dtype", list(proofs.TOLERANCE), ids=str)
def test_a_kernel_that_computes_something_else_is_found(kind: type[Llama], dtype: object) -> None:
    difference, tolerance = proofs.agreement(model(TINY, dtype, kind), PROMPT)
    assert difference > 2 * tolerance


def test_of_a_large_model_the_first_layers_and_words_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model(TINY)
    monkeypatch.setattr(proofs, "WORDS", 100)
    part = proofs.excerpt(whole)
    assert (part.shape.layers, part.shape.vocab, len(part.layers)) == (2, 100, 2)
    assert part.embedding.data_ptr() == whole.embedding.data_ptr()
    assert (len(whole.layers), whole.shape.vocab) == (4, 300)
    assert proofs.agreement(whole, [250, 1, 2])[0] == 0


def test_a_single_layer_is_compared_however_large_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "SAMPLE", 1)
    assert proofs.excerpt(model(TINY)).shape.layers == 1


def test_no_rounding_to_tf32_is_left_switched_on_or_off() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        proofs.agreement(model(TINY), PROMPT)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_shorter_second_run_must_begin_like_the_first() -> None:
    assert proofs.repeats([1, 2, 3], [1, 2])
    assert proofs.repeats([1, 2, 3], [])
    assert not proofs.repeats([1, 2, 3], [1, 3])


@pytest.mark.parametrize("tied", [True, False])
def test_decoding_reads_every_weight_but_only_one_row_of_an_embedding(tied: bool) -> None:
    shape = dataclasses.replace(TINY, tied=tied)
    made = model(shape, torch.bfloat16)
    stored = sum(tensor.numel() for tensor in made.tensors().values())
    unread = 0 if tied else 299 * 64
    keys_and_values = 4 * 2 * 2 * 16 * 10
    assert proofs.read_per_token(made, 10) == 2 * (stored - unread + keys_and_values)


def test_memory_is_read_at_a_speed_of_this_world() -> None:
    assert 1e8 < bandwidth.summed(8 << 20) < 1e13
    measured = bandwidth.measured(torch.device("cpu"), 1 << 40)
    assert measured is not None
    assert 1e8 < measured < 1e13


def test_a_buffer_that_fits_into_a_cache_measures_no_memory() -> None:
    assert bandwidth.measured(torch.device("cpu"), 4 * bandwidth.LEAST - 1) is None
