"""Whether there is a PyTorch in the target interpreter, built with CUDA."""

from __future__ import annotations

from gpudoctor.cards import has_gpu
from gpudoctor.facts import Environment, Facts, Interpreter, Torch, Unknown
from gpudoctor.findings import Evidence, Finding, Fix

from ..words import listing
from . import cure


def absence(facts: Facts) -> Finding | None:
    """The finding that there is no PyTorch with CUDA here; None where there is one (or nobody could look)."""
    if isinstance(facts.torch, Unknown):
        return None
    if facts.torch is None:
        other = _other_with_cuda(facts)
        return _not_installed(facts) if other is None else _wrong_interpreter(facts, other)
    if facts.torch.cuda is not None:
        return None
    return _for_amd(facts, facts.torch) if facts.torch.hip else _without_cuda(facts, facts.torch)


def duplicates(facts: Facts, torch: Torch) -> tuple[Finding, ...]:
    """Metadata of a second PyTorch in one environment: two installers have written over each other."""
    if not torch.duplicates:
        return ()
    return (
        Finding(
            code="torch-duplicate-installs",
            severity="warn",
            summary=f"Besides PyTorch {torch.version} this environment has the records of another: {listing(torch.duplicates)}",
            cause=(
                "Two installers, such as conda and pip, have each put a PyTorch here, or an update was cut off. The files may be "
                "a mixture, and the next update may break what works today. It can wait until nothing runs here."
            ),
            evidence=(Evidence(torch.path, f"in use: {torch.version}"), *(Evidence("site-packages", d) for d in torch.duplicates)),
            fix=_one_alone(facts, torch),
        ),
    )


def _one_alone(facts: Facts, torch: Torch) -> Fix:
    """Remove every record, then install again; uv's own way to reinstall does both."""
    fix = cure.reinstall(facts, torch)
    steps = {
        "pytorch#reinstall-torch": "pytorch#remove-duplicate",
        "pytorch#reinstall-torch-with-conda": "pytorch#remove-duplicate-with-conda",
    }
    return Fix(steps.get(fix.step, fix.step), fix.values)


def _not_installed(facts: Facts) -> Finding:
    advice = cure.cuda_build(facts)
    target = facts.interpreter
    where = target.path if isinstance(target, Interpreter) else "this machine's Python"
    chosen = f"This Python was chosen by {target.chosen_by}. " if isinstance(target, Interpreter) else ""
    return Finding(
        code="torch-not-installed",
        severity="fail",
        summary=f"PyTorch is not installed in {where}",
        cause=(
            f"{chosen}No other environment that was found on this machine has a CUDA build either. If yours is elsewhere, name its "
            f"interpreter with --python. {advice.why}"
        ),
        evidence=_sites(target),
        fix=advice.fix,
        stands_alone=has_gpu(facts) is True,
    )


def _wrong_interpreter(facts: Facts, other: Environment) -> Finding:
    target = facts.interpreter
    where = target.path if isinstance(target, Interpreter) else "this machine's Python"
    chosen = f" It was chosen by {target.chosen_by}." if isinstance(target, Interpreter) else ""
    return Finding(
        code="wrong-interpreter",
        severity="fail",
        summary=f"{where} has no PyTorch; {other.python} has {other.torch}",
        cause=(
            f"The interpreter that was examined is not the one with PyTorch.{chosen} The {other.kind} environment {other.name} has "
            f"a CUDA {other.torch_cuda} build: nothing needs to be installed, only started from there."
        ),
        evidence=(*_sites(target), Evidence(other.python, f"torch {other.torch}, CUDA {other.torch_cuda}")),
        fix=Fix("pytorch#use-other-environment", (("OTHER", other.python),)),
        stands_alone=has_gpu(facts) is True,
    )


def _without_cuda(facts: Facts, torch: Torch) -> Finding:
    advice = cure.cuda_build(facts)
    none = has_gpu(facts) is False
    place = (
        " No NVIDIA GPU was found in this machine: until there is one, this build is the right one for it, and only the CPU "
        "is used."
        if none
        else ""
    )
    return Finding(
        code="torch-cpu-only-build",
        severity="fail",
        summary=f"PyTorch {torch.version} is built without CUDA",
        cause=(
            f"{torch.path}/version.py says cuda = None. Without CUDA there is no NCCL either: \"Distributed package doesn't have "
            'NCCL built in" comes from here, and installing the CUDA toolkit, cuDNN or NCCL would not help.'
            f"{place}{_elsewhere(facts)} {advice.why}"
        ),
        evidence=(Evidence(f"{torch.path}/version.py", f"__version__ = {torch.version!r}, cuda = None"),),
        fix=advice.fix,
        stands_alone=True,
    )


def _for_amd(facts: Facts, torch: Torch) -> Finding:
    advice = cure.cuda_build(facts)
    return Finding(
        code="torch-cpu-only-build",
        severity="fail",
        summary=f"PyTorch {torch.version} is built for AMD's ROCm, not for CUDA",
        cause=(
            f"{torch.path}/version.py says hip = {torch.hip!r} and cuda = None. On an NVIDIA GPU this build cannot compute; "
            f"its NCCL is AMD's too.{_elsewhere(facts)} {advice.why}"
        ),
        evidence=(Evidence(f"{torch.path}/version.py", f"hip = {torch.hip!r}, cuda = None"),),
        fix=advice.fix,
        stands_alone=True,
    )


def _elsewhere(facts: Facts) -> str:
    other = _other_with_cuda(facts)
    return (
        f" {other.python} ({other.kind} {other.name}) has the CUDA build {other.torch}, if that is the one you meant."
        if other
        else ""
    )


def _other_with_cuda(facts: Facts) -> Environment | None:
    if isinstance(facts.environments, Unknown):
        return None
    mine = facts.interpreter.path if isinstance(facts.interpreter, Interpreter) else None
    return next((e for e in facts.environments if e.torch is not None and e.torch_cuda is not None and e.python != mine), None)


def _sites(target: Interpreter | None | Unknown) -> tuple[Evidence, ...]:
    if not isinstance(target, Interpreter):
        return (Evidence("PATH", "no Python interpreter was found"),)
    return tuple(Evidence(site, "no torch in this folder") for site in target.site_packages)
