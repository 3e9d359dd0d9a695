"""The Llama model, as short as it can be read: one forward pass over a slice of tokens, with a KV cache.

Shapes in comments: B rows (sequences), T new positions, S positions seen, H query heads, K key-value heads, G = H / K query
heads that share one of them, D the width of a head, C the model's width, V the vocabulary. No device and no
dtype is named here: they are those of the weights, and every tensor that is made is made like one of these.

The same class serves Mistral, Qwen2 and Qwen3, and one part of a model that is split among processes (tensor parallel, as
in Megatron-LM, arXiv:1909.08053): its shape then counts the heads and the hidden width of this part.
"""

from __future__ import annotations

import math
from typing import Callable, Dict, List, Optional

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody reads

from .plan import RopeScaling, Shape

SPLIT = {"query": 0, "key": 0, "value": 0, "gate": 0, "up": 0, "out": 1, "down": 1, "query_bias": 0, "key_bias": 0, "value_bias": 0}
"""Along which dimension a tensor of a layer is divided among processes; the others each process holds whole."""


class Layer:
    """The weights of one layer. Matrices are (out, in); those that read the same input stand in one, to be read in one go."""

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

    def tensors(self, shape: Shape) -> Dict[str, torch.Tensor]:
        """The tensors by the names of ``plan.Piece``, as views of the joined ones."""
        query, pair = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        named: Dict[str, Optional[torch.Tensor]] = {
            name: getattr(self, name) for name in ("attention_norm", "query_norm", "key_norm", "out", "ffn_norm", "down")
        }
        named.update(zip(("query", "key", "value"), self.qkv.split((query, pair, pair))))
        named.update(zip(("gate", "up"), self.gate_up.chunk(2)))
        if self.qkv_bias is not None:
            named.update(zip(("query_bias", "key_bias", "value_bias"), self.qkv_bias.split((query, pair, pair))))
        return {name: tensor for name, tensor in named.items() if tensor is not None}


class Llama:
    """A Llama model (or one part of it) on one device, with a KV cache for ``rows`` sequences of ``length`` positions."""

    def __init__(self, shape: Shape, like: torch.Tensor, rows: int, length: int) -> None:
        """Make room for weights and cache on the device of ``like`` and in its dtype."""
        self.shape, self.rows, self.length = shape, rows, length
        self.embedding = matrix(shape.vocab, shape.dim, like)
        self.layers: List[Layer] = [Layer(shape, like) for _ in range(shape.layers)]
        self.norm = like.new_empty(shape.dim)
        self.head = self.embedding if shape.tied else matrix(shape.vocab, shape.dim, like)
        self.rope_factors: Optional[torch.Tensor] = None
        self.sum: Callable[[torch.Tensor], torch.Tensor] = lambda part: part
        """What adds up the parts of a split model: an all-reduce there, nothing here."""
        self.cache = like.new_zeros(shape.layers, 2, rows, shape.kv_heads, length, shape.head_dim)  # zeros: what is masked must be finite
        self.turns = rotations(shape, length, like, None)
        self.slots = torch.arange(length, device=like.device)

    @property
    def parameters(self) -> int:
        """How many numbers this part of the model has."""
        return sum(tensor.numel() for tensor in self.tensors().values())

    def tensors(self) -> Dict[str, torch.Tensor]:
        """Every tensor by the name that ``plan.Piece`` gives it; to write into one is to load it."""
        named = {"embedding": self.embedding, "norm": self.norm}
        if not self.shape.tied:
            named["head"] = self.head
        for number, layer in enumerate(self.layers):
            named.update({"layers.%d.%s" % (number, name): tensor for name, tensor in layer.tensors(self.shape).items()})
        return named

    def __call__(self, tokens: torch.Tensor, start: int, last: bool = False) -> torch.Tensor:
        """Logits for ``tokens`` (B, T) at positions ``start`` and on: (B, T, V) in float32, or (B, 1, V) of the last one alone."""
        end = start + tokens.shape[1]
        positions = self.slots[start:end]
        alone = end - start == 1 and (self.shape.window is None or end <= self.shape.window)
        mask = None if alone else self.visible(positions, end)
        return self.forward(tokens, positions, end, mask, last)

    def visible(self, positions: torch.Tensor, seen: int) -> torch.Tensor:
        """Which of the first ``seen`` positions each of ``positions`` may look at: (T, S)."""
        before = positions[:, None] - self.slots[:seen]
        mask = before >= 0
        return mask if self.shape.window is None else mask & (before < self.shape.window)

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, seen: int, mask: Optional[torch.Tensor], last: bool
    ) -> torch.Tensor:
        """As ``__call__``, with the positions (T,) and what each may look at (T, S) as tensors, which a CUDA graph can keep."""
        x = F.embedding(tokens.reshape(-1), self.embedding)  # (B T, C)
        turns = self.turns[positions, None]  # (T, 1, D / 2)
        for layer, cache in zip(self.layers, self.cache):
            x = x + self.sum(self.attend(layer, cache, norm(x, layer.attention_norm, self.shape), tokens.shape, turns, positions, seen, mask))
            x = x + self.sum(self.feed_forward(layer, norm(x, layer.ffn_norm, self.shape)))
        x = x.view(tokens.shape[0], tokens.shape[1], -1)
        x = x[:, -1:] if last else x
        return linear(norm(x, self.norm, self.shape), self.head).float()

    def attend(self, layer, cache, x, size, turns, positions, seen, mask):
        shape = self.shape
        rows, new = size
        heads, pairs, width = shape.heads, shape.kv_heads, shape.head_dim
        qkv = linear(x, layer.qkv)
        if layer.qkv_bias is not None:
            qkv = qkv + layer.qkv_bias
        qkv = qkv.view(rows, new, heads + 2 * pairs, width)
        query, key, value = qkv.split((heads, pairs, pairs), 2)  # (B, T, H or K, D)
        if layer.query_norm is not None:
            query, key = norm(query, layer.query_norm, shape), norm(key, layer.key_norm, shape)
        query, key = rotate(query, turns), rotate(key, turns)
        cache.index_copy_(3, positions, torch.stack((key, value)).transpose(2, 3))
        keys, values = cache[:, :rows, :, :seen]  # (B, K, S, D) each
        # the G query heads that share a key stand as G x T queries of it
        query = query.transpose(1, 2).reshape(rows, pairs, -1, width)
        if mask is not None:
            mask = mask.repeat(heads // pairs, 1)
        y = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        y = y.view(rows, heads, new, width).transpose(1, 2).reshape(rows * new, -1)
        return linear(y, layer.out)

    def feed_forward(self, layer, x):
        gate, up = linear(x, layer.gate_up).chunk(2, -1)
        return linear(F.silu(gate) * up, layer.down)
