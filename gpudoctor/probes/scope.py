"""Where a probe looks: below which root, with which environment, at which interpreter, for how long."""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from gpudoctor.probes import child
from gpudoctor.smoke.plan import Plan

COMMAND_DEADLINE = 10.0
LEAST_SECONDS = 0.1
READ_LIMIT = 8 << 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """A smoke test that is wanted. ``asked``: by name, not as the last check; then it may disturb others and take its time."""

    plan: Plan
    asked: bool


@dataclass(frozen=True, slots=True)
class Scope:
    """What every probe gets.

    ``root`` is prefixed to the machine's own paths. Commands, NVML and the interpreter are those of the live machine.
    ``cap`` is ``--deadline``: seconds, counted from the making of the scope, that all waiting may last.
    ``python`` is the target interpreter, ``chosen_by`` how it was chosen.
    """

    root: Path
    environ: Mapping[str, str]
    python: str | None
    chosen_by: str
    cap: float | None = None
    smoke: Request | None = None
    """None: nothing is generated."""
    doing: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """What a probe does just now, by the field that it fills: read by whoever shows progress."""
    _started: float = field(default_factory=time.monotonic, repr=False, compare=False)
    _memory: dict[str, object] = field(default_factory=dict, repr=False, compare=False)
    _locks: dict[str, threading.Lock] = field(default_factory=dict, repr=False, compare=False)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What ``make`` returns, made once for all the probes that ask for ``key``; the others wait for the first."""
        with self._locks.setdefault(key, threading.Lock()):
            if key not in self._memory:
                self._memory[key] = make()
            return cast("T", self._memory[key])

    def known(self, key: str) -> object:
        """What ``once`` has made for ``key`` so far; None when nobody asked, or the answer has not come. It never waits."""
        return self._memory.get(key)

    @property
    def live(self) -> bool:
        """Whether the machine that is looked at is the one that runs."""
        return self.root == Path("/")

    def path(self, absolute: str) -> Path:
        """Where the machine's path ``absolute`` is found from here."""
        return self.root / absolute.lstrip("/")

    def text(self, absolute: str, limit: int = READ_LIMIT) -> str | None:
        """The file's text, decoded with replacement, at most ``limit`` bytes; None when it cannot be read or is no plain file."""
        data = self.data(absolute, limit)
        return None if data is None else data.decode("utf-8", "replace")

    def data(self, absolute: str, limit: int = READ_LIMIT) -> bytes | None:
        """The file's bytes, at most ``limit``; None when it cannot be read or is no plain file.

        A device is not even opened: that alone may wake it, or start a watchdog.
        """
        place = self.path(absolute)
        try:
            if not stat.S_ISREG(os.stat(place).st_mode):
                return None
            # O_NONBLOCK: should it have become a named pipe since, opening it must not wait for a writer
            descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):  # ValueError: a name with a NUL, or half a surrogate, in a file that we follow
            return None
        try:
            chunks = bytearray()
            while len(chunks) < limit:
                chunk = os.read(descriptor, min(1 << 20, limit - len(chunks)))
                if not chunk:
                    break
                chunks += chunk
            return bytes(chunks)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def names(self, absolute: str) -> tuple[str, ...]:
        """The sorted names in a folder; empty when there is no such folder or it cannot be listed."""
        try:
            return tuple(sorted(os.listdir(self.path(absolute))))
        except (OSError, ValueError):
            return ()

    def which(self, program: str) -> str | None:
        """The program on the user's PATH."""
        return shutil.which(program, path=self.environ.get("PATH", os.defpath))

    def within(self, seconds: float) -> float:
        """``seconds``, or what ``--deadline`` leaves of them; always enough to see a child start and fail."""
        if self.cap is None:
            return seconds
        return min(seconds, max(round(self._started + self.cap - time.monotonic(), 1), LEAST_SECONDS))

    def run(self, *command: str, deadline: float = COMMAND_DEADLINE) -> child.Answer:
        """Run a text command in the user's environment, in English; raises child.NotStarted."""
        env = {**self.environ, "LC_ALL": "C", "LANGUAGE": "C"}
        return child.run(command, deadline=self.within(deadline), env=env)
