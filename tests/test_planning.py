"""Plans of smoke tests. Checkpoints are small real ones; the Hugging Face cache is a folder of the same layout."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor import hub_cache
from gpudoctor.knowledge import models
from gpudoctor.planning import CannotPlan, built_in, plan
from gpudoctor.smoke.plan import STORIES15M, Piece, Plan, RopeScaling, Shape, TokenizerPlan, from_json, to_json
from tests.checkpoints import seeded, write_hf, write_llama2c

TINY = Shape(dim=16, layers=2, heads=4, kv_heads=2, head_dim=4, hidden=32, vocab=64, max_seq_len=32)


def again(made: Plan) -> Plan:
    """The plan as the worker reads it: through one line of JSON."""
    line = json.dumps(to_json(made))
    assert "\n" not in line
    return from_json(json.loads(line))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with an empty home beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    return {"HOME": str(tmp_path / "home")}


def why_not(ckpt: str | None = None, **options: Any) -> str:
    with pytest.raises(CannotPlan) as refusal:
        plan(ckpt, **{"environ": {}, **options})
    message = str(refusal.value)
    assert message.isprintable()
    assert message.startswith("--")
    return message


def cached(root: Path, repository: str, *, commit: str = "a" * 40, main: bool = True) -> Path:
    """The folder of one snapshot in a cache below ``root``, not yet made."""
    folder = root / ("models--" + repository.replace("/", "--"))
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "blobs").mkdir(exist_ok=True)
    if main:
        (folder / "refs" / "main").write_text(commit)
    return folder / "snapshots" / commit


# ---------------------------------------------------------------- which model


def test_without_a_name_it_is_the_small_built_in_model(environ: Mapping[str, str]) -> None:
    made = plan(environ=environ)
    assert made == built_in()
    assert (made.name, made.format, made.shape) == ("stories15M (built in)", "none", STORIES15M)
    assert (made.proofs, made.dtype, made.device, made.eos, made.files) == (True, None, None, (), ())
    assert again(made) == made


def test_a_known_name_without_files_gives_random_weights_of_its_shape(here: Path, environ: Mapping[str, str]) -> None:
    assert list(here.iterdir()) == []
    made = plan("Llama-2-7b", environ=environ)
    assert (made.name, made.format, made.pieces, made.notes) == ("llama-2-7b", "none", (), ())
    assert made.shape is not None
    assert made.shape.parameters == 6738415616
    assert again(made) == made


@pytest.mark.parametrize("model", [pytest.param(model, id=model.name) for model in models.known()])
@pytest.mark.usefixtures("here")
def test_every_known_name_can_be_planned_or_says_why_not(model: models.KnownModel, environ: Mapping[str, str]) -> None:
    if model.shape() is not None:
        assert plan(model.name, environ=environ).shape == model.shape()
        return
    message = why_not(model.name, environ=environ)
    assert f"since {model.why_not}" in message
    assert f"hf download {model.hf}" in message


@pytest.mark.usefixtures("here")
def test_random_weights_can_be_refused(environ: Mapping[str, str]) -> None:
    message = why_not("llama-2-7b", real_weights=True, environ=environ)
    assert message == (
        "--ckpt: the weights of llama-2-7b are not on this machine. "
        "To get them: hf download meta-llama/Llama-2-7b-hf (older: huggingface-cli download)"
    )
    assert "hf download karpathy/tinyllamas stories15M.bin" in why_not("stories15M", real_weights=True, environ=environ)
    assert why_not(None, real_weights=True, environ=environ).startswith("--real-weights: ")


@pytest.mark.usefixtures("here")
def test_an_unknown_name_is_told_the_nearest_ones(environ: Mapping[str, str]) -> None:
    assert why_not("lama-2-7b", environ=environ) == (
        "--ckpt: lama-2-7b is neither a model known by name nor a file or folder here; "
        "did you mean llama-2-7b or llama-2-70b or llama-7b?"
    )
    assert "known are names such as llama-2-7b" in why_not("gpt2", environ=environ)


@pytest.mark.parametrize(
    ("ckpt", "expected"),
    [
        ("", "not an empty name"),
        ("./llama-2-7b", "./llama-2-7b does not exist"),
        ("nothing/here", "nothing/here does not exist; expected a Hugging Face or Meta folder"),
        ("~/nothing", "~/nothing does not exist"),
        ("~nobody-has-this-name", "does not exist"),
        ("meta-llama/Llama-2-7b-hf", "The known model is called llama-2-7b: --ckpt llama-2-7b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "hf download meta-llama/Llama-3.1-8B-Instruct, or test"),
        ("meta-llama/Llama-3.1-8B-Instruct", "random weights: --ckpt llama-3.1-8b"),
        ("models/llama-2-7b/", "The known model is called llama-2-7b"),
        ("a\0b/c", "a?b/c does not exist"),
        ("a\nb", "a?b is neither"),
        ("x" * 100_000, "xxx... is neither"),
        ("/" + "x" * 100_000, "xxx... does not exist"),
        ("\ud800/x", "?/x does not exist"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_path_that_is_not_there(ckpt: str, expected: str, environ: Mapping[str, str]) -> None:
    assert expected in why_not(ckpt, environ=environ)


def test_an_empty_folder_is_no_checkpoint(here: Path, environ: Mapping[str, str]) -> None:
    (here / "empty").mkdir()
    for ckpt in ("empty", "./empty", str(here / "empty"), "."):
        assert why_not(ckpt, environ=environ).startswith("--ckpt: ")


def test_a_link_to_nothing_is_no_checkpoint(here: Path, environ: Mapping[str, str]) -> None:
    (here / "gone").symlink_to(here / "nowhere")
    why_not("gone", environ=environ)


def test_a_folder_is_read_and_its_paths_are_absolute(here: Path, environ: Mapping[str, str]) -> None:
    write_hf(here / "tiny", TINY, seeded(TINY))
    for ckpt in ("tiny", "./tiny", "../here/tiny", str(here / "tiny")):
        made = plan(ckpt, environ=environ)
        assert (made.format, made.name, made.notes) == ("hf", "tiny", ())
        assert made.shape is not None
        assert made.shape.parameters == TINY.parameters
        assert made.files
        assert all(os.path.isabs(file) for file in made.files)
        assert again(made) == made


def test_a_tilde_is_the_home_of_the_environment(here: Path, tmp_path: Path, environ: Mapping[str, str]) -> None:
    assert here.is_dir()
    write_hf(tmp_path / "home" / "tiny", TINY, seeded(TINY))
    assert plan("~/tiny", environ=environ).format == "hf"


def test_what_lies_here_comes_before_a_known_name(here: Path, environ: Mapping[str, str]) -> None:
    write_llama2c(here / "llama-2-7b", TINY, seeded(TINY))
    shutil.move(here / "llama-2-7b", here / "stories15M.bin")
    assert plan("stories15M.bin", environ=environ).format == "llama2c"
    (here / "llama-2-7b").mkdir()
    assert "instead of the known model of that name" in why_not("llama-2-7b", environ=environ)


@pytest.mark.usefixtures("here")
def test_a_current_folder_that_is_gone(here: Path, environ: Mapping[str, str]) -> None:
    here.rmdir()
    assert plan("llama-2-7b", environ=environ).format == "none"
    why_not(".", environ=environ)


# ---------------------------------------------------------------- the Hugging Face cache


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HOME": "/h"}, "/h/.cache/huggingface/hub"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x", "HF_HOME": "~/hf"}, "/h/hf/hub"),
        ({"HOME": "/h", "HF_HOME": "/hf", "HF_HUB_CACHE": "/c"}, "/c"),
        ({"HOME": "/h", "HF_HUB_CACHE": ""}, "/h/.cache/huggingface/hub"),
    ],
)
def test_where_the_cache_is(variables: dict[str, str], expected: str) -> None:
    assert hub_cache.folder(variables) == expected


def test_a_model_in_the_cache_is_used(here: Path, tmp_path: Path) -> None:
    assert here.is_dir()
    snapshot = write_hf(cached(tmp_path / "hub", "meta-llama/Llama-2-7b-hf"), TINY, seeded(TINY))
    for real_weights in (False, True):
        made = plan("llama-2-7b", real_weights=real_weights, environ={"HF_HUB_CACHE": str(tmp_path / "hub")})
        assert (made.format, made.name) == ("hf", "llama-2-7b")
        assert made.notes == (f"its files were found in the Hugging Face cache: {snapshot}",)
        assert made.files[0].startswith(str(snapshot))


def test_a_file_of_a_repository_with_several_models(here: Path, tmp_path: Path) -> None:
    assert here.is_dir()
    snapshot = cached(tmp_path / "hub", "karpathy/tinyllamas")
    snapshot.mkdir(parents=True)
    write_llama2c(snapshot / "stories42M.bin", TINY, seeded(TINY))
    environ = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    assert plan("stories42M", environ=environ).format == "llama2c"
    other = plan("stories15M", environ=environ)
    assert (other.format, other.notes) == ("none", ())


def test_the_version_that_main_means_comes_first_and_then_the_newest(tmp_path: Path) -> None:
    environ = {"HF_HUB_CACHE": str(tmp_path)}
    for commit, age in (("b" * 40, 2), ("c" * 40, 1), ("d" * 40, 3)):
        folder = cached(tmp_path, "org/name", commit=commit, main=commit[0] == "d")
        folder.mkdir(parents=True)
        os.utime(folder, (1_000_000 - age, 1_000_000 - age))
    assert [os.path.basename(folder)[0] for folder in hub_cache.snapshots("org/name", environ)] == ["d", "c", "b"]
    assert hub_cache.snapshots("org/other", environ) == ()
    assert hub_cache.snapshots("org/\0", environ) == ()


def test_a_half_downloaded_model_is_not_taken_for_a_whole_one(here: Path, tmp_path: Path) -> None:
    assert here.is_dir()
    snapshot = write_hf(cached(tmp_path / "hub", "meta-llama/Llama-2-7b-hf"), TINY, seeded(TINY), shards=2)
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    environ = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    made = plan("llama-2-7b", environ=environ)
    assert made.format == "none"
    assert len(made.notes) == 1
    assert made.notes[0].startswith("what the Hugging Face cache has of it cannot be used: ")
    message = why_not("llama-2-7b", real_weights=True, environ=environ)
    assert "cannot be used as the Hugging Face cache has them (" in message
    assert "hf download meta-llama/Llama-2-7b-hf" in message


def test_a_download_that_has_just_begun_is_said(here: Path, tmp_path: Path) -> None:
    assert here.is_dir()
    cached(tmp_path, "meta-llama/Llama-2-7b-hf")
    (tmp_path / "models--meta-llama--Llama-2-7b-hf" / "blobs" / "0123.incomplete").touch()
    made = plan("llama-2-7b", environ={"HF_HUB_CACHE": str(tmp_path)})
    assert made.notes == (
        "what the Hugging Face cache has of it cannot be used: a download of meta-llama/Llama-2-7b-hf has begun and not ended",
    )


def test_an_id_that_is_in_the_cache_is_told_where(here: Path, tmp_path: Path) -> None:
    assert here.is_dir()
    snapshot = write_hf(cached(tmp_path, "someone/tuned"), TINY, seeded(TINY))
    assert f"The Hugging Face cache has it: --ckpt {snapshot}" in why_not("someone/tuned", environ={"HF_HUB_CACHE": str(tmp_path)})


# ---------------------------------------------------------------- whether the numbers make sense


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "--temperature: expected 0 (greedy) or a number above it, not -0.1"),
        ({"temperature": math.nan}, "--temperature: expected 0 (greedy) or a number above it, not nan"),
        ({"temperature": math.inf}, "--temperature: expected 0 (greedy) or a number above it, not inf"),
        ({"temperature": 1e-300}, "--temperature: 1e-300 is too small to divide by; expected 0 (greedy) or at least 0.0001"),
        ({"top_p": 1.5}, "--top-p: expected a probability from 0 to 1, not 1.5"),
        ({"top_p": -0.1}, "--top-p: expected a probability from 0 to 1, not -0.1"),
        ({"top_p": math.nan}, "--top-p: expected a probability from 0 to 1, not nan"),
        ({"new_tokens": -1}, "--max-new-tokens: expected 0 to 1000000, not -1"),
        ({"new_tokens": 1000001}, "--max-new-tokens: expected 0 to 1000000, not 1000001"),
        ({"seed": -1}, "--seed: expected 0 to 9223372036854775807, not -1"),
        ({"processes": 0}, "--nproc: expected 1 or more processes, not 0"),
        ({"device": "gpu"}, "--device: expected cuda or cpu, not gpu"),
        ({"device": "cuda:1"}, "--device: expected cuda or cpu, not cuda:1; set CUDA_VISIBLE_DEVICES=1 to choose a GPU"),
        ({"dtype": "float16"}, "--dtype: expected fp32, fp16 or bf16, not float16"),
        ({"dtype": ""}, "--dtype: expected fp32, fp16 or bf16, not an empty name"),
        ({"prompts": ("a", "")}, "--prompt: expected a text, not an empty one"),
        ({"prompts": ("a\udcff",)}, "--prompt: expected a text in UTF-8"),
        ({"prompts": ("a",) * 33}, "--prompt: 33 prompts; at most 32 are generated at once"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_makes_no_sense_is_said_with_its_number(options: dict[str, Any], message: str) -> None:
    assert why_not(**options) == message


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"temperature": 1.0, "top_p": 0},
        {"temperature": 0.6, "top_p": 1},
        {"new_tokens": 0},
        {"seed": 2**63 - 1},
        {"prompts": ("é", "\0", "a" * 100_000)},
        {"device": "cpu", "dtype": "bf16", "logprobs": True, "echo": True},
    ],
    ids=str,
)
def test_what_lies_on_the_edge_is_allowed(options: dict[str, Any]) -> None:
    made = plan(environ={}, **options)
    assert {name: getattr(made, name) for name in options} == options
    assert again(made) == made


# ---------------------------------------------------------------- several processes


@pytest.mark.usefixtures("here")
def test_a_model_is_divided_only_as_its_heads_allow(environ: Mapping[str, str]) -> None:
    assert plan("llama-2-70b", processes=8, environ=environ).processes == 8
    assert why_not("llama-2-70b", processes=3, environ=environ) == (
        "--nproc: llama-2-70b (8 key-value heads, 64 heads, a feed-forward part 28672 wide) cannot be divided among 3 processes; "
        "1, 2, 4, 8 can"
    )


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 6, 8, 12, 16])
def test_the_built_in_model_is_cut_so_that_it_can_be_divided(processes: int) -> None:
    shape = plan(processes=processes, environ={}).shape
    assert shape is not None
    assert shape.parameters == STORIES15M.parameters
    assert shape.heads * shape.head_dim == shape.dim
    assert (shape.heads % processes, shape.kv_heads % processes, shape.hidden % processes, shape.head_dim % 2) == (0, 0, 0, 0)


@pytest.mark.parametrize("processes", [5, 7, 9, 96, 10**30])
def test_the_built_in_model_cannot_be_divided_among_all_numbers(processes: int) -> None:
    assert "--nproc: stories15M (built in)" in why_not(processes=processes)


# ---------------------------------------------------------------- any


TEXTS = st.one_of(
    st.text(), st.sampled_from([model.name for model in models.known()]), st.sampled_from(["..", "~", "a/b", "llama"])
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    ckpt=st.one_of(st.none(), TEXTS),
    device=st.one_of(st.none(), st.sampled_from(["cpu", "cuda"]), st.text()),
    dtype=st.one_of(st.none(), st.sampled_from(["fp32", "fp16", "bf16"]), st.text()),
    prompts=st.lists(st.text(), max_size=40),
    new_tokens=st.integers(),
    temperature=st.floats(),
    top_p=st.one_of(st.floats(0, 1), st.floats()),
    seed=st.integers(),
    processes=st.one_of(st.integers(1, 16), st.integers()),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
@pytest.mark.usefixtures("here")
def test_any_arguments_give_a_plan_or_one_line(
    environ: Mapping[str, str], ckpt: str | None, flags: tuple[bool, bool, bool], **options: Any
) -> None:
    logprobs, echo, real_weights = flags
    try:
        made = plan(ckpt, logprobs=logprobs, echo=echo, real_weights=real_weights, environ=environ, **options)
    except CannotPlan as refusal:
        assert str(refusal).isprintable()  # noqa: PT017 - both outcomes are right, and each has its own promise
        assert len(str(refusal)) < 800  # noqa: PT017 - likewise
    else:
        assert again(made) == made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ckpt=TEXTS, temperature=st.floats(0.01, 10), top_p=st.floats(0, 1), prompts=st.lists(st.text("aé\0"), max_size=3))
@pytest.mark.usefixtures("here")
def test_any_sensible_numbers_reach_the_plan(
    environ: Mapping[str, str], ckpt: str, temperature: float, top_p: float, prompts: list[str]
) -> None:
    try:
        made = plan(ckpt, temperature=temperature, top_p=top_p, prompts=prompts, environ=environ)
    except CannotPlan:
        return
    assert (made.temperature, made.top_p, made.prompts) == (temperature, top_p, tuple(prompts))
    assert again(made) == made


def test_a_plan_with_everything_survives_json() -> None:
    full = Plan(
        name="x",
        format="hf",
        shape=Shape(8, 1, 2, 1, 4, 8, 16, 32, rope_scaling=RopeScaling("llama3", 8.0), window=4),
        files=("/a", "/b"),
        pieces=(Piece("embedding", 0, 8, (16, 8), "F16", 256), Piece("layers.0.query", 1, 0, (4, 8), "BF16", 64, dim=0)),
        tokenizer=TokenizerPlan("bpe", tokens=("a", "b"), scores=(0.5,), types=(1,), merges=("a b",), pre="llama-bpe", eos=(2, 3)),
        eos=(2,),
        prompts=("a\u2028b", "\0"),
        notes=("n",),
        budget=2**40,
    )
    assert again(full) == full
