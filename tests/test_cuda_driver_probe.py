"""The libcuda probe against a fake libcuda.so.1, in a real child interpreter."""

from __future__ import annotations

import ast
import os
import shutil
import sys
from pathlib import Path

import pytest

from gpudoctor.facts import CudaDriver, Unknown
from gpudoctor.probes import cuda_driver
from gpudoctor.probes.scope import Scope
from tests.fake_nvml import environ_for


def look(
    root: Path, libcuda: object, cap: float | None = None, python: str | None = sys.executable, **environ: str
) -> CudaDriver | Unknown:
    environment = {**os.environ, **environ_for({"libcuda": libcuda}), **environ}
    return cuda_driver.look(Scope(root=root, environ=environment, python=python, chosen_by="test", cap=cap))


def answered(root: Path, libcuda: object, cap: float | None = None, **environ: str) -> CudaDriver:
    facts = look(root, libcuda, cap, **environ)
    assert isinstance(facts, CudaDriver), facts
    return facts


def test_version_and_path(tmp_path: Path) -> None:
    facts = answered(tmp_path, 12040)
    assert (facts.version, facts.error) == (12040, None)
    assert facts.path is not None
    assert facts.path.endswith("cuda/libcuda.so.1")


def test_cuda_compat_shows_as_its_path(tmp_path: Path) -> None:
    fake = environ_for({"libcuda": 13000})
    compat = tmp_path / "usr/local/cuda-13.0/compat"
    compat.mkdir(parents=True)
    shutil.copy(Path(fake["LD_LIBRARY_PATH"].split(":")[-1]) / "libcuda.so.1", compat / "libcuda.so.580.65.06")
    (compat / "libcuda.so.1").symlink_to("libcuda.so.580.65.06")
    facts = answered(tmp_path, 13000, LD_LIBRARY_PATH=f"{compat}:{fake['LD_LIBRARY_PATH']}")
    assert facts == CudaDriver(str(compat / "libcuda.so.580.65.06"), 13000, None)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a driver of its own")
def test_no_libcuda(tmp_path: Path) -> None:
    facts = answered(tmp_path, None)
    assert (facts.path, facts.version) == (None, None)
    assert "cannot open shared object file" in (facts.error or "")


def test_a_zero_byte_libcuda(tmp_path: Path) -> None:
    facts = answered(tmp_path, "empty")
    assert (facts.path, facts.version) == (None, None)
    assert (facts.error or "").endswith("empty-cuda/libcuda.so.1: file too short")


def test_a_refusal_keeps_its_code(tmp_path: Path) -> None:
    facts = answered(tmp_path, {"code": 804})
    assert (facts.version, facts.error) == (None, "cuDriverGetVersion failed with error 804")
    assert facts.path


def test_a_hang_is_named(tmp_path: Path) -> None:
    facts = answered(tmp_path, "hang", cap=1)
    assert (facts.version, facts.error) == (None, "no answer within 1 s in cuDriverGetVersion")
    assert facts.path


def test_a_crash_is_named(tmp_path: Path) -> None:
    assert answered(tmp_path, "crash").error == "SIGABRT in cuDriverGetVersion"


def test_an_interpreter_that_is_none(tmp_path: Path) -> None:
    assert look(tmp_path, 12020, python="/nonexistent/python") == Unknown("/nonexistent/python: No such file or directory")
    assert look(tmp_path, 12020, python="/bin/false") == Unknown("/bin/false: exit code 1 without a word")


def test_without_a_target_the_doctors_own_interpreter_asks(tmp_path: Path) -> None:
    facts = look(tmp_path, 12020, python=None)
    assert isinstance(facts, CudaDriver)
    assert facts.version == 12020


def test_the_child_is_python_3_8() -> None:
    ast.parse(cuda_driver.CHILD, feature_version=(3, 8))
    assert "cuInit" not in cuda_driver.CHILD
