"""Recognises what lies at a path: which format a checkpoint has, or what is there instead."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from gpudoctor.checkpoint import downloads, gguf, gguf_file, hf, legacy, llama2c, meta
from gpudoctor.checkpoint.bounded import opened
from gpudoctor.checkpoint.found import Checkpoint, NotACheckpoint

_OLD_GGML = {b"lmgg", b"fmgg", b"tjgg"}  # "ggml", "ggmf", "ggjt" as little-endian numbers: before GGUF, until August 2023
_EXPECTED = "a Hugging Face or Meta folder, a .gguf file or a llama2.c .bin file"
_PARTS = (".pth", ".safetensors", ".json", ".model")
"""Files that belong to a folder: given one, the folder is meant."""
_ADAPTER = "holds an adapter (LoRA), which is no model by itself; expected the model that it was made for"


@dataclass(frozen=True, slots=True)
class Place:
    """A checkpoint that was recognised and not yet read."""

    format: str
    """hf, meta, gguf or llama2c."""
    path: str
    """The folder of the first two, the file of the others."""


def read(path: str) -> Checkpoint:
    """What the checkpoint at ``path`` is, from its headers; raises NotACheckpoint with one line that says what is there instead."""
    place = recognise(path)
    return _READERS[place.format](place.path)


_READERS: dict[str, Callable[[str], Checkpoint]] = {"hf": hf.read, "meta": meta.read, "gguf": gguf.read, "llama2c": llama2c.read}


def recognise(path: str) -> Place:
    """Which format lies at ``path``; of a file that belongs to a folder, the folder is meant. Raises NotACheckpoint."""
    if os.path.isdir(path):
        return _folder(path)
    if not os.path.lexists(path):
        raise NotACheckpoint(f"{path} does not exist; expected {_EXPECTED}")
    name = os.path.basename(path)
    if name.endswith(".incomplete"):
        raise NotACheckpoint(f"{path} is a download that has not finished")
    with opened(path) as file:
        begin, old = file.at(0, min(4, file.size)), legacy.begins(file)
    if begin == gguf_file.MAGIC:
        return Place("gguf", path)
    if begin in _OLD_GGML:
        raise NotACheckpoint(f"{path} is in a format of llama.cpp from before GGUF (August 2023), which is not read")
    if not begin:
        raise NotACheckpoint(f"{path} is empty; expected {_EXPECTED}")
    if name.endswith(_PARTS) or (name.startswith("pytorch_model") and name.endswith(".bin")):
        return _folder(os.path.dirname(path) or os.curdir, of=name)
    if begin == b"PK\x03\x04" or old:
        raise NotACheckpoint(f"{path} is a zip archive or a file of torch.save; expected {_EXPECTED}")
    return Place("llama2c", path)


def _folder(folder: str, *, of: str | None = None) -> Place:
    """The checkpoint in a folder; ``of`` is the file of it that was asked for."""
    names = downloads.names(folder)
    files = [name for name in names if name.endswith(".gguf")]
    of_hf, of_meta = hf.has_weights(folder), "params.json" in names and meta.has_weights(folder)
    if "config.json" in names and (of_hf or not (of_meta or files)):
        return Place("hf", folder)
    if "params.json" in names:
        return Place("meta", folder)
    if of is not None:
        needs = "params.json" if of.endswith(".pth") else "config.json"
        what = _ADAPTER if "adapter_config.json" in names else f"is part of a checkpoint, and there is no {needs} beside it"
        raise NotACheckpoint(f"{os.path.join(folder, of)} {what}")
    first = files[0] if files else ""
    if files and (len(files) == 1 or first.endswith(f"-00001-of-{len(files):05}.gguf")):
        return Place("gguf", os.path.join(folder, first))
    raise NotACheckpoint(f"{folder} {_instead(folder, names, files)}")


def _instead(folder: str, names: tuple[str, ...], files: list[str]) -> str:
    """What is in a folder that is no checkpoint, in words."""
    if not names:
        return (
            f"is an empty folder; expected {_EXPECTED}"
            if os.access(folder, os.R_OK | os.X_OK)
            else "cannot be listed: permission denied"
        )
    if files:
        return f"holds {len(files)} GGUF files: name one, such as {os.path.join(folder, files[0])}"
    unfinished = downloads.unfinished(folder)
    if unfinished or set(names) == {".cache"}:
        count = f"{unfinished} *.incomplete file{'' if unfinished == 1 else 's'}" if unfinished else "only the cache of one"
        return f"holds a download that has not finished ({count}): download it again"
    if "adapter_config.json" in names:
        return _ADAPTER
    if "model_index.json" in names:
        return "holds a pipeline of diffusers, which makes pictures or sounds; expected a language model"
    below = _below(folder, names)
    if below is not None:
        return f"holds no checkpoint itself; {below} looks like one: name that folder"
    if hf.has_weights(folder) or meta.has_weights(folder):
        return "holds weights, but neither config.json (Hugging Face) nor params.json (Meta), which say what model they are"
    binaries = [name for name in names if name.endswith(".bin") and not name.startswith("tok")]
    if len(binaries) == 1:
        return f"holds no config.json and no params.json; for a llama2.c model, name the file: {os.path.join(folder, binaries[0])}"
    if any(name.startswith("tokenizer") for name in names):
        return f"holds a tokenizer and no weights; expected {_EXPECTED}"
    some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"holds no checkpoint, only {some}; expected {_EXPECTED}"


def _below(folder: str, names: tuple[str, ...]) -> str | None:
    """The first folder below, at most two levels down, that looks like a checkpoint."""
    for name in names[:200]:
        inner = os.path.join(folder, name)
        if not os.path.isdir(inner) or name == ".git":
            continue
        within = downloads.names(inner)
        if _looks_like_one(within):
            return inner
        for deeper in within[:20]:
            lowest = os.path.join(inner, deeper)
            if os.path.isdir(lowest) and _looks_like_one(downloads.names(lowest)):
                return lowest
    return None


def _looks_like_one(names: tuple[str, ...]) -> bool:
    if any(name.endswith(".gguf") for name in names):
        return True
    weights = any(name.endswith((".safetensors", ".pth", ".bin", ".index.json")) for name in names)
    return weights and bool({"config.json", "params.json"} & set(names))
