"""What one part of the check of PyTorch has to say; the check joins the parts."""

from __future__ import annotations

from dataclasses import dataclass

from gpudoctor.findings import Finding


@dataclass(frozen=True, slots=True)
class Part:
    """Findings, words for the check's one line, and what could not be known."""

    findings: tuple[Finding, ...] = ()
    words: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def fails(self) -> bool:
        """One of the findings is a fault."""
        return any(finding.severity == "fail" for finding in self.findings)
