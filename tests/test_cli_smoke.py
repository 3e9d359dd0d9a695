"""``gpudoctor smoke`` and ``check --no-smoke`` as a person meets them, without a PyTorch. The CLI runs as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def run(*arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpudoctor", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(env or {})}, cwd=cwd, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that says that it was started."""
    folder = tmp_path_factory.mktemp("marked")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\ntouch {folder}/started\nexec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return python


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python without PyTorch: this one, without its packages."""
    python = tmp_path_factory.mktemp("bare") / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return python


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--ckpt", "/nonexistent/llama"], "/nonexistent/llama"),
        (["--ckpt", "./llama-2-7b"], "./llama-2-7b"),
        (["--ckpt", "."], "--ckpt"),
        (["--ckpt", "llama-2-7bb"], "llama-2-7b"),
        (["--ckpt", ""], "--ckpt"),
        (["--real-weights"], "--real-weights"),
        (["llama-2-7b"], "named with --ckpt"),
        (["--cpkt", "llama-2-7b"], "(see gpudoctor smoke --help)"),
        (["--device", "tpu"], "cuda"),
        (["--dtype", "int3"], "fp32"),
        (["--temperature", "-1"], "--temperature"),
        (["--temperature", "nan"], "--temperature"),
        (["--top-p", "1.5"], "--top-p"),
        (["--max-new-tokens", "-1"], "--max-new-tokens"),
        (["--max-new-tokens", "many"], "--max-new-tokens"),
        (["--nproc", "0"], "--nproc"),
        (["--ckpt", "llama-2-7b", "--nproc", "3"], "--nproc"),
        (["--deadline", "0"], "--deadline"),
        (["--deadline", "nan"], "--deadline"),
        (["--format", "yaml"], "--format"),
        (["--output", "/nonexistent/report"], "--output"),
        (["llama-2-7b"], "llama-2-7b"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_before_any_python_is_started(
    arguments: list[str], says: str, marked: Path, tmp_path: Path
) -> None:
    result = run("smoke", *arguments, "--python", str(marked), cwd=tmp_path, env={"HF_HOME": str(tmp_path)})
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("gpudoctor: ")
    assert says in result.stderr
    assert not (marked.parent / "started").exists()


def test_help_has_an_example_and_every_exit_code() -> None:
    text = " ".join(run("smoke", "--help").stdout.split())
    assert "Example: gpudoctor smoke --ckpt llama-2-7b" in text
    for code in ("0 passed", "1 a fault", "2 wrong usage", "3 undetermined"):
        assert code in text


def test_without_pytorch_the_root_cause_is_told_with_the_way_to_the_rest(bare: Path) -> None:
    result = run("smoke", "--python", str(bare))
    assert result.returncode == 1, result.stderr
    text = " ".join(result.stdout.split())
    assert "torch-not-installed" in text
    assert "gpudoctor check shows all layers." in text
    assert "stories15M" in text.splitlines()[0]


def test_there_is_one_json_document_also_on_failure(bare: Path, tmp_path: Path) -> None:
    target = tmp_path / "smoke.json"
    result = run("smoke", "--python", str(bare), "--format", "json", "--output", str(target), "--ckpt", "llama-2-7b", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    document = json.loads(target.read_text(encoding="utf-8"))
    assert (document["schema"], document["status"]) == ("gpudoctor.smoke/1", "fail")
    assert document["checkpoint"] == {"name": "llama-2-7b", "format": "none", "parameters": 6738415616, "weights": "random"}
    assert document["root_causes"]


def test_warnings_that_are_errors_are_those_of_the_users_programs(bare: Path) -> None:
    result = run("smoke", "--python", str(bare), env={"PYTHONWARNINGS": "error"})
    assert (result.returncode, result.stderr) == (1, "")


def test_where_no_thread_can_be_started_one_line_says_so(bare: Path) -> None:
    limited = 'ulimit -s 8388608; ulimit -v 1000000; exec "$@"'  # stacks of 8 GiB in 1 GB
    command = ["/bin/bash", "-c", limited, "-", sys.executable, "-m", "gpudoctor", "smoke", "--python", str(bare)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, len(result.stderr.splitlines())) == (3, 1), result.stderr
    assert "ulimit" in result.stderr


def test_every_format_is_plain_text(bare: Path) -> None:
    for name in ("markdown", "junit", "github", "prometheus"):
        result = run("smoke", "--python", str(bare), "--format", name, env={"GITHUB_OUTPUT": "", "GITHUB_STEP_SUMMARY": ""})
        assert (result.returncode, result.stderr) == (1, "")
        assert "torch-not-installed" in result.stdout
        assert "\x1b" not in result.stdout


def test_a_gpu_that_was_asked_for_is_a_fault_where_there_is_none(bare: Path) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    result = run("smoke", "--python", str(bare), "--device", "cuda", "--format", "json")
    assert result.returncode == 1
    assert "no-nvidia-gpu" in json.loads(result.stdout)["root_causes"]


@pytest.mark.parametrize("options", [["--no-smoke"], ["--no-import"]], ids=["no smoke", "no import"])
def test_check_leaves_the_smoke_test_out_when_told_to(options: list[str], bare: Path, tmp_path: Path) -> None:
    result = run("check", "--root", str(tmp_path), "--python", str(bare), *options, "--format", "json")
    assert set(json.loads(result.stdout)["facts"]["smoke"]) == {"reason"}


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_ctrl_c_ends_it_and_its_children_within_a_second(ending: signal.Signals, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $$ >> {marker}\nexec sleep 300\n", encoding="utf-8")
    python.chmod(0o755)
    command = [sys.executable, "-m", "gpudoctor", "smoke", "--python", str(python)]
    doctor = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    waited = time.monotonic() + 20
    while not (marker.exists() and marker.read_text().strip()) and time.monotonic() < waited:
        time.sleep(0.05)
    sent = time.monotonic()
    doctor.send_signal(ending)
    _, errors = doctor.communicate(timeout=10)
    assert time.monotonic() - sent < 3, "a second, and what a busy machine adds"
    assert doctor.returncode == -ending
    assert b"Traceback" not in errors
    for pid in marker.read_text().split():
        assert not Path(f"/proc/{pid}").exists() or b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes()
