"""NVML answers: whether every GPU is there and speaks for itself."""

from __future__ import annotations

from gpudoctor.facts import Gpu, PciDevice, Unknown
from gpudoctor.findings import Finding

from . import containers, kernel_log, not_loaded, presence, refusals, wsl
from .machine import Machine, address_of, card_name, finding, gpu_name, seen

NO_PERMISSION = 4


def none_listed(machine: Machine) -> Finding | None:
    """The one cause when NVML comes up and lists no GPU at all."""
    if machine.gpus:
        return None
    return (
        wsl.nothing_visible(machine)
        or containers.nothing_visible(machine)
        or not_loaded.another_driver(machine)
        or presence.no_card(machine)
        or kernel_log.lost_card(machine)
        or kernel_log.unfit_by_tables(machine)
        or _hidden_node(machine, machine.cards or ())
        or kernel_log.init_failed(machine, machine.card_names, (seen("NVML", "the driver answers and lists no GPU"),))
    )


def dead(machine: Machine) -> tuple[Finding, ...]:
    """One finding for each GPU that NVML lists and cannot open."""
    return tuple(_of_gpu(machine, gpu) for gpu in machine.gpus if gpu.error_code is not None)


def unexamined(machine: Machine) -> tuple[str, ...]:
    """GPUs about which nvidia-ml-py failed in a way of its own."""
    odd = [gpu for gpu in machine.gpus if gpu.error is not None and gpu.error_code is None]
    return tuple(f"the state of {gpu_name(gpu)}: {gpu.error}" for gpu in odd)


def missing(machine: Machine) -> Finding | None:
    """Cards on the bus that NVML does not list although nobody else holds them."""
    place = machine.place
    if machine.system is None or place.container or place.wsl or place.scheduler or not machine.gpus:
        return None  # a container or a job is given some of the machine's GPUs
    listed = {address_of(gpu) for gpu in machine.gpus}
    if None in listed:
        return None  # a dead GPU that cannot say where it is has a finding of its own
    absent = tuple(c for c in machine.cards or () if c.driver in (None, "nvidia") and c.address not in listed)
    absent = tuple(card for card in absent if card.power != "suspended" and not _too_old(machine, card))
    if not absent:
        return None
    for card in absent:
        cause = kernel_log.lost_card(machine, card.address)
        if cause is not None:
            return cause
    return _unresponsive(machine, absent) or _hidden_node(machine, absent) or _count(machine, absent)


def alive(machine: Machine) -> tuple[Gpu, ...]:
    """The GPUs that answer."""
    return tuple(gpu for gpu in machine.gpus if gpu.error is None and gpu.error_code is None)


def _of_gpu(machine: Machine, gpu: Gpu) -> Finding:
    address = address_of(gpu) or _address_by_log(machine, gpu)
    line = (machine.xid("79", card=address) or machine.symptom("nvrm-off-bus", card=address)) if address else None
    evidence = (
        seen(f"NVML, {gpu_name(gpu)}", f"{gpu.error or 'no words'} (NVML code {gpu.error_code})"),
        seen(line.source, line.text) if line else None,
    )
    if gpu.error_code == NO_PERMISSION:
        return refusals.permission(machine, refusals.closed_nodes(machine))
    known = refusals.by_code(machine, gpu.error_code, gpu_name(gpu), evidence)
    from_log = kernel_log.lost_card(machine, address) if address and known is None else None
    return known or from_log or kernel_log.init_failed(machine, gpu_name(gpu), evidence)


def _address_by_log(machine: Machine, gpu: Gpu) -> str | None:
    """A dead GPU may not know its address: it is the card on the bus that no other GPU claims, if there is just one."""
    claimed = {address_of(other) for other in machine.gpus if other is not gpu}
    unclaimed = [card.address for card in machine.cards or () if card.address not in claimed]
    return unclaimed[0] if len(unclaimed) == 1 else None


def _too_old(machine: Machine, card: PciDevice) -> bool:
    """A second card that this driver was never meant for, kept for a display: the others do the work."""
    log = machine.symptom("nvrm-unsupported", "nvrm-no-gsp", card=card.address)
    return log is not None


def _unresponsive(machine: Machine, absent: tuple[PciDevice, ...]) -> Finding | None:
    card = next((card for card in absent if card.responds is False), None)
    if card is None:
        return None
    evidence = seen(f"/sys/bus/pci/devices/{card.address}/config", "reads as all ones")
    return kernel_log.fallen_off_bus(machine, f"{card_name(card)} at {card.address}", (evidence,))


def _hidden_node(machine: Machine, absent: tuple[PciDevice, ...]) -> Finding | None:
    nodes = () if machine.driver is None or isinstance(machine.driver.nodes, Unknown) else machine.driver.nodes
    closed = tuple(n for n in nodes if not n.usable and n.path.removeprefix("/dev/nvidia").isdigit())
    return refusals.permission(machine, closed) if closed and absent else None


def _count(machine: Machine, absent: tuple[PciDevice, ...]) -> Finding:
    here, bus = len(machine.gpus), len(machine.cards or ())
    return finding(
        "ci-gpu-count",
        f"{bus} NVIDIA cards are on the bus, the driver offers {here}: {', '.join(card.address for card in absent)} is missing",
        "One card is seen by the mainboard and not by the driver, and the kernel log does not say why. Jobs that count on all of "
        "them will fail. Take the machine out of rotation until a power cycle or a reseated card brings it back.",
        (
            seen("/sys/bus/pci/devices", ", ".join(f"{card.address} {card_name(card)} ({card.driver})" for card in absent)),
            seen("NVML", f"{here} GPUs"),
        ),
        machine.fix("hardware#gpu-missing"),
    )
