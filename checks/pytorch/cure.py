"""From the build that this machine can run to the command of the tool that owns the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpudoctor import wheels
from gpudoctor.cards import on_jetson
from gpudoctor.facts import Facts, Interpreter, Torch, Unknown
from gpudoctor.findings import Fix
from gpudoctor.knowledge import drivers, torch_builds

from ..cards import capabilities
from ..serving import driver_for_builds, recommended_branch
from ..words import listing

_MOVED_ALONG = ("torchvision", "torchaudio")


@dataclass(frozen=True, slots=True)
class Cure:
    """A fix, and the sentences that say why it is this one."""

    fix: Fix
    why: str
    found: bool
    """A build was found; False where the driver or the environment has to change first."""


def cuda_build(facts: Facts, *, presumed: tuple[str, ...] = ()) -> Cure:
    """Install the CUDA build of PyTorch that suits this Python, driver and GPU: of the version that is here, if possible.

    ``presumed`` are the compute capabilities to serve where no GPU is known.
    """
    if on_jetson(facts):
        why = "A Jetson needs the builds that NVIDIA makes for it: those of the package index have no code for its GPU."
        return Cure(with_environment(facts, "pytorch#jetson-build"), why, found=True)
    target = facts.interpreter
    if not isinstance(target, Interpreter):
        why = "There is no Python environment to put it into yet."
        return Cure(Fix("pytorch#make-environment", (("VERSION", "3"),)), why, found=False)
    here = facts.torch.version.partition("+")[0] if isinstance(facts.torch, Torch) else None
    gpus = capabilities(facts) or presumed
    answer = _recommend(facts, target, target.tag, gpus, keep=here)
    if isinstance(answer, wheels.NoWheel):
        return _none(answer, target, facts, gpus)
    driver = driver_for_builds(facts)
    given = "" if driver.in_place else f", once driver {driver.version.split('.')[0]} is installed"
    fix = _install(target, answer, facts)
    # conda's and pixi's own solvers choose the version
    taken = (
        ""
        if fix.step.endswith(("-conda", "-pixi"))
        else f"The command below takes {answer.reason.rstrip('.')}{given}.{_along(facts)}"
    )
    return Cure(fix, f"{taken}{_project(target)}".strip(), found=True)


def reinstall(facts: Facts, torch: Torch) -> Fix:
    """Put the same build back, with the owner's tool."""
    target = facts.interpreter
    if not isinstance(target, Interpreter):
        return Fix("pytorch#reinstall-torch", build_values(torch))
    owner = _owner(target, torch)
    section = {"uv": "reinstall-torch-with-uv", "conda": "reinstall-torch-with-conda"}.get(owner, "reinstall-torch")
    return Fix(f"pytorch#{section}", (*_environment_values(target), *build_values(torch)))


def _recommend(
    facts: Facts, target: Interpreter, tag: str, gpus: tuple[str, ...], *, keep: str | None
) -> wheels.Recommendation | wheels.NoWheel:
    """The build for this machine's driver, the Python of that tag, and GPUs of these compute capabilities."""
    driver = driver_for_builds(facts)
    return wheels.recommend(
        python_tag=tag,
        machine=target.machine,
        driver_version=driver.version,
        cuda_version=driver.cuda,
        compute_capabilities=gpus,
        keep=keep,
        glibc=target.glibc,
    )


def _none(answer: wheels.NoWheel, target: Interpreter, facts: Facts, gpus: tuple[str, ...]) -> Cure:
    """No build fits as things are: what has to change first."""
    why = f"As things are no build fits: {answer.reason.rstrip('.')}."
    if answer.needs == "driver" and answer.driver_needed is not None:
        return Cure(Fix("driver#change-branch", (("BRANCH", str(_branch(answer.driver_needed, facts))),)), why, found=False)
    version = _python_with_a_build(target, facts, gpus) if answer.needs == "python" else None
    if version is not None:
        return Cure(Fix("pytorch#make-environment", (("VERSION", version),)), why, found=False)
    return Cure(Fix("pytorch#no-build-fits"), why, found=False)


def _branch(needed: str, facts: Facts) -> int:
    """The branch to install: the recommended one, unless more is needed."""
    return max(recommended_branch(facts), drivers.branch_of(needed) or 0)


def _python_with_a_build(target: Interpreter, facts: Facts, gpus: tuple[str, ...]) -> str | None:
    """The oldest Python of the newest releases for which there is a build: the likeliest to be on the machine already."""
    for release in reversed(torch_builds.releases()):
        for tag in release.cpython(target.machine):
            digits = re.fullmatch(r"cp(\d)(\d+)", tag)
            if digits is None:
                continue
            if isinstance(_recommend(facts, target, tag, gpus, keep=None), wheels.Recommendation):
                return f"{digits[1]}.{digits[2]}"
    return None


def _install(target: Interpreter, build: wheels.Recommendation, facts: Facts) -> Fix:
    torch = facts.torch if isinstance(facts.torch, Torch) else None
    owner = _owner(target, torch)
    values = (*_environment_values(target), *_wheel_values(build))
    if owner == "system":
        return Fix("pytorch#make-environment-for-torch", (("VERSION", _minor(target)), *values))
    if owner == "uv" and target.project is not None:
        return Fix("pytorch#cuda-build-with-uv-project", (*values, *_companion_values(facts, build, local=False)))
    if owner in ("conda", "pixi", "poetry"):
        return Fix(f"pytorch#cuda-build-with-{owner}", (*values, *_companion_values(facts, build, local=True)))
    kind = "default-build" if build.default else "cuda-build"
    return Fix(f"pytorch#{kind}-with-{owner}", (*values, *_companion_values(facts, build, local=not build.default)))


def _companion_values(facts: Facts, build: wheels.Recommendation, *, local: bool) -> tuple[tuple[str, str], ...]:
    """torchvision and torchaudio as words for the same command: pinned where PyTorch keeps its version.

    Installers take an installed torchvision of the same release for good enough, whatever it was built for. Where PyTorch
    changes its version the old companion does not fit, and the installer finds the one that does.
    """
    keeps = isinstance(facts.torch, Torch) and facts.torch.version.partition("+")[0] == build.torch
    there = () if isinstance(facts.companions, Unknown) else tuple(c for c in facts.companions if c.name in _MOVED_ALONG)
    if not there:
        return ()
    part = f"+{build.variant}" if local else ""
    own = {c.name for c in there if keeps and (c.wants_torch or build.torch).removeprefix("==") == build.torch}
    words = [f"{c.name}=={c.version.partition('+')[0]}{part}" if c.name in own else c.name for c in there]
    again = " ".join(word for word in words if "==" in word)
    names = " ".join(f"--reinstall-package {c.name}" for c in there)
    return (("COMPANIONS", " ".join(words)), ("AGAIN", again), ("REINSTALLED", names))


def _owner(target: Interpreter, torch: Torch | None) -> str:
    """The tool that changes PyTorch here: a copy that pip put into a conda environment is pip's."""
    if target.owner == "conda" and torch is not None and torch.installer in ("pip", "uv") and target.has_pip:
        return "pip"
    return target.owner if target.owner in ("uv", "conda", "pixi", "poetry", "system") else "pip"


def _environment_values(target: Interpreter) -> tuple[tuple[str, str], ...]:
    values = (("PYTHON", target.path), ("PREFIX", target.prefix))
    return (*values, ("PROJECT", target.project)) if target.project else values


def _wheel_values(build: wheels.Recommendation) -> tuple[tuple[str, str], ...]:
    index = build.index_url or torch_builds.index_url(build.variant)
    return (("TORCH", build.torch), ("VARIANT", build.variant), ("CUDA", build.cuda), ("INDEX", index))


def build_values(torch: Torch) -> tuple[tuple[str, str], ...]:
    """Where the build that is here came from: the index of its CUDA."""
    version, _, local = torch.version.partition("+")
    variant = local if re.fullmatch(r"cu\d+", local) else f"cu{(torch.cuda or '').replace('.', '')}" if torch.cuda else "cpu"
    return (("TORCH", version), ("VARIANT", variant), ("INDEX", torch_builds.index_url(variant)))


def _minor(target: Interpreter) -> str:
    return ".".join(target.version.split(".")[:2])


def _along(facts: Facts) -> str:
    """torchvision and torchaudio fit one PyTorch only."""
    if isinstance(facts.companions, Unknown):
        return ""
    there = [f"{c.name} {c.version}" for c in facts.companions if c.name in _MOVED_ALONG]
    if not there:
        return ""
    verbs = ("belong", "move") if len(there) > 1 else ("belongs", "moves")
    return f" {listing(there)} {verbs[0]} to the old build and {verbs[1]} along."


def _project(target: Interpreter) -> str:
    if target.project is None or target.owner not in ("uv", "poetry", "pixi"):
        return ""
    return (
        f" This environment belongs to the project in {target.project}: write it there too, or the next {target.owner} sync "
        "brings the old build back."
    )


def with_environment(facts: Facts, step: str, *values: tuple[str, str]) -> Fix:
    """A section of the page pytorch, with the interpreter beside what else it asks for."""
    target = facts.interpreter
    return Fix(step, (*(_environment_values(target) if isinstance(target, Interpreter) else ()), *values))


def companion_step(facts: Facts) -> str:
    """The section that puts torchvision or torchaudio beside the PyTorch that is here, with the owner's tool."""
    return "pytorch#match-companions-with-uv" if _owned_by_uv(facts) else "pytorch#match-companions-with-pip"


def rebuild_step(facts: Facts) -> str:
    """The section that builds an extension anew, with the owner's tool."""
    return "pytorch#rebuild-extension-with-uv" if _owned_by_uv(facts) else "pytorch#rebuild-extension"


def bitsandbytes_step(facts: Facts) -> str:
    """The section that brings a newer bitsandbytes, with the owner's tool."""
    return "pytorch#match-bitsandbytes-with-uv" if _owned_by_uv(facts) else "pytorch#match-bitsandbytes"


def _owned_by_uv(facts: Facts) -> bool:
    return isinstance(facts.interpreter, Interpreter) and facts.interpreter.owner == "uv"
