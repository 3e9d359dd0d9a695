"""One small Debian package, and a signed archive of many: what dpkg and apt read, written without their tools."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_PROGRAMS = ("/bin/", "/sbin/", "/cron.", "/postinst.d/", "/header_postinst.d/", "/outside/")


@dataclass(frozen=True)
class Deb:
    """A package. ``files`` is path -> content; text that begins with "-> " is a link. ``scripts`` are its postinst and the like."""

    name: str
    version: str
    fields: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    architecture: str = "amd64"

    @property
    def file_name(self) -> str:
        """As it lies in an archive; an epoch is left out, as there."""
        return f"{self.name}_{self.version.rpartition(':')[2]}_{self.architecture}.deb"

    @property
    def control(self) -> str:
        """Its stanza."""
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": self.architecture,
            "Maintainer": "the tests <tests@localhost>",
            "Section": "misc",
            "Priority": "optional",
            **self.fields,
            "Description": "small stand-in for the package of this name",
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)

    def data(self) -> bytes:
        """The .deb itself: an ar archive of three members."""
        conffiles = "".join(f"{path}\n" for path in self.files if path.startswith("/etc/"))
        triggers = "activate-noawait ldconfig\n" if any(".so." in path for path in self.files) else ""
        control = {
            "/control": self.control,
            "/conffiles": conffiles,
            "/triggers": triggers,
            **{f"/{name}": text for name, text in self.scripts.items()},
        }
        members = (
            ("debian-binary", b"2.0\n"),
            ("control.tar.gz", _tar({path: text for path, text in control.items() if text}, always=0o755)),
            ("data.tar.gz", _tar(self.files)),
        )
        return b"!<arch>\n" + b"".join(_ar(name, data) for name, data in members)


def write_archive(folder: Path, debs: Iterable[Deb], release: Mapping[str, str]) -> Path:
    """A flat archive (``deb file:FOLDER /``) in ``folder``; returns its Release, which is still to be signed."""
    folder.mkdir(parents=True, exist_ok=True)
    stanzas = []
    for deb in debs:
        data = deb.data()
        (folder / deb.file_name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        stanzas.append(f"{deb.control}Filename: ./{deb.file_name}\nSize: {len(data)}\nSHA256: {digest}\n")
    index = "\n".join(stanzas).encode()
    (folder / "Packages").write_bytes(index)
    fields = {**release, "Date": "Sat, 01 Jun 2024 00:00:00 UTC", "Architectures": "amd64 all"}
    text = "".join(f"{name}: {value}\n" for name, value in fields.items())
    text += f"SHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} Packages\n"
    (folder / "Release").write_text(text)
    return folder / "Release"


def instead_of(name: str) -> dict[str, str]:
    """The fields of a package that takes the place of every other one that stands for ``name``."""
    return {"Provides": name, "Conflicts": name, "Replaces": name}


def _ar(name: str, data: bytes) -> bytes:
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
    return head + data + b"\n" * (len(data) % 2)


def _tar(files: Mapping[str, str | bytes], always: int | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for folder in sorted({parent for path in files for parent in Path(path).parents} - {Path("/")}):
            tar.addfile(_entry(f".{folder}", tarfile.DIRTYPE, 0o755))
        for path, content in sorted(files.items()):
            if isinstance(content, str) and content.startswith("-> "):
                link = _entry(f".{path}", tarfile.SYMTYPE, 0o777)
                link.linkname = content[3:]
                tar.addfile(link)
                continue
            data = content.encode() if isinstance(content, str) else content
            mode = always or (0o755 if any(part in path for part in _PROGRAMS) else 0o644)
            entry = _entry(f".{path}", tarfile.REGTYPE, mode)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(stream.getvalue(), compresslevel=1, mtime=0)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry
