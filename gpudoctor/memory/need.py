"""What is asked of a GPU, and what it takes: the words that every runtime's arithmetic is written in. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass

from gpudoctor.contents import Architecture
from gpudoctor.smoke import footprint

GIB = 1 << 30
CONTEXT, CONTEXT_LEAST, CONTEXT_MOST = round(0.45 * GIB), round(0.2 * GIB), round(0.75 * GIB)
"""A process's CUDA context and the kernels that it has loaded. It differs by card, driver and libraries, which nobody publishes:
users and PyTorch's developers report 200 to 700 MiB (https://github.com/pytorch/pytorch/issues/107667, .../28113)."""
ROUNDING = 0.02
"""Part of what PyTorch allocates that its allocator may keep beside it, in blocks of 2 and 20 MiB that nothing fits into."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is generated: ``batch`` sequences, each of ``prompt`` tokens read at once and ``new`` ones made after them."""

    batch: int = 1
    prompt: int = 128
    new: int = 384
    length: int | None = None
    """Positions that the runtime is told to make room for (max_seq_len, n_ctx, max_model_len); None: prompt and new ones."""
    gpus: int = 1
    hopper: bool = False
    """The card is a Hopper or newer (compute capability 9.0): PyTorch gives cuBLAS more to work in there."""
    ampere: bool = True
    """The card is an Ampere or newer (8.0), or nobody knows: PyTorch's flash attention runs there."""

    @property
    def workspace(self) -> int:
        """What PyTorch gives cuBLAS, in bytes."""
        return footprint.WORKSPACE_HOPPER if self.hopper else footprint.WORKSPACE

    @property
    def tokens(self) -> int:
        """Of one sequence, at its end."""
        return self.prompt + self.new

    @property
    def room(self) -> int:
        """Positions of one sequence for which a runtime that reserves them has to reserve."""
        return self.tokens if self.length is None else max(self.length, 1)


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes on the fullest GPU."""

    weights: int
    kv_cache: int
    activations: int
    workspace: int
    context: int = CONTEXT
    unsure: int = 0
    """By how much the activations may be less or more than counted, where a runtime's own choices decide."""
    shifting: bool = True
    """The memory comes through PyTorch's allocator."""

    @property
    def allocated(self) -> int:
        """What the runtime allocates; the context is the driver's."""
        return self.weights + self.kv_cache + self.activations + self.workspace

    @property
    def total(self) -> int:
        """All of it."""
        return self.allocated + self.context

    @property
    def least(self) -> int:
        """Less it can hardly be: what is free must not be less."""
        return self.allocated - min(self.unsure, self.activations) + min(self.context, CONTEXT_LEAST)

    @property
    def most(self) -> int:
        """With the largest context and what the allocator may waste."""
        wasted = round(ROUNDING * (self.kv_cache + self.activations)) + (20 << 20) if self.shifting else 0
        return self.allocated + self.unsure + wasted + max(self.context, CONTEXT_MOST)


def cached_positions(a: Architecture, tokens: int, *, windows: bool) -> int:
    """Positions that all layers together keep of a sequence of ``tokens``; with ``windows`` a windowed layer keeps no more."""
    layers = a.layers if a.caching_layers is None else a.caching_layers
    if not windows or a.window is None:
        return layers * tokens
    windowed = min(a.windowed_layers, layers)
    return (layers - windowed) * tokens + windowed * min(tokens, a.window)


def numbers_per_position(a: Architecture, *, latent: bool) -> int:
    """How many numbers one layer caches for one position: keys and values, or the latent of MLA where the runtime keeps that."""
    if latent and a.latent is not None:
        return a.latent
    return a.kv_heads * (a.head_dim + (a.head_dim if a.value_dim is None else a.value_dim))


def kv_cache(a: Architecture, tokens: int, itemsize: int, *, windows: bool, latent: bool) -> int:
    """Bytes of the keys and values of one sequence of ``tokens``."""
    return cached_positions(a, tokens, windows=windows) * numbers_per_position(a, latent=latent) * itemsize


def feed_forward_width(a: Architecture) -> int:
    """Numbers per position in each of the products of a layer's feed-forward part: the dense one's, or its chosen experts'."""
    return max(a.hidden, a.experts_per_token * a.expert_hidden)
