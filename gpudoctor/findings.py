"""What a check may say, and what a check is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gpudoctor.facts import Facts

_CODE = re.compile(r"``([a-z0-9]+(?:-[a-z0-9]+)*)``")

Severity = Literal["fail", "warn", "note"]
Status = Literal["pass", "note", "warn", "fail", "unknown", "blocked", "skipped"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen, and where: a path, a command, a function of NVML."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Fix:
    """One section of an install page, with the values to fill in.

    ``step`` is ``page#section``. ``values`` are the shell variables of its commands. ``where`` and ``risk`` override
    what the section says when the place calls for it (the same image built elsewhere, an administrator's job).
    """

    step: str
    values: tuple[tuple[str, str], ...] = ()
    where: str | None = None
    risk: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault (or something worth knowing) that is true of this machine.

    ``summary`` is one line that a person can read alone; ``cause`` says why, what follows from it and what not to do.
    ``stands_alone`` is False for what would go away by itself once a failed check that this one needs is cured.
    ``blocks`` is False for a fault beside the layer itself (a package of its own, a variable): what needs the layer can
    be judged all the same. ``sure`` says, in per cent, how surely a pasted text means this fault; facts of a machine leave no
    doubt. ``apart`` tells, in such a case, what would settle it. ``same_as`` names codes of other checks that say the same with
    the same cure: where one of them is found, this finding is not told again.
    """

    code: str
    severity: Severity
    summary: str
    cause: str
    evidence: tuple[Evidence, ...]
    fix: Fix
    stands_alone: bool = False
    blocks: bool = True
    sure: int = 100
    apart: str = ""
    same_as: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says: one line, its findings, and the facts that its verdict depends on but could not have."""

    summary: str
    findings: tuple[Finding, ...] = ()
    unknown: tuple[str, ...] = ()
    skipped: bool = False
    """The layer was left out on purpose; the summary says why."""
    proven: bool = False
    """It was seen at work: a fault in a layer that it needs does not unsay that."""

    @property
    def status(self) -> Status:
        """skipped where it was; else fail over unknown over warn over note over pass."""
        if self.skipped:
            return "skipped"
        severities = {finding.severity for finding in self.findings}
        if "fail" in severities:
            return "fail"
        if self.unknown:
            return "unknown"
        return "warn" if "warn" in severities else "note" if "note" in severities else "pass"


@dataclass(frozen=True, slots=True)
class Check:
    """A layer of the stack and the pure function that judges it.

    ``needs`` names checks that must not have failed for this one to say anything by itself; ``codes`` are all the
    codes that it can raise (the built-in checks take them from their docstring by ``listed_codes``). ``judge`` gets the
    facts and whether the layer was asked for by ``--require``.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    codes: tuple[str, ...]
    judge: Callable[[Facts, bool], Verdict]


def listed_codes(docstring: str | None) -> tuple[str, ...]:
    """The codes that a check's docstring lists, each with what it means: ``* ``code``: what is the case``.

    So code and meaning stand once. A line may begin with several codes. Empty where Python drops docstrings (-OO).
    """
    lines = (docstring or "").splitlines()
    return tuple(code for line in lines if line.startswith("* ``") for code in _CODE.findall(line.partition(":")[0]))
