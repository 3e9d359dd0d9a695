"""The numbers of many families, from what published models say of themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpudoctor.checkpoint import NotACheckpoint, architectures, describe
from gpudoctor.checkpoint.found import Stored
from gpudoctor.contents import Architecture
from tests.checkpoint_configs import CONFIGS, GGUF
from tests.checkpoints import GGUF_NAMES, TINY, seeded, write_gguf, write_hf


def model(*values: Any, **more: Any) -> Architecture:
    """Family, layers, dim, heads, kv_heads, head_dim, hidden, vocab, max_seq_len."""
    return Architecture(*values, **more)


EXPECTED: dict[str, Architecture] = {
    "meta-llama/Llama-2-70b-hf": model("llama", 80, 8192, 64, 8, 128, 28672, 32000, 4096),
    "huggyllama/llama-7b": model("llama", 32, 4096, 32, 32, 128, 11008, 32000, 2048),
    "mistralai/Mistral-7B-v0.1": model("mistral", 32, 4096, 32, 8, 128, 14336, 32000, 32768, window=4096, windowed_layers=32),
    "mistralai/Mixtral-8x7B-v0.1": model(
        "mixtral", 32, 4096, 32, 8, 128, 14336, 32000, 32768, experts=8, experts_per_token=2, expert_hidden=14336
    ),
    "Qwen/Qwen2.5-7B": model("qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 131072),
    "Qwen/Qwen2-VL-7B-Instruct": model("qwen2_vl", 28, 3584, 28, 4, 128, 18944, 152064, 32768),
    "Qwen/Qwen3-30B-A3B": model(
        "qwen3_moe", 48, 2048, 32, 4, 128, 6144, 151936, 40960, experts=128, experts_per_token=8, expert_hidden=768
    ),
    "Qwen/Qwen3-Next-80B-A3B-Instruct": model(
        "qwen3_next",
        48,
        2048,
        16,
        2,
        256,
        5120,
        151936,
        262144,
        caching_layers=12,
        experts=512,
        experts_per_token=10,
        expert_hidden=512,
    ),
    "google/gemma-2-9b": model("gemma2", 42, 3584, 16, 8, 256, 14336, 256000, 8192, tied=True, window=4096, windowed_layers=21),
    "google/gemma-3-4b-it": model("gemma3", 34, 2560, 8, 4, 256, 10240, 262208, 131072, tied=True, window=1024, windowed_layers=29),
    "google/gemma-3n-E4B-it": model(
        "gemma3n", 35, 2048, 8, 2, 256, 16384, 262400, 32768, tied=True, caching_layers=20, window=512, windowed_layers=16
    ),
    "llava-hf/llava-1.5-7b-hf": model("llava", 32, 4096, 32, 32, 128, 11008, 32064, 4096),
    "meta-llama/Llama-3.2-11B-Vision": model("mllama", 40, 4096, 32, 8, 128, 14336, 128256, 131072, caching_layers=32),
    "meta-llama/Llama-4-Scout-17B-16E": model(
        "llama4",
        48,
        5120,
        40,
        8,
        128,
        16384,
        202048,
        262144,
        experts=16,
        experts_per_token=1,
        expert_hidden=8192,
        window=8192,
        windowed_layers=36,
    ),
    "openai/gpt-oss-20b": model(
        "gpt_oss",
        24,
        2880,
        64,
        8,
        64,
        2880,
        201088,
        131072,
        experts=32,
        experts_per_token=4,
        expert_hidden=2880,
        window=128,
        windowed_layers=12,
    ),
    "openai-community/gpt2": model("gpt2", 12, 768, 12, 12, 64, 3072, 50257, 1024, tied=True),
    "EleutherAI/gpt-neo-1.3B": model("gpt_neo", 24, 2048, 16, 16, 128, 8192, 50257, 2048, tied=True),
    "EleutherAI/pythia-1b": model("gpt_neox", 16, 2048, 8, 8, 256, 8192, 50304, 2048),
    "tiiuae/falcon-7b": model("falcon", 32, 4544, 71, 1, 64, 18176, 65024, 2048, tied=True),
    "tiiuae/falcon-40b": model("falcon", 60, 8192, 128, 8, 64, 32768, 65024, 2048, tied=True),
    "tiiuae/falcon-40b, as it first came": model("RefinedWeb", 60, 8192, 128, 8, 64, 32768, 65024, 2048, tied=True),
    "bigcode/starcoderbase-1b": model("gpt_bigcode", 24, 2048, 16, 1, 128, 8192, 49152, 8192, tied=True),
    "bigcode/starcoder2-3b": model(
        "starcoder2", 30, 3072, 24, 2, 128, 12288, 49152, 16384, tied=True, window=4096, windowed_layers=30
    ),
    "bigscience/bloom-560m": model("bloom", 24, 1024, 16, 16, 64, 4096, 250880, 2048, tied=True),
    "facebook/opt-350m": model("opt", 24, 1024, 16, 16, 64, 4096, 50272, 2048, tied=True),
    "mosaicml/mpt-7b": model("mpt", 32, 4096, 32, 32, 128, 16384, 50432, 2048, tied=True),
    "databricks/dbrx-base": model(
        "dbrx", 40, 6144, 48, 8, 128, 10752, 100352, 32768, experts=16, experts_per_token=4, expert_hidden=10752
    ),
    "microsoft/phi-2": model("phi", 32, 2560, 32, 32, 80, 10240, 51200, 2048),
    "microsoft/Phi-3-mini-4k-instruct": model("phi3", 32, 3072, 32, 32, 96, 8192, 32064, 4096, window=2047, windowed_layers=32),
    "CohereForAI/c4ai-command-r7b-12-2024": model(
        "cohere2", 32, 4096, 32, 8, 128, 14336, 256000, 8192, tied=True, window=4096, windowed_layers=24
    ),
    "stabilityai/stablelm-2-1_6b": model("stablelm", 24, 2048, 32, 32, 64, 5632, 100352, 4096),
    "THUDM/chatglm3-6b": model("chatglm", 28, 4096, 32, 2, 128, 13696, 65024, 8192),
    "internlm/internlm2-7b": model("internlm2", 32, 4096, 32, 8, 128, 14336, 92544, 32768),
    "baichuan-inc/Baichuan2-7B-Base": model("baichuan", 32, 4096, 32, 32, 128, 11008, 125696, 4096),
    "Qwen/Qwen-7B": model("qwen", 32, 4096, 32, 32, 128, 11008, 151936, 32768),
    "deepseek-ai/DeepSeek-V2-Lite": model(
        "deepseek_v2",
        27,
        2048,
        16,
        16,
        192,
        10944,
        102400,
        163840,
        value_dim=128,
        experts=64,
        experts_per_token=6,
        expert_hidden=1408,
        latent=576,
    ),
    "deepseek-ai/DeepSeek-V3": model(
        "deepseek_v3",
        61,
        7168,
        128,
        128,
        192,
        18432,
        129280,
        163840,
        value_dim=128,
        experts=256,
        experts_per_token=8,
        expert_hidden=2048,
        latent=576,
    ),
    "ai21labs/Jamba-v0.1": model(
        "jamba",
        32,
        4096,
        32,
        8,
        128,
        14336,
        65536,
        262144,
        caching_layers=4,
        experts=16,
        experts_per_token=2,
        expert_hidden=14336,
    ),
    "ibm-granite/granite-4.0-h-tiny": model(
        "granitemoehybrid",
        40,
        1536,
        12,
        4,
        128,
        512,
        100352,
        131072,
        tied=True,
        caching_layers=4,
        experts=64,
        experts_per_token=6,
        expert_hidden=512,
    ),
    "nvidia/Nemotron-H-8B-Base-8K": model("nemotron_h", 52, 4096, 32, 8, 128, 21504, 131072, 8192, caching_layers=4),
    "google/recurrentgemma-2b": model(
        "recurrent_gemma", 26, 2560, 10, 1, 256, 7680, 256000, 8192, tied=True, caching_layers=8, window=2048, windowed_layers=8
    ),
}
WHY_NOT = {
    "state-spaces/mamba-130m-hf": "the layers of mamba keep a state of fixed size, and no keys and values",
    "google-t5/t5-small": "t5 is an encoder and a decoder, which is not a model that continues a text",
    "google-bert/bert-base-uncased": "bert reads a text and writes none",
    "apple/OpenELM-270M": "config.json does not say num_hidden_layers",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_published_model(name: str) -> None:
    found = architectures.architecture(CONFIGS[name], "config.json", {})
    assert found == (EXPECTED[name] if name in EXPECTED else WHY_NOT[name])


def test_what_a_tensor_is_called_stays_on_the_line() -> None:
    tensors = {"\n" * 500 + ".self_attn.k_proj.weight": Stored("x", 0, (8, 16), "F16", 256)}
    found = architectures.architecture({**UNKNOWN, "num_key_value_heads": 4}, "config.json", tensors)
    assert isinstance(found, str)
    assert found.isprintable()
    assert len(found) < 200


UNKNOWN = {
    "model_type": "brand_new",
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 32,
    "max_position_embeddings": 64,
}


def key_matrix(rows: int, columns: int = 16) -> dict[str, Stored]:
    return {"model.layers.0.self_attn.k_proj.weight": Stored("x", 0, (rows, columns), "F16", rows * columns * 2)}


@pytest.mark.parametrize(
    ("config", "rows", "said"),
    [
        ({}, None, "config.json does not say num_key_value_heads"),
        ({}, 8, 2),
        ({}, 10, "config.json does not say num_key_value_heads"),
        ({"num_key_value_heads": 4}, None, 4),
        ({"num_key_value_heads": 4}, 16, 4),
        (
            {"num_key_value_heads": 4},
            8,
            "config.json speaks of keys 16 wide, and 'model.layers.0.self_attn.k_proj.weight' has 8 rows",
        ),
        ({"num_key_value_heads": [4, 2]}, 16, "its layers differ from one another: num_key_value_heads is a list"),
        ({"num_key_value_heads": 4, "block_configs": []}, 16, "its layers differ from one another: block_configs"),
        ({"num_key_value_heads": 4, "global_head_dim": 8}, 16, "its layers differ from one another: global_head_dim"),
        (
            {"num_key_value_heads": 4, "sliding_window": 8},
            16,
            "config.json speaks of a sliding window, and does not say which layers have it",
        ),
        ({"num_key_value_heads": 4, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}, 16, 4),
        ({"num_key_value_heads": 4, "layer_types": ["full_attention"]}, 16, "config.json names the kind of 1 of its 2 layers"),
        (
            {"num_key_value_heads": 4, "layer_types": ["full_attention", "warp"]},
            16,
            "layers of the kind 'warp' are not known here",
        ),
        (
            {"num_key_value_heads": 4, "mamba_d_state": 16},
            16,
            "config.json does not say which of its layers keep keys and values, and which a state",
        ),
        ({"num_key_value_heads": 4, "intermediate_size": None}, 16, "config.json does not say intermediate_size"),
        ({"num_key_value_heads": 4, "kv_lora_rank": 8}, 16, "config.json does not say qk_rope_head_dim"),
        ({"model_type": "chatglm", "multi_query_attention": True}, 16, "config.json does not say multi_query_group_num"),
        ({"num_key_value_heads": 4, "is_encoder_decoder": True}, 16, "it is an encoder and a decoder, which is not a model that"),
        ({"num_key_value_heads": 4, "architectures": ["NewForMaskedLM"]}, 16, "it fills gaps in a text, and continues none"),
    ],
)
def test_a_family_that_nobody_knows(config: dict[str, Any], rows: int | None, said: int | str) -> None:
    found = architectures.architecture({**UNKNOWN, **config}, "config.json", {} if rows is None else key_matrix(rows))
    if isinstance(said, str):
        assert isinstance(found, str)
        assert found.startswith(said)
    else:
        assert isinstance(found, Architecture)
        assert found.kv_heads == said


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "sliding_window"])
@pytest.mark.parametrize("value", [-5, "16", 1.5, True, {"a": 1}, 1 << 40])
def test_a_number_that_cannot_be_meant_is_one_line(key: str, value: object) -> None:
    config = {**UNKNOWN, "model_type": "mistral", key: value}
    with pytest.raises(NotACheckpoint, match=rf"^there/config\.json: {key} is .*not a positive number"):
        architectures.architecture(config, "there/config.json", {})


@pytest.mark.parametrize(("layers", "said"), [(1 << 30, "it would have 1073741824 layers"), (4096, None)])
def test_layers_are_not_counted_one_by_one_for_ever(layers: int, said: str | None) -> None:
    found = architectures.architecture({**UNKNOWN, "model_type": "gemma2", "num_hidden_layers": layers}, "config.json", {})
    assert found == said if said else isinstance(found, Architecture)


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, (8, 3)),
        ({"model_type": "qwen2", "sliding_window": 8, "max_window_layers": 1}, (None, 0)),
        ({"model_type": "mistral", "sliding_window": None}, (None, 0)),
        ({"model_type": "mistral"}, (4096, 4)),
        ({"model_type": "llama", "sliding_window": 8}, (None, 0)),
        ({"model_type": "cohere2", "sliding_window": 8, "sliding_window_pattern": 2}, (8, 2)),
        ({"model_type": "exaone4", "sliding_window": 8, "sliding_window_pattern": "LLLG"}, (8, 3)),
        ({"model_type": "cwm", "sliding_window": 8}, (8, 3)),
        ({"model_type": "gpt_oss"}, (128, 2)),
    ],
)
def test_which_layers_have_a_window(config: dict[str, Any], windows: tuple[int | None, int]) -> None:
    found = architectures.architecture({**UNKNOWN, "num_hidden_layers": 4, "num_key_value_heads": 4, **config}, "config.json", {})
    assert isinstance(found, Architecture)
    assert (found.window, found.windowed_layers) == windows


def test_an_embedding_of_another_width_is_doubted(tmp_path: Path) -> None:
    config = {"model_type": "gemma", "hidden_size": 32, "head_dim": 4, "tie_word_embeddings": None}
    found = describe(str(write_hf(tmp_path, TINY, seeded(TINY), config=config)))
    assert found.architecture is None
    assert found.why_not == "config.json speaks of a model 32 wide, and 'model.embed_tokens.weight' of one 16 wide"
    assert found.parameters == TINY.parameters - TINY.vocab * TINY.dim  # gemma's head is its embedding


OF_GGUF: dict[str, Architecture | str] = {
    "llama": model("llama", 2, 16, 4, 2, 4, 24, 32, 64, tied=True, experts=8, experts_per_token=2, expert_hidden=24),
    "gemma3": model("gemma3", 2, 16, 4, 2, 4, 24, 32, 64, tied=True, window=1024, windowed_layers=2),
    "gpt-oss": model(
        "gpt-oss",
        2,
        16,
        4,
        2,
        4,
        24,
        32,
        64,
        tied=True,
        experts=32,
        experts_per_token=4,
        expert_hidden=24,
        window=128,
        windowed_layers=1,
    ),
    "deepseek2": model("deepseek2", 2, 16, 4, 4, 192, 24, 32, 64, tied=True, value_dim=128, latent=576),
    "jamba": model("jamba", 2, 16, 4, 2, 4, 24, 32, 64, tied=True, caching_layers=1),
    "mamba": "its layers keep a state of fixed size, and no keys and values",
    "gemma4": "its layers differ from one another in attention.head_count_kv",
    "qwen3next": model("qwen3next", 4, 16, 4, 2, 4, 24, 32, 64, tied=True, caching_layers=1),
    "t5": "t5 is an encoder and a decoder, which is not a model that continues a text",
    "cohere2": model("cohere2", 2, 16, 4, 2, 4, 24, 32, 64, tied=True, window=4096, windowed_layers=2),
}


@pytest.mark.parametrize("arch", GGUF)
def test_an_architecture_of_gguf(tmp_path: Path, arch: str) -> None:
    tensors = {"embedding": seeded(TINY)["embedding"]}
    found = describe(str(write_gguf(tmp_path / "x.gguf", TINY, tensors, arch=arch, metadata=GGUF[arch])))
    assert (found.architecture or found.why_not) == OF_GGUF[arch]
    assert found.parameters == TINY.vocab * TINY.dim


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"new.attention.sliding_window": 8}, "the file speaks of a sliding window, and does not say which layers have it"),
        ({"new.attention.head_count": [4, 8]}, "its layers differ from one another in attention.head_count"),
        ({"new.feed_forward_length": 0}, "the file does not say feed_forward_length"),
        ({"new.attention.causal": False}, "'new' reads a text and writes none"),
        ({"new.attention.key_length_swa": 2}, "its layers differ from one another: attention.key_length_swa"),
        ({"general.type": "mmproj"}, "it is the part of a model that sees or hears, without the language model"),
    ],
)
def test_what_a_gguf_file_does_not_say(tmp_path: Path, metadata: dict[str, Any], said: str) -> None:
    path = write_gguf(tmp_path / "x.gguf", TINY, seeded(TINY), arch="new", metadata=metadata)
    found = describe(str(path))
    assert (found.architecture, found.why_not, found.parameters) == (None, said, TINY.parameters)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"new.block_count": -2}, "block_count is -2, not a positive number"),
        ({"new.embedding_length": "16"}, "embedding_length is '16', not a positive number"),
        ({"new.block_count": 1 << 20}, "a model with layers = 1048576 is not one that anybody has"),
        ({"general.type": "adapter"}, "holds an adapter (LoRA), which is no model by itself"),
    ],
)
def test_a_gguf_file_that_cannot_be_meant(tmp_path: Path, metadata: dict[str, Any], message: str) -> None:
    path = write_gguf(tmp_path / "x.gguf", TINY, seeded(TINY), arch="new", metadata=metadata)
    with pytest.raises(NotACheckpoint) as refused:
        describe(str(path))
    assert str(refused.value).startswith(f"{path}")
    assert message in str(refused.value)


@pytest.mark.parametrize(("fused", "caching"), [(False, 2), (True, 1)])
def test_layers_with_a_state_are_known_by_their_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fused: bool, caching: int
) -> None:
    """Qwen3-Next fuses queries, keys and values of its linear layers, and names the matrix as others do that attend."""
    shape = replace(TINY, layers=3)
    names = {**GGUF_NAMES, "state": "ssm_out.weight", "fused": "attn_qkv.weight"}
    monkeypatch.setattr("tests.checkpoints.GGUF_NAMES", names)
    tensors = dict(seeded(shape))
    tensors["layers.0.state"] = tensors["layers.0.out"]
    if fused:
        tensors["layers.1.state"] = tensors["layers.1.out"]
        for name in ("layers.0.key", "layers.1.key"):
            tensors[name.replace("key", "fused")] = tensors.pop(name)
    else:
        del tensors["layers.0.key"]
    found = describe(str(write_gguf(tmp_path / "x.gguf", shape, tensors, arch="new"))).architecture
    assert found is not None
    assert found.caching_layers == caching
