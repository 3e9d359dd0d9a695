"""Runs in the examined interpreter: says what it is, as one JSON object on the report pipe. Python 3.8, standard library only."""

from __future__ import annotations

import sys

sys.path[:] = [entry for entry in sys.path if entry]  # a json.py in the current folder is not meant

import json  # noqa: E402 - see above
import os  # noqa: E402
import sysconfig  # noqa: E402
from importlib.util import find_spec  # noqa: E402


def _spec_folder(name: str) -> str | None:
    """Where ``import name`` would find a package, without importing it."""
    try:
        spec = find_spec(name)
    except Exception:  # noqa: BLE001 - a broken finder in the user's environment is no reason to say nothing
        return None
    if spec is None:
        return None
    return next(iter(spec.submodule_search_locations or ()), spec.origin)


def _glibc() -> str | None:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):  # another C library
        return None


def _facts() -> dict[str, object]:
    """What this interpreter is."""
    paths = sysconfig.get_paths()
    return {
        "version": ".".join(str(part) for part in sys.version_info[:3]),
        "implementation": sys.implementation.name,
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "machine": os.uname().machine,
        "glibc": _glibc(),
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "path": sys.path,
        # an environment's platstdlib lies in the environment, its lib-dynload does not
        "stdlib": [paths["stdlib"], paths["platstdlib"], os.path.join(paths["stdlib"], "lib-dynload")],
        "executable": os.path.realpath("/proc/self/exe"),
        "include": paths["include"],
        "has_pip": _spec_folder("pip") is not None,
        "torch": _spec_folder("torch"),
    }


os.write(int(os.environ["GPUDOCTOR_REPORT_FD"]), json.dumps(_facts()).encode("ascii"))
