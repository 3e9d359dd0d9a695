"""llama.cpp with every layer on the GPU: weights as the GGUF file has them, a cache of n_ctx, and one buffer to compute in.

The table of tokens stays in the host's memory; where head and embedding are one matrix, the GPU gets a copy.
"""

from __future__ import annotations

from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.memory.model import Model
from gpudoctor.memory.need import Need, Work, kv_cache

MICRO_BATCH = 512
"""--ubatch-size: positions that are computed at once."""
STEP = 256
"""n_ctx is rounded up to a multiple of it."""
SINGLE, HALF = 4, 2


def need(model: Model, work: Work, dtype: Dtype | None) -> Need:
    """On several GPUs each has some of the layers; the last one has the head."""
    a = model.architecture
    room = -(-work.room * work.batch // STEP) * STEP
    share = -(-a.layers // work.gpus) / a.layers
    head = model.bytes_as(dtype, "head") or model.bytes_as(dtype, "embedding")
    # logits and embeddings of a micro-batch; without flash attention also the scores of every head over the whole context
    buffer = MICRO_BATCH * SINGLE * (a.vocab + a.dim)
    scores = MICRO_BATCH * SINGLE * (a.heads * room + 5 * a.dim)
    return Need(
        weights=round(model.bytes_as(dtype, "linear", "other") * share) + head,
        kv_cache=round(kv_cache(a, room, HALF, windows=True, latent=True) * share),
        activations=buffer,
        workspace=0,
        unsure=max(0, scores - buffer) if work.gpus == 1 else buffer,
        shifting=False,
    )
