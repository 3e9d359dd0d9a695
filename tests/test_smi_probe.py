"""The nvidia-smi probe, with scripts in place of nvidia-smi."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor.facts import NvidiaSmi, Unknown
from gpudoctor.probes import smi
from gpudoctor.probes.scope import Scope

OLD = "| NVIDIA-SMI 535.86.10    Driver Version: 535.86.10    CUDA Version: 12.2     |"
NEW = "| NVIDIA-SMI 610.43.02    KMD Version: 610.43.02    CUDA UMD Version: 13.3     |"
BOTH = "| NVIDIA-SMI 615.71.09  Driver Version: 615.71.09  CUDA Version: 13.1 | KMD Version: 615.71.09  CUDA UMD Version: 13.3 |"


def look(root: Path, script: str | None, cap: float | None = None) -> NvidiaSmi | None | Unknown:
    folder = root / "bin"
    folder.mkdir(exist_ok=True)
    if script is not None:
        (folder / "nvidia-smi").write_text(script)
        (folder / "nvidia-smi").chmod(0o755)
    return smi.look(Scope(root=root, environ={"PATH": str(folder)}, python=None, chosen_by="test", cap=cap))


def ran(root: Path, body: str, cap: float | None = None) -> NvidiaSmi:
    facts = look(root, f"#!/bin/sh\n{body}\n", cap)
    assert isinstance(facts, NvidiaSmi), facts
    return facts


@pytest.mark.parametrize(
    ("banner", "driver", "cuda"),
    [
        (OLD, "535.86.10", "12.2"),
        (NEW, "610.43.02", "13.3"),
        (BOTH, "615.71.09", "13.3"),
        ("| NVIDIA-SMI 470.256.02   Driver Version: 470.256.02   CUDA Version: N/A  |", "470.256.02", None),
        ("| NVIDIA-SMI 515.65.01    Driver Version: 516.94       CUDA Version: ERR! |", "516.94", None),
        ("No devices were found", None, None),
    ],
    ids=["old layout", "new layout", "both layouts", "cuda not available", "cuda error", "no devices"],
)
def test_banners(tmp_path: Path, banner: str, driver: str | None, cuda: str | None) -> None:
    facts = ran(tmp_path, f"echo '{banner}'")
    assert (facts.exit_code, facts.driver_version, facts.cuda_version, facts.text) == (0, driver, cuda, banner)
    assert facts.path == str(tmp_path / "bin/nvidia-smi")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (6, "No devices were found"),
        (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."),
        (15, "Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost."),
        (18, "Failed to initialize NVML: Driver/library version mismatch"),
    ],
)
def test_exit_codes_keep_the_words(tmp_path: Path, code: int, words: str) -> None:
    facts = ran(tmp_path, f'echo "{words}"; exit {code}')
    assert (facts.exit_code, facts.driver_version, facts.text) == (code, None, words)


def test_words_on_stderr_are_kept(tmp_path: Path) -> None:
    assert ran(tmp_path, "echo 'Failed to initialize NVML: Unknown Error' >&2; exit 255").text.endswith("Unknown Error")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    facts = ran(tmp_path, r"printf '\377\000\033[31mDriver Version: \200\n'")
    assert (facts.exit_code, facts.driver_version) == (0, None)
    assert all(c.isprintable() for c in facts.text)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(output=st.binary(max_size=3000), code=st.integers(0, 255))
def test_any_bytes_and_exit_code_are_facts(tmp_path: Path, output: bytes, code: int) -> None:
    (tmp_path / "output").write_bytes(output)
    facts = ran(tmp_path, f'while read -r line; do echo "$line"; done < {tmp_path}/output; exit {code}')
    assert facts.exit_code == code
    assert all(c.isprintable() or c == "\n" for c in facts.text)


def test_a_flood_is_cut(tmp_path: Path) -> None:
    facts = ran(tmp_path, f"echo '{OLD}'; while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done", cap=1)
    assert (facts.exit_code, facts.driver_version) == (None, "535.86.10")
    assert len(facts.text) <= 2000


def test_a_hang_keeps_what_was_printed(tmp_path: Path) -> None:
    started = time.monotonic()
    facts = ran(tmp_path, f"echo '{OLD}'; PATH=/usr/bin:/bin; exec sleep 60", cap=0.5)
    assert (facts.exit_code, facts.driver_version) == (None, "535.86.10")
    assert time.monotonic() - started < 5


def test_none_where_there_is_no_nvidia_smi(tmp_path: Path) -> None:
    assert look(tmp_path, None) is None


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    facts = look(tmp_path, "\x7fELF that is none")
    assert facts == Unknown(f"{tmp_path}/bin/nvidia-smi: Exec format error")


def test_a_sleeping_gpu_is_left_asleep(tmp_path: Path) -> None:
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    (device / "power").mkdir(parents=True)
    for name, text in (("vendor", "0x10de"), ("class", "0x030200"), ("power/runtime_status", "suspended")):
        (device / name).write_text(text + "\n")
    assert look(tmp_path, f"#!/bin/sh\ntouch {tmp_path}/woken\n") == Unknown("the GPU is asleep, and looking would wake it")
    assert not (tmp_path / "woken").exists()
