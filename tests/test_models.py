from __future__ import annotations

from collections import Counter
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudoctor.knowledge import gpus, models
from gpudoctor.knowledge.models import KnownModel
from gpudoctor.knowledge.table import read
from gpudoctor.smoke.plan import STORIES15M, RopeScaling

ROWS = [pytest.param(model, id=model.name) for model in models.known()]

# where the count that the files are said to have is another than that of the shape, and by how much it is larger
DIFFERENT_COUNT = {
    "gemma-3-4b": -64 * 2560,  # 64 padding rows of the vocabulary
    "gemma-3-12b": -64 * 3840,
    "gemma-3-27b": -64 * 5376,
    "deepseek-llm-67b": -114688,  # both numbers from memory
    "stablelm-base-alpha-3b": 1204224,  # likewise the published one
}


# ---------------------------------------------------------------- the table


def test_it_says_when_it_was_collected() -> None:
    assert read("models")["schema"] == 1
    assert date.fromisoformat(str(read("models")["collected"]))


def test_it_has_eighty_models_under_names_of_their_own() -> None:
    assert len(models.known()) == 80
    assert [name for name, count in Counter(model.name for model in models.known()).items() if count > 1] == []


@pytest.mark.parametrize("model", ROWS)
def test_every_row_names_its_source_and_a_family_that_is_described(model: KnownModel) -> None:
    family = read("models")["family"][model.family]
    assert all(source.startswith(("https://", "the ")) for source in model.sources), model.sources
    assert ("why_not" in family) != family.get("like_llama", False)
    assert family["source"]


@pytest.mark.parametrize("model", ROWS)
def test_the_numbers_of_a_row_agree_with_each_other(model: KnownModel) -> None:
    assert min(model.layers, model.dim, model.heads, model.head_dim, model.hidden, model.vocab, model.max_seq_len) > 0
    assert model.heads % model.kv_heads == 0
    assert model.parameters > model.embedding_parameters + (model.linear_parameters or 0) > 0
    assert (model.experts > 0) == (model.experts_per_token > 0) == (model.expert_hidden > 0)
    assert (model.window is not None) == (0 < model.windowed_layers <= model.layers)
    assert (model.latent is None) == (model.family != "deepseek_v3")


@pytest.mark.parametrize("model", ROWS)
def test_the_published_count_is_the_computed_one_or_it_is_known_why_not(model: KnownModel) -> None:
    more = 0 if model.published is None else model.published - model.parameters
    assert more == DIFFERENT_COUNT.get(model.name, 0)


# The rows that the smoke test can build, by hand from the numbers of the table: what PyTorch will be asked to hold.
@pytest.mark.parametrize("model", ROWS)
def test_a_shape_has_exactly_as_many_parameters_as_its_row(model: KnownModel) -> None:
    shape = model.shape()
    assert (shape is None) == (model.why_not is not None)
    if shape is not None:
        assert shape.parameters == model.parameters
        assert (shape.dim, shape.layers, shape.heads, shape.kv_heads) == (model.dim, model.layers, model.heads, model.kv_heads)


@pytest.mark.parametrize("model", ROWS)
def test_the_parts_of_a_buildable_row_add_up(model: KnownModel) -> None:
    shape = model.shape()
    if shape is not None:
        assert model.embedding_parameters == shape.vocab * shape.dim * (1 if shape.tied else 2)
        norms = (2 * shape.layers + 1) * shape.dim
        assert model.linear_parameters == shape.parameters - model.embedding_parameters - norms


def test_which_families_can_be_built() -> None:
    buildable = {model.family for model in models.known() if model.shape() is not None}
    assert buildable == {"llama", "mistral", "qwen", "qwen2", "qwen3", "phi3"}
    assert sum(model.shape() is not None for model in models.known()) == 58


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mixtral-8x7b", "it is a mixture of experts"),
        ("qwen3-30b-a3b", "it is a mixture of experts"),
        ("deepseek-v3", "it is a mixture of experts with latent attention"),
        ("gpt-oss-20b", "it is a mixture of experts, stored as MXFP4"),
        ("gemma-2-9b", "Gemma 2's layers use GELU, more norms and capped logits"),
        ("phi-4-mini", "it turns only 75% of each head"),
        ("phi-2", "Phi's layers run attention and GELU side by side after a LayerNorm"),
    ],
)
def test_why_others_cannot(name: str, reason: str) -> None:
    model = models.by_name(name)
    assert model is not None
    assert model.why_not == reason


# ---------------------------------------------------------------- shapes, against numbers that were not taken from the table


def test_the_built_in_shape_is_the_row_of_that_name() -> None:
    model = models.by_name("stories15M")
    assert model is not None
    assert model.shape() == STORIES15M


def test_what_the_families_have_besides() -> None:
    def shape(name: str) -> dict[str, object]:
        found = models.by_name(name)
        built = found.shape() if found else None
        assert built is not None
        return {key: getattr(built, key) for key in ("qkv_bias", "qk_norm", "window", "tied", "norm_eps", "rope_theta", "head_dim")}

    assert shape("llama-2-7b") == {
        "qkv_bias": False,
        "qk_norm": False,
        "window": None,
        "tied": False,
        "norm_eps": 1e-5,
        "rope_theta": 10000,
        "head_dim": 128,
    }
    assert shape("qwen2.5-0.5b")["qkv_bias"]
    assert shape("qwen2.5-0.5b")["tied"]
    assert shape("qwen3-8b")["qk_norm"]
    assert shape("mistral-7b-v0.1")["window"] == 4096
    assert shape("open_llama_3b")["head_dim"] == 100


def test_llama_3_2_stretches_its_slow_frequencies_by_32() -> None:
    model = models.by_name("llama-3.2-1b")
    shape = model.shape() if model else None
    assert shape is not None
    assert shape.rope_scaling == RopeScaling(kind="llama3", factor=32, low=1, high=4, original_max=8192)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("model", ROWS)
def test_a_model_answers_to_its_name_and_to_its_repository(model: KnownModel) -> None:
    assert models.by_name(model.name) is model
    assert models.by_name(model.name.upper().replace("-", "_")) is model
    if model.file is None:
        for text in (model.hf, model.hf.partition("/")[2]):
            found = models.by_name(text)
            assert found is not None
            assert found.hf == model.hf


@pytest.mark.parametrize(
    "text",
    [
        "llama-2-7b",
        "Llama-2-7b-hf",
        "Llama-2-7b",
        "meta-llama/Llama-2-7b-hf",
        "meta-llama/Llama-2-7b",
        "llama2_7b",
        "llama2:7b",
        " llama-2-7B",
    ],
)
def test_llama_2_7b_has_many_spellings(text: str) -> None:
    model = models.by_name(text)
    assert model is not None
    assert model.name == "llama-2-7b"


@pytest.mark.parametrize("text", ["", "-hf", "gpt2", "qwen-27b", "llama-2-7b-chat", "tinyllamas", "llama", "\0", "\ud800"])
def test_what_is_not_in_the_table_has_no_row(text: str) -> None:
    assert models.by_name(text) is None


def test_no_two_models_share_a_spelling() -> None:
    spellings = Counter(models._plain(model.name) for model in models.known())
    assert max(spellings.values()) == 1


@pytest.mark.parametrize(
    ("text", "first"),
    [("lama-2-7b", "llama-2-7b"), ("llama-2-7b-chat", "llama-2-7b"), ("qwen3-8", "qwen3-8b"), ("openllama-3b", "open_llama_3b")],
)
def test_a_mistyped_name_finds_the_likest_first(text: str, first: str) -> None:
    assert models.nearest(text)[0] == first


@given(st.text())
def test_any_text_has_at_most_three_near_names_all_known(text: str) -> None:
    near = models.nearest(text)
    assert len(near) <= 3
    assert {models.by_name(name) for name in near} <= set(models.known())


def test_a_very_long_name_is_not_looked_at_for_ever() -> None:
    assert models.nearest("llama" * 1_000_000) == ()
    assert models.by_name("-" * 1_000_000) is None


# ---------------------------------------------------------------- what a GPU's memory should give


@pytest.mark.parametrize(
    ("name", "memory", "expected"),
    [
        pytest.param("NVIDIA GeForce RTX 4070", int(11.69 * 2**30), 504_200_000_000, id="desktop"),
        pytest.param("GeForce RTX 4070", None, 504_200_000_000, id="old-driver"),
        pytest.param("NVIDIA H100 80GB HBM3", 81559 * 2**20, 3_352_000_000_000, id="data-centre"),
        pytest.param("NVIDIA GeForce RTX 3050", 6 * 2**30, 168_000_000_000, id="shared-name-smaller"),
        pytest.param("NVIDIA GeForce RTX 3050", 8 * 2**30, 224_000_000_000, id="shared-name-larger"),
        pytest.param("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864 * 2**20, None, id="mig"),
        pytest.param("NVIDIA A100-SXM4-40GB", 4864 * 2**20, None, id="a-part-by-its-memory"),
        pytest.param("NVIDIA Experimental 9000", 2**34, None, id="unknown"),
    ],
)
def test_the_theoretical_bandwidth_of_a_gpu(name: str, memory: int | None, expected: int | None) -> None:
    assert gpus.bandwidth(name, memory_total=memory) == expected


def test_every_product_has_a_plausible_bandwidth() -> None:
    assert all(50e9 < model.bandwidth < 1e13 for model in gpus.models())
