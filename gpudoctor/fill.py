"""Puts values into a line of shell, each quoted for the place where it stands.

``$NAME`` in upper case is a value that a finding brings; the shell's own variables in the install pages are lower case.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

_NAME = r"\$(?:\{[A-Z][A-Z0-9_]*\}|[A-Z][A-Z0-9_]*)"
VARIABLE = re.compile(_NAME)
LIST = re.compile(r' "\$\{([A-Z][A-Z0-9_]*)\[@\]\}"')
"""``"${NAMES[@]}"``, as the shell writes a list: each blank-separated word of the value on its own, and nothing for no value."""
_QUOTED_WORD = re.compile(rf'"((?:[^"\\$`]|{_NAME})*)"')


def fill(line: str, values: Mapping[str, str], *, quote: bool = True) -> str:
    """Replace each known ``$NAME``; a value goes in quoted for the shell unless it is prose.

    Where the shell would not expand the name (single quotes, after a backslash, in a comment) it stays. A double-quoted
    string of plain text and known names becomes one quoted word; elsewhere in double quotes they are closed around the value.
    """
    line = LIST.sub(lambda match: "".join(f" {shlex.quote(word)}" for word in values.get(match.group(1), "").split()), line)
    if not quote:
        return VARIABLE.sub(lambda match: values.get(match.group().strip("${}"), match.group()), line)
    out: list[str] = []
    contexts = [""]  # innermost last: "" plain shell, '"' double quotes, ")" a command substitution or group
    at = 0
    while at < len(line):
        piece, step = _next_piece(line, at, contexts, values)
        out.append(piece)
        at += step
    return "".join(out)


def _next_piece(line: str, at: int, contexts: list[str], values: Mapping[str, str]) -> tuple[str, int]:
    """The text that stands for the next token of ``line``, and the token's length; keeps ``contexts`` up to date."""
    quoted, char = contexts[-1] == '"', line[at]
    if char == "\\":
        return line[at : at + 2], 2
    variable = VARIABLE.match(line, at)
    if variable:
        return _value(variable.group(), values, quoted=quoted, joined=_joined(line, at)), len(variable.group())
    if line.startswith("$(", at):
        contexts.append(")")
        return "$(", 2
    if char == '"':
        return _double_quote(line, at, contexts, values)
    if quoted:
        return char, 1
    if char == "'":
        end = line.find("'", at + 1)
        return (line[at:], len(line) - at) if end < 0 else (line[at : end + 1], end + 1 - at)
    if char == "#" and (at == 0 or line[at - 1].isspace()):
        return line[at:], len(line) - at
    if char == "(":
        contexts.append(")")
    elif char == ")" and contexts[-1] == ")":
        contexts.pop()
    return char, 1


def _double_quote(line: str, at: int, contexts: list[str], values: Mapping[str, str]) -> tuple[str, int]:
    """A quote that closes or opens a string; a string of plain text and known names is replaced whole."""
    if contexts[-1] == '"':
        contexts.pop()
        return '"', 1
    word = _QUOTED_WORD.match(line, at)
    names = [name.strip("${}") for name in VARIABLE.findall(word.group(1))] if word else []
    if word and names and all(name in values for name in names):
        separator = "''" if _joined(line, at) else ""
        return separator + shlex.quote(fill(word.group(1), values, quote=False)), len(word.group())
    contexts.append('"')
    return '"', 1


def _joined(line: str, at: int) -> bool:
    """A name of the shell ends right before ``at``: plain text put there would lengthen it."""
    return re.search(r"\$\w+$", line[:at]) is not None


def _value(name: str, values: Mapping[str, str], *, quoted: bool, joined: bool) -> str:
    value = values.get(name.strip("${}"))
    if value is None:
        return name
    word = shlex.quote(value)
    if word != value:
        return f'"{word}"' if quoted else word
    if joined:
        return f'""{value}' if quoted else f"''{value}"
    return value
