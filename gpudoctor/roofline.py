"""How much of the memory's bandwidth decoding used: the limit of a loop that reads every weight once a token (a roofline model)."""

from __future__ import annotations

from dataclasses import dataclass

from gpudoctor.facts import Facts, Smoke, Unknown
from gpudoctor.knowledge import gpus

SMALLEST_READ = 256 << 20
"""Bytes a token. A model that fits into a GPU's cache (128 MiB in the largest of today) is bound by something else."""


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of the memory's bandwidth decoding used."""

    fraction: float
    bandwidth: int
    """Bytes per second that are the whole."""
    of_table: bool
    """The whole is the product's theoretical bandwidth, from our table of GPUs; else it was measured in the same run."""

    @property
    def whole(self) -> str:
        """In words."""
        return "this card's memory bandwidth" if self.of_table else "the memory bandwidth measured here"


def share_of_bandwidth(facts: Facts) -> Share | None:
    """Tokens per second x bytes read per token / bandwidth; None where that means nothing."""
    smoke = facts.smoke
    if not isinstance(smoke, Smoke) or not smoke.tokens_per_second or not smoke.bytes_per_token:
        return None
    if smoke.device == "cuda" and smoke.bytes_per_token < SMALLEST_READ:
        return None
    listed = theoretical(facts, smoke.device_name) if smoke.device == "cuda" else None
    whole = listed or smoke.bandwidth
    return Share(smoke.tokens_per_second * smoke.bytes_per_token / whole, whole, listed is not None) if whole else None


def theoretical(facts: Facts, name: str | None) -> int | None:
    """Bytes per second of that product; None where it is not in our table of GPUs."""
    seen = () if isinstance(facts.nvml, Unknown) else facts.nvml.gpus
    total = next((gpu.memory_total for gpu in seen if gpu.name == name and isinstance(gpu.memory_total, int)), None)
    return gpus.bandwidth(name, memory_total=total) if name else None
