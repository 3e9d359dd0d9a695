"""The next start: whether the driver will work after a reboot, and whether the next upgrade leaves it so. Asked by ``--next-boot``.

A GPU that works today may be gone tomorrow: a new kernel came without its module, the libraries moved away from it, the key
that signed it waits to be confirmed. All of that lies on the disk before the restart, so it is judged by files: the kernel that
GRUB starts next, what /lib/modules has for it, what the packages will do at the next upgrade. Nothing is needed of the driver
that runs. What the driver's own check has told with the same cure is not told again. It is not asked where the next start
depends on somebody else: in a container, in WSL, without a driver or an NVIDIA GPU.

The next start would be without the GPU, or would not come up:

* ``next-boot-without-module``: the kernel that boots next has no nvidia module
* ``next-boot-module-untrusted``: Secure Boot would refuse its module
* ``next-boot-version-differs``: its module is of another version than the libraries
* ``next-boot-without-initramfs``: it has no initial RAM disk

The next start works if somebody takes part, or the next upgrade will break it:

* ``next-boot-needs-confirmation``: a key's enrolment has to be confirmed on the screen during the start
* ``next-boot-without-headers``: DKMS could not build for that kernel again
* ``module-does-not-follow-kernel``: a metapackage moves the kernel, and none moves the module along
* ``hold-incomplete``: a part of the driver is held back, the rest moves
* ``initramfs-older-than-settings``: settings were changed after the initial RAM disk was made
"""

from __future__ import annotations

from gpudoctor.cards import has_gpu, on_jetson
from gpudoctor.facts import Facts, Unknown
from gpudoctor.findings import Check, Finding, Verdict, listed_codes

from ..driver.machine import NVML_LIBRARY, Machine, machine_of
from . import holds, initrd, module, upgrades
from .start import Answer, Start, start_of

HOW = {"fixed": " (GRUB_DEFAULT)", "saved": " (saved in GRUB)", "once": " this once (grub-reboot)"}
QUESTIONS = (module.there, module.trusted, module.equal, initrd.there, module.headers, upgrades.followed, holds.whole, initrd.fresh)
"""In the order in which to cure what they find."""


def judge(facts: Facts, _required: bool) -> Verdict:
    """One line where all is well, every finding where it is not."""
    machine = machine_of(facts)
    beside = _not_asked(machine)
    if beside is not None:
        return Verdict(f"not asked {beside}", skipped=True)
    start = start_of(machine)
    if isinstance(start, Unknown):
        return Verdict(f"could not be determined: {start.why}", unknown=(start.why,))
    answers = [ask(start) for ask in QUESTIONS]
    findings = tuple(answer for answer in answers if isinstance(answer, Finding))
    unknown = tuple(dict.fromkeys(answer.why for answer in answers if isinstance(answer, Unknown)))
    return Verdict(_line(start, answers, findings, unknown), findings, unknown)


def _not_asked(machine: Machine) -> str | None:
    """Why the question does not arise here; None where it does."""
    if machine.place.wsl:
        return "in WSL: the driver is that of Windows"
    if machine.place.container:
        return "in a container: its host has the kernel and the driver"
    if on_jetson(machine.facts):
        return "on a Jetson: its driver comes with its kernel"
    if has_gpu(machine.facts) is False:
        return "of a machine without an NVIDIA GPU"
    return "of a machine without an NVIDIA driver" if _without_driver(machine) else None


def _without_driver(machine: Machine) -> bool:
    """Everything was looked at, and no part of a driver is there."""
    if machine.driver is None or machine.kernel is None or isinstance(machine.kernel.images, Unknown):
        return False
    parts = (machine.place.branch, machine.driver.runfile, machine.needs_dkms, machine.libraries(NVML_LIBRARY))
    known = not isinstance(machine.driver.packages, Unknown) and not isinstance(machine.driver.libraries, Unknown)
    return known and not any(parts) and not any(image.module_path for image in machine.images)


def _line(start: Start, answers: list[Answer], findings: tuple[Finding, ...], unknown: tuple[str, ...]) -> str:
    """The fault, else what boots next and what is known of it."""
    fault = next((item.summary for item in findings if item.severity == "fail"), None)
    if fault is not None:
        return fault
    head = f"{start.release} boots next{HOW.get(start.boot.chosen_by, '')}"
    if unknown:
        return f"{head}; not determined: {unknown[0]}"
    return f"{head}: {'; '.join(words for words in (module.words(start), upgrades.words(start, answers)) if words)}"


CHECK = Check(
    name="next_boot",
    title="next boot",
    needs=(),
    codes=listed_codes(__doc__),
    judge=judge,
)
