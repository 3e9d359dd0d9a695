"""What to do when it does not fit, in the order of least trouble, each way with what it then needs and the commands for it.

A way that does not help is left out: where the weights alone are more than the card, no shorter prompt is proposed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gpudoctor.knowledge import dtypes, gpus, models
from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.knowledge.gpus import GpuModel
from gpudoctor.memory import card as cards
from gpudoctor.memory import commands
from gpudoctor.memory.card import Card, Holder
from gpudoctor.memory.model import of_known
from gpudoctor.memory.need import Work
from gpudoctor.memory.question import Question
from gpudoctor.memory.runtimes import LLAMA_CPP, TRANSFORMERS, transformers
from gpudoctor.memory.verdict import Answer, verdict

SMALLER: dict[str, tuple[tuple[str, str], ...]] = {
    # action, dtype: by runtime; the two that know floating-point numbers only are helped by transformers
    "gpudoctor": (("8-bit", "int8"), ("4-bit", "int4")),
    "meta": (("8-bit", "int8"), ("4-bit", "int4")),
    "transformers": (("8-bit", "int8"), ("4-bit", "int4")),
    "vllm": (("8-bit", "fp8"), ("4-bit", "int4")),
    "llama.cpp": (("8-bit", "Q8_0"), ("4-bit", "Q4_K_M")),
}
AS_GGUF = {"8-bit": "Q8_0", "4-bit": "Q4_K_M"}
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
    host: int = 0
    """Bytes of the machine's own memory that it takes besides."""

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
    """Named processes hold what is missing. What is somebody else's is named, and theirs to end."""
    holders = [holder for holder in card.holders if holder.used]
    after = question.but(card=replace(card, free=card.free + sum(holder.used or 0 for holder in holders))).verdict
    if card.shared or after is None or _worth(after) <= _worth(question.verdict):
        return
    names = ", ".join(f"{h.name}{_whose(h)} (process {h.pid}, {(h.used or 0) >> 20} MiB)" for h in holders[:4])
    look = ["ps", "-o", "pid,user,etime,cmd", "--pid", ",".join(str(holder.pid) for holder in holders)]
    mine = [holder for holder in holders if holder.kind == "compute" and holder.mine and holder.pid > 1]
    ends = (shlex.join(["kill", str(holder.pid)]) for holder in mine[:3])
    yield Option("free-memory", f"close what holds the rest: {names}", question.need.total, after, (shlex.join(look), *ends))


def _whose(holder: Holder) -> str:
    return "" if holder.mine or holder.user is None else f" of {holder.user}"


def _worth(answer: Answer | None) -> int:
    return {"no": 0, "tight": 1, "fits": 2, None: 0}[answer]


def _shorter(question: Question, _card: Card) -> Iterator[Option]:
    """Fewer sequences at a time, then shorter ones: the most that fits."""
    if question.too_large or question.verdict != "no":
        return
    for work in _less(question.work):
        smaller = question.but(work=work)
        if smaller.verdict == "fits":
            yield Option("shorter", _in_words(work), smaller.need.total, "fits", commands.run(smaller))
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
        # what bitsandbytes leaves as it is (experts), llama.cpp makes smaller
        for dtype in (dtypes.of(name), dtypes.of(AS_GGUF[action])):
            runtime = next(one for one in (question.runtime, TRANSFORMERS, LLAMA_CPP) if one.name in dtype.runtimes)
            smaller = question.but(dtype=dtype, runtime=runtime, version=None)
            if _narrower(question, dtype) and smaller.keeps(dtype) and _loads(smaller):
                how = dtype.how if runtime is question.runtime else f"{dtype.how}, in {runtime.name}"
                yield Option(action, how, smaller.need.total, smaller.verdict or "no", commands.run(smaller))
                break


def _loads(question: Question) -> bool:
    """Whether this runtime can load the model that is proposed for it."""
    return question.runtime is not TRANSFORMERS or question.model.auto


def _narrower(question: Question, dtype: Dtype) -> bool:
    """By a quarter at least; what was quantised before it was stored is not quantised again but by llama.cpp."""
    quantised = question.model.contents is not None and question.model.contents.quantization is not None
    if quantised and dtype.kind != "gguf":
        return False
    return question.model.bytes_as(dtype) < 0.75 * question.model.bytes_as(question.dtype)


def _smaller_model(question: Question, _card: Card) -> Iterator[Option]:
    """The largest known sibling that fits: of the same series, else of the same family and vocabulary, else of the family."""
    mine = question.model
    kin = [known for known in models.known() if known.family == mine.architecture.family and known.parameters < mine.parameters]
    kin.sort(key=lambda known: (-_kinship(known, mine.name, mine.architecture.vocab), -known.parameters))
    for known in kin:
        smaller = question.but(model=of_known(known))
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
    runtime = question.runtime if question.runtime.name in ("transformers", "vllm", "llama.cpp") else TRANSFORMERS
    partly = question.but(runtime=runtime, version=None)
    if not _loads(partly):
        return
    whole, layers = partly.need, partly.model.architecture.layers
    each = partly.model.bytes_as(partly.dtype, "linear") // layers
    # llama.cpp keeps the cache of a layer where the layer is; elsewhere all of it is on the GPU, and layers pass through it
    with_cache = whole.kv_cache // layers if runtime.name == "llama.cpp" else 0
    through = 0 if runtime.name == "llama.cpp" else each
    fixed = whole.total - (each + with_cache) * layers + through
    fitting = min(layers - 1, (card.free - fixed) // (each + with_cache)) if each else 0
    if fitting < 1:
        return
    need = fixed + (each + with_cache) * fitting
    there = replace(whole, weights=max(0, whole.weights - (whole.total - need)))
    where = "" if runtime is question.runtime else ", in transformers"
    words = f"{fitting} of {layers} layers on the GPU, the others on the CPU{where}"
    on_gpu = whole.weights - each * (layers - int(fitting))
    lines = commands.offloaded(partly, int(fitting), on_gpu, each)
    yield Option("offload", words, need, verdict(there, card.free), lines, whole.weights - on_gpu)


def _more_gpus(question: Question, card: Card) -> Iterator[Option]:
    """The fewest equal cards that hold it, where one that is empty does not."""
    runtime = question.runtime if question.runtime.name != "meta" else TRANSFORMERS
    size = card.total or card.free
    if card.shared or card.part or question.on(replace(card, free=size)).verdict == "fits":
        return
    for count in (2, 3, 4, 8):
        work, whole = replace(question.work, gpus=count), replace(card, free=size)
        several = question.but(runtime=runtime, work=work, card=whole, version=None)
        if count <= question.work.gpus or not _divides(question, runtime.name, count) or not _loads(several):
            continue
        if several.verdict == "fits":
            where = "" if runtime is question.runtime else ", in transformers"
            have = f" (this machine has {card.alike})" if card.alike >= count else ""
            words = f"{count} such cards{have}{where}"
            yield Option("more-gpus", words, several.need.total, "fits", commands.run(several))
            return


def _divides(question: Question, runtime: str, count: int) -> bool:
    """Tensor parallel runtimes divide heads; the others share out layers."""
    a = question.model.architecture
    return runtime not in ("gpudoctor", "vllm") or (a.heads % count == 0 and (a.kv_heads % count == 0 or runtime == "vllm"))


def _bigger_card(question: Question, card: Card) -> Iterator[Option]:
    """The least memory of a card in our table that suffices, and some that have it; as many of them as there are now."""
    size = card.total or card.free
    if question.on(replace(card, free=size)).verdict == "fits":
        return
    able = [model for model in gpus.models() if model.kind in KINDS and model.architecture not in OLD and not model.unified]
    able = [model for model in able if model.memory_bytes > size and _on(question, model).verdict == "fits"]
    least = min((model.memory_gib for model in able), default=None)
    if least is None:
        return
    fitting = [model for model in able if model.memory_gib == least]
    fitting.sort(key=lambda model: (KINDS.index(model.kind), -model.bandwidth))
    names = [model.name.removeprefix("NVIDIA ") for model in fitting[:2]]
    times = question.work.gpus
    ask = commands.again(question, "--gpu", names[0] if times == 1 else f"{times}x {names[0]}")
    what = f"a card of {least:g} GiB" if times == 1 else f"{times} cards of {least:g} GiB"
    need = _on(question, fitting[0]).need.total
    yield Option("bigger-card", f"{what}, such as {' or '.join(names)}", need, "fits", (ask,))


def _on(question: Question, model: GpuModel) -> Question:
    size = cards.usable(model)
    return question.on(Card(model.name, size, size, question.work.gpus, capability=model.compute_capability))
