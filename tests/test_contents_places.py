"""Where tensors may lie: not on one another, not twice, not outside; and what no checkpoint is, or cannot be opened."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpudoctor import checkpoint
from gpudoctor.checkpoint import NotACheckpoint, describe
from tests import checkpoints, sparse
from tests.checkpoints import (
    TINY,
    gguf_string,
    hf_config,
    meta_params,
    pickled_tensor,
    seeded,
    text,
    write_gguf,
    write_hf,
    write_meta,
    write_zip,
)

TENSORS = seeded(TINY)
GPT2 = {"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 4}


def refusals(path: Path) -> str:
    """The line that both ``read`` and ``describe`` say."""
    lines = set()
    for look in (checkpoint.read, describe):
        with pytest.raises(NotACheckpoint) as refused:
            look(str(path))
        lines.add(str(refused.value))
    (line,) = lines
    assert str(path) in line
    return line


# ---------------------------------------------------------------- safetensors


def safetensors(folder: Path, places: dict[str, tuple[int, int]], size: int) -> Path:
    """A folder whose file has float32 tensors at these places, and that many bytes after its header."""
    header = {
        name: {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]} for name, (begin, end) in places.items()
    }
    (folder / "config.json").write_text(json.dumps(GPT2))
    written = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(written)) + written + bytes(size))
    return folder


@pytest.mark.parametrize(
    ("places", "size", "message"),
    [
        ({"a": (0, 16), "b": (0, 16)}, 16, "'a' and 'b' lie on one another"),
        ({"a": (0, 16), "b": (8, 24)}, 24, "'a' and 'b' lie on one another"),
        ({"a": (0, 32), "b": (8, 16)}, 32, "'a' and 'b' lie on one another"),
        ({"a": (0, 16), "b": (20, 24)}, 24, "'a' and 'b' have 4 bytes of none between them"),
        ({"a": (4, 16)}, 16, "'the header' and 'a' have 4 bytes of none between them"),
        ({"a": (0, 16)}, 20, "4 bytes after its last tensor belong to none"),
        ({"a": (0, 16)}, 12, "is cut short or damaged"),
        ({}, 0, "holds no weights: there is no tensor in it"),
        ({"a": (0, 0)}, 0, "holds no weights: there is no tensor in it"),
    ],
)
def test_tensors_of_safetensors(tmp_path: Path, places: dict[str, tuple[int, int]], size: int, message: str) -> None:
    with pytest.raises(NotACheckpoint) as refused:
        describe(str(safetensors(tmp_path, places, size)))
    assert message in str(refused.value)


def test_a_terabyte_that_is_a_kilobyte(tmp_path: Path) -> None:
    assert "lie on one another" in refusals(safetensors(tmp_path, {f"layer.{n}": (0, 4096) for n in range(1000)}, 4096))


def test_a_packed_tensor_of_no_kind(tmp_path: Path) -> None:
    entry = {"dtype": "", "shape": [4], "data_offsets": [0, 4]}
    written = json.dumps({"x.qweight": entry}).encode()
    (tmp_path / "config.json").write_text(json.dumps(GPT2))
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(written)) + written + bytes(4))
    assert "the header does not say where x.qweight is" in refusals(tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}, None),
        ({"dtype": "F4", "shape": [9], "data_offsets": [0, 4]}, "which is not what its shape and F4 make"),
        ({"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}, None),
        ({"dtype": "NEW3", "shape": [10], "data_offsets": [0, 4]}, None),
        ({"dtype": "NEW3", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 4]}, "which is not what its shape and NEW3 make"),
        ({"dtype": "", "shape": [4], "data_offsets": [0, 4]}, "does not say where a is"),
        ({"dtype": "F\n", "shape": [4], "data_offsets": [0, 4]}, "does not say where a is"),
        ({"dtype": "F" * 21, "shape": [4], "data_offsets": [0, 4]}, "does not say where a is"),
        ({"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}, "does not say where a is"),
        ({"dtype": "F32", "shape": "4", "data_offsets": [0, 4]}, "does not say where a is"),
    ],
)
def test_kinds_of_safetensors(tmp_path: Path, entry: dict[str, Any], message: str | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GPT2))
    written = json.dumps({"a": entry}).encode()
    size = entry["data_offsets"][1]
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(written)) + written + bytes(size))
    if message is None:
        assert (describe(str(tmp_path)).parameters, describe(str(tmp_path)).size) == (entry["shape"][0], size)
    else:
        assert message in refusals(tmp_path)


# ---------------------------------------------------------------- GGUF


def gguf(path: Path, rows: list[tuple[str, int, int]], size: int) -> Path:
    """A file with float32 tensors of (name, numbers, offset), and that many bytes after its header."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(rows), 1) + gguf_string("general.architecture")
    head += struct.pack("<I", 8) + gguf_string("llama")
    for name, count, offset in rows:
        head += gguf_string(name) + struct.pack("<IQIQ", 1, count, 0, offset)
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(size))
    return path


@pytest.mark.parametrize(
    ("rows", "size", "message"),
    [
        ([("a", 8, 0), ("b", 8, 0)], 32, "'a' and 'b' lie on one another"),
        ([("a", 16, 0), ("b", 8, 32)], 64, "'a' and 'b' lie on one another"),
        ([("a", 8, 0), ("b", 8, 96)], 128, "'a' and 'b' have 64 bytes of none between them"),
        ([("a", 8, 64)], 96, "'the header' and 'a' have 64 bytes of none between them"),
        ([("a", 8, 8)], 96, "'the header' and 'a' have 8 bytes of none between them"),
        ([("a", 8, 0), ("a", 8, 32)], 64, "a name stands twice in its header"),
        ([("a", 8, 0), ("b", 9, 32)], 67, "is cut short or damaged"),
    ],
)
def test_tensors_of_gguf(tmp_path: Path, rows: list[tuple[str, int, int]], size: int, message: str) -> None:
    assert message in refusals(gguf(tmp_path / "x.gguf", rows, size))


def test_tensors_of_gguf_that_stand_in_another_order(tmp_path: Path) -> None:
    path = gguf(tmp_path / "x.gguf", [("token_embd.weight", 3, 32), ("b", 8, 0)], 44)
    assert (describe(str(path)).parameters, describe(str(path)).size) == (11, 44)


def test_integers_in_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table beside the weights is counted as it is; weights of such a kind are none that the smoke test can run."""
    monkeypatch.setitem(checkpoints.GGUF_KINDS, "F32", 26)
    path = write_gguf(tmp_path / "x.gguf", TINY, TENSORS)
    assert {group.kind for group in describe(str(path)).groups} == {"I32"}
    assert describe(str(path)).size == 4 * TINY.parameters
    with pytest.raises(NotACheckpoint, match="keeps weights as integers, which are not read"):
        checkpoint.read(str(path))


def test_files_of_gguf_that_hold_the_same(tmp_path: Path) -> None:
    for number in range(2):
        write_gguf(tmp_path / f"x-{number + 1:05}-of-00002.gguf", TINY, TENSORS, metadata={"split.count": 2})
    (tmp_path / "x-00002-of-00002.gguf").write_bytes((tmp_path / "x-00002-of-00002.gguf").read_bytes() + b"\0")
    with pytest.raises(NotACheckpoint, match=r"x-00002-of-00002\.gguf holds 'blk\.0\..*', which another of the 2 files holds too"):
        describe(str(tmp_path))


# ---------------------------------------------------------------- pickles


def folder_of(folder: Path, data: Path) -> Path:
    """A Hugging Face folder of a model that is not ours, with that file of weights."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(GPT2))
    data.rename(folder / "pytorch_model.bin")
    return folder


def program(*tensors: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(text(f"h.0.t{number}.weight") + tensor for number, tensor in enumerate(tensors)) + b"u."


def zipped(folder: Path, *tensors: bytes, size: int = 64) -> str:
    members = {"x/data.pkl": program(*tensors), "x/data/0": bytes(size), "x/data/1": bytes(size)}
    return str(folder_of(folder / "m", write_zip(folder / "x", members)))


@pytest.mark.parametrize(
    ("tensors", "counts"),
    [
        ([pickled_tensor("0", "F32", (4, 4))] * 2, (16, 64)),
        ([pickled_tensor("0", "F32", (4, 4)), pickled_tensor("1", "F32", (4, 4))], (32, 128)),
        ([pickled_tensor("0", "F32", (4, 4)), pickled_tensor("0", "F32", (4, 4), stride=(1, 4))], (16, 64)),
        ([pickled_tensor("0", "F32", (2, 4)), pickled_tensor("0", "F32", (2, 4), offset=8)], (16, 64)),
        (
            [pickled_tensor("0", "F32", (4, 2), stride=(4, 1)), pickled_tensor("0", "F32", (4, 2), stride=(4, 1), offset=2)],
            (16, 64),
        ),
        ([pickled_tensor("0", "F32", (1 << 40, 4), stride=(0, 1))], (4, 16)),
        ([pickled_tensor("0", "F32", (0, 4)), pickled_tensor("1", "F32", (4,))], (4, 16)),
    ],
    ids=["tied", "two", "transposed twin", "halves", "columns", "expanded", "empty"],
)
def test_views_of_one_storage_count_once(tmp_path: Path, tensors: list[bytes], counts: tuple[int, int]) -> None:
    found = describe(zipped(tmp_path, *tensors))
    assert (found.parameters, found.size) == counts


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([pickled_tensor("0", "F32", (4, 4), offset=1)], "needs 68 bytes of x/data/0, which has 64"),
        ([pickled_tensor("0", "F32", (5, 4), stride=(1, 1))], "needs 80 bytes of x/data/0, which has 64"),
        ([pickled_tensor("0", "F32", (2, 2), stride=(100, 1))], "needs 408 bytes of x/data/0, which has 64"),
        ([pickled_tensor("0", "F32", (1 << 62, 1 << 62), stride=(1, 1))], "of x/data/0, which has 64"),
        ([pickled_tensor("0", "F32", (4, 4)), pickled_tensor("0", "F32", (3, 4))], "lie on one another in x/data/0"),
        ([pickled_tensor("7", "F32", (4, 4))], "should be in x/data/7, which is not there"),
    ],
)
def test_views_that_cannot_be(tmp_path: Path, tensors: list[bytes], message: str) -> None:
    with pytest.raises(NotACheckpoint) as refused:
        describe(zipped(tmp_path, *tensors))
    assert message in str(refused.value)


def test_entries_of_an_archive_on_one_another(tmp_path: Path) -> None:
    path = write_zip(
        tmp_path / "x",
        {
            "x/data.pkl": program(*(pickled_tensor(str(key), "F32", (4, 4)) for key in range(2))),
            "x/data/0": bytes(64),
            "x/data/1": b"",
        },
    )
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("x/data/0").header_offset
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"x/data/1") - 46  # in the directory: its sizes and its place become those of the other
    data[entry + 20 : entry + 28] = struct.pack("<II", 64, 64)
    data[entry + 42 : entry + 46] = struct.pack("<I", place)
    path.write_bytes(data)
    with pytest.raises(NotACheckpoint, match="x/data/0 and x/data/1 lie on one another"):
        describe(str(folder_of(tmp_path / "m", path)))


class Runs:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def old(*values: bytes) -> bytes:
    """A file of PyTorch before 1.6 with these pickles after its head."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
    return b"".join(pickle.dumps(value, 2) for value in head) + b"".join(values)


@pytest.mark.parametrize("where", range(2))
def test_a_malicious_file_of_the_older_format_does_not_run(tmp_path: Path, where: int) -> None:
    proof = tmp_path / "it-ran"
    pickles = [pickle.dumps({}, 2), pickle.dumps([], 2)]
    pickles[where] = pickle.dumps(Runs(f"touch {proof}"), 2)
    (tmp_path / "x").write_bytes(old(*pickles))
    with pytest.raises(NotACheckpoint, match=r"wants to run posix\.system"):
        describe(str(folder_of(tmp_path / "m", tmp_path / "x")))
    assert not proof.exists()


OLD_TENSOR = pickled_tensor("0", "F32", (4, 4)).replace(b"tQ", b"NtQ", 1)
KEYS = pickle.dumps(["0"], 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (old(program(OLD_TENSOR), KEYS, struct.pack("<q", 16) + bytes(63)), "is cut short or damaged"),
        (old(program(OLD_TENSOR), KEYS, struct.pack("<q", -1) + bytes(64)), "is cut short or damaged"),
        (old(program(OLD_TENSOR), KEYS, struct.pack("<q", 1 << 62) + bytes(64)), "is cut short or damaged"),
        (old(program(OLD_TENSOR), KEYS, struct.pack("<q", 15) + bytes(64)), "needs 64 bytes of storage 0, which has 60"),
        (old(program(OLD_TENSOR), pickle.dumps(["0", "0"], 2), bytes(200)), "lists storages that its tensors do not have"),
        (old(program(OLD_TENSOR), pickle.dumps(["1"], 2), bytes(200)), "lists storages that its tensors do not have"),
        (old(program(OLD_TENSOR), pickle.dumps([], 2), bytes(200)), "it does not hold h.0.t0.weight"),
        (old(program(OLD_TENSOR), pickle.dumps({}, 2), bytes(200)), "begins like a file of PyTorch before 1.6, and is none"),
        (old(pickle.dumps([], 2), KEYS, bytes(200)), "holds no state dict"),
        (old(program(OLD_TENSOR)), "holds a damaged pickle"),
        (old(program(OLD_TENSOR.replace(b"NtQ", b"K\x01tQ")), KEYS, bytes(200)), "holds a damaged pickle"),
        (old(program(OLD_TENSOR)).replace(b"M\xe9\x03", b"M\xe8\x03", 1) + KEYS, "begins like a file of PyTorch before 1.6"),
        (old(program(OLD_TENSOR), KEYS).replace(b"endianq\x02\x88", b"endianq\x02\x89", 1), "written on a big-endian machine"),
    ],
)
def test_damaged_files_of_the_older_format(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(NotACheckpoint) as refused:
        describe(str(folder_of(tmp_path / "m", tmp_path / "x")))
    assert message in str(refused.value)


def test_a_file_of_the_older_format(tmp_path: Path) -> None:
    rows = [("wte.weight", (8, 4), "F16"), ("h.0.attn.bias", (1, 1, 4, 4), "F32"), ("h.0.ln_1.weight", (4,), "F32")]
    found = describe(str(folder_of(tmp_path / "m", sparse.sparse_legacy(tmp_path / "x", rows))))
    assert (found.parameters, found.size, found.pickled, found.dtype) == (36, 64 + 64 + 16, True, "F16")


# ---------------------------------------------------------------- Meta


def test_experts_that_only_some_files_have(tmp_path: Path) -> None:
    params = {"hidden_dim": 24, "moe": {"num_experts": 2, "num_experts_per_tok": 1}}
    (tmp_path / "params.json").write_text(json.dumps(meta_params(TINY, **params)))
    for number in range(2):
        rows = [
            ("tok_embeddings.weight", (16, 16), "BF16"),
            ("norm.weight", (16,), "BF16"),
            ("layers.0.attention.wq.weight", (8, 16), "BF16"),
            ("layers.0.attention.wo.weight", (16, 8), "BF16"),
            ("layers.0.feed_forward.gate.weight", (2, 16), "BF16"),
            (f"layers.0.feed_forward.experts.{number}.w1.weight", (24, 16), "BF16"),
        ]
        sparse.sparse_pth(tmp_path / f"consolidated.{number:02}.pth", rows)
    found = describe(str(tmp_path))
    assert found.parameters == 32 * 16 + 16 + 2 * 16 * 16 + 2 * 16 + 2 * 24 * 16
    assert found.size == 2 * found.parameters
    assert found.architecture is not None
    assert (found.architecture.experts, found.architecture.expert_hidden, found.architecture.vocab) == (2, 24, 32)


def test_a_model_of_meta_that_is_not_plain(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text(json.dumps(meta_params(TINY, vision_chunk_size=448)))
    sparse.sparse_pth(tmp_path / "consolidated.pth", [("text_model.tok_embeddings.weight", (32, 16), "BF16")])
    found = describe(str(tmp_path))
    assert (found.parameters, found.architecture) == (512, None)
    assert found.why_not == "params.json does not say hidden_dim, and its layers are not those of a plain Llama"


def test_files_of_meta_that_do_not_belong_together(tmp_path: Path) -> None:
    write_meta(tmp_path, TINY, TENSORS)
    sparse.sparse_pth(tmp_path / "consolidated.01.pth", [("layers.0.attention.wq.weight", (4, 16), "F32")])
    with pytest.raises(NotACheckpoint):
        describe(str(tmp_path))


# ---------------------------------------------------------------- what is no file, or none of a model


def loop(folder: Path) -> Path:
    (folder / "model").symlink_to("model")
    return folder / "model"


def loop_of_folders(folder: Path) -> Path:
    (folder / "models").symlink_to(".")
    return folder


def config_loop(folder: Path) -> Path:
    write_hf(folder, TINY, TENSORS)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("config.json")
    return folder


def pipe(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_hf(folder, TINY, TENSORS)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        return folder

    return make


def folder_as_a_file(folder: Path) -> Path:
    write_hf(folder, TINY, TENSORS)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    return folder


def pipeline(folder: Path) -> Path:
    (folder / "model_index.json").write_text("{}")
    write_hf(folder / "text_encoder", TINY, TENSORS)
    return folder


def only_a_tokenizer(folder: Path) -> Path:
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def adapter_file(folder: Path) -> Path:
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"{}")
    return folder / "adapter_model.safetensors"


def huge_config(folder: Path) -> Path:
    write_hf(folder, TINY, TENSORS)
    os.truncate(folder / "config.json", 1 << 40)
    return folder


def pointer(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_hf(folder, TINY, TENSORS)
        (folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n")
        return folder

    return make


def old_alone(folder: Path) -> Path:
    (folder / "model.bin").write_bytes(old(program(OLD_TENSOR), KEYS, struct.pack("<q", 16) + bytes(64)))
    return folder / "model.bin"


SAID: dict[str, tuple[Callable[[Path], Path], str]] = {
    "loop": (loop, "{0} cannot be read: Too many levels of symbolic links"),
    "loop of folders": (loop_of_folders, "{0} holds no checkpoint, only models; expected"),
    "config loop": (config_loop, "{0}/config.json cannot be read: Too many levels of symbolic links"),
    "pipe as config": (pipe("config.json"), "{0}/config.json is not a regular file"),
    "pipe as weights": (pipe("model.safetensors"), "{0}/model.safetensors is not a regular file"),
    "folder as weights": (folder_as_a_file, "{0}/model.safetensors is not a regular file"),
    "diffusers": (pipeline, "{0} holds a pipeline of diffusers, which makes pictures or sounds; expected a language model"),
    "tokenizer": (only_a_tokenizer, "{0} holds a tokenizer and no weights; expected a Hugging Face or Meta folder"),
    "adapter": (adapter_file, "{0} holds an adapter (LoRA), which is no model by itself"),
    "huge config": (huge_config, "{0}/config.json has 1099511627776 bytes; such a file has at most"),
    "pointer as config": (pointer("config.json"), "{0}/config.json is a git-lfs pointer, not the file itself"),
    "pointer as weights": (pointer("model.safetensors"), "{0}/model.safetensors is a git-lfs pointer, not the file itself"),
    "old file alone": (old_alone, "{0} is a zip archive or a file of torch.save; expected"),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_said(tmp_path: Path, name: str) -> None:
    make, said = SAID[name]
    (tmp_path / "c").mkdir()
    path = make(tmp_path / "c")
    line = refusals(path)
    assert line.startswith(said.replace("{0}", str(path))), line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    write_hf(tmp_path / "c", TINY, TENSORS)
    (tmp_path / "c").chmod(0)
    try:
        assert refusals(tmp_path / "c").endswith("cannot be listed: permission denied")
    finally:
        (tmp_path / "c").chmod(0o700)


@pytest.mark.parametrize("name", ["config.json", "model-00002-of-00003.safetensors", "model.safetensors.index.json"])
def test_a_file_of_a_folder_means_the_folder(tmp_path: Path, name: str) -> None:
    folder = write_hf(tmp_path, TINY, TENSORS, shards=3)
    found = describe(str(folder / name))
    assert (found.parameters, len(found.files), found.index_size) == (TINY.parameters, 3, 4 * TINY.parameters)


@pytest.mark.parametrize("size", [None, -1, "7", 1.5, 1 << 70])
def test_a_size_that_an_index_claims_is_not_believed(tmp_path: Path, size: object) -> None:
    folder = write_hf(tmp_path, TINY, TENSORS, shards=3)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "metadata": {"total_size": size}}))
    assert (describe(str(folder)).index_size, describe(str(folder)).size) == (None, 4 * TINY.parameters)


def test_gguf_files_beside_a_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(hf_config(TINY)))
    write_gguf(tmp_path / "x.Q4_K_M.gguf", TINY, TENSORS)
    assert describe(str(tmp_path)).format == checkpoint.read(str(tmp_path)).format == "gguf"
