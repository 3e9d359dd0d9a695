"""The NVIDIA GPUs of a machine, as its facts tell of them: on the PCI bus, lent by Windows, or part of the chip."""

from __future__ import annotations

from gpudoctor.facts import Facts, Nvml, PciDevice, System, Unknown
from gpudoctor.knowledge import gpus

# PCI's numbers of the vendors: https://pci-ids.ucw.cz/read/PC
NVIDIA = "10de"
AMD, INTEL = "1002", "8086"
_DISPLAY = "03"
"""PCI's base class of VGA (0300) and 3D (0302) controllers; NVIDIA's audio, USB and NVSwitch functions have others."""


def is_display(device: PciDevice) -> bool:
    """Whether the device is a graphics card, of whatever vendor."""
    return device.pci_class.startswith(_DISPLAY)


def cards_on_bus(facts: Facts) -> tuple[PciDevice, ...] | Unknown:
    """NVIDIA's display and 3D controllers on the PCI bus."""
    if isinstance(facts.pci, Unknown):
        return facts.pci
    return tuple(device for device in facts.pci if device.vendor == NVIDIA and is_display(device))


def on_jetson(facts: Facts) -> bool:
    """A Jetson: its GPU is on no bus, it shares the CPU's memory, and NVIDIA makes PyTorch's builds for it."""
    return isinstance(facts.system, System) and facts.system.platform == "jetson"


def has_gpu(facts: Facts) -> bool | Unknown:
    """Whether the machine has an NVIDIA GPU, or is lent one: by NVML or else by the PCI bus."""
    if (isinstance(facts.nvml, Nvml) and facts.nvml.gpus) or on_jetson(facts):
        return True
    if isinstance(facts.system, System) and facts.system.wsl:
        return Unknown("the GPU that Windows lends is on no bus")
    cards = cards_on_bus(facts)
    return cards if isinstance(cards, Unknown) else bool(cards)


def shares_memory(facts: Facts) -> bool:
    """GPU and CPU share one memory, of which neither NVML nor CUDA has a true figure: a Jetson, or what our table says so of."""
    if on_jetson(facts):
        return True
    if isinstance(facts.nvml, Unknown):
        return False
    rows = [gpus.by_name(gpu.name) for gpu in facts.nvml.gpus if isinstance(gpu.name, str)]
    return any(row is not None and row.unified for row in rows)
