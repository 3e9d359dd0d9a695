"""What a person is told of a bundle that has been prepared."""

from __future__ import annotations

from typing import Protocol

from gpudoctor.bundle.manifest import Manifest
from gpudoctor.report.words import gib

MEBIBYTE = 1 << 20


class Speaker(Protocol):
    """Who tells the person."""

    def says(self, words: str) -> None:
        """One sentence."""


def fetched(speaker: Speaker, path: str, made: Manifest) -> None:
    """What it holds, what it does not, and how to go on."""
    size = gib(made.size) if made.size > 1 << 30 else f"{made.size / MEBIBYTE:.1f} MiB"
    debs = sum(file.path.endswith(".deb") for file in made.files)
    wheels = sum(file.path.endswith(".whl") for file in made.files)
    parts = [f"{debs} packages" if debs else "", f"{wheels} wheels" if wheels else ""]
    speaker.says(f"{path} is whole: {', '.join(part for part in parts if part) or f'{len(made.files)} files'}, {size}.")
    for left in made.left_out:
        speaker.says(f"Not in it: {left.step}, for {left.why}.")
    speaker.says(f"Carry it to the machine and run there: gpudoctor setup --bundle {path.rstrip('/').rpartition('/')[2] or path}")
