"""Transformers' own models as the reference: a random one of a shape, and ours with the same weights."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from gpudoctor.smoke.model import Llama
from gpudoctor.smoke.plan import Shape
from tests.checkpoints import HF_NAMES, renamed

TURNED = ("query", "key", "query_bias", "key_bias", "query_norm", "key_norm")


def reference(shape: Shape, family: str = "Llama", seed: int = 0, **options: Any) -> Any:
    """Transformers' model of that shape with random weights, large enough that texts differ."""
    torch.manual_seed(seed)
    values = {
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.hidden,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.max_seq_len,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tied,
        "initializer_range": 0.1,
        "bos_token_id": 1,
        "eos_token_id": None,
        "pad_token_id": 0,
        **options,
    }
    config = getattr(transformers, f"{family}Config")(**values)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        if name.endswith(("norm.weight", "bias")):  # ones and zeros would hide a norm or a bias that is left out
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model


def interleaved(tensor: torch.Tensor, width: int) -> torch.Tensor:
    """Rows of heads of ``width`` in pairs (2 i, 2 i + 1) instead of (i, i + width / 2)."""
    return tensor.unflatten(0, (-1, 2, width // 2)).transpose(1, 2).reshape(tensor.shape)


def ours(shape: Shape, model: Any, rows: int = 1, length: int | None = None) -> Llama:
    """Our model with the weights of transformers' ``model``."""
    state = model.state_dict()
    made = Llama(shape, torch.empty(0), rows, length or shape.max_seq_len)
    for name, tensor in made.tensors().items():
        source = state[renamed(name, HF_NAMES, "model.layers")]
        tensor.copy_(interleaved(source, shape.head_dim) if name.split(".")[-1] in TURNED else source)
    return made
