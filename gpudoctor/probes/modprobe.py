"""Configuration that keeps NVIDIA's module, or nouveau, from being loaded: modprobe.d and the kernel's command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpudoctor.facts import ConfigLine
from gpudoctor.probes import links

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpudoctor.probes.scope import Scope

# a file hides those of the same name further right (modprobe.d(5))
FOLDERS = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")
# the driver's modules by name: nvidiafb, which Ubuntu blacklists everywhere, is not among them
_DRIVER = r"nvidia(?:[-_](?:uvm|drm|modeset|peermem|current(?:[-_](?:uvm|drm|modeset|peermem))?))?"
_LINES = re.compile(
    rf"blacklist\s+(?:{_DRIVER}|nouveau)\s*"
    rf"|alias\s+(?:{_DRIVER}|nouveau)\s+off\s*"
    rf"|install\s+(?:{_DRIVER}|nouveau)\s+(?:/usr)?/bin/(?:false|true)\b[^\n]*"
    r"|options\s+vfio[-_]pci\s+[^\n]*\bids=[^\n]*"
    rf"|softdep\s+(?:{_DRIVER}|nouveau)\s+pre:[^\n]*vfio[-_]pci[^\n]*"
)
_MODULE = re.compile(rf"{_DRIVER}|nouveau")
_BLACKLISTS = ("modprobe.blacklist", "module_blacklist", "rd.driver.blacklist", "driver.blacklist")
_GIVEN_AWAY = ("vfio-pci.ids", "vfio_pci.ids")


def lines(scope: Scope) -> tuple[ConfigLine, ...]:
    """The lines that matter, in the order in which modprobe reads them; those of the command line come last."""
    return (*_configured(scope), *_given_at_boot(scope))


def _configured(scope: Scope) -> Iterator[ConfigLine]:
    files: dict[str, str] = {}
    for folder in FOLDERS:
        for name in scope.names(folder):
            if name.endswith(".conf"):
                files.setdefault(name, f"{folder}/{name}")
    for _, path in sorted(files.items()):
        text = (scope.text(links.real_path(scope, path) or path, 1 << 20) or "").replace("\\\n", " ")
        for line in text.splitlines():
            if len(line) <= 4096 and _LINES.fullmatch(line.strip()):
                yield ConfigLine(links.printable(path), line.strip())


def _given_at_boot(scope: Scope) -> Iterator[ConfigLine]:
    for word in (scope.text("/proc/cmdline", 1 << 16) or "").split():
        name, _, value = word.partition("=")
        banned = name in _BLACKLISTS and any(_MODULE.fullmatch(module) for module in value.split(","))
        if banned or name in _GIVEN_AWAY:
            yield ConfigLine("/proc/cmdline", word[:4096])
