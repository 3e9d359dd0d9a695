from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from gpudoctor.facts import Unknown
from gpudoctor.probes import build_tools
from gpudoctor.probes.scope import Scope


def scope(path: str, *, python: str | None = sys.executable, cap: float | None = None, **variables: str) -> Scope:
    return Scope(Path("/"), {"PATH": path, **variables}, python, "--python", cap)


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return folder / name


@pytest.mark.skipif(shutil.which("gcc") is None, reason="this machine has no gcc")
def test_the_gcc_of_this_machine() -> None:
    found = build_tools.look(scope(os.environ["PATH"]))
    assert found.gcc == shutil.which("gcc")
    assert isinstance(found.gcc_version, str)
    assert found.gcc_version.count(".") == 2


def test_python_h_is_where_the_interpreter_says() -> None:
    expected = Path(sysconfig.get_paths()["include"], "Python.h").exists()
    assert build_tools.look(scope(os.environ["PATH"])).python_header is expected


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("gcc (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0", "11.4.0"),
        ("gcc-13 (Ubuntu 13.1.0-8ubuntu1~22.04) 13.1.0", "13.1.0"),
        ("gcc (GCC) 14.2.1 20240912 (Red Hat 14.2.1-3)", "14.2.1"),
    ],
    ids=["ubuntu", "other-major", "fedora"],
)
def test_the_banners_of_distributions(tmp_path: Path, banner: str, version: str) -> None:
    program(tmp_path, "gcc", f"echo '{banner}'")
    assert build_tools.look(scope(str(tmp_path))).gcc_version == version


def test_cc_names_the_compiler(tmp_path: Path) -> None:
    program(tmp_path, "gcc", "echo 'gcc (x) 11.4.0'")
    named = program(tmp_path, "gcc-12", "echo 'gcc-12 (x) 12.3.0'")
    found = build_tools.look(scope(str(tmp_path), CC="gcc-12 -m64"))
    assert (found.gcc, found.gcc_version) == (str(named), "12.3.0")


def test_no_compiler(tmp_path: Path) -> None:
    found = build_tools.look(scope(str(tmp_path)))
    assert (found.gcc, found.gcc_version) == (None, None)


@pytest.mark.parametrize("script", ["sleep 60", "exit 1", "head -c 5000 /dev/urandom"], ids=["hangs", "fails", "noise"])
def test_a_compiler_that_does_not_answer_is_unknown(tmp_path: Path, script: str) -> None:
    program(tmp_path, "gcc", script)
    found = build_tools.look(scope(f"{tmp_path}:/usr/local/no", cap=0.5, CC=str(tmp_path / "gcc")))
    assert found.gcc == str(tmp_path / "gcc")
    assert found.gcc_version is None or isinstance(found.gcc_version, Unknown)


def test_without_an_interpreter_python_h_is_unknown(tmp_path: Path) -> None:
    assert isinstance(build_tools.look(scope(str(tmp_path), python=None)).python_header, Unknown)
