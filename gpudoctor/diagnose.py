"""Runs the checks in order and says what blocks what."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from gpudoctor.facts import Facts
from gpudoctor.findings import Check, Evidence, Finding, Fix, Status, Verdict

REPORT_BUG = Fix("gpudoctor#report-a-bug")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check came to. ``blocked_by`` is the code of the fault that keeps it from saying anything."""

    name: str
    title: str
    status: Status
    summary: str
    findings: tuple[Finding, ...]
    blocked_by: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The verdict on a machine. ``root_causes`` are codes of severity fail, the one to cure first comes first."""

    status: Status
    root_causes: tuple[str, ...]
    checks: tuple[CheckResult, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, in the order of the checks, faults first."""
        order = {"fail": 0, "warn": 1, "note": 2}
        found = [finding for check in self.checks for finding in check.findings]
        return tuple(sorted(found, key=lambda finding: order[finding.severity]))


def built_in() -> tuple[Check, ...]:
    """The checks of ``checks/``. They are reached by name: type checkers cannot follow the folder's mapping."""
    return cast("tuple[Check, ...]", import_module("gpudoctor.checks").CHECKS)


def on_request() -> tuple[Check, ...]:
    """The checks of ``checks/`` that are run only when they are asked for by name (``also``)."""
    return cast("tuple[Check, ...]", import_module("gpudoctor.checks").ON_REQUEST)


def third_party() -> tuple[tuple[Check, ...], tuple[CheckResult, ...]]:
    """Checks of other packages (entry point group ``gpudoctor.checks``), and a result for each that does not load."""
    checks: list[Check] = []
    failures: list[CheckResult] = []
    for entry in entry_points(group="gpudoctor.checks"):
        try:
            loaded = entry.load()
            if not isinstance(loaded, Check):
                raise TypeError(f"{entry.value} is no gpudoctor.findings.Check")  # noqa: TRY301 - same treatment as a failing import
            checks.append(loaded)
        except Exception as error:  # noqa: BLE001 - a foreign module may raise anything; it becomes a finding
            failures.append(_broken(entry.name, entry.name, "could not be loaded", error))
    return tuple(checks), tuple(failures)


def diagnose(
    facts: Facts, *, required: Iterable[str] = (), also: Iterable[str] = (), checks: Sequence[Check] | None = None
) -> Diagnosis:
    """Judge the facts by every check (the built-in and installed ones unless ``checks`` are given).

    ``required`` names layers that the user wants judged although PyTorch's wheels do not need them, ``also`` checks that are run
    only on request. Raises nothing for any facts; without a single check there is no verdict: the status is unknown.
    """
    failures: tuple[CheckResult, ...] = ()
    if checks is None:
        others, failures = third_party()
        asked = frozenset(also)
        checks = (*built_in(), *(check for check in on_request() if check.name in asked), *others)
    wanted = frozenset(required)
    results: dict[str, CheckResult] = {}
    for check in _by_need(checks):
        results[check.name] = _judge(check, facts, check.name in wanted, results)
    ordered = (*(results[check.name] for check in checks), *failures)
    return Diagnosis(_overall(ordered), _root_causes(ordered), ordered)


def _by_need(checks: Sequence[Check]) -> list[Check]:
    """The checks, each after the ones that it needs; display order otherwise."""
    known = {check.name for check in checks}
    waiting, ordered = list(checks), list[Check]()
    while waiting:
        done = {check.name for check in ordered}
        ready = next((c for c in waiting if all(n in done or n not in known for n in c.needs)), waiting[0])
        waiting.remove(ready)
        ordered.append(ready)
    return ordered


def _judge(check: Check, facts: Facts, required: bool, results: dict[str, CheckResult]) -> CheckResult:
    started = time.perf_counter()
    try:
        verdict = check.judge(facts, required)
    except Exception as error:  # noqa: BLE001 - a crashing check is itself a finding
        return _broken(check.name, check.title, "crashed", error)
    verdict, told_by = _told_once(verdict, results)
    blocker = None if verdict.proven else _blocker(check, results)
    if blocker is not None:
        verdict, status = _blocked(verdict, blocker)
    elif told_by is not None and verdict.status != "fail":
        blocker, status = told_by, "blocked"
        verdict = dataclasses.replace(verdict, summary=f"blocked by {told_by}")
    else:
        status = verdict.status
    seconds = round(time.perf_counter() - started, 4)
    return CheckResult(
        check.name, check.title, status, verdict.summary, verdict.findings, blocker if status == "blocked" else None, seconds
    )


def _told_once(verdict: Verdict, results: dict[str, CheckResult]) -> tuple[Verdict, str | None]:
    """The verdict without what an earlier check has told already, and the code that told it."""
    told = {finding.code for result in results.values() for finding in result.findings}
    again = {finding: code for finding in verdict.findings for code in finding.same_as if code in told}
    if not again:
        return verdict, None
    rest = tuple(finding for finding in verdict.findings if finding not in again)
    worst = next((finding.summary for finding in rest if finding.severity == "fail"), verdict.summary)
    return dataclasses.replace(verdict, summary=worst, findings=rest), next(iter(again.values()))


def _blocker(check: Check, results: dict[str, CheckResult]) -> str | None:
    """The code of the fault in a check that this one needs."""
    for need in check.needs:
        result = results.get(need)
        if result is None:
            continue
        faults = (finding.code for finding in result.findings if finding.severity == "fail" and finding.blocks)
        fault = next(faults, result.blocked_by)
        if fault is not None:
            return fault
    return None


def _blocked(verdict: Verdict, blocker: str) -> tuple[Verdict, Status]:
    """What remains of a verdict below a fault: what would still be wrong once that is cured."""
    lasting = tuple(f for f in verdict.findings if f.stands_alone and f.severity == "fail")
    if lasting:
        return Verdict(verdict.summary, lasting), "fail"
    return Verdict(f"blocked by {blocker}"), "blocked"


def _broken(name: str, title: str, what: str, error: Exception) -> CheckResult:
    finding = Finding(
        code="check-crashed",
        severity="warn",
        summary=f"The check {name} {what}: {type(error).__name__}",
        cause="This is a fault of the check, not of your machine. What it looks at stays unknown.",
        evidence=(Evidence(f"check {name}", f"{type(error).__name__}: {error}"),),
        fix=REPORT_BUG,
    )
    return CheckResult(name, title, "unknown", f"the check {what}", (finding,), None, 0.0)


def _overall(results: Sequence[CheckResult]) -> Status:
    """fail over unknown over warn over pass; a note leaves a pass a pass."""
    statuses = {result.status for result in results}
    if "fail" in statuses:
        return "fail"
    if "unknown" in statuses or not statuses - {"skipped", "blocked"}:
        return "unknown"
    return "warn" if "warn" in statuses else "pass"


def _root_causes(results: Sequence[CheckResult]) -> tuple[str, ...]:
    """Codes to cure, in order: a layer that others need comes before them, which is the order of the checks but for what blocks."""
    codes = [finding.code for result in results for finding in result.findings if finding.severity == "fail"]
    return tuple(dict.fromkeys(codes))
