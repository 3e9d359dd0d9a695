"""Why a command failed, from what it printed, and what to do then. The table is knowledge/failures.toml."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from gpudoctor.knowledge import table

_LINE = 400


@dataclass(frozen=True, slots=True)
class Failure:
    """A known way to fail: what is the case, what to do, and the line that says so."""

    id: str
    says: str
    do: str
    line: str
    again: bool
    """Once it is put right, the same section has to be run again."""


def recognised(output: str) -> Failure | None:
    """The first known failure that the output tells of; None where none is."""
    for name, pattern, says, do, again in _rows():
        match = pattern.search(output)
        if match is not None:
            begin, end = output.rfind("\n", 0, match.start()) + 1, output.find("\n", match.end())
            return Failure(name, says, do, output[begin : end if end >= 0 else len(output)].strip()[:_LINE], again)
    return None


@cache
def _rows() -> tuple[tuple[str, re.Pattern[str], str, str, bool], ...]:
    rows = table.read("failures")["failure"]
    return tuple(
        (row["id"], re.compile(row["pattern"], re.MULTILINE), row["says"], row["do"], row.get("again", False)) for row in rows
    )
