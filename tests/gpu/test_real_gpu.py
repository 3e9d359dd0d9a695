"""On a machine with a real NVIDIA GPU: what the doctor says against what nvidia-smi says. ``pytest -m gpu tests/gpu``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from typing import Any

import pytest

# nvidia-smi's name of a value, and ours
FIELDS = {
    "name": "name",
    "uuid": "uuid",
    "compute_cap": "compute_capability",
    "memory.total": "memory_total",
    "temperature.gpu": "temperature",
}

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA driver on this machine"),
]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "gpudoctor", "check", "--format", "json"], capture_output=True, text=True, timeout=180, check=False
    )
    sys.stdout.write(f"gpudoctor check took {time.monotonic() - started:.1f} s\n")
    assert done.returncode in (0, 1, 3), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def smi(field: str) -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip().splitlines()


@pytest.mark.parametrize("field", FIELDS)
def test_the_same_as_nvidia_smi(report: dict[str, Any], field: str) -> None:
    seen = [gpu[FIELDS[field]] for gpu in report["facts"]["nvml"]["gpus"]]
    if field == "memory.total":
        seen = [round(value / 2**20) for value in seen]
    if field == "temperature.gpu":
        assert all(abs(a - int(b)) <= 3 for a, b in zip(seen, smi(field), strict=True))
        return
    assert [str(value) for value in seen] == smi(field)


def test_the_driver_version(report: dict[str, Any]) -> None:
    assert report["facts"]["nvml"]["driver_version"] == smi("driver_version")[0]


def test_a_driver_that_answers_is_never_a_fault_by_itself(report: dict[str, Any]) -> None:
    driver = next(check for check in report["checks"] if check["name"] == "driver")
    assert driver["status"] in ("pass", "note", "warn"), driver
