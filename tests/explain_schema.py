"""Writes docs/explain.schema.json, the schema of ``gpudoctor explain --format json``: ``python -m tests.explain_schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpudoctor.report.explain_document import SCHEMA
from tests.report_schema import CODE, TEXT, finding, record

PATH = Path(__file__).parent.parent / "docs" / "explain.schema.json"


def schema() -> dict[str, Any]:
    """The schema of one answer."""
    ranked = record({"code": CODE, "sure": {"type": "integer", "minimum": 0, "maximum": 100}, "apart": TEXT})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An answer of gpudoctor explain",
        **record(
            {
                "schema": {"const": SCHEMA},
                "gpudoctor": TEXT,
                "status": {"enum": ["fault", "unsettled", "none"]},
                "findings": {"type": "array", "items": finding(), "maxItems": 3},
                "ranking": {"type": "array", "items": ranked, "maxItems": 3},
                "asks": {"anyOf": [TEXT, {"type": "null"}]},
            }
        ),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
