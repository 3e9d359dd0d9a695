"""The versioned JSON document of one smoke test, ``gpudoctor.smoke/1`` (docs/smoke.schema.json)."""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

import gpudoctor
from gpudoctor.diagnose import Diagnosis
from gpudoctor.facts import Completion, Facts, Skipped, Smoke, Unknown
from gpudoctor.findings import Finding
from gpudoctor.report.document import finding_document
from gpudoctor.roofline import share_of_bandwidth
from gpudoctor.smoke.plan import Plan
from gpudoctor.steps import Step

SCHEMA = "gpudoctor.smoke/1"
Value = TypeVar("Value")


MEASURED = {
    "device_name": "device_name",
    "dtype": "dtype",
    "processes": "processes",
    "backend": "backend",
    "new_tokens": "new_tokens",
    "tokens_per_second": "tokens_per_second",
    "seconds_to_first_token": "seconds_to_first_token",
    "seconds_total": "seconds_total",
    "peak_memory_bytes": "peak_memory",
    "predicted_memory_bytes": "predicted_memory",
    "bytes_per_token": "bytes_per_token",
    "measured_bandwidth": "bandwidth",
}
"""The contract's name of a key, and that of the field in ``facts.Smoke``."""
PROVED = ("finite", "difference", "tolerance", "repeatable", "all_reduce", "all_reduce_bandwidth")


def document(plan: Plan, facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step]) -> dict[str, Any]:
    """The smoke test as plain data, every key always there: null is what could not be had. Sizes are bytes."""
    smoke = facts.smoke if isinstance(facts.smoke, Smoke) else None
    share = share_of_bandwidth(facts)
    return {
        "schema": SCHEMA,
        "gpudoctor": gpudoctor.__version__,
        "status": diagnosis.status,
        "root_causes": list(diagnosis.root_causes),
        "phase": smoke.phase if smoke else None,
        "reason": _reason(facts),
        "checkpoint": _checkpoint(plan, smoke),
        "device": smoke.device if smoke else None,
        **{key: _plain(getattr(smoke, field, None)) for key, field in MEASURED.items()},
        "memory_bandwidth_fraction": _plain(share.fraction) if share else None,
        "memory_bandwidth": share.bandwidth if share else None,
        "memory_bandwidth_source": ("table" if share.of_table else "measured") if share else None,
        "proofs": {name: _plain(getattr(smoke, name, None)) for name in PROVED},
        "completions": [_completion(completion) for completion in smoke.completions] if smoke else [],
        "notes": list(smoke.notes) if smoke else [],
        "findings": [finding_document(finding, steps[finding]) for finding in diagnosis.findings],
    }


def render(plan: Plan, facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step]) -> str:
    """The document as JSON text; what is no Unicode text is escaped, so that it can always be written."""
    return json.dumps(document(plan, facts, diagnosis, steps), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def _checkpoint(plan: Plan, smoke: Smoke | None) -> dict[str, Any]:
    planned = plan.shape.parameters if plan.shape else None
    return {
        "name": plan.name,
        "format": plan.format,
        "parameters": planned if smoke is None or smoke.parameters is None else smoke.parameters,
        "weights": "real" if plan.pieces or plan.foreign else "random",
    }


def _completion(completion: Completion) -> dict[str, Any]:
    logprobs = completion.logprobs
    return {
        "prompt": completion.prompt,
        "tokens": list(completion.tokens),
        "text": completion.text,
        "logprobs": None if logprobs is None else [_plain(value) for value in logprobs],
    }


def _reason(facts: Facts) -> str | None:
    """Why there is no result at all, where there is none."""
    if isinstance(facts.smoke, Skipped):
        return facts.smoke.reason
    return facts.smoke.why if isinstance(facts.smoke, Unknown) else None


def _plain(value: Value) -> Value | None:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
