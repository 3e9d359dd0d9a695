"""Whether apt can work here, and from which archive it would take a driver: what setup must know before it begins."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpudoctor.probes.packages import STATUS
from gpudoctor.probes.scope import Scope

_LIMIT = 64 << 20
_HALF_WAY = re.compile(
    rb"^Package: ([^\n]{1,200})\nStatus: \S+ \S+ (?:half-installed|half-configured|unpacked|triggers-awaited|triggers-pending)$",
    re.MULTILINE,
)
_UPDATES = "/var/lib/dpkg/updates"
_SOURCES = "/etc/apt/sources.list.d"
_PREFERENCES = "/etc/apt/preferences.d"
_NVIDIA = re.compile(r"^[^#]*developer\.download\.nvidia\.com/compute/cuda/repos", re.MULTILINE)
_LOCAL_NVIDIA = re.compile(r"^(?:cuda|nvidia-driver-local-repo)-.*local")
_PIN = re.compile(r"^Pin:\s*(?:release\s.*NVIDIA|origin\s.*nvidia)", re.MULTILINE | re.IGNORECASE)
_PRIORITY = re.compile(r"^Pin-Priority:\s*(-?\d+)", re.MULTILINE)
_UBUNTU_PRIORITY = 500
"""What apt gives an archive that nobody pinned (apt_preferences(5))."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """What apt will meet."""

    interrupted: tuple[str, ...] = ()
    """Packages of which the installation was cut off half-way."""
    nvidia_archive: str | None = None
    """The file that sets up NVIDIA's archive; None where none does."""
    driver_pinned: bool = False
    """Preferences put that archive's driver packages below Ubuntu's."""


def look(scope: Scope) -> Readiness:
    """Files below /etc/apt and /var/lib/dpkg; nothing is raised, and what cannot be read counts as not there."""
    return Readiness(_interrupted(scope), _nvidia_archive(scope), _pinned(scope))


def _interrupted(scope: Scope) -> tuple[str, ...]:
    data = scope.data(STATUS, _LIMIT) or b""
    names = [match[1].decode("utf-8", "replace") for match in _HALF_WAY.finditer(data)]
    if not names and any(name.isdigit() for name in scope.names(_UPDATES)):
        names = ["dpkg's own list of packages"]  # "dpkg was interrupted, you must manually run 'dpkg --configure -a'"
    return tuple(names)


def _nvidia_archive(scope: Scope) -> str | None:
    for path in ("/etc/apt/sources.list", *(f"{_SOURCES}/{name}" for name in scope.names(_SOURCES))):
        name = path.rpartition("/")[2]
        if not path.endswith((".list", ".sources")):
            continue
        if _NVIDIA.search(scope.text(path, 1 << 20) or "") or _LOCAL_NVIDIA.match(name):
            return path
    return None


def _pinned(scope: Scope) -> bool:
    """A preference for NVIDIA's archive with a priority below Ubuntu's: somebody has seen to it."""
    for name in scope.names(_PREFERENCES):
        for stanza in re.split(r"\n\s*\n", scope.text(f"{_PREFERENCES}/{name}", 1 << 18) or ""):
            priority = _PRIORITY.search(stanza)
            if _PIN.search(stanza) and "nvidia-driver" in stanza and priority and int(priority[1]) < _UBUNTU_PRIORITY:
                return True
    return False
