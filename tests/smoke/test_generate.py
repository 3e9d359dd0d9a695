"""The loop and the model against transformers' on the same weights, and against its own definition."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")
pytest.importorskip("transformers", reason="transformers is the reference of these tests; .ci/run installs it")

from gpudoctor.smoke.generate import generate, sample
from gpudoctor.smoke.model import Llama
from gpudoctor.smoke.plan import STORIES15M, RopeScaling, Shape
from tests.smoke.reference import ours, reference

TINY = Shape(dim=48, layers=3, heads=6, kv_heads=2, head_dim=8, hidden=80, vocab=211, max_seq_len=96)
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@pytest.fixture(scope="module")
def tiny() -> Llama:
    return ours(TINY, reference(TINY), rows=8)


def prompt(length: int, seed: int = 1) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, TINY.vocab, (length,), generator=generator).tolist()


# ---------------------------------------------------------------- against transformers


def test_greedy_tokens_of_a_stories15m_shaped_model_equal_transformers() -> None:
    shape = dataclasses.replace(STORIES15M, max_seq_len=512)
    their = reference(shape)
    start = [1, 5, 100, 7]
    wanted = their.generate(torch.tensor([start]), max_new_tokens=256, do_sample=False)[0, len(start) :].tolist()
    found = generate(ours(shape, their), [start], 256, temperature=0)[0].tokens
    assert len(set(wanted)) > 100  # not one token for ever
    assert found == wanted


@pytest.mark.parametrize(
    ("family", "shape", "options"),
    [
        ("Llama", TINY, {}),
        ("Llama", dataclasses.replace(TINY, tied=True, rope_theta=500000.0), {}),
        (
            "Llama",
            dataclasses.replace(TINY, rope_scaling=RopeScaling("linear", 4.0)),
            {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        ),
        (
            "Llama",
            dataclasses.replace(TINY, head_dim=32, rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 32)),
            {"rope_scaling": LLAMA3},
        ),
        ("Mistral", dataclasses.replace(TINY, window=12), {"sliding_window": 12}),
        ("Qwen2", dataclasses.replace(TINY, qkv_bias=True, tied=True, norm_eps=1e-6), {}),
        ("Qwen3", dataclasses.replace(TINY, qk_norm=True, head_dim=16, norm_eps=1e-6), {}),
    ],
    ids=["llama", "tied", "linear", "llama3", "mistral-window", "qwen2", "qwen3"],
)
def test_logits_and_greedy_tokens_of_each_family_equal_transformers(family: str, shape: Shape, options: dict[str, Any]) -> None:
    their = reference(shape, family, **options)
    mine = ours(shape, their)
    tokens = torch.tensor([prompt(40)])
    wanted = their(tokens).logits
    assert (mine(tokens, 0) - wanted).abs().max() < 1e-4
    text = their.generate(tokens, max_new_tokens=40, do_sample=False)[0, 40:].tolist()
    assert generate(mine, tokens.tolist(), 40, temperature=0)[0].tokens == text


# ---------------------------------------------------------------- the loop's own promises


def test_logits_are_the_same_in_one_slice_or_in_many(tiny: Llama) -> None:
    tokens = torch.tensor([prompt(20)])
    whole = tiny(tokens, 0)
    parts = [tiny(tokens[:, start:end], start) for start, end in ((0, 7), (7, 8), (8, 19), (19, 20))]
    assert (torch.cat(parts, 1) - whole).abs().max() < 1e-5
    assert (tiny(tokens, 0, last=True) - whole[:, -1:]).abs().max() < 1e-5


def test_rows_of_different_length_equal_the_rows_run_alone(tiny: Llama) -> None:
    prompts = [prompt(length, seed=length) for length in (3, 17, 9, 1)]
    together = generate(tiny, prompts, 30, temperature=0, logprobs=True, echo=True)
    for row, alone in zip(
        together, [generate(tiny, [p], 30, temperature=0, logprobs=True, echo=True)[0] for p in prompts], strict=True
    ):
        assert row.tokens == alone.tokens
        assert row.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


@pytest.mark.parametrize("echo", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_log_probabilities_equal_the_log_softmax_of_a_full_pass(tiny: Llama, echo: bool, temperature: float) -> None:
    prompts = [prompt(5), prompt(12, seed=2)]
    generator = torch.Generator().manual_seed(3)
    for start, row in zip(prompts, generate(tiny, prompts, 20, temperature, 1.0, True, echo, generator=generator), strict=True):
        assert row.logprobs is not None
        full = row.tokens if echo else start + row.tokens
        logits = tiny(torch.tensor([full]), 0)[0]
        wanted = [0.0] + [float(torch.log_softmax(logits[i], -1)[full[i + 1]]) for i in range(len(full) - 1)]
        assert row.logprobs == pytest.approx(wanted if echo else wanted[len(start) :], abs=1e-4)
        assert min(row.logprobs[1:]) < 0


def test_log_probabilities_of_the_prompt_alone(tiny: Llama) -> None:
    start = prompt(6)
    row = generate(tiny, [start], 0, logprobs=True, echo=True)[0]
    assert row.tokens == start
    wanted = torch.log_softmax(tiny(torch.tensor([start]), 0)[0], -1)
    assert row.logprobs == pytest.approx([0.0, *(float(wanted[i, start[i + 1]]) for i in range(5))], abs=1e-5)


def test_end_of_sequence_ends_a_row_and_only_beyond_its_prompt(tiny: Llama) -> None:
    free = generate(tiny, [prompt(4), prompt(9, seed=5)], 12, temperature=0)
    end = free[0].tokens[5]
    started = [*prompt(4)[:3], end]  # the end token inside a prompt is not an end
    rows = generate(tiny, [prompt(4), prompt(9, seed=5), started], 12, temperature=0, eos=(end, 10**6))
    assert rows[0].tokens == free[0].tokens[: free[0].tokens.index(end)]
    assert rows[1].tokens == (free[1].tokens[: free[1].tokens.index(end)] if end in free[1].tokens else free[1].tokens)
    echoed = generate(tiny, [started], 3, temperature=0, eos=(end,), echo=True)[0].tokens
    assert echoed[:4] == started


def test_it_stops_when_every_row_has_ended(tiny: Llama) -> None:
    calls: list[int] = []

    def counted(model: Llama, tokens: Any, position: int) -> Any:
        calls.append(position)
        return model(tokens[:, None], position)[:, 0]

    first = generate(tiny, [prompt(4)], 1, temperature=0)[0].tokens[0]
    assert generate(tiny, [prompt(4)], 50, temperature=0, eos=(first,), step=counted)[0].tokens == []
    assert calls == []


def test_no_new_tokens(tiny: Llama) -> None:
    prompts = [prompt(3), prompt(8)]
    assert [row.tokens for row in generate(tiny, prompts, 0)] == [[], []]
    assert [row.tokens for row in generate(tiny, prompts, 0, echo=True)] == prompts
    assert generate(tiny, [], 5) == []


def test_a_text_ends_where_the_cache_does(tiny: Llama) -> None:
    rows = generate(tiny, [prompt(90), prompt(50)], 40, temperature=0)
    assert [len(row.tokens) for row in rows] == [6, 40]
    assert generate(tiny, [prompt(96)], 40, temperature=0)[0].tokens == []


@pytest.mark.parametrize(
    ("prompts", "options", "numbers"),
    [
        ([[1]] * 9, {}, ("9", "8")),
        ([[1], list(range(97))], {}, ("prompt 2", "97", "96")),
        ([[1], []], {}, ("prompt 2", "empty")),
        ([[211]], {}, ("211",)),
        ([[-1]], {}, ("-1", "211")),
        ([[1]], {"temperature": -0.1}, ("-0.1",)),
        ([[1]], {"temperature": math.nan}, ("nan",)),
        ([[1]], {"temperature": math.inf}, ("inf",)),
        ([[1]], {"top_p": 1.01}, ("1.01",)),
        ([[1]], {"top_p": -0.5}, ("-0.5",)),
        ([[1]], {"top_p": math.nan}, ("nan",)),
        ([[1]], {"max_gen_len": -1}, ("-1",)),
    ],
)
def test_what_cannot_be_generated_is_said_with_its_numbers(
    tiny: Llama, prompts: list[list[int]], options: dict[str, Any], numbers: tuple[str, ...]
) -> None:
    arguments: dict[str, Any] = {"max_gen_len": 5, **options}
    with pytest.raises(ValueError, match=".*".join(numbers)):
        generate(tiny, prompts, **arguments)


# ---------------------------------------------------------------- sampling


def exact(logits: list[float], temperature: float, top_p: float) -> list[float]:
    """The distribution by enumeration: the smallest set of the likeliest tokens that reaches top_p, renormalised."""
    weights = [math.exp(value / temperature) for value in logits]
    shares = [weight / sum(weights) for weight in weights]
    kept: list[int] = []
    for token in sorted(range(len(shares)), key=lambda t: -shares[t]):
        if kept and sum(shares[t] for t in kept) >= top_p:
            break
        kept.append(token)
    total = sum(shares[t] for t in kept)
    return [shares[t] / total if t in kept else 0.0 for t in range(len(shares))]


@pytest.mark.parametrize("temperature", [0.3, 0.6, 1.0, 2.5])
@pytest.mark.parametrize("top_p", [0.0, 0.2, 0.5, 0.9, 0.999, 1.0])
def test_the_distribution_is_the_enumerated_one(temperature: float, top_p: float) -> None:
    logits = [0.3, 1.7, -2.0, 1.1, 0.0, -0.4, 2.2]
    generator = torch.Generator().manual_seed(11)
    count = 40000
    drawn = sample(torch.tensor([logits]).repeat(count, 1), temperature, top_p, generator)
    found = (torch.bincount(drawn, minlength=len(logits)) / count).tolist()
    wanted = exact(logits, temperature, top_p)
    assert [share for share, expected in zip(found, wanted, strict=True) if expected == 0 and share > 0] == []
    for share, expected in zip(found, wanted, strict=True):  # five standard deviations
        assert share == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / count) + 1e-9)


def test_temperature_0_and_top_p_0_take_the_likeliest() -> None:
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(2))
    assert sample(logits, 0, 0.9).tolist() == logits.argmax(-1).tolist()
    assert sample(logits, 1.0, 0.0).tolist() == logits.argmax(-1).tolist()


def test_the_same_seed_gives_the_same_text(tiny: Llama) -> None:
    texts = [
        generate(tiny, [prompt(4)], 20, 1.0, 0.95, generator=torch.Generator().manual_seed(seed))[0].tokens for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
