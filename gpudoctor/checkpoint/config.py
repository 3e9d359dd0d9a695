"""A config.json of Hugging Face as a ``Shape``, or the finding that this architecture is not ours.

Keys and their defaults are those of transformers' LlamaConfig, MistralConfig, Qwen2Config and Qwen3Config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpudoctor.checkpoint.layout import doubt
from gpudoctor.checkpoint.values import real, whole
from gpudoctor.smoke.plan import RopeScaling, Shape

_FAMILIES: dict[str, dict[str, int]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32768},
    "qwen3": {"head_dim": 128, "max_position_embeddings": 32768},
}
"""What transformers takes where the key is absent and the four differ."""
_PLAIN = {"silu", "swish"}  # two names of one function
_OTHER = ("attention_bias", "mlp_bias", "quantization_config", "num_experts", "num_local_experts", "moe_intermediate_size")
"""Keys that, with any value but null, false or 0, make another model: biases that Shape has no place for, other kinds of numbers,
experts."""


def shape(config: Mapping[str, Any], where: str) -> Shape | None:
    """The model's numbers; None where its architecture is not ours and transformers has to read it. Raises NotACheckpoint."""
    family = config.get("model_type")
    if not isinstance(family, str) or family not in _FAMILIES or _unlike_ours(config):
        return None
    scaling = rope_scaling(config, where)
    window = _window(config, family, where)
    if scaling == "other" or window == "mixed":
        return None
    heads, dim, defaults = whole(config, "num_attention_heads", where), whole(config, "hidden_size", where), _FAMILIES[family]
    found = Shape(
        dim=dim,
        layers=whole(config, "num_hidden_layers", where),
        heads=heads,
        kv_heads=whole(config, "num_key_value_heads", where, default=defaults.get("num_key_value_heads", heads)),
        head_dim=whole(config, "head_dim", where, default=defaults.get("head_dim", max(1, dim // heads))),
        hidden=whole(config, "intermediate_size", where),
        vocab=whole(config, "vocab_size", where),
        max_seq_len=whole(config, "max_position_embeddings", where, default=defaults["max_position_embeddings"]),
        norm_eps=real(config, "rms_norm_eps", where, default=1e-6),
        rope_theta=real({**config, **_rope(config)}, "rope_theta", where, default=10000.0),
        rope_scaling=scaling if isinstance(scaling, RopeScaling) else None,
        tied=config.get("tie_word_embeddings") is True,
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        window=window if isinstance(window, int) else None,
    )
    return doubt(found, where)


def _unlike_ours(config: Mapping[str, Any]) -> bool:
    activation = config.get("hidden_act", "silu")
    if any(config.get(key) for key in _OTHER) or not isinstance(activation, str) or activation not in _PLAIN:
        return True
    partial = (config.get("partial_rotary_factor"), _rope(config).get("partial_rotary_factor"))
    if any(factor not in (None, 1, 1.0) for factor in partial):
        return True
    made_for = config.get("architectures")
    first = made_for[0] if isinstance(made_for, list) and made_for else "ForCausalLM"
    return not isinstance(first, str) or not first.endswith("ForCausalLM")


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """How positions turn: ``rope_parameters`` from transformers 5 on (with ``rope_theta`` in it), else ``rope_scaling``."""
    for key in ("rope_parameters", "rope_scaling"):
        value = config.get(key)
        if isinstance(value, dict):
            return value
    return {}


def rope_scaling(config: Mapping[str, Any], where: str) -> RopeScaling | str:
    """The scaling; "none", or "other" for one that is not ours (dynamic, yarn, longrope, one for each kind of layer)."""
    rope = _rope(config)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if any(isinstance(value, dict) for value in rope.values()):
        return "other"
    if kind == "default":
        return "none"
    if kind == "linear":
        return RopeScaling("linear", real(rope, "factor", where))
    if kind != "llama3":
        return "other"
    longest = whole(config, "max_position_embeddings", where, default=8192)
    return RopeScaling(
        "llama3",
        real(rope, "factor", where),
        low=real(rope, "low_freq_factor", where),
        high=real(rope, "high_freq_factor", where),
        original_max=whole(rope, "original_max_position_embeddings", where, default=longest),
    )


def _window(config: Mapping[str, Any], family: str, where: str) -> int | str:
    """How far back each position sees; "none", or "mixed" where layers differ in it."""
    if family == "llama" or config.get("use_sliding_window", family == "mistral") is False:
        return "none"
    if "sliding_window" in config and config["sliding_window"] is None:
        return "none"
    window = whole(config, "sliding_window", where, default=_FAMILIES[family].get("sliding_window", 4096))
    if family == "mistral":
        return window
    layers = whole(config, "num_hidden_layers", where)
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        sliding = sum(kind == "sliding_attention" for kind in kinds)
    else:
        first = config.get("max_window_layers", 28)  # layers before it see everything
        sliding = max(0, layers - first) if isinstance(first, int) else layers
    if 0 < sliding < layers:
        return "mixed"
    return window if sliding else "none"
