"""What shows that a machine computes rightly: finite logits, the same logits on GPU and CPU, the same tokens twice."""

from __future__ import annotations

import copy
import dataclasses
import os
from typing import Sequence

import torch

from .model import Llama

# Of the largest logit. fp32: sums of some thousand products in another order differ by about 1e-5. fp16 and bf16 round every
# activation to 11 and 8 bits. Measured over two layers: real weights (SmolLM2) 0.0005 and 0.004; random ones with sharp
# attention 0.003 and 0.02 where they are 2048 wide, at worst 0.006 and 0.09 of 150 models that are 64 wide. What a kernel
# computes wrongly is off by about 1.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}
LAYERS = 2  # that are compared: twice as many double the rounding, and run no other kernel
NO_NUMBER = 1e9  # what stands for a difference that is none: JSON knows neither NaN nor infinity
SAMPLE = 512 << 20  # bytes in float32 of the part of a model that is computed again on the CPU: well under a second's work
WORDS = 4096  # of the vocabulary in that part


def finite(logits: torch.Tensor) -> bool:
    """Whether every logit is a number, neither infinite nor NaN."""
    return bool(torch.isfinite(logits).all())


@torch.inference_mode()
def agreement(model: Llama, prompt: Sequence[int]) -> tuple[float, float]:
    """(difference, tolerance): how far the model's logits are from those of the CPU in float32, over the largest of these.

    Compared are the first layers with a part of the vocabulary (``excerpt``), on the prompt. The model's cache is used.
    """
    part = excerpt(model)
    prompt = [token % part.shape.vocab for token in prompt][: part.length]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # no TF32
    try:
        here = part(part.slots.new_tensor([prompt]), 0).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    there = twin(part, len(prompt))(torch.tensor([prompt]), 0)
    dtype = model.norm.dtype
    if dtype == torch.float32 and os.environ.get("NVIDIA_TF32_OVERRIDE") == "1":
        dtype = torch.float16  # TF32 has as many bits, and cuBLAS was told to use it whatever a program says
    difference = (here - there).abs().max() / there.abs().max().clamp_min(1e-30)
    return float(difference.nan_to_num(NO_NUMBER, NO_NUMBER)), TOLERANCE[dtype]


def excerpt(model: Llama) -> Llama:
    """The first layers of a model, with the first words of its vocabulary: a view, for which nothing is copied."""
    part = copy.copy(model)
    layer = sum(tensor.numel() for tensor in model.layers[0].tensors(model.shape).values())
    words = min(model.shape.vocab, WORDS)
    layers = max(1, min(LAYERS, model.shape.layers, (SAMPLE // 4 - 2 * words * model.shape.dim) // layer))
    part.shape = dataclasses.replace(model.shape, layers=layers, vocab=words)
    part.layers, part.cache = model.layers[:layers], model.cache[:layers]
    part.embedding, part.head = model.embedding[:words], model.head[:words]
    return part


def twin(model: Llama, length: int) -> Llama:
    """The same model on the CPU, in float32."""
    other = Llama(model.shape, torch.empty(0), 1, length)
    other.turns = model.turns[:length].cpu()  # also where a file brought its own rotary factors
    named = other.tensors()
    for name, tensor in model.tensors().items():
        named[name].copy_(tensor)
    return other


def repeats(once: Sequence[int], again: Sequence[int]) -> bool:
    """Whether a second greedy run, perhaps a shorter one, gave the tokens of the first."""
    return list(once[: len(again)]) == list(again)


def read_per_token(model: Llama, seen: int) -> int:
    """Bytes read to decode a token after ``seen`` others: every weight, of an embedding that is no head one row, and the cache."""
    shape, each = model.shape, model.norm.element_size()
    weights = shape.parameters - (0 if shape.tied else (shape.vocab - 1) * shape.dim)
    return (weights + 2 * shape.layers * shape.kv_heads * shape.head_dim * seen) * each
