"""The verbs: parses, calls, renders, exits. Nothing else in gpudoctor exits."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Annotated, NoReturn

import click
import typer

import gpudoctor
from gpudoctor.diagnose import Diagnosis
from gpudoctor.facts import Facts
from gpudoctor.findings import Finding
from gpudoctor.steps import Step

if TYPE_CHECKING:
    from rich.console import Console

HEALTHY, FAULT, USAGE, UNKNOWN = 0, 1, 2, 3
INTERRUPTED = 128 + signal.SIGINT
ISSUES = "https://github.com/gpudoctor/gpudoctor/issues"

app = typer.Typer(
    name="gpudoctor",
    help="Says why a machine cannot run a language model on its NVIDIA GPU, and gives the one step that cures it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(str, Enum):
    """The report's reader."""

    text = "text"
    json = "json"
    markdown = "markdown"
    junit = "junit"
    github = "github"
    prometheus = "prometheus"


class BadInput(Exception):
    """The user asked for something that cannot be; one line says what was expected. Exit 2."""


def main() -> int:
    """Run the command line and return its exit code."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _ended)
    try:
        result = app(standalone_mode=False)
    except BadInput as error:
        return _say(f"gpudoctor: {error}", USAGE)
    except click.exceptions.NoArgsIsHelpError as error:
        return _say(error.format_message(), USAGE)
    except click.UsageError as error:
        return _say(f"gpudoctor: {_one_line(error)}", USAGE)
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except BrokenPipeError:
        # the reader of a pipe went away (head, less): that is no fault of the machine and nothing to talk about
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return HEALTHY
    except Exception:  # noqa: BLE001 - the doctor itself is ill: say so, and where to tell us
        traceback.print_exc()
        return _say(f"gpudoctor: this is a fault of gpudoctor, not of your machine. Please report the lines above at {ISSUES}", UNKNOWN)
    # typer answers Ctrl-C with this number
    return _interrupted() if result == INTERRUPTED else result if isinstance(result, int) else HEALTHY


@app.callback(invoke_without_command=True)
def gpudoctor_options(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False
) -> int | None:
    """Says why a machine cannot run a language model on its NVIDIA GPU, and gives the one step that cures it."""
    if version:
        typer.echo(f"gpudoctor {gpudoctor.__version__}")
        raise typer.Exit(HEALTHY)
    return None if context.invoked_subcommand else HEALTHY


@app.command(epilog="Example: gpudoctor check --python ~/llama/bin/python")
def check(
    python: Annotated[
        str | None, typer.Option(metavar="PATH", help="The Python, or the folder of the environment, whose PyTorch is meant.")
    ] = None,
    require: Annotated[
        str, typer.Option(metavar="LAYER,...", help="Judge these layers although PyTorch's wheels do not need them: cuda_toolkit, cudnn, nccl.")
    ] = "",
    saved: Annotated[str | None, typer.Option("--from", metavar="FILE", help="Diagnose a saved JSON report instead of this machine.")] = None,
    root: Annotated[str, typer.Option(metavar="DIR", help="Read the machine's files below this folder (a mounted disk, a chroot).")] = "/",
    output_format: Annotated[Format, typer.Option("--format", help="Who reads the report.")] = Format.text,
    output: Annotated[str | None, typer.Option(metavar="FILE", help="Write the report to this file instead of the terminal.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 for warnings too.")] = False,
    deadline: Annotated[float | None, typer.Option(metavar="SECONDS", help="No single question to the machine waits longer than this.")] = None,
    no_import: Annotated[bool, typer.Option("--no-import", help="Read PyTorch's files only; do not start a Python that imports it.")] = False,
) -> int:
    """Look at the machine, layer by layer, and name the root cause and its cure.

    Exit codes: 0 healthy, 1 a fault was found, 2 wrong usage, 3 no fault found but something could not be determined.
    """
    required = _layers(require)
    _writable(output)
    facts = _saved(saved) if saved is not None else _look(python, root, deadline, no_import)
    from gpudoctor.cures import cures  # noqa: PLC0415 - wrong usage is answered before anything is loaded
    from gpudoctor.diagnose import diagnose  # noqa: PLC0415 - see above

    diagnosis = diagnose(facts, required=required)
    _deliver(facts, diagnosis, cures(facts, diagnosis), output_format, output)
    return exit_code(diagnosis, strict=strict)


@app.command(epilog="Example: gpudoctor explain torch-cpu-only-build")
def explain(code: Annotated[str, typer.Argument(metavar="CODE", help="A code that a report names.", autocompletion=lambda: _codes())]) -> int:
    """Show the page of one code: what it means, and every cure that there is for it."""
    from gpudoctor.report import explanation  # noqa: PLC0415 - loaded when asked for

    known = _codes()
    if code not in known:
        raise BadInput(f"explain: there is no code {code!r}{_nearest(code, known)}")
    explanation.render(code, _console())
    return HEALTHY


def exit_code(diagnosis: Diagnosis, *, strict: bool) -> int:
    """The contract: 0 healthy, 1 a fault (also beside unknowns), 3 no fault but something undetermined."""
    if diagnosis.status == "fail" or (strict and any(f.severity == "warn" for f in diagnosis.findings)):
        return FAULT
    return UNKNOWN if diagnosis.status == "unknown" else HEALTHY


def _look(python: str | None, root: str, deadline: float | None, no_import: bool) -> Facts:
    """The facts about this machine, with a line of progress for what takes long."""
    from gpudoctor.examine import examine  # noqa: PLC0415 - the probes are loaded when there is something to look at
    from gpudoctor.probes import interpreter, target  # noqa: PLC0415 - see above
    from gpudoctor.probes.scope import Scope  # noqa: PLC0415 - see above
    from gpudoctor.report.progress import Waiting  # noqa: PLC0415 - see above

    if deadline is not None and not 0 < deadline < float("inf"):
        raise BadInput(f"--deadline: expected seconds above 0, not {deadline:g}")
    folder = Path(root)
    if not folder.is_dir():
        raise BadInput(f"--root: expected a folder, and {root} is {'no folder' if folder.exists() else 'not there'}")
    try:
        chosen, chosen_by = target.choose(os.environ, python, sys.executable)
    except target.NotAPython as error:
        raise BadInput(f"--python: {error}") from error
    scope = Scope(root=folder.resolve(), environ=dict(os.environ), python=chosen, chosen_by=chosen_by, cap=deadline)
    with Waiting(_console(stderr=True)) as waiting:
        facts = examine(scope, skip=("torch_import",) if no_import else (), progress=waiting)
    # asked after the others, which had to wait for the same answer: one that hangs must not hold them up
    wrong = interpreter.refusal(scope) if python is not None else None
    if wrong:
        raise BadInput(f"--python: {wrong}")
    return facts


def _saved(path: str) -> Facts:
    from gpudoctor.report import document  # noqa: PLC0415 - loaded when asked for

    try:
        return document.read(Path(path))
    except OSError as error:
        raise BadInput(f"--from: {path}: {error.strerror or error}") from error
    except document.NotAReport as error:
        raise BadInput(f"--from: {path}: {error}") from error


def _deliver(facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step], output_format: Format, output: str | None) -> None:
    if output_format is Format.text:
        _deliver_text(facts, diagnosis, steps, output)
        return
    if output_format is Format.github:
        from gpudoctor.report import github  # noqa: PLC0415 - loaded when asked for

        github.write_files(facts, diagnosis, steps, os.environ)
    _write(_render(facts, diagnosis, steps, output_format), output)


def _render(facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step], output_format: Format) -> str:
    from gpudoctor.report import document, github, junit, markdown, prometheus  # noqa: PLC0415 - loaded when asked for

    renderers: dict[Format, Callable[[], str]] = {
        Format.json: lambda: document.render(facts, diagnosis, steps),
        Format.markdown: lambda: markdown.render(facts, diagnosis, steps),
        Format.junit: lambda: junit.render(diagnosis, steps),
        Format.github: lambda: github.render(diagnosis, steps),
        Format.prometheus: lambda: prometheus.render(diagnosis),
    }
    return renderers[output_format]()


def _deliver_text(facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step], output: str | None) -> None:
    from rich.console import Console  # noqa: PLC0415 - loaded when asked for

    from gpudoctor.report import terminal  # noqa: PLC0415 - see above

    if output is None:
        terminal.render(facts, diagnosis, steps, _console())
        return
    with _opened(output) as file:
        terminal.render(facts, diagnosis, steps, Console(file=file, width=100, no_color=True))


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console  # noqa: PLC0415 - loaded when asked for

    return Console(stderr=stderr, highlight=False, emoji=False, markup=False)


def _write(text: str, output: str | None) -> None:
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with _opened(output) as file:
        file.write(text)


def _opened(output: str) -> IO[str]:
    try:
        return Path(output).open("w", encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadInput(f"--output: {output}: {error.strerror or error}") from error


def _writable(output: str | None) -> None:
    """Refuse an output that cannot be written before the minute of looking, not after it."""
    if output is None:
        return
    path = Path(output)
    if path.is_dir():
        raise BadInput(f"--output: {output} is a folder; expected a file")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise BadInput(f"--output: {output} cannot be written")


def _layers(require: str) -> tuple[str, ...]:
    from gpudoctor.diagnose import built_in  # noqa: PLC0415 - loaded when asked for

    wanted = tuple(name.strip() for name in require.split(",") if name.strip())
    known = tuple(check.name for check in built_in()) if wanted else ()
    for name in wanted:
        if name not in known:
            raise BadInput(f"--require: there is no layer {name!r}; expected one or more of {', '.join(known)}")
    return wanted


def _codes() -> list[str]:
    from gpudoctor.report import explanation  # noqa: PLC0415 - loaded when asked for

    return list(explanation.codes())


def _nearest(code: str, known: list[str]) -> str:
    import difflib  # noqa: PLC0415 - for this message only

    near = difflib.get_close_matches(code, known, 3)
    return f"; nearest: {', '.join(near)}" if near else "; a report names the codes that it found"


def _one_line(error: click.UsageError) -> str:
    command = f"{error.ctx.info_name}: " if error.ctx and error.ctx.parent else ""
    text = " ".join(error.format_message().split())
    return f"{command}{text} (see gpudoctor --help)"


def _interrupted() -> int:
    sys.stderr.write("\n")
    _ended(signal.SIGINT)
    return INTERRUPTED


def _ended(number: int, _frame: FrameType | None = None) -> None:
    """End by this signal, so that the shell sees it, and leave no child behind."""
    from gpudoctor.probes import child  # noqa: PLC0415 - the usual way out does not need it

    child.kill_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _say(line: str, code: int) -> int:
    sys.stderr.write(line.rstrip("\n") + "\n")
    return code


def run() -> NoReturn:
    """The console script: leaves at once, without waiting for a probe's thread that the driver holds."""
    from gpudoctor.probes import child  # noqa: PLC0415 - after everything else

    code = main()
    child.kill_all()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            code = code or HEALTHY
    os._exit(code)
