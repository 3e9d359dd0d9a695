"""Runs one command so that a person sees it live and can answer it, while every byte is kept for the log.

The command gets a pseudo-terminal of its own as its controlling terminal. So apt, sudo and mokutil ask as they always do,
Ctrl-C reaches what runs and not only us, and should we be ended ourselves, the kernel hangs up the terminal and with it even
what runs as root, which we could not signal. With nobody there its output goes into a pipe instead, as it would in a
provisioning log: without progress that paints over itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
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
_TICK = 0.2
_AFTERWARDS = 0.3
"""Seconds in which the last words are read of a command that has ended; what it left running may keep its terminal open."""
_LAST_SECONDS = 10.0
"""What apt and dpkg have to come to an end in when they are told to."""
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. ``code`` is the shell's: 128 + the signal's number where a signal ended it."""

    code: int
    output: str
    """What it printed, its end where that is long."""
    hung: bool = False

    @property
    def interrupted(self) -> bool:
        """Somebody pressed Ctrl-C."""
        return self.code == INTERRUPTED


def run(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    attended: bool,
    show: Callable[[bytes], None],
    silence: float = SILENCE,
    kept: int = 1 << 18,
) -> Ended:
    """Run ``command`` to its end; ``show`` gets its output as it comes. Raises OSError where no terminal or program can be had."""
    ours, theirs = _terminal()
    source, sink = (ours, theirs) if attended else os.pipe()
    try:
        if attended:
            _same_size(theirs)
        # setsid makes theirs the controlling terminal; it is part of every Linux distribution's base
        process = subprocess.Popen(
            [program("setsid"), "--ctty", *command], stdin=theirs, stdout=sink, stderr=sink, env=dict(environ), user=os.getuid()
        )
    except BaseException:
        _close(ours, source)
        raise
    finally:
        _close(theirs, sink)
    try:
        with _raw(attended) as keyboard, _ended_with_us(process):
            output, hung = _copy(source, process, keyboard, show, math.inf if attended else silence, kept)
    finally:
        _close(ours, source)  # whatever still has the terminal is hung up on
    code = _reaped(process)
    return Ended(code if code >= 0 else 128 - code, output, hung)


def _terminal() -> tuple[int, int]:
    """Both ends of a new pseudo-terminal: ours and the command's."""
    ours, theirs = os.openpty()
    settings = termios.tcgetattr(theirs)
    settings[1] &= ~termios.ONLCR  # line ends as they were written
    settings[6][termios.VSUSP] = b"\0"  # Ctrl-Z would stop it, and us for ever
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    return ours, theirs


def _reaped(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a command that has ended, or was hung up on; one that cannot end is left behind."""
    for seconds in (_LAST_SECONDS, 1.0):
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    return -signal.SIGKILL


def _close(*descriptors: int) -> None:
    """Each once: by now the number may be another file's."""
    for descriptor in set(descriptors):
        os.close(descriptor)


def _same_size(terminal: int) -> None:
    with contextlib.suppress(OSError):
        size = os.get_terminal_size(0)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size.lines, size.columns, 0, 0))


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
def _ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        raise


def _copy(
    source: int, process: subprocess.Popen[bytes], keyboard: bool, show: Callable[[bytes], None], silence: float, kept: int
) -> tuple[str, bool]:
    """Output to ``show``, keys to the command; (the end of the output, it was silent for too long)."""
    output, heard, until, hung = bytearray(), time.monotonic(), math.inf, False
    listened = {source, 0} if keyboard else {source}
    while time.monotonic() < until:
        ready = select.select(listened, [], [], _TICK)[0]
        for descriptor in ready:
            chunk = _read(descriptor)
            if not chunk:
                listened.discard(descriptor)  # it has closed its output and goes on, or our keyboard is gone
            elif descriptor == source:
                heard = time.monotonic()
                output += chunk
                del output[: max(len(output) - kept, 0)]
                show(chunk)
            else:
                os.write(source, chunk)
        if until == math.inf and process.poll() is not None:
            until = time.monotonic() + (_AFTERWARDS if source in listened else 0)
        if not hung and time.monotonic() - heard > silence:
            hung = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGTERM)
            until = time.monotonic() + _AFTERWARDS
    return bytes(output).decode("utf-8", "replace"), hung


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: nobody has the other end open any more
        return b""
