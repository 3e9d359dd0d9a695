"""Writes checkpoints of their true size that take kilobytes on the disk: headers as they are, and holes for the numbers.

``python -m tests.sparse FOLDER 7b hf`` makes Llama 2 7B as Hugging Face keeps it, 13 GB by its length. Numbers of the three models
and the layouts are those of meta-llama/Llama-2-7b, -13b and -70b and of their ``-hf`` twins, rotary buffers included.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from gpudoctor.smoke.plan import Shape
from tests.checkpoints import (
    GGUF_NAMES,
    HF_NAMES,
    META_NAMES,
    SPLIT,
    gguf_metadata,
    gguf_string,
    gguf_value,
    hf_config,
    meta_params,
    pickled_tensor,
    renamed,
    shapes,
    text,
)

LLAMA2 = {
    "7b": Shape(dim=4096, layers=32, heads=32, kv_heads=32, head_dim=128, hidden=11008, vocab=32000, max_seq_len=4096),
    "13b": Shape(dim=5120, layers=40, heads=40, kv_heads=40, head_dim=128, hidden=13824, vocab=32000, max_seq_len=4096),
    "70b": Shape(dim=8192, layers=80, heads=64, kv_heads=8, head_dim=128, hidden=28672, vocab=32000, max_seq_len=4096),
}
PARAMETERS = {"7b": 6738415616, "13b": 13015864320, "70b": 68976648192}
"""Published: the sums in the model cards' safetensors metadata, without the rotary buffers."""
PARTS = {"7b": 1, "13b": 2, "70b": 8}
"""consolidated.NN.pth files that Meta gives each in."""
WIDTHS = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E8M0": 1}
_SHARD = 10_000_000_000  # bytes of a file at most, as transformers split in 2023

Row = tuple[str, tuple[int, ...], str]
"""Name, shape, kind."""


def size_of(row: Row) -> int:
    """Bytes of a tensor of plain numbers."""
    return math.prod(row[1]) * WIDTHS[row[2]]


def hole(path: Path, begin: bytes, size: int) -> Path:
    """A file of that size which begins with these bytes; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(begin)
    os.truncate(path, max(size, len(begin)))
    return path


# ---------------------------------------------------------------- the containers


def sparse_safetensors(path: Path, rows: Iterable[Row]) -> Path:
    """A safetensors file without its numbers; returns the path."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size, kind in rows:
        begin, end = end, end + size_of((name, size, kind))
        header[name] = {"dtype": kind, "shape": list(size), "data_offsets": [begin, end]}
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    return hole(path, struct.pack("<Q", len(written)) + written, 8 + len(written) + end)


def sparse_zip(path: Path, members: Mapping[str, bytes | int]) -> Path:
    """A zip archive of stored members, each its bytes or the size of a hole, with 64-bit sizes and places; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    directory, start = b"", 0
    with path.open("wb") as file:
        for name, data in members.items():
            size, encoded = (data if isinstance(data, int) else len(data)), name.encode()
            extra = struct.pack("<2H2Q", 1, 16, size, size)
            pad = -(start + 30 + len(encoded) + len(extra) + 4) % 64  # torch.save begins each storage at a multiple of 64
            extra += b"FB" + struct.pack("<H", pad) + b"Z" * pad
            plain = struct.pack("<5H3I", 45, 0, 0, 0, 33, 0, 0xFFFFFFFF, 0xFFFFFFFF)
            file.seek(start)
            file.write(b"PK\x03\x04" + plain + struct.pack("<2H", len(encoded), len(extra)) + encoded + extra)
            if isinstance(data, bytes):
                file.write(data)
            sizes = struct.pack("<2H3Q", 1, 24, size, size, start)
            directory += b"PK\x01\x02" + struct.pack("<H", 45) + plain + struct.pack("<2H", len(encoded), len(sizes))
            directory += struct.pack("<3H2I", 0, 0, 0, 0, 0xFFFFFFFF) + encoded + sizes
            start += 30 + len(encoded) + len(extra) + size
        count = len(members)
        end = struct.pack("<Q2H2I4Q", 44, 45, 45, 0, 0, count, count, len(directory), start)
        locator = struct.pack("<IQI", 0, start + len(directory), 1)
        last = struct.pack("<4H2IH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        file.seek(start)
        file.write(directory + b"PK\x06\x06" + end + b"PK\x06\x07" + locator + b"PK\x05\x06" + last)
    return path


def sparse_pth(path: Path, rows: Iterable[Row], *, stem: str = "archive") -> Path:
    """What torch.save writes from version 1.6 on, a storage for each tensor; returns the path."""
    program, storages = b"\x80\x02}(", {}
    for key, (name, size, kind) in enumerate(rows):
        program += text(name) + pickled_tensor(str(key), kind, size)
        storages[f"{stem}/data/{key}"] = size_of((name, size, kind))
    return sparse_zip(path, {f"{stem}/data.pkl": program + b"u.", **storages, f"{stem}/version": b"3\n"})


def sparse_legacy(path: Path, rows: Iterable[Row]) -> Path:
    """What torch.save wrote before version 1.6: pickles one after the other, then each storage after its length."""
    program, storages = b"\x80\x02}(", list[tuple[str, int, int]]()
    for key, (name, size, kind) in enumerate(rows):
        # here a persistent id has a sixth part: what the storage is a view of, or None
        program += text(name) + pickled_tensor(str(key), kind, size).replace(b"tQ", b"NtQ", 1)
        storages.append((str(key), math.prod(size), size_of((name, size, kind))))
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    begin = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps(system, 2) + program + b"u."
    begin += pickle.dumps([key for key, _, _ in storages], 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(begin)
        for _, count, length in storages:
            file.write(struct.pack("<q", count))
            file.seek(length, os.SEEK_CUR)
        file.truncate()
    return path


GGUF_BLOCKS = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144), "Q6_K": (14, 256, 210)}
"""ggml's number of a kind, how many numbers a block has, and how many bytes."""


def gguf_size(row: Row) -> int:
    """Bytes of a tensor in a GGUF file."""
    _, block, width = GGUF_BLOCKS[row[2]]
    return math.prod(row[1]) // block * width


def sparse_gguf(path: Path, rows: Iterable[Row], values: Mapping[str, object]) -> Path:
    """A GGUF file without its numbers; returns the path."""
    table, count, end = b"", 0, 0
    for count, row in enumerate(rows, 1):  # noqa: B007 - counted on
        name, size, kind = row
        end += -end % 32
        table += gguf_string(name) + struct.pack(f"<I{len(size)}QIQ", len(size), *reversed(size), GGUF_BLOCKS[kind][0], end)
        end += gguf_size(row)
    head = b"GGUF" + struct.pack("<IQQ", 3, count, len(values))
    head += b"".join(gguf_string(key) + gguf_value(value) for key, value in values.items()) + table
    head += bytes(-len(head) % 32)
    return hole(path, head, len(head) + end)


# ---------------------------------------------------------------- the models


def hf_rows(shape: Shape) -> list[Row]:
    """Tensors of a ``-hf`` folder in half precision, the rotary buffers that Llama 2's have among them."""
    rows: list[Row] = [(renamed(name, HF_NAMES, "model.layers"), size, "F16") for name, size in shapes(shape).items()]
    buffer = "model.layers.{}.self_attn.rotary_emb.inv_freq"
    return rows + [(buffer.format(number), (shape.head_dim // 2,), "F32") for number in range(shape.layers)]


def meta_rows(shape: Shape, parts: int) -> list[Row]:
    """Tensors of one of ``parts`` equal files of Meta's."""
    rows: list[Row] = []
    for name, whole in shapes(shape).items():
        dim, size = {**SPLIT, "embedding": 1}.get(name.rpartition(".")[2]), list(whole)
        if dim is not None:
            size[dim] //= parts
        rows.append((renamed(name, META_NAMES, "layers"), tuple(size), "BF16"))
    return [*rows, ("rope.freqs", (shape.head_dim // 2,), "BF16")]


def gguf_rows(shape: Shape, kind: str) -> list[Row]:
    """Tensors of a GGUF file; with Q4_K_M as llama-quantize mixes it: the head and half of the values and downs in Q6_K."""

    def one(name: str, size: tuple[int, ...]) -> str:
        if len(size) == 1:
            return "F32"
        if kind != "Q4_K_M":
            return kind
        _, _, last = name.rpartition(".")
        layer = int(name.split(".")[1]) if name.startswith("layers.") else 0
        eighth = shape.layers // 8
        more = layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2
        return "Q6_K" if last == "head" or (last in {"value", "down"} and more) else "Q4_K"

    return [(renamed(name, GGUF_NAMES, "blk"), size, one(name, size)) for name, size in shapes(shape).items()]


def in_shards(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in files of ten gigabytes at most."""
    shard: list[Row] = []
    for row in rows:
        if shard and sum(map(size_of, [*shard, row])) > _SHARD:
            yield shard
            shard = []
        shard.append(row)
    yield shard


def _hugging_face(
    folder: Path, shape: Shape, rows: list[Row], stem: str, ending: str, write: Callable[[Path, list[Row]], Path]
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = hf_config(shape, architectures=["LlamaForCausalLM"], torch_dtype="float16", rms_norm_eps=1e-5)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    shards, where = list(in_shards(rows)), dict[str, str]()
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05}-of-{len(shards):05}.{ending}" if len(shards) > 1 else f"{stem}.{ending}"
        write(folder / name, shard)
        where.update({row[0]: name for row in shard})
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(map(size_of, rows))}, "weight_map": where}
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    return folder


def write_hf(folder: Path, shape: Shape) -> Path:
    """A Hugging Face folder with safetensors; returns it."""
    return _hugging_face(folder, shape, hf_rows(shape), "model", "safetensors", sparse_safetensors)


def write_bin(folder: Path, shape: Shape) -> Path:
    """A Hugging Face folder with pickles; returns it."""
    return _hugging_face(folder, shape, hf_rows(shape), "pytorch_model", "bin", sparse_pth)


def write_meta(folder: Path, shape: Shape, parts: int, *, legacy: bool = False) -> Path:
    """A folder as Meta gives it; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    params = meta_params(shape, vocab_size=-1, n_kv_heads=None if shape.heads == shape.kv_heads else shape.kv_heads)
    (folder / "params.json").write_text(json.dumps({**params, "multiple_of": 256, "norm_eps": 1e-5}))
    for number in range(parts):
        path, rows = folder / f"consolidated.{number:02}.pth", meta_rows(shape, parts)
        sparse_legacy(path, rows) if legacy else sparse_pth(path, rows, stem=path.stem)
    return folder


def write_gguf(folder: Path, shape: Shape, kind: str) -> Path:
    """A folder with one GGUF file; returns the file."""
    values = {**gguf_metadata(shape, "llama"), "general.quantization_version": 2}
    return sparse_gguf(folder / f"llama-2.{kind}.gguf", gguf_rows(shape, kind), values)


def write_llama2c(folder: Path, shape: Shape) -> Path:
    """A folder with one .bin file of llama2.c, version 0; returns the file."""
    vocab = shape.vocab if shape.tied else -shape.vocab
    header = struct.pack("<7i", shape.dim, shape.hidden, shape.layers, shape.heads, shape.kv_heads, vocab, shape.max_seq_len)
    count = shape.parameters + shape.max_seq_len * shape.head_dim
    return hole(folder / "llama2.bin", header, len(header) + 4 * count)


FORMATS: dict[str, Callable[[Path, str], Path]] = {
    "hf": lambda folder, name: write_hf(folder, LLAMA2[name]),
    "bin": lambda folder, name: write_bin(folder, LLAMA2[name]),
    "meta": lambda folder, name: write_meta(folder, LLAMA2[name], PARTS[name]),
    "meta-legacy": lambda folder, name: write_meta(folder, LLAMA2[name], PARTS[name], legacy=True),
    "gguf-f16": lambda folder, name: write_gguf(folder, LLAMA2[name], "F16"),
    "gguf-q4_k_m": lambda folder, name: write_gguf(folder, LLAMA2[name], "Q4_K_M"),
    "llama2c": lambda folder, name: write_llama2c(folder, LLAMA2[name]),
}


BYTES: dict[str, Callable[[Shape], int]] = {
    "hf": lambda shape: 2 * shape.parameters + 4 * shape.layers * shape.head_dim // 2,
    "bin": lambda shape: 2 * shape.parameters + 4 * shape.layers * shape.head_dim // 2,
    "meta": lambda shape: 2 * shape.parameters + shape.head_dim,
    "meta-legacy": lambda shape: 2 * shape.parameters + shape.head_dim,
    "gguf-f16": lambda shape: sum(map(gguf_size, gguf_rows(shape, "F16"))),
    "gguf-q4_k_m": lambda shape: sum(map(gguf_size, gguf_rows(shape, "Q4_K_M"))),
    "llama2c": lambda shape: 4 * (shape.parameters + shape.max_seq_len * shape.head_dim),
}
"""Bytes of all tensors, buffers included; what every file of Meta's has whole counts once."""


def main() -> None:
    """``FOLDER MODEL FORMAT``: writes the model there and says where it is."""
    if len(sys.argv) != 4 or sys.argv[2] not in LLAMA2 or sys.argv[3] not in FORMATS:
        sys.exit(f"usage: python -m tests.sparse FOLDER {{{','.join(LLAMA2)}}} {{{','.join(FORMATS)}}}")
    sys.stdout.write(f"{FORMATS[sys.argv[3]](Path(sys.argv[1]), sys.argv[2])}\n")


if __name__ == "__main__":
    main()
