"""The verb setup: the cure, planned, run, verified."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpudoctor import looking
from gpudoctor.cli.check import saved_facts
from gpudoctor.cli.delivering import delivered, nobody_reads, writable
from gpudoctor.cli.options import FAULT, HEALTHY, RESTART, UNKNOWN, Deadline, Format, Interpreter, Output
from gpudoctor.looking import BadInput
from gpudoctor.probes import child

if TYPE_CHECKING:
    from gpudoctor.facts import Facts
    from gpudoctor.findings import Finding
    from gpudoctor.probes.readiness import Readiness
    from gpudoctor.setup.carry_out import World
    from gpudoctor.setup.obstacles import Person
    from gpudoctor.setup.plan import Asked, Plan

EXAMPLE = "Example: gpudoctor setup --dry-run"
LAYERS = ("driver", "cuda_toolkit", "cudnn", "nccl", "pytorch")
NOT_NEEDED = ("cuda_toolkit", "cudnn", "nccl")
"""PyTorch's wheels bring their own: whoever names one of them wants it all the same."""


class SetupFormat(str, Enum):
    """The reader of what --dry-run writes."""

    text = "text"
    markdown = "markdown"


def setup(
    step: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STEP ...]",
            help="Only these: driver, cuda_toolkit, cudnn, nccl, pytorch, page#section. Without any: what check calls for.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan as a shell script, which runs without gpudoctor; run nothing.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask nothing: for provisioning. What removes something or needs a person is left out.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Use another value than the diagnosis': --set BRANCH=580, --set INDEX=..."
        ),
    ] = None,
    saved: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="With --dry-run: plan for the machine of a saved JSON report.")
    ] = None,
    python: Interpreter = None,
    root: Annotated[
        str, typer.Option(metavar="DIR", help="The machine's files lie below this folder, and its steps run there by chroot.")
    ] = "/",
    output_format: Annotated[
        SetupFormat, typer.Option("--format", help="With --dry-run: text is the script, markdown a ticket for an administrator.")
    ] = SetupFormat.text,
    output: Output = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="For a machine without a network: a new folder is filled with all that the plan fetches (also for the machine of "
            "--from), a filled one is installed from.",
        ),
    ] = None,
    deadline: Deadline = None,
) -> int:
    """Cure what check finds: show the plan, ask, run each step, verify it, look again.

    Exit codes: 0 nothing is left to do, 1 a step failed or a fault is left, 2 wrong usage, 3 something could not be determined,
    4 restart the machine and run it again. All output is logged in $XDG_STATE_HOME/gpudoctor.
    """
    looking.within_reason(deadline)
    writable(output)
    asked = _asked(tuple(step or ()), tuple(settings or ()))
    if bundle is not None and (dry_run or output is not None):
        raise BadInput(f"--bundle: not together with {'--dry-run' if dry_run else '--output'}")
    if bundle is not None and not _is_prepared(bundle, saved):
        return _prepared(bundle, asked, python, root, deadline, saved)
    if saved is not None and not dry_run:
        raise BadInput("--from: a saved report is of another time or machine; it can be planned for with --dry-run only")
    if not dry_run:
        if output is not None or output_format is not SetupFormat.text:
            raise BadInput(f"{'--output' if output is not None else '--format'}: only with --dry-run")
        return _carried_out(asked, python, root, deadline, yes=yes, bundle=bundle)
    from gpudoctor.probes.readiness import Readiness  # noqa: PLC0415 - loaded when asked for

    facts = saved_facts(saved) if saved is not None else _look(python, root, deadline)
    readiness = Readiness if saved is not None else functools.partial(looking.readiness, root, deadline)
    plan = _planner(asked, readiness, _person(facts, attended=True))(facts, _faults(facts, asked))
    delivered(lambda _: None, lambda _: _written(facts, plan, root, output_format), Format.markdown, output)
    return HEALTHY


def _asked(words: tuple[str, ...], settings: tuple[str, ...]) -> Asked:
    """What was named; raises BadInput."""
    from gpudoctor.setup.plan import Asked, CannotPlan, settings_of  # noqa: PLC0415 - loaded when asked for

    layers = tuple(word.replace("-", "_") for word in words if "#" not in word)
    for layer in layers:
        if layer not in LAYERS:
            raise BadInput(f"setup: there is no step {layer!r}; expected {', '.join(LAYERS)}, or page#section")
    try:
        return Asked(layers, tuple(word for word in words if "#" in word), tuple(settings_of(settings).items()))
    except CannotPlan as error:
        raise BadInput(str(error)) from error


def _look(python: str | None, root: str, deadline: float | None) -> Facts:
    """Without a smoke test: a machine under repair is not asked to generate."""
    return looking.look(python, root=root, deadline=deadline)


def _faults(facts: Facts, asked: Asked) -> tuple[Finding, ...]:
    from gpudoctor.diagnose import diagnose  # noqa: PLC0415 - loaded while the machine was looked at
    from gpudoctor.setup.plan import faults  # noqa: PLC0415 - see above

    return faults(diagnose(facts, required=_required(asked)), asked)


def _required(asked: Asked) -> tuple[str, ...]:
    return tuple(layer for layer in asked.layers if layer in NOT_NEEDED)


def _planner(asked: Asked, readiness: Callable[[], Readiness], person: Person) -> Callable[[Facts, tuple[Finding, ...]], Plan]:
    """From faults to a plan; raises BadInput for a section that cannot be planned."""
    from gpudoctor.setup.plan import CannotPlan, plan  # noqa: PLC0415 - loaded when asked for

    def planned(facts: Facts, faults: tuple[Finding, ...]) -> Plan:
        try:
            return plan(facts, faults, readiness(), person, asked)
        except CannotPlan as error:
            raise BadInput(str(error)) from error

    return planned


def _person(facts: Facts, *, attended: bool) -> Person:
    from gpudoctor.facts import System  # noqa: PLC0415 - loaded while the machine was looked at
    from gpudoctor.setup.obstacles import Person  # noqa: PLC0415 - see above

    told = facts.system.user.may_sudo if isinstance(facts.system, System) else None
    may = True if os.geteuid() == 0 else told if isinstance(told, bool) else None
    return Person(attended, may, borrowed_root=os.geteuid() == 0 and os.environ.get("SUDO_UID", "0") != "0")


def _written(facts: Facts, plan: Plan, root: str, output_format: SetupFormat) -> str:
    if output_format is SetupFormat.markdown:
        from gpudoctor.report import ticket  # noqa: PLC0415 - loaded when asked for

        return ticket.render(facts, plan, root)
    from gpudoctor.report.headline import headline  # noqa: PLC0415 - see above
    from gpudoctor.setup import script  # noqa: PLC0415 - see above

    return script.render(plan, headline(facts), root)


def _is_prepared(bundle: str, saved: str | None) -> bool:
    from gpudoctor.cli import bundle as bundles  # noqa: PLC0415 - loaded when asked for

    found = bundles.is_prepared(bundle)
    if found and saved is not None:
        raise BadInput(f"--from: {bundle} has been prepared already; name a new folder to prepare another one")
    return found


def _prepared(bundle: str, asked: Asked, python: str | None, root: str, deadline: float | None, saved: str | None) -> int:
    """Fill the folder with what the plan will fetch; the exit code."""
    from gpudoctor.cli import bundle as bundles  # noqa: PLC0415 - loaded when asked for
    from gpudoctor.probes.readiness import Readiness  # noqa: PLC0415 - see above
    from gpudoctor.setup.obstacles import Person  # noqa: PLC0415 - see above

    facts = saved_facts(saved) if saved is not None else _look(python, root, deadline)
    readiness = Readiness if saved is not None else functools.partial(looking.readiness, root, deadline)
    anybody = Person(attended=True, may_be_root=None)  # who will install from it is not known yet
    plan = _planner(asked, readiness, anybody)(facts, _faults(facts, asked))
    return bundles.prepared(bundle, facts, plan, root, _words(asked), same_machine=saved is None)


def _words(asked: Asked) -> list[str]:
    """What was named, as it is written on a command line."""
    return [*asked.layers, *asked.sections, *(word for name, value in asked.values for word in ("--set", f"{name}={value}"))]


def _carried_out(
    asked: Asked, python: str | None, root: str, deadline: float | None, *, yes: bool, bundle: str | None = None
) -> int:
    """Run what is needed; the exit code."""
    from gpudoctor.cli import bundle as bundles  # noqa: PLC0415 - loaded when asked for
    from gpudoctor.report import delivery  # noqa: PLC0415 - loaded when asked for
    from gpudoctor.report import setup as report  # noqa: PLC0415 - see above
    from gpudoctor.report.headline import headline  # noqa: PLC0415 - see above
    from gpudoctor.setup import logbook  # noqa: PLC0415 - see above
    from gpudoctor.setup.carry_out import Outcome, Run  # noqa: PLC0415 - see above

    attended = not yes and os.isatty(0) and os.isatty(1)
    if not attended and not yes:
        raise BadInput("setup: there is no terminal to ask at; --yes runs the plan without asking, --dry-run prints it")
    if root != "/" and os.geteuid() != 0:
        raise BadInput("--root: only root may run the steps of another root (chroot); --dry-run prints them for anybody")
    found = None if bundle is None else bundles.opened(bundle, root)
    first = _look(python, root, deadline)
    try:
        log = logbook.opened(os.environ, f"{os.path.realpath(root)}:{_machine_id(root)}")
    except logbook.NoLogbook as error:
        raise BadInput(str(error)) from error
    child.when_leaving(log.close)
    speaker = report.Terminal(delivery.console(), headline(first, os.path.expanduser("~")))
    person = replace(_person(first, attended=attended), unnamed_environment=root != "/" and python is None)
    options = {"--bundle": bundle, "--python": python, "--root": None if root == "/" else root}
    again = [word for name, value in options.items() if value is not None for word in (name, value)]
    world = replace(
        _world(asked, root, deadline, person, first),
        again=shlex.join(["gpudoctor", "setup", *again, *(["--yes"] if yes else []), *_words(asked)]),
    )
    world = world if found is None else bundles.served(found, world, first)
    try:
        outcome = Run(world, person, speaker, log, python).carry_out(named=bool(asked.layers or asked.sections))
    except BrokenPipeError:  # whoever read the plan went away: it was not carried out
        nobody_reads()
        return FAULT
    speaker.ends(outcome)
    return {Outcome.well: HEALTHY, Outcome.restart: RESTART, Outcome.unknown: UNKNOWN}.get(outcome, FAULT)


def _world(asked: Asked, root: str, deadline: float | None, person: Person, first: Facts) -> World:
    """The machine, as a run of setup sees it. ``first`` are its facts before anything was done."""
    from gpudoctor.diagnose import diagnose  # noqa: PLC0415 - loaded while the machine was looked at
    from gpudoctor.next_boot import judged  # noqa: PLC0415 - see above
    from gpudoctor.setup.carry_out import World  # noqa: PLC0415 - see above
    from gpudoctor.setup.plan import faults  # noqa: PLC0415 - see above
    from gpudoctor.setup.shell import LOCK_SECONDS, Shell  # noqa: PLC0415 - see above

    known = [first]

    def look(python: str | None) -> Facts:
        return known.pop() if known else _look(python, root, deadline)

    return World(
        look=look,
        diagnose=lambda facts: diagnose(facts, required=_required(asked)),
        ahead=judged,
        faults=lambda diagnosis: faults(diagnosis, asked),
        plan=_planner(asked, lambda: looking.readiness(root, deadline), person),
        boot=lambda: _text(root, "proc/sys/kernel/random/boot_id"),
        shell=Shell(Path(root).resolve(), person.attended, os.geteuid() == 0, int(min(LOCK_SECONDS, deadline or LOCK_SECONDS))),
        environ=os.environ,
    )


def _machine_id(root: str) -> str:
    return _text(root, "etc/machine-id")


def _text(root: str, path: str) -> str:
    """A short text of the machine's own; empty where there is none."""
    try:
        with open(os.path.join(root, path), "rb") as file:
            return file.read(200).decode("ascii", "replace").strip()
    except OSError:
        return ""
