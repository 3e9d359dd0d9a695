"""Why a command failed, from what it printed, and what to do then. The table is knowledge/failures.toml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gpudoctor.knowledge import table
from gpudoctor.knowledge.table import Row

_LINE = 400
_FOLLOWS = ("no-package", "old-list")
"""What often only follows from an archive that could not be read."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A known way to fail: what is the case, what to do, and the line that says so."""

    id: str
    says: str
    do: str
    line: str
    again: bool
    """Once it is put right, the same section has to be run again."""


def recognised(output: str, before: str = "") -> Failure | None:
    """The known failure that the output of a command tells of; None where none is known.

    ``before`` is what the commands before it printed: an archive that could not be reached is told there, and only what follows
    from it (a package that is not known) makes a command fail.
    """
    told = _first(output, _rows())
    if told is None or told.id in _FOLLOWS:
        return _first(before, [row for row in _rows() if row.get("warned")]) or told
    return told


def _first(output: str, rows: Iterable[Row]) -> Failure | None:
    for row in rows:
        match = re.search(row["pattern"], output, re.MULTILINE)
        if match is not None:
            begin, end = output.rfind("\n", 0, match.start()) + 1, output.find("\n", match.end())
            line = output[begin : end if end >= 0 else len(output)].strip()[:_LINE]
            return Failure(row["id"], row["says"], row["do"], line, row.get("again", False))
    return None


def _rows() -> tuple[Row, ...]:
    return tuple(table.read("failures")["failure"])
