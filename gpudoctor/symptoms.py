"""Known error texts -> symptoms: one reader for the kernel log, a child's stderr and a text that a user pastes.

The texts are rows of ``knowledge/symptoms.toml``, and of ``knowledge/pasted.toml`` for what only a pasted text has: the
wordings of other programs, words of people, clues. A new text is a new row and no code.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gpudoctor.facts import Symptom
from gpudoctor.knowledge import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Kind = Literal["complaint", "clue", "harmless", "ordinary"]
"""What a text is good for: it complains of something; it only tells where or how (a container, a variable); it needs no
action; it is an error, and not one of the environment."""

LINE_LIMIT = 2000
TEXT_LIMIT = 8 << 20
KEPT_AT_EACH_END = 3
TRIED_AT_EACH_END = 500
CLUES_AT_EACH_END = 100
LONGEST_WORD = 200
KINDS_KEPT = 128
EVIDENCE_LIMIT = 500

_ANSI = re.compile(r"\x1b\[[0-9;?]{0,16}[A-Za-z]")
_TIMESTAMP = re.compile(r"^\s{0,16}(?:<\d{1,3}>)?\[\s{0,8}[+\d][\d.]{0,20}\] ?")
# dmesg -T, syslog and journalctl put date, host and program in front; the host's name is nobody's business
_ORIGIN = re.compile(
    r"^(?:<\d{1,3}>)?(?:\w{3} [ \d]\d [\d:]{8} |\d{4}-\d\d-\d\dT\S{1,40} |\[\s{0,8}\d[\d.]{0,20}\] )?"
    r"[\w.-]{1,64} kernel: {0,4}(?:\[\s{0,8}\d[\d.]{0,20}\] ?)?"
)
_DATE = re.compile(r"^\s{0,16}\[\w{3} \w{3} [ \d]\d [\d:]{8} \d{4}\] ")
_MODULE = "NVRM: "


@dataclass(frozen=True)
class Row:
    """One row of knowledge/symptoms.toml; its words are explained at the head of that file."""

    id: str
    layer: str
    hints: tuple[str, ...]
    """In lower case."""
    regex: str
    condition: str
    by: str | None
    lines: int
    joined: int
    kind: Kind
    tells: Mapping[str, int]
    """What it means by itself: codes of faults, each with how surely, in per cent."""
    source: str

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """Compiled at its first use: of some hundred rows a text needs a few."""
        return re.compile(self.regex)


@functools.cache
def rows(*, pasted: bool = False) -> tuple[Row, ...]:
    """The known error texts, in the order of the table; with those of a pasted text where it is one."""
    own = tuple(_row(row) for row in table.read("symptoms")["symptom"])
    return (*own, *(_row(row) for row in table.read("pasted")["symptom"])) if pasted else own


def _row(row: Mapping[str, Any]) -> Row:
    hint = row["hint"]
    return Row(
        id=row["id"],
        layer=row["layer"],
        hints=tuple(word.lower() for word in ([hint] if isinstance(hint, str) else hint)),
        regex=row["regex"],
        condition=row["condition"],
        by=row.get("by"),
        lines=row.get("lines", 1),
        joined=row.get("joined", 1),
        kind=row.get("kind", "complaint"),
        tells=row.get("tells", {}),
        source=row["source"],
    )


@functools.cache
def _by_id() -> dict[str, Row]:
    return {row.id: row for row in rows(pasted=True)}


def row_of(symptom_id: str) -> Row | None:
    """The row of that id; None for one that the table lacks (a report of another gpudoctor)."""
    return _by_id().get(symptom_id)


def condition(symptom_id: str) -> str:
    """What is the case when this symptom appears; raises KeyError for an id that the table lacks."""
    return _by_id()[symptom_id].condition


def read(text: str, source: str, *, pasted: bool = False) -> tuple[Symptom, ...]:
    """The known error texts in ``text``, in its order; ``source`` is the name that each symptom carries.

    ``pasted`` looks for what only people paste too. Of a repeated text the first and the last three are kept. Only the last
    8 Mi characters of ``text`` are read.
    """
    lines = _Lines(_ANSI.sub("", text[-TEXT_LIMIT:].replace("#012", "\n")))  # rsyslog writes a newline as #012
    found: dict[tuple[str, str], dict[int, Symptom]] = defaultdict(dict)
    table_rows = rows(pasted=pasted)
    places = lines.places({hint for row in table_rows for hint in row.hints})
    for row in table_rows:
        for number in _tried(row, _lines_of(row, places)):
            if _search(row, lines, number, source, found) and row.kind == "clue" and row.by is None:
                break  # said once is said
    kept = [item for group in list(found.values())[:KINDS_KEPT] for item in _ends(sorted(group.items()))]
    return tuple(symptom for _, symptom in sorted(kept, key=lambda item: item[0]))


class _Lines:
    """The lines of a text, each without what logs put in front of it, made once and only where it is looked at."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._messages: dict[int, str] = {}
        self._numbers: dict[str, list[int]] = defaultdict(list)
        """In lower case, what stands in which lines: programs repeat themselves, and each line is looked through once."""
        for number, line in enumerate(text.lower().splitlines()):
            self._numbers[line].append(number)

    def __len__(self) -> int:
        return len(self._lines)

    def message(self, number: int) -> str:
        """Line ``number`` without timestamp, host and program."""
        if number not in self._messages:
            self._messages[number] = _message(self._lines[number][:LINE_LIMIT])
        return self._messages[number]

    def messages(self, begin: int, end: int) -> list[str]:
        """The lines from ``begin`` up to ``end``."""
        return [self.message(number) for number in range(begin, min(end, len(self._lines)))]

    def places(self, hints: Iterable[str]) -> dict[str, list[int]]:
        """For each hint that occurs at all, the numbers of the lines that hold it, whatever the case of its letters."""
        text = "\n".join(self._numbers)
        words = set(_WORD.findall(text))
        all_words = "\n".join(word for word in words if len(word) <= LONGEST_WORD)
        starts = list(itertools.accumulate((len(line) + 1 for line in self._numbers), initial=0))
        numbers = list(self._numbers.values())
        found = ((hint, _at(hint, text, starts)) for hint in hints if _may_hold(hint, words, all_words))
        return {hint: sorted(itertools.chain(*(numbers[line] for line in lines))) for hint, lines in found if lines}


def _at(hint: str, text: str, starts: Sequence[int]) -> list[int]:
    """Which lines of ``text`` hold the hint; ``starts`` is where each begins, and where one after the last would."""
    lines: list[int] = []
    at = text.find(hint)
    while at >= 0:
        line = bisect.bisect_right(starts, at) - 1
        if at + len(hint) - starts[line] <= LINE_LIMIT:
            lines.append(line)
        at = text.find(hint, starts[line + 1])
    return lines


_WORD = re.compile(r"\w{2,}")


@functools.cache
def _parts(hint: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of a hint: whole ones within it, and those at its ends, which may be a part of a word."""
    matches = list(_WORD.finditer(hint))
    whole = tuple(m.group() for m in matches if m.start() > 0 and m.end() < len(hint))
    ends = tuple(m.group() for m in matches if m.start() == 0 or m.end() == len(hint))
    return whole, ends


def _may_hold(hint: str, words: set[str], all_words: str) -> bool:
    """A text without the hint's words does not hold the hint: much cheaper to ask than the text."""
    whole, ends = _parts(hint)
    return words.issuperset(whole) and all(end in all_words for end in ends)


def _lines_of(row: Row, places: Mapping[str, list[int]]) -> list[int]:
    """The numbers of the lines that hold one of the row's hints, in order."""
    if len(row.hints) == 1:
        return places.get(row.hints[0], [])
    return sorted({number for hint in row.hints for number in places.get(hint, ())})


def _tried(row: Row, numbers: list[int]) -> list[int]:
    """Joining lines costs: of thousands of such places the first and the last are tried, as only those are kept."""
    most = CLUES_AT_EACH_END if row.kind == "clue" else TRIED_AT_EACH_END
    if (row.lines == row.joined == 1 and row.kind != "clue") or len(numbers) <= 2 * most:
        return numbers
    return numbers[:most] + numbers[-most:]


def _search(row: Row, lines: _Lines, number: int, source: str, found: dict[tuple[str, str], dict[int, Symptom]]) -> bool:
    if row.lines == row.joined == 1 and row.pattern.search(lines.message(number)) is None:
        return False  # of most lines there is no more to say
    for start, sentence in _sentences(lines, number, row):
        match = row.pattern.search(" ".join(sentence))
        if match is None or match.start() >= len(sentence[0]):
            continue
        if match.end() <= len(" ".join(sentence[: number - start])):
            continue  # an earlier sentence of the same kind
        values = tuple((name, value.strip()) for name, value in match.groupdict().items() if value and value.strip())
        kind = (row.id, dict(values).get(row.by, "") if row.by else "")
        evidence = _up_to(sentence, match.end())[:EVIDENCE_LIMIT]
        found[kind].setdefault(start, Symptom(row.id, evidence, source, values))
        return True
    return False


def _sentences(lines: _Lines, number: int, row: Row) -> Iterator[tuple[int, list[str]]]:
    """The sentences of the row's length that line ``number`` may belong to, the earliest first: (first line, parts)."""
    span = row.lines
    if row.joined > 1:
        yield number, lines.messages(number, number + row.joined)
        return
    if span == 1 or not lines.message(number).startswith(_MODULE):
        yield number, [lines.message(number)]
        return
    first = max(0, number - span + 1)
    window = lines.messages(first, number + span)
    start = number - first
    while start > 0 and window[start - 1].startswith(_MODULE):
        start -= 1
    for begin in range(start, number - first + 1):
        continued = itertools.takewhile(lambda line: line.startswith(_MODULE), window[begin + 1 : begin + span])
        yield first + begin, [window[begin], *(line.removeprefix(_MODULE).strip() for line in continued)]


def _up_to(sentence: Sequence[str], end: int) -> str:
    """The lines of ``sentence`` up to the one in which character ``end`` of the joined text lies."""
    text = sentence[0]
    for part in sentence[1:]:
        if len(text) >= end:
            break
        text = f"{text} {part}"
    return text


def _message(line: str) -> str:
    """The line without timestamp, host and program."""
    for prefix in (_DATE, _ORIGIN, _TIMESTAMP):
        shorter = prefix.sub("", line, count=1)
        if shorter != line:
            return shorter.strip()
    return line.strip()


def _ends(items: Sequence[tuple[int, Symptom]]) -> Sequence[tuple[int, Symptom]]:
    if len(items) <= 2 * KEPT_AT_EACH_END:
        return items
    return [*items[:KEPT_AT_EACH_END], *items[-KEPT_AT_EACH_END:]]
