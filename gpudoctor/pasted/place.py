"""Where a text comes from: the system, a container, the Python, its variables."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gpudoctor.facts import Interpreter, Symptom, System, Unknown, User
from gpudoctor.pasted import fields
from gpudoctor.pasted.fields import NOT_THERE, Fields

_WHY = Unknown(NOT_THERE)
_NOBODY = User("", -1, (), _WHY)
_DISTRIBUTION = re.compile(
    r"(?i)\b(ubuntu|debian|fedora|centos|rocky|almalinux|arch linux|manjaro|opensuse|rhel|red hat)\b"
    r"[^\n]{0,24}?(\d{1,2}(?:\.\d{1,2})?)?\b"
)
_UBUNTU = re.compile(r"(?i)\bubuntu[ _-]{0,2}(\d\d\.\d\d)")
_KERNEL = re.compile(r"\b([3-7]\.\d{1,2}\.\d{1,3}-[\w.-]{3,40})")
_SITE = re.compile(r"((?:/[\w.+@ -]{1,64}){1,12})/lib(?:64)?/python(3\.\d{1,2})/(?:site|dist)-packages/")
_PYTHON = re.compile(
    r"(?i)\bpython(?: version)?[ :=]{1,4}(3\.\d{1,2})|\bpython(3\.\d{1,2})\b|\bcpython-(3)(\d{1,2})|\bcp(3)(\d{1,2})\b"
)
_VARIABLE = re.compile(
    r"\b(CUDA_VISIBLE_DEVICES|LD_LIBRARY_PATH|NCCL_SOCKET_IFNAME|NCCL_P2P_DISABLE|NCCL_IB_DISABLE|PYTORCH_CUDA_ALLOC_CONF|CUDA_HOME)"
    r"['\"\]]{0,3} ?(?:=|: )[ ]?['\"]?([^\s'\";]{0,200})"
)
_CONTAINERS = (
    "clue-docker",
    "clue-container-prompt",
    "clue-pod",
    "clue-pod-words",
    "clue-container",
    "clue-image-build",
    "clue-buildkit",
    "clue-docker-gpus",
)
_WSL = {"clue-wsl", "clue-wsl-kernel", "clue-wsl-words", "clue-wsl-dxg", "wsl-symlink", "wsl-no-adapter"}


def system(text: str, described: Fields, found: Sequence[Symptom]) -> System | Unknown:
    """The operating system, WSL and the container, as far as the text tells; Unknown where it tells nothing."""
    seen = {symptom.id for symptom in found}
    os_id, version, name = _distribution(text, described, seen)
    wsl = 0 if not seen & _WSL else 1 if "clue-wsl1" in seen else 2
    container = next(("container" if clue.startswith("clue-pod") else "docker" for clue in _CONTAINERS if clue in seen), None)
    kernel = _KERNEL.search(text)
    if not (os_id or wsl or container or kernel or "clue-tegra" in seen):
        return _WHY
    return System(
        os_id=os_id,
        os_version=version,
        os_name=name,
        kernel=kernel.group(1) if kernel else "",
        machine="aarch64" if "aarch64" in text or "arm64" in text else "x86_64",
        wsl=wsl,
        container=container,
        product=None,
        platform="jetson" if "clue-tegra" in seen else None,
        scheduler=None,
        memory_total=_WHY,
        memory_available=_WHY,
        memory_limit=None,
        shm_total=_WHY,
        cmdline=_WHY,
        user=_NOBODY,
    )


def _distribution(text: str, described: Fields, seen: set[str]) -> tuple[str, str, str]:
    """(id, version, name), empty where the text names none; windows and macos are ids of ours."""
    said = fields.value(described, "os", "sys.platform", "platform", "operating system") or ""
    linux = "linux" in said.lower() or bool(_DISTRIBUTION.search(said))
    if not linux and seen & {"clue-windows-path", "clue-windows-name"} and not seen & (_WSL - {"wsl-symlink", "wsl-no-adapter"}):
        return "windows", "", "Windows"
    if not linux and seen & {
        "clue-macos",
        "clue-macos-path",
        "clue-macos-darwin",
        "clue-apple-chip",
        "clue-macos-clang",
        "clue-macos-webui",
    }:
        return "macos", "", "macOS"
    ubuntu = _UBUNTU.search(said) or _UBUNTU.search(text)
    if ubuntu:
        return "ubuntu", ubuntu.group(1), f"Ubuntu {ubuntu.group(1)}"
    named = _DISTRIBUTION.search(said) or _DISTRIBUTION.search(text)
    if named:
        return named.group(1).lower().replace(" ", "-"), named.group(2) or "", named.group(0).strip()
    return ("linux", "", "Linux") if linux else ("", "", "")


def interpreter(text: str, described: Fields) -> Interpreter | Unknown:
    """The Python by the folder of its packages in a traceback; Unknown where none shows."""
    site = _SITE.search(text)
    version = site.group(2) if site else python_version(text, described)
    if site is None or version is None:
        return _WHY
    prefix = site.group(1).strip()
    conda = bool(re.search(r"conda|mamba|/envs/", prefix))
    own = prefix not in ("/usr", "/usr/local", "")
    return Interpreter(
        path=f"{prefix}/bin/python",
        chosen_by="the text",
        version=version,
        tag=f"cp{version.replace('.', '')}",
        machine="aarch64" if "aarch64" in text else "x86_64",
        glibc=None,
        prefix=prefix,
        site_packages=(f"{prefix}/lib/python{version}/site-packages",),
        owner="conda" if conda else "pip" if own else "system",
        has_pip=True,
        project=None,
    )


def python_version(text: str, described: Fields) -> str | None:
    """Such as 3.10; None where the text does not say."""
    match = re.match(r"(3\.\d{1,2})", fields.value(described, "python version", "python") or "")
    if match:
        return match.group(1)
    found = _PYTHON.search(text)
    if found is None:
        return None
    parts = [part for part in found.groups() if part]
    return parts[0] if len(parts) == 1 else ".".join(parts)


def variables(text: str) -> tuple[tuple[str, str], ...] | Unknown:
    """Environment variables that matter, as the text sets them."""
    found = dict(_VARIABLE.findall(text))
    return tuple(sorted(found.items())) if found else _WHY
