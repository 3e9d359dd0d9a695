"""Each format of the same seeded model: the same shape, and each piece is where its bytes are."""

from __future__ import annotations

import json
import os
import struct
from array import array
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpudoctor import checkpoint
from gpudoctor.checkpoint import Checkpoint, NotACheckpoint
from gpudoctor.smoke.plan import Piece, RopeScaling, Shape
from tests.checkpoints import (
    META_NAMES,
    TINY,
    Tensors,
    hf_config,
    hf_scaling,
    in_halves,
    meta_params,
    packed,
    pickled_tensor,
    pth,
    renamed,
    seeded,
    text,
    write_gguf,
    write_hf,
    write_llama2c,
    write_meta,
    write_tokenizer_bin,
    write_zip,
)

LLAMA3 = RopeScaling("llama3", 8.0, low=1.0, high=4.0, original_max=8192)
SHAPES = {
    "llama": TINY,
    "tied": replace(TINY, tied=True),
    "llama3": replace(TINY, rope_theta=500000.0, rope_scaling=LLAMA3),
    "linear": replace(TINY, rope_scaling=RopeScaling("linear", 2.0)),
    "mistral": replace(TINY, window=32),
    "qwen2": replace(TINY, qkv_bias=True, norm_eps=1e-6, rope_theta=1e6),
    "qwen3": replace(TINY, qk_norm=True, head_dim=8),
}


def stored(found: Checkpoint) -> dict[str, bytes]:
    """Every tensor's bytes as the pieces say where they are, joined."""
    parts: dict[str, list[tuple[Piece, bytes]]] = defaultdict(list)
    for piece in found.pieces:
        with Path(found.files[piece.file]).open("rb") as file:
            file.seek(piece.offset)
            parts[piece.name].append((piece, file.read(piece.size)))
    return {name: joined(some) for name, some in parts.items()}


def joined(parts: list[tuple[Piece, bytes]]) -> bytes:
    if parts[0][0].dim != 1:
        return b"".join(data for _, data in parts)
    rows = parts[0][0].shape[0]
    return b"".join(data[len(data) // rows * row : len(data) // rows * (row + 1)] for row in range(rows) for _, data in parts)


def expected(shape: Shape, tensors: Tensors, kind: str, *, halves: bool) -> dict[str, bytes]:
    return {
        name: packed(in_halves(name, shape, size, numbers) if halves else numbers, kind)
        for name, (size, numbers) in tensors.items()
    }


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("name", SHAPES)
def test_hugging_face(tmp_path: Path, name: str, shards: int, kind: str) -> None:
    shape, tensors = SHAPES[name], seeded(SHAPES[name])
    found = checkpoint.read(str(write_hf(tmp_path / "tiny", shape, tensors, shards=shards, kind=kind)))
    assert (found.shape, found.format, found.name, found.dtype, found.halves) == (shape, "hf", "tiny", kind, True)
    assert (found.eos, found.bos, found.foreign, len(found.files)) == ((2,), 1, None, shards)
    assert stored(found) == expected(shape, tensors, kind, halves=True)
    assert found.size == sum(map(len, stored(found).values()))


@pytest.mark.parametrize("name", ["llama", "llama3", "tied"])
@pytest.mark.parametrize(("shards", "embedding_dim"), [(1, 1), (2, 1), (2, 0)])
def test_meta(tmp_path: Path, name: str, shards: int, embedding_dim: int) -> None:
    shape, tensors = SHAPES[name], dict(seeded(SHAPES[name]))
    folder = write_meta(
        tmp_path / "tiny",
        shape,
        tensors,
        shards,
        kind="F16",
        embedding_dim=embedding_dim,
        params={"vocab_size": -1, "max_seq_len": 64},
    )
    found = checkpoint.read(str(folder))
    assert (found.shape, found.format, found.dtype, found.halves) == (replace(shape, tied=False), "meta", "F16", False)
    if shape.tied:
        tensors["head"] = tensors["embedding"]
    assert stored(found) == expected(shape, tensors, "F16", halves=False)


@pytest.mark.parametrize(
    ("params", "context"),
    [
        ({}, 4096),
        ({"n_kv_heads": None}, 2048),
        ({"rope_theta": 500000.0}, 8192),
        ({"rope_theta": 1e6}, 16384),
        ({"rope_theta": 500000.0, "use_scaled_rope": True}, 131072),
        ({"max_seq_len": 77}, 77),
    ],
    ids=["llama-2-70b", "llama", "llama-3", "code-llama", "llama-3.1", "its own"],
)
def test_how_long_a_context_meta_models_have(tmp_path: Path, params: dict[str, Any], context: int) -> None:
    shape = replace(TINY, kv_heads=TINY.heads)
    found = checkpoint.read(str(write_meta(tmp_path, shape, seeded(shape), params=params)))
    assert found.shape is not None
    assert found.shape.max_seq_len == context


def test_a_pth_file_by_its_own_name_means_its_folder(tmp_path: Path) -> None:
    write_meta(tmp_path, TINY, seeded(TINY), params={"max_seq_len": 64})
    (tmp_path / "consolidated.00.pth").rename(tmp_path / "stories.pth")
    assert checkpoint.read(str(tmp_path / "stories.pth")).shape == TINY


def test_a_folder_of_mistral_with_safetensors(tmp_path: Path) -> None:
    from tests.checkpoints import safetensors  # noqa: PLC0415 - the name is that of a format here

    shape, tensors = replace(TINY, window=32), seeded(TINY)
    rows = [(renamed(name, META_NAMES, "layers"), size, "F32", bytes(data)) for name, (size, data) in tensors.items()]
    (tmp_path / "consolidated.safetensors").write_bytes(safetensors(rows))
    (tmp_path / "params.json").write_text(json.dumps(meta_params(shape, sliding_window=32, max_seq_len=64, head_dim=4)))
    found = checkpoint.read(str(tmp_path))
    assert found.shape == shape
    assert stored(found) == expected(shape, tensors, "F32", halves=False)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("name", ["llama", "tied"])
def test_llama2c(tmp_path: Path, name: str, version: int) -> None:
    shape, tensors = SHAPES[name], seeded(SHAPES[name])
    found = checkpoint.read(str(write_llama2c(tmp_path / "tiny.bin", shape, tensors, version=version)))
    assert (found.shape, found.format, found.name, found.dtype, found.halves) == (shape, "llama2c", "tiny.bin", "F32", False)
    assert stored(found) == expected(shape, tensors, "F32", halves=False)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", ["llama", "tied", "linear", "mistral", "qwen2", "qwen3"])
def test_gguf(tmp_path: Path, name: str, version: int) -> None:
    shape, tensors = SHAPES[name], seeded(SHAPES[name])
    path = write_gguf(tmp_path / "tiny.gguf", shape, tensors, version=version, alignment=64)
    found = checkpoint.read(str(path))
    halves = name.startswith("qwen")
    assert (found.shape, found.format, found.name, found.dtype, found.halves) == (shape, "gguf", "tiny.gguf", "F32", halves)
    assert stored(found) == expected(shape, tensors, "F32", halves=halves)


def test_gguf_of_half_precision_keeps_vectors_in_full(tmp_path: Path) -> None:
    found = checkpoint.read(str(write_gguf(tmp_path / "tiny.gguf", TINY, seeded(TINY), kind="F16")))
    kinds = {len(piece.shape): piece.kind for piece in found.pieces}
    assert (kinds, found.dtype) == ({1: "F32", 2: "F16"}, "F16")


def test_gguf_with_the_factors_of_llama_3(tmp_path: Path) -> None:
    tensors = {**seeded(TINY), "rope_factors": ((2,), array("f", [1.0, 8.0]))}
    found = checkpoint.read(str(write_gguf(tmp_path / "tiny.gguf", TINY, tensors)))
    assert found.pieces[-1].name == "rope_factors"
    assert stored(found)["rope_factors"] == struct.pack("<2f", 1.0, 8.0)


def test_gguf_in_several_files(tmp_path: Path) -> None:
    tensors = seeded(TINY)
    names = list(tensors)
    for number, half in enumerate((names[::2], names[1::2])):
        path = tmp_path / f"tiny-{number + 1:05}-of-00002.gguf"
        write_gguf(path, TINY, {name: tensors[name] for name in half}, metadata={"split.count": 2, "split.no": number})
    for path in (tmp_path, tmp_path / "tiny-00001-of-00002.gguf", tmp_path / "tiny-00002-of-00002.gguf"):
        found = checkpoint.read(str(path))
        assert found.shape == TINY
        assert stored(found) == expected(TINY, tensors, "F32", halves=False)
    (tmp_path / "tiny-00002-of-00002.gguf").unlink()
    with pytest.raises(NotACheckpoint, match=r"tiny-00002-of-00002\.gguf is missing beside it"):
        checkpoint.read(str(tmp_path / "tiny-00001-of-00002.gguf"))


def test_pickles_of_hugging_face(tmp_path: Path) -> None:
    tensors = seeded(TINY)
    write_hf(tmp_path, TINY, tensors)
    header = (tmp_path / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", header[:8])
    rows = json.loads(header[8 : 8 + length])
    del rows["__metadata__"]
    (tmp_path / "model.safetensors").unlink()
    base = 8 + length
    entries = [
        (n, tuple(r["shape"]), "F32", header[base + r["data_offsets"][0] : base + r["data_offsets"][1]]) for n, r in rows.items()
    ]
    write_zip(tmp_path / "pytorch_model.bin", pth(entries, stem="archive"))
    found = checkpoint.read(str(tmp_path))
    assert stored(found) == expected(TINY, tensors, "F32", halves=True)


# ---------------------------------------------------------------- what a config.json may say


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("llama3", {"rope_theta": None, "rope_scaling": None, "rope_parameters": {"rope_theta": 500000.0, **hf_scaling(LLAMA3)}}),
        ("linear", {"rope_scaling": {"type": "linear", "factor": 2}}),
        ("llama", {"rope_scaling": {"rope_type": "default"}, "head_dim": None, "hidden_act": "swish"}),
        ("llama", {"rope_scaling": None, "tie_word_embeddings": None, "architectures": ["LlamaForCausalLM"]}),
        ("llama", {"rope_theta": None, "quantization_config": None, "pretraining_tp": 2, "partial_rotary_factor": 1.0}),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 32, "max_window_layers": 1}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 2}),
        ("qwen3", {"layer_types": ["full_attention"] * 2, "use_sliding_window": True, "sliding_window": 32}),
    ],
)
def test_a_config_that_says_the_same_in_other_words(tmp_path: Path, name: str, config: dict[str, Any]) -> None:
    assert checkpoint.read(str(write_hf(tmp_path, SHAPES[name], seeded(SHAPES[name]), config=config))).shape == SHAPES[name]


def test_a_window_in_every_layer_of_qwen(tmp_path: Path) -> None:
    config = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}
    found = checkpoint.read(str(write_hf(tmp_path, SHAPES["qwen2"], seeded(SHAPES["qwen2"]), config=config)))
    assert found.shape == replace(SHAPES["qwen2"], window=16)


def test_mistral_without_a_window(tmp_path: Path) -> None:
    config = hf_config(SHAPES["mistral"])
    write_hf(tmp_path, SHAPES["mistral"], seeded(TINY))
    (tmp_path / "config.json").write_text(json.dumps({**config, "sliding_window": None}))
    assert checkpoint.read(str(tmp_path)).shape == TINY


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gpt2"},
        {"model_type": "mixtral", "num_local_experts": 8},
        {"quantization_config": {"quant_method": "gptq"}},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"hidden_act": "gelu"},
        {"partial_rotary_factor": 0.5},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
        {"architectures": ["LlamaForSequenceClassification"]},
        {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1},
    ],
    ids="-".join,
)
def test_what_is_not_ours_is_left_to_transformers(tmp_path: Path, config: dict[str, Any]) -> None:
    found = checkpoint.read(str(write_hf(tmp_path, TINY, seeded(TINY), config=config)))
    assert (found.format, found.shape, found.pieces, found.foreign) == ("transformers", None, (), str(tmp_path))
    assert found.size == TINY.parameters * 4


def test_quantised_numbers_are_left_to_transformers(tmp_path: Path) -> None:
    from tests.checkpoints import HF_NAMES, safetensors  # noqa: PLC0415 - the name is that of a format here

    rows = [(renamed(n, HF_NAMES, "model.layers"), s, "F8_E4M3", bytes(len(bytes(d)) // 4)) for n, (s, d) in seeded(TINY).items()]
    write_hf(tmp_path, TINY, seeded(TINY))
    (tmp_path / "model.safetensors").write_bytes(safetensors(rows))
    assert checkpoint.read(str(tmp_path)).foreign == str(tmp_path)


def test_ids_of_the_end_are_those_that_generate_follows(tmp_path: Path) -> None:
    write_hf(tmp_path, TINY, seeded(TINY))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 8], "bos_token_id": 6}))
    found = checkpoint.read(str(tmp_path))
    assert (found.eos, found.bos) == ((7, 8), 6)


def test_a_snapshot_in_the_cache_has_the_models_name(tmp_path: Path) -> None:
    folder = tmp_path / "models--meta-llama--Llama-2-7b-hf" / "snapshots" / "0123abcd"
    assert checkpoint.read(str(write_hf(folder, TINY, seeded(TINY)))).name == "meta-llama/Llama-2-7b-hf"


# ---------------------------------------------------------------- where the words are


def sentencepiece(pieces: int, *, bos: int | None = None, eos: int | None = None) -> bytes:
    """A SentencePiece model of empty pieces; only its frame is right."""
    ids = b"".join(key + varint(value) for key, value in ((b"\xc8\x02", bos), (b"\xd0\x02", eos)) if value is not None)
    return b"\x0a\x07\x0a\x01a\x15\0\0\0" * pieces + b"\x12" + varint(len(ids)) + ids


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize(
    ("data", "kind", "bos", "eos"),
    [
        (sentencepiece(32), "sentencepiece", 1, (2,)),
        (sentencepiece(32, bos=5, eos=6), "sentencepiece", 5, (6,)),
        (sentencepiece(32, bos=-1), "sentencepiece", None, (2,)),
        (b"IQ== 0\nIg== 1\nIw== 2\n", "tiktoken", 3, (4, 11, 12)),
    ],
    ids=["sentencepiece", "with ids", "without beginning", "tiktoken"],
)
def test_the_tokenizer_of_a_meta_folder(
    tmp_path: Path, data: bytes, kind: str, bos: int, eos: tuple[int, ...], above: bool
) -> None:
    folder = write_meta(tmp_path / "tiny", TINY, seeded(TINY))
    place = (tmp_path if above else folder) / "tokenizer.model"
    place.write_bytes(data)
    found = checkpoint.read(str(folder))
    assert found.tokenizer is not None
    assert (found.tokenizer.kind, found.tokenizer.path, found.no_tokenizer) == (kind, str(place), None)
    assert (found.bos, found.eos, found.tokenizer.bos, found.tokenizer.eos) == (bos, eos, bos, eos)


@pytest.mark.parametrize(
    "data", [b"", b"neither", b"\x0a\xff\xff", b"\x0a\x07ab", b"version https://git-lfs.github.com/spec/v1\noid"]
)
def test_a_damaged_tokenizer_is_none(tmp_path: Path, data: bytes) -> None:
    folder = write_meta(tmp_path, TINY, seeded(TINY))
    (folder / "tokenizer.model").write_bytes(data)
    found = checkpoint.read(str(folder))
    assert (found.tokenizer, found.eos, found.bos) == (None, (), None)
    assert "tokenizer.model" in str(found.no_tokenizer)


@pytest.mark.parametrize(("settings", "adds"), [(None, True), ({"add_bos_token": False}, False), ({"add_bos_token": True}, True)])
def test_the_tokenizer_of_a_hugging_face_folder(tmp_path: Path, settings: Mapping[str, Any] | None, adds: bool) -> None:
    write_hf(tmp_path, TINY, seeded(TINY))
    (tmp_path / "tokenizer.json").write_text('{"model": {}}\n')
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece(32))
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    plan = checkpoint.read(str(tmp_path)).tokenizer
    assert plan is not None
    assert (plan.kind, plan.path, plan.add_bos, plan.eos) == ("tokenizers", str(tmp_path / "tokenizer.json"), adds, (2,))


def test_a_tokenizer_json_cut_short_is_none(tmp_path: Path) -> None:
    write_hf(tmp_path, TINY, seeded(TINY))
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab"')
    found = checkpoint.read(str(tmp_path))
    assert (found.tokenizer, found.no_tokenizer) == (None, f"{tmp_path / 'tokenizer.json'} is cut short or is not JSON")


TOKENS = [(b"<unk>", 0.0), (b"\n<s>\n", 0.0), (b"\n</s>\n", 0.0), (b"<0x0A>", 0.0), (b" the", -1.0), (b"\xe2\x82\xac", -2.0)]


def test_the_tokenizer_of_llama2c(tmp_path: Path) -> None:
    shape = replace(TINY, vocab=len(TOKENS))
    write_tokenizer_bin(tmp_path / "tokenizer.bin", TOKENS)
    (tmp_path / "out").mkdir()
    for path in (tmp_path / "tiny.bin", tmp_path / "out" / "tiny.bin"):
        plan = checkpoint.read(str(write_llama2c(path, shape, seeded(shape)))).tokenizer
        assert plan is not None
        assert plan.tokens == ("<unk>", "<s>", "</s>", "<0x0A>", "\N{LOWER ONE EIGHTH BLOCK}the", "\N{EURO SIGN}")
        assert (plan.kind, plan.scores, plan.types) == ("pieces", (0, 0, 0, 0, -1, -2), (2, 3, 3, 6, 1, 1))


def test_a_tokenizer_bin_of_another_model_is_none(tmp_path: Path) -> None:
    write_tokenizer_bin(tmp_path / "tokenizer.bin", TOKENS)
    found = checkpoint.read(str(write_llama2c(tmp_path / "tiny.bin", TINY, seeded(TINY))))
    assert found.no_tokenizer == f"{tmp_path / 'tokenizer.bin'} does not hold the 32 tokens of this model"


@pytest.mark.parametrize(
    ("model", "pre", "kind", "adds", "prefix"),
    [
        ("llama", None, "pieces", True, True),
        ("gpt2", "smollm", "bpe", False, False),
        ("gpt2", "llama-bpe", "bpe", True, False),
    ],
)
def test_the_tokenizer_of_gguf(tmp_path: Path, model: str, pre: str | None, kind: str, adds: bool, prefix: bool) -> None:
    words = [f"t{n}" for n in range(32)]
    own: dict[str, Any] = {"model": model, "tokens": words, "token_type": [1] * 32, "bos_token_id": 1, "eos_token_id": 2}
    own.update({"pre": pre} if pre else {"scores": [-1.5] * 32}, merges=["a b", "c d"], eot_token_id=3)
    metadata = {f"tokenizer.ggml.{key}": value for key, value in own.items()}
    found = checkpoint.read(str(write_gguf(tmp_path / "tiny.gguf", TINY, seeded(TINY), metadata=metadata)))
    plan = found.tokenizer
    assert plan is not None
    assert (plan.kind, plan.tokens, plan.merges, plan.types, plan.pre) == (kind, tuple(words), ("a b", "c d"), (1,) * 32, pre)
    assert (plan.bos, plan.eos, plan.add_bos, plan.add_prefix_space) == (1, (2, 3), adds, prefix)
    assert plan.scores == (() if pre else (-1.5,) * 32)
    assert (found.bos, found.eos) == (1, (2, 3))


def test_no_byte_of_a_tensor_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = seeded(replace(TINY, vocab=20000))
    shape, read = replace(TINY, vocab=20000), 0
    real = os.pread

    def counting(descriptor: int, count: int, offset: int) -> bytes:
        nonlocal read
        data = real(descriptor, count, offset)
        read += len(data)
        return data

    folders = [write_hf(tmp_path / "hf", shape, tensors), write_meta(tmp_path / "meta", shape, tensors)]
    folders.append(write_llama2c(tmp_path / "tiny.bin", shape, tensors))
    monkeypatch.setattr(os, "pread", counting)
    for folder in folders:
        read = 0
        assert checkpoint.read(str(folder)).size > 2_000_000
        assert read < 300_000  # zipfile looks for the directory in the last 64 KiB


def test_views_of_one_storage_are_found_in_it(tmp_path: Path) -> None:
    write_meta(tmp_path, TINY, seeded(TINY))
    from gpudoctor.checkpoint import pth as reader  # noqa: PLC0415 - tests' own ``pth`` writes

    pickle = (
        b"\x80\x02}("
        + text("a")
        + pickled_tensor("0", "F16", (2, 3), offset=4)
        + text("b")
        + pickled_tensor("0", "F16", ())
        + b"u."
    )
    path = write_zip(tmp_path / "x.pth", {"x/data.pkl": pickle, "x/data/0": bytes(range(20))})
    found = reader.read(str(path))
    assert path.read_bytes()[found["a"].offset :][: found["a"].size] == bytes(range(8, 20))
    assert (found["b"].shape, found["b"].size, found["b"].offset) == ((), 2, found["a"].offset - 8)


@pytest.mark.parametrize(("told", "factor"), [({}, 32.0), ({"rope_scaling_factor": 8.0}, 8.0)])
def test_small_models_of_llama_3_2_stretch_more_than_3_1(tmp_path: Path, told: dict[str, Any], factor: float) -> None:
    folder = write_meta(tmp_path / "llama", TINY, seeded(TINY), params={"use_scaled_rope": True, **told})
    shape = checkpoint.read(str(folder)).shape
    assert shape is not None
    assert shape.rope_scaling is not None
    assert shape.rope_scaling.factor == factor
