"""The models that people run, by the numbers of their architecture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from gpudoctor.knowledge.table import Row, read, sources
from gpudoctor.smoke.plan import RopeScaling, Shape

LONGEST = 100
"""Characters of a name that are looked at; the longest known one has half as many."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One model. Counts are numbers (weights), not bytes."""

    name: str
    hf: str
    """Its repository on Hugging Face."""
    file: str | None
    """Which file of that repository, where it holds several models."""
    family: str
    parameters: int
    """Computed from the architecture."""
    published: int | None
    """What its files are said to have; None where no count was at hand."""
    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    """Width of the feed-forward part; of the dense layers, where some have experts."""
    vocab: int
    max_seq_len: int
    tied: bool
    """The output head is the embedding's own matrix."""
    embedding_parameters: int
    """In the embedding and, unless tied, the head."""
    linear_parameters: int | None
    """In the layers but for the norms over the whole width: all experts, biases and norms per head are included."""
    experts: int
    """0 where there are none."""
    experts_per_token: int
    expert_hidden: int
    window: int | None
    """How many positions a windowed layer sees, itself included."""
    windowed_layers: int
    latent: int | None
    """Numbers that the cache holds per token and layer, where it holds no keys and values (multi-head latent attention)."""
    mxfp4_parameters: int | None
    """How many are stored in four bits, whatever the dtype of the rest."""
    norm_eps: float | None
    rope_theta: float | None
    rope_scaling: RopeScaling | None
    rotary: float
    """The part of each head that is turned."""
    auto: bool
    """transformers' AutoModelForCausalLM loads its files."""
    note: str | None
    sources: tuple[str, ...]

    @property
    def why_not(self) -> str | None:
        """Why the smoke test's own model cannot stand in for it, as a clause; None where it can."""
        reason: str | None = read("models")["family"][self.family].get("why_not")
        if reason is not None or self.rotary == 1:
            return reason
        return f"it turns only {self.rotary:.0%} of each head"

    def shape(self) -> Shape | None:
        """The shape to build it with; None where its layers are not Llama's, and ``why_not`` says in what."""
        if self.why_not is not None:
            return None
        layer = read("models")["family"][self.family]
        return Shape(
            dim=self.dim,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            hidden=self.hidden,
            vocab=self.vocab,
            max_seq_len=self.max_seq_len,
            norm_eps=Shape.norm_eps if self.norm_eps is None else self.norm_eps,
            rope_theta=Shape.rope_theta if self.rope_theta is None else self.rope_theta,
            rope_scaling=self.rope_scaling,
            tied=self.tied,
            qkv_bias=layer.get("qkv_bias", False),
            qk_norm=layer.get("qk_norm", False),
            window=self.window,
        )


@cache
def known() -> tuple[KnownModel, ...]:
    """All models."""
    return tuple(_model(row) for row in read("models")["model"])


def by_name(text: str) -> KnownModel | None:
    """The model of that name, as a person writes it: llama-2-7b, Llama-2-7b-hf, llama2_7b, meta-llama/Llama-2-7b-hf."""
    return _index().get(_plain(text))


def nearest(text: str) -> tuple[str, ...]:
    """Up to three known names that look like ``text``, the likest first."""
    # slow to import, and only a mistyped name needs it
    from difflib import get_close_matches  # noqa: PLC0415 - see above

    return tuple(dict.fromkeys(_index()[key].name for key in get_close_matches(_plain(text), _index(), n=3, cutoff=0.6)))


@cache
def _index() -> dict[str, KnownModel]:
    index = {_plain(model.name): model for model in known()}
    for model in known():
        if model.file is None:  # else the repository holds several models
            index.setdefault(_plain(model.hf), model)
            index.setdefault(_plain(model.hf.partition("/")[2]), model)
    return index


def _plain(text: str) -> str:
    """One spelling for all: lower case, a dash between words, nothing between letters and a number, no -hf at the end."""
    words = re.sub(r"[-_:\s]+", "-", text.strip()[:LONGEST].lower()).removesuffix("-hf")
    return re.sub(r"(?<=[a-z])-(?=\d)", "", words)


def _model(row: Row) -> KnownModel:
    scaling = row.get("rope_scaling")
    return KnownModel(
        name=row["name"],
        hf=row["hf"],
        file=row.get("file"),
        family=row["family"],
        parameters=row["parameters"],
        published=row.get("published"),
        layers=row["layers"],
        dim=row["dim"],
        heads=row["heads"],
        kv_heads=row["kv_heads"],
        head_dim=row["head_dim"],
        hidden=row["hidden"],
        vocab=row["vocab"],
        max_seq_len=row["max_seq_len"],
        tied=row.get("tied", False),
        embedding_parameters=row["embedding_parameters"],
        linear_parameters=row.get("linear_parameters"),
        experts=row.get("experts", 0),
        experts_per_token=row.get("experts_per_token", 0),
        expert_hidden=row.get("expert_hidden", 0),
        window=row.get("window"),
        windowed_layers=row.get("windowed_layers", 0),
        latent=row.get("latent"),
        mxfp4_parameters=row.get("mxfp4_parameters"),
        norm_eps=row.get("norm_eps"),
        rope_theta=row.get("rope_theta"),
        rope_scaling=None if scaling is None else RopeScaling(**scaling),
        rotary=float(row.get("rotary", 1)),
        auto=row.get("auto", read("models")["family"][row["family"]].get("auto", True)) and row.get("file") is None,
        note=row.get("note"),
        sources=sources("models", row["source"]),
    )
