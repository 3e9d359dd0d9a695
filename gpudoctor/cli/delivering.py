"""Hands a report to its reader, and the verdict to the shell."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from gpudoctor.cli.options import FAULT, HEALTHY, UNKNOWN, Format
from gpudoctor.looking import BadInput

if TYPE_CHECKING:
    from rich.console import Console

    from gpudoctor.diagnose import Diagnosis
    from gpudoctor.facts import Facts
    from gpudoctor.findings import Finding
    from gpudoctor.steps import Step


def exit_code(diagnosis: Diagnosis, *, strict: bool) -> int:
    """The contract: 0 healthy, 1 a fault (also beside unknowns), 3 no fault but something undetermined."""
    if diagnosis.status == "fail" or (strict and any(f.severity == "warn" for f in diagnosis.findings)):
        return FAULT
    return UNKNOWN if diagnosis.status == "unknown" else HEALTHY


def delivered(
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
        nobody_reads()  # the machine is as ill as it is, whoever listens
    except delivery.CannotWrite as error:
        raise BadInput(f"--output: {error}") from error
    except OSError as error:
        raise BadInput(f"the report could not be written: {error.strerror or error}") from error


def rendered(facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step], output_format: Format) -> str:
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


def writable(output: str | None) -> None:
    """Raises BadInput for an --output that cannot be written: before the minute of looking, not after it."""
    from gpudoctor.report import delivery  # noqa: PLC0415 - loaded when asked for

    try:
        delivery.writable(output)
    except delivery.CannotWrite as error:
        raise BadInput(f"--output: {error}") from error


def nobody_reads() -> None:
    """The reader of a pipe went away (head, less): that is nothing to talk about, and nothing more is written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
