"""In a real root: each way into a dead driver is named by its own code, and its section's commands cure it.

What ``gpudoctor setup`` does is done here by hand: the commands of the first root cause, a restart where one is asked for, and
another look, until all is well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.root.causes import CAUSES, Cause
from tests.root.machine import Machine

pytestmark = pytest.mark.root

Json = Any  # a report
ROUNDS = 3
PASSWORD = "password1\npassword1\n"  # noqa: S105 - a person invents one for the blue screen


def look(machine: Machine, cause: Cause) -> Json:
    return machine.report("--no-smoke") if cause.imports_torch else machine.report()


def faults(report: Json) -> list[Json]:
    """What is wrong with the driver, the deepest first; whether PyTorch's build fits the card is another matter."""
    check = next(check for check in report["checks"] if check["name"] == "driver")
    return [finding for finding in check["findings"] if finding["severity"] == "fail"]


def carry_out(machine: Machine, fix: Json) -> None:
    """Each command must succeed; a restart happens where it was asked for, with somebody at the screen."""
    before = machine.reboots_asked_for
    for line in fix["commands"]:
        machine.shell(line, stdin=PASSWORD)
    assert fix["needs_reboot"] == (machine.reboots_asked_for == before + 1)
    if fix["needs_reboot"]:
        machine.boot(confirm_enrolment=True)


@pytest.mark.parametrize("name", CAUSES)
def test_a_cause_is_named_and_cured(name: str, tmp_path: Path) -> None:
    cause = CAUSES[name]
    with Machine.lent(tmp_path, cause.card) as machine:
        cause.make(machine)
        report = look(machine, cause)
        assert report["root_causes"][:1] == [cause.code]
        assert faults(report)[0]["fix"]["step"] == cause.step
        taken: list[Json] = []
        while faults(report) and len(taken) < ROUNDS:
            taken.append(faults(report)[0]["fix"])
            carry_out(machine, taken[-1])
            report = look(machine, cause)
        assert not faults(report), [fix["step"] for fix in taken]
        for line in taken[-1]["verify"]:
            machine.shell(line)
