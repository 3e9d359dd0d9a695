"""A command that a person sees live: real bash in a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpudoctor.setup import failures, live
from gpudoctor.setup.logbook import Logbook, NoLogbook, Waiting, opened
from gpudoctor.setup.shell import Shell
from tests.keyboard import talk

ENVIRON = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}


def ran(line: str, *, attended: bool = False, silence: float = 60.0) -> tuple[live.Ended, bytes]:
    shown = bytearray()
    shell = Shell(Path("/"), attended, is_root=True)
    command, environ = shell.command(line, "machine"), shell.environment("machine", ENVIRON)
    with contextlib.closing(live.Session(attended=attended, silence=silence)) as session:
        ended = session.run(command, environ, shown.extend)
    return ended, bytes(shown)


def test_output_is_shown_as_it_comes_and_kept() -> None:
    ended, shown = ran("echo one; echo two >&2; printf 'three\\r\\n'")
    assert (ended.code, shown) == (0, b"one\ntwo\nthree\r\n")
    assert ended.output == "one\ntwo\nthree\r\n"


@pytest.mark.parametrize(("line", "code"), [("exit 7", 7), ("false | cat", 1), ("echo $NOT_SET_AT_ALL", 1), ("kill -TERM $$", 143)])
def test_how_it_ended(line: str, code: int) -> None:
    ended, _ = ran(line)
    assert (ended.code, ended.hung) == (code, False)


def test_with_nobody_there_it_has_nothing_to_read_and_no_terminal_to_paint_on() -> None:
    ended, shown = ran("test ! -t 1 && test ! -t 0 && test -e /dev/tty && cat && echo $TERM $DEBIAN_FRONTEND")
    assert ended.code == 0
    assert shown == b"dumb noninteractive\n"


def test_all_commands_share_a_session_and_its_terminal() -> None:
    """sudo remembers by both that a password was given."""
    line = "cut -d' ' -f6,7 /proc/$$/stat"  # the session and the number of its terminal
    shell = Shell(Path("/"), attended=False, is_root=True)
    shown = bytearray()
    with contextlib.closing(live.Session(attended=False)) as session:
        for number in range(3):
            ended = session.run(shell.command(f"{line}; exit {number}", "machine"), ENVIRON, shown.extend)
            assert ended.code == number
    first, *others = shown.decode().splitlines()
    assert others == [first, first]
    assert int(first.split()[1]) > 0


def test_a_session_goes_on_after_a_command_that_was_killed() -> None:
    shell = Shell(Path("/"), attended=False, is_root=True)
    with contextlib.closing(live.Session(attended=False)) as session:
        assert session.run(shell.command("kill -KILL $$", "machine"), ENVIRON, lambda _: None).code == 137
        assert session.run(shell.command("kill -KILL 0", "machine"), ENVIRON, lambda _: None).code == 137
        assert session.run(shell.command("echo $HOME; exit 5", "machine"), {**ENVIRON, "HOME": "/x y"}, lambda _: None).code == 5


def test_a_flood_is_kept_by_its_end() -> None:
    ended, shown = ran("head -c 3000000 /dev/zero | tr '\\0' y; echo the end")
    assert len(shown) == 3_000_008
    assert len(ended.output) == 1 << 18
    assert ended.output.endswith("the end\n")


def test_bytes_that_are_no_text_are_shown_as_they_are() -> None:
    ended, shown = ran(r"printf '\xff\xfe\x00'")
    assert shown == b"\xff\xfe\x00"
    assert ended.output == "\ufffd\ufffd\0"


def test_what_is_left_running_is_not_waited_for() -> None:
    started = time.monotonic()
    ended, shown = ran("(setsid sleep 30 &) ; echo done")
    assert (ended.code, shown) == (0, b"done\n")
    assert time.monotonic() - started < 5


def test_what_is_left_talking_is_not_listened_to_for_ever() -> None:
    started = time.monotonic()
    ended, shown = ran("(while :; do echo x; sleep 0.002; done) & echo done; exit 4")
    assert ended.code == 4
    assert b"done\n" in shown
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("attended", [True, False])
def test_a_command_that_closes_its_output_is_waited_for(attended: bool, tmp_path: Path) -> None:
    ended, _ = ran(f"exec >&- 2>&- </dev/null; sleep 1; touch {tmp_path}/done; exit 3", attended=attended)
    assert ended.code == 3
    assert (tmp_path / "done").exists()


def test_one_that_ignores_being_told_to_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_LAST_SECONDS", 0.5)
    started = time.monotonic()
    ended, _ = ran("trap '' TERM HUP; while :; do sleep 1; done", silence=0.3)
    assert ended.hung
    assert time.monotonic() - started < 8


def test_with_nobody_there_silence_is_a_hang() -> None:
    started = time.monotonic()
    ended, _ = ran("echo begun; sleep 60", silence=0.5)
    assert ended.hung
    assert time.monotonic() - started < 5


def test_a_line_that_cannot_be_started_is_an_exit_code() -> None:
    ended, shown = ran("no-such-program-here")
    assert ended.code == 127
    assert failures.recognised(shown.decode()) is not None


# ---------------------------------------------------------------- a person at the keyboard

AT_A_TERMINAL = """
import contextlib, sys
from pathlib import Path
from gpudoctor.setup import live
from gpudoctor.setup.shell import Shell
import os
shell = Shell(Path("/"), True, is_root=True)
with contextlib.closing(live.Session(attended=True)) as session:
    ended = session.run(shell.command(sys.argv[1], "machine"), dict(os.environ), lambda chunk: os.write(1, chunk))
print("ended", ended.code, ended.interrupted)
import termios
print("echo" if termios.tcgetattr(0)[3] & termios.ECHO else "no echo")
"""


def at_a_terminal(line: str, *answers: tuple[str, bytes]) -> str:
    """What a person sees who types each answer when its question has come."""
    return talk([sys.executable, "-c", AT_A_TERMINAL, line], answers, os.environ, seconds=30).screen


def test_questions_are_answered_at_the_keyboard() -> None:
    seen = at_a_terminal("read -r -p 'Do you want to continue? ' answer; echo you said $answer", (r"continue\? ", b"yes\r"))
    assert "you said yes" in seen
    assert "ended 0 False" in seen
    assert seen.rstrip().endswith("echo")


def test_a_password_is_not_shown() -> None:
    seen = at_a_terminal("read -r -s -p 'Password: ' word; echo; echo ${#word} letters", ("Password: ", b"secret\r"))
    assert "secret" not in seen
    assert "6 letters" in seen


def test_ctrl_c_reaches_the_command_and_leaves_the_terminal_as_it_was() -> None:
    seen = at_a_terminal("echo begun; sleep 60", ("begun", b"\x03"))
    assert "ended 130 True" in seen
    assert seen.rstrip().endswith("echo")


def test_ctrl_z_does_not_stop_it_for_ever() -> None:
    seen = at_a_terminal("echo begun; read -r word; echo $word", ("begun", b"\x1aon\r"))
    assert "on" in seen
    assert "ended 0" in seen


def test_who_ends_us_hangs_up_on_what_runs(tmp_path: Path) -> None:
    """Also on what runs as root and could not be signalled: the kernel does it."""
    mark = tmp_path / "pid"
    code = AT_A_TERMINAL.replace("attended=True", "attended=False").replace('Path("/"), True', 'Path("/"), False')
    run = subprocess.Popen(
        [sys.executable, "-c", code, f"echo $$ > {mark}; sleep 60"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    until = time.monotonic() + 10
    while not (mark.exists() and mark.read_text().strip()) and time.monotonic() < until:
        time.sleep(0.02)
    run.kill()
    run.wait()
    pid = int(mark.read_text())
    while time.monotonic() < until and Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text()


# ---------------------------------------------------------------- sudo, as the pages write it


@pytest.mark.parametrize("attended", [True, False])
@pytest.mark.parametrize("is_root", [True, False])
def test_sudo_fits_who_is_there(attended: bool, is_root: bool, tmp_path: Path) -> None:
    for name in ("sudo", "apt-get"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/bash\necho "{name} $@"\nif [ {name} = sudo ]; then while [ "$1" = -n ]; do shift; done; "$@"; fi\n'
        )
        program.chmod(0o755)
    shell = Shell(Path("/"), attended, is_root)
    line = 'sudo apt-get install "a b"; printf x | sudo tee /dev/null >/dev/null'
    environ = {**ENVIRON, "PATH": f"{tmp_path}:{ENVIRON['PATH']}"}
    done = subprocess.run(
        shell.command(line, "machine"), env=shell.environment("machine", environ), capture_output=True, text=True, check=True
    )
    assert ("sudo" in done.stdout) is not is_root
    assert ("--assume-yes --no-remove" in done.stdout) is not attended
    assert "DPkg::Lock::Timeout=300" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1 if is_root else 1].endswith("install a b")
    assert ("sudo -n" in done.stdout) is (not is_root and not attended)


def test_the_users_own_settings_reach_the_command() -> None:
    shell = Shell(Path("/"), attended=True, is_root=False)
    given = {
        "https_proxy": "http://proxy:3128",
        "PIP_INDEX_URL": "https://mirror/simple",
        "UV_DEFAULT_INDEX": "https://mirror",
        "PATH": "/bin",
    }
    assert given.items() - shell.environment("environment", given).items() == set()


# ---------------------------------------------------------------- the logbook


def book_of(folder: Path, machine: str = "a machine") -> contextlib.closing[Logbook]:
    return contextlib.closing(opened({"XDG_STATE_HOME": str(folder)}, machine))


def test_a_log_that_nobody_else_reads_and_a_note_that_is_read_again(tmp_path: Path) -> None:
    with book_of(tmp_path) as book:
        book.begins("driver#install", ("sudo true",))
        book.runs("sudo true")
        book.output(b"\xff output\n")
        book.wait(Waiting("driver#install", "driver-not-installed", "boot-1", True, (("BRANCH", "580"),)))
    assert Path(book.path).stat().st_mode & 0o777 == 0o600
    assert b"\n$ sudo true\n\xff output\n" in Path(book.path).read_bytes()
    with book_of(tmp_path) as again, book_of(tmp_path, "another machine") as other:
        found = again.waiting()
        assert found == Waiting("driver#install", "driver-not-installed", "boot-1", True, (("BRANCH", "580"),), log=book.path)
        assert other.waiting() is None
        again.settled()
        assert again.waiting() is None


def test_a_log_of_nothing_is_not_kept(tmp_path: Path) -> None:
    with book_of(tmp_path):
        pass
    assert list((tmp_path / "gpudoctor").glob("*.log")) == []


@pytest.mark.parametrize("damaged", [b"", b"\xff\xfe", b"[]", b"{}", b'{"step": 1}', b"[" * 5000, b'{"step": null, "verify": 3}'])
def test_a_damaged_note_is_no_note(damaged: bytes, tmp_path: Path) -> None:
    with book_of(tmp_path) as book:
        book.wait(Waiting("a#b", None, "boot", True))
        [note] = (tmp_path / "gpudoctor").glob("waiting-*.json")
        note.write_bytes(damaged)
        assert book.waiting() is None


def test_one_run_at_a_time_on_one_machine(tmp_path: Path) -> None:
    with book_of(tmp_path), pytest.raises(NoLogbook, match="another gpudoctor setup is at work"), book_of(tmp_path):
        pass
    with book_of(tmp_path), book_of(tmp_path, "another machine"):
        pass


@pytest.mark.parametrize("kind", ["pipe", "folder", "endless"])
def test_a_note_that_is_no_file_is_no_note(kind: str, tmp_path: Path) -> None:
    with book_of(tmp_path) as book:
        book.wait(Waiting("a#b", None, "boot", True))
        [note] = (tmp_path / "gpudoctor").glob("waiting-*.json")
        note.unlink()
        {"pipe": os.mkfifo, "folder": os.mkdir, "endless": lambda path: os.symlink("/dev/zero", path)}[kind](note)
        assert book.waiting() is None


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "gpudoctor").write_text("a file")
    with pytest.raises(NoLogbook, match="XDG_STATE_HOME"):
        opened({"XDG_STATE_HOME": str(tmp_path)}, "a machine")


def test_many_runs_in_one_second(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        books = [stack.enter_context(book_of(tmp_path, f"machine {number}")) for number in range(5)]
        assert len({book.path for book in books}) == 5


# ---------------------------------------------------------------- what failed

SAID = {
    "lock-held": "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1234 (unattended-upgr)",
    "interrupted": "E: dpkg was interrupted, you must manually run 'sudo dpkg --configure -a' to correct the problem. ",
    "no-space": "E: You don't have enough free space in /var/cache/apt/archives/.",
    "not-authenticated": "The following signatures couldn't be verified: NO_PUBKEY 0123456789ABCDEF",
    "wrong-key": "gpg: keybox created\n0000000000000000000000000000000000000000",
    "no-network": "W: Failed to fetch http://archive/dists/jammy/InRelease  Temporary failure resolving 'archive'",
    "no-package": "E: Unable to locate package nvidia-driver-999",
    "would-remove": "E: Packages need to be removed but remove is disabled.",
    "held": "E: Held packages were changed and -y was used without --allow-change-held-packages.",
    "sudo-refused": "ada is not in the sudoers file.  This incident will be reported.",
    "no-ensurepip": "because ensurepip is not available.  On Debian/Ubuntu systems, you need to install the python3-venv",
    "externally-managed": "error: externally-managed-environment",
    "no-tool": "bash: line 5: uv: command not found",
    "no-distribution": "ERROR: No matching distribution found for torch==2.13.0+cu126",
}


@pytest.mark.parametrize("failure", SAID)
def test_what_tools_print_when_they_fail_is_recognised(failure: str) -> None:
    found = failures.recognised(f"Reading package lists...\n{SAID[failure]}\nmore\n")
    assert found is not None
    assert found.id == failure
    assert found.line in SAID[failure]


def test_signals_are_told_by_the_shells_code() -> None:
    assert live.INTERRUPTED == 128 + signal.SIGINT
