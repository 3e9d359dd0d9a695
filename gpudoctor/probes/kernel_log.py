"""The kernel's log of this boot, and the known error texts in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gpudoctor import symptoms
from gpudoctor.facts import Symptom, Unknown
from gpudoctor.probes import child

if TYPE_CHECKING:
    from gpudoctor.probes.scope import Scope

KEPT = 4 << 20
_OUTPUT_LIMIT = 16 << 20
_LINES = "40000"
_FILES = ("/var/log/kern.log", "/var/log/dmesg")
_COMMANDS = (  # with their deadlines in seconds: a journal on a slow disk takes its time, the kernel's buffer does not
    (("journalctl", "-k", "-b", "--no-pager", "-o", "short-monotonic", "-n", _LINES), 10.0),
    (("dmesg",), 4.0),
)
_BOOT = "Linux version "  # the first line that every kernel writes


def look(scope: Scope) -> tuple[Symptom, ...] | Unknown:
    """The symptoms of this boot, oldest first; Unknown when this user may not read the log."""
    log = text(scope)
    return log if isinstance(log, Unknown) else symptoms.read(log, "kernel log")


def text(scope: Scope) -> str | Unknown:
    """The last 4 MiB of the log of this boot, read once for all who ask."""
    return scope.once("kernel log", lambda: _read(scope))


def _read(scope: Scope) -> str | Unknown:
    if not scope.live:
        for path in _FILES:
            recorded = _tail(scope, path)
            if recorded:
                return recorded[max(0, recorded.rfind(_BOOT)) :]
    hung = False
    for command, deadline in _COMMANDS:
        answer = _ask(scope, command, deadline)
        if answer is None:
            continue
        hung = hung or answer.hung
        log = "\n".join(line for line in answer.stdout[-KEPT:].splitlines() if not line.startswith("-- "))
        if log.strip() and not answer.hung:
            return log
    return Unknown("the kernel log did not answer in time" if hung else "the kernel log may not be read by this user")


def _ask(scope: Scope, command: tuple[str, ...], deadline: float) -> child.Answer | None:
    program = scope.which(command[0])
    if program is None:
        return None
    env = {**scope.environ, "LC_ALL": "C", "LANGUAGE": "C"}
    try:
        return child.run((program, *command[1:]), deadline=scope.within(deadline), env=env, output_limit=_OUTPUT_LIMIT)
    except child.NotStarted:
        return None


def _tail(scope: Scope, path: str) -> str | None:
    """The file's last 4 MiB; None when it cannot be read."""
    try:
        # opened so that a named pipe does not wait for a writer
        with open(os.open(scope.path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - KEPT))
            return file.read(KEPT).decode("utf-8", "replace")
    except (OSError, ValueError):
        return None
