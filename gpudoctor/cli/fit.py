"""The verb fit: the memory that a model needs, by arithmetic."""

from __future__ import annotations

import functools
import os
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from gpudoctor import looking
from gpudoctor.cli.delivering import delivered, writable
from gpudoctor.cli.options import FAULT, HEALTHY, UNKNOWN, Deadline, Format, Interpreter, Output
from gpudoctor.looking import BadInput

if TYPE_CHECKING:
    from rich.console import Console

    from gpudoctor.memory.question import Question

EXAMPLE = 'Example: gpudoctor fit llama-2-7b --gpu "RTX 4070"'


class FitFormat(str, Enum):
    """The count's reader."""

    text = "text"
    json = "json"


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
    writable(output)
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

    delivered(text, lambda _: fit_document.render(answer), Format(output_format.value), output)
    return {"fits": HEALTHY, "tight": HEALTHY, "no": FAULT, "unknown": UNKNOWN}[answer.outcome]
