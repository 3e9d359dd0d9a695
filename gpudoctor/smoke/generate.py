"""Text generation as Llama 2's published example does it: prefill, decode, sample, and the loop around them.

A batch of prompts of different lengths is decoded in one go, without padding on the left: all rows begin at the length of
the shortest prompt, and a position that belongs to a longer prompt keeps the prompt's token. docs/generate.md walks through it.
"""

from __future__ import annotations

import math
from typing import Any, Callable, NamedTuple, Sequence

import torch

Model = Any  # a model.Llama, or whatever has its call, ``rows``, ``length`` and ``norm``
Step = Callable[[Model, torch.Tensor, int], torch.Tensor]
EMPTY = -1  # what stands where no token has been written yet; it is never fed to the model


class Completion(NamedTuple):
    """The tokens of one row, and the natural logarithm of each one's probability, or None where they were not asked for."""

    tokens: list[int]
    logprobs: list[float] | None


def prefill(model: Model, tokens: torch.Tensor, every: bool = True) -> torch.Tensor:
    """Read the prompts' common part (B, T); logits of every position (B, T, V), or of the last one alone (B, 1, V)."""
    return model(tokens, 0, last=not every)


def decode(model: Model, tokens: torch.Tensor, position: int) -> torch.Tensor:
    """Read one token per row (B,) at ``position``; the logits of what follows (B, V)."""
    return model(tokens[:, None], position)[:, 0]


def sample(logits: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator | None = None) -> torch.Tensor:
    """One token per row (B,) from logits (B, V): the likeliest at temperature 0, else by chance among the likeliest.

    These are the smallest set of tokens whose probability reaches ``top_p`` (nucleus sampling, arXiv:1904.09751).
    """
    if temperature == 0:
        return logits.argmax(-1)
    shares, order = torch.softmax(logits / temperature, -1).sort(-1, descending=True)
    reached_before = shares.cumsum(-1) - shares >= top_p
    reached_before[:, 0] = False  # one token is always left
    if top_p < 1:  # at 1 rounding must not drop the last ones
        shares = shares.masked_fill(reached_before, 0)
    return order.gather(-1, torch.multinomial(shares, 1, generator=generator))[:, 0]


@torch.inference_mode()
def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    max_gen_len: int,
    temperature: float = 0.6,
    top_p: float = 0.9,
    logprobs: bool = False,
    echo: bool = False,
    eos: Sequence[int] = (),
    generator: torch.Generator | None = None,
    step: Step = decode,
) -> list[Completion]:
    """Continue each prompt (token ids) by at most ``max_gen_len`` tokens, until one of ``eos`` comes.

    With ``echo`` the prompt's tokens come first; its first token, which nothing precedes, has the log-probability 0. Raises
    ValueError, with both numbers, for more prompts than the model has rows and for a prompt longer than its cache; also for an
    empty prompt, a token that is not in the vocabulary, and options out of range.
    """
    check(model, prompts, max_gen_len, temperature, top_p)
    if not prompts:
        return []
    lengths = [len(prompt) for prompt in prompts]
    total = min(model.length, max_gen_len + max(lengths))
    device = model.norm.device
    tokens = torch.full((len(prompts), total), EMPTY, device=device)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt, device=device)
    given, shortest = tokens != EMPTY, min(lengths)
    chances = torch.zeros(tokens.shape, device=device)
    logits = prefill(model, tokens[:, :shortest], every=logprobs)
    if logprobs:
        chances[:, 1:shortest] = log_chances(logits[:, :-1], tokens[:, 1:shortest])
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    ends = torch.tensor(list(eos), dtype=torch.long, device=device)
    for position in range(shortest, total):
        following = logits[:, -1] if position == shortest else step(model, tokens[:, position - 1], position - 1)
        chosen = torch.where(given[:, position], tokens[:, position], sample(following, temperature, top_p, generator))
        tokens[:, position] = chosen
        if logprobs:
            chances[:, position] = log_chances(following, chosen)
        if len(ends):
            finished |= ~given[:, position] & torch.isin(chosen, ends)
            if finished.all():
                break
    return [
        cut(row, chance, length, max_gen_len, echo, eos, logprobs)
        for row, chance, length in zip(tokens.tolist(), chances.tolist(), lengths)
    ]


def log_chances(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The log-softmax of ``logits`` (..., V) at the tokens ``chosen`` (...)."""
    return torch.log_softmax(logits.float(), -1).gather(-1, chosen[..., None])[..., 0]


def cut(
    row: list[int], chances: list[float], length: int, max_gen_len: int, echo: bool, eos: Sequence[int], logprobs: bool
) -> Completion:
    """A row without what stands beyond ``max_gen_len`` or from the first end-of-sequence on that was generated."""
    end = min(length + max_gen_len, len(row))
    end = next((place for place in range(length, end) if row[place] in eos or row[place] == EMPTY), end)
    start = 0 if echo else length
    return Completion(row[start:end], chances[start:end] if logprobs else None)


def check(model: Model, prompts: Sequence[Sequence[int]], max_gen_len: int, temperature: float, top_p: float) -> None:
    """Raise ValueError for what cannot be generated, in words that name both numbers."""
    if len(prompts) > model.rows:
        raise ValueError("%d prompts, and the model has room for %d at a time" % (len(prompts), model.rows))
    if max_gen_len < 0:
        raise ValueError("expected a number of new tokens of 0 or more, not %d" % max_gen_len)
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError("expected a temperature of 0 or more, not %g" % temperature)
    if not 0 <= top_p <= 1:
        raise ValueError("expected a top_p from 0 to 1, not %g" % top_p)
    for number, prompt in enumerate(prompts, 1):
        if not prompt:
            raise ValueError("prompt %d is empty: at least one token, such as the beginning of text, has to be there" % number)
        if len(prompt) > model.length:
            raise ValueError("prompt %d has %d tokens, and the model sees %d" % (number, len(prompt), model.length))
        strangers = [token for token in prompt if not 0 <= token < model.shape.vocab]
        if strangers:
            raise ValueError("prompt %d has token %d, and the vocabulary has %d" % (number, strangers[0], model.shape.vocab))
