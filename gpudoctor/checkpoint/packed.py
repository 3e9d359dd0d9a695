"""How many weights a tensor stands for, whatever a quantiser has packed them into.

Names are those that the quantisers write: AutoGPTQ and AutoAWQ (``qweight`` beside ``qzeros`` and ``scales``), bitsandbytes
(``weight`` beside ``weight.absmax``, or ``SCB``), compressed-tensors (``weight_packed``), ModelOpt and DeepSeek's FP8
(``weight_scale``, ``weight_scale_inv``), and the MXFP4 of gpt-oss (``_blocks`` beside ``_scales``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gpudoctor.checkpoint.found import NotACheckpoint, Stored
from gpudoctor.checkpoint.layout import FLOATS, numbers

_BESIDE = re.compile(
    r"\.(?:qzeros|g_idx|SCB|weight_format|weight_shape|weight_g_idx|weight_scales?(?:_inv|_2)?|weight_global_scale|weight_zero_point"
    r"|(?:input|activation|output|prob_output|[qkv])_(?:scale(?:_ub)?|zero_point)|input_global_scale"
    r"|weight\.(?:nested_)?(?:absmax|quant_map))$|\.weight\.quant_state\."
)
"""Scales, zero points and notes of a quantiser: they stand for no weight."""
_SCALES = re.compile(r"[._]scales?$")
"""Likewise, beside something packed; alone, it is the weight of a norm."""
_MAIN = re.compile(r"\.qweight$|\.weight_packed$|[._]blocks$")
_OWNERS = (".qweight", ".weight", ".blocks", "_blocks")
_FOUR_BITS = 2  # weights in a byte
_IN_A_BYTE: dict[float, int] = {2: 4, 4: _FOUR_BITS, 8: 1}


def matrix_of(name: str, tensors: Mapping[str, Stored]) -> str | None:
    """The weight that a quantiser's tensor belongs to, as it would be called unquantised; None where it is a tensor like any."""
    if name.endswith(".weight"):  # most are
        return None
    beside = _BESIDE.search(name)
    if beside is not None:
        return name[: beside.start()] + ".weight"
    scales = _SCALES.search(name)
    if scales is not None:
        base = name[: scales.start()]
        owner = next((one for one in map(tensors.get, (base + end for end in _OWNERS)) if one is not None), None)
        return f"{base}.weight" if owner is not None and owner.kind not in FLOATS else None
    main = _MAIN.search(name)
    return None if main is None else name[: main.start()] + ".weight"


def weights(name: str, tensors: Mapping[str, Stored], bits: float | None) -> int:
    """How many weights the tensor ``name`` stands for; ``bits`` is what the checkpoint says of each. Raises NotACheckpoint."""
    stored = tensors[name]
    main = _MAIN.search(name)
    if main is not None and stored.kind.startswith(("I", "U")):
        return _packed(name, name[: main.start()], tensors, bits)
    if matrix_of(name, tensors) is not None:
        return 0
    if name.endswith(".weight"):
        if f"{name}.absmax" in tensors:
            return stored.size * _FOUR_BITS  # bitsandbytes may keep them in any kind of number
        if stored.kind == "U8" and f"{name}_scale" in tensors:
            return stored.size * _IN_A_BYTE.get(bits or 4, _FOUR_BITS)
    return numbers(stored.shape)


def _packed(name: str, base: str, tensors: Mapping[str, Stored], told: float | None) -> int:
    stored = tensors[name]
    if stored.kind == "U8":
        return stored.size * _FOUR_BITS
    bits = _bits(base, tensors) or told
    if bits is None or not 1 <= bits <= 16:
        raise NotACheckpoint(f"{stored.file}: {name} is packed, and nothing says in how many bits")
    return int(stored.size * 8 // bits)


def _bits(base: str, tensors: Mapping[str, Stored]) -> float | None:
    """Bits of a weight, which follow from the widths of zero points and scales (one of each for every column)."""
    zeros, scales = (tensors.get(f"{base}.{name}") for name in ("qzeros", "scales"))
    if zeros is None or scales is None or not len(zeros.shape) == len(scales.shape) == 2 or 0 in scales.shape:
        return None
    bits = 32 * zeros.shape[1] / scales.shape[1]
    return bits if bits in {2, 3, 4, 5, 6, 8} else None
