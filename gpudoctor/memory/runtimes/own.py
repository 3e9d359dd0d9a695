"""gpudoctor's own loop, as ``gpudoctor smoke`` runs it: everything is reserved before the first token."""

from __future__ import annotations

from dataclasses import replace

from gpudoctor.contents import Architecture
from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.memory.model import Model
from gpudoctor.memory.need import Need, Work
from gpudoctor.smoke.footprint import STREAMS, Pass, footprint
from gpudoctor.smoke.plan import Shape


def need(model: Model, work: Work, dtype: Dtype | None) -> Need:
    """Each of several processes has its part of the heads and of the feed-forward part, and embedding and head whole.

    Whatever the files have is made to floating-point numbers: those of ``dtype``, else of 16 bits.
    """
    itemsize = 2 if dtype is None else dtype.itemsize
    shape = part(shape_of(model.architecture), work.gpus)
    held = footprint(shape, itemsize, Pass(work.batch, min(work.prompt, work.room), work.room), STREAMS * work.workspace)
    return Need(
        weights=(model.linear // work.gpus + model.embedding + model.head + model.other) * itemsize,
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
