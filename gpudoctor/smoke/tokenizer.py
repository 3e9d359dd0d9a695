"""Text to token ids and back, by whichever library the user has that reads the checkpoint's own vocabulary.

A tokenizer is never what a smoke test fails for: where a library is missing or does not like the files, the reason is said and
ids do without words.
"""

from __future__ import annotations

import base64
import importlib
import os
import re
import struct
import sys
from typing import Any, Callable, NamedTuple, Sequence

from .plan import Plan, TokenizerPlan

LIMIT = 256 << 20
"""Bytes of a vocabulary's file; the largest known has 33 MB."""
TRIAL = "Once upon a time, 3 caf\u00e9s\n"
UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 2, 3, 4, 5, 6
"""SentencePiece's types of a piece; 1 is a normal one."""

ENGLISH = r"'s|'t|'re|'ve|'m|'ll|'d"
WORDS = r"(?i:" + ENGLISH + r")|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_3 = WORDS % "{1,3}"


class Split(NamedTuple):
    """How text is cut before byte pairs are merged."""

    pattern: str | None
    """None: as GPT-2 does it."""
    digits: bool = False
    """Each digit stands alone, before anything else."""
    whole: bool = False
    """A word that is in the vocabulary is one token, whatever the merges say."""
    composed: bool = False
    """Letters and their accents are composed first (Unicode's NFC)."""


SPLITS = {
    "gpt-2": Split(None),
    "default": Split(None),
    "smollm": Split(None, digits=True),
    "llama-bpe": Split(LLAMA_3, whole=True),
    "llama3": Split(LLAMA_3, whole=True),
    "llama-v3": Split(LLAMA_3, whole=True),
    "qwen2": Split(WORDS % "", composed=True),
    "deepseek-r1-qwen": Split(WORDS % ""),
    "tekken": Split(CASED, whole=True),
}
"""By GGUF's ``tokenizer.ggml.pre``; the patterns are those of the models' own tokenizer.json (llama.cpp's src/llama-vocab.cpp)."""


class Words(NamedTuple):
    """What a library can do: text to ids without any before or after, ids to text, and how many ids it knows."""

    encode: Callable[[str], Sequence[int]]
    decode: Callable[[list[int]], str]
    size: int


class Tokenizer:
    """Text to ids, after the beginning of text where the model wants it, and ids to text."""

    def __init__(self, words: Words, plan: TokenizerPlan, vocab: int | None) -> None:
        """``vocab``: how many ids the model knows, where that is known."""
        self.words, self.vocab = words, vocab
        self.before = [plan.bos] if plan.add_bos and plan.bos is not None else []

    def encode(self, text: str) -> list[int]:
        """The ids of a text; raises ValueError where the model has no such id."""
        ids = [*self.before, *self.words.encode(text.encode("utf-8", "replace").decode())]
        if ids and self.vocab is not None and max(ids) >= self.vocab:
            raise ValueError("it gives the id %d, and the model's vocabulary has %d" % (max(ids), self.vocab))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without those that stand for no text."""
        return self.words.decode([each for each in ids if 0 <= each < self.words.size])


def open_tokenizer(plan: Plan) -> tuple[Tokenizer | None, str | None]:
    """The plan's tokenizer, tried on its prompts, or None and the reason in words; it raises nothing."""
    about = plan.tokenizer
    if about is None:
        return None, plan.no_tokenizer
    try:
        tokenizer = Tokenizer(OPEN[about.kind](about), about, None if plan.shape is None else plan.shape.vocab)
        for text in (*plan.prompts, TRIAL):
            tokenizer.decode(tokenizer.encode(text))
    except ImportError as error:
        library = error.name or "for it"
        return None, "the library %s is not installed; to read words: %s -m pip install %s" % (library, sys.executable, library)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic in Rust is no Exception; whatever it is, it is the reason
        lines = str(error).strip().splitlines() or [""]
        return None, "the tokenizer cannot be used: %s: %s" % (type(error).__name__, lines[0][:300])
    return tokenizer, None


def sentencepiece_file(plan: TokenizerPlan) -> Words:
    """A SentencePiece model, as Llama 2 and Mistral bring it."""
    return sentencepiece(contents(plan))


def sentencepiece(model: bytes) -> Words:
    """The words of a SentencePiece model in its serialised form."""
    processor = importlib.import_module("sentencepiece").SentencePieceProcessor(model_proto=model)
    return Words(processor.encode, processor.decode, processor.get_piece_size())


def tokenizer_json(plan: TokenizerPlan) -> Words:
    """A tokenizer.json of Hugging Face's tokenizers."""
    return tokenizers(importlib.import_module("tokenizers").Tokenizer.from_str(contents(plan).decode()))


def tokenizers(tokenizer: Any) -> Words:  # noqa: ANN401 - a tokenizers.Tokenizer
    """The words of a tokenizer, neither cut off nor filled up, whatever its file says."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Words(
        lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids),
        lambda ids: str(tokenizer.decode(ids)),
        tokenizer.get_vocab_size(),
    )


def ranks(plan: TokenizerPlan) -> Words:
    """Llama 3's own tokenizer.model: a token in base64 and its rank a line. Special tokens come after them, and are no text."""
    library = importlib.import_module("tiktoken")
    lines = (line.split() for line in contents(plan).splitlines() if line.strip())
    found = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    encoding = library.Encoding("llama3", pat_str=LLAMA_3, mergeable_ranks=found, special_tokens={})
    return Words(encoding.encode_ordinary, encoding.decode, max(found.values()) + 1)


def contents(plan: TokenizerPlan) -> bytes:
    """The file of a tokenizer; raises ValueError where it is larger than any."""
    if plan.path is None:
        raise ValueError("no file is named")
    with open(plan.path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > LIMIT:
            raise ValueError("%s has %d bytes, more than any vocabulary" % (plan.path, size))
        return file.read(LIMIT)


# ---------------------------------------------------------------- vocabularies that stand in the plan itself


def byte_pairs(plan: TokenizerPlan) -> Words:
    """Tokens and merges on the level of bytes, as GGUF keeps those of GPT-2's descendants."""
    split = SPLITS.get(plan.pre or "default")
    if split is None:
        raise ValueError("how it splits text (%s) is not known here" % plan.pre)
    library = importlib.import_module("tokenizers")
    before, model = library.pre_tokenizers, library.models.BPE
    vocabulary = {token: number for number, token in enumerate(plan.tokens)}
    merges = [(first, second) for first, _, second in (merge.partition(" ") for merge in plan.merges)]
    tokenizer = library.Tokenizer(model(vocabulary, merges, **({"ignore_merges": True} if split.whole else {})))
    steps = [before.Digits(individual_digits=True)] if split.digits else []
    if split.pattern is not None:
        steps.append(before.Split(library.Regex(split.pattern), "isolated"))
    steps.append(before.ByteLevel(add_prefix_space=False, use_regex=split.pattern is None))
    tokenizer.pre_tokenizer = before.Sequence(steps)
    tokenizer.decoder = library.decoders.ByteLevel()
    if split.composed:
        tokenizer.normalizer = library.normalizers.NFC()
    typed = list(zip(plan.tokens, plan.types))
    tokenizer.add_special_tokens([library.AddedToken(token, normalized=False) for token, kind in typed if kind == CONTROL])
    tokenizer.add_tokens([library.AddedToken(token, normalized=False) for token, kind in typed if kind == USER_DEFINED])
    return tokenizers(tokenizer)


def pieces(plan: TokenizerPlan) -> Words:
    """SentencePiece's vocabulary without its file, as GGUF and llama2.c keep it: what the file says is written anew.

    Fields are numbered as in sentencepiece_model.proto (https://github.com/google/sentencepiece).
    """
    count = len(plan.tokens)
    types = plan.types if len(plan.types) == count else tuple(type_of(*each) for each in enumerate(plan.tokens))
    scores = plan.scores if len(plan.scores) == count else tuple(-float(number) for number in range(count))
    message = bytearray()
    seen: set[str] = set()
    for number, (token, score, kind) in enumerate(zip(with_marks(plan.tokens), scores, types)):
        if not token or token in seen:  # two names of one piece: only the first can be meant
            token, kind = "\ue000%d" % number, UNUSED  # noqa: PLW2901 - see above
        seen.add(token)
        message += field(1, field(1, token.encode("utf-8", "replace")) + number_field(2, score) + field(3, kind))
    bytes_too = types.count(BYTE) == 256
    message += field(2, field(3, 2) + field(4, count) + field(35, int(bytes_too)))  # byte pairs; what is unknown falls to bytes
    message += field(3, field(1, b"identity") + field(3, int(plan.add_prefix_space)) + field(4, 0) + field(5, 1))
    return sentencepiece(bytes(message))


def type_of(number: int, token: str) -> int:
    """The type of a piece where only its place and its text are known: Llama's vocabulary begins with <unk>, <s> and </s>."""
    if number <= 2:
        return CONTROL if number else UNKNOWN
    return BYTE if re.fullmatch("<0x[0-9A-F]{2}>", token) else 1


def with_marks(tokens: Sequence[str]) -> Sequence[str]:
    """Tokens with SentencePiece's mark for a space; llama2.c writes a space itself."""
    mark = "\u2581"
    return tokens if any(mark in token for token in tokens) else [token.replace(" ", mark) for token in tokens]


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer: a whole number, or bytes."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def number_field(number: int, value: float) -> bytes:
    """A field of a protocol buffer that is a float32."""
    return varint(number << 3 | 5) + struct.pack("<f", value)


def varint(value: int) -> bytes:
    """A number in groups of seven bits, the lowest first."""
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


OPEN: dict[str, Callable[[TokenizerPlan], Words]] = {
    "sentencepiece": sentencepiece_file,
    "tokenizers": tokenizer_json,
    "tiktoken": ranks,
    "bpe": byte_pairs,
    "pieces": pieces,
}
