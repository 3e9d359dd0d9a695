"""Copies of cuDNN and NCCL: those of the target's wheels, PyTorch's own, conda's, the system's, the toolkits', LD_LIBRARY_PATH's.

Versions are read, never asked: ``cudnnGetVersion`` through ctypes can abort the process. The order is the real file's
name, the header that lies beside the library, the text that NCCL carries in itself, the package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from gpudoctor.facts import Interpreter, LibraryCopy, Unknown
from gpudoctor.probes import interpreter, links, packages
from gpudoctor.probes.scope import Scope

SEARCH_LIMIT = 64 << 20
"""NCCL's own version text lies in its first megabytes (1.3 to 2.8 MiB in wheels 2.18 to 2.30); the rest is code for GPUs."""
_SONAME = {"cudnn": re.compile(r"libcudnn\.so\.\d+"), "nccl": re.compile(r"libnccl\.so\.\d+")}
_FILE_VERSION = re.compile(r"\.so\.(\d+\.\d+\.\d+)")
_CHUNK, _OVERLAP = 4 << 20, 64
_NCCL_TEXT = re.compile(rb"NCCL version (\d{1,4}\.\d{1,4}\.\d{1,4})(?:\+cuda(\d{1,4}))?")
_HEADERS = {"cudnn": ("cudnn_version.h", "cudnn_version_v9.h", "cudnn.h"), "nccl": ("nccl.h",)}
_MACROS = {"cudnn": ("CUDNN_MAJOR", "CUDNN_MINOR", "CUDNN_PATCHLEVEL"), "nccl": ("NCCL_MAJOR", "NCCL_MINOR", "NCCL_PATCH")}
_WHEEL = re.compile(r"nvidia_(cudnn|nccl)_cu(\d+)-([\w.]+)\.dist-info")
_CONDA = re.compile(r"(cudnn|libcudnn|nccl)-(\d[\w.]*)-[^-]+\.json")
_DEB = re.compile(r"libcudnn\d+(?:-cuda-\d+)?|libnccl2")


@dataclass(frozen=True, slots=True)
class _Package:
    name: str
    kind: str
    version: str
    cuda_major: int | None


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder in which copies may lie; ``scope`` says below which root it is meant."""

    scope: Scope
    path: str
    origin: str
    packages: tuple[_Package, ...] = ()
    headers: tuple[str, ...] = ()


def look(scope: Scope) -> tuple[LibraryCopy, ...] | Unknown:
    """Every copy of cuDNN and NCCL, PyTorch's own first, each real file once."""
    copies: dict[str, LibraryCopy] = {}
    for folder in _folders(scope):
        for kind in ("cudnn", "nccl"):
            for path in _files(folder, kind):
                real = links.real_path(folder.scope, path)
                if real is not None:
                    located = os.fspath(folder.scope.path(real))
                    copies.setdefault(located, _copy(folder, kind, path, located))
    return tuple(copies.values())


def _folders(scope: Scope) -> Iterator[_Folder]:
    target = interpreter.of(scope)
    if isinstance(target, Interpreter):
        yield from _of_environment(interpreter.here(scope), target)
    for path in (scope.environ.get("LD_LIBRARY_PATH") or "").split(":"):
        if path.startswith("/"):
            yield _Folder(scope, path.rstrip("/") or "/", "LD_LIBRARY_PATH", headers=(f"{path.rstrip('/')}/../include",))
    debs = tuple(_debs(scope))
    for path in _system_folders(scope):
        yield _Folder(scope, path, "system", debs, ("/usr/include", f"/usr/include/{os.path.basename(path)}"))
    for name in scope.names("/usr/local"):
        if re.fullmatch(r"cuda(-[\d.]+)?", name):
            for lib in _toolkit_folders(scope, f"/usr/local/{name}"):
                yield _Folder(scope, lib, "toolkit", headers=(f"/usr/local/{name}/include",))


def _of_environment(live: Scope, target: Interpreter) -> Iterator[_Folder]:
    for site in target.site_packages:
        wheels = tuple(
            _Package(f"nvidia-{m.group(1)}-cu{m.group(2)}", m.group(1), m.group(3), int(m.group(2)))
            for m in map(_WHEEL.fullmatch, live.names(site))
            if m
        )
        # from CUDA 13 on the wheels share one folder nvidia/cu13; cuDNN and NCCL have kept theirs so far
        for part in live.names(f"{site}/nvidia"):
            if part in ("cudnn", "nccl") or re.fullmatch(r"cu\d+", part):
                yield _Folder(live, f"{site}/nvidia/{part}/lib", "wheel", wheels, (f"{site}/nvidia/{part}/include",))
        yield _Folder(live, f"{site}/torch/lib", "torch")
    metadata = live.names(f"{target.prefix}/conda-meta")
    if metadata:
        conda = tuple(
            _Package(m.group(1), m.group(1).removeprefix("lib"), m.group(2), None) for m in map(_CONDA.fullmatch, metadata) if m
        )
        yield _Folder(live, f"{target.prefix}/lib", "conda", conda, (f"{target.prefix}/include",))


def _system_folders(scope: Scope) -> Iterator[str]:
    for name in scope.names("/usr/lib"):
        if name.endswith("-linux-gnu"):
            yield f"/usr/lib/{name}"
    yield from ("/usr/lib64", "/usr/local/lib")


def _toolkit_folders(scope: Scope, folder: str) -> Iterator[str]:
    yield f"{folder}/lib64"
    for target in scope.names(f"{folder}/targets"):
        yield f"{folder}/targets/{target}/lib"


def _debs(scope: Scope) -> Iterator[_Package]:
    """Installed packages of cuDNN and NCCL, from dpkg's own list."""
    installed = packages.look(scope)
    for package in () if isinstance(installed, Unknown) else installed:
        if _DEB.fullmatch(package.name) and package.state == "installed":
            cuda = re.search(r"-cuda-(\d+)$", package.name) or re.search(r"\+cuda(\d+)", package.version)
            kind = "nccl" if "nccl" in package.name else "cudnn"
            yield _Package(package.name, kind, package.version, int(cuda.group(1)) if cuda else None)


def _files(folder: _Folder, kind: str) -> list[str]:
    """The names by which the loader asks for this library; the bare link of a -dev package is none of them."""
    names = folder.scope.names(folder.path)
    return [f"{folder.path}/{name}" for name in names if _SONAME[kind].fullmatch(name)]


def _copy(folder: _Folder, kind: str, path: str, real: str) -> LibraryCopy:
    text_version, text_cuda = _nccl_text(real) if kind == "nccl" and not _header_version(folder, kind) else (None, None)
    version = _file_version(real) or (_header_version(folder, kind) if folder.origin != "system" else None) or text_version
    candidates = [package for package in folder.packages if package.kind == kind]
    package = next((p for p in candidates if version and p.version.startswith(version)), candidates[0] if candidates else None)
    if version is None and package is not None:
        version = _three(package.version)
    if version is None:
        version = _header_version(folder, kind)
    return LibraryCopy(
        kind=kind,
        version=Unknown("neither its name nor a header tells") if version is None else version,
        path=path,
        origin=folder.origin,
        package=None if package is None else package.name,
        cuda_major=text_cuda if package is None or package.cuda_major is None else package.cuda_major,
    )


def _file_version(real: str) -> str | None:
    match = _FILE_VERSION.search(os.path.basename(real))
    return match.group(1) if match else None


def _header_version(folder: _Folder, kind: str) -> str | None:
    for include in folder.headers:
        for name in _HEADERS[kind]:
            text = folder.scope.text(f"{include}/{name}", 1 << 20)
            if text is None:
                continue
            numbers = [re.search(rf"^#define\s+{macro}\s+(\d+)", text, re.MULTILINE) for macro in _MACROS[kind]]
            if all(numbers):
                return ".".join(number.group(1) for number in numbers if number)
    return None


def _nccl_text(real: str) -> tuple[str | None, int | None]:
    """("2.21.5", 12) from NCCL's own "NCCL version 2.21.5+cuda12.4", sought in the first SEARCH_LIMIT bytes of the file."""
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None, None
    try:
        for start in range(0, SEARCH_LIMIT, _CHUNK):
            # read, not mapped: a file that is cut short meanwhile would kill this process with SIGBUS
            match = _NCCL_TEXT.search(chunk := os.pread(descriptor, _CHUNK + _OVERLAP, start))
            if match:
                return match.group(1).decode("ascii"), int(match.group(2)) if match.group(2) else None
            if len(chunk) < _CHUNK:
                break
    except OSError:
        pass  # no plain file
    finally:
        os.close(descriptor)
    return None, None


def _three(version: str) -> str | None:
    match = re.match(r"\d+\.\d+\.\d+", version)
    return match.group(0) if match else None
