"""The device nodes through which programs reach the driver."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from gpudoctor.facts import DeviceNode, Unknown
from gpudoctor.probes import links, users

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpudoctor.probes.scope import Scope

_LIMIT = 256


def look(scope: Scope) -> tuple[DeviceNode, ...] | Unknown:
    """Every /dev/nvidia* and /dev/dxg. A node is not opened: that could wake a card."""
    if not links.exists(scope, "/dev"):
        return Unknown("there is no /dev here")
    return tuple(node for path in _paths(scope) if (node := _node(scope, path)) is not None)


def _paths(scope: Scope) -> Iterator[str]:
    for name in scope.names("/dev")[: 64 * _LIMIT]:
        if name == "nvidia-caps":
            yield from (f"/dev/nvidia-caps/{cap}" for cap in scope.names("/dev/nvidia-caps")[:_LIMIT])
        elif name == "dxg" or name.startswith("nvidia"):
            yield f"/dev/{name}"


def _node(scope: Scope, path: str) -> DeviceNode | None:
    place = scope.path(path)
    try:
        status = os.stat(place)
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return None
    return DeviceNode(
        path=links.printable(path),
        mode=stat.filemode(status.st_mode)[1:],
        owner=users.user_name(scope, status.st_uid),
        group=users.group_name(scope, status.st_gid),
        usable=os.access(place, os.R_OK | os.W_OK),
    )
