"""Any bytes: one line or a checkpoint, soon, in little memory. Any file cut short: one line."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudoctor import checkpoint
from gpudoctor.checkpoint import Checkpoint, NotACheckpoint
from gpudoctor.contents import Contents
from tests import sparse as holes
from tests.checkpoints import (
    TINY,
    gguf_string,
    hf_config,
    seeded,
    write_gguf,
    write_hf,
    write_llama2c,
    write_meta,
    write_tokenizer_bin,
)

TENSORS = seeded(TINY)


def pickled(folder: Path, write: Callable[[Path, list[holes.Row]], Path]) -> None:
    """A Hugging Face folder whose weights are in a file of torch.save."""
    (folder / "config.json").write_text(json.dumps(hf_config(TINY)))
    write(folder / "pytorch_model.bin", [(name, size, "F32") for name, size, _ in holes.hf_rows(TINY)])


WRITERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "safetensors": (lambda folder: write_hf(folder, TINY, TENSORS), "model.safetensors"),
    "config": (lambda folder: write_hf(folder, TINY, TENSORS), "config.json"),
    "index": (lambda folder: write_hf(folder, TINY, TENSORS, shards=2), "model.safetensors.index.json"),
    "pth": (lambda folder: write_meta(folder, TINY, TENSORS), "consolidated.00.pth"),
    "params": (lambda folder: write_meta(folder, TINY, TENSORS), "params.json"),
    "llama2c": (lambda folder: write_llama2c(folder / "tiny.bin", TINY, TENSORS), "tiny.bin"),
    "llama2c-1": (lambda folder: write_llama2c(folder / "tiny.bin", TINY, TENSORS, version=1), "tiny.bin"),
    "llama2c-2": (lambda folder: write_llama2c(folder / "tiny.bin", TINY, TENSORS, version=2), "tiny.bin"),
    "gguf": (lambda folder: write_gguf(folder / "tiny.gguf", TINY, TENSORS), "tiny.gguf"),
    "bin": (lambda folder: pickled(folder, holes.sparse_pth), "pytorch_model.bin"),
    "legacy": (lambda folder: pickled(folder, holes.sparse_legacy), "pytorch_model.bin"),
}
WEIGHTS = [name for name in WRITERS if name not in {"config", "index", "params"}]
BEGINNINGS = [
    b"",
    b"{",
    b"GGUF\x03\0\0\0",
    b"24ka\x01\0\0\0",
    b"PK\x03\x04",
    b"\x80\x02}",
    b"tjgg",
    struct.pack("<7i", 4, 4, 1, 1, 1, 4, 4),
]


@contextlib.contextmanager
def sample(name: str) -> Iterator[tuple[Path, Path]]:
    """A checkpoint in a folder of its own: what to read, and the file to damage."""
    write, file = WRITERS[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder)
        damaged = folder / file
        yield (damaged if file.startswith("tiny") else folder), damaged


def looked_at(path: Path) -> Checkpoint | str:
    """What ``read`` says of it, having seen to it that it is one line and came soon; ``describe`` too."""
    counted(path)
    found = said(path, checkpoint.read)
    assert isinstance(found, (Checkpoint, str))
    return found


def counted(path: Path) -> Contents | str:
    """What ``describe`` says of it: one line, or counts that the files have room for."""
    found = said(path, checkpoint.describe)
    assert isinstance(found, (Contents, str))
    if isinstance(found, Contents):
        assert 0 < found.size <= sum(size for _, size in found.files)
        assert 0 < found.parameters <= 8 * found.size, "a weight takes a bit at least"
        assert (found.architecture is None) == isinstance(found.why_not, str)
        assert found.why_not is None or (found.why_not.isprintable() and len(found.why_not) < 400)
    return found


def said(path: Path, look: Callable[[str], object]) -> object:
    begin = time.monotonic()
    try:
        found = look(str(path))
    except NotACheckpoint as reason:
        found = str(reason)
        assert found.isprintable()
        assert 0 < len(found) <= 500
        assert str(path) in found or len(str(path)) > 300
    assert time.monotonic() - begin < 5
    return found


@pytest.mark.parametrize("name", WRITERS)
@settings(deadline=None, max_examples=40)
@given(begin=st.sampled_from(BEGINNINGS), rest=st.binary(max_size=300))
def test_any_bytes_are_a_checkpoint_or_one_line(name: str, begin: bytes, rest: bytes) -> None:
    with sample(name) as (path, file):
        file.write_bytes(begin + rest)
        looked_at(path)


@pytest.mark.parametrize("name", WRITERS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_bytes_in_a_sound_file_are_a_checkpoint_or_one_line(name: str, data: st.DataObject) -> None:
    with sample(name) as (path, file):
        whole = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, min(len(whole), 3000) - 1))
            at = data.draw(st.sampled_from([at, len(whole) - 1 - at]))
            value = data.draw(st.binary(min_size=1, max_size=8))
            whole[at : at + len(value)] = value
        file.write_bytes(whole)
        found = looked_at(path)
        if isinstance(found, Checkpoint):
            within(found)


def within(found: Checkpoint) -> None:
    """Every piece lies in its file."""
    for piece in found.pieces:
        assert 0 <= piece.offset <= piece.offset + piece.size <= os.path.getsize(found.files[piece.file])


@pytest.mark.parametrize("name", WEIGHTS)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_file_cut_short_is_no_checkpoint(name: str, data: st.DataObject) -> None:
    with sample(name) as (path, file):
        size = file.stat().st_size
        os.truncate(file, data.draw(st.integers(0, size - 1) | st.integers(max(0, size - 200), size - 1)))
        assert isinstance(looked_at(path), str)
        assert isinstance(counted(path), str)


@settings(deadline=None, max_examples=60)
@given(data=st.binary(max_size=200), cut=st.booleans())
def test_any_bytes_as_a_tokenizer_leave_the_checkpoint_as_it_is(data: bytes, cut: bool) -> None:
    with sample("llama2c") as (path, _):
        write_tokenizer_bin(path.parent / "tokenizer.bin", [(b"a", 0.0)] * 40)
        whole = (path.parent / "tokenizer.bin").read_bytes()
        (path.parent / "tokenizer.bin").write_bytes(whole[: len(data)] if cut else data + whole[len(data) :])
        assert isinstance(looked_at(path), Checkpoint)
    with sample("params") as (path, _):
        (path / "tokenizer.model").write_bytes(b"\x0a\x03\x0a\x01a" + data)
        assert isinstance(looked_at(path), Checkpoint)


def sparse(path: Path, begin: bytes, size: int) -> Path:
    path.write_bytes(begin)
    os.truncate(path, size)
    return path


def hostile_safetensors(folder: Path) -> Path:
    (folder / "config.json").write_text(json.dumps(hf_config(TINY)))
    sparse(folder / "model.safetensors", struct.pack("<Q", 8 << 30), 16 << 30)
    return folder


def hostile_json(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_hf(folder, TINY, TENSORS)
        (folder / "config.json").write_text(text)
        return folder

    return make


def hostile_gguf(header: bytes) -> Callable[[Path], Path]:
    return lambda folder: sparse(folder / "x.gguf", b"GGUF" + struct.pack("<I", 3) + header, 16 << 30)


def hostile_zip(folder: Path) -> Path:
    write_meta(folder, TINY, TENSORS)
    end = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, 1 << 30, 4, 0)
    path = sparse(folder / "consolidated.00.pth", b"PK\x03\x04", 1 << 31)
    with path.open("ab") as file:
        file.write(end)
    return folder


def hostile_llama2c(folder: Path) -> Path:
    most = (1 << 31) - 1
    return sparse(folder / "x.bin", struct.pack("<7i", most, most, most, 1, 1, most, most), 1 << 40)


def hostile_layers(folder: Path) -> Path:
    return sparse(folder / "x.bin", struct.pack("<7i", 4, 4, 4096, 1, 1, 4, 4), 1 << 40)


def hostile_safetensors_header(text: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_hf(folder, TINY, TENSORS)
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
        return folder

    return make


def hostile_tokenizer(data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_meta(folder, TINY, TENSORS)
        (folder / "tokenizer.model").write_bytes(data)
        return folder

    return make


def hostile_config(**values: object) -> Callable[[Path], Path]:
    return lambda folder: write_hf(folder, TINY, TENSORS, config=values)


def index_of_links(folder: Path) -> Path:
    write_hf(folder, TINY, TENSORS, shards=2)
    names = {f"tensor{number}": f"link{number}" for number in range(4000)}
    for name in names.values():
        (folder / name).symlink_to("model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


def parts_that_are_links(folder: Path) -> Path:
    write_meta(folder, TINY, TENSORS)
    for number in range(1, 1000):
        (folder / f"consolidated.{number:02}.pth").symlink_to("consolidated.00.pth")
    return folder


def gguf_of_links(folder: Path) -> Path:
    count, path = 3000, folder / "x-00001-of-03000.gguf"
    text = struct.pack("<QQ", 0, 2) + gguf_string("split.count") + struct.pack("<II", 4, count)
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + text + gguf_string("a") + struct.pack("<I", 8) + gguf_string("b" * (1 << 20)))
    for number in range(2, count + 1):
        (folder / f"x-{number:05}-of-{count:05}.gguf").symlink_to(path.name)
    return path


def array_of(kind: int, count: int) -> bytes:
    return struct.pack("<QQ", 0, 1) + gguf_string("a") + struct.pack("<IIQ", 9, kind, count)


def hostile_names(word: str) -> Callable[[Path], Path]:
    """As many tensors of one number as a header may have, with names that are made for regular expressions to stumble on."""

    def make(folder: Path) -> Path:
        rows = [(f"{word * (500 // len(word))}{number}.weight", (1, 1), "F16") for number in range(15_000)]
        (folder / "config.json").write_text(json.dumps(hf_config(TINY)))
        holes.sparse_safetensors(folder / "model.safetensors", rows)
        return folder

    return make


def hostile_pickle(program: bytes) -> Callable[[Path], Path]:
    """A file of PyTorch before 1.6 with such a state dict."""

    def make(folder: Path) -> Path:
        (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
        begin = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
        (folder / "pytorch_model.bin").write_bytes(begin + program)
        return folder

    return make


MOST = (1 << 63) - 1
HOSTILE: dict[str, Callable[[Path], Path]] = {
    "safetensors header of 8 GiB": hostile_safetensors,
    "deep JSON": hostile_json("[" * 200_000),
    "deep object": hostile_json('{"model_type":' * 100_000),
    "long number": hostile_json('{"hidden_size": ' + "9" * 5_000_000 + "}"),
    "NaN": hostile_json('{"rms_norm_eps": NaN, "model_type": "llama"}'),
    "infinity": hostile_json('{"rms_norm_eps": 1e999, "model_type": "llama", "hidden_size": 1e999}'),
    "key twice": hostile_json('{"model_type": "llama", "model_type": "gpt2"}'),
    "surrogate": hostile_json('{"model_type": "\\ud800\\n"}'),
    "many tensors": hostile_gguf(struct.pack("<QQ", MOST, 0)),
    "many keys": hostile_gguf(struct.pack("<QQ", 0, MOST)),
    "100000 empty keys": hostile_gguf(struct.pack("<QQ", 0, 100_000)),
    "100000 empty tensors": hostile_gguf(struct.pack("<QQ", 100_000, 0)),
    "long key": hostile_gguf(struct.pack("<QQQ", 0, 1, MOST)),
    "key of 8 GiB": hostile_gguf(struct.pack("<QQQ", 0, 1, 8 << 30)),
    "many strings": hostile_gguf(array_of(8, MOST)),
    "2 million strings": hostile_gguf(array_of(8, 1 << 21)),
    "many numbers": hostile_gguf(array_of(4, MOST)),
    "2 million numbers": hostile_gguf(array_of(10, 1 << 21)),
    "array in array": hostile_gguf(array_of(9, 1 << 20)),
    "tensor of 2^252": hostile_gguf(
        struct.pack("<QQ", 1, 0) + gguf_string("a") + struct.pack("<I4QIQ", 4, MOST, MOST, MOST, MOST, 0, MOST)
    ),
    "a string of 60 MB": hostile_gguf(
        struct.pack("<QQ", 1, 0) + gguf_string("n" * 60_000_000) + struct.pack("<IQIQ", 1, 5, 999, 0)
    ),
    "a GGUF file of 3000 links": gguf_of_links,
    "10 million lists": hostile_json('{"model_type": "llama", "x": [' + "[]," * 10_000_000 + "[]]}"),
    "10 million lists in a safetensors header": hostile_safetensors_header(b'{"x": [' + b"[]," * 10_000_000 + b"[]]}"),
    "a dtype of 20 MB": hostile_safetensors_header(
        b'{"x": {"dtype": "' + b"F" * 20_000_000 + b'", "shape": [1], "data_offsets": [4, 1]}}'
    ),
    "an index of 4000 links": index_of_links,
    "1000 parts that are links": parts_that_are_links,
    "an activation that is a list": hostile_config(hidden_act=["silu"]),
    "30 million pieces": hostile_tokenizer(b"\x0a\0" * 30_000_000),
    "30 million settings": hostile_tokenizer(b"\x0a\0\x12\x80\x87\xa7\x0e" + b"\x08\x01" * 15_000_000),
    "zip directory of 1 GiB": hostile_zip,
    "names that make a pattern go back": hostile_names("_position"),
    "names that make another pattern go back": hostile_names(".weight.quant_state."),
    "an old pickle that only grows": hostile_pickle(b"]" * 70_000),
    "an old pickle of steps": hostile_pickle(b"N0" * (1 << 21)),
    "old pickles without end": hostile_pickle(b"N." * (1 << 20)),
    "an identity that takes for ever to hash": hostile_pickle(b")" + b"q\x00h\x00h\x00\x86" * 60 + b"(NNNNNh\x00tQ."),
    "layers without end": hostile_config(model_type="gemma2", num_hidden_layers=(1 << 31) - 1),
    "kinds of layers without end": hostile_config(model_type="gemma2", layer_types=["x"] * 400_000),
    "llama2.c of 2^93": hostile_llama2c,
    "llama2.c of 4096 layers": hostile_layers,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_sizes_that_cannot_be_meant_are_one_line_soon(tmp_path: Path, name: str) -> None:
    path = HOSTILE[name](tmp_path)
    begin = time.monotonic()
    found = looked_at(path)
    assert time.monotonic() - begin < 5, "two seconds for each of the two, and what a busy machine adds"
    assert isinstance(found, str) or found.format == "transformers" or found.no_tokenizer is not None


READS = """
import resource, sys
from gpudoctor import checkpoint
resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
for path in sys.argv[1:]:
    for look in (checkpoint.read, checkpoint.describe):
        try:
            look(path)
        except checkpoint.NotACheckpoint:
            pass
"""


def test_nor_do_they_cost_memory(tmp_path: Path) -> None:
    paths = []
    for number, make in enumerate(HOSTILE.values()):
        (tmp_path / str(number)).mkdir()
        paths.append(str(make(tmp_path / str(number))))
    done = subprocess.run([sys.executable, "-c", READS, *paths], capture_output=True, text=True, timeout=180, check=False)
    assert (done.returncode, done.stderr) == (0, "")
