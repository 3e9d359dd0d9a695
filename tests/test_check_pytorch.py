from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudoctor.facts import Companion, CudaDriver, Environment, Facts, Resolution, TorchImport, Unknown
from gpudoctor.findings import Finding, Verdict
from tests.healthy import CARD, IMPORT, INTERPRETER, PYTHON, SITE, SYSTEM, TORCH, check, facts, gpu

CHECK = check("pytorch")
judge = CHECK.judge
companion_fits = import_module("gpudoctor.checks.pytorch.companions").fits

CPU = replace(TORCH, version="2.0.1+cpu", cuda=None, sm=(), nccl_built_in=False, resolutions=())
CU130 = replace(TORCH, version="2.11.0+cu130", cuda="13.0", sm=("7.5", "8.0", "8.6", "9.0", "10.0", "12.0"), ptx=("12.0",))
CU126 = replace(TORCH, version="2.7.0+cu126", cuda="12.6", sm=("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0"))
NOT_ASKED = Unknown("not asked for")
NO_GPU: dict[str, Any] = {
    "nvml": Unknown("libnvidia-ml.so.1 is not there"),
    "cuda_driver": CudaDriver(None, None, "no libcuda"),
    "pci": (),
}
OTHER = Environment("/home/ada/other/bin/python", "venv", "other", "2.5.1+cu124", "12.4")


def codes(verdict: Verdict) -> list[str]:
    return [finding.code for finding in verdict.findings]


def only(verdict: Verdict) -> Finding:
    assert len(verdict.findings) == 1, verdict.findings
    return verdict.findings[0]


def values(finding: Finding) -> dict[str, str]:
    return dict(finding.fix.values)


def said(**changes: Any) -> TorchImport:
    return replace(IMPORT, **changes)


# ---------------------------------------------------------------- all is well


def test_cu124_on_driver_535_is_well_by_minor_version_compatibility() -> None:
    verdict = judge(facts(), False)
    assert verdict.status == "pass"
    assert verdict.summary == (
        "2.5.1+cu124 (CUDA 12.4), sees 1 GPU; code for 8.9 by sm_86; driver 535.86.10 runs it by minor-version compatibility"
    )


def test_without_the_import_it_is_well_and_says_so() -> None:
    verdict = judge(facts(torch_import=NOT_ASKED), False)
    assert verdict.status == "pass"
    assert "not imported" in verdict.summary


def test_an_import_that_nobody_could_make_is_unknown() -> None:
    assert judge(facts(torch_import=Unknown("the interpreter could not be started")), False).status == "unknown"


def test_a_sleeping_gpu_that_was_not_asked_is_no_fault() -> None:
    verdict = judge(facts(torch_import=said(available=None, device_count=None, phase="import")), False)
    assert verdict.status == "pass"


@pytest.mark.parametrize("cuda", [12040, 12080, 13000, 14020], ids=str)
def test_a_newer_driver_is_well(cuda: int) -> None:
    verdict = judge(facts(driver="999.10", cuda=cuda), False)
    assert verdict.status == "pass"
    assert "minor-version" not in verdict.summary


@pytest.mark.parametrize("owner", ["pip", "uv", "conda", "pixi", "poetry", "system", "something-new"])
@pytest.mark.parametrize("torch", [None, CPU, CU130], ids=["absent", "cpu", "cu130"])
def test_any_owner_gets_a_cure(owner: str, torch: Any) -> None:
    target = replace(INTERPRETER, owner=owner, project="/home/ada/project" if owner in ("pixi", "poetry") else None)
    finding = only(judge(facts(torch=torch, interpreter=target, torch_import=NOT_ASKED), False))
    assert finding.fix.step.startswith("pytorch#")


# ---------------------------------------------------------------- installed


def test_a_cpu_build_is_the_root_and_its_cure_names_the_interpreter() -> None:
    finding = only(judge(facts(torch=CPU), False))
    assert finding.code == "torch-cpu-only-build"
    assert finding.stands_alone
    assert finding.summary == "PyTorch 2.0.1+cpu is built without CUDA"
    assert "NCCL built in" in finding.cause
    assert values(finding)["PYTHON"] == PYTHON
    assert values(finding)["TORCH"] == "2.0.1"


def test_a_cpu_build_of_a_release_stays_at_its_version() -> None:
    finding = only(judge(facts(torch=replace(CPU, version="2.5.1+cpu")), False))
    assert values(finding)["TORCH"] == "2.5.1"
    assert values(finding)["VARIANT"].startswith("cu12")


def test_a_cpu_build_on_a_machine_without_gpu_is_called_right_for_it() -> None:
    finding = only(judge(facts(torch=CPU, **NO_GPU), False))
    assert finding.code == "torch-cpu-only-build"
    assert finding.stands_alone
    assert "right one for it" in finding.cause


def test_a_cpu_build_names_torchvision_and_the_other_environment() -> None:
    vision = Companion("torchvision", "0.15.2+cpu", "==2.0.1", "cpu", None)
    cause = only(judge(facts(torch=CPU, companions=(vision,), environments=(OTHER,)), False)).cause
    assert "torchvision 0.15.2+cpu" in cause
    assert OTHER.python in cause


def test_a_rocm_build_is_named_as_such() -> None:
    finding = only(judge(facts(torch=replace(CPU, version="2.5.1+rocm6.2", hip="6.2")), False))
    assert finding.code == "torch-cpu-only-build"
    assert "ROCm" in finding.summary


def test_no_torch_here_and_none_elsewhere() -> None:
    finding = only(judge(facts(torch=None), False))
    assert finding.code == "torch-not-installed"
    assert finding.stands_alone


def test_no_torch_on_a_machine_without_gpu_does_not_stand_alone() -> None:
    assert not only(judge(facts(torch=None, **NO_GPU), False)).stands_alone


def test_no_torch_here_but_in_another_environment() -> None:
    finding = only(judge(facts(torch=None, environments=(OTHER,)), False))
    assert finding.code == "wrong-interpreter"
    assert finding.stands_alone
    assert values(finding) == {"OTHER": OTHER.python}


def test_a_cpu_build_elsewhere_is_not_the_one_that_was_meant() -> None:
    other = replace(OTHER, torch="2.5.1+cpu", torch_cuda=None)
    assert only(judge(facts(torch=None, environments=(other,)), False)).code == "torch-not-installed"


def test_no_interpreter_at_all() -> None:
    finding = only(judge(facts(torch=None, interpreter=None), False))
    assert finding.fix.step == "pytorch#make-environment"
    assert values(finding) == {"VERSION": "3"}


def test_a_dead_driver_recommends_for_the_driver_to_install() -> None:
    unanswered: dict[str, Any] = {"nvml": Unknown("no answer"), "cuda_driver": CudaDriver(None, None, "no libcuda")}
    finding = only(judge(facts(torch=CPU, **unanswered), False))
    assert finding.code == "torch-cpu-only-build"
    assert "once driver" in finding.cause


def test_a_second_installation_is_a_warning() -> None:
    verdict = judge(facts(torch=replace(TORCH, duplicates=("2.3.0 (conda-meta/pytorch-2.3.0.json)",))), False)
    assert codes(verdict) == ["torch-duplicate-installs"]
    assert verdict.status == "warn"


# ---------------------------------------------------------------- owners


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"owner": "pip"}, "pytorch#cuda-build-with-pip"),
        ({"owner": "uv", "has_pip": False}, "pytorch#cuda-build-with-uv"),
        ({"owner": "uv", "project": "/home/ada/p"}, "pytorch#cuda-build-with-uv-project"),
        ({"owner": "conda"}, "pytorch#cuda-build-with-conda"),
        ({"owner": "pixi", "project": "/home/ada/p"}, "pytorch#cuda-build-with-pixi"),
        ({"owner": "poetry", "project": "/home/ada/p"}, "pytorch#cuda-build-with-poetry"),
        ({"owner": "system"}, "pytorch#make-environment-for-torch"),
    ],
    ids=["pip", "uv", "uv-project", "conda", "pixi", "poetry", "system"],
)
def test_the_environments_owner_changes_its_packages(changes: dict[str, Any], step: str) -> None:
    target = replace(INTERPRETER, **changes)
    refused = said(available=False)
    finding = only(judge(facts(torch=replace(CU130, installer=None), interpreter=target, torch_import=refused), False))
    assert finding.code == "driver-too-old-for-cuda"
    assert finding.fix.step == step


def test_a_torch_that_pip_put_into_a_conda_environment_is_pips() -> None:
    target = replace(INTERPRETER, owner="conda")
    finding = only(judge(facts(torch=CU130, interpreter=target, torch_import=said(available=False)), False))
    assert finding.fix.step == "pytorch#cuda-build-with-pip"


# ---------------------------------------------------------------- driver


def test_cu130_on_driver_535_is_too_old_and_both_ways_are_named() -> None:
    finding = only(judge(facts(torch=CU130, torch_import=said(available=False)), False))
    assert finding.code == "driver-too-old-for-cuda"
    assert values(finding)["VARIANT"].startswith("cu12")
    assert values(finding)["TORCH"] == "2.11.0"
    assert "driver#change-branch" in finding.cause
    assert "580" in finding.summary


def test_no_newer_driver_is_offered_to_a_gpu_that_none_drives() -> None:
    kepler = gpu(name="Tesla K80", capability="3.7")
    torch = replace(TORCH, version="2.1.2+cu121", cuda="12.1", sm=("3.7", "5.0"))
    finding = only(judge(facts(kepler, driver="470.256.02", cuda=11040, torch=torch, torch_import=said(available=False)), False))
    assert finding.code == "driver-too-old-for-cuda"
    assert values(finding)["VARIANT"] == "cu118"
    assert "change-branch" not in finding.cause


def test_no_cuda_version_leaves_the_drivers_own_version_to_judge() -> None:
    sick = facts(torch=CU130, torch_import=NOT_ASKED, cuda_driver=Unknown("not loaded"))
    assert not isinstance(sick.nvml, Unknown)
    verdict = judge(replace(sick, nvml=replace(sick.nvml, cuda_version=Unknown("not said"))), False)
    assert codes(verdict) == ["driver-too-old-for-cuda"]


def test_cuda_compat_on_a_data_centre_card_lifts_the_driver() -> None:
    card = gpu(name="NVIDIA A100-SXM4-80GB", capability="8.0")
    compat = CudaDriver("/usr/local/cuda-13.0/compat/libcuda.so.1", 13000, None)
    verdict = judge(facts(card, torch=CU130, cuda_driver=compat), False)
    assert verdict.status == "pass"
    assert "cuda-compat" in verdict.summary


def test_cuda_compat_on_a_geforce_is_refused() -> None:
    compat = CudaDriver("/usr/local/cuda-13.0/compat/libcuda.so.1", 13000, None)
    error = "Unexpected error from cudaGetDeviceCount(). Error 804: forward compatibility was attempted on non supported HW"
    finding = only(judge(facts(torch=CU130, cuda_driver=compat, torch_import=said(available=False, error=error)), False))
    assert finding.code == "forward-compat-unsupported"
    assert values(finding) == {"DIRECTORY": "/usr/local/cuda-13.0/compat"}


# ---------------------------------------------------------------- architecture


def test_an_rtx_5090_with_a_cu126_build() -> None:
    card = gpu(name="NVIDIA GeForce RTX 5090", capability="12.0")
    finding = only(judge(facts(card, driver="580.95.05", cuda=13000, torch=CU126), False))
    assert finding.code == "torch-gpu-arch-too-new"
    assert finding.stands_alone
    assert values(finding)["VARIANT"] in ("cu128", "cu129", "cu130", "cu132")


def test_a_gtx_1080_with_a_cu130_build_on_an_old_driver_has_one_cause() -> None:
    card = gpu(name="NVIDIA GeForce GTX 1080", capability="6.1")
    finding = only(judge(facts(card, torch=CU130), False))
    assert finding.code == "torch-gpu-arch-too-old"
    assert values(finding)["VARIANT"] == "cu126"


def test_ptx_serves_a_newer_gpu_when_the_driver_can_compile_it() -> None:
    card = gpu(name="NVIDIA Future", capability="14.0")
    verdict = judge(facts(card, driver="700.10", cuda=14000, torch=CU130), False)
    assert verdict.status == "pass"
    assert "compute_120, compiled at the first use" in verdict.summary


def test_ptx_does_not_serve_below_the_toolkits_own_driver() -> None:
    card = gpu(name="NVIDIA GeForce RTX 5090", capability="12.0")
    torch = replace(CU126, ptx=("9.0",))
    finding = only(judge(facts(card, driver="535.86.10", cuda=12020, torch=torch), False))
    assert finding.code == "torch-gpu-arch-too-new"
    assert "cannot compile it" in finding.cause


def test_one_of_two_gpus_without_code_is_a_warning_that_names_it() -> None:
    new, old = gpu(0), gpu(1, name="NVIDIA GeForce GTX 1080", capability="6.1")
    torch = replace(TORCH, sm=("7.5", "8.0", "8.6"))
    verdict = judge(facts(new, old, torch=torch), False)
    assert verdict.status == "warn"
    assert "GTX 1080 (6.1)" in only(verdict).summary
    assert values(only(verdict)) == {"VALUE": str(new.uuid)}


def test_a_gpu_that_is_not_shown_is_not_judged() -> None:
    new, old = gpu(0), gpu(1, name="NVIDIA GeForce GTX 1080", capability="6.1")
    torch = replace(TORCH, sm=("7.5", "8.0", "8.6"))
    variables = {"CUDA_VISIBLE_DEVICES": str(new.uuid)}
    assert judge(facts(new, old, torch=torch, variables=variables), False).status == "pass"


def test_an_index_that_may_mean_either_gpu_accuses_none() -> None:
    new, old = gpu(0), gpu(1, name="NVIDIA GeForce GTX 1080", capability="6.1")
    torch = replace(TORCH, sm=("7.5", "8.0", "8.6"))
    assert judge(facts(new, old, torch=torch, variables={"CUDA_VISIBLE_DEVICES": "0"}), False).findings == ()


def test_an_unknown_code_list_is_unknown() -> None:
    assert judge(facts(torch=replace(TORCH, sm=Unknown("libtorch_cuda.so cannot be read"))), False).status == "unknown"


def test_a_gpu_of_which_nothing_is_known_is_not_accused() -> None:
    card = gpu(name="NVIDIA Nobody Knows", compute_capability=Unknown("GPU is lost"))
    assert judge(facts(card), False).findings == ()


# ---------------------------------------------------------------- libraries and import


def test_a_missing_library_is_a_fault_until_the_import_proves_otherwise() -> None:
    torch = replace(TORCH, missing_libraries=("libcublas.so.12",))
    assert codes(judge(facts(torch=torch, torch_import=NOT_ASKED), False)) == ["cuda-runtime-library-missing"]
    assert judge(facts(torch=torch), False).status == "pass"


def test_a_missing_cudnn_is_left_to_its_check() -> None:
    torch = replace(TORCH, missing_libraries=("libcudnn.so.9",))
    assert judge(facts(torch=torch, torch_import=NOT_ASKED), False).findings == ()


def resolution(taken: str, own: str = "12.4.127") -> Resolution:
    shadow = "/usr/local/cuda-12.1/lib64/libnvJitLink.so.12"
    return Resolution(
        "libnvJitLink.so.12", shadow, "LD_LIBRARY_PATH", taken, f"{SITE}/nvidia/nvjitlink/lib/libnvJitLink.so.12", own
    )


@pytest.mark.parametrize(
    ("taken", "expected"),
    [("12.1.105", ["cuda-library-conflict"]), ("12.4.127", []), ("12.6.77", []), ("", [])],
    ids=["older", "same", "newer", "unknown"],
)
def test_a_shadow_is_a_fault_only_when_it_is_older(taken: str, expected: list[str]) -> None:
    verdict = judge(facts(torch=replace(TORCH, resolutions=(resolution(taken),)), torch_import=NOT_ASKED), False)
    assert codes(verdict) == expected


def test_a_shadow_names_its_folder() -> None:
    finding = only(judge(facts(torch=replace(TORCH, resolutions=(resolution("12.1.105"),)), torch_import=NOT_ASKED), False))
    assert values(finding) == {"DIRECTORY": "/usr/local/cuda-12.1/lib64"}


def test_a_pin_alone_that_is_not_met_says_nothing() -> None:
    from gpudoctor.facts import Pin  # noqa: PLC0415 - only here

    torch = replace(TORCH, pins=(Pin("nvidia-cudnn-cu12", "==9.1.0.70", "9.5.0.50", satisfied=False),))
    assert judge(facts(torch=torch), False).status == "pass"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("ImportError: libcupti.so.12: cannot open shared object file: No such file or directory", "cuda-runtime-library-missing"),
        (
            "ImportError: /x/libcusparse.so.12: undefined symbol: __nvJitLinkComplete_12_4, version libnvJitLink.so.12",
            "cuda-library-conflict",
        ),
        ("RuntimeError: something else entirely", "torch-import-fails"),
    ],
    ids=["library", "symbol", "other"],
)
def test_an_import_error_is_classified(error: str, code: str) -> None:
    failed = said(version=None, available=None, device_count=None, error=error, phase="start")
    finding = only(judge(facts(torch_import=failed), False))
    assert finding.code == code
    assert finding.stands_alone


@pytest.mark.parametrize(
    "error",
    [
        "ImportError: /x/libtorch_cuda.so: undefined symbol: ncclCommRegister",
        "ImportError: libcudnn.so.9: cannot open shared object file",
    ],
    ids=["nccl", "cudnn"],
)
def test_an_import_error_of_cudnn_or_nccl_is_left_to_their_checks(error: str) -> None:
    failed = said(version=None, available=None, device_count=None, error=error, phase="start")
    assert judge(facts(torch_import=failed), False).findings == ()


def test_an_import_that_hangs_stands_alone_and_a_driver_call_does_not() -> None:
    hung = said(version=None, available=None, hung=True, phase="start", seconds=60.0)
    assert only(judge(facts(torch_import=hung), False)).stands_alone
    called = replace(hung, version="2.5.1+cu124", phase="import")
    finding = only(judge(facts(torch_import=called), False))
    assert finding.code == "torch-import-hangs"
    assert not finding.stands_alone


def test_an_import_that_crashes_names_the_signal() -> None:
    finding = only(judge(facts(torch_import=said(version=None, available=None, signal="SIGSEGV", phase="start")), False))
    assert finding.code == "torch-import-crashes"
    assert "SIGSEGV" in finding.summary


def test_not_available_for_no_known_reason_is_its_own_fault() -> None:
    finding = only(
        judge(facts(torch_import=said(available=False, device_count=0, error="CUDA unknown error - this may be")), False)
    )
    assert finding.code == "cuda-not-available"
    assert not finding.stands_alone
    assert "CUDA unknown error" in finding.evidence[0].text


# ---------------------------------------------------------------- CUDA_VISIBLE_DEVICES


@pytest.mark.parametrize("value", ["", "-1", "7", "GPU-dead"], ids=["empty", "minus-one", "too-high", "stale-uuid"])
def test_a_variable_that_hides_all(value: str) -> None:
    blind = said(available=False, device_count=0)
    finding = only(judge(facts(torch_import=blind, variables={"CUDA_VISIBLE_DEVICES": value}), False))
    assert finding.code == "cuda-visible-devices-wrong"
    assert finding.fix.step == "pytorch#fix-visible-devices"


def test_a_schedulers_variable_is_not_to_be_changed() -> None:
    blind = said(available=False, device_count=0)
    job = replace(SYSTEM, scheduler="slurm")
    finding = only(judge(facts(torch_import=blind, system=job, variables={"CUDA_VISIBLE_DEVICES": ""}), False))
    assert finding.fix.step == "pytorch#ask-for-gpus"
    assert "do not change it" in finding.cause


# ---------------------------------------------------------------- companions


@pytest.mark.parametrize(
    ("companion", "code"),
    [
        (Companion("torchvision", "0.19.1+cu124", "==2.4.1", "12.4", None), "torchvision-mismatch"),
        (Companion("torchvision", "0.20.1+cu118", "==2.5.1", "11.8", None), "torchvision-mismatch"),
        (Companion("torchvision", "0.20.1+cpu", "==2.5.1", "cpu", None), "extension-built-without-cuda"),
        (Companion("torchvision", "0.20.1+cu124", "==2.5.1", "12.4", None), None),
        (Companion("torchvision", "0.20.1+cu121", "==2.5.1", "12.1", None), None),
        (Companion("flash-attn", "2.7.0", "2.4", "12", None), "extension-abi-mismatch"),
        (Companion("flash-attn", "2.7.0", "2.5", "12", None), None),
        (Companion("vllm", "0.6.4", "==2.5.1", None, None), None),
        (Companion("xformers", "0.0.28", ">=2.4", None, None), None),
        (Companion("bitsandbytes", "0.41.0", None, None, "no libbitsandbytes_cuda124.so"), "bitsandbytes-cuda-setup"),
        (Companion("bitsandbytes", "0.41.1", None, "11.7, 11.8", None), "bitsandbytes-cuda-setup"),
        (Companion("bitsandbytes", "0.44.0", None, "12.4", None), None),
        (Companion("bitsandbytes", "0.45.0", None, "11.8, 12.1, 12.8", None), None),
        (Companion("bitsandbytes", "0.44.0", None, None, None), None),
    ],
    ids=lambda value: f"{value.name}-{value.version}" if isinstance(value, Companion) else str(value),
)
def test_a_companion_of_another_torch(companion: Companion, code: str | None) -> None:
    assert codes(judge(facts(companions=(companion,)), False)) == ([code] if code else [])


@given(st.text(max_size=12), st.text(max_size=12))
def test_any_requirement_is_read_without_raising(wanted: str, version: str) -> None:
    assert companion_fits(wanted, version) in (True, False)


# ---------------------------------------------------------------- the whole


@given(
    torch=st.sampled_from([None, CPU, TORCH, CU130, CU126, Unknown("no"), replace(TORCH, sm=Unknown("no"), cuda="nonsense")]),
    said_=st.sampled_from(
        [IMPORT, None, NOT_ASKED, Unknown("x"), said(available=False), said(hung=True), said(version=None, error=None)]
    ),
    target=st.sampled_from(
        [INTERPRETER, None, Unknown("x"), replace(INTERPRETER, tag="cp27", machine="riscv64"), replace(INTERPRETER, glibc=None)]
    ),
    capability=st.sampled_from(["1.0", "3.5", "6.1", "8.7", "8.9", "12.0", "99.0"]),
    number=st.integers(0, 20000),
    pci=st.sampled_from([Unknown("x"), (), (CARD,), (replace(CARD, device="ffff"),)]),
)
def test_any_facts_give_a_verdict_and_only_listed_codes(**given_: Any) -> None:
    known: Facts = facts(
        gpu(capability=given_["capability"], name="NVIDIA Something"),
        cuda=given_["number"],
        torch=given_["torch"],
        torch_import=given_["said_"],
        interpreter=given_["target"],
        pci=given_["pci"],
    )
    verdict = judge(known, False)
    assert verdict.summary
    assert set(codes(verdict)) <= set(CHECK.codes)


def test_no_facts_at_all_are_unknown() -> None:
    assert judge(Facts(), False).status == "unknown"
