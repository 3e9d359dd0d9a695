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
    lines = [f"### gpudoctor: {diagnosis.status}", "", text(headline(facts)), "", "| layer | status | |", "|---|---|---|"]
    lines += [f"| {text(c.title)} | {c.status} | {text(c.summary)} |" for c in diagnosis.checks]
    for finding in diagnosis.findings:
        lines += ["", *_finding(finding, steps[finding])]
    sentence = foreign(facts.system)
    if sentence and diagnosis.findings:
        lines += ["", text(sentence)]
    return "\n".join(lines) + "\n"


def _finding(finding: Finding, step: Step) -> list[str]:
    lines = [f"#### {text(finding.summary)} (`{finding.code}`, {finding.severity})", "", text(finding.cause), "", *cure(step)]
    return [*lines, "", *(f"- {text(e.source)}: {code(e.text)}" for e in finding.evidence)]


def cure(step: Step) -> list[str]:
    """Where and what, and how to see that it worked."""
    risk = RISK.get(step.risk, step.risk)
    head = f"What to do {WHERE.get(step.where, step.where)}{f' ({risk})' if risk else ''}:"
    lines = [text(f"{head} {step.prose}".strip())]
    if step.commands:
        lines += ["", *block(step.commands)]
    verify = tuple(line for line in step.verify if line not in step.commands)
    if step.commands and verify:
        lines += ["", "Then see whether it worked:", "", *block(verify)]
    return lines


def block(commands: tuple[str, ...]) -> list[str]:
    """Commands in a fence that none of them can close."""
    lines = plain("\n".join(commands))
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", lines)), 3)
    return [f"{fence}sh", *lines.split("\n"), fence]


def code(words: str) -> str:
    """Words from outside as code, on one line, whatever stands in them."""
    harmless = " ".join(plain(words).split())
    fence = "`" * (max((len(run) for run in re.findall("`+", harmless)), default=0) + 1)
    return f"{fence} {harmless} {fence}"


def text(words: str) -> str:
    """Prose in which nothing is markup, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(plain(words).split()))
