"""The machine as its own files tell it: release, kernel, walls around it, product, memory, user."""

from __future__ import annotations

import os
import posixpath
import re
from typing import TYPE_CHECKING

from gpudoctor.facts import System, Unknown
from gpudoctor.probes import container, kernel_release, links, users

if TYPE_CHECKING:
    from gpudoctor.probes.scope import Scope

_SHM = "/dev/shm"  # noqa: S108 - looked at, never written to
_UNLIMITED = 1 << 60  # control groups write "no limit" as a number near 2**63
_SCHEDULERS = (
    ("SLURM_JOB_ID", "slurm"),
    ("PBS_JOBID", "pbs"),
    ("LSB_JOBID", "lsf"),
    ("KUBERNETES_SERVICE_HOST", "kubernetes"),
)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(?:^|,)size=(\d{1,15})([kmgtKMGT%]?)")
_QUOTED = re.compile(r"""^(?P<quote>["']?)(?P<value>.*)(?P=quote)$""")


def look(scope: Scope) -> System:
    """Facts about the operating system. Every part that cannot be read is empty, None or Unknown; nothing is raised."""
    release = os_release(scope)
    meminfo = _meminfo(scope)
    model = _model(scope)
    return System(
        os_id=release.get("ID", ""),
        os_version=release.get("VERSION_ID", ""),
        os_name=release.get("PRETTY_NAME", ""),
        kernel=kernel_release.running(scope),
        machine=_architecture(scope),
        wsl=container.wsl(scope),
        container=container.kind(scope),
        product=_dmi(scope) or model,
        platform=_platform(scope, model or ""),
        scheduler=next((name for variable, name in _SCHEDULERS if scope.environ.get(variable)), None),
        memory_total=meminfo.get("MemTotal", Unknown("/proc/meminfo has no MemTotal")),
        memory_available=meminfo.get("MemAvailable", Unknown("/proc/meminfo has no MemAvailable")),
        memory_limit=_memory_limit(scope),
        shm_total=_shm_total(scope, meminfo.get("MemTotal")),
        cmdline=_cmdline(scope),
        user=users.current(scope),
    )


def os_release(scope: Scope) -> dict[str, str]:
    """The assignments of os-release; empty when there is none."""
    text = scope.text("/etc/os-release", 1 << 16) or scope.text("/usr/lib/os-release", 1 << 16) or ""
    pairs = (line.strip().partition("=") for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {name: _unquoted(value) for name, equals, value in pairs if equals}


def _unquoted(value: str) -> str:
    match = _QUOTED.match(value.strip())
    return match["value"] if match else value


def _architecture(scope: Scope) -> str:
    told = (scope.text("/proc/sys/kernel/arch", 64) or "").strip()
    if told or scope.live:
        return told or os.uname().machine
    for name in ("x86_64", "aarch64"):
        if links.exists(scope, f"/usr/lib/{name}-linux-gnu") or links.exists(scope, f"/lib/{name}-linux-gnu"):
            return name
    return os.uname().machine


def _dmi(scope: Scope) -> str | None:
    words = [_one_line(scope, f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")]
    return " ".join(word for word in words if word) or None


def _model(scope: Scope) -> str | None:
    model = _one_line(scope, "/proc/device-tree/model") or _one_line(scope, "/sys/firmware/devicetree/base/model")
    return model or None


def _one_line(scope: Scope, path: str) -> str:
    return (scope.text(path, 256) or "").replace("\0", " ").strip()


def _platform(scope: Scope, model: str) -> str | None:
    compatible = scope.text("/proc/device-tree/compatible", 1024) or ""
    if links.exists(scope, "/etc/nv_tegra_release") or "Jetson" in model or "nvidia,tegra" in compatible:
        return "jetson"
    return "dgx" if links.exists(scope, "/etc/dgx-release") else None


def _meminfo(scope: Scope) -> dict[str, int]:
    """Sizes of /proc/meminfo in bytes."""
    text = scope.text("/proc/meminfo", 1 << 16) or ""
    found = re.findall(r"^(MemTotal|MemAvailable):\s{0,40}(\d{1,15}) kB", text, re.MULTILINE)
    return {name: int(number) * 1024 for name, number in found}


def _memory_limit(scope: Scope) -> int | None:
    """The smallest memory limit of this process's control group and those above it, version 2 or 1."""
    limits: list[int] = []
    for line in (scope.text("/proc/self/cgroup", 1 << 16) or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            limits += _limits(scope, "/sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(scope, "/sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
    return min(limits, default=None)


def _limits(scope: Scope, mount: str, path: str, name: str) -> list[int]:
    folder, limits = posixpath.normpath("/" + path.lstrip("/")), []
    for _ in range(32):
        text = (scope.text(posixpath.join(mount, folder.lstrip("/"), name), 64) or "").strip()
        if text.isascii() and text.isdigit() and 0 < int(text) < _UNLIMITED:
            limits.append(int(text))
        if folder == "/":
            break
        folder = posixpath.dirname(folder)
    return limits


def _shm_total(scope: Scope, memory: int | None) -> int | None | Unknown:
    mounts = scope.text("/proc/self/mounts", 1 << 20) or scope.text("/proc/mounts", 1 << 20)
    if mounts is None:
        return Unknown("there is no mount table to be read")
    fields = [line.split(" ") for line in mounts.splitlines()]
    options = [field[3] for field in fields if len(field) > 3 and field[1] == _SHM]
    if not options:
        return None
    if scope.live:
        try:
            filesystem = os.statvfs(scope.path(_SHM))
        except OSError as error:
            return Unknown(f"{_SHM}: {error.strerror}")
        return filesystem.f_blocks * filesystem.f_frsize
    match = _SIZE.search(options[-1])
    if match is None or match[2] == "%":
        share = int(match[1]) if match else 50  # tmpfs takes half of the memory unless told otherwise
        return Unknown("its size depends on the memory, which is unknown") if memory is None else memory * share // 100
    return int(match[1]) * _UNITS[match[2].lower()]


def _cmdline(scope: Scope) -> str | Unknown:
    text = scope.text("/proc/cmdline", 1 << 16)
    return Unknown("/proc/cmdline cannot be read") if text is None else text.strip()
