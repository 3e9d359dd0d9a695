"""What the child that imports torch has reported, as a fact, whatever became of the child."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from gpudoctor.facts import TorchImport, Unknown
from gpudoctor.probes import child, interpreter

PHASES = ("start", "import", "available", "devices", "done")
_ERROR_LINES = 6


def read(answer: child.Answer) -> TorchImport | None | Unknown:
    """The child's report as a fact, whatever became of the child."""
    said: dict[str, object] = {}
    for line in answer.report.splitlines():
        known = {"error"} & said.keys()  # the first error is the cause of the later ones
        said.update({key: value for key, value in json_object(line).items() if value is not None and key not in known})
    phase = said.get("phase")
    if said.get("absent") is True:
        return None
    if phase not in PHASES:
        return Unknown(_never_began(answer))
    version, cuda, error = said.get("version"), said.get("cuda"), said.get("error")
    return TorchImport(
        seconds=_number(said.get("seconds")) or answer.seconds,
        version=version if isinstance(version, str) else None,
        cuda=cuda if isinstance(cuda, str) else None,
        available=_truth(said.get("available")),
        device_count=_whole(said.get("device_count")),
        arch_list=_texts(said.get("arch_list")),
        nccl=_truth(said.get("nccl")),
        cudnn=_whole(said.get("cudnn")),
        error=last_lines(error) if isinstance(error, str) else _noise(answer),
        signal=answer.signal,
        hung=answer.hung,
        phase=str(phase),
    )


def _never_began(answer: child.Answer) -> str:
    if answer.hung:
        return "the interpreter gave no answer before it came to import torch"
    if answer.signal is not None:
        return f"the interpreter died of {answer.signal} before it came to import torch"
    last = last_lines(answer.stderr)
    if "SyntaxError" in last:
        return f"the interpreter is too old: Python {interpreter.OLDEST} or newer was expected"
    return "the interpreter did not come to import torch" + (f": {last}" if last else "")


def _noise(answer: child.Answer) -> str | None:
    """What a child that died without a word of its own left on stderr: the loader's or a library's last lines."""
    if answer.signal is None and answer.exit_code == 0:
        return None
    return last_lines(answer.stderr) or None


def last_lines(text: str) -> str:
    """The end of a traceback: its last lines, without control characters and blank ones."""
    clean = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = ["".join(letter for letter in line if letter.isprintable()).rstrip() for line in clean.splitlines()]
    return "\n".join([line for line in lines if line.strip()][-_ERROR_LINES:])


def json_object(line: str) -> Mapping[str, object]:
    """The object that a line of a report is; empty for anything else."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < 1e9 else None  # type: ignore[operator, arg-type]  # it is a number


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
