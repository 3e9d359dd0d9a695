"""A config.json of Hugging Face, of whatever family, as the numbers that memory follows from.

Keys are those of transformers' configuration classes and, under their older names, of the models that came with code of their
own. What is not said and not known of the family is not guessed: then there is no ``Architecture``, and the reason why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gpudoctor.checkpoint import families, layers, roles
from gpudoctor.checkpoint.found import Stored
from gpudoctor.checkpoint.layers import Unsaid
from gpudoctor.checkpoint.layout import FLOATS, LIMITS, believed
from gpudoctor.checkpoint.values import shown, whole
from gpudoctor.contents import Architecture

Config = Mapping[str, Any]
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where a model that also sees or hears keeps the numbers of its language model."""
_NAMES: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "dim": ("hidden_size", "n_embd", "n_embed", "d_model", "model_dim"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "kv_n_heads"),
    "head_dim": ("head_dim", "kv_channels", "attention_head_dim"),
    "hidden": ("intermediate_size_mlp", "intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "inner_hidden_size"),
    "vocab": ("vocab_size", "padded_vocab_size"),
    "max_seq_len": (
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "max_sequence_length",
        "seq_length",
        "model_max_length",
        "n_ctx",
    ),
}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "moe_k", "top_k_experts")
_EXPERT_HIDDEN = ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size", "ffn_hidden_size")
_PER_LAYER = (
    "block_configs",
    "cla_share_factor",
    "global_head_dim",
    "num_global_key_value_heads",
    "num_key_value_heads_per_layer",
    "swa_head_dim",
    "swa_num_key_value_heads",
)
"""Keys of models whose layers do not all keep as much: what they say is not read."""
_FALCON, _OLD_FALCONS = "falcon", {"RefinedWeb", "RefinedWebModel"}  # as it was called before transformers knew it
_KEYS = ("self_attn.k_proj.weight", "attn.k_proj.weight", "attention.wk.weight")


def architecture(config: Config, where: str, tensors: Mapping[str, Stored]) -> Architecture | str:
    """The numbers, or why there are none, as a clause. Raises NotACheckpoint for a number that cannot be meant."""
    family = _family(config)
    inner = _language(config)
    try:
        _writes(config, inner)
        found = _numbers(inner, where, tensors)
    except Unsaid as reason:
        return str(reason)
    return _doubt(replace(found, family=family), inner, where, tensors)


def tied(config: Config) -> bool | None:
    """Whether the output head is said to be the embedding's own matrix; None where neither the file nor its family says it."""
    inner = _language(config)
    for level in (config, inner):
        value = level.get("tie_word_embeddings")
        if isinstance(value, bool):
            return value
    defaults = _defaults(_family(inner))
    return None if defaults is None else defaults.tied


def _family(config: Config) -> str:
    value = config.get("model_type")
    return value if isinstance(value, str) else ""


def _language(config: Config) -> Config:
    """The part of the file that describes the language model; all of it, where it describes nothing else."""
    for key in _NESTED:
        nested = config.get(key)
        if isinstance(nested, dict):
            deeper = nested.get("text_config")
            found = deeper if isinstance(deeper, dict) else nested
            return found if "model_type" in found else {**found, "model_type": f"{_family(config)}_text"}
    return config


def _defaults(family: str) -> families.Defaults | None:
    known = _FALCON if family in _OLD_FALCONS else family
    return families.FAMILIES.get(known, families.FAMILIES.get(f"{known}_text"))


def _writes(config: Config, inner: Config) -> None:
    """Raises Unsaid for a model that does not continue a text token by token, with keys and values."""
    for family in (_family(config), _family(inner)):
        if family in families.STATE:
            raise Unsaid(f"the layers of {family} keep a state of fixed size, and no keys and values")
        if family in families.NOT_ALONE:
            raise Unsaid(f"{family} is an encoder and a decoder, which is not a model that continues a text")
        if family in families.READS_ONLY:
            raise Unsaid(f"{family} reads a text and writes none")
    if config.get("is_encoder_decoder") is True:
        raise Unsaid("it is an encoder and a decoder, which is not a model that continues a text")
    made_for = config.get("architectures")
    first = made_for[0] if isinstance(made_for, list) and made_for else ""
    if isinstance(first, str) and first.endswith("ForMaskedLM"):
        raise Unsaid("it fills gaps in a text, and continues none")


def _numbers(config: Config, where: str, tensors: Mapping[str, Stored]) -> Architecture:
    family = _family(config)
    defaults = _defaults(family)
    flat = {**_part(config, "ffn_config"), **_part(config, "attn_config"), **config}
    count = _said(flat, _NAMES["layers"], where, 0 if defaults is None else defaults.layers)
    different = [key for key in _PER_LAYER if config.get(key) is not None]
    if different or count > LIMITS["layers"]:
        raise Unsaid(f"its layers differ from one another: {different[0]}" if different else f"it would have {count} layers")
    dim = _said(flat, _NAMES["dim"], where, 0 if defaults is None else defaults.dim)
    heads = _said(flat, _NAMES["heads"], where, 0 if defaults is None else defaults.heads)
    known = defaults is not None and defaults.head_dim
    head_dim = _said(flat, _NAMES["head_dim"], where, known or max(1, dim // heads))
    kv_heads = _kv_heads(flat, where, heads=heads, head_dim=head_dim, tensors=tensors)
    hidden = _hidden(flat, where, dim)
    attention = layers.attention(flat, family, count, where)
    found = Architecture(
        family=family,
        layers=count,
        dim=dim,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden=hidden,
        vocab=_said(flat, _NAMES["vocab"], where, (defaults.vocab if defaults else 0) or _rows(tensors)),
        max_seq_len=_said(flat, _NAMES["max_seq_len"], where, defaults.max_seq_len if defaults else 0),
        tied=tied(config) is True,
        caching_layers=None if attention.caching == count else attention.caching,
        window=attention.window if attention.windowed else None,
        windowed_layers=attention.windowed,
    )
    return _latent(_experts(found, flat), flat, family, where)


def _experts(found: Architecture, config: Config) -> Architecture:
    count, width = _first(config, _EXPERTS), _first(config, _EXPERT_HIDDEN) or found.hidden
    return replace(found, experts=count, experts_per_token=_first(config, _PER_TOKEN), expert_hidden=width) if count > 1 else found


def _part(config: Config, key: str) -> Config:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _said(config: Config, keys: tuple[str, ...], where: str, default: int = 0) -> int:
    """The number under the first of its names that the file has, else the default; raises Unsaid where that is 0."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, list):
            raise Unsaid(f"its layers differ from one another: {key} is a list")
        if value is not None:
            return whole(config, key, where)
    if default:
        return default
    raise Unsaid(f"config.json does not say {keys[0]}")


def _first(config: Config, keys: tuple[str, ...]) -> int:
    """The number under the first of these names that has one; of a list for each layer, the largest; 0 where there is none."""
    for key in keys:
        value = config.get(key)
        several = [one for one in (value if isinstance(value, list) else [value]) if type(one) is int and 0 < one < 1 << 31]
        if several:
            return max(several)
    return 0


def _hidden(config: Config, where: str, dim: int) -> int:
    family, own = _family(config), _first(config, _NAMES["hidden"])
    defaults = _defaults(family)
    if own:
        return own // 2 if family in {"qwen", "recurrent_gemma"} else own  # they count the gate and its other half together
    for key in _NAMES["hidden"]:
        if config.get(key) is not None and not isinstance(config[key], list):
            return whole(config, key, where)
    ratio = config.get("expansion_ratio", config.get("mlp_ratio"))
    if type(ratio) is int and 0 < ratio < 1 << 10:
        return ratio * dim
    if defaults is not None:
        return defaults.hidden or 4 * dim
    if _first(config, _EXPERTS) > 1 and _first(config, _EXPERT_HIDDEN):
        return 0
    raise Unsaid(f"config.json does not say {_NAMES['hidden'][1]}")


def _kv_heads(config: Config, where: str, *, heads: int, head_dim: int, tensors: Mapping[str, Stored]) -> int:
    family, defaults = _family(config), _defaults(_family(config))
    if family in {_FALCON, "RefinedWebModel"} and config.get("new_decoder_architecture") is not True:
        return 1 if config.get("multi_query", True) is True else heads
    if family == "gpt_bigcode":
        return 1 if config.get("multi_query", True) is True else heads
    if family == "chatglm":
        return _said(config, ("multi_query_group_num",), where) if config.get("multi_query_attention") is True else heads
    if config.get("attn_type") == "multiquery_attention":
        return 1
    known = family in families.SAY_ALL
    default = (defaults.kv_heads or heads) if defaults is not None else heads if known else 0
    widths = {stored.shape[0] for _, stored in _key_matrices(tensors)}
    if not default and len(widths) == 1 and (width := widths.pop()) % head_dim == 0:
        default = width // head_dim
    return _said(config, _NAMES["kv_heads"], where, default)


def _latent(found: Architecture, config: Config, family: str, where: str) -> Architecture:
    """With multi-head latent attention, the cache's own width; else the width of values, where it is another than the keys'."""
    usual = family in {"deepseek_v2", "deepseek_v3"}
    rank = config.get("kv_lora_rank", 512 if usual else None)
    if rank is None or config.get("use_mla") is False:
        width = config.get("v_head_dim") if "use_mla" not in config else None
        return found if width is None or width == found.head_dim else replace(found, value_dim=whole(config, "v_head_dim", where))
    if config.get("index_topk") is not None:
        raise Unsaid("beside its latent cache it keeps an index")
    rotary = _said(config, ("qk_rope_head_dim",), where, 64 if usual else 0)
    plain = _said(config, ("qk_nope_head_dim",), where, 128 if usual else 0)
    value = _said(config, ("v_head_dim",), where, 128 if usual else 0)
    rank = whole({"kv_lora_rank": rank}, "kv_lora_rank", where)
    return replace(found, kv_heads=found.heads, head_dim=plain + rotary, value_dim=value, latent=rank + rotary)


def _key_matrices(tensors: Mapping[str, Stored]) -> list[tuple[str, Stored]]:
    """The matrices of the language model that make keys, where they stand alone and are not packed."""
    return [
        (name, stored)
        for name, stored in tensors.items()
        if name.endswith(_KEYS)
        and (stored.kind in FLOATS or stored.kind.startswith("F8"))
        and f"{name}.absmax" not in tensors
        and "cross" not in name
        and roles.role(name, stored.shape) == "linear"
    ]


def _rows(tensors: Mapping[str, Stored]) -> int:
    """How many tokens the embedding has rows for; 0 where there is none."""
    return max((stored.shape[0] for name, stored in tensors.items() if roles.role(name, stored.shape) == "embedding"), default=0)


def _doubt(found: Architecture, config: Config, where: str, tensors: Mapping[str, Stored]) -> Architecture | str:
    """The numbers, if a model can have them and the tensors do not speak against them; else why not."""
    believed(found, where)
    width = found.kv_heads * found.head_dim
    for name, stored in _key_matrices(tensors) if found.caching_layers is None and found.latent is None else ():
        if stored.shape[0] != width:
            return f"config.json speaks of keys {width} wide, and {shown(name)} has {stored.shape[0]} rows"
    if "word_embed_proj_dim" in config or "embedding_size" in config:
        return found
    for name, stored in tensors.items():
        if name.endswith(("embed_tokens.weight", "wte.weight")) and stored.kind in FLOATS and stored.shape[1:] != (found.dim,):
            if roles.role(name, stored.shape) != "embedding":
                continue
            return f"config.json speaks of a model {found.dim} wide, and {shown(name)} of one {stored.shape[-1]} wide"
    return found
