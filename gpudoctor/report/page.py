"""What terminal reports are printed with: wrapped by hand, so that no line ends in blanks and no command is ever broken.

Everything is built from ``Text``, never from markup, so that nothing that a machine says can style or break a report.
"""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from gpudoctor.report.words import plain

ASCII = str.maketrans({"·": "|", "–": "-", "✓": "+", "✗": "x", "…": "...", "’": "'", "—": "-", "→": "->", "≥": ">=", "≤": "<="})


WIDEST = 120
"""Columns beyond which lines of prose are hard to follow."""


class Page:
    """What is printed, in this console's width, colours and character set."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.unicode = "utf" in (console.encoding or "").lower()

    def text(self, words: str, style: str = "") -> Text:
        """Words from anywhere as text that this console can show."""
        harmless = plain(words)
        return Text(harmless if self.unicode else harmless.translate(ASCII), style=style)

    def line(self, words: str, style: str = "") -> None:
        """A paragraph at the left edge."""
        self.wrapped(self.text(words, style))

    def gap(self) -> None:
        """An empty line."""
        self.console.print()

    def indented(self, words: str, style: str = "", *, by: int = 3) -> None:
        """A paragraph, indented."""
        self.wrapped(self.text(words, style), by)

    def command(self, command: str, style: str = "bold cyan") -> None:
        """A command to paste: on one line, however long."""
        self.console.print(self.text(f"       {command}", style), soft_wrap=True)

    def wrapped(self, words: Text, indent: int = 0, *, first: Text | None = None) -> None:
        """``words`` wrapped behind ``indent`` columns, with ``first`` in front of the first line."""
        room = max(20, min(self.console.width, WIDEST) - indent - 1)
        for number, line in enumerate(words.wrap(self.console, room, overflow="fold")):
            line.rstrip()
            lead = first if first is not None and number == 0 else Text(" " * indent)
            whole = lead + line
            whole.rstrip()
            self.console.print(whole, soft_wrap=True)
