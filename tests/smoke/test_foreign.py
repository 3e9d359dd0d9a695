from __future__ import annotations

import importlib
import json
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")
transformers = pytest.importorskip("transformers", reason="transformers is the reference of these tests; .ci/run installs it")

from gpudoctor.smoke.foreign import Foreign, plain_data, stored
from gpudoctor.smoke.generate import generate
from gpudoctor.smoke.plan import Plan

PROMPTS = [[1, 17, 90, 4, 33], [1, 150]]
SMALL = {"vocab_size": 160, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64}
CONFIGS = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gemma": {**WIDE, "num_key_value_heads": 1, "head_dim": 8},
    "gemma2": {**WIDE, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4},
    "phi3": {**WIDE, "num_key_value_heads": 2},
    "gpt_neox": WIDE,
    "mamba": {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2},
}


def saved(folder: Path, kind: str) -> Any:
    """A small random model of an architecture, saved by transformers, as transformers reads it again."""
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(kind, **SMALL, **CONFIGS[kind])
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    model.save_pretrained(folder)
    return model.eval()


def plan(folder: Path) -> Plan:
    return Plan("test", "transformers", None, foreign=str(folder))


@pytest.mark.parametrize("kind", CONFIGS)
def test_greedy_tokens_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    reference = saved(tmp_path, kind)
    model = Foreign(plan(tmp_path), torch.empty(0), 2, 64)
    expected = []
    for prompt in PROMPTS:
        made = reference.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)
        expected.append(made[0, len(prompt) :].tolist())
        (completion,) = generate(model, [prompt], 24, temperature=0)
        assert completion.tokens == expected[-1]
    assert [completion.tokens for completion in generate(model, PROMPTS, 24, temperature=0)] == expected


def test_logits_are_float32_whatever_the_dtype(tmp_path: Path) -> None:
    reference = saved(tmp_path, "gpt2")
    tokens = torch.tensor([PROMPTS[0]])
    with torch.inference_mode():
        expected = reference(tokens).logits
        model = Foreign(plan(tmp_path), torch.empty(0, dtype=torch.bfloat16), 1, 64)
        logits = model(tokens, 0)
        assert (logits.dtype, logits.shape) == (torch.float32, (1, 5, 160))
        assert torch.equal(model(tokens, 0, last=True), logits[:, -1:])
        assert (logits - expected).abs().max() < 0.05 * expected.abs().max()


def test_its_size_and_its_limits_are_known(tmp_path: Path) -> None:
    reference = saved(tmp_path, "gpt2")
    model = Foreign(plan(tmp_path), torch.empty(0), 2, 1000)
    assert model.parameters == sum(parameter.numel() for parameter in reference.parameters())
    assert sum(tensor.numel() * tensor.element_size() for tensor in model.tensors().values()) == 4 * model.parameters
    assert 4 * model.parameters <= stored(str(tmp_path)) < 4 * model.parameters + 10000
    assert (model.rows, model.length, model.shape.vocab, model.norm.device.type) == (2, 64, 160, "cpu")
    with pytest.raises(ValueError, match="the vocabulary has 160"):
        generate(model, [[160]], 1)
    with pytest.raises(ValueError, match="position 7 does not follow"):
        model(torch.tensor([[1]]), 7)


def test_without_transformers_the_way_to_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RuntimeError, match="-m pip install transformers"):
        Foreign(plan(tmp_path), torch.empty(0), 1, 8)


def test_a_model_that_brings_its_own_code_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "gpt2")
    path = tmp_path / "config.json"
    mark = tmp_path / "ran"
    (tmp_path / "modeling.py").write_text(f"open({str(mark)!r}, 'w')\nclass Model: pass\nclass Config: pass\n")
    own = {"AutoConfig": "modeling.Config", "AutoModelForCausalLM": "modeling.Model"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "own", "auto_map": own}))
    with pytest.raises(RuntimeError, match="brings its own Python code"):
        Foreign(plan(tmp_path), torch.empty(0), 1, 8)
    assert not mark.exists()


def test_an_architecture_that_transformers_does_not_know_is_one_line(tmp_path: Path) -> None:
    saved(tmp_path, "gpt2")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "klingon"}))
    with pytest.raises(RuntimeError, match=r"^transformers \S+ cannot read .*klingon.*$"):
        Foreign(plan(tmp_path), torch.empty(0), 1, 8)


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "gone"])
def test_damaged_weights_are_an_error_in_words(damage: str, tmp_path: Path) -> None:
    saved(tmp_path, "gpt2")
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-100], "empty": b"", "garbage": b"\xff" * 1000, "gone": b""}[damage])
    if damage == "gone":
        path.unlink()
    with pytest.raises(RuntimeError, match="cannot read"):
        Foreign(plan(tmp_path), torch.empty(0), 1, 8)


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.mark, "w")


@pytest.mark.parametrize("form", ["zip", "bare"])
def test_a_malicious_pickle_does_not_run(form: str, tmp_path: Path) -> None:
    saved(tmp_path, "gpt2")
    (tmp_path / "model.safetensors").unlink()
    mark = tmp_path / "ran"
    path = tmp_path / "pytorch_model.bin"
    if form == "zip":
        torch.save({"transformer.wte.weight": Malicious(str(mark))}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(str(mark)), protocol=2))
    with pytest.raises(RuntimeError):
        Foreign(plan(tmp_path), torch.empty(0), 1, 8)
    assert not mark.exists()


def test_plain_pickles_are_read(tmp_path: Path) -> None:
    reference = saved(tmp_path, "gpt2")
    (tmp_path / "model.safetensors").unlink()
    torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin")
    model = Foreign(plan(tmp_path), torch.empty(0), 1, 64)
    made = reference.generate(torch.tensor([PROMPTS[0]]), max_new_tokens=8, do_sample=False)
    assert generate(model, [PROMPTS[0]], 8, temperature=0)[0].tokens == made[0, 5:].tolist()


def test_no_server_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, "gpt2")
    socket = importlib.import_module("socket")

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    Foreign(plan(tmp_path), torch.empty(0), 1, 8)


@pytest.mark.parametrize("options", [{}, {"weights_only": False}, {"pickle_module": pickle}], ids=["old", "unsafe", "own pickle"])
def test_no_pickle_runs_whatever_transformers_asks_of_pytorch(options: dict[str, Any], tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"weight": Malicious(str(mark))}, tmp_path / "zip")
    torch.save({"weight": Malicious(str(mark))}, tmp_path / "legacy", _use_new_zipfile_serialization=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it goes out of fashion
        torch.jit.script(torch.nn.Identity()).save(tmp_path / "program")
    torch.save({"weight": torch.ones(3)}, tmp_path / "plain")
    before = torch.load, torch.jit.load
    with plain_data(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("zip", "legacy", "program"):
            with pytest.raises((pickle.UnpicklingError, RuntimeError, ValueError)):
                torch.load(tmp_path / name, map_location="cpu", **options)
        assert torch.load(tmp_path / "plain", **options)["weight"].tolist() == [1, 1, 1]
        with pytest.raises(ValueError, match="a program"):
            torch.jit.load(tmp_path / "program")
    assert (torch.load, torch.jit.load) == before
    assert not mark.exists()
