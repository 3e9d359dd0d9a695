"""Reads the tables: TOML files beside this module, each parsed once, on first use."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

Row = Mapping[str, Any]  # TOML's edge: the modules beside this one turn rows into dataclasses


@cache
def read(name: str) -> Row:
    """The parsed ``NAME.toml``. A table that is missing or broken is a defect of this package, and raises."""
    # the parser costs more than everything else in this package, so it is imported on first use
    parser = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    text = Path(__file__).with_name(f"{name}.toml").read_text(encoding="utf-8")
    return cast("Row", parser.loads(text))


def sources(name: str, written: Iterable[str]) -> tuple[str, ...]:
    """The sources of a row in full: ``key`` and ``key:rest`` are looked up in the table's ``[sources]``."""
    known: Mapping[str, str] = read(name).get("sources", {})
    return tuple(_source(known, text) for text in written)


def _source(known: Mapping[str, str], text: str) -> str:
    key, _, rest = text.partition(":")
    return known[key] + rest if key in known else text


@cache
def version_key(version: str) -> tuple[int, ...]:
    """The numbers of a dotted version, to compare by: 570.124.06 is (570, 124, 6). Empty when it is no such version."""
    try:
        return tuple(int(part) for part in version.strip().split("."))
    except ValueError:
        return ()
