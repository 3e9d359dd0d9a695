"""Runs in the examined interpreter: imports torch and says, step by step, how far it came; then it may generate with it.

Python 3.8 syntax, standard library only.
Each line on the report pipe is one JSON object; ``phase`` names the step that is done. So a crash or a hang tells where it was.
An argument "import" ends that after the import: nothing that would wake a sleeping GPU is called.

With an argument "smoke" it says ``waiting`` when it has come through, and reads one line of stdin: ``{"smoke": FOLDER, "plan":
PLAN}`` loads that folder as a package and has its worker carry out the plan, which says its own lines. Anything else, and
the end of stdin, lets it go.
"""

from __future__ import annotations

import sys

sys.path[:] = [entry for entry in sys.path if entry]  # a torch.py in the current folder is not meant

import importlib  # noqa: E402 - see above
import importlib.util  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
import warnings  # noqa: E402
from typing import Any, Callable  # noqa: E402, UP035 - Python 3.8

_LIMIT = 4000  # characters of an error text
_pipe = int(os.environ.pop("GPUDOCTOR_REPORT_FD"))
_warned: list[str] = []
_PACKAGE = "gpudoctor_smoke"


def _say(phase: str, **values: object) -> None:
    """One line about the import."""
    _tell(phase=phase, **values)


def _tell(**values: object) -> None:
    """One line on the report pipe."""
    line = (json.dumps(values) + "\n").encode("ascii")
    while line:
        line = line[os.write(_pipe, line) :]


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
        _say("start", absent=absent, error=_traceback(error), seconds=time.time() - started)
        return None
    if not hasattr(torch, "__version__"):
        places = ", ".join(getattr(torch, "__path__", []))
        _say("start", absent=False, error="torch is a folder without code: " + places, seconds=time.time() - started)
        return None
    version = getattr(torch, "version", None)
    cuda = getattr(version, "cuda", None)
    _say("import", seconds=time.time() - started, version=str(torch.__version__), cuda=cuda if cuda is None else str(cuda))
    return torch


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))[-_LIMIT:]


def _ask(torch: Any) -> None:  # noqa: ANN401 - see above
    """Availability and devices first: the rest is worth less than they are."""
    flags, _ = _asked("arch_list", lambda: _architectures(torch))
    nccl, _ = _asked("nccl", lambda: bool(torch.distributed.is_available() and torch.distributed.is_nccl_available()))
    _say("import", **dict(flags, **nccl))
    if "import" in sys.argv[1:]:
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


def _generate() -> None:
    """Does what stdin says; why it failed is said too."""
    _tell(waiting=True)
    with open(0, "rb", closefd=False) as stream:
        order = json.loads(stream.readline() or b"{}")
    if "smoke" not in order:
        return
    try:
        _load(order["smoke"])
        plan = importlib.import_module(_PACKAGE + ".plan").from_json(order["plan"])
        importlib.import_module(_PACKAGE + ".worker").run(plan, _tell)
    except BaseException as error:  # noqa: BLE001 - whatever ends it is the answer, a SystemExit too
        _tell(failed=_traceback(error))


def _load(folder: str) -> None:
    """The folder as a package; nothing else of it or beside it can be imported, and it is not written to."""
    sys.dont_write_bytecode = True
    initial = os.path.join(folder, "__init__.py")
    spec = importlib.util.spec_from_file_location(_PACKAGE, initial, submodule_search_locations=[folder])
    if spec is None or spec.loader is None:
        raise ImportError("no package in " + folder)
    package = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = package
    spec.loader.exec_module(package)


_show_warning = warnings.showwarning
warnings.showwarning = _note_warning
_say("start")
_torch = _import()
if _torch is not None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = _note_warning
        _ask(_torch)
    if "smoke" in sys.argv[1:]:
        warnings.showwarning = _show_warning
        _generate()
os._exit(0)  # what hangs or crashes while an interpreter ends is not what was asked
