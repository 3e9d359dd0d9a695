"""What the checks of several layers ask of the GPUs: whether they sleep, and which compute capabilities a build must serve."""

from __future__ import annotations

from gpudoctor.cards import cards_on_bus
from gpudoctor.facts import Facts, Gpu, Nvml, Unknown
from gpudoctor.knowledge import gpus
from gpudoctor.visible import visible


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
