"""A Hugging Face folder: config.json beside safetensors files, or beside the pickles of an older time."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from gpudoctor.checkpoint import config as configs
from gpudoctor.checkpoint import downloads, pth, safetensors, tokenizers
from gpudoctor.checkpoint.bounded import json_object, opened
from gpudoctor.checkpoint.found import Checkpoint, NotACheckpoint, Stored
from gpudoctor.checkpoint.layout import FLOATS, commonest, pieces
from gpudoctor.checkpoint.values import ids

_LAYER = "model.layers.{}."
NAMES = {
    "embedding": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "head": "lm_head.weight",
    "attention_norm": _LAYER + "input_layernorm.weight",
    "query": _LAYER + "self_attn.q_proj.weight",
    "key": _LAYER + "self_attn.k_proj.weight",
    "value": _LAYER + "self_attn.v_proj.weight",
    "query_bias": _LAYER + "self_attn.q_proj.bias",
    "key_bias": _LAYER + "self_attn.k_proj.bias",
    "value_bias": _LAYER + "self_attn.v_proj.bias",
    "query_norm": _LAYER + "self_attn.q_norm.weight",
    "key_norm": _LAYER + "self_attn.k_norm.weight",
    "out": _LAYER + "self_attn.o_proj.weight",
    "ffn_norm": _LAYER + "post_attention_layernorm.weight",
    "gate": _LAYER + "mlp.gate_proj.weight",
    "up": _LAYER + "mlp.up_proj.weight",
    "down": _LAYER + "mlp.down_proj.weight",
}
SAFETENSORS, PICKLES = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"
_MOST_FILES = 4096
_SHARD = re.compile(r"(?:model|pytorch_model)-(\d{5})-of-(\d{5})\.(?:safetensors|bin)")


def has_weights(folder: str) -> bool:
    """Whether there is a file of weights, an index, or a shard under the names that transformers looks for."""
    known = {SAFETENSORS, PICKLES, SAFETENSORS + INDEX, PICKLES + INDEX}
    return any(name in known or _SHARD.fullmatch(name) for name in downloads.names(folder))


def read(folder: str) -> Checkpoint:
    """The checkpoint in the folder; raises NotACheckpoint."""
    config, where = configuration(folder)
    main, owners = files(folder)
    shape = configs.shape(config, where)
    if shape is None and main == PICKLES:
        return _foreign(folder, config, sum(map(_size, owners)))
    tensors = gathered(owners, safetensors.read if main == SAFETENSORS else pth.read)
    size = sum(one.size for one in tensors.values())
    if shape is None:
        return _foreign(folder, config, size)
    paths, found = pieces(shape, NAMES, tensors, folder)
    if any(piece.kind not in FLOATS for piece in found):
        return _foreign(folder, config, size)
    eos, bos = _ends(folder, config)
    plan, why = tokenizers.beside(folder, eos=eos, bos=bos)
    return Checkpoint(
        path=folder,
        name=downloads.model_name(folder),
        format="hf",
        shape=shape,
        files=paths,
        pieces=found,
        halves=True,
        foreign=None,
        tokenizer=plan,
        no_tokenizer=why,
        eos=eos,
        bos=bos,
        dtype=commonest(found),
        size=sum(piece.size for piece in found),
    )


def configuration(folder: str) -> tuple[dict[str, Any], str]:
    """What config.json says, and its path; raises NotACheckpoint where it is not that of a model."""
    where = os.path.join(folder, "config.json")
    config = json_object(where)
    if not isinstance(config.get("model_type"), str):
        raise NotACheckpoint(f"{where} has no model_type: it is not the config.json of a language model")
    return config, where


def _foreign(folder: str, config: Mapping[str, Any], size: int) -> Checkpoint:
    eos, bos = _ends(folder, config)
    plan, why = tokenizers.beside(folder, eos=eos, bos=bos)
    path = os.path.abspath(folder)
    return Checkpoint(
        folder, downloads.model_name(folder), "transformers", None, (), (), False, path, plan, why, eos, bos, "", size
    )


Owners = Mapping[str, "frozenset[str] | None"]
"""Each file's path with the tensors that are taken from it (None: all)."""


def files(folder: str, *, any_name: bool = False) -> tuple[str, Owners]:
    """Which kind of file the folder has (SAFETENSORS or PICKLES), and which ones; raises NotACheckpoint where one is missing.

    With ``any_name`` also the one safetensors file whose name transformers does not look for (gptq_model-4bit-128g.safetensors).
    """
    for main in (SAFETENSORS, PICKLES):
        single = os.path.join(folder, main)
        if os.path.lexists(single):
            return main, {_there(single, folder): None}
        if os.path.lexists(single + INDEX):
            return main, _indexed(folder, single + INDEX)
    shards = [match for name in downloads.names(folder) if (match := _SHARD.fullmatch(name))]
    if shards:
        raise NotACheckpoint(
            f"{folder} holds {len(shards)} of {int(shards[0][2])} files of weights and no index ({SAFETENSORS}{INDEX}): "
            f"the download is not complete{downloads.hint(folder)}"
        )
    others = [name for name in downloads.names(folder) if name.endswith(".safetensors") and not name.startswith("adapter")]
    if any_name and len(others) == 1:
        return SAFETENSORS, {_there(os.path.join(folder, others[0]), folder): None}
    raise NotACheckpoint(f"{folder} holds config.json, but no weights ({SAFETENSORS} or its index){downloads.hint(folder)}")


def _indexed(folder: str, index: str) -> dict[str, frozenset[str] | None]:
    places = json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise NotACheckpoint(f"{index} has no weight_map, which says in which file each tensor is")
    owners: dict[str, set[str]] = {}
    for tensor, file in places.items():
        owners.setdefault(file, set()).add(tensor)
    if len(owners) > _MOST_FILES or any(os.path.basename(file) != file or file in {"", ".", ".."} for file in owners):
        raise NotACheckpoint(f"{index} names files outside its folder, or thousands of them: it is not one that transformers wrote")
    missing = [file for file in sorted(owners) if not os.path.exists(os.path.join(folder, file))]
    if missing:
        others = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
        raise NotACheckpoint(
            f"{folder} is not complete: of the {len(owners)} files that its index names, {missing[0]}{others} not there"
            f"{downloads.hint(folder)}. Download it again."
        )
    if downloads.alike(os.path.join(folder, file) for file in owners):
        raise NotACheckpoint(f"{index} names one file twice: it is not one that transformers wrote")
    return {os.path.join(folder, file): frozenset(tensors) for file, tensors in owners.items()}


def _there(path: str, folder: str) -> str:
    if not os.path.exists(path):
        raise NotACheckpoint(f"{path} is a link to a file that is not there: the download is not complete{downloads.hint(folder)}")
    return path


def gathered(owners: Owners, reader: Callable[[str], Mapping[str, Stored]]) -> dict[str, Stored]:
    """The tensors of all files by their names, each from the file that the index names for it."""
    found: dict[str, Stored] = {}
    for path, own in owners.items():
        found.update({name: stored for name, stored in reader(path).items() if own is None or name in own})
    return found


def _size(path: str) -> int:
    with opened(path) as file:
        if file.size == 0:
            raise NotACheckpoint(f"{path} is empty; the download is not complete")
        return file.size


def _ends(folder: str, config: Mapping[str, Any]) -> tuple[tuple[int, ...], int | None]:
    """The ids that end a text, and the one that begins it: from generation_config.json, as in generate(), else config.json."""
    path = os.path.join(folder, "generation_config.json")
    generation = json_object(path) if os.path.exists(path) else {}
    eos = ids(generation.get("eos_token_id")) or ids(config.get("eos_token_id"))
    bos = ids(generation.get("bos_token_id")) or ids(config.get("bos_token_id"))
    return eos, bos[0] if bos else None
