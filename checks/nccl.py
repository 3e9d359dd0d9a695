"""NCCL: PyTorch brings its own, which has to be built in and to be the one that the loader takes.

NCCL moves data between GPUs; ``torchrun`` scripts often start it for a single one too. The system's NCCL is not needed by
PyTorch's wheels and is judged only when ``--require nccl`` asks for it. "Distributed package doesn't have NCCL built in"
is a property of the PyTorch build: no NCCL of the system cures it.

* ``nccl-not-in-torch-build``: a CUDA build that was made without NCCL (a build without CUDA is pytorch's finding).
* ``nccl-symbol-mismatch``: an older NCCL is taken instead of PyTorch's own.
* ``nccl-shm-too-small``: several GPUs in a container whose /dev/shm has Docker's default size, or NCCL said so itself.
* ``nccl-library-missing``: none of the system where one was asked for.

The smoke test starts it as torchrun does, and sums over all processes:

* ``nccl-p2p-failure``: the GPUs do not reach each other: it hangs, or direct access is refused.
* ``nccl-duplicate-gpu``: two processes chose the same GPU.
* ``nccl-init-failed``: it does not start, for another reason.

Told by a text alone:

* ``nccl-unsupported-os``: Windows and macOS have no NCCL.
* ``nccl-no-gpu-visible``: PyTorch has NCCL and sees no GPU.

Of these only what stopped the smoke test keeps anything from being judged: one GPU generates without NCCL.
"""

from __future__ import annotations

from gpudoctor.cards import on_jetson
from gpudoctor.facts import Facts, Resolution, System, Torch, TorchImport, Unknown
from gpudoctor.findings import Check, Evidence, Finding, Fix, Verdict, listed_codes
from gpudoctor.visible import visible

from .ending import Ending, ending
from .pytorch import cure, importing, own_libraries
from .words import capped

DOCKER_SHM = 64 << 20
"""What docker run gives /dev/shm (https://docs.docker.com/reference/cli/docker/container/run/, --shm-size)."""


def judge(facts: Facts, required: bool) -> Verdict:
    """The NCCL of PyTorch, and the system's where it is asked for or in the way."""
    system = own_libraries.not_on_the_system(facts, "nccl", _not_on_the_system()) if required else ()
    if isinstance(facts.torch, Unknown):
        return Verdict(f"unknown: {facts.torch.why}", system, (f"PyTorch's NCCL: {facts.torch.why}",))
    if facts.torch is None or facts.torch.cuda is None:
        return Verdict("comes with a CUDA build of PyTorch", system)
    torch = facts.torch
    if _built_in(facts, torch) is False and on_jetson(facts):
        return Verdict("not in this build, as usual on a Jetson: it has one GPU", system)
    stopped = _not_built_in(facts, torch) or _older(facts, torch) or _at_work(facts, torch)
    found = (stopped, _small_shm(facts) if stopped is None or stopped.code != "nccl-shm-too-small" else None)
    findings = (*(finding for finding in found if finding is not None), *system)
    well = own_libraries.line(facts, "nccl", _resolution(torch), unversioned="built into PyTorch")
    return Verdict(findings[0].summary if findings else well, findings)


def _built_in(facts: Facts, torch: Torch) -> bool | Unknown:
    """What PyTorch said when it was imported, else what its files say."""
    said = facts.torch_import
    return said.nccl if isinstance(said, TorchImport) and said.nccl is not None else torch.nccl_built_in


def _resolution(torch: Torch) -> Resolution | None:
    return next((r for r in torch.resolutions if r.soname.startswith("libnccl.so")), None)


# ---------------------------------------------------------------- faults


def _not_built_in(facts: Facts, torch: Torch) -> Finding | None:
    if _built_in(facts, torch) is not False:
        return None
    advice = cure.cuda_build(facts)
    return Finding(
        code="nccl-not-in-torch-build",
        severity="fail",
        summary=f"PyTorch {torch.version} is built with CUDA and without NCCL",
        cause=(
            '"Distributed package doesn\'t have NCCL built in" comes from here. Whoever built this PyTorch left NCCL out; '
            "installing NCCL does not put it in. A single GPU works without it (backend gloo); several need another build. "
            f"{advice.why}"
        ),
        evidence=(Evidence(f"{torch.path}/lib/libtorch_cuda.so", "is not linked to libnccl.so.2"),),
        fix=advice.fix,
        stands_alone=True,
        blocks=_stopped(facts),
    )


def _older(facts: Facts, torch: Torch) -> Finding | None:
    found = _resolution(torch)
    said = facts.torch_import if isinstance(facts.torch_import, TorchImport) else None
    error = (said.error or "") if said is not None and said.version is None else ""
    if found is not None and importing.is_older(found):
        summary = own_libraries.takes_another(found, "NCCL", found.own_version)
        return _mismatch(summary, torch, own_libraries.both_copies(found), own_libraries.off_the_path(found))
    if not importing.names_nccl(error):
        return None
    summary = "The NCCL that is loaded lacks a function that PyTorch calls"
    return _mismatch(summary, torch, (Evidence("import torch", capped(error)),), own_libraries.own_copy_again(facts, torch))


def _mismatch(summary: str, torch: Torch, evidence: tuple[Evidence, ...], fix: Fix) -> Finding:
    return Finding(
        code="nccl-symbol-mismatch",
        severity="fail",
        summary=summary,
        cause=(
            f'PyTorch {torch.version} calls functions that an older NCCL does not have: "undefined symbol: ncclComm...". It '
            "brings its own copy; what stands before it has to go from the path. Installing NCCL would not help."
        ),
        evidence=evidence,
        fix=fix,
        stands_alone=True,
    )


def _stopped(facts: Facts) -> bool:
    """NCCL is what ended the smoke test."""
    end = ending(facts)
    if end is None or end.smoke.device == "cpu" or end.smoke.backend == "gloo":
        return False
    return end.kind == "nccl" or (end.kind in ("hang", "crash") and end.smoke.phase == "nccl")


def _at_work(facts: Facts, torch: Torch) -> Finding | None:
    """What NCCL said in the smoke test, or its silence there."""
    end = ending(facts)
    if end is None or not _stopped(facts):
        return None
    said = end.symptom.id if end.symptom else ""
    if said in ("nccl-duplicate-gpu", "nccl-ranks-share-gpu"):
        return _duplicate(facts, end)
    if said == "nccl-shm" or end.signal == "SIGBUS":
        return _no_shm(facts, end)
    words = (end.symptom.value("words") or "") if end.symptom else ""
    apart = end.smoke.processes > 1 and (end.kind == "hang" or said == "nccl-timeout")
    return _unreachable(end) if apart or "peer" in words else _not_started(facts, torch, end)


def _duplicate(facts: Facts, end: Ending) -> Finding:
    seen = visible(facts)
    there = "" if isinstance(seen, Unknown) else f", and {len(seen.gpus)} GPU{'' if len(seen.gpus) == 1 else 's'} to be seen"
    return Finding(
        code="nccl-duplicate-gpu",
        severity="fail",
        summary=f"Two processes chose the same GPU: {end.smoke.processes} were started{there}",
        cause=(
            "NCCL gives each process a GPU of its own. Either more were started than there are GPUs, or they do not choose theirs "
            "by LOCAL_RANK, which torchrun sets. NCCL and the driver are well."
        ),
        evidence=(end.evidence,),
        fix=Fix("smoke#one-process-per-gpu"),
    )


def _no_shm(facts: Facts, end: Ending) -> Finding:
    size = facts.system.shm_total if isinstance(facts.system, System) else None
    has = f", which has {size >> 20} MiB" if isinstance(size, int) else ""
    return Finding(
        code="nccl-shm-too-small",
        severity="fail",
        summary=f"NCCL got no room in the shared memory, /dev/shm{has}",
        cause=(
            "NCCL passes data between GPUs through /dev/shm where they cannot reach each other directly. Docker gives a container "
            "64 MB of it: it has to be started with more. Outside a container it is full of what an earlier run left."
        ),
        evidence=(end.evidence, Evidence("size of /dev/shm", f"{size} bytes")),
        fix=Fix("container-toolkit#shm-size"),
    )


def _unreachable(end: Ending) -> Finding:
    how = "no answer" if end.kind == "hang" else "refused"
    return Finding(
        code="nccl-p2p-failure",
        severity="fail",
        summary=f"{end.smoke.processes} GPUs do not reach each other through NCCL: {how}",
        cause=(
            "Data that one GPU writes directly into another's memory does not arrive. On PCI Express that is mostly the IOMMU, or "
            "access control (ACS) of a PCI bridge, which send such writes elsewhere. Each GPU alone is not touched by it. "
            "Reinstalling PyTorch, NCCL or the driver does not help."
        ),
        evidence=(end.evidence,),
        fix=Fix("nccl#peer-to-peer"),
    )


def _not_started(facts: Facts, torch: Torch, end: Ending) -> Finding:
    interface = facts.variable("NCCL_SOCKET_IFNAME")
    named = f" Here NCCL_SOCKET_IFNAME={interface}." if interface else ""
    return Finding(
        code="nccl-init-failed",
        severity="fail",
        summary=f"NCCL does not start in PyTorch {torch.version}{'' if end.kind != 'hang' else ': no answer'}",
        cause=(
            "It is built in and the GPU works. What is left are its surroundings: a network interface that a variable names and "
            f"that is not here, variables of another cluster, a GPU without memory to spare, a file of settings.{named} Its own "
            "words, with NCCL_DEBUG=INFO, name the call."
        ),
        evidence=(end.evidence,),
        fix=cure.with_environment(facts, "nccl#start"),
    )


def _small_shm(facts: Facts) -> Finding | None:
    """A warning: NCCL uses /dev/shm only between GPUs that cannot reach each other directly."""
    seen = visible(facts)
    if isinstance(seen, Unknown) or len(seen.gpus) < 2 or not isinstance(facts.system, System):
        return None
    size = facts.system.shm_total
    if facts.system.container is None or not isinstance(size, int) or size > DOCKER_SHM:
        return None
    return Finding(
        code="nccl-shm-too-small",
        severity="warn",
        summary=f"This container's shared memory has {size >> 20} MiB, for {len(seen.gpus)} GPUs",
        cause=(
            "NCCL passes data between GPUs through /dev/shm where they cannot reach each other directly, and PyTorch's data "
            "loaders use it too. Docker's default is too small for that: the container has to be started with more."
        ),
        evidence=(Evidence("size of /dev/shm", f"{size} bytes"),),
        fix=Fix("container-toolkit#shm-size"),
    )


def _not_on_the_system() -> Finding:
    return Finding(
        code="nccl-library-missing",
        severity="fail",
        summary="No NCCL of the system, which --require nccl asks for",
        cause=(
            "PyTorch's wheels do not need it: they bring their own. It is for nccl-tests, MPI programs, or a PyTorch built "
            "from source."
        ),
        evidence=(Evidence("/usr/lib, /usr/local", "no libnccl.so.2"),),
        fix=Fix("nccl#install"),
        stands_alone=True,
        blocks=False,
    )


CHECK = Check(
    name="nccl",
    title="NCCL",
    needs=("pytorch",),
    codes=listed_codes(__doc__),
    judge=judge,
)
