"""nvcc and gcc as a text tells of them."""

from __future__ import annotations

import re

from gpudoctor.facts import BuildTools, Toolkit, Unknown
from gpudoctor.pasted import fields
from gpudoctor.pasted.fields import NOT_THERE, Fields

_RELEASE = re.compile(r"(?i)\brelease (\d{1,2}\.\d{1,2})(?:, V([\d.]{3,12}))?")
_IN_WORDS = re.compile(
    r"(?i)\bnvcc(?: -V| --version)?[ \t]{0,3}(?:->|=>|=|:|is|version|,)?[ \t]{0,3}(?:version )?V?(\d{1,2}\.\d)\b"
)
_GCC = re.compile(r"(?i)\bg(?:cc|\+\+)(?: version)?[ :(-]{1,4}(?:\([^)\n]{0,60}\) )?(\d{1,2}(?:\.\d{1,2}){0,2})")


def toolkits(described: Fields, text: str) -> tuple[Toolkit, ...] | Unknown:
    """The toolkit whose nvcc the text shows; an empty tuple where it says that there is none."""
    said = fields.value(described, "nvcc", "cuda runtime version", "cuda compiler", "cuda toolkit version")
    match = (
        _RELEASE.search(text)
        or re.match(r"(?:Cuda compilation tools, release )?(\d{1,2}\.\d)(?:\.([\d.]{1,9}))?", said or "")
        or _IN_WORDS.search(text)
    )
    if match is None:
        return () if described.get("cuda_home", "").lower() in ("none", "not available") else Unknown(NOT_THERE)
    home = fields.value(described, "cuda_home") or "/usr/local/cuda"
    why = Unknown(NOT_THERE)
    return (Toolkit(home, f"{home}/bin/nvcc", match.group(1), why, ("PATH",), "other", why, None),)


def build_tools(described: Fields, text: str) -> BuildTools | Unknown:
    """The gcc that the text names."""
    match = _GCC.search(f"gcc {fields.value(described, 'gcc version', 'gcc') or ''}") or _GCC.search(text)
    if match is None:
        return Unknown(NOT_THERE)
    return BuildTools("gcc", match.group(1), Unknown(NOT_THERE))
