"""The distribution's packages that matter here, from dpkg's status file (dpkg itself is not asked: it takes ten times as long)."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from gpudoctor.facts import Package, Unknown

if TYPE_CHECKING:
    from gpudoctor.probes.scope import Scope

STATUS = "/var/lib/dpkg/status"
_LIMIT = 64 << 20
_FIELD_LIMIT = 256
_STANZA_LIMIT = 64 << 10  # a list of thousands of configuration files fits; an unending one must not be searched again and again
_MOST = 5000
_NAMES = re.compile(
    rb"^Package: ((?:nvidia|libnvidia|xserver-xorg-video-nvidia|cuda|libcuda|cudnn|libcudnn|libnccl|docker|datacenter-gpu-manager"
    rb"|linux-modules-nvidia|linux-objects-nvidia|linux-signatures-nvidia|linux-image|linux-headers|nvlsm)[\w.+-]*"
    rb"|linux-(?:generic|lowlatency|virtual|aws|azure|gcp|gke|oracle|ibm|oem|kvm|nvidia|raspi)[\w.+-]*"
    rb"|dkms|mokutil|shim-signed|ubuntu-drivers-common|unattended-upgrades)$",
    re.MULTILINE,
)
_VERSION = re.compile(rb"^Version: (.+)$", re.MULTILINE)
_STATUS = re.compile(rb"^Status: (\S+) \S+ (\S+)$", re.MULTILINE)


def look(scope: Scope) -> tuple[Package, ...] | Unknown:
    """Installed packages and those of which only the configuration is left, in the file's order (dpkg sorts it by name)."""
    data = scope.data(STATUS, _LIMIT)
    if data is None:
        return Unknown("this machine has no dpkg")
    matches = itertools.islice(_NAMES.finditer(data), _MOST)
    return tuple(package for match in matches if (package := _package(data, match)) is not None)


def _package(data: bytes, match: re.Match[bytes]) -> Package | None:
    longest = match.start() + _STANZA_LIMIT
    ends = (data.find(mark, match.end(), longest) for mark in (b"\n\n", b"\nPackage: "))
    stanza = data[match.start() : min((end for end in ends if end >= 0), default=longest)]
    status, version = _STATUS.search(stanza), _VERSION.search(stanza)
    if status is None or status[2] == b"not-installed":
        return None
    return Package(
        name=_text(match[1]),
        version=_text(version[1]) if version else "",
        held=status[1] == b"hold",
        state=_text(status[2]),
    )


def _text(data: bytes) -> str:
    return data[:_FIELD_LIMIT].decode("utf-8", "replace").strip()
