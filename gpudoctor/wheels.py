"""Which PyTorch build runs on a GPU, a driver and a Python, and which one to recommend. Pure: tables in, answer out.

Three rules, each with its trap:

* **Binary rule.** Code for X.Y runs on devices X.Z with Z >= Y; PTX for X.Y runs on every newer device, compiled by
  the driver. Tegra chips (8.7 and its like) run only code of exactly their own capability, and nobody else runs
  theirs. "9.0a" runs on 9.0 alone; "12.0f" on its family: the same major, that minor or above.
  (CUDA C++ Programming Guide; for Tegra DEVICE_REQUIREMENT in torch/cuda/__init__.py.)
* **Driver rule.** A build runs on every driver from the floor of its CUDA major on (minor-version compatibility).
* **But not by PTX.** Minor-version compatibility covers binaries. Where the GPU would need the build's PTX, the
  driver must be as new as the toolkit that made it. (CUDA Compatibility guide.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from gpudoctor.knowledge import cuda, drivers, torch_builds
from gpudoctor.knowledge.table import version_key
from gpudoctor.knowledge.torch_builds import Build, Release

Coverage = Literal["binary", "ptx", "no"]
Need = Literal["driver", "python", "gpu", "platform"]

_CODE = re.compile(r"(?:sm_|compute_)?(\d+)\.?(\d)([af]?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The build to install."""

    torch: str
    """2.14.1."""
    variant: str
    """cu126."""
    cuda: str
    """12.6."""
    index_url: str | None
    """Where to get it; None when the default index's build is the right one."""
    default: bool
    """It is the build on the default index."""
    reason: str
    """Why this one; a phrase that reads well after "Why this one: "."""


@dataclass(frozen=True, slots=True)
class NoWheel:
    """No build that is known fits."""

    reason: str
    """Why not; a sentence without its full stop."""
    needs: Need
    """What would have to change."""
    driver_needed: str | None
    """The lowest driver that would do, where it is the driver."""


@dataclass(frozen=True, slots=True)
class _Target:
    """What a build has to fit."""

    python_tag: str
    machine: str
    driver_version: str | None
    cuda_version: int | None
    compute_capabilities: tuple[str, ...]
    glibc: str | None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One build of one release."""

    release: Release
    build: Build


def runs_on(sm: Iterable[str], ptx: Iterable[str], compute_capability: str) -> Coverage:
    """How a build with binary code ``sm`` and ``ptx`` runs on a device, by the binary rule.

    Codes read 8.6, 12.0f, sm_86 or compute_120; one that reads otherwise is ignored. A capability that is none is
    not covered.
    """
    device = _parse(compute_capability)
    if device is None:
        return "no"
    if any(_binary_runs(code, device) for code in map(_parse, sm) if code):
        return "binary"
    return "ptx" if any(_ptx_runs(code, device) for code in map(_parse, ptx) if code) else "no"


def driver_runs(cuda_release: str, *, driver_version: str | None, cuda_version: int | None) -> bool | None:
    """Whether a driver runs the binaries of a build with that CUDA release; None when nothing is known of the driver.

    ``cuda_version`` is cuDriverGetVersion's number. It decides where it is all that is known, and where it is beyond
    what the driver's own branch speaks: then cuda-compat is in use.
    """
    major = cuda.encode(cuda_release) // 1000
    served = cuda.serves(driver_version, major) if driver_version else None
    if cuda_version is None:
        return served
    if served is None or _lifted(driver_version, cuda_version):
        return served or cuda_version >= major * 1000
    return served


def compiles_ptx(cuda_release: str, *, driver_version: str | None, cuda_version: int | None) -> bool | None:
    """Whether a driver is as new as the toolkit that made a build's PTX; None when nothing that is known of it says so.

    ``cuda_version`` is cuDriverGetVersion's number. Either of the two suffices.
    """
    if cuda_version is not None and cuda_version >= cuda.encode(cuda_release):
        return True
    own = cuda.toolkit_driver(cuda_release)
    if own and driver_version:
        return version_key(driver_version) >= version_key(own)
    return None if cuda_version is None else False


def _lifted(driver_version: str | None, cuda_version: int) -> bool:
    """Whether the CUDA that answers is beyond what the driver's branch speaks."""
    own = cuda.cuda_of_driver(driver_version) if driver_version else None
    return own is not None and cuda_version > cuda.encode(own)


def recommend(
    *,
    python_tag: str,
    machine: str,
    driver_version: str | None,
    cuda_version: int | None,
    compute_capabilities: Iterable[str],
    keep: str | None,
    glibc: str | None = None,
) -> Recommendation | NoWheel:
    """The newest stable PyTorch that this Python, this driver and these GPUs can all run.

    ``python_tag`` is that of wheel names (cp310, cp313t), ``machine`` that of uname -m, ``glibc`` the C library's
    version where it is known. ``keep`` is the installed version: where a build of it fits, the version stays. A driver
    of which nothing is known (it has yet to be installed) excludes no build, no GPUs exclude none either.
    """
    target = _Target(python_tag, machine, driver_version, cuda_version, tuple(compute_capabilities), glibc)
    for_platform = [candidate for candidate in _candidates() if _fits_platform(candidate, target)]
    if not for_platform:
        return NoWheel(_platform_reason(target), "platform", None)
    for_python = [candidate for candidate in for_platform if _fits_python(candidate, target)]
    if not for_python:
        return NoWheel(
            f"no PyTorch with CUDA is known for {_python(target.python_tag)} on {target.machine} {_of_the_data()}", "python", None
        )
    for_gpus = [candidate for candidate in for_python if _covers(candidate, target) != "no"]
    if not for_gpus:
        return _no_gpu(for_platform, target)
    fitting = [candidate for candidate in for_gpus if _fits_driver(candidate, target)]
    if not fitting:
        return _no_driver(for_gpus, target)

    return _choose(fitting, for_python, target, (keep or "").split("+")[0])


def _choose(fitting: list[_Candidate], for_python: list[_Candidate], target: _Target, keep: str) -> Recommendation:
    """The best of the builds that fit; ``for_python`` tells whether it is the GPUs that rule out a better one."""

    def rank(candidate: _Candidate) -> tuple[object, ...]:
        return _rank(candidate, target)

    kept = [candidate for candidate in fitting if candidate.release.version == keep]
    if kept:
        best = max(kept, key=rank)
        return _recommendation(best, target, f"the same PyTorch {keep}, in a build with CUDA {best.build.cuda}")
    best = max(fitting, key=rank)
    on_other_gpus = [candidate for candidate in for_python if _fits_driver(candidate, target, any_gpu=True)]
    limited = max(on_other_gpus, key=rank) != best
    return _recommendation(best, target, _newest_reason(target, limited_by_gpu=limited))


@cache
def _candidates() -> tuple[_Candidate, ...]:
    """Every build of every release, but for those that its release does not list: their index may lack them."""
    return tuple(
        _Candidate(release, build)
        for release in torch_builds.releases()
        for build in torch_builds.builds()
        if build.torch == release.minor and build.status != "unlisted"
    )


def _fits_platform(candidate: _Candidate, target: _Target) -> bool:
    if not candidate.build.sm(target.machine):
        return False
    if target.glibc is None:
        return True
    tag = candidate.release.platform.replace("manylinux1_", "manylinux_2_5_")  # PEP 600
    needed = re.match(r"manylinux_(\d+)_(\d+)", tag)
    return needed is None or version_key(target.glibc) >= (int(needed[1]), int(needed[2]))


def _fits_python(candidate: _Candidate, target: _Target) -> bool:
    return target.python_tag in candidate.release.cpython(target.machine)


def _covers(candidate: _Candidate, target: _Target) -> Coverage:
    """How the build runs on the least covered of the GPUs."""
    sm, ptx = candidate.build.sm(target.machine), candidate.build.ptx
    ways = {runs_on(sm, ptx, capability) for capability in target.compute_capabilities}
    return "no" if "no" in ways else "ptx" if "ptx" in ways else "binary"


def _fits_driver(candidate: _Candidate, target: _Target, *, any_gpu: bool = False) -> bool:
    runs = driver_runs(candidate.build.cuda, driver_version=target.driver_version, cuda_version=target.cuda_version)
    if runs is None or not runs:
        return runs is None
    if any_gpu or _covers(candidate, target) != "ptx":
        return True
    compiles = compiles_ptx(candidate.build.cuda, driver_version=target.driver_version, cuda_version=target.cuda_version)
    return compiles is True  # a build is recommended only where it is known to run


def _is_default(candidate: _Candidate, target: _Target) -> bool:
    """Whether the default index has this very build; before 2.11 its aarch64 wheels are without CUDA."""
    return candidate.build.default and (target.machine == "x86_64" or candidate.release.aarch64_cuda)


def _rank(candidate: _Candidate, target: _Target) -> tuple[object, ...]:
    """Newest release first; of its builds the default, then stable ones, then the newest CUDA."""
    return (
        version_key(candidate.release.version),
        _is_default(candidate, target),
        candidate.build.status == "stable",
        version_key(candidate.build.cuda),
    )


def _recommendation(candidate: _Candidate, target: _Target, reason: str) -> Recommendation:
    default, variant = _is_default(candidate, target), candidate.build.variant
    return Recommendation(
        torch=candidate.release.version,
        variant=variant,
        cuda=candidate.build.cuda,
        index_url=None if default else torch_builds.index_url(variant),
        default=default,
        reason=reason,
    )


def _newest_reason(target: _Target, *, limited_by_gpu: bool) -> str:
    reason = f"the newest build for {_python(target.python_tag)}"
    driver = _driver(target)
    if driver:
        reason += f" that {driver} can run"
    if limited_by_gpu:
        reason += f"{' and' if driver else ''} that has code for compute capability {_gpus(target)}"
    return reason


def _platform_reason(target: _Target) -> str:
    if target.machine not in {"x86_64", "aarch64"}:
        return f"PyTorch has no wheels with CUDA for {target.machine}"
    return f"no PyTorch with CUDA is known for {target.machine} with glibc {target.glibc} {_of_the_data()}"


def _no_gpu(for_platform: list[_Candidate], target: _Target) -> NoWheel:
    covering = [candidate for candidate in for_platform if _covers(candidate, target) != "no"]
    if covering:
        newest = max(covering, key=lambda candidate: _rank(candidate, target)).release
        tags = ", ".join(_python(tag) for tag in newest.cpython(target.machine))
        lacking = f"no PyTorch for {_python(target.python_tag)} has code for compute capability {_gpus(target)}"
        return NoWheel(f"{lacking}; {newest.version} has, for {tags}", "python", None)
    reason = f"no PyTorch wheel has code for compute capability {_gpus(target)}"
    if drivers.tegra().intersection(target.compute_capabilities):
        reason += "; Jetson takes the wheels that NVIDIA builds for its JetPack"
    elif len(target.compute_capabilities) > 1:
        reason += " all at once"
    return NoWheel(f"{reason} {_of_the_data()}", "gpu", None)


def _no_driver(for_gpus: list[_Candidate], target: _Target) -> NoWheel:
    needed = min((_lowest_driver(candidate, target) for candidate in for_gpus), key=version_key)
    return NoWheel(
        f"every PyTorch for {_python(target.python_tag)} and these GPUs needs driver {needed} or newer", "driver", needed
    )


def _lowest_driver(candidate: _Candidate, target: _Target) -> str:
    build = candidate.build
    floor = cuda.minor_compat_floor(cuda.encode(build.cuda) // 1000) or candidate.release.min_driver
    own = cuda.toolkit_driver(build.cuda) if _covers(candidate, target) == "ptx" else None
    return max(floor, own or floor, key=version_key)


def _driver(target: _Target) -> str | None:
    number, speaks = drivers.branch_of(target.driver_version or ""), target.cuda_version
    if number is None:
        return None if speaks is None else f"a driver for CUDA {cuda.decode(speaks)}"
    if speaks is not None and _lifted(target.driver_version, speaks):
        return f"driver {number} with its CUDA {cuda.decode(speaks)} compatibility libraries"
    return f"driver {number}"


def _gpus(target: _Target) -> str:
    return " and ".join(sorted(set(target.compute_capabilities), key=version_key))


def _python(tag: str) -> str:
    match = re.fullmatch(r"cp(\d)(\d+)(t?)", tag)
    return f"Python {match[1]}.{match[2]}{match[3]}" if match else f"Python ({tag})"


def _of_the_data() -> str:
    return f"(PyTorch up to {torch_builds.newest()})"


@cache
def _parse(code: str) -> tuple[int, int, str] | None:
    """Major, minor and the letter of an architecture, by the name that it goes by today."""
    match = _CODE.fullmatch(code.strip())
    if match is None:
        return None
    today = drivers.present_name(f"{int(match[1])}.{match[2]}")
    major, minor = version_key(today)
    return major, minor, match[3].lower()


def _binary_runs(code: tuple[int, int, str], device: tuple[int, int, str]) -> bool:
    exact = code[:2] == device[:2]
    alone = drivers.tegra()
    if code[2] == "a" or f"{code[0]}.{code[1]}" in alone or f"{device[0]}.{device[1]}" in alone:
        return exact
    return code[0] == device[0] and code[1] <= device[1]


def _ptx_runs(code: tuple[int, int, str], device: tuple[int, int, str]) -> bool:
    if code[2] == "a":
        return code[:2] == device[:2]
    if code[2] == "f":
        return code[0] == device[0] and code[1] <= device[1]
    return code[:2] <= device[:2]
