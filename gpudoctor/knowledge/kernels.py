"""Ubuntu's kernel flavours, and the metapackages that follow the kernel that is booted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from gpudoctor.knowledge.table import Row, read, sources


@dataclass(frozen=True, slots=True)
class Flavour:
    """One kernel metapackage of one Ubuntu release."""

    release: str
    """22.04."""
    suffix: str
    """What ends the kernel's release: generic, aws."""
    series: tuple[str, ...]
    """The kernel series that it has had, oldest first."""
    name: str
    """The end of its packages' names: generic-hwe-22.04."""
    note: str | None
    sources: tuple[str, ...]

    @property
    def image(self) -> str:
        """The metapackage of the kernel."""
        return f"linux-image-{self.name}"

    @property
    def headers(self) -> str:
        """The metapackage of the kernel's headers."""
        return f"linux-headers-{self.name}"

    def modules(self, branch: int, *, server: bool = False, open_modules: bool = False) -> str:
        """The metapackage of the prebuilt, signed NVIDIA modules for this flavour."""
        middle = ("-server" if server else "") + ("-open" if open_modules else "")
        return f"linux-modules-nvidia-{branch}{middle}-{self.name}"


@cache
def flavours() -> tuple[Flavour, ...]:
    """All flavours."""
    return tuple(_flavour(row) for row in read("kernels")["flavour"])


def flavour(ubuntu: str, kernel: str) -> Flavour | None:
    """The flavour of a booted kernel: 22.04 and 6.2.0-26-generic are generic-hwe-22.04; None when it is not in our data.

    The answer is a proposal: confirm the package with apt before offering it.
    """
    version, _, suffix = kernel.rpartition("-")
    series = ".".join(version.split(".")[:2])
    fitting = (row for row in flavours() if row.release == ubuntu and row.suffix == suffix and series in row.series)
    return next(fitting, None)


def _flavour(row: Row) -> Flavour:
    return Flavour(
        release=row["release"],
        suffix=row["suffix"],
        series=tuple(row["series"]),
        name=row["name"],
        note=row.get("note"),
        sources=sources("kernels", row["source"]),
    )
