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
from gpudoctor.report.page import Page
from gpudoctor.report.words import headline, short_path
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
    "environment": "in this Python environment",
    "machine": "on this machine",
    "image": "in the image that this container is made from",
    "host": "on the host, outside this container",
    "windows": "in Windows, not inside WSL",
    "hypervisor": "on the hypervisor that runs this virtual machine",
    "administrator": "by whoever administers this machine",
    "code": "in your own code or command line",
}
RISK: dict[str, str] = {
    "none": "",
    "restarts-service": "restarts a service",
    "ends-session": "ends running programs or the desktop session",
    "reboots": "needs a reboot",
    "removes": "removes packages: read the list before you agree",
}
NARROW = 60
WORTH_KEEPING = ("driver", "pytorch")
"""What people reinstall in despair although it is well."""


def render(facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step], console: Console) -> None:
    """Print the report to ``console``."""
    page = Page(console)
    home = os.path.expanduser("~")
    page.line(headline(facts, home), style="bold")
    page.gap()
    _layers(page, diagnosis.checks)
    number = 0
    for finding in diagnosis.findings:
        number += finding.severity == "fail"
        page.gap()
        label = str(number) if finding.severity == "fail" else _mark_of(finding.severity)
        _finding(page, label, finding, steps[finding], home)
    page.gap()
    _closing(page, facts, diagnosis, steps)


def _mark_of(severity: Severity) -> str:
    return "!" if severity == "warn" else "·"


def _layers(page: Page, checks: Sequence[CheckResult]) -> None:
    """One line per layer; in a narrow terminal its summary stands below its title."""
    marks = max((len(_mark(page, check.status)) for check in checks), default=1)
    titles = max((len(check.title) for check in checks), default=0)
    narrow = page.console.width < NARROW
    for check in checks:
        mark = Text(f"{_mark(page, check.status):<{marks}} ", style=MARKS[check.status][2])
        summary = page.text(check.summary, "dim" if check.status in ("blocked", "skipped") else "")
        if narrow:
            page.console.print(Text.assemble(mark, page.text(check.title)))
            page.wrapped(summary, 2)
        else:
            head = Text.assemble("  ", mark, page.text(f"{check.title:<{titles}}  "))
            page.wrapped(summary, len(head), first=head)


def _mark(page: Page, status: Status) -> str:
    return MARKS[status][0 if page.unicode else 1]


def _finding(page: Page, number: str, finding: Finding, step: Step, home: str) -> None:
    style = "bold red" if finding.severity == "fail" else "bold"
    title = Text.assemble(page.text(finding.summary, style), page.text(f"  ({finding.code})", "dim"))
    page.wrapped(title, 3, first=page.text(f"{number:<3}", "bold"))
    page.indented(finding.cause)
    for evidence in finding.evidence[:3]:
        first = evidence.text.strip().splitlines()[0] if evidence.text.strip() else "(empty)"
        page.indented(f"seen: {short_path(evidence.source, home)}: {first}", "dim")
    _cure(page, step)
    page.indented(f"More: gpudoctor explain {finding.code}", "dim")


def _cure(page: Page, step: Step) -> None:
    page.gap()
    place, risk = WHERE.get(step.where, step.where), RISK.get(step.risk, step.risk)
    if step.prose:
        page.indented(f"What to do {place}: {step.prose}")
        page.gap()
    for command in step.commands:
        page.command(command)
    if not step.commands:
        return
    page.gap()
    if not step.prose and step.where != "environment":
        page.indented(f"Run it {place}.")
    if risk:
        page.indented(f"This {risk}.", "yellow")
    if step.verify:
        page.indented("Then see whether it worked:")
        for command in step.verify:
            page.command(command, "dim")


def _closing(page: Page, facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step]) -> None:
    faults = [finding for finding in diagnosis.findings if finding.severity == "fail"]
    sentence = foreign(facts.system)
    if sentence and any(step.where not in ("environment", "code") for step in steps.values()):
        page.line(sentence)
    well = _titles(check for check in diagnosis.checks if check.status in ("pass", "note") and check.name in WORTH_KEEPING)
    if faults and well:
        page.line(f"Well as it is, and not to be reinstalled: {well}.")
    page.line(_verdict(diagnosis, len(faults)), "bold")


def _titles(checks: Iterable[CheckResult]) -> str:
    return ", ".join(check.title for check in checks)


def _verdict(diagnosis: Diagnosis, faults: int) -> str:
    """The last line."""
    again = "then run gpudoctor check again"
    if faults:
        return f"1 fault. Cure it, {again}." if faults == 1 else f"{faults} faults. Start with 1, {again}."
    unknown = _titles(check for check in diagnosis.checks if check.status == "unknown")
    if diagnosis.status == "unknown":
        return f"No fault was found, but this could not be determined: {unknown or 'no check was run'}."
    if diagnosis.status == "warn":
        return "No fault. What is marked ! is worth a look."
    return "All is well."
