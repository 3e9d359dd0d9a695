"""A person at a terminal: starts a program in a pseudo-terminal and types what its questions call for."""

from __future__ import annotations

import os
import pty
import re
import select
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Answers = Sequence[tuple[str, bytes]]
"""(pattern at the end of what is on the screen, keys): the first that matches is typed, each as often as it is asked."""


@dataclass(frozen=True)
class Talk:
    """How the program ended (as the shell would say it) and everything that was on the screen."""

    code: int
    screen: str


def talk(command: Sequence[str], answers: Answers, environ: Mapping[str, str], *, seconds: float = 120.0) -> Talk:
    """Run ``command`` and answer it; raises AssertionError when it has not ended in that time."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], list(command), dict(environ))  # noqa: S606 - a terminal of its own is the point
    patterns = [(re.compile(pattern), keys) for pattern, keys in answers]
    seen, since, until = "", "", time.monotonic() + seconds
    while time.monotonic() < until:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:
                break
            if not chunk:
                break
            seen += chunk.decode("utf-8", "replace")
            since += chunk.decode("utf-8", "replace")
        for pattern, keys in patterns:
            if pattern.search(since[-2000:]):
                os.write(terminal, keys)
                since = ""
                break
    else:
        os.close(terminal)
        raise AssertionError(f"it goes on after {seconds:g} s:\n{seen[-3000:]}")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return Talk(code if code >= 0 else 128 - code, seen.replace("\r\n", "\n"))
