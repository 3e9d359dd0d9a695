"""The page of one code at a terminal: what it means, and every cure that there is for it."""

from __future__ import annotations

from rich.console import Console

from gpudoctor import steps
from gpudoctor.fill import VARIABLE
from gpudoctor.report.page import Page
from gpudoctor.report.terminal import RISK, WHERE
from gpudoctor.steps import Section


def codes() -> tuple[str, ...]:
    """Every code that some section cures, sorted."""
    return tuple(sorted({code for section in _sections() for code in section.cures}))


def render(code: str, console: Console) -> None:
    """Print what ``code`` means, then every section that cures it."""
    page = Page(console)
    page.line(code, "bold")
    page.indented(steps.about(code) or "")
    for section in _sections():
        if code in section.cures:
            page.gap()
            _section(page, section)
    if any(VARIABLE.search(line) for section in _sections() if code in section.cures for line in _commands(section)):
        page.gap()
        page.line(
            "Names such as $PYTHON stand for values of your machine: gpudoctor check prints the commands with them filled in."
        )


def _sections() -> list[Section]:
    release = steps.DEFAULT_RELEASE
    return [section for page in steps.pages(release) for section in steps.sections(release, page)]


def _commands(section: Section) -> list[str]:
    return [line for lines in section.code.values() for line in lines]


def _section(page: Page, section: Section) -> None:
    page.line(f"{section.page}#{section.name}", "bold")
    place, risk = section.fields.get("where", ""), RISK.get(section.fields.get("risk", ""), "")
    page.indented(f"when: {section.fields.get('when', '')}")
    page.indented(f"where: {WHERE.get(place, place)}{f'; it {risk}' if risk else ''}")
    for name in ("do", "verify", "undo"):
        page.indented(f"{name}: {section.fields.get(name, '')}")
        for command in section.code.get(name, ()):
            page.command(command)
    page.indented(f"source: {section.fields.get('source', '')}", "dim")
