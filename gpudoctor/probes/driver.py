"""The NVIDIA driver as its files tell it; the driver itself is not touched."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpudoctor.facts import ConfigLine, Driver, Unknown
from gpudoctor.probes import device_nodes, driver_libraries, links, packages, services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpudoctor.probes.scope import Scope

_PROC = "/proc/driver/nvidia/version"
_MODULE = "/sys/module/nvidia"
_VERSION = re.compile(r"Kernel Module(?: for \S{1,32})?\s{1,8}(\d{2,4}\.[\d.]{1,16})")
_CDI_FOLDERS = ("/etc/cdi", "/run/cdi", "/var/run/cdi")
_CDI_LIBRARY = re.compile(r"/lib(?:nvidia-ml|cuda)\.so\.(\d{2,4}\.[\d.]{1,12}\d)")
_PROGRAMS = ("/usr/bin", "/usr/local/bin", "/bin", "/usr/local/nvidia/toolkit")


def look(scope: Scope) -> Driver:
    """Facts about the driver; what cannot be read is Unknown, nothing is raised."""
    line = _version_line(scope)
    version = _module_version(scope, line)
    return Driver(
        module_version=version,
        module_flavour=_flavour(scope, version, line),
        version_line=line,
        libraries=driver_libraries.look(scope),
        packages=packages.look(scope),
        runfile=links.exists(scope, "/usr/bin/nvidia-uninstall"),
        prime=(scope.text("/etc/prime-discrete", 64) or "").strip() or None,
        services=services.look(scope),
        nodes=device_nodes.look(scope),
        container_toolkit=any(_program(scope, name) for name in ("nvidia-ctk", "nvidia-container-runtime")),
        docker=_program(scope, "docker", "/snap/bin"),
        cdi=tuple(_cdi(scope)),
    )


def _version_line(scope: Scope) -> str | None:
    text = scope.text(_PROC, 4096) or ""
    return next((line.strip()[:300] for line in text.splitlines() if line.startswith("NVRM")), None)


def _module_version(scope: Scope, line: str | None) -> str | None | Unknown:
    told = (scope.text(f"{_MODULE}/version", 64) or "").strip()
    if told:
        return told
    match = _VERSION.search(line or "")
    if match:
        return match[1]
    if line is not None:
        return Unknown(f"{_PROC} names no version")
    if links.exists(scope, _MODULE):
        return Unknown("the module is there and its version cannot be read")
    if links.exists(scope, "/sys/module") or links.exists(scope, "/proc/modules"):
        return None
    return Unknown("neither /sys/module nor /proc/modules can be read")


def _flavour(scope: Scope, version: str | None | Unknown, line: str | None) -> str | None | Unknown:
    if version is None:
        return None
    if line is not None:
        return "open" if "Open Kernel Module" in line else "proprietary"
    taint = scope.text(f"{_MODULE}/taint", 16)
    if taint is None or not taint.strip():
        return Unknown(f"{_PROC} cannot be read")
    return "proprietary" if "P" in taint else "open"  # P: a licence that the kernel does not accept as free


def _program(scope: Scope, name: str, *more: str) -> str | None:
    if scope.live:
        return scope.which(name) or _first(scope, name, *more)
    return _first(scope, name, *_PROGRAMS, *more)


def _first(scope: Scope, name: str, *places: str) -> str | None:
    return next((f"{folder}/{name}" for folder in places if links.exists(scope, f"{folder}/{name}")), None)


def _cdi(scope: Scope) -> Iterator[ConfigLine]:
    """The driver version that each specification of NVIDIA devices was generated for."""
    seen: set[str] = set()
    for folder in _CDI_FOLDERS:
        real = links.real_path(scope, folder)
        if real is None or real in seen:
            continue
        seen.add(real)
        for name in scope.names(real):
            if "nvidia" in name and name.endswith((".yaml", ".yml", ".json")):
                match = _CDI_LIBRARY.search(scope.text(f"{real}/{name}", 1 << 20) or "")
                if match:
                    yield ConfigLine(links.printable(f"{folder}/{name}"), match[1])
