"""Hugging Face transformers' generate(), with the cache that it makes by default and attention by PyTorch's fused kernels.

The widest moments were read off PyTorch's allocations (docs/memory.md says how): reading the prompt, in a layer's
feed-forward or attention part, with the cache of all layers before; or the last step, with the whole cache, while one layer's
keys are copied to be one longer.
"""

from __future__ import annotations

from gpudoctor.checkpoint.contents import Architecture
from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.knowledge.table import version_key
from gpudoctor.memory.model import Model
from gpudoctor.memory.need import Need, Work, kv_cache, numbers_per_position

LOGITS_OF_LAST = (4, 45)
"""From this version on the logits of the prompt's last position alone are computed, before those of every one, in float32
besides (https://github.com/huggingface/transformers/pull/31292, in release 4.45)."""
SINGLE = 4


def need(model: Model, work: Work, dtype: Dtype | None, version: str | None = None) -> Need:
    """On several GPUs (device_map="auto") each has some of the layers; the fullest also has the embedding or the head."""
    a, itemsize = model.architecture, model.itemsize(dtype)
    share = -(-a.layers // work.gpus) / a.layers
    ends = [model.bytes_as(dtype, "embedding"), model.bytes_as(dtype, "head")]
    whole = sum(ends) if work.gpus == 1 else max(ends)
    cache = round(cache_of(a, work, work.tokens, itemsize) * share)
    early = round(cache_of(a, work, work.prompt, itemsize) * share)
    reading = early + prefill(a, work, itemsize, old=is_old(version))
    deciding = cache + decode(a, work, itemsize)
    return Need(
        weights=round(model.bytes_as(dtype, "linear", "other") * share) + whole,
        kv_cache=cache,
        activations=max(reading, deciding) - cache,
        workspace=work.workspace,
    )


def is_old(version: str | None) -> bool:
    """Whether this version computes the logits of every position; an unknown one counts as new."""
    return version is not None and () < version_key(version)[:2] < LOGITS_OF_LAST


def cache_of(a: Architecture, work: Work, tokens: int, itemsize: int) -> int:
    """Keys and values of so many tokens. The latent of MLA is not what is cached: full keys and values are."""
    return work.batch * kv_cache(a, tokens, itemsize, windows=True, latent=False)


def prefill(a: Architecture, work: Work, itemsize: int, *, old: bool) -> int:
    """Beside the cache, while the prompts are read."""
    n = work.batch * work.prompt
    query, pairs = a.heads * a.head_dim, a.kv_heads * a.head_dim
    ids = n * (8 + 8) + 2 * n * a.head_dim * itemsize  # tokens, their mask, cosines and sines
    # the embeddings, the layer's input, what attention added, the normed state; then three products of the feed-forward part
    feeding = (4 * a.dim + 3 * a.hidden) * itemsize
    # the tokens of each expert beside each other, gate and up in one, the activation, the product
    experts = a.experts_per_token * (a.dim + 4 * a.expert_hidden) * itemsize + 4 * a.dim * itemsize if a.experts else 0
    # embeddings, input, normed state; queries, keys and values; while they are turned each has three copies
    attending = (3 * a.dim + max(4 * query + 2 * pairs, 2 * query + 5 * pairs)) * itemsize
    norming = 3 * a.dim * itemsize + 2 * a.dim * SINGLE
    logits = (a.vocab * (itemsize + SINGLE) + a.dim * itemsize) * (n if old else work.batch)
    return ids + max(n * max(feeding, experts, attending, norming), logits)


def decode(a: Architecture, work: Work, itemsize: int) -> int:
    """Beside the whole cache, at the last step: one layer's keys (or values) once more, or as wide as the queries; the logits."""
    copied = work.batch * work.tokens * max(numbers_per_position(a, latent=False) // 2, 1) * itemsize
    repeated = 2 * work.batch * work.tokens * a.heads * a.head_dim * itemsize if a.heads > a.kv_heads else 0
    return max(copied, repeated) + work.batch * (work.tokens * 16 + a.vocab * (itemsize + 2 * SINGLE))
