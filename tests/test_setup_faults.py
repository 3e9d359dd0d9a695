"""setup on a bad day, in a real root: nothing half-done is called done, the next run goes on, and the message says what to do."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.keyboard import talk
from tests.root.machine import Done, Machine
from tests.test_setup_root import FAULT, RESTART, USAGE, WELL, YES, arguments, attended

pytestmark = pytest.mark.root

ARCHIVE = "var/lib/dpkg/lock-frontend"
CURE = "driver#install"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A card and no driver."""
    with Machine.lent(tmp_path) as lent:
        yield lent


def alone(machine: Machine, *more: str, **environ: str) -> Done:
    """Nobody is there."""
    done = machine.doctor(*arguments(machine, "--yes", *more)[3:], environ=environ)
    return Done(done.code, " ".join(done.stdout.split()), done.stderr)


def goes_on(machine: Machine) -> None:
    """The next run brings it to its end, and only then is it called done."""
    done = alone(machine)
    assert done.code == RESTART, done
    assert f"{CURE} is done" in done.stdout
    machine.boot()
    assert alone(machine).code == WELL
    assert machine.report()["root_causes"] == []


def not_done(done: Done) -> None:
    assert done.code == FAULT, done
    assert f"{CURE} is done" not in done.stdout
    assert "setup-" in done.stdout, "it does not say where the log is"


# ---------------------------------------------------------------- apt


def test_another_program_is_installing(machine: Machine) -> None:
    machine.run("apt-get", "update", "-q")
    with (machine.root / ARCHIVE).open("r+") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        done = alone(machine, "--deadline", "3")
    not_done(done)
    assert "Another program is installing packages just now" in done.stdout
    assert "Do not delete the lock file" in done.stdout
    goes_on(machine)


def test_it_waits_for_another_program(machine: Machine) -> None:
    machine.run("apt-get", "update", "-q")
    lock = (machine.root / ARCHIVE).open("r+")
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    setup = subprocess.Popen(
        arguments(machine, "--yes"), env=machine.environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    time.sleep(4)
    lock.close()
    said, _ = setup.communicate(timeout=120)
    assert setup.returncode == RESTART, said


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """A file system of its own with what the folder has and no room."""
    held = [(path.relative_to(folder), path.read_bytes()) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        for name, data in held:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1024))
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_the_disk_is_full(machine: Machine) -> None:
    with full_disk((machine.root / "lib/modules").resolve()):
        done = alone(machine)
        not_done(done)
        assert "The disk is full" in done.stdout
    goes_on(machine)


def test_no_network(machine: Machine) -> None:
    machine.run("apt-get", "update", "-q")
    sources = machine.root / "etc/apt/sources.list"
    before = sources.read_text()
    sources.write_text(re.sub(r"file:\S+", "https://archive.example/jammy", before))
    machine.remember("no-network")
    done = alone(machine)
    not_done(done)
    assert "could not be reached" in done.stdout
    sources.write_text(before)
    machine.forget("no-network")
    goes_on(machine)


def test_an_archive_that_nobody_has_signed(machine: Machine) -> None:
    for key in (machine.root / "usr/share/keyrings").glob("*.gpg"):
        key.write_bytes(b"")
    for known in (machine.root / "var/lib/apt/lists").glob("*_*"):
        known.unlink()
    done = alone(machine)
    not_done(done)
    assert "signature could not be verified" in done.stdout
    assert not machine.has("/usr/bin/nvidia-smi")


def test_an_apt_step_that_fails_half_way(machine: Machine) -> None:
    """A package's own script fails: an initial RAM disk for which there is no room."""
    program = machine.root / "usr/local/sbin/update-initramfs"
    before = program.read_text()
    program.write_text("#!/bin/bash\necho 'gzip: stdout: No room' >&2\nexit 1\n")
    done = alone(machine)
    not_done(done)
    assert machine.run("dpkg", "--audit").stdout
    program.write_text(before)
    done = alone(machine)
    assert done.code == RESTART, done
    assert done.stdout.index("packages#finish-interrupted:") < done.stdout.index("$ sudo ubuntu-drivers install")
    assert machine.run("dpkg", "--audit").stdout == ""
    machine.boot()
    assert machine.report()["root_causes"] == []


def test_an_installation_that_was_cut_off_before(machine: Machine) -> None:
    machine.install("ubuntu-drivers-common")
    status = machine.root / "var/lib/dpkg/status"
    text = re.sub(r"(Package: ubuntu-drivers-common\nStatus: install ok )installed", r"\1unpacked", status.read_text())
    status.write_text(text)
    done = alone(machine)
    assert done.code == RESTART, done
    assert "An installation was cut off half-way (ubuntu-drivers-common)" in done.stdout
    assert "\nStatus: install ok unpacked" not in status.read_text()


def test_the_wrong_key(machine: Machine) -> None:
    """Somebody stands between this machine and NVIDIA's archive."""
    (machine.root / "var/lib/fake-machine/fingerprints.sed").unlink()  # now the key shows the fingerprint that it really has
    done = alone(machine, "cuda-toolkit#install", "--set", "CUDA_PACKAGE=cuda-toolkit-12-6", "--set", "CUDA=12.6")
    assert done.code == FAULT, done
    assert "is not the one that belongs to this archive" in done.stdout
    assert not machine.has("/usr/share/keyrings/cuda-archive-keyring.gpg")


def test_a_removal_is_not_made_when_nobody_is_there(machine: Machine) -> None:
    machine.install_driver("580-open")
    before = machine.run("dpkg-query", "--show").stdout
    done = alone(machine, "driver#switch-to-proprietary-modules", "--set", "BRANCH=580")
    assert done.code == FAULT, done
    assert "removes" in done.stdout
    assert "nobody is there to agree" in done.stdout
    assert machine.run("dpkg-query", "--show").stdout == before


def test_a_removal_that_a_person_does_not_want(machine: Machine) -> None:
    machine.install_driver("580-open")
    before = machine.run("dpkg-query", "--show").stdout
    answers = ((r"Go on\? \[y/N\] $", b"n\r"), *YES)
    said = attended(machine, "driver#switch-to-proprietary-modules", "--set", "BRANCH=580", answers=answers)
    assert said.code == FAULT, said.screen
    assert "This removes nvidia-driver-580-open" in " ".join(said.screen.split())
    assert machine.run("dpkg-query", "--show").stdout == before


# ---------------------------------------------------------------- who is there


def test_whoever_says_no_changes_nothing(machine: Machine) -> None:
    before = machine.run("dpkg-query", "--show").stdout
    for answer in (b"n\r", b"\r", b"\x04", b"what?\r"):
        said = attended(machine, answers=((r"\[y/N\] $", answer),))
        assert said.code == FAULT, said.screen
        assert "$ sudo" not in said.screen
    assert machine.run("dpkg-query", "--show").stdout == before
    assert list((machine.home / ".local/state/gpudoctor").glob("*.log")) == []


def test_without_a_terminal_and_without_yes_nothing_is_waited_for(machine: Machine) -> None:
    done = machine.doctor(*arguments(machine)[3:])
    assert (done.code, done.stdout) == (USAGE, "")
    assert "--yes" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("state", ["/proc/no-such-folder", "/dev/null"])
def test_a_log_that_cannot_be_written(state: str, machine: Machine) -> None:
    before = machine.run("dpkg-query", "--show").stdout
    done = machine.doctor(*arguments(machine, "--yes")[3:], environ={"XDG_STATE_HOME": state})
    assert (done.code, done.stdout) == (USAGE, "")
    assert "XDG_STATE_HOME" in done.stderr
    assert machine.run("dpkg-query", "--show").stdout == before


def lines_of(machine: Machine) -> list[str]:
    """The commands of the cure, as they are shown."""
    report = machine.report()
    findings = [finding for check in report["checks"] for finding in check["findings"]]
    return [line for line in findings[0]["fix"]["commands"] if line != "sudo reboot"]


@pytest.mark.parametrize("number", range(5))
def test_ctrl_c_in_any_command(number: int, machine: Machine) -> None:
    line = lines_of(machine)[number]
    answers = ((rf"\$ {re.escape(line)}\S*\r?\n", b"\x03"), *YES)
    said = talk(arguments(machine), answers, machine.environ())
    if "You stopped" in said.screen:
        assert said.code == FAULT
        assert f"{CURE} is done" not in said.screen
    else:  # the command had ended already
        assert said.code in (RESTART, FAULT, 128 + signal.SIGINT), said.screen
    if said.code != RESTART:
        goes_on(machine)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("word", ["Unpacking libnvidia-compute", "Setting up nvidia-kernel-common"])
def test_ended_in_the_middle_of_an_installation(ending: signal.Signals, word: str, machine: Machine) -> None:
    setup = subprocess.Popen(arguments(machine, "--yes"), env=machine.environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert setup.stdout is not None
    with setup.stdout:
        seen = b""
        while word.encode() not in seen:
            chunk = os.read(setup.stdout.fileno(), 4096)
            assert chunk, seen.decode(errors="replace")
            seen += chunk
        setup.send_signal(ending)
        setup.wait(timeout=30)
    until = time.monotonic() + 20
    while time.monotonic() < until and _at_work(machine):
        time.sleep(0.05)
    assert not _at_work(machine)
    done = alone(machine)
    assert done.code == RESTART, done
    assert f"{CURE} was begun and not finished" in done.stdout
    assert machine.run("dpkg", "--audit").stdout == ""
    machine.boot()
    assert machine.report()["root_causes"] == []


def _at_work(machine: Machine) -> bool:
    """A program runs inside the root."""
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and os.readlink(process / "root") == str(machine.root):
                return True
    return False


def test_setup_run_again_before_the_restart_asks_for_it_again(machine: Machine) -> None:
    assert alone(machine).code == RESTART
    again = alone(machine)
    assert again.code == RESTART
    assert "$ sudo" not in again.stdout
    assert "restart this machine" in again.stdout


def test_a_cure_that_does_not_help_is_not_tried_for_ever(machine: Machine) -> None:
    """The restart comes up without the module: the card holds out against it."""
    assert alone(machine).code == RESTART
    (machine.root / "proc/sys/kernel/random/boot_id").write_text("another boot\n")
    for library in machine.root.glob("usr/lib/x86_64-linux-gnu/libnvidia-ml.so*"):
        library.unlink()
    machine.run("dpkg", "--purge", "--force-all", "libnvidia-compute-580")
    done = alone(machine)
    assert done.code == FAULT
    assert "was carried out, and what it should cure is still there" in done.stdout
    assert "driver-not-installed" in done.stdout


def test_the_script_of_a_dry_run_does_the_same_without_the_doctor(machine: Machine, tmp_path: Path) -> None:
    script = tmp_path / "setup.sh"
    done = machine.doctor(*arguments(machine, "--dry-run", "--output", str(script))[3:])
    assert (done.code, done.stdout) == (WELL, "")
    (machine.root / "root/setup.sh").write_text(script.read_text())
    said = machine.run("bash", "/root/setup.sh")
    assert "bash setup.sh 2" in said.stdout
    machine.boot()
    assert machine.report()["root_causes"] == []
