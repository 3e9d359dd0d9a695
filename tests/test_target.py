from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpudoctor.probes import target
from tests.trees import install, make_environment, site_packages

NO_PYTHON = {"PATH": "/nowhere"}


def test_the_option_comes_first(tmp_path: Path) -> None:
    asked, active = make_environment(tmp_path / "asked"), make_environment(tmp_path / "active")
    environ = {"VIRTUAL_ENV": str(active.parent.parent), **NO_PYTHON}
    assert target.choose(environ, str(asked), "/usr/bin/python3") == (str(asked), "--python")


def test_a_folder_stands_for_its_python(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "llama")
    assert target.choose(NO_PYTHON, str(tmp_path / "llama"), "own") == (str(python), "--python")


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_the_active_environment_comes_next(tmp_path: Path, variable: str) -> None:
    python = make_environment(tmp_path / "llama")
    assert target.choose({variable: str(tmp_path / "llama"), **NO_PYTHON}, None, "own") == (str(python), variable)


def test_virtual_env_comes_before_conda(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "llama")
    make_environment(tmp_path / "base")
    environ = {"VIRTUAL_ENV": str(tmp_path / "llama"), "CONDA_PREFIX": str(tmp_path / "base"), **NO_PYTHON}
    assert target.choose(environ, None, "own") == (str(python), "VIRTUAL_ENV")


def test_an_active_environment_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    assert target.choose({"VIRTUAL_ENV": str(tmp_path / "gone"), **NO_PYTHON}, None, "own") == ("own", "own")


def test_own_comes_before_path_only_with_torch(tmp_path: Path) -> None:
    own, other = make_environment(tmp_path / "own"), make_environment(tmp_path / "other")
    environ = {"PATH": str(other.parent)}
    assert target.choose(environ, None, str(own)) == (str(other.parent / "python3"), "PATH")
    install("torch-2.13.0-cpu", site_packages(own))
    assert target.choose(environ, None, str(own)) == (str(own), "own")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "llama")
    chosen, _ = target.choose(NO_PYTHON, str(python), "own")
    assert chosen != os.path.realpath(python)


def test_a_bare_name_is_looked_for_on_path(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "llama")
    assert target.choose({"PATH": str(python.parent)}, "python3", "own") == (str(python.parent / "python3"), "--python")


def _made(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no program")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    return {
        "missing": str(tmp_path / "nothing"),
        "folder": str(tmp_path / "empty"),
        "text": str(tmp_path / "notes.txt"),
        "dangling": str(tmp_path / "dangling"),
        "name": "no-such-program",
        "empty": "",
    }


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "does not exist"),
        ("folder", "has no bin/python"),
        ("text", "cannot be executed"),
        ("dangling", "a link to a file that is gone"),
        ("name", "nor on PATH"),
        ("empty", "not an empty name"),
    ],
)
def test_what_cannot_be_examined_is_one_line_that_says_what_was_expected(tmp_path: Path, kind: str, words: str) -> None:
    with pytest.raises(target.NotAPython, match=words) as caught:
        target.choose(NO_PYTHON, _made(tmp_path)[kind], "own")
    assert "expected a Python executable or the folder of an environment" in str(caught.value)
    assert "\n" not in str(caught.value)
