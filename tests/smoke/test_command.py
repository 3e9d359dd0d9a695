"""``gpudoctor smoke`` as a process, with a real PyTorch on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests import smoke_schema

torch = pytest.importorskip("torch")
COMMAND = [sys.executable, "-m", "gpudoctor", "smoke", "--device", "cpu"]


def smoke(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)


def document(*arguments: str) -> dict[str, Any]:
    result = smoke(*arguments, "--format", "json")
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    found: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(found, smoke_schema.schema())
    return found


def test_the_built_in_model_passes_and_says_that_no_gpu_was_tested() -> None:
    result = smoke()
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    text = " ".join(result.stdout.split())
    for words in (
        "random weights: memory, kernels and speed are tested, the text is noise",
        "On the CPU, as asked: no GPU is tested.",
        "✓ logits finite",
        "✓ repetition greedy decoding repeats",
        "– GPU not tested: --device cpu",
        "The smoke test passed on the CPU.",
    ):
        assert words in text


def test_the_document_of_a_run_that_passed() -> None:
    found = document("--prompt", "one", "--prompt", "and another", "--max-new-tokens", "5", "--logprobs")
    assert (found["status"], found["phase"], found["device"], found["dtype"]) == ("pass", "done", "cpu", "fp32")
    assert found["checkpoint"]["weights"] == "random"
    assert [completion["prompt"] for completion in found["completions"]] == ["one", "and another"]
    for completion in found["completions"]:
        assert len(completion["tokens"]) == len(completion["logprobs"]) == 5
        assert all(value <= 0 for value in completion["logprobs"])
    assert found["tokens_per_second"] > 0
    assert found["seconds_to_first_token"] < found["seconds_total"]


def test_the_same_seed_gives_the_same_tokens_and_another_one_others() -> None:
    sampled = ("--temperature", "1", "--top-p", "1", "--max-new-tokens", "8")
    one, again, other = (document(*sampled, "--seed", seed)["completions"][0]["tokens"] for seed in ("1", "1", "2"))
    assert one == again != other


def test_a_model_that_is_too_large_is_a_fault_with_its_numbers() -> None:
    result = smoke("--ckpt", "llama-2-70b", "--format", "json")
    found = json.loads(result.stdout)
    if found["status"] == "pass":
        pytest.skip("this machine has the memory for it")
    assert (result.returncode, found["root_causes"], found["phase"]) == (1, ["host-memory-too-small"], "memory")


def test_ctrl_c_in_the_middle_of_a_text_ends_everything() -> None:
    command = [*COMMAND, "--max-new-tokens", "250", "--ckpt", "llama-3.2-1b", "--deadline", "100"]
    doctor = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    worker = None
    until = time.monotonic() + 60
    while worker is None and doctor.poll() is None and time.monotonic() < until:
        worker = next((pid for pid in started_by(doctor.pid) if is_worker(pid)), None)
        time.sleep(0.05)
    assert worker is not None
    time.sleep(1)
    sent = time.monotonic()
    doctor.send_signal(signal.SIGINT)
    _, errors = doctor.communicate(timeout=10)
    assert time.monotonic() - sent < 3, "a second, and what a busy machine adds"
    assert (doctor.returncode, "Traceback" in errors) == (-signal.SIGINT, False)
    assert not is_worker(worker)


def started_by(process: int) -> list[int]:
    """All that descend from it."""
    try:
        children = [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
        for task in os.listdir(f"/proc/{process}/task"):
            children += [int(pid) for pid in Path(f"/proc/{process}/task/{task}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(pid for child in children for pid in started_by(child))]


def is_worker(pid: int) -> bool:
    """It has torch loaded."""
    try:
        return "libtorch_cpu" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False
