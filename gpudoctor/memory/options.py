"""What to do when it does not fit, in the order of least trouble, each way with what it then needs and the commands for it.

A way that does not help is left out: where the weights alone are more than the card, no shorter prompt is proposed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gpudoctor.knowledge import dtypes, gpus, models
from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.memory import card as cards
from gpudoctor.memory import commands
from gpudoctor.memory.card import Card
from gpudoctor.memory.model import of_known
from gpudoctor.memory.need import Need, Work
from gpudoctor.memory.question import Question
from gpudoctor.memory.runtimes import by_name, transformers
from gpudoctor.memory.verdict import Answer, verdict

SMALLER: dict[str, tuple[tuple[str, str], ...]] = {
    # action, dtype: by runtime; the two that know floating-point numbers only are helped by transformers
    "gpudoctor": (("8-bit", "int8"), ("4-bit", "int4")),
    "meta": (("8-bit", "int8"), ("4-bit", "int4")),
    "transformers": (("8-bit", "int8"), ("4-bit", "int4")),
    "vllm": (("8-bit", "fp8"), ("4-bit", "int4")),
    "llama.cpp": (("8-bit", "Q8_0"), ("4-bit", "Q4_K_M")),
}
SHORTEST, STEP = 128, 64
"""Tokens: less than a question and its answer is no use; lengths are proposed in round numbers."""
KINDS = ("desktop", "workstation", "datacenter")
OLD = {"Pascal", "Volta", "Maxwell"}
"""Architectures that nobody is advised to buy."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way. ``need`` is in bytes on the fullest GPU."""

    action: str
    """free-memory, shorter, upgrade-runtime, 8-bit, 4-bit, smaller-model, offload, more-gpus, bigger-card."""
    summary: str
    need: int
    verdict: Answer
    commands: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """It does, even if it is tight."""
        return self.verdict != "no"


def options(question: Question) -> tuple[Option, ...]:
    """The ways that help; empty where it fits, or nobody knows what is free."""
    if question.card is None or question.verdict == "fits":
        return ()
    ways = (_free_memory, _shorter, _upgrade, _smaller_numbers, _smaller_model, _offload, _more_gpus, _bigger_card)
    return tuple(option for way in ways for option in way(question, question.card))


def _free_memory(question: Question, card: Card) -> Iterator[Option]:
    """Named processes hold what is missing."""
    held = sum(holder.used or 0 for holder in card.holders)
    need = question.need
    after = verdict(need, card.free + held)
    if not held or card.shared or _worth(after) <= _worth(question.verdict):
        return
    computing = [holder for holder in card.holders if holder.kind == "compute" and holder.used]
    names = ", ".join(f"{h.name} (process {h.pid}, {(h.used or 0) >> 20} MiB)" for h in card.holders[:4] if h.used)
    ask = ["ps -o pid,user,etime,cmd --pid " + ",".join(str(holder.pid) for holder in card.holders if holder.used)]
    ask += [f"kill {holder.pid}" for holder in computing[:3]]
    yield Option("free-memory", f"close what holds the rest: {names}", need.total, after, tuple(ask))


def _worth(answer: Answer | None) -> int:
    return {"no": 0, "tight": 1, "fits": 2, None: 0}[answer]


def _shorter(question: Question, _card: Card) -> Iterator[Option]:
    """Fewer sequences at a time, then shorter ones: the most that fits."""
    if question.too_large or question.verdict != "no":
        return
    for work in _less(question.work):
        smaller = question.but(work=work)
        if smaller.verdict == "fits":
            yield Option("shorter", _in_words(work), smaller.need.total, "fits", commands.shorter(smaller))
            return


def _in_words(work: Work) -> str:
    return f"{work.batch} at a time, each of at most {work.room} tokens ({work.prompt} of them read at once)"


def _less(work: Work) -> Iterator[Work]:
    """Half as many sequences, again and again; then one of seven eighths of the length, again and again."""
    batch = work.batch
    while batch > 1:
        batch //= 2
        yield replace(work, batch=batch)
    room = work.room
    while (room := room * 7 // 8 // STEP * STEP) >= SHORTEST:
        prompt = max(1, work.prompt * room // work.room)
        yield replace(work, batch=1, prompt=prompt, new=room - prompt, length=None if work.length is None else room)


def _upgrade(question: Question, _card: Card) -> Iterator[Option]:
    if question.runtime.name != "transformers" or not transformers.is_old(question.version):
        return
    newer = question.but(version=None)
    if newer.need.total < question.need.total:
        command = commands.upgrade(question, "transformers")
        words = "a newer transformers, which holds less: of the logits, for one, those of the last position only"
        yield Option("upgrade-runtime", words, newer.need.total, newer.verdict or "no", (command,))


def _smaller_numbers(question: Question, _card: Card) -> Iterator[Option]:
    for action, name in SMALLER[question.runtime.name]:
        dtype = dtypes.of(name)
        if not _narrower(question, dtype):
            continue
        runtime = question.runtime if question.runtime.name in dtype.runtimes else by_name("transformers")
        if runtime is None:
            continue
        smaller = question.but(dtype=dtype, runtime=runtime, version=None)
        how = dtype.how if runtime is question.runtime else f"{dtype.how}, in transformers"
        yield Option(action, how, smaller.need.total, smaller.verdict or "no", _in_numbers(smaller, dtype))


def _narrower(question: Question, dtype: Dtype) -> bool:
    """By a quarter at least; what was quantised before it was stored is not quantised again but by llama.cpp."""
    quantised = question.model.contents is not None and question.model.contents.quantization is not None
    if quantised and dtype.kind != "gguf":
        return False
    return question.model.bytes_as(dtype) < 0.75 * question.model.bytes_as(question.dtype)


def _in_numbers(question: Question, dtype: Dtype) -> tuple[str, ...]:
    if dtype.kind == "gguf":
        return commands.as_gguf(question, dtype.name)
    if question.runtime.name == "vllm":
        return (commands.vllm(question, "--quantization", "fp8" if dtype.name == "fp8" else "bitsandbytes"),)
    return commands.eight_bit(question) if dtype.name == "int8" else commands.four_bit(question)


def _smaller_model(question: Question, _card: Card) -> Iterator[Option]:
    """The largest known sibling that fits: of the same series, else of the same family and vocabulary, else of the family."""
    mine = question.model
    kin = [known for known in models.known() if known.family == mine.architecture.family and known.parameters < mine.parameters]
    kin.sort(key=lambda known: (-_kinship(known, mine.name, mine.architecture.vocab), -known.parameters))
    for known in kin:
        smaller = question.but(model=of_known(known), dtype=None if question.dtype is None else question.dtype)
        if smaller.verdict == "fits":
            fetch = shlex.join(["hf", "download", *filter(None, (known.hf, known.file))])
            smoke = shlex.join(["gpudoctor", "smoke", "--ckpt", known.name])
            ask = (smoke, fetch) if known.shape() is not None else (fetch,)
            yield Option("smaller-model", f"{known.name} in {smaller.numbers}", smaller.need.total, "fits", ask)
            return


def _kinship(known: models.KnownModel, name: str, vocab: int) -> int:
    series = known.name.rpartition("-")[0]
    return 2 * (bool(series) and name.startswith(series)) + (known.vocab == vocab)


def _offload(question: Question, card: Card) -> Iterator[Option]:
    """As many layers on the GPU as fit beside everything else, the others on the CPU: slow, and it runs."""
    if card.shared or card.count > 1 or question.work.gpus > 1:
        return
    runtime = question.runtime if question.runtime.name in ("transformers", "vllm", "llama.cpp") else by_name("transformers")
    if runtime is None:
        return
    partly = question.but(runtime=runtime, version=None)
    whole = partly.need
    layers = partly.model.architecture.layers
    each = (partly.model.bytes_as(partly.dtype, "linear") + whole.kv_cache) // layers
    fixed = whole.total - each * layers
    fitting = min(layers - 1, (card.free - fixed) // each) if each else 0
    if fitting < 1:
        return
    need = fixed + each * fitting
    there = _of(whole, need)
    where = "" if runtime is question.runtime else ", in transformers"
    words = f"{fitting} of {layers} layers on the GPU, the others on the CPU{where}"
    yield Option("offload", words, need, verdict(there, card.free), commands.offloaded(partly, int(fitting), need))


def _of(whole: Need, total: int) -> Need:
    """The need of a part, so that the same margins count."""
    return replace(whole, weights=max(0, whole.weights - (whole.total - total)))


def _more_gpus(question: Question, card: Card) -> Iterator[Option]:
    """The fewest equal cards that hold it."""
    runtime = question.runtime if question.runtime.name != "meta" else by_name("transformers")
    if runtime is None or card.shared:
        return
    size = card.total or card.free
    for count in (2, 3, 4, 8):
        if count <= question.work.gpus or not _divides(question, runtime.name, count):
            continue
        work, whole = replace(question.work, gpus=count), replace(card, free=size)
        several = question.but(runtime=runtime, work=work, card=whole, version=None)
        if several.verdict == "fits":
            where = "" if runtime is question.runtime else ", in transformers"
            have = f" (this machine has {card.alike})" if card.alike >= count else ""
            yield Option(
                "more-gpus", f"{count} such cards{have}{where}", several.need.total, "fits", commands.split(several, count)
            )
            return


def _divides(question: Question, runtime: str, count: int) -> bool:
    """Tensor parallel runtimes divide heads; the others share out layers."""
    a = question.model.architecture
    return runtime not in ("gpudoctor", "vllm") or (a.heads % count == 0 and (a.kv_heads % count == 0 or runtime == "vllm"))


def _bigger_card(question: Question, card: Card) -> Iterator[Option]:
    """The least memory of a card in our table that suffices, and some that have it."""
    need = question.need
    able = [
        model
        for model in gpus.models()
        if model.kind in KINDS
        and model.architecture not in OLD
        and not model.unified
        and verdict(need, cards.usable(model)) == "fits"
    ]
    size = min((model.memory_gib for model in able), default=None)
    if size is None or size <= (card.total or card.free) / (1 << 30):
        return
    fitting = [model for model in able if model.memory_gib == size]
    fitting.sort(key=lambda model: (KINDS.index(model.kind), -model.bandwidth))
    names = [model.name.removeprefix("NVIDIA ") for model in fitting[:2]]
    ask = commands.again(question, "--gpu", names[0])
    yield Option("bigger-card", f"a card of {size:g} GiB, such as {' or '.join(names)}", need.total, "fits", (ask,))
