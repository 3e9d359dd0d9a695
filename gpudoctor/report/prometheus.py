"""The report as Prometheus text: for the textfile collector of a node exporter."""

from __future__ import annotations

from gpudoctor.diagnose import Diagnosis

STATES = ("pass", "note", "warn", "fail", "unknown", "blocked", "skipped")


def render(diagnosis: Diagnosis) -> str:
    """Gauges: whether the machine is healthy, the state of each check, each finding's code."""
    healthy = int(diagnosis.status in ("pass", "warn"))
    lines = [
        "# HELP gpudoctor_healthy 1 when no fault was found and nothing that matters stayed unknown.",
        "# TYPE gpudoctor_healthy gauge",
        f"gpudoctor_healthy {healthy}",
        "# HELP gpudoctor_check 1 for the state that a check is in.",
        "# TYPE gpudoctor_check gauge",
    ]
    for check in diagnosis.checks:
        lines += [f'gpudoctor_check{{check="{check.name}",state="{s}"}} {int(check.status == s)}' for s in STATES]
    lines += ["# HELP gpudoctor_finding 1 for each finding.", "# TYPE gpudoctor_finding gauge"]
    codes = dict.fromkeys((finding.code, finding.severity) for finding in diagnosis.findings)
    lines += [f'gpudoctor_finding{{code="{code}",severity="{severity}"}} 1' for code, severity in codes]
    return "\n".join(lines) + "\n"
