"""The checks, one file or small folder per layer of the stack, in the order in which a report shows them.

A check sees Facts and nothing else, and returns a Verdict. Facts with a complaint (a pasted text) are judged by its rules in
``told``, of which each check asks for its own codes. To add a fault: judge it in the check of its layer and list
its code there, describe its cure in one section of an install page, and record one machine that has it.

The folder is importable as ``gpudoctor.checks`` only, hence the relative imports.
"""

from __future__ import annotations

from gpudoctor.findings import Check

from . import cuda_toolkit, cudnn, driver, nccl, next_boot, pytorch, smoke, told, vram

_LAYERS = (driver.CHECK, cuda_toolkit.CHECK, cudnn.CHECK, nccl.CHECK, pytorch.CHECK, vram.CHECK, smoke.CHECK)

CHECKS: tuple[Check, ...] = tuple(told.listening(check) for check in _LAYERS)

ON_REQUEST: tuple[Check, ...] = (told.listening(next_boot.CHECK),)
"""Run only when they are asked for by name, and shown after the layers: ``diagnose(facts, also=("next_boot",))``."""
