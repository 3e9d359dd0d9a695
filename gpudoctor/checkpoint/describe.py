"""What a checkpoint holds, counted from its headers: any architecture, whether the smoke test's own model can stand in or not."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from gpudoctor.checkpoint import (
    architectures,
    counting,
    downloads,
    gguf,
    gguf_architecture,
    hf,
    llama2c,
    meta,
    meta_parts,
    pth,
    quantizing,
    safetensors,
)
from gpudoctor.checkpoint.bounded import json_object, opened
from gpudoctor.checkpoint.find import recognise
from gpudoctor.checkpoint.found import NotACheckpoint
from gpudoctor.checkpoint.layout import called
from gpudoctor.contents import Architecture, Contents, Group, Quantization

_FLOATING = {"F64", "F32", "F16", "BF16"}


def describe(path: str) -> Contents:
    """What the checkpoint at ``path`` holds; raises NotACheckpoint with one line that says what is there instead.

    Only headers are read, so that a model of 140 GB costs no more than one of 1 GB; nothing of it is run.
    """
    place = recognise(path)
    return {"hf": _hugging_face, "meta": _meta, "gguf": _gguf, "llama2c": _llama2c}[place.format](place.path)


def _contents(
    path: str,
    form: str,
    files: Iterable[str],
    groups: tuple[Group, ...],
    architecture: Architecture | str,
    *,
    pickled: bool = False,
    quantization: Quantization | None = None,
    index_size: int | None = None,
) -> Contents:
    told = architecture if isinstance(architecture, str) else None
    return Contents(
        path=path,
        name=downloads.model_name(path),
        format=form,
        files=tuple((file, _size(file)) for file in sorted(files)),
        pickled=pickled,
        groups=groups,
        dtype=counting.commonest(groups),
        quantization=quantization,
        architecture=None if isinstance(architecture, str) else architecture,
        why_not=told,
        index_size=index_size,
    )


def _size(path: str) -> int:
    with opened(path) as file:
        return file.size


def _hugging_face(folder: str) -> Contents:
    config, where = hf.configuration(folder)
    main, owners = hf.files(folder, any_name=True)
    tensors = hf.gathered(owners, safetensors.read if main == hf.SAFETENSORS else pth.listed)
    quantization = quantizing.quantization(config, folder)
    kept = counting.distinct(tensors, tied=architectures.tied(config) is True)
    groups = counting.groups(kept, folder, bits=None if quantization is None else quantization.bits)
    architecture = architectures.architecture(config, where, kept)
    if isinstance(architecture, Architecture):
        heads = any(group.role == "head" for group in groups)
        architecture = replace(architecture, tied=not heads and architectures.tied(config) is not False)
    return _contents(
        folder,
        "hf",
        owners,
        groups,
        architecture,
        pickled=main == hf.PICKLES,
        quantization=_measured(quantization, groups),
        index_size=_claimed(folder, main),
    )


def _measured(quantization: Quantization | None, groups: tuple[Group, ...]) -> Quantization | None:
    """With the bits that the matrices have, where nobody says how many."""
    if quantization is None or quantization.bits:
        return quantization
    packed = [group for group in groups if group.role == "linear" and group.kind not in _FLOATING]
    weights, size = counting.total(packed)
    return replace(quantization, bits=8.0 * size / weights if weights else 16.0)


def _claimed(folder: str, main: str) -> int | None:
    """The total_size of the index, where there is one and it is a number."""
    index = os.path.join(folder, main + hf.INDEX)
    if os.path.lexists(os.path.join(folder, main)) or not os.path.isfile(index):
        return None
    metadata = json_object(index).get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    return size if type(size) is int and 0 <= size < 1 << 63 else None


def _meta(folder: str) -> Contents:
    where = os.path.join(folder, "params.json")
    params = json_object(where)
    parts = meta.gathered(folder, pth.listed)
    architecture = meta_parts.architecture(params, where, parts, folder)
    kept = counting.distinct(meta_parts.together(parts, params, folder), tied=False)
    groups = counting.groups(kept, folder)
    if isinstance(architecture, Architecture):
        architecture = replace(architecture, tied=meta.NAMES["head"] not in kept)
    files = {stored.file for part in parts for stored in part.values()}
    pickled = any(file.endswith(".pth") for file in files)
    return _contents(folder, "meta", files, groups, architecture, pickled=pickled, quantization=quantizing.of_meta(params))


def _gguf(path: str) -> Contents:
    values, tensors = gguf.joined(path)
    if values.get("general.type") == "adapter":
        raise NotACheckpoint(
            f"{path} holds an adapter (LoRA), which is no model by itself; expected the model that it was made for"
        )
    groups = counting.groups(tensors, path)
    architecture = gguf_architecture.architecture(values, tensors, path)
    files = {stored.file for stored in tensors.values()}
    return _contents(path, "gguf", files, groups, architecture, quantization=_blocks(groups))


def _blocks(groups: tuple[Group, ...]) -> Quantization | None:
    """Of a GGUF file with a kind that packs its weights in blocks."""
    weights, size = counting.total(groups)
    return None if {group.kind for group in groups} <= _FLOATING else Quantization("gguf", 8 * size / weights, None)


def _llama2c(path: str) -> Contents:
    with opened(path) as file:
        header = llama2c.header(file)
        tensors = llama2c.tensors(file, header)
    groups = counting.groups({_as_meta(name): stored for name, stored in tensors.items()}, path)
    quantization = Quantization("int8", 8.0, header.group) if header.group else None
    return _contents(path, "llama2c", (path,), groups, meta_parts.of_shape(header.shape), quantization=quantization)


def _as_meta(name: str) -> str:
    """What Meta calls a tensor of llama2.c, by which its role is known."""
    if name == llama2c.ANGLES:
        return "rope.freqs"
    main = name.removesuffix(".scales")
    theirs = called(main, meta.NAMES)
    return theirs if main == name else theirs.removesuffix(".weight") + ".scales"
