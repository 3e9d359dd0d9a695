"""The driver is loaded and NVML does not come up: no permission, no nodes, a hang, a crash, or a code of its own."""

from __future__ import annotations

from gpudoctor.facts import DeviceNode, Unknown
from gpudoctor.findings import Evidence, Finding

from . import kernel_log
from .machine import Machine, finding, logged, nvml_said, seen
from .mismatch import two_sources
from .presence import LIBRARY_ABSENT

NO_PERMISSION = 4
NODE = "/dev/nvidiactl"
_OF_ONE_GPU = (8, 11, 14, 15, 16)


def root(machine: Machine) -> Finding | None:
    """What NVML's code, silence or end means on a host."""
    nvml = machine.nvml
    if nvml is None or machine.answers:
        return None
    if nvml.hung:
        return _hung(machine, nvml.hung)
    if nvml.crashed:
        return _crashed(machine, nvml.crashed)
    if nvml.error_code == NO_PERMISSION:
        return permission(machine, closed_nodes(machine))
    if nvml.error_code in _OF_ONE_GPU:
        return by_code(machine, nvml.error_code, machine.card_names, (nvml_said(machine),))
    if nvml.error_code in (None, LIBRARY_ABSENT):
        return None  # nvidia-ml-py or the loader failed in a way of its own: nothing follows about the driver
    return kernel_log.lost_card(machine) or _nodes_missing(machine) or _refused(machine)


def by_code(machine: Machine, code: int | None, name: str, evidence: tuple[Evidence | None, ...]) -> Finding | None:
    """The meaning of the NVML codes that speak of one GPU; None for any other code (nvml.h)."""
    if code == 15:
        return kernel_log.fallen_off_bus(machine, name, evidence)
    if code == 16:
        return _reset_required(machine, name, evidence)
    if code == 8:
        return kernel_log.power_missing(machine, name, evidence)
    if code == 11:
        return kernel_log.no_interrupts(machine, name, evidence)
    return inforom(machine, name, evidence) if code == 14 else None


def closed_nodes(machine: Machine) -> tuple[DeviceNode, ...]:
    """The nodes that this user may not open; else those that are not open to everybody, as they are by default."""
    closed = tuple(node for node in _nodes(machine) if not node.usable)
    return closed or tuple(node for node in _nodes(machine) if node.mode[6:8] != "rw" and node.path.startswith("/dev/nvidia"))


def permission(machine: Machine, nodes: tuple[DeviceNode, ...]) -> Finding:
    """The user may not open the device nodes."""
    user = machine.system.user if machine.system else None
    who = user.name if user else "this user"
    first = nodes[0] if nodes else None
    shown = f"{first.path} is {first.mode} {first.owner}:{first.group}" if first else "the driver refuses"
    joinable = _group_to_join(nodes)
    way = (
        "Join their group, or ask whoever set the rule, and log in anew."
        if joinable
        else "There is no group to join: that rule has to go."
    )
    group = f"; {who} is not in group {first.group}" if first and user and first.group not in ("root", *user.groups) else ""
    return finding(
        "device-node-permission",
        f"{who} may not open the GPU's device nodes: {shown}{group}",
        "The driver works, as root would see. By default everybody may open these nodes; here a module option or a udev rule keeps "
        f"them for {'some' if joinable else 'root'}. {way} Running everything with sudo is no cure: it would leave files of root "
        "behind.",
        (*(seen(node.path, f"{node.mode} {node.owner}:{node.group}") for node in nodes[:3]), nvml_said(machine)),
        machine.fix("kernel-modules#device-permission", USER=who, GROUP=joinable)
        if joinable
        else machine.fix("kernel-modules#open-device-nodes"),
    )


def _group_to_join(nodes: tuple[DeviceNode, ...]) -> str:
    """The group that may open every one of these nodes; empty when that is root's or there is none."""
    groups = {node.group for node in nodes if node.mode[3:5] == "rw"}
    closed = any(node.mode[3:5] != "rw" for node in nodes)
    return groups.pop() if len(groups) == 1 and not closed and groups != {"root"} else ""


def _nodes(machine: Machine) -> tuple[DeviceNode, ...]:
    return () if machine.driver is None or isinstance(machine.driver.nodes, Unknown) else machine.driver.nodes


def _nodes_missing(machine: Machine) -> Finding | None:
    if machine.module is None or machine.has_node(NODE) is not False:
        return None
    return finding(
        "dev-nodes-missing",
        f"The kernel module {machine.module} is loaded, but {NODE} does not exist",
        "Programs reach the driver through these nodes. nvidia-modprobe or nvidia-persistenced makes them, and neither has "
        "run: usual on minimal systems without a desktop. The driver is well; do not reinstall it.",
        (seen("/dev", "no nvidiactl"), seen("/sys/module/nvidia/version", machine.module), nvml_said(machine)),
        machine.fix("kernel-modules#create-device-nodes"),
    )


def _refused(machine: Machine) -> Finding:
    nvml = machine.nvml
    words = (nvml.error if nvml else None) or "no words"
    log = machine.facts.kernel_log
    unread = f" The kernel log could not be read: {log.why}." if isinstance(log, Unknown) else ""
    return kernel_log.init_failed(
        machine, f"{machine.card_names} (NVML: {words}{unread})", (nvml_said(machine), logged(machine.xid(*_ANY_FAULT)))
    )


_ANY_FAULT = ("46", "61", "62", "64", "79", "95", "109", "110", "119", "120")


def _hung(machine: Machine, call: str) -> Finding:
    lost = kernel_log.lost_card(machine)
    if lost is not None:
        return lost
    task = machine.symptom("hung-task")
    return finding(
        "driver-hang",
        f"The driver does not return from {call}",
        "A call into the kernel module never came back: the driver is deadlocked, the card is dying, or a suspend left it broken. "
        "No signal ends such a process, and starting more of them only adds to the pile. Save the kernel log, then restart.",
        (seen("NVML", f"{call} gave no answer within its deadline"), logged(task)),
        machine.fix("driver#recover-hung-driver"),
    )


def _crashed(machine: Machine, signal: str) -> Finding:
    mixed = None if machine.place.container else two_sources(machine)
    if mixed is not None:
        return mixed
    step = "container-toolkit#remove-driver-files-from-image" if machine.place.container else "driver#reinstall-libraries"
    library = machine.nvml.library if machine.nvml else None
    return finding(
        "nvml-crash",
        f"The driver's library {library or 'libnvidia-ml.so.1'} crashes its caller ({signal})",
        "The library is damaged or is not the one of the loaded module; whatever uses it dies the same way, PyTorch included. "
        "Its package restores the files. PyTorch and CUDA need not be touched.",
        (
            seen(library or "NVML", signal),
            seen("/sys/module/nvidia/version", machine.module) if machine.module else None,
        ),
        machine.fix(step, BRANCH=machine.branch),
    )


def _reset_required(machine: Machine, name: str, evidence: tuple[Evidence | None, ...]) -> Finding:
    index = next((str(gpu.index) for gpu in machine.gpus if gpu.error_code == 16), "0")
    return finding(
        "reset-required",
        f"{name} must be reset before it works again",
        "The driver marked the GPU as unusable after a fault. A reset needs it idle and is refused by many GeForce cards and by a "
        "card that drives a display; a restart of the machine does the same. Reinstalling the driver does not.",
        evidence,
        machine.fix("hardware#reset-gpu", GPU=index),
    )


def inforom(machine: Machine, name: str, evidence: tuple[Evidence | None, ...]) -> Finding:
    """NVML 14, for the GPU or for one of its counters."""
    return finding(
        "inforom-corrupt",
        f"{name}: its configuration memory (infoROM) is damaged",
        "The flash memory that holds the card's serial number and error counters does not check out. Computing usually still "
        "works; ECC and serial figures may be missing. Only the vendor can rewrite it.",
        evidence,
        machine.fix("hardware#inforom"),
        severity="warn",
    )
