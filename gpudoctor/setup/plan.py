"""Which sections are needed, in which order, and which of them may be run from here by whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gpudoctor import cures, steps
from gpudoctor.diagnose import Diagnosis
from gpudoctor.facts import Facts, System, Unknown
from gpudoctor.findings import Finding, Fix
from gpudoctor.probes.readiness import Readiness
from gpudoctor.setup.obstacles import Person, obstacle
from gpudoctor.steps import Section, Step

FINISH = "packages#finish-interrupted"
PREFER = "driver#prefer-ubuntu-driver"
_DRIVER_FROM_UBUNTU = (
    "driver#install",
    "driver#install-server",
    "driver#change-branch",
    "driver#switch-to-open-modules",
    "driver#switch-to-proprietary-modules",
    "driver#reinstall-libraries",
)


Key = tuple[str | None, str, tuple[tuple[str, str], ...]]


class CannotPlan(ValueError):
    """What was asked for by name cannot be planned; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Item:
    """One section that is to be carried out: what for, with which values, and what keeps setup from running it (None: nothing)."""

    section: Section
    step: Step
    values: tuple[tuple[str, str], ...]
    why: str
    code: str | None = None
    """The finding that it cures; None where somebody asked for it, or another section needs it first."""
    cause: str = ""
    named: bool = False
    """Somebody asked for it; so it is done once, whatever the diagnosis says."""
    obstacle: str | None = None

    @property
    def key(self) -> Key:
        """By which it is known whether this has been shown, and tried."""
        return self.code, self.step.step, self.values


@dataclass(frozen=True, slots=True)
class Plan:
    """The sections in their order, the first to be done first."""

    items: tuple[Item, ...]
    release: str
    """The folder of install pages that they come from."""
    foreign: str | None
    """Why nothing is run on this system at all; None where there are pages for it."""

    @property
    def runnable(self) -> tuple[Item, ...]:
        """Those that setup itself may carry out."""
        return () if self.foreign is not None else tuple(item for item in self.items if item.obstacle is None)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was named on the command line: layers of the report, sections, values that replace the diagnosis'."""

    layers: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()


def plan(facts: Facts, faults: Sequence[Finding], readiness: Readiness, person: Person, asked: Asked) -> Plan:
    """The sections that cure these faults, in their order, and those that were named; raises CannotPlan."""
    release = cures.release_of(facts.system)
    foreign = cures.foreign(facts.system)
    named = [_named(step, facts, faults, release, asked) for step in asked.sections]
    chosen = _unique([*(_of(fault, release, asked) for fault in faults), *named])
    items = [replace(i, obstacle=obstacle(i.section, i.step, person)) for i in (*_first(chosen, readiness, release), *chosen)]
    return Plan(tuple(items if asked.layers else in_order(items)), release, foreign)


def in_order(items: list[Item]) -> list[Item]:
    """What depends on a fault that setup leaves to others is left too: it could not be verified before that is cured."""
    kept: list[Item] = []
    first: str | None = None
    for item in items:
        waits = item.code is not None and first is not None and item.obstacle is None
        kept.append(replace(item, obstacle=f"{first} comes first") if waits else item)
        first = first or (item.code if item.obstacle is not None else None)
    return kept


def faults(diagnosis: Diagnosis, asked: Asked) -> tuple[Finding, ...]:
    """What is to be cured, in the order in which the layers depend on each other: of those that were named, or of all.

    None where sections alone were named. Only faults: what works is not touched, however much a warning says of it.
    """
    if asked.sections and not asked.layers:
        return ()
    checks = [check for check in diagnosis.checks if not asked.layers or check.name in asked.layers]
    return tuple(finding for check in checks for finding in check.findings if finding.severity == "fail")


def _of(finding: Finding, release: str, asked: Asked) -> Item:
    fix = replace(finding.fix, values=_with(finding.fix.values, asked.values))
    section, step = _resolved(fix, release)
    return Item(section, step, fix.values, finding.summary, finding.code, finding.cause)


def _named(name: str, facts: Facts, faults: Sequence[Finding], release: str, asked: Asked) -> Item:
    """A section that was asked for by its name: values from what was given, from a finding that names it, from the machine."""
    try:
        section = steps.find(name, release)
    except steps.NoSuchStep:
        raise CannotPlan(
            f"setup: there is no section {name!r}; gpudoctor explain CODE names the sections that cure a code"
        ) from None
    told = next((fault.fix.values for fault in faults if fault.fix.step == name), ())
    values = _with((*_of_machine(facts), *told), asked.values)
    there = dict(values)
    missing = [value for value in steps.wanted(section) if value not in there and not value.endswith("S")]
    if missing:
        given = " and ".join(f"--set {value}=..." for value in missing)
        raise CannotPlan(f"setup: {name} needs what this machine does not tell: {given}")
    _, step = _resolved(Fix(name, values), release)
    return Item(section, step, values, "you asked for this", named=True)


def _of_machine(facts: Facts) -> tuple[tuple[str, str], ...]:
    """What every machine tells that has it: the values that sections ask for most."""
    from importlib import import_module  # noqa: PLC0415 - type checkers cannot follow the folder's mapping

    machine = import_module("gpudoctor.checks.driver.machine").machine_of(facts)
    values: dict[str, str | None] = {"BRANCH": machine.branch, "FLAVOUR": machine.flavour, "KERNEL": machine.place.kernel}
    if not isinstance(facts.interpreter, Unknown) and facts.interpreter is not None:
        values |= {"PYTHON": facts.interpreter.path, "PREFIX": facts.interpreter.prefix, "PROJECT": facts.interpreter.project}
    if isinstance(facts.system, System):
        values["USER"] = facts.system.user.name
    return tuple((name, value) for name, value in values.items() if value)


def _with(values: Iterable[tuple[str, str]], given: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple({**dict(values), **dict(given)}.items())


def _resolved(fix: Fix, release: str) -> tuple[Section, Step]:
    """The section and its step with the commands as they are written, whatever system this is."""
    try:
        return steps.find(fix.step, release), steps.resolve(fix, release)
    except steps.NoSuchStep:  # a check of another package may name a page that nobody wrote
        page, _, name = fix.step.partition("#")
        words = f"There is no page {fix.step}."
        return Section(page, name, {"do": words}), Step(fix.step, fix.where or "machine", "none", (), (), words, False, False)


def _first(items: list[Item], readiness: Readiness, release: str) -> list[Item]:
    """What has to be in order before apt can do what the others ask of it."""
    found: list[Item] = []
    with_apt = any("apt-get " in line or "ubuntu-drivers " in line for item in items for line in item.step.commands)
    names = {item.step.step for item in items}
    if with_apt and readiness.interrupted and FINISH not in names:
        why = (
            f"An installation was cut off half-way ({', '.join(readiness.interrupted[:3])}); apt does nothing before it is finished"
        )
        found.append(_plain(FINISH, why, release))
    mixed = readiness.nvidia_archive is not None and not readiness.driver_pinned and not names.isdisjoint(_DRIVER_FROM_UBUNTU)
    if mixed and PREFER not in names:
        why = f"NVIDIA's archive is set up ({readiness.nvidia_archive}); apt would take its driver in place of Ubuntu's"
        found.append(_plain(PREFER, why, release))
    return found


def _plain(name: str, why: str, release: str) -> Item:
    section, step = _resolved(Fix(name), release)
    return Item(section, step, (), why)


def _unique(items: Iterable[Item]) -> list[Item]:
    """Two findings with the same cure are cured once."""
    kept: dict[tuple[str, tuple[str, ...]], Item] = {}
    for item in items:
        kept.setdefault((item.step.step, item.step.commands), item)
    return list(kept.values())


def settings_of(words: Iterable[str]) -> Mapping[str, str]:
    """``NAME=VALUE`` of --set; raises CannotPlan."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier() or name != name.upper():
            raise CannotPlan(f"--set: expected NAME=VALUE with a NAME in capitals, as in --set BRANCH=580, not {word!r}")
        if any(ord(character) < ord(" ") for character in value):
            raise CannotPlan(f"--set: {name} must be one line of text")
        found[name] = value
    return found
