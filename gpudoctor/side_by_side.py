"""Runs probes at the same time, each with a deadline: whatever one of them meets, the others go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpudoctor.facts import Unknown
from gpudoctor.probes.scope import Scope

GRACE = 1.5
"""Seconds that a probe gets beyond its child's deadline to kill it and to say so."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One source of facts: the field of Facts that it fills, what a waiting person reads, its deadline in seconds.

    What it does just now is read instead of ``title`` where the scope knows that; an empty title is not shown.
    """

    field: str
    title: str
    look: Callable[[Scope], object]
    deadline: Callable[[Scope], float]


def seconds(number: float) -> Callable[[Scope], float]:
    """A deadline of so many seconds, or what ``--deadline`` leaves of them."""
    return lambda scope: scope.within(number)


Progress = Callable[[tuple[str, ...]], None]
"""Called with the titles of the probes that are still running, again and again."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the probes said, by the field that each fills, and which of them took more than a second: (field, seconds)."""

    values: dict[str, object]
    slow: tuple[tuple[str, float], ...]


def ask(scope: Scope, probes: Sequence[Probe], progress: Progress) -> Answers:
    """Run them all. Takes as long as the slowest, never longer than its deadline and GRACE."""
    runs = [_Run(probe, scope) for probe in probes]
    for run in runs:
        run.start()
    values: dict[str, object] = {}
    waiting = list(runs)
    while waiting:
        progress(tuple(title for run in waiting if (title := scope.doing.get(run.probe.field, run.probe.title))))
        waiting[0].done.wait(0.05)
        for run in [run for run in waiting if run.finished]:
            values[run.probe.field] = run.result
            waiting.remove(run)
    progress(())
    return Answers(values, tuple((run.probe.field, round(run.seconds, 1)) for run in runs if run.seconds > 1))


class _Run:
    """One probe at work in a daemon thread, which is abandoned when it outlives its deadline."""

    def __init__(self, probe: Probe, scope: Scope) -> None:
        self.probe = probe
        self.done = threading.Event()
        self.seconds = 0.0
        self._scope = scope
        self._limit = probe.deadline(scope) + GRACE
        self._result: object = None

    def start(self) -> None:
        self._started = time.monotonic()
        threading.Thread(target=self._work, name=self.probe.field, daemon=True).start()

    @property
    def finished(self) -> bool:
        """The probe has answered, or has had its time."""
        return self.done.is_set() or time.monotonic() - self._started > self._limit

    @property
    def result(self) -> object:
        if self.done.is_set():
            return self._result
        self.seconds = self._limit
        return Unknown(f"no answer within {self._limit - GRACE:g} s")

    def _work(self) -> None:
        try:
            self._result = self.probe.look(self._scope)
        except Exception as error:  # noqa: BLE001 - whatever a probe meets, the others go on; it becomes a fact
            self._result = Unknown(f"the probe failed: {type(error).__name__}: {error}")
        self.seconds = time.monotonic() - self._started
        self.done.set()
