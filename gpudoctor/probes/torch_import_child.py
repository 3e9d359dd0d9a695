"""Runs in the examined interpreter: imports torch and says, step by step, how far it came.

Python 3.8 syntax, standard library only.
Each line on the report pipe is one JSON object; ``phase`` names the step that is done. So a crash or a hang tells where it was.
An argument "import" ends it after the import: nothing that would wake a sleeping GPU is called.
"""

from __future__ import annotations

import sys

sys.path[:] = [entry for entry in sys.path if entry]  # a torch.py in the current folder is not meant

import importlib  # noqa: E402 - see above
import json  # noqa: E402
import os  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
import warnings  # noqa: E402
from typing import Any, Callable  # noqa: E402, UP035 - Python 3.8

_LIMIT = 4000  # characters of an error text
_pipe = int(os.environ.pop("GPUDOCTOR_REPORT_FD"))
_warned: list[str] = []


def _say(phase: str, **values: object) -> None:
    """One line on the report pipe."""
    line = json.dumps(dict(values, phase=phase)) + "\n"
    os.write(_pipe, line.encode("ascii"))


def _note_warning(message: Warning | str, *_args: object, **_kwargs: object) -> None:
    """Keeps the text of a warning instead of printing it."""
    _warned.append(str(message)[:_LIMIT])


def _asked(name: str, ask: Callable[[], object]) -> tuple[dict[str, object], str | None]:
    """({name: answer}, None), or nothing and the error's text: a build without that part is no surprise."""
    try:
        return {name: ask()}, None
    except Exception as error:  # noqa: BLE001 - whatever the user's torch raises is the answer
        return {}, f"{type(error).__name__}: {str(error)[:_LIMIT]}"


def _import() -> Any:  # noqa: ANN401 - the user's torch, whatever it is
    """Torch, or None after saying why not."""
    started = time.time()
    try:
        torch = importlib.import_module("torch")
    except BaseException as error:  # noqa: BLE001 - a SystemExit in somebody's start-up file is an answer too
        absent = isinstance(error, ImportError) and error.name == "torch" and type(error).__name__ == "ModuleNotFoundError"
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        _say("start", absent=absent, error=text[-_LIMIT:], seconds=time.time() - started)
        return None
    if not hasattr(torch, "__version__"):
        places = ", ".join(getattr(torch, "__path__", []))
        _say("start", absent=False, error="torch is a folder without code: " + places, seconds=time.time() - started)
        return None
    version = getattr(torch, "version", None)
    cuda = getattr(version, "cuda", None)
    _say("import", seconds=time.time() - started, version=str(torch.__version__), cuda=cuda if cuda is None else str(cuda))
    return torch


def _ask(torch: Any) -> None:  # noqa: ANN401 - see above
    """Availability and devices first: the rest is worth less than they are."""
    flags, _ = _asked("arch_list", lambda: _architectures(torch))
    nccl, _ = _asked("nccl", lambda: bool(torch.distributed.is_available() and torch.distributed.is_nccl_available()))
    _say("import", **dict(flags, **nccl))
    if sys.argv[1:] == ["import"]:
        return
    available, error = _asked("available", torch.cuda.is_available)
    _say("available", error=error or _explanation(available), **available)
    count, error = _asked("device_count", torch.cuda.device_count)
    _say("devices", **(count if error is None else {"error": error}))
    cudnn, error = _asked("cudnn", torch.backends.cudnn.version)
    _say("done", **(cudnn if error is None else {"error": error}))


def _architectures(torch: Any) -> list[str]:  # noqa: ANN401 - see above
    """The architectures of the build; get_arch_list() is empty where there is no GPU."""
    return str(torch._C._cuda_getArchFlags() or "").split()  # noqa: SLF001 - nothing public says it


def _explanation(available: dict[str, object]) -> str | None:
    """The warning that says why there is no GPU: the last one about CUDA, else none."""
    if available.get("available") is not False:
        return None
    about = [text for text in _warned if "CUDA" in text or "NVIDIA" in text or "HIP" in text]
    return about[-1] if about else None


warnings.showwarning = _note_warning
_say("start")
_torch = _import()
if _torch is not None:
    warnings.simplefilter("always")
    warnings.showwarning = _note_warning
    _ask(_torch)
os._exit(0)  # what hangs or crashes while an interpreter ends is not what was asked
