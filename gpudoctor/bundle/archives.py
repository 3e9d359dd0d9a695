"""apt's part of a bundle: packages with all that they depend on, and the signed lists that vouch for them.

apt itself chooses and fetches, with the machine's own sources, keys, proxies and preferences, but with lists, archives and
state of its own below the bundle: so nothing needs root, and nothing of the machine's own is touched. Each list goes into the
bundle exactly as its maker signed it, for apt on the offline machine checks it again.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from gpudoctor.bundle.bench import Bench, NotPrepared, own_folder
from gpudoctor.bundle.fetches import Driver, Packages
from gpudoctor.bundle.manifest import APT, KEYRINGS, STATUS, Archive, may_vouch, sha256

_URI = re.compile(r"^'([^']+)' (\S+) \d+ ", re.MULTILINE)
_IGNORED = "Some index files failed to download"
_SIGNED_BY = re.compile(r"\bsigned-by=([^\s\]]+)")
_STANZA_FIELD = re.compile(r"^Signed-By:[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _List:
    """One Packages list that apt has fetched, from ``apt-get indextargets``."""

    file: Path
    named: Path
    """Its place in the folder of lists, which may be a link to ``file``."""
    prefix: str
    """What the names of this archive's release files in the folder of lists begin with."""
    index: str
    """Packages below the folder of the release: main/binary-amd64/Packages."""
    base: str
    """That folder below the archive: dists/jammy/, or empty."""
    repository: str
    suite: str
    component: str
    architecture: str
    signed_by: str

    @property
    def releases(self) -> tuple[tuple[Path, str], ...]:
        """The release files that are there, and their names in the archive."""
        named = [(self.named.with_name(f"{self.prefix}{name}"), name) for name in ("InRelease", "Release", "Release.gpg")]
        return tuple((path, name) for path, name in named if path.is_file())


class Apt:
    """One preparation. ``same_machine``: it is for the machine that it runs on, whose installed packages then count."""

    def __init__(self, bench: Bench, *, same_machine: bool) -> None:
        self._bench = bench
        self._place = bench.partial / "apt"
        self._archives = self._place / "archives"
        self._brought = self._settings = self._place  # until begin
        self._same_machine = same_machine
        self._given_status = bench.folder / STATUS
        self._current = False
        self._hashes: dict[Path, str] = {}
        self._needed: set[str] = set()
        """The names of the files that apt will want."""

    @property
    def knows_what_is_installed(self) -> bool:
        """Whether the packages of the machine that it is for are known."""
        return self._same_machine or self._given_status.is_file()

    def begin(self) -> None:
        """Make the folders that apt wants. Raises NotPrepared."""
        with self._bench.writing():
            for name in ("lists/partial", "archives/partial", "nothing/partial"):
                (self._place / name).mkdir(parents=True, exist_ok=True)
            (self._place / "empty").touch()
        with self._bench.writing(self._bench.shell.root / "tmp"):  # no path of a keyring may have a blank in it
            scratch = own_folder(self._bench.shell.root, "gpudoctor-apt-")
            self._brought, self._settings = scratch / "brought", scratch / "etc"
            self._brought.mkdir()

    # ------------------------------------------------------------ what sections do

    def download(self, packages: Packages) -> None:
        """Fetch packages and what they depend on. Raises NotPrepared."""
        if not packages.names and not self.knows_what_is_installed:
            return
        self._update()
        words = shlex.join([*packages.options, "install", *packages.names])
        nothing = f"-o Dir::Cache::archives={shlex.quote(self._bench.inside(self._place / 'nothing'))}"
        told = self._bench.ask(self._line(f"apt-get --quiet --quiet --yes --print-uris {nothing} {words}"), "machine")
        self._bench.run(f"apt-get --download-only {words}", self._line(f"apt-get --yes --download-only {words}"), "machine")
        with self._bench.writing():
            for uri, name in _URI.findall(told.stdout):
                self._needed.add(name)
                if uri.startswith("file:"):  # apt leaves those where they are
                    shutil.copyfile(self._bench.outside(_path_of(uri)), self._archives / name)

    def driver(self, driver: Driver, flavour: str | None, kernel: str) -> None:
        """All that ubuntu-drivers may decide for when it runs there: the module prebuilt for the kernel's flavour, or by DKMS."""
        self._update()
        branch, kernels = driver.branch, [name for name in (flavour, kernel) if name]
        mains = [f"nvidia-driver-{branch}", *([f"nvidia-headless-no-dkms-{branch}"] if driver.compute_only else [])]
        options = ("--no-install-recommends",) if driver.compute_only else ()
        prebuilt = self._existing(f"linux-modules-nvidia-{branch}-{name}" for name in kernels)
        built = self._existing([f"nvidia-dkms-{branch}", *(f"linux-headers-{name}" for name in kernels)])
        for main in self._existing(mains) or mains:
            for modules in [*filter(None, (prebuilt, built)), []]:  # with none named apt decides
                self.download(Packages((main, *modules), options))

    def unpack(self, deb: Path) -> None:
        """A package that brings an archive and its key: from now on packages come from there too. Raises NotPrepared."""
        line = shlex.join(["dpkg-deb", "--extract", self._bench.inside(deb), self._bench.inside(self._brought)])
        self._bench.run(f"dpkg-deb --extract {deb.name}", line, "machine")
        with self._bench.writing():
            folder = self._folder_of_settings("sources.list.d")
            for source in sorted((self._brought / "etc/apt/sources.list.d").glob("*")):
                if not (folder / source.name).exists():  # it is set up on this machine already
                    text = _SIGNED_BY.sub(lambda match: f"signed-by={self._key_here(match[1])}", source.read_text(encoding="utf-8"))
                    (folder / source.name).write_text(text, encoding="utf-8")
            preferences = self._folder_of_settings("preferences.d")
            for file in sorted((self._brought / "etc/apt/preferences.d").glob("*")):
                shutil.copyfile(file, preferences / file.name)
        self._current = False

    def settings(self, line: str, path: str) -> None:
        """A line that writes a file below /etc/apt: it is written for this preparation alone. Raises NotPrepared."""
        folder, _, name = path.removeprefix("/etc/apt/").partition("/")
        with self._bench.writing():
            to = self._folder_of_settings(folder) / name
        aside = line.replace(f"| sudo tee {path}", f"| tee {shlex.quote(self._bench.inside(to))}")
        self._bench.run(f"tee {path} (for this preparation alone)", f"{aside} >/dev/null", "machine")

    def _key_here(self, keyring: str) -> str:
        there = self._brought / keyring.lstrip("/")
        return self._bench.inside(there) if there.exists() else keyring

    def _folder_of_settings(self, name: str) -> Path:
        """A copy of that folder of the machine's own settings, to which more is added."""
        folder = self._settings / name
        if not folder.is_dir():
            key = {"sources.list.d": "sourceparts", "preferences.d": "preferencesparts"}[name]
            told = self._bench.ask(f"apt-config shell place Dir::Etc::{key}/d", "machine").stdout
            own = self._bench.outside(re.sub(r"^place='?(.*?)'?$", r"\1", told.strip()))
            folder.mkdir(parents=True)
            for file in sorted(own.iterdir()) if own.is_dir() else ():
                if file.is_file():
                    shutil.copyfile(file, folder / file.name)
        return folder

    # ------------------------------------------------------------ how apt is asked

    def _update(self) -> None:
        if self._current:
            return
        output = self._bench.run("apt-get update", self._line("apt-get update"), "machine")
        if _IGNORED in output:  # apt calls that a success
            raise self._bench.failure("apt-get update", output, "did not reach every archive")
        self._current = True

    def _existing(self, packages: Iterable[str]) -> list[str]:
        """Those that an archive has."""
        return [
            package
            for package in packages
            if self._bench.ask(self._line(f"apt-cache madison {shlex.quote(package)}"), "machine").stdout.strip()
        ]

    def _line(self, command: str) -> str:
        """The command with this preparation's folders. Options win over everything that apt.conf says."""
        program, _, rest = command.partition(" ")
        inside = self._bench.inside
        status = inside(self._given_status if self._given_status.is_file() else self._place / "empty")
        options = {
            "Dir::State": inside(self._place),
            "Dir::State::lists": inside(self._place / "lists"),
            "Dir::Cache": inside(self._place),
            "Dir::Cache::archives": inside(self._archives),
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Acquire::GzipIndexes": "false",
            "Acquire::Languages": "none",
            "APT::Update::Error-Mode": "any",
            # which machine is asked decides which updates are offered early; the offline one is another
            "APT::Get::Always-Include-Phased-Updates": "true",
        }
        if not self._same_machine or self._given_status.is_file():
            options["Dir::State::status"] = status
        else:
            options["Dir::State::status"] = "/var/lib/dpkg/status"
        for name, key in (("sources.list.d", "sourceparts"), ("preferences.d", "preferencesparts")):
            if (self._settings / name).is_dir():
                options[f"Dir::Etc::{key}"] = inside(self._settings / name)
        told = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return f"{program} {shlex.join(told)} {rest}"

    # ------------------------------------------------------------ what goes into the bundle

    def gathered(self) -> tuple[list[tuple[Path, str]], list[Archive]]:
        """(files and their places in the bundle, what a sources.list says of them). Raises NotPrepared."""
        wanted = {_package_of(path): path for path in map(self._fetched, sorted(self._needed))}
        placed: dict[str, Path] = {}
        archives: dict[Archive, None] = {}
        repositories: dict[tuple[str, str], str] = {}
        with self._bench.writing():
            for listed in self._lists() if wanted else ():
                found = self._listed(listed, wanted)
                if not found:
                    continue
                folder = repositories.setdefault((listed.repository, listed.signed_by), f"{APT}/{len(repositories)}")
                for package, place in found:
                    placed[f"{folder}/{place.removeprefix('./')}"] = wanted.pop(package)
                placed |= {f"{folder}/{listed.base}{name}": path for path, name in self._signed(listed)}
                placed[f"{folder}/{listed.base}{listed.index}"] = listed.file
                archives[self._archive(listed, folder)] = None
        if wanted:
            names = ", ".join(path.name for path in wanted.values())
            for path in wanted.values():
                path.unlink()
            raise NotPrepared(f"{names}: no signed list vouches for what was fetched. It was removed. {self._bench.again()}")
        return [(path, place) for place, path in placed.items()], list(archives)

    def _fetched(self, name: str) -> Path:
        path = self._archives / name
        if not path.is_file():
            raise NotPrepared(f"apt did not leave {name}, which it will want. {self._bench.again()}")
        return path

    def _listed(self, listed: _List, wanted: Mapping[tuple[str, str, str], Path]) -> list[tuple[tuple[str, str, str], str]]:
        """The wanted packages that this list names with the hash of the file that is here, and their places in the archive."""
        found = []
        names = {name for name, _, _ in wanted}
        for stanza in listed.file.read_text(encoding="utf-8", errors="replace").split("\n\n"):
            if not stanza.startswith("Package: ") or stanza[9:].partition("\n")[0] not in names:
                continue
            fields = dict(line.split(": ", 1) for line in stanza.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
            package = (fields["Package"], fields["Version"], fields["Architecture"])
            if package in wanted and fields.get("SHA256") == self._hash(wanted[package]):
                found.append((package, fields["Filename"]))
        return found

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = sha256(path)
        return self._hashes[path]

    def _signed(self, listed: _List) -> Sequence[tuple[Path, str]]:
        releases = listed.releases
        text = "".join(path.read_text(encoding="utf-8", errors="replace") for path, name in releases if name != "Release.gpg")
        if not any(name in ("InRelease", "Release.gpg") for _, name in releases):
            raise NotPrepared(
                f"{listed.repository} is not signed: apt on the offline machine would refuse it. Use a signed archive"
            )
        if sha256(listed.file) not in text:
            raise NotPrepared(
                f"{listed.repository}: its signed list does not name the uncompressed {listed.index}, so it cannot be taken along"
            )
        return releases

    def _archive(self, listed: _List, folder: str) -> Archive:
        here = self._bench.inside(self._brought)
        keys = [key.removeprefix(here) for key in re.split(r"[,\s]+", listed.signed_by) if key]
        if not all(may_vouch(key) for key in keys):
            raise NotPrepared(
                f"{listed.repository}: its key has to be a file below {KEYRINGS[0]} or {KEYRINGS[1]}, here and on the machine "
                f"without a network. Put it there and name it in signed-by. {self._bench.again()}"
            )
        brought = any(key.startswith("/") and (self._brought / key.lstrip("/")).exists() for key in keys)
        return Archive(folder, listed.suite, listed.component, listed.architecture, ",".join(keys), brought)

    def _lists(self) -> Iterator[_List]:
        told = self._bench.ask(self._line("apt-get indextargets 'Created-By: Packages'"), "machine").stdout
        for stanza in told.strip().split("\n\n"):
            fields = {name: value.strip() for name, _, value in (line.partition(":") for line in stanza.splitlines())}
            file = self._bench.outside(fields.get("Filename", "/"))
            real = self._bench.outside(os.readlink(file)) if file.is_symlink() else file  # apt links to what is on this disk
            if not real.is_file():
                continue
            index = fields["MetaKey"]
            yield _List(
                file=real,
                named=file,
                prefix=file.name.removesuffix(index.replace("/", "_")),
                index=index,
                base=fields["Base-URI"].removeprefix(fields["Repo-URI"]),
                repository=fields["Repo-URI"],
                suite=fields.get("Release") or "/",
                component=fields.get("Component", ""),
                architecture=fields.get("Architecture", ""),
                signed_by=self._signed_by(fields.get("Sourcesentry", "")),
            )

    def _signed_by(self, entry: str) -> str:
        """The key of a source, which stands at ``entry``: a file and the number of its line, or stanza."""
        path, _, number = entry.rpartition(":")
        text = self._bench.outside(path).read_text(encoding="utf-8")
        if not path.endswith(".sources"):
            match = _SIGNED_BY.search(text.splitlines()[int(number) - 1])
            return match[1] if match else ""
        stanzas = [part for part in re.split(r"\n[ \t]*\n", text) if re.search(r"^[^#\s]", part, re.MULTILINE)]
        match = _STANZA_FIELD.search(stanzas[int(number) - 1])
        return match[1].strip("\n") if match else ""


def _package_of(path: Path) -> tuple[str, str, str]:
    name, version, architecture = unquote(path.name.removesuffix(".deb")).split("_")
    return name, version, architecture


def _path_of(uri: str) -> str:
    return unquote(re.sub(r"^file:/*", "/", uri))
