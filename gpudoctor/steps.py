"""Finds a section of an install page and fills in its commands.

A page is ``install/RELEASE/PAGE.md``. Each ``##`` section is one fix and a list of fields::

    ## reinstall-for-cuda

    - **cures** `torch-cpu-only-build`, `torch-gpu-arch-too-old`
    - **when** the PyTorch of this environment is a build without CUDA ...
    - **where** environment
    - **risk** none
    - **do**
      ```sh
      "$PYTHON" -m pip install --force-reinstall "torch==$TORCH" --index-url "$INDEX"
      ```
    - **verify**
      ```sh
      "$PYTHON" -c "import torch; print(torch.cuda.is_available())"
      ```
    - **undo** ...
    - **source** ...

``$NAME`` in upper case is a value that the finding fills in; the shell's own variables there are lower case. Only
``sh`` blocks are commands. docs/pages-format.md tells the rest to people who write pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

from gpudoctor.fill import VARIABLE, fill
from gpudoctor.findings import Fix

WHERE = ("environment", "machine", "image", "host", "windows", "hypervisor", "administrator", "code")
RISK = ("none", "restarts-service", "ends-session", "reboots", "removes")
DEFAULT_RELEASE = "ubuntu-22.04"
_DERIVED_FROM = {"LIBRARY_BRANCH": "BRANCH", "SERIES": "BRANCH", "GXX": "GCC"}
_FIELD = re.compile(r"^- \*\*(\w+)\*\*\s*(.*)$")


@dataclass(frozen=True, slots=True)
class Section:
    """One fix of a page. ``fields`` holds each field's prose, ``code`` the shell lines of the fields that have a code block."""

    page: str
    name: str
    fields: Mapping[str, str]
    code: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def cures(self) -> tuple[str, ...]:
        """The codes that this section cures."""
        return tuple(re.findall(r"`([a-z0-9-]+)`", self.fields.get("cures", "").split(":")[0]))


@dataclass(frozen=True, slots=True)
class Step:
    """A fix with its values filled in: what a report shows and ``setup`` runs."""

    step: str
    where: str
    risk: str
    commands: tuple[str, ...]
    verify: tuple[str, ...]
    prose: str
    """What to do in words, where no command does it (a cable, a BIOS setting)."""
    needs_root: bool
    needs_reboot: bool
    undo: tuple[str, ...] = ()
    """How to take it back: empty where the section has no commands for that."""


class NoSuchStep(LookupError):
    """A fix names a page or section that does not exist."""


def resolve(fix: Fix, release: str = DEFAULT_RELEASE) -> Step:
    """The section that ``fix`` names with its values filled in; raises NoSuchStep."""
    section = find(fix.step, release)
    values = _derived(dict(fix.values))
    commands = tuple(fill(line, values) for line in section.code.get("do", ()))
    return Step(
        step=fix.step,
        where=fix.where or section.fields.get("where", "machine"),
        risk=fix.risk or section.fields.get("risk", "none"),
        commands=commands,
        verify=tuple(fill(line, values) for line in section.code.get("verify", ())),
        prose=fill(section.fields.get("do", ""), values, quote=False),
        needs_root=any(re.search(r"\bsudo\b", line) for line in commands),
        needs_reboot=any(re.search(r"\breboot\b", line) for line in commands),
        undo=tuple(fill(line, values) for line in section.code.get("undo", ())),
    )


def find(step: str, release: str = DEFAULT_RELEASE) -> Section:
    """The section ``page#name`` of that release, else of the default release; raises NoSuchStep."""
    page, _, name = step.partition("#")
    for folder in dict.fromkeys((release, DEFAULT_RELEASE)):
        for section in sections(folder, page):
            if section.name == name:
                return section
    raise NoSuchStep(step)


def wanted(section: Section) -> tuple[str, ...]:
    """The values that a finding must bring for this section's commands; what follows from others (see _derived) is left out."""
    lines = [line for lines in section.code.values() for line in lines]
    found = [(str(name).strip("${}"), line) for line in lines for name in VARIABLE.findall(line)]
    expanded = [name for name, line in found if fill(line, {name: ""}) != line]
    return tuple({_DERIVED_FROM.get(name, name): None for name in expanded})


def about(code: str, release: str = DEFAULT_RELEASE) -> str | None:
    """What is true of a fault wherever it is met: the long text beside its first cure; None for an unknown code.

    Where one section explains several codes, each code's part of the text begins with the code itself and a colon.
    """
    for page in pages(release):
        for section in sections(release, page):
            text = section.fields.get("cures", "").partition(":")[2].strip()
            parts: dict[str, str] = dict(re.findall(r"`([a-z0-9-]+)`: (.*?)(?=\s*`[a-z0-9-]+`: |$)", text))
            if code in section.cures and (code in parts or (text and not parts)):
                return parts.get(code, text)
    return None


def releases() -> tuple[str, ...]:
    """The releases that have pages, such as ubuntu-22.04."""
    return tuple(sorted(entry.name for entry in _install().iterdir() if entry.is_dir() and "-" in entry.name))


def pages(release: str = DEFAULT_RELEASE) -> tuple[str, ...]:
    """The page names of one release."""
    folder = _install() / release
    if not folder.is_dir():
        return ()
    return tuple(sorted(e.name[:-3] for e in folder.iterdir() if e.name.endswith(".md") and e.name != "README.md"))


@cache
def sections(release: str, page: str) -> tuple[Section, ...]:
    """All sections of one page, in its order; empty when there is no such page."""
    entry = _install() / release / f"{page}.md"
    if not entry.is_file():
        return ()
    parts = re.split(r"^## +", entry.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return tuple(_parse(page, part) for part in parts)


def _install() -> Path:
    return Path(str(files("gpudoctor.install")))


def _parse(page: str, text: str) -> Section:
    name, _, body = text.partition("\n")
    prose: dict[str, list[str]] = {}
    code: dict[str, list[str]] = {}
    current, language = "", ""
    for line in body.splitlines():
        bare = line.strip()
        match = None if language else _FIELD.match(line)
        if match:
            current = match.group(1)
            prose[current] = [match.group(2)] if match.group(2) else []
        elif bare.startswith("```"):
            language = "" if language else bare.removeprefix("```") or "text"
        elif language == "sh":
            code.setdefault(current, []).append(line[2:].rstrip() if line.startswith("  ") else line.rstrip())
        elif language:
            continue  # an example to read (YAML, TOML), nothing to run
        elif bare and current:
            prose[current].append(bare)
    joined = {key: tuple(_join_lines(lines)) for key, lines in code.items()}
    return Section(page, name.strip(), {k: " ".join(v) for k, v in prose.items()}, joined)


def _join_lines(lines: list[str]) -> list[str]:
    """Shell commands, a continued one as a single line; comments and blank lines left out."""
    commands: list[str] = []
    continued = False
    for line in lines:
        if not continued and (not line.strip() or line.lstrip().startswith("#")):
            continue
        piece = line.removesuffix("\\").rstrip() if line.endswith("\\") else line
        if continued:
            commands[-1] += " " + piece.strip()
        else:
            commands.append(piece)
        continued = line.endswith("\\")
    return commands


def _derived(values: Mapping[str, str]) -> dict[str, str]:
    """``values`` and what follows from them: the parts of a branch, as apt names packages, and the C++ half of a gcc.

    Ubuntu's module and driver packages carry "-open" in their names, its library packages do not, and the fabric
    manager's has the number alone.
    """
    branch, gcc = values.get("BRANCH", ""), values.get("GCC", "")
    derived = {
        "LIBRARY_BRANCH": branch.removesuffix("-open"),
        "SERIES": branch.partition("-")[0],
        "GXX": gcc.replace("gcc", "g++"),
    }
    return {**{name: value for name, value in derived.items() if _DERIVED_FROM[name] in values}, **values}
