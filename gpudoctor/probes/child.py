"""A child process with a deadline: the only way in which the doctor runs another program.

``subprocess.run(timeout=...)`` is not enough: after its kill it waits without bound, and a child in uninterruptible
sleep (a driver that hangs) never dies. Here the child gets a process group of its own; past the deadline the group is
killed, half a second later the child is abandoned. Output is bounded and decoded with replacement, so that neither
a flood nor bytes that are no text can harm the reader. What a child leaves in its group ends with it; what leaves the
group (a daemon) is adopted and ended when the doctor leaves.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

OUTPUT_LIMIT = 1 << 20
_running: set[subprocess.Popen[bytes]] = set()
_running_lock = threading.RLock()  # a signal handler may need it in the thread that holds it
_ending = threading.Event()
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_LEAVING_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Answer:
    """How a child ended. ``exit_code`` is None when it hung or died by a signal; ``report`` is what it wrote to its report pipe."""

    exit_code: int | None
    stdout: str
    stderr: str
    report: str
    signal: str | None
    hung: bool
    seconds: float


class NotStarted(OSError):
    """The program could not be started at all; the message says why."""


def run(
    command: Sequence[str],
    *,
    deadline: float,
    env: Mapping[str, str] | None = None,
    report: bool = False,
    cwd: str | None = None,
    output_limit: int = OUTPUT_LIMIT,
) -> Answer:
    """Run ``command`` for at most ``deadline`` seconds.

    With ``report`` the child finds the number of a pipe in GPUDOCTOR_REPORT_FD, apart from its noisy stdout.
    Raises NotStarted when there is no such program or it cannot be executed.
    """
    if _ending.is_set():
        raise NotStarted(f"{command[0]}: the doctor is leaving")
    started = time.monotonic()
    read_end, write_end = os.pipe() if report else (-1, -1)
    environment = dict(os.environ if env is None else env)
    if report:
        environment["GPUDOCTOR_REPORT_FD"] = str(write_end)
    try:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=cwd,
            start_new_session=True,
            # Nothing is changed by this, and with it subprocess does not use vfork, during which all our threads would stand
            # still until the child has opened its program: for ever, on a file system that does not answer.
            user=os.getuid(),
            pass_fds=(write_end,) if report else (),
        )
    except (OSError, ValueError) as error:
        if report:
            os.close(read_end)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise NotStarted(f"{command[0]}: {reason}") from error
    finally:
        if report:
            os.close(write_end)
    with _registered(child):
        texts, hung = _collect(child, read_end, started + deadline, output_limit)
        _kill_group(child)  # also after an answer: of what it has started nothing stays behind
        exit_code = _reap(child, 0.5)
    return Answer(
        exit_code=exit_code if exit_code is not None and exit_code >= 0 and not hung else None,
        stdout=texts["stdout"],
        stderr=texts["stderr"],
        report=texts["report"],
        signal=_signal_name(exit_code) if not hung else None,
        hung=hung,
        seconds=time.monotonic() - started,
    )


def adopt() -> None:
    """Become the parent of what a child leaves behind when it ends (a daemon), so that kill_all finds it."""
    import ctypes  # noqa: PLC0415 - needed nowhere else, and slow to load

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_all() -> None:
    """End every child that is still running, and start none any more: the doctor leaves, and leaves nothing behind.

    One in uninterruptible sleep is abandoned after a moment.
    """
    _ending.set()
    until = time.monotonic() + _LEAVING_SECONDS
    while pids := _children():
        for pid in pids:
            _end(pid)
        if time.monotonic() > until:
            return
        time.sleep(0.005)


def _children() -> list[int]:
    """Every child of this process, also adopted ones and those that a thread is just starting.

    Where /proc does not tell (a kernel built without that file), those that we know.
    """
    try:
        found: list[int] = []
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
                found += [int(pid) for pid in file.read().split()]
    except (OSError, ValueError):
        if not _running_lock.acquire(timeout=_LEAVING_SECONDS):
            return []
        try:
            found = [child.pid for child in _running]
        finally:
            _running_lock.release()
    return found


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@contextlib.contextmanager
def _registered(child: subprocess.Popen[bytes]) -> Iterator[None]:
    with _running_lock:
        _running.add(child)
    if _ending.is_set():
        _kill_group(child)
    try:
        yield
    except BaseException:  # Ctrl-C in the middle of a wait
        _kill_group(child)
        raise
    finally:
        with _running_lock:
            _running.discard(child)
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


def _collect(child: subprocess.Popen[bytes], report_fd: int, until: float, limit: int) -> tuple[dict[str, str], bool]:
    """Read all pipes until the child ends or the time is up; (texts by pipe, time was up)."""
    kept: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray(), "report": bytearray()}
    hung = False
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        sources: list[tuple[IO[bytes], str]] = []
        if child.stdout is not None and child.stderr is not None:
            sources += [(child.stdout, "stdout"), (child.stderr, "stderr")]
        if report_fd >= 0:
            sources.append((stack.enter_context(os.fdopen(report_fd, "rb", buffering=0)), "report"))
        for source, name in sources:
            selector.register(source, selectors.EVENT_READ, name)
        while selector.get_map():
            remaining = until - time.monotonic()
            if remaining <= 0:
                hung = True
                break
            for key, _ in selector.select(min(remaining, 0.2)):
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif len(kept[key.data]) < limit:
                    kept[key.data] += chunk[: limit - len(kept[key.data])]
            # a grandchild may keep the pipes open for ever: the child's own end is enough
            if _over(child) and not selector.select(0):
                break
    while not hung and not _over(child):
        hung = time.monotonic() > until
        time.sleep(0.002)
    return {name: bytes(data).decode("utf-8", "replace") for name, data in kept.items()}, hung


def _over(child: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended. It is not reaped yet: its number still stands for its group, and for nobody else's."""
    try:
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _reap(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


def _signal_name(exit_code: int | None) -> str | None:
    if exit_code is None or exit_code >= 0:
        return None
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"
