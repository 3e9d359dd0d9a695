"""What the next start will load: the kernel that GRUB chooses, its initial RAM disk, and settings that are newer than that.

Only files are read, as any user may; nothing of the running driver is asked, so the facts are those of the machine as it will be.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from gpudoctor.facts import ConfigLine, NextBoot, Unknown
from gpudoctor.probes import grub, kernel_release, links

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpudoctor.probes.scope import Scope

BOOT = "/boot"
SETTINGS = "/etc/modprobe.d"
# what makes one: initramfs-tools (Ubuntu, Debian), dracut
_MAKERS = ("/usr/sbin/update-initramfs", "/usr/bin/dracut", "/usr/sbin/dracut")
_KERNEL = re.compile(r"vmlinu[zx]-(\d.*)")
_NO_KERNEL = (".old", ".bak", ".sig", ".hmac", ".dpkg-new", ".dpkg-tmp", ".dpkg-bak", ".efi.signed")
_INITRD = re.compile(r"(?:initrd\.img-|initramfs-|initrd-)\d.*")
_MATTERS = re.compile(r"\s*(?:blacklist|alias|install|options|softdep|remove)\s+(?:nvidia(?!fb)|nouveau|vfio[-_]pci)\S*.*")
_MOST_FILES, _MOST_LINES = 200, 8
_FILE_LIMIT = 1 << 16
_LONGEST_LINE = 300


def look(scope: Scope) -> NextBoot:
    """Facts about the next start; what cannot be read is Unknown, nothing is raised."""
    names = scope.names(BOOT)
    start = grub.next_start(scope, _kernels(names))
    if isinstance(start.kernel, Unknown):
        return NextBoot(start.kernel, "", None, start.kernel, start.kernel, start.kernel)
    disk = _disk(scope, start.kernel)
    return NextBoot(
        kernel=links.printable(start.kernel),
        chosen_by=start.chosen_by,
        entry=start.setting,
        initrd=links.printable(disk) if isinstance(disk, str) else disk,
        needs_initrd=_needs_one(scope, names, start.kernel),
        newer_settings=tuple(_newer(scope, disk)) if isinstance(disk, str) else (),
    )


def _kernels(names: tuple[str, ...]) -> list[str]:
    """The releases that have an image in /boot, the newest last."""
    found = {match[1] for name in names if not name.endswith(_NO_KERNEL) and (match := _KERNEL.fullmatch(name))}
    return sorted(found, key=kernel_release.order)


def _disk(scope: Scope, release: str) -> str | None | Unknown:
    """The initial RAM disk of that kernel, as Ubuntu and Debian name it, or as dracut does."""
    for path in (f"{BOOT}/initrd.img-{release}", f"{BOOT}/initramfs-{release}.img"):
        status = _status(scope, path)
        if isinstance(status, Unknown):
            return status
        if status is not None and stat.S_ISREG(status.st_mode) and status.st_size:
            return path
    return None


def _needs_one(scope: Scope, names: tuple[str, ...], release: str) -> bool:
    if "GRUB_FORCE_PARTUUID" in grub.settings(scope):
        return False
    if any(_INITRD.fullmatch(name) for name in names):
        return True
    # a kernel that runs without one has started without it (built with all that it needs)
    return release != kernel_release.running(scope) and any(links.exists(scope, path) for path in _MAKERS)


def _newer(scope: Scope, disk: str) -> Iterator[ConfigLine]:
    """The lines that matter in files that were written after ``disk``."""
    made = _status(scope, disk)
    for name in [name for name in scope.names(SETTINGS) if name.endswith(".conf")][:_MOST_FILES]:
        path = f"{SETTINGS}/{name}"
        written = _status(scope, path)
        if isinstance(made, os.stat_result) and isinstance(written, os.stat_result) and written.st_mtime > made.st_mtime:
            yield from _lines(scope, path)


def _lines(scope: Scope, path: str) -> Iterator[ConfigLine]:
    text = scope.text(links.real_path(scope, path) or path, _FILE_LIMIT) or ""
    mine = [line.strip() for line in text.splitlines() if len(line) <= _LONGEST_LINE and _MATTERS.fullmatch(line)]
    return (ConfigLine(links.printable(path), line) for line in mine[:_MOST_LINES])


def _status(scope: Scope, path: str) -> os.stat_result | None | Unknown:
    """What the file system says of a file, links followed as the machine would; None where there is no file."""
    found = links.real_path(scope, path)
    if found is None:
        return None
    try:
        return os.stat(scope.path(found))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        return Unknown(f"{path} cannot be looked at: {error.strerror or error}")
