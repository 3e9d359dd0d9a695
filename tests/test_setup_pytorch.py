"""setup's PyTorch step with the package index's real wheels: from a CPU build to the CUDA build. Run by hand: gigabytes.

The machine is recorded (driver 580, whose right wheel is the index's default); the environment, pip, uv and the wheels are real. There is
no GPU in it, so the step's last verification, a computation on the GPU, must fail, and setup must say so. ::

    python -m pytest tests/test_setup_pytorch.py -m wheels

GPUDOCTOR_CPU_TORCH_WHEELS names what ``pip install`` takes the CPU build from: ``--index-url ...``, or ``--find-links FOLDER``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import machine as recorded

pytestmark = pytest.mark.wheels
CPU = os.environ.get("GPUDOCTOR_CPU_TORCH_WHEELS", "--index-url https://download.pytorch.org/whl/cpu").split()
TORCH = "2.13.0"
ASK = "import torch; print(torch.__version__, torch.version.cuda, torch.distributed.is_nccl_available())"


def _pip(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin/pip"), "install", "-q", f"torch=={TORCH}", *CPU], check=True)
    return folder / "bin/python"


def _uv(folder: Path) -> Path:
    program = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("there is no uv")
    subprocess.run([program, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    python = folder / "bin/python"
    subprocess.run([program, "pip", "install", "-q", "--python", str(python), f"torch=={TORCH}", *CPU], check=True)
    return python


def _said(python: Path) -> list[str]:
    return subprocess.run([str(python), "-W", "ignore", "-c", ASK], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("make", [_pip, _uv], ids=["pip", "uv"])
def test_from_the_cpu_build_to_the_cuda_build(make: object, tmp_path: Path) -> None:
    assert callable(make)
    python: Path = make(tmp_path / "env")
    assert _said(python)[1:] == ["None", "False"]
    built = recorded.build("cpu-torch-on-580", tmp_path)
    environ = {name: value for name, value in os.environ.items() if name != "PIP_FIND_LINKS"}
    environ |= {**built.environ, "PATH": f"{built.environ['PATH']}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environ |= {
        "PIP_CONFIG_FILE": "/dev/null",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-m", "gpudoctor", "setup", "pytorch", "--yes", "--root", str(built.root), "--python", str(python)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=3000)
    version, cuda, nccl = _said(python)
    assert (version.partition("+")[0], cuda, nccl) == (TORCH, "13.0", "True"), done.stdout[-3000:]
    assert f"{TORCH}+cu130 13.0" in done.stdout
    assert done.returncode == 1
    assert "its verification does not pass" in " ".join(done.stdout.split())
