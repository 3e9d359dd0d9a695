"""A look at what memory depends on alone: the GPUs, the machine's own memory, which of them are visible, which Python is meant.

Nothing of PyTorch is started, and the probes of `check` that this needs not are not even loaded.
"""

from __future__ import annotations

from datetime import datetime, timezone

from gpudoctor.facts import Facts
from gpudoctor.probes import interpreter, nvml, pci, system, variables
from gpudoctor.probes.scope import Scope
from gpudoctor.side_by_side import Probe, Progress, ask, seconds

PROBES: tuple[Probe, ...] = (
    Probe("nvml", "asking the driver (NVML)", nvml.look, nvml.deadline),
    Probe("interpreter", "asking the target interpreter", interpreter.of, seconds(10)),
    Probe("system", "reading about the operating system", system.look, seconds(10)),
    Probe("pci", "reading the PCI bus", pci.look, seconds(10)),
    Probe("variables", "reading environment variables", variables.look, seconds(5)),
)


def glance(scope: Scope, progress: Progress) -> Facts:
    """These facts; the others are those of a machine at which nobody looked."""
    answers = ask(scope, PROBES, progress)
    taken = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Facts(taken=taken, slow=answers.slow, **answers.values)  # type: ignore[arg-type]  # see examine
