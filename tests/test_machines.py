"""Every recorded machine gets the diagnosis that is true of it, from the real command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import machine, record


@pytest.mark.parametrize("name", record.names())
def test_recorded_machine(name: str, tmp_path: Path) -> None:
    built = machine.build(name, tmp_path.resolve())
    report = machine.examine(built)
    wrong = machine.disagreements(built, report, machine.text(built, report))
    assert not wrong, f"{built.record['about']}\n" + "\n".join(wrong)
    assert "Traceback" not in report.stderr
    assert machine.unfilled(report) == []
    assert machine.miscured(report) == []
    assert machine.wrong_when_blind(report) == []
    assert machine.same_diagnosis(report, machine.replay(built, report)) == []


@pytest.mark.parametrize("name", record.names())
def test_record_says_what_it_is_and_where_it_came_from(name: str) -> None:
    own = record.load(name, root="/root")
    assert own.get("about", "").endswith(".")
    assert own.get("provenance")
    assert own.get("expect")


@pytest.mark.slow
def test_nvml_that_hangs_is_given_up_at_the_default_deadline(tmp_path: Path) -> None:
    patient = {"arguments": [], "python": {"behaviour!": {"available": False}}}
    built = machine.build("nvml-hangs-at-start", tmp_path.resolve(), but=patient)
    report = machine.examine(built)
    assert report.document["root_causes"] == ["driver-hang"]
    # 20 s, and 3 s for the one GPU on the bus (a driver without persistence needs 1 to 3 s to wake each)
    assert 20 <= report.seconds < 28
