"""The command line: parses, calls, exits. Nothing else in gpudoctor exits.

Each verb is a module of this folder; only the one that is asked for is loaded.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import Annotated, NoReturn

import click
import typer

import gpudoctor
from gpudoctor.cli.delivering import nobody_reads
from gpudoctor.cli.options import HEALTHY, UNKNOWN, USAGE
from gpudoctor.looking import BadInput
from gpudoctor.probes import child

VERBS = ("check", "smoke", "fit", "explain", "setup")
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ISSUES = "https://github.com/gpudoctor/gpudoctor/issues"


def command_line(asked: Sequence[str] = ()) -> typer.Typer:
    """The verb that is asked for, else all of them: to read the options of all costs as much as some answers."""
    app = typer.Typer(
        name="gpudoctor",
        help=gpudoctor_options.__doc__,
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(gpudoctor_options)
    for verb in [verb for verb in VERBS if [verb] == list(asked)] or VERBS:
        module = import_module(f"gpudoctor.cli.{verb}")
        app.command(verb, epilog=module.EXAMPLE)(getattr(module, verb))
    return app


def main() -> int:
    """Run the command line and return its exit code."""
    for ending in ENDINGS:
        signal.signal(ending, _ended)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal, or half a surrogate in a path, must not end the report
    try:
        result = command_line(sys.argv[1:2])(standalone_mode=False)
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
        nobody_reads()
        return HEALTHY
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO):
            raise
        return _say(f"gpudoctor: the output could not be written: {error.strerror}", USAGE)
    except Exception as error:  # noqa: BLE001 - the doctor itself is ill: say so, and where to tell us
        if isinstance(error, MemoryError) or str(error) == "can't start new thread":
            return _say("gpudoctor: too little memory or too few threads are allowed here: see ulimit -v and ulimit -u", UNKNOWN)
        import traceback  # noqa: PLC0415 - for this alone

        traceback.print_exc()
        fault = "this is a fault of gpudoctor, not of your machine"
        return _say(f"gpudoctor: {fault}. Please report the lines above at {ISSUES}", UNKNOWN)
    return result if isinstance(result, int) else HEALTHY


def gpudoctor_options(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False
) -> int | None:
    """Says why a machine cannot run a language model on its NVIDIA GPU, and gives the one step that cures it."""
    if version:
        typer.echo(f"gpudoctor {gpudoctor.__version__}")
        raise typer.Exit(HEALTHY)
    return None if context.invoked_subcommand else HEALTHY


def _one_line(error: click.UsageError) -> str:
    verb = error.ctx.info_name if error.ctx and error.ctx.parent else None
    text = " ".join(dict.fromkeys(re.split(r"(?<=[.?])\s+", " ".join(error.format_message().split()))))  # click may ask twice
    if verb == "smoke" and text.startswith("Got unexpected extra argument"):
        text += ". A model or checkpoint is named with --ckpt, a text with --prompt in quotes"
    if verb == "fit" and "train" in text:
        text += ". What training takes is not counted, only what running a model does"
    return f"{f'{verb}: ' if verb else ''}{text} (see gpudoctor {f'{verb} ' if verb else ''}--help)"


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

    with contextlib.suppress(RuntimeError):  # no thread can be started: the first that has work to do says so
        threading.Thread(target=watch, name="life", daemon=True).start()


def run() -> NoReturn:
    """The console script of installations that were made before ``gpudoctor.__main__`` was one."""
    from gpudoctor import __main__  # noqa: PLC0415 - it imports this module

    __main__.run()
