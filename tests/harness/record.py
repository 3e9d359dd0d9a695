"""Reads ``tests/machines/NAME.json``: merges what it is like, fills in its variables, refuses keys that nobody reads.

``tests/machines/README.md`` describes the keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

Json = Any  # recorded JSON

MACHINES = Path(__file__).resolve().parent.parent / "machines"
_KEYS = """about provenance like vars files hex links modes ages folders pci kernels loaded packages processes services secure_boot
log nvml fakes elf commands environ python others arguments smoke expect"""
KEYS = frozenset(_KEYS.split())
_EXPECTED = "status root_causes exit checks findings says never_says step where commands fixes facts seconds"
EXPECTED = frozenset(_EXPECTED.split())
_OWN = ("about", "provenance", "like", "expect")
_VARIABLE = re.compile(r"\{\{(\w+)\}\}")


def names() -> list[str]:
    """All recorded machines, by name."""
    return sorted(path.stem for path in MACHINES.glob("*.json"))


@cache
def _read(name: str) -> Json:
    path = MACHINES / f"{name}.json"
    if not path.is_file():
        path = MACHINES / "parts" / f"{name}.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    unread = {key.removesuffix("!") for key in record} - KEYS
    if unread:
        raise ValueError(f"{path.name}: no such key: {', '.join(sorted(unread))}")
    unread = set(record.get("expect", {})) - EXPECTED
    if unread:
        raise ValueError(f"{path.name}: nothing reads expect.{', expect.'.join(sorted(unread))}")
    return record


def merged(name: str) -> Json:
    """The record with everything that it is like merged in, its variables not yet filled in."""
    result: Json = {}
    for record in _lineage(name):
        result = merge(result, {key: value for key, value in record.items() if key not in _OWN})
    own = _read(name)
    return {**result, **{key: own[key] for key in _OWN if key in own}}


def _lineage(name: str) -> Iterator[Json]:
    """The records that make up this one, each after those that it is like: what they say is said in that order."""
    own = _read(name)
    like = own.get("like", [])
    for other in [like] if isinstance(like, str) else like:
        yield from _lineage(other)
    yield own


def load(name: str, **variables: str) -> Json:
    """The record of one machine, complete; ``variables`` are added to its own."""
    record = merged(name)
    return substitute(record, {**record.get("vars", {}), **variables})


def merge(old: Json, new: Json) -> Json:
    """``new`` over ``old``: objects key by key (null removes a key), anything else replaces."""
    if not isinstance(new, Mapping):
        return new
    before = dict(old) if isinstance(old, Mapping) else {}
    result = dict(before)
    for key, value in new.items():
        if key.endswith("!"):  # "modes!": replaces the whole object
            result[key[:-1]] = value
        elif value is None and key != "nvml":  # nvml: null says that there is no library
            result.pop(key, None)
        else:
            result[key] = merge(before.get(key), value)
    return result


def substitute(value: Json, variables: Mapping[str, str]) -> Json:
    """``{{name}}`` in every string, keys included, replaced by its variable; KeyError for an unknown one."""
    if isinstance(value, str):
        text = _VARIABLE.sub(lambda match: str(variables[match.group(1)]), value)
        return substitute(text, variables) if _VARIABLE.search(text) else text
    if isinstance(value, Mapping):
        return {substitute(key, variables): substitute(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, variables) for item in value]
    return value
