"""The rounds of setup: what is run, what is asked, what the next run finds, on every way through them.

The machine is facts, as a probe would give them. Everything else is real: the pages' sections and their commands, run by a real
shell, with small programs on PATH that note their calls.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gpudoctor.diagnose import CheckResult, Diagnosis
from gpudoctor.facts import Facts
from gpudoctor.findings import Finding, Fix
from gpudoctor.probes.readiness import Readiness
from gpudoctor.setup.carry_out import Outcome, Run, World
from gpudoctor.setup.failures import Failure
from gpudoctor.setup.logbook import Waiting, opened
from gpudoctor.setup.obstacles import Person
from gpudoctor.setup.plan import Asked, Item, Plan, faults, plan
from gpudoctor.setup.shell import Shell
from tests import healthy

PERSISTENCE = Finding("persistence-off", "fail", "it sleeps", "because", (), Fix("driver#persistence"))
REBOOT = Finding(
    "driver-library-mismatch", "fail", "they differ", "because", (), Fix("kernel-modules#reboot-into-installed-driver")
)
HARDWARE = Finding("no-nvidia-gpu", "fail", "no card", "because", (), Fix("hardware#no-nvidia-gpu"))
INITRAMFS = Finding(
    "next-boot-without-initramfs",
    "fail",
    "none",
    "because",
    (),
    Fix("kernel-modules#make-initramfs", (("KERNEL", "6.8.0-1-generic"),)),
)
PROGRAMS = (
    "systemctl",
    "modinfo",
    "nvidia-smi",
    "update-initramfs",
    "update-grub",
    "df",
    "ls",
    "linux-version",
    "sort",
    "tail",
    "env",
)


@dataclass
class Listener:
    """Who is told, and answers."""

    answers: list[bool] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)

    def plan(self, plan: Plan) -> None:
        self.plans.append(plan)

    def agreed(self, question: str) -> bool:
        self.heard.append(question)
        return self.answers.pop(0)

    def begins(self, item: Item) -> None:
        self.heard.append(f"begins {item.step.step}")

    def runs(self, command: str) -> None:
        self.heard.append(f"$ {command}")

    def output(self, chunk: bytes) -> None:
        del chunk

    def failed(self, item: Item, command: str, code: int, failure: Failure | None, log: str) -> None:
        self.heard.append(f"failed {command} {code} {failure.id if failure else None}")
        del item, log

    def stopped(self, words: str, log: str) -> None:
        self.heard.append(f"stopped {words}")
        del log

    def still(self, finding: Finding) -> None:
        self.heard.append(f"still {finding.code}")

    def says(self, words: str) -> None:
        self.heard.append(words)

    @property
    def begun(self) -> list[str]:
        return [words.removeprefix("begins ") for words in self.heard if words.startswith("begins ")]


def diagnosis(found: Sequence[Finding]) -> Diagnosis:
    status = "fail" if found else "pass"
    check = CheckResult("driver", "driver", status, "", tuple(found), None, 0.0)  # type: ignore[arg-type]
    return Diagnosis(status, tuple(f.code for f in found), (check,))  # type: ignore[arg-type]


@dataclass
class Ward:
    """A machine whose diagnoses are given one after the other; the last one stays. ``ahead``: what is said of the next start."""

    folder: Path
    found: list[Sequence[Finding]]
    ahead: list[Sequence[Finding]] = field(default_factory=lambda: [()])
    boot: str = "boot 1"
    attended: bool = False
    asked: Asked = field(default_factory=Asked)
    looked_at: list[str | None] = field(default_factory=list)
    """The interpreter that was meant, each time."""

    def programs(self) -> str:
        place = self.folder / "programs"
        place.mkdir(exist_ok=True)
        for name in PROGRAMS:
            if not (place / name).exists():
                script = f'#!/bin/bash\necho "{name} $*" >> {self.folder}/calls\n'
                (place / name).write_text('#!/bin/bash\nexec /usr/bin/env "$@"\n' if name == "env" else script)
                (place / name).chmod(0o755)
        return str(place)

    def run(self, *answers: bool) -> tuple[Outcome, Listener]:
        """One run, which asks ``answers``."""
        listener = Listener(list(answers))
        person = Person(self.attended, may_be_root=True)
        world = World(
            look=self._look,
            diagnose=lambda _: diagnosis(self._next(self.found)),
            ahead=lambda _: diagnosis(self._next(self.ahead)).checks[0],
            faults=lambda judged: faults(judged, self.asked),
            plan=self._plan(person),
            boot=lambda: self.boot,
            shell=Shell(Path("/"), self.attended, is_root=True),
            environ={"PATH": f"{self.programs()}:/usr/bin:/bin", "HOME": str(self.folder)},
        )
        with contextlib.closing(opened({"XDG_STATE_HOME": str(self.folder)}, "m")) as book:
            return Run(world, person, listener, book, None).carry_out(
                named=bool(self.asked.layers or self.asked.sections)
            ), listener

    def _look(self, python: str | None) -> Facts:
        self.looked_at.append(python)
        return healthy.facts()

    def _next(self, script: list[Sequence[Finding]]) -> Sequence[Finding]:
        return script.pop(0) if len(script) > 1 else script[0]

    def _plan(self, person: Person) -> Callable[[Facts, tuple[Finding, ...]], Plan]:
        return lambda facts, found: plan(facts, found, Readiness(), person, self.asked)

    @property
    def note(self) -> Waiting | None:
        with contextlib.closing(opened({"XDG_STATE_HOME": str(self.folder)}, "m")) as book:
            return book.waiting()

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


def test_nothing_to_do(tmp_path: Path) -> None:
    outcome, listener = Ward(tmp_path, [()]).run()
    assert (outcome, listener.heard) == (Outcome.well, [])


def test_a_cure_that_helps(tmp_path: Path) -> None:
    ward = Ward(tmp_path, [(PERSISTENCE,), ()])
    outcome, listener = ward.run()
    assert outcome is Outcome.well
    assert listener.begun == ["driver#persistence"]
    assert ward.calls[0] == "systemctl enable --now nvidia-persistenced"
    assert any(call.startswith("nvidia-smi") for call in ward.calls)
    assert ward.note is None


def test_a_cure_that_does_not_help_is_run_once(tmp_path: Path) -> None:
    ward = Ward(tmp_path, [(PERSISTENCE,)])
    outcome, listener = ward.run()
    assert outcome is Outcome.failed
    assert listener.begun == ["driver#persistence"]
    assert "still persistence-off" in listener.heard
    assert ward.note is None


def test_two_cures_that_undo_each_other_come_to_an_end(tmp_path: Path) -> None:
    others = [replace(PERSISTENCE, code=f"code-{number}") for number in range(40)]
    outcome, listener = Ward(tmp_path, [(other,) for other in others]).run()
    assert outcome is Outcome.failed
    assert len(listener.begun) < 20
    assert any("circles" in words for words in listener.heard)


@pytest.mark.parametrize(("answer", "outcome"), [(True, Outcome.well), (False, Outcome.declined)])
def test_what_a_person_says_decides(answer: bool, outcome: Outcome, tmp_path: Path) -> None:
    ward = Ward(tmp_path, [(PERSISTENCE,), ()], attended=True)
    assert ward.run(answer)[0] is outcome
    assert bool(ward.calls) is answer
    assert ward.note is None


def test_a_new_fault_is_asked_about_anew(tmp_path: Path) -> None:
    second = replace(PERSISTENCE, code="another")
    ward = Ward(tmp_path, [(PERSISTENCE,), (second,), ()], attended=True)
    outcome, listener = ward.run(True, False)
    assert outcome is Outcome.declined
    assert len(listener.plans) == 2
    assert listener.begun == ["driver#persistence"]


def test_what_is_left_to_others_is_shown(tmp_path: Path) -> None:
    outcome, listener = Ward(tmp_path, [(HARDWARE,)]).run()
    assert outcome is Outcome.left
    assert [item.step.step for item in listener.plans[0].items] == ["hardware#no-nvidia-gpu"]


def test_the_environment_that_a_section_makes_is_examined_from_then_on(tmp_path: Path) -> None:
    python = tmp_path / "python 3"
    makes = 'if [ "$2" = venv ]; then mkdir -p "$3/bin"; ln -s "$0" "$3/bin/python"; fi'
    python.write_text(f'#!/bin/bash\n{makes}\necho "$*" >> {tmp_path}/calls\n')
    python.chmod(0o755)
    values = (("PYTHON", str(python)), ("TORCH", "2.13.0"), ("VARIANT", "cu130"), ("INDEX", "https://index.example/whl"))
    fix = Fix("pytorch#make-environment-for-torch", values)
    ward = Ward(tmp_path, [(replace(PERSISTENCE, code="torch-not-installed", fix=fix),), ()])
    outcome, _ = ward.run()
    assert outcome is Outcome.well
    assert ward.calls[:2] == [
        "-m venv " + str(tmp_path / "torch"),
        "-m pip install torch==2.13.0+cu130 --index-url https://index.example/whl",
    ]
    assert ward.looked_at == [None, os.path.expanduser("~/torch/bin/python")]


# ---------------------------------------------------------------- restarts


def test_a_restart_is_asked_for_until_it_is_made_and_then_verified(tmp_path: Path) -> None:
    ward = Ward(tmp_path, [(REBOOT,)])
    assert ward.run()[0] is Outcome.restart
    assert ward.note is not None
    assert ward.note.done
    assert "nvidia-smi" not in " ".join(ward.calls)
    outcome, listener = ward.run()
    assert (outcome, listener.begun) == (Outcome.restart, [])
    ward.boot, ward.found = "boot 2", [()]
    outcome, listener = ward.run()
    assert outcome is Outcome.well
    assert "$ nvidia-smi" in listener.heard
    assert ward.note is None


def test_a_restart_that_did_not_help_is_not_asked_for_again(tmp_path: Path) -> None:
    ward = Ward(tmp_path, [(REBOOT,)])
    ward.run()
    ward.boot = "boot 2"
    outcome, listener = ward.run()
    assert (outcome, listener.begun) == (Outcome.failed, [])
    assert "still driver-library-mismatch" in listener.heard


@pytest.mark.parametrize(
    "asked", [Asked(), Asked(sections=("kernel-modules#reboot-into-installed-driver",)), Asked(layers=("driver",))]
)
def test_what_the_next_start_lacks_is_done_before_it(asked: Asked, tmp_path: Path) -> None:
    ward = Ward(tmp_path, [(REBOOT,)], ahead=[(INITRAMFS,), ()], asked=asked)
    outcome, listener = ward.run()
    assert outcome is Outcome.restart
    assert listener.begun == ["kernel-modules#reboot-into-installed-driver", "kernel-modules#make-initramfs"]
    assert ward.note is not None
    assert (ward.note.step, ward.note.done) == ("kernel-modules#reboot-into-installed-driver", True)


def test_what_the_next_start_lacks_and_nobody_here_can_give(tmp_path: Path) -> None:
    ward = Ward(tmp_path, [(REBOOT,)], ahead=[(HARDWARE,)])
    outcome, _ = ward.run()
    assert outcome is Outcome.left
    assert ward.note is not None  # the restart is still to be made


def test_a_layer_that_is_named_does_not_wait_for_the_restart(tmp_path: Path) -> None:
    ward = Ward(tmp_path, [(REBOOT,)])
    ward.run()
    ward.asked, ward.found = Asked(sections=("driver#persistence",)), [()]
    outcome, listener = ward.run()
    assert (outcome, listener.begun) == (Outcome.well, ["driver#persistence"])
    assert ward.note is not None
    assert ward.note.done
    assert ward.note.step == "kernel-modules#reboot-into-installed-driver"


def test_two_faults_of_one_code_are_both_cured(tmp_path: Path) -> None:
    """Each with its own values: a package each, for one."""
    first, second = (
        replace(PERSISTENCE, code="extension-abi-mismatch", fix=Fix("driver#persistence", (("NAME", name),))) for name in ("a", "b")
    )
    outcome, listener = Ward(tmp_path, [(first, second), (second,), ()]).run()
    assert outcome is Outcome.well
    assert listener.begun == ["driver#persistence", "driver#persistence"]


def test_what_is_left_beside_what_was_named_is_said(tmp_path: Path) -> None:
    asked = Asked(layers=("pytorch",))
    outcome, listener = Ward(tmp_path, [(PERSISTENCE,)], asked=asked).run()
    assert outcome is Outcome.left
    assert any("persistence-off" in words for words in listener.heard)


# ---------------------------------------------------------------- what an earlier run left


def leave(ward: Ward, waiting: Waiting) -> None:
    with contextlib.closing(opened({"XDG_STATE_HOME": str(ward.folder)}, "m")) as book:
        book.wait(waiting)


@pytest.mark.parametrize("boot", ["boot 1", "boot 0"])
def test_a_section_that_was_cut_off_is_run_again(boot: str, tmp_path: Path) -> None:
    ward = Ward(tmp_path, [()])
    leave(ward, Waiting("driver#persistence", None, boot, done=False))
    outcome, listener = ward.run()
    assert (outcome, listener.begun) == (Outcome.well, ["driver#persistence"])
    assert ward.note is None


def test_a_section_that_was_cut_off_comes_before_one_that_is_named(tmp_path: Path) -> None:
    ward = Ward(tmp_path, [()], asked=Asked(sections=("kernel-modules#load-uvm",)))
    for name in ("modprobe", "nvidia-modprobe", "tee"):
        ward.programs()
        (tmp_path / "programs" / name).write_text("#!/bin/bash\ntrue\n")
        (tmp_path / "programs" / name).chmod(0o755)
    leave(ward, Waiting("driver#persistence", None, "boot 1", done=False))
    outcome, listener = ward.run()
    assert (outcome, listener.begun) == (Outcome.well, ["driver#persistence", "kernel-modules#load-uvm"])


@pytest.mark.parametrize("step", ["no-such#section", "hardware#no-nvidia-gpu", "driver#keep-one-branch", ""])
def test_one_that_cannot_be_run_from_here_is_forgotten(step: str, tmp_path: Path) -> None:
    ward = Ward(tmp_path, [()])
    leave(ward, Waiting(step, "some-code", "boot 1", done=False))
    outcome, listener = ward.run()
    assert (outcome, listener.begun) == (Outcome.well, [])
    assert ward.note is None


def test_a_command_that_fails_for_a_known_reason_is_run_again_next_time(tmp_path: Path) -> None:
    ward = Ward(tmp_path, [(PERSISTENCE,)])
    ward.programs()
    (tmp_path / "programs/systemctl").write_text("#!/bin/bash\necho 'No space left on device' >&2\nexit 3\n")
    outcome, listener = ward.run()
    assert outcome is Outcome.failed
    assert "failed sudo systemctl enable --now nvidia-persistenced 3 no-space" in listener.heard
    assert ward.note is not None
    assert not ward.note.done


def test_one_that_fails_for_no_known_reason_is_judged_anew(tmp_path: Path) -> None:
    ward = Ward(tmp_path, [(PERSISTENCE,)])
    ward.programs()
    (tmp_path / "programs/systemctl").write_text("#!/bin/bash\nexit 3\n")
    outcome, listener = ward.run()
    assert outcome is Outcome.failed
    assert "still persistence-off" in listener.heard
    assert ward.note is None


def test_a_note_that_cannot_be_written_lets_nothing_begin(tmp_path: Path) -> None:
    ward = Ward(tmp_path, [(PERSISTENCE,)])
    ward.run()
    (tmp_path / "calls").unlink()
    for note in (tmp_path / "gpudoctor").glob("waiting-*.lock"):
        os.mkdir(note.with_suffix(".new"))
    outcome, listener = ward.run()
    assert outcome is Outcome.failed
    assert (listener.begun, ward.calls) == ([], [])
    assert any("nothing was begun" in words for words in listener.heard)
