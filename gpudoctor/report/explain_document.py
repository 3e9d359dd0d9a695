"""The answer to a pasted text as a versioned JSON document (docs/explain.schema.json)."""

from __future__ import annotations

import json
from typing import Any

import gpudoctor
from gpudoctor.explain import Explanation
from gpudoctor.findings import Finding
from gpudoctor.report.document import finding_document
from gpudoctor.steps import Step

SCHEMA = "gpudoctor.explain/1"


def document(answer: Explanation, steps: dict[Finding, Step]) -> dict[str, Any]:
    """As plain data: the findings, the likeliest cause first."""
    status = "fault" if answer.settled else "unsettled" if answer.asks else "none"
    return {
        "schema": SCHEMA,
        "gpudoctor": gpudoctor.__version__,
        "status": status,
        "findings": [finding_document(finding, steps[finding]) for finding in answer.findings],
        "ranking": [{"code": f.code, "sure": f.sure, "apart": f.apart} for f in answer.findings],
        "asks": answer.asks,
    }


def render(answer: Explanation, steps: dict[Finding, Step]) -> str:
    """As JSON text; what is no Unicode text is escaped."""
    return json.dumps(document(answer, steps), indent=2, ensure_ascii=True) + "\n"
