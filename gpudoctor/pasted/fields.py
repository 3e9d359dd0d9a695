"""Lines of the shape "name: value" or "name    value", as programs describe an environment with them."""

from __future__ import annotations

import re
from collections.abc import Mapping

Fields = Mapping[str, str]
NOT_THERE = "not in the text"
_LINE = re.compile(
    r"^[ \t>*|-]{0,8}([A-Za-z][A-Za-z0-9_ ./()-]{1,48}?)(?:[ \t]{0,24}[:=][ \t]{0,24}|[ \t]{2,60})(\S[^\n]{0,200}?)[ \t|]{0,80}$"
)
_NOTHING = ("", "n/a", "none", "could not collect", "not found", "unknown", "no", "not available", "failed to import")


def read(text: str) -> dict[str, str]:
    """The fields of a text by their names in lower case; of a name that comes again the first counts."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.match(line[:400])
        if match:
            fields.setdefault(" ".join(match.group(1).lower().split()), match.group(2).strip())
    return fields


def value(fields: Fields, *names: str) -> str | None:
    """The first of these fields that says something; None where none does."""
    for name in names:
        found = fields.get(name)
        if found is not None and found.lower() not in _NOTHING:
            return found
    return None
