"""The verb explain: from an error text, or a code, to what it means and what cures it."""

from __future__ import annotations

import os
from enum import Enum
from typing import Annotated

import typer

from gpudoctor import looking
from gpudoctor.cli.delivering import delivered, writable
from gpudoctor.cli.options import FAULT, HEALTHY, UNKNOWN, Format, Output
from gpudoctor.looking import BadInput

EXAMPLE = "Example: python train.py 2>&1 | gpudoctor explain -"


def _codes() -> list[str]:
    from gpudoctor.report import explanation  # noqa: PLC0415 - loaded when asked for

    return list(explanation.codes())


class ExplainFormat(str, Enum):
    """The answer's reader."""

    text = "text"
    json = "json"
    markdown = "markdown"


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
    writable(output)
    from gpudoctor.report import explanation  # noqa: PLC0415 - loaded when asked for

    of_page = dict.fromkeys(_codes(), explanation.render) | dict.fromkeys(explanation.sections(), explanation.render_section)
    page = of_page.get(what)
    if page is not None:
        if output_format is not ExplainFormat.text:
            raise BadInput(f"--format: the page of a code is text, not {output_format.value}")
        delivered(lambda console: page(what, console), lambda _: "", Format.text, output)
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

    delivered(lambda console: explained.render(facts, answer, steps, console), document, output_format, output)
    return FAULT if answer.settled else UNKNOWN if answer.asks else HEALTHY


def _nearest(code: str, known: list[str]) -> str:
    import difflib  # noqa: PLC0415 - for this message only

    near = difflib.get_close_matches(code, known, 3)
    return f"; nearest: {', '.join(near)}" if near else "; a report names the codes that it found"
