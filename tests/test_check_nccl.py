from __future__ import annotations

from dataclasses import replace

import pytest

from gpudoctor.facts import Facts, LibraryCopy, Resolution
from tests.healthy import GIB, IMPORT, MIB, SITE, SYSTEM, TORCH, check, facts, gpu

CHECK = check("nccl")
judge = CHECK.judge

OWN = f"{SITE}/nvidia/nccl/lib/libnccl.so.2"
APT = LibraryCopy("nccl", "2.18.3", "/usr/lib/x86_64-linux-gnu/libnccl.so.2", "system", "libnccl2", 12)
WHEEL = LibraryCopy("nccl", "2.21.5", OWN, "wheel", "nvidia-nccl-cu12", 12)


def codes(known: Facts, *, required: bool = False) -> list[str]:
    return [finding.code for finding in judge(known, required).findings]


def test_pytorchs_own_is_enough() -> None:
    verdict = judge(facts(libraries=(WHEEL, APT)), False)
    assert verdict.status == "pass"
    assert verdict.summary == "2.21.5, PyTorch's own; the system's 2.18.3 is not used"


def test_a_cuda_build_without_nccl() -> None:
    torch = replace(TORCH, nccl_built_in=False)
    known = facts(torch=torch, torch_import=replace(IMPORT, nccl=None))
    assert codes(known) == ["nccl-not-in-torch-build"]
    assert codes(replace(known, system=replace(SYSTEM, platform="jetson"))) == []


def test_what_pytorch_says_of_itself_counts_more_than_its_files() -> None:
    assert codes(facts(torch=replace(TORCH, nccl_built_in=False))) == []


@pytest.mark.parametrize(("version", "expected"), [("2.18.3", ["nccl-symbol-mismatch"]), ("2.21.5", []), ("2.25.1", [])])
def test_a_copy_before_pytorchs_own_is_a_fault_when_it_is_older(version: str, expected: list[str]) -> None:
    found = Resolution("libnccl.so.2", "/opt/nccl/lib/libnccl.so.2", "LD_LIBRARY_PATH", version, OWN, "2.21.5")
    assert codes(facts(torch=replace(TORCH, resolutions=(found,)))) == expected


def test_an_import_that_misses_a_function_of_nccl_is_named_here() -> None:
    error = "ImportError: /x/torch/lib/libtorch_cuda.so: undefined symbol: ncclCommWindowRegister"
    failed = replace(IMPORT, version=None, available=None, error=error, phase="start")
    assert codes(facts(torch_import=failed)) == ["nccl-symbol-mismatch"]


@pytest.mark.parametrize(
    ("container", "size", "gpus", "expected"),
    [
        ("docker", 64 * MIB, 2, ["nccl-shm-too-small"]),
        ("docker", 64 * MIB, 1, []),
        ("docker", 8 * GIB, 2, []),
        (None, 64 * MIB, 2, []),
    ],
    ids=["small", "one-gpu", "large", "no-container"],
)
def test_docker_s_default_is_small_for_several_gpus(container: str | None, size: int, gpus: int, expected: list[str]) -> None:
    system = replace(SYSTEM, container=container, shm_total=size)
    assert codes(facts(*(gpu(i) for i in range(gpus)), system=system)) == expected


def test_the_systems_is_judged_only_when_asked_for() -> None:
    assert codes(facts(libraries=(WHEEL,)), required=True) == ["nccl-library-missing"]
    assert codes(facts(libraries=(WHEEL, APT)), required=True) == []


def test_no_facts_at_all_are_unknown() -> None:
    assert judge(Facts(), False).status == "unknown"
    assert CHECK.needs == ("pytorch",)
