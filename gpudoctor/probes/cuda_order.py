"""Which GPUs CUDA's first devices are: cuda:0 is seldom named, and often not NVML's GPU 0.

CUDA_VISIBLE_DEVICES lists the devices that CUDA shows, by index, by the beginning of a UUID, or as MIG instances. Indices count
the fastest GPU first unless CUDA_DEVICE_ORDER=PCI_BUS_ID, which is NVML's order (CUDA C++ programming guide, "CUDA environment
variables"). With different GPUs in one machine it is uncertain which one an index means; then any of them may be meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gpudoctor.facts import Facts, Gpu, MigDevice, Nvml, Unknown


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or a MIG instance of it. Without an instance a GPU in MIG mode computes nothing."""

    gpu: Gpu
    instance: MigDevice | None

    @property
    def label(self) -> str:
        """Such as: GPU 0."""
        return f"MIG instance {self.instance.uuid[:12]} of GPU {self.gpu.index}" if self.instance else f"GPU {self.gpu.index}"

    @property
    def free(self) -> int | Unknown:
        """Bytes."""
        return self.instance.memory_free if self.instance else self.gpu.memory_free

    @property
    def total(self) -> int | Unknown:
        """Bytes."""
        return self.instance.memory_total if self.instance else self.gpu.memory_total

    @property
    def used(self) -> int | None:
        """Bytes that are not free; None where that is unknown."""
        if isinstance(self.total, Unknown) or isinstance(self.free, Unknown):
            return None
        return self.total - self.free


def first_devices(facts: Facts, count: int = 1) -> tuple[Device, ...]:
    """The devices that cuda:0 and so on, ``count`` of them, may be; none where NVML lists no GPU."""
    gpus = facts.nvml.gpus if isinstance(facts.nvml, Nvml) else ()
    everything = tuple(_device(gpu) for gpu in gpus)
    value = facts.variable("CUDA_VISIBLE_DEVICES")
    names = {str(gpu.name) for gpu in gpus}
    ordered = len(names) <= 1 or facts.variable("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if value is None:
        return everything[:count] if ordered else everything
    entries = [entry.strip() for entry in value.split(",")][:count]
    if not ordered and any(entry.isdecimal() for entry in entries):
        return everything
    return tuple(_named(entries, gpus))


def _named(entries: list[str], gpus: tuple[Gpu, ...]) -> Iterator[Device]:
    """The devices up to the first entry that names none."""
    for entry in entries:
        found = _by_index(entry, gpus) if entry.isdecimal() else _by_uuid(entry, gpus)
        if found is None:
            return
        yield found


def _by_index(entry: str, gpus: tuple[Gpu, ...]) -> Device | None:
    return _device(gpus[int(entry)]) if len(entry) < 5 and int(entry) < len(gpus) else None


def _by_uuid(entry: str, gpus: tuple[Gpu, ...]) -> Device | None:
    # MIG-GPU-uuid/instance/compute instance is the form before driver 470
    wanted = entry[4:].partition("/")[0] if entry.startswith("MIG-GPU-") else entry
    if not wanted.startswith(("GPU-", "MIG-")):
        return None
    for gpu in gpus:
        if isinstance(gpu.uuid, str) and gpu.uuid.startswith(wanted):
            return _device(gpu)
        for instance in _instances(gpu):
            if instance.uuid.startswith(wanted):
                return Device(gpu, instance)
    return None


def _device(gpu: Gpu) -> Device:
    """The GPU, or its first instance: of several CUDA shows one."""
    return Device(gpu, next(iter(_instances(gpu)), None))


def _instances(gpu: Gpu) -> tuple[MigDevice, ...]:
    return () if isinstance(gpu.mig_devices, Unknown) or gpu.mig is not True else gpu.mig_devices
