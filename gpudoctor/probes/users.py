"""Names of users and groups: the system's databases on the live machine, /etc/passwd and /etc/group below a root."""

from __future__ import annotations

import grp
import os
import pwd
from typing import TYPE_CHECKING

from gpudoctor.facts import Unknown, User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpudoctor.probes.scope import Scope

_MAY_SUDO = frozenset({"sudo", "wheel", "admin"})


def current(scope: Scope) -> User:
    """Who runs the doctor."""
    if not scope.live:
        return _recorded(scope)
    uid = os.geteuid()
    groups = tuple(sorted({group_name(scope, gid) for gid in {os.getegid(), *os.getgroups()}}))
    return User(user_name(scope, uid), uid, groups, _may_sudo(uid, groups))


def user_name(scope: Scope, uid: int) -> str:
    """The user's name; the number where it has none."""
    if scope.live:
        try:
            return pwd.getpwuid(uid).pw_name
        except (KeyError, OSError):
            return str(uid)
    return next((fields[0] for fields in _table(scope, "/etc/passwd") if fields[2] == str(uid)), str(uid))


def group_name(scope: Scope, gid: int) -> str:
    """The group's name; the number where it has none."""
    if scope.live:
        try:
            return grp.getgrgid(gid).gr_name
        except (KeyError, OSError):
            return str(gid)
    return next((fields[0] for fields in _table(scope, "/etc/group") if fields[2] == str(gid)), str(gid))


def _recorded(scope: Scope) -> User:
    """The user that the environment names, as the root's files know it."""
    name = scope.environ.get("USER") or scope.environ.get("LOGNAME") or ""
    entry = next((fields for fields in _table(scope, "/etc/passwd") if fields[0] == name), None)
    members = tuple(sorted(row[0] for row in _table(scope, "/etc/group") if name in row[3].split(",")))
    if entry is None or not entry[2].isdigit() or len(entry[2]) > 10:
        return User(name, os.geteuid(), members, Unknown("this user is not in the machine's /etc/passwd"))
    uid = int(entry[2])
    groups = tuple(sorted({*members, *(row[0] for row in _table(scope, "/etc/group") if row[2] == entry[3])}))
    return User(name, uid, groups, _may_sudo(uid, groups))


def _may_sudo(uid: int, groups: tuple[str, ...]) -> bool:
    return uid == 0 or not _MAY_SUDO.isdisjoint(groups)


def _table(scope: Scope, path: str) -> Iterator[list[str]]:
    for line in (scope.text(path, 1 << 20) or "").splitlines():
        fields = line.split(":")
        if len(fields) >= 4:
            yield fields
