"""Packages that are compiled against torch, and the build they want, read from their files; none of them is imported.

Where each says it: torchvision and torchaudio in the local part of version.py's version; flash-attn in its wheel's name (kept
in the version's local part or in direct_url.json); bitsandbytes in the names of its libraries; xformers in cpp_lib.json; vllm
in the local part of its version. Where nothing says so, the CUDA runtime that the compiled part needs gives the major version.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

from packaging.utils import canonicalize_name

from gpudoctor.facts import Companion, Unknown
from gpudoctor.probes import elf, interpreter, torch_metadata
from gpudoctor.probes.scope import Scope

PACKAGES = {
    "torchvision": "torchvision",
    "torchaudio": "torchaudio",
    "flash-attn": "flash_attn",
    "bitsandbytes": "bitsandbytes",
    "xformers": "xformers",
    "vllm": "vllm",
}
"""Distribution -> the package that it installs."""
_TEXT_LIMIT = 1 << 18
_MOST_LIBRARIES = 20


def look(scope: Scope) -> tuple[Companion, ...] | Unknown:
    """The companions in the target interpreter; empty when there are none."""
    target = interpreter.of(scope)
    if target is None:
        return ()
    if isinstance(target, Unknown):
        return target
    live = interpreter.here(scope)
    found = ((name, torch_metadata.of(name, target.site_packages, live)) for name in PACKAGES)
    return tuple(_companion(name, metadata[0], live) for name, metadata in found if metadata)


def _companion(name: str, metadata: torch_metadata.Metadata, scope: Scope) -> Companion:
    folder = os.path.join(os.path.dirname(metadata.folder), PACKAGES[name])
    stated = _stated_version(folder, scope) or metadata.version
    version = stated if stated.partition("+")[0] == metadata.version.partition("+")[0] else metadata.version
    label = " ".join((version, metadata.version, _wheel_name(metadata.folder, scope)))
    torch, cuda = _of_xformers(folder, scope) if name == "xformers" else (None, None)
    return Companion(
        name=name,
        version=version,
        wants_torch=_requirement(metadata.folder, scope) or torch or _torch_of_label(label),
        wants_cuda=_cuda_of_bitsandbytes(folder, scope) or cuda or _cuda_of_label(label) or _cuda_of_library(name, folder, scope),
        problem=_problem(folder, scope),
    )


def _stated_version(folder: str, scope: Scope) -> str | None:
    """``__version__`` of the package's version file."""
    for name in ("version.py", "_version.py", "__init__.py"):
        match = re.search(r"""^(?:__version__|version) = ["']([^"']+)["']""", _text(f"{folder}/{name}", scope), re.MULTILINE)
        if match:
            return match[1]
    return None


def _requirement(folder: str, scope: Scope) -> str | None:
    """What the metadata asks of torch: a specifier, None when it names no version."""
    for requirement in torch_metadata.requirements(folder, scope):
        if canonicalize_name(requirement.name) == "torch" and "extra" not in str(requirement.marker or ""):
            return str(requirement.specifier) or None
    return None


def _wheel_name(folder: str, scope: Scope) -> str:
    """The file name of the wheel that was installed from an address."""
    try:
        data = json.loads(_text(f"{folder}/direct_url.json", scope) or "null")
    except (ValueError, RecursionError):
        return ""
    address = data.get("url") if isinstance(data, dict) else None
    return address.rpartition("/")[2].replace("%2B", "+") if isinstance(address, str) else ""


def _torch_of_label(label: str) -> str | None:
    """+cu12torch2.5cxx11abiFALSE -> 2.5."""
    match = re.search(r"(?:torch|pt)(\d+\.\d+(?:\.\d+)?)", label)
    return match[1] if match else None


def _cuda_of_label(label: str) -> str | None:
    """+cu124 -> 12.4, +cu12torch2.5 -> 12, +cpu -> cpu."""
    match = re.search(r"[+.](?:cu(\d{2})(\d?)(?!\d)|(cpu)\b)", label)
    if match is None:
        return None
    return match[3] or (f"{match[1]}.{match[2]}" if match[2] else match[1])


def _of_xformers(folder: str, scope: Scope) -> tuple[str | None, str | None]:
    """(torch, CUDA) of cpp_lib.json, whose CUDA is major*100 + minor."""
    try:
        version = json.loads(_text(f"{folder}/cpp_lib.json", scope) or "{}")["version"]
        cuda, torch = version.get("cuda"), version.get("torch")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, None
    return (
        f"=={torch.partition('+')[0]}" if isinstance(torch, str) else None,
        f"{cuda // 100}.{cuda % 100}" if isinstance(cuda, int) and cuda else None,
    )


def _cuda_of_bitsandbytes(folder: str, scope: Scope) -> str | None:
    """Every CUDA for which it brings a library, oldest first and joined by commas: it picks the one of PyTorch's CUDA."""
    names = (re.fullmatch(r"libbitsandbytes_cuda(\d{2,3})(?:_nocublaslt)?\.so", name) for name in scope.names(folder))
    found = {(int(match[1][:-1]), int(match[1][-1])) for match in names if match}
    return ", ".join(f"{major}.{minor}" for major, minor in sorted(found)) or None


def _cuda_of_library(name: str, folder: str, scope: Scope) -> str | None:
    """The major version of the CUDA runtime that a compiled part needs; "cpu" is never concluded from its absence."""
    for path in _libraries(name, folder, scope):
        try:
            needed = elf.dynamic(path).needed
        except elf.NotElf:
            continue
        for library in needed:
            match = re.match(r"libcudart\.so\.(\d+)", library)
            if match:
                return match[1]
    return None


def _libraries(name: str, folder: str, scope: Scope) -> Iterator[str]:
    names = [entry for entry in scope.names(folder) if entry.endswith(".so")][:_MOST_LIBRARIES]
    yield from (f"{folder}/{entry}" for entry in names)
    if name == "flash-attn":
        site = os.path.dirname(folder)
        yield from (f"{site}/{entry}" for entry in scope.names(site) if entry.startswith("flash_attn_2_cuda"))


def _problem(folder: str, scope: Scope) -> str | None:
    """What is missing or empty of the package."""
    names = scope.names(folder)
    if not names:
        return f"{folder} is missing or empty"
    for entry in names:
        path = scope.path(f"{folder}/{entry}")
        if entry.endswith(".so") and path.is_file() and path.stat().st_size == 0:
            return f"{folder}/{entry} is empty"
    return None


def _text(path: str, scope: Scope) -> str:
    return scope.text(path, _TEXT_LIMIT) or ""
