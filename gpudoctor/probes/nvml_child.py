"""The child that calls NVML, so that a driver that hangs or crashes takes only this process down.

It writes one JSON object per line to the pipe GPUDOCTOR_REPORT_FD, at once, so that what was learnt before a hang or a
crash is kept and the call it happened in is known:

    {"call": "nvmlInit"}                          entering this call; null when no call of the driver is under way
    {"error_code": 18, "error": "..."}            fields of facts.Nvml
    {"gpu": 0, "values": {"name": "..."}}         fields of facts.Gpu
    {"missing": "pynvml"}                         nvidia-ml-py cannot be imported
    {"done": true}
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

LIBRARY = "libnvidia-ml.so.1"
LIBRARY_NOT_FOUND = 12
GPUS_MAX = 256
COMMAND_LIMIT = 120
INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of linux/proc_ns.h

Say = Callable[[dict[str, Any]], None]


def main(proc: str = "/proc") -> None:
    """Ask everything once. ``proc`` is where processes are looked up."""
    with os.fdopen(int(os.environ["GPUDOCTOR_REPORT_FD"]), "w", buffering=1, encoding="ascii") as pipe:

        def say(event: dict[str, Any]) -> None:
            pipe.write(json.dumps(event) + "\n")

        _examine(say, proc)
        say({"call": None, "done": True})
    # no nvmlShutdown and no destructors: a sick driver may hang in them, and nothing is left to learn
    os._exit(0)


def _examine(say: Say, proc: str) -> None:
    say({"call": f"the loading of {LIBRARY}"})
    try:
        # nvidia-ml-py calls every failure to load "not found"; the loader tells the truth ("file too short")
        ctypes.CDLL(LIBRARY)
    except OSError as error:
        say({"error_code": LIBRARY_NOT_FOUND, "error": str(error)})
        return
    say({"call": None, "library": _mapped(LIBRARY.removesuffix(".1"))})
    try:
        from gpudoctor.probes import nvml_facade  # noqa: PLC0415 - without nvidia-ml-py the loader's words still count
    except ImportError as error:
        say({"missing": error.name})
        return
    _ask_system(say, nvml_facade, proc)


def _ask_system(say: Say, nvml: ModuleType, proc: str) -> None:
    # the code of nvmlInit, or of a count without which "no GPU" and "not told" would look the same
    say({"call": "nvmlInit"})
    try:
        nvml.initialise()
        for field, ask in (("driver_version", nvml.driver_version), ("cuda_version", nvml.cuda_version)):
            _ask_fact(say, nvml, field, ask)
        say({"call": "nvmlDeviceGetCount"})
        count = min(nvml.gpu_count(), GPUS_MAX)
    except Exception as error:  # noqa: BLE001 - becomes a fact; some exceptions of nvidia-ml-py are no NVMLError
        refused = nvml.refusal(error)
        say({"error_code": refused.code, "error": refused.why})
        return
    found = [(index, _ask_gpu(say, nvml, index)) for index in range(count)]
    say({"call": None})
    for index, processes in found:
        if processes:
            say({"gpu": index, "values": {"processes": [_identified(process, proc) for process in processes]}})


def _ask_fact(say: Say, nvml: ModuleType, field: str, ask: Callable[[], str | int]) -> None:
    say({"call": "nvmlSystemGetDriverVersion" if field == "driver_version" else "nvmlSystemGetCudaDriverVersion"})
    try:
        say({field: ask()})
    except Exception as error:  # noqa: BLE001 - becomes a fact
        say({field: {"unknown": nvml.refusal(error).why}})


def _ask_gpu(say: Say, nvml: ModuleType, index: int) -> list[dict[str, Any]]:
    """Ask every question about one GPU; returns its processes, yet without user and command."""
    say({"call": f"nvmlDeviceGetHandleByIndex of GPU {index}"})
    try:
        handle = nvml.open_gpu(index)
    except Exception as error:  # noqa: BLE001 - becomes a fact
        refused = nvml.refusal(error)
        say({"gpu": index, "values": {"error": refused.why, "error_code": refused.code}})
        return []
    say({"gpu": index, "values": {}})
    processes: list[dict[str, Any]] = []
    for question in nvml.QUESTIONS:
        say({"call": f"{question.call} of GPU {index}"})
        try:
            values = dict(zip(question.fields, question.ask(handle), strict=True))
        except Exception as error:  # noqa: BLE001 - becomes a fact
            refused = nvml.refusal(error)
            if refused.code in nvml.DEVICE_FAILED:
                say({"gpu": index, "values": {"error": refused.why, "error_code": refused.code}})
                return processes
            values = {field: {"unknown": refused.why} for field in question.fields}
        else:
            if "processes" in values:
                processes = values["processes"]
                values = {"processes": [_anonymous(process) for process in processes]}
        say({"gpu": index, "values": values})
    return processes


def _anonymous(process: dict[str, Any]) -> dict[str, Any]:
    used = {"unknown": "not told by the driver"} if process["used"] is None else process["used"]
    return {**process, "used": used, "user": None, "command": None, "state": None}


def _identified(process: dict[str, Any], proc: str) -> dict[str, Any]:
    """The process with what ``proc`` says of it; nothing when its pid belongs to another PID namespace."""
    anonymous = _anonymous(process)
    folder = f"{proc}/{process['pid']}"
    stat = _read(f"{folder}/stat")
    if not stat or (proc == "/proc" and _contained()):
        return anonymous
    name, _, after = stat.partition("(")[2].rpartition(")")
    state = after.split()[0] if after.split() else None
    # the command line of a process in uninterruptible sleep can block its reader; a zombie has none
    command = None if state in {"D", "Z"} else _command(_read(f"{folder}/cmdline"))
    return {**anonymous, "user": _user(folder, proc), "command": command or name, "state": state}


def _contained() -> bool:
    """NVML gives the host's pids; inside a container the same number is another process."""
    try:
        return os.readlink("/proc/self/ns/pid") != INITIAL_PID_NAMESPACE
    except OSError:
        return True


def _command(line: str) -> str:
    """The program and, where it is a script or a module, which one: later arguments may hold secrets."""
    words = [word for word in line.split("\0") if word]
    kept = words[:1]
    if words[1:2] and not words[1].startswith("-"):
        kept = words[:2]
    elif words[1:2] == ["-m"]:
        kept = words[:3]
    return " ".join(kept)[:COMMAND_LIMIT]


def _user(folder: str, proc: str) -> str | None:
    uids = [line.split()[1] for line in _read(f"{folder}/status").splitlines() if line.startswith("Uid:")]
    if not uids:
        return None
    for line in _read(os.path.join(os.path.dirname(proc), "etc/passwd")).splitlines():
        name, _, uid = line.split(":")[:3] if line.count(":") >= 3 else ("", "", "")
        if uid == uids[0]:
            return name
    with contextlib.suppress(ImportError, KeyError, ValueError):
        import pwd  # noqa: PLC0415 - only for users that a directory service knows

        return pwd.getpwuid(int(uids[0])).pw_name if proc == "/proc" else uids[0]
    return uids[0]


def _mapped(stem: str) -> str | None:
    """The file that was loaded for a library, as the kernel has mapped it."""
    for line in _read("/proc/self/maps").splitlines():
        path = line.partition("/")[2]
        if stem in path.rpartition("/")[2]:
            return "/" + path
    return None


def _read(path: str, limit: int = 1 << 20) -> str:
    try:
        with open(path, "rb") as stream:
            return stream.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""
