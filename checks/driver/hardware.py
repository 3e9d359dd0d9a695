"""The GPUs that answer: memory faults, Xids of this boot, heat, power, the PCIe link."""

from __future__ import annotations

from gpudoctor.facts import Gpu, Symptom, Unknown
from gpudoctor.findings import Evidence, Finding

from . import kernel_log, refusals
from .devices import alive
from .machine import Machine, address_of, finding, gpu_name, logged, seen

# https://docs.nvidia.com/deploy/xid-errors/ : what the numbers mean
_UNCONTAINED = ("48", "95")
_CONTAINED = "94"
_GSP = ("119", "120")
_APPLICATION = ("13", "31", "43", "45", "69")
_THERMAL = ("sw-thermal", "hw-thermal")
_VIRTUAL = ("vgpu", "host-vgpu", "host-vsga")
_POWER = ("power-brake", "hw-slowdown")


def findings(machine: Machine) -> tuple[Finding, ...]:
    """What is wrong with each GPU that works, at most one finding per subject."""
    found: list[Finding | None] = []
    for gpu in alive(machine):
        found += [_memory(machine, gpu), _firmware(machine, gpu), _application(machine, gpu), _inforom(machine, gpu)]
        found += [_hot(machine, gpu), _power(machine, gpu), _capped(machine, gpu), _link(machine, gpu)]
    return _one_per_code([item for item in found if item is not None])


def _memory(machine: Machine, gpu: Gpu) -> Finding | None:
    """Row remapping tells more than the counter, and the counter more than an old line of the log."""
    if gpu.remap_failed is True:
        return _remap_failed(machine, gpu)
    double = _xid(machine, gpu, *_UNCONTAINED)
    contained = _xid(machine, gpu, _CONTAINED)
    errors = gpu.ecc_uncorrected if isinstance(gpu.ecc_uncorrected, int) else 0
    uncontained = _xid(machine, gpu, "95") or (double if contained is None else None)
    if uncontained or (errors > 0 and gpu.remap_pending is not True and contained is None):
        return _uncorrectable(machine, gpu, errors, uncontained)
    if gpu.remap_pending is True:
        return _remap_pending(machine, gpu)
    return _contained(machine, gpu, contained) if contained else None


def _firmware(machine: Machine, gpu: Gpu) -> Finding | None:
    line = _xid(machine, gpu, *_GSP)
    return kernel_log.gsp_timeout(machine, gpu_name(gpu), (logged(line),)) if line else None


def _application(machine: Machine, gpu: Gpu) -> Finding | None:
    line = _xid(machine, gpu, *_APPLICATION)
    if line is None:
        return None
    who = f" ({line.value('name')})" if line.value("name") else ""
    return finding(
        "xid-app",
        f"{gpu_name(gpu)}: a program{who} made a fault on the GPU since boot (Xid {line.value('xid')})",
        "A kernel of that program read or wrote where it may not, or the program was killed in the middle of its work. The GPU "
        "itself is well. It speaks for the hardware only if different programs do the same again and again.",
        (logged(line),),
        machine.fix("hardware#application-fault"),
        severity="warn",
    )


def _inforom(machine: Machine, gpu: Gpu) -> Finding | None:
    """The card works, and asking for what its infoROM holds says that it is damaged."""
    asked = (gpu.ecc_uncorrected, gpu.remap_pending, gpu.remap_failed)
    words = next((fact.why for fact in asked if isinstance(fact, Unknown) and "inforom" in fact.why.lower()), None)
    return refusals.inforom(machine, gpu_name(gpu), (seen(f"NVML, {gpu_name(gpu)}", words),)) if words else None


def _hot(machine: Machine, gpu: Gpu) -> Finding | None:
    reasons = _reasons(gpu, _THERMAL)
    if not reasons:
        return None
    degrees = f" at {gpu.temperature} C" if isinstance(gpu.temperature, int) else ""
    return finding(
        "throttle-thermal",
        f"{gpu_name(gpu)} runs slower because it is hot{degrees}",
        "The GPU lowers its clocks to protect itself. Results are right, only slower. Dust, airflow and neighbouring cards are "
        "the usual reasons; no driver setting cools it.",
        (seen("NVML, clock event reasons", ", ".join(reasons)), _degrees(gpu)),
        machine.fix("hardware#cooling"),
        severity="warn",
    )


def _power(machine: Machine, gpu: Gpu) -> Finding | None:
    reasons = _reasons(gpu, _POWER)
    if not reasons or _reasons(gpu, _THERMAL):
        return None  # hw-slowdown is set along with its cause, which may be heat
    return finding(
        "throttle-hw",
        f"{gpu_name(gpu)} is slowed by the board's power protection",
        "The power supply or the board asks the GPU to hold back, to half its clocks or less. Check the cables to the card and the "
        "rating of the power supply before anything else. Software does not lift this.",
        (seen("NVML, clock event reasons", ", ".join(reasons)),),
        machine.fix("hardware#power-supply"),
        severity="warn",
    )


def _capped(machine: Machine, gpu: Gpu) -> Finding | None:
    if not _reasons(gpu, ("power-cap",)):
        return None
    draw = f"{gpu.power_draw / 1000:.0f}" if isinstance(gpu.power_draw, int) else "?"
    limit = f"{gpu.power_limit / 1000:.0f} W" if isinstance(gpu.power_limit, int) else "its power limit"
    return finding(
        "throttle-powercap",
        f"{gpu_name(gpu)} works at its power limit, as a busy card does",
        "The card holds its clocks where the power limit allows, which is normal at full load. It is worth a look only if "
        "somebody lowered the limit.",
        (seen(f"NVML, {gpu_name(gpu)}", f"power cap active: {draw} of {limit}"),),
        machine.fix("hardware#power-limit", GPU=str(gpu.index)),
        severity="note",
    )


def _link(machine: Machine, gpu: Gpu) -> Finding | None:
    """Fewer lanes than the card has. The generation is no fault: it drops when the card idles."""
    width, widest = gpu.pcie_width, gpu.pcie_width_max
    if not isinstance(width, int) or not isinstance(widest, int) or not 0 < width < widest:
        return None
    if machine.place.laptop or machine.place.cloud or machine.place.wsl or gpu.virtualization in _VIRTUAL:
        return None
    return finding(
        "pcie-width",
        f"{gpu_name(gpu)} is connected by {width} of its {widest} PCIe lanes",
        "The slot, a shared M.2 socket, a riser or dirty contacts leave lanes unused. Loading models takes longer and several GPUs "
        "exchange data more slowly; generating on one GPU hardly notices. Nothing in software widens the link.",
        (seen(f"NVML, {gpu_name(gpu)}", f"PCIe width x{width}, the card's maximum x{widest}"),),
        machine.fix("hardware#pcie-width"),
        severity="warn",
    )


def _uncorrectable(machine: Machine, gpu: Gpu, errors: int, line: Symptom | None) -> Finding:
    count = f"{errors} uncorrectable memory errors" if errors else "an uncorrectable memory error"
    return finding(
        "xid48-dbe",
        f"{gpu_name(gpu)} had {count} since the driver was loaded",
        "Part of the card's memory returned wrong bits that ECC could not repair, so what was computed with it cannot be trusted. "
        "Reset the GPU or restart the machine and test again; if it comes back, the card has to be replaced.",
        (seen(f"NVML, {gpu_name(gpu)}", f"volatile uncorrected ECC errors: {errors}") if errors else None, logged(line)),
        machine.fix("hardware#memory-errors", GPU=str(gpu.index)),
    )


def _remap_failed(machine: Machine, gpu: Gpu) -> Finding:
    return finding(
        "row-remap-failed",
        f"{gpu_name(gpu)} has defective memory and no spare rows left to replace it",
        "The card replaces bad rows of its memory by spare ones, and that has failed. Errors will come back. Only a "
        "replacement of the card helps; no reset or driver does.",
        (seen(f"NVML, {gpu_name(gpu)}", "row remapping: failure occurred"),),
        machine.fix("hardware#replace-gpu"),
    )


def _remap_pending(machine: Machine, gpu: Gpu) -> Finding:
    return finding(
        "row-remap-pending",
        f"{gpu_name(gpu)}: a bad memory row is to be replaced at the next reset",
        "An error was found, a spare row was chosen, and the exchange happens when the GPU is reset or the machine restarted. "
        "Until then the row is not used, and work may go on. Choose a convenient time.",
        (seen(f"NVML, {gpu_name(gpu)}", "row remapping: pending"), logged(_xid(machine, gpu, "63", _CONTAINED))),
        machine.fix("hardware#row-remap-pending", GPU=str(gpu.index)),
        severity="warn",
    )


def _contained(machine: Machine, gpu: Gpu, line: Symptom) -> Finding:
    return finding(
        "xid94-contained",
        f"{gpu_name(gpu)} had a memory error that struck one program only",
        "The error was contained: the program that met it was ended, everybody else's results stand. Start that program again; the "
        "row is exchanged at the next reset.",
        (logged(line),),
        machine.fix("hardware#contained-memory-error"),
        severity="warn",
    )


def _xid(machine: Machine, gpu: Gpu, *numbers: str) -> Symptom | None:
    address = address_of(gpu)
    if address is not None:
        return machine.xid(*numbers, card=address)
    return machine.xid(*numbers) if len(machine.gpus) == 1 else None


def _reasons(gpu: Gpu, names: tuple[str, ...]) -> tuple[str, ...]:
    return () if isinstance(gpu.throttle, Unknown) else tuple(reason for reason in gpu.throttle if reason in names)


def _degrees(gpu: Gpu) -> Evidence | None:
    return seen(f"NVML, {gpu_name(gpu)}", f"{gpu.temperature} degrees Celsius") if isinstance(gpu.temperature, int) else None


def _one_per_code(found: list[Finding]) -> tuple[Finding, ...]:
    """The first finding of each code; how many further GPUs share it is said in its summary."""
    merged: list[Finding] = []
    for code in dict.fromkeys(item.code for item in found):
        same = [item for item in found if item.code == code]
        merged.append(same[0] if len(same) == 1 else _with_others(same))
    return tuple(merged)


def _with_others(same: list[Finding]) -> Finding:
    first, more = same[0], len(same) - 1
    return Finding(
        first.code,
        first.severity,
        f"{first.summary}; {more} more GPU{'s' if more > 1 else ''} likewise",
        first.cause,
        tuple(evidence for item in same[:4] for evidence in item.evidence)[:6],
        first.fix,
    )
