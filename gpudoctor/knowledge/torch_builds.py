"""Releases of PyTorch, and the CUDA builds of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from gpudoctor.knowledge.table import Row, read, sources, version_key


@dataclass(frozen=True, slots=True)
class Release:
    """One release as its wheels on PyPI describe it."""

    version: str
    requires_python: str
    cpython_x86_64: tuple[str, ...]
    cpython_aarch64: tuple[str, ...]
    """The wheel tags that exist for each machine: cp310, cp313t."""
    platform: str
    """The platform tag of the wheel for x86_64."""
    cuda: str
    """CUDA of the wheel on PyPI."""
    aarch64_cuda: bool
    """PyPI's wheel for aarch64 has CUDA too."""
    cuda_toolkit: str | None
    """The pinned cuda-toolkit package, from 2.11 on."""
    cudnn: str
    nccl: str | None
    triton: str | None
    min_driver: str
    sources: tuple[str, ...]

    @property
    def minor(self) -> str:
        """The minor release that its builds are listed under: 2.14 of 2.14.1."""
        return ".".join(self.version.split(".")[:2])

    def cpython(self, machine: str) -> tuple[str, ...]:
        """The wheel tags for a machine (uname -m); empty where there are no wheels."""
        return {"x86_64": self.cpython_x86_64, "aarch64": self.cpython_aarch64}.get(machine, ())


@dataclass(frozen=True, slots=True)
class Build:
    """One CUDA build of a minor release."""

    torch: str
    """The minor release: 2.14."""
    variant: str
    """cu126: the index that holds it, and its local version tag."""
    cuda: str
    sm_x86_64: tuple[str, ...]
    sm_aarch64: tuple[str, ...]
    """Compute capabilities of its binary code; none where there is no wheel for that machine."""
    ptx: tuple[str, ...]
    status: Literal["stable", "experimental", "unlisted"]
    default: bool
    """It is the build on PyPI."""
    cudnn: str | None
    nccl: str | None
    note: str | None
    sources: tuple[str, ...]

    def sm(self, machine: str) -> tuple[str, ...]:
        """Compute capabilities of its binary code for a machine (uname -m)."""
        return {"x86_64": self.sm_x86_64, "aarch64": self.sm_aarch64}.get(machine, ())


@cache
def releases() -> tuple[Release, ...]:
    """All releases, oldest first."""
    rows = (_release(row) for row in read("torch_builds")["release"])
    return tuple(sorted(rows, key=lambda release: version_key(release.version)))


@cache
def builds() -> tuple[Build, ...]:
    """All builds, oldest release first."""
    rows = (_build(row) for row in read("torch_builds")["build"])
    return tuple(sorted(rows, key=lambda build: (version_key(build.torch), version_key(build.cuda))))


def release(version: str) -> Release | None:
    """The release of that version, with or without its local tag; None when it is not in our data."""
    return next((row for row in releases() if row.version == version.split("+", maxsplit=1)[0]), None)


def build(version: str, variant: str) -> Build | None:
    """The build of a release (2.14.1, 2.14, 2.14.1+cu126) in a variant; None when it is not in our data."""
    minor = ".".join(version.split("+", maxsplit=1)[0].split(".")[:2])
    return next((row for row in builds() if row.torch == minor and row.variant == variant), None)


def newest() -> str:
    """The newest release when the data was collected."""
    return str(read("torch_builds")["newest"])


def index_url(variant: str) -> str:
    """The package index of a variant: cu126, or cpu."""
    return str(read("torch_builds")["index_url"]).format(variant=variant)


def _release(row: Row) -> Release:
    return Release(
        version=row["version"],
        requires_python=row["requires_python"],
        cpython_x86_64=tuple(row["cpython_x86_64"]),
        cpython_aarch64=tuple(row["cpython_aarch64"]),
        platform=row["platform"],
        cuda=row["cuda"],
        aarch64_cuda=row["aarch64_cuda"],
        cuda_toolkit=row.get("cuda_toolkit"),
        cudnn=row["cudnn"],
        nccl=row.get("nccl"),
        triton=row.get("triton"),
        min_driver=row["min_driver"],
        sources=sources("torch_builds", (row["source"],)),
    )


def _build(row: Row) -> Build:
    return Build(
        torch=row["torch"],
        variant=row["variant"],
        cuda=row["cuda"],
        sm_x86_64=tuple(row["sm_x86_64"]),
        sm_aarch64=tuple(row["sm_aarch64"]),
        ptx=tuple(row["ptx"]),
        status=row["status"],
        default=row["default"],
        cudnn=row.get("cudnn"),
        nccl=row.get("nccl"),
        note=row.get("note"),
        sources=sources("torch_builds", row["source"]),
    )
