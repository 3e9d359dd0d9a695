"""CUDA toolkits, and which driver runs what they build."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from gpudoctor.knowledge import drivers
from gpudoctor.knowledge.table import Row, read, sources, version_key


@dataclass(frozen=True, slots=True)
class Toolkit:
    """One release of the CUDA toolkit."""

    release: str
    """12.4.1."""
    label: str
    """12.4 Update 1."""
    cuda: str
    """12.4."""
    ga: bool
    """It is the first general release of its minor version."""
    driver: str | None
    """The Linux driver of this release, with which every feature works; None where none is known."""
    windows_driver: str | None
    bundled: bool
    note: str | None
    sources: tuple[str, ...]


@cache
def toolkits() -> tuple[Toolkit, ...]:
    """All releases, newest first."""
    return tuple(_toolkit(row) for row in read("cuda")["toolkit"])


def minor_compat_floor(cuda_major: int, *, windows: bool = False) -> str | None:
    """The lowest driver that runs every binary built with this CUDA major; None when the major is not in our data.

    ``windows``: the driver of the Windows host, which is the one that counts under WSL2.
    """
    rows: list[dict[str, str | int]] = read("cuda")["minor_compat"]
    key = "windows_floor" if windows else "floor"
    found = next((row.get(key) for row in rows if row["cuda_major"] == cuda_major), None)
    return str(found) if found else None


def majors() -> tuple[int, ...]:
    """The CUDA majors in our data, oldest first."""
    return tuple(sorted(int(row["cuda_major"]) for row in read("cuda")["minor_compat"]))


def serves(driver_version: str, cuda_major: int) -> bool | None:
    """Whether a Linux driver meets the floor of a CUDA major; None when one of them cannot be judged."""
    floor, have = minor_compat_floor(cuda_major), version_key(driver_version)
    return have >= version_key(floor) if floor and have else None


def toolkit_driver(version: str) -> str | None:
    """The driver of a toolkit: "12.4" means its first general release, "12.4.1" that very release; None when not known."""
    for row in toolkits():
        if row.release == version or (row.ga and row.cuda == version):
            return row.driver
    return None


def cuda_of_driver(version: str) -> str | None:
    """The CUDA version that a Linux driver speaks, by its branch: 535.86.10 speaks 12.2; None for a branch we do not know."""
    row = drivers.branch(drivers.branch_of(version))
    return row.cuda if row else None


def ubuntu_toolkit(release: str) -> str | None:
    """CUDA of Ubuntu's own package nvidia-cuda-toolkit: 22.04 has 11.5; None for a release we do not know."""
    rows: list[dict[str, str]] = read("cuda")["ubuntu_toolkit"]
    return next((row["cuda"] for row in rows if row["release"] == release), None)


def decode(number: int) -> str:
    """The version behind cuDriverGetVersion's number: 12020 is 12.2."""
    return f"{number // 1000}.{number % 1000 // 10}"


def encode(version: str) -> int:
    """The number that cuDriverGetVersion gives for a version: 12.2 is 12020; 0 when it is no version."""
    numbers = version_key(version)
    return numbers[0] * 1000 + numbers[1] * 10 if len(numbers) >= 2 else 0


def _toolkit(row: Row) -> Toolkit:
    return Toolkit(
        release=row["release"],
        label=row["label"],
        cuda=row["cuda"],
        ga=row.get("ga", False),
        driver=row.get("driver"),
        windows_driver=row.get("windows_driver"),
        bundled=row.get("bundled", True),
        note=row.get("note"),
        sources=sources("cuda", row["source"]),
    )
