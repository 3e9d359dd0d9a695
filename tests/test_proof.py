"""What ``gpudoctor smoke`` concludes of facts made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor.facts import Facts, Nvml, Skipped, Unknown
from gpudoctor.proof import proof, ran_on_cpu
from tests import healthy
from tests.test_contracts import ANY_FACTS
from tests.test_smoke_report import CPU, smoke

NO_GPU: dict[str, Any] = {
    "pci": (),
    "nvml": replace(healthy.nvml(), gpus=(), error_code=12, error="no such file", driver_version=Unknown("no library")),
}
CPU_TORCH = replace(healthy.TORCH, version="2.5.1+cpu", cuda=None, sm=(), nccl_built_in=False, cudnn_built_for=None)
CPU_IMPORT = replace(healthy.IMPORT, version="2.5.1+cpu", cuda=None, available=False, device_count=0, nccl=False, cudnn=None)
HOT = healthy.gpu(throttle=("sw-thermal",), temperature=93)


def no_gpu(**changes: Any) -> Facts:
    return healthy.facts(**{**NO_GPU, "torch": CPU_TORCH, "torch_import": CPU_IMPORT, **changes})


def names(facts: Facts, device: str | None = None) -> list[str]:
    return [check.name for check in proof(facts, device).checks]


def test_a_run_that_came_through_stands_by_itself() -> None:
    result = proof(healthy.facts(smoke=smoke()), None)
    assert (result.status, result.root_causes, [check.name for check in result.checks]) == ("pass", (), ["smoke"])
    assert result.checks[0].seconds == 9.3


def test_heat_is_shown_beside_a_run_that_came_through() -> None:
    result = proof(healthy.facts(HOT, smoke=smoke()), None)
    assert result.status == "warn"
    assert "throttle-thermal" in [finding.code for finding in result.findings]


def test_heat_of_the_gpu_does_not_matter_to_a_run_on_the_cpu() -> None:
    assert proof(healthy.facts(HOT, smoke=smoke(**CPU)), "cpu").findings == ()


def test_a_run_on_the_cpu_of_a_machine_without_gpu_passes() -> None:
    result = proof(no_gpu(smoke=smoke(**CPU)), None)
    assert (result.status, result.findings) == ("pass", ())


def test_a_gpu_that_was_asked_for_and_is_absent_is_the_root_cause() -> None:
    result = proof(no_gpu(smoke=Skipped("this machine has no NVIDIA GPU")), "cuda")
    assert (result.status, result.root_causes[0]) == ("fail", "no-nvidia-gpu")
    assert (result.checks[-1].name, result.checks[-1].status) == ("smoke", "blocked")


def test_a_gpu_that_pytorch_cannot_use_is_explained_by_pytorch() -> None:
    facts = healthy.facts(torch=CPU_TORCH, torch_import=CPU_IMPORT, smoke=Skipped("PyTorch sees no GPU"))
    result = proof(facts, None)
    assert result.root_causes == ("torch-cpu-only-build",)
    assert [check.status for check in result.checks if check.name == "driver"] == ["pass"]


def test_a_death_on_the_cpu_is_not_blamed_on_the_absent_gpu() -> None:
    died = smoke(**CPU, phase="load", signal="SIGKILL", needed_memory=64 << 30)
    assert proof(no_gpu(smoke=died), None).root_causes == ("host-memory-too-small",)


def test_a_death_on_the_gpu_is_named_by_the_layer_that_knows_it() -> None:
    error = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 86.00 MiB. GPU 0 has a total capacity of 11.69 GiB of "
        "which 64.81 MiB is free."
    )
    result = proof(healthy.facts(smoke=smoke(phase="load", error=error, needed_memory=40 << 30)), None)
    assert result.status == "fail"
    assert [check.name for check in result.checks if check.status == "fail"] == ["vram"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"signal": "SIGSEGV", "version": None, "available": None, "phase": "start"}, "torch-import-crashes"),
        ({"hung": True, "version": None, "available": None, "phase": "start"}, "torch-import-hangs"),
    ],
    ids=["crash", "hang"],
)
def test_an_import_that_fails_on_the_cpu_is_told_although_the_build_has_no_cuda(changes: dict[str, Any], code: str) -> None:
    facts = no_gpu(torch_import=replace(CPU_IMPORT, **changes), smoke=Skipped("PyTorch does not import"))
    assert proof(facts, None).root_causes == (code,)


def test_no_pytorch_is_the_root_cause_on_the_cpu_too() -> None:
    assert proof(no_gpu(torch=None, torch_import=None, smoke=Skipped("no PyTorch")), None).root_causes == ("torch-not-installed",)


@pytest.mark.parametrize("what", [Skipped("asked to"), Unknown("no answer")], ids=["skipped", "unknown"])
def test_a_test_that_did_not_run_is_no_pass(what: Skipped | Unknown) -> None:
    assert proof(healthy.facts(smoke=what), None).status == "unknown"


def test_wrong_numbers_are_a_fault_although_it_came_through() -> None:
    assert proof(healthy.facts(smoke=smoke(difference=0.2)), None).root_causes == ("cpu-gpu-disagree",)


def test_a_jetson_has_a_gpu_that_is_not_on_the_bus() -> None:
    facts = no_gpu(system=replace(healthy.SYSTEM, platform="jetson"), smoke=Skipped("x"))
    assert isinstance(facts.nvml, Nvml)
    assert not ran_on_cpu(facts, None)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(facts=ANY_FACTS, device=st.sampled_from([None, "cpu", "cuda"]))
def test_any_facts_give_a_conclusion_without_raising(facts: Facts, device: str | None) -> None:
    result = proof(facts, device)
    assert result.checks[-1].name == "smoke"
    assert (result.status == "fail") == bool(result.root_causes)
    assert "check-crashed" not in [finding.code for finding in result.findings]
