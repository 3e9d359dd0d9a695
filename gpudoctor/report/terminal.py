"""The report for a person at a terminal: one calm line per layer, then the one thing to do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from gpudoctor.cures import foreign
from gpudoctor.diagnose import CheckResult, Diagnosis
from gpudoctor.facts import Facts
from gpudoctor.findings import Finding, Severity, Status
from gpudoctor.report.headline import headline
from gpudoctor.report.page import Page
from gpudoctor.report.words import short_text, shortened
from gpudoctor.steps import Step

MARKS: dict[Status, tuple[str, str, str]] = {
    # status: (mark, the same in ASCII, style)
    "pass": ("✓", "ok", "green"),
    "note": ("✓", "ok", "green"),
    "warn": ("!", "!", "yellow"),
    "fail": ("✗", "x", "bold red"),
    "unknown": ("?", "?", "yellow"),
    "blocked": ("–", "-", "dim"),
    "skipped": ("–", "-", "dim"),
}
WHERE: dict[str, str] = {
    "environment": "in this environment",
    "machine": "on this machine",
    "image": "in the image that this container is made from",
    "host": "on the host, outside this container",
    "windows": "in Windows, not inside WSL",
    "hypervisor": "on the hypervisor that runs this virtual machine",
    "administrator": "with the administrator of this machine",
    "code": "in your own code or command line",
}
RISK: dict[str, str] = {
    "none": "",
    "restarts-service": "restarts a service",
    "ends-session": "ends running programs or the desktop session",
    "reboots": "needs a reboot",
    "removes": "removes packages or files: read before you agree",
}
NARROW = 60
SHOWN_EVIDENCE = 3
WORTH_KEEPING = ("driver", "pytorch")
"""What people reinstall in despair although it is well."""


def render(facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step], console: Console) -> None:
    """Print the report to ``console``."""
    page = Page(console)
    home = os.path.expanduser("~")
    page.line(headline(facts, home), style="bold")
    page.gap()
    layers(page, [(check.status, check.title, check.summary) for check in diagnosis.checks])
    findings(page, diagnosis, steps)
    page.gap()
    advice(page, facts, diagnosis, steps)
    page.line(_verdict(diagnosis), "bold")


def findings(page: Page, diagnosis: Diagnosis, steps: dict[Finding, Step]) -> None:
    """Every finding with its cure; the faults are numbered in the order in which to cure them."""
    home, number = os.path.expanduser("~"), 0
    for finding in diagnosis.findings:
        number += finding.severity == "fail"
        page.gap()
        label = str(number) if finding.severity == "fail" else _mark_of(finding.severity)
        _finding(page, label, finding, steps[finding], home)


def _mark_of(severity: Severity) -> str:
    return "!" if severity == "warn" else "·"


def layers(page: Page, rows: Sequence[tuple[Status, str, str]]) -> None:
    """One line per layer: (status, title, summary); in a narrow terminal its summary stands below its title."""
    marks = max((len(_mark(page, status)) for status, _, _ in rows), default=1)
    titles = max((len(title) for _, title, _ in rows), default=0)
    narrow = page.console.width < NARROW
    for status, title, words in rows:
        mark = Text(f"{_mark(page, status):<{marks}} ", style=MARKS[status][2])
        summary = page.text(words, "dim" if status in ("blocked", "skipped") else "")
        if narrow:
            page.console.print(Text.assemble(mark, page.text(title)))
            page.wrapped(summary, 2)
        else:
            head = Text.assemble("  ", mark, page.text(f"{title:<{titles}}  "))
            page.wrapped(summary, len(head), first=head)


def _mark(page: Page, status: Status) -> str:
    return MARKS[status][0 if page.unicode else 1]


def _finding(page: Page, number: str, finding: Finding, step: Step, home: str) -> None:
    """What is wrong and why, then what to do; what was seen comes last, for whoever doubts it."""
    style = "bold red" if finding.severity == "fail" else "bold"
    title = Text.assemble(page.text(short_text(finding.summary, home), style), page.text(f"  ({finding.code})", "dim"))
    page.wrapped(title, 3, first=page.text(f"{number:<3}", "bold"))
    page.indented(short_text(finding.cause, home))
    page.gap()
    cure(page, step)
    for evidence in finding.evidence[:SHOWN_EVIDENCE]:
        page.indented(f"Seen: {short_text(evidence.source, home)}: {short_text(shortened(evidence.text), home)}", "dim")
    page.indented(f"More: gpudoctor explain {finding.code}", "dim")


def cure(page: Page, step: Step) -> None:
    """Where and what, its risk before the commands, and how to see that it worked where that is more than the commands say."""
    place, risk = WHERE.get(step.where, step.where), RISK.get(step.risk, step.risk)
    head = f"What to do {place}{f' ({risk})' if risk else ''}:"
    if step.prose or risk or step.where != "environment":
        page.indented(f"{head} {step.prose}".rstrip())
        page.gap()
    if step.needs_reboot and len(step.commands) > 1:
        page.indented("One line at a time: read what each prints before the restart.")
        page.gap()
    for command in step.commands:
        page.command(command)
    if step.commands:
        page.gap()
    verify = [line for line in step.verify if line not in step.commands]
    if step.commands and verify:
        page.indented("Then see whether it worked:")
        for command in verify:
            page.command(command, "dim")


def advice(page: Page, facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step]) -> None:
    """What to know before following any of it: steps written for another system, and what is well and must be left alone."""
    sentence = foreign(facts.system)
    if sentence and any(step.where not in ("environment", "code") for step in steps.values()):
        page.line(sentence)
    well = _leave_alone(diagnosis.checks) if diagnosis.root_causes else ""
    if well:
        page.line(well)


def _leave_alone(checks: Sequence[CheckResult]) -> str:
    """What is well and must not be touched, since most of the damage comes from reinstalling it; empty when neither is."""
    well = [check for check in checks if check.name in WORTH_KEEPING and _is_well(check)]
    names = [check.title if check.title[:1].isupper() else f"the {check.title}" for check in well]
    words = " and ".join(names)
    them = "them" if len(names) > 1 else "it"
    return f"{words[:1].upper()}{words[1:]} {'are' if len(names) > 1 else 'is'} well: do not reinstall {them}." if names else ""


def _is_well(check: CheckResult) -> bool:
    """It passed, or what is wrong lies beside PyTorch (a package of its own, a variable)."""
    if check.status in ("pass", "note", "warn"):
        return True
    faults = [finding for finding in check.findings if finding.severity == "fail"]
    return check.name == "pytorch" and check.status == "fail" and not any(finding.blocks for finding in faults)


def _titles(checks: Iterable[CheckResult]) -> str:
    return ", ".join(check.title for check in checks)


def faults(diagnosis: Diagnosis, verb: str) -> str:
    """How many there are and what to do then; empty where there is none."""
    number = sum(finding.severity == "fail" for finding in diagnosis.findings)
    again = f"then run gpudoctor {verb} again"
    if not number:
        return ""
    return f"1 fault. Cure it, {again}." if number == 1 else f"{number} faults. Start with 1, {again}."


def _verdict(diagnosis: Diagnosis) -> str:
    """The last line."""
    found = faults(diagnosis, "check")
    if found:
        return found
    unknown = _titles(check for check in diagnosis.checks if check.status == "unknown")
    if diagnosis.status == "unknown":
        return f"No fault was found, but this could not be determined: {unknown or 'no check was run'}."
    if diagnosis.status == "warn":
        return "No fault. What is marked ! is worth a look."
    return "All is well."
