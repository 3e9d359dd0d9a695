"""Runs in the examined interpreter: says what it is, as one JSON object on the report pipe.

The first statements run on any Python since 2.6, so that an interpreter which is too old can say so.
"""

import sys

sys.path[:] = [entry for entry in sys.path if entry]  # a json.py in the current folder is not meant

import json  # noqa: E402 - see above
import os  # noqa: E402


def _spec_folder(name):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - annotations would not run on Python 2
    """Where ``import name`` would find a package, without importing it."""
    try:
        from importlib.util import find_spec  # noqa: PLC0415 - absent before 3.4

        spec = find_spec(name)
    except Exception:  # noqa: BLE001 - a broken finder in the user's environment is no reason to say nothing
        return None
    if spec is None:
        return None
    return list(spec.submodule_search_locations or [spec.origin])[0]  # noqa: RUF015 - next() on a namespace path is no better


def _facts():  # type: ignore[no-untyped-def]  # noqa: ANN202 - see above
    """What this interpreter is."""
    import sysconfig  # noqa: PLC0415 - absent before 2.7

    paths = sysconfig.get_paths()
    library = paths.get("stdlib") or ""
    try:
        glibc = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError, AttributeError):
        glibc = None
    return {
        "version": "%d.%d.%d" % tuple(sys.version_info[:3]),
        "level": sys.version_info[3],
        "implementation": getattr(getattr(sys, "implementation", None), "name", "cpython"),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "machine": os.uname()[4],
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "glibc": glibc,
        "prefix": sys.prefix,
        "base_prefix": getattr(sys, "base_prefix", sys.prefix),
        "path": sys.path,
        "stdlib": [library, paths.get("platstdlib") or "", os.path.join(library, "lib-dynload")],
        "executable": os.path.realpath("/proc/self/exe"),
        "include": paths.get("include"),
        "has_pip": _spec_folder("pip") is not None,
        "torch": _spec_folder("torch"),
    }


os.write(int(os.environ["GPUDOCTOR_REPORT_FD"]), json.dumps(_facts()).encode("ascii"))
