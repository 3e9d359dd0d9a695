"""Decoding as one CUDA graph: the some hundred kernels of a token are launched at once, without a compile step."""

from __future__ import annotations

import torch

from .generate import Model
from .model import Llama, Slice


class Graph:
    """A captured ``decode`` of ``rows`` sequences: called as that is, with the model that it was captured from.

    The position is a tensor here, and attention looks at the whole cache through a mask, so that every token runs the same
    kernels. What it returns is overwritten by the next call.
    """

    def __init__(self, model: Llama, rows: int) -> None:
        """Capture, on the model's CUDA device. What this leaves in the cache is at position 0, which every prefill writes anew."""
        device = model.norm.device
        self.tokens = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            self.warm_up(model)
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # NCCL has a thread of its own that asks CUDA
                self.logits = self.run(model)

    def run(self, model: Llama) -> torch.Tensor:
        """One forward pass over the tensors that stay in place: (B, V)."""
        mask = model.visible(self.position, model.room)
        return model.forward(self.tokens, Slice(len(self.tokens), self.position, model.room, mask), last=True)[:, 0]

    def warm_up(self, model: Llama) -> None:
        """Libraries make their workspaces at the first call, which must not happen while a graph is captured."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                self.run(model)
        torch.cuda.current_stream().wait_stream(aside)

    def __call__(self, _model: Model, tokens: torch.Tensor, position: int) -> torch.Tensor:
        """Logits (B, V) of what follows ``tokens`` (B,) at ``position``."""
        self.tokens.copy_(tokens[:, None])
        self.position.fill_(position)
        self.graph.replay()
        return self.logits
