"""Any values in the files beside the weights: an architecture, a reason, or one line that names the file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from gpudoctor.checkpoint import NotACheckpoint, architectures, describe, families
from gpudoctor.contents import Architecture
from tests.checkpoint_configs import CONFIGS, GGUF, PARAMS, QUANTIZED
from tests.checkpoints import TINY, gguf_metadata, hf_config, meta_params, seeded, write_gguf, write_hf, write_meta

TENSORS = seeded(TINY)
Found = TypeVar("Found")
SCALARS = st.none() | st.booleans() | st.integers(-2, 70) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.sampled_from(["full_attention", "sliding_attention", "mamba", "attention", "fp8", "LLLG", "M*-", ""]) | st.text(
    max_size=5
)
VALUES = st.recursive(
    SCALARS | WORDS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=8
)
KEYS = sorted({key for config in CONFIGS.values() for key in config} | {"num_kv_shared_layers", "attn_type_list", "index_topk"})
FAMILIES = st.sampled_from(sorted({*families.FAMILIES, *families.SAY_ALL, *families.WINDOWS, *families.STATE, "brand_new"}))


def tried(look: Callable[[], Found]) -> Found | str:
    """What is found, or the line that says what is there instead."""
    try:
        return look()
    except NotACheckpoint as reason:
        return str(reason)


def sensible(found: Architecture) -> None:
    """What whoever computes with the numbers relies on."""
    assert 0 < found.layers <= 4096
    assert min(found.dim, found.heads, found.kv_heads, found.head_dim, found.vocab, found.max_seq_len) > 0
    caching = found.layers if found.caching_layers is None else found.caching_layers
    assert 0 < caching <= found.layers
    assert 0 <= found.windowed_layers <= caching
    assert (found.window is not None) == (found.windowed_layers > 0)
    assert found.window is None or found.window > 0
    assert found.value_dim is None or found.value_dim > 0
    assert found.latent is None or found.latent > 0
    assert min(found.hidden, found.experts, found.experts_per_token, found.expert_hidden) >= 0


@settings(deadline=None, max_examples=600)
@given(family=FAMILIES, more=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5), inner=st.booleans())
def test_any_config(family: str, more: dict[str, Any], inner: bool) -> None:
    config = {**hf_config(TINY), **more, "model_type": family}
    given_so = {"model_type": "x", "text_config": config} if inner else config
    found = tried(lambda: architectures.architecture(given_so, "c/config.json", {}))
    if isinstance(found, Architecture):
        sensible(found)
    else:
        assert found.isprintable()
        assert 0 < len(found) < 400


@settings(deadline=None, max_examples=150)
@given(published=st.sampled_from(sorted(CONFIGS)), more=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=2))
def test_any_change_of_a_published_config(published: str, more: dict[str, Any]) -> None:
    config = CONFIGS[published]
    changed = {**config, **more, "model_type": config["model_type"]}
    found = tried(lambda: architectures.architecture(changed, "c/config.json", {}))
    if isinstance(found, Architecture):
        sensible(found)


TOLD = sorted({key for told in QUANTIZED.values() for key in told} | {"weights", "nbits", "num_bits"})


@settings(deadline=None, max_examples=100)
@given(told=VALUES | st.dictionaries(st.sampled_from(TOLD), VALUES, max_size=5))
def test_any_quantization(told: Any) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = write_hf(Path(place), TINY, TENSORS, config={"quantization_config": told})
        found = tried(lambda: describe(str(folder)))
    if isinstance(found, str):
        assert place in found  # a number of more digits than are read
        return
    assert found.parameters == TINY.parameters
    if found.quantization is not None:
        assert found.quantization.method.isprintable()
        assert found.quantization.bits > 0
        assert found.quantization.group is None or found.quantization.group > 0


PARAM_KEYS = sorted({key for params in PARAMS.values() for key in params} | {"max_seq_len", "sliding_window", "rope_theta"})


@settings(deadline=None, max_examples=100)
@given(more=st.dictionaries(st.sampled_from(PARAM_KEYS), VALUES, max_size=3), shards=st.integers(1, 2), plain=st.booleans())
def test_any_params(more: dict[str, Any], shards: int, plain: bool) -> None:
    with tempfile.TemporaryDirectory() as place:
        write_meta(Path(place), TINY, TENSORS if plain else {name: TENSORS[name] for name in ("embedding", "norm")}, shards)
        (Path(place) / "params.json").write_text(json.dumps({**meta_params(TINY), **more}))
        found = tried(lambda: describe(place))
    if isinstance(found, str):
        assert place in found
    elif found.architecture is not None:
        sensible(found.architecture)


ITEMS = st.booleans() | st.integers(-2, 70) | st.integers(0, (1 << 64) - 1) | st.text(max_size=5)
OF_GGUF = ITEMS | st.lists(st.integers(0, 5), min_size=1, max_size=4) | st.lists(st.booleans(), min_size=1, max_size=4)
GGUF_KEYS = sorted(
    {key.partition(".")[2] for values in GGUF.values() for key in values}
    | {key.partition(".")[2] for key in gguf_metadata(TINY, "x")}
    | {"nextn_predict_layers", "attention.shared_kv_layers"}
)


@settings(deadline=None, max_examples=300)
@given(
    arch=st.sampled_from([*GGUF, "llama4", "gemma3n", "new"]), more=st.dictionaries(st.sampled_from(GGUF_KEYS), OF_GGUF, max_size=4)
)
def test_any_metadata(arch: str, more: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = write_gguf(Path(place, "x.gguf"), TINY, TENSORS, arch=arch, metadata={f"{arch}.{key}": v for key, v in more.items()})
        found = tried(lambda: describe(str(path)))
    if isinstance(found, str):
        assert str(path) in found
        return
    assert found.parameters == TINY.parameters
    if found.architecture is not None:
        sensible(found.architecture)
