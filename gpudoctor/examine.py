"""Runs all probes at the same time and gathers what they saw."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

from gpudoctor.facts import Facts, Unknown
from gpudoctor.probes import (
    build_tools,
    companions,
    cuda_driver,
    driver,
    environments,
    interpreter,
    kernel,
    kernel_log,
    libraries,
    nvml,
    pci,
    smi,
    smoke,
    system,
    toolkits,
    torch_files,
    torch_import,
    variables,
)
from gpudoctor.probes.scope import Scope
from gpudoctor.probes.worker import shared

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


def _seconds(number: float) -> Callable[[Scope], float]:
    return lambda scope: scope.within(number)


# The slow ones first, so that their seconds overlap with everything else.
PROBES: tuple[Probe, ...] = (
    Probe("torch_import", "importing torch in the target interpreter", torch_import.look, _seconds(torch_import.DEADLINE)),
    Probe("smoke", "", smoke.look, smoke.deadline),
    Probe("nvml", "asking the driver (NVML)", shared("nvml", nvml.look), nvml.deadline),
    Probe("nvidia_smi", "running nvidia-smi", smi.look, _seconds(10)),
    Probe("interpreter", "asking the target interpreter", interpreter.of, _seconds(10)),
    Probe("cuda_driver", "asking libcuda for its version", cuda_driver.look, _seconds(20)),
    Probe("system", "reading about the operating system", shared("system", system.look), _seconds(10)),
    Probe("pci", "reading the PCI bus", shared("pci", pci.look), _seconds(10)),
    Probe("kernel", "reading kernel modules and Secure Boot", kernel.look, _seconds(20)),
    Probe("driver", "reading the driver's files", driver.look, _seconds(20)),
    Probe("kernel_log", "reading the kernel log", kernel_log.look, _seconds(20)),
    Probe("toolkits", "looking for CUDA toolkits", toolkits.look, _seconds(20)),
    Probe("build_tools", "looking for a compiler", build_tools.look, _seconds(20)),
    Probe("libraries", "looking for cuDNN and NCCL", libraries.look, _seconds(20)),
    Probe("torch", "reading PyTorch's files", torch_files.look, _seconds(20)),
    Probe("companions", "reading packages built against torch", companions.look, _seconds(20)),
    Probe("environments", "looking for other Python environments", environments.look, _seconds(10)),
    Probe("variables", "reading environment variables", variables.look, _seconds(5)),
)

Progress = Callable[[tuple[str, ...]], None]
"""Called with the titles of the probes that are still running, again and again."""


def examine(scope: Scope, *, skip: Iterable[str] = (), progress: Progress = lambda _: None) -> Facts:
    """All facts about the machine. Takes as long as the slowest probe, never longer than its deadline and GRACE.

    ``skip`` names fields that are left unlooked at. Without the import of torch there is no smoke test either.
    """
    skipped = set(skip)
    if "torch_import" in skipped:
        skipped.add("smoke")
    runs = [_Run(probe, scope) for probe in PROBES if probe.field not in skipped]
    for run in runs:
        run.start()
    values: dict[str, object] = dict.fromkeys(skipped, Unknown("not asked for"))
    if "smoke" in skipped:
        values["smoke"] = smoke.NOT_ASKED if scope.smoke is None else smoke.NO_IMPORT
    waiting = list(runs)
    while waiting:
        progress(tuple(title for run in waiting if (title := scope.doing.get(run.probe.field, run.probe.title))))
        waiting[0].done.wait(0.05)
        for run in [run for run in waiting if run.finished]:
            values[run.probe.field] = run.result
            waiting.remove(run)
    progress(())
    # the smoke test tells its own seconds; here they would be those of the import too
    slow = tuple((run.probe.field, round(run.seconds, 1)) for run in runs if run.seconds > 1 and run.probe.field != "smoke")
    taken = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Facts(taken=taken, slow=slow, **values)  # type: ignore[arg-type]  # PROBES pairs each field with its probe


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
