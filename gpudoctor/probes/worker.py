"""The one child of the target interpreter that imports torch, and then generates where it may: two facts, one import.

What it says up to ``waiting`` is about the import (``torch_import_report``); what comes after, and how it ends then, is the smoke
test's (``smoke_report``). In between the doctor decides whether there is one, from what the other probes have seen.
"""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gpudoctor.facts import Facts, Skipped, Unknown
from gpudoctor.probes import child, interpreter, neighbours, nvml, pci, system, torch_import_report, variables
from gpudoctor.probes.patience import answered
from gpudoctor.probes.scope import Request, Scope
from gpudoctor.probes.smoke_report import Heard
from gpudoctor.smoke import plan as plans

IMPORT_DEADLINE = 60.0
"""Seconds. A cold network file system needs 30."""
SILENCE = 60.0
"""Seconds without a word after which a smoke test has hung; it speaks every few seconds while it works."""
TOTAL = 120.0
"""Seconds for a smoke test that nobody asked for by name."""
LEAST = 1.0
"""Seconds without which none is begun."""
FOLDER = Path(plans.__file__).parent
_SCRIPT = Path(__file__).with_name("torch_import_child.py")
_FILES = 10.0
_LINES_KEPT = 64  # the import is told in less than ten
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a smoke test that was begun ended. ``silent``: it hung, rather than that its time was up while it worked."""

    plan: plans.Plan
    heard: Heard
    answer: child.Answer
    seconds: float
    silent: bool


def of(scope: Scope) -> Worker:
    """The child, started once for all who ask."""
    return scope.once("worker", lambda: Worker(scope))


def deadline(scope: Scope) -> float:
    """Seconds that import, decision and smoke test take at most together."""
    if scope.smoke is not None and scope.smoke.asked:
        return scope.within(math.inf)
    return scope.within(IMPORT_DEADLINE + nvml.deadline(scope) + 2 * _FILES + TOTAL)


class Worker:
    """The child, and what has been heard from it. Its talk is followed in a thread of its own."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._said: list[str] = []  # of the import
        self._imported: child.Answer | Unknown = Unknown("the interpreter has not answered yet")
        self._smoke: Ended | Skipped | Unknown | None = None
        self._heard: Heard | None = None
        self._plan: plans.Plan | None = None
        self._started = self._spoke = time.monotonic()
        self._import_over, self._over = threading.Event(), threading.Event()
        threading.Thread(target=self._follow, name="worker", daemon=True).start()

    def imported(self) -> child.Answer | Unknown:
        """The report on the import; as if the child had ended well with it, where it went on to the smoke test."""
        self._import_over.wait()
        return self._imported

    def smoke(self) -> Ended | Skipped | Unknown | None:
        """How the smoke test ended, or why there was none; None where the import did not come through."""
        self._over.wait()
        return self._smoke

    def _follow(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - whoever waits for this is told; it becomes a fact
            self._smoke = Unknown(f"the probe failed: {type(error).__name__}: {error}")
            self._imported = self._imported if self._import_over.is_set() else self._smoke
        finally:
            child.sweep()
            self._import_over.set()
            self._over.set()

    def _run(self) -> None:
        scope = self._scope
        if scope.python is None:
            self._imported = Unknown("there is no Python to examine")
            return
        listen = None if scope.smoke is None else self._listen
        try:
            answer = child.run(
                _command(scope),
                deadline=scope.within(IMPORT_DEADLINE),
                env=interpreter.environment(scope),
                report=True,
                listen=listen,
                silence=SILENCE if listen else math.inf,
            )
        except child.NotStarted as error:
            self._imported = Unknown(f"the interpreter could not be started: {error}")
            return
        if not self._import_over.is_set():
            self._imported = answer
        if self._plan is not None and self._heard is not None:
            silent = answer.hung and time.monotonic() - self._spoke >= SILENCE
            self._smoke = Ended(self._plan, self._heard, answer, time.monotonic() - self._started, silent)

    def _listen(self, line: str) -> child.Reply | None:
        self._spoke = time.monotonic()
        if self._heard is not None:
            self._heard.line(line)
            self._scope.doing["smoke"] = self._heard.title
            return None
        if self._import_over.is_set():
            return None
        if len(self._said) < _LINES_KEPT:
            self._said.append(line)
        if torch_import_report.json_object(line).get("waiting") is not True or self._scope.smoke is None:
            return None
        return self._decide(self._scope.smoke)

    def _decide(self, request: Request) -> child.Reply:
        """What is said to the child that waits: the plan, or that it may go."""
        seconds = time.monotonic() - self._started
        self._imported = child.Answer(0, "", "", "\n".join(self._said), None, hung=False, seconds=seconds)
        self._import_over.set()
        permitted = self._permitted(request)
        left = self._scope.within(math.inf if request.asked else TOTAL)
        if isinstance(permitted, plans.Plan) and left < LEAST:
            permitted = Skipped("--deadline leaves no time for it")
        if isinstance(permitted, Skipped):
            self._smoke = permitted
            return child.Reply('{"skip": true}\n', 5.0)
        self._plan, self._heard = permitted, Heard(permitted)
        self._scope.doing["smoke"] = self._heard.title
        self._started = self._spoke = time.monotonic()
        folder = child.scratch() if permitted.processes > 1 else None
        order = {"smoke": str(FOLDER), "plan": plans.to_json(dataclasses.replace(permitted, scratch=folder))}
        return child.Reply(json.dumps(order) + "\n", left)

    def _permitted(self, request: Request) -> plans.Plan | Skipped:
        facts = _seen(self._scope, self._imported, gpu=request.plan.device != "cpu")
        return neighbours.permit(request, facts, own=child.running())


def _command(scope: Scope) -> list[str]:
    """The script's text is handed over with ``-c``: no folder of ours is on the child's path, where a torch*.py would shadow torch.

    Where an NVIDIA GPU is asleep the child imports and asks no further, since asking would wake it, unless a GPU was asked for.
    """
    command = [str(scope.python), "-c", _SCRIPT.read_text(encoding="utf-8")]
    request = scope.smoke
    wake = request is not None and request.asked and request.plan.device != "cpu"
    if not wake and asleep(scope):
        command.append("import")
    return command if request is None else [*command, "smoke"]


def asleep(scope: Scope) -> bool:
    """Whether an NVIDIA GPU is suspended (a hybrid laptop's): power/runtime_status on the PCI bus."""
    bus = "/sys/bus/pci/devices"
    return any(_sleeps(scope, f"{bus}/{name}") for name in scope.names(bus))


def _sleeps(scope: Scope, device: str) -> bool:
    def value(name: str) -> str:
        return (scope.text(f"{device}/{name}", 64) or "").strip()

    return value("vendor") == "0x10de" and value("class").startswith("0x03") and value("power/runtime_status") == "suspended"


# ---------------------------------------------------------------- what the decision needs


def _seen(scope: Scope, imported: child.Answer | Unknown, *, gpu: bool) -> Facts:
    """The facts on which it depends, from the same answers as everybody else's; what does not come in time is Unknown.

    Without ``gpu`` nobody waits for the driver.
    """
    machine = _in_time(scope, "system", system.look, _FILES, Unknown("no answer in time"))
    if not gpu:
        return Facts(system=machine)
    return Facts(
        torch_import=imported if isinstance(imported, Unknown) else torch_import_report.read(imported),
        nvml=_in_time(scope, "nvml", nvml.look, nvml.deadline(scope), neighbours.SILENT),
        system=machine,
        pci=_in_time(scope, "pci", pci.look, _FILES, Unknown("no answer in time")),
        variables=variables.look(scope),
    )


def _in_time(scope: Scope, name: str, look: Callable[[Scope], T], seconds: float, otherwise: Unknown) -> T | Unknown:
    try:
        found = answered(lambda: shared(name, look)(scope), scope.within(seconds))
    except Exception as error:  # noqa: BLE001 - the probe of that name says it too
        return Unknown(f"the probe failed: {type(error).__name__}: {error}")
    return otherwise if found is None else found


def shared(name: str, look: Callable[[Scope], T]) -> Callable[[Scope], T]:
    """The same look, made once in a scope for all who ask for that name."""
    return lambda scope: scope.once(name, lambda: look(scope))
