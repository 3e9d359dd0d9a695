"""Hugging Face's cache on this machine: where a model lies that was downloaded before. Nothing is downloaded here."""

from __future__ import annotations

import os
from collections.abc import Mapping

MOST_SNAPSHOTS = 8
"""Of one repository; a cache seldom has more than two."""


def folder(environ: Mapping[str, str]) -> str:
    """The cache's folder, as huggingface_hub finds it: HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME, ~/.cache."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(variable):
            return home(environ[variable], environ)
    caches = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return os.path.join(home(environ.get("HF_HOME") or os.path.join(caches, "huggingface"), environ), "hub")


def home(path: str, environ: Mapping[str, str]) -> str:
    """``path`` with a leading ~ replaced by HOME of ``environ``."""
    if environ.get("HOME") and (path == "~" or path.startswith("~/")):
        return environ["HOME"] + path[1:]
    return os.path.expanduser(path)


def snapshots(repository: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Folders of the versions of ``repository`` (org/name) that lie in the cache: the one that main means, then the newest."""
    root = _repository(repository, environ)
    try:
        with os.scandir(os.path.join(root, "snapshots")) as entries:
            found = sorted(((entry.stat().st_mtime, entry.name) for entry in entries if entry.is_dir()), reverse=True)
    except (OSError, ValueError):
        return ()
    main = _main(root)
    names = sorted((name for _, name in found), key=lambda name: name != main)  # stable: the newest first, but for main
    return tuple(os.path.join(root, "snapshots", name) for name in names[:MOST_SNAPSHOTS])


def unfinished(repository: str, environ: Mapping[str, str]) -> bool:
    """Whether a download of ``repository`` has begun and not ended."""
    try:
        with os.scandir(os.path.join(_repository(repository, environ), "blobs")) as entries:
            return any(entry.name.endswith(".incomplete") for entry in entries)
    except (OSError, ValueError):
        return False


def _repository(repository: str, environ: Mapping[str, str]) -> str:
    return os.path.join(folder(environ), "models--" + repository.replace("/", "--"))


def _main(root: str) -> str | None:
    try:
        # opening what has become a named pipe must not wait for its writer
        descriptor = os.open(os.path.join(root, "refs", "main"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return os.read(descriptor, 100).decode("utf-8", "replace").strip()
    except OSError:
        return None
    finally:
        os.close(descriptor)
