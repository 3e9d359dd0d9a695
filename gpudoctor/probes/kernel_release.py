"""Which kernel runs, and which of two kernel releases is the newer one."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpudoctor.probes.scope import Scope

_PART = re.compile(r"\d{1,18}|[A-Za-z]+")


def running(scope: Scope) -> str:
    """``uname -r``; below a root without /proc the newest folder of /lib/modules; empty when there is neither."""
    told = (scope.text("/proc/sys/kernel/osrelease", 256) or "").strip()
    if told:
        return told
    if scope.live:
        return os.uname().release
    return max(scope.names("/lib/modules"), key=order, default="")


def order(release: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key: 6.8.0-100 is newer than 6.8.0-90."""
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in _PART.findall(release))
