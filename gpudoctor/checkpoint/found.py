"""What was found: a checkpoint, a tensor in a file, or the reason why it is none."""

from __future__ import annotations

from dataclasses import dataclass

from gpudoctor.smoke.plan import Piece, Shape, TokenizerPlan

_LONGEST = 500  # characters of a line that a person still reads


class NotACheckpoint(ValueError):
    """There is no checkpoint here that gpudoctor reads; the message is one line that says what was found and what was expected."""

    def __init__(self, message: str) -> None:
        some = message if len(message) <= _LONGEST else message[: _LONGEST - 1] + "…"  # a name in it may have megabytes
        super().__init__("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in some))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as its headers describe it: what ``plan.Plan`` needs to know of it."""

    path: str
    name: str
    """The folder's or file's name; for a snapshot in the Hugging Face cache, the model's."""
    format: str
    """meta, hf, gguf, llama2c; transformers where the architecture or the kind of numbers is not ours."""
    shape: Shape | None
    files: tuple[str, ...]
    """Absolute paths; what the pieces count in."""
    pieces: tuple[Piece, ...]
    halves: bool
    foreign: str | None
    """The folder, where transformers has to read it."""
    tokenizer: TokenizerPlan | None
    no_tokenizer: str | None
    """Why there is none, in words."""
    eos: tuple[int, ...]
    bos: int | None
    dtype: str
    """The commonest kind of the matrices: F16, BF16, F32, Q4_1; empty where there are no pieces."""
    size: int
    """Bytes of all pieces; where transformers reads it, of the files with weights."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file: contiguous, row-major, little-endian; offset and size are bytes."""

    file: str
    offset: int
    shape: tuple[int, ...]
    kind: str
    size: int
