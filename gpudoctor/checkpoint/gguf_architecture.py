"""The metadata of a GGUF file, of whatever architecture, as the numbers that memory follows from.

Keys are those of llama.cpp (gguf-py/gguf/constants.py); which layers have a window is what its ``llama_model::load_hparams``
takes for each architecture where the file does not say it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gpudoctor.checkpoint.found import NotACheckpoint
from gpudoctor.checkpoint.layers import Unsaid
from gpudoctor.checkpoint.layout import LIMITS, Tensors, believed
from gpudoctor.checkpoint.values import shown, whole
from gpudoctor.contents import Architecture

Values = Mapping[str, Any]
_WINDOWS = {
    "afmoe": 4,
    "cohere2": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "llama": 1,
    "llama4": 4,
    "olmo2": 4,
    "phi3": 1,
    "phimoe": 1,
    "plamo3": 8,
    "smallthinker": 4,
}
"""Of so many layers, the last has no window; 1: all have one."""
_PER_LAYER = ("attention.key_length_swa", "attention.value_length_swa", "attention.indexer.top_k")
"""Keys of models whose layers do not all keep as much, or keep more than keys and values."""
_CHUNK = 8192  # llama4's window, which its files do not say
_KEYS = re.compile(r"blk\.(\d+)\.(?:attn_k|attn_kv_a_mqa|attn_kv_b|attn_k_b)\.weight")
_FUSED = re.compile(r"blk\.(\d+)\.attn_qkv\.weight")
_STATE = re.compile(r"blk\.(\d+)\.(?:ssm_|shortconv|time_mix)")


def architecture(values: Values, tensors: Tensors, path: str) -> Architecture | str:
    """The numbers, or why there are none, as a clause. Raises NotACheckpoint for a number that cannot be meant."""
    arch = values.get("general.architecture")
    if not isinstance(arch, str):
        raise NotACheckpoint(f"{path} does not say its general.architecture")
    kind = values.get("general.type")
    if arch == "clip" or kind == "mmproj":
        return "it is the part of a model that sees or hears, without the language model"
    if arch.startswith("t5"):
        return "t5 is an encoder and a decoder, which is not a model that continues a text"
    own = {key.removeprefix(f"{arch}."): value for key, value in values.items() if key.startswith(f"{arch}.")}
    try:
        _alike(arch, own)
        return _numbers(arch, own, tensors, path)
    except Unsaid as reason:
        return str(reason)


def _alike(arch: str, own: Values) -> None:
    """Raises Unsaid for a model that writes no text, or whose layers keep what two numbers cannot say."""
    if own.get("attention.causal") is False:
        raise Unsaid(f"{shown(arch)} reads a text and writes none")
    different = [key for key in _PER_LAYER if own.get(key) is not None and own.get(key) != own.get(key.removesuffix("_swa"))]
    if different:
        raise Unsaid(f"its layers differ from one another: {different[0]}")


def _numbers(arch: str, own: Values, tensors: Tensors, path: str) -> Architecture:
    layers = _number(own, "block_count", path)
    layers -= _lone(own, "nextn_predict_layers")  # they guess the token after the next, and llama.cpp leaves them out
    if not 0 < layers <= LIMITS["layers"]:
        raise NotACheckpoint(f"{path}: a model with layers = {layers} is not one that anybody has")
    dim, heads = _number(own, "embedding_length", path), _per_layer(own, "attention.head_count", layers, path)
    caching, kv_heads = _caching(arch, own, layers, heads, tensors, path)
    mla = "_mla" if "attention.key_length_mla" in own else ""
    head_dim = _number(own, f"attention.key_length{mla}", path, default=max(1, dim // heads[0]))
    value_dim = _number(own, f"attention.value_length{mla}", path, default=head_dim)
    latent = None
    if mla:  # the cache holds what keys and values are made of
        latent = _number(own, "attention.kv_lora_rank", path) + _number(own, "rope.dimension_count", path)
    window, windowed = _window(arch, own, layers - _shared(arch, own, layers), path)
    embedding = tensors.get("token_embd.weight")
    experts = _lone(own, "expert_count")
    found = Architecture(
        family=arch,
        layers=layers,
        dim=dim,
        heads=heads[0],
        kv_heads=heads[0] if mla else kv_heads,
        head_dim=head_dim,
        hidden=_lone(own, "feed_forward_length"),
        vocab=embedding.shape[0] if embedding is not None and len(embedding.shape) == 2 else _number(own, "vocab_size", path),
        max_seq_len=_number(own, "context_length", path),
        tied="output.weight" not in tensors,
        value_dim=None if value_dim == head_dim else value_dim,
        caching_layers=None if caching == layers else caching,
        experts=experts,
        experts_per_token=_lone(own, "expert_used_count"),
        expert_hidden=(_lone(own, "expert_feed_forward_length") or _lone(own, "feed_forward_length")) if experts else 0,
        window=window if windowed else None,
        windowed_layers=min(windowed, caching),
        latent=latent,
    )
    return _sensible(found, path)


def _sensible(found: Architecture, path: str) -> Architecture:
    believed(found, path)
    if found.hidden == 0 and found.experts == 0:
        raise Unsaid("the file does not say feed_forward_length")
    return found


def _number(own: Values, key: str, path: str, *, default: int | None = None) -> int:
    """A positive number; of a list for each layer, if they are all the same. Raises Unsaid and NotACheckpoint."""
    value = own.get(key)
    if value is None and default is None:
        raise Unsaid(f"the file does not say {key}")
    if isinstance(value, tuple):
        if len(set(value)) > 1:
            raise Unsaid(f"its layers differ from one another in {key}")
        return whole({key: value[0] if value else None}, key, path, default=default)
    return whole(own, key, path, default=default)


def _lone(own: Values, key: str) -> int:
    """A number that may be absent, which is 0; of a list for each layer, the largest."""
    return max((one for one in _tuple(own.get(key)) if type(one) is int and 0 < one < 1 << 31), default=0)


def _tuple(value: object) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _per_layer(own: Values, key: str, layers: int, path: str) -> tuple[int, ...]:
    """The numbers of the layers that have one (0: none): one for each, or one for all. Raises Unsaid and NotACheckpoint."""
    value = own.get(key)
    if value is None or value == 0:
        raise Unsaid(
            "its layers keep a state of fixed size, and no keys and values" if value == 0 else f"the file does not say {key}"
        )
    if not isinstance(value, tuple):
        return (whole(own, key, path),)
    counts = [one for one in value[:layers] if one != 0]
    if not counts:
        raise Unsaid("its layers keep a state of fixed size, and no keys and values")
    found = tuple(whole({key: one}, key, path) for one in counts)
    if len(set(found)) > 1:
        raise Unsaid(f"its layers differ from one another in {key}")
    return found


def _caching(arch: str, own: Values, layers: int, heads: tuple[int, ...], tensors: Tensors, path: str) -> tuple[int, int]:
    """How many layers keep keys and values, and for how many heads."""
    key = "attention.head_count_kv"
    counts = _per_layer(own, key, layers, path) if own.get(key) is not None else (heads[0],)
    if isinstance(own.get(key), tuple):
        return len(counts) - _shared(arch, own, layers), counts[0]
    interval = _lone(own, "full_attention_interval")
    if interval and layers >= interval:
        return layers // interval, counts[0]
    state = {int(match[1]) for name in tensors if (match := _STATE.match(name))}
    if not state:
        return layers - _shared(arch, own, layers), counts[0]
    keys = {int(match[1]) for name in tensors if (match := _KEYS.match(name))}
    fused = {int(match[1]) for name in tensors if (match := _FUSED.match(name))}
    caching = len({layer for layer in keys | (fused - state) if layer < layers})
    if caching == 0:
        raise Unsaid("its layers keep a state of fixed size, and no keys and values")
    return caching, counts[0]


def _shared(arch: str, own: Values, layers: int) -> int:
    """Layers that look into the caches of others: Gemma 3n's last ones."""
    shared = _lone(own, "attention.shared_kv_layers")
    if arch == "gemma3n" and shared == 0:
        raise Unsaid("the file does not say which layers share their keys and values")
    return shared if shared < layers else 0


def _window(arch: str, own: Values, layers: int, path: str) -> tuple[int | None, int]:
    """How many positions a windowed layer sees, and how many such layers there are."""
    size = own.get("attention.sliding_window", _CHUNK if arch == "llama4" else None)
    if size is None or size == 0:
        return None, 0
    size = whole({"attention.sliding_window": size}, "attention.sliding_window", path)
    pattern = own.get("attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        return size, sum(one is True or one == 1 for one in pattern[:layers])
    period = pattern if type(pattern) is int and 0 < pattern <= layers else _WINDOWS.get(arch)
    if period is None:
        raise Unsaid("the file speaks of a sliding window, and does not say which layers have it")
    return size, layers if period == 1 else layers - layers // period
