"""Writes small checkpoints byte for byte, in each format that gpudoctor reads: no PyTorch, no library.

A model is a ``Shape`` and its tensors: name of ``plan.Piece`` -> (shape, float32 numbers as bytes or ``array("f")``). Rotary pairs
stand as (2i, 2i + 1) in queries and keys; the writers of formats that have them in halves turn the rows. So one seeded
model can be written in every format, and must give the same tokens from each.
"""

from __future__ import annotations

import json
import math
import random
import struct
import zipfile
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Union

from gpudoctor.smoke.plan import RopeScaling, Shape

Numbers = Union[bytes, "array[float]"]
Tensors = Mapping[str, tuple[tuple[int, ...], Numbers]]

TINY = Shape(dim=16, layers=2, heads=4, kv_heads=2, head_dim=4, hidden=24, vocab=32, max_seq_len=64)
"""Grouped queries, and few enough numbers to write in a millisecond."""


def shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Every tensor of such a model and its shape; matrices are (out, in)."""
    query, pair = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "attention_norm": (shape.dim,),
        "query": (query, shape.dim),
        "key": (pair, shape.dim),
        "value": (pair, shape.dim),
        "out": (shape.dim, query),
        "ffn_norm": (shape.dim,),
        "gate": (shape.hidden, shape.dim),
        "up": (shape.hidden, shape.dim),
        "down": (shape.dim, shape.hidden),
    }
    if shape.qkv_bias:
        layer.update(query_bias=(query,), key_bias=(pair,), value_bias=(pair,))
    if shape.qk_norm:
        layer.update(query_norm=(shape.head_dim,), key_norm=(shape.head_dim,))
    named: dict[str, tuple[int, ...]] = {"embedding": (shape.vocab, shape.dim), "norm": (shape.dim,)}
    if not shape.tied:
        named["head"] = (shape.vocab, shape.dim)
    named.update({f"layers.{n}.{name}": size for n in range(shape.layers) for name, size in layer.items()})
    return named


def seeded(shape: Shape, seed: int = 0) -> dict[str, tuple[tuple[int, ...], Numbers]]:
    """Numbers of a sensible size for every tensor, the same for the same seed. About a million numbers a second."""
    draw = random.Random(seed).random  # noqa: S311 - numbers for a test
    tensors: dict[str, tuple[tuple[int, ...], Numbers]] = {}
    for name, size in shapes(shape).items():
        around, reach = (1.0, 0.2) if name.endswith("norm") else (0.0, 1.7 / math.sqrt(size[-1]))
        tensors[name] = (size, array("f", [around + reach * (2 * draw() - 1) for _ in range(math.prod(size))]))
    return tensors


def packed(numbers: Numbers, kind: str = "F32") -> bytes:
    """The numbers as little-endian bytes of ``kind``: F32, F16 or BF16 (rounded to nearest, ties to even)."""
    data = bytes(numbers)
    if kind == "F32":
        return data
    count = len(data) // 4
    if kind == "F16":
        return struct.pack(f"<{count}e", *struct.unpack(f"<{count}f", data))
    words = struct.unpack(f"<{count}I", data)
    return struct.pack(f"<{count}H", *((word + 0x7FFF + (word >> 16 & 1)) >> 16 for word in words))


def in_halves(name: str, shape: Shape, size: tuple[int, ...], numbers: Numbers) -> Numbers:
    """The rows of a query or key with the pair (2i, 2i + 1) of each head moved to (i, i + head_dim / 2)."""
    if name.rpartition(".")[2] not in {"query", "key", "query_bias", "key_bias", "query_norm", "key_norm"}:
        return numbers
    data, row, width = bytes(numbers), 4 * math.prod(size[1:]), shape.head_dim
    order = [head + i for head in range(0, size[0], width) for i in (*range(0, width, 2), *range(1, width, 2))]
    return b"".join(data[at * row : (at + 1) * row] for at in order)


HF_NAMES = {
    "embedding": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "head": "lm_head.weight",
    "attention_norm": "input_layernorm.weight",
    "query": "self_attn.q_proj.weight",
    "key": "self_attn.k_proj.weight",
    "value": "self_attn.v_proj.weight",
    "query_bias": "self_attn.q_proj.bias",
    "key_bias": "self_attn.k_proj.bias",
    "value_bias": "self_attn.v_proj.bias",
    "query_norm": "self_attn.q_norm.weight",
    "key_norm": "self_attn.k_norm.weight",
    "out": "self_attn.o_proj.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
META_NAMES = {
    "embedding": "tok_embeddings.weight",
    "norm": "norm.weight",
    "head": "output.weight",
    "attention_norm": "attention_norm.weight",
    "query": "attention.wq.weight",
    "key": "attention.wk.weight",
    "value": "attention.wv.weight",
    "out": "attention.wo.weight",
    "ffn_norm": "ffn_norm.weight",
    "gate": "feed_forward.w1.weight",
    "down": "feed_forward.w2.weight",
    "up": "feed_forward.w3.weight",
}
GGUF_NAMES = {
    "embedding": "token_embd.weight",
    "norm": "output_norm.weight",
    "head": "output.weight",
    "rope_factors": "rope_freqs.weight",
    "attention_norm": "attn_norm.weight",
    "query": "attn_q.weight",
    "key": "attn_k.weight",
    "value": "attn_v.weight",
    "query_bias": "attn_q.bias",
    "key_bias": "attn_k.bias",
    "value_bias": "attn_v.bias",
    "query_norm": "attn_q_norm.weight",
    "key_norm": "attn_k_norm.weight",
    "out": "attn_output.weight",
    "ffn_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
}


def renamed(name: str, names: Mapping[str, str], layers: str) -> str:
    """``layers.3.query`` as a format calls it: ``layers`` is its word for layers, such as ``model.layers``."""
    if not name.startswith("layers."):
        return names[name]
    _, number, last = name.split(".")
    return f"{layers}.{number}.{names[last]}"


def family(shape: Shape) -> str:
    """The architecture that has these flags: llama, mistral, qwen2 or qwen3."""
    if shape.qk_norm:
        return "qwen3"
    if shape.qkv_bias:
        return "qwen2"
    return "llama" if shape.window is None else "mistral"


def hf_config(shape: Shape, **more: Any) -> dict[str, Any]:
    """The config.json of such a model; ``more`` is added, None takes away."""
    config: dict[str, Any] = {
        "model_type": family(shape),
        "hidden_act": "silu",
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.hidden,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.max_seq_len,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if shape.window is not None:
        config["sliding_window"] = shape.window
    if shape.rope_scaling is not None:
        config["rope_scaling"] = hf_scaling(shape.rope_scaling)
    config.update(more)
    return {key: value for key, value in config.items() if value is not None}


def hf_scaling(scaling: RopeScaling) -> dict[str, Any]:
    """``rope_scaling`` of a config.json."""
    if scaling.kind != "llama3":
        return {"rope_type": scaling.kind, "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low,
        "high_freq_factor": scaling.high,
        "original_max_position_embeddings": scaling.original_max,
    }


def safetensors(tensors: Iterable[tuple[str, tuple[int, ...], str, bytes]]) -> bytes:
    """A safetensors file of (name, shape, kind, data): the header's length, the header in JSON, the data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, size, kind, data in tensors:
        header[name] = {"dtype": kind, "shape": list(size), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


def write_hf(
    folder: Path, shape: Shape, tensors: Tensors, *, kind: str = "F32", shards: int = 1, config: Mapping[str, Any] | None = None
) -> Path:
    """A Hugging Face folder: config.json and model.safetensors, or an index and ``shards`` files; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf_config(shape, **dict(config or {})), indent=2))
    rows = [
        (renamed(name, HF_NAMES, "model.layers"), size, kind, packed(in_halves(name, shape, size, numbers), kind))
        for name, (size, numbers) in tensors.items()
    ]
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors(rows))
        return folder
    where: dict[str, str] = {}
    for shard in range(shards):
        file, part = f"model-{shard + 1:05}-of-{shards:05}.safetensors", rows[shard::shards]
        (folder / file).write_bytes(safetensors(part))
        where.update({row[0]: file for row in part})
    size = sum(len(row[3]) for row in rows)
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


STORAGES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}


def text(value: str) -> bytes:
    """A string as pickle's BINUNICODE."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """An integer as pickle's BININT, or LONG1 where it is larger."""
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers_tuple(values: Sequence[int]) -> bytes:
    """A tuple of integers in pickle."""
    return b"(" + b"".join(number(value) for value in values) + b"t"


def pickled_tensor(key: str, kind: str, size: Sequence[int], *, stride: Sequence[int] | None = None, offset: int = 0) -> bytes:
    """What ``torch.save`` pickles for a tensor that is kept in ``data/<key>``."""
    steps = tuple(math.prod(size[at + 1 :]) for at in range(len(size))) if stride is None else tuple(stride)
    count = math.prod(size)
    storage = (
        b"(" + text("storage") + b"ctorch\n" + STORAGES[kind].encode() + b"\n" + text(key) + text("cpu") + number(count) + b"tQ"
    )
    arguments = b"(" + storage + number(offset) + numbers_tuple(size) + numbers_tuple(steps) + b"\x89ccollections\nOrderedDict\n)Rt"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def pth(entries: Iterable[tuple[str, tuple[int, ...], str, bytes]], *, stem: str = "consolidated.00") -> dict[str, bytes]:
    """The members of a .pth file that holds a state dict of (name, shape, kind, data)."""
    pickle, members = b"\x80\x02}(", {}
    for key, (name, size, kind, data) in enumerate(entries):
        pickle += text(name) + pickled_tensor(str(key), kind, size)
        members[f"{stem}/data/{key}"] = data
    return {f"{stem}/data.pkl": pickle + b"u.", f"{stem}/byteorder": b"little", **members, f"{stem}/version": b"3\n"}


def write_zip(path: Path, members: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip file whose stored members begin at a multiple of 64 bytes, as ``torch.save`` aligns them."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            position = archive.fp.tell() if archive.fp else 0
            pad = -(position + 30 + len(name.encode()) + 4) % 64
            info.extra = b"FB" + struct.pack("<H", pad) + b"Z" * pad
            archive.writestr(info, data)
    return path


def meta_params(shape: Shape, **more: Any) -> dict[str, Any]:
    """The params.json of such a model; ``more`` is added, None takes away."""
    params: dict[str, Any] = {
        "dim": shape.dim,
        "n_layers": shape.layers,
        "n_heads": shape.heads,
        "n_kv_heads": shape.kv_heads,
        "vocab_size": shape.vocab,
        "multiple_of": 8,
        "norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
    }
    if shape.rope_scaling is not None:
        params.update(use_scaled_rope=True, rope_scaling_factor=shape.rope_scaling.factor)
    params.update(more)
    return {key: value for key, value in params.items() if value is not None}


def part(size: tuple[int, ...], data: bytes, *, dim: int, index: int, parts: int) -> tuple[tuple[int, ...], bytes]:
    """One of ``parts`` equal parts of a matrix of 4-byte or 2-byte numbers, along dimension 0 or 1."""
    width = len(data) // math.prod(size)
    if dim == 0:
        share = len(data) // parts
        return (size[0] // parts, *size[1:]), data[index * share : (index + 1) * share]
    row, share = size[1] * width, size[1] // parts * width
    return (size[0], size[1] // parts), b"".join(
        data[at + index * share : at + (index + 1) * share] for at in range(0, len(data), row)
    )


SPLIT = {"head": 0, "query": 0, "key": 0, "value": 0, "gate": 0, "up": 0, "out": 1, "down": 1}


def write_meta(
    folder: Path,
    shape: Shape,
    tensors: Tensors,
    shards: int = 1,
    *,
    kind: str = "F32",
    embedding_dim: int = 1,
    params: Mapping[str, Any] | None = None,
) -> Path:
    """A folder as Meta gives it: params.json and consolidated.NN.pth; returns the folder.

    ``embedding_dim``: along which dimension several shards divide the embedding: 1 in Llama 1 and 2, 0 from Llama 3 on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(meta_params(shape, **dict(params or {}))))
    whole = dict(tensors)
    if shape.tied:
        whole["head"] = whole["embedding"]
    split = {**SPLIT, "embedding": embedding_dim}
    for shard in range(shards):
        rows = []
        for name, (size, numbers) in whole.items():
            data, dim = packed(numbers, kind), split.get(name.rpartition(".")[2])
            if dim is not None:
                size, data = part(size, data, dim=dim, index=shard, parts=shards)  # noqa: PLW2901 - this shard's part of it
            rows.append((renamed(name, META_NAMES, "layers"), size, kind, data))
        rows.append(("rope.freqs", (shape.head_dim // 2,), kind, packed(array("f", [0.0] * (shape.head_dim // 2)), kind)))
        stem = f"consolidated.{shard:02}"
        write_zip(folder / f"{stem}.pth", pth(rows, stem=stem))
    return folder


LLAMA2C = ("attention_norm", "query", "key", "value", "out", "ffn_norm", "gate", "down", "up")
LLAMA2C_1 = ("query", "key", "value", "out", "gate", "down", "up")


def write_llama2c(path: Path, shape: Shape, tensors: Tensors, *, version: int = 0) -> Path:
    """A .bin file of llama2.c (export.py there): version 0, the legacy layout that run.c reads, 1, or 2; returns the path.

    Version 2 is written with groups of eight int8 numbers, all of them 0: their sizes are right.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    vocab = shape.vocab if shape.tied or version else -shape.vocab
    header = struct.pack("<7i", shape.dim, shape.hidden, shape.layers, shape.heads, shape.kv_heads, vocab, shape.max_seq_len)

    def layers(*names: str) -> bytes:
        return b"".join(bytes(tensors[f"layers.{n}.{name}"][1]) for name in names for n in range(shape.layers))

    embedding, norm = (bytes(tensors[name][1]) for name in ("embedding", "norm"))
    head = b"" if shape.tied else bytes(tensors["head"][1])
    if version == 0:
        angles = bytes(array("f", [0.5] * (shape.max_seq_len * shape.head_dim)))  # cosines and sines, which run.c passes over
        body = embedding + layers(*LLAMA2C) + norm + angles + head
    else:
        header = struct.pack("<Ii", 0x616B3432, version) + header + bytes([shape.tied])
        header += struct.pack("<i", 8) if version == 2 else b""
        header += bytes(256 - len(header))
        matrices = embedding + layers(*LLAMA2C_1) + head
        body = layers("attention_norm", "ffn_norm") + norm + (matrices if version == 1 else bytes(len(matrices) // 32 * 12))
    path.write_bytes(header + body)
    return path


def write_tokenizer_bin(path: Path, tokens: Sequence[tuple[bytes, float]]) -> Path:
    """The tokenizer.bin of llama2.c: each token's bytes and score; returns the path."""
    body = b"".join(struct.pack("<fI", score, len(token)) + token for token, score in tokens)
    path.write_bytes(struct.pack("<I", max((len(token) for token, _ in tokens), default=0)) + body)
    return path


GGUF_KINDS = {"F32": 0, "F16": 1, "BF16": 30}


def gguf_string(value: str) -> bytes:
    """A string as GGUF keeps it: its length, then UTF-8."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def gguf_value(value: Any) -> bytes:
    """A metadata value with its type: bool, uint32 (or int32, uint64), float32, string, or an array of one of these."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        code, form = (5, "i") if value < 0 else (4, "I") if value < 1 << 32 else (10, "Q")
        return struct.pack(f"<I{form}", code, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_string(value)
    items = [gguf_value(item) for item in value]
    inner = items[0][:4] if items else struct.pack("<I", 4)
    return struct.pack("<I", 9) + inner + struct.pack("<Q", len(items)) + b"".join(item[4:] for item in items)


def gguf_metadata(shape: Shape, arch: str, **more: Any) -> dict[str, Any]:
    """What llama.cpp's converter writes about such a model."""
    values: dict[str, Any] = {
        "general.architecture": arch,
        "general.name": "tiny",
        f"{arch}.context_length": shape.max_seq_len,
        f"{arch}.embedding_length": shape.dim,
        f"{arch}.block_count": shape.layers,
        f"{arch}.feed_forward_length": shape.hidden,
        f"{arch}.attention.head_count": shape.heads,
        f"{arch}.attention.head_count_kv": shape.kv_heads,
        f"{arch}.attention.key_length": shape.head_dim,
        f"{arch}.attention.value_length": shape.head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": shape.norm_eps,
        f"{arch}.rope.freq_base": shape.rope_theta,
        f"{arch}.rope.dimension_count": shape.head_dim,
        f"{arch}.vocab_size": shape.vocab,
    }
    if shape.window is not None:
        values[f"{arch}.attention.sliding_window"] = shape.window
    if shape.rope_scaling is not None and shape.rope_scaling.kind == "linear":
        values.update({f"{arch}.rope.scaling.type": "linear", f"{arch}.rope.scaling.factor": float(shape.rope_scaling.factor)})
    values.update(more)
    return values


def write_gguf(
    path: Path,
    shape: Shape,
    tensors: Tensors,
    *,
    arch: str | None = None,
    kind: str = "F32",
    version: int = 3,
    alignment: int = 32,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """A GGUF file; matrices in ``kind``, vectors in F32 as llama.cpp keeps them; returns the path.

    ``tensors`` may also hold rope_factors, which is how GGUF keeps a llama3 rope scaling. Sizes are written in reverse.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arch = arch or {"mistral": "llama"}.get(family(shape), family(shape))
    values = gguf_metadata(shape, arch, **dict(metadata or {}))
    if alignment != 32:
        values["general.alignment"] = alignment
    table, body = b"", bytearray()
    for name, (size, numbers) in tensors.items():
        turned = numbers if arch == "llama" else in_halves(name, shape, size, numbers)
        own = kind if len(size) > 1 else "F32"
        body += bytes(-len(body) % alignment)
        table += gguf_string(renamed(name, GGUF_NAMES, "blk")) + struct.pack("<I", len(size))
        table += struct.pack(f"<{len(size)}Q", *reversed(size)) + struct.pack("<IQ", GGUF_KINDS[own], len(body))
        body += packed(turned, own)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    head += b"".join(gguf_string(key) + gguf_value(value) for key, value in values.items()) + table
    path.write_bytes(head + bytes(-len(head) % alignment) + bytes(body))
    return path
