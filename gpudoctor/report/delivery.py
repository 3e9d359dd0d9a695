"""Brings a report to its reader: a terminal, a pipe, a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 100


class CannotWrite(OSError):
    """The file of ``--output`` cannot be written; the message says why, in one line."""


def console(*, stderr: bool = False) -> Console:
    """What a person reads: width, colours and character set of this terminal. A reader that goes away raises BrokenPipeError."""
    from rich.console import Console  # noqa: PLC0415 - loaded when asked for

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would leave with an exit code of its own

    return Piped(stderr=stderr, highlight=False, emoji=False, markup=False)


def deliver_text(render: Callable[[Console], None], output: str | None) -> None:
    """Let ``render`` print to the terminal, or into the file. Raises CannotWrite, or OSError in the middle of it."""
    from rich.console import Console  # noqa: PLC0415 - loaded when asked for

    if output is None:
        render(console())
        return
    with _opened(output) as file:
        render(Console(file=file, width=FILE_WIDTH, no_color=True))


def deliver(text: str, output: str | None) -> None:
    """Write a whole document to stdout, or into the file. Raises CannotWrite, or OSError in the middle of it."""
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with _opened(output) as file:
        file.write(text)


def writable(output: str | None) -> None:
    """Raises CannotWrite for an output that cannot be written: before the minute of looking, not after it."""
    if output is None:
        return
    path = Path(output)
    if path.is_dir():
        raise CannotWrite(f"{output} is a folder; expected a file")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise CannotWrite(f"{output} cannot be written")


def _opened(output: str) -> IO[str]:
    try:
        return Path(output).open("w", encoding="utf-8", errors="replace")
    except OSError as error:
        raise CannotWrite(f"{output}: {error.strerror or error}") from error
