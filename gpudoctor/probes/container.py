"""Which walls are around this process: a container of some kind, or Windows Subsystem for Linux."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpudoctor.probes import links

if TYPE_CHECKING:
    from gpudoctor.probes.scope import Scope

_KINDS = ("docker", "podman", "kubernetes", "lxc", "systemd-nspawn", "apptainer")
# what the control group of process 1 is called inside each kind
_CGROUPS = (
    (re.compile(r"kubepods"), "kubernetes"),
    (re.compile(r"/docker[/-]"), "docker"),
    (re.compile(r"libpod"), "podman"),
    (re.compile(r"/lxc(?:\.payload)?[/.]"), "lxc"),
    (re.compile(r"/machine\.slice/.{0,200}nspawn"), "systemd-nspawn"),
)


def kind(scope: Scope) -> str | None:
    """docker, podman, kubernetes, lxc, systemd-nspawn, apptainer, "container" when only that is known, None outside.

    A virtual machine whose disk was made from an image keeps its /.dockerenv; nothing tells that from a container for
    certain, so it stays "docker". Sources: systemd's CONTAINER_INTERFACE, the marker files of each runtime.
    """
    environ = scope.environ
    if "APPTAINER_CONTAINER" in environ or "SINGULARITY_CONTAINER" in environ or links.exists(scope, "/.singularity.d"):
        return "apptainer"
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    cgroup = scope.text("/proc/1/cgroup", 1 << 16) or ""
    by_cgroup = next((name for pattern, name in _CGROUPS if pattern.search(cgroup)), None)
    if by_cgroup == "kubernetes":
        return by_cgroup
    if links.exists(scope, "/run/.containerenv"):
        return "podman"
    if links.exists(scope, "/.dockerenv"):
        return "docker"
    return by_cgroup or _told_by_manager(scope)


def _told_by_manager(scope: Scope) -> str | None:
    """What the container manager says of itself: /run/systemd/container, or ``container=`` of process 1."""
    told = (scope.text("/run/systemd/container", 64) or "").strip()
    if not told:
        for item in (scope.text("/proc/1/environ", 1 << 16) or "").split("\0"):
            name, _, value = item.partition("=")
            told = value.strip() if name == "container" else told
    if not told or told == "wsl":
        return None
    return next((name for name in _KINDS if told.startswith(name)), "container")


def wsl(scope: Scope) -> int:
    """0, or the version of Windows Subsystem for Linux (1 or 2)."""
    version = (scope.text("/proc/version", 1024) or "").lower()
    if links.exists(scope, "/dev/dxg"):
        return 2
    if "microsoft" in version:
        # WSL 1 is no Linux kernel: it claims to be "4.4.0-<Windows build>-Microsoft"
        return 1 if "version 4.4.0-" in version and "standard" not in version else 2
    return 2 if not version and "WSL_INTEROP" in scope.environ else 0
