"""setup, for real: real apt, dpkg and gpg in a root of its own, from each cause of a dead driver to a machine that is well."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from gpudoctor import steps
from gpudoctor.diagnose import diagnose
from gpudoctor.report import document
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


# ---------------------------------------------------------------- the way back

TAKEN_BACK = ("no driver", "no driver on a server", "nouveau", "no uvm", "blacklisted", "prime-select intel")
"""Those whose cure changes what was there; the others bring missing parts of what is installed."""


def first_step(machine: Machine, *looks: str) -> steps.Step:
    """The section that cures the first fault, with its values."""
    saved = machine.home / "report.json"
    saved.write_text(json.dumps(machine.report(*looks)), encoding="utf-8")
    facts = document.read(saved)
    finding = next(finding for finding in diagnose(facts).findings if finding.severity == "fail")
    return steps.resolve(finding.fix)


@pytest.mark.parametrize("name", TAKEN_BACK)
def test_taken_back_the_root_is_as_it_was(name: str, tmp_path: Path) -> None:
    cause = CAUSES[name]
    looks = ("--no-smoke",) if cause.imports_torch else ("--no-import", "--no-smoke")
    with Machine.lent(tmp_path, cause.card) as machine:
        cause.make(machine)
        step = first_step(machine, *looks)
        assert step.undo
        before = installed(machine)
        cured(machine)
        for line in step.undo:
            machine.shell(line)
        # what a section needs for itself, and what its packages asked for, is left to autoremove
        assert before <= installed(machine)
        left = installed(machine) - before
        assert not any("nvidia" in package and "ubuntu-drivers" not in package for package in left), left
        machine.boot()
        assert machine.report(*looks)["root_causes"][:1] == [cause.code]


def installed(machine: Machine) -> set[str]:
    """The packages, without their versions."""
    shown = machine.run("dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\\n").stdout
    return {line.partition(" ")[2] for line in shown.splitlines() if line.startswith("installed ")}


# ---------------------------------------------------------------- NVIDIA's archive


def from_nvidia(machine: Machine, command: str) -> list[str]:
    """The driver's packages that apt would take from NVIDIA's archive."""
    lines = machine.run("apt-get", "-s", *command.split()).stdout.splitlines()
    ours = re.compile(r"Inst (nvidia-(driver|open|dkms|utils|kernel)|libnvidia-compute|cuda-drivers)")
    return [line for line in lines if ours.match(line) and "NVIDIA CUDA" in line]


def test_a_toolkit_from_nvidias_archive_does_not_take_over_the_driver(tmp_path: Path) -> None:
    with Machine.lent(tmp_path) as machine:
        machine.python("torch-2.11.0-cu130")
        machine.install_driver("580-open")
        machine.boot()
        assert machine.report()["root_causes"] == []
        said = attended(machine, "cuda_toolkit")
        assert said.code == WELL, said.screen
        assert machine.has("/etc/apt/sources.list.d/cuda-ubuntu2204-x86_64.list")
        assert from_nvidia(machine, "dist-upgrade") == []
        assert machine.report("--require", "cuda_toolkit", "--no-import", "--no-smoke")["root_causes"] == []
        # without the pin it would: the archive's own settings prefer it
        (machine.root / "etc/apt/preferences.d/00-nvidia-driver-from-ubuntu").unlink()
        assert from_nvidia(machine, "dist-upgrade") != []


def test_a_driver_comes_from_ubuntu_although_nvidias_archive_is_set_up(tmp_path: Path) -> None:
    with Machine.lent(tmp_path) as machine:
        keyring = steps.find("cuda-toolkit#install").code["do"][1:5]  # the archive, without the line that pins it
        for line in keyring:
            machine.shell(line)
        screens = cured(machine)
        assert "driver#prefer-ubuntu-driver" in screens[0]
        assert from_nvidia(machine, "dist-upgrade") == []
        assert machine.report()["root_causes"] == []
