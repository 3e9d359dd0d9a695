"""Which interpreter is examined: the one whose PyTorch the user means."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


class NotAPython(ValueError):
    """What ``--python`` names cannot be examined; the message is one line and says what was expected."""


def choose(environ: Mapping[str, str], option: str | None, own: str) -> tuple[str, str]:
    """(the interpreter, what chose it): --python, VIRTUAL_ENV, CONDA_PREFIX, own if torch is beside it, PATH, own.

    ``own`` is the interpreter that runs the doctor. A link is never followed: a virtual environment's ``bin/python`` is a link to
    an interpreter that knows nothing of that environment. Raises NotAPython for an ``option`` that cannot be run.
    """
    if option is not None:
        return _named(option, environ), "--python"
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        python = _inside(environ.get(variable, ""))
        if python is not None:
            return python, variable
    if has_torch(own):
        return own, "own"
    found = shutil.which("python3", path=environ.get("PATH", os.defpath))
    return (found, "PATH") if found is not None else (own, "own")


def guess(environ: Mapping[str, str], option: str | None) -> tuple[str, str]:
    """What choose() would probably say, without a look at any file: where looking takes for ever."""
    if option is not None:
        return option, "--python"
    named = ((f"{environ[name]}/bin/python", name) for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if environ.get(name))
    return next(named, ("python3", "PATH"))


def has_torch(python: str) -> bool:
    """Whether a torch lies in the site-packages of that interpreter's own prefix (its files; nothing is run)."""
    prefix = Path(python).parent.parent
    try:
        return any(prefix.glob("lib/python3*/site-packages/torch/version.py"))
    except OSError:
        return False


def _named(option: str, environ: Mapping[str, str]) -> str:
    path = os.path.expanduser(option)
    expected = "expected a Python executable or the folder of an environment"
    if not option:
        raise NotAPython(f"{expected}, not an empty name")
    if os.path.isdir(path):
        python = _inside(path)
        if python is None:
            raise NotAPython(f"{expected}; {option} has no bin/python that can be run")
        return python
    if "/" not in option and not os.path.exists(path):
        found = shutil.which(option, path=environ.get("PATH", os.defpath))
        if found is None:
            raise NotAPython(f"{expected}; there is no {option} here, nor on PATH")
        return found
    try:
        os.stat(path)
    except PermissionError as error:
        raise NotAPython(f"{expected}; {option} may not be looked at by this user") from error
    except (OSError, ValueError) as error:
        broken = " (a link to a file that is gone)" if os.path.islink(path) else ""
        raise NotAPython(f"{expected}; {option} does not exist{broken}") from error
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):
        raise NotAPython(f"{expected}; {option} cannot be executed")
    return os.path.abspath(path)


def _inside(folder: str) -> str | None:
    """The interpreter of an environment's folder."""
    for name in ("python", "python3"):
        path = os.path.join(os.path.abspath(folder), "bin", name) if folder else ""
        if path and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None
