"""How many bytes our own loop holds at its widest, part by part: counted from the shape, before anything is allocated.

Plain arithmetic, so that the doctor can do it for a card that is not here and the worker for the one that is. Each sum below
follows the lines of model.py and generate.py that allocate; docs/memory.md derives them, and tests/smoke/test_footprint.py holds
them against every allocation that PyTorch makes. n stands for the rows times the new positions of one forward pass.
"""

from __future__ import annotations

from typing import NamedTuple

from .plan import Shape

CACHE_STEP = 16
"""Positions by which the cache grows (model.Llama)."""
ANGLE = 8  # bytes of a complex number of two float32: the turns of the rotary embedding
INDEX = 8  # bytes of an int64: tokens and positions
LOGIT = 4  # logits are float32, whatever the weights are
WORKSPACE, WORKSPACE_HOPPER = 8519680, 32 << 20
"""What PyTorch gives cuBLAS to work in: 2 x 4096 KiB + 8 x 16 KiB; from Hopper on (compute capability 9.0) 8 x 4096 KiB
(aten/src/ATen/cuda/CublasHandlePool.cpp)."""

STREAMS = 3
"""On a GPU the loop works in so many streams, each of which is given that: the usual one, a graph's first runs, its capture."""


class Footprint(NamedTuple):
    """Bytes on one device."""

    weights: int
    kv_cache: int
    activations: int
    workspace: int

    @property
    def total(self) -> int:
        """All of it; a CUDA context is not part of what PyTorch allocates."""
        return self.weights + self.kv_cache + self.activations + self.workspace


class Pass(NamedTuple):
    """One call of ``generate``: ``rows`` sequences whose first ``prompt`` positions are read at once, ``length`` in all."""

    rows: int
    prompt: int
    length: int
    every: bool = False
    """Log-probabilities are asked for, so that every position's logits are kept."""
    sampled: bool = False
    """The temperature is above 0."""


def footprint(shape: Shape, itemsize: int, work: Pass, workspace: int = 0) -> Footprint:
    """What one process holds that runs all of ``shape`` (of a split model: its part) in numbers of ``itemsize`` bytes."""
    return Footprint(
        weights=shape.parameters * itemsize,
        kv_cache=2 * shape.layers * shape.kv_heads * shape.head_dim * work.rows * room(work.length) * itemsize,
        activations=lasting(shape, work) + max(prefill(shape, itemsize, work), decode(shape, itemsize, work)),
        workspace=workspace,
    )


def room(length: int) -> int:
    """Positions that the cache has for ``length`` tokens."""
    return -(-length // CACHE_STEP) * CACHE_STEP


def lasting(shape: Shape, work: Pass) -> int:
    """Small tensors that stay: the rotary turns and the slots of the model; tokens, what was given, and chances of the loop."""
    return room(work.length) * (shape.head_dim // 2 * ANGLE + INDEX) + work.rows * work.length * (INDEX + 1 + 4)


def prefill(shape: Shape, itemsize: int, work: Pass) -> int:
    """The widest moment while the prompts are read."""
    n, seen = work.rows * work.prompt, work.prompt
    sharing = shape.heads // shape.kv_heads
    mask = 0 if seen == 1 else sharing * seen * seen * itemsize
    # differences of positions, which of them are hidden, the mask, and the mask again for every query of a key
    making_mask = 0 if seen == 1 else seen * seen * (INDEX + 1 + itemsize)
    # what ``forward`` keeps from layer to layer: the embeddings, and the turns of these positions
    kept = n * shape.dim * itemsize + seen * shape.head_dim // 2 * ANGLE
    reading = mask + max(making_mask, kept + max(layer(shape, itemsize, n), head(shape, itemsize, n if work.every else work.rows)))
    return max(reading, chances(shape, work)) if work.every else reading


def layer(shape: Shape, itemsize: int, n: int) -> int:
    """The widest moment within a layer, beside its input."""
    width, query, pairs = shape.dim, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    together = query + 2 * pairs
    turning = 0 if itemsize == 4 else (query + pairs) * 4  # a copy in float32, in which pairs are turned
    # the normed input; queries, keys and values; then the queries in another order (where several share a key), what attention
    # gives, the same in another order, and the output
    ordered = query if shape.heads > shape.kv_heads else 0
    attention = width + together + max(turning // itemsize, ordered + 2 * query + width)
    # the normed input; gate and up in one; then the activation and the product, or the product and the output
    feed_forward = width + 2 * shape.hidden + max(2 * shape.hidden, shape.hidden + width)
    return n * itemsize * max(attention, feed_forward)


def head(shape: Shape, itemsize: int, n: int) -> int:
    """The logits of n positions: the normed input, the product, and the same in float32."""
    return n * (shape.dim * itemsize + shape.vocab * (LOGIT + (0 if itemsize == LOGIT else itemsize)))


def chances(shape: Shape, work: Pass) -> int:
    """The log-probabilities of the prompts' tokens: all logits, their logarithms, and of several rows a copy without gaps."""
    following = work.rows * (work.prompt - 1)
    chosen = following if work.rows == 1 else 0  # where there was a copy, it is gone before they are chosen
    return ((work.rows * work.prompt + following * (1 if work.rows == 1 else 2)) * shape.vocab + chosen) * LOGIT


def decode(shape: Shape, itemsize: int, work: Pass) -> int:
    """The widest moment while one token after the other is made: the prompt's logits, the last ones, and what is made of them."""
    steps, n = work.length - work.prompt, work.rows
    if steps < 1:
        return 0
    one = n * shape.vocab * LOGIT
    first = one * (work.prompt if work.every else 1)
    following = one if steps > 2 else 0  # the first token is chosen by the prompt's own logits
    computing = 0
    if steps > 1:
        computing = n * shape.dim * itemsize + max(layer(shape, itemsize, n), head(shape, itemsize, n))
    # shares, sorted; their order; a running sum and the same less each share (as wide is the sorting itself, wider of one row);
    # or the logarithms
    sampling = 2 * INDEX + 2 * LOGIT if n == 1 else INDEX + 3 * LOGIT
    choosing = n * shape.vocab * (sampling if work.sampled else LOGIT if work.every else 0)
    # what is chosen from are the logits of this step, which are ``following`` from the second on
    return first + max(following + computing, (one if steps > 1 else 0) + choosing)
