"""The smoke test from its first phase to its last: read this to know what it does and in which order.

device       choose the device and a dtype that it knows
nccl         start torch.distributed, alone or with the others, and check that an all-reduce adds up
memory       count what the plan needs; stop where that is more than is free
load         make the model and fill its weights: from the checkpoint, or with random numbers
first-token  read the first prompt; the logits must be finite before a token is taken
tokens       decode greedily, one sequence, timed; then the completions that were asked for
proofs       decode once more: the same tokens; compute on the CPU: the same logits; measure the memory's bandwidth
done         nothing is left to do

What goes wrong with PyTorch is an exception of PyTorch's. ``say`` hands values to the doctor: {"begin": phase}, progress, and
fields of ``facts.Smoke`` by their names.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from . import bandwidth, device, parallel, proofs, weights
from .footprint import Pass, footprint
from .generate import Completion, Model, Step, check, cut, generate, prefill
from .model import Llama
from .parallel import Place, Say
from .plan import Plan
from .prompts import Text, read_prompts
from .speed import Run, decoded, fastest, threads

AGAIN_ON_CPU = 8  # tokens of the second greedy run there, where each costs what reading all weights costs
ALONE = Place(0, 1)


def run(plan: Plan, say: Say) -> None:
    """Carry out the plan, in this process or in as many as it says."""
    if plan.processes > 1:
        parallel.launch(plan, say)
        return
    with threads(plan):
        prove(plan, say, ALONE)


def prove(plan: Plan, say: Say, place: Place) -> bool:
    """Carry out one process's part of it; False where it was given up for a reason that has been said."""
    tell = Voice(say, place)
    tell(begin="device")
    like = choose(plan, tell, place)
    tell(begin="nccl")
    connect(like.device, tell, place)
    tell(begin="memory")
    text = read_prompts(plan)
    tell.note(text.note)
    if not fits(plan, text, like, tell, place):
        return False
    tell(begin="load")
    model = build(plan, text, like, tell, place)
    tell(begin="first-token")
    if not begins(model, plan, text, tell):
        return False
    tell(begin="tokens")
    step = fastest(model, tell.note)
    spoken = decoded(model, text.ids[0], plan.new_tokens, step, tell)
    if len(spoken.tokens) < plan.new_tokens:
        tell.note("%d tokens instead of %d: the model has no more positions" % (len(spoken.tokens), plan.new_tokens))
    tell(new_tokens=len(spoken.tokens), tokens_per_second=spoken.tokens_per_second)
    tell(completions=completions(model, plan, text, spoken), peak_memory=device.peak(like.device))
    tell(begin="proofs")
    if plan.proofs:
        show(model, text, step, spoken, tell)
    tell(begin="done")
    return True


class Voice:
    """``say`` for one process of several: of all but the first only phases and failures count. Notes are said as a whole."""

    def __init__(self, say: Say, place: Place) -> None:
        """Speak through ``say``."""
        self.say, self.first, self.alone = say, place.rank == 0, place.world == 1
        self.notes: list[str] = []

    def __call__(self, **values: object) -> None:
        """Say it."""
        heard = {name: value for name, value in values.items() if self.first or name in ("begin", "failed")}
        if heard:
            self.say(**heard)

    def note(self, text: str | None) -> None:
        """Something that a reader should know, or nothing."""
        if text is not None:
            self.notes.append(text)
            self(notes=self.notes)


# ---------------------------------------------------------------- the phases


def choose(plan: Plan, tell: Voice, place: Place) -> torch.Tensor:
    """An empty tensor on the device and of the dtype in which everything is computed."""
    where = device.choose(plan, place.rank)
    dtype, note = device.dtype(plan, where)
    tell(device=where.type, device_name=device.name(where), dtype=dtype)
    tell.note(note)
    return torch.empty(0, dtype=device.DTYPES[dtype], device=where)


def connect(where: torch.device, tell: Voice, place: Place) -> None:
    """The process group, and whether it adds up; a build without one is worth a note, since one process needs none."""
    backend = parallel.join(where, place)
    if backend is None:
        tell.note(parallel.lacks("nccl" if where.type == "cuda" else "gloo"))
        return
    tell(backend=backend, all_reduce=parallel.adds_up(where, place))
    tell(all_reduce_bandwidth=parallel.bus_bandwidth(where, place))


def fits(plan: Plan, text: Text, like: torch.Tensor, tell: Voice, place: Place) -> bool:
    """Whether what the plan needs is free; says why not. Nothing large is allocated before."""
    predicted = predict(plan, text, like, place)
    needed = need(plan, predicted, like)
    room = device.room(like.device, plan)
    tell(predicted_memory=predicted, needed_memory=needed, free_memory=room)
    if needed <= room:
        return True
    names = {dtype: name for name, dtype in device.DTYPES.items()}
    sizes = (plan.name, names[like.dtype], needed / 2**30, room / 2**30)
    tell(failed="%s in %s needs %.1f GiB; %.1f GiB are free" % sizes)
    return False


def predict(plan: Plan, text: Text, like: torch.Tensor, place: Place) -> int | None:
    """Bytes that PyTorch will have allocated at the widest moment; None for a model that transformers reads."""
    if plan.shape is None:
        return None
    shape, positions = parallel.share(plan.shape, place.world), length(plan, text)
    each, workspace = like.element_size(), device.workspace(like.device)
    asked = Pass(len(text.ids), min(map(len, text.ids)), positions, plan.logprobs, plan.temperature > 0)
    timed = Pass(1, len(text.ids[0]), positions)  # the first prompt alone is what is timed
    beside = (footprint(shape, each, timed, workspace).activations, 0 if plan.pieces else weights.NOISE_SIZE)
    whole = footprint(shape, each, asked, workspace)
    return whole.total + max(0, *(size - whole.activations for size in beside))


def need(plan: Plan, predicted: int | None, like: torch.Tensor) -> int:
    """Bytes that have to be free; of a model that transformers reads only the weights are known before."""
    if predicted is not None:
        return predicted + (device.SLACK if like.is_cuda else 0)
    from . import foreign

    return foreign.needed(str(plan.foreign), like)


def length(plan: Plan, text: Text) -> int:
    """Positions for which the cache has room."""
    most = plan.max_seq_len or (plan.shape.max_seq_len if plan.shape is not None else 1 << 30)
    return min(most, text.longest + plan.new_tokens)


def build(plan: Plan, text: Text, like: torch.Tensor, tell: Voice, place: Place) -> Model:
    """The model with its weights: ours, one process's part of it, or transformers'."""
    rows, positions = len(text.ids), length(plan, text)
    if plan.shape is None:
        from .foreign import Foreign

        return Foreign(plan, like, rows, positions)
    model = Llama(parallel.share(plan.shape, place.world), like, rows, positions)
    if place.world > 1:
        model.sum = parallel.total
    if plan.pieces:
        weights.load(model, plan, place.rank, place.world, tell)
    else:
        weights.randomise(model, plan.seed, place.rank, place.world, tell)
    return model


def begins(model: Model, plan: Plan, text: Text, tell: Voice) -> bool:
    """Read the first prompt: whether the logits after it are finite, and how long the first token takes.

    Those of the last position alone: it has looked at all the others, and of a long prompt the others would take gigabytes.
    """
    check(model, text.ids, plan.new_tokens, plan.temperature, plan.top_p)
    started = time.perf_counter()
    with torch.inference_mode():
        logits = prefill(model, torch.tensor(text.ids[:1], device=model.norm.device), every=False)
        finite = proofs.finite(logits)
        if finite:
            logits[0, -1].argmax().item()  # a token is there once it has come from the device
    tell(finite=finite, seconds_to_first_token=time.perf_counter() - started)
    if not finite:
        tell(failed="the logits of the first prompt are not finite: there are infinities or NaN among them")
    return finite


def completions(model: Model, plan: Plan, text: Text, spoken: Run) -> list[dict[str, Any]]:
    """What was asked for. One greedy sequence has been decoded already: it is only cut at the end of its text."""
    if len(text.ids) == 1 and plan.temperature == 0 and not plan.logprobs:
        prompt = text.ids[0]
        made = [cut(prompt + spoken.tokens, [], len(prompt), plan.new_tokens, plan.echo, plan.eos, logprobs=False)]
    else:
        made = generate(
            model,
            text.ids,
            plan.new_tokens,
            plan.temperature,
            plan.top_p,
            plan.logprobs,
            plan.echo,
            plan.eos,
            torch.Generator(model.norm.device).manual_seed(plan.seed),
        )
    return [as_json(prompt, completion, text) for prompt, completion in zip(text.prompts, made)]


def as_json(prompt: str, completion: Completion, text: Text) -> dict[str, Any]:
    """The fields of ``facts.Completion``."""
    return {
        "prompt": prompt,
        "tokens": completion.tokens,
        "text": text.words(completion.tokens),
        "logprobs": completion.logprobs,
    }


def show(model: Model, text: Text, step: Step, spoken: Run, tell: Voice) -> None:
    """The proofs that take a second look."""
    where = model.norm.device
    again = len(spoken.tokens) if where.type == "cuda" else min(AGAIN_ON_CPU, len(spoken.tokens))
    tell(repeatable=proofs.repeats(spoken.tokens, decoded(model, text.ids[0], again, step, tell).tokens))
    if not isinstance(model, Llama):
        return
    if where.type == "cuda" and tell.alone:
        difference, tolerance = proofs.agreement(model, text.ids[0])
        tell(difference=difference, tolerance=tolerance)
    read = proofs.read_per_token(model, len(text.ids[0]) + len(spoken.tokens) // 2)
    tell(bytes_per_token=read)
    if where.type == "cuda" or read >= bandwidth.BUFFER:  # for less it would take longer than all the rest
        tell(bandwidth=bandwidth.measured(where, device.free(where)))
