"""Carries a plan out: asks, runs section by section, verifies, looks at the machine again, and stops where it must.

Nothing is remembered from one section to the next but what has been tried: after each the machine is looked at anew, and the
plan is made anew from what is there. So a run that was cut off, or waits for a restart, is resumed by looking. The one thing
that looking does not tell, that a section is done but for the restart, is in the logbook.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from gpudoctor import steps
from gpudoctor.diagnose import CheckResult, Diagnosis
from gpudoctor.facts import Facts
from gpudoctor.findings import Finding, Fix
from gpudoctor.setup import failures, live
from gpudoctor.setup.failures import Failure
from gpudoctor.setup.logbook import Logbook, Waiting
from gpudoctor.setup.obstacles import Person
from gpudoctor.setup.plan import Item, Key, Plan
from gpudoctor.setup.shell import Shell

ROUNDS = 12
"""More sections in one run would mean that one undoes what another does."""
_NOT_RUN = re.compile(r"^(?:sudo reboot|gpudoctor )")
_SIMULATED = re.compile(r"^(?:sudo )?apt-get (?:-s|--simulate)\b")
_REMOVED = re.compile(r"^(?:Remv|Purg) (\S+)", re.MULTILINE)


class Outcome(Enum):
    """What a run came to."""

    well = "well"
    """Nothing (more) is wrong."""
    restart = "restart"
    failed = "failed"
    left = "left"
    """What is wrong is not for setup to cure."""
    declined = "declined"
    unknown = "unknown"


class Speaker(Protocol):
    """Who tells the person, and asks."""

    def plan(self, plan: Plan) -> None:
        """What will be done, and what will not."""

    def agreed(self, question: str) -> bool:
        """Ask; True for yes."""
        ...

    def begins(self, item: Item) -> None:
        """A section is carried out from here on."""

    def runs(self, command: str) -> None:
        """A command is started."""

    def output(self, chunk: bytes) -> None:
        """What it prints."""

    def failed(self, item: Item, command: str, code: int, failure: Failure | None, log: str) -> None:
        """A command failed."""

    def stopped(self, words: str, log: str) -> None:
        """Nothing more is done, and why."""

    def still(self, finding: Finding) -> None:
        """What is wrong now."""

    def says(self, words: str) -> None:
        """One sentence."""


@dataclass(frozen=True, slots=True)
class World:
    """How the machine is looked at and run on."""

    look: Callable[[str | None], Facts]
    """The facts, with the interpreter that is meant."""
    diagnose: Callable[[Facts], Diagnosis]
    ahead: Callable[[Facts], CheckResult]
    """Whether the GPU will work after the next start."""
    faults: Callable[[Diagnosis], tuple[Finding, ...]]
    """What is to be cured of what was found."""
    plan: Callable[[Facts, tuple[Finding, ...]], Plan]
    boot: Callable[[], str]
    """Which boot this is."""
    shell: Shell
    environ: Mapping[str, str]
    again: str = "gpudoctor setup"
    """The command that goes on after a restart."""


class Run:
    """One run of setup."""

    def __init__(self, world: World, person: Person, speaker: Speaker, logbook: Logbook, python: str | None) -> None:
        self._world, self._person, self._speaker, self._logbook, self._python = world, person, speaker, logbook, python
        self._tried: set[Key] = set()
        self._shown: set[Key] = set()
        self._session = live.Session(attended=person.attended)
        self._restart: Waiting | None = None
        """The section that is done but for the restart."""
        self._owed: Waiting | None = None
        """An earlier run's section that still waits for its restart while others are carried out."""
        self._last = live.Ended(0, "")
        self._said = ""
        """What the section that is carried out has printed so far."""
        self._unfinished: Finding | None = None
        """A section that an earlier run began and did not end, as a fault of its own."""

    def carry_out(self, *, named: bool) -> Outcome:
        """Until nothing is left to do, or something stops it. ``named``: sections or layers were asked for."""
        with contextlib.closing(self._session):
            try:
                return self._rounds(named=named)
            except live.NoTerminal as error:
                self._speaker.stopped(f"No command can be run here: {error}", self._logbook.path)
                return Outcome.failed

    def _rounds(self, *, named: bool) -> Outcome:
        stopped = self._resumed(named=named)
        if stopped is not None:
            return stopped
        for _ in range(ROUNDS):
            facts = self._world.look(self._python)
            diagnosis = self._world.diagnose(facts)
            # before a restart: what has to be done, or the GPU is gone after it
            faults = _faults(self._world.ahead(facts)) if self._restart else self._faults(diagnosis)
            if self._restart and not faults:
                return self._wants_restart(self._restart.step, facts)
            outcome = self._next(self._world.plan(facts, faults), diagnosis)
            if outcome is not None:
                return outcome
        self._speaker.stopped("This goes round in circles: one step undoes what another does. Please tell us", self._logbook.path)
        return Outcome.failed

    # ------------------------------------------------------------ what an earlier run left

    def _resumed(self, *, named: bool) -> Outcome | None:
        waiting = self._logbook.waiting()
        if waiting is None:
            return None
        if waiting.boot and waiting.boot == self._world.boot():
            return self._same_boot(waiting, named=named)
        if not waiting.done:
            self._goes_on_with(waiting)
            return None
        self._logbook.settled()
        self._speaker.says(f"{waiting.step} was done before the restart. Its verification:")
        self._tried.add((waiting.code, waiting.step, waiting.values))
        for line in _verification(waiting):
            if not _NOT_RUN.match(line) and self._ended_well(line, waiting.where) is not None:
                self._speaker.says("It did not pass; what is the matter is looked at now.")
                break
        return None

    def _goes_on_with(self, waiting: Waiting) -> None:
        """Half of a section can look like another fault: it is run again, which does what is missing and nothing else."""
        summary = f"{waiting.step} was begun and not finished"
        self._unfinished = Finding(waiting.code or "unfinished", "fail", summary, "", (), Fix(waiting.step, waiting.values))

    def _faults(self, diagnosis: Diagnosis) -> tuple[Finding, ...]:
        """What is to be cured, first of all what was begun."""
        found = self._world.faults(diagnosis)
        begun = self._unfinished
        if begun is None or (begun.code, begun.fix.step, begun.fix.values) in self._tried:
            return found
        return (begun, *(fault for fault in found if fault.code != begun.code))

    def _same_boot(self, waiting: Waiting, *, named: bool) -> Outcome | None:
        if not waiting.done:
            self._goes_on_with(waiting)
            return None
        if named:
            self._speaker.says(f"{waiting.step} is done but for the restart.")
            self._owed = waiting
            return None
        if self._world.ahead(self._world.look(self._python)).status == "skipped":
            self._logbook.settled()  # what it was done for is gone: no driver, no card
            return None
        self._restart = waiting
        return None

    # ------------------------------------------------------------ the next section

    def _next(self, plan: Plan, diagnosis: Diagnosis) -> Outcome | None:
        """Carry out the first section that can be; None to look again."""
        plan = replace(plan, items=tuple(item for item in plan.items if not (item.named and item.key in self._tried)))
        if not plan.items:
            return self._nothing_left(diagnosis)
        repeated = next((item for item in plan.items if item.key in self._tried), None)
        if repeated is not None:
            return self._did_not_help(repeated, diagnosis)
        if not plan.runnable and self._unfinished is not None:
            self._unfinished = None  # it is not for this run to finish: the machine is judged as it is
            self._settle()
            return None
        if not plan.runnable:
            self._speaker.plan(plan)
            return Outcome.left
        if not {item.key for item in plan.runnable} <= self._shown:
            self._speaker.plan(plan)
            self._shown |= {item.key for item in plan.runnable}
            if self._person.attended and not self._speaker.agreed(_question(plan)):
                return Outcome.declined
        return self._one(plan.runnable[0])

    def _nothing_left(self, diagnosis: Diagnosis) -> Outcome:
        self._settle()
        others = [finding for finding in diagnosis.findings if finding.severity == "fail"]
        if others:  # beside what was named
            told = "; ".join(f"{finding.summary} ({finding.code})" for finding in others)
            self._speaker.says(
                f"What was named is done, or not needed. Left is: {told}. gpudoctor setup without a name takes it on."
            )
            return Outcome.left
        unknown = [check.title for check in diagnosis.checks if check.status == "unknown"]
        if not unknown:
            return Outcome.well
        self._speaker.says(f"No fault is left that was seen, but this could not be determined: {', '.join(unknown)}.")
        return Outcome.unknown

    def _did_not_help(self, item: Item, diagnosis: Diagnosis) -> Outcome:
        finding = next((found for found in diagnosis.findings if found.code == item.code), None)
        self._settle()
        self._speaker.stopped(f"{item.step.step} was carried out, and what it should cure is still there", self._logbook.path)
        if finding is not None:
            self._speaker.still(finding)
        return Outcome.failed

    def _one(self, item: Item) -> Outcome | None:
        """Carry out one section; None when it is done."""
        step = item.step
        note = Waiting(step.step, item.code, self._world.boot(), False, item.values, step.where)
        try:
            self._logbook.wait(note)
        except OSError as error:
            self._speaker.stopped(f"The log cannot be written ({error.strerror}), so nothing was begun", self._logbook.path)
            return Outcome.failed
        self._speaker.begins(item)
        self._logbook.begins(step.step, step.commands)
        self._said = ""
        lines = [line for line in step.commands if not _NOT_RUN.match(line)]
        lines += [] if step.needs_reboot else [line for line in step.verify if not _NOT_RUN.match(line) and line not in lines]
        for line in lines:
            outcome = self._line(item, line)
            if outcome is not None:
                return outcome
        self._tried.add(item.key)
        self._logbook.ended(f"{step.step} is done")
        if step.needs_reboot:
            self._restart = replace(note, done=True)
        self._settle()
        made = item.section.fields.get("interpreter")
        if made:
            self._python = os.path.expanduser(made)
            self._speaker.says(f"From here on {made} is what is examined; name it the next time: --python {made}")
        return None

    def _settle(self) -> None:
        """Nothing is half-way; what waits for a restart goes on waiting."""
        waits = self._restart or self._owed
        if waits is None:
            self._logbook.settled()
            return
        try:
            self._logbook.wait(waits)
        except OSError as error:
            self._speaker.says(f"That {waits.step} waits for a restart could not be written down ({error.strerror}).")

    def _line(self, item: Item, line: str) -> Outcome | None:
        ended = self._ended_well(line, item.step.where)
        if ended is not None:
            return self._failed(item, line, ended)
        return self._would_remove(item) if _SIMULATED.match(line) else None

    def _ended_well(self, line: str, where: str) -> live.Ended | None:
        """Run the line; how it ended where it did not end well."""
        self._speaker.runs(line)
        self._logbook.runs(line)
        shell = self._world.shell

        def show(chunk: bytes) -> None:
            self._logbook.output(chunk)
            self._speaker.output(chunk)

        self._last = self._session.run(shell.command(line, where), shell.environment(where, self._world.environ), show)
        if self._last.code == 0 and not self._last.hung:
            self._said += self._last.output
            return None
        return self._last

    def _would_remove(self, item: Item) -> Outcome | None:
        """What a simulation says would go is named again and agreed to, or nothing is done."""
        names = list(dict.fromkeys(_REMOVED.findall(self._last.output)))
        if not names:
            return None
        words = f"This removes {', '.join(names)}"
        if self._person.attended and self._speaker.agreed(f"{words}. Go on?"):
            return None
        self._settle()
        reason = "and nobody is there to agree" if not self._person.attended else "so it was not done"
        self._speaker.stopped(f"{item.step.step}: {words[0].lower()}{words[1:]}, {reason}", self._logbook.path)
        return Outcome.declined

    def _failed(self, item: Item, line: str, ended: live.Ended) -> Outcome:
        words = (
            "was stopped by you" if ended.interrupted else "gave no word for too long" if ended.hung else f"failed ({ended.code})"
        )
        self._logbook.ended(f"{line}: {words}")
        if ended.interrupted:
            self._speaker.stopped(
                f"You stopped {item.step.step}. What it had begun may be half-way; gpudoctor setup, run again, finishes that first",
                self._logbook.path,
            )
            return Outcome.failed
        failure = None if ended.hung else failures.recognised(ended.output, self._said)
        if not ended.hung and (failure is None or not failure.again):
            self._settle()  # the next run goes by what the machine looks like then
        self._speaker.failed(item, line, ended.code, failure, self._logbook.path)
        if failure is None or failure.id in ("dkms", "key-rejected"):
            self._tell_what_is(item)
        return Outcome.failed

    def _tell_what_is(self, item: Item) -> None:
        """The machine may say by now what the matter is."""
        facts = self._world.look(self._python)
        ahead = _faults(self._world.ahead(facts)) if item.step.needs_reboot else ()
        faults = (*ahead, *self._world.faults(self._world.diagnose(facts)))
        if faults:
            self._speaker.still(faults[0])

    def _wants_restart(self, step: str, facts: Facts) -> Outcome:
        """Say so, and what was seen of the next start: the restart itself is the person's."""
        ahead = self._world.ahead(facts)
        self._speaker.says(f"{step} is done. The next start: {ahead.summary}.")
        if ahead.status == "unknown":
            self._speaker.says(
                "So it was not seen that the driver will be there after a restart; decide whether you can reach this machine then."
            )
        for finding in ahead.findings:
            if finding.severity == "warn":
                self._speaker.says(f"Note: {finding.summary}. {finding.cause}")
        self._speaker.says("Save your work and restart this machine (sudo reboot). Then go on with:")
        self._speaker.runs(self._world.again)
        return Outcome.restart


def _verification(waiting: Waiting) -> tuple[str, ...]:
    """The section's own lines: nothing is run that a file in somebody's home says."""
    try:
        return steps.resolve(Fix(waiting.step, waiting.values)).verify
    except steps.NoSuchStep:
        return ()


def _faults(ahead: CheckResult) -> tuple[Finding, ...]:
    return tuple(finding for finding in ahead.findings if finding.severity == "fail")


def _question(plan: Plan) -> str:
    number = len(plan.runnable)
    return "Run this step?" if number == 1 else f"Run these {number} steps, one after the other?"
