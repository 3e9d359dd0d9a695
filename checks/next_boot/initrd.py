"""The initial RAM disk of the kernel that boots next: whether it is there, and whether it knows today's settings."""

from __future__ import annotations

from gpudoctor.facts import Unknown

from ..driver.machine import finding, seen
from .module import chosen
from .start import Answer, Start

_SHOWN = 3


def there(start: Start) -> Answer:
    """A machine that starts with an initial RAM disk has one for this kernel."""
    boot = start.boot
    if isinstance(boot.initrd, Unknown):
        return boot.initrd
    if boot.initrd is not None or boot.needs_initrd is False:
        return None
    if isinstance(boot.needs_initrd, Unknown):
        return Unknown("whether this machine starts with an initial RAM disk")
    return finding(
        "next-boot-without-initramfs",
        f"Kernel {start.release} boots next and has no initial RAM disk in /boot",
        "Without it the kernel does not find its root file system, and the machine stops during the start. It could not be written "
        "when the kernel was installed, mostly because /boot was full. Do not restart before it is there. The driver is well.",
        (seen(f"/boot/initrd.img-{start.release}", "missing, or empty"), chosen(start)),
        start.machine.fix("kernel-modules#make-initramfs", KERNEL=start.release),
    )


def fresh(start: Start) -> Answer:
    """No setting of modprobe.d that concerns the driver is newer than it."""
    newer = start.boot.newer_settings
    if isinstance(newer, Unknown):
        return Unknown("whether the initial RAM disk knows the settings of modprobe.d")
    if not newer:
        return None
    return finding(
        "initramfs-older-than-settings",
        f"{newer[0].path} was changed after the initial RAM disk of {start.release} was made",
        "The start uses the copy of the settings in that disk until the root file system is there, and nouveau or nvidia may be "
        "loaded before. Make the disk anew, and the next start uses what is written now. Nothing is wrong with the driver.",
        (*(seen(line.path, line.text) for line in newer[:_SHOWN]), seen(str(start.boot.initrd), "older")),
        start.machine.fix("kernel-modules#renew-initramfs", KERNEL=start.release),
        severity="warn",
    )
