"""What the kernel log of this boot says of a card, and what our tables say where the log is silent."""

from __future__ import annotations

from gpudoctor.facts import PciDevice, Symptom
from gpudoctor.findings import Evidence, Finding
from gpudoctor.knowledge import drivers

from .machine import Machine, card_name, finding, logged, seen

OPEN, PROPRIETARY = "open", "proprietary"


def unfit_module(machine: Machine, card: str | None = None) -> Finding | None:
    """The module's own words that it cannot drive this card, or was given no room by the firmware."""
    flavour = module_flavour(machine)
    needs_open = machine.symptom("nvrm-needs-open", card=card)
    if needs_open and flavour != OPEN:
        return needs_open_modules(machine, logged(needs_open))
    no_gsp = machine.symptom("nvrm-no-gsp", card=card)
    if no_gsp and flavour != PROPRIETARY:
        return _no_gsp(machine, logged(no_gsp))
    unsupported = machine.symptom("nvrm-unsupported", card=card)
    if unsupported:
        return unsupported_by_branch(machine, logged(unsupported), unsupported.value("driver"))
    no_room = machine.symptom("nvrm-bar", card=card)
    return _no_room(machine, no_room) if no_room else None


def unfit_by_tables(machine: Machine) -> Finding | None:
    """Every card here needs another branch or the other flavour of the modules than the one that is installed."""
    number = drivers.branch_of(version_of_module(machine) or "")
    architecture = machine.architecture
    if architecture and number is not None and drivers.supports(number, architecture) is False:
        return unsupported_by_branch(machine, None, version_of_module(machine))
    flavour = module_flavour(machine)
    if flavour == PROPRIETARY and machine.module_flavour == "open-required":
        return needs_open_modules(machine, None)
    if flavour == OPEN and machine.module_flavour == "proprietary-required":
        return _no_gsp(machine, None)
    return None


def lost_card(machine: Machine, card: str | None = None) -> Finding | None:
    """The log's reason why a card that the module drives does not answer."""
    off_bus = machine.symptom("nvrm-off-bus", card=card) or machine.xid("79", card=card)
    if off_bus:
        return fallen_off_bus(machine, _named(machine, card), (logged(off_bus),))
    unfit = unfit_module(machine, card)
    if unfit:
        return unfit
    power = machine.xid("54", card=card)
    if power:
        return power_missing(machine, _named(machine, card), (logged(power),))
    gsp = machine.xid("119", "120", card=card) or machine.symptom("nvrm-gsp-timeout", card=card)
    if gsp:
        return gsp_timeout(machine, _named(machine, card), (logged(gsp),))
    irq = machine.symptom("nvrm-irq", card=card)
    if irq:
        return no_interrupts(machine, _named(machine, card), (logged(irq),))
    failed = machine.symptom("nvrm-rminit", card=card)
    return init_failed(machine, _named(machine, card), (logged(failed),)) if failed else None


def module_flavour(machine: Machine) -> str | None:
    """open or proprietary, of the loaded module or of the one that the running kernel would load."""
    flavour = machine.driver.module_flavour if machine.driver else None
    if isinstance(flavour, str):
        return flavour
    licence = machine.running.module_license if machine.running else None
    if not isinstance(licence, str):
        return None
    return PROPRIETARY if licence == "NVIDIA" else OPEN


def version_of_module(machine: Machine) -> str | None:
    """The version of the loaded module, or of the one that the running kernel would load."""
    on_disk = machine.running.module_version if machine.running else None
    return machine.module or (on_disk if isinstance(on_disk, str) else None)


def needs_open_modules(machine: Machine, evidence: Evidence | None) -> Finding:
    """Blackwell and Grace have no proprietary module."""
    return finding(
        "blackwell-needs-open",
        f"{machine.card_names} needs the open kernel modules; the proprietary ones are installed",
        "From this generation on NVIDIA drives its cards with the open kernel modules only. The libraries, and with them CUDA, "
        "are the same in both flavours. The card is not defective: change the modules' flavour, and keep the branch.",
        (evidence, _module(machine)),
        machine.fix("driver#switch-to-open-modules", BRANCH=f"{_series(machine)}-open", FLAVOUR=machine.flavour),
    )


def unsupported_by_branch(machine: Machine, evidence: Evidence | None, version: str | None) -> Finding:
    """The card is older or newer than what this driver knows."""
    made = f" ({machine.architecture})" if machine.architecture else ""
    return finding(
        "gpu-unsupported-by-branch",
        f"{machine.card_names}{made} is not driven by driver {version or machine.branch}; branch {machine.wanted_branch} drives it",
        "Each driver branch knows the cards of some generations: old ones are dropped, newer ones are unknown to it. The module "
        "refuses such a card and no setting changes that. Install the branch for this card; CUDA and PyTorch follow from it.",
        (evidence, _module(machine)),
        machine.fix("driver#change-branch", BRANCH=machine.wanted_branch, FLAVOUR=machine.flavour),
    )


def fallen_off_bus(machine: Machine, name: str, evidence: tuple[Evidence | None, ...]) -> Finding:
    """Xid 79, NVML 15, or a configuration space that reads as ones."""
    return finding(
        "gpu-fallen-off-bus",
        f"{name} has fallen off the PCI bus",
        "The card stopped answering: power dips, heat, a riser or a loose connector are the usual reasons, a dying card the last. "
        "A full power cycle (not a warm reboot) brings it back for the moment. No driver or CUDA reinstallation helps.",
        evidence,
        machine.fix("hardware#gpu-fallen-off-bus"),
    )


def gsp_timeout(machine: Machine, name: str, evidence: tuple[Evidence | None, ...]) -> Finding:
    """Xid 119 or 120."""
    return finding(
        "xid119-gsp",
        f"{name}: its firmware processor (GSP) stopped answering the driver",
        "The driver hands much of its work to a processor on the card, which hangs. Work on this GPU cannot be trusted until the "
        "machine is restarted; a newer driver often has the repair. Restarting the program is not enough.",
        evidence,
        machine.fix("hardware#gsp-timeout", BRANCH=machine.wanted_branch),
    )


def power_missing(machine: Machine, name: str, evidence: tuple[Evidence | None, ...]) -> Finding:
    """NVML 8 or Xid 54."""
    return finding(
        "aux-power-missing",
        f"{name} lacks its auxiliary power",
        "A power cable of the card is not connected, not fully seated, or its adapter is faulty. The card refuses to work until "
        "it has it. Software cannot change that.",
        evidence,
        machine.fix("hardware#connect-power"),
    )


def no_interrupts(machine: Machine, name: str, evidence: tuple[Evidence | None, ...]) -> Finding:
    """NVML 11."""
    return finding(
        "irq-issue",
        f"{name} gets no interrupts",
        "The firmware or the IOMMU does not route this card's interrupts, so the driver waits in vain. A firmware update is the "
        "first thing to try. Another driver version does not help.",
        evidence,
        machine.fix("hardware#interrupts"),
    )


def init_failed(machine: Machine, name: str, evidence: tuple[Evidence | None, ...]) -> Finding:
    """RmInitAdapter failed, or a driver that is loaded and lists nothing."""
    return finding(
        "gpu-init-failed",
        f"The driver is loaded but cannot initialise {name}",
        "The card is on the bus and its firmware does not come up: a full power-off (not a warm reboot), the mainboard's firmware "
        "and the power supply come first. CUDA and PyTorch are not concerned and need no reinstallation.",
        (*evidence, _module(machine)),
        machine.fix("hardware#gpu-init-failed"),
    )


def _no_gsp(machine: Machine, evidence: Evidence | None) -> Finding:
    return finding(
        "open-module-no-gsp",
        f"{machine.card_names} is too old for the open kernel modules that are installed",
        "The open modules need a processor (GSP) that cards before Turing do not have. The proprietary modules of the same branch "
        "drive this card, and CUDA is the same with both. The card is not defective.",
        (evidence, _module(machine)),
        machine.fix("driver#switch-to-proprietary-modules", BRANCH=_series(machine), FLAVOUR=machine.flavour),
    )


def _no_room(machine: Machine, symptom: Symptom) -> Finding:
    return finding(
        "bar-unassigned",
        f"The firmware gave {machine.card_names} no memory window (BAR)",
        "The card asks for a large window in the address space and the mainboard's firmware found none. 'Above 4G decoding' and "
        "'Resizable BAR' in its setup make room. The driver is not at fault.",
        (logged(symptom),),
        machine.fix("hardware#assign-bars"),
    )


def _series(machine: Machine) -> str:
    """The installed branch without the flavour of its modules, which is what these steps change; one too old is raised."""
    number, architecture = machine.branch.partition("-")[0], machine.architecture
    if architecture and number.isdigit() and drivers.supports(int(number), architecture) is False:
        number = machine.wanted_branch.partition("-")[0]
    return f"{number}{'-server' if machine.is_server else ''}"


def _named(machine: Machine, card: str | None) -> str:
    cards: tuple[PciDevice, ...] = machine.cards or ()
    mine = next((device for device in cards if device.address == card), None)
    return f"{card_name(mine)} at {mine.address}" if mine else machine.card_names


def _module(machine: Machine) -> Evidence | None:
    version, flavour = version_of_module(machine), module_flavour(machine)
    return seen("modinfo nvidia", f"{version}, {flavour or 'flavour not known'}") if version else None
