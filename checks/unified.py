"""Machines whose GPU and CPU share one memory: neither NVML nor CUDA has a true figure of it there."""

from __future__ import annotations

from gpudoctor.facts import Facts, Unknown
from gpudoctor.knowledge import gpus

from .place import on_jetson


def shares_memory(facts: Facts) -> bool:
    """A Jetson, or a GPU of our table that says so."""
    if on_jetson(facts):
        return True
    if isinstance(facts.nvml, Unknown):
        return False
    rows = [gpus.by_name(gpu.name) for gpu in facts.nvml.gpus if isinstance(gpu.name, str)]
    return any(row is not None and row.unified for row in rows)
