"""What setup has done: a log of every command and its output, and the step that waits for a restart.

Both lie in $XDG_STATE_HOME/gpudoctor (~/.local/state without it). The log is for people. The note of the waiting step, one for
each machine, is what the next run resumes by; everything else it learns by looking at the machine again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_FOLDER = "gpudoctor"
_LIMIT = 1 << 20


class NoLogbook(OSError):
    """The folder of the log cannot be written; the message says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A step that was begun; ``boot`` is the boot in which it was. ``done``: only the restart is left; else it was cut off."""

    step: str
    code: str | None
    boot: str
    done: bool
    values: tuple[tuple[str, str], ...] = ()
    where: str = "machine"
    log: str = ""


class Logbook:
    """The open log of one run."""

    def __init__(self, note: Path, log: IO[bytes], lock: int) -> None:
        self._note = note
        self._log, self._lock = log, lock
        self._begun = False
        self.path = log.name

    def begins(self, step: str, commands: Sequence[str]) -> None:
        """Which step is carried out from here on."""
        self._begun = True
        self._line(f"== {step}, {_now()}")
        for command in commands:
            self._line(f"   {command}")

    def runs(self, command: str) -> None:
        """A command, as it is started."""
        self._line(f"\n$ {command}")

    def output(self, chunk: bytes) -> None:
        """What it prints."""
        with contextlib.suppress(OSError):  # a full disk must not stop an installation half-way
            self._log.write(chunk)
            self._log.flush()

    def ended(self, words: str) -> None:
        """What came of it."""
        self._line(f"\n-- {words}, {_now()}")

    def _line(self, words: str) -> None:
        self.output(f"{words}\n".encode("utf-8", "replace"))

    def waiting(self) -> Waiting | None:
        """The step of an earlier run that waits for a restart, or was cut off; None where there is none."""
        try:
            found: Any = json.loads(_plain_file(self._note))
            values = tuple((str(name), str(value)) for name, value in found["values"])
            code = found["code"] if found["code"] is None else str(found["code"])
            step, boot, where, log = (str(found[name]) for name in ("step", "boot", "where", "log"))
            return Waiting(step, code, boot, found["done"] is True, values, where, log)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def wait(self, step: Waiting) -> None:
        """Write down what the next run must know; raises OSError where it cannot be written: then nothing may be begun."""
        text = json.dumps(
            {
                "step": step.step,
                "code": step.code,
                "boot": step.boot,
                "done": step.done,
                "values": [list(pair) for pair in step.values],
                "where": step.where,
                "log": self.path,
            }
        )
        beside = self._note.with_suffix(".new")
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._note)

    def settled(self) -> None:
        """Nothing waits any more."""
        with contextlib.suppress(OSError):
            self._note.unlink(missing_ok=True)

    def close(self) -> None:
        """The log is complete; one of a run that began nothing is not kept."""
        with contextlib.suppress(OSError):
            self._log.close()
            if not self._begun:
                os.unlink(self.path)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def opened(environ: Mapping[str, str], machine: str) -> Logbook:
    """A new log for this run; raises NoLogbook. ``machine`` tells machines apart that share a home folder."""
    folder = _folder(environ)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        note = folder / f"waiting-{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"
        lock = _locked(note.with_suffix(".lock"))
        log = _new(folder)
    except BlockingIOError:
        raise NoLogbook("setup: another gpudoctor setup is at work on this machine; wait until it has ended") from None
    except OSError as error:
        raise NoLogbook(
            f"setup: the log cannot be written to {folder} ({error.strerror or error}), so nothing was done. "
            "Name a folder that you can write in XDG_STATE_HOME"
        ) from error
    return Logbook(note, log, lock)


def _plain_file(path: Path) -> bytes:
    """What is in it, at most a megabyte; raises OSError for what is no file, such as a pipe that nobody writes to."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        return file.read(_LIMIT)


def _folder(environ: Mapping[str, str]) -> Path:
    given = environ.get("XDG_STATE_HOME", "")
    base = (
        Path(given) if given.startswith("/") else Path(os.path.expanduser("~")) / ".local/state"
    )  # relative ones are to be ignored
    return base / _FOLDER


def _locked(path: Path) -> int:
    """The open lock, which ends with this process; raises BlockingIOError where another one has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _new(folder: Path) -> IO[bytes]:
    """A file that nobody else writes, named by the time; only its owner reads it, since output may tell more than was meant."""
    stem = time.strftime("setup-%Y%m%d-%H%M%S")
    for number in range(100):
        path = folder / (f"{stem}.log" if not number else f"{stem}-{number}.log")
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            return open(path, "wb", opener=lambda *_: descriptor)  # noqa: B023 - closed with the logbook
    raise FileExistsError(17, "too many logs of this second", str(folder))


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
