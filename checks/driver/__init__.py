"""The driver: whether its module loads, its libraries fit, every GPU answers, and this user may reach them.

Everything above needs the driver, and it is the one part that PyTorch's wheels do not bring. A dead driver has many
symptoms and one cause; this check names the cause. NVML's answer, with values or with a code of its own, is the truth
about the driver; the PCI bus decides only where NVML is silent or absent. A warning is raised only for what changes
results or speed: an idle link, a sleeping laptop GPU or persistence mode on a desktop are no findings.

No card, no driver, no library:

* ``no-nvidia-gpu``: the bus has no NVIDIA card
* ``driver-not-installed``: a card and no driver, or only a part of one
* ``zero-byte-lib``: the library that the loader takes first is empty, cut short or of no use
* ``stub-library``: the loader takes the toolkit's stub instead of the driver
* ``mixed-driver-packages``: two branches, or the .run installer over packages

The kernel module is not loaded:

* ``nouveau-conflict``: another driver of the kernel holds the card
* ``vfio-bound``: the card is reserved for virtual machines
* ``driver-module-blacklisted``: configuration switches the module off
* ``dkms-build-failed``: the build for this kernel failed, or the kernel's compiler is missing
* ``dkms-headers-missing``: the build had no kernel headers
* ``kernel-module-missing-for-kernel``: the driver has no module for the running kernel
* ``mok-pending``: the key's enrolment waits to be confirmed at boot
* ``secure-boot-unsigned-module``: Secure Boot does not trust the module's signature
* ``blackwell-needs-open``: this card needs the open modules
* ``open-module-no-gsp``: this card needs the proprietary modules
* ``gpu-unsupported-by-branch``: this branch does not drive the card
* ``bar-unassigned``: the firmware gave the card no memory window
* ``module-not-loaded``: none of these is seen

The driver is loaded and refuses:

* ``driver-library-mismatch``: module and libraries differ in version
* ``device-node-permission``: this user may not open the device nodes
* ``dev-nodes-missing``: the device nodes do not exist
* ``driver-hang``: a call never returns
* ``nvml-crash``: the library crashes its caller
* ``gpu-init-failed``: a GPU cannot be initialised
* ``gpu-fallen-off-bus``: a GPU no longer answers
* ``reset-required``: a GPU must be reset
* ``aux-power-missing``: a power cable is missing
* ``irq-issue``: a GPU gets no interrupts
* ``ci-gpu-count``: the driver offers fewer GPUs than the bus has
* ``xid119-gsp``: a GPU's firmware processor hangs

Elsewhere than on a plain machine:

* ``container-no-gpu-access``: the container was started without the GPU
* ``container-nvml-lost``: the running container lost its access
* ``ctr-driver-not-loaded``: the host of the container has no module loaded
* ``ctr-cdi-stale``: the CDI description names a driver that is gone
* ``wsl2-gpu-setup``: Windows does not lend its GPU
* ``wsl-linux-driver``: a Linux driver hides the libraries of Windows

Told by a text alone:

* ``container-toolkit-missing``: the host does not know how to give a container its GPUs

NVML is well and CUDA is not:

* ``cuda-unknown-error-uvm``: the module nvidia_uvm is absent or stale
* ``fabric-manager-not-running``: the NVLink fabric is not set up
* ``libcuda-kernel-combination-803``: a libcuda of another version is in use
* ``mig-no-instance``: MIG is on and has no instance
* ``compute-mode``: the compute mode refuses this process

The GPU works, with a caveat:

* ``xid48-dbe``: uncorrectable memory errors
* ``row-remap-failed``: defective memory without a spare
* ``row-remap-pending``: a memory row is exchanged at the next reset
* ``xid94-contained``: a memory error that struck one program
* ``xid-app``: a program made a fault on the GPU
* ``inforom-corrupt``: the card's configuration memory is damaged
* ``throttle-thermal``: it is slowed by heat
* ``throttle-hw``: it is slowed by the power protection
* ``throttle-powercap``: it works at its power limit
* ``pcie-width``: it is connected by fewer lanes than it has
* ``vgpu-unlicensed``: a virtual GPU has no licence
* ``device-order``: CUDA and nvidia-smi number the GPUs differently
* ``bad-cuda-env``: debugging variables are set
* ``persistence-off``: the driver wakes the GPUs for each job
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from gpudoctor.facts import Facts, Unknown
from gpudoctor.findings import Check, Finding, Verdict, listed_codes

from . import containers, cuda, devices, hardware, mismatch, not_loaded, presence, refusals, serves, settings, wsl
from .machine import Machine, machine_of

ROOTS: tuple[Callable[[Machine], Finding | None], ...] = (
    wsl.root,
    containers.root,
    presence.another_vendor,
    presence.damaged_library,
    presence.stub_library,
    presence.no_card,
    mismatch.root,
    not_loaded.root,
    not_loaded.reserved,
    presence.not_installed,
    presence.unloadable_library,
    not_loaded.another_driver,
    refusals.root,
)
"""The causes of a dead driver, the deepest first; the first that applies is the one that is told."""


def judge(facts: Facts, _required: bool) -> Verdict:
    """One root cause for a driver that is dead; every independent finding for one that lives. It is always required."""
    machine = machine_of(facts)
    if machine.answers:
        return _living(machine)
    if _asleep(machine):
        return Verdict(serves.asleep(machine))
    if machine.cuda_works and (machine.nvml is None or machine.code == presence.LIBRARY_ABSENT):
        damaged = presence.damaged_library(machine)  # programs run, and nvidia-smi does not
        found = () if damaged is None else (dataclasses.replace(damaged, blocks=False),)
        return Verdict(damaged.summary if damaged else serves.by_libcuda(machine), found)
    silent = _jetson(machine) or (machine.smi is not None and machine.code in (None, presence.LIBRARY_ABSENT))
    cause = None if silent else root_cause(machine)
    return _undetermined(machine) if cause is None else Verdict(cause.summary, (cause,))


def root_cause(machine: Machine) -> Finding | None:
    """Why the driver does not answer; None when too little is known to say."""
    return next((cause for find in ROOTS if (cause := find(machine)) is not None), None)


def _living(machine: Machine) -> Verdict:
    nothing = devices.none_listed(machine)
    if nothing is not None:
        return Verdict(nothing.summary, (nothing,))
    working = devices.alive(machine)
    faults = [*devices.dead(machine), devices.missing(machine)]
    worn = hardware.findings(machine)
    # CUDA's own troubles are looked for only where no sick GPU explains them
    if working and not any(faults) and not any(item.severity == "fail" for item in worn):
        faults.append(settings.shut_out(machine) or cuda.root(machine))
    faults += [containers.stale_cdi(machine), _trouble_ahead(machine)]
    found = (*(fault for fault in faults if fault is not None), *worn, *settings.findings(machine))
    if machine.cuda_works:
        # PyTorch reached a GPU: whatever else is wrong here, the layers above can be judged
        found = tuple(dataclasses.replace(item, blocks=False) for item in found)
    worst = next((item for item in found if item.severity == "fail"), None)
    return Verdict(serves.line(machine) if worst is None else worst.summary, found, devices.unexamined(machine))


def _trouble_ahead(machine: Machine) -> Finding | None:
    """A driver that works today, of which the next start would load another branch's module."""
    if machine.place.container or machine.place.wsl:
        return None
    return mismatch.two_branches(machine)


def _asleep(machine: Machine) -> bool:
    """The GPU is suspended and was left so: NVML would have woken it."""
    cards = machine.cards or ()
    return machine.nvml is None and bool(cards) and all(c.power == "suspended" and c.driver == "nvidia" for c in cards)


def _jetson(machine: Machine) -> bool:
    """A Jetson's GPU is on no bus, and older ones have no NVML: what is missing there is no fault."""
    return machine.place.vendor == "a Jetson" and machine.code in (None, presence.LIBRARY_ABSENT)


def _undetermined(machine: Machine) -> Verdict:
    asked = machine.facts.nvml
    if _jetson(machine) and serves.cuda_version(machine, None):
        return Verdict(serves.by_libcuda(machine))
    if machine.smi is not None:
        return Verdict(serves.by_libcuda(machine), unknown=("the state of each GPU: NVML could not be loaded from here",))
    words = asked.why if isinstance(asked, Unknown) else (asked.error or f"NVML code {asked.error_code}")
    unknown = [f"NVML: {words}"]
    unknown += [f"the PCI bus: {machine.facts.pci.why}"] if isinstance(machine.facts.pci, Unknown) else []
    unknown += [f"the driver's files: {machine.facts.driver.why}"] if isinstance(machine.facts.driver, Unknown) else []
    return Verdict(f"could not be determined; {unknown[0]}", unknown=tuple(unknown))


CHECK = Check(
    name="driver",
    title="driver",
    needs=(),
    codes=listed_codes(__doc__),
    judge=judge,
)
