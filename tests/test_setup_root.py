"""setup, for real: real apt, dpkg and gpg in a root of its own, from each cause of a dead driver to a machine that is well."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.keyboard import Answers, Talk, talk
from tests.root import cards
from tests.root.causes import CAUSES, Cause
from tests.root.machine import Machine

pytestmark = pytest.mark.root

WELL, FAULT, USAGE, RESTART = 0, 1, 2, 4
YES: Answers = (
    (r"\[y/N\] $", b"y\r"),
    (r"\[Y/n\] $", b"y\r"),
    (r"(?i)password[^\n]*: *$", b"password1\r"),
)
"""A person who agrees to everything."""
FITTING = {cards.GTX_1080: "torch-2.1.2-cu121"}
"""A PyTorch with code for the card, where the usual one has none: these machines are about the driver."""
STARTS = 4
"""More runs than any of these cures takes."""


def arguments(machine: Machine, *more: str) -> list[str]:
    command = [sys.executable, "-m", "gpudoctor", "setup", "--root", str(machine.root), "--python", str(machine.python())]
    return [*command, *more]


def attended(machine: Machine, *more: str, answers: Answers = YES) -> Talk:
    return talk(arguments(machine, *more), answers, machine.environ())


def cured(machine: Machine, *more: str) -> list[str]:
    """Run setup and restart as it says until it has nothing left to do; what was on the screen each time."""
    screens = []
    for _ in range(STARTS):
        said = attended(machine, *more)
        screens.append(said.screen)
        if said.code == WELL:
            return screens
        if said.code == RESTART:
            machine.boot(confirm_enrolment=True)
        else:  # a cure that uncovers the next fault stops there, and says that the next run goes on with that
            assert "gpudoctor setup goes on with it" in " ".join(said.screen.split()), said.screen
    raise AssertionError("\n".join(screens))


@pytest.mark.parametrize("name", CAUSES)
def test_from_each_cause_to_a_machine_that_is_well(name: str, tmp_path: Path) -> None:
    cause: Cause = CAUSES[name]
    with Machine.lent(tmp_path, cause.card) as machine:
        machine.python(FITTING.get(cause.card, "torch-2.8.0-cu128"))
        cause.make(machine)
        looks = ("--no-smoke",) if cause.imports_torch else ("--no-import", "--no-smoke")
        assert machine.report(*looks)["root_causes"][:1] == [cause.code]
        screens = cured(machine)
        assert cause.step in screens[0]
        report = machine.report(*looks)
        assert report["root_causes"] == []
        assert report["checks"][0]["status"] in ("pass", "warn", "note"), report["checks"][0]
        again = attended(machine)
        assert (again.code, "$ " in again.screen) == (WELL, False), again.screen
        machine.boot()
        assert machine.report(*looks)["root_causes"] == []
