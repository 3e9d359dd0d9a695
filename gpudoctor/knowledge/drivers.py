"""Driver branches, and the architectures that they drive."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from gpudoctor.knowledge.table import Row, read, sources, version_key

if TYPE_CHECKING:
    from datetime import date

ModuleFlavour = Literal["open-required", "proprietary-required", "either"]
_ALIASES = {"Ada Lovelace": "Ada", "Blackwell Ultra": "Blackwell"}


@dataclass(frozen=True, slots=True)
class Branch:
    """One driver branch, such as 535."""

    number: int
    type: str
    """LTS, production, feature or unknown."""
    released: str | None
    end_of_life: str | None
    """A day or a month: 2026-06."""
    latest: str | None
    """The newest release of the branch that was seen when the data was collected."""
    cuda: str
    """The CUDA version that this driver speaks."""
    open_modules: bool
    proprietary_modules: bool
    note: str | None
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Architecture:
    """One GPU architecture and the branches that drive it."""

    name: str
    compute_capabilities: tuple[str, ...]
    first_branch: int
    last_branch: int | None
    first_cuda: str
    last_cuda_major: int | None
    modules: ModuleFlavour
    note: str | None
    sources: tuple[str, ...]


@cache
def branches() -> tuple[Branch, ...]:
    """All branches, oldest first."""
    return tuple(sorted((_branch(row) for row in read("drivers")["branch"]), key=lambda branch: branch.number))


@cache
def architectures() -> tuple[Architecture, ...]:
    """All architectures, oldest first."""
    return tuple(_architecture(row) for row in read("drivers")["architecture"])


def branch_of(version: str) -> int | None:
    """The branch of a driver version: 535.86.10 is 535. None when the text is no version."""
    numbers = version_key(version)
    return numbers[0] if numbers else None


def branch(number: int | None) -> Branch | None:
    """The row of a branch; None when it is not in our data."""
    return next((row for row in branches() if row.number == number), None)


def architecture(name: str | None) -> Architecture | None:
    """The row of an architecture, by its name in the tables or as NVIDIA writes it in full (Ada Lovelace)."""
    wanted = _ALIASES.get(name or "", name)
    return next((row for row in architectures() if row.name == wanted), None)


def architecture_of(compute_capability: str) -> str | None:
    """The architecture of a compute capability: 8.9 is Ada. None when it is newer than our data."""
    return next((row.name for row in architectures() if compute_capability in row.compute_capabilities), None)


def usable_today() -> tuple[int, ...]:
    """The branches that were still maintained when the data was collected."""
    return tuple(read("drivers")["usable_today"])


def recommended(architecture_name: str | None = None, *, first_driver: str | None = None) -> int:
    """The branch to install for an architecture, or for any of them.

    ``first_driver`` is the first release known to drive this very card (``GpuModel.first_driver``). An architecture
    that no maintained branch drives gets the last one that did, although it has reached its end of life.
    """
    default: int = read("drivers")["recommended"]
    row = architecture(architecture_name)
    if row and row.last_branch is not None and row.last_branch < default:
        return row.last_branch
    needed = max(row.first_branch if row else 0, branch_of(first_driver or "") or 0)
    if needed <= default:
        return default
    return next((number for number in sorted(usable_today()) if number >= needed), usable_today()[-1])


def end_of_life(number: int) -> str | None:
    """The day or month in which a branch ended or will end; None when it is not known."""
    row = branch(number)
    return row.end_of_life if row else None


def has_ended(number: int, today: date) -> bool | None:
    """Whether a branch is past its end of life; None when its end is not known."""
    text = end_of_life(number)
    # a month is compared with the month of today, so a branch lives to the end of its last month
    return None if text is None else today.isoformat()[: len(text)] > text


def module_flavour(architecture_name: str, *, number: int | None = None) -> ModuleFlavour | None:
    """Which flavour of the kernel modules an architecture needs, on branch ``number`` where that is given.

    GH200 needs the open ones although its compute capability is Hopper's: ask for "Grace Hopper", or the GPU's own row.
    None when the architecture is not in our data.
    """
    row = architecture(architecture_name)
    if row is None:
        return None
    table = read("drivers")
    if row.modules != "either" or number is None:
        return row.modules
    if number >= table["open_only_since"]:
        return "open-required"
    return "proprietary-required" if number < table["open_introduced"] else "either"


def supports(number: int, architecture_name: str) -> bool | None:
    """Whether a branch drives an architecture; None when either is not in our data (newer than it, say)."""
    row = architecture(architecture_name)
    if row is None or number < branches()[0].number:
        return None
    if row.last_branch is not None and number > row.last_branch:
        return False
    if number < row.first_branch:
        return False
    return True if number <= branches()[-1].number else None


@cache
def tegra() -> frozenset[str]:
    """Compute capabilities of the integrated chips whose binary code is apart from everybody else's."""
    return frozenset(read("drivers")["tegra"]["compute_capabilities"])


def present_name(compute_capability: str) -> str:
    """The name by which a renamed compute capability goes today: Thor's 10.1 is 11.0."""
    renamed: dict[str, str] = read("drivers")["tegra"]["renamed"]
    return renamed.get(compute_capability, compute_capability)


def _branch(row: Row) -> Branch:
    return Branch(
        number=row["branch"],
        type=row["type"],
        released=row.get("released"),
        end_of_life=row.get("end_of_life"),
        latest=row.get("latest"),
        cuda=row["cuda"],
        open_modules=row["open_modules"],
        proprietary_modules=row.get("proprietary_modules", True),
        note=row.get("note"),
        sources=sources("drivers", row["source"]),
    )


def _architecture(row: Row) -> Architecture:
    return Architecture(
        name=row["name"],
        compute_capabilities=tuple(row["compute_capabilities"]),
        first_branch=row["first_branch"],
        last_branch=row.get("last_branch"),
        first_cuda=row["first_cuda"],
        last_cuda_major=row.get("last_cuda_major"),
        modules=row["modules"],
        note=row.get("note"),
        sources=sources("drivers", row["source"]),
    )
