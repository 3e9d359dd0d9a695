"""Makes the question of ``gpudoctor fit`` from what the user asked: which model, by what, doing what, on which card.

Only headers are read. What cannot be counted is said in one line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpudoctor import hub_cache, naming
from gpudoctor.knowledge import dtypes, models
from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.memory import card as cards
from gpudoctor.memory.card import Card
from gpudoctor.memory.model import Model, of_contents, of_known
from gpudoctor.memory.need import Work
from gpudoctor.memory.question import Environment, Question
from gpudoctor.memory.runtimes import RUNTIMES, Runtime, by_name

if TYPE_CHECKING:
    from gpudoctor.contents import Contents
    from gpudoctor.facts import Facts, Wanted
    from gpudoctor.memory.count import Count

VERB = naming.Verb(lambda name: f"gpudoctor fit {name}", "count the nearest known shape")
ROOM, PART = 512, 4
"""Tokens in all where nobody says how many, and which part of them is the prompt."""
MOST_TOKENS, MOST_BATCH, MOST_GPUS = 100_000_000, 1_000_000, 1024
_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([a-z]{0,3})", re.IGNORECASE | re.ASCII)
_VERSIONED = re.compile(r"transformers[-=]{1,2}(\d{1,2}(?:\.\d{1,3}){1,2})", re.ASCII)
_TUNED = re.compile(r"[-_](?:instruct|chat|it|base)(?:[-_]hf)?$", re.IGNORECASE)
"""Ends of the names of models that were trained on: their shape is that of the model without it."""
ALSO = {"ollama": "llama.cpp", "llamacpp": "llama.cpp", "llama-cpp": "llama.cpp", "hf": "transformers"}
GATED = ("meta-llama/", "google/", "mistralai/")
"""Organisations whose models are downloaded by people who have accepted a licence."""
RUN_BY = {"meta": {"llama"}, "gpudoctor": {"llama", "mistral", "qwen", "qwen2", "qwen3", "phi3"}}
_TRAINING = {"train", "training", "finetune", "fine-tune", "lora", "qlora", "adam", "optimizer"}


class CannotCount(ValueError):
    """What was asked cannot be counted; the message is one line. It begins with its option, unless it is about the model."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The options, as they were typed; None where nobody said."""

    name: str
    runtime: str | None = None
    dtype: str | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    batch: int = 1
    max_seq_len: int | None = None
    gpus: int | None = None
    gpu: str | None = None
    free: str | None = None
    python: str | None = None


def question(asked: Asked, environ: Mapping[str, str]) -> Question:
    """The question; its card is None where neither ``gpu`` nor ``free`` names one. Raises CannotCount."""
    card = _card(asked)
    model, format_ = _model(asked.name, environ)
    runtime, version = _runtime(asked.runtime, asked.dtype, format_)
    dtype = _dtype(asked.dtype, runtime)
    work = _work(asked, card)
    _judge_split(model, runtime, work)
    where = Environment(asked.python or "python3")
    return on_this_card(Question(model, runtime, work, dtype, version=version, environment=where).on(card))


def on_this_card(made: Question) -> Question:
    """With numbers that the card keeps: what is published in others is unpacked to 16 bits. Raises CannotCount for asked ones."""
    if made.dtype is not None and not made.keeps(made.dtype):
        has = made.card.capability if made.card is not None else ""
        needs = f"{made.dtype.name} needs compute capability {made.dtype.capability} in transformers"
        raise CannotCount(f"--dtype: {needs}; this card has {has}")
    if made.dtype is None and made.model.contents is None and not made.keeps(made.model.published):
        return made.but(dtype=dtypes.of("fp16"))
    return made


def wanted(of: Question) -> Wanted:
    """The question as a fact that a check can judge."""
    from gpudoctor.facts import Wanted  # noqa: PLC0415 - `fit` for a card that is named needs no facts

    model, work = of.model, of.work
    return Wanted(
        name=model.name,
        hf=model.hf,
        architecture=model.architecture,
        embedding=model.embedding,
        head=model.head,
        linear=model.linear,
        other=model.other,
        mxfp4=model.mxfp4,
        contents=model.contents,
        runtime=of.runtime.name,
        version=of.version,
        dtype=None if of.dtype is None else of.dtype.name,
        batch=work.batch,
        prompt=work.prompt,
        new=work.new,
        length=work.length,
        gpus=work.gpus,
    )


def notes(of: Question) -> tuple[str, ...]:
    """What a reader should know beside the numbers."""
    a, model, runtime, found = of.model.architecture, of.model, of.runtime.name, []
    if of.work.tokens > a.max_seq_len or of.work.room > a.max_seq_len:
        found.append(f"the model was made for {a.max_seq_len} positions; {max(of.work.tokens, of.work.room)} are asked for")
    if runtime in RUN_BY and a.family not in RUN_BY[runtime]:
        found.append(f"{runtime} cannot run {naming.shown(a.family)}: the count is that of a Llama of this shape")
    if of.verdict == "tight" and not of.in_usual_part:
        found.append("vLLM takes 0.9 of the card unless it is told to take more: --gpu-memory-utilization")
    if runtime == "transformers" and model.mxfp4 and of.dtype is None:
        found.append("in MXFP4, as published: without the packages kernels and triton transformers unpacks it to 16 bits")
    if a.caching_layers is not None and a.caching_layers < a.layers:
        found.append(f"{a.layers - a.caching_layers} of {a.layers} layers keep a state of fixed size instead of keys and values")
    if model.note is not None and "not counted" in model.note:
        found.append(model.note[0].lower() + model.note[1:])
    if model.contents is None and (model.hf or "").startswith(GATED) and runtime != "gpudoctor":
        found.append(f"to download {model.hf}: accept its licence on its web page, then hf auth login")
    return tuple(found)


def counted_here(of: Question, facts: Facts, environ: Mapping[str, str]) -> Count:
    """The answer for the card of this machine that has most memory free, its own memory and its disk. Raises CannotCount."""
    # a card that is named needs none of these, and is answered sooner without them
    from gpudoctor.facts import Interpreter, Unknown  # noqa: PLC0415 - see above
    from gpudoctor.memory import here  # noqa: PLC0415 - see above
    from gpudoctor.memory.count import count  # noqa: PLC0415 - see above
    from gpudoctor.probes import loading  # noqa: PLC0415 - see above

    found = here.cards(facts)
    card = None if isinstance(found, Unknown) else found[0]
    version = of.version
    if of.runtime.name == "transformers" and version is None:
        version = loading.transformers_version(facts.interpreter)
    target = facts.interpreter
    where = of.environment
    if isinstance(target, Interpreter):
        where = Environment(target.path, target.owner, target.prefix, target.project or "")
    asked = on_this_card(of.but(version=version, environment=where).on(card))
    elsewhere = "--gpu NAME or --free SIZE plans for one that is not here"
    return count(
        asked,
        notes=notes(asked),
        why_no_card=f"{found.why}; {elsewhere}" if isinstance(found, Unknown) else None,
        memory_free=here.room(facts),
        disk_free=loading.room_for_models(environ),
    )


# ---------------------------------------------------------------- which model


def _model(name: str, environ: Mapping[str, str]) -> tuple[Model, str | None]:
    """The model, and the format of its files if it has any."""
    if not name.strip():
        raise CannotCount("expected a known model's name or a path, not an empty name")
    if name.casefold() in _TRAINING:
        raise CannotCount(f"{naming.shown(name)} is no model; what training takes is not counted, only what running a model does")
    if naming.is_repository(name):
        cached = _cached(name, environ)
        if cached is not None:
            return cached
        known = models.by_name(name) or models.by_name(_TUNED.sub("", name))
        if known is not None:
            return of_known(known), None
    if naming.is_path(name):
        path = hub_cache.home(name, environ)
        if not os.path.lexists(path):
            raise CannotCount(f"{naming.absent(name, environ, VERB)}")
        return _read(path)
    known = models.by_name(name) or models.by_name(_TUNED.sub("", name.strip()))
    if known is None:
        raise CannotCount(naming.unknown(name))
    return _cached(known.hf, environ, known.file) or (of_known(known), None)


def _cached(repository: str, environ: Mapping[str, str], file: str | None = None) -> tuple[Model, str | None] | None:
    """From the Hugging Face cache, if it has the model whole."""
    for folder in hub_cache.snapshots(repository, environ):
        try:
            return _read(os.path.join(folder, file) if file else folder, hf=repository)
        except CannotCount:
            continue
    return None


def _read(path: str, hf: str | None = None) -> tuple[Model, str]:
    from gpudoctor import checkpoint  # noqa: PLC0415 - a known model's name needs no reader

    try:
        contents = checkpoint.describe(os.path.abspath(path))
    except checkpoint.NotACheckpoint as error:
        raise CannotCount(f"{error}") from error
    except OSError as error:
        raise CannotCount(f"{naming.shown(path)} cannot be read: {error.strerror or type(error).__name__}") from error
    if contents.architecture is None:
        size = f"its weights have {contents.size / 2**30:.2f} GiB; what else it needs cannot be counted"
        raise CannotCount(f"{naming.shown(path)}: {contents.why_not}; {size}")
    return of_contents(contents, contents.architecture, hf or _published_as(contents)), contents.format


def _published_as(contents: Contents) -> str | None:
    """Where Hugging Face has a Meta folder's model in its own format: by the number of its weights."""
    if contents.format != "meta":
        return None
    return next((known.hf for known in models.known() if known.parameters == contents.parameters and known.auto), None)


# ---------------------------------------------------------------- by what, and in which numbers


def _runtime(name: str | None, dtype: str | None, format_: str | None) -> tuple[Runtime, str | None]:
    """The runtime and its version; without a name the one that the files, or these numbers, are made for."""
    if name is None:
        name = {"gguf": "llama.cpp", "meta": "meta", "llama2c": "gpudoctor"}.get(format_ or "", "transformers")
        numbers = dtypes.by_name(dtype) if dtype is not None else None
        if numbers is not None and name not in numbers.runtimes:
            name = "transformers" if "transformers" in numbers.runtimes else numbers.runtimes[0]
    name = ALSO.get(name.casefold(), name)
    versioned = _VERSIONED.fullmatch(name)
    found = by_name("transformers" if versioned else name)
    if found is None:
        expected = ", ".join(runtime.name for runtime in RUNTIMES)
        raise CannotCount(f"--runtime: expected one of {expected} (or transformers-4.38, for an old one), not {naming.shown(name)}")
    if format_ == "gguf" and found.name not in ("llama.cpp", "gpudoctor"):
        unpacks = (
            "Meta's code reads no GGUF files" if found.name == "meta" else f"{found.name} unpacks GGUF files, which is not counted"
        )
        raise CannotCount(f"--runtime: {unpacks}; llama.cpp runs them as they are")
    return found, versioned[1] if versioned else None


def _dtype(name: str | None, runtime: Runtime) -> Dtype | None:
    if name is None:
        return None
    found = dtypes.by_name(name)
    able = [dtype.name for dtype in dtypes.known() if runtime.name in dtype.runtimes]
    if found is None:
        raise CannotCount(f"--dtype: expected one of {', '.join(able)}, not {naming.shown(name) or 'an empty name'}")
    if runtime.name not in found.runtimes:
        elsewhere = f"; {found.name} is for {' or '.join(found.runtimes)}"
        raise CannotCount(f"--dtype: {runtime.name} runs {', '.join(able)}, not {found.name}{elsewhere}")
    return found


def _judge_split(model: Model, runtime: Runtime, work: Work) -> None:
    """Raises CannotCount for more GPUs than the model can be divided among: by heads, or by layers."""
    a, count = model.architecture, work.gpus
    by_heads = runtime.name in ("gpudoctor", "meta", "vllm")
    able = a.heads % count == 0 if by_heads else count <= a.layers
    if not able:
        what = f"{a.heads} heads" if by_heads else f"{a.layers} layers"
        raise CannotCount(f"--nproc: {naming.shown(model.name)} has {what}, which {runtime.name} cannot divide among {count} GPUs")


# ---------------------------------------------------------------- doing what


def _work(asked: Asked, card: Card | None) -> Work:
    """Prompt and new tokens: as asked; else 512 in all, or what --max-seq-len has room for, a quarter of them the prompt."""
    for option, value, least, most in (
        ("--prompt-tokens", asked.prompt_tokens, 1, MOST_TOKENS),
        ("--new-tokens", asked.new_tokens, 0, MOST_TOKENS),
        ("--max-seq-len", asked.max_seq_len, 1, MOST_TOKENS),
        ("--batch", asked.batch, 1, MOST_BATCH),
        ("--nproc", asked.gpus, 1, MOST_GPUS),
    ):
        if value is not None and not least <= value <= most:
            raise CannotCount(f"{option}: expected {least} to {most}, not {value}")
    room = asked.max_seq_len or max(ROOM, asked.prompt_tokens or 0, asked.new_tokens or 0)
    if asked.max_seq_len is not None and (asked.prompt_tokens or 0) + (asked.new_tokens or 0) > asked.max_seq_len:
        wanted = f"{asked.prompt_tokens or 0} and {asked.new_tokens or 0} tokens"
        raise CannotCount(f"--max-seq-len: {wanted} do not fit into {asked.max_seq_len} positions")
    prompt, new = asked.prompt_tokens, asked.new_tokens
    if prompt is None:
        prompt = max(1, min(room // PART, room - (new or 0)) if asked.max_seq_len or new is None else room // PART)
    if new is None:
        new = max(0, asked.max_seq_len - prompt) if asked.max_seq_len else ROOM - ROOM // PART
    gpus = asked.gpus or (card.count if card is not None else 1)
    return Work(asked.batch, prompt, new, asked.max_seq_len, gpus)


# ---------------------------------------------------------------- on which card


def _card(asked: Asked) -> Card | None:
    """The card of --gpu, with what --free says is free of it; a size alone is a card of that size."""
    free = None if asked.free is None else size(asked.free)
    if asked.gpu is None:
        return None if free is None else Card("a card with that much free", None, free)
    try:
        named = cards.named(asked.gpu)
    except cards.NoSuchCard as error:
        raise CannotCount(f"--gpu: {error}") from error
    if free is None:
        return named
    if named.total is not None and free > named.total:
        least = f"{named.total / 2**30:.2f} GiB"
        raise CannotCount(f"--free: {naming.shown(asked.free or '')} is more than the {least} that programs see of a {named.name}")
    return Card(named.name, named.total, free, named.count, shared=named.shared, capability=named.capability)


def size(text: str) -> int:
    """11.3GiB, 24GB, 512MiB, or bytes; raises CannotCount."""
    found = _SIZE.fullmatch(text.strip())
    unit = None if found is None else _UNITS.get(found[2].lower())
    value = 0 if found is None or unit is None else int(float(found[1]) * unit)
    if 0 < value < 1 << 20 and unit == 1:
        raise CannotCount(f"--free: {naming.shown(text)} would be bytes; expected a size such as 11.3GiB or 24GB")
    if not 0 < value < 1 << 50:
        raise CannotCount(
            f"--free: expected a size such as 11.3GiB, 24GB or a number of bytes, not {naming.shown(text) or 'an empty one'}"
        )
    return value
