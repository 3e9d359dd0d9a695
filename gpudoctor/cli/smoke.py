"""The verb smoke: tokens, generated in the user's own Python."""

from __future__ import annotations

import functools
import os
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from gpudoctor import looking
from gpudoctor.cli.delivering import delivered, exit_code, rendered, writable
from gpudoctor.cli.options import Deadline, Format, Interpreter, Output, ReportFormat

if TYPE_CHECKING:
    from gpudoctor.smoke.plan import Plan

EXAMPLE = "Example: gpudoctor smoke --ckpt llama-2-7b"


class Device(str, Enum):
    """Where the smoke test runs."""

    cuda = "cuda"
    cpu = "cpu"


class Dtype(str, Enum):
    """In which numbers it computes."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


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
    writable(output)
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
        return rendered(facts, diagnosis, steps, chosen)

    delivered(lambda console: report.render(plan, facts, diagnosis, steps, console), document, output_format, output)
    return exit_code(diagnosis, strict=False)
