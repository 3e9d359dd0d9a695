"""What our tables know of a card: its architecture, the kernel modules that it needs, its kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpudoctor.facts import Gpu, PciDevice
from gpudoctor.knowledge import drivers, gpus


@dataclass(frozen=True, slots=True)
class Model:
    """One card; None where the tables do not know, or where products that share a PCI id differ."""

    architecture: str | None
    modules: str | None
    """open-required, proprietary-required, either or jetson."""
    kind: str | None
    """desktop, laptop, workstation, datacenter, jetson or soc."""
    first_driver: str | None


def of_card(card: PciDevice) -> Model:
    """By the id on the bus, else by the name that pci.ids gives it."""
    rows = gpus.by_pci_id(card.device)
    if rows:
        return _common(rows)
    # pci.ids: "GP104 [GeForce GTX 1080]"
    bracketed = re.search(r"\[(.+)\]", card.name or "")
    named = gpus.by_name(bracketed.group(1) if bracketed else card.name or "")
    return _common((named,)) if named else _by_chip(card)


def of_gpu(gpu: Gpu) -> Model:
    """By NVML's name, else by the compute capability."""
    row = gpus.by_name(gpu.name) if isinstance(gpu.name, str) else None
    if row is not None:
        return _common((row,))
    capability = gpu.compute_capability
    architecture = drivers.architecture_of(capability) if isinstance(capability, str) else None
    # 9.0 may be GH200, which needs other modules than a Hopper card
    modules = drivers.module_flavour(architecture) if architecture and architecture != "Hopper" else None
    return Model(architecture, modules, None, None)


def the_one(values: Sequence[str | None]) -> str | None:
    """The value that all of them have; None when they differ or one of them is not known."""
    known = set(values)
    return known.pop() if len(known) == 1 else None


def _by_chip(card: PciDevice) -> Model:
    """What the chip alone tells."""
    architecture = gpus.architecture_of_chip(card.device, card.name)
    return Model(architecture, drivers.module_flavour(architecture) if architecture else None, None, None)


def _common(rows: Sequence[gpus.GpuModel]) -> Model:
    return Model(
        architecture=the_one([row.architecture for row in rows]),
        modules=the_one([row.modules for row in rows]),
        kind=the_one([row.kind for row in rows]),
        first_driver=the_one([row.first_driver for row in rows]),
    )
