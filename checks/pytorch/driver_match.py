"""The driver against the CUDA of the build.

Any driver that serves the build's CUDA major runs it: between the major's floor and the toolkit's own driver that is
called minor-version compatibility (https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html).
The CUDA that counts is cuDriverGetVersion of the libcuda.so.1 which the target loads; cuda-compat changes it. The rule is
``wheels.driver_runs``: with that number it asks no table, so that a CUDA newer than our data is judged all the same.
"""

from __future__ import annotations

from gpudoctor import wheels
from gpudoctor.facts import Facts, Gpu, Nvml, Torch, TorchImport, Unknown
from gpudoctor.findings import Evidence, Finding, Fix
from gpudoctor.knowledge import cuda, drivers

from ..cards import asleep
from ..place import in_wsl
from ..serving import Serving, recommended_branch, serving
from . import cure
from .part import Part


def judge(facts: Facts, torch: Torch) -> Part:
    """Whether the driver runs what this build of PyTorch contains."""
    driver = serving(facts)
    wanted = cuda.encode(torch.cuda or "")
    refused = _compat_refused(facts, torch, driver)
    if refused is not None:
        return Part((refused,))
    if not wanted:
        return Part(unknown=(f"which driver CUDA {torch.cuda} needs: no version that we can read",))
    if isinstance(facts.torch_import, TorchImport) and facts.torch_import.available and facts.torch_import.device_count:
        # it sees a GPU through this driver: no number proves more (a cuda-compat library may be at work)
        return Part(words=(_words(driver, wanted),))
    runs = _driver_runs(facts, torch, driver)
    if runs is None:
        if asleep(facts):
            return Part(words=("the GPU is asleep and was not asked",))
        return Part(unknown=(f"whether the driver serves CUDA {torch.cuda}: its CUDA version could not be had",))
    return Part(words=(_words(driver, wanted),)) if runs else Part((_too_old(facts, torch, driver, wanted),))


def _driver_runs(facts: Facts, torch: Torch, driver: Serving) -> bool | None:
    """The rule for the libcuda that is loaded; the driver's own version stands in where nobody could ask for its CUDA."""
    version = None if driver.cuda is not None or in_wsl(facts) else driver.version
    return wheels.driver_runs(torch.cuda or "", driver_version=version, cuda_version=driver.cuda)


def _words(driver: Serving, wanted: int) -> str:
    """Such as: driver 535.86.10 runs it by minor-version compatibility."""
    name = f"driver {driver.version}" if driver.version else "the driver"
    if driver.version is None and driver.cuda is not None:
        name = f"a driver for CUDA {cuda.decode(driver.cuda)}"
    if driver.compat:
        return f"{name} runs it with the cuda-compat library in {driver.compat}"
    own = driver.cuda is None or driver.cuda >= wanted
    return f"{name} runs it" if own else f"{name} runs it by minor-version compatibility"


def _too_old(facts: Facts, torch: Torch, driver: Serving, wanted: int) -> Finding:
    major = wanted // 1000
    floor = cuda.minor_compat_floor(major)
    advice = cure.cuda_build(facts)
    needed = f"a driver from {floor} on" if floor and not in_wsl(facts) else f"a driver that serves CUDA {major}"
    return Finding(
        code="driver-too-old-for-cuda",
        severity="fail",
        summary=f"PyTorch {torch.version} needs {needed}; {driver.words}{'' if driver.cuda is None else ','} is too old for it",
        cause=(
            f"PyTorch {torch.version} is built with CUDA {torch.cuda}. A driver serves its own CUDA major and the older ones, "
            f"and this one ends before CUDA {major}. {advice.why}{_other_way(facts, major) if advice.found else ''}"
        ),
        evidence=_evidence(facts, torch, driver),
        fix=advice.fix,
    )


def _other_way(facts: Facts, major: int) -> str:
    """The driver that would do as well, and its page; empty where none that drives these GPUs serves that CUDA major."""
    if not isinstance(facts.system, Unknown) and facts.system.platform is not None:
        return ""
    if in_wsl(facts):
        return " The other way is a newer NVIDIA driver in Windows (wsl#update-windows-driver); the build can then stay."
    branch = recommended_branch(facts)
    row = drivers.branch(branch)
    if row is not None and cuda.encode(row.cuda) // 1000 < major:
        return ""
    return f" The other way is driver branch {branch} (driver#change-branch); the build can then stay."


def _evidence(facts: Facts, torch: Torch, driver: Serving) -> tuple[Evidence, ...]:
    lines = [Evidence(f"{torch.path}/version.py", f"__version__ = {torch.version!r}, cuda = {torch.cuda!r}")]
    if isinstance(facts.nvml, Nvml) and isinstance(facts.nvml.driver_version, str):
        lines.append(Evidence("NVML", f"driver {facts.nvml.driver_version}"))
    if driver.cuda is not None:
        loaded = None if isinstance(facts.cuda_driver, Unknown) else facts.cuda_driver.path
        number = f"{driver.cuda}, which is CUDA {cuda.decode(driver.cuda)}"
        lines.append(Evidence(f"cuDriverGetVersion of {loaded}" if loaded else "NVML", number))
    return tuple(lines)


# ---------------------------------------------------------------- cuda-compat


def _compat_refused(facts: Facts, torch: Torch, driver: Serving) -> Finding | None:
    """A cuda-compat library is loaded, on a card whose driver does not accept it."""
    said = facts.torch_import if isinstance(facts.torch_import, TorchImport) else None
    error = (said.error or "") if said else ""
    told = "804" in error and "forward compatibility" in error
    geforce = next((gpu for gpu in _gpus(facts) if "GeForce" in str(gpu.name)), None)
    if not told and (driver.compat is None or geforce is None or (said is not None and said.available is True)):
        return None
    folder = driver.compat or "the cuda-compat folder on the loader's path"
    card = f" {geforce.name} is none of them." if geforce else ""
    evidence = [Evidence("import torch", error)] if told else []
    if driver.compat:
        evidence.append(Evidence("libcuda.so.1 that the target loads", f"{driver.compat}/libcuda.so.1"))
    return Finding(
        code="forward-compat-unsupported",
        severity="fail",
        summary="A cuda-compat library takes the place of the driver's own, and this GPU does not accept it (error 804)",
        cause=(
            f"The libcuda.so.1 of {folder} is loaded instead of the driver's. It lends an older driver a newer CUDA, on "
            f"data-centre and some workstation cards only.{card} Without it PyTorch {torch.version} meets the driver itself; "
            "if that is too old for it, the next check will name the build that fits."
        ),
        evidence=tuple(evidence),
        fix=Fix("driver#remove-cuda-compat", (("DIRECTORY", driver.compat),) if driver.compat else ()),
    )


def _gpus(facts: Facts) -> tuple[Gpu, ...]:
    return facts.nvml.gpus if isinstance(facts.nvml, Nvml) else ()
