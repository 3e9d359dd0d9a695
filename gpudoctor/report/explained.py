"""The answer to a pasted text, at a terminal and as Markdown: the likeliest cause first, never a list of everything."""

from __future__ import annotations

import os

from rich.console import Console
from rich.text import Text

from gpudoctor.cures import foreign
from gpudoctor.explain import Explanation
from gpudoctor.facts import Companion, Facts, Symptom, Toolkit, Torch, Unknown
from gpudoctor.fill import VARIABLE
from gpudoctor.findings import Finding
from gpudoctor.report import markdown, terminal
from gpudoctor.report.headline import gpu_names
from gpudoctor.report.page import Page
from gpudoctor.report.words import short_text, shortened
from gpudoctor.steps import Step
from gpudoctor.symptoms import condition

NOTHING = "Nothing here is an environment fault."
NAMES = "Names such as $PYTHON stand for values of your machine: gpudoctor check prints the commands with them filled in."
SHOWN, QUOTED = 3, 300


def render(facts: Facts, answer: Explanation, steps: dict[Finding, Step], console: Console) -> None:
    """Print the answer."""
    page, home = Page(console), os.path.expanduser("~")
    page.line(_seen(facts), "bold")
    page.gap()
    if not answer.findings:
        _nothing(page, answer)
        return
    first, *others = answer.findings
    lead = "" if answer.settled else "Perhaps: "
    page.wrapped(
        Text.assemble(page.text(f"{lead}{short_text(first.summary, home)}", "bold red"), page.text(f"  ({first.code})", "dim"))
    )
    for evidence in first.evidence[:SHOWN]:
        page.indented(f"> {shortened(evidence.text, QUOTED)}", "dim")
    page.gap()
    page.indented(short_text(first.cause, home))
    page.gap()
    terminal.cure(page, steps[first])
    if any(VARIABLE.search(line) for line in steps[first].commands):
        page.indented(NAMES)
    page.indented(f"More: gpudoctor explain {first.code}", "dim")
    if not answer.settled and answer.asks:
        page.gap()
        page.line(_asks(answer.asks))
    if others:
        page.gap()
        page.line("If it is not that:")
        for other in others:
            page.indented(f"- {_other(other)}")
    sentence = foreign(facts.system)
    if sentence and steps[first].where not in ("environment", "code"):
        page.gap()
        page.line(sentence)


def render_markdown(facts: Facts, answer: Explanation, steps: dict[Finding, Step]) -> str:
    """The same for a ticket or a forum."""
    lines = [f"### gpudoctor explain: {markdown.text(_seen(facts))}", ""]
    if not answer.findings:
        lines += [markdown.text(line) for line in _words_for_nothing(answer)]
        return "\n".join(lines) + "\n"
    first, *others = answer.findings
    lead = "" if answer.settled else "Perhaps: "
    lines += [f"#### {lead}{markdown.text(first.summary)} (`{first.code}`)", ""]
    lines += [f"- {markdown.code(evidence.text)}" for evidence in first.evidence]
    lines += ["", markdown.text(first.cause), "", *markdown.cure(steps[first])]
    if answer.asks:
        lines += ["", markdown.text(_asks(answer.asks))]
    if others:
        lines += ["", "If it is not that:", "", *(f"- {markdown.text(_other(other))}" for other in others)]
    return "\n".join(lines) + "\n"


def _nothing(page: Page, answer: Explanation) -> None:
    for line in _words_for_nothing(answer):
        page.line(line)


def _words_for_nothing(answer: Explanation) -> list[str]:
    if answer.asks:
        return [f"The text complains of something, and does not tell its cause. {_asks(answer.asks)}"]
    lines = [NOTHING]
    lines += [f"{_quoted(symptom)}: no action is needed; {condition(symptom.id)}." for symptom in answer.harmless[:SHOWN]]
    special = [symptom for symptom in answer.ordinary if symptom.id not in ("plain-error", "plain-attribute-error")]
    shown = (special or list(answer.ordinary))[-1:]
    lines += [f"{_quoted(symptom)}: {condition(symptom.id)}. Driver, CUDA and PyTorch are not at fault by it." for symptom in shown]
    return lines


def _quoted(symptom: Symptom) -> str:
    return f'"{shortened(symptom.text, 100)}"'


def _asks(what: str) -> str:
    return f"The text does not settle it. What would: {what}."


def _other(finding: Finding) -> str:
    when = f" It is this when {finding.apart}." if finding.apart else ""
    return f"{finding.summary} ({finding.code}).{when}"


def _seen(facts: Facts) -> str:
    """Which text it is, and what it tells of its machine."""
    parts = [facts.complaint.source if facts.complaint else "text"]
    system = facts.system
    if not isinstance(system, Unknown):
        parts += [system.os_name, f"WSL{system.wsl}" if system.wsl else "", "in a container" if system.container else ""]
    parts.append(gpu_names(facts))
    parts += (
        [f"driver {facts.nvml.driver_version}"]
        if not isinstance(facts.nvml, Unknown) and isinstance(facts.nvml.driver_version, str)
        else []
    )
    parts += [_torch(facts.torch)] if isinstance(facts.torch, Torch) else []
    parts += [_toolkit(facts.toolkits[0])] if isinstance(facts.toolkits, tuple) and facts.toolkits else []
    parts += [] if isinstance(facts.companions, Unknown) else [_companion(c) for c in facts.companions[:2]]
    return " · ".join(part for part in parts if part)


def _torch(torch: Torch) -> str:
    tagged = "+" in torch.version or torch.cuda is None
    return f"PyTorch {torch.version}" if tagged else f"PyTorch {torch.version} (CUDA {torch.cuda})"


def _toolkit(toolkit: Toolkit) -> str:
    return f"nvcc {toolkit.version}" if isinstance(toolkit.version, str) else ""


def _companion(companion: Companion) -> str:
    return f"{companion.name} {companion.version}"
