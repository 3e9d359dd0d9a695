"""The cards that a machine of this world can have, as the bus, the kernel module and NVML know them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tests import fake_nvml
from tests.root.world import STATE, write


@dataclass(frozen=True)
class Card:
    """``modules`` is the flavour it needs: either, open-required, proprietary-required. ``first`` to ``last`` its branches."""

    device: str
    name: str
    capability: str
    modules: str = "either"
    first: int = 520
    last: int = 999
    pci_class: str = "030000"
    memory: int = 12282


RTX_4070 = Card("2786", "NVIDIA GeForce RTX 4070", "8.9")
RTX_5090 = Card("2b85", "NVIDIA GeForce RTX 5090", "12.0", modules="open-required", first=570, memory=32607)
GTX_1080 = Card("1b80", "NVIDIA GeForce GTX 1080", "6.1", modules="proprietary-required", first=450, last=580, memory=8192)
A100 = Card("20b0", "NVIDIA A100-SXM4-40GB", "8.0", first=450, pci_class="030200", memory=40960)

_ADDRESS = "0000:01:00.0"


def put_in(root: Path, card: Card) -> None:
    """The machine has this card and no other; nothing holds it yet."""
    bus, place = root / "sys/bus/pci/devices", f"sys/devices/pci0000:00/{_ADDRESS}"
    write(
        root,
        {
            f"{place}/vendor": "0x10de\n",
            f"{place}/device": f"0x{card.device}\n",
            f"{place}/class": f"0x{card.pci_class}\n",
            f"{place}/subsystem_vendor": "0x1458\n",
            f"{place}/subsystem_device": "0x40ee\n",
            f"{place}/power/runtime_status": "active\n",
            f"{STATE}/card": _for_programs(card),
            f"{STATE}/gpus": _for_nvml(card),
        },
    )
    swapped = bytes.fromhex("10de")[::-1] + bytes.fromhex(card.device)[::-1]
    (root / place / "config").write_bytes(swapped + b"\x07\x00\x10\x00" + bytes(56))
    if not (bus / _ADDRESS).is_symlink():
        bus.mkdir(parents=True, exist_ok=True)
        (bus / _ADDRESS).symlink_to(f"../../../devices/pci0000:00/{_ADDRESS}")


def _for_programs(card: Card) -> str:
    values = {"ID": card.device, "NAME": card.name, "MODULES": card.modules, "FIRST": card.first, "LAST": card.last}
    return "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in values.items())


def _for_nvml(card: Card) -> str:
    """The lines of a scenario about the GPU; those about the driver are written as its state changes."""
    gpu = {"name": card.name, "cc": card.capability, "memory": {"total": card.memory, "used": 1, "reserved": 312}}
    lines = fake_nvml.text_for({"gpus": [gpu]}).splitlines()
    return "".join(f"{line}\n" for line in lines if line.startswith(("gpus=", "g0.")))
