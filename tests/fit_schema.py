"""Writes docs/fit.schema.json, the schema of ``gpudoctor fit --format json``: ``python -m tests.fit_schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpudoctor.memory.runtimes import RUNTIMES
from gpudoctor.report.fit_document import PARTS, SCHEMA
from tests.report_schema import record

PATH = Path(__file__).parent.parent / "docs" / "fit.schema.json"
TEXT, SIZE = {"type": "string"}, {"type": "integer", "minimum": 0}
ACTIONS = ("free-memory", "shorter", "upgrade-runtime", "8-bit", "4-bit", "smaller-model", "offload", "more-gpus", "bigger-card")
VERDICTS = ("fits", "tight", "no")


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def schema() -> dict[str, Any]:
    """The schema of one count."""
    holder = record(
        {"pid": SIZE, "name": TEXT, "user": _or_null(TEXT), "kind": {"enum": ["compute", "graphics"]}, "bytes": _or_null(SIZE)}
    )
    gpu = record({"name": TEXT, "count": SIZE, "here": {"type": "boolean"}, "total": _or_null(SIZE), "held_by": _list(holder)})
    option = record(
        {
            "action": {"enum": list(ACTIONS)},
            "summary": TEXT,
            "need": SIZE,
            "fits": {"type": "boolean"},
            "verdict": {"enum": list(VERDICTS)},
            "commands": _list(TEXT),
        }
    )
    work = record(dict.fromkeys(("batch", "prompt_tokens", "new_tokens", "max_seq_len", "gpus"), SIZE))
    host = record({"memory": SIZE, "memory_free": _or_null(SIZE), "download": SIZE, "disk_free": _or_null(SIZE), "why": TEXT})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A count of gpudoctor fit",
        **record(
            {
                "schema": {"const": SCHEMA},
                "gpudoctor": TEXT,
                "model": TEXT,
                "format": {"enum": ["hf", "meta", "gguf", "llama2c", None]},
                "parameters": SIZE,
                "runtime": {"enum": [runtime.name for runtime in RUNTIMES]},
                "runtime_version": _or_null(TEXT),
                "dtype": TEXT,
                "work": work,
                "need": record(dict.fromkeys(PARTS, SIZE)),
                "need_least": SIZE,
                "need_most": SIZE,
                "gpu": _or_null(gpu),
                "free": _or_null(SIZE),
                "verdict": {"enum": [*VERDICTS, None]},
                "reason": _or_null(TEXT),
                "options": _list(option),
                "host": host,
                "notes": _list(TEXT),
            }
        ),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
