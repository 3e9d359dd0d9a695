"""The GPUs that people run language models on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from gpudoctor.knowledge.table import Row, read, sources


@dataclass(frozen=True, slots=True)
class GpuModel:
    """One product."""

    name: str
    nvml_name: str
    """What NVML calls it; two products that share it differ in memory."""
    compute_capability: str
    architecture: str
    memory_gib: float
    """Nominal size. NVML and PyTorch see 1 to 7 % less."""
    bandwidth_gbs: float
    """Theoretical memory bandwidth in decimal GB/s."""
    kind: str
    """desktop, laptop, workstation, datacenter, jetson or soc."""
    chip: str | None
    memory_type: str | None
    bus_bits: int | None
    pci_ids: tuple[str, ...]
    """Four hex digits, lower case."""
    first_driver: str | None
    last_branch: int | None
    modules: Literal["open-required", "proprietary-required", "either", "jetson"]
    unified: bool
    """It shares memory with the CPU: neither NVML nor CUDA knows what is free."""
    note: str | None
    sources: tuple[str, ...]

    @property
    def memory_bytes(self) -> int:
        """The nominal size in bytes."""
        return int(self.memory_gib * (1 << 30))

    @property
    def bandwidth(self) -> int:
        """The theoretical memory bandwidth in bytes per second; copies reach 80 to 95 % of it."""
        return round(self.bandwidth_gbs * 1e9)


@cache
def models() -> tuple[GpuModel, ...]:
    """All products."""
    return tuple(_model(row) for row in read("gpus")["gpu"])


def by_name(name: str, *, memory_total: int | None = None) -> GpuModel | None:
    """The product of that name, as NVML or a person writes it; None when it is not in our data.

    ``memory_total`` (bytes) tells products apart that share a name; without it the one of exactly that name is taken.
    Case does not matter, nor a leading "NVIDIA" (drivers of branch 470 and older leave it out), nor the profile at the
    end of a MIG instance's name.
    """
    shared = _by_name().get(_plain(name), ())
    if not shared:
        return None
    if memory_total is not None:
        return min(shared, key=lambda model: abs(model.memory_bytes - memory_total))
    return next((model for model in shared if _plain(model.name) == _plain(name)), shared[0])


def bandwidth(name: str, *, memory_total: int | None = None) -> int | None:
    """The theoretical memory bandwidth of that GPU in bytes per second; None when it is not in our data.

    ``name`` and ``memory_total`` (bytes) are NVML's. None also for a MIG instance, which has a part of the card's, and where the
    memory is so much less than the product's that only a part of the card can be meant.
    """
    model = by_name(name, memory_total=memory_total)
    part = " mig " in name.casefold()
    if model is None or part or (memory_total is not None and memory_total < 0.8 * model.memory_bytes):
        return None
    return model.bandwidth


def by_pci_id(device_id: str) -> tuple[GpuModel, ...]:
    """The products with that PCI device id of vendor 10de: 2786, 0x2786; 37 ids belong to several, many to none we know."""
    wanted = device_id.lower().removeprefix("0x")
    return tuple(model for model in models() if wanted in model.pci_ids)


def architecture_of_chip(device_id: str, name: str | None) -> str | None:
    """The architecture that a PCI device id, or the chip that pci.ids begins a name with, tells of a card without a row.

    None for what neither tells, and for chips whose boards differ (Hopper, Blackwell).
    """
    number = int(device_id, 16) if re.fullmatch(r"[0-9a-fA-F]{4}", device_id) else 0
    for block in read("gpus")["id_block"]:
        if block["first"] <= number <= block["last"]:
            return str(block["architecture"])
    chip = re.match(r"([A-Z]{2})\d", name or "")
    return read("gpus")["chip_letters"].get(chip.group(1)) if chip else None


@cache
def _by_name() -> dict[str, tuple[GpuModel, ...]]:
    index: dict[str, tuple[GpuModel, ...]] = {}
    for model in models():
        for key in {_plain(model.name), _plain(model.nvml_name)}:
            index[key] = (*index.get(key, ()), model)
    return index


def _plain(name: str) -> str:
    words = name.casefold().split(" mig ")[0].replace("(nvgpu)", "").split()
    return " ".join(words[1:] if words[:1] == ["nvidia"] else words)


def _model(row: Row) -> GpuModel:
    return GpuModel(
        name=row["name"],
        nvml_name=row.get("nvml_name", row["name"]),
        compute_capability=row["compute_capability"],
        architecture=row["architecture"],
        memory_gib=float(row["memory_gib"]),
        bandwidth_gbs=float(row["bandwidth_gbs"]),
        kind=row["kind"],
        chip=row.get("chip"),
        memory_type=row.get("memory_type"),
        bus_bits=row.get("bus_bits"),
        pci_ids=tuple(row.get("pci_ids", ())),
        first_driver=row.get("first_driver"),
        last_branch=row.get("last_branch"),
        modules=row["modules"],
        unified=row.get("unified", False),
        note=row.get("note"),
        sources=sources("gpus", row["source"]),
    )
