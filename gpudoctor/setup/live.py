"""Runs commands so that a person sees them live and can answer them, while every byte is kept for the log.

All commands of a run share a session and its pseudo-terminal. So apt, sudo and mokutil ask as they always do, and sudo once, since
it remembers by session and terminal; Ctrl-C reaches what runs and not only us; and should we be ended ourselves, the kernel
hangs up the terminal and with it even what runs as root, which we could not signal. With nobody there the output goes into a pipe
instead, as it would in a provisioning log: without progress that paints over itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import select
import shlex
import signal
import struct
import subprocess
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gpudoctor.probes import child
from gpudoctor.setup.shell import program

SILENCE = 1800.0
"""Seconds without a word after which a command that nobody watches has hung; a module's build is silent for minutes."""
INTERRUPTED = 130
_NAME = re.compile(r"(?!(?:UID|EUID|PPID|BASHOPTS|SHELLOPTS|BASH_VERSINFO)$)[A-Za-z_][A-Za-z0-9_]*")
_CTRL_C = b"\x03"
_BY_A_PERSON = (INTERRUPTED, 128 + signal.SIGHUP, 128 + signal.SIGQUIT, 128 + signal.SIGTERM)
_TICK = 0.2
_AFTERWARDS = 1.0
"""Seconds after which what a command left running, and that goes on talking, is not listened to any more."""
_DRAIN = 0.02
"""Seconds without output after which a command that has ended has said all: a terminal hands it on a moment later."""
_LAST_SECONDS = 10.0
"""What apt and dpkg have to come to an end in when they are told to."""
# The session's leader runs what it is sent, one after the other, and says how each ended. Ctrl-C and a polite end are for those.
_LEADER = """
trap : INT QUIT TERM
while IFS= read -r -d '' -u "$1" line; do
  eval "$line"
  printf '%s\\n' "$?" >&"$2"
done
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. ``code`` is the shell's: 128 + the signal's number where a signal ended it."""

    code: int
    output: str
    """What it printed, its end where that is long."""
    hung: bool = False
    stopped: bool = False
    """Ctrl-C was pressed while it ran; some programs end with a code of their own then."""

    @property
    def interrupted(self) -> bool:
        """Somebody pressed Ctrl-C, and it ended by that."""
        return self.code in _BY_A_PERSON or (self.stopped and self.code != 0)


class NoTerminal(OSError):
    """No pseudo-terminal, or no shell to lead it, can be had."""


class Session:
    """A terminal with a shell that leads its session. ``attended``: somebody at our own terminal sees it and answers.

    It has to be closed: whatever still runs in it then is hung up on.
    """

    def __init__(self, *, attended: bool, silence: float = SILENCE, kept: int = 1 << 18) -> None:
        self._attended, self._silence, self._kept = attended, math.inf if attended else silence, kept
        self._leader: subprocess.Popen[bytes] | None = None
        self._ours = self._output = self._lines = self._codes = -1

    def close(self) -> None:
        """Hang up. What runs gets a moment to come to an end."""
        leader, self._leader = self._leader, None
        if leader is None:
            return
        for descriptor in {self._ours, self._output, self._lines, self._codes}:
            os.close(descriptor)
        for seconds in (_LAST_SECONDS, 1.0):
            try:
                leader.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(leader.pid, signal.SIGKILL)
            else:
                return

    def run(self, command: Sequence[str], environ: Mapping[str, str], show: Callable[[bytes], None]) -> Ended:
        """Run ``command`` to its end with just these variables; ``show`` gets its output as it comes.

        Raises NoTerminal.
        """
        try:
            leader = self._started()
        except OSError as error:
            raise NoTerminal(f"no terminal or shell can be had ({error.strerror or error})") from error
        if self._attended:
            self._same_size()
        # not as arguments of env: whoever lists processes would read a token in them
        given = " ".join(f"{name}={shlex.quote(value)}" for name, value in environ.items() if _NAME.fullmatch(name))
        line = f"(export {given}; exec {shlex.join(command)}) {self._far_lines}<&- {self._far_codes}>&-"
        with _raw(self._attended) as keyboard, _ended_with_us(leader):
            os.write(self._lines, line.encode("utf-8", "surrogateescape") + b"\0")
            ended = self._follow(leader, keyboard, show)
        if leader.poll() is not None:
            self.close()
        return ended

    def _started(self) -> subprocess.Popen[bytes]:
        """The shell that leads, made so by setsid, which is part of every Linux distribution's base."""
        if self._leader is not None:
            return self._leader
        self._ours, theirs = _terminal()
        self._output, sink = (self._ours, theirs) if self._attended else os.pipe()
        self._far_lines, self._lines = os.pipe()
        self._codes, self._far_codes = os.pipe()
        far = {theirs, sink, self._far_lines, self._far_codes}
        command = [program("setsid"), "--ctty", program("bash"), "-c", _LEADER, "setup", str(self._far_lines), str(self._far_codes)]
        try:
            self._leader = subprocess.Popen(
                command,
                stdin=theirs,
                stdout=sink,
                stderr=sink,
                pass_fds=(self._far_lines, self._far_codes),
                env={},
                user=os.getuid(),
            )
        except BaseException:
            far |= {self._ours, self._output, self._lines, self._codes}
            raise
        finally:
            for descriptor in far:
                os.close(descriptor)
        return self._leader

    def _same_size(self) -> None:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(0)
            fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", size.lines, size.columns, 0, 0))

    def _has_said_all(self, listened: set[int]) -> bool:
        """No output is on its way any more."""
        return self._output not in listened or not select.select([self._output], [], [], _DRAIN)[0]

    def _follow(self, leader: subprocess.Popen[bytes], keyboard: bool, show: Callable[[bytes], None]) -> Ended:
        """Output to ``show``, keys to the command, until the leader says how it ended."""
        output, heard, until, hung, stopped = bytearray(), time.monotonic(), math.inf, False, False
        over = math.inf
        listened = {self._output, self._codes, *([0] if keyboard else [])}
        while time.monotonic() < until:
            ready = select.select(listened, [], [], _TICK)[0]
            if self._output in ready:
                chunk = _read(self._output)
                listened -= set() if chunk else {self._output}
                heard = time.monotonic()
                output += chunk
                del output[: max(len(output) - self._kept, 0)]
                show(chunk)
            over = min(over, time.monotonic()) if self._codes in ready else over
            if self._codes in ready and (self._has_said_all(listened) or time.monotonic() - over > _AFTERWARDS):
                code = _read(self._codes)
                if code:
                    return Ended(int(code), bytes(output).decode("utf-8", "replace"), hung, stopped)
                break  # it took the leader along
            if 0 in ready:
                keys = _read(0)
                stopped = stopped or _CTRL_C in keys
                listened -= set() if keys else {0}
                os.write(self._ours, keys)
            if not hung and time.monotonic() - heard > self._silence:
                hung, until = True, time.monotonic() + _LAST_SECONDS
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(leader.pid, signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            leader.wait(timeout=1)
        return Ended(128 + signal.SIGKILL, bytes(output).decode("utf-8", "replace"), hung, stopped)


def _terminal() -> tuple[int, int]:
    """Both ends of a new pseudo-terminal: ours and the commands'."""
    ours, theirs = os.openpty()
    settings = termios.tcgetattr(theirs)
    settings[1] &= ~termios.ONLCR  # line ends as they were written
    settings[6][termios.VSUSP] = b"\0"  # Ctrl-Z would stop it, and us for ever
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    return ours, theirs


@contextlib.contextmanager
def _raw(attended: bool) -> Iterator[bool]:
    """Every key goes to the command, Ctrl-C too; yields whether there is a keyboard."""
    if not (attended and os.isatty(0)):
        yield False
        return
    before = termios.tcgetattr(0)

    def restore() -> None:
        termios.tcsetattr(0, termios.TCSADRAIN, before)

    child.when_leaving(restore)
    tty.setraw(0, termios.TCSADRAIN)
    output = termios.tcgetattr(0)
    output[1] = before[1]  # what we print ourselves still ends lines as everybody expects
    termios.tcsetattr(0, termios.TCSADRAIN, output)
    try:
        yield True
    finally:
        restore()
        child.forget(restore)


@contextlib.contextmanager
def _ended_with_us(leader: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, signal.SIGTERM)
        raise


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: nobody has the other end open any more
        return b""
