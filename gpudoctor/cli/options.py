"""What the verbs have in common on the command line: exit codes, formats, options."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

HEALTHY, FAULT, USAGE, UNKNOWN = 0, 1, 2, 3
RESTART = 4
"""Of setup alone: what it began is done after a restart."""


class Format(str, Enum):
    """The report's reader."""

    text = "text"
    json = "json"
    markdown = "markdown"
    junit = "junit"
    github = "github"
    prometheus = "prometheus"


Interpreter = Annotated[
    str | None,
    typer.Option("--python", metavar="PATH", help="The Python, or the folder of the environment, whose PyTorch is meant."),
]
ReportFormat = Annotated[Format, typer.Option("--format", help="Who reads the report.")]
Output = Annotated[str | None, typer.Option(metavar="FILE", help="Write the report to this file instead of the terminal.")]
Deadline = Annotated[float | None, typer.Option(metavar="SECONDS", help="All waiting for the machine ends after this.")]
