"""The verbs: parses, calls, renders, exits. Nothing else in gpudoctor exits."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Annotated, NoReturn

import click
import typer

import gpudoctor
from gpudoctor.probes import child

if TYPE_CHECKING:
    from rich.console import Console

    from gpudoctor.diagnose import Diagnosis
    from gpudoctor.facts import Facts
    from gpudoctor.findings import Finding
    from gpudoctor.probes.scope import Scope
    from gpudoctor.steps import Step

HEALTHY, FAULT, USAGE, UNKNOWN = 0, 1, 2, 3
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOKUP_SECONDS = 10.0
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
    for ending in ENDINGS:
        signal.signal(ending, _ended)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal, or half a surrogate in a path, must not end the report
    try:
        result = app(standalone_mode=False)
    except BadInput as error:
        return _say(f"gpudoctor: {error}", USAGE)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(error.format_message() + "\n")
        return USAGE
    except click.UsageError as error:
        return _say(f"gpudoctor: {_one_line(error)}", USAGE)
    except click.Abort:
        return _say("gpudoctor: ended without an answer", USAGE)
    except BrokenPipeError:
        _nobody_reads()
        return HEALTHY
    except Exception:  # noqa: BLE001 - the doctor itself is ill: say so, and where to tell us
        import traceback  # noqa: PLC0415 - for this alone

        traceback.print_exc()
        fault = "this is a fault of gpudoctor, not of your machine"
        return _say(f"gpudoctor: {fault}. Please report the lines above at {ISSUES}", UNKNOWN)
    return result if isinstance(result, int) else HEALTHY


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
    output_format: Annotated[Format, typer.Option("--format", help="Who reads the report.")] = Format.text,
    output: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the report to this file instead of the terminal.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 for warnings too.")] = False,
    deadline: Annotated[float | None, typer.Option(metavar="SECONDS", help="All waiting for the machine ends after this.")] = None,
    no_import: Annotated[
        bool, typer.Option("--no-import", help="Read PyTorch's files only; do not start a Python that imports it.")
    ] = False,
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
    try:
        _deliver(facts, diagnosis, cures(facts, diagnosis), output_format, output)
    except BrokenPipeError:
        _nobody_reads()  # the machine is as ill as it is, whoever listens
    except OSError as error:
        raise BadInput(f"the report could not be written: {error.strerror or error}") from error
    return exit_code(diagnosis, strict=strict)


def _codes() -> list[str]:
    from gpudoctor.report import explanation  # noqa: PLC0415 - loaded when asked for

    return list(explanation.codes())


@app.command(epilog="Example: gpudoctor explain torch-cpu-only-build")
def explain(
    what: Annotated[str, typer.Argument(metavar="CODE", help="A code, or a page#section, of a report.", autocompletion=_codes)],
) -> int:
    """Show what a code means and every cure that there is for it, or one section of an install page."""
    from gpudoctor.report import explanation  # noqa: PLC0415 - loaded when asked for

    if what in explanation.sections():
        explanation.render_section(what, _console())
    elif what in _codes():
        explanation.render(what, _console())
    else:
        known = [*_codes(), *explanation.sections()]
        raise BadInput(f"explain: there is no code or section {what!r}{_nearest(what, known)}")
    return HEALTHY


def exit_code(diagnosis: Diagnosis, *, strict: bool) -> int:
    """The contract: 0 healthy, 1 a fault (also beside unknowns), 3 no fault but something undetermined."""
    if diagnosis.status == "fail" or (strict and any(f.severity == "warn" for f in diagnosis.findings)):
        return FAULT
    return UNKNOWN if diagnosis.status == "unknown" else HEALTHY


def _look(python: str | None, root: str, deadline: float | None, no_import: bool) -> Facts:
    """The facts about this machine, with a line of progress for what takes long."""
    from gpudoctor.probes import target  # noqa: PLC0415 - what looks is loaded when there is something to look at
    from gpudoctor.probes.patience import answered  # noqa: PLC0415 - see above
    from gpudoctor.probes.scope import Scope  # noqa: PLC0415 - see above

    if deadline is not None and not 0 < deadline < float("inf"):
        raise BadInput(f"--deadline: expected seconds above 0, not {deadline:g}")
    patience = LOOKUP_SECONDS if deadline is None else min(deadline, LOOKUP_SECONDS)
    folder = answered(lambda: _root(root), patience)
    if folder is None:
        raise BadInput(f"--root: no answer from {root} within {patience:g} s")
    try:
        found = answered(lambda: target.choose(os.environ, python, sys.executable), patience)
    except target.NotAPython as error:
        raise BadInput(f"--python: {error}") from error
    chosen, chosen_by = found or target.guess(os.environ, python)
    scope = Scope(root=folder, environ=dict(os.environ), python=chosen, chosen_by=chosen_by, cap=deadline)
    child.adopt()  # before the first child: whose parent has ended is not given to us afterwards
    _meanwhile(lambda: _ask_the_interpreter(scope))
    from gpudoctor.examine import examine  # noqa: PLC0415 - while the interpreter starts, which others wait for
    from gpudoctor.probes import interpreter  # noqa: PLC0415 - see above

    loading = _meanwhile(_load_what_judges)
    with _waiting() as waiting:
        facts = examine(scope, skip=("torch_import",) if no_import else (), progress=waiting)
    loading.join()  # two threads that load the same modules may meet half-made ones
    # asked after the others, which had to wait for the same answer: one that hangs must not hold them up
    asked = python is not None and scope.known("interpreter") is not None
    wrong = interpreter.refusal(scope) if asked else None
    if wrong:
        raise BadInput(f"--python: {wrong}")
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
    from gpudoctor.probes import interpreter  # noqa: PLC0415 - see _look

    interpreter.answer_of(scope)


def _load_what_judges() -> None:
    """The probes wait for other programs most of the time, and this takes as long."""
    from gpudoctor import cures, diagnose  # noqa: F401, PLC0415 - loaded here, used by check

    diagnose.built_in()


def _waiting() -> contextlib.AbstractContextManager[Callable[[tuple[str, ...]], None]]:
    """The line of progress, where somebody watches."""
    if not os.isatty(2):
        return contextlib.nullcontext(lambda _: None)
    from gpudoctor.report.progress import Waiting  # noqa: PLC0415 - for a terminal only

    return Waiting(_console(stderr=True))


def _root(path: str) -> Path:
    folder = Path(path)
    try:
        if folder.is_dir():
            return folder.resolve()
        raise BadInput(f"--root: expected a folder, and {path} is {'no folder' if folder.exists() else 'not there'}")
    except OSError as error:
        raise BadInput(f"--root: {path}: {error.strerror or error}") from error


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
    if output_format is Format.json:
        from gpudoctor.report import document  # noqa: PLC0415 - of all the renderers only the one that is asked for

        return document.render(facts, diagnosis, steps)
    from gpudoctor.report import github, junit, markdown, prometheus  # noqa: PLC0415 - see above

    renderers: dict[Format, Callable[[], str]] = {
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

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would leave with an exit code of its own

    return Piped(stderr=stderr, highlight=False, emoji=False, markup=False)


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


def _nearest(code: str, known: list[str]) -> str:
    import difflib  # noqa: PLC0415 - for this message only

    near = difflib.get_close_matches(code, known, 3)
    return f"; nearest: {', '.join(near)}" if near else "; a report names the codes that it found"


def _one_line(error: click.UsageError) -> str:
    command = f"{error.ctx.info_name}: " if error.ctx and error.ctx.parent else ""
    text = " ".join(error.format_message().split())
    return f"{command}{text} (see gpudoctor --help)"


def _ended(number: int, _frame: FrameType | None = None) -> None:
    """End by this signal, so that the shell sees it, and leave no child behind."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    child.kill_all()
    if os.isatty(2):
        os.write(2, b"\x1b[?25h\n")  # the line of progress hides the cursor
    let_go()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _nobody_reads() -> None:
    """The reader of a pipe went away (head, less): that is nothing to talk about, and nothing more is written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _say(line: str, code: int) -> int:
    """One line, whatever a name that it quotes is made of."""
    from gpudoctor.report.words import plain  # noqa: PLC0415 - for this message only

    sys.stderr.write(" ".join(plain(line).split()) + "\n")
    return code


def work() -> int:
    """Everything, up to the last byte of output; returns the exit code. No child is left."""
    code = main()
    child.kill_all()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # it has been said already
            stream.flush()
    let_go()
    return code


def let_go() -> None:
    """Close the standard streams: whoever reads them must not wait for a process that cannot end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def end_with(life: int) -> None:
    """End as by SIGTERM when the other end of the pipe ``life`` is closed: nobody waits for this process any more."""

    def watch() -> None:
        os.read(life, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="life", daemon=True).start()


def run() -> NoReturn:
    """The console script of installations that were made before ``gpudoctor.__main__`` was one."""
    from gpudoctor import __main__  # noqa: PLC0415 - it imports this module

    __main__.run()
