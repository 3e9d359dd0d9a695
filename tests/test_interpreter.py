from __future__ import annotations

import platform
import stat
import sys
from pathlib import Path

import pytest

from gpudoctor.facts import Interpreter, Unknown
from gpudoctor.probes import interpreter
from gpudoctor.probes.scope import Scope
from tests.trees import make_environment, site_packages

ENVIRON = {"PATH": "/usr/bin:/bin"}


def _scope(python: Path | str | None, *, cap: float | None = None, **environ: str) -> Scope:
    path = None if python is None else str(python)
    return Scope(root=Path("/"), environ={**ENVIRON, **environ}, python=path, chosen_by="--python", cap=cap)


def _looked(python: Path, pythonpath: str = "") -> Interpreter:
    found = interpreter.look(_scope(python, PYTHONPATH=pythonpath))
    assert isinstance(found, Interpreter)
    return found


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_an_environment_says_what_it_is(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "llama")
    found = _looked(python)
    assert found.path == str(python)
    assert found.version == platform.python_version()
    assert found.tag == f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert found.machine == platform.machine()
    assert found.prefix == str(tmp_path / "llama")
    assert found.site_packages == (str(site_packages(python)),)
    assert (found.owner, found.has_pip, found.project, found.chosen_by) == ("pip", True, None, "--python")


def test_pythonpath_is_seen_as_the_users_programs_see_it(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "llama")
    (tmp_path / "extra").mkdir()
    assert _looked(python, str(tmp_path / "extra")).site_packages[0] == str(tmp_path / "extra")


def test_modules_in_the_current_folder_do_not_shadow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "os", "sysconfig", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    answer = interpreter.answer_of(_scope(make_environment(tmp_path / "llama")))
    assert isinstance(answer, interpreter.Answer)
    assert answer.torch is None


def test_looking_leaves_no_bytecode(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "llama")
    (site_packages(python) / "sitecustomize.py").write_text("import helper_module\n")
    (site_packages(python) / "helper_module.py").write_text("")
    _looked(python)
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("owner", "folder", "project"),
    [
        ("pip", "env", None),
        ("conda", "env", None),
        ("system", "env", None),
        ("uv", "proj/.venv", "proj"),
        ("uv", "elsewhere", None),
        ("pixi", "proj/.pixi/envs/default", "proj"),
        ("poetry", "proj/.venv", "proj"),
        ("poetry", ".cache/pypoetry/virtualenvs/llama-x1-py3.11", None),
    ],
    ids=str,
)
def test_the_owner_is_known_from_files(tmp_path: Path, owner: str, folder: str, project: str | None) -> None:
    found = _looked(make_environment(tmp_path / folder, owner=owner))
    assert (found.owner, found.project) == (owner, None if project is None else str(tmp_path / project))
    assert found.has_pip == (owner in ("pip", "conda", "system"))


def test_it_is_asked_once(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    python = _script(tmp_path / "python", f'echo x >> {asked}; exec {sys.executable} "$@"')
    scope = _scope(python)
    assert interpreter.of(scope) == interpreter.of(scope)
    assert asked.read_text() == "x\n"


def test_no_python_at_all_is_none() -> None:
    assert interpreter.look(_scope(None)) is None


@pytest.mark.parametrize("program", ["/bin/true", "/bin/cat", "/bin/sh"])
def test_a_program_that_is_no_python_is_refused(program: str) -> None:
    scope = _scope(program)
    refusal = interpreter.refusal(scope)
    assert refusal is not None
    assert "is no Python: a Python executable was expected" in refusal
    assert "\n" not in refusal
    assert isinstance(interpreter.look(scope), Unknown)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sleep 30", "no answer"),
        ("echo 'SyntaxError: future feature annotations is not defined' >&2; exit 1", "Python 3.8 or newer was expected"),
        ("kill -SEGV $$", "died of SIGSEGV"),
        ('echo "Fatal Python error: init_fs_encoding: failed" >&2; exit 1', "could not run: Fatal Python error"),
        ("printf '{\"version\": 3}' >&$GPUDOCTOR_REPORT_FD", "makes no sense"),
        ("head -c 100000 /dev/urandom >&$GPUDOCTOR_REPORT_FD; echo 'Traceback (most recent call last)' >&2", "could not run"),
    ],
    ids=["hangs", "old", "crashes", "broken", "nonsense", "garbage"],
)
def test_a_python_that_does_not_answer_is_unknown_and_not_refused(tmp_path: Path, text: str, words: str) -> None:
    scope = _scope(_script(tmp_path / "python", text), cap=1.0)
    found = interpreter.look(scope)
    assert isinstance(found, Unknown)
    assert words in found.why
    assert interpreter.refusal(scope) is None


def test_a_file_that_cannot_be_started_is_unknown(tmp_path: Path) -> None:
    found = interpreter.look(_scope(tmp_path / "gone"))
    assert isinstance(found, Unknown)
    assert "No such file" in found.why
