"""The verbs: parses, calls, renders, exits. Nothing else in gpudoctor exits."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import click
import typer

import gpudoctor
from gpudoctor import looking
from gpudoctor.looking import BadInput
from gpudoctor.probes import child

if TYPE_CHECKING:
    from rich.console import Console

    from gpudoctor.diagnose import Diagnosis
    from gpudoctor.facts import Facts, Wanted
    from gpudoctor.findings import Finding
    from gpudoctor.memory.question import Question
    from gpudoctor.probes.scope import Request
    from gpudoctor.smoke.plan import Plan
    from gpudoctor.steps import Step

HEALTHY, FAULT, USAGE, UNKNOWN = 0, 1, 2, 3
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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


class Device(str, Enum):
    """Where the smoke test runs."""

    cuda = "cuda"
    cpu = "cpu"


class Dtype(str, Enum):
    """In which numbers it computes."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


Interpreter = Annotated[
    str | None,
    typer.Option("--python", metavar="PATH", help="The Python, or the folder of the environment, whose PyTorch is meant."),
]
ReportFormat = Annotated[Format, typer.Option("--format", help="Who reads the report.")]
Output = Annotated[str | None, typer.Option(metavar="FILE", help="Write the report to this file instead of the terminal.")]
Deadline = Annotated[float | None, typer.Option(metavar="SECONDS", help="All waiting for the machine ends after this.")]


def main() -> int:
    """Run the command line and return its exit code."""
    for ending in ENDINGS:
        signal.signal(ending, _ended)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal, or half a surrogate in a path, must not end the report
    _only_what_is_asked(sys.argv[1:2])
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


def _only_what_is_asked(verb: list[str]) -> None:
    """Leave the other verbs' options unread where one is named: to read those of all costs as much as some answers."""
    named = [command for command in app.registered_commands if command.callback is not None and [command.callback.__name__] == verb]
    app.registered_commands = named or app.registered_commands


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
    required = _layers(require)
    looking.within_reason(deadline)
    _writable(output)
    if saved is not None:
        if model is not None:
            raise BadInput("--model: a saved report knows its own model; it cannot be asked about another one with --from")
        facts = _saved(saved)
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
    _delivered(
        lambda console: terminal.render(facts, diagnosis, steps, console),
        lambda chosen: _rendered(facts, diagnosis, steps, chosen),
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


@app.command(epilog="Example: gpudoctor smoke --ckpt llama-2-7b")
def smoke(
    ckpt: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH", help="A checkpoint, or a known model's name. Without it: a small built-in one."),
    ] = None,
    device: Annotated[Device | None, typer.Option(help="Where to run. Without it: the GPU, if the machine has one.")] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="In which numbers to compute. Without it: what fits the device.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="A text to continue; several are allowed.")] = None,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="How many tokens to generate for each prompt.")] = 32,
    temperature: Annotated[float, typer.Option(metavar="T", help="0 takes the likeliest token; above 0 they are drawn.")] = 0.0,
    top_p: Annotated[float, typer.Option(metavar="P", help="Draw from the likeliest tokens that reach this probability.")] = 0.9,
    logprobs: Annotated[bool, typer.Option("--logprobs", help="Tell the log-probability of every token.")] = False,
    echo: Annotated[bool, typer.Option("--echo", help="Repeat the prompt in front of what follows it.")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Of random weights and of drawing.")] = 0,
    nproc: Annotated[int, typer.Option(metavar="N", help="Split the model among so many processes, one for each GPU.")] = 1,
    real_weights: Annotated[bool, typer.Option("--real-weights", help="Refuse random weights.")] = False,
    python: Interpreter = None,
    output_format: ReportFormat = Format.text,
    output: Output = None,
    deadline: Deadline = None,
) -> int:
    """Generate tokens in your own Python, and prove that the machine computes rightly.

    Exit codes: 0 passed, 1 a fault was found, 2 wrong usage, 3 undetermined. Without a path there is nothing to download: a known
    model's name is tested with random weights of its shape.
    """
    looking.within_reason(deadline)
    _writable(output)
    from gpudoctor import planning  # noqa: PLC0415 - wrong usage is answered before anything is loaded

    asked = functools.partial(
        planning.plan,
        ckpt,
        device=device and device.value,
        dtype=dtype and dtype.value,
        prompts=tuple(prompt or ()),
        new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        logprobs=logprobs,
        echo=echo,
        seed=seed,
        processes=nproc,
        real_weights=real_weights,
        environ=os.environ,
    )
    return _smoked(looking.planned(asked, deadline), python, deadline, output_format, output)


def _smoked(plan: Plan, python: str | None, deadline: float | None, output_format: Format, output: str | None) -> int:
    """Run the plan, deliver what came of it, and return the exit code."""
    from gpudoctor.probes.scope import Request  # noqa: PLC0415 - wrong usage is answered before anything is loaded

    facts = looking.look(python, deadline=deadline, smoke=Request(plan, asked=True))
    from gpudoctor.cures import cures  # noqa: PLC0415 - loaded while the machine was looked at
    from gpudoctor.proof import proof  # noqa: PLC0415 - see above
    from gpudoctor.report import prometheus, smoke_document  # noqa: PLC0415 - see above
    from gpudoctor.report import smoke as report  # noqa: PLC0415 - see above

    diagnosis = proof(facts, plan.device)
    steps = cures(facts, diagnosis)

    def document(chosen: Format) -> str:
        if chosen is Format.json:
            return smoke_document.render(plan, facts, diagnosis, steps)
        if chosen is Format.prometheus:
            return prometheus.render_smoke(facts, diagnosis)
        return _rendered(facts, diagnosis, steps, chosen)

    _delivered(lambda console: report.render(plan, facts, diagnosis, steps, console), document, output_format, output)
    return exit_code(diagnosis, strict=False)


class FitFormat(str, Enum):
    """The count's reader."""

    text = "text"
    json = "json"


@app.command(epilog='Example: gpudoctor fit llama-2-7b --gpu "RTX 4070"')
def fit(
    model: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A known model's name, or a checkpoint that is here.")],
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What runs it: gpudoctor, meta, transformers, vllm, llama.cpp. Without it: what suits its files."
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="In which numbers: fp16, bf16, int8, int4, Q4_K_M, ... Without it: the files' own."),
    ] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens of a prompt, read at once. Without it: 128.")
    ] = None,
    new_tokens: Annotated[int | None, typer.Option(metavar="N", help="Tokens generated after it. Without it: 384.")] = None,
    batch: Annotated[int, typer.Option(metavar="N", help="How many sequences at a time.")] = 1,
    max_seq_len: Annotated[
        int | None,
        typer.Option(metavar="N", help="Positions that the runtime makes room for: max_seq_len, --ctx-size, --max-model-len."),
    ] = None,
    nproc: Annotated[int | None, typer.Option(metavar="N", help="Split the model among so many GPUs.")] = None,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help='A card that is not here: "RTX 4070", "2x A100 80GB".')] = None,
    free: Annotated[str | None, typer.Option(metavar="SIZE", help="Plan for so much free memory: 11.3GiB, 24GB.")] = None,
    python: Interpreter = None,
    output_format: Annotated[FitFormat, typer.Option("--format", help="Who reads the answer.")] = FitFormat.text,
    output: Output = None,
    deadline: Deadline = None,
) -> int:
    """Count the GPU memory that a model needs, part by part, and say whether it fits.

    Exit codes: 0 it fits (or is tight), 1 it does not, 2 wrong usage, 3 undetermined: nobody knows what is free. Running a model
    is counted; training is not.
    """
    looking.within_reason(deadline)
    _writable(output)
    from gpudoctor import fitting  # noqa: PLC0415 - wrong usage is answered before anything is loaded

    target = looking.interpreter_path(python, deadline)
    asked = fitting.Asked(model, runtime, dtype, prompt_tokens, new_tokens, batch, max_seq_len, nproc, gpu, free, target)
    question = looking.asked(functools.partial(fitting.question, asked, os.environ), deadline, "fit")
    return _counted(question, python, deadline, output_format, output)


def _counted(question: Question, python: str | None, deadline: float | None, output_format: FitFormat, output: str | None) -> int:
    """Answer the question, for the card it names or the best one here; deliver the answer and return the exit code."""
    from gpudoctor import fitting  # noqa: PLC0415 - loaded by now
    from gpudoctor.memory.count import count  # noqa: PLC0415 - see above

    if question.card is not None:
        answer = count(question, notes=fitting.notes(question))
    else:
        try:
            answer = fitting.counted_here(question, looking.glance(python, deadline), os.environ)
        except fitting.CannotCount as error:
            raise BadInput(str(error)) from error
    from gpudoctor.report import fit_document  # noqa: PLC0415 - see above

    def text(console: Console) -> None:
        from gpudoctor.report import fit as report  # noqa: PLC0415 - JSON needs nothing of it

        report.render(answer, console)

    _delivered(text, lambda _: fit_document.render(answer), Format(output_format.value), output)
    return {"fits": HEALTHY, "tight": HEALTHY, "no": FAULT, "unknown": UNKNOWN}[answer.outcome]


def _codes() -> list[str]:
    from gpudoctor.report import explanation  # noqa: PLC0415 - loaded when asked for

    return list(explanation.codes())


class ExplainFormat(str, Enum):
    """The answer's reader."""

    text = "text"
    json = "json"
    markdown = "markdown"


@app.command(epilog="Example: python train.py 2>&1 | gpudoctor explain -")
def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[FILE|-|CODE]",
            help="A file with an error text, - for standard input, or a code or page#section of a report.",
            autocompletion=_codes,
        ),
    ] = "-",
    output_format: Annotated[ExplainFormat, typer.Option("--format", help="Who reads the answer.")] = ExplainFormat.text,
    output: Output = None,
) -> int:
    """Say what an error text comes from and what cures it: a traceback, a log, nvidia-smi, collect_env, from any machine.

    Exit codes: 0 nothing here is an environment fault, 1 a fault was found, 2 wrong usage, 3 the text does not settle it. For a
    code or a section: what it means and every cure that there is for it.
    """
    _writable(output)
    from gpudoctor.report import explanation  # noqa: PLC0415 - loaded when asked for

    of_page = dict.fromkeys(_codes(), explanation.render) | dict.fromkeys(explanation.sections(), explanation.render_section)
    page = of_page.get(what)
    if page is not None:
        if output_format is not ExplainFormat.text:
            raise BadInput(f"--format: the page of a code is text, not {output_format.value}")
        _delivered(lambda console: page(what, console), lambda _: "", Format.text, output)
        return HEALTHY
    if what != "-" and not os.path.lexists(what) and os.sep not in what and "." not in what:
        raise BadInput(f"explain: there is no file, code or section {what!r}{_nearest(what, list(of_page))}")
    return _explained(what, Format(output_format.value), output)


def _explained(path: str, output_format: Format, output: str | None) -> int:
    """Read the text, judge it, deliver the answer, and return the exit code."""
    from gpudoctor import pasted  # noqa: PLC0415 - wrong usage is answered before anything is loaded
    from gpudoctor.explain import explain as judged  # noqa: PLC0415 - see above

    taken = looking.taken(path)
    facts = pasted.read(taken.text, "standard input" if path == "-" else os.path.basename(path), cut=taken.cut)
    answer = judged(facts)
    from gpudoctor.cures import steps_for  # noqa: PLC0415 - see above
    from gpudoctor.report import explain_document, explained  # noqa: PLC0415 - see above

    steps = steps_for(facts, answer.findings)

    def document(chosen: Format) -> str:
        if chosen is Format.json:
            return explain_document.render(answer, steps)
        return explained.render_markdown(facts, answer, steps)

    _delivered(lambda console: explained.render(facts, answer, steps, console), document, output_format, output)
    return FAULT if answer.settled else UNKNOWN if answer.asks else HEALTHY


def exit_code(diagnosis: Diagnosis, *, strict: bool) -> int:
    """The contract: 0 healthy, 1 a fault (also beside unknowns), 3 no fault but something undetermined."""
    if diagnosis.status == "fail" or (strict and any(f.severity == "warn" for f in diagnosis.findings)):
        return FAULT
    return UNKNOWN if diagnosis.status == "unknown" else HEALTHY


def _saved(path: str) -> Facts:
    from gpudoctor.report import document  # noqa: PLC0415 - loaded when asked for

    try:
        return document.read(Path(path))
    except OSError as error:
        raise BadInput(f"--from: {path}: {error.strerror or error}") from error
    except document.NotAReport as error:
        raise BadInput(f"--from: {path}: {error}") from error


def _delivered(
    text: Callable[[Console], None], document: Callable[[Format], str], output_format: Format, output: str | None
) -> None:
    """Hand the report to its reader, in the form that was asked for."""
    from gpudoctor.report import delivery  # noqa: PLC0415 - loaded when asked for

    try:
        if output_format is Format.text:
            delivery.deliver_text(text, output)
        else:
            delivery.deliver(document(output_format), output)
    except BrokenPipeError:
        _nobody_reads()  # the machine is as ill as it is, whoever listens
    except delivery.CannotWrite as error:
        raise BadInput(f"--output: {error}") from error
    except OSError as error:
        raise BadInput(f"the report could not be written: {error.strerror or error}") from error


def _rendered(facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step], output_format: Format) -> str:
    """Of all the renderers only the one that is asked for is loaded."""
    if output_format is Format.json:
        from gpudoctor.report import document  # noqa: PLC0415 - see above

        return document.render(facts, diagnosis, steps)
    from gpudoctor.report import github, junit, markdown, prometheus  # noqa: PLC0415 - see above

    if output_format is Format.github:
        github.write_files(facts, diagnosis, steps, os.environ)
    renderers: dict[Format, Callable[[], str]] = {
        Format.markdown: lambda: markdown.render(facts, diagnosis, steps),
        Format.junit: lambda: junit.render(diagnosis, steps),
        Format.github: lambda: github.render(diagnosis, steps),
        Format.prometheus: lambda: prometheus.render(diagnosis),
    }
    return renderers[output_format]()


def _writable(output: str | None) -> None:
    from gpudoctor.report import delivery  # noqa: PLC0415 - loaded when asked for

    try:
        delivery.writable(output)
    except delivery.CannotWrite as error:
        raise BadInput(f"--output: {error}") from error


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

    with contextlib.suppress(RuntimeError):  # no thread can be started: the first that has work to do says so
        threading.Thread(target=watch, name="life", daemon=True).start()


def run() -> NoReturn:
    """The console script of installations that were made before ``gpudoctor.__main__`` was one."""
    from gpudoctor import __main__  # noqa: PLC0415 - it imports this module

    __main__.run()
