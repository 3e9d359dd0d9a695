"""NVML's facts: every GPU as the driver itself describes it, asked in a child with a deadline.

NVML that answers, with values or with a code of its own, is the truth about the driver. The child (``nvml_child.py``)
reports call by call, so that after a hang or a crash the call is named and what came before is kept.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import gpudoctor
from gpudoctor.codec import Json, NotOurs, from_json
from gpudoctor.facts import Gpu, Nvml, Unknown
from gpudoctor.probes import child
from gpudoctor.probes.scope import Scope

DEADLINE = 20.0
SECONDS_PER_GPU = 3.0  # a driver without persistence takes 1-3 s to wake each GPU
MOST_GPUS = 32  # beyond this a bus tells nonsense, or the wait would pass two minutes
NVIDIA = "0x10de"
ASLEEP = Unknown("the GPU is asleep, and looking would wake it")
NO_BINDING = Unknown("nvidia-ml-py is not installed beside gpudoctor")
NOT_ON_WSL = {"unknown": "not supported on WSL2"}

# -I and -S: neither the user's PYTHON* variables nor site hooks count, so that a broken environment cannot break this
# child; it gets the doctor's own search path instead, behind the standard library.
_START = "import sys; sys.path += sys.argv[2:]; from gpudoctor.probes.nvml_child import main; main(sys.argv[1])"


def look(scope: Scope) -> Nvml | Unknown:
    """Ask NVML everything; Unknown when nobody could ask: GPU asleep, no nvidia-ml-py, no answer from our own child."""
    if asleep(scope):
        return ASLEEP
    seconds = deadline(scope)
    here = str(Path(gpudoctor.__file__).parent.parent)
    command = [sys.executable, "-I", "-S", "-c", _START, str(scope.path("/proc")), here, *filter(None, sys.path)]
    try:
        answer = child.run(command, deadline=seconds, env=scope.environ, report=True)
    except child.NotStarted as error:
        return Unknown(str(error))
    return _facts(answer, seconds, on_wsl=_on_wsl(scope))


def deadline(scope: Scope) -> float:
    """Seconds that all questions together may take: a fixed part, and one for each NVIDIA GPU on the bus."""
    return scope.within(DEADLINE + SECONDS_PER_GPU * min(len(_gpus_on_bus(scope)), MOST_GPUS))


def asleep(scope: Scope) -> bool:
    """Whether every NVIDIA GPU on the bus is suspended, as in a hybrid laptop on battery: any NVML call would wake it."""
    states = [scope.text(f"{device}/power/runtime_status", 64) for device in _gpus_on_bus(scope)]
    return bool(states) and all(state is not None and state.strip() == "suspended" for state in states)


def _gpus_on_bus(scope: Scope) -> tuple[str, ...]:
    devices = (f"/sys/bus/pci/devices/{name}" for name in scope.names("/sys/bus/pci/devices"))
    return tuple(
        device
        for device in devices
        if (scope.text(f"{device}/vendor", 64) or "").strip() == NVIDIA
        and (scope.text(f"{device}/class", 64) or "").startswith("0x03")  # display controllers
    )


def _on_wsl(scope: Scope) -> bool:
    return "microsoft" in (scope.text("/proc/version", 1024) or "").lower()


def _facts(answer: child.Answer, deadline: float, *, on_wsl: bool) -> Nvml | Unknown:
    heard, gpus = _replay(answer.report)
    if "missing" in heard:
        return NO_BINDING
    call = heard.get("call")
    ended = _ending(answer)
    if call is None and "done" not in heard and "driver_version" not in heard:
        reason = f"no answer within {deadline:g} s" if answer.hung else ended or "it said nothing"
        return Unknown(f"gpudoctor's own Python could not ask NVML: {reason}")
    hung = call if answer.hung else None
    crashed = f"{ended} in {call}" if ended and call else None
    why = f"not asked: {_obstacle(hung, crashed, heard.get('error'))}"
    try:
        return from_json(
            Nvml,
            {
                "library": heard.get("library"),
                "error_code": heard.get("error_code"),
                "error": heard.get("error"),
                "crashed": crashed,
                "hung": hung,
                "driver_version": heard.get("driver_version", {"unknown": why}),
                "cuda_version": heard.get("cuda_version", {"unknown": why}),
                "gpus": [_gpu(index, values, why, on_wsl=on_wsl) for index, values in sorted(gpus.items())],
            },
        )
    except NotOurs as error:
        return Unknown(f"NVML's answers make no sense: {error}")


def _obstacle(hung: str | None, crashed: str | None, error: str | None) -> str:
    if hung:
        return f"no answer to {hung}"
    return crashed or error or "NVML's turn did not come"


def _replay(report: str) -> tuple[dict[str, Json], dict[int, dict[str, Json]]]:
    """The latest value of every key that the child reported, and of every field per GPU; a torn last line is left out."""
    heard: dict[str, Json] = {}
    gpus: dict[int, dict[str, Json]] = {}
    for line in report.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        match event:
            case {"gpu": int(index), "values": dict(values)}:
                gpus.setdefault(index, {}).update(values)
            case dict():
                heard.update(event)
    return heard, gpus


def _ending(answer: child.Answer) -> str | None:
    """How the child died, if it died: a signal, or an exit that is not ours (a library that calls exit)."""
    if answer.hung or answer.exit_code == 0:
        return None
    return answer.signal or f"exit code {answer.exit_code}"


def _gpu(index: int, values: Mapping[str, Json], why: str, *, on_wsl: bool) -> Json:
    if values.get("error") is not None:
        why = f"the GPU does not answer: {values['error']}"
    fields = {field.name: {"unknown": why} for field in dataclasses.fields(Gpu)}
    wsl = {"processes": NOT_ON_WSL} if on_wsl else {}
    return {**fields, "error": None, "error_code": None, **values, **wsl, "index": index}
