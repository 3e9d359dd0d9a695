"""The report for a CI job on GitHub: workflow commands on stdout, a step summary, outputs for later steps.

Only root causes become annotations, since GitHub shows ten of a kind per step. A retry on the same runner cannot cure a
fault of the node, so each annotation and the output ``at-fault`` say whose it is: node, image or job.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gpudoctor.diagnose import Diagnosis
from gpudoctor.facts import Facts
from gpudoctor.findings import Finding
from gpudoctor.report import markdown
from gpudoctor.report.words import plain
from gpudoctor.steps import Step

AT_FAULT = {"environment": "image", "image": "image", "code": "job"}
SUMMARY_LIMIT = 1 << 20


def render(diagnosis: Diagnosis, steps: dict[Finding, Step]) -> str:
    """Workflow commands: one error per root cause, one warning or notice for the rest, a closing notice."""
    level = {"fail": "error", "warn": "warning", "note": "notice"}
    lines = []
    for finding in diagnosis.findings:
        step = steps[finding]
        cure = " && ".join(step.commands) or step.prose
        message = f"{finding.summary}. At fault: {at_fault(step)}. Fix: {cure}"
        lines.append(f"::{level[finding.severity]} title={_property(f'gpudoctor {finding.code}')}::{_data(message)}")
    unknown = [check for check in diagnosis.checks if check.status == "unknown"]
    lines += [f"::warning title={_property(f'gpudoctor {check.name}')}::{_data(check.summary)}" for check in unknown]
    lines.append(f"::notice title=gpudoctor::{_data(_closing(diagnosis))}")
    return "\n".join(lines) + "\n"


def write_files(facts: Facts, diagnosis: Diagnosis, steps: dict[Finding, Step], environ: Mapping[str, str]) -> None:
    """Append to the files that GITHUB_STEP_SUMMARY and GITHUB_OUTPUT name, where they are set. Raises OSError."""
    summary = environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        page = markdown.render(facts, diagnosis, steps).encode()[:SUMMARY_LIMIT].decode("utf-8", "ignore")
        _append(Path(summary), page)
    output = environ.get("GITHUB_OUTPUT")
    if output:
        _append(Path(output), _outputs(diagnosis, steps))


def at_fault(step: Step) -> str:
    """Whose fault it is: the node's, the image's (or the environment's in it), or the job's own code."""
    return AT_FAULT.get(step.where, "node")


def _outputs(diagnosis: Diagnosis, steps: dict[Finding, Step]) -> str:
    faults = [steps[finding] for finding in diagnosis.findings if finding.severity == "fail"]
    values = {
        "status": diagnosis.status,
        "root-causes": ",".join(diagnosis.root_causes),
        "at-fault": at_fault(faults[0]) if faults else "",
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _closing(diagnosis: Diagnosis) -> str:
    causes = f": {', '.join(diagnosis.root_causes)}" if diagnosis.root_causes else ""
    return f"{diagnosis.status}{causes}"


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8", errors="replace") as file:
        file.write(text)


def _data(text: str) -> str:
    return plain(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
