"""Where a bundle is put together: its folder, what is still being fetched in it, and how programs are run meanwhile."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpudoctor.bundle.manifest import PARTIAL
from gpudoctor.probes import child
from gpudoctor.setup import failures, live
from gpudoctor.setup.shell import Shell

ANSWER_SECONDS = 120.0
"""apt reads some hundred MB of lists for an answer, on a slow stick too."""
_ANSWER_LIMIT = 32 << 20


class NotPrepared(Exception):
    """The bundle is not whole; the message says why and what to do, in one line. What was fetched is kept."""


class Speaker(Protocol):
    """Who tells the person."""

    def runs(self, command: str) -> None:
        """A command is started."""

    def output(self, chunk: bytes) -> None:
        """What it prints."""


@dataclass(frozen=True, slots=True)
class Bench:
    """``folder`` is the bundle's."""

    folder: Path
    shell: Shell
    speaker: Speaker
    environ: Mapping[str, str]

    @property
    def partial(self) -> Path:
        """What is still being fetched."""
        return self.folder / PARTIAL

    def inside(self, path: Path) -> str:
        """The path as a program of the machine's own root sees it."""
        return seen_from(self.shell.root, path)

    def outside(self, path: str) -> Path:
        """The other way round."""
        return self.shell.root / path.lstrip("/")

    def run(self, shown: str, line: str, where: str, more: Mapping[str, str] | None = None) -> str:
        """Run a line of shell live and return the end of its output; ``shown`` stands for it. Raises NotPrepared."""
        self.speaker.runs(shown)
        try:
            with contextlib.closing(live.Session(attended=self.shell.attended)) as session:
                variables = {**self.shell.environment(where, self.environ), **(more or {})}
                ended = session.run(self.shell.command(line, where), variables, self.speaker.output)
        except OSError as error:
            raise NotPrepared(f"{shown}: {error.strerror or error}. {self.again()}") from error
        if ended.interrupted:
            raise NotPrepared(f"You stopped it. {self.again()}")
        if ended.code != 0 or ended.hung:
            raise self.failure(shown, ended.output, "gave no word for too long" if ended.hung else f"failed ({ended.code})")
        return ended.output

    def ask(self, line: str, where: str) -> child.Answer:
        """Run a line for its answer, which nobody is shown. Raises NotPrepared where none comes."""
        try:
            answer = child.run(
                self.shell.command(line, where),
                deadline=ANSWER_SECONDS,
                env=self.shell.environment(where, self.environ),
                output_limit=_ANSWER_LIMIT,
            )
        except child.NotStarted as error:
            raise NotPrepared(f"{line}: {error}. {self.again()}") from error
        if answer.hung:
            raise NotPrepared(f"{shlex.split(line)[0]} gave no answer within {ANSWER_SECONDS:g} s. {self.again()}")
        return answer

    def failure(self, shown: str, output: str, how: str) -> NotPrepared:
        """What a failed command means, as far as it is known."""
        known = failures.recognised(output)
        if known is None:
            return NotPrepared(f"{shown} {how}; the lines above say why. {self.again()}")
        return NotPrepared(f"{shown} {how}. {known.says} Seen: {known.line.rstrip('.')}. {self.again()}")

    def again(self) -> str:
        """What to do after something was put right."""
        return f"{self.folder} is not whole yet: run the same command again, and it goes on there"

    @contextlib.contextmanager
    def writing(self, place: Path | None = None) -> Iterator[None]:
        """A disk that is full, or a stick that is gone, is said in one line. ``place``: where it is not the bundle itself."""
        try:
            yield
        except (OSError, shutil.Error) as error:
            raise NotPrepared(
                f"{place or self.folder} cannot be written ({getattr(error, 'strerror', None) or error}). {self.again()}"
            ) from error


def own_folder(root: Path, prefix: str) -> Path:
    """A new folder that programs below ``root`` see, and that is gone when we leave; raises OSError."""
    place = Path(tempfile.mkdtemp(prefix=prefix, dir=root / "tmp"))
    child.when_leaving(lambda: shutil.rmtree(place, ignore_errors=True))
    place.chmod(0o755)
    return place


def seen_from(root: Path, path: Path) -> str:
    """``path`` as it is called below ``root``; raises ValueError where it is not there."""
    return os.path.join("/", path.relative_to(root))
