"""What setup tells a person at a terminal: the plan, what runs, why it stopped."""

from __future__ import annotations

import os
import sys

from rich.console import Console

from gpudoctor.findings import Finding
from gpudoctor.report.page import Page
from gpudoctor.report.terminal import RISK, WHERE
from gpudoctor.report.words import short_text
from gpudoctor.setup.carry_out import Outcome
from gpudoctor.setup.failures import Failure
from gpudoctor.setup.plan import Item, Plan

ENDINGS: dict[Outcome, str] = {
    Outcome.well: "Nothing is left to do.",
    Outcome.left: "What is left is not for setup to do; the words above say who does it.",
    Outcome.declined: "Nothing more was done.",
}


class Terminal:
    """Speaks to a terminal, or into a pipe."""

    def __init__(self, console: Console, machine: str = "") -> None:
        self._page = Page(console)
        self._machine = machine
        self._home = os.path.expanduser("~")
        self._at_line_start = True

    def plan(self, plan: Plan) -> None:
        """Every section in its order, numbered where setup runs it."""
        number = 0
        if self._machine:
            self._page.line(self._machine, "bold")
            self._machine = ""
        self._page.gap()
        if plan.foreign is not None:
            self._page.line(plan.foreign)
            self._page.line("So setup runs nothing here. This is what it would have done:")
        for item in plan.items:
            number += item.obstacle is None
            self._item(item, str(number) if item.obstacle is None else "-")
        self._page.gap()

    def _item(self, item: Item, mark: str) -> None:
        page, step = self._page, item.step
        code = f"  ({item.code})" if item.code else ""
        page.gap()
        page.wrapped(page.text(f"{short_text(item.why, self._home)}{code}", "bold"), 3, first=page.text(f"{mark:<3}", "bold"))
        risk = "needs a reboot, which is left to you" if step.needs_reboot else RISK.get(step.risk, step.risk)
        root = ", as root" if step.needs_root else ""
        page.indented(f"{step.step}, {WHERE.get(step.where, step.where)}{root}{f'; {risk}' if risk else ''}")
        if item.obstacle is not None:
            page.indented(f"Not by setup: {item.obstacle}.", "yellow")
        if step.prose:
            page.indented(short_text(step.prose, self._home))
        page.gap()
        for command in step.commands:
            page.command(f"{command}    (yours)" if command == "sudo reboot" else command)
        if item.obstacle is None:
            self._way_back(item)

    def _way_back(self, item: Item) -> None:
        """How to undo it, where there is something to undo."""
        words = item.section.fields.get("undo", "")
        if item.step.undo:
            self._page.indented("To take it back:", "dim")
            for command in item.step.undo:
                self._page.command(command, "dim")
            if words:
                self._page.indented(short_text(words, self._home), "dim")
        elif words and not words.startswith("not needed"):
            self._page.indented(f"To take it back: {short_text(words, self._home)}", "dim")

    def agreed(self, question: str) -> bool:
        """Ask on the terminal; anything but a yes is a no."""
        self._page.console.file.flush()
        sys.stdout.write(f"{question} [y/N] ")
        sys.stdout.flush()
        answer = sys.stdin.readline()
        return answer.strip().lower() in ("y", "yes")

    def begins(self, item: Item) -> None:
        """A line above what follows."""
        self._page.gap()
        self._page.line(f"{item.step.step}: {short_text(item.why, self._home)}", "bold")

    def runs(self, command: str) -> None:
        """The command as one would type it."""
        self._fresh_line()
        self._page.console.print(self._page.text(f"$ {command}", "bold cyan"), soft_wrap=True)
        self._page.console.file.flush()

    def output(self, chunk: bytes) -> None:
        """As it comes, byte for byte: it was made for a terminal."""
        sys.stdout.flush()
        view = memoryview(chunk)
        try:
            while view:
                view = view[os.write(1, view) :]
        except OSError:  # nobody reads any more, or the disk is full: an installation goes on all the same, and the log has it
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        self._at_line_start = chunk.endswith(b"\n")

    def failed(self, item: Item, command: str, code: int, failure: Failure | None, log: str) -> None:
        """What failed, what that means, what to do."""
        self._fresh_line()
        self._page.gap()
        verifying = command not in item.step.commands
        what = "was carried out, and its verification does not pass" if verifying else "stopped: this failed"
        self._page.line(f"{item.step.step} {what} (status {code}):", "bold red")
        self._page.command(command)
        if failure is not None:
            self._page.indented(f"{failure.says} {failure.do}")
            self._page.indented(f"Seen: {failure.line}", "dim")
        self._page.indented(f"Nothing after it was run. All output is in {short_text(log, self._home)}.")

    def stopped(self, words: str, log: str) -> None:
        """Why nothing more is done."""
        self._fresh_line()
        self._page.gap()
        self._page.line(f"{words}.", "bold")
        self._page.indented(f"All output is in {short_text(log, self._home)}.", "dim")

    def still(self, finding: Finding) -> None:
        """What is the case now."""
        self._page.gap()
        self._page.line(f"What is the matter now: {short_text(finding.summary, self._home)}  ({finding.code})", "bold")
        self._page.indented(short_text(finding.cause, self._home))
        self._page.indented(
            f"Its cure: {finding.fix.step}. gpudoctor setup goes on with it; gpudoctor explain {finding.code} tells more."
        )

    def says(self, words: str) -> None:
        """One sentence."""
        self._fresh_line()
        self._page.line(words)

    def ends(self, outcome: Outcome) -> None:
        """The last line, where the outcome needs one."""
        if outcome in ENDINGS:
            self._page.gap()
            self._page.line(ENDINGS[outcome], "bold")

    def _fresh_line(self) -> None:
        if not self._at_line_start:
            self._page.gap()
            self._at_line_start = True
