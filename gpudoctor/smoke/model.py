"""The Llama model, as short as it can be read: one forward pass over a slice of tokens, with a KV cache.

Shapes in comments: B rows (sequences), T new positions, S positions seen, H query heads, K key-value heads, D the width of
a head, C the width of the model, V the vocabulary. No device and no dtype is named here: they are those of the weights,
and every tensor that is made is made beside one of these, so that no two can be on different devices.

The same class serves Mistral, Qwen2 and Qwen3, and one part of a model that is split among processes (tensor parallel, as
in Megatron-LM, arXiv:1909.08053): its shape then counts the heads and the hidden width of this part.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody reads

from .plan import RopeScaling, Shape

SPLIT = {"query": 0, "key": 0, "value": 0, "gate": 0, "up": 0, "out": 1, "down": 1, "query_bias": 0, "key_bias": 0, "value_bias": 0}
"""Along which dimension a tensor of a layer is divided among processes; the others each process holds whole."""


BAG = 1 << 20
"""How many numbers of a matrix are worth a thread: to wait for one that shares its core costs more than a small matrix."""


class Slice(NamedTuple):
    """Which positions a forward pass computes, and what they may look at: all that changes from one pass to the next."""

    rows: int  # B
    positions: torch.Tensor  # (T,)
    seen: int  # S
    mask: torch.Tensor | None  # (H / K T, S), added to the scores: 0 where a position may look, else -inf; None: everywhere


class Layer:
    """The weights of one layer. Matrices are (out, in); those that read the same input are joined, to be read in one go."""

    def __init__(self, shape: Shape, like: torch.Tensor) -> None:
        """Make room on the device of ``like`` and in its dtype; the values are the loader's business."""
        query, pair = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.attention_norm = like.new_empty(shape.dim)
        self.qkv = matrix(query + 2 * pair, shape.dim, like)
        self.qkv_bias = like.new_empty(query + 2 * pair) if shape.qkv_bias else None
        self.query_norm = like.new_empty(shape.head_dim) if shape.qk_norm else None
        self.key_norm = like.new_empty(shape.head_dim) if shape.qk_norm else None
        self.out = matrix(shape.dim, query, like)
        self.ffn_norm = like.new_empty(shape.dim)
        self.gate_up = matrix(2 * shape.hidden, shape.dim, like)
        self.down = matrix(shape.dim, shape.hidden, like)

    def tensors(self, shape: Shape) -> dict[str, torch.Tensor]:
        """The tensors by the names of ``plan.Piece``: views of the joined ones."""
        widths = [shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim]
        single = ("attention_norm", "query_norm", "key_norm", "out", "ffn_norm", "down")
        named = {name: getattr(self, name) for name in single if getattr(self, name) is not None}
        named.update(zip(("query", "key", "value"), self.qkv.split(widths)))
        named.update(zip(("gate", "up"), self.gate_up.chunk(2)))
        if self.qkv_bias is not None:
            named.update(zip(("query_bias", "key_bias", "value_bias"), self.qkv_bias.split(widths)))
        return named


class Llama:
    """A Llama model (or one part of it) on one device, with a KV cache for ``rows`` sequences of ``length`` positions."""

    def __init__(self, shape: Shape, like: torch.Tensor, rows: int, length: int) -> None:
        """Make room for weights and cache on the device of ``like`` and in its dtype."""
        self.shape, self.rows, self.length = shape, rows, length
        self.embedding = matrix(shape.vocab, shape.dim, like)
        self.layers: list[Layer] = [Layer(shape, like) for _ in range(shape.layers)]
        self.norm = like.new_empty(shape.dim)
        self.head = self.embedding if shape.tied else matrix(shape.vocab, shape.dim, like)
        # a multiple of 16 positions, as fused attention kernels want it; zeros, since what is masked must still be finite
        self.room = -(-length // 16) * 16
        self.cache = [like.new_zeros(rows, self.room, 2, shape.kv_heads, shape.head_dim) for _ in range(shape.layers)]
        self.slots = torch.arange(self.room, device=like.device)
        self.sum: Callable[[torch.Tensor], torch.Tensor] = lambda part: part
        """What adds up the parts of a split model: an all-reduce there, nothing here."""
        self.set_rope_factors(None)

    def set_rope_factors(self, factors: torch.Tensor | None) -> None:
        """Divide the rotary frequencies by ``factors`` (D / 2,), as GGUF files have them, instead of by the shape's scaling."""
        turns = frequencies(self.shape) if factors is None else plain_frequencies(self.shape) / factors.double().cpu()
        angles = torch.outer(torch.arange(self.room).double(), turns)
        self.turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex64).to(self.norm.device)  # (room, D / 2)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor by the name that ``plan.Piece`` gives it; to write into one is to load it."""
        named = {"embedding": self.embedding, "norm": self.norm}
        if not self.shape.tied:
            named["head"] = self.head
        for number, layer in enumerate(self.layers):
            named.update({"layers.%d.%s" % (number, name): tensor for name, tensor in layer.tensors(self.shape).items()})
        return named

    def __call__(self, tokens: torch.Tensor, start: int, last: bool = False) -> torch.Tensor:
        """Logits (B, T, V) in float32 for ``tokens`` (B, T) at positions ``start`` and on; if ``last`` the last ones (B, 1, V)."""
        end = start + tokens.shape[1]
        positions = self.slots[start:end]
        sees_all = end - start == 1 and (self.shape.window is None or end <= self.shape.window)
        mask = None if sees_all else self.visible(positions, end)
        return self.forward(tokens, Slice(len(tokens), positions, end, mask), last)

    def visible(self, positions: torch.Tensor, seen: int) -> torch.Tensor:
        """Which of the first ``seen`` positions each of ``positions`` (T,) may look at, as a Slice wants it."""
        before = positions[:, None] - self.slots[:seen]  # (T, S)
        hidden = before < 0 if self.shape.window is None else (before < 0) | (before >= self.shape.window)
        mask = self.norm.new_zeros(hidden.shape).masked_fill_(hidden, -math.inf)
        return mask.repeat(self.shape.heads // self.shape.kv_heads, 1)

    def forward(self, tokens: torch.Tensor, slice_: Slice, last: bool) -> torch.Tensor:
        """As a call, with the positions as tensors, which a CUDA graph can keep."""
        eps = self.shape.norm_eps
        x = F.embedding(tokens.reshape(-1), self.embedding)  # (B T, C)
        turns = self.turns[slice_.positions, None]  # (T, 1, D / 2)
        for layer, cache in zip(self.layers, self.cache):
            x += self.sum(self.attend(norm(x, layer.attention_norm, eps), layer, cache, slice_, turns))
            x += self.sum(feed_forward(norm(x, layer.ffn_norm, eps), layer))
        if last:
            x = x.view(slice_.rows, -1, x.shape[-1])[:, -1]
        return linear(norm(x, self.norm, eps), self.head).view(slice_.rows, -1, self.shape.vocab).float()

    def attend(self, x: torch.Tensor, layer: Layer, cache: torch.Tensor, slice_: Slice, turns: torch.Tensor) -> torch.Tensor:
        """Attention over everything seen so far: (B T, C) to (B T, C); ``cache`` (B, S, 2, K, D) gets the new keys and values."""
        heads, pairs, width = self.shape.heads, self.shape.kv_heads, self.shape.head_dim
        qkv = linear(x, layer.qkv)
        if layer.qkv_bias is not None:
            qkv += layer.qkv_bias
        qkv = qkv.view(slice_.rows, -1, heads + 2 * pairs, width)  # (B, T, H + 2 K, D)
        if layer.query_norm is not None and layer.key_norm is not None:
            qkv[:, :, :heads] = norm(qkv[:, :, :heads], layer.query_norm, self.shape.norm_eps)
            qkv[:, :, heads : heads + pairs] = norm(qkv[:, :, heads : heads + pairs], layer.key_norm, self.shape.norm_eps)
        rotate(qkv[:, :, : heads + pairs], turns)
        cache[: slice_.rows].index_copy_(1, slice_.positions, qkv[:, :, heads:].unflatten(2, (2, pairs)))
        keys, values = cache[: slice_.rows, : slice_.seen].transpose(1, 3).unbind(2)  # (B, K, S, D)
        # the H / K query heads that share a key stand as so many queries of it, one after the other: (B, K, H / K T, D)
        query = qkv[:, :, :heads].transpose(1, 2).reshape(slice_.rows, pairs, -1, width)
        y = F.scaled_dot_product_attention(query, keys, values, attn_mask=slice_.mask)
        y = y.reshape(slice_.rows, heads, -1, width).transpose(1, 2)
        return linear(y.reshape(len(x), -1), layer.out)


def feed_forward(x: torch.Tensor, layer: Layer) -> torch.Tensor:
    """SwiGLU (arXiv:2002.05202): (B T, C) to (B T, C)."""
    gate, up = linear(x, layer.gate_up).chunk(2, -1)
    return linear(F.silu(gate) * up, layer.down)


def norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm (arXiv:1910.07467) over the last dimension, in float32 inside."""
    if hasattr(F, "rms_norm"):  # from PyTorch 2.4 on
        return F.rms_norm(x, weight.shape, weight, eps)
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).type_as(x) * weight


def rotate(x: torch.Tensor, turns: torch.Tensor) -> None:
    """Turn each pair of numbers (2 i, 2 i + 1) of ``x`` (B, T, heads, D) by its position's angles (T, 1, D / 2), in place."""
    wide = x.float()  # x itself where it is float32 already
    torch.view_as_complex(wide.unflatten(-1, (-1, 2))).mul_(turns)
    if wide is not x:
        x.copy_(wide)


def matrix(rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
    """Room for a matrix (out, in). For a CPU it lies in memory column by column, as ``linear`` reads it there."""
    if by_columns(like):
        return like.new_empty(columns, rows).t()
    return like.new_empty(rows, columns)


def by_columns(like: torch.Tensor) -> bool:
    """Whether a product of a matrix and one vector is a weighted sum of columns here."""
    return not like.is_cuda and like.dtype == torch.float32


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x (N, in) times weight (out, in): (N, out).

    One vector times a matrix is bound by reading the matrix. On a CPU the sum of its columns, each weighted by one number
    of the vector, is what an embedding bag computes, one bag for each thread; PyTorch's streams through memory at nearly
    twice the speed of its matrix-vector product (844 against 1210 microseconds for 32000 x 288, one thread of an AMD EPYC).
    """
    if len(x) > 1 or not by_columns(weight):
        return F.linear(x, weight)
    bags = max(1, min(torch.get_num_threads(), weight.numel() // BAG))
    columns, begins = bags_of(weight.shape[1], bags)
    parts = torch.embedding_bag(weight.t(), columns, begins, False, 0, False, x.view(-1))[0]
    return parts if bags == 1 else parts.sum(0, keepdim=True)


@lru_cache(maxsize=None)
def bags_of(columns: int, bags: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers of all columns, and where each bag of them begins."""
    return torch.arange(columns), torch.arange(bags) * columns // bags


def plain_frequencies(shape: Shape) -> torch.Tensor:
    """Rotary frequencies (arXiv:2104.09864), radians per position: (D / 2,), in float64, on the CPU."""
    return 1.0 / shape.rope_theta ** (torch.arange(0, shape.head_dim, 2).double() / shape.head_dim)


def frequencies(shape: Shape) -> torch.Tensor:
    """Rotary frequencies, stretched as the shape asks."""
    plain, scaling = plain_frequencies(shape), shape.rope_scaling
    if scaling is None:
        return plain
    return plain / scaling.factor if scaling.kind == "linear" else stretch_slow(plain, scaling)


def stretch_slow(plain: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Llama 3.1's rule: slow frequencies are divided by the factor, fast ones kept, those between are blended."""
    turns = scaling.original_max * plain / (2 * math.pi)  # how often each turns within the length it was trained on
    kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return plain * (kept + (1 - kept) / scaling.factor)
