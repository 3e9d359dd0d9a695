"""A small machine for the probes that read files: a folder as root, scripts on a PATH of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gpudoctor.probes.scope import Scope


def scope(root: Path, environ: Mapping[str, str] | None = None, cap: float | None = None) -> Scope:
    """The root's own programs are in bin/ beside it; nothing of this machine is on the PATH but the shell's own tools."""
    return Scope(root, {"PATH": f"{root.parent / 'programs'}", **(environ or {})}, None, "own", cap)


def write(root: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files below the root; a value that begins with "-> " is a symbolic link."""
    for path, content in files.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            place.write_bytes(content)
        elif content.startswith("-> "):
            place.symlink_to(content[3:])
        else:
            place.write_text(content, encoding="utf-8")


def program(root: Path, name: str, script: str) -> None:
    """A program on the PATH, as a shell script."""
    place = root.parent / "programs" / name
    place.parent.mkdir(exist_ok=True)
    place.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n", encoding="utf-8")
    place.chmod(0o755)


def says(root: Path, name: str, text: str, *, error: str = "", code: int = 0) -> None:
    """A program that prints the same, whatever it is asked."""
    answers = root.parent / "answers"
    answers.mkdir(exist_ok=True)
    (answers / name).write_text(text, encoding="utf-8")
    (answers / f"{name}.err").write_text(error, encoding="utf-8")
    program(root, name, f"cat '{answers / name}'; cat '{answers / name}.err' >&2; exit {code}")


def is_root() -> bool:
    """Root may read what its mode forbids."""
    return os.geteuid() == 0
