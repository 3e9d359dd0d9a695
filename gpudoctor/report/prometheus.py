"""The report as Prometheus text: for the textfile collector of a node exporter."""

from __future__ import annotations

from gpudoctor.diagnose import Diagnosis
from gpudoctor.facts import Facts, Smoke
from gpudoctor.roofline import share_of_bandwidth

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


def render_smoke(facts: Facts, diagnosis: Diagnosis) -> str:
    """Gauges of one smoke test. Their names are others than those of ``check``, whose file may lie beside this one."""
    smoke = facts.smoke if isinstance(facts.smoke, Smoke) else None
    share = share_of_bandwidth(facts)
    lines = [
        "# HELP gpudoctor_smoke_passed 1 when the smoke test passed, on the device that it ran on.",
        "# TYPE gpudoctor_smoke_passed gauge",
        f'gpudoctor_smoke_passed{{device="{smoke.device or "" if smoke else ""}"}} {int(diagnosis.status in ("pass", "warn"))}',
    ]
    values = {
        "tokens_per_second": smoke.tokens_per_second if smoke else None,
        "seconds_to_first_token": smoke.seconds_to_first_token if smoke else None,
        "seconds_total": smoke.seconds_total if smoke else None,
        "peak_memory_bytes": smoke.peak_memory if smoke else None,
        "predicted_memory_bytes": smoke.predicted_memory if smoke else None,
        "memory_bandwidth_fraction": share.fraction if share else None,
    }
    for name, value in values.items():
        if value is not None:
            lines += [f"# TYPE gpudoctor_smoke_{name} gauge", f"gpudoctor_smoke_{name} {value}"]
    codes = dict.fromkeys((finding.code, finding.severity) for finding in diagnosis.findings)
    if codes:
        lines.append("# TYPE gpudoctor_smoke_finding gauge")
    lines += [f'gpudoctor_smoke_finding{{code="{code}",severity="{severity}"}} 1' for code, severity in codes]
    return "\n".join(lines) + "\n"
