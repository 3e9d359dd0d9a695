"""gpudoctor's own loop, as ``gpudoctor smoke`` runs it: everything is reserved before the first token."""

from __future__ import annotations

from dataclasses import replace

from gpudoctor.checkpoint.contents import Architecture
from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.memory.model import Model
from gpudoctor.memory.need import Need, Work
from gpudoctor.smoke.footprint import Pass, footprint
from gpudoctor.smoke.plan import Shape


def need(model: Model, work: Work, dtype: Dtype | None) -> Need:
    """Each of several processes has its part of the heads and of the feed-forward part, and embedding and head whole."""
    itemsize = (dtype or model.published).itemsize
    shape = part(shape_of(model.architecture), work.gpus)
    held = footprint(shape, itemsize, Pass(work.batch, min(work.prompt, work.room), work.room), work.workspace)
    split = model.bytes_as(dtype, "linear") // work.gpus
    return Need(
        weights=split + model.bytes_as(dtype, "embedding", "head", "other"),
        kv_cache=held.kv_cache,
        activations=held.activations,
        workspace=held.workspace,
    )


def shape_of(a: Architecture) -> Shape:
    """The shape of the loop's model; biases and norms per head change nothing in what it holds beside its weights."""
    return Shape(
        dim=a.dim,
        layers=a.layers,
        heads=a.heads,
        kv_heads=a.kv_heads,
        head_dim=a.head_dim,
        hidden=a.hidden,
        vocab=a.vocab,
        max_seq_len=a.max_seq_len,
        tied=a.tied,
        window=a.window,
    )


def part(shape: Shape, processes: int) -> Shape:
    """What one of so many processes holds of it, as smoke/parallel.py shares it out."""
    if processes == 1:
        return shape
    kv_heads = max(1, shape.kv_heads // processes)
    return replace(
        shape, heads=max(1, shape.heads // shape.kv_heads) * kv_heads, kv_heads=kv_heads, hidden=-(-shape.hidden // processes)
    )
