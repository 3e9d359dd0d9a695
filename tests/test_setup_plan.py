"""Which sections setup would carry out on each recorded machine, and which it leaves to people."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor import steps
from gpudoctor.diagnose import diagnose
from gpudoctor.facts import System
from gpudoctor.findings import Finding, Fix
from gpudoctor.probes.readiness import Readiness
from gpudoctor.setup.obstacles import Person, obstacle
from gpudoctor.setup.plan import FINISH, PREFER, Asked, CannotPlan, Plan, faults, plan, settings_of
from tests import healthy

ADA = Person(attended=True, may_be_root=True)
NOBODY_THERE = Person(attended=False, may_be_root=True)
SECTIONS = [section for page in steps.pages() for section in steps.sections(steps.DEFAULT_RELEASE, page)]
BY_NAME = {f"{section.page}#{section.name}": section for section in SECTIONS}


def fault(code: str, step: str, **values: str) -> Finding:
    return Finding(code, "fail", f"{code} is the case", "because", (), Fix(step, tuple(values.items())))


def planned(*found: Finding, person: Person = ADA, readiness: Readiness = Readiness(), **asked: Any) -> Plan:  # noqa: B008 - frozen
    return plan(healthy.facts(), found, readiness, person, Asked(**asked))


def named(made: Plan) -> list[str]:
    return [item.step.step for item in made.items]


DRIVER = fault("driver-not-installed", "driver#install", BRANCH="580-open")
TORCH = fault("torch-cpu-only-build", "pytorch#default-build-with-pip", PYTHON="/v/bin/python", TORCH="2.13.0")
HARDWARE = fault("no-nvidia-gpu", "hardware#no-nvidia-gpu")


def test_a_healthy_machine_needs_nothing() -> None:
    facts = healthy.facts()
    assert planned(*faults(diagnose(facts), Asked())).items == ()


def test_the_faults_are_cured_in_their_order_and_nothing_else_is_done() -> None:
    made = planned(DRIVER, TORCH)
    assert named(made) == ["driver#install", "pytorch#default-build-with-pip"]
    assert made.runnable == made.items
    assert "sudo ubuntu-drivers install nvidia:580-open" in made.items[0].step.commands


def test_two_faults_with_one_cure_are_cured_once() -> None:
    again = replace(DRIVER, code="nouveau-conflict")
    assert named(planned(DRIVER, again)) == ["driver#install"]


def test_what_depends_on_a_fault_that_is_left_to_others_waits() -> None:
    made = planned(HARDWARE, TORCH)
    assert made.runnable == ()
    assert made.items[1].obstacle == "no-nvidia-gpu comes first"


def test_a_layer_that_was_asked_for_by_name_does_not_wait() -> None:
    assert planned(TORCH, layers=("pytorch",)).runnable != ()
    assert planned(HARDWARE, TORCH, layers=("driver", "pytorch")).items[1].obstacle is None


def test_an_installation_that_was_cut_off_is_finished_before_apt_is_asked_for_more() -> None:
    broken = Readiness(interrupted=("libnvidia-compute-580",))
    assert named(planned(DRIVER, readiness=broken)) == [FINISH, "driver#install"]
    assert named(planned(TORCH, readiness=broken)) == ["pytorch#default-build-with-pip"]  # pip does not ask apt


def test_nvidias_archive_does_not_take_over_the_driver() -> None:
    there = Readiness(nvidia_archive="/etc/apt/sources.list.d/cuda-ubuntu2204-x86_64.list")
    assert named(planned(DRIVER, readiness=there)) == [PREFER, "driver#install"]
    assert named(planned(DRIVER, readiness=replace(there, driver_pinned=True))) == ["driver#install"]
    assert named(planned(TORCH, readiness=there)) == ["pytorch#default-build-with-pip"]


def test_a_section_by_its_name_takes_its_values_from_the_machine() -> None:
    made = planned(sections=("driver#hold-driver",))
    assert named(made) == ["driver#hold-driver"]
    assert any("linux-generic-hwe-22.04" in line for line in made.items[0].step.commands)


def test_a_section_that_needs_what_the_machine_does_not_tell_asks_for_it() -> None:
    with pytest.raises(CannotPlan, match="--set PACKAGE="):
        planned(sections=("driver#keep-one-branch",))
    made = planned(sections=("driver#keep-one-branch",), values=(("PACKAGE", "nvidia-dkms-535"),))
    assert "sudo apt-get purge nvidia-dkms-535" in made.items[0].step.commands


def test_there_is_no_such_section() -> None:
    with pytest.raises(CannotPlan, match="no section 'driver#reinstall-everything'"):
        planned(sections=("driver#reinstall-everything",))


def test_a_value_from_the_command_line_wins_and_is_quoted() -> None:
    made = planned(DRIVER, values=(("BRANCH", "570; sudo reboot"),))
    assert "sudo ubuntu-drivers install 'nvidia:570; sudo reboot'" in made.items[0].step.commands


@pytest.mark.parametrize("word", ["BRANCH", "=580", "branch=580", "1A=2", "A=b\nc"])
def test_settings_that_are_none(word: str) -> None:
    with pytest.raises(CannotPlan, match="--set"):
        settings_of([word])


@pytest.mark.parametrize(("system", "words"), [("debian-12", "Debian"), ("ubuntu-20.04", "20.04"), ("fedora-42", "Fedora")])
def test_on_a_system_without_pages_nothing_is_run_and_all_is_shown(system: str, words: str) -> None:
    identity, _, version = system.partition("-")
    facts = healthy.facts()
    assert isinstance(facts.system, System)
    facts = replace(
        facts, system=replace(facts.system, os_id=identity, os_version=version, os_name=f"{identity.title()} {version}")
    )
    made = plan(facts, (DRIVER,), Readiness(), ADA, Asked())
    assert made.runnable == ()
    assert words in (made.foreign or "")
    assert made.items[0].step.commands


# ---------------------------------------------------------------- what keeps setup from it


def stopped_by(step: str, person: Person = ADA, *, where: str | None = None) -> str | None:
    section = BY_NAME[step]
    values = tuple((name, "x") for name in steps.wanted(section))
    return obstacle(section, steps.resolve(Fix(step, values, where=where)), person)


def test_removals_and_passwords_wait_for_a_person() -> None:
    for step in ("driver#keep-one-branch", "secure-boot#enrol-signing-key", "driver#remove-runfile-driver"):
        assert stopped_by(step) is None
        assert "a person has to be there" in (stopped_by(step, NOBODY_THERE) or "")


def test_whoever_may_not_be_root_gets_a_ticket() -> None:
    guest = Person(attended=True, may_be_root=False)
    assert "ticket" in (stopped_by("driver#install", guest) or "")
    assert stopped_by("pytorch#cuda-build-with-pip", guest) is None


def test_a_persons_environment_is_not_filled_with_roots_files() -> None:
    borrowed = Person(attended=True, may_be_root=True, borrowed_root=True)
    assert "without sudo" in (stopped_by("pytorch#cuda-build-with-pip", borrowed) or "")
    assert stopped_by("driver#install", borrowed) is None


@pytest.mark.parametrize("where", ["host", "windows", "hypervisor", "image", "administrator", "code"])
def test_what_is_done_elsewhere_is_not_done_here(where: str) -> None:
    assert stopped_by("driver#install", where=where)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: f"{section.page}#{section.name}")
def test_unattended_nothing_is_run_that_removes_or_disturbs(section: steps.Section) -> None:
    step = f"{section.page}#{section.name}"
    if stopped_by(step, NOBODY_THERE) is None:
        assert section.fields["risk"] in ("none", "reboots")
        assert not any(
            word in line for line in section.code["do"] for word in ("purge", "kill ", "rmmod", "--gpu-reset", "mokutil --import")
        )


# ---------------------------------------------------------------- any machine


@given(
    attended=st.booleans(),
    may=st.sampled_from([True, False, None]),
    values=st.dictionaries(st.sampled_from(["BRANCH", "PYTHON", "INDEX", "KERNEL"]), st.text(max_size=12)),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_person_and_any_values_make_a_plan(attended: bool, may: bool | None, values: dict[str, str]) -> None:
    made = planned(DRIVER, TORCH, HARDWARE, person=Person(attended, may), values=tuple(values.items()))
    assert {item.code for item in made.items} == {"driver-not-installed", "torch-cpu-only-build", "no-nvidia-gpu"}
    json.dumps([item.step.commands for item in made.items])
