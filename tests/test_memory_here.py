"""Which card of a machine is meant, and what of its memory may be used."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpudoctor import fitting
from gpudoctor.facts import Facts, MigDevice, Unknown
from gpudoctor.memory import here
from gpudoctor.memory.card import Card
from gpudoctor.memory.count import Count
from tests.healthy import DESKTOP, GIB, SYSTEM, facts, gpu, nvml

NOTHING = {"HF_HUB_CACHE": "/nonexistent"}


def first(machine: Facts) -> Card:
    found = here.cards(machine)
    assert not isinstance(found, Unknown)
    return found[0]


def test_the_one_with_most_memory_free_is_meant() -> None:
    busy, idle = gpu(index=0, memory_free=2 * GIB), gpu(index=1, memory_free=11 * GIB)
    found = first(facts(nvml=nvml(busy, idle)))
    assert (found.free, found.alike, found.here) == (11 * GIB, 2, True)


def test_a_hidden_one_is_not_meant() -> None:
    busy, idle = gpu(index=0, memory_free=2 * GIB), gpu(index=1, memory_free=11 * GIB)
    machine = facts(nvml=nvml(busy, idle), variables={"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0"})
    assert first(machine).free == 2 * GIB


def test_an_instance_counts_instead_of_its_gpu() -> None:
    part = MigDevice("MIG-1234", "NVIDIA A100-SXM4-80GB MIG 2g.20gb", 19 * GIB, 18 * GIB)
    found = first(facts(nvml=nvml(gpu(mig=True, mig_devices=(part,)))))
    assert (found.name, found.total, found.free) == (part.name, 19 * GIB, 18 * GIB)


def test_holders_are_named_with_what_they_hold() -> None:
    found = first(facts(nvml=nvml(gpu(processes=DESKTOP))))
    assert [holder.name for holder in found.holders][:1] == ["Xorg"]
    assert found.holders == tuple(sorted(found.holders, key=lambda holder: -(holder.used or 0)))


def test_where_the_memory_is_shared_the_system_says_what_is_available_and_keeps_some() -> None:
    system = replace(SYSTEM, memory_total=119 * GIB, memory_available=100 * GIB)
    found = first(facts(system=system, nvml=nvml(gpu(name="NVIDIA GB10", memory_total=Unknown("not supported")))))
    assert found.shared
    assert found.free == 98 * GIB


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (facts(nvml=Unknown("no answer within 20 s"), pci=()), "this machine has no NVIDIA GPU"),
        (facts(nvml=Unknown("no answer within 20 s")), "no answer within 20 s"),
        (facts(variables={"CUDA_VISIBLE_DEVICES": ""}), "no GPU is visible (CUDA_VISIBLE_DEVICES)"),
        (facts(nvml=nvml(gpu(memory_free=Unknown("not supported")))), "the driver shows no GPU with its memory"),
    ],
)
def test_what_nobody_knows_is_unknown(machine: Facts, why: str) -> None:
    assert here.cards(machine) == Unknown(why)


def test_a_container_has_what_its_limit_leaves() -> None:
    system = replace(SYSTEM, memory_available=20 * GIB, memory_limit=8 * GIB)
    assert here.room(facts(system=system)) == 8 * GIB
    assert here.room(facts(system=replace(system, memory_limit=None))) == 20 * GIB


def asked_here(machine: Facts, name: str, dtype: str | None = None) -> Count:
    return fitting.counted_here(fitting.question(fitting.Asked(name, dtype=dtype), NOTHING), machine, NOTHING)


def test_numbers_that_the_card_is_too_old_for_are_unpacked_or_refused() -> None:
    old, new = facts(nvml=nvml(gpu(capability="6.1"))), facts(nvml=nvml(gpu(capability="9.0")))
    unpacked, kept = asked_here(old, "gpt-oss-20b"), asked_here(new, "gpt-oss-20b")
    assert unpacked.need.weights > 2 * kept.need.weights
    with pytest.raises(fitting.CannotCount, match=r"needs compute capability 8\.9 .* this card has 6\.1"):
        asked_here(old, "llama-2-7b", dtype="fp8")
    asked_here(new, "llama-2-7b", dtype="fp8")
