"""Looks at this machine for a verb: which interpreter is meant, everything side by side, a line of progress for what takes long."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gpudoctor.probes import child

if TYPE_CHECKING:
    from gpudoctor.facts import Facts
    from gpudoctor.memory.question import Question
    from gpudoctor.pasted.intake import Taken
    from gpudoctor.probes.readiness import Readiness
    from gpudoctor.probes.scope import Request, Scope
    from gpudoctor.smoke.plan import Plan

T = TypeVar("T")
LOOKUP_SECONDS = 10.0
HEADERS_SECONDS = 60.0
"""For a checkpoint's headers: a cold network file system may need half of that."""


class BadInput(Exception):
    """The user asked for something that cannot be; one line says what was expected. Exit 2."""


def planned(make: Callable[[], Plan], deadline: float | None) -> Plan:
    """The plan of a smoke test, within a deadline; raises BadInput where there cannot be one. No Python has been started yet."""
    from gpudoctor.planning import CannotPlan  # noqa: PLC0415 - what looks is loaded when there is something to look at

    return _headers(make, deadline, CannotPlan, "--ckpt")


def asked(make: Callable[[], Question], deadline: float | None, about: str) -> Question:
    """The question about a model's memory, within a deadline; raises BadInput where there cannot be one.

    ``about`` is how the model was named: fit, or --model.
    """
    from gpudoctor.fitting import CannotCount  # noqa: PLC0415 - what looks is loaded when there is something to look at

    try:
        return _headers(make, deadline, CannotCount, about)
    except BadInput as error:
        line = str(error)
        raise BadInput(line if line.startswith(("--", about)) else f"{about}: {line}") from error


def _headers(make: Callable[[], T], deadline: float | None, refused: type[ValueError], about: str) -> T:
    """What ``make`` reads from a checkpoint's headers."""
    from gpudoctor.probes.patience import answered  # noqa: PLC0415 - what looks is loaded when there is something to look at

    seconds = HEADERS_SECONDS if deadline is None else min(deadline, HEADERS_SECONDS)
    try:
        made = answered(make, seconds)
    except refused as error:
        raise BadInput(str(error)) from error
    if made is None:
        raise BadInput(f"{about}: no answer from its file system within {seconds:g} s")
    return made


def look(
    python: str | None, *, root: str = "/", deadline: float | None = None, no_import: bool = False, smoke: Request | None = None
) -> Facts:
    """The facts about this machine. Raises BadInput for an interpreter or a folder that cannot be looked at."""
    scope = _scope(python, root, deadline, smoke)
    facts = _examined(scope, no_import=no_import)
    _judge_interpreter(scope, python)
    return facts


def _scope(python: str | None, root: str, deadline: float | None, smoke: Request | None) -> Scope:
    """Where to look; raises BadInput."""
    from gpudoctor.probes.patience import answered  # noqa: PLC0415 - what looks is loaded when there is something to look at
    from gpudoctor.probes.scope import Scope  # noqa: PLC0415 - see above

    patience = LOOKUP_SECONDS if deadline is None else min(deadline, LOOKUP_SECONDS)
    folder = answered(lambda: _root(root), patience)
    if folder is None:
        raise BadInput(f"--root: no answer from {root} within {patience:g} s")
    chosen, chosen_by = _chosen(python, patience)
    scope = Scope(root=folder, environ=dict(os.environ), python=chosen, chosen_by=chosen_by, cap=deadline, smoke=smoke)
    child.adopt()  # before the first child: whose parent has ended is not given to us afterwards
    return scope


def readiness(root: str, deadline: float | None) -> Readiness:
    """Whether apt can work on this machine. Raises BadInput for a folder that cannot be looked at."""
    from gpudoctor.probes import readiness as probe  # noqa: PLC0415 - what looks is loaded when there is something to look at
    from gpudoctor.probes.patience import answered  # noqa: PLC0415 - see above

    scope = _scope(None, root, deadline, None)
    return answered(lambda: probe.look(scope), scope.within(LOOKUP_SECONDS)) or probe.Readiness()


def interpreter_path(python: str | None, deadline: float | None) -> str | None:
    """The interpreter that --python names; None where nobody did. Raises BadInput for one that cannot be run."""
    if python is None:
        return None
    return _chosen(python, LOOKUP_SECONDS if deadline is None else min(deadline, LOOKUP_SECONDS))[0]


def _chosen(python: str | None, patience: float) -> tuple[str, str]:
    """(the interpreter, what chose it); raises BadInput."""
    from gpudoctor.probes import target  # noqa: PLC0415 - what looks is loaded when there is something to look at
    from gpudoctor.probes.patience import answered  # noqa: PLC0415 - see above

    try:
        found = answered(lambda: target.choose(os.environ, python, sys.executable), patience)
    except target.NotAPython as error:
        raise BadInput(f"--python: {error}") from error
    return found or target.guess(os.environ, python)


def _judge_interpreter(scope: Scope, python: str | None) -> None:
    """Raises BadInput where what --python names has answered as something else.

    Asked after the others, which had to wait for the same answer: one that hangs must not hold them up.
    """
    from gpudoctor.probes import interpreter  # noqa: PLC0415 - it is loaded by now

    asked = python is not None and scope.known("interpreter") is not None
    wrong = interpreter.refusal(scope) if asked else None
    if wrong:
        raise BadInput(f"--python: {wrong}")


def glance(python: str | None, deadline: float | None = None) -> Facts:
    """The facts that memory depends on. Raises BadInput for an interpreter that cannot be looked at."""
    from gpudoctor.glance import glance as look_at  # noqa: PLC0415 - what looks is loaded when there is something to look at

    scope = _scope(python, "/", deadline, None)
    with _waiting() as waiting:
        facts = look_at(scope, waiting)
    _judge_interpreter(scope, python)
    return facts


def taken(path: str) -> Taken:
    """The text of a file, or of standard input for a dash; raises BadInput for what cannot be read, or never ends."""
    from gpudoctor.pasted import intake  # noqa: PLC0415 - see look

    if path == "-":
        if os.isatty(0):
            sys.stderr.write("gpudoctor: paste the text, then Ctrl-D on a line of its own\n")
        return intake.take(sys.stdin.buffer)
    try:
        with open(path, "rb") as stream:
            if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
                raise BadInput(f"explain: {path} is a device; expected a file")
            return intake.take(stream)
    except (OSError, ValueError) as error:
        raise BadInput(f"explain: {path}: {getattr(error, 'strerror', None) or error}") from error


def within_reason(deadline: float | None) -> None:
    """Raises BadInput for a --deadline that is none."""
    if deadline is not None and not 0 < deadline < float("inf"):
        raise BadInput(f"--deadline: expected seconds above 0, not {deadline:g}")


def _examined(scope: Scope, *, no_import: bool) -> Facts:
    from gpudoctor.probes import worker  # noqa: PLC0415 - see look

    if not no_import:
        worker.of(scope)  # first of all: what it does takes longest
    _meanwhile(lambda: _ask_the_interpreter(scope))
    from gpudoctor.examine import examine  # noqa: PLC0415 - while these start

    loading = _meanwhile(_load_what_judges)
    with _waiting() as waiting:
        facts = examine(scope, skip=("torch_import",) if no_import else (), progress=waiting)
    loading.join()  # two threads that load the same modules may meet half-made ones
    return facts


def _meanwhile(work: Callable[[], object]) -> threading.Thread:
    """Do something that is needed soon beside what is done now; whatever becomes of it shows when it is needed."""

    def attempt() -> None:
        with contextlib.suppress(Exception):
            work()

    thread = threading.Thread(target=attempt, name="meanwhile", daemon=True)
    thread.start()
    return thread


def _ask_the_interpreter(scope: Scope) -> None:
    from gpudoctor.probes import interpreter  # noqa: PLC0415 - see look

    interpreter.answer_of(scope)


def _load_what_judges() -> None:
    """The probes wait for other programs most of the time, and this takes as long."""
    from gpudoctor import cures, diagnose  # noqa: F401, PLC0415 - loaded here, used by the verbs

    diagnose.built_in()


def _waiting() -> contextlib.AbstractContextManager[Callable[[tuple[str, ...]], None]]:
    """The line of progress, where somebody watches."""
    if not os.isatty(2):
        return contextlib.nullcontext(lambda _: None)
    from gpudoctor.report.delivery import console  # noqa: PLC0415 - for a terminal only
    from gpudoctor.report.progress import Waiting  # noqa: PLC0415 - see above

    return Waiting(console(stderr=True))


def _root(path: str) -> Path:
    folder = Path(path)
    try:
        if folder.is_dir():
            return folder.resolve()
        raise BadInput(f"--root: expected a folder, and {path} is {'no folder' if folder.exists() else 'not there'}")
    except OSError as error:
        raise BadInput(f"--root: {path}: {error.strerror or error}") from error
