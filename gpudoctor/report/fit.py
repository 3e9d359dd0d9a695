"""The count of a model's memory for a person at a terminal: the answer, a picture of the card, the parts, the ways out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from gpudoctor.memory.card import Card
from gpudoctor.memory.commands import run
from gpudoctor.memory.count import Cell, Count, table
from gpudoctor.memory.need import CONTEXT_LEAST, CONTEXT_MOST, GIB
from gpudoctor.naming import shown
from gpudoctor.report.page import Page
from gpudoctor.report.words import gib

KEPT = 0.05
"""Of a card that nobody uses the driver keeps less than this."""
WIDEST_BAR, NARROWEST_BAR = 72, 20
MARKS = {"fits": ("✓", "ok", "green"), "tight": ("!", "!", "yellow"), "no": ("✗", "x", "bold red"), None: ("?", "?", "yellow")}
SHOWN_HOLDERS = 4


@dataclass(frozen=True, slots=True)
class Part:
    """One stretch of the bar."""

    title: str
    size: int
    glyph: str
    ascii: str
    style: str
    words: str = ""


def render(count: Count, console: Console) -> None:
    """Print the report to ``console``."""
    page = Page(console)
    page.line(_headline(count), "bold")
    page.gap()
    _answer(page, count)
    page.gap()
    _picture(page, count)
    _loading(page, count)
    for note in count.notes:
        page.wrapped(page.text(note), 4, first=page.text("  · "))
    _run(page, count)
    _options(page, count)
    _table(page, count)


# ---------------------------------------------------------------- what was asked


def _headline(count: Count) -> str:
    question, work = count.question, count.question.work
    several = "" if work.batch == 1 else f"{work.batch} sequences of "
    tokens = f"{several}{work.prompt} + {work.new} tokens"
    runtime = question.runtime.name + (f" {question.version}" if question.version else "")
    parts = [shown(question.model.name), f"{_billions(question.model.parameters)} parameters, {question.numbers}", runtime, tokens]
    if question.card is not None:
        parts.append(_card(question.card, work.gpus))
    return " · ".join(parts)


def _card(card: Card, gpus: int) -> str:
    times = f"{gpus} x " if gpus > 1 else ""
    return times + card.name.removeprefix("NVIDIA ")


def _billions(number: int) -> str:
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def _answer(page: Page, count: Count) -> None:
    mark, plain, style = MARKS[count.verdict]
    lead = page.text(f"  {mark if page.unicode else plain} ", style)
    page.wrapped(page.text(_verdict(count), "bold"), 4, first=lead)
    for words in _because(count):
        page.indented(words, by=4)


def _verdict(count: Count) -> str:
    need, card = count.need, count.question.card
    needs = f"{gib(need.allocated)} and a CUDA context, {gib(need.total)} in all"
    if card is None:
        return f"needs {needs}; whether it fits is unknown: {count.why_no_card}"
    each = " on each GPU" if count.question.work.gpus > 1 else ""
    free = f"{gib(card.free)} are free" + ("" if card.total in (None, card.free) else f" of {gib(card.total or 0)}")
    if count.verdict == "no":
        return f"does not fit: needs {needs}{each}; {free}"
    if count.verdict == "tight":
        return f"tight: needs about {needs}{each}; {free}. It may run or not, by what cannot be counted beforehand"
    return f"fits: needs {needs}{each}; {free}"


def _because(count: Count) -> list[str]:
    found = []
    if count.question.too_large:
        found.append("No batch size, prompt or sequence length helps: the weights alone are more than the whole card.")
    loading = count.loading
    if loading.killed:
        found.append(
            f"Loading would be killed: it takes {gib(loading.host.memory)} of the machine's own memory, "
            f"of which {gib(loading.memory_free or 0)} are available ({loading.host.why})."
        )
    if loading.no_room:
        found.append(
            f"The download of {gib(loading.host.download)} does not fit the disk, which has {gib(loading.disk_free or 0)} free."
        )
    return found


# ---------------------------------------------------------------- the picture


def _picture(page: Page, count: Count) -> None:
    parts = _parts(count)
    _bar(page, count, parts)
    width = max(len(part.title) for part in parts)
    for part in parts:
        glyph = Text(part.glyph if page.unicode else part.ascii, part.style)
        size = f"{part.size / GIB:8.2f} GiB" if part is parts[0] else f"{part.size / GIB:8.2f}"
        row = Text.assemble("    ", glyph, f" {part.title:<{width}}", size)
        words = page.text(f"  {part.words}", "dim") if part.words else Text()
        page.wrapped(words, 4 + 2 + width + 12, first=row) if part.words else page.console.print(row)


def _parts(count: Count) -> list[Part]:
    need, card = count.need, count.question.card
    parts = [
        Part("weights", need.weights, "█", "W", "blue"),
        Part("KV cache", need.kv_cache, "▓", "K", "cyan"),
        Part("activations", need.activations, "▒", "A", "magenta"),
        Part("workspace", need.workspace, "▞", "S", "magenta"),
        Part(
            "CUDA context",
            need.context,
            "░",
            "C",
            "yellow",
            f"{CONTEXT_LEAST / GIB:.1f} to {CONTEXT_MOST / GIB:.2f}, by card and driver",
        ),
    ]
    if card is not None and card.held and (card.holders or card.held > KEPT * (card.total or 0)):
        parts.insert(0, Part("held by others", card.held, "▚", "H", "red", _holders(card)))
    if card is not None and card.free > need.total:
        parts.append(Part("left", card.free - need.total, "·", ".", "green"))
    return [part for part in parts if part.size]


def _holders(card: Card) -> str:
    named = [f"{h.name} {(h.used or 0) >> 20} MiB (process {h.pid})" for h in card.holders if h.used][:SHOWN_HOLDERS]
    more = len([h for h in card.holders if h.used]) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "") if named else "by whom cannot be seen from here"


def _bar(page: Page, count: Count, parts: Sequence[Part]) -> None:
    """All parts side by side; a bar of its own where the card ends, if they are more than it has."""
    card = count.question.card
    width = max(NARROWEST_BAR, min(WIDEST_BAR, page.console.width - 8))
    whole = sum(part.size for part in parts)
    ends = None if card is None or card.total is None or whole <= card.total else round(width * card.total / whole)
    if card is not None and card.total is None and whole > card.free:
        ends = round(width * card.free / whole)
    bar, done, drawn = Text("    ["), 0, 0
    for part in parts:
        done += part.size
        until = round(width * done / whole)
        for column in range(drawn, until):
            if column == ends:
                bar.append("|", "bold red")
            bar.append(part.glyph if page.unicode else part.ascii, part.style)
        drawn = max(drawn, until)
    bar.append("]")
    page.console.print(bar, soft_wrap=True)
    if ends is not None:
        page.console.print(
            page.text(f"    {' ' * (ends + 1)}^ here the {'card' if card and card.total else 'free memory'} ends", "dim"),
            soft_wrap=True,
        )


def _loading(page: Page, count: Count) -> None:
    loading = count.loading
    there = "" if loading.memory_free is None else f" (of {gib(loading.memory_free)} available)"
    words = f"Loading takes {gib(loading.host.memory)} of the machine's own memory{there}: {loading.host.why}."
    if loading.host.download:
        room = "" if loading.disk_free is None else f"; the disk has {gib(loading.disk_free)} free"
        words += f" To download: {gib(loading.host.download)}{room}."
    page.gap()
    page.indented(words, "dim", by=2)


# ---------------------------------------------------------------- what to do


def _run(page: Page, count: Count) -> None:
    """The command that was counted: with another, such as vLLM's own length, it would be another sum."""
    if count.verdict in ("fits", "tight") and count.outcome != "no":
        page.gap()
        page.line("What was counted, as a command:", "bold")
        _commands(page, run(count.question))


def _commands(page: Page, commands: Sequence[str]) -> None:
    for command in commands:
        if command.isprintable():
            page.command(command)
        else:  # what the terminal makes harmless would be another command
            page.indented("(a command that is not shown, since a name in it has control characters)", "dim", by=7)


def _options(page: Page, count: Count) -> None:
    for number, option in enumerate(count.options, 1):
        if number == 1:
            page.gap()
            page.line("What to do, the least trouble first:", "bold")
        mark, plain, style = MARKS[option.verdict]
        page.gap()
        lead = Text.assemble(page.text(f"{number}  "), page.text(mark if page.unicode else plain, style), " ")
        page.wrapped(page.text(f"{option.summary}: needs {gib(option.need)}"), 5, first=lead)
        _commands(page, option.commands if option.fits else ())


def _table(page: Page, count: Count) -> None:
    """What it needs in other numbers and other lengths."""
    lengths, rows = table(count.question)
    room = max(1, (page.console.width - 5 - max(8, *(len(name) for name, _ in rows))) // 11)
    asked = lengths.index(count.question.work.room)
    some = sorted({asked, *sorted(range(len(lengths)), key=lambda at: abs(at - asked))[:room]})
    lengths, rows = tuple(lengths[at] for at in some), tuple((name, tuple(cells[at] for at in some)) for name, cells in rows)
    page.gap()
    several = "" if count.question.work.batch == 1 else f", {count.question.work.batch} sequences at a time"
    page.line(f"GiB by length in tokens{several}:", "bold")
    width = max(8, *(len(name) for name, _ in rows))
    page.console.print(Text(f"    {'':<{width}}" + "".join(f"{length:>11}" for length in lengths), "dim"))
    for name, cells in rows:
        row = Text.assemble(f"    {name:<{width}}", *(_cell(page, cell) for cell in cells))
        row.rstrip()
        page.console.print(row)


def _cell(page: Page, cell: Cell) -> Text:
    mark, plain, style = MARKS[cell.verdict]
    shown = (mark if page.unicode else plain) if cell.verdict is not None else ""
    return Text(f"{cell.need / GIB:>8.2f} {shown:<2}", style if cell.verdict is not None else "")
