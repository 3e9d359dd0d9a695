"""One of several processes, started by torchrun: reads the plan, says what it does on the doctor's pipe, and proves its part.

Run as a script. Its own folder must not be searched for modules: a user's ``generate`` or ``model`` is not ours.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if entry and not __file__.startswith(entry + "/rank.")]

import ctypes
import fcntl
import importlib
import importlib.util
import json
import os
import signal
import traceback
from typing import Any

LIMIT = 3000  # characters of an error text
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Carry out the plan; exit code 1 after having said why not."""
    parent, rank = int(os.environ["GPUDOCTOR_PARENT"]), int(os.environ["RANK"])
    end_with(parent)
    pipe = os.open(descriptor(parent, "GPUDOCTOR_REPORT_FD"), os.O_WRONLY)
    pipe_lock = os.open(descriptor(parent, "GPUDOCTOR_PLAN_FD"), os.O_RDONLY)

    def say(**values: object) -> None:
        line = json.dumps(dict(values, rank=rank)) + "\n"
        fcntl.flock(pipe_lock, fcntl.LOCK_EX)  # a line longer than 4096 bytes may be cut by another's
        os.write(pipe, line.encode("ascii"))
        fcntl.flock(pipe_lock, fcntl.LOCK_UN)

    try:
        done = prove(parent, rank, say)
    except BaseException as error:  # noqa: BLE001 - also a SystemExit of somebody's: whatever ends it is the answer
        say(failed="".join(traceback.format_exception(type(error), error, error.__traceback__))[-LIMIT:])
        done = False
    os._exit(0 if done else 1)  # what hangs or crashes while an interpreter ends is not what was asked


def prove(parent: int, rank: int, say: Any) -> bool:  # noqa: ANN401 - a function that takes any values
    """Whether the plan was carried out; where not, why not has been said."""
    with open(descriptor(parent, "GPUDOCTOR_PLAN_FD"), encoding="ascii") as file:
        data = json.load(file)
    package = load_package()
    say(begin="import")
    worker = importlib.import_module(package + ".worker")
    plan = importlib.import_module(package + ".plan").from_json(data)
    return bool(worker.prove(plan, say, worker.Place(rank, int(os.environ["WORLD_SIZE"]))))


def end_with(parent: int) -> None:
    """Die when the parent does, also when it had died already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def descriptor(parent: int, variable: str) -> str:
    """A file that the parent has open."""
    return "/proc/%d/fd/%s" % (parent, os.environ[variable])


def load_package() -> str:
    """The name under which this folder is a package from now on."""
    name, folder = "gpudoctor_smoke", os.path.dirname(os.path.abspath(__file__))
    spec = importlib.util.spec_from_file_location(name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])
    sys.dont_write_bytecode = True  # nothing is written beside it
    if spec is None or spec.loader is None:
        raise ImportError("no package in " + folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return name


if __name__ == "__main__":
    main()
