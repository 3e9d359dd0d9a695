"""The parts of a long text in which people name cards, versions and folders in passing: its ends, and lines with a telling word."""

from __future__ import annotations

WHOLE = 24 << 10
"""Characters up to which a text is looked at as it is."""
HEAD, TAIL = 8 << 10, 12 << 10
LINES_EACH, LINE_LIMIT = 12, 400
_WORDS = (
    "pytorch",
    "torch==",
    "torch version",
    "nvcc",
    "geforce",
    "rtx ",
    "gtx ",
    "tesla",
    "quadro",
    "nvidia ",
    "driver version",
    "python 3",
    "site-packages",
    "cuda_visible_devices",
    "ld_library_path",
    "ubuntu",
    "gcc",
    "out of memory",
)


def of(text: str) -> str:
    """The text, or of a long one what is worth looking at."""
    if len(text) <= WHOLE:
        return text
    middle = text[HEAD:-TAIL]
    low = middle.lower()
    lines = [line for word in _WORDS for line in _lines_with(word, middle, low)] if len(low) == len(middle) else []
    return "\n".join((text[:HEAD], *dict.fromkeys(lines), text[-TAIL:]))


def _lines_with(word: str, text: str, low: str) -> list[str]:
    found: list[str] = []
    at = low.find(word)
    while at >= 0 and len(found) < LINES_EACH:
        begin, end = low.rfind("\n", 0, at) + 1, low.find("\n", at)
        end = len(low) if end < 0 else end
        found.append(text[max(begin, at - LINE_LIMIT) : min(end, at + LINE_LIMIT)])
        at = low.find(word, end)
    return found
