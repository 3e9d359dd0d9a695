"""How values read in every report: sizes, paths, text from outside made harmless."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")


def plain(text: str) -> str:
    """Text from outside without escape sequences, control characters or characters that turn the line around."""
    return "".join(c if _harmless(c) else "\N{REPLACEMENT CHARACTER}" for c in _ESCAPE.sub("", text))


def _harmless(character: str) -> bool:
    # control, format (which includes the characters that reverse a line), surrogate, line ends that are none of ours, and the
    # two that XML forbids
    return character in "\n\t" or not (
        unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in "\ufffe\uffff"
    )


def gib(size: int) -> str:
    """Bytes as GiB with two decimals and the unit."""
    return f"{size / 2**30:.2f} GiB"


def short_path(path: str, home: str) -> str:
    """The path with the home folder as ~."""
    if home not in ("", "/") and PurePosixPath(path).is_relative_to(home):
        return "~/" + str(PurePosixPath(path).relative_to(home))
    return path


def short_text(text: str, home: str) -> str:
    """Prose with the home folder as ~ in every path. Commands keep whole paths: ~ is not expanded inside quotes."""
    return text if home in ("", "/") else re.sub(rf"(?<![\w./-]){re.escape(home)}(?=/)", "~", text)


def shortened(text: str, limit: int = 160) -> str:
    """The first line of an evidence, a long one by its beginning and its end: an error's number and name stand there."""
    line = next(iter(text.strip().splitlines()), "(empty)")
    if len(line) <= limit:
        return line
    head, tail = line[: limit // 3], line[-limit // 2 :]
    return f"{head.rpartition(' ')[0] or head} ... {tail.partition(' ')[2] or tail}"
