"""Which kernel GRUB starts next: its menu where it can be read, else its settings, and the environment block that overrides both.

GRUB's variable ``default`` is a number (the first entry is 0), a title or an id; ``A>B`` is entry B of submenu A. The menu sets it
to ``next_entry`` of grubenv where that is set (grub-reboot, for one start), else to what GRUB_DEFAULT says, which is
``saved_entry`` of grubenv for GRUB_DEFAULT=saved (grub-set-default). What is not found is the first entry
(https://www.gnu.org/software/grub/manual/grub/grub.html, "Simple configuration" and "default").
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpudoctor.facts import ConfigLine, Unknown
from gpudoctor.probes import links

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpudoctor.probes.scope import Scope

FOLDER = "/boot/grub"
MENU = f"{FOLDER}/grub.cfg"
ENVIRONMENT = f"{FOLDER}/grubenv"
SETTINGS = "/etc/default/grub"
MORE_SETTINGS = "/etc/default/grub.d"
_SMALL, _LARGE = 1 << 16, 1 << 20
_LONGEST_LINE = 4096
_MOST_FILES = 64
_SHOWN = 300
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(GRUB_[A-Z_]+)=(.*?)\s*(?:#[^'\"]*)?")
_DEFAULT = re.compile(r"\s*set\s+default=\"?([^\"]*)\"?\s*")
_ENTRY = re.compile(r"\s*(?:menuentry|submenu)\s+(?:'((?:[^']|'\\'')*)'|\"([^\"]*)\")(?=[ \t{])(.*)\{\s*")
_ID = re.compile(r"(?:--id|\$menuentry_id_option)\s+['\"]?([^'\"\s]+)")
_KERNEL = re.compile(r"\s*linux(?:efi|16)?\s+(\S+)")
_RELEASE = re.compile(r"gnulinux-(\S+?)-(?:advanced|recovery|init)-|\bLinux (\S+)")
"""In an entry's id, or in its title, which is in the language of whoever ran update-grub."""


@dataclass(frozen=True, slots=True)
class Start:
    """The kernel that boots next, by what it is chosen (as in ``facts.NextBoot``), and the setting that does."""

    kernel: str | Unknown
    chosen_by: str = ""
    setting: ConfigLine | None = None


@dataclass(slots=True)
class Entry:
    """One entry of the menu; a submenu has entries of its own."""

    names: tuple[str, ...]
    kernel: str | None = None
    entries: list[Entry] = field(default_factory=list)


def next_start(scope: Scope, kernels: Sequence[str]) -> Start:
    """Which of ``kernels`` (releases with an image in /boot, the newest last) starts next; nothing is raised."""
    if not kernels:
        return Start(Unknown("no kernel is to be seen in /boot"))
    if not (links.exists(scope, FOLDER) or links.exists(scope, SETTINGS)):
        # another boot loader, whose choice is not read here
        only = Start(kernels[0], "only") if len(kernels) == 1 else None
        return only or Start(Unknown(f"which of the {len(kernels)} kernels in /boot is started: GRUB is not installed here"))
    block = _block(scope)
    if isinstance(block, Unknown):
        return Start(block)
    menu = scope.text(MENU, _LARGE)
    once = block.get("next_entry", "")
    if once:
        return _started(scope, menu, kernels, once, "once", _line(ENVIRONMENT, f"next_entry={once}"))
    setting, default = _default(scope, menu)
    if default != "saved":
        by = "first" if default in ("0", "") else "fixed"
        return _started(scope, menu, kernels, default, by, None if by == "first" else setting)
    saved = block.get("saved_entry", "")
    if not saved:
        return _started(scope, menu, kernels, "0", "first", None)
    return _started(scope, menu, kernels, saved, "saved", _line(ENVIRONMENT, f"saved_entry={saved}"))


def settings(scope: Scope) -> dict[str, ConfigLine]:
    """The variables of /etc/default/grub and the files that override it, each with the file that has the last word."""
    found: dict[str, ConfigLine] = {}
    names = [name for name in scope.names(MORE_SETTINGS) if name.endswith(".cfg")][:_MOST_FILES]
    for path in (SETTINGS, *(f"{MORE_SETTINGS}/{name}" for name in names)):
        for line in _lines(scope.text(path, _SMALL)):
            match = _ASSIGNMENT.fullmatch(line)
            if match:
                found[match[1]] = _line(path, match[2].strip("'\""))
    return found


def _default(scope: Scope, menu: str | None) -> tuple[ConfigLine, str]:
    """The setting that names the entry, and the entry: "saved" for the one in the environment block."""
    assigned = [match[1] for line in _lines(menu) if (match := _DEFAULT.fullmatch(line)) and match[1] != "${next_entry}"]
    if assigned:
        default = "saved" if assigned[-1] == "${saved_entry}" else assigned[-1]
        return _line(MENU, f"default={default}"), default
    written = settings(scope).get("GRUB_DEFAULT", ConfigLine(SETTINGS, "0"))
    return _line(written.path, f"GRUB_DEFAULT={written.text}"), written.text


def _block(scope: Scope) -> dict[str, str] | Unknown:
    """The variables that GRUB keeps between two starts."""
    text = scope.text(ENVIRONMENT, _SMALL)
    if text is None and links.is_file(scope, ENVIRONMENT):
        return Unknown(f"{ENVIRONMENT}, where GRUB keeps its choice, cannot be read")
    pairs = (line.partition("=") for line in _lines(text) if not line.startswith("#"))
    return {name: value.strip() for name, equals, value in pairs if equals}


def _started(scope: Scope, menu: str | None, kernels: Sequence[str], entry: str, by: str, setting: ConfigLine | None) -> Start:
    entries = _entries(menu)
    found = _by_menu(scope, entries, entry) if entries else _by_name(scope, kernels, entry)
    if isinstance(found, str) and found not in kernels:
        found = Unknown(f"GRUB is set to start kernel {links.printable(found)[:_SHOWN]}, which is not in /boot")
    if isinstance(found, Unknown):
        return Start(found)
    return Start(found, by, setting)


def _by_menu(scope: Scope, entries: list[Entry], wanted: str) -> str | Unknown:
    """The kernel of the entry that GRUB would take."""
    path = wanted.split(">")
    chosen: Entry | None = None
    while entries:
        chosen = _find(entries, path.pop(0) if path else "")
        entries = chosen.entries
    if chosen is None or chosen.kernel is None:
        title = chosen.names[0] if chosen and chosen.names else wanted
        return Unknown(f"GRUB's menu starts {links.printable(title)[:_SHOWN]!r}, which is no kernel of this system")
    return _release(scope, chosen.kernel)


def _find(entries: list[Entry], wanted: str) -> Entry:
    if re.fullmatch(r"[0-9]{1,4}", wanted) and int(wanted) < len(entries):
        return entries[int(wanted)]
    return next((entry for entry in entries if wanted in entry.names), entries[0])


def _release(scope: Scope, image: str) -> str | Unknown:
    """The release in the name of a kernel's image; /boot/vmlinuz leads to one that has it."""
    name = posixpath.basename(image)
    if name in ("vmlinuz", "vmlinux"):
        name = posixpath.basename(links.real_path(scope, f"/boot/{name}") or links.real_path(scope, f"/{name}") or name)
    _, dash, release = name.partition("-")
    return release if dash else Unknown(f"GRUB's menu starts {links.printable(image)[:_SHOWN]}, whose name has no release")


def _by_name(scope: Scope, kernels: Sequence[str], wanted: str) -> str | Unknown:
    """The kernel by the entry's name alone, for a menu that only root may read."""
    if wanted in ("", "0") or wanted.startswith("gnulinux-simple-"):
        return _first(scope, kernels)
    match = _RELEASE.search(wanted.rpartition(">")[2])
    if match:
        return match[1] or match[2]
    entry = links.printable(wanted)[:_SHOWN]
    return Unknown(f"GRUB is set to start {entry!r}, and its menu {MENU}, which says what that is, cannot be read")


def _first(scope: Scope, kernels: Sequence[str]) -> str:
    """GRUB lists the newest kernel first; with GRUB_FLAVOUR_ORDER, that of the first of these flavours."""
    order = settings(scope).get("GRUB_FLAVOUR_ORDER")
    for flavour in order.text.split() if order else ():
        mine = [release for release in kernels if release.endswith(f"-{flavour}")]
        if mine:
            return mine[-1]
    return kernels[-1]


def _entries(menu: str | None) -> list[Entry]:
    """The menu's entries in their order, submenus with theirs."""
    top = Entry(())
    inside = [top]  # the entry that each open brace belongs to
    for line in _lines(menu):
        match = _ENTRY.fullmatch(line)
        if match:
            identity = _ID.search(match[3])
            title = (match[1] or match[2] or "").replace("'\\''", "'")
            entry = Entry((title, *((identity[1],) if identity else ())))
            inside[-1].entries.append(entry)
            inside.append(entry)
        elif line.rstrip().endswith("{"):
            inside.append(inside[-1])  # a function, or a block in an entry
        elif line.strip() == "}" and len(inside) > 1:
            inside.pop()
        elif inside[-1] is not top and inside[-1].kernel is None and (kernel := _KERNEL.match(line)):
            inside[-1].kernel = kernel[1]
    return top.entries


def _lines(text: str | None) -> Iterator[str]:
    return (line for line in (text or "").splitlines() if len(line) <= _LONGEST_LINE)


def _line(path: str, text: str) -> ConfigLine:
    return ConfigLine(links.printable(path), links.printable(text)[:_SHOWN])
