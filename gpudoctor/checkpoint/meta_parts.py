"""A model that Meta's files hold in parts, put together to be counted, and the numbers of its architecture.

Unlike ``meta``, which finds a plain Llama's tensors, this knows any tensor: one that every file has whole (a norm, a router)
counts once, one that is divided among them as the sum of its parts, one that only some have (an expert) for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpudoctor.checkpoint import meta
from gpudoctor.checkpoint.found import NotACheckpoint, Stored
from gpudoctor.checkpoint.layout import Tensors, believed
from gpudoctor.checkpoint.values import whole
from gpudoctor.contents import Architecture
from gpudoctor.smoke.plan import Shape

_COLUMNS = ("wo.weight", "w2.weight")
_WHOLE = ("norm", "gate", "router", "rope", "scales")
"""In the names of tensors that every file has whole, although they are matrices or may be."""
_ROWS = ("wq.bias", "wk.bias", "wv.bias", "w1.bias", "w3.bias", "output.bias")


def together(parts: Sequence[Tensors], params: Mapping[str, Any], folder: str) -> dict[str, Stored]:
    """Every tensor as it is without the split; its place is that of its first part. Raises NotACheckpoint."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _joined(name, [part[name] for part in parts if name in part], params, folder) for name in names}


def _joined(name: str, parts: Sequence[Stored], params: Mapping[str, Any], folder: str) -> Stored:
    first = parts[0]
    if any((part.shape, part.kind) != (first.shape, first.kind) for part in parts):
        raise NotACheckpoint(f"{folder}: the files do not belong together: {name} differs in shape or kind between them")
    dim = _dimension(name, first, params) if len(parts) > 1 else None
    if dim is None:
        return first
    shape = tuple(size * len(parts) if at == dim else size for at, size in enumerate(first.shape))
    return Stored(first.file, first.offset, shape, first.kind, first.size * len(parts))


def _dimension(name: str, part: Stored, params: Mapping[str, Any]) -> int | None:
    """Along which dimension the files divide the tensor; None: each has it whole."""
    if len(part.shape) < 2:
        return 0 if part.shape and name.endswith(_ROWS) else None
    if name == meta.NAMES["embedding"]:
        return 0 if part.shape[1] == params.get("dim") else 1
    if any(word in name for word in _WHOLE):
        return None
    return 1 if name.endswith(_COLUMNS) else 0


def architecture(params: Mapping[str, Any], where: str, parts: Sequence[Tensors], folder: str) -> Architecture | str:
    """The numbers that memory follows from, or why there are none, as a clause. Raises NotACheckpoint."""
    gate = meta.NAMES["gate"].format(0)
    if gate in parts[0]:
        return of_shape(meta.shaped(params, where, parts, folder))
    if params.get("hidden_dim") is None:
        return "params.json does not say hidden_dim, and its layers are not those of a plain Llama"
    dim, heads = whole(params, "dim", where), whole(params, "n_heads", where)
    hidden, window = whole(params, "hidden_dim", where), params.get("sliding_window")
    experts = params.get("moe")
    counts = experts if isinstance(experts, dict) else {}
    layers = whole(params, "n_layers", where)
    found = Architecture(
        family="llama",
        layers=layers,
        dim=dim,
        heads=heads,
        kv_heads=whole(params, "n_kv_heads", where, default=heads),
        head_dim=whole(params, "head_dim", where, default=max(1, dim // heads)),
        hidden=hidden,
        vocab=_tokens(parts, dim) or whole(params, "vocab_size", where),
        max_seq_len=whole(params, "max_seq_len", where, default=32768),
        experts=whole(counts, "num_experts", where) if counts else 0,
        experts_per_token=whole(counts, "num_experts_per_tok", where, default=1) if counts else 0,
        expert_hidden=hidden if counts else 0,
        window=window if type(window) is int and window > 0 else None,
        windowed_layers=layers if type(window) is int and window > 0 else 0,
    )
    return believed(found, where)


def _tokens(parts: Sequence[Tensors], dim: int) -> int:
    """How many tokens the embedding has rows for; 0 where there is none. params.json may say -1."""
    embedding = parts[0].get(meta.NAMES["embedding"])
    if embedding is None or len(embedding.shape) != 2:
        return 0
    return embedding.shape[0] * (len(parts) if embedding.shape[1] == dim else 1)


def of_shape(shape: Shape) -> Architecture:
    """The numbers of a plain Llama."""
    return Architecture(
        family="llama",
        layers=shape.layers,
        dim=shape.dim,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        hidden=shape.hidden,
        vocab=shape.vocab,
        max_seq_len=shape.max_seq_len,
        tied=shape.tied,
        window=shape.window,
        windowed_layers=0 if shape.window is None else shape.layers,
    )
