"""Numbers of a config.json, params.json or GGUF header, each taken only if it is what its key asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gpudoctor.checkpoint.found import NotACheckpoint

Values = Mapping[str, Any]
_MOST = 1 << 31


def whole(values: Values, key: str, where: str, *, default: int | None = None) -> int:
    """A positive integer below 2^31; ``default`` where the key is absent or null. Raises NotACheckpoint."""
    value = values.get(key)
    if value is None:
        if default is None:
            raise NotACheckpoint(f"{where} has no {key}")
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _MOST:
        raise NotACheckpoint(f"{where}: {key} is {shown(value)}, not a positive number of a sensible size")
    return value


def real(values: Values, key: str, where: str, *, default: float | None = None) -> float:
    """A positive finite number; ``default`` where the key is absent or null. Raises NotACheckpoint."""
    value = values.get(key)
    if value is None:
        if default is None:
            raise NotACheckpoint(f"{where} has no {key}")
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise NotACheckpoint(f"{where}: {key} is {shown(value)}, not a positive number")
    return float(value)


def ids(value: object) -> tuple[int, ...]:
    """Token ids, given as one or as a list; what is none is left out."""
    several = value if isinstance(value, (list, tuple)) else (value,)
    return tuple(dict.fromkeys(one for one in several if isinstance(one, int) and not isinstance(one, bool) and 0 <= one < _MOST))


def shown(value: object) -> str:
    """A value as it may stand in a message: short, whatever it is."""
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)[:40]
    return repr(value[:40]) if isinstance(value, str) else f"a {type(value).__name__}"
