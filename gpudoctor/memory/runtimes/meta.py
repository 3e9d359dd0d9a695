"""Meta's own code (github.com/meta-llama/llama): weights in half precision, and a cache of max_batch_size x max_seq_len.

Its forward pass computes the logits of every position that it reads, and keeps scores and their softmax in float32.
"""

from __future__ import annotations

from gpudoctor.checkpoint.contents import Architecture
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
        activations=lasting(a, work) + prefill(a, work),
        workspace=work.workspace,
    )


def lasting(a: Architecture, work: Work) -> int:
    """The rotary embedding's angles for twice the positions, as complex numbers of 8 bytes; tokens, and which were given."""
    return 2 * work.room * (a.head_dim // 2) * 8 + work.batch * work.room * (8 + 1)


def prefill(a: Architecture, work: Work) -> int:
    """The widest moment of the first forward pass, which reads the prompts' common part."""
    n, seen = work.batch * min(work.prompt, work.room), min(work.prompt, work.room)
    parts, width = work.gpus, a.dim
    query, pairs = a.heads * a.head_dim // parts, a.kv_heads * a.head_dim // parts
    mask = 0 if seen == 1 else seen * seen * HALF
    hidden = n * width * HALF + n * 8 + mask
    normed = n * width * HALF
    # in float32: the hidden state, and the same scaled
    norm = 2 * n * width * SINGLE
    # queries, keys and values; of queries and keys a copy in float32 and the same turned
    turning = n * (query + 2 * pairs) * HALF + 2 * n * (query + pairs) * SINGLE
    # repeated for every query head where heads share keys
    repeated = 2 * n * query * HALF if a.heads > a.kv_heads else 0
    one = n * (a.heads // parts) * seen
    # scores and the same with the mask, or in float32, or their softmax in float32
    scoring = n * (2 * query + 2 * pairs) * HALF + repeated + one * max(3 * HALF, HALF + 2 * SINGLE)
    feeding = 3 * n * (a.hidden // parts) * HALF
    # of every position, in half precision and then in float32
    logits = n * a.vocab * (HALF + SINGLE)
    return hidden + max(norm, normed + max(turning, scoring, n * width * HALF + feeding), logits)
