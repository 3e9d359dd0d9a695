"""The versioned JSON document: a diagnosis with the facts it was made from, and reading it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gpudoctor
from gpudoctor import codec
from gpudoctor.diagnose import CheckResult, Diagnosis
from gpudoctor.facts import Facts
from gpudoctor.findings import Finding
from gpudoctor.steps import Step

SCHEMA = "gpudoctor.report/1"
READ_LIMIT = 64 << 20


class NotAReport(ValueError):
    """The file is not a report of gpudoctor; the message says what is wrong with it, in one line."""


def document(facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step]) -> dict[str, Any]:
    """The report as plain data (docs/report.schema.json). ``steps`` holds each finding's cure with its values filled in."""
    return {
        "schema": SCHEMA,
        "gpudoctor": gpudoctor.__version__,
        "status": diagnosis.status,
        "root_causes": list(diagnosis.root_causes),
        "checks": [_check(check, steps) for check in diagnosis.checks],
        "facts": codec.to_json(facts),
    }


def render(facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step]) -> str:
    """The report as JSON text. What is no Unicode text (half a surrogate in a path) is escaped, so it can always be written."""
    return json.dumps(document(facts, diagnosis, steps), indent=2, ensure_ascii=True) + "\n"


def read(path: Path) -> Facts:
    """The facts in a report; raises NotAReport, or OSError when the file cannot be read."""
    with path.open("rb") as file:
        data = file.read(READ_LIMIT + 1)
    if len(data) > READ_LIMIT:
        raise NotAReport(f"larger than {READ_LIMIT >> 20} MiB, which no report is")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NotAReport(f"not JSON, or cut short ({error})") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        schema = found.get("schema") if isinstance(found, dict) else None
        other = json.dumps(schema[:40]) if isinstance(schema, str) else "another document"
        raise NotAReport(f'expected a document of schema "{SCHEMA}", found {other}')
    try:
        return codec.from_json(Facts, found.get("facts"))
    except (codec.NotOurs, RecursionError) as error:
        raise NotAReport(str(error)) from error


def _check(check: CheckResult, steps: dict[Finding, Step]) -> dict[str, Any]:
    return {
        "name": check.name,
        "title": check.title,
        "status": check.status,
        "summary": check.summary,
        "findings": [finding_document(finding, steps[finding]) for finding in check.findings],
        "blocked_by": check.blocked_by,
        "seconds": check.seconds,
    }


def finding_document(finding: Finding, step: Step) -> dict[str, Any]:
    """One finding with its cure, as plain data."""
    return {
        "code": finding.code,
        "severity": finding.severity,
        "summary": finding.summary,
        "cause": finding.cause,
        "evidence": [{"source": e.source, "text": e.text} for e in finding.evidence],
        "fix": {
            "step": step.step,
            "where": step.where,
            "risk": step.risk,
            "commands": list(step.commands),
            "verify": list(step.verify),
            "needs_root": step.needs_root,
            "needs_reboot": step.needs_reboot,
            "words": step.prose,
        },
    }
