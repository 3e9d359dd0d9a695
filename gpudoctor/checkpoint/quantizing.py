"""How a checkpoint's weights were made smaller, as the files beside them say it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gpudoctor.checkpoint.bounded import json_object
from gpudoctor.contents import Quantization

_OLDER = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
"""Where AutoGPTQ, AutoAWQ and ModelOpt wrote it before, or beside, config.json."""
_BITS = {"fp8": 8.0, "fbgemm_fp8": 8.0, "eetq": 8.0, "mxfp4": 4.0, "bitnet": 2.0, "fp_quant": 4.0}
"""Methods whose name says how many bits a weight has."""
_GROUPS = {"mxfp4": 32, "bitsandbytes 4": 64}
_MOST_BITS = 16
_BITS_KEYS, _GROUP_KEYS = ("bits", "w_bit", "num_bits", "nbits"), ("group_size", "q_group_size")


def quantization(config: Mapping[str, Any], folder: str) -> Quantization | None:
    """What config.json says of it, or one of the files that were written before it did; None where nobody says anything."""
    told = config.get("quantization_config", config.get("compression_config"))
    if not isinstance(told, dict):
        nested = config.get("text_config")
        told = nested.get("quantization_config") if isinstance(nested, dict) else None
    if isinstance(told, dict):
        method = told.get("quant_method")
        return _of(_plain(method) or _guessed(told), told)
    for name in _OLDER:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            told = json_object(path)
            inner = told.get("quantization")
            return _of("modelopt" if isinstance(inner, dict) else _guessed(told), inner if isinstance(inner, dict) else told)
    return None


def of_meta(params: Mapping[str, Any]) -> Quantization | None:
    """What a params.json of Meta's says of it (``quantization_args`` of the quantised Llama 3.2)."""
    told = params.get("quantization_args")
    if not isinstance(told, dict):
        return None
    scheme, group = _plain(told.get("scheme")), _number(told.get("group_size"))
    return Quantization(scheme or "unknown", 4.0 if "int4" in scheme else 8.0, None if group is None else int(group))


def _guessed(told: Mapping[str, Any]) -> str:
    """The method of a description that does not name it, as AutoAWQ and AutoGPTQ wrote theirs."""
    if "config_groups" in told:
        return "compressed-tensors"
    if "w_bit" in told or "zero_point" in told:
        return "awq"
    return "bitsandbytes" if "load_in_4bit" in told or "load_in_8bit" in told else "gptq" if "bits" in told else "unknown"


def _of(method: str, told: Mapping[str, Any]) -> Quantization:
    if method == "bitsandbytes":
        four = told.get("load_in_4bit") is True
        return Quantization(method, 4.0 if four else 8.0, _GROUPS["bitsandbytes 4"] if four else None)
    scheme = _scheme(told)
    bits = next((bits for key in _BITS_KEYS if (bits := _number(scheme.get(key))) and bits <= _MOST_BITS), _BITS.get(method))
    algorithm = _plain(told.get("quant_algo"))
    if bits is None:
        bits = 4.0 if "4" in algorithm else 8.0 if "8" in algorithm else 0.0
    group = next((group for key in _GROUP_KEYS if (group := _number(scheme.get(key)))), _GROUPS.get(method))
    return Quantization(method, bits, None if group is None else int(group))


def _scheme(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the numbers are: of compressed-tensors, in what the first group says of its weights."""
    several = told.get("config_groups")
    first = next(iter(several.values()), None) if isinstance(several, dict) else None
    weights = first.get("weights") if isinstance(first, dict) else None
    return weights if isinstance(weights, dict) else told


def _number(value: object) -> float | None:
    """A number of bits or of weights in a group, if it can be one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value < 1 << 20:
        return None
    return float(value)


def _plain(value: object) -> str:
    """A word from a file, short enough to be shown; empty where it is none."""
    return value.strip().lower()[:40] if isinstance(value, str) and value.isprintable() else ""
