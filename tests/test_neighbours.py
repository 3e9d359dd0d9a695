"""Who is not disturbed by a smoke test, and how much memory it is told to take at most."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudoctor.facts import Facts, Gpu, MigDevice, Nvml, Skipped, Unknown
from gpudoctor.probes.neighbours import SILENT, permit
from gpudoctor.probes.scope import Request
from gpudoctor.smoke.plan import STORIES15M, Plan
from tests.healthy import CARD, DESKTOP, GIB, IMPORT, MIB, SYSTEM, facts, gpu, nvml, process

PLAN = Plan(name="stories15M", format="none", shape=STORIES15M)
BLIND = Unknown("not looked at")
NO_DRIVER = Nvml(None, 12, "cannot open shared object file", None, None, BLIND, BLIND, ())
WITHOUT_GPU: dict[str, Any] = {"pci": (), "nvml": NO_DRIVER, "torch_import": replace(IMPORT, available=False)}
UNSEEN = replace(IMPORT, available=False)
ASLEEP: dict[str, Any] = {
    "pci": (replace(CARD, power="suspended"),),
    "nvml": Unknown("the GPU is asleep, and looking would wake it"),
    "torch_import": replace(IMPORT, available=None, phase="import"),
}
TRAINS = process(1234, 4 * GIB, "python train.py", user="mara")
MINE = process(1234, 4 * GIB, "python train.py")
IN_DOCKER = replace(SYSTEM, container="docker")
IN_SLURM = replace(SYSTEM, scheduler="slurm")
IN_POD = replace(SYSTEM, scheduler="kubernetes", container="kubernetes")
BY_NAME = "; gpudoctor smoke runs it all the same"


def in_check(found: Facts, **changes: Any) -> Plan | Skipped:
    return permit(Request(replace(PLAN, **changes), asked=False), found)


def by_name(found: Facts, **changes: Any) -> Plan | Skipped:
    return permit(Request(replace(PLAN, **changes), asked=True), found)


def reason(found: Facts, **changes: Any) -> str | None:
    """Why there is no smoke test in a check; None where there is one."""
    said = in_check(found, **changes)
    return said.reason if isinstance(said, Skipped) else None


def test_the_healthy_machine_runs_on_its_gpu_with_what_is_free() -> None:
    said = in_check(facts(gpu(memory_free=11 * GIB)))
    assert said == by_name(facts(gpu(memory_free=11 * GIB))) == replace(PLAN, device="cuda", budget=11 * GIB)


# ---------------------------------------------------------------- which device


@pytest.mark.parametrize(
    ("found", "device", "check", "smoke"),
    [
        (facts(**WITHOUT_GPU), None, "this machine has no NVIDIA GPU", "cpu"),
        (facts(**WITHOUT_GPU), "cpu", "cpu", "cpu"),
        (facts(**WITHOUT_GPU), "cuda", "this machine has no NVIDIA GPU", "this machine has no NVIDIA GPU"),
        (facts(torch_import=UNSEEN), None, "PyTorch sees no GPU", "PyTorch sees no GPU"),
        (facts(torch_import=UNSEEN), "cuda", "PyTorch sees no GPU", "PyTorch sees no GPU"),
        (facts(torch_import=UNSEEN), "cpu", "cpu", "cpu"),
        (facts(torch_import=replace(IMPORT, available=None)), None, "PyTorch sees no GPU", "PyTorch sees no GPU"),
        (facts(torch_import=UNSEEN, nvml=NO_DRIVER), None, "PyTorch sees no GPU", "PyTorch sees no GPU"),
        (facts(torch_import=UNSEEN, pci=BLIND), None, "PyTorch sees no GPU", "PyTorch sees no GPU"),
        (facts(torch_import=UNSEEN, pci=BLIND, nvml=BLIND), None, "this machine has no NVIDIA GPU", "cpu"),
        (facts(torch_import=UNSEEN, pci=BLIND, nvml=SILENT), None, "PyTorch sees no GPU", "PyTorch sees no GPU"),
        (
            facts(**{**WITHOUT_GPU, "system": replace(SYSTEM, platform="jetson")}),
            None,
            "PyTorch sees no GPU",
            "PyTorch sees no GPU",
        ),
        (
            facts(pci=(replace(CARD, vendor="1002"),), nvml=NO_DRIVER, torch_import=replace(IMPORT, cuda=None)),
            None,
            "this machine has no NVIDIA GPU",
            "cuda",
        ),
        (facts(**ASLEEP), "cpu", "cpu", "cpu"),
        (facts(**ASLEEP), None, "the GPU is asleep, and this would wake it; gpudoctor smoke does", "PyTorch sees no GPU"),
        (facts(**{**ASLEEP, "torch_import": IMPORT}), None, "cuda", "cuda"),  # it was woken by somebody else, or by name
    ],
)
def test_where_it_runs(found: Facts, device: str | None, check: str, smoke: str) -> None:
    for said, expected in ((in_check(found, device=device), check), (by_name(found, device=device), smoke)):
        assert expected == (said.reason if isinstance(said, Skipped) else said.device)


# ---------------------------------------------------------------- whom it would disturb


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (facts(gpu(processes=(*DESKTOP, TRAINS))), f"process 1234 (python train.py) of mara computes on GPU 0{BY_NAME}"),
        (facts(gpu(processes=(MINE,))), f"process 1234 (python train.py) computes on GPU 0{BY_NAME}"),
        (facts(gpu(processes=(MINE, TRAINS))), f"process 1234 (python train.py) and 1 more compute on GPU 0{BY_NAME}"),
        (
            facts(gpu(processes=(replace(TRAINS, command=None, user=None),)), system=IN_DOCKER),
            f"process 1234 computes on GPU 0{BY_NAME}",
        ),
        (facts(gpu(processes=(replace(TRAINS, state="Z"),))), None),
        (facts(gpu(processes=DESKTOP, utilization=90)), None),
        (facts(gpu(processes=(TRAINS,)), system=IN_SLURM), f"process 1234 (python train.py) of mara computes on GPU 0{BY_NAME}"),
        (facts(gpu(processes=BLIND, utilization=87)), f"GPU 0 is busy (87 %), and with what cannot be seen from here{BY_NAME}"),
        (facts(gpu(processes=BLIND, utilization=10)), None),
        (facts(gpu(processes=BLIND, utilization=BLIND, memory_free=BLIND)), None),
        (
            facts(gpu(processes=BLIND, utilization=0, memory_free=2 * GIB)),
            f"somebody holds 9.69 of 11.69 GiB of GPU 0{BY_NAME}",
        ),
        (facts(gpu(processes=(), utilization=60), system=IN_DOCKER), "GPU 0 is busy (60 %)"),
        (facts(gpu(processes=(), utilization=60), system=replace(SYSTEM, wsl=2)), "GPU 0 is busy (60 %)"),
        (facts(gpu(processes=(), utilization=60, memory_free=2 * GIB), system=IN_POD), None),
        (facts(gpu(compute_mode="exclusive-process")), f"GPU 0 is in compute mode exclusive-process{BY_NAME}"),
        (facts(gpu(compute_mode="exclusive-process"), system=IN_SLURM), None),
        (facts(gpu(compute_mode="prohibited"), system=IN_SLURM), f"GPU 0 is in compute mode prohibited{BY_NAME}"),
        (facts(gpu(compute_mode=BLIND)), None),
        (facts(gpu(memory_free=700 * MIB)), "0.68 GiB of GPU memory are free for it"),
        (facts(nvml=replace(nvml(), hung="nvmlInit")), "the driver gave no answer"),
        (facts(nvml=replace(nvml(), crashed="SIGSEGV in nvmlInit")), "the driver gave no answer"),
        (facts(nvml=SILENT), "the driver gave no answer"),
        (facts(nvml=Unknown("nvidia-ml-py is not installed beside gpudoctor")), None),
        (facts(nvml=NO_DRIVER), None),
    ],
)
def test_a_check_disturbs_nobody_and_a_smoke_test_by_name_runs(found: Facts, expected: str | None) -> None:
    said = reason(found)
    assert said == expected if said is None or expected is None else said.startswith(expected)
    assert isinstance(by_name(found), Plan)


def test_the_doctors_own_programs_are_not_others() -> None:
    busy = facts(gpu(processes=(MINE,)))
    assert isinstance(permit(Request(PLAN, asked=False), busy, own=frozenset({1234})), Plan)


@pytest.mark.parametrize(
    ("variables", "names", "busy", "free"),
    [
        ({}, "AA", False, 10),  # cuda:0 is the first of two alike
        ({}, "AB", True, 5),  # the faster of two comes first, and may be either
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "AB", False, 10),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "AA", True, 5),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, "AA", True, 5),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, "AA", False, 10),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "AB", True, 5),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "AB", False, 10),
        ({"CUDA_VISIBLE_DEVICES": "GPU-00000000"}, "AB", False, 10),
        ({"CUDA_VISIBLE_DEVICES": " GPU-00000001-89ab , 0"}, "AB", True, 5),
        ({"CUDA_VISIBLE_DEVICES": "7"}, "AA", False, None),
        ({"CUDA_VISIBLE_DEVICES": "GPU-9"}, "AA", False, None),
        ({"CUDA_VISIBLE_DEVICES": ""}, "AA", False, None),
        ({"CUDA_VISIBLE_DEVICES": "9" * 5000}, "AA", False, None),
    ],
)
def test_only_the_gpu_that_cuda_shows_first_counts(variables: dict[str, str], names: str, busy: bool, free: int | None) -> None:
    idle = gpu(0, f"NVIDIA {names[0]}", processes=DESKTOP, memory_free=10 * GIB)
    working = gpu(1, f"NVIDIA {names[1]}", processes=(TRAINS,), memory_free=5 * GIB)
    found = facts(idle, working, variables=variables)
    assert (reason(found) is not None) is busy
    said = by_name(found)
    assert isinstance(said, Plan)
    assert said.budget == (None if free is None else free * GIB)


def test_several_processes_take_as_many_gpus() -> None:
    found = facts(gpu(0, memory_free=10 * GIB), gpu(1, memory_free=5 * GIB), gpu(2, memory_free=GIB))
    said = by_name(found, processes=2)
    assert isinstance(said, Plan)
    assert said.budget == 5 * GIB


# ---------------------------------------------------------------- MIG


def _instance(number: int, free: int) -> MigDevice:
    return MigDevice(f"MIG-{number}0000000-aaaa", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864 * MIB, free)


def _split(*instances: MigDevice, **changes: Any) -> Gpu:
    return gpu(name="NVIDIA A100-SXM4-40GB", mig=True, mig_devices=instances, **changes)


def test_a_mig_instance_is_judged_and_not_its_parent() -> None:
    found = facts(_split(_instance(1, 4851 * MIB), _instance(2, MIB), processes=(TRAINS,), utilization=BLIND))
    said = in_check(found)
    assert isinstance(said, Plan)
    assert said.budget == 4851 * MIB
    chosen = replace(found, variables=(("CUDA_VISIBLE_DEVICES", "MIG-20000000-aaaa"),))
    assert reason(chosen) == f"somebody holds 4.75 GiB of MIG instance MIG-20000000 of GPU 0{BY_NAME}"
    by_old_name = replace(found, variables=(("CUDA_VISIBLE_DEVICES", f"MIG-{gpu().uuid}/1/0"),))
    assert isinstance(in_check(by_old_name), Plan)


def test_mig_without_an_instance_is_left_alone() -> None:
    assert reason(facts(_split())) == "MIG is enabled on GPU 0, and it has no instance"


# ---------------------------------------------------------------- how much memory


@pytest.mark.parametrize(
    ("total", "available", "limit", "spare"),
    [
        (128 * GIB, 100 * GIB, None, 100 * GIB - 128 * GIB // 10),
        (16 * GIB, 10 * GIB, None, 8 * GIB),
        (4 * GIB, 3 * GIB, None, 1.5 * GIB),
        (64 * GIB, 60 * GIB, 16 * GIB, 16 * GIB - 64 * GIB // 10),
        (BLIND, 10 * GIB, None, None),
        (16 * GIB, BLIND, None, None),
        (16 * GIB, 0, None, 0),
    ],
)
def test_what_is_spared_of_a_memory_that_the_cpu_uses_too(total: Any, available: Any, limit: int | None, spare: Any) -> None:
    machine = replace(SYSTEM, memory_total=total, memory_available=available, memory_limit=limit)
    on_cpu = by_name(facts(system=machine), device="cpu")
    shared = by_name(facts(gpu(name="NVIDIA GB10", memory_free=GIB), system=machine))
    jetson = by_name(facts(gpu(name="Orin"), system=replace(machine, platform="jetson"), nvml=NO_DRIVER))
    for said in (on_cpu, shared, jetson):
        assert isinstance(said, Plan)
        assert said.budget == spare


def test_each_process_on_a_cpu_gets_its_share() -> None:
    one, four = (by_name(facts(**WITHOUT_GPU), processes=number) for number in (1, 4))
    assert isinstance(one, Plan)
    assert isinstance(four, Plan)
    assert one.budget is not None
    assert four.budget == one.budget // 4


def test_nobody_knows_what_is_free() -> None:
    said = by_name(facts(gpu(memory_free=BLIND)))
    assert isinstance(said, Plan)
    assert (said.device, said.budget) == ("cuda", None)


# ---------------------------------------------------------------- any facts


@given(
    asked=st.booleans(),
    device=st.sampled_from([None, "cpu", "cuda"]),
    visible=st.text(alphabet="0123,GPU-MI x", max_size=8),
    gpus=st.lists(
        st.builds(
            gpu,
            st.integers(0, 3),
            memory_free=st.sampled_from([BLIND, 0, 5 * GIB]),
            memory_total=st.sampled_from([BLIND, 0, 5 * GIB]),
            processes=st.sampled_from([BLIND, (), (TRAINS,)]),
            utilization=st.sampled_from([BLIND, 0, 100]),
            mig=st.sampled_from([BLIND, False, True]),
            mig_devices=st.sampled_from([BLIND, (), (_instance(1, 0),)]),
            name=st.sampled_from([BLIND, "NVIDIA GB10", "A"]),
            uuid=st.sampled_from([BLIND, "GPU-1"]),
        ),
        max_size=3,
    ),
    others=st.fixed_dictionaries(
        {
            "system": st.sampled_from([BLIND, SYSTEM, IN_DOCKER]),
            "pci": st.sampled_from([BLIND, (), (CARD,)]),
            "torch_import": st.sampled_from([BLIND, None, IMPORT, UNSEEN]),
        }
    ),
)
def test_any_facts_give_a_plan_or_a_reason(asked: bool, device: str | None, visible: str, gpus: list[Gpu], others: Any) -> None:
    found = replace(facts(variables={"CUDA_VISIBLE_DEVICES": visible}), nvml=nvml(*gpus), **others)
    said = permit(Request(replace(PLAN, device=device), asked=asked), found)
    if isinstance(said, Skipped):
        assert said.reason
    else:
        assert said.device in ("cpu", "cuda")
        assert said.budget is None or said.budget >= 0
        assert device is None or said.device == device
