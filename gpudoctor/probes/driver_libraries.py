"""The files that answer to libcuda.so.1 and libnvidia-ml.so.1, in the order in which the loader meets them.

The order is that of ld.so(8) for a program without a run path: LD_LIBRARY_PATH, the folders of ld.so.conf, the default
ones. Empty files and stubs count: they are what breaks CUDA in images.
"""

from __future__ import annotations

import fnmatch
import itertools
import posixpath
import re
from typing import TYPE_CHECKING

from gpudoctor.facts import LibraryFile
from gpudoctor.probes import links

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpudoctor.probes.scope import Scope

SONAMES = ("libcuda.so.1", "libnvidia-ml.so.1")
WSL = "/usr/lib/wsl/lib"
_MULTIARCH = tuple(f"{base}/{arch}-linux-gnu" for arch in ("x86_64", "aarch64") for base in ("/lib", "/usr/lib"))
_DEFAULT = (*_MULTIARCH, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
_FOLDERS_LIMIT = 200
_INCLUDES_LIMIT = 100
_VERSION = re.compile(r"\.so\.(\d{2,4}\.[\d.]{1,12})$")  # Jetson's libcuda.so.1.1 names no driver version
_ELF_32_BIT = b"\x7fELF\x01"


def look(scope: Scope) -> tuple[LibraryFile, ...]:
    """Per soname, the loader's choice first; each folder once, however many links lead to it."""
    folders = tuple(_distinct(scope))
    return tuple(
        file for soname in SONAMES for folder, origin in folders if (file := _file(scope, soname, folder, origin)) is not None
    )


def folders(scope: Scope) -> Iterator[tuple[str, str]]:
    """Where the loader looks, in its order: (folder, origin)."""
    for entry in re.split("[:;]", scope.environ.get("LD_LIBRARY_PATH", "")):
        if entry.startswith("/"):
            yield posixpath.normpath(entry), "LD_LIBRARY_PATH"
    for folder in itertools.islice(_configured(scope, "/etc/ld.so.conf", set()), _FOLDERS_LIMIT):
        yield folder, "wsl" if folder == WSL else "default" if folder in _DEFAULT else "ld.so.conf"
    for folder in _DEFAULT:
        yield folder, "default"
    yield WSL, "wsl"


def _distinct(scope: Scope) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for count, (folder, origin) in enumerate(folders(scope)):
        real = links.real_path(scope, folder)
        if real is not None and real not in seen and count < _FOLDERS_LIMIT:
            seen.add(real)
            yield folder, origin


def _configured(scope: Scope, path: str, read: set[str]) -> Iterator[str]:
    """The folders of an ld.so.conf file and of the files that it includes; each file is read once, whoever includes it."""
    if path in read or len(read) > _INCLUDES_LIMIT:
        return
    read.add(path)
    for line in (scope.text(path, 1 << 16) or "").splitlines():
        word, _, rest = line.partition("#")[0].strip().partition(" ")
        if word == "include":
            pattern = posixpath.join(posixpath.dirname(path), rest.strip())
            folder, names = posixpath.split(pattern)
            for name in fnmatch.filter(scope.names(folder), names)[:_FOLDERS_LIMIT]:
                yield from _configured(scope, posixpath.join(folder, name), read)
        elif word.startswith("/"):
            yield posixpath.normpath(word)


def _file(scope: Scope, soname: str, folder: str, origin: str) -> LibraryFile | None:
    path = posixpath.join(folder, soname)
    real = links.real_path(scope, path)
    if real is None:
        return None
    try:
        size = scope.path(real).stat().st_size
    except OSError:
        return None
    if scope.data(real, 5) == _ELF_32_BIT:
        return None  # the loader of a 64-bit program passes over it
    version = _VERSION.search(posixpath.basename(real))
    return LibraryFile(
        soname=soname,
        path=links.printable(path),
        real_path=links.printable(real),
        version=version[1] if version else None,
        size=size,
        origin=origin,
    )
