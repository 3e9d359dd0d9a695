"""The lines that a waiting person sees."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gpudoctor.report import progress
from gpudoctor.report.progress import Waiting


def _terminal(*, there: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=there, width=80), stream


def test_what_takes_long_is_shown_although_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    console, stream = _terminal(there=True)
    with Waiting(console) as waiting:
        for token in (1, 1, 2):
            waiting(("asking the driver (NVML)", f"generating: {token} of 32 tokens"))
    shown = stream.getvalue()
    assert "asking the driver (NVML) ..." in shown
    assert "generating: 2 of 32 tokens ..." in shown


@pytest.mark.parametrize(("there", "patience"), [(False, 0.0), (True, 60.0)], ids=["no terminal", "not a second yet"])
def test_nothing_is_shown(monkeypatch: pytest.MonkeyPatch, there: bool, patience: float) -> None:
    monkeypatch.setattr(progress, "PATIENCE", patience)
    console, stream = _terminal(there=there)
    with Waiting(console) as waiting:
        waiting(("asking the driver (NVML)",))
    assert stream.getvalue() == ""
