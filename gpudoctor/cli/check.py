"""The verb check: the whole machine, layer by layer."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpudoctor import looking
from gpudoctor.cli.delivering import delivered, exit_code, rendered, writable
from gpudoctor.cli.options import Deadline, Format, Interpreter, Output, ReportFormat
from gpudoctor.looking import BadInput

if TYPE_CHECKING:
    from gpudoctor.facts import Facts, Wanted
    from gpudoctor.probes.scope import Request

EXAMPLE = "Example: gpudoctor check --python ~/llama/bin/python"


def check(
    model: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="Also say whether this model fits, and generate with it in the end.")
    ] = None,
    python: Interpreter = None,
    require: Annotated[
        str,
        typer.Option(
            metavar="LAYER,...", help="Judge these layers although PyTorch's wheels do not need them: cuda_toolkit, cudnn, nccl."
        ),
    ] = "",
    saved: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="Diagnose a saved JSON report instead of this machine.")
    ] = None,
    root: Annotated[
        str, typer.Option(metavar="DIR", help="Read the machine's files below this folder (a mounted disk, a chroot).")
    ] = "/",
    output_format: ReportFormat = Format.text,
    output: Output = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 for warnings too.")] = False,
    deadline: Deadline = None,
    no_import: Annotated[
        bool, typer.Option("--no-import", help="Read PyTorch's files only; do not start a Python that imports it.")
    ] = False,
    no_smoke: Annotated[bool, typer.Option("--no-smoke", help="Do not generate tokens with a small model.")] = False,
    next_boot: Annotated[
        bool, typer.Option("--next-boot", help="Also say whether the GPU survives the next restart and the next upgrade.")
    ] = False,
) -> int:
    """Look at the machine, layer by layer, and name the root cause and its cure.

    Exit codes: 0 healthy, 1 a fault was found, 2 wrong usage, 3 no fault found but something could not be determined.
    """
    required = layers(require)
    looking.within_reason(deadline)
    writable(output)
    if saved is not None:
        if model is not None:
            raise BadInput("--model: a saved report knows its own model; it cannot be asked about another one with --from")
        facts = saved_facts(saved)
    else:
        wanted = None if model is None else _wanted(model, python, deadline)
        request = None if no_smoke or no_import else _request(model, deadline)
        facts = looking.look(python, root=root, deadline=deadline, no_import=no_import, smoke=request)
        facts = dataclasses.replace(facts, wanted=wanted)
    from gpudoctor.cures import cures  # noqa: PLC0415 - wrong usage is answered before anything is loaded
    from gpudoctor.diagnose import diagnose  # noqa: PLC0415 - see above
    from gpudoctor.report import terminal  # noqa: PLC0415 - see above

    diagnosis = diagnose(facts, required=required, also=("next_boot",) if next_boot else ())
    steps = cures(facts, diagnosis)
    delivered(
        lambda console: terminal.render(facts, diagnosis, steps, console),
        lambda chosen: rendered(facts, diagnosis, steps, chosen),
        output_format,
        output,
    )
    return exit_code(diagnosis, strict=strict)


def _request(model: str | None, deadline: float | None) -> Request:
    """The smoke test of ``check``: the model that was asked about where it can be run, else the small built-in one."""
    from gpudoctor import planning  # noqa: PLC0415 - loaded when there is something to run
    from gpudoctor.probes.scope import Request  # noqa: PLC0415 - see above

    plan = planning.built_in()
    if model is not None:
        with contextlib.suppress(BadInput):  # it can be counted, and not be run by us: the small one proves the machine
            plan = looking.planned(functools.partial(planning.plan, model, environ=os.environ), deadline)
    return Request(plan, asked=False)


def _wanted(model: str, python: str | None, deadline: float | None) -> Wanted:
    """The model of ``check --model``, as a fact; raises BadInput."""
    from gpudoctor import fitting  # noqa: PLC0415 - wrong usage is answered before anything is loaded

    asked = looking.asked(functools.partial(fitting.question, fitting.Asked(model, python=python), os.environ), deadline, "--model")
    return fitting.wanted(asked)


def layers(require: str) -> tuple[str, ...]:
    """The layers of --require; raises BadInput."""
    from gpudoctor.diagnose import built_in  # noqa: PLC0415 - loaded when asked for

    wanted = tuple(name.strip() for name in require.split(",") if name.strip())
    known = tuple(check.name for check in built_in()) if wanted else ()
    for name in wanted:
        if name not in known:
            raise BadInput(f"--require: there is no layer {name!r}; expected one or more of {', '.join(known)}")
    return wanted


def saved_facts(path: str) -> Facts:
    """The facts in a saved JSON report; raises BadInput."""
    from gpudoctor.report import document  # noqa: PLC0415 - loaded when asked for

    try:
        return document.read(Path(path))
    except OSError as error:
        raise BadInput(f"--from: {path}: {error.strerror or error}") from error
    except document.NotAReport as error:
        raise BadInput(f"--from: {path}: {error}") from error
