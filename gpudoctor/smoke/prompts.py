"""The prompts as token ids, with the checkpoint's tokenizer or, where there is none, byte by byte."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

from .plan import Plan

PROMPT = "Once upon a time"
BEFORE_BYTES = 3  # ids of a Llama vocabulary before those of the 256 bytes: unknown, beginning, end


class Text(NamedTuple):
    """The prompts, their ids, and what makes words of ids again."""

    prompts: tuple[str, ...]
    ids: list[list[int]]
    tokenizer: Any
    """None where there is none."""
    note: str | None
    """Why there is none, where a reader should know."""

    @property
    def longest(self) -> int:
        """How many ids the longest prompt has."""
        return max(len(ids) for ids in self.ids)

    def words(self, ids: Sequence[int]) -> str | None:
        """The text of ids, or None without a tokenizer."""
        return None if self.tokenizer is None else str(self.tokenizer.decode(list(ids)))


def read_prompts(plan: Plan) -> Text:
    """The plan's prompts, or one of our own."""
    prompts = plan.prompts or (PROMPT,)
    tokenizer, why = None, plan.no_tokenizer
    if plan.tokenizer is not None:
        from .tokenizer import open_tokenizer

        tokenizer, why = open_tokenizer(plan)
    if tokenizer is not None:
        return Text(prompts, [list(tokenizer.encode(prompt)) for prompt in prompts], tokenizer, None)
    vocab = 1 << 16 if plan.shape is None else plan.shape.vocab
    return Text(prompts, [spelled(prompt, plan.bos, vocab) for prompt in prompts], None, why and "no words, only token ids: " + why)


def spelled(prompt: str, bos: int | None, vocab: int) -> list[int]:
    """One id for each byte of a text in UTF-8, after the beginning of text."""
    letters = [(byte + BEFORE_BYTES) % vocab for byte in prompt.encode("utf-8", "replace")]
    return letters if bos is None else [bos, *letters]
