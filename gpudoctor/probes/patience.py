"""What asks a file system outside a probe, with a deadline: one whose server is gone never answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def answered(ask: Callable[[], T], seconds: float) -> T | None:
    """What ``ask`` returns or raises; None when it takes longer: a file system may never answer."""
    results: list[T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(ask())
        except Exception as error:  # noqa: BLE001 - raised below, in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=work, name="answered", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    return results[0] if results else None
