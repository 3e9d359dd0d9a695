"""The report as JUnit XML: one test case per check, for test dashboards."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from gpudoctor.diagnose import CheckResult, Diagnosis
from gpudoctor.findings import Finding
from gpudoctor.report.words import plain
from gpudoctor.steps import Step


def render(diagnosis: Diagnosis, steps: dict[Finding, Step]) -> str:
    """A failing check is a failure, an unknown one an error, a blocked one skipped."""
    counts = {status: sum(c.status == status for c in diagnosis.checks) for status in ("fail", "unknown", "blocked", "skipped")}
    suite = ET.Element(
        "testsuite",
        name="gpudoctor",
        tests=str(len(diagnosis.checks)),
        failures=str(counts["fail"]),
        errors=str(counts["unknown"]),
        skipped=str(counts["blocked"] + counts["skipped"]),
    )
    for check in diagnosis.checks:
        _case(ET.SubElement(suite, "testcase", classname="gpudoctor", name=check.name, time=f"{check.seconds:.3f}"), check, steps)
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _case(case: ET.Element, check: CheckResult, steps: dict[Finding, Step]) -> None:
    for finding in check.findings:
        text = _words(finding, steps[finding])
        if finding.severity == "fail":
            ET.SubElement(case, "failure", message=_xml(finding.summary), type=finding.code).text = text
        else:
            ET.SubElement(case, "system-out").text = text
    if check.status == "unknown":
        ET.SubElement(case, "error", message=_xml(check.summary), type="unknown")
    elif check.status in ("blocked", "skipped"):
        ET.SubElement(case, "skipped", message=_xml(check.summary))


def _words(finding: Finding, step: Step) -> str:
    return _xml("\n".join([finding.code, finding.summary, finding.cause, *(step.commands or (step.prose,))]))


def _xml(text: str) -> str:
    return plain(text)
