"""Each finding's cure for the machine at hand: the pages of its release, or an honest word that there are none.

The steps are written for the releases in ``install/``. On another Ubuntu a command is kept unless it names a release or
a repository; on another distribution nothing that belongs to Ubuntu's packages is printed as a command. What happens
inside a Python environment is the same everywhere.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from gpudoctor import steps
from gpudoctor.diagnose import Diagnosis
from gpudoctor.facts import Facts, System, Unknown
from gpudoctor.findings import Finding, Fix
from gpudoctor.steps import Step

_OF_A_RELEASE = re.compile(r"\b\d\d\.\d\d\b|ubuntu\d{4}|https?://\S+/repos/|signed-by=")
_OF_UBUNTU = re.compile(r"\b(apt|apt-get|apt-cache|apt-mark|dpkg|ubuntu-drivers|prime-select|update-initramfs|snap)\b")


def cures(facts: Facts, diagnosis: Diagnosis) -> dict[Finding, Step]:
    """The step for every finding, with its values filled in."""
    return steps_for(facts, diagnosis.findings)


def steps_for(facts: Facts, findings: Iterable[Finding]) -> dict[Finding, Step]:
    """The same for findings that a text led to, which may not tell its system."""
    system = _told(facts.system)
    release = release_of(system)
    return {finding: _adapt(finding.fix, system, release) for finding in findings}


def _told(system: System | Unknown) -> System | Unknown:
    """A text may tell of a container or WSL and not of the system in it."""
    return Unknown("not named") if isinstance(system, System) and system.os_id in ("", "linux") else system


def release_of(system: System | Unknown) -> str:
    """The folder of install pages that serves this machine; the default one where none is written for it."""
    if isinstance(system, Unknown):
        return steps.DEFAULT_RELEASE
    exact = f"{system.os_id}-{system.os_version}"
    return exact if exact in steps.releases() else steps.DEFAULT_RELEASE


def foreign(system: System | Unknown) -> str | None:
    """What a reader on a release without pages must know, in one sentence; None where there are pages."""
    system = _told(system)
    if isinstance(system, Unknown) or f"{system.os_id}-{system.os_version}" in steps.releases():
        return None
    written = " and ".join(_title(release) for release in steps.releases())
    if system.os_id == "ubuntu":
        return f"The steps were written for {written}; on {system.os_name} package names, kernel flavours and repositories differ."
    return (
        f"The steps were written for {written}. {system.os_name} has its own driver packages and repositories: "
        "commands that are Ubuntu's are left out."
    )


def _adapt(fix: Fix, system: System | Unknown, release: str) -> Step:
    try:
        step = steps.resolve(fix, release)
    except steps.NoSuchStep:
        # a check of another package may name a page that nobody wrote: its finding stands all the same
        return Step(fix.step, fix.where or "machine", fix.risk or "none", (), (), f"There is no page {fix.step}.", False, False)
    if foreign(system) is None or isinstance(system, Unknown):
        return step
    # inside WSL, a container image or a Python environment too: a line that names another release is wrong here
    unfit = _OF_A_RELEASE if system.os_id == "ubuntu" else re.compile(f"{_OF_A_RELEASE.pattern}|{_OF_UBUNTU.pattern}")
    if not any(unfit.search(line) for line in step.commands):
        return step
    # the prose speaks of the commands that are left out: the section has other words for such a place
    elsewhere = steps.find(fix.step, release).fields.get("elsewhere", "")
    words = elsewhere or f"The commands are those of {_title(release)}; they are left out here."
    verify = tuple(line for line in step.verify if not unfit.search(line))
    return dataclasses.replace(step, commands=(), verify=verify, prose=words, needs_root=False, needs_reboot=False)


def _title(release: str) -> str:
    name, _, version = release.partition("-")
    return f"{name.capitalize()} {version}"
