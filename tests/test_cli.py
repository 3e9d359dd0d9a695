"""The command line as a person meets it: bad input, help, pipes, Ctrl-C. The CLI runs as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gpudoctor


def run(*arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **(env or {})}
    command = [sys.executable, "-m", "gpudoctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=cwd, timeout=120, check=False)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root without anything in it."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def report(bare: Path) -> str:
    return run("check", "--root", str(bare), "--no-import", "--format", "json").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "--python", "/nonexistent/python"], "--python"),
        (["check", "--python", "/etc/hostname"], "--python"),
        (["check", "--python", "/bin/true"], "--python"),
        (["check", "--python", "/etc"], "--python"),
        (["check", "--root", "/nonexistent"], "--root"),
        (["check", "--root", "/etc/hostname"], "--root"),
        (["check", "--require", "warp-drive"], "cuda_toolkit"),
        (["check", "--deadline", "0"], "--deadline"),
        (["check", "--deadline", "soon"], "--deadline"),
        (["check", "--format", "yaml"], "--format"),
        (["check", "--from", "/nonexistent.json"], "--from"),
        (["check", "--from", "/etc/hostname"], "--from"),
        (["check", "--output", "/nonexistent/report"], "--output"),
        (["check", "--output", "/etc"], "--output"),
        (["check", "--colour"], "--colour"),
        (["chekc"], "chekc"),
        (["explain", "torch-cpu-only-bild"], "torch-cpu-only-build"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_that_says_what_was_expected(arguments: list[str], says: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("gpudoctor: ")
    assert says in result.stderr


@pytest.mark.parametrize("text", ["", "{", '{"schema": "gpudoctor.smoke/1"}', "[]", '{"schema": "gpudoctor.report/1"}', "\x00\xff"])
def test_a_file_that_is_no_report_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(text.encode("latin-1"))
    result = run("check", "--from", str(file))
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)


def test_a_report_that_is_cut_short_is_refused(report: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(report[: len(report) // 2])
    result = run("check", "--from", str(file))
    assert result.returncode == 2
    assert "cut short" in result.stderr


def test_a_report_with_a_fact_of_another_type_is_refused_by_name(report: str, tmp_path: Path) -> None:
    document = json.loads(report)
    document["facts"]["variables"] = [["CUDA_HOME", 7]]
    file = tmp_path / "report.json"
    file.write_text(json.dumps(document))
    result = run("check", "--from", str(file))
    assert result.returncode == 2
    assert "variables[0][1]" in result.stderr


def test_help_has_an_example_and_every_exit_code() -> None:
    text = run("check", "--help").stdout
    assert "Example: gpudoctor check" in text
    for code in ("0 healthy", "1 a fault", "2 wrong usage", "3 no fault"):
        assert code in " ".join(text.split())


def test_no_colour_and_no_control_characters_when_piped(bare: Path) -> None:
    for output_format in ("text", "markdown", "junit", "github", "prometheus", "json"):
        unset = {"GITHUB_OUTPUT": "", "GITHUB_STEP_SUMMARY": ""}
        result = run("check", "--root", str(bare), "--no-import", "--format", output_format, env=unset)
        assert result.stdout
        assert "\x1b" not in result.stdout
        assert result.stderr == ""


def test_a_terminal_without_unicode_gets_ascii(bare: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "gpudoctor", "check", "--root", str(bare), "--no-import"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        timeout=60,
        check=False,
    )
    assert result.stderr == b""
    assert result.stdout.isascii()


def test_the_output_file_gets_the_report_and_stdout_nothing(bare: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    result = run("check", "--root", str(bare), "--no-import", "--format", "json", "--output", str(target))
    assert result.stdout == ""
    assert json.loads(target.read_text())["schema"] == "gpudoctor.report/1"


def test_a_reader_that_goes_away_is_no_error(bare: Path) -> None:
    command = f"{sys.executable} -m gpudoctor check --root {bare} --no-import --format json | head -c 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("{", "")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_ctrl_c_ends_the_run_and_its_children(ending: signal.Signals, tmp_path: Path) -> None:
    """A target interpreter that sleeps for ever: after Ctrl-C neither we nor it are there."""
    marker = tmp_path / "pid"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $$ >> {marker}\nexec sleep 300\n")
    python.chmod(0o755)
    command = [sys.executable, "-m", "gpudoctor", "check", "--python", str(python)]
    doctor = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    waited = time.monotonic() + 20
    while not (marker.exists() and marker.read_text().strip()) and time.monotonic() < waited:
        time.sleep(0.05)
    doctor.send_signal(ending)
    _, errors = doctor.communicate(timeout=10)
    assert doctor.returncode == -ending
    assert b"Traceback" not in errors
    time.sleep(0.2)
    for pid in marker.read_text().split():
        assert not Path(f"/proc/{pid}").exists() or b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_section_that_a_report_names_can_be_read() -> None:
    text = run("explain", "pytorch#cuda-build-with-pip").stdout
    assert text.startswith("pytorch#cuda-build-with-pip")
    assert "-m pip install" in text


def test_a_code_is_explained_with_every_cure() -> None:
    text = run("explain", "torch-cpu-only-build").stdout
    assert "Torch not compiled with CUDA enabled" in " ".join(text.split())
    assert "pytorch#cuda-build-with-uv" in text


def test_the_version() -> None:
    assert run("--version").stdout == f"gpudoctor {gpudoctor.__version__}\n"
