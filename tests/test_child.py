"""A child with a deadline: what it must survive."""

from __future__ import annotations

import sys
import time

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


def test_the_report_pipe_is_apart_from_noise_on_stdout() -> None:
    answer = python("import os; print('noise'); os.write(int(os.environ['GPUDOCTOR_REPORT_FD']), b'{}')", report=True)
    assert answer.report == "{}"


@pytest.mark.parametrize("program", ["/nonexistent/program", "/etc/hostname"], ids=["missing", "not-executable"])
def test_a_program_that_cannot_be_started_says_why(program: str) -> None:
    with pytest.raises(child.NotStarted, match=program):
        child.run([program], deadline=1)
