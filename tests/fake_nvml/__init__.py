"""A fake NVIDIA driver for tests: real shared libraries that answer what a scenario says. README.md has the format."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).parent
MIB = 1 << 20
NOT_AVAILABLE = (1 << 64) - 1  # NVML's "this number cannot be had"

Scenario = dict[str, Any]

MACHINE: Scenario = {
    "driver": "535.86.10",
    "cuda": 12020,
    "library": "full",
    "init": 0,
    "fail": {},
    "gpus": [{}],
}
GPU: Scenario = {
    "error": 0,
    "fail": {},
    "hang": None,
    "crash": None,
    "name": "NVIDIA GeForce RTX 4070",
    "uuid": "GPU-4070{index:04d}-0000-0000-0000-000000000000",
    "pci": "0000:{bus:02x}:00.0",
    "cc": "8.9",
    "memory": {"total": 12282, "used": 1, "reserved": 312},
    "processes": [],
    "compute_mode": "default",
    "mig": None,
    "mig_pending": None,
    "mig_devices": [],
    "persistence": False,
    "display_active": False,
    "pcie_generation": 4,
    "pcie_generation_max": 4,
    "pcie_width": 16,
    "pcie_width_max": 16,
    "utilization": 0,
    "throttle": ["idle"],
    "ecc_uncorrected": None,
    "remap_pending": None,
    "remap_failed": None,
    "temperature": 41,
    "power_draw": 12_000,
    "power_limit": 200_000,
    "fabric": None,
    "virtualization": "none",
    "vgpu_licensed": None,
}
# words of facts.Gpu -> what NVML returns (nvml.h)
WORDS: dict[str, dict[str, int]] = {
    "compute_mode": {"default": 0, "exclusive-thread": 1, "prohibited": 2, "exclusive-process": 3},
    "fabric": {"not-supported": 0, "not-started": 1, "in-progress": 2, "completed": 3, "failed": 103},
    "virtualization": {"none": 0, "passthrough": 1, "vgpu": 2, "host-vgpu": 3, "host-vsga": 4},
}
THROTTLE = {
    "idle": 0x1,
    "app-clocks": 0x2,
    "power-cap": 0x4,
    "hw-slowdown": 0x8,
    "sync-boost": 0x10,
    "sw-thermal": 0x20,
    "hw-thermal": 0x40,
    "power-brake": 0x80,
    "display": 0x100,
}


def environ_for(scenario: Scenario) -> dict[str, str]:
    """LD_LIBRARY_PATH, FAKE_NVML and FAKE_CUDA_VERSION for a scenario; raises ValueError for a key that README.md lacks."""
    known = {*MACHINE, "libcuda"}
    machine = _filled(scenario, {**MACHINE, "libcuda": scenario.get("cuda", MACHINE["cuda"])}, known)
    folder = _built()
    folders = [] if machine["library"] == "none" else [folder / machine["library"]]
    libcuda = machine["libcuda"]
    if libcuda is not None:
        folders.append(folder / ("empty-cuda" if libcuda == "empty" else "cuda"))
    return {
        "LD_LIBRARY_PATH": ":".join(map(str, folders)),
        "FAKE_NVML": _flat(machine),
        "FAKE_CUDA_VERSION": f"error {libcuda['code']}" if isinstance(libcuda, dict) else str(libcuda),
    }


def text_for(scenario: Scenario) -> str:
    """A scenario as the text of a file that FAKE_NVML_FILE names."""
    return _flat(_filled(scenario, MACHINE, set(MACHINE)))


def build(folder: Path) -> Path:
    """Compile every variant below ``folder`` and return the folder with the full libnvidia-ml.so.1."""
    variants = {
        "full/libnvidia-ml.so.1": ("nvml.c",),
        "old/libnvidia-ml.so.1": ("nvml.c", "-DOLD"),
        "cuda/libcuda.so.1": ("cuda.c",),
    }
    for name, (source, *options) in variants.items():
        _compile(SOURCES / source, folder / name, options)
    for name in ("empty/libnvidia-ml.so.1", "empty-cuda/libcuda.so.1"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder / "full"


@functools.lru_cache(maxsize=1)
def _built() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fake-nvml-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return build(folder).parent


def _compile(source: Path, target: Path, options: list[str]) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("no C compiler (cc): the fake NVIDIA driver cannot be built, and without it no GPU path is tested")
    target.parent.mkdir(parents=True, exist_ok=True)
    warnings = ("-Wall", "-Wextra", "-Werror")
    command = [compiler, "-shared", "-fPIC", *warnings, f"-Wl,-soname,{target.name}", *options, str(source), "-o", str(target)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if result.returncode != 0:
        pytest.fail(f"{source.name} does not compile:\n{result.stderr}")


def _filled(given: Scenario, defaults: Scenario, known: set[str]) -> Scenario:
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f"the fake NVML's scenario has no key {', '.join(unknown)}")
    return {**defaults, **given}


def _flat(machine: Scenario) -> str:
    lines = {"driver": machine["driver"], "cuda": machine["cuda"], "gpus": len(machine["gpus"])}
    lines["!nvmlInit"] = _outcome(machine["init"])
    lines |= _outcomes(machine["fail"])
    for index, given in enumerate(machine["gpus"]):
        gpu = _filled(given, GPU, set(GPU))
        lines |= {f"g{index}.{key}": value for key, value in _flat_gpu(index, gpu).items()}
    told = {key: int(value) if isinstance(value, bool) else value for key, value in lines.items() if value is not None}
    return "".join(f"\n{key}={value}" for key, value in told.items()) + "\n"


def _flat_gpu(index: int, gpu: Scenario) -> Scenario:
    apart = {"error", "fail", "hang", "crash", "memory", "processes", "mig_devices", "throttle"}
    flat = {key: value for key, value in gpu.items() if key not in apart}
    flat |= {key: numbers[gpu[key]] for key, numbers in WORDS.items() if gpu[key] is not None}
    for key in ("uuid", "pci"):
        if gpu[key] == GPU[key]:
            flat[key] = gpu[key].format(index=index, bus=index + 1)
    if gpu["mig_pending"] is None:
        flat["mig_pending"] = gpu["mig"]
    flat["mig_max"] = 7 if gpu["mig"] is not None else 0
    flat["throttle"] = _mask(gpu["throttle"])
    flat |= _memory(gpu["memory"])
    flat |= _processes(gpu["processes"])
    for number, instance in enumerate(gpu["mig_devices"]):
        values = {"uuid": instance["uuid"], "name": instance["name"], **_memory(instance.get("memory"))}
        flat |= {f"m{number}.{key}": value for key, value in values.items()}
    return flat | _gpu_outcomes(gpu)


def _gpu_outcomes(gpu: Scenario) -> Scenario:
    flat = {"!nvmlDeviceGetHandleByIndex": _outcome(gpu["error"])} if gpu["error"] else {}
    flat |= _outcomes(gpu["fail"])
    return flat | {f"!{gpu[end]}": end for end in ("hang", "crash") if gpu[end]}


def _mask(throttle: list[str] | int | None) -> int | None:
    return sum(THROTTLE[name] for name in throttle) if isinstance(throttle, list) else throttle


def _memory(memory: dict[str, int] | None) -> Scenario:
    if memory is None:
        return {}
    total, used, reserved = memory["total"], memory.get("used"), memory.get("reserved", 0)
    free = memory.get("free", total - reserved - (used or 0))
    sizes = {"total": total, "free": free, "used": total - reserved - free if used is None else used, "reserved": reserved}
    return {key: size * MIB for key, size in sizes.items()}


def _processes(processes: list[Scenario] | None) -> Scenario:
    if processes is None:
        return {}
    lists: dict[str, list[str]] = {"compute": [], "graphics": []}
    for process in processes:
        used = process.get("used_mib")
        lists[process.get("kind", "compute")].append(f"{process['pid']}:{NOT_AVAILABLE if used is None else used * MIB}")
    return {kind: ",".join(entries) for kind, entries in lists.items()}


def _outcomes(fail: Scenario) -> Scenario:
    return {f"!{function}": _outcome(outcome) for function, outcome in fail.items()}


def _outcome(outcome: int | str | dict[str, bool]) -> int | str:
    if isinstance(outcome, dict):
        return next(end for end in ("hang", "crash") if outcome.get(end))
    return outcome
