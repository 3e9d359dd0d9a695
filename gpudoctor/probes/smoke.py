"""A minimal generate in the target interpreter: what came of it, or why there was none."""

from __future__ import annotations

from gpudoctor.facts import Skipped, Smoke, TorchImport, Unknown
from gpudoctor.probes import smoke_report, torch_import_report, worker
from gpudoctor.probes.scope import Scope

NOT_ASKED = Skipped("not asked for")
NO_IMPORT = Skipped("PyTorch is not to be imported")


def look(scope: Scope) -> Smoke | Skipped | Unknown:
    """The smoke test that the scope asks for."""
    if scope.smoke is None:
        return NOT_ASKED
    if scope.python is None:
        return Skipped("there is no Python to run it in")
    child = worker.of(scope)
    ended = child.smoke()
    if isinstance(ended, worker.Ended):
        return _outcome(ended)
    if ended is not None:
        return ended
    imported = child.imported()
    return imported if isinstance(imported, Unknown) else _obstacle(torch_import_report.read(imported))


def deadline(scope: Scope) -> float:
    """Seconds that it takes at most, the import included."""
    return 0.0 if scope.smoke is None else worker.deadline(scope)


def _outcome(ended: worker.Ended) -> Smoke | Unknown:
    """Slow is not hung: what still spoke when its time was up is unknown."""
    if ended.answer.hung and not ended.silent:
        return Unknown(f"not done after {ended.seconds:.0f} s: {ended.heard.title}")
    return smoke_report.read(ended.plan, ended.heard, ended.answer, ended.seconds)


def _obstacle(imported: TorchImport | None | Unknown) -> Skipped | Unknown:
    """Why there was nothing to generate with: the other checks judge it."""
    if imported is None:
        return Skipped("PyTorch is not installed in the target interpreter")
    if isinstance(imported, Unknown):
        return imported
    at_import = imported.version is None
    if imported.hung:
        return Skipped("the import of PyTorch does not end" if at_import else "PyTorch hangs when it looks for a GPU")
    if imported.signal is not None:
        return Skipped(f"PyTorch dies of {imported.signal} when it {'is imported' if at_import else 'looks for a GPU'}")
    return Skipped("PyTorch does not import" if at_import else "PyTorch ended before it could be used")
