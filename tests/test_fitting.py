"""What is asked of `fit`: names, cards, sizes, and how many tokens where nobody says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from gpudoctor import fitting
from gpudoctor.fitting import Asked, CannotCount
from gpudoctor.knowledge import gpus
from gpudoctor.memory import card
from gpudoctor.memory.card import NoSuchCard
from gpudoctor.memory.question import Question
from tests.checkpoints import TINY, seeded, write_hf, write_llama2c, write_meta

GIB = 1 << 30
NOTHING: Mapping[str, str] = {"HF_HUB_CACHE": "/nonexistent"}


def ask(name: str = "llama-2-7b", **options: Any) -> Question:
    return fitting.question(Asked(name, **options), NOTHING)


def one_line(error: ValueError) -> str:
    lines = str(error).splitlines()
    assert len(lines) == 1
    return lines[0].partition(":")[0]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["llama-2-7b", "meta-llama/Llama-2-7b-hf", "Llama-2-7b-hf", "llama2_7b"])
def test_one_model_under_several_names(name: str) -> None:
    assert ask(name).model.parameters == 6_738_415_616


def test_the_hugging_face_cache_is_asked_before_the_table(tmp_path: Path) -> None:
    folder = tmp_path / "models--meta-llama--Llama-2-7b-hf" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    write_hf(folder, TINY, seeded(TINY))
    for name in ("llama-2-7b", "meta-llama/Llama-2-7b-hf"):
        found = fitting.question(Asked(name), {"HF_HUB_CACHE": str(tmp_path)}).model
        assert found.contents is not None
        assert found.parameters == TINY.parameters


@pytest.mark.parametrize(
    ("write", "runtime"),
    [
        (lambda folder: write_hf(folder, TINY, seeded(TINY)), "transformers"),
        (lambda folder: write_meta(folder, TINY, seeded(TINY)), "meta"),
        (lambda folder: write_llama2c(folder / "model.bin", TINY, seeded(TINY)), "gpudoctor"),
    ],
    ids=["hf", "meta", "llama2c"],
)
def test_files_choose_their_runtime(write: Any, runtime: str, tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "model.bin" if runtime == "gpudoctor" else tmp_path
    assert ask(str(path)).runtime.name == runtime


def test_an_old_transformers_is_asked_for_by_its_version() -> None:
    old, new = ask(runtime="transformers-4.38", prompt_tokens=4000), ask(prompt_tokens=4000)
    assert old.version == "4.38"
    assert old.need.activations > 2 * new.need.activations  # the logits of every position, in float32 besides


# ---------------------------------------------------------------- how many tokens


@pytest.mark.parametrize(
    ("options", "prompt", "new", "room"),
    [
        ({}, 128, 384, 512),
        ({"max_seq_len": 128}, 32, 96, 128),
        ({"max_seq_len": 8192, "prompt_tokens": 8000}, 8000, 192, 8192),
        ({"prompt_tokens": 4000}, 4000, 384, 4384),
        ({"prompt_tokens": 1, "new_tokens": 2048}, 1, 2048, 2049),
        ({"new_tokens": 0}, 128, 0, 128),
    ],
)
def test_what_nobody_says_follows_from_what_somebody_says(options: dict[str, Any], prompt: int, new: int, room: int) -> None:
    work = ask(**options).work
    assert (work.prompt, work.new, work.room) == (prompt, new, room)


@given(
    prompt=st.none() | st.integers(1, 10**6),
    new=st.none() | st.integers(0, 10**6),
    longest=st.none() | st.integers(1, 10**6),
    batch=st.integers(1, 1000),
)
def test_any_numbers_are_work_or_one_line(prompt: int | None, new: int | None, longest: int | None, batch: int) -> None:
    try:
        work = ask(prompt_tokens=prompt, new_tokens=new, max_seq_len=longest, batch=batch).work
    except CannotCount as error:
        event(one_line(error))
        return
    assert work.prompt >= 1
    assert work.new >= 0
    assert longest is None or work.tokens <= max(longest, work.prompt + (new or 0))


# ---------------------------------------------------------------- sizes and cards


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("11.3GiB", int(11.3 * GIB)),
        ("24GB", 24 * 10**9),
        ("24 gb", 24 * 10**9),
        ("512MiB", 512 << 20),
        ("11811160064", 11 * GIB),
        ("24G", 24 * 10**9),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert fitting.size(text) == size


@given(st.text(max_size=30))
def test_any_text_is_a_size_or_one_line(text: str) -> None:
    try:
        size = fitting.size(text)
    except CannotCount as error:
        event(one_line(error))
        return
    assert 0 < size < 1 << 50


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("RTX 4070", "NVIDIA GeForce RTX 4070", 1),
        ("rtx 4090", "NVIDIA GeForce RTX 4090", 1),
        ("2x RTX 4090", "NVIDIA GeForce RTX 4090", 2),
        ("A100 80GB", "NVIDIA A100 80GB PCIe", 1),
        ("8 x V100 16GB", "Tesla V100-PCIE-16GB", 8),
        ("H20 96GB", "NVIDIA H20", 1),
        ("T4", "Tesla T4", 1),
        ("NVIDIA GeForce RTX 3060", "NVIDIA GeForce RTX 3060", 1),
    ],
)
def test_cards_as_people_call_them(text: str, name: str, count: int) -> None:
    found = card.named(text)
    assert (found.name, found.count) == (name, count)


@pytest.mark.parametrize("model", gpus.models(), ids=lambda model: model.name)
def test_each_card_of_the_table_answers_to_its_name(model: gpus.GpuModel) -> None:
    found = card.product(model.name)
    assert found.name == model.name or found.memory_gib == model.memory_gib


# what PyTorch, NVML or vLLM said of such a card (total, GiB)
SEEN = [
    ("RTX 4070", 11.69, "the story: total capacity of its out-of-memory text"),
    ("RTX 3060 12GB", 11.75, "https://github.com/meta-llama/llama/issues (12 GiB cards)"),
    ("Tesla V100-PCIE-16GB", 15.77, "https://github.com/meta-llama/llama/issues (8 x V100)"),
    ("A100-SXM4-40GB", 39.59, "https://github.com/Lightning-AI/litgpt (39.4 to 39.6 usable)"),
    ("A100 80GB", 79.15, "https://github.com/vllm-project/vllm/pull/10511 (79.22 on an H100)"),
    ("RTX 4090", 23.64, "https://github.com/vllm-project/vllm/issues"),
]


@pytest.mark.parametrize(("name", "seen", "_source"), SEEN)
def test_what_a_card_that_is_not_here_has_is_what_such_cards_were_seen_with(name: str, seen: float, _source: str) -> None:
    assert card.named(name).free / GIB == pytest.approx(seen, rel=0.01)


@given(st.text(max_size=40))
def test_any_text_is_a_card_or_one_line(text: str) -> None:
    try:
        found = card.named(text)
    except NoSuchCard as error:
        event(one_line(error))
        return
    assert found.free > 0
