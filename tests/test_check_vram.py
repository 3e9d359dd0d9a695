from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudoctor.facts import Facts, Gpu, MigDevice, Unknown
from gpudoctor.visible import visible
from tests.healthy import DESKTOP, GIB, MIB, SYSTEM, check, facts, gpu, nvml, process

CHECK = check("vram")
judge = CHECK.judge

TRAINING = process(4242, int(10.5 * GIB), "/home/eve/venv/bin/python train.py", user="eve")


def full(**changes: Any) -> Gpu:
    """A card whose memory a training run of somebody else holds."""
    known = gpu(memory_free=200 * MIB, memory_used=int(11.49 * GIB), processes=(*DESKTOP, TRAINING))
    return replace(known, **changes)


# ---------------------------------------------------------------- all is well


def test_an_idle_card_says_what_is_free_and_who_holds_the_rest() -> None:
    verdict = judge(facts(), False)
    assert verdict.status == "pass"
    assert verdict.summary == "11.04 of 11.69 GiB free; Xorg, firefox and gnome-shell hold 0.65 GiB"


def test_eight_cards_are_one_line() -> None:
    verdict = judge(facts(*(gpu(i, processes=()) for i in range(8))), False)
    assert verdict.summary == "8 devices, 11.04 of 11.69 GiB free"


def test_a_process_list_that_cannot_be_had_is_no_fault() -> None:
    assert judge(facts(gpu(processes=Unknown("not supported"))), False).status == "pass"


def test_unknown_memory_is_unknown() -> None:
    lost = gpu(memory_free=Unknown("GPU is lost"), memory_total=Unknown("GPU is lost"))
    assert judge(facts(lost), False).status == "unknown"


# ---------------------------------------------------------------- held


def test_another_users_process_that_holds_the_card_is_named() -> None:
    verdict = judge(facts(full()), False)
    assert [f.code for f in verdict.findings] == ["vram-held-by-other-process"]
    finding = verdict.findings[0]
    assert "python of eve (process 4242)" in finding.summary
    assert dict(finding.fix.values) == {"PID": "4242", "USER": "eve"}


def test_a_full_card_beside_an_empty_one_is_no_fault() -> None:
    verdict = judge(facts(full(), gpu(1, processes=())), False)
    assert verdict.status == "pass"
    assert "python of eve" in verdict.summary


def test_only_the_visible_card_counts() -> None:
    sick = facts(full(), gpu(1, processes=()), variables={"CUDA_VISIBLE_DEVICES": "0"})
    assert judge(sick, False).status == "fail"


@pytest.mark.parametrize("state", ["Z", "D"])
def test_a_dead_holder_is_not_to_be_ended_again(state: str) -> None:
    finding = judge(facts(full(processes=(replace(TRAINING, state=state),))), False).findings[0]
    assert finding.fix.step == "memory#find-hidden-holder"


def test_memory_that_nobody_accounts_for_is_a_fault_on_the_machine_itself() -> None:
    finding = judge(facts(full(processes=DESKTOP)), False).findings[0]
    assert finding.code == "vram-held-by-other-process"
    assert "no process accounts" in finding.summary


@pytest.mark.parametrize("place", [{"container": "docker"}, {"wsl": 2}], ids=["container", "wsl"])
def test_where_the_list_is_not_whole_the_holder_is_unknown(place: dict[str, Any]) -> None:
    system = replace(SYSTEM, **place)
    verdict = judge(facts(full(processes=()), system=system), False)
    assert verdict.status == "unknown"
    assert verdict.findings == ()


def test_page_cache_of_a_grace_chip_is_nobodys_fault() -> None:
    chip = full(processes=(), name="NVIDIA GH200 480GB")
    assert judge(facts(chip), False).findings == ()


def test_a_desktop_that_takes_a_quarter_is_worth_a_note() -> None:
    heavy = (process(1201, 4 * GIB, "/usr/lib/xorg/Xorg", kind="graphics", user="root"),)
    verdict = judge(facts(gpu(processes=heavy, memory_free=7 * GIB, memory_used=int(4.69 * GIB))), False)
    assert [f.code for f in verdict.findings] == ["vram-display"]
    assert verdict.status == "note"


def test_a_process_at_the_start_of_a_ci_job_is_a_warning() -> None:
    running = (process(99, 2 * GIB, "python leftover.py", user="runner"),)
    card = gpu(processes=running, memory_free=9 * GIB, memory_used=int(2.69 * GIB))
    verdict = judge(facts(card, variables={"CI": "true"}), False)
    assert [f.code for f in verdict.findings] == ["ci-leftover-proc"]
    assert judge(facts(card), False).status == "pass"


# ---------------------------------------------------------------- shared memory


@pytest.mark.parametrize(("available", "status"), [(20, "pass"), (2, "warn")], ids=["enough", "low"])
def test_shared_memory_is_judged_by_what_the_machine_has(available: int, status: str) -> None:
    chip = gpu(name="NVIDIA GB10", capability="12.1", memory_total=Unknown("not supported"), memory_free=Unknown("not supported"))
    system = replace(SYSTEM, memory_available=available * GIB)
    verdict = judge(facts(chip, system=system), False)
    assert verdict.status == status
    assert "CPU and GPU share" in verdict.summary


def test_a_jetson_without_nvml_is_judged_by_its_memory() -> None:
    verdict = judge(facts(nvml=Unknown("no library"), system=replace(SYSTEM, platform="jetson")), False)
    assert verdict.status == "pass"


# ---------------------------------------------------------------- MIG


def test_the_visible_instance_is_judged_and_not_its_parent() -> None:
    small = MigDevice("MIG-11111111-aaaa", "1g.10gb", 10 * GIB, int(9.5 * GIB))
    other = MigDevice("MIG-22222222-bbbb", "1g.10gb", 10 * GIB, 100 * MIB)
    parent = gpu(name="NVIDIA A100-SXM4-80GB", capability="8.0", mig=True, mig_devices=(small, other), memory_free=0, processes=())
    verdict = judge(facts(parent, variables={"CUDA_VISIBLE_DEVICES": small.uuid}), False)
    assert verdict.status == "pass"
    assert verdict.summary == "9.50 of 10.00 GiB free"


# ---------------------------------------------------------------- CUDA_VISIBLE_DEVICES


def shown(value: str | None, *, order: str | None = None, cards: tuple[Gpu, ...] = ()) -> tuple[list[int], str | None, bool]:
    variables = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    variables |= {} if order is None else {"CUDA_DEVICE_ORDER": order}
    seen = visible(facts(*(cards or tuple(gpu(i) for i in range(4))), variables=variables))
    assert not isinstance(seen, Unknown)
    return [card.index for card in seen.gpus], seen.invalid, seen.certain


@pytest.mark.parametrize(
    ("value", "indices", "invalid"),
    [
        (None, [0, 1, 2, 3], None),
        ("0", [0], None),
        ("2,1", [2, 1], None),
        (" 1 , 3", [1, 3], None),
        ("0,9,1", [0], "9"),
        ("", [], None),
        ("-1", [], "-1"),
        ("none", [], "none"),
        ("GPU-00000002", [2], None),
        ("GPU-00000002,GPU-ffff", [2], "GPU-ffff"),
        ("GPU-", [], "GPU-"),
        ("1,1", [1], None),
    ],
    ids=str,
)
def test_the_variable_is_read_as_cuda_reads_it(value: str | None, indices: list[int], invalid: str | None) -> None:
    assert shown(value)[:2] == (indices, invalid)


def test_an_index_among_different_gpus_is_certain_in_bus_order_only() -> None:
    cards = (gpu(0), gpu(1, name="NVIDIA GeForce GTX 1080"))
    assert not shown("0", cards=cards)[2]
    assert shown("0", order="PCI_BUS_ID", cards=cards)[2]
    assert shown("GPU-00000001", cards=cards)[2]
    assert shown(None, cards=cards)[2]


def test_the_old_name_of_a_mig_instance_means_its_parent() -> None:
    parent = gpu(mig=True, mig_devices=())
    assert shown(f"MIG-{parent.uuid}/1/0", cards=(parent,))[0] == [0]


@given(st.text(max_size=30))
def test_any_value_shows_some_of_the_gpus(value: str) -> None:
    indices, _, _ = shown(value)
    assert set(indices) <= {0, 1, 2, 3}


@given(
    total=st.integers(0, 1 << 40),
    free=st.integers(0, 1 << 40),
    used=st.integers(0, 1 << 40),
    held=st.one_of(st.integers(0, 1 << 40), st.just(Unknown("no"))),
    mig=st.booleans(),
    count=st.integers(0, 5),
)
def test_any_figures_give_a_verdict(total: int, free: int, used: int, held: int | Unknown, mig: bool, count: int) -> None:
    card = gpu(memory_total=total, memory_free=free, memory_used=used, processes=(process(1, held, ""),), mig=mig)
    known = facts(nvml=nvml(*(replace(card, index=i) for i in range(count))))
    verdict = judge(known, False)
    assert verdict.summary
    assert {f.code for f in verdict.findings} <= set(CHECK.codes)


def test_more_free_memory_never_makes_a_fault() -> None:
    statuses = [judge(facts(full(memory_free=free * GIB // 4)), False).status for free in range(48)]
    assert statuses == sorted(statuses, key=("fail", "pass").index)


def test_no_facts_at_all_are_unknown() -> None:
    assert judge(Facts(), False).status == "unknown"
