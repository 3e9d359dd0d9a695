"""Display controllers, 3D controllers and NVIDIA's bridges on the PCI bus, and the kernel driver that holds each."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import re
from typing import TYPE_CHECKING

from gpudoctor.facts import PciDevice, Unknown
from gpudoctor.probes import links

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpudoctor.probes.scope import Scope

DEVICES = "/sys/bus/pci/devices"
DATABASES = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids", "/var/lib/pciutils/pci.ids")
_NVIDIA = "10de"
_ASLEEP = ("suspended", "suspending")
_DISPLAY, _BRIDGE = "03", "0680"


def look(scope: Scope) -> tuple[PciDevice, ...] | Unknown:
    """The devices in the order of their addresses; Unknown where no PCI bus can be seen (gVisor, some containers)."""
    if not links.exists(scope, DEVICES):
        return Unknown("no PCI bus to be seen here")
    devices = [device for address in scope.names(DEVICES) if (device := _device(scope, address)) is not None]
    names = _names(scope, ((device.vendor, device.device) for device in devices))
    return tuple(dataclasses.replace(device, name=names.get((device.vendor, device.device))) for device in devices)


def _device(scope: Scope, address: str) -> PciDevice | None:
    folder = f"{DEVICES}/{address}"
    vendor, pci_class = _hex(scope, f"{folder}/vendor"), _hex(scope, f"{folder}/class")
    if not (pci_class.startswith(_DISPLAY) or (vendor == _NVIDIA and pci_class.startswith(_BRIDGE))):
        return None
    power = (scope.text(f"{folder}/power/runtime_status", 64) or "").strip() or None
    return PciDevice(
        address=links.printable(address),
        vendor=vendor,
        device=_hex(scope, f"{folder}/device"),
        pci_class=pci_class,
        name=None,
        driver=_driver(scope, folder),
        power=power,
        responds=_responds(scope, folder, power),
    )


def _hex(scope: Scope, path: str) -> str:
    return (scope.text(path, 32) or "").strip().lower().removeprefix("0x")


def _driver(scope: Scope, folder: str) -> str | None:
    try:
        return links.printable(posixpath.basename(os.readlink(scope.path(f"{folder}/driver")))) or None
    except OSError:
        return None


def _responds(scope: Scope, folder: str, power: str | None) -> bool | Unknown:
    if power in _ASLEEP:
        return Unknown("the device is asleep, and reading its configuration would wake it")
    head = scope.data(f"{folder}/config", 4)
    if not head:
        return Unknown("its configuration space cannot be read")
    return head.strip(b"\xff") != b""


def _names(scope: Scope, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Names of the wanted (vendor, device) pairs: our table of GPUs first, then the machine's pci.ids."""
    missing, found = set(wanted), {}
    for vendor, device in sorted(missing):
        name = _from_table(device) if vendor == _NVIDIA else None
        if name is not None:
            found[vendor, device] = name
    for path in DATABASES:
        missing -= found.keys()
        if missing and (text := scope.text(path)):
            found.update({pair: name for pair in missing if (name := database_name(text, *pair)) is not None})
    return found


def _from_table(device: str) -> str | None:
    from gpudoctor.knowledge import gpus  # noqa: PLC0415 - a table that only machines with a card need

    names = sorted({row.name for row in gpus.by_pci_id(device)})
    # two products may share an id; which of them it is, only the driver can say
    return " or ".join(names) or None


def database_name(text: str, vendor: str, device: str) -> str | None:
    """The device's name in the text of a pci.ids file (vendor lines begin in column 0, their devices after one tab)."""
    if not re.fullmatch("[0-9a-f]{4}", vendor) or not re.fullmatch("[0-9a-f]{4}", device):
        return None
    start = text.find(f"\n{vendor}  ")
    if start < 0:
        return None
    end = re.compile(r"\n[0-9a-fA-FC]").search(text, start + 1)
    block = text[start : end.start() if end else len(text)]
    line = block.find(f"\n\t{device}  ")
    return block[line + 8 :].partition("\n")[0].strip()[:200] or None if line >= 0 else None
