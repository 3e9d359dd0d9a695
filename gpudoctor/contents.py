"""What a checkpoint holds, counted: by what its memory on a GPU can be told. Nothing here is needed to run it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers of a language model that its memory follows from. They count numbers (weights, positions), not bytes."""

    family: str
    """config.json's model_type, GGUF's general.architecture; llama for Meta's folders and llama2.c."""
    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    """Width of a key; of a value too, unless ``value_dim`` says otherwise."""
    hidden: int
    """Width of the feed-forward part of a dense layer; 0 where every layer has experts and nobody says."""
    vocab: int
    max_seq_len: int
    tied: bool = False
    """The output head is the embedding's own matrix."""
    value_dim: int | None = None
    """Width of a value, where it is another than a key's."""
    caching_layers: int | None = None
    """How many layers keep keys and values for every position; None: all. Others have a state of fixed size (Mamba, linear
    attention)."""
    experts: int = 0
    experts_per_token: int = 0
    expert_hidden: int = 0
    """Width of one expert."""
    window: int | None = None
    """How many positions a windowed layer sees, itself included."""
    windowed_layers: int = 0
    latent: int | None = None
    """Numbers that the cache holds per token and layer instead of keys and values (multi-head latent attention)."""


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors of one role and one kind of numbers."""

    role: str
    """embedding (the table of tokens), head (the output matrix, where it is stored apart), linear (matrices of the layers,
    experts included: what a quantiser makes smaller), other (norms, biases, positions, what is not a matrix, other towers). Scales
    have the role of their matrix."""
    kind: str
    """As the file calls it: BF16, F32, I32, Q4_K, F8_E4M3."""
    tensors: int
    parameters: int
    """Weights that they stand for: of eight 4-bit weights packed in an I32, eight; of scales, zero points, and what can be computed
    (angles, masks), none."""
    size: int
    """Bytes in the file."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the weights were made smaller before they were stored (quantization_config, or a GGUF file's kinds)."""

    method: str
    """gptq, awq, bitsandbytes, fp8, mxfp4, compressed-tensors, gguf, int8 (llama2.c's version 2), or what config.json says."""
    bits: float
    """Per weight of the quantised matrices, without scales; of a GGUF file, of all its bytes: 8 x size / parameters."""
    group: int | None
    """Weights that share a scale; None where a row, a block or a whole matrix does."""


@dataclass(frozen=True, slots=True)
class Contents:
    """A checkpoint by its headers: how many weights, in how many bytes, of which architecture. Sizes are bytes."""

    path: str
    name: str
    format: str
    """hf, meta, gguf or llama2c."""
    files: tuple[tuple[str, int], ...]
    """Each file with weights, and its size."""
    pickled: bool
    """The files are pickles (.pth, .bin): whoever loads one reads it into the host's memory first."""
    groups: tuple[Group, ...]
    dtype: str
    """The commonest kind of the matrices by bytes."""
    quantization: Quantization | None
    architecture: Architecture | None
    why_not: str | None
    """Why there is no architecture, as a clause; None where there is one."""
    index_size: int | None = None
    """total_size that the index claims, where there is one; never believed, but worth comparing."""

    @property
    def parameters(self) -> int:
        """How many weights."""
        return sum(group.parameters for group in self.groups)

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(group.size for group in self.groups)

    def of(self, *roles: str) -> tuple[int, int]:
        """(weights, bytes) of all tensors with these roles."""
        chosen = [group for group in self.groups if group.role in roles]
        return sum(group.parameters for group in chosen), sum(group.size for group in chosen)
