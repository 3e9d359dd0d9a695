"""CUDA toolkits: nvcc on PATH, CUDA_HOME, CUDA_PATH, /usr/local/cuda*, and Ubuntu's own in /usr/lib/nvidia-cuda-toolkit.

Pip's PyTorch needs none of them. What they are matters to whoever compiles extensions, and where their libraries shadow PyTorch's.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from gpudoctor.facts import Toolkit, Unknown
from gpudoctor.probes import child, interpreter, links
from gpudoctor.probes.scope import COMMAND_DEADLINE, Scope

UBUNTU = "/usr/lib/nvidia-cuda-toolkit"
_SMALL = 64 << 10
_RELEASE = re.compile(r"release (\d+\.\d+), V(\d+(?:\.\d+)+)")
_JSON_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)*")
_TXT_VERSION = re.compile(r"CUDA Version (\d+\.\d+(?:\.\d+)*)")
_CUDA_H = re.compile(r"^#define\s+CUDA_VERSION\s+(\d+)", re.MULTILINE)
_GNUC = re.compile(r"^#\s*if\s+__GNUC__\s*>\s*(\d+)", re.MULTILINE)
_EXEC = re.compile(r"(/[^\s\"']+)/bin/nvcc\b")


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder that may hold a toolkit, why we look there, and the nvcc by which it was found, if it was."""

    folder: str
    found_by: str
    nvcc: str | None = None


def look(scope: Scope) -> tuple[Toolkit, ...] | Unknown:
    """Every toolkit on the machine, the one whose nvcc the user's shell would run first."""
    until = time.monotonic() + scope.within(COMMAND_DEADLINE)
    places: dict[str, list[_Place]] = {}
    for place in _places(scope):
        places.setdefault(links.real_path(scope, place.folder) or place.folder, []).append(place)
    found = (_toolkit(scope, folder, tuple(reasons), until) for folder, reasons in places.items())
    return tuple(toolkit for toolkit in found if toolkit is not None)


def _places(scope: Scope) -> Iterator[_Place]:
    nvcc = scope.which("nvcc")
    if nvcc is not None:
        yield _Place(_home_of(interpreter.here(scope), nvcc), "PATH", nvcc)
    for name in ("CUDA_HOME", "CUDA_PATH"):
        value = scope.environ.get(name)
        if value and value.startswith("/"):
            yield _Place(value.rstrip("/") or "/", name)
    if "cuda" in scope.names("/usr/local"):
        yield _Place("/usr/local/cuda", "/usr/local/cuda")
    for name in scope.names("/usr/local"):
        if re.fullmatch(r"cuda-\d+(\.\d+)?", name):
            yield _Place(f"/usr/local/{name}", "/usr/local")
    if links.is_folder(scope, UBUNTU):
        yield _Place(UBUNTU, UBUNTU)


def _home_of(live: Scope, nvcc: str) -> str:
    """The toolkit's folder for an nvcc; a wrapper script (Ubuntu's, a site's own) is followed to the one that it starts."""
    real = os.path.realpath(nvcc)
    script = live.data(real, 4096) or b""
    if script.startswith(b"#!"):
        match = _EXEC.search(script.decode("utf-8", "replace"))
        if match:
            real = os.path.realpath(f"{match.group(1)}/bin/nvcc")
    return os.path.dirname(os.path.dirname(real)) or "/"


def _toolkit(scope: Scope, folder: str, places: tuple[_Place, ...], until: float) -> Toolkit | None:
    nvcc = next((place.nvcc for place in places if place.nvcc), None) or _nvcc_in(scope, folder)
    answer, silence = _ask(scope, nvcc, until)
    filed, damage = _filed_version(scope, folder)
    full = answer or filed
    if full is None and nvcc is None and damage is None:
        return None  # a folder of libraries or a left-over, no toolkit
    gcc_max = _gcc_max(scope, folder)
    return Toolkit(
        path=folder,
        nvcc=nvcc,
        version=Unknown("neither nvcc nor its files tell") if full is None else ".".join(full.split(".")[:2]),
        full_version=Unknown("neither nvcc nor its files tell") if full is None else full,
        found_by=tuple(dict.fromkeys(place.found_by for place in places)),
        origin=_origin(scope, folder),
        gcc_max=Unknown("no crt/host_config.h that tells") if gcc_max is None else gcc_max,
        problem=damage or silence,
    )


def _nvcc_in(scope: Scope, folder: str) -> str | None:
    path = f"{folder.rstrip('/')}/bin/nvcc"
    return path if os.access(scope.path(path), os.X_OK) else None


def _ask(scope: Scope, nvcc: str | None, until: float) -> tuple[str | None, str | None]:
    """(full version by ``nvcc --version``, what was wrong with its answer). Below another root nothing of that root is started."""
    remaining = until - time.monotonic()
    if nvcc is None or not (scope.live or nvcc == scope.which("nvcc")):
        return None, None
    if remaining <= 0:
        return None, f"{nvcc} was not asked: others took all the time"
    try:
        answer = scope.run(nvcc, "--version", deadline=remaining)
    except child.NotStarted as error:
        return None, f"nvcc cannot be started: {error}"
    match = _RELEASE.search(answer.stdout)
    if match:
        return match.group(2), None
    if answer.hung:
        return None, f"{nvcc} --version gave no answer in time"
    how = f"ended by {answer.signal}" if answer.signal else f"exit code {answer.exit_code}"
    return None, f"{nvcc} --version told no version ({how})"


def _filed_version(scope: Scope, folder: str) -> tuple[str | None, str | None]:
    """(full version by the toolkit's files, what is wrong with them)."""
    version, damage = _version_json(scope, f"{folder}/version.json")
    if version is None:
        match = _TXT_VERSION.search(scope.text(f"{folder}/version.txt", _SMALL) or "")
        version = match.group(1) if match else _cuda_h(scope, folder)
    return version, damage


def _version_json(scope: Scope, path: str) -> tuple[str | None, str | None]:
    try:
        status = os.stat(scope.path(path))
    except OSError:
        return None, None
    if not stat.S_ISREG(status.st_mode):
        return None, f"{path} is a folder" if stat.S_ISDIR(status.st_mode) else f"{path} is no plain file"
    if status.st_size > _SMALL:
        return None, f"{path} is {status.st_size} bytes long; a toolkit's has a few thousand"
    data = scope.data(path, _SMALL)
    if data is None:
        return None, f"{path} cannot be read"
    try:
        version = json.loads(data)["cuda"]["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, f"{path} names no CUDA version"
    if isinstance(version, str) and _JSON_VERSION.fullmatch(version):
        return version, None
    return None, f"{path} names no CUDA version"


def _cuda_h(scope: Scope, folder: str) -> str | None:
    for path in _headers(scope, folder, "cuda.h"):
        match = _CUDA_H.search(scope.text(path) or "")
        if match:
            number = int(match.group(1))
            return f"{number // 1000}.{number % 1000 // 10}"
    return None


def _gcc_max(scope: Scope, folder: str) -> int | None:
    for path in _headers(scope, folder, "crt/host_config.h"):
        limits = _GNUC.findall(scope.text(path, 1 << 20) or "")
        if limits:
            return max(int(limit) for limit in limits)
    return None


def _headers(scope: Scope, folder: str, name: str) -> Iterator[str]:
    """Where a toolkit's header may lie. Ubuntu's package puts them in /usr/include, conda's below targets."""
    yield f"{folder}/include/{name}"
    for target in scope.names(f"{folder}/targets"):
        yield f"{folder}/targets/{target}/include/{name}"
    if folder == UBUNTU:
        yield f"/usr/include/{name}"


def _origin(scope: Scope, folder: str) -> str:
    if folder in (UBUNTU, "/usr"):
        return "ubuntu"
    if links.is_folder(scope, f"{folder}/conda-meta"):
        return "conda"
    if "/site-packages/" in folder or "/dist-packages/" in folder:
        return "pip"
    if folder.startswith(("/usr/local/cuda", "/opt/nvidia")):
        return "nvidia"
    return "other"
