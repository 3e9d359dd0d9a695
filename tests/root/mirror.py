"""Where this host gets Debian's packages from, and through which proxy, as its own apt is configured."""

from __future__ import annotations

import os
import re
import shutil
import subprocess


def mirror(suite: str) -> str | None:
    """The address from which the host's apt takes that suite; None where it takes it from nowhere: debootstrap knows one itself."""
    told = _told("apt-get", "indextargets", "--format", "$(RELEASE) $(LABEL) $(REPO_URI)")
    found = (line.split() for line in told.splitlines())
    return next((words[2] for words in found if words[:2] == [suite, "Debian"] and len(words) == 3), None)


def environ() -> dict[str, str]:
    """This process's environment, with apt's proxy where it has one and the environment does not say otherwise."""
    told = _told("apt-config", "shell", "http_proxy", "Acquire::http::Proxy")
    proxy = re.match(r"http_proxy='([^']+)'", told)
    return {**({"http_proxy": proxy[1]} if proxy else {}), **os.environ}


def _told(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
