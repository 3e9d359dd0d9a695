"""Which layers of a model keep keys and values, and which of them only so many, by its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gpudoctor.checkpoint import families
from gpudoctor.checkpoint.values import shown, whole

Config = Mapping[str, Any]
_FULL, _WINDOWED, _NONE = "full", "windowed", "none"
_KINDS = {
    "full_attention": _FULL,
    "attention": _FULL,
    "global": _FULL,
    "hybrid": _FULL,  # attention and a state side by side, or one after the other
    "sliding_attention": _WINDOWED,
    "chunked_attention": _WINDOWED,
    "hybrid_sliding": _WINDOWED,
    "linear_attention": _NONE,
    "mamba": _NONE,
    "mamba2": _NONE,
    "conv": _NONE,
    "recurrent": _NONE,
    "moe": _NONE,
    "mlp": _NONE,
}
"""What layer_types, layers_block_type and block_types call a layer."""
_PATTERN = {"*": _FULL, "M": _NONE, "-": _NONE, "E": _NONE}  # hybrid_override_pattern of Nemotron-H
_STATEFUL = ("mamba_d_state", "ssm_cfg", "ssm_state_size", "linear_num_key_heads", "linear_attn_config", "attn_layer_indices")
"""Keys of models some of whose layers keep a state instead."""


class Unsaid(Exception):
    """Something that memory depends on is not said; the message is a clause."""


class Attention(NamedTuple):
    """How many layers keep keys and values; of these, how many only so many positions, and how many those are."""

    caching: int
    windowed: int
    window: int | None


def attention(config: Config, family: str, count: int, where: str) -> Attention:
    """What is said of the ``count`` layers, or what is known of the family. Raises Unsaid and NotACheckpoint."""
    size = _size(config, family, where)
    kinds = _kinds(config, family, count, where, window=size is not None)
    if len(kinds) < count:
        raise Unsaid(f"config.json names the kind of {len(kinds)} of its {count} layers")
    shared = config.get("num_kv_shared_layers")  # the last ones look into the caches of others
    kinds = kinds[: count - shared if type(shared) is int and 0 < shared < count else count]
    windowed, full = kinds.count(_WINDOWED), kinds.count(_FULL)
    if windowed + full == 0:
        raise Unsaid("its layers keep a state of fixed size, and no keys and values")
    return Attention(full + windowed, windowed, size) if size is not None else Attention(full + windowed, 0, None)


def _size(config: Config, family: str, where: str) -> int | None:
    """How many positions a windowed layer sees; None where no layer has a window."""
    if family in families.ASKED and config.get("use_sliding_window") is not True:
        return None
    said = [key for key in ("sliding_window", "attention_window_size", "attention_chunk_size") if key in config]
    for key in said:
        if config[key] not in (None, 0, -1):  # no set, which could not be asked for a list
            return whole(config, key, where)
    rule = families.WINDOWS.get(family)
    return None if said or rule is None else rule.size


def _kinds(config: Config, family: str, count: int, where: str, *, window: bool) -> list[str]:
    for key in ("layer_types", "layers_block_type", "block_types"):
        named = config.get(key)
        if isinstance(named, list) and named:
            return _named(named * (count // len(named) + 1) if key == "block_types" else named, family, count)
    pattern = config.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        return [_PATTERN.get(letter, _NONE) for letter in pattern[:count]]
    chosen = _chosen(config, family, count, where)
    if chosen is not None:
        return [_FULL if number in chosen else _NONE for number in range(count)]
    if family != "falcon_h1" and any(config.get(key) is not None for key in _STATEFUL):
        raise Unsaid("config.json does not say which of its layers keep keys and values, and which a state")
    return _windows(config, family, count) if window else [_FULL] * count


def _named(names: list[Any], family: str, count: int) -> list[str]:
    kinds = {**_KINDS, "attention": _WINDOWED} if family == "recurrent_gemma" else _KINDS
    strange = [name for name in names[:count] if not isinstance(name, str) or name not in kinds]
    if strange:
        raise Unsaid(f"layers of the kind {shown(strange[0])} are not known here")
    return [kinds[name] for name in names[:count]]


def _chosen(config: Config, family: str, count: int, where: str) -> set[int] | range | None:
    """The numbers of the layers that keep keys and values, where only some do; None where nobody speaks of such a choice."""
    linear = config.get("linear_attn_config")
    listed = linear.get("full_attn_layers") if isinstance(linear, dict) else None
    if isinstance(listed, list):
        return {number - 1 for number in listed if type(number) is int}
    for key in ("attn_layer_indices", "full_attn_idxs"):
        listed = config.get(key)
        if isinstance(listed, list):
            return {number for number in listed if type(number) is int}
    crossing = config.get("cross_attention_layers")
    if isinstance(crossing, list):  # these look at a picture, whose keys and values do not grow with the text
        return set(range(count)) - {number for number in crossing if type(number) is int}
    softmax = config.get("attn_type_list")
    if isinstance(softmax, list):
        return {number for number, kind in enumerate(softmax[:count]) if kind == 1}
    if family in {"jamba", "zamba"} or "attn_layer_period" in config:
        period = whole(config, "attn_layer_period", where, default=6 if family == "zamba" else 8)
        first = config.get("attn_layer_offset", 4)
        if type(first) is not int or first < 0:
            raise Unsaid("config.json does not say which of its layers keep keys and values")
        return range(first, count, period)
    if family.startswith(("qwen3_next", "qwen3_5")) or "full_attention_interval" in config:
        period = whole(config, "full_attention_interval", where, default=4)
        return range(period - 1, count, period)
    return range(0, count, 2) if family == "minimax" else None


def _windows(config: Config, family: str, count: int) -> list[str]:
    """Each layer's kind where a window is spoken of, but not which layers have it."""
    rule = families.WINDOWS.get(family)
    if rule is None:
        if family in families.FAMILIES:
            return [_FULL] * count  # transformers' class of that name has no use for it
        raise Unsaid("config.json speaks of a sliding window, and does not say which layers have it")
    without_angles = config.get("no_rope_layers")
    if isinstance(without_angles, list) and without_angles:
        return [_FULL if one == 0 else _WINDOWED for one in without_angles[:count]]
    if rule.rule == "all":
        return [_WINDOWED] * count
    if rule.rule == "from":
        first = config.get("max_window_layers", rule.period)
        first = first if type(first) is int and 0 <= first < count else count
        return [_FULL] * first + [_WINDOWED] * (count - first)
    period = config.get("sliding_window_pattern", config.get("no_rope_layer_interval"))
    period = len(period) if isinstance(period, str) else period
    period = period if type(period) is int and period > 0 else rule.period
    rest = 0 if rule.rule == "first" else period - 1
    return [_FULL if number % period == rest else _WINDOWED for number in range(count)]
