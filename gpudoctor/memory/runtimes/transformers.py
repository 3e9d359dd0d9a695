"""Hugging Face transformers' generate(), with the cache that it makes by default and attention by PyTorch's fused kernels.

The widest moments were read off PyTorch's allocations (tests/smoke/test_transformers_memory.py holds them there): reading the
prompt, in a layer's feed-forward or attention part, beside the cache; or the last step, beside the whole cache, while one
layer's keys are copied to be one longer.
"""

from __future__ import annotations

from gpudoctor.contents import Architecture
from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.knowledge.table import version_key
from gpudoctor.memory.model import Model
from gpudoctor.memory.need import Need, Work, kv_cache, numbers_per_position

LOGITS_OF_LAST = (4, 45)
"""From this version on the logits of the prompt's last position alone are computed, before those of every one, in float32
besides (https://github.com/huggingface/transformers/pull/31292, in release 4.45)."""
SHARES_KEYS = (4, 54)
"""From this version on query heads that share a key read it where it is, before from a copy for each
(https://github.com/huggingface/transformers/pull/39412, in release 4.54)."""
KEEPS_WINDOWS = (4, 56)
"""From this version on the cache of a windowed layer keeps no more than the window (release 4.56)."""
CACHES_ONCE = (4, 42)
"""Before this version every step made the cache anew while that of the step before was still there
(https://github.com/huggingface/transformers/pull/30536, in release 4.42)."""
TURNS_AT_ONCE = {"qwen2": (4, 45), "mistral": (4, 42)}
"""Before these versions each layer of these families had cosines and sines of its own, for all positions of the model."""
SINGLE = 4
EAGER = {"gemma2", "gpt_oss"}
"""Families whose attention the fused kernels cannot do (capped scores, sinks): all scores are written down."""


def need(model: Model, work: Work, dtype: Dtype | None, version: str | None = None) -> Need:
    """On several GPUs (device_map="auto") each has some of the layers; the fullest also has the embedding or the head."""
    a, itemsize = model.architecture, model.itemsize(dtype)
    share = -(-a.layers // work.gpus) / a.layers
    ends = [model.bytes_as(dtype, "embedding"), model.bytes_as(dtype, "head")]
    whole = sum(ends) if work.gpus == 1 else max(ends)
    # a windowed layer lets go of what is older when the next token comes: while the prompt is read, all of it is there
    early = round(cache_of(a, work, work.prompt, itemsize, windows=False) * share)
    cache = round(cache_of(a, work, work.tokens, itemsize, windows=not before(version, KEEPS_WINDOWS)) * share)
    # without flash attention no fused kernel lets heads share keys (https://github.com/huggingface/transformers/issues/48633)
    plain = not work.ampere and a.heads > a.kv_heads and not before(version, SHARES_KEYS)
    reading = early + prefill(a, work, itemsize, old=is_old(version), plain=plain)
    twice = 2 if before(version, CACHES_ONCE) else 1
    step = decode(a, work, itemsize, copies=before(version, SHARES_KEYS))
    deciding = twice * cache + max(step, attention(a, work.batch, 1, work.tokens) if plain and work.new > 1 else 0)
    turns = 2 * a.layers * a.max_seq_len * a.head_dim * itemsize if before(version, TURNS_AT_ONCE.get(a.family, (0, 0))) else 0
    return Need(
        weights=round(model.bytes_as(dtype, "linear", "other") * share) + whole,
        kv_cache=cache,
        activations=max(reading, deciding) - cache + round(turns * share),
        workspace=work.workspace,
    )


def is_old(version: str | None) -> bool:
    """Whether this version computes the logits of every position; an unknown one counts as new."""
    return before(version, LOGITS_OF_LAST)


def before(version: str | None, release: tuple[int, int]) -> bool:
    """Whether this version came before that release; an unknown one counts as new."""
    return version is not None and () < version_key(version)[:2] < release


def cache_of(a: Architecture, work: Work, tokens: int, itemsize: int, *, windows: bool) -> int:
    """Keys and values of so many tokens. The latent of MLA is not what is cached: full keys and values are."""
    return work.batch * kv_cache(a, tokens, itemsize, windows=windows, latent=False)


def prefill(a: Architecture, work: Work, itemsize: int, *, old: bool, plain: bool) -> int:
    """Beside the cache of all layers, while the last of them reads the prompts."""
    n = work.batch * work.prompt
    query, pairs = a.heads * a.head_dim, a.kv_heads * a.head_dim
    # tokens and their mask, as they were given and as generate() has them; cosines and sines
    kept = 4 * n * 8 + 2 * n * a.head_dim * itemsize
    # the embeddings, the layer's input, what attention added, the normed state; then three products of the feed-forward part
    feeding = (4 * a.dim + 3 * a.hidden) * itemsize
    # the tokens of each expert beside each other, gate and up in one, the activation, the product
    experts = a.experts_per_token * (a.dim + 4 * a.expert_hidden) * itemsize + 4 * a.dim * itemsize if a.experts else 0
    # embeddings, input, normed state; while queries (or keys) are turned each has three copies more
    turning = (3 * a.dim + max(4 * query, 2 * query + 3 * pairs)) * itemsize
    norming = 3 * a.dim * itemsize + 2 * a.dim * SINGLE
    logits = (a.vocab * (itemsize + SINGLE) + a.dim * itemsize) * (n if old else work.batch)
    widest = max(n * max(feeding, experts, turning, norming), logits)
    if a.family in EAGER:
        # scores as they are (they stay to the layer's end), in float32, and their softmax; a mask for each of two kinds of layers
        scores, masks = work.batch * a.heads * work.prompt**2, 2 * work.batch * work.prompt**2 * itemsize
        attending = n * (3 * a.dim + query + copied(a)) * itemsize + scores * (SINGLE if itemsize == SINGLE else 2 * SINGLE)
        return kept + masks + scores * itemsize + max(widest, attending)
    if a.window is not None and a.windowed_layers and work.prompt > a.window:
        # which positions see which, and the same in the numbers of the scores; without a window neither is made
        mask, wide = work.prompt**2, work.batch * work.prompt**2 * itemsize
        return kept + mask + max(widest, n * (3 * a.dim + 2 * query + copied(a)) * itemsize + wide)
    if plain:
        return kept + max(widest, n * (3 * a.dim + query) * itemsize + attention(a, work.batch, work.prompt, work.prompt))
    return kept + widest


def attention(a: Architecture, rows: int, new: int, seen: int) -> int:
    """What PyTorch holds that computes attention in float32, without a fused kernel, beside queries, keys and values."""
    query, pairs = a.heads * a.head_dim, a.kv_heads * a.head_dim
    # queries, the same scaled, keys and values, a key and a value for each query; which positions see which
    copies = rows * (2 * new * query + 2 * seen * pairs + 2 * seen * query) + (new * seen if new > 1 else 0)
    # scores and the scaled keys; or scores, their softmax, and a byte for each that may be no number
    scores = rows * a.heads * new * seen
    return copies * SINGLE + max(scores * SINGLE + rows * seen * query * SINGLE, scores * (2 * SINGLE + 1))


def copied(a: Architecture) -> int:
    """Numbers per position of keys and values for every query head, where heads share them; a single one is shared as it is."""
    return 2 * a.heads * a.head_dim if a.heads > a.kv_heads > 1 else 0


def decode(a: Architecture, work: Work, itemsize: int, *, copies: bool) -> int:
    """Beside the whole cache, at the last step: one layer's keys (or values) once more, or copies for every query head; logits."""
    if work.new < 2:
        return 0  # the prompt's own logits give the first token
    pair = numbers_per_position(a, latent=False)
    longer = 0 if a.windowed_layers == a.layers else work.tokens * pair // 2
    if a.window is not None and a.windowed_layers:  # there keys and values both
        longer = max(longer, min(work.tokens, a.window) * pair)
    if copies or a.family in EAGER:
        longer = max(longer, work.tokens * copied(a))
    # the logits of the step before are there until those of this one have become float32
    logits, before_them = a.vocab * (itemsize + SINGLE), a.vocab * SINGLE
    return work.batch * (work.tokens * 16 + before_them + max(longer * itemsize, logits))
