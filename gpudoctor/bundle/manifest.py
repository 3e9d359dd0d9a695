"""What a bundle holds: bundle.json, written when everything else is there, and read before anything is taken from it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import gpudoctor

SCHEMA = "gpudoctor.bundle/1"
NAME = "bundle.json"
PARTIAL = "partial"
"""The folder of what is still being fetched; it is gone when the bundle is whole."""
STATUS = "status"
"""A copy of the offline machine's /var/lib/dpkg/status, which somebody may put into the folder beforehand."""
APT, WHEELS, FILES = "apt", "wheels", "files"
KEYRINGS = ("/usr/share/keyrings", "/etc/apt/keyrings", "/etc/apt/trusted.gpg.d")
_LIMIT = 64 << 20
_BLOCK = 1 << 20
_Row = TypeVar("_Row")


class NotABundle(ValueError):
    """It is not whole, not undamaged, or not a bundle at all; the message says what and what to do, in one line."""


@dataclass(frozen=True, slots=True)
class File:
    """One file: its path below the folder, its size in bytes, its SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Target:
    """The machine that it is for."""

    words: str
    """The headline of its report."""
    os_id: str
    os_version: str
    machine: str
    """As ``uname -m`` says it."""
    python: str | None
    """The tag of its interpreter in wheel names, such as cp310; None where no wheels are held."""


@dataclass(frozen=True, slots=True)
class Archive:
    """One list of an apt archive, in part: what a stanza of sources.list says of it."""

    folder: str
    """Its place below the bundle; dists and pool are in it."""
    suite: str
    component: str
    """Empty in an archive without dists ("flat")."""
    architecture: str
    signed_by: str
    """A keyring's path on the machine, or a key's fingerprint (several: joined by commas); empty where apt's own keyrings count."""
    brought: bool
    """A package that the bundle holds brings that keyring."""


@dataclass(frozen=True, slots=True)
class Held:
    """One section of the plan that is served from here."""

    step: str
    why: str
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One section that is not, and why: a clause."""

    step: str
    why: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """bundle.json."""

    prepared: str
    """When, in UTC: 2026-11-28T15:00:00Z."""
    target: Target
    steps: tuple[Held, ...]
    left_out: tuple[LeftOut, ...]
    holds: tuple[str, ...]
    """What may be fetched from here, in the words of ``fetches``."""
    archives: tuple[Archive, ...]
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def now() -> str:
    """The time as it is written down."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def measured(folder: Path, paths: Iterable[str], tell: Callable[[int], None]) -> Iterator[File]:
    """Size and hash of files below ``folder``; ``tell`` gets the bytes read so far. Raises OSError."""
    done = 0
    for path in paths:

        def read(count: int, before: int = done) -> None:
            tell(before + count)

        digest, size = _hashed(folder / path, read)
        done += size
        yield File(path, size, digest)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex; raises OSError."""
    return _hashed(path, lambda _: None)[0]


def _hashed(path: Path, tell: Callable[[int], None]) -> tuple[str, int]:
    """(hash, bytes)."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
            tell(size)
    return digest.hexdigest(), size


def write(folder: Path, manifest: Manifest) -> None:
    """Write it beside, and put it in its place in one go; raises OSError."""
    beside = folder / PARTIAL / NAME
    text = json.dumps({"schema": SCHEMA, "gpudoctor": gpudoctor.__version__, **asdict(manifest)}, indent=1, ensure_ascii=False)
    with beside.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / NAME)


def is_there(folder: Path) -> bool:
    """Whether that folder is a bundle that has been prepared to its end."""
    return (folder / NAME).is_file()


def read(folder: Path) -> Manifest:
    """What the folder says that it holds; raises NotABundle."""
    try:
        with (folder / NAME).open("rb") as file:
            data: Any = json.loads(file.read(_LIMIT))
    except OSError as error:
        raise NotABundle(f"{folder / NAME}: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        raise NotABundle(f"{folder / NAME} is damaged: copy the bundle again") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        known = isinstance(schema, str) and schema.startswith("gpudoctor.bundle/")
        raise NotABundle(
            f"{folder / NAME} is of {schema}, and this gpudoctor reads {SCHEMA}: take the gpudoctor that prepared it"
            if known
            else f"{folder / NAME} is not the list of a bundle"
        )
    try:
        return _of(data)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise NotABundle(f"{folder / NAME} is damaged: copy the bundle again") from None


def _of(data: dict[str, Any]) -> Manifest:
    return Manifest(
        prepared=str(data["prepared"]),
        target=Target(**data["target"]),
        steps=tuple(Held(str(row["step"]), str(row["why"]), tuple(row["commands"])) for row in data["steps"]),
        left_out=_rows(LeftOut, data["left_out"]),
        holds=tuple(str(word) for word in data["holds"]),
        archives=tuple(_sound(archive) for archive in _rows(Archive, data["archives"])),
        files=tuple(_inside(file) for file in _rows(File, data["files"])),
    )


def _rows(kind: Callable[..., _Row], rows: list[dict[str, Any]]) -> tuple[_Row, ...]:
    return tuple(kind(**row) for row in rows)


def _inside(file: File) -> File:
    """Nothing outside the folder is read, whatever is written there."""
    path = PurePosixPath(file.path)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(file.path)
    return file


def _sound(archive: Archive) -> Archive:
    """Its words go into a sources.list, and decide whom apt trusts: no more than a word each, and keys of the machine's own."""
    said = (archive.folder, archive.suite, archive.component, archive.architecture)
    if not re.fullmatch(rf"{APT}/\d+", archive.folder) or any(re.search(r"[^!-~]", word) for word in said):
        raise ValueError(archive.folder)
    if archive.signed_by and not all(may_vouch(key) for key in archive.signed_by.split(",")):
        raise ValueError(archive.signed_by)
    return archive


def may_vouch(key: str) -> bool:
    """Whether that is the fingerprint of a key, or a keyring in a folder where the machine keeps its own."""
    if re.fullmatch(r"[0-9A-Fa-f]{16,}!?", key):
        return True
    return any(re.fullmatch(rf"{folder}/[\w.+-]+", key) for folder in KEYRINGS)


def check(folder: Path, manifest: Manifest, tell: Callable[[int], None]) -> None:
    """Raises NotABundle for the first file that is not there or not as it was; ``tell`` gets the bytes read so far."""
    for file in manifest.files:  # at once, before minutes of reading
        try:
            size = (folder / file.path).stat().st_size
        except OSError as error:
            raise NotABundle(f"{folder}: {file.path} cannot be read ({error.strerror}): copy the bundle again") from error
        if size != file.size:
            raise NotABundle(f"{folder}: {file.path} has {size} bytes and should have {file.size}: copy the bundle again")
    try:
        for wanted, found in zip(manifest.files, measured(folder, (file.path for file in manifest.files), tell), strict=True):
            if wanted != found:
                raise NotABundle(f"{folder}: {wanted.path} is not the file that was put there (SHA-256): copy the bundle again")
    except OSError as error:
        raise NotABundle(f"{folder}: a file cannot be read ({error.strerror}): copy the bundle again") from error
