"""The interpreter that is examined, as it says of itself, and who owns its environment, from its files."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpudoctor.facts import Interpreter, Unknown
from gpudoctor.probes import child
from gpudoctor.probes.scope import Scope

DEADLINE = 10.0
OLDEST = "3.8"  # torch 2.1, the oldest release that the doctor knows, still has wheels for it
_SCRIPT = Path(__file__).with_name("interpreter_child.py")
_TEXT_LIMIT = 1 << 18
_PYTHON_MARKS = ('File "<string>", line', "Traceback (most recent", "Fatal Python error", "Python path configuration", "Error: ")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the interpreter said beside the facts: its whole search path, and where it would find torch."""

    interpreter: Interpreter
    base_prefix: str
    search: tuple[str, ...]
    """``sys.path`` as the user's own programs see it, their own folder apart."""
    include: str | None
    executable: str
    """The program that runs in the end, behind all links and shims."""
    torch: str | None
    """The folder that ``import torch`` would open; None when it would find none."""


@dataclass(frozen=True, slots=True)
class Silent:
    """It did not answer. ``is_python`` is False when what answered instead is surely no Python."""

    why: str
    is_python: bool


def look(scope: Scope) -> Interpreter | None | Unknown:
    """The interpreter; None when there is none to examine."""
    if scope.python is None:
        return None
    answer = answer_of(scope)
    return Unknown(answer.why) if isinstance(answer, Silent) else answer.interpreter


def of(scope: Scope) -> Interpreter | None | Unknown:
    """As look(), asked once for all the probes that need it."""
    return look(scope)


def answer_of(scope: Scope) -> Answer | Silent:
    """The interpreter's whole answer, asked once."""
    return scope.once("interpreter", lambda: _ask(scope))


def refusal(scope: Scope) -> str | None:
    """One line when what was chosen is surely no Python that can run; None otherwise, also when nothing certain can be said."""
    if scope.python is None:
        return None
    answer = answer_of(scope)
    return answer.why if isinstance(answer, Silent) and not answer.is_python else None


def here(scope: Scope) -> Scope:
    """The same scope without ``--root``: the interpreter and its files are always the live machine's."""
    return scope if scope.live else dataclasses.replace(scope, root=Path("/"))


def environment(scope: Scope) -> dict[str, str]:
    """The user's environment for a child of their interpreter. It leaves no bytecode behind: the doctor only reads."""
    return {**scope.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}


def _ask(scope: Scope) -> Answer | Silent:
    if scope.python is None:
        return Silent("there is no Python on PATH", True)
    command = [scope.python, "-c", _SCRIPT.read_text(encoding="utf-8")]
    deadline = scope.within(DEADLINE)
    try:
        answer = child.run(command, deadline=deadline, env=environment(scope), report=True)
    except child.NotStarted as error:
        return Silent(f"expected a Python that can be run; {error}", False)
    said = _object(answer.report)
    if said is None:
        return _silence(scope.python, answer, deadline)
    return _read(said, scope)


def _silence(python: str, answer: child.Answer, deadline: float) -> Silent:
    """Why there is no report, and whether that was a Python at all."""
    if answer.hung:
        return Silent(f"no answer from {python} within {deadline:g} s", True)
    if answer.signal is not None:
        return Silent(f"{python} died of {answer.signal}", True)
    last = next((line.strip() for line in reversed(answer.stderr.splitlines()) if line.strip()), "")
    if last.startswith("SyntaxError"):
        return Silent(f"{python} is too old: Python {OLDEST} or newer was expected", True)
    if any(mark in answer.stderr for mark in _PYTHON_MARKS):
        return Silent(f"{python} could not run: {last}", True)
    ended = f"ended with exit code {answer.exit_code}" + (f" and said: {last[:120]}" if last else "")
    return Silent(f"{python} is no Python: a Python executable was expected, and this {ended}", False)


def _object(text: str) -> Mapping[str, object] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read(said: Mapping[str, object], scope: Scope) -> Answer | Silent:
    """The answer as facts; every value is checked, since it comes from a child that may be anything."""
    version, prefix = _text(said, "version"), _text(said, "prefix")
    if version is None or prefix is None or scope.python is None:
        return Silent(f"{scope.python} gave an answer that makes no sense", True)
    search, library = _texts(said, "path"), set(_texts(said, "stdlib"))
    base = _text(said, "base_prefix") or prefix
    owner = owner_of(prefix, base, _standard_library(said), here(scope))
    return Answer(
        interpreter=Interpreter(
            path=scope.python,
            chosen_by=scope.chosen_by,
            version=version,
            tag=_tag(said, version),
            machine=_text(said, "machine") or os.uname().machine,
            glibc=_glibc(_text(said, "glibc")),
            prefix=prefix,
            site_packages=tuple(place for place in search if place not in library and not place.endswith((".zip", "lib-dynload"))),
            owner=owner,
            has_pip=said.get("has_pip") is True,
            project=project_of(owner, prefix, here(scope)),
        ),
        base_prefix=base,
        search=search,
        include=_text(said, "include"),
        executable=_text(said, "executable") or os.path.realpath(scope.python),
        torch=_text(said, "torch"),
    )


def _tag(said: Mapping[str, object], version: str) -> str:
    """The interpreter's part of a wheel's name: cp310, cp313t, pp310."""
    short = {"cpython": "cp", "pypy": "pp"}.get(_text(said, "implementation") or "cpython", "py")
    major, minor = [*version.split("."), "0"][:2]
    return f"{short}{major}{minor}{'t' if said.get('free_threaded') is True else ''}"


def _standard_library(said: Mapping[str, object]) -> str:
    return next(iter(_texts(said, "stdlib")), "")


def _glibc(text: str | None) -> str | None:
    return text.split()[-1] if text and text.startswith("glibc") else None


def _text(said: Mapping[str, object], key: str) -> str | None:
    value = said.get(key)
    return value if isinstance(value, str) and value else None


def _texts(said: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = said.get(key)
    return tuple(item for item in value if isinstance(item, str) and item) if isinstance(value, list) else ()


# ---------------------------------------------------------------- who owns the environment


def owner_of(prefix: str, base_prefix: str, library: str, scope: Scope) -> str:
    """Who changes packages in the environment at ``prefix``: conda, pixi, uv, poetry, system or pip, from its files.

    ``library`` is the standard library's folder, where PEP 668 puts its marker; it protects the base, not its environments.
    """
    if scope.names(f"{prefix}/conda-meta"):
        pixi = "/.pixi/envs/" in f"{prefix}/" or "pixi" in scope.names(f"{prefix}/conda-meta")
        return "pixi" if pixi else "conda"
    settings = venv_settings(prefix, scope)
    if "/pypoetry/virtualenvs/" in f"{prefix}/" or (settings and _poetry_project(os.path.dirname(prefix), scope)):
        return "poetry"
    if "uv" in settings:
        return "uv"
    if settings or prefix != base_prefix:
        return "pip"
    protected = library and scope.text(f"{library}/EXTERNALLY-MANAGED", _TEXT_LIMIT) is not None
    return "system" if protected or prefix == "/usr" else "pip"


def project_of(owner: str, prefix: str, scope: Scope) -> str | None:
    """The project's folder, where the environment lies inside a project of its owner."""
    marks: tuple[str, ...]
    if owner == "pixi":
        marks, folder = ("pixi.toml", "pyproject.toml", "mojoproject.toml"), prefix.partition("/.pixi/envs/")[0]
    elif owner == "uv":
        marks, folder = ("uv.lock", "pyproject.toml"), os.path.dirname(prefix)
    elif owner == "poetry":
        marks, folder = ("poetry.lock", "pyproject.toml"), os.path.dirname(prefix)
    else:
        return None
    return folder if folder != prefix and any(mark in scope.names(folder) for mark in marks) else None


def venv_settings(prefix: str, scope: Scope) -> dict[str, str]:
    """pyvenv.cfg; empty where there is none."""
    lines = (scope.text(f"{prefix}/pyvenv.cfg", _TEXT_LIMIT) or "").splitlines()
    pairs = (line.partition("=") for line in lines)
    return {key.strip().lower(): value.strip() for key, equals, value in pairs if equals}


def _poetry_project(folder: str, scope: Scope) -> bool:
    names = scope.names(folder)
    if "poetry.lock" in names:
        return True
    return "pyproject.toml" in names and "[tool.poetry]" in (scope.text(f"{folder}/pyproject.toml", _TEXT_LIMIT) or "")
