from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpudoctor.facts import BuildTools, Facts, Toolkit, Unknown
from tests.healthy import TORCH, check, facts, gpu

CHECK = check("cuda_toolkit")
judge = CHECK.judge

GCC = BuildTools("/usr/bin/gcc", "11.4.0", python_header=True)


def toolkit(version: str, **changes: Any) -> Toolkit:
    path = f"/usr/local/cuda-{version}"
    known = Toolkit(path, f"{path}/bin/nvcc", version, f"{version}.99", ("PATH", "/usr/local"), "nvidia", 13, None)
    return replace(known, **changes)


def codes(known: Facts, *, required: bool = True) -> list[str]:
    return [finding.code for finding in judge(known, required).findings]


def test_none_is_fine() -> None:
    verdict = judge(facts(), False)
    assert verdict.status == "pass"
    assert verdict.summary == "none, and none is needed: PyTorch brings its own CUDA"


def test_one_that_does_not_fit_is_fine_too() -> None:
    verdict = judge(facts(toolkits=(toolkit("13.0"),)), False)
    assert verdict.status == "pass"
    assert verdict.summary == "13.0 at /usr/local/cuda-13.0; not needed by PyTorch's wheels"


def test_asked_for_and_missing_names_the_one_for_pytorch() -> None:
    finding = judge(facts(), True).findings[0]
    assert finding.code == "cuda-toolkit-missing"
    assert dict(finding.fix.values) == {"CUDA_PACKAGE": "cuda-toolkit-12-4", "CUDA": "12.4"}


def test_a_folder_without_nvcc_is_no_toolkit_to_build_with() -> None:
    assert codes(facts(toolkits=(toolkit("12.4", nvcc=None),))) == ["cuda-toolkit-missing"]


@pytest.mark.parametrize("version", ["12.1", "12.4", "12.6"])
def test_minor_versions_may_differ(version: str) -> None:
    assert codes(facts(toolkits=(toolkit(version),), build_tools=GCC)) == []


def test_another_major_does_not_build() -> None:
    assert codes(facts(toolkits=(toolkit("13.0"),), build_tools=GCC)) == ["nvcc-torch-version-mismatch"]


def test_a_fitting_one_beside_it_is_chosen_and_nothing_installed() -> None:
    beside = toolkit("12.4", found_by=("/usr/local",))
    verdict = judge(facts(toolkits=(toolkit("13.0"), beside), build_tools=GCC), True)
    assert [f.code for f in verdict.findings] == ["nvcc-torch-version-mismatch", "multi-cuda"]
    assert verdict.findings[0].fix.step == "cuda-toolkit#choose-toolkit"


def test_cuda_home_goes_before_path() -> None:
    home = toolkit("12.4", found_by=("CUDA_HOME",))
    assert codes(facts(toolkits=(toolkit("13.0"), home), build_tools=GCC)) == ["multi-cuda"]


def test_a_newer_gcc_than_it_accepts() -> None:
    tools = replace(GCC, gcc_version="14.2.0")
    finding = judge(facts(toolkits=(toolkit("12.4"),), build_tools=tools), True).findings[0]
    assert finding.code == "host-compiler-unsupported"
    assert dict(finding.fix.values) == {"GCC": "gcc-13"}


@pytest.mark.parametrize(
    ("capability", "version", "torch_cuda", "expected"),
    [
        ("8.9", "11.5", "11.8", ["nvcc-arch-unsupported"]),
        ("12.0", "12.4", "12.8", ["nvcc-arch-unsupported"]),
        ("6.1", "13.0", "13.0", ["nvcc-arch-unsupported"]),
        ("8.9", "12.4", "12.4", []),
        ("99.0", "12.4", "12.4", []),
    ],
    ids=["older-than-ada", "older-than-blackwell", "newer-than-pascal", "fits", "gpu-of-the-future"],
)
def test_nvcc_has_to_know_the_gpu(capability: str, version: str, torch_cuda: str, expected: list[str]) -> None:
    known = facts(
        gpu(name="NVIDIA Something", capability=capability),
        torch=replace(TORCH, cuda=torch_cuda),
        toolkits=(toolkit(version),),
        build_tools=GCC,
    )
    assert codes(known) == expected


def test_what_a_build_lacks_is_said() -> None:
    tools = BuildTools(None, None, python_header=False)
    assert "gcc and Python.h, which building" in judge(facts(toolkits=(toolkit("12.4"),), build_tools=tools), True).summary


def test_a_damaged_one_is_a_warning_when_it_is_asked_for() -> None:
    broken = toolkit("12.4", problem="/usr/local/cuda-12.4/version.json is a folder")
    verdict = judge(facts(toolkits=(broken,), build_tools=GCC), True)
    assert [f.code for f in verdict.findings] == ["toolkit-damaged"]
    assert verdict.status == "warn"
    assert judge(facts(toolkits=(broken,)), False).status == "pass"


def test_an_unknown_version_is_unknown_only_when_asked_for() -> None:
    vague = replace(toolkit("12.4"), version=Unknown("no nvcc"), full_version=Unknown("no nvcc"))
    assert judge(facts(toolkits=(vague,)), False).status == "pass"
    assert judge(facts(toolkits=(vague,)), True).status == "unknown"


def test_no_facts_at_all() -> None:
    assert judge(Facts(), False).status == "pass"
    assert judge(Facts(), True).status == "unknown"
    assert CHECK.needs == ()
