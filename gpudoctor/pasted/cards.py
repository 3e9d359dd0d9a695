"""The GPUs and the driver that a text names, on a screen of nvidia-smi, in collect_env or in passing."""

from __future__ import annotations

import re

from gpudoctor.facts import Gpu, GpuProcess, Nvml, Unknown
from gpudoctor.knowledge import cuda, gpus, pasted
from gpudoctor.pasted import fields
from gpudoctor.pasted.fields import NOT_THERE, Fields
from gpudoctor.pasted.smi import Card, Screen

MIB = 1 << 20
_WHY = Unknown(NOT_THERE)
_DRIVER = re.compile(r"(?i)\b(?:nvidia )?driver(?:[ -]version)?[ :=-]{1,4}v?(\d{3}\.\d{1,3}(?:\.\d{1,3})?)")
_NUMBERED = re.compile(
    r"^\s{0,4}(?:GPU models and configuration: {0,2})?GPU (\d{1,3})(?:,\d{1,3}){0,15}:? {1,24}([A-Za-z][^\n(]{2,60})"
)
_MODES = {"E. Process": "exclusive-process", "Prohibited": "prohibited", "E. Thread": "exclusive-thread"}
MOST = 16


def nvml(screen: Screen, described: Fields, text: str) -> Nvml | Unknown:
    """What NVML would say, as far as the text tells; Unknown where it names neither a driver nor a GPU."""
    driver = screen.driver or _driver(described, text)
    found = [screen.cards[index] for index in sorted(screen.cards)][:MOST] or _numbered(text) or _named(text)
    if driver is None and not found:
        return _WHY
    said = screen.cuda or (cuda.cuda_of_driver(driver) or pasted.cuda_of_old_driver(driver) if driver else None)
    number = cuda.encode(said) if said else 0
    return Nvml(
        library=None,
        error_code=None,
        error=None,
        crashed=None,
        hung=None,
        driver_version=driver or _WHY,
        cuda_version=number or _WHY,
        gpus=tuple(_gpu(card) for card in found),
    )


def capability(name: str) -> str | None:
    """The compute capability of a card by whatever name people give it; None for one that is not known."""
    model = gpus.by_name(name) or gpus.by_name(f"NVIDIA {name}") or gpus.by_name(f"NVIDIA GeForce {name}")
    return model.compute_capability if model else pasted.capability(name)


def _driver(described: Fields, text: str) -> str | None:
    said = fields.value(described, "nvidia driver version", "driver version", "nvidia driver", "gpu driver version", "driver")
    match = re.match(r"(\d{3}\.\d{1,3}(?:\.\d{1,3})?)", said or "") or _DRIVER.search(text)
    return match.group(1) if match else None


def _numbered(text: str) -> list[Card]:
    """The lines of collect_env: GPU 0: NVIDIA GeForce RTX 4090."""
    cards: dict[int, Card] = {}
    for line in text.splitlines():
        match = _NUMBERED.match(line[:200])
        if match and capability(match.group(2).strip()):
            cards.setdefault(int(match.group(1)), Card(int(match.group(1)), match.group(2).strip()))
    return [cards[index] for index in sorted(cards)][:MOST]


def _named(text: str) -> list[Card]:
    """Cards that are named in passing, each kind once."""
    return [Card(index, name) for index, name in enumerate(pasted.cards(text)[:MOST])]


def _gpu(card: Card) -> Gpu:
    total = card.total * MIB if card.total is not None else _WHY
    used = card.used * MIB if card.used is not None else _WHY
    free = (card.total - card.used) * MIB if card.total is not None and card.used is not None else _WHY
    processes = tuple(
        GpuProcess(pid, _WHY if size is None else size * MIB, "graphics" if kind == "G" else "compute", None, command, None)
        for pid, kind, command, size in card.processes
    )
    return Gpu(
        index=card.index,
        error=None,
        error_code=None,
        uuid=_WHY,
        name=card.name,
        pci_address=_WHY,
        compute_capability=capability(card.name) or _WHY,
        memory_total=total,
        memory_free=free,
        memory_used=used,
        processes=processes or _WHY,
        compute_mode=_MODES.get(card.mode or "", _WHY),
        mig=_WHY,
        mig_pending=_WHY,
        mig_devices=_WHY,
        persistence=_WHY,
        display_active=_WHY,
        pcie_generation=_WHY,
        pcie_generation_max=_WHY,
        pcie_width=_WHY,
        pcie_width_max=_WHY,
        utilization=_WHY,
        throttle=_WHY,
        ecc_uncorrected=_WHY,
        remap_pending=_WHY,
        remap_failed=_WHY,
        temperature=_WHY,
        power_draw=_WHY,
        power_limit=_WHY,
        fabric=_WHY,
        virtualization=_WHY,
        vgpu_licensed=_WHY,
    )
