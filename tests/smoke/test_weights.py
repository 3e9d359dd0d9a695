from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")

from gpudoctor.smoke import weights
from gpudoctor.smoke.generate import generate
from gpudoctor.smoke.model import SPLIT, Llama
from gpudoctor.smoke.plan import STORIES15M, Piece, Plan, Shape

SHAPE = Shape(dim=32, layers=2, heads=8, kv_heads=4, head_dim=4, hidden=48, vocab=64, max_seq_len=16, qkv_bias=True, qk_norm=True)
KINDS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def bytes_of(tensor: Any) -> bytes:
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist())


def part(shape: Shape, world: int) -> Shape:
    return dataclasses.replace(shape, heads=shape.heads // world, kv_heads=shape.kv_heads // world, hidden=shape.hidden // world)


def model_of(shape: Shape, dtype: Any = torch.float32) -> Any:
    with torch.inference_mode():
        return Llama(shape, torch.empty(0, dtype=dtype), 1, 16)


def named(shape: Shape) -> dict[str, Any]:
    """One tensor of each name, in the order (2 i, 2 i + 1)."""
    torch.manual_seed(1)
    return {name: torch.randn(tensor.shape) for name, tensor in model_of(shape).tensors().items()}


def as_halves(tensor: Any, head_dim: int) -> Any:
    """What Hugging Face's conversion of Meta's weights does to query and key."""
    return tensor.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


class Checkpoint:
    """Tensors written one after the other into files, as many bytes apart as asked."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.folder, self.shape, self.contents = folder, shape, [bytearray(b"header")]
        self.pieces: list[Piece] = []

    def add(self, name: str, tensor: Any, *, kind: str = "F32", dim: int | None = None, file: int = 0, gap: int = 2) -> None:
        while len(self.contents) <= file:
            self.contents.append(bytearray())
        data = bytes_of(tensor.to(KINDS[kind]))
        self.contents[file] += bytes(gap)
        self.pieces.append(Piece(name, file, len(self.contents[file]), tuple(tensor.shape), kind, len(data), dim))
        self.contents[file] += data

    def plan(self, *, halves: bool = False) -> Plan:
        paths = tuple(str(self.folder / f"part{number}.bin") for number in range(len(self.contents)))
        for path, content in zip(paths, self.contents, strict=True):
            Path(path).write_bytes(content)
        return Plan("test", "meta", self.shape, files=paths, pieces=tuple(self.pieces), halves=halves)


def loaded(plan: Plan, world: int = 1, dtype: Any = torch.float32) -> list[dict[str, Any]]:
    assert plan.shape is not None
    models = [model_of(part(plan.shape, world), dtype) for _ in range(world)]
    for rank, model in enumerate(models):
        weights.load(model, plan, rank, world)
    return [model.tensors() for model in models]


def joined(parts: Sequence[dict[str, Any]], name: str) -> Any:
    split = SPLIT.get(name.rpartition(".")[2])
    if split is None:
        assert all(torch.equal(other[name], parts[0][name]) for other in parts)
        return parts[0][name]
    return torch.cat([tensors[name] for tensors in parts], split)


@pytest.mark.parametrize("gap", [0, 1, 2, 64])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "F64"])
def test_a_tensor_is_read_wherever_it_lies_and_whatever_its_kind(tmp_path: Path, kind: str, gap: int) -> None:
    checkpoint = Checkpoint(tmp_path, SHAPE)
    for name, tensor in named(SHAPE).items():
        checkpoint.add(name, tensor, kind=kind, gap=gap)
    (tensors,) = loaded(checkpoint.plan())
    for name, tensor in named(SHAPE).items():
        assert torch.equal(tensors[name], tensor.to(KINDS[kind]).float()), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_numbers_become_the_models_own_kind(tmp_path: Path, dtype: str) -> None:
    checkpoint = Checkpoint(tmp_path, SHAPE)
    for name, tensor in named(SHAPE).items():
        checkpoint.add(name, tensor)
    (tensors,) = loaded(checkpoint.plan(), dtype=getattr(torch, dtype))
    for name, tensor in named(SHAPE).items():
        assert torch.equal(tensors[name], tensor.to(getattr(torch, dtype))), name


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_number_of_shards_is_read_by_any_number_of_processes(data: st.DataObject, tmp_path: Path) -> None:
    shards, world = data.draw(st.sampled_from([1, 2, 3, 4, 8])), data.draw(st.sampled_from([1, 2, 4]))
    splits = dict(SPLIT, embedding=data.draw(st.sampled_from([0, 1, None])), head=0)
    checkpoint = Checkpoint(tmp_path, SHAPE)
    for name, tensor in named(SHAPE).items():
        dim = splits.get(name.rpartition(".")[2])
        for number, piece in enumerate([tensor] if dim is None else tensor.tensor_split(shards, dim)):
            checkpoint.add(name, piece, dim=dim, file=number, gap=data.draw(st.integers(0, 5)))
    parts = loaded(checkpoint.plan(), world)
    for name, tensor in named(SHAPE).items():
        assert torch.equal(joined(parts, name), tensor), name


@pytest.mark.parametrize("world", [1, 2, 4])
def test_rotary_halves_become_pairs(tmp_path: Path, world: int) -> None:
    checkpoint = Checkpoint(tmp_path, SHAPE)
    for name, tensor in named(SHAPE).items():
        kind = name.rpartition(".")[2]
        checkpoint.add(name, as_halves(tensor, 4) if kind.startswith(("query", "key")) else tensor)
    parts = loaded(checkpoint.plan(halves=True), world)
    for name, tensor in named(SHAPE).items():
        assert torch.equal(joined(parts, name), tensor), name


def test_a_tensor_larger_than_a_step_is_read_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "STEP", 1000)
    test_rotary_halves_become_pairs(tmp_path, 2)


def test_progress_ends_with_all_bytes_and_is_said_seldom(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, SHAPE)
    for name, tensor in named(SHAPE).items():
        checkpoint.add(name, tensor, kind="F16")
    plan, said = checkpoint.plan(), list[dict[str, Any]]()
    weights.load(model_of(SHAPE), plan, say=lambda **values: said.append(values))
    size = sum(piece.size for piece in plan.pieces)
    assert said[-1] == {"loaded": size, "of": size}
    assert len(said) <= 3


def test_rope_factors_reach_the_model(tmp_path: Path) -> None:
    checkpoint, factors = Checkpoint(tmp_path, SHAPE), torch.tensor([1.0, 8.0])
    for name, tensor in named(SHAPE).items():
        checkpoint.add(name, tensor)
    checkpoint.add("rope_factors", factors)
    model, other = model_of(SHAPE), model_of(SHAPE)
    weights.load(model, checkpoint.plan())
    assert not torch.equal(model.turns, other.turns)
    other.set_rope_factors(factors)
    assert torch.equal(model.turns, other.turns)


def test_a_head_beside_tied_embeddings_is_left_alone(tmp_path: Path) -> None:
    tied = dataclasses.replace(SHAPE, tied=True)
    checkpoint = Checkpoint(tmp_path, tied)
    for name, tensor in named(SHAPE).items():
        checkpoint.add(name, tensor)
    (tensors,) = loaded(checkpoint.plan())
    assert "head" not in tensors


def broken(plan: Plan, how: str) -> Plan:
    """The plan of a checkpoint that has changed since it was looked at, or of one that contradicts itself."""
    first, *others = plan.pieces
    if how == "a file is shorter":
        path = Path(plan.files[0])
        path.write_bytes(path.read_bytes()[:-1])
        return plan
    if how == "a file is empty":
        Path(plan.files[0]).write_bytes(b"")
        return plan
    changed: dict[str, tuple[Piece, ...]] = {
        "a tensor is missing": (),
        "a tensor is there twice": (first, first),
        "a tensor is nobody's": (first, dataclasses.replace(first, name="layers.7.query")),
        "a shape is another": (dataclasses.replace(first, shape=(first.shape[0] // 2, first.shape[1] * 2)),),
        "a shape is flat": (dataclasses.replace(first, shape=(first.shape[0] * first.shape[1],)),),
        "a size is another": (dataclasses.replace(first, size=first.size - 4),),
        "a size is huge": (dataclasses.replace(first, size=first.size << 40),),
        "an offset is negative": (dataclasses.replace(first, offset=-4),),
        "an offset is huge": (dataclasses.replace(first, offset=1 << 62),),
        "a shard is missing": (
            dataclasses.replace(first, dim=0, shape=(first.shape[0] // 2, first.shape[1]), size=first.size // 2),
        ),
    }
    return dataclasses.replace(plan, pieces=(*changed[how], *others))


@pytest.mark.parametrize(
    "how",
    [
        "a file is shorter",
        "a file is empty",
        "a tensor is missing",
        "a tensor is there twice",
        "a tensor is nobody's",
        "a shape is another",
        "a shape is flat",
        "a size is another",
        "a size is huge",
        "an offset is negative",
        "an offset is huge",
        "a shard is missing",
    ],
)
def test_what_does_not_fit_is_said_in_words(tmp_path: Path, how: str) -> None:
    checkpoint = Checkpoint(tmp_path, SHAPE)
    for name, tensor in named(SHAPE).items():
        checkpoint.add(name, tensor)
    plan = broken(checkpoint.plan(), how)
    with pytest.raises(RuntimeError, match=r"checkpoint|tensors need"):
        weights.load(model_of(SHAPE), plan)


def test_a_file_that_is_gone_is_an_os_error(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, SHAPE)
    for name, tensor in named(SHAPE).items():
        checkpoint.add(name, tensor)
    plan = checkpoint.plan()
    Path(plan.files[0]).unlink()
    with pytest.raises(FileNotFoundError):
        weights.load(model_of(SHAPE), plan)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q8_0"])
@pytest.mark.parametrize("world", [1, 2])
def test_quantised_weights_are_those_of_the_gguf_library(tmp_path: Path, kind: str, world: int) -> None:
    quants = pytest.importorskip("gguf.quants")
    numpy, constants = pytest.importorskip("numpy"), pytest.importorskip("gguf.constants")
    shape = dataclasses.replace(SHAPE, dim=64, hidden=128, head_dim=8, qk_norm=False)
    checkpoint, expected = Checkpoint(tmp_path, shape), dict[str, Any]()
    for name, tensor in named(shape).items():
        if tensor.dim() == 1:
            checkpoint.add(name, tensor)
            expected[name] = tensor
            continue
        packed = quants.quantize(tensor.numpy(), constants.GGMLQuantizationType[kind])
        checkpoint.add(name, torch.from_numpy(packed.view(numpy.uint8)).float(), kind="F32")
        piece = checkpoint.pieces.pop()
        del checkpoint.contents[0][piece.offset :]
        checkpoint.contents[0] += packed.tobytes()
        checkpoint.pieces.append(dataclasses.replace(piece, shape=tuple(tensor.shape), kind=kind, size=packed.nbytes))
        expected[name] = torch.from_numpy(quants.dequantize(packed, constants.GGMLQuantizationType[kind]))
    parts = loaded(checkpoint.plan(), world)
    for name, tensor in expected.items():
        assert torch.equal(joined(parts, name), tensor), name


@pytest.mark.parametrize(
    ("hidden_modules", "kind", "words"),
    [
        (("gguf",), "Q4_1", "pip install gguf"),
        (("numpy",), "Q4_1", "pip install gguf"),
        ((), "IQ9_Z", "cannot read embedding, of kind IQ9_Z"),
    ],
)
def test_without_the_library_the_way_to_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden_modules: tuple[str, ...], kind: str, words: str
) -> None:
    pytest.importorskip("gguf")
    for module in hidden_modules:
        for name in [name for name in sys.modules if name == module or name.startswith("gguf.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)
    checkpoint = Checkpoint(tmp_path, SHAPE)
    for name, tensor in named(SHAPE).items():
        checkpoint.add(name, tensor)
    first, *others = checkpoint.pieces
    checkpoint.pieces = [dataclasses.replace(first, kind=kind, size=first.shape[0] * 20), *others]
    with pytest.raises(RuntimeError, match=words):
        weights.load(model_of(SHAPE), checkpoint.plan())


MEASURE = """
import sys, torch
from gpudoctor.smoke import weights
from gpudoctor.smoke.model import Llama
from gpudoctor.smoke.plan import Piece, Plan, Shape
shape = Shape(dim=1024, layers=4, heads=8, kv_heads=8, head_dim=128, hidden=4096, vocab=8192, max_seq_len=16, tied=True)
model = Llama(shape, torch.empty(0, dtype=torch.bfloat16), 1, 16)
pieces, offset = [], 0
for name, tensor in model.tensors().items():
    tensor.zero_()
    pieces.append(Piece(name, 0, offset, tuple(tensor.shape), "F32", 4 * tensor.numel()))
    offset += 4 * tensor.numel()
open(sys.argv[1], "wb").truncate(offset)
peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) << 10
before = peak()
weights.load(model, Plan("", "hf", shape, files=(sys.argv[1],), pieces=tuple(pieces), halves=True))
print(offset, peak() - before)
"""


def test_loading_needs_little_memory_beside_the_model(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "file")], capture_output=True, text=True, check=True, timeout=60
    )
    size, more = map(int, done.stdout.split())
    assert size > 250 << 20
    assert more < 3 * weights.STEP


def random_parts(shape: Shape, world: int, seed: int = 5, dtype: Any = torch.float32) -> list[dict[str, Any]]:
    models = [model_of(part(shape, world), dtype) for _ in range(world)]
    for rank, model in enumerate(models):
        weights.randomise(model, seed, rank, world)
    return [model.tensors() for model in models]


@pytest.mark.parametrize("world", [2, 4])
def test_random_weights_are_the_same_however_the_model_is_split(world: int) -> None:
    whole = random_parts(SHAPE, 1)[0]
    parts = random_parts(SHAPE, world)
    for name, tensor in whole.items():
        assert torch.equal(joined(parts, name), tensor), name


def test_random_weights_are_the_same_in_any_order_of_memory_and_any_dtype() -> None:
    wide, narrow = random_parts(SHAPE, 1)[0], random_parts(SHAPE, 1, dtype=torch.bfloat16)[0]
    for name, tensor in wide.items():
        torch.testing.assert_close(narrow[name].float(), tensor, rtol=1e-2, atol=1e-3)


def test_random_weights_follow_the_seed() -> None:
    one, same, other = (random_parts(SHAPE, 1, seed)[0]["layers.1.down"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_random_matrices_keep_the_size_of_what_they_multiply() -> None:
    tensors = random_parts(STORIES15M, 1)[0]
    for name, tensor in tensors.items():
        if name.endswith("norm"):
            assert torch.equal(tensor, torch.ones_like(tensor)), name
        else:
            gain = weights.LIVELY.get(name.rpartition(".")[2], 1.0)
            assert tensor.std() * tensor.shape[1] ** 0.5 == pytest.approx(gain, rel=0.05), name
            assert (tensor @ torch.randn(tensor.shape[1], 8)).std() == pytest.approx(gain, rel=0.15), name


def test_greedy_text_of_random_weights_is_no_single_token() -> None:
    model = model_of(STORIES15M)
    prompt = [101, 20077, 3, 31999, 777, 12000, 5, 640]
    for seed in range(8):
        weights.randomise(model, seed)
        (completion,) = generate(model, [prompt], 16, temperature=0)
        assert len(set(completion.tokens)) > 4
        with torch.inference_mode():
            assert 0.5 < model(torch.tensor([prompt]), 0).std() < 2
