"""One process's way through the phases: what it says, when it stops, and that what it says is true."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")

from gpudoctor.facts import Completion, Smoke
from gpudoctor.smoke import device, foreign, parallel, plan, worker
from gpudoctor.smoke.plan import PHASES, STORIES15M, Piece, Plan, Shape
from gpudoctor.smoke.speed import threads
from tests.smoke.allocations import widest

TINY = Shape(dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, hidden=48, vocab=400, max_seq_len=64)
RANDOM = Plan(name="tiny", format="none", shape=TINY, new_tokens=12)
PROGRESS = {"begin", "loaded", "of", "token", "failed", "rank"}


@pytest.fixture(autouse=True)
def _leave_no_process_group() -> Iterator[None]:
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def lines(what: Plan) -> list[dict[str, Any]]:
    """All that was said, after the way that it takes to the doctor."""
    said: list[str] = []
    worker.run(plan.from_json(json.loads(json.dumps(plan.to_json(what)))), lambda **values: said.append(json.dumps(values)))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return [json.loads(line) for line in said]


def told(what: Plan) -> dict[str, Any]:
    """The last value of everything."""
    return {name: value for line in lines(what) for name, value in line.items()}


def tokens(what: Plan) -> list[list[int]]:
    return [completion["tokens"] for completion in told(what)["completions"]]


# ---------------------------------------------------------------- phases and fields


def test_phases_begin_in_their_order_and_values_have_the_names_of_facts() -> None:
    said = lines(RANDOM)
    assert tuple(line["begin"] for line in said if "begin" in line) == PHASES[2:]
    names = {name for line in said for name in line}
    assert names - PROGRESS <= {field.name for field in dataclasses.fields(Smoke)}
    completion = next(line for line in said if "completions" in line)["completions"][0]
    assert set(completion) == {field.name for field in dataclasses.fields(Completion)}


def test_the_built_in_model_proves_itself_on_a_cpu() -> None:
    facts = told(Plan(name="stories15M", format="none", shape=STORIES15M, device="cpu"))
    assert (facts["device"], facts["dtype"], facts["backend"], facts["new_tokens"]) == ("cpu", "fp32", "gloo", 32)
    assert facts["finite"] is facts["repeatable"] is facts["all_reduce"] is True
    assert facts["all_reduce_bandwidth"] is None  # nobody to talk to
    assert facts["tokens_per_second"] > 0
    assert facts["seconds_to_first_token"] > 0
    weights = 4 * STORIES15M.parameters
    assert facts["loaded"] == facts["of"] == weights
    assert weights < facts["bytes_per_token"] < 1.05 * weights
    assert weights < facts["needed_memory"] < facts["free_memory"]
    assert facts["peak_memory"] > weights
    assert len(facts["completions"][0]["tokens"]) == 32


def test_nothing_of_the_processs_own_settings_is_changed() -> None:
    def settings() -> tuple[object, ...]:
        return (
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.get_float32_matmul_precision(),
            torch.random.get_rng_state().tolist(),
        )

    before = settings()
    told(dataclasses.replace(RANDOM, temperature=0.7))
    assert settings() == before


def test_without_proofs_they_are_left_out() -> None:
    facts = told(dataclasses.replace(RANDOM, proofs=False))
    assert facts["begin"] == "done"
    assert "repeatable" not in facts


def test_a_build_without_distributed_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    facts = told(RANDOM)
    assert facts["notes"] == ["this PyTorch is built without torch.distributed"]
    assert "all_reduce" not in facts
    assert facts["begin"] == "done"


# ---------------------------------------------------------------- what stops it


def test_what_does_not_fit_is_never_begun() -> None:
    shape = Shape(dim=4096, layers=32, heads=32, kv_heads=32, head_dim=128, hidden=11008, vocab=32000, max_seq_len=4096)
    said = lines(Plan(name="llama-2-7b", format="none", shape=shape, device="cpu", dtype="bf16", budget=11 << 30))
    assert said[-1] == {"failed": "llama-2-7b in bf16 needs 12.6 GiB; 11.0 GiB are free"}
    assert said[-2]["needed_memory"] > said[-2]["free_memory"]
    assert [line["begin"] for line in said if "begin" in line][-1] == "memory"


def test_a_budget_of_nothing_holds_no_model() -> None:
    facts = told(dataclasses.replace(RANDOM, budget=0))
    assert facts["failed"] == "tiny in fp32 needs 0.0 GiB; 0.0 GiB are free"
    assert facts["free_memory"] == 0


def raw_checkpoint(path: Path, poison: float | None = None) -> Plan:
    """Tiny's tensors one after the other in a file, perhaps with one number of the last layer's that is none."""
    from gpudoctor.smoke.model import Llama
    from gpudoctor.smoke.weights import randomise

    model = Llama(TINY, torch.empty(0), 1, 8)
    randomise(model, seed=1)
    if poison is not None:
        model.tensors()["layers.1.down"][3, 5] = poison
    pieces: list[Piece] = []
    with (path / "weights").open("wb") as file:
        for name, tensor in model.tensors().items():
            data = bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())
            pieces.append(Piece(name, 0, file.tell(), tuple(tensor.shape), "F32", len(data)))
            file.write(data)
    return dataclasses.replace(RANDOM, format="hf", files=(str(path / "weights"),), pieces=tuple(pieces))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_found_before_a_token_is_taken(tmp_path: Path, number: float) -> None:
    assert told(raw_checkpoint(tmp_path))["finite"] is True
    facts = told(raw_checkpoint(tmp_path, number))
    assert facts["finite"] is False
    assert "not finite" in facts["failed"]
    assert facts["begin"] == "first-token"
    assert "completions" not in facts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_seq_len": 8}, "17 tokens, and the model sees 8"),
        ({"temperature": -1.0}, "temperature of 0 or more"),
        ({"top_p": 1.5}, "top_p from 0 to 1"),
        ({"prompts": ("",), "bos": None}, "prompt 1 is empty"),
    ],
    ids=["too-long", "temperature", "top-p", "empty"],
)
def test_what_cannot_be_generated_is_an_error_with_its_numbers(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        told(dataclasses.replace(RANDOM, **{"bos": 1, **change}))


# ---------------------------------------------------------------- completions


def test_each_of_several_prompts_is_continued_as_it_is_alone() -> None:
    prompts = ("a", "a longer one", "the third")
    together = tokens(dataclasses.replace(RANDOM, prompts=prompts))
    assert together == [tokens(dataclasses.replace(RANDOM, prompts=(prompt,)))[0] for prompt in prompts]
    assert len({tuple(row) for row in together}) == 3


def test_a_prompt_without_a_tokenizer_is_its_bytes() -> None:
    what = dataclasses.replace(RANDOM, prompts=("aé",), bos=1, echo=True, no_tokenizer="there is no tokenizer.model")
    facts = told(what)
    assert facts["completions"][0]["tokens"][:4] == [1, 0x61 + 3, 0xC3 + 3, 0xA9 + 3]
    assert len(facts["completions"][0]["tokens"]) == 4 + 12
    assert facts["completions"][0]["text"] is None
    assert facts["notes"] == ["no words, only token ids: there is no tokenizer.model"]


def test_a_byte_is_a_token_of_the_smallest_vocabulary_too() -> None:
    assert told(dataclasses.replace(RANDOM, shape=dataclasses.replace(TINY, vocab=5), prompts=("zz",)))["finite"] is True


def test_a_text_ends_where_its_end_comes_and_speed_is_measured_beyond_it() -> None:
    whole = tokens(RANDOM)[0]
    place = next(place for place in itertools.count(2) if whole[place] not in whole[:place])
    facts = told(dataclasses.replace(RANDOM, eos=(whole[place],)))
    assert facts["completions"][0]["tokens"] == whole[:place]
    assert facts["new_tokens"] == 12


def test_log_probabilities_change_no_token() -> None:
    plain = tokens(dataclasses.replace(RANDOM, echo=True))
    (completion,) = told(dataclasses.replace(RANDOM, echo=True, logprobs=True))["completions"]
    assert [completion["tokens"]] == plain
    assert len(completion["logprobs"]) == len(completion["tokens"])
    assert all(chance < 0 for chance in completion["logprobs"][1:])


def test_a_seed_repeats_what_was_drawn() -> None:
    drawn = dataclasses.replace(RANDOM, temperature=1.0, top_p=1.0)
    # the seed also makes the weights: so two draws from the same weights are compared with the greedy one
    assert tokens(drawn) == tokens(drawn)
    assert tokens(drawn) != tokens(RANDOM)
    assert tokens(RANDOM) != tokens(dataclasses.replace(RANDOM, seed=1))


@pytest.mark.parametrize(("new", "speed"), [(0, False), (1, False), (2, True)])
def test_speed_is_that_of_the_tokens_after_the_first(new: int, speed: bool) -> None:
    facts = told(dataclasses.replace(RANDOM, new_tokens=new))
    assert facts["new_tokens"] == len(facts["completions"][0]["tokens"]) == new
    assert (facts["tokens_per_second"] is not None) == speed


def test_the_cache_is_as_long_as_it_has_to_be_and_no_longer() -> None:
    facts = told(dataclasses.replace(RANDOM, new_tokens=1000))
    assert facts["new_tokens"] == TINY.max_seq_len - len("Once upon a time")
    assert any(note.endswith("the model has no more positions") for note in facts["notes"])


# ---------------------------------------------------------------- device, dtype, memory

F16, BF16, F32 = (Piece("norm", 0, 0, (8,), kind, 100) for kind in ("F16", "BF16", "F32"))


@pytest.mark.parametrize(
    ("pieces", "asked", "capability", "dtype"),
    [
        ((), None, (8, 0), "bf16"),
        ((), None, (7, 5), "fp16"),
        ((BF16,), None, (9, 0), "bf16"),
        ((BF16,), None, (7, 5), "fp16"),
        ((F16,), None, (9, 0), "fp16"),
        ((F16, BF16, BF16), None, (9, 0), "bf16"),
        ((F32,), None, (9, 0), "bf16"),
        ((F32,), None, (7, 0), "fp16"),
        ((BF16,), "fp32", (7, 0), "fp32"),
        ((F32,), "bf16", (8, 9), "bf16"),
    ],
)
def test_a_gpu_computes_in_the_checkpoints_dtype_if_it_knows_it(
    pieces: tuple[Piece, ...], asked: str | None, capability: tuple[int, int], dtype: str
) -> None:
    chosen, note = device.gpu_dtype(dataclasses.replace(RANDOM, pieces=pieces, dtype=asked), capability)
    assert chosen == dtype
    assert (note is not None) == (BF16 in pieces and dtype == "fp16")


def test_bf16_asked_for_by_name_is_refused_where_the_gpu_lacks_it() -> None:
    with pytest.raises(RuntimeError, match=r"^bf16 needs compute capability 8\.0; this GPU has 7\.5$"):
        device.gpu_dtype(dataclasses.replace(RANDOM, dtype="bf16"), (7, 5))


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_cpu_computes_in_what_it_is_told(dtype: str) -> None:
    facts = told(dataclasses.replace(RANDOM, dtype=dtype))
    assert facts["dtype"] == dtype
    assert facts["finite"] is facts["repeatable"] is True


@pytest.mark.parametrize(
    "more",
    [{}, {"prompts": ("a", "a longer one")}, {"logprobs": True, "temperature": 0.8}],
    ids=["plain", "two-prompts", "sampled"],
)
def test_it_takes_what_it_predicts(more: dict[str, Any]) -> None:
    shape = dataclasses.replace(TINY, dim=512, heads=8, kv_heads=4, head_dim=64, hidden=1408, vocab=8000, layers=4)
    what = dataclasses.replace(RANDOM, **{"shape": shape, "dtype": "fp32", **more})
    said: list[dict[str, Any]] = []
    peak = widest(lambda: said.append(told(what)))
    (facts,) = said
    assert abs(facts["predicted_memory"] / peak - 1) < 0.005
    assert facts["predicted_memory"] == facts["needed_memory"]  # on a GPU there is slack beside it


@pytest.mark.parametrize(
    ("limit", "used", "stat", "free"),
    [
        ("1000000\n", "400000\n", "anon 5\ninactive_file 100000\nactive_file 7\n", 700_000),
        ("1000000\n", "1200000\n", "", 0),
        ("max\n", "400000\n", "", None),
    ],
    ids=["half-used", "over-its-limit", "no-limit"],
)
def test_a_containers_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, used: str, stat: str, free: int | None
) -> None:
    unlimited = device.free_on_host()
    for name, content in (("max", limit), ("current", used), ("memory.stat", stat)):
        (tmp_path / name).write_text(content, encoding="ascii")
    monkeypatch.setattr(device, "CGROUPS", ((str(tmp_path / "max"), str(tmp_path / "current")),))
    if free is None:
        assert device.free_on_host() > unlimited / 2
    else:
        assert (device.free_on_host(), device.free(torch.device("cpu"), 2)) == (free, free // 2)


def test_parts_of_a_shape_make_the_whole() -> None:
    part = parallel.share(TINY, 2)
    assert (part.heads, part.kv_heads, part.hidden, part.dim, part.vocab) == (2, 1, 24, 32, 400)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ('{"torch_dtype": "float32"}', 4),
        ('{"dtype" : "bfloat16"}', 2),
        ('{"text_config": {"torch_dtype": "float16"}}', 2),
        ('{"dtype": "nonsense"}', 2),
        ('{"dtype": "nn"}', 2),
        ("", 2),
    ],
)
def test_how_wide_a_foreign_models_numbers_are_stands_in_its_config(tmp_path: Path, config: str, size: int) -> None:
    assert foreign.stored_itemsize(str(tmp_path)) == 2
    (tmp_path / "config.json").write_text(config, encoding="ascii")
    assert foreign.stored_itemsize(str(tmp_path)) == size


def test_a_model_of_another_architecture_goes_through_the_same_phases(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=300, n_positions=64, bos_token_id=1, eos_token_id=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    what = Plan(name="gpt2", format="transformers", shape=None, foreign=str(tmp_path), bos=1, device="cpu", prompts=("Aa",))
    facts = told(what)
    assert facts["begin"] == "done"
    assert facts["finite"] is facts["repeatable"] is True
    assert len(facts["completions"][0]["tokens"]) == 32
    assert told(dataclasses.replace(what, budget=1000))["failed"].startswith("gpt2 in fp32 needs 0.0 GiB; ")


@pytest.mark.parametrize(("change", "alone"), [({}, True), ({"pieces": (F32,)}, False), ({"shape": None}, False)])
def test_a_small_random_model_does_not_wait_for_threads(change: dict[str, Any], alone: bool) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads(dataclasses.replace(RANDOM, **change)):
            assert torch.get_num_threads() == (1 if alone else 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
