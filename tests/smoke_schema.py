"""Writes docs/smoke.schema.json, the schema of ``gpudoctor smoke --format json``: ``python -m tests.smoke_schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpudoctor.facts import Smoke
from gpudoctor.report.smoke_document import PROVED, SCHEMA
from gpudoctor.smoke.plan import PHASES
from tests.report_schema import finding, of_field, record

PATH = Path(__file__).parent.parent / "docs" / "smoke.schema.json"
TEXT, NUMBER, WHOLE = {"type": "string"}, {"type": "number"}, {"type": "integer"}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def schema() -> dict[str, Any]:
    """The schema of one smoke test."""
    completion = record(
        {"prompt": TEXT, "tokens": _list(WHOLE), "text": _or_null(TEXT), "logprobs": _or_null(_list(_or_null(NUMBER)))}
    )
    checkpoint = record(
        {"name": TEXT, "format": TEXT, "parameters": _or_null(WHOLE), "weights": {"enum": ["real", "random"]}},
    )
    size = {"type": "integer", "minimum": 0}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A smoke test of gpudoctor smoke",
        **record(
            {
                "schema": {"const": SCHEMA},
                "gpudoctor": TEXT,
                "status": {"enum": ["pass", "warn", "fail", "unknown"]},
                "root_causes": _list(TEXT),
                "phase": _or_null({"enum": list(PHASES)}),
                "reason": _or_null(TEXT),
                "checkpoint": checkpoint,
                "device": {"enum": ["cuda", "cpu", None]},
                "device_name": _or_null(TEXT),
                "dtype": _or_null(TEXT),
                "processes": _or_null(WHOLE),
                "backend": {"enum": ["nccl", "gloo", None]},
                "new_tokens": _or_null(WHOLE),
                "tokens_per_second": _or_null(NUMBER),
                "seconds_to_first_token": _or_null(NUMBER),
                "seconds_total": _or_null(NUMBER),
                "peak_memory_bytes": _or_null(size),
                "bytes_per_token": _or_null(size),
                "measured_bandwidth": _or_null(size),
                "predicted_memory_bytes": _or_null(size),
                "memory_bandwidth_fraction": _or_null(NUMBER),
                "memory_bandwidth": _or_null(size),
                "memory_bandwidth_source": {"enum": ["table", "measured", None]},
                "proofs": record({name: of_field(Smoke, name) for name in PROVED}),
                "completions": _list(completion),
                "notes": _list(TEXT),
                "findings": _list(finding()),
            }
        ),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
