"""The other Python environments of this machine, with the PyTorch in each: what makes "the wrong interpreter" sayable.

Nothing is run and nothing imported: an environment is known by its files, its PyTorch by version.py or its metadata. The search is
bounded by time and by count; it looks where tools put environments, not everywhere.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gpudoctor.facts import Environment, Unknown
from gpudoctor.probes import interpreter, links, torch_files
from gpudoctor.probes.scope import Scope

SECONDS = 2.0
MOST = 200
_TEXT_LIMIT = 1 << 18
_CONDA_ROOTS = ("miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba", ".conda")
_NOTHING = ("", "", "")
"""A candidate that is none: said for each place without an environment, so that the caller can look at its clock."""
_KERNELS = ("/usr/share/jupyter/kernels", "/usr/local/share/jupyter/kernels")


def look(scope: Scope, *, clock: Callable[[], float] = time.monotonic) -> tuple[Environment, ...] | Unknown:
    """Every environment but the target's, in the order in which they are looked for; at most MOST, for at most SECONDS."""
    until = clock() + scope.within(SECONDS)
    seen = {(False, place) for place in _own_places(scope)}
    seen |= {(True, place) for _, place in tuple(seen)}
    found: list[Environment] = []
    for kind, name, python in _candidates(scope):
        if clock() > until or len(found) >= MOST:
            break
        if not python or not _is_there(scope, python):
            continue
        folder = _folder(scope, python)
        key = (kind == "jupyter", folder)
        if key in seen:
            continue
        seen.add(key)
        found.append(_environment(scope, kind, name, python))
    return tuple(found)


def _environment(scope: Scope, kind: str, name: str, python: str) -> Environment:
    version, cuda = _torch(scope, python)
    return Environment(python=python, kind=kind, name=name, torch=version, torch_cuda=cuda)


def _own_places(scope: Scope) -> set[str]:
    """The folder of the target's environment, as this scope names it."""
    if scope.python is None:
        return set()
    return {_folder(scope, _inside(scope, scope.python))}


def _candidates(scope: Scope) -> Iterator[tuple[str, str, str]]:
    """(kind, name, python) of whatever may be an environment; duplicates and what is not there come too."""
    home, here = _home(scope), _current(scope)
    yield from _kernels(scope, home)
    yield from _virtual(scope, here)
    yield from _conda(scope, home)
    yield from _collections(scope, home)
    yield from _projects(scope, home)
    yield from _system(scope)


def _kernels(scope: Scope, home: str) -> Iterator[tuple[str, str, str]]:
    """Jupyter's kernels: the program that each one starts."""
    prefix = [f"{os.path.dirname(os.path.dirname(_inside(scope, scope.python)))}/share/jupyter/kernels"] if scope.python else []
    for folder in (f"{home}/.local/share/jupyter/kernels", *_KERNELS, *prefix):
        for name in scope.names(folder):
            try:
                kernel = json.loads(scope.text(f"{folder}/{name}/kernel.json", _TEXT_LIMIT) or "null")
                program = kernel["argv"][0]
            except (ValueError, KeyError, IndexError, TypeError, RecursionError):
                yield _NOTHING
                continue
            if isinstance(program, str) and program.startswith("/"):
                yield "jupyter", name, _inside(scope, program)


def _virtual(scope: Scope, here: str) -> Iterator[tuple[str, str, str]]:
    """Environments in the current folder, beside it, and in what lies beside it."""
    yield from _below(scope, here)
    above = os.path.dirname(here)
    if above not in ("", "/", "/tmp", "/var/tmp"):  # noqa: S108 - what lies there beside this folder is somebody else's
        for name in scope.names(above):
            yield from _venv(scope, f"{above}/{name}")
            yield from _below(scope, f"{above}/{name}", only=(".venv", "venv", "env"))
    for name in scope.names(f"{here}/.pixi/envs"):
        yield "pixi", name, f"{here}/.pixi/envs/{name}/bin/python"


def _projects(scope: Scope, home: str) -> Iterator[tuple[str, str, str]]:
    """Environments in the home folder, and in the folders there."""
    for name in scope.names(home):
        folder = f"{home}/{name}"
        yield from _venv(scope, folder)
        if not name.startswith("."):
            yield from _below(scope, folder)
            for inner in scope.names(f"{folder}/.pixi/envs"):
                yield "pixi", f"{name}/{inner}", f"{folder}/.pixi/envs/{inner}/bin/python"


def _below(scope: Scope, folder: str, *, only: tuple[str, ...] = ()) -> Iterator[tuple[str, str, str]]:
    for name in only or scope.names(folder):
        yield from _venv(scope, f"{folder}/{name}")


def _venv(scope: Scope, folder: str) -> Iterator[tuple[str, str, str]]:
    """The virtual environment in a folder, if it is one; named by its project where its own name says nothing."""
    settings = interpreter.venv_settings(folder, scope)
    if not settings:
        yield _NOTHING
        return
    name = os.path.basename(folder)
    if name in (".venv", "venv", "env"):
        name = f"{os.path.basename(os.path.dirname(folder))}/{name}"
    owner = interpreter.owner_of(folder, "", "", scope)
    yield owner if owner in ("uv", "poetry", "conda", "pixi") else "venv", name, f"{folder}/bin/python"


def _conda(scope: Scope, home: str) -> Iterator[tuple[str, str, str]]:
    """The environments that conda has noted, and those below its usual folders."""
    for line in (scope.text(f"{home}/.conda/environments.txt", _TEXT_LIMIT) or "").splitlines():
        if line.startswith("/"):
            folder = _inside(scope, line.strip())
            yield "conda", os.path.basename(folder), f"{folder}/bin/python"
    for root in (*(f"{home}/{name}" for name in _CONDA_ROOTS), "/opt/conda", "/opt/miniconda3", "/opt/miniforge3"):
        if "conda-meta" in scope.names(root):
            yield "conda", "base", f"{root}/bin/python"
        for name in scope.names(f"{root}/envs"):
            yield "conda", name, f"{root}/envs/{name}/bin/python"


def _collections(scope: Scope, home: str) -> Iterator[tuple[str, str, str]]:
    """Folders in which a tool keeps environments."""
    for kind, folder in (
        ("venv", ".virtualenvs"),
        ("venv", "venvs"),
        ("venv", ".local/share/virtualenvs"),
        ("poetry", ".cache/pypoetry/virtualenvs"),
        ("pixi", ".pixi/envs"),
        ("uv", ".local/share/uv/tools"),
        ("uv", ".local/share/uv/python"),
        ("venv", ".local/share/pipx/venvs"),
        ("system", ".pyenv/versions"),
    ):
        for name in scope.names(f"{home}/{folder}"):
            python = f"{home}/{folder}/{name}/bin/python"
            yield kind, name, python if _is_there(scope, python) else python + "3"


def _system(scope: Scope) -> Iterator[tuple[str, str, str]]:
    """The first python3 on PATH, and the distribution's."""
    for folder in scope.environ.get("PATH", os.defpath).split(":"):
        python = f"{_inside(scope, folder)}/python3"
        if folder.startswith("/") and _is_there(scope, python):
            if scope.data(python, 4) not in (None, b"\x7fELF"):
                continue  # a shim: which Python it runs only running it would tell
            yield "system", "python3 on PATH", python
            break
    yield "system", "the distribution's", "/usr/bin/python3"


# ---------------------------------------------------------------- one environment


def _torch(scope: Scope, python: str) -> tuple[str | None, str | None]:
    """(version, CUDA) of the PyTorch that lies in the environment; (None, None) where there is none."""
    for place in _places(scope, python):
        stated = torch_files.version_file(Path(place, "torch"), scope)
        if stated.version is not None:
            return stated.version, stated.cuda
        for entry in scope.names(place):
            match = re.match(r"torch-(\d[^-]*)(?:-[^-]+)?\.(?:dist|egg)-info$", entry)
            if match:
                return match[1], None
    return None, None


def _places(scope: Scope, python: str) -> Iterator[str]:
    """The site-packages folders of an environment; for the distribution's Python also Debian's and the user's own."""
    folder = _folder(scope, python)
    for name in scope.names(f"{folder}/lib"):
        if re.fullmatch(r"python3\.\d+t?", name):
            yield f"{folder}/lib/{name}/site-packages"
    if folder != "/usr":
        return
    version = re.search(r"python3\.\d+", os.path.basename(os.path.realpath(scope.path(python))))
    if version:
        yield f"{_home(scope)}/.local/lib/{version[0]}/site-packages"
        yield f"/usr/local/lib/{version[0]}/dist-packages"
    yield "/usr/lib/python3/dist-packages"


def _folder(scope: Scope, python: str) -> str:
    """The environment's folder: above bin for a virtual one, else above the bin of the file behind all links."""
    folder = os.path.dirname(os.path.dirname(python))
    if scope.text(f"{folder}/pyvenv.cfg", _TEXT_LIMIT) is None and "conda-meta" not in scope.names(folder):
        folder = os.path.dirname(os.path.dirname(_inside(scope, os.path.realpath(scope.path(python)))))
    return _inside(scope, os.path.realpath(scope.path(folder)))


def _is_there(scope: Scope, python: str) -> bool:
    # below a root an absolute link may lead out of it
    return links.is_file(scope, python) or os.path.islink(scope.path(python))


def _home(scope: Scope) -> str:
    return _inside(scope, scope.environ.get("HOME", "") or "/root").rstrip("/") or "/root"


def _current(scope: Scope) -> str:
    try:
        return _inside(scope, os.getcwd())
    except OSError:  # the folder has been removed
        return "/"


def _inside(scope: Scope, path: str | None) -> str:
    """A path of ours as the machine below ``--root`` names it."""
    root = str(scope.root).rstrip("/")
    text = path or ""
    return text[len(root) :] if root and text.startswith(root + "/") else text
