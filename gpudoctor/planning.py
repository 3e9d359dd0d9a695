"""Makes the plan of a smoke test from what the user asked: which model, from where, and whether the numbers make sense.

No Python of the user's is started and nothing is downloaded. What cannot be done is said in one line, before anything runs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gpudoctor import hub_cache, naming
from gpudoctor.knowledge import models
from gpudoctor.knowledge.models import KnownModel
from gpudoctor.smoke.plan import STORIES15M, Plan, Shape

DEVICES = ("cuda", "cpu")
DTYPES = ("fp32", "fp16", "bf16")
MOST_PROMPTS = 32
MOST_NEW_TOKENS = 1_000_000
LEAST_TEMPERATURE = 1e-4
"""What lies between it and 0 would be divided by, and overflow."""
VERB = naming.Verb(lambda name: f"--ckpt {name}", "test the nearest known shape with random weights")


class CannotPlan(ValueError):
    """What was asked cannot be done; the message is one line that begins with the option it is about."""


def plan(
    ckpt: str | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    prompts: Sequence[str] = (),
    new_tokens: int = 32,
    temperature: float = 0.0,
    top_p: float = 0.9,
    logprobs: bool = False,
    echo: bool = False,
    seed: int = 0,
    processes: int = 1,
    real_weights: bool = False,
    environ: Mapping[str, str],
) -> Plan:
    """The plan for these options; raises CannotPlan.

    ``ckpt`` is a path if it has a separator, begins with ~, or names something in the current folder; otherwise a known model's
    name. Without it: the small built-in model.
    """
    _judge_choices(device, dtype, prompts)
    _judge_numbers(new_tokens, temperature, top_p, seed, processes)
    chosen = _model(ckpt, processes=processes, real_weights=real_weights, environ=environ)
    _judge_split(chosen, processes)
    return replace(
        chosen,
        device=device,
        dtype=dtype,
        prompts=tuple(prompts),
        new_tokens=new_tokens,
        temperature=float(temperature),
        top_p=float(top_p),
        logprobs=logprobs,
        echo=echo,
        seed=seed,
        processes=processes,
    )


def built_in() -> Plan:
    """The plan of ``gpudoctor check``: the small built-in model with seeded random weights, and the proofs."""
    return _random("stories15M (built in)", STORIES15M)


def _random(name: str, shape: Shape, notes: tuple[str, ...] = ()) -> Plan:
    # ids begin with 1, which opens a text in Llama's vocabularies; nothing closes one, since a random model never means to
    return Plan(name=name, format="none", shape=shape, bos=1, no_tokenizer="random weights have no tokenizer", notes=notes)


# ---------------------------------------------------------------- which model


def _model(ckpt: str | None, *, processes: int, real_weights: bool, environ: Mapping[str, str]) -> Plan:
    if ckpt is None:
        if real_weights:
            raise CannotPlan("--real-weights: the built-in model has random weights only; say with --ckpt which model is meant")
        return _built_in_for(processes)
    if not ckpt:
        raise CannotPlan("--ckpt: expected a known model's name or a path, not an empty name")
    if naming.is_path(ckpt):
        return _at_path(ckpt, environ)
    model = models.by_name(ckpt)
    if model is None:
        raise CannotPlan(f"--ckpt: {naming.unknown(ckpt)}")
    return _known(model, real_weights=real_weights, environ=environ)


def _built_in_for(processes: int) -> Plan:
    """Its 6 heads divide among 1, 2, 3 or 6; for 4, 8 and others the same matrices are cut into as many heads."""
    width = STORIES15M.dim // processes
    if STORIES15M.heads % processes == 0 or STORIES15M.dim % processes or width % 2 or STORIES15M.hidden % processes:
        return built_in()
    return replace(built_in(), shape=replace(STORIES15M, heads=processes, kv_heads=processes, head_dim=width))


def _at_path(ckpt: str, environ: Mapping[str, str]) -> Plan:
    path = hub_cache.home(ckpt, environ)
    shown = naming.shown(ckpt)
    if not os.path.lexists(path):
        raise CannotPlan(f"--ckpt: {naming.absent(ckpt, environ, VERB)}")
    try:
        return _read(path)
    except _Unreadable as error:
        here = "/" not in ckpt and models.by_name(ckpt) is not None
        hint = f" (what lies here as {shown} is read instead of the known model of that name)" if here else ""
        raise CannotPlan(f"--ckpt: {error}{hint}") from error


class _Unreadable(ValueError):
    """There is something, and no checkpoint; the message is one line."""


def _read(path: str, *, name: str | None = None, notes: tuple[str, ...] = ()) -> Plan:
    """The plan for a checkpoint; raises _Unreadable."""
    from gpudoctor import checkpoint  # noqa: PLC0415 - the built-in model, which every check runs, needs no reader

    try:
        found = checkpoint.read(os.path.abspath(path))
    except checkpoint.NotACheckpoint as error:
        raise _Unreadable(str(error)) from error
    except OSError as error:
        raise _Unreadable(f"{naming.shown(path)} cannot be read: {error.strerror or type(error).__name__}") from error
    words = found.tokenizer
    return Plan(
        name=name or found.name,
        format=found.format,
        shape=found.shape,
        files=tuple(os.path.abspath(file) for file in found.files),
        pieces=found.pieces,
        halves=found.halves,
        foreign=None if found.foreign is None else os.path.abspath(found.foreign),
        tokenizer=words if words is None or words.path is None else replace(words, path=os.path.abspath(words.path)),
        no_tokenizer=found.no_tokenizer,
        eos=found.eos,
        bos=found.bos,
        notes=notes,
    )


def _known(model: KnownModel, *, real_weights: bool, environ: Mapping[str, str]) -> Plan:
    """From the cache if it is there whole, else of random weights."""
    trouble = None
    for repository in dict.fromkeys((model.hf, model.hf.removesuffix("-hf"))):  # Meta's own files have the name without -hf
        for folder in hub_cache.snapshots(repository, environ):
            path = os.path.join(folder, model.file) if model.file else folder
            if not os.path.lexists(path):
                continue  # the repository holds several models, and this one was not downloaded
            try:
                return _read(path, name=model.name, notes=(f"its files were found in the Hugging Face cache: {path}",))
            except _Unreadable as error:
                trouble = trouble or str(error)
        if trouble is None and hub_cache.unfinished(repository, environ):
            trouble = f"a download of {repository} has begun and not ended"
    shape = model.shape()
    if real_weights or shape is None:
        raise CannotPlan(_without_weights(model, trouble))
    note = () if trouble is None else (f"what the Hugging Face cache has of it cannot be used: {trouble}",)
    return _random(model.name, shape, note)


def _without_weights(model: KnownModel, trouble: str | None) -> str:
    has = "are not on this machine" if trouble is None else f"cannot be used as the Hugging Face cache has them ({trouble})"
    whole = " ".join(filter(None, (model.hf, model.file)))
    reason = f"; random ones cannot stand in, since {model.why_not}" if model.why_not else ""
    return f"--ckpt: the weights of {model.name} {has}{reason}. To get them: hf download {whole} (older: huggingface-cli download)"


# ---------------------------------------------------------------- whether the numbers make sense


def _judge_choices(device: str | None, dtype: str | None, prompts: Sequence[str]) -> None:
    if device is not None and device.startswith("cuda:"):
        which = f"CUDA_VISIBLE_DEVICES={device[5:]}" if device[5:].isdecimal() else "CUDA_VISIBLE_DEVICES"
        raise CannotPlan(f"--device: expected cuda or cpu, not {naming.shown(device)}; set {which} to choose a GPU")
    if device is not None and device not in DEVICES:
        raise CannotPlan(f"--device: expected {' or '.join(DEVICES)}, not {naming.shown(device) or 'an empty name'}")
    if dtype is not None and dtype not in DTYPES:
        raise CannotPlan(f"--dtype: expected fp32, fp16 or bf16, not {naming.shown(dtype) or 'an empty name'}")
    if len(prompts) > MOST_PROMPTS:
        raise CannotPlan(f"--prompt: {len(prompts)} prompts; at most {MOST_PROMPTS} are generated at once")
    if any(not prompt for prompt in prompts):
        raise CannotPlan("--prompt: expected a text, not an empty one")
    if any("\ud800" <= letter <= "\udfff" for prompt in prompts for letter in prompt):
        raise CannotPlan("--prompt: expected a text in UTF-8")


def _judge_numbers(new_tokens: int, temperature: float, top_p: float, seed: int, processes: int) -> None:
    if not 0 <= new_tokens <= MOST_NEW_TOKENS:
        raise CannotPlan(f"--max-new-tokens: expected 0 to {MOST_NEW_TOKENS}, not {new_tokens}")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise CannotPlan(f"--temperature: expected 0 (greedy) or a number above it, not {temperature:g}")
    if 0 < temperature < LEAST_TEMPERATURE:
        raise CannotPlan(
            f"--temperature: {temperature:g} is too small to divide by; expected 0 (greedy) or at least {LEAST_TEMPERATURE:g}"
        )
    if not 0 <= top_p <= 1:
        raise CannotPlan(f"--top-p: expected a probability from 0 to 1, not {top_p:g}")
    if not 0 <= seed < 2**63:
        raise CannotPlan(f"--seed: expected 0 to {2**63 - 1}, not {seed}")
    if processes < 1:
        raise CannotPlan(f"--nproc: expected 1 or more processes, not {processes}")


def _judge_split(chosen: Plan, processes: int) -> None:
    if processes == 1:
        return
    if chosen.shape is None:
        raise CannotPlan(f"--nproc: {chosen.name} is read by transformers, in one process only, not {processes}")
    shape = chosen.shape
    common = math.gcd(shape.kv_heads, shape.heads, shape.hidden)
    if common % processes:
        numbers = f"{shape.kv_heads} key-value heads, {shape.heads} heads, a feed-forward part {shape.hidden} wide"
        able = ", ".join(str(count) for count in range(1, min(common, 1024) + 1) if common % count == 0)
        raise CannotPlan(f"--nproc: {chosen.name} ({numbers}) cannot be divided among {processes} processes; {able} can")
