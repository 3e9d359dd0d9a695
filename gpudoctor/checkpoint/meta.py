"""A folder as Meta gives it: params.json beside consolidated.NN.pth, one file for each process that the model is split among.

Also Mistral's own folders, which name their tensors alike (and may hold consolidated.safetensors). How a split model is put
together again follows from fairscale's layers: ColumnParallelLinear divides the rows, RowParallelLinear the columns;
the embedding is divided along its columns in Llama 1 and 2 (ParallelEmbedding), along its rows from Llama 3 on
(VocabParallelEmbedding); norms are whole in every file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpudoctor.checkpoint import downloads, pth, safetensors, tokenizers
from gpudoctor.checkpoint.bounded import json_object
from gpudoctor.checkpoint.found import Checkpoint, NotACheckpoint, Stored
from gpudoctor.checkpoint.layout import FLOATS, Tensors, by, called, commonest, doubt, needed, piece
from gpudoctor.checkpoint.values import real, whole
from gpudoctor.smoke.plan import Piece, RopeScaling, Shape

_LAYER = "layers.{}."
NAMES = {
    "embedding": "tok_embeddings.weight",
    "norm": "norm.weight",
    "head": "output.weight",
    "attention_norm": _LAYER + "attention_norm.weight",
    "query": _LAYER + "attention.wq.weight",
    "key": _LAYER + "attention.wk.weight",
    "value": _LAYER + "attention.wv.weight",
    "out": _LAYER + "attention.wo.weight",
    "ffn_norm": _LAYER + "ffn_norm.weight",
    "gate": _LAYER + "feed_forward.w1.weight",
    "down": _LAYER + "feed_forward.w2.weight",
    "up": _LAYER + "feed_forward.w3.weight",
}
_SPLIT = {"head": 0, "query": 0, "key": 0, "value": 0, "gate": 0, "up": 0, "out": 1, "down": 1}
_SHARD = re.compile(r"consolidated\.(\d{2,3})\.pth")
_SAFE = "consolidated.safetensors"
_WIDTH_OF_3B = 3072
_OTHER = ("moe", "moe_args", "vision_model", "vision_encoder", "quantization_args", "lora_args")
"""Keys of params.json that, with a value, make another model: experts, pictures, int4 weights."""


def has_weights(folder: str) -> bool:
    """Whether there is a .pth file or Mistral's consolidated.safetensors."""
    return any(name.endswith(".pth") or name == _SAFE for name in downloads.names(folder))


def read(folder: str) -> Checkpoint:
    """The checkpoint in the folder; raises NotACheckpoint."""
    where = os.path.join(folder, "params.json")
    params = json_object(where)
    other = [key for key in _OTHER if params.get(key)]
    if other or _more_than_text(params):
        raise NotACheckpoint(
            f"{where} describes a model with {(*other, 'pictures')[0]}; of this format, plain Llama models are read"
        )
    parts = gathered(folder, pth.read)
    shape = shaped(params, where, parts, folder)
    files, found = _pieces(shape, parts, folder)
    plan, why = tokenizers.model_file(folder, above=True)
    return Checkpoint(
        path=folder,
        name=downloads.model_name(folder),
        format="meta",
        shape=shape,
        files=files,
        pieces=found,
        halves=False,
        foreign=None,
        tokenizer=plan,
        no_tokenizer=why,
        eos=() if plan is None else plan.eos,
        bos=None if plan is None else plan.bos,
        dtype=commonest(found),
        size=sum(one.size for one in found),
    )


def _more_than_text(params: Mapping[str, Any]) -> bool:
    chunk = params.get("vision_chunk_size", -1)
    return isinstance(chunk, (int, float)) and chunk > 0


def gathered(folder: str, reader: Callable[[str], Tensors]) -> tuple[Tensors, ...]:
    """What each of the files holds, in the order of their numbers; ``reader`` is for .pth files. Raises NotACheckpoint."""
    listed = downloads.names(folder)
    numbered = {int(match[1]): name for name in listed if (match := _SHARD.fullmatch(name))}
    if numbered:
        absent = [number for number in range(max(numbered) + 1) if number not in numbered]
        if absent:
            hint = downloads.hint(folder)
            raise NotACheckpoint(f"{folder} is not complete: consolidated.{absent[0]:02}.pth is missing{hint}. Download it again.")
        paths = [os.path.join(folder, numbered[number]) for number in range(len(numbered))]
        if downloads.alike(path for path in paths if os.path.exists(path)):
            raise NotACheckpoint(f"{folder} holds one file under two names: it is no checkpoint that was ever split")
        return tuple(map(reader, paths))
    if _SAFE in listed:
        return (safetensors.read(os.path.join(folder, _SAFE)),)
    others = [name for name in listed if name.endswith(".pth")]
    if len(others) == 1:
        return (reader(os.path.join(folder, others[0])),)
    raise NotACheckpoint(f"{folder} holds params.json, but no consolidated.00.pth{downloads.hint(folder)}")


def shaped(params: Mapping[str, Any], where: str, parts: Sequence[Tensors], folder: str) -> Shape:
    """The numbers of a plain Llama; raises NotACheckpoint, also where there are fewer files than it was split into."""
    dim, heads = whole(params, "dim", where), whole(params, "n_heads", where)
    embedding, gate, query = (_sample(parts[0], name, folder) for name in ("embedding", "gate", "query"))
    head_dim = whole(params, "head_dim", where, default=max(1, dim // heads))
    rows = query.shape[0]
    expected = max(1, round(heads * head_dim / rows))
    if len(parts) != expected:
        raise NotACheckpoint(
            f"{folder} is not complete: it holds {len(parts)} of {expected} files "
            f"(the first has {rows} of {heads * head_dim} rows){downloads.hint(folder)}"
        )
    vocab = embedding.shape[0] * (len(parts) if embedding.shape[1] == dim else 1)
    theta = real(params, "rope_theta", where, default=10000.0)
    scaled = params.get("use_scaled_rope") is True
    window = params.get("sliding_window")
    shape = Shape(
        dim=dim,
        layers=whole(params, "n_layers", where),
        heads=heads,
        kv_heads=whole(params, "n_kv_heads", where, default=heads),
        head_dim=head_dim,
        hidden=gate.shape[0] * len(parts),
        vocab=vocab,
        max_seq_len=_context(params, where, theta, scaled=scaled),
        norm_eps=real(params, "norm_eps", where, default=1e-5),
        rope_theta=theta,
        rope_scaling=RopeScaling("llama3", _stretch(params, where, dim), low=1.0, high=4.0, original_max=8192) if scaled else None,
        tied=_tied(parts),
        window=window if type(window) is int and window > 0 else None,
    )
    return doubt(shape, where)


def _stretch(params: Mapping[str, Any], where: str, dim: int) -> float:
    """By how much slow rotary frequencies are divided: 8 in Llama 3.1, 32 in Llama 3.2's 1B and 3B, whose files do not all say so.

    Source: rope_scaling in the config.json of meta-llama/Llama-3.1-8B and of meta-llama/Llama-3.2-1B.
    """
    return real(params, "rope_scaling_factor", where, default=32.0 if dim <= _WIDTH_OF_3B else 8.0)


def _sample(tensors: Tensors, name: str, folder: str) -> Stored:
    theirs = called(name if name == "embedding" else f"layers.0.{name}", NAMES)
    stored = tensors.get(theirs)
    if stored is None or len(stored.shape) != 2 or 0 in stored.shape:
        raise NotACheckpoint(f"{folder}: the first file has no matrix {theirs}, which every Llama model has")
    return stored


def _context(params: Mapping[str, Any], where: str, theta: float, *, scaled: bool) -> int:
    """How many tokens the model was made for, which params.json does not say.

    Its own ``max_seq_len`` if it has one; 131072 with scaled rotary frequencies (Llama 3.1 and later); 16384 with a rotary base of
    a million (Code Llama), 8192 with half a million (Llama 3); 4096 with grouped queries (Llama 2 70B); else 2048 (Llama 1, and
    Llama 2 to be on the safe side: the two cannot be told apart).
    """
    if scaled:
        return whole(params, "max_seq_len", where, default=131072)
    by_base = 16384 if theta >= 1e6 else 8192 if theta >= 5e5 else 4096 if params.get("n_kv_heads") else 2048
    return whole(params, "max_seq_len", where, default=by_base)


def _tied(parts: Sequence[Tensors]) -> bool:
    """Whether the output head is the embedding: there is none, or it is the same stretch of the file."""
    head, embedding = (parts[0].get(NAMES[name]) for name in ("head", "embedding"))
    return len(parts) == 1 and (head is None or head == embedding)


def _pieces(shape: Shape, parts: Sequence[Tensors], folder: str) -> tuple[tuple[str, ...], tuple[Piece, ...]]:
    files: dict[str, int] = {}
    found: list[Piece] = []
    for name, size in needed(shape):
        theirs = called(name, NAMES)
        stored = [part[theirs] for part in parts if theirs in part]
        if len(stored) < len(parts):
            raise NotACheckpoint(f"{folder}: a file has no tensor {theirs}, which a model of this shape needs")
        if any(one.kind not in FLOATS for one in stored):
            raise NotACheckpoint(f"{folder}: {theirs} is kept as {stored[0].kind}; of this format, floating-point weights are read")
        dim = _dimension(name, stored[0].shape, size) if len(parts) > 1 else None
        used = stored[:1] if dim is None else stored
        _fits(used, size, dim, f"{folder}: {theirs}")
        found += [piece(name, one, files, dim=dim) for one in used]
    return tuple(files), tuple(found)


def _dimension(name: str, part: tuple[int, ...], size: tuple[int, ...]) -> int | None:
    """Along which dimension the files divide the tensor; None: each has it whole."""
    if name == "embedding":
        return 0 if part[1:] == size[1:] else 1
    return _SPLIT.get(name.rpartition(".")[2])


def _fits(stored: Sequence[Stored], size: tuple[int, ...], dim: int | None, what: str) -> None:
    joined = list(stored[0].shape)
    if dim is not None and len(joined) == len(size):
        joined[dim] = sum(one.shape[dim] for one in stored if len(one.shape) > dim)
        alike = all(one.shape == stored[0].shape for one in stored)
    else:
        alike = True
    if tuple(joined) != size or not alike:
        raise NotACheckpoint(f"{what} has shape {by(joined)}; the model's numbers ask for {by(size)}")
