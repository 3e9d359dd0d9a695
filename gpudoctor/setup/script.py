"""The plan as a shell script: to be read, saved, and run where there is no gpudoctor.

It holds the pages' own lines. The values that a diagnosis gave are shell variables with defaults at the head of each step, so
that another branch or a mirror is given from outside: ``GPUDOCTOR_INDEX=https://... bash setup.sh``.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterable

from gpudoctor.fill import LIST, VARIABLE
from gpudoctor.setup.plan import Item, Plan

_DERIVED = {
    "LIBRARY_BRANCH": ("BRANCH", "LIBRARY_BRANCH=${BRANCH%-open}"),
    "SERIES": ("BRANCH", "SERIES=${BRANCH%%-*}"),
    "GXX": ("GCC", "GXX=${GCC/gcc/g++}"),
}
_HEAD = """\
#!/usr/bin/env bash
# Written by gpudoctor setup --dry-run. Read it, then run it: bash setup.sh
{for_machine}# After a restart go on where it stopped: bash setup.sh NUMBER
set -euo pipefail
from=${{1:-1}}
case $from in
  '' | *[!0-9]*) echo "usage: bash setup.sh [NUMBER]" >&2; exit 2 ;;
esac
if [ "$(id -u)" = 0 ]; then sudo() {{ env "$@"; }}; fi
run() {{ printf '\\n$ %s\\n' "$1"; }}
"""
_ALL_DONE = "echo\necho 'All steps of this script are done. gpudoctor check says what it came to.'\n"
_NOTHING = "echo 'Nothing is to be run.'\n"
_RUN_BY_US = re.compile(r"^gpudoctor ")


def render(plan: Plan, machine: str, root: str = "/") -> str:
    """The script. ``machine`` is one line that says which machine it was written for, ``root`` where its files lie."""
    parts = [_HEAD.format(for_machine=_wrapped(f"For: {machine}") if machine else "")]
    if root != "/":
        parts.append(_wrapped(f"For the system below {root}, not the one that runs: copy it there, and run it by chroot."))
    if plan.foreign is not None:
        parts.append(f"{_wrapped(plan.foreign)}# It was not written for this system: do not run it there.\n")
    number = 0
    for item in plan.items:
        if item.obstacle is not None or plan.foreign is not None:
            parts.append(_by_hand(item))
        else:
            number += 1
            parts.append(_step(item, number))
    parts.append(_ALL_DONE if number else _NOTHING)
    return "\n".join(parts)


def _step(item: Item, number: int) -> str:
    """One function, so that the whole script is read before anything of it runs."""
    do = [line for line in item.section.code.get("do", ()) if not _RUN_BY_US.match(line)]
    lines = [line for line in do if line != "sudo reboot"]
    after = [line for line in item.section.code.get("verify", ()) if not _RUN_BY_US.match(line) and line not in lines]
    ends = _restart(item, number, after) if "sudo reboot" in do else _shown(after)
    body = [*_values(item, [*lines, *after]), *_shown(lines), *ends] or [":"]
    code = f" ({item.code})" if item.code else ""
    undo = item.section.fields.get("undo", "" if item.step.undo else "not needed.")
    return (
        _wrapped(f"Step {number}: {item.why}{code}")
        + _wrapped(f"{item.step.step}; {_risk(item)}; to take it back:{'' if item.step.undo else f' {undo}'}")
        + "".join(f"#     {_comment(line)}\n" for line in item.step.undo)
        + (_wrapped(undo) if item.step.undo else "")
        + _wrapped(item.step.prose)
        + f"step_{number}() {{\n{''.join(f'  {line}{chr(10)}' for line in body)}}}\n"
        + f'if [ "$from" -le {number} ]; then step_{number}; fi\n'
    )


def _restart(item: Item, number: int, after: list[str]) -> list[str]:
    """The script ends here and says how to go on: nobody's machine is restarted by a script that they pasted."""
    words = [f"Step {number} is done. Restart this machine (sudo reboot), then: bash setup.sh {number + 1}"]
    words += ["After the restart this shows whether it helped:", *(f"    {_filled(item, line)}" for line in after)]
    return ["echo", *(f"echo {shlex.quote(word)}" for word in words), "exit 0"]


def _by_hand(item: Item) -> str:
    """What the script leaves out, and why."""
    lines = "".join(f"#     {_comment(line)}\n" for line in item.step.commands)
    why = item.obstacle or "it was written for another system"
    return _wrapped(f"Left out: {item.why}: {item.step.step}, because {why}.") + lines


def _values(item: Item, lines: list[str]) -> list[str]:
    """An assignment for each value that the lines name; one that follows from another is left to the shell."""
    named = {name.strip("${}") for line in lines for name in VARIABLE.findall(line)}
    lists = {name for line in lines for name in LIST.findall(line)}
    given = dict(item.values)
    asked = {_DERIVED[name][0] if name in _DERIVED and name not in given else name for name in named - lists}
    found = [f"local {name}=${{GPUDOCTOR_{name}:-{_quoted(given[name])}}}" for name in sorted(asked & set(given))]
    found += [f"local {_DERIVED[name][1]}" for name in sorted(named & set(_DERIVED)) if name not in given]
    return [*found, *(f"local {name}=({' '.join(map(_quoted, given.get(name, '').split()))})" for name in sorted(lists))]


def _shown(lines: Iterable[str]) -> list[str]:
    """Each line behind an echo of itself."""
    return [text for line in lines for text in (f"run {shlex.quote(line)}", line)]


def _filled(item: Item, line: str) -> str:
    raw = item.section.code.get("verify", ())
    return item.step.verify[raw.index(line)] if line in raw and len(raw) == len(item.step.verify) else line


def _risk(item: Item) -> str:
    root = "needs root" if item.step.needs_root else "needs no root"
    return f"{root}; needs a restart" if item.step.needs_reboot else f"{root}; risk: {item.step.risk}"


def _wrapped(words: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(_comment(words), 118))


def _quoted(value: str) -> str:
    """One word for bash, in which nothing hides from whoever reads the script: what does not print is written as its bytes."""
    if value.isprintable():
        return shlex.quote(value)
    spelt = (
        c if c.isprintable() and c not in "'\\" else "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "replace"))
        for c in value
    )
    return f"$'{''.join(spelt)}'"


def _comment(words: str) -> str:
    """One line, whatever it is made of: nothing of it may leave the comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())
