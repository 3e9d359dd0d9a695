"""The kernel module is not loaded: which of its causes, the deepest first."""

from __future__ import annotations

import re

from gpudoctor.facts import ConfigLine, Unknown
from gpudoctor.findings import Evidence, Finding

from . import kernel_log, kernel_modules, presence, secure_boot
from .machine import Machine, bound, finding, nvml_said, seen

NOT_LOADED = 9  # NVML_ERROR_DRIVER_NOT_LOADED
_SWITCHED_OFF = re.compile(
    r"^\s*(?:blacklist\s+nvidia(?:[-_]current)?\s*$|alias\s+nvidia\s+off\b|install\s+nvidia\s+.*(?:/bin/false|/bin/true|\bfalse\b)"
    r"|.*\b(?:modprobe\.blacklist|module_blacklist)=(?:[\w,-]+,)?nvidia(?:,|\s|$))"
)


def root(machine: Machine) -> Finding | None:
    """The deepest cause that shows; None when the module is loaded or nobody could say."""
    if machine.module is not None:
        return None
    if machine.code != NOT_LOADED and not (machine.nvml is None and machine.module_is_absent):
        return None
    return (
        presence.driver_without_card(machine)
        or reserved(machine)
        # nouveau takes the card where there is no module to compete with it: keeping it out would leave a dark screen
        or (kernel_modules.missing(machine) if machine.place.branch is not None else None)
        or another_driver(machine)
        or switched_off(machine)
        or kernel_modules.missing(machine)
        or secure_boot.refused(machine)
        or kernel_log.unfit_module(machine)
        or kernel_log.unfit_by_tables(machine)
        or (presence.nothing_installed(machine) if _nothing_installed(machine) else None)
        or _merely_not_loaded(machine)
    )


def another_driver(machine: Machine) -> Finding | None:
    """nouveau, nova or vfio-pci hold every NVIDIA card."""
    holders = {card.driver for card in machine.cards or ()}
    if not holders or not holders <= {"nouveau", "nova_core", "nova-core", "vfio-pci"}:
        return None
    return reserved(machine) or _nouveau(machine)


def reserved(machine: Machine) -> Finding | None:
    """vfio-pci holds every NVIDIA card, whether or not a driver is installed."""
    holders = {card.driver for card in machine.cards or ()}
    return _reserved(machine) if holders == {"vfio-pci"} else None


def switched_off(machine: Machine) -> Finding | None:
    """A line of modprobe.d, of the kernel's command line or prime-select keeps the module from loading."""
    if machine.driver is not None and machine.driver.prime == "off":
        return _prime_off(machine)
    line = next((line for line in _configuration(machine) if _SWITCHED_OFF.match(line.text)), None)
    if line is None:
        return None
    if line.path.startswith(("/lib/modprobe.d", "/usr/lib/modprobe.d")):
        fix = machine.fix("kernel-modules#select-nvidia-with-prime")  # nvidia-prime writes there, people do not
    else:
        fix = machine.fix("kernel-modules#allow-nvidia-module", FILE=_editable(line.path))
    return finding(
        "driver-module-blacklisted",
        f"{line.path} switches the nvidia module off",
        "The module exists, but this line tells the system not to load it. Such lines come from prime-select, from removing a "
        "driver, or from a guide for virtual machines. Reinstalling the driver leaves the line in place.",
        (seen(line.path, line.text), nvml_said(machine)),
        fix,
    )


def _configuration(machine: Machine) -> tuple[ConfigLine, ...]:
    lines = machine.kernel.modprobe if machine.kernel else ()
    cmdline = machine.system.cmdline if machine.system else Unknown("not read")
    return lines if isinstance(cmdline, Unknown) else (*lines, ConfigLine("/proc/cmdline", cmdline))


def _editable(path: str) -> str:
    """The file in which a person changes that line: the kernel's command line is written in GRUB's settings."""
    return "/etc/default/grub" if path == "/proc/cmdline" else path


def _nouveau(machine: Machine) -> Finding:
    holder = next(card for card in machine.cards or () if card.driver not in (None, "vfio-pci"))
    step, words = _way_past_nouveau(machine)
    return finding(
        "nouveau-conflict",
        f"{holder.driver} holds {machine.card_names}; the NVIDIA driver cannot take it",
        f"The kernel's own driver {holder.driver} was loaded first, and two drivers cannot share a card. {words} The NVIDIA "
        "driver itself is not broken: do not reinstall it.",
        (*(bound(card) for card in machine.cards or ()), nvml_said(machine)),
        machine.fix(step, BRANCH=machine.branch),
    )


def _way_past_nouveau(machine: Machine) -> tuple[str, str]:
    if machine.place.branch is None and not (machine.driver is not None and machine.driver.runfile):
        return "driver#install", "Installing the driver keeps it out."
    kept_out = any(re.match(r"\s*blacklist\s+(nouveau|nova_core)\b", line.text) for line in _configuration(machine))
    boots = machine.boots
    if kept_out and boots is not None and boots.module_path is not None:
        return "kernel-modules#reboot-into-installed-driver", "A line in modprobe.d keeps it out from the next start on."
    if kept_out:
        return "nouveau#blacklist-nouveau", "A line in modprobe.d keeps it out, but the initial RAM disk may not know of it yet."
    return "nouveau#blacklist-nouveau", "Nothing in modprobe.d keeps it out at the start."


def _reserved(machine: Machine) -> Finding:
    line = next((line for line in _configuration(machine) if "vfio" in line.text), None)
    return finding(
        "vfio-bound",
        f"vfio-pci holds {machine.card_names}: it is reserved for virtual machines",
        "Somebody set this machine up to pass the card through to a guest, so the host's driver must not use it. If that is "
        "still wanted, run the work inside the guest; only otherwise take the reservation back.",
        (*(bound(card) for card in machine.cards or ()), seen(line.path, line.text) if line else None),
        machine.fix("kernel-modules#release-from-vfio", FILE=_editable(line.path) if line else "/etc/modprobe.d/vfio.conf"),
    )


def _prime_off(machine: Machine) -> Finding:
    return finding(
        "driver-module-blacklisted",
        "prime-select has switched the NVIDIA GPU off (/etc/prime-discrete says off)",
        "In this profile only the processor's own graphics is used, and the nvidia module is kept from loading to save power. "
        "The profile on-demand leaves the screen there and the NVIDIA GPU free for computing.",
        (seen("/etc/prime-discrete", "off"), nvml_said(machine)),
        machine.fix("kernel-modules#select-nvidia-with-prime"),
    )


def _nothing_installed(machine: Machine) -> bool:
    """Packages are known and none is the driver's, no runfile was used, and no kernel has a module."""
    if machine.driver is None or isinstance(machine.driver.packages, Unknown) or not machine.cards:
        return False
    built = any(image.module_path for image in machine.images)
    return machine.place.branch is None and not machine.driver.runfile and not built


def _merely_not_loaded(machine: Machine) -> Finding:
    absent = " The PCI bus shows no NVIDIA card here, and without one the module refuses to load." if machine.cards == () else ""
    log = machine.facts.kernel_log
    unread = f" The kernel log, which would tell more, could not be read: {log.why}." if isinstance(log, Unknown) else ""
    return finding(
        "module-not-loaded",
        "The NVIDIA kernel module is not loaded, and nothing that usually keeps it out is seen",
        "The driver's libraries are installed, but its kernel part is not running. Load it once; if that fails, its message "
        f"names the cause.{absent}{unread} Do not reinstall anything before that message is known.",
        (nvml_said(machine), _modules_loaded(machine), *(bound(card) for card in (machine.cards or ())[:2])),
        machine.fix("kernel-modules#load-module"),
    )


def _modules_loaded(machine: Machine) -> Evidence | None:
    if machine.kernel is None or isinstance(machine.kernel.loaded, Unknown):
        return None
    return seen("/proc/modules", f"of the graphics modules loaded: {', '.join(machine.kernel.loaded) or 'none'}")
