"""Writes docs/report.schema.json from the dataclasses: ``python tests/report_schema.py``."""

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
    definitions[cls.__name__] = _object({name: _of(hints[name], definitions) for name in names})


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), **more}


def _strings() -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}}


def schema() -> dict[str, Any]:
    """The schema of ``gpudoctor check --format json``."""
    definitions: dict[str, Any] = {"Unknown": UNKNOWN}
    _define(Facts, definitions)
    text, code = {"type": "string"}, {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"}
    fix = _object(
        {
            "step": {"type": "string", "pattern": "^[a-z0-9-]+#[a-z0-9-]+$"},
            "where": {"enum": list(WHERE)},
            "risk": {"enum": list(RISK)},
            "commands": _strings(),
            "verify": _strings(),
            "needs_root": {"type": "boolean"},
            "needs_reboot": {"type": "boolean"},
            "words": text,
        }
    )
    finding = _object(
        {
            "code": code,
            "severity": {"enum": list(typing.get_args(Severity))},
            "summary": text,
            "cause": text,
            "evidence": {"type": "array", "items": _object({"source": text, "text": text})},
            "fix": fix,
        }
    )
    check = _object(
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
        **_object(
            {
                "schema": {"const": SCHEMA},
                "gpudoctor": text,
                "status": {"enum": ["pass", "warn", "fail", "unknown"]},
                "root_causes": {"type": "array", "items": code},
                "checks": {"type": "array", "items": {"$ref": "#/$defs/check"}},
                "facts": {"$ref": "#/$defs/Facts"},
            }
        ),
        "$defs": {"check": check, "finding": finding, **definitions},
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
