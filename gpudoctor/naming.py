"""What a person calls a model: a path, a known model's name, a repository on Hugging Face. And what may have been meant instead."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpudoctor import hub_cache
from gpudoctor.knowledge import models

EXPECTED = "expected a Hugging Face or Meta folder, a .gguf file or a llama2.c .bin file"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w-]{0,60}/[A-Za-z0-9][\w.-]{0,90}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Verb:
    """The verb at hand: how it is asked about a name, and what it can do with a known shape that is like the one meant."""

    ask: Callable[[str], str]
    """llama-2-7b -> --ckpt llama-2-7b"""
    instead: str


def is_path(text: str) -> bool:
    """It has a separator, begins with ~, or names something in the current folder."""
    return "/" in text or text in {".", ".."} or text.startswith("~") or os.path.lexists(text)


def is_repository(text: str) -> bool:
    """It has the form of a name on Hugging Face, and is no path that is there."""
    return bool(REPOSITORY.fullmatch(text)) and not os.path.lexists(text)


def absent(text: str, environ: Mapping[str, str], verb: Verb) -> str:
    """One line about a path that is not there."""
    return f"{shown(text)} does not exist; {EXPECTED}{_perhaps(text, environ, verb)}"


def unknown(text: str) -> str:
    """One line about a name that nobody knows."""
    near = models.nearest(text)
    meant = f"did you mean {' or '.join(near)}?" if near else "known are names such as llama-2-7b, mistral-7b-v0.1, qwen3-8b"
    return f"{shown(text)} is neither a model known by name nor a file or folder here; {meant}"


def shown(text: str, most: int = 80) -> str:
    """``text`` on one line, and not too much of it."""
    line = "".join(letter if letter.isprintable() else "?" for letter in text[:most])
    return line if len(text) <= most else f"{line}..."


def _perhaps(text: str, environ: Mapping[str, str], verb: Verb) -> str:
    """What else may have been meant by a path that is not there, such as meta-llama/Llama-2-7b-hf."""
    cached = hub_cache.snapshots(text, environ) if text.count("/") == 1 and not text.startswith((".", "~", "/")) else ()
    if cached:
        return f". The Hugging Face cache has it: {verb.ask(shown(cached[0], 300))}"
    model = models.by_name(text) or models.by_name(os.path.basename(text.rstrip("/")))
    if model is not None:
        return f". The known model is called {model.name}: {verb.ask(model.name)}"
    return f". {_as_repository(text, verb)}" if REPOSITORY.fullmatch(text) else ""


def _as_repository(text: str, verb: Verb) -> str:
    """What has the form of a Hugging Face name is mostly meant as one; nothing is downloaded here."""
    near = [model.name for name in models.nearest(text.partition("/")[2]) if (model := models.by_name(name)) and model.shape()]
    known = f", or {verb.instead}: {verb.ask(near[0])}" if near else ""
    return f"If it is a Hugging Face name, it is not in the local cache. To get it: hf download {text}{known}"
