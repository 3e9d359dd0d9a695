"""What a person reads while the probes run: after a second, one spinner line per probe that is still at work."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

PATIENCE = 1.0
LINES = 8


class Waiting:
    """Shows on a terminal's stderr which probes are still running; shows nothing where stderr is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._started = time.monotonic()
        self._shown: tuple[str, ...] = ()
        self._spinners = [Spinner("dots") for _ in range(LINES)]

    def __enter__(self) -> Waiting:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        self._started = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, titles: tuple[str, ...]) -> None:
        """The probes that still run. It is called again and again, so that a second that passes without change shows too."""
        if not self._console.is_terminal or not titles or time.monotonic() - self._started < PATIENCE:
            return
        if self._live is None:
            self._live = Live(console=self._console, transient=True, refresh_per_second=8)
            self._live.start()
        if titles == self._shown:
            return
        self._shown = titles
        lines = Table.grid()
        for title, spinner in zip(titles, self._spinners, strict=False):
            spinner.update(text=f"{title} ...")
            lines.add_row(spinner)
        self._live.update(lines)
