"""What the smoke test is to do: made by the doctor, carried out in the user's interpreter, read by both as JSON.

Everything that can be known from a checkpoint's headers is settled here, so that the worker only maps bytes. Sizes and
offsets are bytes. The worker runs from Python 3.8 on: no newer syntax, no library.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for long contexts (Hugging Face's ``rope_scaling``).

    ``kind`` is linear or llama3. linear divides every frequency by ``factor``; llama3 only the slow ones: those whose
    wavelength exceeds ``original_max / low``, none below ``original_max / high``, blended in between.
    """

    kind: str
    factor: float
    low: float = 1.0
    high: float = 4.0
    original_max: int = 8192


@dataclass(frozen=True)
class Shape:
    """The numbers of a Llama model (also Mistral's, Qwen2's and Qwen3's, which differ in the flags below)."""

    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    """Width of the feed-forward part."""
    vocab: int
    max_seq_len: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tied: bool = False
    """The output head is the embedding's own matrix."""
    qkv_bias: bool = False
    """Query, key and value have biases (Qwen2)."""
    qk_norm: bool = False
    """Query and key are normalised per head (Qwen3)."""
    window: int | None = None
    """Each position sees only so many before it (Mistral 7B v0.1)."""

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        query, pair = self.heads * self.head_dim, 2 * self.kv_heads * self.head_dim
        layer = self.dim * (2 * query + pair + 3 * self.hidden + 2)
        layer += (query + pair) * self.qkv_bias + 2 * self.head_dim * self.qk_norm
        return self.layers * layer + self.vocab * self.dim * (1 if self.tied else 2) + self.dim


@dataclass(frozen=True)
class Piece:
    """One stretch of a file that holds a tensor or, of a sharded one, a part: row-major, contiguous, little-endian.

    ``name`` is one of: embedding, norm, head, rope_factors; layers.N.attention_norm, query, key, value, out, ffn_norm, gate, up,
    down, query_bias, key_bias, value_bias, query_norm, key_norm. A matrix is (out, in), as ``torch.nn.Linear`` keeps it.
    """

    name: str
    file: int
    """Index into the plan's ``files``."""
    offset: int
    shape: tuple[int, ...]
    kind: str
    """F32, F16, BF16, F64, or the name of a GGUF quantisation such as Q4_1."""
    size: int
    """Bytes in the file."""
    dim: int | None = None
    """Pieces of one name are joined along this dimension, in the plan's order; None: this piece is the whole tensor."""


@dataclass(frozen=True)
class TokenizerPlan:
    """Where the words are.

    ``kind``: sentencepiece (``path`` is a SentencePiece model), tokenizers (``path`` is a tokenizer.json), tiktoken (``path`` has
    a base64 token and its rank a line), pieces (``tokens`` with ``scores``: SentencePiece's vocabulary as GGUF and llama2.c
    keep it), bpe (``tokens`` and ``merges``; ``pre`` names how text is split first, as GGUF does).
    """

    kind: str
    path: str | None = None
    tokens: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    types: tuple[int, ...] = ()
    """SentencePiece's: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte."""
    merges: tuple[str, ...] = ()
    pre: str | None = None
    bos: int | None = None
    eos: tuple[int, ...] = ()
    add_bos: bool = True
    add_prefix_space: bool = True


@dataclass(frozen=True)
class Plan:
    """One smoke test. Without ``pieces`` (and without ``foreign``) the weights are random, of exactly this shape."""

    name: str
    """What the user calls the model: llama-2-7b, a folder's name."""
    format: str
    """meta, hf, gguf, llama2c, transformers, or none for random weights."""
    shape: Shape | None
    """None where transformers reads the model."""
    files: tuple[str, ...] = ()
    pieces: tuple[Piece, ...] = ()
    halves: bool = False
    """Rotary pairs in the file are (i, i + head_dim / 2), as Hugging Face has them, instead of (2i, 2i + 1)."""
    foreign: str | None = None
    """Folder of a model that the user's own transformers reads, because this architecture is not ours."""
    tokenizer: TokenizerPlan | None = None
    no_tokenizer: str | None = None
    """Why there is none, in words; None where nothing is to be said."""
    eos: tuple[int, ...] = ()
    """Token ids that end a text; empty where there is no such token (random weights)."""
    bos: int | None = None
    device: str | None = None
    """cuda or cpu; None: cuda where PyTorch has one, else cpu."""
    dtype: str | None = None
    """fp32, fp16 or bf16; None: the checkpoint's on a GPU that knows it, fp32 on a CPU."""
    prompts: tuple[str, ...] = ()
    """Empty: a prompt of the smoke test's own."""
    new_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 0.9
    logprobs: bool = False
    echo: bool = False
    seed: int = 0
    max_seq_len: int | None = None
    """None: as long as prompts and new tokens need, the model's own at most."""
    budget: int | None = None
    """Bytes of device memory that may be taken at most; None: what the device says is free."""
    processes: int = 1
    """How many, under torchrun; the model is split among them."""
    proofs: bool = True
    """Also show that CPU and GPU agree and that greedy decoding repeats."""
    scratch: str | None = None
    """An empty folder for torchrun, which wants one; whoever made it removes it. None: one is made."""
    notes: tuple[str, ...] = ()
    """What a reader should know of where the model comes from; the report's notes begin with these."""


PHASES = (
    "start",
    "import",
    "device",
    "nccl",
    "memory",
    "load",
    "first-token",
    "tokens",
    "proofs",
    "done",
)
"""In this order; a phase is named when it begins."""


def to_json(plan: Plan) -> dict[str, Any]:
    """Plain data for ``json.dumps``."""
    return dataclasses.asdict(plan)


def from_json(data: dict[str, Any]) -> Plan:
    """The plan that ``to_json`` wrote; raises TypeError or KeyError for anything else."""
    shape = data["shape"]
    if shape is not None:
        scaling = shape["rope_scaling"]
        shape = Shape(**dict(shape, rope_scaling=None if scaling is None else RopeScaling(**scaling)))
    tokenizer = data["tokenizer"]
    if tokenizer is not None:  # JSON has lists only
        plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in tokenizer.items()}
        tokenizer = TokenizerPlan(**plain)
    values = dict(
        data,
        shape=shape,
        files=tuple(data["files"]),
        pieces=tuple(Piece(**dict(piece, shape=tuple(piece["shape"]))) for piece in data["pieces"]),
        tokenizer=tokenizer,
        eos=tuple(data["eos"]),
        prompts=tuple(data["prompts"]),
        notes=tuple(data["notes"]),
    )
    return Plan(**values)


STORIES15M = Shape(dim=288, layers=6, heads=6, kv_heads=6, head_dim=48, hidden=768, vocab=32000, max_seq_len=256, tied=True)
"""The small built-in shape, that of llama2.c's stories15M (https://github.com/karpathy/llama2.c, its README's table)."""
