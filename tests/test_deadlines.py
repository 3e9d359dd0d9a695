"""Every program that the doctor runs, behaving as badly as a program can: no run is late, and nothing stays behind."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DEADLINE = 0.6
LATE = DEADLINE + 1.5 + 2.0  # the grace of a probe, and the start of two Pythons on a busy machine
PROGRAMS = ("nvidia-smi", "modinfo", "mokutil", "journalctl", "dmesg", "systemctl", "nvcc", "gcc", "python")
STEADFAST = "import signal, time\nfor number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\n"
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
"""
BEHAVIOURS = {
    "hangs": "import time; time.sleep(60)",
    "ignores-signals": STEADFAST + "time.sleep(60)",
    "leaves-a-daemon-that-holds-the-pipes": DAEMON,
    "leaves-a-child-in-its-group": "import subprocess; subprocess.Popen(['/bin/sleep', '60'])",
    "floods": "import os\nwhile True: os.write(1, b'\\xff\\x1b[31m' * 10000)",
    "floods-stderr": "import os\nwhile True: os.write(2, b'y' * 65536)",
    "closes-its-pipes-and-sleeps": "import os, time\nos.closerange(1, 100)\ntime.sleep(60)",
    "stops-itself": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "prints-binary": "import os; os.write(1, bytes(range(256)) * 64)",
    "exits-255": "raise SystemExit(255)",
    "dies-of-sigsegv": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "nests-deeply": (
        "import os\ndata = b'[' * 100000\nos.write(1, data)\nos.write(int(os.environ.get('GPUDOCTOR_REPORT_FD', 1)), data)"
    ),
    "answers-nonsense": (
        "import os\nos.write(int(os.environ.get('GPUDOCTOR_REPORT_FD', 1)), "
        'b\'{"version": 7, "path": 1e999, "prefix": [], "phase": "done", "seconds": NaN, "call": null, "cuda": {}}\\n\')'
    ),
}
ODDITIES = ("not-executable", "a-folder", "without-a-shebang", "a-pipe", "a-link-to-itself")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a kernel to ask modinfo about, and EFI to ask mokutil about."""
    root = tmp_path_factory.mktemp("root")
    for folder in (
        "lib/modules/6.8.0-40-generic/kernel",
        "lib/modules/6.8.0-41-generic/kernel",
        "run/systemd/system",
        "sys/module",
    ):
        (root / folder).mkdir(parents=True)
    return root


def _programs(folder: Path, source: str) -> Path:
    """All the programs, doing the same bad thing."""
    folder.mkdir()
    for name in PROGRAMS:
        path = folder / name
        path.write_text(f"#!{sys.executable} -IS\n{source}\n")
        path.chmod(0o755)
    return folder


def _odd(folder: Path, kind: str) -> Path:
    folder.mkdir()
    for name in PROGRAMS:
        path = folder / name
        if kind == "a-folder":
            path.mkdir()
        elif kind == "a-pipe":
            os.mkfifo(path, 0o755)
        elif kind == "a-link-to-itself":
            path.symlink_to(path)
        else:
            path.write_text("sleep 60\n")
            path.chmod(0o644 if kind == "not-executable" else 0o755)
    return folder


class Run:
    """One run of the doctor, with what it left behind."""

    def __init__(self, *arguments: str, environ: dict[str, str], cwd: Path | None = None) -> None:
        self.mark = f"GPUDOCTOR_TEST_{os.getpid()}_{time.monotonic_ns()}"
        started = time.monotonic()
        doctor = subprocess.Popen(
            [sys.executable, "-m", "gpudoctor", "check", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environ, self.mark: "1"},
            cwd=cwd,
        )
        # not subprocess.run: after its timeout that waits for ever for a process that cannot end
        stdout, stderr = doctor.communicate(timeout=20)
        self.seconds = time.monotonic() - started
        self.code, self.stdout, self.stderr = doctor.returncode, stdout.decode(), stderr.decode()

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.stdout)  # type: ignore[no-any-return]

    def left(self) -> list[str]:
        """The command lines of processes that carry the environment of this run and are still there."""
        until = time.monotonic() + 0.5
        while found := marked(self.mark):
            if time.monotonic() > until:
                break
            time.sleep(0.02)
        return found


def marked(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def _environ(programs: Path, **more: str) -> dict[str, str]:
    return {"PATH": str(programs), "HOME": str(programs.parent), "VIRTUAL_ENV": str(programs.parent / "env"), **more}


def _check(tmp_path: Path, bare: Path, programs: Path) -> Run:
    """A run in which the target interpreter is one of the bad programs too."""
    (tmp_path / "env/bin").mkdir(parents=True)
    (tmp_path / "env/bin/python").symlink_to(programs / "python")
    return Run("--root", str(bare), "--format", "json", "--deadline", str(DEADLINE), environ=_environ(programs))


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_no_program_makes_the_run_late_and_nothing_stays_behind(behaviour: str, bare: Path, tmp_path: Path) -> None:
    run = _check(tmp_path, bare, _programs(tmp_path / "bin", BEHAVIOURS[behaviour]))
    assert run.left() == []
    assert run.seconds < LATE
    assert run.stderr == ""
    assert run.code in (1, 3)
    assert "the probe failed" not in run.stdout
    assert run.document["status"] in ("fail", "unknown")


@pytest.mark.parametrize("kind", ODDITIES)
def test_a_program_that_cannot_be_started_is_no_trouble(kind: str, bare: Path, tmp_path: Path) -> None:
    run = _check(tmp_path, bare, _odd(tmp_path / "bin", kind))
    assert run.left() == []
    assert run.seconds < LATE
    assert run.stderr == ""
    assert "the probe failed" not in run.stdout
    assert run.document["status"] in ("fail", "unknown")


def test_a_hanging_interpreter_of_the_users_choice_is_not_waited_for_twice(bare: Path, tmp_path: Path) -> None:
    programs = _programs(tmp_path / "bin", BEHAVIOURS["ignores-signals"])
    arguments = ("--root", str(bare), "--deadline", str(DEADLINE), "--python", str(programs / "python"), "--format", "json")
    run = Run(*arguments, environ=_environ(programs))
    assert (run.left(), run.stderr) == ([], "")
    assert run.seconds < LATE


# ---------------------------------------------------------------- an interpreter that comes as far as generating

FRONT = """
import os, signal, subprocess, sys, time
if "smoke" not in sys.argv: os._exit(0)
def say(text): os.write(int(os.environ["GPUDOCTOR_REPORT_FD"]), text + b"\\n")
say(b'{"phase": "import", "version": "2.5.1+cu124", "cuda": "12.4"}')
say(b'{"phase": "done", "available": true, "device_count": 1}')
say(b'{"waiting": true}')
"""
AFTERWARDS = {
    "never-reads-its-plan": "time.sleep(60)",
    "closes-its-stdin": "os.close(0); time.sleep(60)",
    "stops-itself": "sys.stdin.readline(); os.kill(os.getpid(), signal.SIGSTOP)",
    "talks-for-ever": "while True: say(b'{\"token\": 1}')",
    "asks-for-ever": "while True: say(b'{\"waiting\": true}')",
    "floods": "while True: os.write(1, b'x' * 65536); say(b'y' * 65536)",
    "leaves-ranks-in-sessions-of-their-own": (
        "[subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(15, 1); time.sleep(60)'],"
        " start_new_session=True) for _ in range(2)]; time.sleep(60)"
    ),
    "dies-and-leaves-a-rank": (
        "subprocess.Popen(['/bin/sleep', '60'], start_new_session=True); os.kill(os.getpid(), signal.SIGSEGV)"
    ),
}


@pytest.mark.parametrize("behaviour", AFTERWARDS)
def test_no_smoke_test_makes_the_run_late_and_nothing_stays_behind(behaviour: str, bare: Path, tmp_path: Path) -> None:
    programs = _programs(tmp_path / "bin", FRONT + AFTERWARDS[behaviour])
    (tmp_path / "env/bin").mkdir(parents=True)
    (tmp_path / "env/bin/python").symlink_to(programs / "python")
    deadline = 2.5  # less than a second is not begun with
    run = Run("--root", str(bare), "--format", "json", "--deadline", str(deadline), environ=_environ(programs))
    assert run.left() == []
    assert run.seconds < deadline + LATE - DEADLINE
    assert run.stderr == ""
    said = run.document["facts"]["smoke"]
    assert said.get("signal") == "SIGSEGV" or said["unknown"].startswith("not done after "), said
    assert run.document["facts"]["torch_import"]["phase"] == "done"
    assert "the probe failed" not in run.stdout


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_at_any_moment_ends_the_run_by_that_signal_and_its_children(
    ending: signal.Signals, bare: Path, tmp_path: Path
) -> None:
    programs = _programs(tmp_path / "bin", BEHAVIOURS["ignores-signals"])
    for step in range(10):
        mark = f"GPUDOCTOR_TEST_{os.getpid()}_{time.monotonic_ns()}"
        doctor = subprocess.Popen(
            [sys.executable, "-m", "gpudoctor", "check", "--root", str(bare), "--format", "json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environ(programs) | {mark: "1"},
            start_new_session=True,
        )
        time.sleep(0.06 + 0.05 * step)  # before that it is Python that starts, and not yet the doctor
        doctor.send_signal(ending)
        _, errors = doctor.communicate(timeout=5)
        assert doctor.returncode == -ending, errors
        assert b"Traceback" not in errors
        assert b"Exception" not in errors
        assert marked(mark) == []


def test_a_doctor_that_is_killed_leaves_nothing_behind_either(bare: Path, tmp_path: Path) -> None:
    programs = _programs(tmp_path / "bin", BEHAVIOURS["ignores-signals"])
    mark = f"GPUDOCTOR_TEST_{os.getpid()}_{time.monotonic_ns()}"
    doctor = subprocess.Popen(
        [sys.executable, "-m", "gpudoctor", "check", "--root", str(bare)],
        env=_environ(programs) | {mark: "1"},
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 10
    while len(marked(mark)) < 5 and time.monotonic() < until:
        time.sleep(0.05)
    doctor.kill()
    doctor.wait(timeout=5)
    while marked(mark) and time.monotonic() < until:
        time.sleep(0.05)
    assert marked(mark) == []


# ---------------------------------------------------------------- a file system that does not answer


class HungMount:
    """A FUSE file system whose server takes every request and answers none: whoever asks is in uninterruptible sleep."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if self._libc.mount(b"hung", os.fsencode(place), b"fuse", 0, options) != 0:
            os.close(self._device)
            raise OSError(ctypes.get_errno(), "mount")
        _, _, unique = struct.unpack_from("<IIQ", os.read(self._device, 1 << 17))  # FUSE_INIT, the one that is answered
        body = struct.pack("<IIIIHHII", 7, 31, 0, 0, 16, 12, 4096, 1).ljust(64, b"\0")
        os.write(self._device, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                os.read(self._device, 1 << 17)

    def end(self) -> None:
        """Let everybody go."""
        self._libc.umount2(os.fsencode(self.place), 2)  # MNT_DETACH
        for connection in Path("/sys/fs/fuse/connections").glob("*/abort"):
            with contextlib.suppress(OSError):
                connection.write_text("1")
        os.close(self._device)


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "hung"
    place.mkdir()
    try:
        mount = HungMount(place)
    except OSError as error:
        pytest.skip(f"a file system cannot be mounted here: {error}")
    try:
        yield place
    finally:
        mount.end()


@pytest.mark.parametrize("what", ["VIRTUAL_ENV", "PATH", "--root", "program"])
def test_a_file_system_that_never_answers_holds_up_nothing(what: str, hung: Path, bare: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    shutil.copy("/bin/cat", programs / "cat")
    environ = {"PATH": str(programs), "HOME": str(tmp_path)}
    arguments = ["--root", str(bare)]
    if what == "--root":
        root = tmp_path / "root"
        (root / "usr").mkdir(parents=True)
        (root / "usr/lib").symlink_to(hung)
        (root / "lib").symlink_to(hung)
        arguments = ["--root", str(root)]
    elif what == "program":
        (programs / "nvidia-smi").write_text(f"#!/bin/sh\nexec cat {hung}/file\n")
        (programs / "nvidia-smi").chmod(0o755)
    else:
        environ[what] = f"{hung}:{programs}" if what == "PATH" else str(hung)
    run = Run(*arguments, "--deadline", str(DEADLINE), "--format", "json", environ=environ)
    assert run.seconds < LATE + DEADLINE
    assert run.stderr == ""
    assert run.document["status"] in ("fail", "unknown")
