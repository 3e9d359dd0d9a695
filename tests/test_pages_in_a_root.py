"""Every section of the install pages, carried out in a real root that needs it: each command succeeds, and its verification too."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudoctor import steps
from gpudoctor.findings import Fix
from tests.root.machine import Done, Machine
from tests.root.situations import NOT_RUN, STORIES, Situation
from tests.root.world import STATE

pytestmark = pytest.mark.root

# What concerns the person's programs and not the machine's: the doctor, the interpreter, processes. /proc is no real one inside.
OUTSIDE = re.compile(r"(gpudoctor|ps|kill|free|python3|timeout|export|unset|\S*/llama/bin/python)\b")
CASES = [
    pytest.param(name, situation, id=f"{name}: {situation.section}") for name, s in STORIES.items() for situation in s.situations
]
TOOLKIT = STORIES["a desktop"].situations


@pytest.fixture(scope="module")
def machines() -> Iterator[dict[str, Machine]]:
    """The machines of the stories, each made when its story begins."""
    made: dict[str, Machine] = {}
    yield made
    for machine in made.values():
        machine.remove()


def of_story(machines: dict[str, Machine], name: str, folder: Path) -> Machine:
    if name not in machines:
        for other in machines.values():
            other.remove()
        folder.mkdir(exist_ok=True)
        machines[name] = Machine.fresh(folder, STORIES[name].card)
    return machines[name]


_DOCTOR = """#!/bin/sh
verb=$1
shift
case "$verb $*" in
  *--from*) exec {own} -m gpudoctor "$verb" "$@" ;;
  check*) exec {own} -m gpudoctor check --root {root} --python {python} --no-smoke "$@" ;;
  *) exec {own} -m gpudoctor "$verb" --python {python} "$@" ;;
esac
"""
"""A person's gpudoctor, which looks at this machine. What the page says of the interpreter comes last, and wins."""


def outside(machine: Machine, line: str) -> Done:
    """A line as the person types it on that machine, whose doctor and interpreter are those of the test."""
    programs = machine.home / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "gpudoctor").write_text(_DOCTOR.format(root=machine.root, python=machine.python(), own=sys.executable))
    (programs / "gpudoctor").chmod(0o755)
    environ = machine.environ()
    environ["PATH"] = f"{programs}:{environ['PATH']}:/usr/bin:/bin"
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", line],
        env=environ, cwd=machine.home, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def carry_out(machine: Machine, line: str, stdin: str) -> None:
    done = outside(machine, line) if OUTSIDE.match(line) else machine.shell(line, check=False, stdin=stdin)
    assert done.code == 0, f"{line}\nexited {done.code}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize(("name", "situation"), CASES)
def test_a_section_succeeds_where_it_applies(
    name: str, situation: Situation, machines: dict[str, Machine], tmp_path_factory: pytest.TempPathFactory
) -> None:
    machine = of_story(machines, name, tmp_path_factory.getbasetemp() / re.sub(r"\W", "-", name))
    situation.before(machine)
    with subprocess.Popen(["/bin/sleep", "60"]) as sleeper:
        values = {"PYTHON": str(machine.python()), "OTHER": str(machine.python()), "PID": str(sleeper.pid), **situation.values}
        section = steps.find(situation.section)
        assert set(steps.wanted(section)) <= set(values)
        step = steps.resolve(Fix(situation.section, tuple(values.items())))
        before = machine.reboots_asked_for
        try:
            for line in step.commands:
                carry_out(machine, line, situation.stdin)
            assert machine.reboots_asked_for == before + step.needs_reboot
            if step.needs_reboot:
                machine.boot(confirm_enrolment=True)
            for line in step.verify:
                carry_out(machine, line, situation.stdin)
        finally:
            sleeper.kill()


def test_every_section_with_commands_is_tried_or_says_why_not() -> None:
    with_commands = {
        f"{page}#{section.name}"
        for page in steps.pages()
        for section in steps.sections(steps.DEFAULT_RELEASE, page)
        if section.code
    }
    tried = {situation.section for story in STORIES.values() for situation in story.situations}
    assert not tried & set(NOT_RUN)
    assert tried | set(NOT_RUN) == with_commands


def through_toolkit(machine: Machine) -> None:
    """Ubuntu's driver, and then the toolkit from NVIDIA's archive by its section."""
    machine.install_driver("580-open")
    toolkit = next(situation for situation in TOOLKIT if situation.section == "cuda-toolkit#install")
    for line in steps.resolve(Fix(toolkit.section, tuple(toolkit.values.items()))).commands:
        machine.shell(line)


def test_nvidias_archive_does_not_take_over_the_driver(tmp_path: Path) -> None:
    with Machine.lent(tmp_path) as machine:
        through_toolkit(machine)
        upgrade = machine.run("apt-get", "-s", "dist-upgrade").stdout
        assert not re.findall(r"^(?:Inst|Remv) .*nvidia.*", upgrade, re.MULTILINE)
        machine.run("rm", "/etc/apt/preferences.d/00-nvidia-driver-from-ubuntu")
        assert "Inst libnvidia-compute-580" in machine.run("apt-get", "-s", "dist-upgrade").stdout, "the pin proves nothing here"


@pytest.mark.parametrize(
    "section", ["driver#install-newer-branch", "cuda-toolkit#install", "cudnn#install", "nccl#install", "container-toolkit#install"]
)
def test_a_key_of_another_fingerprint_is_refused(section: str, tmp_path: Path) -> None:
    with Machine.lent(tmp_path) as machine:
        machine.forget("fingerprints.sed")
        values = (("BRANCH", "615-open"), ("CUDA_PACKAGE", "cuda-toolkit-13-0"), ("CUDA", "13.0"))
        commands = steps.resolve(Fix(section, values)).commands
        codes = []
        for line in commands:
            codes.append(machine.shell(line, check=False).code)
            if codes[-1]:
                break
        assert "--show-keys" in commands[len(codes) - 1]
        assert not machine.has("/usr/share/keyrings/cuda-archive-keyring.gpg")
        assert machine.has(f"/{STATE}/nvml")
