"""The page of one code at a terminal: what it means, when it is that, and every cure."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from gpudoctor import steps
from gpudoctor.report.terminal import RISK, WHERE
from gpudoctor.steps import Section


def render(code: str, console: Console) -> None:
    """Print every section that cures ``code``, its long text first."""
    sections = [s for page in steps.pages() for s in steps.sections(steps.DEFAULT_RELEASE, page) if code in s.cures]
    console.print(Text(code, style="bold"))
    for text in filter(None, (_meaning(section) for section in sections)):
        console.print(Padding(Text(text), (0, 0, 1, 2)))
    for section in sections:
        _section(section, console)


def _meaning(section: Section) -> str:
    return section.fields.get("cures", "").partition(":")[2].strip()


def _section(section: Section, console: Console) -> None:
    console.print(Text(f"{section.page}: {section.name.replace('-', ' ')}", style="bold"))
    place, risk = section.fields.get("where", ""), section.fields.get("risk", "")
    where = WHERE.get(place, place)
    _field(console, "when", section.fields.get("when", ""))
    _field(console, "where", f"{where}{f'; it {RISK[risk]}' if RISK.get(risk) else ''}")
    for name in ("do", "verify", "undo"):
        _field(console, name, section.fields.get(name, ""))
        for command in section.code.get(name, ()):
            console.print(Text(f"        {command}", style="bold cyan"), soft_wrap=True)
    _field(console, "source", section.fields.get("source", ""))
    console.print()


def _field(console: Console, name: str, words: str) -> None:
    if words or name in ("do", "verify", "undo"):
        console.print(Padding(Text.assemble((f"{name}: ", "dim"), words), (0, 0, 0, 2)))
