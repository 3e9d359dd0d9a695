"""Writes docs/report.schema.json from the dataclasses: ``python -m tests.report_schema``."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

from gpudoctor.facts import Facts, Unknown
from gpudoctor.findings import Severity, Status
from gpudoctor.report.document import SCHEMA
from gpudoctor.steps import RISK, WHERE

PATH = Path(__file__).parent.parent / "docs" / "report.schema.json"
UNKNOWN = {"type": "object", "properties": {"unknown": {"type": "string"}}, "required": ["unknown"], "additionalProperties": False}
NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def _of(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of(option, definitions) for option in options]}
    if origin is tuple:
        if options[-1] is Ellipsis:
            return {"type": "array", "items": _of(options[0], definitions)}
        return {
            "type": "array",
            "prefixItems": [_of(o, definitions) for o in options],
            "minItems": len(options),
            "maxItems": len(options),
        }
    if hint is Unknown:
        return {"$ref": "#/$defs/Unknown"}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        _define(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    return {"type": NAMES[hint]}


def _define(cls: type, definitions: dict[str, Any]) -> None:
    if cls.__name__ in definitions:
        return
    definitions[cls.__name__] = {}
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    definitions[cls.__name__] = record({name: _of(hints[name], definitions) for name in names})


def of_field(cls: type, name: str) -> dict[str, Any]:
    """The schema of one plain field of a dataclass."""
    return _of(typing.get_type_hints(cls)[name], {})


def record(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An object that has all of these keys."""
    return {"type": "object", "properties": properties, "required": list(properties), **more}


def _strings() -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}}


TEXT = {"type": "string"}
CODE = {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"}


def finding() -> dict[str, Any]:
    """One finding with its cure, as every document has it."""
    fix = record(
        {
            "step": {"type": "string", "pattern": "^[a-z0-9-]+#[a-z0-9-]+$"},
            "where": {"enum": list(WHERE)},
            "risk": {"enum": list(RISK)},
            "commands": _strings(),
            "verify": _strings(),
            "needs_root": {"type": "boolean"},
            "needs_reboot": {"type": "boolean"},
            "words": TEXT,
        }
    )
    return record(
        {
            "code": CODE,
            "severity": {"enum": list(typing.get_args(Severity))},
            "summary": TEXT,
            "cause": TEXT,
            "evidence": {"type": "array", "items": record({"source": TEXT, "text": TEXT})},
            "fix": fix,
        }
    )


def schema() -> dict[str, Any]:
    """The schema of ``gpudoctor check --format json``."""
    definitions: dict[str, Any] = {"Unknown": UNKNOWN}
    _define(Facts, definitions)
    text, code = TEXT, CODE
    check = record(
        {
            "name": text,
            "title": text,
            "status": {"enum": list(typing.get_args(Status))},
            "summary": text,
            "findings": {"type": "array", "items": {"$ref": "#/$defs/finding"}},
            "blocked_by": {"anyOf": [code, {"type": "null"}]},
            "seconds": {"type": "number", "minimum": 0},
        }
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A report of gpudoctor check",
        **record(
            {
                "schema": {"const": SCHEMA},
                "gpudoctor": text,
                "status": {"enum": ["pass", "warn", "fail", "unknown"]},
                "root_causes": {"type": "array", "items": code},
                "checks": {"type": "array", "items": {"$ref": "#/$defs/check"}},
                "facts": {"$ref": "#/$defs/Facts"},
            }
        ),
        "$defs": {"check": check, "finding": finding(), **definitions},
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
