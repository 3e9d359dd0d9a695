"""nvidia-smi as people paste it: the banner of every release, the table of GPUs and processes, -L, -q and -q -x."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gpudoctor.facts import NvidiaSmi
from gpudoctor.probes.smi import CUDA, DRIVER

_BANNER = re.compile(r"NVIDIA-SMI[ \t]{1,4}(\d{3}[\d.]{0,12})")
_MEMORY = re.compile(r"(\d{1,7})MiB[ \t]{0,4}/[ \t]{0,4}(\d{1,7})MiB")
_ROW = re.compile(r"^\|[ \t]{1,6}(\d{1,3})[ \t]{1,6}([A-Za-z][^|\n]{2,40}?)[ \t.]{1,40}(?:On|Off|WDDM|TCC|N/A|ERR!|\.\.\.)")
_LISTED = re.compile(r"^\s{0,8}GPU (\d{1,3}): ([^\n(]{2,60}?)(?: \(UUID: (GPU-[0-9a-f-]{8,40})\))?\s{0,8}$")
_PROCESS = re.compile(
    r"^\|[ \t]{1,6}(\d{1,3})[ \t]{1,8}(?:(?:N/A|\d{1,3})[ \t]{1,6}(?:N/A|\d{1,3})[ \t]{1,8})?(\d{1,10})[ \t]{1,8}"
    r"(C\+G|C|G|M\+C)[ \t]{1,6}(\S[^|\n]{0,80}?)[ \t]{1,80}(\d{1,7}MiB|N/A)[ \t]{0,4}\|"
)
_QUERY = re.compile(r"^\s{0,60}(?P<name>[A-Z][\w ./-]{1,40}?)\s{1,60}: (?P<value>[^\n]{0,80})$")
_XML = re.compile(
    r"<(?P<name>driver_version|cuda_version|product_name|compute_cap|minor_number|total|free|used)>(?P<value>[^<\n]{1,80})<"
)
_WORDS = ("NVIDIA-SMI", "GPU 0", "GPU 1", "MiB", "Product Name", "Driver Version", "CUDA Version", "KMD Version", "<driver_version")
_COMPUTE_MODE = re.compile(r"\b(E\. Process|Prohibited|E\. Thread)\b")


@dataclass(slots=True)
class Card:
    """One GPU of the screen. Sizes are MiB; None where nothing is said."""

    index: int
    name: str
    total: int | None = None
    used: int | None = None
    mode: str | None = None
    processes: list[tuple[int, str, str, int | None]] = field(default_factory=list)
    """(pid, kind, command, MiB)."""


@dataclass(slots=True)
class Screen:
    """What the text shows of nvidia-smi."""

    banner: NvidiaSmi | None = None
    driver: str | None = None
    cuda: str | None = None
    cards: dict[int, Card] = field(default_factory=dict)


def read(text: str) -> Screen:
    """Everything that looks like nvidia-smi."""
    screen = Screen()
    if not any(word in text for word in _WORDS):
        return screen
    screen.driver, screen.cuda = _first(DRIVER, text), _first(CUDA, text)
    banner = _BANNER.search(text)
    if banner and screen.driver is None:
        screen.driver = banner.group(1)
    last: Card | None = None
    for line in text.splitlines():
        last = _line(screen, line[:200], last)
    _xml(screen, text)
    if banner or screen.cards:
        shown = next((line for line in text.splitlines() if "NVIDIA-SMI" in line), "")[:200]
        screen.banner = NvidiaSmi("nvidia-smi", None, screen.driver, screen.cuda, shown)
    return screen


def _line(screen: Screen, line: str, last: Card | None) -> Card | None:
    """One line; returns the GPU that the next one may go on about."""
    listed = _LISTED.match(line)
    if listed:
        return screen.cards.setdefault(int(listed.group(1)), Card(int(listed.group(1)), listed.group(2).strip()))
    process = _PROCESS.match(line)
    if process:
        card = screen.cards.get(int(process.group(1)))
        if card is not None:
            size = process.group(5).removesuffix("MiB")
            card.processes.append(
                (int(process.group(2)), process.group(3), process.group(4), int(size) if size.isdigit() else None)
            )
        return last
    row = _ROW.match(line)
    if row:
        return screen.cards.setdefault(int(row.group(1)), Card(int(row.group(1)), row.group(2).strip(" .")))
    memory = _MEMORY.search(line)
    if memory and last is not None and last.total is None:
        last.used, last.total = int(memory.group(1)), int(memory.group(2))
    mode = _COMPUTE_MODE.search(line)
    if mode and last is not None:
        last.mode = mode.group(1)
    return _queried(screen, line, last)


def _queried(screen: Screen, line: str, last: Card | None) -> Card | None:
    """A line of nvidia-smi -q."""
    match = _QUERY.match(line)
    if match is None:
        return last
    name, value = match.group("name").strip(), match.group("value").strip()
    if name == "Product Name":
        return screen.cards.setdefault(len(screen.cards), Card(len(screen.cards), value))
    if name == "Driver Version" and screen.driver is None:
        screen.driver = value
    elif name == "CUDA Version" and screen.cuda is None and value[:1].isdigit():
        screen.cuda = value
    return last


def _xml(screen: Screen, text: str) -> None:
    """nvidia-smi -q -x."""
    if "<nvidia_smi_log" not in text and "<driver_version>" not in text:
        return
    for match in _XML.finditer(text):
        name, value = match.group("name"), match.group("value").strip()
        if name == "driver_version":
            screen.driver = screen.driver or value
        elif name == "cuda_version":
            screen.cuda = screen.cuda or value
        elif name == "product_name":
            screen.cards[len(screen.cards)] = Card(len(screen.cards), value)
        elif screen.cards and value.endswith(" MiB") and value[:-4].isdigit():
            card = screen.cards[max(screen.cards)]
            if name == "total" and card.total is None:
                card.total = int(value[:-4])
            elif name == "used" and card.used is None:
                card.used = int(value[:-4])


def _first(patterns: tuple[re.Pattern[str], ...], text: str) -> str | None:
    return next((match.group(1) for pattern in patterns if (match := pattern.search(text))), None)
