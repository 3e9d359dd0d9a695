"""In a container the driver is the host's: what is missing here is given, or not, when the container starts."""

from __future__ import annotations

from gpudoctor.facts import ConfigLine, DeviceNode, Unknown
from gpudoctor.findings import Finding

from .machine import NVML_LIBRARY, OTHER_DRIVERS, Machine, bound, finding, nvml_said, seen
from .presence import LIBRARY_ABSENT

NOT_LOADED = 9
UNKNOWN_ERROR = 999


def root(machine: Machine) -> Finding | None:
    """The cause that is a container's own; None outside one, and where the trouble is the same as on a host."""
    if machine.place.container is None:
        return None
    if machine.code == NOT_LOADED or _another_driver(machine):
        return _host_driver_not_loaded(machine)
    if machine.code == UNKNOWN_ERROR:
        return _lost(machine)
    return _started_without(machine)


def nothing_visible(machine: Machine) -> Finding | None:
    """NVML answers in the container and lists no GPU: the libraries came in, the devices did not."""
    return _no_access(machine) if machine.place.container and not machine.gpus else None


def stale_cdi(machine: Machine) -> Finding | None:
    """On the host: every CDI specification names the libraries of a driver that is no longer loaded."""
    specs = machine.driver.cdi if machine.driver else ()
    if machine.place.container or machine.module is None or not specs:
        return None
    if any(not spec.text or spec.text == machine.module for spec in specs):
        return None
    return _stale(machine, specs[0], machine.module)


def _another_driver(machine: Machine) -> bool:
    if machine.code not in (None, LIBRARY_ABSENT) or not machine.cards:
        return False
    return all(card.driver in OTHER_DRIVERS for card in machine.cards)


def _host_driver_not_loaded(machine: Machine) -> Finding:
    return finding(
        "ctr-driver-not-loaded",
        f"The host of this {machine.place.container} container has no NVIDIA kernel module loaded",
        "A container uses the kernel of its host, so the driver has to be repaired there. Nothing that is installed in the "
        "image can help; run gpudoctor on the host for the cause.",
        (nvml_said(machine), *(bound(card) for card in (machine.cards or ())[:2])),
        machine.fix("container-toolkit#repair-host-driver", where="host"),
    )


def _lost(machine: Machine) -> Finding:
    return finding(
        "container-nvml-lost",
        "NVML says Unknown Error in this container: it has lost its access to the GPUs",
        "The libraries are here and the host's driver is loaded, but the container may no longer open the devices. That "
        "happens when systemd re-applies the device rules of a running container (systemctl daemon-reload on the host). "
        "Start the container anew; reinstalling the driver or PyTorch is of no use.",
        (nvml_said(machine), seen("container", machine.place.container)),
        machine.fix("container-toolkit#recreate-container", where="host"),
    )


def _started_without(machine: Machine) -> Finding | None:
    """The card is on the bus (or the host's module is loaded) and neither libraries nor nodes are in the container."""
    if machine.code not in (None, LIBRARY_ABSENT) or not (machine.cards or machine.module or machine.place.wsl):
        return None
    if machine.code is None and (machine.driver is None or isinstance(machine.driver.libraries, Unknown)):
        return None
    if machine.libraries(NVML_LIBRARY) and _nodes(machine):
        return None
    return _no_access(machine)


def _no_access(machine: Machine) -> Finding:
    nodes = ", ".join(node.path for node in _nodes(machine)) or "no /dev/nvidia* node"
    return finding(
        "container-no-gpu-access",
        f"This {machine.place.container} container was started without the GPU ({machine.card_names} is on its host)",
        "The host has the card, but neither the driver's libraries nor its device nodes were given to the container. They "
        "come from the host at start (docker run --gpus all), never from the image: do not install a driver in here. If "
        "docker refuses that option, the host lacks the NVIDIA container toolkit.",
        (seen("/dev", nodes), nvml_said(machine), *(bound(card) for card in (machine.cards or ())[:1])),
        machine.fix("container-toolkit#run-with-gpus", where="host"),
    )


def _nodes(machine: Machine) -> tuple[DeviceNode, ...]:
    return () if machine.driver is None or isinstance(machine.driver.nodes, Unknown) else machine.driver.nodes


def _stale(machine: Machine, spec: ConfigLine, loaded: str) -> Finding:
    return finding(
        "ctr-cdi-stale",
        f"{spec.path} describes driver {spec.text}; {loaded} is loaded",
        "The driver was upgraded after this description of its files was written, so containers that are started by it "
        "look for libraries that are gone. Programs outside containers are not concerned. Write the description anew.",
        (seen(spec.path, f"libraries of {spec.text}"), seen("/sys/module/nvidia/version", loaded)),
        machine.fix("container-toolkit#refresh-cdi", where="machine"),
    )
