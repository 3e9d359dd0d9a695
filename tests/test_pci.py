"""The PCI bus, from a folder that looks like /sys."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor.facts import Unknown
from gpudoctor.probes import pci
from tests.probe_world import scope, write

PCI_IDS = """#\tList of PCI ID's
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t744c  Navi 31 [Radeon RX 7900 XT/7900 XTX]
10de  NVIDIA Corporation
\t1234  A card that our table does not know
\t\t1043 88e2  with a subsystem
\t22a3  GH100 [H100 NVSwitch]
8086  Intel Corporation
\t4680  AlderLake-S GT1
C 03  Display controller
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    place.mkdir()
    return place


def device(root: Path, address: str, ids: str, pci_class: str = "0x030000", **more: str | bytes) -> None:
    folder = f"/sys/bus/pci/devices/{address}"
    vendor, _, number = ids.partition(":")
    write(root, {f"{folder}/vendor": f"0x{vendor}\n", f"{folder}/device": f"0x{number}\n", f"{folder}/class": f"{pci_class}\n"})
    names = {"config": "config", "power": "power/runtime_status", "driver": "driver"}
    write(root, {f"{folder}/{names[name]}": value for name, value in more.items()})


def test_no_bus_is_unknown(root: Path) -> None:
    assert pci.look(scope(root)) == Unknown("no PCI bus to be seen here")


def test_an_empty_bus_is_empty(root: Path) -> None:
    (root / "sys/bus/pci/devices").mkdir(parents=True)
    assert pci.look(scope(root)) == ()


def test_cards_bridges_and_what_is_neither(root: Path) -> None:
    write(root, {"/usr/share/misc/pci.ids": PCI_IDS})
    device(root, "0000:00:02.0", "8086:4680", driver="-> ../../../bus/pci/drivers/i915")
    device(
        root,
        "0000:01:00.0",
        "10de:2786",
        driver="-> ../../../../bus/pci/drivers/nvidia",
        config=b"\xde\x10\x86\x27",
        power="active\n",
    )
    device(root, "0000:01:00.1", "10de:22bc", "0x040300")
    device(root, "0000:02:00.0", "10de:22a3", "0x068000")
    device(root, "0000:03:00.0", "10de:1234", "0x030200")
    device(root, "0000:04:00.0", "8086:9999", "0x068000")
    seen = pci.look(scope(root))
    assert not isinstance(seen, Unknown)
    assert [(d.address, d.vendor, d.pci_class, d.driver) for d in seen] == [
        ("0000:00:02.0", "8086", "030000", "i915"),
        ("0000:01:00.0", "10de", "030000", "nvidia"),
        ("0000:02:00.0", "10de", "068000", None),
        ("0000:03:00.0", "10de", "030200", None),
    ]
    assert [d.name for d in seen] == [
        "AlderLake-S GT1",
        seen[1].name,
        "GH100 [H100 NVSwitch]",
        "A card that our table does not know",
    ]
    assert "RTX 4070" in (seen[1].name or "")
    assert seen[1].responds is True


def test_a_card_that_fell_off_the_bus(root: Path) -> None:
    device(root, "0000:01:00.0", "10de:2786", config=b"\xff" * 64)
    seen = pci.look(scope(root))
    assert not isinstance(seen, Unknown)
    assert seen[0].responds is False


def test_a_sleeping_card_is_not_woken(root: Path) -> None:
    """The configuration would be a pipe without a writer: a probe that opened it for reading would see nothing of it."""
    device(root, "0000:01:00.0", "10de:2786", power="suspended\n", config=b"\xff" * 64)
    seen = pci.look(scope(root))
    assert not isinstance(seen, Unknown)
    assert isinstance(seen[0].responds, Unknown)
    assert "asleep" in seen[0].responds.why


def test_names_without_any_table(root: Path) -> None:
    device(root, "0000:01:00.0", "1002:744c")
    seen = pci.look(scope(root))
    assert not isinstance(seen, Unknown)
    assert seen[0].name is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.binary(max_size=200) | st.sampled_from([b"0x10de\n", b"0x030000", b"10de  \n\t"]))
def test_any_bytes_in_any_file_never_raise(root: Path, data: bytes) -> None:
    folder = "/sys/bus/pci/devices/0000:01:00.0"
    write(root, {f"{folder}/{name}": data for name in ("vendor", "device", "class", "config", "power/runtime_status")})
    write(
        root, {"/usr/share/misc/pci.ids": data, "/sys/bus/pci/devices/1/vendor": "0x10de", "/sys/bus/pci/devices/1/class": "0x03"}
    )
    pci.look(scope(root))


@given(text=st.text(max_size=300), vendor=st.text(max_size=5), number=st.text(max_size=5))
def test_any_database_gives_a_name_or_none(text: str, vendor: str, number: str) -> None:
    assert pci.database_name(text, vendor, number) != ""
    assert pci.database_name(f"\n10de  NVIDIA\n\t2786  AD104\n{text}", "10de", "2786") == "AD104"
