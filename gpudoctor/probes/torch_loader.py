"""Which library files the dynamic loader would take for PyTorch, in the order in which ``import torch`` opens them.

The search follows ld.so(8) and glibc's elf/dl-load.c: a library that is loaded already under its soname wins; then DT_RPATH of
the requester, of whoever loaded it and so on up, and of the program (all only where the requester has no DT_RUNPATH); then
LD_LIBRARY_PATH; then the requester's own DT_RUNPATH; then the folders of ld.so.conf; then the default ones. A file for another
machine is passed over; one that is no ELF file ends the search with an error, as it does there.

The order of PyTorch's own openings is that of torch/__init__.py: libtorch_global_deps.so, then (in some releases) libraries
opened by their path so that they win over others, then torch._C. What it opens by path is read from its text: see preloads().
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpudoctor.probes import elf, interpreter
from gpudoctor.probes.scope import Scope

RPATH, LD_LIBRARY_PATH, PRELOAD, CONF, DEFAULT = "rpath", "LD_LIBRARY_PATH", "preload", "ld.so.conf", "default"
LOADED = "loaded"
OPENED_LATER = {"libcudnn.so.9": "libcudnn_graph.so.9", "libcudnn.so.8": "libcudnn_ops_infer.so.8"}
"""What a library opens by soname when it is first used. libcudnn.so is a dispatcher: the part behind it does the work and says
the version. Up to cuDNN 9.19 it looks through its DT_RUNPATH, so that LD_LIBRARY_PATH can put a stranger's part behind it."""
_CONF_LIMIT = 200  # folders; a sound ld.so.conf has a dozen


@dataclass(frozen=True, slots=True)
class Taken:
    """A library as the loader would take it: ``path`` is the name by which it opens the file."""

    path: str
    by: str
    dynamic: elf.Dynamic | None
    """None for a file that the loader would refuse."""
    requester: Taken | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Preloads:
    """The libraries that torch/__init__.py opens by path: (folder below nvidia/, pattern) in order."""

    always: tuple[tuple[str, str], ...] = ()
    """After libtorch_global_deps.so, where ``condition`` occurs in the path of a loaded file."""
    condition: str = ""
    required: bool = True
    """One that is missing ends the series."""
    fallback: tuple[tuple[str, str], ...] = ()
    """Before a second try, when libtorch_global_deps.so misses one of them."""


def resolve(
    soname: str, requester: str | Path, scope: Scope, *, loaded: Sequence[str] = (), program: str | None = None
) -> Taken | None:
    """The file that the loader would take for ``soname`` when ``requester`` needs it; None when there is none.

    ``loaded`` are libraries that the process has already opened (a soname of theirs wins); ``program`` is the executable, whose
    RPATH counts too.
    """
    process = Process(scope, program=program)
    for path in loaded:
        process.open(path)
    try:
        dynamic = elf.dynamic(requester)
    except elf.NotElf:
        dynamic = None
    return process.find(soname, Taken(str(requester), "given", dynamic))


@dataclass(slots=True)
class Process:
    """A process that loads libraries: what is loaded under which soname, and what was not found."""

    scope: Scope
    program: str | None = None
    loaded: dict[str, Taken] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Soname -> the file that needs it."""
    refused: dict[str, Taken] = field(default_factory=dict)
    """Soname -> the file that the loader would take and could not load."""
    _main: Taken | None = None
    _paths: set[str] = field(default_factory=set)
    _read: dict[str, elf.Dynamic | elf.NotElf] = field(default_factory=dict)
    _system: tuple[tuple[str, str], ...] = ()
    _names: dict[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._system = tuple(_system_folders(self.scope))
        if self.program is not None:
            # the loader's $ORIGIN of a program is that of the file that the kernel ran, behind all links
            self._main = self._taken(os.path.realpath(self.program), "program", None)
            self._needs(self._main)
        for name in re.split(r"[\s:]+", self.scope.environ.get("LD_PRELOAD", "")):
            if "/" in name:
                self.open(name)
            elif name:
                self._need(name, None)

    def open(self, path: str | Path) -> Taken | None:
        """Open a library by path with all that it needs, as ``dlopen`` does; None when it cannot be opened."""
        taken = self._taken(str(path), PRELOAD, None)
        if taken.dynamic is None:
            return None
        self._add(os.path.basename(path), taken)
        self._needs(taken)
        return taken

    def find(self, soname: str, requester: Taken | None) -> Taken | None:
        """The file for a soname that ``requester`` needs; nothing is loaded."""
        if soname in self.loaded:
            return self.loaded[soname]
        for folder, by in self._folders(requester):
            path = os.path.join(folder, soname)
            if not self._exists(folder, soname):
                continue
            taken = self._taken(path, by, requester)
            if taken.error != LOADED:
                return taken
        return None

    def use(self, soname: str) -> None:
        """Load what a loaded library opens on its first use."""
        later = OPENED_LATER.get(soname)
        if later is not None and soname in self.loaded:
            taken = self._need(later, self.loaded[soname])
            if taken is not None:
                self._needs(taken)

    def _need(self, soname: str, requester: Taken | None) -> Taken | None:
        if "/" in soname:
            taken: Taken | None = self._taken(soname, "path", requester)
        else:
            taken = self.find(soname, requester)
        if taken is None:
            self.missing.setdefault(soname, requester.path if requester else "LD_PRELOAD")
            return None
        if taken.dynamic is None:
            self.refused.setdefault(soname, taken)
            return None
        if soname in self.loaded:
            return None
        return taken if self._add(soname, taken) else None

    def _needs(self, first: Taken) -> None:
        """Load what ``first`` needs, breadth first, as the loader does."""
        waiting = deque([first])
        while waiting:
            requester = waiting.popleft()
            for soname in requester.dynamic.needed if requester.dynamic else ():
                taken = self._need(soname, requester)
                if taken is not None:
                    waiting.append(taken)

    def _add(self, name: str, taken: Taken) -> bool:
        """Enter a library under its names; False when the same file is loaded already."""
        real = os.path.realpath(taken.path)
        self.loaded.setdefault(name, taken)
        if taken.dynamic is not None and taken.dynamic.soname:
            self.loaded.setdefault(taken.dynamic.soname, taken)
        if real in self._paths:
            return False
        self._paths.add(real)
        return True

    def _folders(self, requester: Taken | None) -> Iterator[tuple[str, str]]:
        if requester is None or requester.dynamic is None or not requester.dynamic.runpath:
            above = requester
            while above is not None:
                yield from ((folder, RPATH) for folder in _rpath(above))
                above = above.requester
            if self._main is not None:
                yield from ((folder, RPATH) for folder in _rpath(self._main))
        paths = self.scope.environ.get("LD_LIBRARY_PATH", "")
        yield from ((folder or ".", LD_LIBRARY_PATH) for folder in (re.split("[:;]", paths) if paths else ()))
        if requester is not None and requester.dynamic is not None:
            yield from ((folder, RPATH) for folder in _expanded(requester.dynamic.runpath, requester.path))
        yield from self._system

    def _exists(self, folder: str, name: str) -> bool:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))
            except OSError:
                self._names[folder] = frozenset()
        return name in self._names[folder] and os.path.exists(os.path.join(folder, name))

    def _taken(self, path: str, by: str, requester: Taken | None) -> Taken:
        if path not in self._read:
            try:
                self._read[path] = elf.dynamic(path)
            except elf.NotElf as error:
                self._read[path] = error
        found = self._read[path]
        wanted = self._main.dynamic.machine if self._main is not None and self._main.dynamic is not None else None
        if isinstance(found, elf.OtherMachine):
            return Taken(path, by, None, requester, LOADED)
        if isinstance(found, elf.NotElf):
            return Taken(path, by, None, requester, str(found))
        if wanted is not None and found.machine != wanted:
            return Taken(path, by, None, requester, LOADED)
        return Taken(path, by, found, requester)


def import_torch(folder: Path, scope: Scope, *, program: str | None, search: Sequence[str], cuda: str | None) -> Process:
    """The process after ``import torch`` of the PyTorch in ``folder``.

    ``search`` is the interpreter's path, ``cuda`` the CUDA of the build.
    """
    process = Process(scope, program=program)
    first = preloads(folder, interpreter.here(scope))
    deps = folder / "lib" / "libtorch_global_deps.so"
    _open_global_deps(process, deps, first, search, cuda)
    if first.condition and any(first.condition in taken.path for taken in process.loaded.values()):
        _preload(process, first.always, first.required, search, cuda)
    for extension in sorted(folder.glob("_C.*.so")) + sorted(folder.glob("_C.so")):
        process.open(extension)
    return process


def _open_global_deps(process: Process, deps: Path, first: Preloads, search: Sequence[str], cuda: str | None) -> None:
    """Open libtorch_global_deps.so; where it misses a CUDA library, open those of the wheels by path and try again."""
    trial = Process(process.scope, program=process.program)
    trial.open(deps)
    stems = {pattern.split(".so")[0] for _, pattern in first.fallback}
    if any(soname.split(".so")[0] in stems for soname in trial.missing):
        _preload(process, first.fallback, True, search, cuda)
    process.open(deps)


def _preload(process: Process, wanted: Sequence[tuple[str, str]], required: bool, search: Sequence[str], cuda: str | None) -> None:
    for folder, pattern in wanted:
        path = _wheel_library(folder, pattern, search, cuda)
        if path is not None:
            process.open(path)
        elif required:
            return


def _wheel_library(folder: str, pattern: str, search: Sequence[str], cuda: str | None) -> str | None:
    """Where a wheel keeps a library: nvidia/FOLDER/lib, nvidia/cuNN/lib from CUDA 13 on, or FOLDER/lib."""
    places = [f"nvidia/{folder}/lib", f"{folder}/lib"]
    if cuda is not None:
        places.insert(1, f"nvidia/cu{cuda.split('.', 1)[0]}/lib")
    for path in search:
        for place in places:
            found = glob.glob(os.path.join(glob.escape(os.path.join(path, place)), pattern))
            if found:
                return found[0]
    return None


def preloads(folder: Path, scope: Scope) -> Preloads:
    """What torch/__init__.py opens by path, read from its text.

    Up to 2.1 a fallback only; later releases also look for libcudart among the mapped files and open nvrtc and nvJitLink, or
    the whole list, before torch._C (pytorch issues 138460 and 145580).
    """
    text = scope.text(str(folder / "__init__.py")) or ""
    pairs = tuple(re.findall(r'\(\s*"(\w+)",\s*"(lib[\w-]+\.so[^"]*)"', text))
    mapping = tuple(re.findall(r"""["'](\w+)["']: ["'](lib[\w-]+\.so[^"']*)["']""", text))
    condition = re.search(r'if "([^"]*libcudart\.so[^"]*)" not in', text)
    return Preloads(
        always=pairs if condition else (),
        condition=condition[1] if condition else "",
        required=not re.search(r"_preload_cuda_deps\(required=False\)", text),
        fallback=mapping or pairs,
    )


def _rpath(taken: Taken) -> Iterator[str]:
    if taken.dynamic is not None and not taken.dynamic.runpath:
        yield from _expanded(taken.dynamic.rpath, taken.path)


def _expanded(folders: Sequence[str], path: str) -> Iterator[str]:
    """Search folders with the loader's tokens filled in."""
    origin = os.path.dirname(os.path.abspath(path))
    for folder in folders:
        whole = re.sub(r"\$\{?ORIGIN\}?", lambda _: origin, folder)
        yield re.sub(r"\$\{?LIB\}?", "lib", whole) or "."


def _system_folders(scope: Scope) -> Iterator[tuple[str, str]]:
    """The folders of ld.so.conf, then the default ones (Debian's multiarch folders come with ld.so.conf.d there)."""
    for folder in _conf(scope, "/etc/ld.so.conf", set()):
        yield str(scope.path(folder)), CONF
    machine = os.uname().machine
    for folder in (f"/lib/{machine}-linux-gnu", f"/usr/lib/{machine}-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"):
        yield str(scope.path(folder)), DEFAULT


def _conf(scope: Scope, name: str, seen: set[str]) -> list[str]:
    """The folders that an ld.so.conf file names, with the files it includes."""
    if name in seen or len(seen) > _CONF_LIMIT:
        return []
    seen.add(name)
    folders: list[str] = []
    for line in (scope.text(name) or "").splitlines():
        text = line.split("#", 1)[0].strip()
        if text.startswith("include"):
            for pattern in text.split()[1:]:
                for included in _matches(scope, os.path.join(os.path.dirname(name), pattern)):
                    folders += _conf(scope, included, seen)
        elif text.startswith("/"):
            folders += [part.split("=", 1)[0] for part in re.split(r"[\s:,]+", text) if part]
    return folders[:_CONF_LIMIT]


def _matches(scope: Scope, pattern: str) -> list[str]:
    """The files that an include pattern names, as the machine itself would name them."""
    base = str(scope.path("/")).rstrip("/")
    found = glob.iglob(glob.escape(base) + pattern)
    return [path[len(base) :] for path in sorted(itertools.islice(found, _CONF_LIMIT))]
