"""The kernel log: files below a root, journalctl and dmesg, and a user who may not read it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gpudoctor.facts import Unknown
from gpudoctor.probes import kernel_log
from tests.probe_world import program, says, scope, write

XID = "[ 100.123456] box kernel: NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    place.mkdir()
    return place


def ids(root: Path, cap: float | None = None) -> list[str] | Unknown:
    seen = kernel_log.look(scope(root, cap=cap))
    return seen if isinstance(seen, Unknown) else [symptom.id for symptom in seen]


def test_the_journal(root: Path) -> None:
    says(root, "journalctl", f"-- Journal begins at Mon --\n{XID}")
    assert ids(root) == ["nvrm-xid", "nvrm-off-bus"]


def test_dmesg_where_the_journal_is_empty(root: Path) -> None:
    says(root, "journalctl", "-- No entries --\n", error="No journal files were found.\n")
    says(root, "dmesg", "[ 1.0] NVRM: No NVIDIA GPU found.\n")
    assert ids(root) == ["nvrm-no-gpu"]


def test_nobody_may_read_it(root: Path) -> None:
    says(root, "journalctl", "", error="No journal files were opened due to insufficient permissions.\n", code=1)
    says(root, "dmesg", "", error="dmesg: read kernel buffer failed: Operation not permitted\n", code=1)
    assert ids(root) == Unknown("the kernel log may not be read by this user")


def test_no_program_at_all(root: Path) -> None:
    assert isinstance(ids(root), Unknown)


def test_programs_that_hang(root: Path) -> None:
    program(root, "journalctl", "sleep 60")
    program(root, "dmesg", "sleep 60")
    started = time.monotonic()
    assert ids(root, cap=0.3) == Unknown("the kernel log did not answer in time")
    assert time.monotonic() - started < 3


def test_a_healthy_log_has_no_symptom(root: Path) -> None:
    says(root, "dmesg", "[ 0.0] Linux version 6.2.0\n[ 5.1] nvidia: module license 'NVIDIA' taints kernel.\n")
    assert ids(root) == []


def test_files_below_a_root_and_only_the_last_boot(root: Path) -> None:
    write(
        root,
        {"/var/log/kern.log": f"Aug 1 box kernel: [0.0] Linux version 6.2\n{XID}Aug 2 box kernel: Linux version 6.2\nquiet\n"},
    )
    assert ids(root) == []
    write(root, {"/var/log/kern.log": f"Aug 2 box kernel: [0.0] Linux version 6.2\n{XID}"})
    assert ids(root) == ["nvrm-xid", "nvrm-off-bus"]


def test_a_flood_keeps_its_end(root: Path) -> None:
    program(root, "dmesg", "head -c 6000000 /dev/zero | tr '\\0' 'x' | fold -w 100; echo; echo 'NVRM: No NVIDIA GPU found.'")
    assert ids(root) == ["nvrm-no-gpu"]


def test_bytes_that_are_no_text(root: Path) -> None:
    program(root, "dmesg", "head -c 100000 /dev/urandom; echo; echo 'NVRM: No NVIDIA GPU found.'")
    seen = ids(root)
    assert not isinstance(seen, Unknown)
    assert "nvrm-no-gpu" in seen


def test_it_is_read_once(root: Path) -> None:
    program(root, "dmesg", f"echo x >> {root.parent}/calls; echo '[1.0] quiet'")
    world = scope(root)
    kernel_log.look(world)
    kernel_log.text(world)
    assert (root.parent / "calls").read_text() == "x\n"
