"""Which machine a report is about, in one line."""

from __future__ import annotations

import re

from gpudoctor.cards import cards_on_bus, has_gpu
from gpudoctor.facts import Facts, Gpu, Unknown
from gpudoctor.report.words import gib, plain, short_path


def headline(facts: Facts, home: str = "") -> str:
    """One line that says which machine this is: system, kernel, GPUs, interpreter; what is unknown is left out."""
    parts: list[str] = []
    if not isinstance(facts.system, Unknown):
        kernel = re.sub(r"-(generic|amd64)$", "", facts.system.kernel)
        parts += [_os_name(facts.system.os_name), f"kernel {kernel}" if kernel else ""]
        if facts.system.wsl:
            parts.append(f"WSL{facts.system.wsl}")
        elif facts.system.container:
            parts.append(f"in a container ({facts.system.container})")
    parts.append(gpu_names(facts))
    if facts.interpreter and not isinstance(facts.interpreter, Unknown):
        version = ".".join(facts.interpreter.version.split(".")[:2])
        parts.append(f"{short_path(facts.interpreter.path, home)} ({version})")
    return " · ".join(plain(part) for part in parts if part)


def _os_name(pretty: str) -> str:
    return pretty.replace(" LTS", "").replace("GNU/Linux ", "")


def gpu_names(facts: Facts) -> str:
    """The NVIDIA GPUs in words; empty where nobody can say."""
    if not isinstance(facts.nvml, Unknown) and facts.nvml.gpus:
        names = [_gpu(gpu, facts) for gpu in facts.nvml.gpus]
    else:
        cards = cards_on_bus(facts)
        names = [] if isinstance(cards, Unknown) else [card.name or f"NVIDIA GPU 10de:{card.device}" for card in cards]
    if not names:
        return "no NVIDIA GPU" if has_gpu(facts) is False else ""
    counted = [f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    return ", ".join(counted)


def _gpu(gpu: Gpu, facts: Facts) -> str:
    name = gpu.name if isinstance(gpu.name, str) else _name_on_bus(gpu, facts) or "unknown GPU"
    return name if isinstance(gpu.memory_total, Unknown) else f"{name}, {gib(gpu.memory_total)}"


def _name_on_bus(gpu: Gpu, facts: Facts) -> str | None:
    """A dead GPU may not even know its address: then it is the card that no other GPU claims, if there is just one."""
    cards = cards_on_bus(facts)
    if isinstance(cards, Unknown):
        return None
    listed = () if isinstance(facts.nvml, Unknown) else facts.nvml.gpus
    claimed = {other.pci_address for other in listed if other is not gpu}
    mine = [card for card in cards if card.address == gpu.pci_address] or [c for c in cards if c.address not in claimed]
    return mine[0].name if len(mine) == 1 else None
