"""Lets tests import ``tests.harness``, ``tests.trees`` and ``tests.fake_nvml`` however pytest is started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.append(ROOT)  # at the end: an installed gpudoctor is tested, not the folder beside it


def pytest_configure(config: pytest.Config) -> None:
    # typer imports names from click that click means to drop in its version 9; nothing of ours
    config.addinivalue_line("filterwarnings", "ignore:'click[.]:DeprecationWarning")
