"""The smoke test on a real NVIDIA GPU, in the Python that runs the tests, which needs a CUDA build of PyTorch.

``pytest -m gpu tests/gpu`` runs it and writes what it measured, with date, card, driver and PyTorch, to docs/gpu-results.md.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA driver on this machine"),
]
RESULTS = Path(__file__).resolve().parent.parent.parent / "docs" / "gpu-results.md"
GIB = 1 << 30
IMPORT = "import time; t = time.time(); import torch; print(time.time() - t)"
FILL = """
import json, time, torch
torch.zeros(1, device="cuda")
size = 6738415616
begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
begin.record()
weights = torch.ones(size, dtype=torch.bfloat16, device="cuda")
end.record()
end.synchronize()
free, total = torch.cuda.mem_get_info()
print(json.dumps({"seconds": begin.elapsed_time(end) / 1e3, "free": free, "total": total, "pid": __import__("os").getpid()}))
"""


def said(code: str) -> str:
    """What a child of this Python prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True).stdout


def smoke(*arguments: str) -> tuple[dict[str, Any], float]:
    """The document of ``gpudoctor smoke``, and its wall time in seconds."""
    command = [sys.executable, "-m", "gpudoctor", "smoke", "--python", sys.executable, "--format", "json", *arguments]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode in (0, 1, 3), done.stderr
    return json.loads(done.stdout), time.monotonic() - started


@pytest.fixture(scope="module")
def measured() -> Iterator[dict[str, str]]:
    """What the tests below measured, by name; written down at the end, whatever became of them."""
    lines: dict[str, str] = {}
    yield lines
    fields = ["name", "driver_version", "memory.total", "power.limit"]
    card = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.splitlines()[0]
    torch_version = said("import torch; print(torch.__version__, 'CUDA', torch.version.cuda)").strip()
    today = dt.datetime.now(dt.timezone.utc).date().isoformat()
    head = f"\n## {today}: {card}, PyTorch {torch_version}\n\n| what | measured |\n|---|---|\n"
    before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Measured on real GPUs\n"
    RESULTS.write_text(before + head + "".join(f"| {name} | {value} |\n" for name, value in lines.items()), encoding="utf-8")


@pytest.fixture(scope="module")
def llama(measured: dict[str, str]) -> tuple[dict[str, Any], float]:
    """``gpudoctor smoke --ckpt llama-2-7b`` in bf16, the second of two runs: the first one fills the file cache."""
    smoke()
    report, seconds = smoke("--ckpt", "llama-2-7b", "--dtype", "bf16", "--max-new-tokens", "128")
    measured["gpudoctor smoke --ckpt llama-2-7b, bf16, 128 tokens"] = f"{report['status']}, {seconds:.2f} s"
    return report, seconds


def test_llama_2_7b_passes(llama: tuple[dict[str, Any], float]) -> None:
    report, _ = llama
    assert report["status"] in ("pass", "warn"), report["findings"]
    assert report["checkpoint"]["weights"] == "random"
    assert report["checkpoint"]["parameters"] == 6738415616


def test_decoding_reads_memory_at_three_quarters_of_a_device_copy(
    llama: tuple[dict[str, Any], float], measured: dict[str, str]
) -> None:
    report, _ = llama
    share = report["tokens_per_second"] * report["bytes_per_token"] / report["measured_bandwidth"]
    measured["decode"] = (
        f"{report['tokens_per_second']:.1f} tok/s, {share:.3f} of {report['measured_bandwidth'] / 1e9:.0f} GB/s (device copy)"
    )
    assert share >= 0.75


def test_from_start_to_verdict(llama: tuple[dict[str, Any], float], measured: dict[str, str]) -> None:
    _, seconds = llama
    imported, filled = float(said(IMPORT)), json.loads(said(FILL))["seconds"]
    measured["start to verdict"] = f"{seconds:.2f} s; import torch {imported:.2f} s, filling the weights {filled:.3f} s"
    assert seconds <= 1.5 * (imported + filled)


def test_peak_memory(llama: tuple[dict[str, Any], float], measured: dict[str, str]) -> None:
    report, _ = llama
    weights, peak = report["checkpoint"]["parameters"] * 2, report["peak_memory_bytes"]
    measured["peak memory"] = f"{peak / GIB:.2f} GiB; the weights alone {weights / GIB:.2f} GiB"
    assert weights < peak < weights * 1.15


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_cpu_and_gpu_agree_and_the_rest_of_the_proofs(dtype: str, measured: dict[str, str]) -> None:
    report, seconds = smoke("--dtype", dtype)
    measured[f"built-in model, {dtype}"] = (
        f"{report['status']}, {seconds:.2f} s, {report['tokens_per_second']:.0f} tok/s; "
        f"CPU and GPU differ by {report['proofs']['difference']:.2g} (tolerance {report['proofs']['tolerance']:.2g})"
    )
    assert report["proofs"]["finite"] is True
    assert report["proofs"]["repeatable"] is True
    assert report["proofs"]["difference"] <= report["proofs"]["tolerance"]


def test_nccl_in_a_world_of_one(llama: tuple[dict[str, Any], float], measured: dict[str, str]) -> None:
    report, _ = llama
    measured["NCCL, world of one"] = f"backend {report['backend']}, all-reduce right: {report['proofs']['all_reduce']}"
    assert (report["backend"], report["proofs"]["all_reduce"]) == ("nccl", True)


def test_nvml_says_what_pytorch_says_is_free(measured: dict[str, str]) -> None:
    """Side by side: PyTorch's figure while it holds 12.55 GiB, and NVML's through the doctor at the same moment."""
    holder = subprocess.Popen(
        [sys.executable, "-c", FILL + "\nimport sys; sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        theirs = json.loads(holder.stdout.readline())
        done = subprocess.run(
            [sys.executable, "-m", "gpudoctor", "check", "--no-smoke", "--format", "json"],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    finally:
        holder.kill()
        holder.wait()
    gpu = json.loads(done.stdout)["facts"]["nvml"]["gpus"][0]
    apart = abs(gpu["memory_free"] - theirs["free"])
    measured["free memory"] = f"NVML {gpu['memory_free'] / GIB:.2f} GiB, PyTorch {theirs['free'] / GIB:.2f} GiB"
    assert apart < GIB


def test_a_busy_gpu_is_left_alone_by_check_and_used_by_smoke(measured: dict[str, str]) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", FILL + "\nimport sys; sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        done = subprocess.run(
            [sys.executable, "-m", "gpudoctor", "check", "--format", "json"],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        asked, _ = smoke()
    finally:
        holder.kill()
        holder.wait()
    (check,) = (check for check in json.loads(done.stdout)["checks"] if check["name"] == "smoke")
    measured["beside another process"] = f"check: {check['summary']}; smoke: {asked['status']}"
    assert check["status"] == "skipped"
    assert asked["status"] in ("pass", "warn")


def test_ctrl_c_frees_the_gpu_within_a_second(measured: dict[str, str]) -> None:
    command = [sys.executable, "-m", "gpudoctor", "smoke", "--ckpt", "llama-2-7b", "--max-new-tokens", "4000"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(8)
    started = time.monotonic()
    os.kill(running.pid, signal.SIGINT)
    running.wait(timeout=10)
    ended = time.monotonic() - started
    time.sleep(1)
    left = subprocess.run(
        ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    measured["Ctrl-C"] = f"ended after {ended:.2f} s"
    assert ended < 1
    assert left.strip() == ""
