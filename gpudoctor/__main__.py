"""The console script and ``python -m gpudoctor``: the process that a shell waits for, which only waits itself.

A process ends when the last of its threads does, and a thread that asks a file system whose server is gone (FUSE) ends
never, whatever is sent to it. So all the work is done by a second process. This one ends as soon as the worker has
said its exit code or has died, and it passes signals on; a worker that cannot end is left behind.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 1.0
"""Seconds that the worker has to end its children after a signal."""
UNKNOWN = 3
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGKILL)


def run() -> NoReturn:
    """Do the work in a child and leave with its exit code, or by the signal that ended it."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_DFL)  # no KeyboardInterrupt while modules are loaded
    _open_standard_streams()
    said, say = os.pipe()
    life, _alive = os.pipe()  # the end that is kept open here tells the worker that it is waited for
    worker = os.fork()
    if worker == 0:
        os.close(said)
        os.close(_alive)
        _work(say, life)
    os.close(say)
    os.close(life)
    _leave(*_answer(worker, said))


def _work(say: int, life: int) -> NoReturn:
    if sys.warnoptions:  # meant for a program that the user writes; "error" would end this one
        import warnings  # noqa: PLC0415 - for this alone

        warnings.simplefilter("ignore")
    from gpudoctor import cli  # noqa: PLC0415 - the process that waits needs none of it

    cli.end_with(life)
    code = cli.work()
    os.write(say, bytes([code]))
    os._exit(code)


def _open_standard_streams() -> None:
    """A closed stdin, stdout or stderr would give its number, and with it our output, to the next file that is opened."""
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as we live
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - see above


def _answer(worker: int, said: int) -> tuple[int, int]:
    """(exit code, signal) of the worker; signals that come meanwhile are passed on to it."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGALRM, lambda *_: _leave(0, number))
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            os.kill(worker, number)
        except ProcessLookupError:
            _leave(0, number)

    for number in ENDINGS:
        signal.signal(number, pass_on)
    code = os.read(said, 1)
    if code:
        _wait_a_moment(worker)
        return code[0], 0
    _, status = os.waitpid(worker, 0)
    ended_by = -os.waitstatus_to_exitcode(status)
    return (-ended_by, 0) if ended_by <= 0 else (UNKNOWN, ended_by)


def _wait_a_moment(worker: int) -> None:
    """Until it is gone, if it can go."""
    until = time.monotonic() + PATIENCE / 4
    while os.waitpid(worker, os.WNOHANG) == (0, 0) and time.monotonic() < until:
        time.sleep(0.001)


def _leave(code: int, ended_by: int) -> NoReturn:
    if ended_by in _CRASHES:
        sys.stderr.write(f"gpudoctor: it died of {signal.Signals(ended_by).name} and has determined nothing; please tell us.\n")
    elif ended_by:
        signal.signal(ended_by, signal.SIG_DFL)
        os.kill(os.getpid(), ended_by)
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
