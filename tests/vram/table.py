"""Writes the tables of docs/memory-published.md from published.jsonl: ``python -m tests.vram.table``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpudoctor.knowledge import gpus
from gpudoctor.memory import card as cards
from gpudoctor.memory.need import CONTEXT_LEAST, CONTEXT_MOST, GIB, Need, Work
from gpudoctor.memory.runtimes import vllm
from gpudoctor.memory.verdict import Answer, verdict
from tests.vram.published import AFTER_THE_LAST, NEAR, Row, mean, rows

PAGE = Path(__file__).resolve().parents[2] / "docs" / "memory-published.md"
BEGIN, END = "<!-- {}: written by tests/vram/table.py -->", "<!-- end of {} -->"
MISS = 0.02
"""From here on a row is listed by itself."""
VLLM_TAKES = 0.9
"""Of the card, unless it is told otherwise (--gpu-memory-utilization)."""

WHY_ROWS = {
    "gt0012": "the text ended early: what is missing is the cache of 1,150 tokens",
    "gt0083": "the peak of loading: 0.68 GiB are the weights and the head, which is tied to the embedding only afterwards",
    "gt0249": "sum over two GPUs; the logits of all positions are on one of them",
    "gt0255": "sum over two GPUs; the logits of all positions are on one of them",
    "gt0322": "with a head of its own (the model's is the embedding's) it would be 8.35 GiB: +0.6 %",
    "gt0410": "the experts are padded: 2880 to 3072 on one side would be 0.63 of the missing 0.64 GiB",
    "gt0447": "measured as used memory of the whole card, with the CUDA context",
}
WHY = {
    ("hf-transformers-4.51", "fp8-block"): "up to 4B these files have a head of their own: 2 x vocabulary x width bytes",
    ("hf-transformers-4.51", "awq-int4-g128"): "grows by 17 to 20 kB for each token of the prompt: the kernel's own, not counted",
    ("hf-transformers-4.46", "gptq-int4-g128"): "the kernel's buffer, as large as the largest matrix in fp16; rests of blocks",
    ("hf-transformers-4.46", "gptq-int8-g128"): "rests of the allocator's blocks, up to 1 MiB for each matrix",
    ("hf-transformers-4.38", "gptq-int4-g128"): "the kernel's buffer, as large as the largest matrix in fp16",
    ("hf-transformers-4.38", "gptq-int8-g128"): "rests of the allocator's blocks, up to 1 MiB for each matrix",
    (
        "hf-transformers-4.3x",
        "bf16",
    ): "not said what was measured; it grows as the square of the length: scores written down",
    ("qwen1-remote-code", ""): "the model's own code, not transformers'; what was measured is not said",
    ("autoawq-fused", ""): "fused layers reserve a cache and buffers of their own",
    ("exllama", ""): "a program of its own, with buffers for 2048 positions",
    ("litgpt", ""): "its own program, and the peak of loading and quantising too",
    ("litgpt-sequential", ""): "embedding and head on one GPU with its layers",
    ("litgpt-tp", ""): "embedding and head are whole on every GPU",
    ("torchao-generate", ""): "reserved, not allocated; compiled, which takes copies of its own",
    ("llama.cpp", ""): "another mixture of kinds of blocks",
    ("ik_llama.cpp", ""): "another mixture of kinds of blocks",
    ("meta-llama", ""): "what was measured is not said",
}


def why(row: Row) -> str:
    """The cause of a miss, as far as it can be told."""
    return WHY_ROWS.get(row.id) or WHY.get((row.runtime, row.numbers)) or WHY.get((row.runtime, "")) or "not known"


def errors() -> Iterator[str]:
    """One line for each program and kind of numbers."""
    yield "| program | numbers | what | rows | mean error | largest |"
    yield "|---|---|---|--:|--:|--:|"
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in rows():
        if row.fits:
            groups.setdefault((row.runtime, row.numbers, row.kind), []).append(row.error)
    for (runtime, numbers, kind), found in sorted(groups.items()):
        worst = max(found, key=abs)
        yield f"| {runtime} | {numbers} | {kind} | {len(found)} | {mean(found):.2%} | {worst:+.2%} |"


def misses() -> Iterator[str]:
    """The rows that are off by more than 2 %, the most first, program by program."""
    yield "| row | program | model | numbers | batch x (prompt + new) | GPUs | measured | counted | error | why |"
    yield "|---|---|---|---|---|--:|--:|--:|--:|---|"
    missed = [row for row in rows() if row.fits and abs(row.error) > MISS]
    for row in sorted(missed, key=lambda row: (row.runtime, row.numbers, -abs(row.error))):
        work = f"{row.max_batch_size or row.batch} x ({row.prompt or '?'} + {row.new or 0})"
        sizes = f"{row.gib:.2f} | {row.counted:.2f} | {row.error:+.1%}"
        yield f"| {row.id} | {row.runtime} | {row.model} | {row.numbers} | {work} | {row.gpus} | {sizes} | {why(row)} |"


@dataclass(frozen=True, slots=True)
class Hard:
    """A card within 5 % of what we count, what we say of it, and what the measurement says: runs, no, or either."""

    row: Row
    card: str
    free: int
    need: Need
    said: Answer
    truth: str

    @property
    def wrong(self) -> str:
        """yes: we would have let somebody try in vain. no: we would have kept somebody from what works."""
        if self.said == "fits" and self.truth == "no":
            return "wrong yes"
        return "wrong no" if self.said == "no" and self.truth == "runs" else ""


def hard() -> tuple[Hard, ...]:
    """Every measured run on one GPU beside every card of our table that is within 5 % of what we count for it."""
    sizes: dict[int, str] = {}
    for model in gpus.models():
        if not model.unified:
            sizes.setdefault(cards.usable(model), model.name)
    found = [
        _judged(row, name, size, row.need(), row.gib * GIB)
        for row in rows()
        if row.fits and row.kind == "total" and row.gpus == 1 and _measures_the_peak_of_ours(row)
        for size, name in sorted(sizes.items())
    ]
    return tuple(case for case in (*found, *_vllm()) if abs(case.free - case.need.total) <= NEAR * case.need.total)


def _measures_the_peak_of_ours(row: Row) -> bool:
    return row.runtime != AFTER_THE_LAST and row.runtime.startswith(("hf-", "llama.cpp", "meta"))


def _judged(row: Row, name: str, size: int, need: Need, allocated: float) -> Hard:
    """It took so much without a CUDA context, so it runs beside the largest one, and not where even the least is too much."""
    truth = "runs" if allocated + CONTEXT_MOST <= size else "no" if allocated + CONTEXT_LEAST > size else "either"
    return Hard(row, name, size, need, verdict(need, size), truth)


def _vllm() -> Iterator[Hard]:
    """The room for a cache that vLLM said it has: it starts with sequences of that many tokens, and refuses more."""
    for row in rows():
        if row.runtime != "vllm" or row.kind != "kv" or row.model != "llama-3.1-8b":
            continue  # the other model's weights have an image encoder, which is not counted
        card = row.card or cards.named("H100 80GB")
        budget = int(VLLM_TAKES * (card.total or card.free))
        for part in (0.95, 1, 1.05):
            work = Work(1, 1, 1, int((row.prompt or 0) * part), hopper=row.gpu.startswith("H100"))
            need = vllm.need(row.known, work, row.dtype)
            said = verdict(need, budget)
            yield Hard(row, f"{card.name}, 0.9 of it, {work.room} tokens", budget, need, said, "runs" if part <= 1 else "no")


def verdicts() -> Iterator[str]:
    """The hard cases: how often which answer came, then one line each."""
    yield "| row | program | model | numbers | measured | counted, with context | card | free | said | measurement says | |"
    yield "|---|---|---|---|--:|--:|---|--:|---|---|---|"
    for case in hard():
        row, sizes = case.row, f"{case.row.gib:.2f} | {case.need.total / GIB:.2f} | {case.card} | {case.free / GIB:.2f}"
        yield f"| {row.id} | {row.runtime} | {row.model} | {row.numbers} | {sizes} | {case.said} | {case.truth} | {case.wrong} |"


TABLES = {"errors": errors, "misses": misses, "verdicts": verdicts}


def written(page: str) -> str:
    """The page with its tables as they should be."""
    for name, lines in TABLES.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = "\n".join([f"{before}{begin}", "", *lines(), "", f"{end}{after}"])
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
