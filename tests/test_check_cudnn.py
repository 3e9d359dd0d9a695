from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudoctor.facts import Facts, LibraryCopy, Resolution, Unknown
from tests.healthy import IMPORT, SITE, TORCH, check, facts, gpu

CHECK = check("cudnn")
judge = CHECK.judge
compatible = import_module("gpudoctor.checks.cudnn").compatible

OWN = f"{SITE}/nvidia/cudnn/lib/libcudnn.so.9"
SYSTEM_COPY = "/usr/lib/x86_64-linux-gnu/libcudnn.so.9"
WHEEL = LibraryCopy("cudnn", "9.1.0", OWN, "wheel", "nvidia-cudnn-cu12", 12)
APT = LibraryCopy("cudnn", "8.9.2", "/usr/lib/x86_64-linux-gnu/libcudnn.so.8", "system", "libcudnn8", 12)


def shadowed(version: str) -> Facts:
    found = Resolution("libcudnn.so.9", SYSTEM_COPY, "LD_LIBRARY_PATH", version, OWN, "9.1.0")
    return facts(torch=replace(TORCH, resolutions=(found,)))


def codes(known: Facts, *, required: bool = False) -> list[str]:
    return [finding.code for finding in judge(known, required).findings]


def test_pytorchs_own_is_enough() -> None:
    verdict = judge(facts(libraries=(WHEEL,)), False)
    assert verdict.status == "pass"
    assert verdict.summary == "9.1.0, PyTorch's own; none of the system is needed"


def test_a_system_copy_that_nobody_takes_is_mentioned_only() -> None:
    verdict = judge(facts(libraries=(WHEEL, APT)), False)
    assert verdict.status == "pass"
    assert "the system's 8.9.2 is not used" in verdict.summary


@pytest.mark.parametrize(
    ("version", "expected"),
    [("9.0.0", ["cudnn-version-mismatch"]), ("8.9.7", ["cudnn-version-mismatch"]), ("9.1.0", []), ("9.1.1", []), ("9.5.0", [])],
)
def test_a_copy_before_pytorchs_own_is_a_fault_when_pytorch_refuses_it(version: str, expected: list[str]) -> None:
    assert codes(shadowed(version)) == expected


def test_the_cure_is_to_take_the_folder_off_the_path() -> None:
    finding = judge(shadowed("9.0.0"), False).findings[0]
    assert finding.fix.step == "pytorch#unset-library-path"
    assert dict(finding.fix.values) == {"DIRECTORY": "/usr/lib/x86_64-linux-gnu"}
    assert finding.stands_alone


def test_a_missing_file_is_a_fault() -> None:
    torch = replace(TORCH, missing_libraries=("libcudnn.so.9",))
    assert codes(facts(torch=torch, torch_import=Unknown("not asked for"))) == ["cudnn-library-missing"]


def test_what_a_good_import_has_found_is_not_missing_but_a_later_part_may_be() -> None:
    assert codes(facts(torch=replace(TORCH, missing_libraries=("libcudnn.so.9",)))) == []
    assert codes(facts(torch=replace(TORCH, missing_libraries=("libcudnn_ops.so.9",)))) == ["cudnn-library-missing"]


def test_pytorchs_own_words_are_believed() -> None:
    error = (
        "RuntimeError: cuDNN version incompatibility: PyTorch was compiled  against (9, 1, 0) but found runtime version (8, 9, 2)"
    )
    known = facts(torch_import=replace(IMPORT, error=error), variables={"LD_LIBRARY_PATH": "/opt/cudnn/lib"})
    finding = judge(known, False).findings[0]
    assert finding.code == "cudnn-version-mismatch"
    assert dict(finding.fix.values) == {"DIRECTORY": "/opt/cudnn/lib"}


def test_an_import_that_misses_cudnn_is_named_here() -> None:
    error = "ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory"
    failed = replace(IMPORT, version=None, available=None, error=error, phase="start")
    assert codes(facts(torch_import=failed)) == ["cudnn-library-missing"]


def test_a_cudnn_that_left_the_gpu_behind() -> None:
    found = Resolution("libcudnn.so.9", OWN, "rpath", "9.20.0", OWN, "9.20.0")
    old = gpu(name="NVIDIA GeForce GTX 1080", capability="6.1")
    assert codes(facts(old, torch=replace(TORCH, resolutions=(found,)))) == ["cudnn-version-mismatch"]
    assert codes(facts(torch=replace(TORCH, resolutions=(found,)))) == []


def test_the_systems_is_judged_only_when_asked_for() -> None:
    assert codes(facts(libraries=(WHEEL,)), required=True) == ["cudnn-library-missing"]
    assert codes(facts(libraries=(WHEEL, APT)), required=True) == []


@given(st.text(max_size=10), st.text(max_size=10))
def test_any_versions_are_compared(taken: str, wanted: str) -> None:
    assert compatible(taken, wanted) in (True, False)


def test_no_facts_at_all_are_unknown() -> None:
    assert judge(Facts(), True).status == "unknown"
    assert CHECK.needs == ("pytorch",)
