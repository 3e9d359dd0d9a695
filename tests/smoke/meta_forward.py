"""A forward pass that holds what Meta's own Llama code (github.com/meta-llama/llama) holds: its tensors, dtypes and order.

Written for its memory alone: the weights are whatever they are. B rows, T new positions, S positions seen, H query heads, K
key-value heads, D the width of a head. What a function is given lives until it returns, as in the code that it stands for.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody reads

from gpudoctor.contents import Architecture


class Block:
    """One layer: its weights, and its cache for so many rows of so many positions."""

    def __init__(self, a: Architecture, rows: int, length: int, like: Any) -> None:
        query, pairs = a.heads * a.head_dim, a.kv_heads * a.head_dim
        self.a = a
        self.wq, self.wk, self.wv = (torch.zeros(width, a.dim, **like) for width in (query, pairs, pairs))
        self.wo = torch.zeros(a.dim, query, **like)
        self.w1, self.w3 = (torch.zeros(a.hidden, a.dim, **like) for _ in range(2))
        self.w2 = torch.zeros(a.dim, a.hidden, **like)
        self.attention_norm, self.ffn_norm = (torch.zeros(a.dim, **like) for _ in range(2))
        self.cache_k, self.cache_v = (torch.zeros(rows, length, a.kv_heads, a.head_dim, **like) for _ in range(2))

    def __call__(self, x: torch.Tensor, start: int, turns: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        h = x + self.attend(norm(x, self.attention_norm), start, turns, mask)
        return h + self.feed(norm(h, self.ffn_norm))

    def attend(self, x: torch.Tensor, start: int, turns: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        rows, new, _ = x.shape
        xq, xk, xv = F.linear(x, self.wq), F.linear(x, self.wk), F.linear(x, self.wv)
        xq = xq.view(rows, new, self.a.heads, self.a.head_dim)
        xk = xk.view(rows, new, self.a.kv_heads, self.a.head_dim)
        xv = xv.view(rows, new, self.a.kv_heads, self.a.head_dim)
        xq, xk = rotated(xq, xk, turns)
        end = start + new
        self.cache_k[:rows, start:end] = xk
        self.cache_v[:rows, start:end] = xv
        keys = repeated(self.cache_k[:rows, :end], self.a.heads // self.a.kv_heads)
        values = repeated(self.cache_v[:rows, :end], self.a.heads // self.a.kv_heads)
        xq, keys, values = xq.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)  # (B, H, T or S, D)
        scores = torch.matmul(xq, keys.transpose(2, 3)) / math.sqrt(self.a.head_dim)
        if mask is not None:
            scores = scores + mask  # a new tensor, as there
        scores = F.softmax(scores.float(), dim=-1).type_as(xq)
        output = torch.matmul(scores, values)
        output = output.transpose(1, 2).contiguous().view(rows, new, -1)
        return F.linear(output, self.wo)

    def feed(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.silu(F.linear(x, self.w1)) * F.linear(x, self.w3), self.w2)


class Transformer:
    """The model. ``generate`` asks it for a prompt's logits, and then for those of one token after the other."""

    def __init__(self, a: Architecture, rows: int, length: int, dtype: torch.dtype) -> None:
        like = {"dtype": dtype}
        # made last there: while it is made it takes twice its room, which matters in sizes such as a test's alone
        angles = torch.outer(torch.arange(2 * length).float(), torch.rand(a.head_dim // 2))
        self.turns = torch.polar(torch.ones_like(angles), angles)  # complex64, for twice the positions
        self.embedding = torch.zeros(a.vocab, a.dim, **like)
        self.layers = [Block(a, rows, length, like) for _ in range(a.layers)]
        self.norm = torch.zeros(a.dim, **like)
        self.output = torch.zeros(a.vocab, a.dim, **like)

    def __call__(self, tokens: torch.Tensor, start: int) -> torch.Tensor:
        new = tokens.shape[1]
        h = F.embedding(tokens, self.embedding)
        turns = self.turns[start : start + new]
        mask = None
        if new > 1:
            mask = torch.full((new, new), -math.inf, dtype=h.dtype)  # half precision is the default there
            mask = torch.triu(mask, diagonal=1)
            mask = torch.hstack([torch.zeros(new, start, dtype=h.dtype), mask])
        for layer in self.layers:
            h = layer(h, start, turns, mask)
        h = norm(h, self.norm)
        return F.linear(h, self.output).float()


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return scaled(x.float()).type_as(x) * weight


def scaled(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def rotated(xq: torch.Tensor, xk: torch.Tensor, turns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    xq_ = torch.view_as_complex(xq.float().reshape(*xq.shape[:-1], -1, 2))
    xk_ = torch.view_as_complex(xk.float().reshape(*xk.shape[:-1], -1, 2))
    xq_out = torch.view_as_real(xq_ * turns[None, :, None]).flatten(3)
    xk_out = torch.view_as_real(xk_ * turns[None, :, None]).flatten(3)
    return xq_out.type_as(xq), xk_out.type_as(xk)


def repeated(x: torch.Tensor, times: int) -> torch.Tensor:
    """Each head so often (B, S, K, D) -> (B, S, H, D); the same tensor where it is once."""
    rows, seen, heads, width = x.shape
    return x if times == 1 else x[:, :, :, None].expand(rows, seen, heads, times, width).reshape(rows, seen, -1, width)


@torch.inference_mode()
def generated(model: Transformer, rows: int, prompt: int, length: int) -> torch.Tensor:
    """The tokens of a batch whose rows all have ``prompt`` tokens: the first pass, and the last, which sees all before it.

    What lies between is no wider. The logits of one pass are there until those of the next replace them.
    """
    tokens = torch.zeros(rows, length, dtype=torch.long)
    given = tokens != -1
    logits = model(tokens[:, :prompt], 0)
    tokens[:, prompt - 1] = logits[:, -1].argmax(-1)
    if length > prompt + 1:
        logits = model(tokens[:, prompt : prompt + 1], prompt)
        logits = model(tokens[:, length - 2 : length - 1], length - 2)
    return tokens * given
