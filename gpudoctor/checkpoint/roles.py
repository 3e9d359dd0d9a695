"""What a tensor is for, by its name: every format and every family has its own names, and these are what they have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_NUMBER = re.compile(r"[0-9]+")
_EMBEDDING = re.compile(
    r"(?:^|\.)(?:embed_tokens|embed_tokens_per_layer|wte|embed_in|word_embeddings?|tok_embeddings|embeddings?|embed|shared"
    r"|token_embd|per_layer_token_embd)\.weight$"
)
_HEAD = re.compile(
    r"(?:^|\.)(?:lm_head|embed_out|unembedding|shared_head\.head|lm_head\.linear)\.weight$"
    r"|^(?:\D*\.)?(?:output|output_layer|head)\.weight$"  # within a layer, these are names of something else
)
_TOWER = re.compile(
    r"(?:^|[._])(?:vision|visual|audio|image|speech|multi_modal|mm|projector|connector|resampler|perceiver|aligner|qformer"
    r"|vqmodel|vpm|apm|talker|token2wav|code2wav|patch_merger)(?:[._]|$)|^[va]\."
)
"""Pictures and sounds, and what joins them to the language model."""
_NO_MATRIX = re.compile(
    r"bias$|(?:^|_)(?:conv|conv1d|A_log|ssm_a|wpe)$|(?:^|_)(?:pos_emb|embed_position|position|token_type|relative_attention|rotary"
    r"|time_(?:mix|decay|first|faaaa|maa))"
)
"""Searched in the last word of a name; no repetition in it, since a name may have megabytes."""
_BUFFER = re.compile(
    r"(?:^|[._])(?:inv_freq|position_ids|masked_bias|causal_mask|num_batches_tracked|slope_rate|(?:query|key|diagonal)_decay)$"
    r"|^rope\.freqs$|^rope_f\w+\.weight$"
)
"""What can be computed, and was saved all the same: transformers passes over it, and nobody calls it a weight."""


def role(name: str, shape: Sequence[int]) -> str:
    """embedding, head, linear or other, as ``contents.Group`` has them."""
    return _role(_NUMBER.sub("0", name), len(shape))


def buffer(name: str, shape: Sequence[int]) -> bool:
    """Whether the tensor stands for no weight: angles, positions, a mask (GPT-2's ``attn.bias``, which has four dimensions)."""
    return _buffer(_NUMBER.sub("0", name), len(shape))


@lru_cache(maxsize=1024)  # names differ in their numbers, and those say nothing: DeepSeek V3 has 91000 tensors and 60 names
def _role(name: str, dimensions: int) -> str:
    if dimensions < 2 or _TOWER.search(name) or _buffer(name, dimensions):
        return "other"
    if _EMBEDDING.search(name):
        return "embedding"
    if _HEAD.search(name):
        return "head"
    last = name.removesuffix(".weight").rpartition(".")[2]
    return "other" if _NO_MATRIX.search(last) else "linear"


@lru_cache(maxsize=1024)
def _buffer(name: str, dimensions: int) -> bool:
    return _BUFFER.search(name) is not None or (dimensions == 4 and name.endswith(("attn.bias", "attention.bias")))
