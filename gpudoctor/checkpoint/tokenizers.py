"""Where the words of a checkpoint are: which of the known tokenizer files lies beside it."""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator, Sequence

from gpudoctor.checkpoint.bounded import content, json_object
from gpudoctor.checkpoint.found import NotACheckpoint
from gpudoctor.smoke.plan import TokenizerPlan

_LIMIT = 64 << 20  # the largest known tokenizer files have about 35 MB
_MOST_FIELDS = 1 << 19  # of a message; the largest vocabularies have 262144 pieces
_RANK = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d{1,9}\r?\n")  # one line of a tiktoken file
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # kinds of pieces, as SentencePiece numbers them
_SPECIAL_BEGIN, _SPECIAL_END, _SPECIAL_MESSAGE, _SPECIAL_TURN = 0, 1, 8, 9
"""Llama 3's special tokens follow the ranks of its file: begin and end of text, end of message, end of turn."""

Found = tuple["TokenizerPlan | None", "str | None"]
"""The plan, or why there is none, in words."""


def beside(folder: str, *, eos: tuple[int, ...], bos: int | None) -> Found:
    """The tokenizer of a Hugging Face folder: tokenizer.json, else tokenizer.model."""
    path = os.path.join(folder, "tokenizer.json")
    if not os.path.exists(path):
        return model_file(folder, eos=eos, bos=bos)
    try:
        json_head(path)
        settings = os.path.join(folder, "tokenizer_config.json")
        adds = json_object(settings).get("add_bos_token") if os.path.exists(settings) else None
    except NotACheckpoint as reason:
        return None, str(reason)
    return TokenizerPlan("tokenizers", path=os.path.abspath(path), bos=bos, eos=eos, add_bos=adds is not False), None


def json_head(path: str) -> None:
    """Raises NotACheckpoint where the file is not there in full or cannot be JSON; it is not parsed here."""
    data = content(path, _LIMIT)
    if not data.lstrip()[:1] == b"{" or data.rstrip()[-1:] != b"}":
        raise NotACheckpoint(f"{path} is cut short or is not JSON")


def model_file(folder: str, *, above: bool = False, eos: tuple[int, ...] = (), bos: int | None = None) -> Found:
    """tokenizer.model: SentencePiece's or, from Llama 3 on, lines of base64 and a rank; with ``above`` also in the folder above.

    ``eos`` and ``bos`` are what the checkpoint itself says; where it says nothing, they are taken from the file.
    """
    places = (folder, os.path.join(folder, os.pardir)) if above else (folder,)
    path = next((path for place in places if os.path.exists(path := os.path.join(place, "tokenizer.model"))), None)
    if path is None:
        return None, f"{folder} has no tokenizer.json and no tokenizer.model"
    path = os.path.abspath(path)
    try:
        data = content(path, _LIMIT)
    except NotACheckpoint as reason:
        return None, str(reason)
    if _RANK.match(data):
        ranks = data.rstrip().count(b"\n") + 1
        ends = tuple(ranks + one for one in (_SPECIAL_END, _SPECIAL_MESSAGE, _SPECIAL_TURN))
        return TokenizerPlan("tiktoken", path=path, bos=ranks + _SPECIAL_BEGIN if bos is None else bos, eos=eos or ends), None
    special = sentencepiece_ids(data)
    if special is None:
        return None, f"{path} is neither a SentencePiece model nor a list of base64 tokens"
    begin, end = (one if one >= 0 else None for one in special)
    own = () if end is None else (end,)
    return TokenizerPlan("sentencepiece", path=path, bos=begin if bos is None else bos, eos=eos or own), None


def sentencepiece_ids(data: bytes) -> tuple[int, int] | None:
    """The ids of beginning and end of text in a SentencePiece model (-1: it has none); None where it is no such model.

    A model is a protobuf message (sentencepiece_model.proto): field 1 is a piece, field 2 the trainer's settings, in which 41
    and 42 are these ids, by default 1 and 2.
    """
    pieces, begin, end, trainers = 0, 1, 2, 0
    try:
        for field, value in _fields(data):
            pieces += field == 1 and isinstance(value, bytes)
            if field == 2 and isinstance(value, bytes):
                trainers += 1
                if trainers > 1:
                    return None
                settings = {key: number for key, number in _fields(value) if isinstance(number, int)}
                begin, end = (_signed(settings.get(key, default)) for key, default in ((41, begin), (42, end)))
    except (IndexError, struct.error):
        return None
    return (begin, end) if pieces else None


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    for _ in range(_MOST_FIELDS):
        if at == len(data):
            return
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            size, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(key & 7, len(data) + 1)  # what has no length known here is no such file
        if at + size > len(data):
            raise IndexError
        yield key >> 3, data[at : at + size]
        at += size
    raise IndexError  # it never ends


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def llama2c(path: str, vocab: int) -> Found:
    """The tokenizer.bin of llama2.c beside the model or one folder above: SentencePiece's vocabulary with blanks as blanks.

    Layout (export in its tokenizer.py): the longest token's bytes, then per token score (float32), length (int32) and the bytes.
    """
    folder = os.path.dirname(os.path.abspath(path))
    places = [
        os.path.join(place, name) for place in (folder, os.path.dirname(folder)) for name in ("tokenizer.bin", f"tok{vocab}.bin")
    ]
    found = next((place for place in places if os.path.exists(place)), None)
    if found is None:
        return None, f"there is no tokenizer.bin beside {path}"
    try:
        tokens, scores = _vocabulary(content(found, _LIMIT), vocab)
    except NotACheckpoint as reason:
        return None, str(reason)
    except struct.error:
        return None, f"{found} does not hold the {vocab} tokens of this model"
    special = {0: ("<unk>", _UNKNOWN), 1: ("<s>", _CONTROL), 2: ("</s>", _CONTROL)}
    words = tuple(special[at][0] if at in special else token for at, token in enumerate(tokens))
    types = tuple(special[at][1] if at in special else kind_of(token) for at, token in enumerate(tokens))
    return TokenizerPlan("pieces", tokens=words, scores=tuple(scores), types=types, bos=1, eos=(1, 2)), None


def _vocabulary(data: bytes, vocab: int) -> tuple[Sequence[str], Sequence[float]]:
    tokens: list[str] = []
    scores: list[float] = []
    at = 4
    for _ in range(vocab):
        score, size = struct.unpack_from("<fi", data, at)
        at += 8
        if size < 0 or at + size > len(data):
            raise struct.error
        tokens.append(data[at : at + size].decode("utf-8", "replace").replace(" ", "\N{LOWER ONE EIGHTH BLOCK}"))
        scores.append(0.0 if math.isnan(score) else score)
        at += size
    return tokens, scores


def kind_of(token: str) -> int:
    """The kind of a piece, by its text: a byte such as <0x0A>, or a normal one."""
    return _BYTE if re.fullmatch("<0x[0-9A-F]{2}>", token) else _NORMAL
