"""Whether the model that was asked about (``check --model``) fits what is free on the best GPU, and what to do if not."""

from __future__ import annotations

from gpudoctor.facts import Facts, Unknown, Wanted
from gpudoctor.findings import Evidence, Finding, Fix, Verdict
from gpudoctor.knowledge import dtypes
from gpudoctor.memory import here
from gpudoctor.memory.card import Card
from gpudoctor.memory.model import Model
from gpudoctor.memory.need import Work
from gpudoctor.memory.options import Option, options
from gpudoctor.memory.question import Question
from gpudoctor.memory.runtimes import by_name
from gpudoctor.memory.verdict import verdict

from ..words import gib

MOST = 1 << 50
"""Of no number of a model, or of what is done with it."""
SHOWN = ("8-bit", "4-bit", "smaller-model", "offload")


def judge(facts: Facts) -> Verdict | None:
    """The verdict on the model; None where none was asked about."""
    wanted = facts.wanted
    if wanted is None:
        return None
    if isinstance(wanted, Unknown):
        return Verdict(f"the model is unknown: {wanted.why}", unknown=(f"the model that was asked about: {wanted.why}",))
    if not _sensible(wanted):
        return Verdict("the model's numbers make no sense", unknown=("what a model of such numbers needs",))
    asked = question(wanted)
    if asked is None:
        return Verdict(f"{wanted.name}: this version does not know {wanted.runtime}", unknown=(f"what {wanted.runtime} takes",))
    cards = here.cards(facts)
    needs = f"{asked.in_words} needs {gib(asked.need.total)} GiB"
    if isinstance(cards, Unknown):
        return Verdict(f"{needs}; what is free is unknown: {cards.why}", unknown=(f"free GPU memory: {cards.why}",))
    asked = asked.on(cards[0])
    summary = f"{needs}; {gib(cards[0].free)} GiB are free"
    if asked.verdict == "fits":
        return Verdict(summary)
    return Verdict(summary, (_tight(asked, cards[0]) if asked.verdict == "tight" else _too_large(asked, cards[0]),))


def question(wanted: Wanted) -> Question | None:
    """The fact as a question; None for a runtime that this version has no arithmetic for."""
    runtime = by_name(wanted.runtime)
    if runtime is None:
        return None
    model = Model(
        name=wanted.name,
        architecture=wanted.architecture,
        embedding=wanted.embedding,
        head=wanted.head,
        linear=wanted.linear,
        other=wanted.other,
        contents=wanted.contents,
        hf=wanted.hf,
        mxfp4=wanted.mxfp4,
    )
    work = Work(wanted.batch, wanted.prompt, wanted.new, wanted.length, wanted.gpus)
    dtype = None if wanted.dtype is None else dtypes.by_name(wanted.dtype)
    return Question(model, runtime, work, dtype, version=wanted.version)


def _sensible(wanted: Wanted) -> bool:
    """Whether a model and its work can have these numbers: a saved report may say anything."""
    a = wanted.architecture
    if a.kv_heads > a.heads or wanted.mxfp4 > wanted.linear:
        return False
    shape = (a.layers, a.dim, a.heads, a.kv_heads, a.head_dim, a.vocab, a.max_seq_len)
    above = (*shape, wanted.batch, wanted.prompt, wanted.gpus)
    rest = (a.hidden, a.experts, a.experts_per_token, a.expert_hidden, a.windowed_layers, wanted.new)
    asked = tuple(n for n in (a.value_dim, a.caching_layers, a.window, a.latent, wanted.length) if n is not None)
    weights = (wanted.embedding, wanted.head, wanted.linear, wanted.other, wanted.mxfp4)
    counted: tuple[int, ...] = ()
    if wanted.contents is not None:
        counted = tuple(n for group in wanted.contents.groups for n in (group.parameters, group.size))
        counted += tuple(size for _, size in wanted.contents.files)
    return all(0 < n < MOST for n in above) and all(0 <= n < MOST for n in (*rest, *asked, *weights, *counted))


def _too_large(asked: Question, card: Card) -> Finding:
    need, total = asked.need, card.total or card.free
    if asked.too_large:
        why = (
            f"{gib(need.weights)} GiB of that are weights, which are more than the whole card: no batch size, sequence length or "
            "setting of the allocator helps, nor does closing other programs."
        )
        return _finding("model-larger-than-vram", asked, card, why, Fix("memory#fit-the-model"))
    if verdict(need, total) != "no":
        who = f"{_holders(card)} the rest" if card.holders else "who holds the rest cannot be seen from here"
        why = f"On an empty card it would fit: {who}. Neither a smaller batch nor a setting of the allocator gives that back."
        return _finding("vram-held-by-other-process", asked, card, why, _release(card))
    why = (
        f"The weights ({gib(need.weights)} GiB) fit. What does not are the key-value cache ({gib(need.kv_cache)} GiB) and the "
        f"activations ({gib(need.activations)} GiB) beside them: both grow with the number of sequences and with their length."
    )
    return _finding("workload-exceeds-vram", asked, card, why, Fix("memory#shorten-the-work"))


def _tight(asked: Question, card: Card) -> Finding:
    need = asked.need
    return Finding(
        code="model-barely-fits",
        severity="warn",
        summary=f"{asked.in_words} needs about {gib(need.total)} GiB, and {gib(card.free)} GiB are free: it may run or not",
        cause=(
            f"By the size of this card's CUDA context and by what the allocator keeps in pieces it will be {gib(need.least)} to "
            f"{gib(need.most)} GiB. Nothing is wrong; a browser that is closed or a shorter prompt decides it."
            f"{_what_fits(asked)}"
        ),
        evidence=_evidence(asked, card),
        fix=Fix("memory#shorten-the-work"),
    )


def _finding(code: str, asked: Question, card: Card, why: str, fix: Fix) -> Finding:
    whole = "" if card.total is None else f"; the card has {gib(card.total)} GiB, of which {gib(card.free)} GiB are free"
    return Finding(
        code=code,
        severity="fail",
        summary=f"{asked.in_words} needs {gib(asked.need.total)} GiB{whole}",
        cause=f"{why} Driver and PyTorch are well.{_what_fits(asked)}",
        evidence=_evidence(asked, card),
        fix=fix,
        stands_alone=True,
    )


def _what_fits(asked: Question) -> str:
    """The ways out in one sentence, and where their commands are."""
    ways = [option for option in options(asked) if option.fits and option.action in SHOWN]
    found = f" What fits: {'; '.join(_way(option) for option in ways)}." if ways else ""
    name = asked.model.contents.path if asked.model.contents is not None else asked.model.name
    return f"{found} gpudoctor fit {name} shows the commands."


def _way(option: Option) -> str:
    return f"{option.summary}, {gib(option.need)} GiB"


def _evidence(asked: Question, card: Card) -> tuple[Evidence, ...]:
    need = asked.need
    parts = (
        f"{gib(need.weights)} weights, {gib(need.kv_cache)} KV cache, {gib(need.activations + need.workspace)} activations, "
        f"{gib(need.context)} CUDA context (GiB), for {asked.work.batch} x {asked.work.room} tokens in {asked.runtime.name}"
    )
    return (
        Evidence("counted from the model's shape", parts),
        Evidence(f"NVML, {card.name}", f"{gib(card.free)} GiB free{'' if card.total is None else f' of {gib(card.total)} GiB'}"),
        *(Evidence(f"NVML, process {h.pid}", f"{(h.used or 0) >> 20} MiB, {h.kind}, {h.name}") for h in card.holders[:6] if h.used),
    )


def _holders(card: Card) -> str:
    names = [holder.name for holder in card.holders if holder.used][:3]
    return f"{', '.join(names)} {'hold' if len(names) > 1 else 'holds'}"


def _release(card: Card) -> Fix:
    largest = next((holder for holder in card.holders if holder.kind == "compute" and holder.used), None)
    if largest is not None:
        return Fix("memory#free-held-memory", (("PID", str(largest.pid)), ("USER", largest.user or "its owner")))
    return Fix("memory#move-display") if card.holders else Fix("memory#find-hidden-holder")
