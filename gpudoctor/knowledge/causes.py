"""The causes that a pasted text may complain of, in one line each, and what tells them apart."""

from __future__ import annotations

from functools import cache

from gpudoctor.knowledge.table import Row, read


def title(code: str) -> str:
    """The cause in one line, whatever the text; empty where none was written."""
    return str(_rows().get(code, {}).get("title", ""))


def apart(code: str) -> str:
    """The observation by which it is known, as a clause; empty where none was written."""
    return str(_rows().get(code, {}).get("apart", ""))


@cache
def _rows() -> dict[str, Row]:
    return {row["code"]: row for row in read("causes")["cause"]}
