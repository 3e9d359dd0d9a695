"""Symbolic links as the examined machine would follow them: an absolute target begins at its root, not at ours."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpudoctor.probes.scope import Scope

LINKS_FOLLOWED = 40  # as many as the kernel follows


def real_path(scope: Scope, absolute: str) -> str | None:
    """The path without symbolic links, as the machine names it; None when it does not exist or the links go in circles."""
    done, pending, followed = "/", _parts(absolute), 0
    while pending:
        part = pending.pop(0)
        if part == "..":
            done = posixpath.dirname(done)
            continue
        step = posixpath.join(done, part)
        try:
            target = os.readlink(scope.path(step))
        except (OSError, ValueError):
            done = step
            continue
        followed += 1
        if followed > LINKS_FOLLOWED:
            return None
        pending = _parts(target) + pending
        done = "/" if target.startswith("/") else done
    return done if exists(scope, done) else None


def exists(scope: Scope, absolute: str) -> bool:
    """Whether there is something at that path (a link that leads nowhere is nothing)."""
    try:
        return scope.path(absolute).exists()
    except (OSError, ValueError):
        return False


def is_folder(scope: Scope, absolute: str) -> bool:
    """Whether the path leads to a folder, links followed as the machine would."""
    found = real_path(scope, absolute)
    try:
        return found is not None and scope.path(found).is_dir()
    except (OSError, ValueError):
        return False


def is_file(scope: Scope, absolute: str) -> bool:
    """Whether the path leads to a plain file on this machine; False also where it may not be looked at."""
    try:
        return scope.path(absolute).is_file()
    except (OSError, ValueError):
        return False


def printable(text: str) -> str:
    """The text with bytes that are no UTF-8 (file names and variables may hold any) replaced, so that it can be printed."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if text.isascii() is False else text


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
