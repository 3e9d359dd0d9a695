"""Signs of a download that has not finished, and the names under which the Hugging Face cache keeps a model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

_MOST = 10_000  # entries of a folder that are looked at


def names(folder: str) -> tuple[str, ...]:
    """The names in a folder, sorted; empty where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(entry.name for entry, _ in zip(entries, range(_MOST), strict=False)))
    except OSError:
        return ()


def unfinished(folder: str) -> int:
    """How many ``*.incomplete`` files lie in the folder or where huggingface_hub keeps them for it."""
    return sum(name.endswith(".incomplete") for place in _places(folder) for name in names(place))


def hint(folder: str) -> str:
    """What to say of them after a missing file; empty where there are none."""
    count = unfinished(folder)
    return "" if count == 0 else f" ({count} *.incomplete file{'s' if count > 1 else ''} beside it)"


def alike(paths: Iterable[str]) -> bool:
    """Whether two of these files are one and the same, by links: no model is, and thousands would be read one by one."""
    seen: set[tuple[int, int]] = set()
    for number, path in enumerate(paths):
        status = os.stat(path)
        seen.add((status.st_dev, status.st_ino))
        if len(seen) <= number:
            return True
    return False


def model_name(path: str) -> str:
    """What to call the checkpoint: the folder's or file's name, and for a snapshot in the cache the model's (org--name)."""
    parts = os.path.abspath(path).split(os.sep)
    if len(parts) >= 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].removeprefix("models--").replace("--", "/")
    return parts[-1] or os.sep


def _places(folder: str) -> Iterator[str]:
    yield folder
    yield os.path.join(folder, ".cache", "huggingface", "download")  # of `hf download --local-dir`
    if os.path.basename(os.path.dirname(os.path.abspath(folder))) == "snapshots":
        yield os.path.join(os.path.abspath(folder), os.pardir, os.pardir, "blobs")
    yield os.path.join(folder, "blobs")
