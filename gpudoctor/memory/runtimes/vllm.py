"""vLLM: it takes a part of the card that it is told (--gpu-memory-utilization), and what weights and activations leave is cache.

So the question is whether that leaves room for one sequence of --max-model-len, which vLLM refuses to start without.
"""

from __future__ import annotations

from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.memory.model import Model
from gpudoctor.memory.need import GIB, Need, Work, feed_forward_width, kv_cache

TAKES = 0.9
"""Of the whole card, unless --gpu-memory-utilization says otherwise; it does not start where less is free."""
BLOCK = 16
"""Positions of a block of the cache."""
AT_ONCE = 2048
"""--max-num-batched-tokens: what the profiling run reads at once, on cards below 70 GiB; 8192 on larger ones."""
AT_ONCE_ON_LARGE, SEQUENCES = 8192, 256
SAMPLED = 4 * 4 + 8
"""Bytes per logit while tokens are drawn: logits, shares, sorted shares and a running sum in float32, and the order."""
GRAPHS = round(0.5 * GIB)
"""CUDA graphs for the usual batch sizes, and what Triton and NCCL keep: 0.2 to 1 GiB by the logs of its users
(https://github.com/vllm-project/vllm/pull/10511, .../14447)."""


def need(model: Model, work: Work, dtype: Dtype | None) -> Need:
    """With --tensor-parallel-size each GPU has its part of every matrix and of the heads."""
    a, itemsize, parts = model.architecture, model.itemsize(dtype), work.gpus
    room = -(-work.room // BLOCK) * BLOCK
    heads = max(1.0, a.kv_heads / parts) / a.kv_heads if a.latent is None else 1.0
    at_once = AT_ONCE_ON_LARGE if work.hopper else AT_ONCE
    # hidden state, residual and normed state; gate and up in one, and their product
    forward = at_once * (3 * a.dim + 3 * feed_forward_width(a) // parts) * itemsize
    drawing = SEQUENCES * a.vocab * (itemsize + SAMPLED)
    activations = max(forward, drawing)
    turns = a.max_seq_len * a.head_dim * itemsize  # cosines and sines for all positions of the model, counted as weights there
    return Need(
        weights=model.bytes_as(dtype, "embedding", "head", "linear") // parts + model.bytes_as(dtype, "other") + turns,
        kv_cache=round(work.batch * kv_cache(a, room, itemsize, windows=True, latent=True) * heads),
        activations=activations,
        workspace=GRAPHS,
        unsure=activations // 2,
    )
