"""Recorded PyTorch installs and environments to put them in. README.md beside this file says how to use them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.trees.small_elf import small_elf

HERE = Path(__file__).parent
TREES = tuple(sorted(path.stem for path in HERE.glob("torch-*.json")))
_PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"


def recorded(tree: str) -> dict[str, Any]:
    """The recording as it is on disk: files, libraries, and what was known of the original."""
    data: dict[str, Any] = json.loads((HERE / f"{tree}.json").read_text())
    return data


def install(
    tree: str,
    site_packages: Path,
    *,
    version: str | None = None,
    cuda: str | None = None,
    sm: Sequence[str] | None = None,
    local: str | None = None,
) -> Path:
    """Put a recorded PyTorch into a site-packages folder; returns its torch folder.

    Where asked it becomes another version, CUDA or arch list.
    """
    data = recorded(tree)
    _remove_torch(site_packages)
    old_version, old_cuda = data["version"].partition("+")[0], data["cuda"]
    is_cpu = old_cuda is None
    local = local if local is not None else ("cpu" if is_cpu else None)
    new_version, new_cuda = version or old_version, cuda or old_cuda
    stated = f"{new_version}+{local or ('cu' + str(new_cuda).replace('.', ''))}"
    metadata = f"torch-{new_version}" + (f"+{local}" if local else "") + ".dist-info"
    for name, text in data["files"].items():
        written = text
        if name == "torch/version.py":
            written = text.replace(data["version"], stated).replace(f"'{old_cuda}'", f"'{new_cuda}'")
        elif name.startswith("torch-"):
            name = f"{metadata}/{name.partition('/')[2]}"  # noqa: PLW2901 - the folder bears the version
            written = re.sub(r"^Version: .*$", f"Version: {metadata[6:-10]}", text, flags=re.MULTILINE)
            written = re.sub(r"^torch-[^/]*\.dist-info/", f"{metadata}/", written, flags=re.MULTILINE)
        _write(site_packages / name, written.encode())
    for name, parts in data["elf"].items():
        _write(site_packages / name, _library(name, parts, sm))
    _write(site_packages / "torch/__pycache__/__init__.cpython-310.pyc", b"\0")
    _write(site_packages / "torch/__init__.py", _start(data["preloads"]).encode())
    behaviour = {
        "available": False,
        "nccl": data["facts"]["nccl_built_in"],
        "arch_list": _flag_names(data, sm),
        "cudnn": _cudnn_number(data["facts"]["cudnn_built_for"]),
    }
    _write(site_packages / "torch/behaviour.json", json.dumps(behaviour).encode())
    return site_packages / "torch"


def importable(site_packages: Path, *, behaviour: Mapping[str, Any]) -> None:
    """Say how ``import torch`` of the installed tree behaves; without a tree, a bare torch 2.5.1+cu124 is made."""
    folder = site_packages / "torch"
    if not (folder / "version.py").exists():
        _write(folder / "version.py", b"__version__ = '2.5.1+cu124'\ncuda = '12.4'\nhip = None\ngit_version = 'a8d6afb'\n")
        _write(folder / "__init__.py", _start({}).encode())
    path = folder / "behaviour.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    _write(path, json.dumps({**before, **behaviour}).encode())


def site_packages(python: str | Path) -> Path:
    """The site-packages folder of an environment made here."""
    return Path(python).parent.parent / "lib" / _PYTHON / "site-packages"


def make_environment(folder: Path, *, owner: str = "pip") -> Path:
    """A virtual environment of the running Python with the marks of its owner; returns its bin/python, which really runs.

    ``owner`` is pip, uv, conda, pixi, poetry or system (a Python of its own, protected as PEP 668 says).
    """
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    site = folder / "lib" / _PYTHON / "site-packages"
    site.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    if owner == "system":
        _own_base(folder, base, python)
    else:
        python.symlink_to(base)
        uv = "uv = 0.8.0\n" if owner == "uv" else ""
        version = ".".join(str(part) for part in sys.version_info[:3])
        text = f"home = {base.parent}\ninclude-system-site-packages = false\n{uv}version = {version}\n"
        (folder / "pyvenv.cfg").write_text(text)
    for name in ("python3", _PYTHON):
        (folder / "bin" / name).symlink_to("python")
    if owner in ("pip", "conda", "system"):
        _write(site / "pip/__init__.py", b"")
        _write(site / "pip-24.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: pip\nVersion: 24.0\n")
    _marks(folder, owner)
    return python


def _marks(folder: Path, owner: str) -> None:
    """The files by which conda, pixi, uv and poetry are known."""
    if owner in ("conda", "pixi"):
        _write(folder / "conda-meta/history", b"")
    if owner == "pixi":
        _write(folder / "conda-meta/pixi", b"{}")
        if folder.parent.name == "envs" and folder.parent.parent.name == ".pixi":
            text = b'[workspace]\nname = "llama"\nchannels = ["conda-forge"]\nplatforms = ["linux-64"]\n'
            _write(folder.parents[2] / "pixi.toml", text)
    if owner in ("uv", "poetry") and folder.name == ".venv":
        text = b'[project]\nname = "llama"\nversion = "0.1"\n' if owner == "uv" else b'[tool.poetry]\nname = "llama"\n'
        _write(folder.parent / "pyproject.toml", text)
        _write(folder.parent / f"{owner}.lock", b"")


def _own_base(folder: Path, base: Path, python: Path) -> None:
    """A Python that is no virtual environment: its own executable, its library as links."""
    try:
        os.link(base, python)
    except OSError:
        shutil.copy2(base, python)
    library = folder / "lib" / _PYTHON
    for entry in (base.parent.parent / "lib" / _PYTHON).iterdir():
        if entry.name not in ("site-packages", "EXTERNALLY-MANAGED"):
            (library / entry.name).symlink_to(entry)
    for entry in (base.parent.parent / "lib").glob("libpython*"):
        (folder / "lib" / entry.name).symlink_to(entry)
    (library / "EXTERNALLY-MANAGED").write_text("[externally-managed]\nError=This Python belongs to the system.\n")


def _library(name: str, parts: Mapping[str, Any], sm: Sequence[str] | None) -> bytes:
    sections = {}
    flags = _flags(sm) if sm is not None else parts.get("flags")
    if "flags" in parts or (sm is not None and name.endswith("/libtorch_cuda.so")):
        sections[".rodata"] = b"before\0" + str(flags).encode() + b"\0after\0"
    if parts.get("exports"):
        sections[".dynstr"] = b"\0".join(export.encode() for export in parts["exports"]) + b"\0"
    return small_elf(
        soname=parts.get("soname"),
        needed=parts.get("needed", ()),
        rpath=parts.get("rpath"),
        runpath=parts.get("runpath"),
        sections=sections,
    )


def _flags(sm: Sequence[str]) -> str:
    """What nvcc is given for these compute capabilities: "8.9", "9.0a", "12.0+PTX"."""
    flags = []
    for capability in sm:
        number = capability.removesuffix("+PTX").replace(".", "")
        flags.append(f"-gencode;arch=compute_{number},code=sm_{number}")
        if capability.endswith("+PTX"):
            flags.append(f"-gencode;arch=compute_{number},code=compute_{number}")
    return ";".join(flags)


def _flag_names(data: Mapping[str, Any], sm: Sequence[str] | None) -> list[str]:
    return ["sm_" + capability.removesuffix("+PTX").replace(".", "") for capability in (sm or data["facts"]["sm"])]


def _cudnn_number(version: str | None) -> int | None:
    """As cudnnGetVersion counts: 8.9.2 is 8902, 9.1.0 is 90100."""
    if version is None:
        return None
    major, minor, patch = (int(part) for part in version.split("."))
    return major * (10000 if major >= 9 else 1000) + minor * 100 + patch


def _start(preloads: Mapping[str, Any]) -> str:
    """torch/__init__.py: the stand-in, followed by what the recorded release opens by path, in words that are never run."""
    text = (HERE / "stand_in.py").read_text()
    if not preloads:
        return text
    lines = ["", "", "def _opened_by_path(_maps):"]
    if preloads["condition"]:
        lines += [f'    if "{preloads["condition"]}" not in _maps:', "        return"]
        lines += [f'    _opened("{folder}", "{pattern}")' for folder, pattern in preloads["always"]]
        lines += [] if preloads["required"] else ["    _preload_cuda_deps(required=False)"]
    if preloads["fallback"] != preloads["always"]:
        lines += ["    _fallback = {"]
        lines += [f'        "{folder}": "{pattern}",' for folder, pattern in preloads["fallback"]]
        lines += ["    }"]
    return text + "\n".join([*lines, "    return", ""])


def _remove_torch(site_packages: Path) -> None:
    shutil.rmtree(site_packages / "torch", ignore_errors=True)
    for folder in site_packages.glob("torch-*.dist-info"):
        shutil.rmtree(folder)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
