"""The smoke test for a person at a terminal: what was run, what came of it, what it proves; or the fault and its cure."""

from __future__ import annotations

import math
import os

from rich.console import Console
from rich.text import Text

from gpudoctor.cards import has_gpu
from gpudoctor.diagnose import Diagnosis
from gpudoctor.facts import Completion, Facts, Smoke, Unknown
from gpudoctor.findings import Finding, Status
from gpudoctor.proof import ran_on_cpu
from gpudoctor.report import terminal
from gpudoctor.report.headline import gpu_names
from gpudoctor.report.page import Page
from gpudoctor.report.words import gib, short_path
from gpudoctor.roofline import share_of_bandwidth
from gpudoctor.smoke.plan import Plan
from gpudoctor.steps import Step

FORMATS = {
    "meta": "Meta's .pth",
    "hf": "safetensors",
    "gguf": "GGUF",
    "llama2c": "llama2.c's .bin",
    "transformers": "through this environment's transformers",
}
SHOWN_IDS = 256
Row = tuple[Status, str, str]


def render(plan: Plan, facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step], console: Console) -> None:
    """Print the report to ``console``. ``diagnosis`` is the part that bears on the test (``gpudoctor.proof``)."""
    page = Page(console)
    smoke = facts.smoke if isinstance(facts.smoke, Smoke) else None
    page.line(_headline(plan, facts, smoke), "bold")
    if ran_on_cpu(facts, plan.device):
        page.line(_no_gpu(plan, facts), "bold yellow")
    page.gap()
    if smoke is not None and smoke.came_through:
        for completion in smoke.completions:
            _completion(page, completion, _no_words(plan, smoke))
            page.gap()
        terminal.layers(page, _proofs(facts, plan, smoke, {finding.code for finding in diagnosis.findings}))
    else:
        shown = [check for check in diagnosis.checks if check.status in ("fail", "unknown") or check is diagnosis.checks[-1]]
        terminal.layers(page, [(check.status, check.title, check.summary) for check in shown])
    for note in _notes(plan, smoke):
        page.wrapped(page.text(note), 4, first=page.text("  · "))
    terminal.findings(page, diagnosis, steps)
    page.gap()
    terminal.advice(page, facts, diagnosis, steps)
    page.line(_closing(plan, facts, diagnosis), "bold")


# ---------------------------------------------------------------- what was run


def _headline(plan: Plan, facts: Facts, smoke: Smoke | None) -> str:
    """Model, weights, size and dtype, device, interpreter; what is unknown is left out."""
    parts = [plan.name, _weights(plan, smoke), _size(plan, smoke), _device(plan, facts, smoke)]
    if facts.interpreter and not isinstance(facts.interpreter, Unknown):
        version = ".".join(facts.interpreter.version.split(".")[:2])
        parts.append(f"{short_path(facts.interpreter.path, os.path.expanduser('~'))} ({version})")
    return " · ".join(part for part in parts if part)


def _weights(plan: Plan, smoke: Smoke | None) -> str:
    if plan.pieces or plan.foreign:
        return FORMATS.get(plan.format, plan.format)
    if smoke is None or not smoke.came_through:
        return "random weights"
    return "random weights: memory, kernels and speed are tested, the text is noise"


def _size(plan: Plan, smoke: Smoke | None) -> str:
    known = smoke.parameters if smoke is not None and smoke.parameters is not None else None
    number = known if known is not None else plan.shape.parameters if plan.shape else None
    words = [] if number is None else [f"{_count(number)} parameters"]
    dtype = smoke.dtype if smoke is not None else None
    return ", ".join([*words, *([dtype] if dtype else [])])


def _count(number: int) -> str:
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def _device(plan: Plan, facts: Facts, smoke: Smoke | None) -> str:
    name = smoke.device_name if smoke is not None else None
    processes = smoke.processes if smoke is not None else plan.processes
    if ran_on_cpu(facts, plan.device):
        return ("CPU" if name is None else f"CPU ({name})") + (f", {processes} processes" if processes > 1 else "")
    if name is None:
        return gpu_names(facts)
    return name if processes == 1 else f"{processes} x {name}"


def _no_gpu(plan: Plan, facts: Facts) -> str:
    if plan.device == "cpu":
        return "On the CPU, as asked: no GPU is tested."
    why = "this machine has no NVIDIA GPU" if has_gpu(facts) is False else "PyTorch offers no GPU here"
    return f"On the CPU, since {why}: no GPU is tested."


# ---------------------------------------------------------------- what came of it


def _notes(plan: Plan, smoke: Smoke | None) -> tuple[str, ...]:
    """Those of the plan where it never began; and where there are no tokens, nothing about words."""
    if smoke is None or not smoke.completions:
        notes = plan.notes if smoke is None else smoke.notes
        return tuple(note for note in notes if not (plan.no_tokenizer and plan.no_tokenizer in note))
    return smoke.notes


def _no_words(plan: Plan, smoke: Smoke) -> str:
    """Why there are ids only, where no note says so."""
    why = plan.no_tokenizer
    return f"  (no words: {why})" if why and not any(why in note for note in smoke.notes) else ""


def _completion(page: Page, completion: Completion, no_words: str) -> None:
    rows = [("prompt", completion.prompt or "(empty)")]
    if completion.text is not None:
        rows.append(("text", completion.text))
    else:
        rows.append(("tokens", (_ids(completion.tokens) or "(none)") + no_words))
    if completion.logprobs is not None:
        rows.append(("log-probabilities", _logprobs(completion.tokens, completion.logprobs)))
    for title, words in rows:
        lead = page.text(f"  {title}", "dim")
        if page.console.width < terminal.NARROW or len(title) > len("tokens"):
            page.console.print(lead)
            page.wrapped(page.text(words), 4)
        else:
            page.wrapped(page.text(words), 10, first=Text.assemble(lead, " " * (10 - len(lead))))


def _ids(tokens: tuple[int, ...]) -> str:
    more = len(tokens) - SHOWN_IDS
    return " ".join(str(token) for token in tokens[:SHOWN_IDS]) + (f" ... and {more} more" if more > 0 else "")


def _logprobs(tokens: tuple[int, ...], logprobs: tuple[float, ...]) -> str:
    """Each token with its own; in front the mean, and what it means: as unsure as among so many equally likely tokens."""
    if not logprobs:
        return "(none)"
    mean = math.fsum(logprobs) / len(logprobs)
    pairs = [f"{token}:{value:.2f}" for token, value in zip(tokens, logprobs, strict=False)]
    more = len(pairs) - SHOWN_IDS
    perplexity = f", perplexity {math.exp(-mean):.4g}" if -700 < mean <= 0 else ""
    return f"mean {mean:.2f}{perplexity}; " + "  ".join(pairs[:SHOWN_IDS]) + (f"  ... and {more} more" if more > 0 else "")


# ---------------------------------------------------------------- what it proves


def _proofs(facts: Facts, plan: Plan, smoke: Smoke, codes: set[str]) -> list[Row]:
    rows = [_finite(smoke), _agreement(smoke), _repeatable(smoke), _together(smoke), _speed(facts, smoke), _memory(smoke, codes)]
    if smoke.device == "cpu":
        why = "--device cpu" if plan.device == "cpu" else "none in this machine" if has_gpu(facts) is False else "none to be had"
        rows.append(("skipped", "GPU", f"not tested: {why}"))
    return rows


def _finite(smoke: Smoke) -> Row:
    if smoke.finite is None:
        return ("skipped", "logits", "not looked at")
    return ("pass", "logits", "finite") if smoke.finite else ("fail", "logits", "NaN or infinity among them")


def _agreement(smoke: Smoke) -> Row:
    if smoke.difference is None or smoke.tolerance is None:
        return ("skipped", "agreement", "not compared: it ran on the CPU itself" if smoke.device == "cpu" else "not compared")
    words = f"(largest difference {smoke.difference:.2g} of {smoke.tolerance:.2g} allowed)"
    if 0.001 <= smoke.tolerance < 1:
        words = f"(largest difference {_percent(smoke.difference, 2)} of {_percent(smoke.tolerance, 2)} allowed)"
    if not smoke.difference <= smoke.tolerance:  # NaN too
        return ("fail", "agreement", f"CPU and GPU disagree {words}")
    return ("pass", "agreement", f"CPU and GPU agree {words}")


def _repeatable(smoke: Smoke) -> Row:
    if smoke.repeatable is None:
        return ("skipped", "repetition", "not tried")
    if smoke.repeatable:
        return ("pass", "repetition", "greedy decoding repeats")
    return ("warn", "repetition", "two greedy runs gave different tokens")


def _together(smoke: Smoke) -> Row:
    """NCCL, or what stands in for it on a CPU."""
    title = {"nccl": "NCCL", "gloo": "gloo"}.get(smoke.backend or "", "NCCL")
    if smoke.all_reduce is None:
        return ("skipped", title, "not started")
    world = f"world of {smoke.processes}"
    if not smoke.all_reduce:
        return ("fail", title, f"all-reduce wrong ({world})")
    fast = smoke.processes > 1 and smoke.all_reduce_bandwidth
    return (
        "pass",
        title,
        f"all-reduce right ({world}{f', {_rate(smoke.all_reduce_bandwidth or 0)} bus bandwidth' if fast else ''})",
    )


def _speed(facts: Facts, smoke: Smoke) -> Row:
    first = "" if smoke.seconds_to_first_token is None else f"; first token after {_seconds(smoke.seconds_to_first_token)}"
    total = f"; {_seconds(smoke.seconds_total)} in all"
    if smoke.tokens_per_second is None:
        return ("skipped", "speed", f"not measured with so few tokens{first}{total}")
    return ("pass", "speed", f"{_figure(smoke.tokens_per_second)} tokens/s{_share(facts)}{first}{total}")


def _share(facts: Facts) -> str:
    """Of what the memory can deliver, which is what decoding is bound by."""
    share = share_of_bandwidth(facts)
    if share is None:
        return ""
    return f", {_percent(share.fraction)} of {share.whole} ({_rate(share.bandwidth)})"


def _memory(smoke: Smoke, codes: set[str]) -> Row:
    if smoke.peak_memory is None:
        return ("skipped", "memory", "not measured")
    free = "" if smoke.free_memory is None else f" of {gib(smoke.free_memory)} free"
    if smoke.predicted_memory is None:
        return ("pass", "memory", f"peak {gib(smoke.peak_memory)}{free}")
    if smoke.device != "cuda":
        counted = f"; {gib(smoke.predicted_memory)} were counted for the model, the rest is the process's own"
        return ("pass", "memory", f"peak {gib(smoke.peak_memory)}{free}{counted}")
    off = smoke.peak_memory / smoke.predicted_memory - 1
    status: Status = "warn" if "memory-not-as-predicted" in codes else "pass"
    return (status, "memory", f"peak {gib(smoke.peak_memory)}{free}; {gib(smoke.predicted_memory)} predicted ({off:+.1%})")


def _percent(fraction: float, places: int = 0) -> str:
    return f"{fraction * 100:.{places}f} %"


def _rate(bandwidth: int) -> str:
    return f"{_figure(bandwidth / 1e9)} GB/s"


def _figure(number: float) -> str:
    """Three figures that mean something."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


# ---------------------------------------------------------------- the last lines


def _closing(plan: Plan, facts: Facts, diagnosis: Diagnosis) -> str:
    """How it ended, and where there is more to see."""
    layers = "gpudoctor check shows all layers."
    if diagnosis.status in ("pass", "warn"):
        where = " on the CPU" if ran_on_cpu(facts, plan.device) else ""
        more = " What is marked ! is worth a look." if diagnosis.status == "warn" else ""
        return f"The smoke test passed{where}.{more}"
    if diagnosis.status == "fail":
        return f"{terminal.faults(diagnosis, 'smoke')} {layers}"
    return f"No fault was found, but the smoke test came to no end. {layers}"
