"""The NVIDIA GPUs of the machine: by NVML where it answers, else by the PCI bus.

What CUDA shows of them to the target is the business of ``visible``.
"""

from __future__ import annotations

from gpudoctor.facts import Facts, Gpu, Nvml, PciDevice, Unknown
from gpudoctor.knowledge import gpus

from .visible import visible

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


def has_gpu(facts: Facts) -> bool | Unknown:
    """Whether the machine has an NVIDIA GPU, by NVML or else by the PCI bus."""
    if isinstance(facts.nvml, Nvml) and facts.nvml.gpus:
        return True
    cards = cards_on_bus(facts)
    return cards if isinstance(cards, Unknown) else bool(cards)


def asleep(facts: Facts) -> bool:
    """Every NVIDIA GPU is suspended and was left so (a hybrid laptop on its other GPU)."""
    cards = cards_on_bus(facts)
    return not isinstance(cards, Unknown) and bool(cards) and all(card.power == "suspended" for card in cards)


def capability_of(gpu: Gpu) -> str | None:
    """The GPU's compute capability: NVML's word, else that of our table for its name; None when neither knows."""
    if isinstance(gpu.compute_capability, str):
        return gpu.compute_capability
    model = gpus.by_name(gpu.name) if isinstance(gpu.name, str) else None
    return model.compute_capability if model else None


def capabilities(facts: Facts) -> tuple[str, ...]:
    """Compute capabilities that a build must serve: of the visible GPUs, or of those that PCI shows."""
    seen = visible(facts)
    if not isinstance(seen, Unknown):
        # a variable that hides them all is a fault of its own; the build still has to serve what is there
        present = seen.gpus or (facts.nvml.gpus if isinstance(facts.nvml, Nvml) else ())
        known = [capability for gpu in present if (capability := capability_of(gpu)) is not None]
        if known:
            return tuple(dict.fromkeys(known))
    cards = cards_on_bus(facts)
    found = () if isinstance(cards, Unknown) else [gpus.by_pci_id(card.device) for card in cards]
    return tuple(dict.fromkeys(models[0].compute_capability for models in found if models))
