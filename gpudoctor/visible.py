"""Which GPUs CUDA would show to the target: CUDA_VISIBLE_DEVICES read as CUDA reads it.

NVML ignores the variable; CUDA does not. CUDA takes the entries from the left and stops at the first that names no
device: ``0,9,1`` shows one GPU. An entry is an index, the (unique) beginning of a GPU's UUID, or a MIG device's UUID; an
empty value or -1 shows none (CUDA C++ programming guide, "CUDA environment variables").

Indices count in CUDA's order, which is the fastest GPU first unless CUDA_DEVICE_ORDER=PCI_BUS_ID; NVML's order is the
bus. With different GPUs in one machine an index therefore does not tell which GPU is meant: ``certain`` is False then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpudoctor.facts import Facts, Gpu, MigDevice, Unknown

VARIABLE = "CUDA_VISIBLE_DEVICES"
_INDEX = re.compile(r"\s*(\d+)\s*")


@dataclass(frozen=True, slots=True)
class Visible:
    """What CUDA would show. A MIG instance stands in ``mig``, its parent in ``gpus``."""

    gpus: tuple[Gpu, ...]
    mig: tuple[MigDevice, ...]
    value: str | None
    """CUDA_VISIBLE_DEVICES; None where it is not set."""
    invalid: str | None
    """The first entry that names no device: from there on the list is cut."""
    certain: bool
    """Whether ``gpus`` are known to be the ones that are meant, not only how many."""

    @property
    def hidden(self) -> bool:
        """The variable hides every GPU."""
        return self.value is not None and not self.gpus


def visible(facts: Facts) -> Visible | Unknown:
    """The GPUs that the target sees; Unknown when NVML could not be asked or gave no answer."""
    if isinstance(facts.nvml, Unknown):
        return facts.nvml
    if facts.nvml.error_code is not None or facts.nvml.crashed or facts.nvml.hung:
        return Unknown("NVML gave no list of GPUs")
    gpus = facts.nvml.gpus
    value = facts.variable(VARIABLE)
    if value is None:
        return Visible(gpus, tuple(device for gpu in gpus for device in _instances(gpu)), None, None, certain=True)
    return _read(value, gpus, by_bus=facts.variable("CUDA_DEVICE_ORDER") == "PCI_BUS_ID")


def _read(value: str, gpus: tuple[Gpu, ...], *, by_bus: bool) -> Visible:
    shown: list[Gpu] = []
    mig: list[MigDevice] = []
    by_index, invalid = False, None
    for entry in value.split(",") if value.strip() else ():
        gpu, instance, counted = _named(entry, gpus)
        if gpu is None:
            invalid = entry.strip()
            break
        by_index = by_index or counted
        if gpu not in shown:
            shown.append(gpu)
        if instance is not None and instance not in mig:
            mig.append(instance)
    certain = by_bus or not by_index or len(shown) == len(gpus) or _alike(gpus)
    return Visible(tuple(shown), tuple(mig), value, invalid, certain)


def _named(entry: str, gpus: tuple[Gpu, ...]) -> tuple[Gpu | None, MigDevice | None, bool]:
    """(GPU, MIG instance, whether it was named by its index) for one entry; no GPU when it names none."""
    index = _INDEX.fullmatch(entry)
    if index:
        number = int(index.group(1))
        gpu = gpus[number] if number < len(gpus) else None
        return gpu, next(iter(_instances(gpu)), None) if gpu else None, True
    wanted = entry.strip()
    if wanted.startswith("MIG-GPU-"):  # the form before driver 470: MIG-GPU-uuid/instance/compute instance
        parents = [gpu for gpu in gpus if gpu.uuid == wanted[4:].split("/")[0]]
        return (parents[0], None, False) if parents else (None, None, False)
    if wanted.startswith("MIG-"):
        unlisted = [gpu for gpu in gpus if gpu.mig is True and isinstance(gpu.mig_devices, Unknown)]
        if unlisted:
            return unlisted[0], None, False
        pairs = [(gpu, device) for gpu in gpus for device in _instances(gpu) if device.uuid.startswith(wanted)]
        return (pairs[0][0], pairs[0][1], False) if len(pairs) == 1 else (None, None, False)
    if not wanted.startswith("GPU-"):
        return None, None, False
    matching = [gpu for gpu in gpus if isinstance(gpu.uuid, str) and gpu.uuid.startswith(wanted)]
    if len(matching) != 1:
        return None, None, False
    return matching[0], next(iter(_instances(matching[0])), None), False


def _instances(gpu: Gpu) -> tuple[MigDevice, ...]:
    return () if isinstance(gpu.mig_devices, Unknown) or gpu.mig is not True else gpu.mig_devices


def _alike(gpus: tuple[Gpu, ...]) -> bool:
    return len({str(gpu.name) for gpu in gpus}) <= 1
