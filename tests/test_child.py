"""A child with a deadline: what it must survive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from gpudoctor.probes import child


def python(source: str, *, deadline: float = 10, report: bool = False) -> child.Answer:
    return child.run([sys.executable, "-c", source], deadline=deadline, report=report)


def test_an_answer_carries_both_streams_and_the_exit_code() -> None:
    answer = python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(9)")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (9, "out\n", "err\n")
    assert not answer.hung


def test_a_child_that_hangs_is_killed_at_its_deadline() -> None:
    started = time.monotonic()
    answer = python("import time; print('so far', flush=True); time.sleep(60)", deadline=0.5)
    assert answer.hung
    assert answer.exit_code is None
    assert answer.stdout == "so far\n"
    assert time.monotonic() - started < 2


def test_a_child_that_ignores_signals_and_closes_its_pipes_is_still_ended() -> None:
    source = "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.close(1); os.close(2); time.sleep(60)"
    assert python(source, deadline=0.5).hung


def test_a_grandchild_that_keeps_the_pipes_open_does_not_keep_us() -> None:
    source = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)']); print('done')"
    started = time.monotonic()
    answer = python(source)
    assert answer.stdout == "done\n"
    assert answer.exit_code == 0
    assert time.monotonic() - started < 5


def test_a_crash_is_named_by_its_signal() -> None:
    answer = python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (answer.signal, answer.exit_code) == ("SIGSEGV", None)


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    answer = python(r"import os; os.write(1, b'\xff\xfe\x00ok')")
    assert answer.stdout.endswith("ok")
    assert "�" in answer.stdout


def test_a_flood_is_bounded_and_does_not_block_the_child() -> None:
    answer = python("import os\nfor _ in range(64): os.write(1, b'x' * (1 << 20))")
    assert answer.exit_code == 0
    assert len(answer.stdout) == child.OUTPUT_LIMIT


def test_of_a_flood_on_stderr_the_last_words_are_kept_too() -> None:
    answer = python("import os\nos.write(2, b'first')\nfor _ in range(8): os.write(2, b'x' * (1 << 20))\nos.write(2, b'last')")
    assert len(answer.stderr) == child.OUTPUT_LIMIT
    assert (answer.stderr[:6], answer.stderr[-5:]) == ("firstx", "xlast")


def test_the_report_pipe_is_apart_from_noise_on_stdout() -> None:
    answer = python("import os; print('noise'); os.write(int(os.environ['GPUDOCTOR_REPORT_FD']), b'{}')", report=True)
    assert answer.report == "{}"


@pytest.mark.parametrize("program", ["/nonexistent/program", "/etc/hostname"], ids=["missing", "not-executable"])
def test_a_program_that_cannot_be_started_says_why(program: str) -> None:
    with pytest.raises(child.NotStarted, match=program):
        child.run([program], deadline=1)


# ---------------------------------------------------------------- a child that is listened to

SAYS = "import os, sys, time\ndef say(text): os.write(int(os.environ['GPUDOCTOR_REPORT_FD']), text)\n"


class Listener:
    """Keeps what it hears, and answers a line that asks."""

    def __init__(self, reply: child.Reply | None = None, *, takes: float = 0.0) -> None:
        self.heard: list[str] = []
        self._reply, self._takes = reply, takes

    def __call__(self, line: str) -> child.Reply | None:
        self.heard.append(line)
        if line != "ask":
            return None
        time.sleep(self._takes)
        return self._reply


def listened(source: str, listen: Listener, *, deadline: float = 10, silence: float = 10) -> child.Answer:
    command = [sys.executable, "-c", SAYS + source]
    return child.run(command, deadline=deadline, report=True, listen=listen, silence=silence)


def test_lines_are_heard_one_by_one_and_a_torn_one_is_not() -> None:
    listen = Listener()
    answer = listened("say(b'one\\ntw'); time.sleep(0.1); say(b'o\\n\\xff\\n'); say(b'torn')", listen)
    assert listen.heard == ["one", "two", "\ufffd"]
    assert answer.report == "one\ntwo\n\ufffd\ntorn"


def test_a_line_without_end_harms_nobody() -> None:
    listen = Listener()
    flood = f"for _ in range({child.LINE_LIMIT >> 20} + 1): say(b'x' * (1 << 20))\nsay(b'\\nafter\\n')"
    assert listened(flood, listen).exit_code == 0
    assert listen.heard == ["after"]


def test_the_reply_reaches_its_stdin_which_then_ends() -> None:
    text = "y" * 300_000 + "\n"  # more than a pipe holds
    answer = listened("say(b'ask\\n'); print(len(sys.stdin.readline()), repr(sys.stdin.read()))", Listener(child.Reply(text, 10)))
    assert answer.stdout == f"{len(text)} ''\n"


@pytest.mark.parametrize("then", ["time.sleep(60)", "os.close(0); time.sleep(60)", "os._exit(0)"])
def test_a_child_that_does_not_read_its_reply_is_not_waited_for(then: str) -> None:
    started = time.monotonic()
    answer = listened(f"say(b'ask\\n'); {then}", Listener(child.Reply("y" * 300_000, 0.5)))
    assert answer.hung is ("sleep" in then)
    assert time.monotonic() - started < 2


def test_silence_is_a_hang_and_talk_is_none() -> None:
    talk = "for _ in range(6): time.sleep(0.2); say(b'working\\n')\n"
    assert listened(talk, Listener(), silence=0.8).exit_code == 0
    started = time.monotonic()
    assert listened(talk + "time.sleep(60)", Listener(), silence=0.8).hung
    assert time.monotonic() - started < 3.5


def test_the_time_that_a_reply_takes_is_not_the_childs() -> None:
    listen = Listener(child.Reply("", 0.8), takes=1.0)
    assert not listened("say(b'ask\\n'); sys.stdin.read(); time.sleep(0.1)", listen, deadline=0.8, silence=0.5).hung


def test_a_flood_of_lines_does_not_put_off_the_deadline() -> None:
    started = time.monotonic()
    assert listened("while True: say(b'x\\n' * 1000)", Listener(), deadline=0.5).hung
    assert time.monotonic() - started < 2


def test_a_reply_gives_a_new_deadline() -> None:
    assert not listened("say(b'ask\\n'); time.sleep(1.2)", Listener(child.Reply("", 10)), deadline=1).hung
    assert listened("say(b'ask\\n'); time.sleep(60)", Listener(child.Reply("", 0.3)), deadline=10).hung


def gone(pids: Iterable[int]) -> bool:
    """All of them end within a second."""
    wanted, until = tuple(pids), time.monotonic() + 1
    while any(alive(pid) for pid in wanted) and time.monotonic() < until:
        time.sleep(0.01)
    return not any(alive(pid) for pid in wanted)


def alive(pid: int) -> bool:
    """It may be a zombie for a moment, which holds nothing any more."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_what_a_hung_child_has_started_in_sessions_of_their_own_goes_with_it() -> None:
    ranks = "import subprocess\nranks = [subprocess.Popen(['sleep', '60'], start_new_session=True).pid for _ in range(2)]\n"
    listen = Listener()
    assert listened(ranks + "say(b'%d %d\\n' % tuple(ranks)); time.sleep(60)", listen, silence=0.5).hung
    assert gone(int(pid) for pid in listen.heard[0].split())


def test_a_listener_that_fails_leaves_no_child() -> None:
    def refuse(line: str) -> None:
        raise ZeroDivisionError(line)

    source = SAYS + "say(b'%d\\n' % os.getpid()); time.sleep(60)"
    with pytest.raises(ZeroDivisionError) as raised:
        child.run([sys.executable, "-c", source], deadline=10, report=True, listen=refuse)
    assert gone([int(str(raised.value))])


@pytest.mark.parametrize("ending", [None, signal.SIGINT, signal.SIGTERM], ids=["end", "ctrl-c", "terminate"])
def test_a_scratch_folder_goes_with_the_doctor(ending: signal.Signals | None, tmp_path: Path) -> None:
    stays = "child.kill_all()" if ending is None else "signal.pause()"
    program = (
        "import os, signal; from gpudoctor import cli; from gpudoctor.probes import child;"
        "[signal.signal(number, cli._ended) for number in cli.ENDINGS];"
        f"os.makedirs(child.scratch() + '/a/b'); print('made', flush=True); {stays}"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    ) as doctor:
        assert doctor.stdout is not None
        assert doctor.stdout.readline() == b"made\n"
        if ending is not None:
            doctor.send_signal(ending)
        doctor.wait(10)
    assert list(tmp_path.iterdir()) == []


def test_where_no_folder_can_be_made_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    assert child.scratch() is None


def test_the_doctor_does_not_leave_while_a_child_is_just_about_to_start() -> None:
    """Its thread had asked whether it may, and was then held up (a busy machine): it would outlive a doctor that left now."""
    code = """
import os, sys, threading, time
from gpudoctor.probes import child

class HeldUp(list):
    def __iter__(self):
        asked.set()
        time.sleep(0.2)
        goes_on.set()
        return super().__iter__()

asked, goes_on = threading.Event(), threading.Event()
command = HeldUp([sys.executable, "-c", "import time; time.sleep(60)"])
threading.Thread(target=lambda: child.run(command, deadline=60), daemon=True).start()
asked.wait(10)
child.kill_all()
print(goes_on.is_set(), len(child.running()), flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=False, text=True)
    assert (done.stdout.strip(), done.stderr) == ("True 0", "")
