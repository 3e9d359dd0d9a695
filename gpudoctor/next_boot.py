"""What would keep the GPU from working after the next start."""

from __future__ import annotations

from gpudoctor.facts import Facts
from gpudoctor.findings import Finding


def ahead(facts: Facts) -> tuple[Finding, ...]:
    """The faults of the next start; empty when none is seen."""
    return ()
