"""Weights that a quantiser has packed: each counts for what it stands for, and its scales for nothing.

The layouts are those that AutoGPTQ, AutoAWQ, bitsandbytes, compressed-tensors, ModelOpt, DeepSeek and gpt-oss write.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpudoctor.checkpoint import NotACheckpoint, describe
from gpudoctor.contents import Quantization
from gpudoctor.smoke.plan import Shape
from tests.checkpoint_configs import QUANTIZED
from tests.checkpoints import HF_NAMES, hf_config, renamed, shapes
from tests.sparse import Row, size_of, sparse_pth, sparse_safetensors

SHAPE = Shape(dim=256, layers=2, heads=4, kv_heads=2, head_dim=64, hidden=512, vocab=320, max_seq_len=64)
Pack = Callable[[str, int, int], "list[Row]"]
"""Base name, rows (out) and columns (in) of a matrix -> the tensors that stand for it."""


def gptq(bits: int, group: int) -> Pack:
    def pack(base: str, out: int, width: int) -> list[Row]:
        groups = width // group if group > 0 else 1
        return [
            (f"{base}.qweight", (width * bits // 32, out), "I32"),
            (f"{base}.qzeros", (groups, out * bits // 32), "I32"),
            (f"{base}.scales", (groups, out), "F16"),
            (f"{base}.g_idx", (width,), "I32"),
        ]

    return pack


def awq(base: str, out: int, width: int) -> list[Row]:
    return [
        (f"{base}.qweight", (width, out // 8), "I32"),
        (f"{base}.qzeros", (width // 128, out // 8), "I32"),
        (f"{base}.scales", (width // 128, out), "F16"),
    ]


def four_bits(base: str, out: int, width: int) -> list[Row]:
    return [
        (f"{base}.weight", (out * width // 2, 1), "U8"),
        (f"{base}.weight.absmax", (out * width // 64,), "U8"),
        (f"{base}.weight.nested_absmax", (out * width // 64 // 256,), "F32"),
        (f"{base}.weight.nested_quant_map", (256,), "F32"),
        (f"{base}.weight.quant_map", (16,), "F32"),
        (f"{base}.weight.quant_state.bitsandbytes__nf4", (91,), "U8"),
    ]


def four_bits_as_bf16(base: str, out: int, width: int) -> list[Row]:
    return [(f"{base}.weight", (out * width // 4, 1), "BF16"), *four_bits(base, out, width)[1:]]


def eight_bits(base: str, out: int, width: int) -> list[Row]:
    return [(f"{base}.weight", (out, width), "I8"), (f"{base}.SCB", (out,), "F32"), (f"{base}.weight_format", (), "U8")]


def fp8(base: str, out: int, width: int) -> list[Row]:
    blocks = (math.ceil(out / 128), math.ceil(width / 128))
    return [(f"{base}.weight", (out, width), "F8_E4M3"), (f"{base}.weight_scale_inv", blocks, "F32")]


def compressed(base: str, out: int, width: int) -> list[Row]:
    return [
        (f"{base}.weight_packed", (out, width // 8), "I32"),
        (f"{base}.weight_scale", (out, width // 128), "BF16"),
        (f"{base}.weight_zero_point", (out // 8, width // 128), "I32"),
        (f"{base}.weight_shape", (2,), "I64"),
    ]


def nvfp4(base: str, out: int, width: int) -> list[Row]:
    return [
        (f"{base}.weight", (out, width // 2), "U8"),
        (f"{base}.weight_scale", (out, width // 16), "F8_E4M3"),
        (f"{base}.weight_scale_2", (), "F32"),
        (f"{base}.input_scale", (), "F32"),
    ]


def ternary(base: str, out: int, width: int) -> list[Row]:
    return [(f"{base}.weight", (out // 4, width), "U8"), (f"{base}.weight_scale", (1,), "BF16")]


def rows(pack: Pack) -> list[Row]:
    """The model with its layers' matrices packed, and all else in half precision."""
    found: list[Row] = []
    for name, size in shapes(SHAPE).items():
        theirs = renamed(name, HF_NAMES, "model.layers")
        if name.startswith("layers.") and len(size) == 2:
            found += pack(theirs.removesuffix(".weight"), *size)
        else:
            found.append((theirs, size, "F16"))
    return found


def folder(path: Path, some: list[Row], **more: Any) -> str:
    sparse_safetensors(path / "model.safetensors", some)
    (path / "config.json").write_text(json.dumps(hf_config(SHAPE, **more)))
    return str(path)


CASES: dict[str, tuple[Pack, Any, Quantization]] = {
    "gptq of 4 bits": (gptq(4, 128), QUANTIZED["gptq"], Quantization("gptq", 4.0, 128)),
    "gptq of 3 bits": (gptq(3, 128), {**QUANTIZED["gptq"], "bits": 3}, Quantization("gptq", 3.0, 128)),
    "gptq of 8 bits, one group": (gptq(8, -1), {**QUANTIZED["gptq"], "bits": 8, "group_size": -1}, Quantization("gptq", 8.0, None)),
    "gptq that is said to have other bits": (gptq(8, 128), QUANTIZED["gptq"], Quantization("gptq", 4.0, 128)),
    "awq": (awq, QUANTIZED["awq"], Quantization("awq", 4.0, 128)),
    "bitsandbytes 4": (four_bits, QUANTIZED["bitsandbytes 4"], Quantization("bitsandbytes", 4.0, 64)),
    "bitsandbytes 4 as bf16": (four_bits_as_bf16, QUANTIZED["bitsandbytes 4"], Quantization("bitsandbytes", 4.0, 64)),
    "bitsandbytes 8": (eight_bits, QUANTIZED["bitsandbytes 8"], Quantization("bitsandbytes", 8.0, None)),
    "fp8": (fp8, QUANTIZED["fp8"], Quantization("fp8", 8.0, None)),
    "compressed-tensors": (compressed, QUANTIZED["compressed-tensors"], Quantization("compressed-tensors", 4.0, 128)),
    "modelopt": (nvfp4, QUANTIZED["modelopt"], Quantization("modelopt", 4.0, 16)),
    "bitnet": (ternary, {"quant_method": "bitnet"}, Quantization("bitnet", 2.0, None)),
    "quanto": (eight_bits, QUANTIZED["quanto"], Quantization("quanto", 8.0, None)),
}


@pytest.mark.parametrize("case", CASES)
def test_packed_weights(tmp_path: Path, case: str) -> None:
    pack, told, quantization = CASES[case]
    some = rows(pack)
    found = describe(folder(tmp_path, some, quantization_config=told))
    assert (found.parameters, found.size) == (SHAPE.parameters, sum(map(size_of, some)))
    assert found.quantization is not None
    assert (found.quantization.method, found.quantization.group) == (quantization.method, quantization.group)
    assert found.quantization.bits == pytest.approx(quantization.bits, rel=0.02)
    outside = 2 * SHAPE.vocab * SHAPE.dim + (2 * SHAPE.layers + 1) * SHAPE.dim
    assert found.of("linear") == (SHAPE.parameters - outside, sum(map(size_of, some)) - 2 * outside)
    assert found.architecture is not None


def test_packed_weights_in_pickles(tmp_path: Path) -> None:
    some = [row for row in rows(gptq(4, 128)) if row[2] != "I64"]
    folder(tmp_path, some, quantization_config=QUANTIZED["gptq"])
    (tmp_path / "model.safetensors").unlink()
    integers = {"F16": "HalfStorage", "I32": "IntStorage"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.checkpoints.STORAGES", integers)
        sparse_pth(tmp_path / "pytorch_model.bin", some)
    assert describe(str(tmp_path)).parameters == SHAPE.parameters


@pytest.mark.parametrize(
    ("file", "told", "expected"),
    [
        ("quantize_config.json", QUANTIZED["gptq, as it first came"], Quantization("gptq", 8.0, None)),
        ("quant_config.json", QUANTIZED["awq, as it first came"], Quantization("awq", 4.0, 128)),
        ("hf_quant_config.json", QUANTIZED["modelopt beside"], Quantization("modelopt", 8.0, None)),
    ],
)
def test_what_is_said_beside_config_json(tmp_path: Path, file: str, told: Any, expected: Quantization) -> None:
    (tmp_path / file).write_text(json.dumps(told))
    name = tmp_path / "gptq_model-4bit-128g.safetensors"
    path = folder(tmp_path, rows(awq))
    (tmp_path / "model.safetensors").rename(name)
    found = describe(path)
    assert (found.quantization, found.files) == (expected, ((str(name), name.stat().st_size),))
    assert found.parameters == SHAPE.parameters


@pytest.mark.parametrize(
    "told", ["gptq", [], {"quant_method": ["x"]}, {"bits": "4"}, {"config_groups": {"a": 5}}, {"bits": 1e300}, {"bits": -1}]
)
def test_a_quantization_that_says_nothing_sensible(tmp_path: Path, told: Any) -> None:
    found = describe(folder(tmp_path, rows(gptq(4, 128)), quantization_config=told))
    assert found.parameters == SHAPE.parameters
    assert found.quantization is None or 0 < found.quantization.bits <= 16


def test_packed_weights_of_which_nothing_says_how(tmp_path: Path) -> None:
    some = [row for row in rows(gptq(4, 128)) if not row[0].endswith((".qzeros", ".scales"))]
    with pytest.raises(NotACheckpoint, match=r"qweight is packed, and nothing says in how many bits"):
        describe(folder(tmp_path, some))


def test_experts_of_gpt_oss(tmp_path: Path) -> None:
    experts, hidden, width = 4, 64, 64
    base = "model.layers.0.mlp.experts"
    some: list[Row] = [
        ("model.embed_tokens.weight", (320, width), "BF16"),
        (f"{base}.gate_up_proj_blocks", (experts, 2 * hidden, width // 32, 16), "U8"),
        (f"{base}.gate_up_proj_scales", (experts, 2 * hidden, width // 32), "U8"),
        (f"{base}.gate_up_proj_bias", (experts, 2 * hidden), "BF16"),
        (f"{base}.down_proj_blocks", (experts, width, hidden // 32, 16), "U8"),
        (f"{base}.down_proj_scales", (experts, width, hidden // 32), "U8"),
        (f"{base}.down_proj_bias", (experts, width), "BF16"),
    ]
    found = describe(folder(tmp_path, some, model_type="gpt_oss", hidden_size=width, quantization_config=QUANTIZED["mxfp4"]))
    packed = experts * 3 * hidden * width
    assert found.of("linear") == (packed, packed // 2 + packed // 32)
    assert found.of("other") == (experts * (2 * hidden + width), 2 * experts * (2 * hidden + width))
    assert found.quantization == Quantization("mxfp4", 4.0, 32)


def test_a_norm_that_is_called_scale_is_a_weight(tmp_path: Path) -> None:
    some: list[Row] = [("embed.weight", (320, 64), "BF16"), ("block.0.norm.scale", (64,), "F32")]
    assert describe(folder(tmp_path, some)).parameters == 321 * 64
