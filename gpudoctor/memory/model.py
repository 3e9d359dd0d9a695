"""A model as its memory sees it: how many weights of which role, in how many bytes each. From our table, or from its files."""

from __future__ import annotations

from dataclasses import dataclass

from gpudoctor.contents import Architecture, Contents
from gpudoctor.knowledge import dtypes
from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.knowledge.models import KnownModel

BITSANDBYTES = ("int8", "int4")
PUBLISHED = {"deepseek_v3": "fp8"}
"""Families that are published in other numbers than 16 bits."""
ROLES = ("embedding", "head", "linear", "other")
_FLOATS = {"F64": "fp32", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
"""Kinds of numbers in files -> the dtype in which they are computed with."""


@dataclass(frozen=True, slots=True)
class Model:
    """Weights by role (embedding, head, linear, other), as ``contents.Group`` has them."""

    name: str
    architecture: Architecture
    embedding: int
    head: int
    """In the output matrix; 0 where it is the embedding's own."""
    linear: int
    other: int
    contents: Contents | None = None
    """The files; None for a model that is known by name only."""
    hf: str | None = None
    """Its repository on Hugging Face, where our table knows it."""
    mxfp4: int = 0
    """How many weights are published in four bits."""
    note: str | None = None
    """What our table says beside the numbers."""
    auto: bool = True
    """transformers' AutoModelForCausalLM loads it, from its files or by its name."""

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.embedding + self.head + self.linear + self.other

    @property
    def stored(self) -> str | None:
        """The name of the dtype of the files; None without files. What was quantised before it was stored has its method's."""
        if self.contents is None:
            return "mxfp4" if self.mxfp4 else None
        quantization = self.contents.quantization
        return quantization.method if quantization is not None else _FLOATS.get(self.contents.dtype, self.contents.dtype)

    def bytes_as(self, dtype: Dtype | None, *roles: str) -> int:
        """Bytes of the weights of these roles (of all, without any) in ``dtype``; None: as the files have them, or are published.

        What was quantised before it was stored stays so; a floating-point dtype is then that of the rest.
        """
        wanted = roles or ROLES
        if self.contents is None:
            return sum(round(getattr(self, role) * self._bits(dtype or self.published, role) / 8) for role in wanted)
        if dtype is None:
            return self.contents.of(*wanted)[1]
        if self.contents.quantization is not None and dtype.kind == "float":
            groups = [group for group in self.contents.groups if group.role in wanted]
            return sum(round(g.parameters * dtype.rest / 8) if g.kind in _FLOATS and g.parameters else g.size for g in groups)
        return sum(round(getattr(self, role) * self._bits(dtype, role) / 8) for role in wanted)

    @property
    def in_experts(self) -> int:
        """How many weights are in experts: three matrices for each, in every layer."""
        a = self.architecture
        return min(self.linear, a.layers * a.experts * 3 * a.dim * a.expert_hidden)

    @property
    def published(self) -> Dtype:
        """The dtype of a model that is known by name only: fp16 (bf16 takes as much), but for the few published in four bits."""
        return dtypes.of("mxfp4" if self.mxfp4 else PUBLISHED.get(self.architecture.family, "fp16"))

    def itemsize(self, dtype: Dtype | None) -> int:
        """Bytes of a number that is computed with; cache and activations have 16 bits where the weights have fewer."""
        if dtype is None and self.contents is not None:
            return 4 if self.stored == "fp32" else 2
        return (dtype or self.published).itemsize

    def _bits(self, dtype: Dtype, role: str) -> float:
        if role != "linear":
            return dtype.rest
        if dtype.name in BITSANDBYTES and self.linear:
            # transformers 5 keeps all experts in one tensor, which bitsandbytes leaves as it is
            # (https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1849)
            return (self.in_experts * dtype.rest + (self.linear - self.in_experts) * dtype.linear) / self.linear
        if dtype.name == "mxfp4" and self.mxfp4 and self.linear:
            return (self.mxfp4 * dtype.linear + (self.linear - self.mxfp4) * dtype.rest) / self.linear
        return dtype.linear


def of_known(known: KnownModel) -> Model:
    """From our table. Where a row does not tell the parts apart, all but the embedding counts as matrices of the layers."""
    embedding = known.vocab * known.dim
    head = 0 if known.tied else max(0, known.embedding_parameters - embedding)
    embedding = known.embedding_parameters - head
    linear = known.linear_parameters if known.linear_parameters is not None else known.parameters - embedding - head
    return Model(
        name=known.name,
        architecture=architecture_of(known),
        embedding=embedding,
        head=head,
        linear=linear,
        other=known.parameters - embedding - head - linear,
        hf=known.hf,
        mxfp4=known.mxfp4_parameters or 0,
        note=known.note,
        auto=known.auto,
    )


def architecture_of(known: KnownModel) -> Architecture:
    """The numbers of a row as a checkpoint's header would give them."""
    return Architecture(
        family=known.family,
        layers=known.layers,
        dim=known.dim,
        heads=known.heads,
        kv_heads=known.kv_heads,
        head_dim=known.head_dim,
        hidden=known.hidden,
        vocab=known.vocab,
        max_seq_len=known.max_seq_len,
        tied=known.tied,
        experts=known.experts,
        experts_per_token=known.experts_per_token,
        expert_hidden=known.expert_hidden,
        window=known.window,
        windowed_layers=known.windowed_layers,
        latent=known.latent,
    )


def of_contents(contents: Contents, architecture: Architecture, hf: str | None = None) -> Model:
    """From a checkpoint's headers."""
    return Model(
        name=contents.name,
        architecture=architecture,
        embedding=contents.of("embedding")[0],
        head=contents.of("head")[0],
        linear=contents.of("linear")[0],
        other=contents.of("other")[0],
        contents=contents,
        hf=hf,
        auto=contents.format == "hf" or hf is not None,
    )
