"""What ``gpudoctor smoke`` concludes: the diagnosis, as far as it bears on the smoke test.

``check`` judges a machine; here a run is judged. A test that came through is the best evidence that there is, whatever a layer
below it looks like. One that did not is explained by the layers that it needs: all of them on a GPU, and on a CPU none but a
PyTorch that can be imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import cast

from gpudoctor.cards import has_gpu
from gpudoctor.diagnose import CheckResult, Diagnosis, built_in, diagnose
from gpudoctor.facts import Facts, Smoke, Torch
from gpudoctor.findings import Check, Status, Verdict

OF_A_GPU = frozenset({"cuda-visible-devices-wrong", "cuda-not-available"})
"""Faults of a PyTorch that starts: they keep it from a GPU and not from the CPU."""
SLOWS = frozenset({"throttle-thermal", "throttle-hw", "throttle-powercap", "pcie-width", "bad-cuda-env", "vgpu-unlicensed"})
"""Warnings of other layers that explain a slow run."""
TEST = "smoke"


def proof(facts: Facts, device: str | None) -> Diagnosis:
    """The verdict on the smoke test: the layers that bear on it, and itself as the last one. ``device``: as asked for."""
    on_cpu = ran_on_cpu(facts, device)
    if isinstance(facts.smoke, Smoke) and facts.smoke.came_through:
        alone = diagnose(facts, checks=[check for check in built_in() if check.name == TEST], required=(TEST,))
        return _concluded(facts, () if on_cpu else _warnings(diagnose(facts, checks=_needed()).checks[:-1]), alone.checks[0])
    *layers, test = diagnose(facts, checks=_for_cpu() if on_cpu else _needed(), required=(TEST,)).checks
    return _concluded(facts, _standing(layers), test)


def ran_on_cpu(facts: Facts, device: str | None) -> bool:
    """It used the CPU, or would have, had it come so far: asked to, or because there is no NVIDIA GPU."""
    if isinstance(facts.smoke, Smoke) and facts.smoke.device is not None:
        return facts.smoke.device == "cpu"
    return device == "cpu" or (device is None and has_gpu(facts) is False)


def _needed() -> list[Check]:
    """What the smoke test needs on a GPU, in the order of the checks, itself last."""
    known = {check.name: check for check in built_in()}
    wanted = [TEST]
    for name in wanted:  # grows while it is walked through
        wanted += [need for need in known[name].needs if need in known and need not in wanted]
    return [check for check in built_in() if check.name in wanted and check.name != TEST] + [known[TEST]]


def _for_cpu() -> list[Check]:
    """PyTorch, as far as a CPU is concerned, and the test."""
    known = {check.name: check for check in built_in()}
    torch = replace(known["pytorch"], needs=(), judge=_judge_on_cpu)
    return [torch, replace(known[TEST], needs=(torch.name,))]


def _judge_on_cpu(facts: Facts, required: bool) -> Verdict:
    """Whether PyTorch is there, starts and has its libraries: a build without CUDA is as good as any here."""
    parts = import_module("gpudoctor.checks.pytorch")
    if not isinstance(facts.torch, Torch):
        return cast("Verdict", parts.judge(facts, required))
    start = parts.importing.judge(facts, facts.torch)
    found = (*start.findings, *parts.at_work.judge(facts, facts.torch))
    findings = tuple(finding for finding in found if finding.code not in OF_A_GPU)
    return Verdict(findings[0].summary if findings else f"{facts.torch.version} starts", findings)


def _warnings(layers: Sequence[CheckResult]) -> tuple[CheckResult, ...]:
    found = []
    for layer in layers:
        findings = tuple(finding for finding in layer.findings if finding.code in SLOWS and finding.severity == "warn")
        if findings:
            found.append(replace(layer, status="warn", summary=findings[0].summary, findings=findings))
    return tuple(found)


def _standing(layers: Sequence[CheckResult]) -> tuple[CheckResult, ...]:
    """The layers below a test that did not come through; of their findings only what stopped it."""
    kept = []
    for layer in layers:
        findings = tuple(finding for finding in layer.findings if finding.severity == "fail" and finding.blocks)
        status: Status = "pass" if layer.status in ("note", "warn") else layer.status
        if findings or status != "fail":
            kept.append(replace(layer, status=status, findings=findings))
    return tuple(kept)


def _concluded(facts: Facts, layers: Sequence[CheckResult], test: CheckResult) -> Diagnosis:
    """Exit and status follow from this: a test that was asked for by name and did not run is no pass."""
    if isinstance(facts.smoke, Smoke):
        test = replace(test, seconds=round(facts.smoke.seconds_total, 3))  # of the test, not of its judgement
    results = (*layers, test)
    severities = {finding.severity for result in results for finding in result.findings}
    ended = test.status in ("pass", "note", "warn")
    status: Status = "fail" if "fail" in severities else "unknown" if not ended else "warn" if "warn" in severities else "pass"
    causes = dict.fromkeys(finding.code for result in results for finding in result.findings if finding.severity == "fail")
    return Diagnosis(status, tuple(causes), results)
