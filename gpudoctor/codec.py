"""Facts as JSON and back, by the type hints of their dataclasses.

One rule each way, so that a new fact needs no code here: a dataclass is an object with one key per field, a tuple is
an array, ``Unknown(why)`` is ``{"unknown": why}``. Reading is strict about types and lenient about absence: a key that
a report of an older gpudoctor lacks becomes ``Unknown("not in this report")``; a key we do not know is ignored.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from typing import Any, TypeVar

from gpudoctor.facts import Unknown

T = TypeVar("T")
LARGEST = 2**63
"""No fact is a larger number: neither NaN and infinity nor what arithmetic with floats cannot hold gets in."""

Json = Any  # JSON's edge: the one place where a value's type is not known statically


class NotOurs(ValueError):
    """The JSON does not have the shape of the dataclass; the message names the key."""


def to_json(value: object) -> Json:
    """Plain data for ``json.dumps``."""
    if isinstance(value, Unknown):
        return {"unknown": value.why}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(cls: type[T], data: Json) -> T:
    """An instance of the dataclass ``cls``; raises NotOurs when the data has another shape."""
    result = _read(cls, data, cls.__name__)
    return typing.cast("T", result)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _read(hint: Any, data: Json, where: str) -> Any:  # noqa: ANN401 - a type hint is any object
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _read_union(typing.get_args(hint), data, where)
    if origin is tuple:
        return _read_tuple(typing.get_args(hint), data, where)
    if dataclasses.is_dataclass(hint):
        return _read_dataclass(typing.cast("type", hint), data, where)
    if isinstance(data, (int, float)) and not -LARGEST < data < LARGEST:
        raise NotOurs(f"{where}: {_shorten(data)} is no size, count or time")
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if hint is type(None):
        if data is None:
            return None
    elif isinstance(data, hint) and (hint is bool or not isinstance(data, bool)):
        return data
    raise NotOurs(f"{where}: expected {getattr(hint, '__name__', hint)}, found {_shorten(data)}")


def _read_union(options: tuple[Any, ...], data: Json, where: str) -> Any:  # noqa: ANN401 - what the hint names
    if Unknown in options and isinstance(data, dict) and set(data) == {"unknown"}:
        return Unknown(_read(str, data["unknown"], f"{where}.unknown"))
    failure: NotOurs | None = None
    for option in options:
        if option is Unknown:
            continue
        try:
            return _read(option, data, where)
        except NotOurs as mismatch:
            # of several reasons the deepest is the telling one
            if failure is None or len(str(mismatch).split(":")[0]) > len(str(failure).split(":")[0]):
                failure = mismatch
    raise failure or NotOurs(f"{where}: found {_shorten(data)}")


def _read_tuple(items: tuple[Any, ...], data: Json, where: str) -> tuple[Any, ...]:
    if not isinstance(data, (list, tuple)):
        raise NotOurs(f"{where}: expected an array, found {_shorten(data)}")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_read(items[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if len(items) != len(data):
        raise NotOurs(f"{where}: expected {len(items)} values, found {len(data)}")
    return tuple(_read(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(items, data, strict=True)))


def _read_dataclass(cls: type, data: Json, where: str) -> Any:  # noqa: ANN401 - an instance of cls
    if not isinstance(data, dict):
        raise NotOurs(f"{where}: expected an object, found {_shorten(data)}")
    hints = _hints(cls)
    values: dict[str, Any] = {}
    for f in dataclasses.fields(cls):
        if f.name in data:
            values[f.name] = _read(hints[f.name], data[f.name], f"{where}.{f.name}")
        elif f.default is not dataclasses.MISSING:
            continue
        elif Unknown in typing.get_args(hints[f.name]):
            values[f.name] = Unknown("not in this report")
        else:
            raise NotOurs(f"{where}.{f.name}: missing")
    return cls(**values)


def _shorten(data: Json) -> str:
    try:
        text = repr(data)
    except (ValueError, RecursionError):  # a number of thousands of digits, or arrays in arrays in arrays
        return f"a {type(data).__name__} that is too large to show"
    return text if len(text) <= 40 else text[:37] + "..."
