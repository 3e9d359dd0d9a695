"""``gpudoctor fit`` as a person meets it: the real command line as a process, with the fake driver where a card is here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests import fit_schema, sparse
from tests.fake_nvml import environ_for

GIB = 1 << 30
STORY = ("llama-2-7b", "--gpu", "RTX 4070", "--runtime", "meta", "--max-seq-len", "128", "--batch", "4")
HELD = {
    "gpus": [
        {
            "memory": {"total": 12282, "used": 6300, "reserved": 312},
            "processes": [{"pid": os.getpid(), "used_mib": 6240}],
        }
    ]
}


def run(*arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpudoctor", "fit", *arguments]
    environ = {**os.environ, "HF_HUB_CACHE": "/nonexistent", "COLUMNS": "100", **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=cwd, timeout=120, check=False)


def document(*arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    result = run(*arguments, "--format", "json", env=env)
    found: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(found, fit_schema.schema())
    expected = {"fits": 0, "tight": 0, "no": 1, None: 3}[found["verdict"]]
    assert result.returncode == expected, result.stderr
    return found


def test_the_published_schema_is_the_one_that_the_tests_use() -> None:
    assert json.loads(fit_schema.PATH.read_text(encoding="utf-8")) == fit_schema.schema()


# ---------------------------------------------------------------- the story


def test_the_story_is_told_before_the_download() -> None:
    result = run(*STORY)
    assert result.returncode == 1
    assert "does not fit: needs 12.83 GiB and a CUDA context" in result.stdout
    assert "the weights alone are more than the whole card" in " ".join(result.stdout.split())
    for way in ("8-bit", "4-bit", "open_llama_3b", "26 of 32 layers on the GPU", "2 such cards", "a card of 16 GiB"):
        assert way in result.stdout
    assert "\x1b" not in result.stdout  # no colour when piped


def test_no_smaller_batch_is_advised_where_the_weights_alone_are_too_much() -> None:
    found = document(*STORY)
    assert found["verdict"] == "no"
    assert found["need"]["weights"] == 13_476_831_232 > found["free"]
    assert "shorter" not in [option["action"] for option in found["options"]]


@pytest.mark.parametrize("command", [command for option in document(*STORY)["options"] for command in option["commands"]])
def test_the_commands_are_shell(command: str) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)
    if " -c " in command and command.startswith("python3 "):
        script = subprocess.run(
            ["bash", "-c", command.replace("python3", "printf '%s\\n'", 1)], capture_output=True, text=True, check=True
        ).stdout.splitlines()[1]
        compile(script, "the command", "exec")


# ---------------------------------------------------------------- a card that is here


def test_the_memory_that_is_free_now_is_what_counts() -> None:
    found = document("open_llama_3b", env=environ_for(HELD))
    assert found["verdict"] == "no"
    assert found["free"] == (12282 - 6300 - 312) << 20
    assert found["gpu"]["here"] is True
    assert found["gpu"]["held_by"][0]["pid"] == os.getpid()
    first = found["options"][0]
    assert first["action"] == "free-memory"
    assert first["verdict"] == "fits"
    assert any(f"kill {os.getpid()}" in command for command in first["commands"])


def test_a_person_sees_who_holds_the_rest() -> None:
    result = run("open_llama_3b", env=environ_for(HELD))
    assert f"6240 MiB (process {os.getpid()})" in " ".join(result.stdout.split())
    assert "held by others" in result.stdout


def test_without_a_gpu_the_need_is_told_all_the_same(tmp_path: Path) -> None:
    result = run("llama-2-7b", env={**environ_for({"library": "none", "libcuda": None}), "PATH": str(tmp_path)})
    if result.returncode == 3:  # else this machine has one
        assert "needs 12.81 GiB" in result.stdout
        assert "--gpu NAME" in result.stdout


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["hf", "gguf-q4_k_m"])
def test_a_checkpoint_of_13_gb_is_counted_from_its_headers(kind: str, tmp_path: Path) -> None:
    path = sparse.FORMATS[kind](tmp_path, "7b")
    found = document(str(path), "--gpu", "RTX 4070")
    assert found["parameters"] == 6_738_415_616
    assert found["format"] == kind.partition("-")[0]
    assert found["host"]["download"] == 0
    if kind == "hf":
        assert found["need"]["weights"] == sparse.BYTES["hf"](sparse.LLAMA2["7b"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["llama-2-7bb"], "did you mean llama-2-7b"),
        ([""], "empty name"),
        (["./nothing/here"], "./nothing/here does not exist"),
        (["training"], "is no model"),
        (["llama-2-7b", "--runtime", "tensorrt"], "--runtime: expected one of gpudoctor, meta"),
        (["llama-2-7b", "--dtype", "int3"], "--dtype: expected one of fp32"),
        (["llama-2-7b", "--runtime", "meta", "--dtype", "int4"], "--dtype: meta runs fp16, bf16, not int4"),
        (["llama-2-7b", "--free", "lots"], "--free: expected a size such as"),
        (["llama-2-7b", "--free", "0"], "--free: expected a size such as"),
        (["llama-2-7b", "--free", "24"], "--free: 24 would be bytes"),
        (["llama-2-7b", "--nproc", "1000"], "which transformers cannot divide among 1000 GPUs"),
        (["llama-2-7b", "--dtype", "fp8", "--gpu", "RTX 3060"], "--dtype: fp8 needs compute capability 8.9"),
        (["llama-2-7b", "--python", "/nonexistent", "--gpu", "T4"], "--python: "),
        (["llama-2-7b", "--gpu", "RTX 40"], "--gpu: our table of GPUs has no 'RTX 40'"),
        (["llama-2-7b", "--gpu", "A100"], "--gpu: 'A100' may be"),
        (["llama-2-7b", "--gpu", "RTX 4070", "--free", "13GiB"], "--free: 13GiB is more than the 11.69 GiB"),
        (["llama-2-7b", "--batch", "0"], "--batch: expected 1 to"),
        (["llama-2-7b", "--prompt-tokens", "-3"], "--prompt-tokens: expected 1 to"),
        (["llama-2-7b", "--max-seq-len", "100", "--prompt-tokens", "90", "--new-tokens", "20"], "do not fit into 100 positions"),
        (["llama-2-7b", "--train"], "What training takes is not counted"),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    result = run("./model.gguf", cwd=tmp_path)
    assert result.returncode == 2
    assert "git-lfs pointer" in result.stderr
    assert "model.gguf" in result.stderr


def test_the_answer_can_be_written_to_a_file(tmp_path: Path) -> None:
    assert run("llama-2-7b", "--free", "24GB", "--output", str(tmp_path / "answer"), "--format", "json").returncode == 0
    assert json.loads((tmp_path / "answer").read_text(encoding="utf-8"))["verdict"] == "fits"


def test_ascii_terminals_get_ascii() -> None:
    result = run(*STORY, env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert result.stdout.isascii()
    assert "^ here the card ends" in result.stdout
