"""The root that every machine begins as: made once, kept in the user's cache, copied for each machine.

Two layers, each a folder named after what it was made from: Debian's files by debootstrap (half a minute, from the network),
and this world on top (seconds, without it). A copy is made so quickly that nothing has to be mounted, and nothing can stay mounted.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.root import mirror, world
from tests.root.world import CHROOT

HERE = Path(__file__).parent
SUITE, VARIANT = "bookworm", "minbase"
INCLUDED = ("gpg", "gpgv", "gpg-agent", "gpgconf", "sudo", "openssl", "linux-base", "procps", "ca-certificates")
SWEPT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists", "var/cache/apt", "usr/share/info")
SHARED = Path("usr/lib/x86_64-linux-gnu")
"""What machines have as hard links: dpkg and ldconfig put new files in the place of old ones, and nobody else changes libraries."""
LEAST_FREE = 2 << 30
KEPT = 3 * 86400.0
"""Seconds that a root is kept unused: another checkout may be at work with its own."""


class CannotBeMade(Exception):
    """Why there can be no machine here."""


def base() -> Path:
    """The finished root, made if need be; skips the test, with the reason, where it cannot be made here.

    Where GPUDOCTOR_ROOT_TESTS is "required" that is a failure: a machine that should have looked has not.
    """
    made = _once()
    if isinstance(made, CannotBeMade):
        if os.environ.get("GPUDOCTOR_ROOT_TESTS") == "required":
            pytest.fail(f"no machine can be made here: {made}")
        pytest.skip(f"no machine can be made here: {made}")
    if fingerprint(made) != _note(made).read_text():
        shutil.rmtree(made)
        _once.cache_clear()
        pytest.fail(f"somebody wrote into a file below {SHARED} that all machines share; the root will be made anew")
    return made


@functools.cache
def _once() -> Path | CannotBeMade:
    """What came of it; a failure is not tried again by the next test."""
    try:
        return _finished()
    except CannotBeMade as reason:
        return reason


def _finished() -> Path:
    _require()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpudoctor-tests"
    cache.mkdir(parents=True, exist_ok=True)
    recipe = f"{SUITE} {VARIANT} {INCLUDED} {SWEPT}"
    debian = _made(cache, "debian", recipe.encode(), _debootstrap)
    return _made(cache, "root", debian.name.encode() + _sources(), lambda target: _on_top(debian, target))


def _require() -> None:
    for reason, missing in (
        ("this user is not root, and only root can make and enter a root", os.geteuid() != 0),
        ("there is no debootstrap", shutil.which("debootstrap") is None),
        ("there is no chroot", not Path(CHROOT).exists()),
    ):
        if missing:
            raise CannotBeMade(reason)


def _sources() -> bytes:
    """Everything that decides what the world's layer contains."""
    files = [path for folder in (HERE, HERE.parent / "fake_nvml") for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in files if path.suffix in (".c", ".py", ".sh", "") and path.name not in ("causes.py", "machine.py")]
    return b"".join(hashlib.sha256(path.read_bytes()).digest() for path in kept)


def _made(cache: Path, kind: str, recipe: bytes, make: Callable[[Path], None]) -> Path:
    """The cached folder of this recipe. It appears at once and complete, or not at all; those that nobody used for days go."""
    name = f"{kind}-{hashlib.sha256(recipe).hexdigest()[:16]}"
    with _locked(cache / f"{kind}.lock"):
        if not (cache / name).is_dir():
            for stale in (*cache.glob(f"{kind}-*"), *cache.glob("making-*")):
                if time.time() - stale.stat().st_mtime > KEPT:
                    shutil.rmtree(stale, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix="making-", dir=cache) as scratch:
                target = Path(scratch) / "root"
                make(target)
                target.rename(cache / name)
        os.utime(cache / name)
    return cache / name


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _debootstrap(target: Path) -> None:
    if shutil.disk_usage(target.parent).free < LEAST_FREE:
        raise CannotBeMade("less than 2 GiB are free")
    command = [
        *_with_mounts_of_its_own(),
        "debootstrap",
        f"--variant={VARIANT}",
        f"--include={','.join(INCLUDED)}",
        SUITE,
        str(target),
    ]
    command += filter(None, [mirror.mirror(SUITE)])
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=540, env=mirror.environ())
    if made.returncode != 0:
        raise CannotBeMade(f"debootstrap failed: {(made.stdout + made.stderr)[-400:]}")
    try:
        (target / "dev/null").write_bytes(b"x")
    except OSError as error:
        raise CannotBeMade(f"devices do not work below {target.parent}: {error}") from error
    for place in SWEPT:
        shutil.rmtree(target / place, ignore_errors=True)


def _with_mounts_of_its_own() -> tuple[str, ...]:
    """Before a command that mounts something: its mounts go with it, however it ends. Nothing where that cannot be had."""
    alone = ("unshare", "--mount")
    able = shutil.which(alone[0]) and subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0
    return alone if able else ()


def _on_top(debian: Path, target: Path) -> None:
    _cp([debian], target.parent)
    (target.parent / debian.name).rename(target)
    world.furnish(target)
    _note(target).write_text(fingerprint(target))


def _note(root: Path) -> Path:
    """Where the fingerprint of what is shared was written down."""
    return root / "root/shared-files"


def copy(source: Path, target: Path) -> None:
    """A copy with owners, modes, links and devices; the libraries, half of it all, are hard links."""
    target.mkdir(mode=0o755, parents=True)
    _cp_beside(source, target, SHARED.parts)
    same = source.stat().st_dev == target.stat().st_dev
    _cp([source / SHARED], (target / SHARED).parent, *(["--link"] if same else []))


def _cp_beside(source: Path, target: Path, left_out: tuple[str, ...]) -> None:
    """Everything but the path ``left_out``, whose own folders are made."""
    first, *rest = left_out
    _cp([path for path in source.iterdir() if path.name != first], target)
    if rest:
        (target / first).mkdir(mode=0o755)
        _cp_beside(source / first, target / first, tuple(rest))


def _cp(paths: list[Path], folder: Path, *options: str) -> None:
    subprocess.run(["cp", "--archive", *options, *map(str, paths), str(folder)], check=True, timeout=120)


def fingerprint(root: Path) -> str:
    """Of the files that all machines share: it changes when somebody writes into one."""
    files = ((path, path.lstat()) for path in sorted((root / SHARED).rglob("*")) if not path.is_dir())
    told = "".join(f"{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n" for path, status in files)
    return hashlib.sha256(told.encode()).hexdigest()
