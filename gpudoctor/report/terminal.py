"""The report for a person at a terminal: one calm line per layer, then the one thing to do.

Everything is built from ``Text``, never from markup, so that nothing that a machine says can style or break the report.
Commands are printed unwrapped, whatever the width: a wrapped command cannot be pasted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from gpudoctor.cures import foreign
from gpudoctor.diagnose import CheckResult, Diagnosis
from gpudoctor.facts import Facts
from gpudoctor.findings import Evidence, Finding, Severity, Status
from gpudoctor.report.words import headline, plain, short_path
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
ASCII = str.maketrans({"·": "|", "–": "-", "✓": "+", "✗": "x", "…": "...", "’": "'", "—": "-", "→": "->", "≥": ">=", "≤": "<="})


def render(facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step], console: Console) -> None:
    """Print the report to ``console``."""
    page = _Page(console, facts.variable("HOME") or os.path.expanduser("~"))
    page.line(headline(facts, page.home), style="bold")
    page.gap()
    page.layers(diagnosis.checks)
    faults = [finding for finding in diagnosis.findings if finding.severity == "fail"]
    others = [finding for finding in diagnosis.findings if finding.severity != "fail"]
    for number, finding in enumerate(faults, 1):
        page.gap()
        page.finding(str(number), finding, steps[finding])
    for finding in others:
        page.gap()
        page.finding(_mark_of(finding.severity), finding, steps[finding])
    page.gap()
    page.closing(facts, diagnosis, faults, [steps[finding] for finding in diagnosis.findings])


def _mark_of(severity: Severity) -> str:
    return "!" if severity == "warn" else "·"


class _Page:
    """What is printed, in this console's width, colours and character set."""

    def __init__(self, console: Console, home: str) -> None:
        self.console = console
        self.home = home
        self.unicode = "utf" in (console.encoding or "").lower()

    def text(self, words: str, style: str = "") -> Text:
        harmless = plain(words)
        return Text(harmless if self.unicode else harmless.translate(ASCII), style=style)

    def line(self, words: str, style: str = "") -> None:
        self._wrapped(self.text(words, style))

    def gap(self) -> None:
        self.console.print()

    def layers(self, checks: Sequence[CheckResult]) -> None:
        """One line per layer; in a narrow terminal its summary stands below its title."""
        wide = max((len(check.title) for check in checks), default=0) + 2
        narrow = self.console.width < NARROW
        for check in checks:
            mark, ascii_mark, style = MARKS[check.status]
            head = Text.assemble(
                "" if narrow else "  ",
                (f"{mark if self.unicode else ascii_mark:<{1 if self.unicode else 2}} ", style),
                self.text(check.title),
            )
            summary = self.text(check.summary, "dim" if check.status in ("blocked", "skipped") else "")
            if narrow:
                self.console.print(head)
                self._wrapped(summary, 2)
            else:
                head.pad_right(wide + 4 - len(head) if self.unicode else wide + 5 - len(head))
                self._wrapped(summary, len(head), first=head)

    def finding(self, number: str, finding: Finding, step: Step) -> None:
        style = "bold red" if finding.severity == "fail" else "bold"
        title = Text.assemble(self.text(finding.summary, style), self.text(f"  ({finding.code})", "dim"))
        self._wrapped(title, 3, first=self.text(f"{number:<3}", "bold"))
        self._indented(finding.cause)
        for evidence in finding.evidence[:3]:
            self._evidence(evidence)
        self._cure(step)
        self._indented(f"More: gpudoctor explain {finding.code}", "dim")

    def _evidence(self, evidence: Evidence) -> None:
        first = evidence.text.strip().splitlines()[0] if evidence.text.strip() else "(empty)"
        self._indented(f"seen: {short_path(evidence.source, self.home)}: {first}", "dim")

    def _cure(self, step: Step) -> None:
        self.gap()
        place, risk = WHERE.get(step.where, step.where), RISK.get(step.risk, step.risk)
        if step.prose:
            self._indented(f"What to do {place}: {step.prose}")
            self.gap()
        for command in step.commands:
            self._command(command)
        if not step.commands:
            return
        self.gap()
        if not step.prose and step.where != "environment":
            self._indented(f"Run it {place}.")
        if risk:
            self._indented(f"This {risk}.", "yellow")
        if step.verify:
            self._indented("Then see whether it worked:")
            for command in step.verify:
                self._command(command, "dim")

    def _command(self, command: str, style: str = "bold cyan") -> None:
        self.console.print(self.text(f"       {command}", style), soft_wrap=True)

    def _indented(self, words: str, style: str = "") -> None:
        self._wrapped(self.text(words, style), 3)

    def _wrapped(self, words: Text, indent: int = 0, *, first: Text | None = None) -> None:
        """Print ``words`` wrapped behind ``indent`` columns, ``first`` in front of the first line; no blanks at a line's end."""
        room = max(20, self.console.width - indent - 1)
        for number, line in enumerate(words.wrap(self.console, room, overflow="fold")):
            line.rstrip()
            lead = first if first is not None and number == 0 else Text(" " * indent)
            whole = lead + line
            whole.rstrip()
            self.console.print(whole, soft_wrap=True)

    def closing(self, facts: Facts, diagnosis: Diagnosis, faults: Sequence[Finding], steps: Sequence[Step]) -> None:
        sentence = foreign(facts.system)
        if sentence and any(step.where not in ("environment", "code") for step in steps):
            self.line(sentence)
        well = _titles(check for check in diagnosis.checks if check.status in ("pass", "note") and check.name in WORTH_KEEPING)
        if faults and well:
            self.line(f"Well as it is, and not to be reinstalled: {well}.")
        self.line(_verdict(diagnosis, faults), "bold")


def _titles(checks: Iterable[CheckResult]) -> str:
    return ", ".join(check.title for check in checks)


def _verdict(diagnosis: Diagnosis, faults: Sequence[Finding]) -> str:
    """The last line."""
    again = "then run gpudoctor check again"
    if len(faults) == 1:
        return f"1 fault. Cure it, {again}."
    if faults:
        return f"{len(faults)} faults. Start with 1, {again}."
    unknown = _titles(check for check in diagnosis.checks if check.status == "unknown")
    if diagnosis.status == "unknown":
        return f"No fault was found, but this could not be determined: {unknown or 'no check was run'}."
    if diagnosis.status == "warn":
        return "No fault. What is marked ! is worth a look."
    return "All is well."
