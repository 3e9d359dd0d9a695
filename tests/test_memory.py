"""What holds of the count for any model, program and work; the ways out; and the story's own case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudoctor import fitting
from gpudoctor.knowledge import dtypes, models
from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.memory import card as cards
from gpudoctor.memory.card import Card, Holder
from gpudoctor.memory.host import host
from gpudoctor.memory.model import of_known
from gpudoctor.memory.need import CONTEXT, CONTEXT_LEAST, GIB, Need, Work
from gpudoctor.memory.options import Option, options
from gpudoctor.memory.question import Question
from gpudoctor.memory.runtimes import RUNTIMES, by_name
from gpudoctor.memory.verdict import verdict
from tests.checkpoints import TINY, seeded, write_gguf

MODELS = tuple(of_known(known) for known in models.known())
WORTH = {"no": 0, "tight": 1, "fits": 2}
STORY = Work(batch=4, prompt=32, new=96, length=128)

any_size = st.integers(0, 2 * 10**12)
any_model = st.sampled_from(MODELS)
any_runtime = st.sampled_from(RUNTIMES)
any_version = st.sampled_from([None, "4.38", "4.43", "4.46", "4.55", "5.0"])
any_dtype = st.one_of(st.none(), st.sampled_from(dtypes.known()))
any_work = st.builds(
    Work,
    batch=st.integers(1, 64),
    prompt=st.integers(1, 40_000),
    new=st.integers(1, 4_000),
    length=st.one_of(st.none(), st.integers(1, 140_000)),
    gpus=st.sampled_from([1, 1, 1, 2, 4, 8]),
    hopper=st.booleans(),
    ampere=st.booleans(),
)
any_question = st.builds(Question, any_model, any_runtime, any_work, any_dtype, version=any_version)
any_card = st.builds(
    lambda free, held: Card("a card", free + held, free, holders=(Holder(7, "python", None, "compute", held),)),
    st.integers(0, 200 * GIB),
    st.integers(0, 40 * GIB),
)


def ask(name: str, runtime: str, card: Card, work: Work, dtype: str | None = None, version: str | None = None) -> Question:
    known, program = models.by_name(name), by_name(runtime)
    assert known is not None
    assert program is not None
    return Question(of_known(known), program, work, None if dtype is None else dtypes.of(dtype), card, version)


# ---------------------------------------------------------------- of any question


@given(any_question)
def test_no_part_is_negative_and_the_parts_add_up(question: Question) -> None:
    need = question.need
    parts = (need.weights, need.kv_cache, need.activations, need.workspace, need.context)
    assert all(isinstance(part, int) and part >= 0 for part in parts)
    assert need.total == sum(parts)
    assert need.least <= need.total <= need.most


@given(any_question, any_size, any_size)
def test_more_free_memory_never_makes_the_verdict_worse(question: Question, free: int, more: int) -> None:
    need = question.need
    assert WORTH[verdict(need, free)] <= WORTH[verdict(need, free + more)]


@given(any_question, st.integers(1, 10_000))
def test_a_longer_prompt_never_needs_less(question: Question, more: int) -> None:
    work = question.work
    length = None if work.length is None else work.length + more  # else fewer tokens would be made, which can need less
    longer = question.but(work=replace(work, prompt=work.prompt + more, length=length))
    assert longer.need.total >= question.need.total


@given(any_question, st.integers(1, 2_000))
def test_a_longer_answer_never_needs_less(question: Question, more: int) -> None:
    longer = question.but(work=replace(question.work, new=question.work.new + more))
    assert longer.need.total >= question.need.total


@given(any_question, st.integers(1, 64))
def test_more_sequences_at_a_time_never_need_less(question: Question, more: int) -> None:
    larger = question.but(work=replace(question.work, batch=question.work.batch + more))
    assert larger.need.total >= question.need.total


@given(any_question, st.sampled_from(dtypes.known()), st.sampled_from(dtypes.known()))
def test_fewer_bits_never_need_more(question: Question, one: Dtype, other: Dtype) -> None:
    if one.linear > other.linear or one.rest > other.rest:
        return
    assert question.but(dtype=one).need.total <= question.but(dtype=other).need.total


@given(any_question, any_card)
@settings(deadline=None)  # the options look through every known model and card
def test_what_an_option_promises_is_so(question: Question, card: Card) -> None:
    question = question.but(card=card)
    for option in options(question):
        assert option.commands, option
        assert option.need > 0
        if option.action in {"more-gpus", "bigger-card", "free-memory"}:
            continue  # more memory than this card has free
        if option.verdict == "fits":
            assert option.need <= card.free, option


@given(any_question, any_card)
@settings(deadline=None)
def test_no_shorter_work_is_proposed_where_the_weights_alone_are_too_large(question: Question, card: Card) -> None:
    question = question.but(card=card)
    if question.need.weights > (card.total or card.free):
        assert "shorter" not in {option.action for option in options(question)}


@given(any_question, any_card)
@settings(deadline=None)
def test_where_it_fits_nothing_is_proposed(question: Question, card: Card) -> None:
    question = question.but(card=card)
    assert question.verdict != "fits" or options(question) == ()


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("free", "answer"),
    [(10 * GIB, "no"), (10 * GIB + CONTEXT_LEAST, "tight"), (10 * GIB + CONTEXT, "tight"), (11 * GIB, "fits")],
)
def test_the_last_megabytes_are_tight(free: int, answer: str) -> None:
    assert verdict(Need(9 * GIB, GIB, 0, 0), free) == answer


# ---------------------------------------------------------------- the story


def test_the_storys_model_does_not_fit_its_card_and_nothing_shorter_would() -> None:
    """Llama 2 7B by Meta's code, four sequences of 128 tokens, on an RTX 4070."""
    question = ask("llama-2-7b", "meta", cards.named("RTX 4070"), STORY)
    need = question.need
    assert question.verdict == "no"
    assert need.allocated / GIB == pytest.approx(12.83, abs=0.005)
    assert need.weights / GIB == pytest.approx(12.55, abs=0.005)
    assert need.kv_cache / GIB == 0.25
    ways = options(question)
    assert [option.action for option in ways] == ["8-bit", "4-bit", "smaller-model", "offload", "more-gpus", "bigger-card"]


def test_one_sequence_less_changes_nothing_where_the_weights_are_too_large() -> None:
    smaller = ask("llama-2-7b", "meta", cards.named("RTX 4070"), Work(1, 1, 1, 2))
    assert smaller.verdict == "no"
    assert smaller.too_large


# ---------------------------------------------------------------- each way out


HELD = Card("RTX 4070", 12 * GIB, 3 * GIB, holders=(Holder(41, "python", "me", "compute", 8 * GIB),))
LONG = Work(1, 30_000, 100)

CASES = {
    "free-memory": ask("llama-3.2-3b", "transformers", HELD, Work()),
    "shorter": ask("llama-2-7b", "transformers", cards.named("RTX 4080"), Work(64, 512, 512)),
    "upgrade-runtime": ask("qwen2-7b", "transformers", cards.named("RTX 4090"), LONG, version="4.38"),
    "8-bit": ask("llama-2-7b", "transformers", cards.named("RTX 4070"), Work()),
    "4-bit": ask("llama-2-13b", "transformers", cards.named("RTX 4070"), Work()),
    "smaller-model": ask("llama-2-70b", "vllm", cards.named("RTX 4090"), Work(length=1024)),
    "offload": ask("llama-2-13b", "llama.cpp", cards.named("RTX 4070"), Work()),
    "more-gpus": ask("llama-2-13b", "vllm", cards.named("RTX 4090"), Work(length=2048)),
    "bigger-card": ask("llama-2-7b", "gpudoctor", cards.named("RTX 4070"), Work()),
}


@pytest.mark.parametrize("action", CASES)
def test_each_action_has_a_case_in_which_it_helps(action: str) -> None:
    found: dict[str, Option] = {option.action: option for option in options(CASES[action])}
    assert action in found, list(found)
    assert found[action].fits


def test_the_cases_are_all_actions_there_are() -> None:
    assert {option.action for case in CASES.values() for option in options(case)} == set(CASES)


def test_a_file_that_is_here_is_not_downloaded(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", TINY, seeded(TINY))
    own = fitting.question(fitting.Asked(str(tmp_path / "tiny.gguf"), dtype="q4_0"), {})
    assert host(own.model, own.work, own.dtype, own.runtime.name).download == 0
    known = ask("llama-2-7b", "llama.cpp", cards.named("RTX 4070"), Work(), "q4_0")
    assert 3 * GIB < host(known.model, known.work, known.dtype, known.runtime.name).download < 4 * GIB
