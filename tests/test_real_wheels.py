"""What is read without importing equals what the real PyTorch says when it is imported. Run by hand: each release is gigabytes.

How to call it, and the variables that it reads::

    python -m pytest tests/test_real_wheels.py -m wheels    # installs each release from the package index, then removes it
    GPUDOCTOR_WHEELS="2.1.2 2.8.0"                          # these releases, with the Python that runs the tests
    GPUDOCTOR_WHEEL_ENVIRONMENTS="/envs/a:/envs/b"          # environments that are there already, left as they are
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpudoctor.facts import Resolution, Torch, TorchImport, Unknown
from gpudoctor.probes import elf, interpreter, torch_files, torch_import, torch_loader
from gpudoctor.probes.scope import Scope

pytestmark = pytest.mark.wheels
RELEASES = os.environ.get("GPUDOCTOR_WHEELS", "2.5.1 2.8.0 2.11.0 2.15.0").split()
ENVIRONMENTS = [path for path in os.environ.get("GPUDOCTOR_WHEEL_ENVIRONMENTS", "").split(":") if path]
ASK = """
import json, sys, warnings
sys.path[:] = [entry for entry in sys.path if entry]
warnings.simplefilter("ignore")
import torch
flags = torch._C._cuda_getArchFlags() if torch.version.cuda else None
said = {
    "version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip, "git": torch.version.git_version,
    "debug": torch.version.debug, "flags": (flags or "").split(), "nccl": torch.distributed.is_nccl_available(),
    "cudnn": list(torch._C._cudnn.getRuntimeVersion()) if torch.version.cuda else None,
    "mapped": sorted({line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}),
    "cudnn_built_for": list(torch._C._cudnn.getCompileVersion()) if torch.version.cuda else None,
    "nccl_version": list(torch.cuda.nccl.version()) if torch.version.cuda else None,
}
print(json.dumps(said))
"""


def _install(release: str, folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin/pip"), "install", "--no-cache-dir", "-q", f"torch=={release}"], check=True)


@pytest.fixture(scope="module", params=ENVIRONMENTS or RELEASES)
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if ENVIRONMENTS:
        yield Path(request.param)
        return
    folder = tmp_path_factory.mktemp("wheels") / request.param
    _install(request.param, folder)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def _scope(environment: Path, search: str = "") -> Scope:
    environ = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/")} | ({"LD_LIBRARY_PATH": search} if search else {})
    return Scope(root=Path("/"), environ=environ, python=str(environment / "bin/python"), chosen_by="--python")


def _read(scope: Scope) -> Torch:
    torch = torch_files.look(scope)
    assert isinstance(torch, Torch)
    return torch


def _said(scope: Scope) -> dict[str, Any]:
    assert scope.python is not None
    command = [scope.python, "-c", ASK]
    answer = subprocess.run(command, env=dict(scope.environ), capture_output=True, text=True, check=True, timeout=120)
    said: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return said


def _searches(environment: Path) -> dict[str, str]:
    """LD_LIBRARY_PATH values of strangers' libraries: those of the other environments, whatever these have."""
    values = {"nothing": ""}
    for other in ENVIRONMENTS:
        site = next(iter(Path(other).glob("lib/python3*/site-packages")), None)
        if site is None or other == str(environment) or not (site / "nvidia").is_dir():
            continue
        libraries = sorted(str(path) for path in site.glob("nvidia/*/lib"))
        values[f"cudnn of {Path(other).name}"] = str(site / "nvidia/cudnn/lib")
        values[f"nvjitlink of {Path(other).name}"] = next((path for path in libraries if "nvjitlink" in path), libraries[0])
        values[f"all of {Path(other).name}"] = ":".join(libraries)
    return values


def test_version_file_says_what_torch_says(environment: Path) -> None:
    scope = _scope(environment)
    read, said = _read(scope), _said(scope)
    assert [read.version, read.cuda, read.hip, read.git] == [said[name] for name in ("version", "cuda", "hip", "git")]
    assert torch_files.version_file(Path(read.path), scope).debug == said["debug"]


def test_architectures_are_those_of_the_build(environment: Path) -> None:
    scope = _scope(environment)
    read, said = _read(scope), _said(scope)
    assert not isinstance(read.sm, Unknown)
    assert [f"sm_{capability.replace('.', '')}" for capability in read.sm] == [flag for flag in said["flags"] if "sm_" in flag]
    assert not isinstance(read.ptx, Unknown)
    assert [f"compute_{capability.replace('.', '')}" for capability in read.ptx] == [
        flag for flag in said["flags"] if "compute_" in flag
    ]


def test_device_code_gives_the_same_architectures_as_the_flags(environment: Path) -> None:
    read = _read(_scope(environment))
    if read.cuda is None:
        pytest.skip("a build without CUDA")
    with elf.opened(Path(read.path) / "lib/libtorch_cuda.so") as image:
        assert torch_files._from_device_code(image) == (read.sm, read.ptx)


def test_nccl_and_cudnn_are_what_torch_has(environment: Path) -> None:
    scope = _scope(environment)
    read, said = _read(scope), _said(scope)
    assert read.nccl_built_in == said["nccl"]
    if read.cuda is None:
        assert read.cudnn_built_for is None
        return
    taken = {item.soname.split(".so")[0]: item for item in read.resolutions}
    assert _cudnn(read).taken_version == ".".join(str(part) for part in said["cudnn"])
    assert taken["libnccl"].taken_version == ".".join(str(part) for part in said["nccl_version"])
    # the headers it was compiled with are no newer than what it pins, and of the same major version
    assert isinstance(read.cudnn_built_for, str)
    pinned = [int(part) for part in read.cudnn_built_for.split(".")]
    assert said["cudnn_built_for"] <= pinned
    assert said["cudnn_built_for"][0] == pinned[0]


def _cudnn(read: Torch) -> Resolution:
    """The part of cuDNN that computes."""
    return next(item for item in read.resolutions if item.soname in torch_loader.OPENED_LATER.values())


def test_nothing_is_amiss_in_a_fresh_install(environment: Path) -> None:
    read = _read(_scope(environment))
    assert (read.missing_libraries, read.missing_files, read.duplicates) == ((), (), ())
    assert [pin for pin in read.pins if not pin.satisfied] == []


def test_the_loader_takes_what_was_foretold(environment: Path) -> None:
    for name, search in _searches(environment).items():
        scope = _scope(environment, search)
        said = _said(scope)
        read = _read(scope)
        if read.cuda is not None:
            assert _cudnn(read).taken_version == ".".join(str(part) for part in said["cudnn"])
        for item in read.resolutions:
            assert item.taken is not None
            mapped = [path for path in said["mapped"] if Path(path).name.startswith(item.soname.split(".so")[0] + ".so")]
            assert mapped == [os.path.realpath(item.taken)], f"{item.soname} with {name} in LD_LIBRARY_PATH"


def test_the_import_child_says_the_same(environment: Path) -> None:
    scope = _scope(environment)
    read, imported = _read(scope), torch_import.look(scope)
    assert isinstance(imported, TorchImport)
    assert (imported.version, imported.cuda, imported.nccl) == (read.version, read.cuda, read.nccl_built_in)
    assert (imported.phase, imported.signal, imported.hung) == ("done", None, False)


def test_reading_takes_milliseconds(environment: Path) -> None:
    import time  # noqa: PLC0415 - only here

    scope = _scope(environment)
    interpreter.of(scope)
    _read(scope)
    started = time.perf_counter()
    _read(scope)
    assert time.perf_counter() - started < 0.25  # 15 to 40 ms on a quiet machine
