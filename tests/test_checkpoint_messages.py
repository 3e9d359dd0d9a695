"""What a person is told whose folder is no checkpoint, or half of one: one line that names the thing and the way out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpudoctor import checkpoint
from gpudoctor.checkpoint import NotACheckpoint
from tests.checkpoints import TINY, hf_config, meta_params, seeded, write_gguf, write_hf, write_llama2c, write_meta

TENSORS = seeded(TINY)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n"


def refusal(path: Path) -> str:
    with pytest.raises(NotACheckpoint) as refused:
        checkpoint.read(str(path))
    line = str(refused.value)
    assert "\n" not in line
    return line


def nothing(folder: Path) -> Path:
    return folder / "llama-2-7b"


def empty(folder: Path) -> Path:
    return folder


def unreadable_kind(folder: Path) -> Path:
    os.mkfifo(folder / "model.gguf")
    return folder / "model.gguf"


def unfinished(folder: Path) -> Path:
    place = folder / ".cache" / "huggingface" / "download"
    place.mkdir(parents=True)
    (place / "model.safetensors.0123.incomplete").write_bytes(b"..")
    return folder


def only_a_cache(folder: Path) -> Path:
    (folder / ".cache").mkdir()
    return folder


def unfinished_file(folder: Path) -> Path:
    (folder / "a.gguf.incomplete").write_bytes(b"GGUF")
    return folder / "a.gguf.incomplete"


def too_high(folder: Path) -> Path:
    write_hf(folder / "models" / "tiny", TINY, TENSORS)
    return folder


def cache_too_high(folder: Path) -> Path:
    model = folder / "models--org--tiny"
    (model / "blobs").mkdir(parents=True)
    write_hf(model / "snapshots" / "0123", TINY, TENSORS)
    return model


def adapter(folder: Path) -> Path:
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def weights_alone(folder: Path) -> Path:
    write_hf(folder, TINY, TENSORS)
    (folder / "config.json").unlink()
    return folder


def config_alone(folder: Path) -> Path:
    (folder / "config.json").write_text(json.dumps(hf_config(TINY)))
    return folder


def params_alone(folder: Path) -> Path:
    (folder / "params.json").write_text(json.dumps(meta_params(TINY)))
    return folder


def pth_alone(folder: Path) -> Path:
    write_meta(folder, TINY, TENSORS)
    (folder / "params.json").unlink()
    return folder / "consolidated.00.pth"


def several_gguf(folder: Path) -> Path:
    for name in ("a.gguf", "b.gguf"):
        write_gguf(folder / name, TINY, TENSORS)
    return folder


def one_bin(folder: Path) -> Path:
    write_llama2c(folder / "stories15M.bin", TINY, TENSORS)
    (folder / "tokenizer.bin").write_bytes(b"")
    return folder


def other_things(folder: Path) -> Path:
    for name in "abcd":
        (folder / name).write_text("")
    return folder


def pointer_shard(folder: Path) -> Path:
    write_hf(folder, TINY, TENSORS)
    (folder / "model.safetensors").write_bytes(POINTER)
    return folder


def pointer_file(folder: Path) -> Path:
    (folder / "model.gguf").write_bytes(POINTER)
    return folder / "model.gguf"


def missing_shard(folder: Path) -> Path:
    write_hf(folder, TINY, TENSORS, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    (folder / "model-00002-of-00003.safetensors.incomplete").write_bytes(b"..")
    return folder


def missing_index(folder: Path) -> Path:
    write_hf(folder, TINY, TENSORS, shards=3)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model-00003-of-00003.safetensors").unlink()
    return folder


def short_shard(folder: Path) -> Path:
    write_hf(folder, TINY, TENSORS, shards=3)
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return folder


def broken_link(folder: Path) -> Path:
    snapshot = folder / "models--org--tiny" / "snapshots" / "0123"
    write_hf(snapshot, TINY, TENSORS)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("../../blobs/abcd")
    (folder / "models--org--tiny" / "blobs").mkdir()
    (folder / "models--org--tiny" / "blobs" / "abcd.incomplete").write_bytes(b"..")
    return snapshot


def foreign_half(folder: Path) -> Path:
    write_hf(folder, TINY, TENSORS, shards=2, config={"model_type": "gpt2"})
    (folder / "model-00001-of-00002.safetensors").unlink()
    return folder


def foreign_empty(folder: Path) -> Path:
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    (folder / "pytorch_model.bin").write_bytes(b"")
    return folder


def missing_part(folder: Path) -> Path:
    write_meta(folder, TINY, TENSORS, 2)
    (folder / "consolidated.00.pth").unlink()
    return folder


def missing_last_part(folder: Path) -> Path:
    write_meta(folder, TINY, TENSORS, 2)
    (folder / "consolidated.01.pth").unlink()
    return folder


def short_pth(folder: Path) -> Path:
    write_meta(folder, TINY, TENSORS)
    path = folder / "consolidated.00.pth"
    path.write_bytes(path.read_bytes()[:-500])
    return folder


def short_gguf(folder: Path) -> Path:
    path = write_gguf(folder / "tiny.gguf", TINY, TENSORS)
    path.write_bytes(path.read_bytes()[:-1])
    return path


def short_bin(folder: Path) -> Path:
    path = write_llama2c(folder / "tiny.bin", TINY, TENSORS)
    path.write_bytes(path.read_bytes()[:-1])
    return path


def long_bin(folder: Path) -> Path:
    path = write_llama2c(folder / "tiny.bin", TINY, TENSORS)
    path.write_bytes(path.read_bytes() + b"\0")
    return path


def int8_bin(folder: Path) -> Path:
    return write_llama2c(folder / "tiny.bin", TINY, TENSORS, version=2)


def some_bin(folder: Path) -> Path:
    (folder / "x.bin").write_bytes(b"hello, I am no checkpoint at all")
    return folder / "x.bin"


def old_ggml(folder: Path) -> Path:
    (folder / "ggml-model-q4_0.bin").write_bytes(b"tjgg\x03\0\0\0")
    return folder / "ggml-model-q4_0.bin"


def empty_file(folder: Path) -> Path:
    (folder / "model.gguf").write_bytes(b"")
    return folder / "model.gguf"


def html(folder: Path) -> Path:
    config_alone(folder)
    (folder / "config.json").write_text("<!DOCTYPE html>")
    return folder


def empty_config(folder: Path) -> Path:
    (folder / "config.json").write_text("")
    return folder


def outside(folder: Path) -> Path:
    config_alone(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret"}}')
    return folder


def other_config(folder: Path) -> Path:
    (folder / "config.json").write_text('{"editor": "vim"}')
    return folder


SAID: dict[Callable[[Path], Path], str] = {
    nothing: "{0} does not exist; expected a Hugging Face or Meta folder, a .gguf file or a llama2.c .bin file",
    empty: "{0} is an empty folder; expected a Hugging Face or Meta folder",
    unreadable_kind: "{0} is not a regular file",
    unfinished: "{0} holds a download that has not finished (1 *.incomplete file): download it again",
    only_a_cache: "{0} holds a download that has not finished (only the cache of one): download it again",
    unfinished_file: "{0} is a download that has not finished",
    too_high: "{0} holds no checkpoint itself; {0}/models/tiny looks like one: name that folder",
    cache_too_high: "{0} holds no checkpoint itself; {0}/snapshots/0123 looks like one: name that folder",
    adapter: "{0} holds an adapter (LoRA), which is no model by itself; expected the model that it was made for",
    weights_alone: "{0} holds weights, but neither config.json (Hugging Face) nor params.json (Meta)",
    config_alone: "{0} holds config.json, but no weights (model.safetensors or its index)",
    params_alone: "{0} holds params.json, but no consolidated.00.pth",
    pth_alone: "{0} is part of a checkpoint, and there is no params.json beside it",
    several_gguf: "{0} holds 2 GGUF files: name one, such as {0}/a.gguf",
    one_bin: "{0} holds no config.json and no params.json; for a llama2.c model, name the file: {0}/stories15M.bin",
    other_things: "{0} holds no checkpoint, only a, b, c, …; expected a Hugging Face or Meta folder",
    pointer_shard: "{0}/model.safetensors is a git-lfs pointer, not the file itself: run `git lfs pull` in that folder",
    pointer_file: "{0} is a git-lfs pointer, not the file itself: run `git lfs pull` in that folder",
    missing_shard: "{0} is not complete: of the 3 files that its index names, model-00002-of-00003.safetensors is not "
    "there (1 *.incomplete file beside it). Download it again.",
    missing_index: "{0} holds 2 of 3 files of weights and no index (model.safetensors.index.json): the download is not complete",
    short_shard: "{0}/model-00002-of-00003.safetensors is cut short or damaged: it has",
    broken_link: "{0}/model.safetensors is a link to a file that is not there: the download is not complete (1 *.incomplete",
    foreign_half: "{0} is not complete: of the 2 files that its index names, model-00001-of-00002.safetensors is not",
    foreign_empty: "{0}/pytorch_model.bin is empty; the download is not complete",
    missing_part: "{0} is not complete: consolidated.00.pth is missing. Download it again.",
    missing_last_part: "{0} is not complete: it holds 1 of 2 files (the first has 8 of 16 rows)",
    short_pth: "{0}/consolidated.00.pth is cut short or damaged: its directory, which stands at the end, cannot be read",
    short_gguf: "{0} is cut short or damaged: it has 21599 bytes, and its header speaks of 21600. If it was downloaded",
    short_bin: "{0} is cut short or damaged: it has 20827 bytes, and its header speaks of 20828",
    long_bin: "{0} is no llama2.c file: as one it would have 20828 bytes, and it has 20829",
    int8_bin: "{0} is a llama2.c file of version 2 (int8): export it with --version 0 or 1, in float32",
    some_bin: "{0} is no checkpoint: it is neither GGUF nor .pth, and its first numbers are not those of llama2.c",
    old_ggml: "{0} is in a format of llama.cpp from before GGUF (August 2023), which is not read",
    empty_file: "{0} is empty; expected a Hugging Face or Meta folder",
    html: "{0}/config.json is not the JSON that was expected: ",
    empty_config: "{0}/config.json is empty; the download is not complete",
    outside: "{0}/model.safetensors.index.json names files outside its folder",
    other_config: "{0}/config.json has no model_type: it is not the config.json of a language model",
}


@pytest.mark.parametrize("make", SAID, ids=lambda make: make.__name__)
def test_what_is_said(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    path = make(folder)
    line = refusal(path)
    assert line.startswith(SAID[make].replace("{0}", str(path))), line


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": None}, "has no hidden_size"),
        ({"hidden_size": -1}, "hidden_size is -1, not a positive number"),
        ({"hidden_size": "16"}, "hidden_size is '16', not a positive number"),
        ({"num_hidden_layers": 10**18}, "num_hidden_layers is 1000000000000000000, not a positive number of a sensible size"),
        ({"num_hidden_layers": 1 << 30}, "a model with layers = 1073741824 is not one that gpudoctor reads"),
        ({"num_hidden_layers": 3}, "has no tensor model.layers.2.input_layernorm.weight"),
        ({"num_key_value_heads": 3}, "4 query heads cannot share 3 key-value heads"),
        ({"num_key_value_heads": True}, "num_key_value_heads is True"),
        ({"head_dim": 5}, "heads are 5 wide; rotary embeddings need an even width"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0, not a positive number"),
        ({"rope_theta": [1]}, "rope_theta is a list, not a positive number"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "has no factor"),
        ({"vocab_size": 33}, "model.embed_tokens.weight has shape 32 x 16; the model's numbers ask for 33 x 16"),
        ({"intermediate_size": 32}, "mlp.gate_proj.weight has shape 24 x 16; the model's numbers ask for 32 x 16"),
    ],
)
def test_a_config_that_cannot_be_meant(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    write_hf(tmp_path, TINY, TENSORS)
    values = {**hf_config(TINY), **config}
    (tmp_path / "config.json").write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    assert message in refusal(tmp_path)


@pytest.mark.parametrize("key", ["moe", "vision_model", "quantization_args", "lora_args"])
def test_models_of_meta_that_are_not_plain(tmp_path: Path, key: str) -> None:
    write_meta(tmp_path, TINY, TENSORS, params={key: {"a": 1}})
    assert f"describes a model with {key}" in refusal(tmp_path)


def test_models_of_meta_that_see(tmp_path: Path) -> None:
    write_meta(tmp_path, TINY, TENSORS, params={"vision_chunk_size": 448})
    assert "describes a model with pictures" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general.architecture": "gemma2"}, "holds a model of the architecture 'gemma2'"),
        ({"llama.expert_count": 8}, "holds a mixture of experts"),
        ({"llama.rope.scaling.type": "yarn"}, "stretches its rotary embeddings by 'yarn'"),
        ({"llama.rope.dimension_count": 2}, "have another width than the heads' 4"),
        ({"llama.attention.head_count_kv": [2, 1]}, "attention.head_count_kv is a tuple"),
        ({"llama.block_count": 0}, "block_count is 0, not a positive number"),
        ({"general.alignment": 0}, "its alignment is no number of bytes"),
    ],
)
def test_gguf_that_is_not_read(tmp_path: Path, metadata: dict[str, Any], message: str) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", TINY, TENSORS, arch="llama", metadata=metadata)
    assert message in refusal(path)


@pytest.mark.parametrize(("version", "message"), [(1, "is of version 1 of GGUF"), (3 << 24, "written for a big-endian machine")])
def test_versions_of_gguf_that_are_not_read(tmp_path: Path, version: int, message: str) -> None:
    assert message in refusal(write_gguf(tmp_path / "tiny.gguf", TINY, TENSORS, version=version))


def test_a_line_stays_a_line(tmp_path: Path) -> None:
    folder = tmp_path / ("a\nb\x1b[31m" + "c" * 200)
    folder.mkdir()
    line = refusal(folder)
    assert line.isprintable()
    assert len(line) <= 500
