"""Runs all probes at the same time and gathers what they saw."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

from gpudoctor.facts import Facts, Unknown
from gpudoctor.probes import (
    build_tools,
    companions,
    cuda_driver,
    driver,
    environments,
    interpreter,
    kernel,
    kernel_log,
    libraries,
    next_boot,
    nvml,
    pci,
    smi,
    smoke,
    system,
    toolkits,
    torch_files,
    torch_import,
    variables,
)
from gpudoctor.probes.scope import Scope
from gpudoctor.probes.worker import shared
from gpudoctor.side_by_side import Probe, Progress, ask, seconds

# The slow ones first, so that their seconds overlap with everything else.
PROBES: tuple[Probe, ...] = (
    Probe("torch_import", "importing torch in the target interpreter", torch_import.look, seconds(torch_import.DEADLINE)),
    Probe("smoke", "", smoke.look, smoke.deadline),
    Probe("nvml", "asking the driver (NVML)", shared("nvml", nvml.look), nvml.deadline),
    Probe("nvidia_smi", "running nvidia-smi", smi.look, seconds(10)),
    Probe("interpreter", "asking the target interpreter", interpreter.of, seconds(10)),
    Probe("cuda_driver", "asking libcuda for its version", cuda_driver.look, seconds(20)),
    Probe("system", "reading about the operating system", shared("system", system.look), seconds(10)),
    Probe("pci", "reading the PCI bus", shared("pci", pci.look), seconds(10)),
    Probe("kernel", "reading kernel modules and Secure Boot", kernel.look, seconds(20)),
    Probe("driver", "reading the driver's files", driver.look, seconds(20)),
    Probe("next_boot", "reading what boots next", next_boot.look, seconds(10)),
    Probe("kernel_log", "reading the kernel log", kernel_log.look, seconds(20)),
    Probe("toolkits", "looking for CUDA toolkits", toolkits.look, seconds(20)),
    Probe("build_tools", "looking for a compiler", build_tools.look, seconds(20)),
    Probe("libraries", "looking for cuDNN and NCCL", libraries.look, seconds(20)),
    Probe("torch", "reading PyTorch's files", torch_files.look, seconds(20)),
    Probe("companions", "reading packages built against torch", companions.look, seconds(20)),
    Probe("environments", "looking for other Python environments", environments.look, seconds(10)),
    Probe("variables", "reading environment variables", variables.look, seconds(5)),
)


def examine(scope: Scope, *, skip: Iterable[str] = (), progress: Progress = lambda _: None) -> Facts:
    """All facts about the machine. Takes as long as the slowest probe, never longer than its deadline and a moment.

    ``skip`` names fields that are left unlooked at. Without the import of torch there is no smoke test either.
    """
    skipped = set(skip)
    if "torch_import" in skipped:
        skipped.add("smoke")
    answers = ask(scope, [probe for probe in PROBES if probe.field not in skipped], progress)
    values: dict[str, object] = {**dict.fromkeys(skipped, Unknown("not asked for")), **answers.values}
    if "smoke" in skipped:
        values["smoke"] = smoke.NOT_ASKED if scope.smoke is None else smoke.NO_IMPORT
    # the smoke test tells its own seconds; here they would be those of the import too
    slow = tuple(pair for pair in answers.slow if pair[0] != "smoke")
    taken = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Facts(taken=taken, slow=slow, **values)  # type: ignore[arg-type]  # PROBES pairs each field with its probe
