"""A real PyTorch without CUDA, in an environment of its own, examined from outside.

GPUDOCTOR_CPU_TORCH names its interpreter; ``.ci/run`` installs torch==2.13.0 there. Without it nothing is tested here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PYTHON = os.environ.get("GPUDOCTOR_CPU_TORCH", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="GPUDOCTOR_CPU_TORCH names no interpreter with a CPU build of PyTorch")


@pytest.fixture(scope="module")
def report() -> dict[str, object]:
    command = [sys.executable, "-m", "gpudoctor", "check", "--python", PYTHON, "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_cpu_build_is_a_root_cause_and_its_cure_names_that_interpreter(report: dict[str, object]) -> None:
    root_causes, checks = report["root_causes"], report["checks"]
    assert isinstance(root_causes, list)
    assert isinstance(checks, list)
    assert "torch-cpu-only-build" in root_causes
    finding = next(f for check in checks for f in check["findings"] if f["code"] == "torch-cpu-only-build")
    assert any(PYTHON in command for command in finding["fix"]["commands"])


def test_what_was_read_is_what_pytorch_says_of_itself(report: dict[str, object]) -> None:
    source = "import torch, json; print(json.dumps([torch.__version__, torch.version.cuda, torch.version.git_version]))"
    said = json.loads(subprocess.run([PYTHON, "-c", source], capture_output=True, text=True, timeout=120, check=True).stdout)
    facts = report["facts"]
    assert isinstance(facts, dict)
    torch = facts["torch"]
    assert [torch["version"], torch["cuda"], torch["git"]] == said
    assert torch["nccl_built_in"] is False
    assert Path(torch["path"]).name == "torch"
    assert facts["torch_import"]["available"] is False
