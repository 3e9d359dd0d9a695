"""The page of one code at a terminal: what it means, and every cure that there is for it."""

from __future__ import annotations

import platform

from rich.console import Console

from gpudoctor import steps
from gpudoctor.fill import VARIABLE
from gpudoctor.report.page import Page
from gpudoctor.report.terminal import RISK, WHERE
from gpudoctor.steps import Section


def codes() -> tuple[str, ...]:
    """Every code that some section cures, sorted."""
    return tuple(sorted({code for section in _sections() for code in section.cures}))


def sections() -> tuple[str, ...]:
    """Every section of an install page, as a report names it: page#section."""
    return tuple(f"{section.page}#{section.name}" for section in _sections())


def render(code: str, console: Console) -> None:
    """Print what ``code`` means, then every section that cures it."""
    page = Page(console)
    page.line(code, "bold")
    page.indented(steps.about(code) or "")
    found = [section for section in _sections() if code in section.cures]
    for section in found:
        page.gap()
        _section(page, section)
    _values(page, found)


def render_section(name: str, console: Console) -> None:
    """Print one section; raises steps.NoSuchStep."""
    section = steps.find(name, _release())
    page = Page(console)
    _section(page, section)
    _values(page, [section])


def _sections() -> list[Section]:
    """All sections, each as it is for this machine's release."""
    default, release = steps.DEFAULT_RELEASE, _release()
    names = [f"{page}#{section.name}" for page in steps.pages(default) for section in steps.sections(default, page)]
    return [steps.find(name, release) for name in names]


def _release() -> str:
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        return steps.DEFAULT_RELEASE
    return f"{system.get('ID', '')}-{system.get('VERSION_ID', '')}"


def _values(page: Page, found: list[Section]) -> None:
    if any(VARIABLE.search(line) for section in found for line in _commands(section)):
        page.gap()
        page.line(
            "Names such as $PYTHON stand for values of your machine: gpudoctor check prints the commands with them filled in."
        )


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
