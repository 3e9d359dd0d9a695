"""In a real root: each way into a dead driver is named by its own code and cured by its own section, whose commands then cure it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.root.causes import CAUSES, Cause
from tests.root.machine import Machine

Json = Any  # a report


def look(machine: Machine, cause: Cause) -> Json:
    return machine.report("--no-smoke") if cause.imports_torch else machine.report()


def first_fix(report: Json) -> Json:
    findings = [finding for check in report["checks"] for finding in check["findings"]]
    return next(finding["fix"] for finding in findings if finding["code"] == report["root_causes"][0])


@pytest.mark.parametrize("name", CAUSES)
def test_a_cause_is_named(name: str, tmp_path: Path) -> None:
    cause = CAUSES[name]
    with Machine.lent(tmp_path, cause.card) as machine:
        cause.make(machine)
        report = look(machine, cause)
        assert report["root_causes"][:1] == [cause.code]
        assert first_fix(report)["step"] == cause.step
