"""What PyTorch says of itself once it is imported, in a child of the target interpreter: the one thing its files cannot tell."""

from __future__ import annotations

from gpudoctor.facts import TorchImport, Unknown
from gpudoctor.probes import torch_import_report, worker
from gpudoctor.probes.scope import Scope

DEADLINE = worker.IMPORT_DEADLINE


def look(scope: Scope) -> TorchImport | None | Unknown:
    """How the import went; None when there is no torch to import. A smoke test that follows is not waited for."""
    if scope.python is None:
        return None
    answer = worker.of(scope).imported()
    return answer if isinstance(answer, Unknown) else torch_import_report.read(answer)
