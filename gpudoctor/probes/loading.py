"""What loading a model depends on beside the GPU: the target's transformers, and room on the disk where models are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from gpudoctor import hub_cache
from gpudoctor.facts import Interpreter, Unknown

_METADATA = re.compile(r"transformers-([0-9][0-9A-Za-z.]{0,40})\.dist-info")


def transformers_version(interpreter: Interpreter | Unknown | None) -> str | None:
    """The version in the target interpreter's own metadata; None where it has none, or nobody could look."""
    if interpreter is None or isinstance(interpreter, Unknown):
        return None
    for place in interpreter.site_packages:
        try:
            names = os.listdir(place)
        except OSError:
            continue
        for name in names:
            found = _METADATA.fullmatch(name)
            if found:
                return found[1]
    return None


def room_for_models(environ: Mapping[str, str]) -> int | None:
    """Bytes free where the Hugging Face cache is, or will be; None where nobody can say."""
    folder = hub_cache.folder(environ)
    while folder and not os.path.isdir(folder):
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above
    try:
        system = os.statvfs(folder or os.curdir)
    except OSError:
        return None
    return system.f_bavail * system.f_frsize
