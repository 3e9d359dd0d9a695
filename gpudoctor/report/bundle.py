"""What a person is told of a bundle that has been prepared."""

from __future__ import annotations

from typing import Protocol

from gpudoctor.bundle.manifest import Manifest, Target
from gpudoctor.report.words import gib

MEBIBYTE = 1 << 20


class Speaker(Protocol):
    """Who tells the person."""

    def says(self, words: str) -> None:
        """One sentence."""

    def runs(self, command: str) -> None:
        """A command, on one line."""


def fetched(speaker: Speaker, path: str, made: Manifest, again: str) -> None:
    """What it holds, what it does not, and how to go on: the command ``again``."""
    size = gib(made.size) if made.size > 1 << 30 else f"{made.size / MEBIBYTE:.1f} MiB"
    debs = sum(file.path.endswith(".deb") for file in made.files)
    wheels = sum(file.path.endswith(".whl") for file in made.files)
    parts = [f"{debs} packages" if debs else "", f"{wheels} wheels" if wheels else ""]
    speaker.says(f"{path} is whole: {', '.join(part for part in parts if part) or f'{len(made.files)} files'}, {size}.")
    for left in made.left_out:
        speaker.says(f"Not in it: {left.step}, for {left.why}.")
    speaker.says("Carry it to the machine, and run there, in the folder that it lies in:")
    speaker.runs(again)


def beside(target: Target, again: str) -> str:
    """The text that lies beside the files, for whoever finds the folder."""
    return (
        f"What gpudoctor fetched for a machine without a network: {target.words}\n\n"
        f"On that machine, in the folder that holds this one:\n\n    {again}\n\n"
        f"It checks every file first, shows what it would do, and asks.\n"
    )
