"""The module of the kernel that boots next: whether there is one, whether it may be loaded, whether it fits the libraries."""

from __future__ import annotations

import dataclasses

from gpudoctor.facts import Unknown
from gpudoctor.findings import Evidence, Fix

from ..driver import kernel_modules, secure_boot
from ..driver.machine import NVML_LIBRARY, finding, seen
from .start import Answer, Start

_CANONICAL = "Canonical Ltd."
_NO_MODULE_NOW = (
    "kernel-module-missing-for-kernel",
    "dkms-build-failed",
    "dkms-headers-missing",
    "driver-not-installed",
    "nouveau-conflict",
)
_REFUSED_NOW = ("secure-boot-unsigned-module", "mok-pending")


def there(start: Start) -> Answer:
    """The kernel that boots next has an nvidia module."""
    if start.has_module:
        return None
    other = next((image.release for image in start.machine.images if image.module_path), None)
    before = f" Kernel {other} has one: until then it can be chosen in GRUB's menu." if other else ""
    return finding(
        "next-boot-without-module",
        f"Kernel {start.release} boots next and has no nvidia module",
        "A kernel module fits one kernel only. After the restart nvidia-smi would say that it cannot communicate with the driver. "
        f"Provide the module before you restart.{before} Libraries, CUDA and PyTorch are not concerned.",
        (seen(f"/lib/modules/{start.release}", "no nvidia module"), chosen(start)),
        _provided(start),
        same_as=told_now(start, *_NO_MODULE_NOW),
    )


def trusted(start: Start) -> Answer:
    """Secure Boot lets that module in."""
    kernel = start.machine.kernel
    if not start.has_module or kernel is None:
        return None
    verdict = secure_boot.trusted(start.image, kernel)
    if verdict is None:
        return Unknown("whether Secure Boot trusts the module's signature")
    if verdict:
        return None
    if start.image.module_signer is not None and isinstance(kernel.mok_pending, Unknown):
        return Unknown("whether the key that signed the module is about to be enrolled")
    pending = start.image.module_signer is not None and kernel.mok_pending is True
    return _pending(start) if pending else _untrusted(start)


def equal(start: Start) -> Answer:
    """That module is of the libraries' version."""
    if not start.has_module:
        return None
    module, libraries = start.image.module_version, _versions(start)
    if not isinstance(module, str):
        return Unknown(f"the version of {start.image.module_path}")
    if not libraries:
        return Unknown("the version of the driver's libraries")
    if module in libraries:
        return None
    copies = start.machine.libraries(NVML_LIBRARY)
    return finding(
        "next-boot-version-differs",
        f"Kernel {start.release} boots next with module {module}, and the libraries are {libraries[0]}",
        'After the restart CUDA and nvidia-smi would stop with "Driver/library version mismatch". An upgrade replaced one of them '
        "and not the other: a half hold, or a kernel that the module's package does not follow. Bring the module to the "
        "libraries' version before you restart; a restart alone does not.",
        (seen(str(start.image.module_path), module), *(seen(copy.path, copy.version) for copy in copies[:1]), chosen(start)),
        _provided(start),
        same_as=told_now(start, "mixed-driver-packages"),
    )


def headers(start: Start) -> Answer:
    """Where DKMS builds the module, it can do so again for that kernel."""
    if not start.built_here or start.image.headers or not start.has_module:
        return None
    return finding(
        "next-boot-without-headers",
        f"Kernel {start.release}, which boots next, has no headers: DKMS cannot build its module again",
        "The module that is there works. At the driver's next upgrade the libraries are replaced and the module is not, since "
        "building it needs the kernel's headers; the start after that has two versions.",
        (seen(f"/lib/modules/{start.release}/build", "missing"), seen(str(start.image.module_path), "built on this machine")),
        start.machine.fix("kernel-modules#install-headers", KERNEL=start.release, FLAVOUR=start.flavour),
        severity="warn",
    )


def words(start: Start) -> str:
    """What is known of the module, for the line of a machine that is well."""
    kernel, signer = start.machine.kernel, start.image.module_signer
    signed = "signed by an enrolled key"
    if isinstance(signer, str) and signer.startswith(_CANONICAL):
        signed = "signed by Canonical"
    elif kernel is None or kernel.secure_boot is not True:
        signed = "no signature needed"
    elif secure_boot.trusted(start.image, kernel) is False:
        signed = "whose key is not confirmed yet"
    return f"module {start.image.module_version}, {signed}, equal to the libraries"


def chosen(start: Start) -> Evidence | None:
    """The setting that makes GRUB start this kernel rather than the newest."""
    return seen(start.boot.entry.path, start.boot.entry.text) if start.boot.entry else None


def told_now(start: Start, *codes: str) -> tuple[str, ...]:
    """Codes of the driver's check that say the same of this kernel today, with the same cure."""
    boots = start.machine.boots
    # a mismatch is cured by providing a module for the kernel that boots next, whichever runs
    of_next = ("driver-library-mismatch",) if boots is not None and boots.release == start.release else ()
    return (*of_next, *(codes if start.image.running else ()))


def _provided(start: Start) -> Fix:
    """The way to a module for this kernel, by the flavour that it follows: the running kernel's may be another."""
    fix = kernel_modules.provide(start.machine, start.release)
    values = tuple((name, start.flavour if name == "FLAVOUR" and start.flavour else value) for name, value in fix.values)
    return dataclasses.replace(fix, values=values)


def _versions(start: Start) -> list[str]:
    """Of the driver's library; of several copies one that equals the module is enough, the others are the driver check's affair."""
    return [copy.version for copy in start.machine.libraries(NVML_LIBRARY) if copy.version]


def _pending(start: Start) -> Answer:
    return finding(
        "next-boot-needs-confirmation",
        "A key for the nvidia module has to be confirmed on the machine's own screen during the next start",
        "The blue screen 'Perform MOK management' waits about ten seconds and asks for the password that was invented at the "
        "import. Without somebody there the machine starts without the GPU. A machine in a rack or a cloud wants signed modules "
        "instead.",
        (seen("mokutil --list-new", "a key waits to be enrolled"), secure_boot.signature(start.image)),
        start.machine.fix("secure-boot#confirm-enrolment", KEYFILE=secure_boot.key_file(start.image) or secure_boot.UBUNTU_KEY),
        severity="warn",
        same_as=told_now(start, *_REFUSED_NOW),
    )


def _untrusted(start: Start) -> Answer:
    signer = start.image.module_signer
    by = f"signed by a key that is not enrolled ({signer})" if isinstance(signer, str) else "not signed"
    return finding(
        "next-boot-module-untrusted",
        f"Secure Boot would refuse the nvidia module of kernel {start.release}, which boots next: it is {by}",
        "The module is there and fits, and only the trust is missing: the kernel loads what is signed by a key that the firmware "
        "or its MOK list knows. Reinstalling the driver signs it with the same key again.",
        (secure_boot.signature(start.image), seen("efivars", "Secure Boot is enabled"), chosen(start)),
        secure_boot.cure(start.machine, start.image),
        same_as=told_now(start, *_REFUSED_NOW),
    )
