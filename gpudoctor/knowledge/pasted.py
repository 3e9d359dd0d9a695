"""What is known of cards and releases by the names that people give them in a text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from gpudoctor.knowledge.table import read, version_key

LINE_LIMIT = 1000
_LIKE_A_CARD = re.compile(
    r"(?i)(?:rtx|gtx|geforce|tesla|quadro|titan|\bgrid|\bgt ?\d|\bmx\d|\bg?b[23]00|\bgh200|\b[ahlptvk]\d{1,3})"
)
"""A line without this names no card: one look in place of many."""


@dataclass(frozen=True, slots=True)
class Family:
    """Cards of one compute capability, as a pattern for their names."""

    pattern: re.Pattern[str]
    capability: str


@cache
def families() -> tuple[Family, ...]:
    """All of them, the more special first."""
    return tuple(
        Family(re.compile(rf"(?i)(?<![\w.-])(?:{row['name']})(?![\w-])"), row["capability"]) for row in read("pasted")["card"]
    )


def capability(name: str) -> str | None:
    """The compute capability of a card of that name; None for one that no row knows."""
    return next((family.capability for family in families() if family.pattern.search(name)), None)


def cards(text: str) -> list[str]:
    """The cards that are named in a text, each name once, in its order."""
    found: dict[str, int] = {}
    for number, line in enumerate(line for line in text.splitlines() if _LIKE_A_CARD.search(line)):
        for family in families():
            for match in family.pattern.finditer(line[:LINE_LIMIT]):
                found.setdefault(" ".join(match.group(0).split()), number * LINE_LIMIT + match.start())
    kept = [name for name in found if not any(name != other and name.lower() in other.lower() for other in found)]
    return sorted(kept, key=found.__getitem__)


def default_cuda(torch: str) -> str | None:
    """The CUDA of the build that pip installed by default for that release of PyTorch; None where no row knows."""
    minor = ".".join(torch.split("+", maxsplit=1)[0].split(".")[:2])
    table: dict[str, str] = read("pasted")["default_cuda"]
    return table.get(minor)


def newest_capability(cuda: str) -> str | None:
    """The newest GPUs for which PyTorch's builds of that CUDA have code."""
    return _row_of(cuda, "newest")


def oldest_capability(cuda: str) -> str | None:
    """The oldest ones."""
    return _row_of(cuda, "oldest")


def _row_of(cuda: str, name: str) -> str | None:
    best: str | None = None
    for row in read("pasted")["reach"]:
        if version_key(row["cuda"]) <= version_key(cuda):
            best = row[name]
    return best


def cuda_of_old_driver(version: str) -> str | None:
    """The CUDA that a driver of that version serves; None where no row knows its branch."""
    table: dict[str, str] = read("pasted")["old_driver_cuda"]
    return table.get(version.partition(".")[0])
