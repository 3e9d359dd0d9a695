"""A child process with a deadline: the only way in which the doctor runs another program.

``subprocess.run(timeout=...)`` is not enough: after its kill it waits without bound, and a child in uninterruptible
sleep (a driver that hangs) never dies. Here the child gets a process group of its own; past the deadline the group is
killed, half a second later the child is abandoned. Output is bounded and decoded with replacement, so that neither
a flood nor bytes that are no text can harm the reader. What a child leaves in its group ends with it; what leaves the
group (a daemon) is adopted and ended when the doctor leaves.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

OUTPUT_LIMIT = 1 << 20
LINE_LIMIT = 16 << 20
"""Bytes of a report line that is listened to: some thousand tokens of each of some hundred prompts, with their texts."""
_running: set[subprocess.Popen[bytes]] = set()
_running_lock = threading.RLock()  # a signal handler may need it in the thread that holds it
_ending = threading.Event()
_starting: set[int] = set()
"""The threads that are about to have a child: see kill_all."""
_scratch: list[str] = []
_last_deeds: list[Callable[[], None]] = []
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_LEAVING_SECONDS = 0.8
"""So long a busy machine may take to let what was killed die; less than the second that the process above waits for us."""


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


@dataclass(frozen=True, slots=True)
class Reply:
    """What is written to a child's stdin, and how many seconds it has from then on."""

    text: str
    deadline: float


Listen = Callable[[str], "Reply | None"]


def run(
    command: Sequence[str],
    *,
    deadline: float,
    env: Mapping[str, str] | None = None,
    report: bool = False,
    cwd: str | None = None,
    output_limit: int = OUTPUT_LIMIT,
    listen: Listen | None = None,
    silence: float = math.inf,
) -> Answer:
    """Run ``command`` for at most ``deadline`` seconds.

    With ``report`` the child finds the number of a pipe in GPUDOCTOR_REPORT_FD, apart from its noisy stdout. ``listen`` gets
    each complete line of the report as it comes. It may take its time to reply: the reply's deadline counts from then on. The
    first reply is written to the child's stdin, which is then closed. ``silence``: so many seconds without a line, and the
    child has hung too.
    Raises NotStarted when there is no such program or it cannot be executed.
    """
    started = time.monotonic()
    with _about_to_start(command[0]):
        child, read_end = _started(command, dict(os.environ if env is None else env), cwd, report=report, heeded=listen is not None)
    with _registered(child):
        patience = _Patience(started, deadline, silence)
        texts, hung = _Collection(child, read_end, patience, output_limit, listen).collect()
        if hung:
            _kill_tree(child)
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


@contextlib.contextmanager
def _about_to_start(program: str) -> Iterator[None]:
    """Between the question whether a child may still be started and its start nobody may conclude that there is none."""
    thread = threading.get_ident()
    _starting.add(thread)
    try:
        if _ending.is_set():
            raise NotStarted(f"{program}: the doctor is leaving")
        yield
    finally:
        _starting.discard(thread)


def _started(
    command: Sequence[str], environment: dict[str, str], cwd: str | None, *, report: bool, heeded: bool
) -> tuple[subprocess.Popen[bytes], int]:
    """The child, and the end of its report's pipe that is read (-1 without one); ``heeded``: it has a stdin."""
    read_end, write_end = os.pipe() if report else (-1, -1)
    if report:
        environment = {**environment, "GPUDOCTOR_REPORT_FD": str(write_end)}
    try:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if heeded else subprocess.DEVNULL,
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
    return child, read_end


def adopt() -> None:
    """Become the parent of what a child leaves behind when it ends (a daemon), so that kill_all finds it."""
    import ctypes  # noqa: PLC0415 - needed nowhere else, and slow to load

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def scratch() -> str | None:
    """A new folder that is removed by ``sweep``, and when the doctor leaves, also by a signal; None where none can be made."""
    import tempfile  # noqa: PLC0415 - seldom needed

    try:
        folder = tempfile.mkdtemp(prefix="gpudoctor-")
    except OSError:
        return None
    _scratch.append(folder)
    return folder


def sweep() -> None:
    """Remove the scratch folders."""
    if not _scratch:
        return
    import shutil  # noqa: PLC0415 - seldom needed

    while _scratch:
        shutil.rmtree(_scratch.pop(), ignore_errors=True)


def when_leaving(deed: Callable[[], None]) -> None:
    """Do this too when the doctor leaves, also by a signal: what it has changed about the terminal is put back."""
    _last_deeds.append(deed)


def forget(deed: Callable[[], None]) -> None:
    """It has been done."""
    with contextlib.suppress(ValueError):
        _last_deeds.remove(deed)


def kill_all() -> None:
    """End every child that is still running, and start none any more: the doctor leaves, and leaves nothing behind.

    One in uninterruptible sleep is abandoned after a moment.
    """
    _ending.set()
    while _last_deeds:
        with contextlib.suppress(Exception):
            _last_deeds.pop()()
    _starting.discard(threading.get_ident())  # a signal handler may have come upon this very thread, which starts nothing now
    until = time.monotonic() + _LEAVING_SECONDS
    unsure = 0  # the kernel's list may leave one out while others die: it has to be empty twice where there was any
    while True:
        about_to = bool(_starting)  # asked before the children are counted: what starts in between is counted
        pids = _children()
        if not pids and not about_to:
            if not unsure:
                break
            unsure -= 1
        else:
            unsure = 1
        for pid in pids:
            _end(pid)
        if time.monotonic() > until:
            break
        time.sleep(0.005)
    sweep()


def running() -> frozenset[int]:
    """The numbers of the programs that run for the doctor just now."""
    return frozenset(_children())


def _children() -> list[int]:
    """Every child of this process, also adopted ones and those that a thread is just starting.

    Where /proc does not tell (a kernel built without that file), those that we know.
    """
    try:
        found = _listed_children("self")
    except (OSError, ValueError):
        if not _running_lock.acquire(timeout=_LEAVING_SECONDS):
            return []
        try:
            found = [child.pid for child in _running]
        finally:
            _running_lock.release()
    return found


def _listed_children(process: str) -> list[int]:
    found: list[int] = []
    for task in os.listdir(f"/proc/{process}/task"):
        with open(f"/proc/{process}/task/{task}/children", encoding="ascii") as file:
            found += [int(pid) for pid in file.read().split()]
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
        _kill_tree(child)
        _reap(child, 0.5)
        raise
    finally:
        with _running_lock:
            _running.discard(child)
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


class _Patience:
    """When a child's time is up: at its deadline, or after too long a silence."""

    def __init__(self, started: float, deadline: float, silence: float) -> None:
        self._until, self._silence, self._heard = started + deadline, silence, started

    @property
    def left(self) -> float:
        return min(self._until, self._heard + self._silence) - time.monotonic()

    def heard(self, reply: Reply | None) -> None:
        """A line was heard, and perhaps answered: what that took is not the child's time."""
        self._heard = time.monotonic()
        if reply is not None:
            self._until = self._heard + reply.deadline


class _Collection:
    """Reads all pipes of a child until it ends or its time is up, and writes the reply."""

    def __init__(
        self, child: subprocess.Popen[bytes], report_fd: int, patience: _Patience, limit: int, listen: Listen | None
    ) -> None:
        self._child, self._report_fd, self._patience, self._limit, self._listen = child, report_fd, patience, limit, listen
        self._kept = {"stdout": bytearray(), "stderr": bytearray(), "report": bytearray()}
        self._selector = selectors.DefaultSelector()
        self._line: bytearray | None = bytearray()  # the one that is not complete yet; None: too long, and left out
        self._unwritten = b""

    def collect(self) -> tuple[dict[str, str], bool]:
        """(texts by pipe, time was up)."""
        with self._selector, contextlib.ExitStack() as stack:
            if self._report_fd >= 0:
                report = stack.enter_context(os.fdopen(self._report_fd, "rb", buffering=0))
                self._selector.register(report, selectors.EVENT_READ, "report")
            for source, name in ((self._child.stdout, "stdout"), (self._child.stderr, "stderr")):
                if source is not None:
                    self._selector.register(source, selectors.EVENT_READ, name)
            self._read_all()
            # it has closed its pipes, and goes on
            while self._patience.left > 0 and not _over(self._child):
                time.sleep(0.002)
            # judged before ours are closed, which would end a child that is writing
            hung = self._patience.left <= 0 and not _over(self._child)
        return {name: bytes(data).decode("utf-8", "replace") for name, data in self._kept.items()}, hung

    def _read_all(self) -> None:
        while self._selector.get_map():
            left = self._patience.left
            if left <= 0:
                return
            for key, _ in self._selector.select(min(left, 0.2)):
                if key.data == "stdin":
                    self._write()
                else:
                    self._read(key)
            # a grandchild may keep the pipes open for ever: the child's own end is enough
            if _over(self._child) and not self._selector.select(0):
                return

    def _read(self, key: selectors.SelectorKey) -> None:
        chunk = os.read(key.fd, 65536)
        if not chunk:
            self._selector.unregister(key.fileobj)
            return
        kept = self._kept[key.data]
        if key.data == "stderr":  # its beginning and its end: last words come last
            kept += chunk
            del kept[self._limit // 2 : self._limit // 2 + max(len(kept) - self._limit, 0)]
        else:
            kept += chunk[: max(self._limit - len(kept), 0)]
        if self._listen is not None and key.data == "report":
            self._hear(chunk, self._listen)

    def _hear(self, chunk: bytes, listen: Listen) -> None:
        """Hand over the lines that ``chunk`` completes."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line, self._line = self._line, bytearray()
            if line is None or len(line) + len(end) > LINE_LIMIT:
                continue
            reply = listen((line + end).decode("utf-8", "replace"))
            self._patience.heard(reply)
            self._answer(reply)
        if self._line is not None:
            self._line += rest
            self._line = self._line if len(self._line) <= LINE_LIMIT else None

    def _answer(self, reply: Reply | None) -> None:
        stdin = self._child.stdin
        if reply is None or stdin is None or stdin.closed or self._unwritten:
            return
        self._unwritten = reply.text.encode("utf-8", "replace")
        os.set_blocking(stdin.fileno(), False)  # a child need not read
        self._selector.register(stdin, selectors.EVENT_WRITE, "stdin")

    def _write(self) -> None:
        stdin = self._child.stdin
        if stdin is None:
            return
        try:
            written = os.write(stdin.fileno(), self._unwritten)
        except BlockingIOError:
            return
        except OSError:  # it has closed its end, or it has ended
            written = len(self._unwritten)
        self._unwritten = self._unwritten[written:]
        if not self._unwritten:
            self._selector.unregister(stdin)
            stdin.close()


def _over(child: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended. It is not reaped yet: its number still stands for its group, and for nobody else's."""
    try:
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _kill_tree(child: subprocess.Popen[bytes]) -> None:
    """Also what it has started in other groups (torchrun's ranks). It still lives, so that they can be found."""
    found, unseen = [], [child.pid]
    while unseen:
        started = _started_by(str(unseen.pop()))
        found += started
        unseen += started
    _kill_group(child)
    for pid in found:
        _end(pid)


def _started_by(process: str) -> list[int]:
    """The children of a process; none where /proc does not tell."""
    try:
        return _listed_children(process)
    except (OSError, ValueError):
        return []


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
