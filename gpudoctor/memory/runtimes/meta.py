"""Meta's own code (github.com/meta-llama/llama): weights in half precision, and a cache of max_batch_size x max_seq_len.

Its forward pass computes the logits of every position that it reads, and keeps scores and their softmax in float32. Each sum
below was held against every allocation of such a pass (tests/smoke/test_meta_memory.py).
"""

from __future__ import annotations

from gpudoctor.contents import Architecture
from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.memory.model import Model
from gpudoctor.memory.need import Need, Work, kv_cache

HALF, SINGLE = 2, 4


def need(model: Model, work: Work, dtype: Dtype | None) -> Need:
    """Each of several processes has its part of every matrix, the embedding's included."""
    del dtype  # the code knows half precision alone
    a = model.architecture
    matrices = (model.embedding + model.head + model.linear) * HALF // work.gpus
    return Need(
        weights=matrices + model.other * HALF,
        kv_cache=work.batch * kv_cache(a, work.room, HALF, windows=False, latent=False) // work.gpus,
        activations=lasting(a, work) + widest(a, work),
        workspace=work.workspace,
    )


def lasting(a: Architecture, work: Work) -> int:
    """The rotary embedding's angles for twice the positions, as complex numbers of 8 bytes; tokens, and which were given."""
    return 2 * work.room * (a.head_dim // 2) * 8 + work.batch * min(work.tokens, work.room) * (8 + 1)


def widest(a: Architecture, work: Work) -> int:
    """The first pass, which reads the prompts; or the second, or the last, beside the logits of the one before."""
    rows, prompt, end = work.batch, min(work.prompt, work.room), min(work.tokens, work.room)
    moments = [one_pass(a, rows, prompt, prompt, work.gpus)]
    if end > prompt + 1:
        moments.append(rows * prompt * a.vocab * SINGLE + one_pass(a, rows, 1, prompt + 1, work.gpus))
        moments.append(rows * a.vocab * SINGLE + one_pass(a, rows, 1, end - 1, work.gpus))
    return max(moments)


def one_pass(a: Architecture, rows: int, new: int, seen: int, parts: int) -> int:
    """The widest moment of a forward pass of so many new positions, with which ``seen`` are seen."""
    n = rows * new
    query, pairs = a.heads * a.head_dim // parts, a.kv_heads * a.head_dim // parts
    hidden = n * a.dim * HALF  # as wide are the normed input, and what a layer's parts add
    mask = 0 if new == 1 else new * seen * HALF
    norming = 2 * n * a.dim * SINGLE  # the state in float32, and the same scaled
    # queries, keys and values; of queries and keys a copy in float32, the same turned, and that in half precision
    turning = n * (query + 2 * pairs) * HALF + n * (query + pairs) * (2 * SINGLE + HALF)
    scoring = n * (query + 2 * pairs) * HALF + scores(a, rows, new, seen, parts)
    feeding = hidden + 3 * n * (a.hidden // parts) * HALF
    # of every position, in half precision and then in float32
    logits = n * a.vocab * (HALF + SINGLE)
    return hidden + mask + max(hidden + max(norming, turning, scoring, feeding), logits)


def scores(a: Architecture, rows: int, new: int, seen: int, parts: int) -> int:
    """What attention holds beside queries, keys and values: scores several times over, and copies of what is multiplied."""
    heads, pairs = a.heads // parts, a.kv_heads // parts
    one, width = rows * heads * new * seen, heads * a.head_dim
    # the cached keys and values for every query head, where heads share them; a single one is shared without a copy
    repeated = 2 * rows * seen * width * HALF if heads > pairs > 1 else 0
    # a product over several rows first copies both sides, so that all heads lie one after the other
    multiplying = one * HALF + rows * new * width * HALF + (rows * seen * width * HALF if rows > 1 else 0)
    # in half precision, in float32, and their softmax in float32
    softmax = one * (HALF + 2 * SINGLE)
    return repeated + max(multiplying, softmax)
