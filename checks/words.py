"""Sizes and lists as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def gib(size: int) -> str:
    """A size in bytes as GiB with two digits, without the unit: 11.69."""
    return f"{size / 2**30:.2f}"


def listing(names: Sequence[str], limit: int = 4) -> str:
    """Such as: Xorg, gnome-shell and firefox; past ``limit`` the rest is counted."""
    shown = [*names[:limit], f"{len(names) - limit} more"] if len(names) > limit else list(names)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


def capped(text: str, limit: int = 300) -> str:
    """What went wrong, of a traceback only what follows its last line of code; the end of a long text."""
    lines = text.strip().splitlines()
    code = [number for number, line in enumerate(lines) if line.startswith("  ") and any(x.startswith("  File ") for x in lines)]
    text = " ".join(" ".join(lines[code[-1] + 1 :] or lines[-1:] if code else lines).split())
    return text if len(text) <= limit else f"... {text[-limit:]}"
