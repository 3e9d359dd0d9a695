"""What nvidia-smi prints on top: versions of driver and CUDA, and the words with which it fails.

NVML is the better source; the banner is what a person has seen and pasted, and it answers where the doctor's own way to
NVML is broken. Two layouts are known: "Driver Version / CUDA Version", and from R610 on "KMD Version / CUDA UMD Version";
some drivers print both.
"""

from __future__ import annotations

import os
import re
import shutil

from gpudoctor.facts import NvidiaSmi, Unknown
from gpudoctor.probes import child
from gpudoctor.probes.nvml import ASLEEP, asleep
from gpudoctor.probes.scope import Scope

WSL_FOLDER = "/usr/lib/wsl/lib"  # put there by Windows; not on the PATH of every shell
LINES, CHARACTERS = 14, 2000  # enough for the banner and for every known failure; processes come later
DRIVER = (re.compile(r"KMD Version:\s*([0-9]+(?:\.[0-9]+)+)"), re.compile(r"Driver Version:\s*([0-9]+(?:\.[0-9]+)+)"))
CUDA = (re.compile(r"CUDA UMD Version:\s*([0-9]+\.[0-9]+)"), re.compile(r"CUDA Version:\s*([0-9]+\.[0-9]+)"))


def look(scope: Scope) -> NvidiaSmi | None | Unknown:
    """Run nvidia-smi; None when there is none, Unknown when it cannot be started or would wake a sleeping GPU."""
    if asleep(scope):
        return ASLEEP
    path = _find(scope)
    if path is None:
        return None
    try:
        answer = scope.run(path)
    except child.NotStarted as error:
        return Unknown(str(error))
    text = _readable(answer.stdout + answer.stderr)
    return NvidiaSmi(
        path=path,
        exit_code=answer.exit_code,
        driver_version=_first(DRIVER, text),
        cuda_version=_first(CUDA, text),
        text=text,
    )


def _find(scope: Scope) -> str | None:
    found = scope.which("nvidia-smi")
    if found is None and scope.live:
        found = shutil.which("nvidia-smi", path=WSL_FOLDER)
    return None if found is None else os.path.abspath(found)


def _readable(text: str) -> str:
    """The first lines without what a terminal would obey."""
    lines = text.expandtabs().strip().split("\n")[:LINES]
    printable = ("".join(c if c.isprintable() else "\ufffd" for c in line.rstrip()) for line in lines)
    return "\n".join(printable)[:CHARACTERS]


def _first(patterns: tuple[re.Pattern[str], ...], text: str) -> str | None:
    matches = (pattern.search(text) for pattern in patterns)
    return next((match.group(1) for match in matches if match), None)
