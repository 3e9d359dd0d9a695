"""The option --bundle of the verb setup: what an offline machine needs, prepared here, or taken from there."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpudoctor.bundle import fetches, manifest, serve
from gpudoctor.bundle.manifest import NotABundle
from gpudoctor.cli.options import FAULT, HEALTHY
from gpudoctor.looking import BadInput
from gpudoctor.report.words import gib

if TYPE_CHECKING:
    from gpudoctor.bundle.prepare import Order
    from gpudoctor.bundle.serve import Bundle
    from gpudoctor.facts import Facts
    from gpudoctor.findings import Finding
    from gpudoctor.setup.carry_out import World
    from gpudoctor.setup.plan import Plan


def is_prepared(path: str) -> bool:
    """Whether that folder is a bundle to install from; otherwise one is to be prepared there."""
    return manifest.is_there(Path(path))


# ------------------------------------------------------------ prepare


def prepared(path: str, facts: Facts, plan: Plan, root: str, asked: Sequence[str], *, same_machine: bool) -> int:
    """Fetch what the plan will fetch into the folder; the exit code. Raises BadInput where it cannot be done here.

    ``asked`` are the words of the command line that named the steps: they are needed again on the offline machine.
    """
    from gpudoctor.bundle import prepare  # noqa: PLC0415 - loaded when asked for
    from gpudoctor.bundle.bench import Bench, NotPrepared  # noqa: PLC0415 - see above
    from gpudoctor.report import delivery  # noqa: PLC0415 - see above
    from gpudoctor.report.bundle import beside, fetched  # noqa: PLC0415 - see above
    from gpudoctor.report.headline import headline  # noqa: PLC0415 - see above
    from gpudoctor.report.setup import Terminal  # noqa: PLC0415 - see above
    from gpudoctor.setup.shell import Shell  # noqa: PLC0415 - see above

    order = _order(facts, plan, same_machine=same_machine)
    speaker = Terminal(delivery.console(), headline(facts, os.path.expanduser("~")))
    nothing = _nothing_to_fetch(order, path, same_machine=same_machine)
    if nothing is not None:
        speaker.plan(plan)
        for sentence in nothing:
            speaker.says(sentence)
        return FAULT if plan.runnable else HEALTHY
    folder = _folder(order, path, root)
    attended = os.isatty(0) and os.isatty(1)
    speaker.plan(plan)
    bench = Bench(folder, Shell(Path(root).resolve(), attended, os.geteuid() == 0), speaker, os.environ)
    again = shlex.join(["gpudoctor", "setup", "--bundle", os.path.basename(folder), *asked])
    try:
        with _progress("reading what was fetched") as tell:
            made = prepare.Preparation(bench, order, beside(order.target, again), speaker.begins, tell).prepare()
    except NotPrepared as error:
        speaker.says(f"gpudoctor: {error}.")
        return FAULT
    fetched(speaker, path, made, again)
    return FAULT if made.left_out else HEALTHY


def _nothing_to_fetch(order: Order, path: str, *, same_machine: bool) -> list[str] | None:
    """Why the folder would stay empty, in sentences; None where something can be fetched."""
    from gpudoctor.bundle import prepare  # noqa: PLC0415 - loaded when asked for

    known = same_machine or (Path(path) / manifest.STATUS).is_file()
    without = prepare.left_out(order, knows_what_is_installed=known)
    if any(order.of(item) for item in order.plan.runnable if item.step.step not in without):
        return None
    told = [f"Not in a bundle: {step}, for {why}." for step, why in without.items()]
    return [*told, f"Nothing else of this is fetched from a network, so there is nothing to put into {path}."]


def _order(facts: Facts, plan: Plan, *, same_machine: bool) -> Order:
    from importlib import import_module  # noqa: PLC0415 - type checkers cannot follow the folder's mapping

    from gpudoctor.bundle.prepare import Order  # noqa: PLC0415 - loaded when asked for
    from gpudoctor.facts import Interpreter, System  # noqa: PLC0415 - see above
    from gpudoctor.report.headline import headline  # noqa: PLC0415 - see above

    if plan.foreign is not None:
        raise BadInput(f"--bundle: {plan.foreign}")
    system, python = facts.system, facts.interpreter
    if not isinstance(system, System):
        raise BadInput("--bundle: the report does not say which system the machine has, so nothing can be fetched for it")
    interpreter = python if isinstance(python, Interpreter) else None
    flavour = import_module("gpudoctor.checks.driver.machine").machine_of(facts).flavour
    tag = interpreter.tag if interpreter is not None else None
    target = manifest.Target(headline(facts), system.os_id, system.os_version, system.machine, tag)
    return Order(plan, target, fetches.kernels(facts), flavour, interpreter, same_machine)


def _folder(order: Order, path: str, root: str) -> Path:
    """Where it goes; raises BadInput where this machine cannot prepare it."""
    from gpudoctor.bundle import prepare  # noqa: PLC0415 - loaded when asked for

    try:
        text = (Path(root) / "etc/os-release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    has_apt = (Path(root) / "usr/bin/apt-get").exists() if root != "/" else shutil.which("apt-get") is not None
    refused = prepare.refusal(order, prepare.here(text), has_apt=has_apt)
    if refused is not None:
        raise BadInput(f"--bundle: {refused}")
    try:
        serve.located(path, root)
        return prepare.folder_for(path)
    except (NotABundle, prepare.CannotPrepare) as error:
        raise BadInput(str(error)) from error


# ------------------------------------------------------------ install


def opened(path: str, root: str) -> Bundle:
    """The bundle, every file of it read and found as it was; raises BadInput."""
    try:
        bundle = serve.held(serve.located(path, root), root)
        with _progress("checking the bundle", bundle.manifest.size) as tell:
            manifest.check(bundle.folder, bundle.manifest, tell)
    except NotABundle as error:
        raise BadInput(str(error)) from error
    return bundle


def served(bundle: Bundle, world: World, first: Facts) -> World:
    """The world in which everything comes from the bundle. ``first`` are the machine's facts. Raises BadInput for a misfit."""
    reason = serve.misfit(bundle.manifest.target, first)
    if reason is not None:
        raise BadInput(f"{bundle.folder}: {reason}")
    try:
        what = serve.serve(bundle, world.environ, world.shell)
    except NotABundle as error:
        raise BadInput(str(error)) from error
    return replace(world, shell=replace(world.shell, served=what), plan=_limited(world.plan, bundle))


def _limited(plan: Callable[[Facts, tuple[Finding, ...]], Plan], bundle: Bundle) -> Callable[[Facts, tuple[Finding, ...]], Plan]:
    """The plan with an obstacle before each section that fetches what the bundle does not hold."""
    from gpudoctor.setup.plan import in_order  # noqa: PLC0415 - loaded by now

    def limited(facts: Facts, faults: tuple[Finding, ...]) -> Plan:
        made = plan(facts, faults)
        items = [replace(i, obstacle=i.obstacle or serve.lacking(i, bundle.manifest, facts)) for i in made.items]
        changed = any(now.obstacle != before.obstacle for now, before in zip(items, made.items, strict=True))
        return replace(made, items=tuple(in_order(items) if changed else items))

    return limited


@contextlib.contextmanager
def _progress(words: str, total: int = 0) -> Iterator[Callable[[int], None]]:
    """A line on a terminal's stderr that counts the bytes read; nothing elsewhere."""
    from gpudoctor.report.delivery import console  # noqa: PLC0415 - for a terminal only
    from gpudoctor.report.progress import Waiting  # noqa: PLC0415 - see above

    if not os.isatty(2):
        yield lambda _: None
        return
    with Waiting(console(stderr=True)) as waiting:
        yield lambda done: waiting((f"{words}, {gib(done)}{f' of {gib(total)}' if total else ''}",))
