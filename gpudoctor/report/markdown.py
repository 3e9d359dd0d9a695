"""The report as Markdown: for a ticket, a forum, a step summary."""

from __future__ import annotations

import re

from gpudoctor.cures import foreign
from gpudoctor.diagnose import Diagnosis
from gpudoctor.facts import Facts
from gpudoctor.findings import Finding
from gpudoctor.report.headline import headline
from gpudoctor.report.terminal import RISK, WHERE
from gpudoctor.report.words import plain
from gpudoctor.steps import Step


def render(facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step]) -> str:
    """One page: the machine, a table of layers, each finding with its cure."""
    lines = [f"### gpudoctor: {diagnosis.status}", "", _text(headline(facts)), "", "| layer | status | |", "|---|---|---|"]
    lines += [f"| {_text(c.title)} | {c.status} | {_text(c.summary)} |" for c in diagnosis.checks]
    for finding in diagnosis.findings:
        lines += ["", *_finding(finding, steps[finding])]
    sentence = foreign(facts.system)
    if sentence and diagnosis.findings:
        lines += ["", _text(sentence)]
    return "\n".join(lines) + "\n"


def _finding(finding: Finding, step: Step) -> list[str]:
    lines = [f"#### {_text(finding.summary)} (`{finding.code}`, {finding.severity})", "", _text(finding.cause), ""]
    risk = RISK.get(step.risk, step.risk)
    head = f"What to do {WHERE.get(step.where, step.where)}{f' ({risk})' if risk else ''}:"
    lines.append(_text(f"{head} {step.prose}".strip()))
    if step.commands:
        lines += ["", *_block(step.commands)]
    verify = tuple(line for line in step.verify if line not in step.commands)
    if step.commands and verify:
        lines += ["", "Then see whether it worked:", "", *_block(verify)]
    return [*lines, "", *(f"- {_text(e.source)}: {_code(e.text)}" for e in finding.evidence)]


def _block(commands: tuple[str, ...]) -> list[str]:
    text = plain("\n".join(commands))
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return [f"{fence}sh", *text.split("\n"), fence]


def _code(text: str) -> str:
    harmless = " ".join(plain(text).split())
    fence = "`" * (max((len(run) for run in re.findall("`+", harmless)), default=0) + 1)
    return f"{fence} {harmless} {fence}"


def _text(text: str) -> str:
    """Prose in which nothing is markup, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(plain(text).split()))
