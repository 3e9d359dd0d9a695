"""Lets tests import ``tests.harness``, ``tests.trees`` and ``tests.fake_nvml`` however pytest is started."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.append(ROOT)  # at the end: an installed gpudoctor is tested, not the folder beside it
