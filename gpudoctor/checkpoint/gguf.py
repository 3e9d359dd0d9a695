"""A GGUF file of the llama family: its metadata and where its tensors lie.

Names of keys and tensors are those of llama.cpp (gguf-py/gguf/constants.py). The converter for the architecture llama turns
queries and keys so that rotary pairs are neighbours; for the qwen ones it leaves them in halves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from gpudoctor.checkpoint import downloads, gguf_file
from gpudoctor.checkpoint.found import Checkpoint, NotACheckpoint, Stored
from gpudoctor.checkpoint.layout import commonest, doubt, piece, pieces
from gpudoctor.checkpoint.values import ids, real, shown, whole
from gpudoctor.smoke.plan import RopeScaling, Shape, TokenizerPlan

_LAYER = "blk.{}."
NAMES = {
    "embedding": "token_embd.weight",
    "norm": "output_norm.weight",
    "head": "output.weight",
    "attention_norm": _LAYER + "attn_norm.weight",
    "query": _LAYER + "attn_q.weight",
    "key": _LAYER + "attn_k.weight",
    "value": _LAYER + "attn_v.weight",
    "query_bias": _LAYER + "attn_q.bias",
    "key_bias": _LAYER + "attn_k.bias",
    "value_bias": _LAYER + "attn_v.bias",
    "query_norm": _LAYER + "attn_q_norm.weight",
    "key_norm": _LAYER + "attn_k_norm.weight",
    "out": _LAYER + "attn_output.weight",
    "ffn_norm": _LAYER + "ffn_norm.weight",
    "gate": _LAYER + "ffn_gate.weight",
    "up": _LAYER + "ffn_up.weight",
    "down": _LAYER + "ffn_down.weight",
}
_ROPE_FACTORS = "rope_freqs.weight"
_NEIGHBOURS, _HALVES = {"llama", "mistral"}, {"qwen2", "qwen3"}
_BEGINS = {
    "llama3",
    "llama-v3",
    "llama-bpe",
    "falcon3",
}  # splits whose models begin a text with a token, by llama.cpp's llama-vocab.cpp
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)


def read(path: str) -> Checkpoint:
    """The checkpoint in the file (and in the others that it is split into); raises NotACheckpoint."""
    values, tensors = joined(path)
    arch = values.get("general.architecture")
    if arch not in _NEIGHBOURS | _HALVES:
        raise NotACheckpoint(
            f"{path} holds a model of the architecture {shown(arch)}; of GGUF, llama, mistral, qwen2 and qwen3 are read"
        )
    shape = _shape(path, str(arch), values, tensors)
    files, found = pieces(shape, NAMES, tensors, path)
    factors = tensors.get(_ROPE_FACTORS)
    if factors is not None:
        if factors.shape != (shape.head_dim // 2,):
            raise NotACheckpoint(f"{path}: {_ROPE_FACTORS} should have {shape.head_dim // 2} numbers")
        places = {name: at for at, name in enumerate(files)}
        found += (piece("rope_factors", factors, places),)
        files = tuple(places)
    whole_numbers = {kind for kind, _, _ in gguf_file.INTEGERS.values()}
    if any(one.kind in whole_numbers for one in found):
        raise NotACheckpoint(f"{path} keeps weights as integers, which are not read")
    plan, why = _tokenizer(values, shape.vocab)
    return Checkpoint(
        path=path,
        name=downloads.model_name(path),
        format="gguf",
        shape=shape,
        files=files,
        pieces=found,
        halves=arch in _HALVES,
        foreign=None,
        tokenizer=plan,
        no_tokenizer=why,
        eos=_ends(values),
        bos=_begin(values),
        dtype=commonest(found),
        size=sum(one.size for one in found),
    )


def joined(path: str) -> tuple[Mapping[str, Any], Mapping[str, Stored]]:
    """Metadata and tensors; of a file that is one of several, the first one's metadata and the tensors of all.

    Raises NotACheckpoint.
    """
    values, tensors = gguf_file.read(path)
    count = values.get("split.count", 1)
    if not isinstance(count, int) or count <= 1:
        return values, tensors
    match = _SPLIT.fullmatch(path)
    if match is None or int(match[3]) != count:
        raise NotACheckpoint(f"{path} is one of {count} files of a model, and is not named as such (NAME-00001-of-{count:05}.gguf)")
    names = [f"{match[1]}-{number + 1:05}-of-{match[3]}.gguf" for number in range(count)]
    missing = [os.path.basename(name) for name in names if not os.path.exists(name)]
    if missing:
        raise NotACheckpoint(f"{path} is one of {count} files of a model; {missing[0]} is missing beside it")
    if downloads.alike(names):
        raise NotACheckpoint(f"{path} is one of {count} files of a model; two of them are the same")
    values, together = gguf_file.read(names[0])
    for name in names[1:]:
        more = gguf_file.read(name)[1]
        twice = sorted(set(more) & set(together))
        if twice:
            raise NotACheckpoint(f"{name} holds {shown(twice[0])}, which another of the {count} files holds too")
        together.update(more)
    return values, together


def _shape(path: str, arch: str, values: Mapping[str, Any], tensors: Mapping[str, Stored]) -> Shape:
    own = {key.removeprefix(f"{arch}."): _same(value) for key, value in values.items() if key.startswith(f"{arch}.")}
    if own.get("expert_count") or "blk.0.attn_output.bias" in tensors:
        raise NotACheckpoint(f"{path} holds a mixture of experts or biases that no Llama has: it is not read")
    dim, heads = whole(own, "embedding_length", path), whole(own, "attention.head_count", path)
    head_dim = whole(own, "attention.key_length", path, default=max(1, dim // heads))
    widths = {whole(own, key, path, default=head_dim) for key in ("attention.value_length", "rope.dimension_count")}
    if widths != {head_dim}:
        raise NotACheckpoint(f"{path}: values or rotary embeddings have another width than the heads' {head_dim}: it is not read")
    embedding = tensors.get(NAMES["embedding"])
    if embedding is None or len(embedding.shape) != 2:
        raise NotACheckpoint(f"{path} has no matrix {NAMES['embedding']}: a vocabulary alone, or part of a model")
    window = own.get("attention.sliding_window")
    shape = Shape(
        dim=dim,
        layers=whole(own, "block_count", path),
        heads=heads,
        kv_heads=whole(own, "attention.head_count_kv", path, default=heads),
        head_dim=head_dim,
        hidden=whole(own, "feed_forward_length", path),
        vocab=embedding.shape[0],
        max_seq_len=whole(own, "context_length", path),
        norm_eps=real(own, "attention.layer_norm_rms_epsilon", path),
        rope_theta=real(own, "rope.freq_base", path, default=10000.0),
        rope_scaling=_scaling(path, own),
        tied=NAMES["head"] not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
        window=window if arch in _NEIGHBOURS and type(window) is int and window > 0 else None,
    )
    return doubt(shape, path)


def _same(value: object) -> object:
    """A number that is given per layer, if it is the same for all."""
    return value[0] if isinstance(value, tuple) and value and all(one == value[0] for one in value) else value


def _scaling(path: str, own: Mapping[str, Any]) -> RopeScaling | None:
    kind = own.get("rope.scaling.type", "linear" if "rope.scale_linear" in own else "none")
    if kind == "none":
        return None
    if kind != "linear":
        raise NotACheckpoint(f"{path} stretches its rotary embeddings by {shown(kind)}; linear is read, and Llama 3's factors")
    key = "rope.scaling.factor" if "rope.scaling.factor" in own else "rope.scale_linear"
    factor = real(own, key, path, default=1.0)
    return None if factor == 1.0 else RopeScaling("linear", factor)


def _ends(values: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids that end a text, a turn or a message."""
    return ids(tuple(values.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")))


def _begin(values: Mapping[str, Any]) -> int | None:
    return next(iter(ids(values.get("tokenizer.ggml.bos_token_id"))), None)


def _tokenizer(values: Mapping[str, Any], vocab: int) -> tuple[TokenizerPlan | None, str | None]:
    own = {key.removeprefix("tokenizer.ggml."): value for key, value in values.items() if key.startswith("tokenizer.ggml.")}
    model, tokens, pre = own.get("model"), own.get("tokens"), own.get("pre")
    kind = {"llama": "pieces", "gpt2": "bpe"}.get(model) if isinstance(model, str) else None
    if kind is None or not isinstance(tokens, tuple) or not all(isinstance(token, str) for token in tokens):
        return (
            None,
            "the GGUF file holds no vocabulary" if model is None else f"the GGUF file's tokenizer, {shown(model)}, is not read",
        )
    if len(tokens) > vocab:
        return None, f"the GGUF file lists {len(tokens)} tokens, and its model knows {vocab}"
    scores, types, merges = (own.get(key) for key in ("scores", "token_type", "merges"))
    return TokenizerPlan(
        kind,
        tokens=tokens,
        scores=_of(scores, (float, int), len(tokens)),
        types=_of(types, (int,), len(tokens)),
        merges=merges if isinstance(merges, tuple) and all(isinstance(merge, str) for merge in merges) else (),
        pre=pre if isinstance(pre, str) else None,
        bos=_begin(values),
        eos=_ends(values),
        add_bos=own.get("add_bos_token", kind == "pieces" or pre in _BEGINS) is True,
        add_prefix_space=own.get("add_space_prefix", kind == "pieces") is True,
    ), None


def _of(values: object, kinds: tuple[type, ...], count: int) -> tuple[Any, ...]:
    """An array of such values, one for each token; empty where it is none."""
    good = isinstance(values, tuple) and len(values) == count and all(isinstance(value, kinds) for value in values)
    return values if good and isinstance(values, tuple) else ()
