"""How a line of an install page is run: by bash, each on its own, with a ``sudo`` that fits who is there.

The lines are the pages' own. What differs between a person at a terminal and a provisioning run stands in this one prelude:
``sudo`` is left out where we are root already, and with nobody there it never asks, and apt-get assumes yes, keeps configuration
files as they are, and removes nothing. What ubuntu-drivers installs it does not ask about: a section simulates it first. A proxy
that is set in the user's variables is handed through sudo, which drops them.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOCK_SECONDS = 300
"""How long apt waits for another program that is installing (unattended-upgrades on a fresh machine takes minutes)."""
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_QUIET = {
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_MODE": "l",  # 22.04's needrestart asks which services to restart; l lists them
    "CONDA_ALWAYS_YES": "true",
    "PIP_NO_INPUT": "1",
    "POETRY_NO_INTERACTION": "1",
    "TERM": "dumb",
}

_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def program(name: str) -> str:
    """Where a program of every Linux system is, whatever PATH the user has."""
    return shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH) or name


@dataclass(frozen=True, slots=True)
class Served:
    """Where the programs of a line take from what they would fetch (see ``gpudoctor.bundle``)."""

    variables: Mapping[str, str]
    lead: str
    """Shell text before each line that concerns the machine."""


@dataclass(frozen=True, slots=True)
class Shell:
    """Where lines are run and whether somebody answers what they ask."""

    root: Path
    """The machine's own root; another one is entered by chroot, for what concerns the machine and not an environment."""
    attended: bool
    is_root: bool
    lock_seconds: int = LOCK_SECONDS
    served: Served | None = None

    def command(self, line: str, where: str) -> tuple[str, ...]:
        """The argument list that runs one line of a section for that place (machine or environment)."""
        lead = self.served.lead if self.served is not None and where != "environment" else ""
        bash = ("-euo", "pipefail", "-c", f"{self.prelude()}{lead}{line}")
        if where == "environment" or self.root == Path("/"):
            return (program("bash"), *bash)
        return (program("chroot"), str(self.root), "bash", *bash)

    def environment(self, where: str, environ: Mapping[str, str]) -> dict[str, str]:
        """The variables that a line is given: the user's own (proxies, indexes, certificates), and English for what we read."""
        given = {**environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "C"}
        if not self.attended:
            given |= _QUIET
        if self.served is not None:
            given |= self.served.variables
        if where != "environment" and self.root != Path("/"):
            given |= {"PATH": _SYSTEM_PATH, "HOME": "/root"}
            given.pop("LD_LIBRARY_PATH", None)
        elif where != "environment":
            # sbin is not on every user's PATH, and modinfo, dkms and mokutil live there
            given["PATH"] = f"{given.get('PATH') or os.defpath}:/usr/sbin:/sbin"
        return given

    def prelude(self) -> str:
        """The definition of ``sudo`` that goes before a line."""
        options = f"-o DPkg::Lock::Timeout={self.lock_seconds}"
        if not self.attended:
            options += " --quiet --assume-yes --no-remove -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
        served = dict(self.served.variables) if self.served is not None else {}
        quiet = {name: value for name, value in _QUIET.items() if name != "TERM"}
        kept = shlex.join(f"{name}={value}" for name, value in {**({} if self.attended else quiet), **served}.items())
        does = "" if self.is_root else "command sudo " if self.attended else "command sudo -n "
        proxies = "" if self.is_root else " ".join(f'"{name}=${name}"' for name in _PROXIES if os.environ.get(name))
        set_there = " ".join(filter(None, (kept, proxies)))
        run = f'{does}env {set_there} "$@"' if set_there else f'{does or "env "}"$@"'
        still = "exec </dev/null\n" if not self.attended else ""
        return f'{still}sudo() {{\n  if [ "$1" = apt-get ]; then shift; set -- apt-get {options} "$@"; fi\n  {run}\n}}\n'
