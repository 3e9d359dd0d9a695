"""The cure for what a text complains of: the section of an install page, with the values that the text tells.

A value that it does not tell stays a name in the command (``$KERNEL``), which the report explains.
"""

from __future__ import annotations

import dataclasses

from gpudoctor.facts import Facts, Interpreter, Unknown
from gpudoctor.findings import Fix

from ..cards import capabilities
from ..driver.machine import machine_of
from ..pytorch import cure
from .told import Suspect, Told

_STEPS = {
    "no-nvidia-gpu": "hardware#no-nvidia-gpu",
    "driver-not-installed": "driver#install",
    "nouveau-conflict": "nouveau#blacklist-nouveau",
    "secure-boot-unsigned-module": "secure-boot#use-signed-modules",
    "dkms-build-failed": "kernel-modules#repair-dkms-build",
    "dkms-headers-missing": "kernel-modules#install-headers",
    "kernel-module-missing-for-kernel": "kernel-modules#install-prebuilt-module",
    "driver-module-blacklisted": "kernel-modules#select-nvidia-with-prime",
    "module-not-loaded": "kernel-modules#load-module",
    "vfio-bound": "kernel-modules#release-from-vfio",
    "driver-library-mismatch": "kernel-modules#reboot-into-installed-driver",
    "libcuda-kernel-combination-803": "driver#remove-stray-libcuda",
    "gpu-init-failed": "hardware#gpu-init-failed",
    "gpu-fallen-off-bus": "hardware#gpu-fallen-off-bus",
    "gpu-unsupported-by-branch": "driver#change-branch",
    "blackwell-needs-open": "driver#switch-to-open-modules",
    "open-module-no-gsp": "driver#switch-to-proprietary-modules",
    "bar-unassigned": "hardware#assign-bars",
    "irq-issue": "hardware#interrupts",
    "device-node-permission": "kernel-modules#open-device-nodes",
    "cuda-unknown-error-uvm": "kernel-modules#reload-uvm",
    "fabric-manager-not-running": "fabric-manager#start",
    "wsl2-gpu-setup": "wsl#update-windows-driver",
    "container-toolkit-missing": "container-toolkit#install",
    "container-no-gpu-access": "container-toolkit#run-with-gpus",
    "container-nvml-lost": "container-toolkit#recreate-container",
    "ctr-driver-not-loaded": "container-toolkit#repair-host-driver",
    "ctr-cdi-stale": "container-toolkit#refresh-cdi",
    "driver-too-old-for-cuda": "driver#change-branch",
    "forward-compat-unsupported": "driver#remove-cuda-compat",
    "zero-byte-lib": "container-toolkit#remove-driver-files-from-image",
    "stub-library": "driver#remove-stubs-from-path",
    "compute-mode": "driver#compute-mode",
    "xid119-gsp": "hardware#gsp-timeout",
    "xid48-dbe": "hardware#memory-errors",
    "xid94-contained": "hardware#contained-memory-error",
    "xid-app": "hardware#application-fault",
    "aux-power-missing": "hardware#connect-power",
    "cuda-toolkit-missing": "cuda-toolkit#install",
    "nvcc-torch-version-mismatch": "cuda-toolkit#install",
    "nvcc-arch-unsupported": "cuda-toolkit#install",
    "host-compiler-unsupported": "cuda-toolkit#host-compiler",
    "cudnn-library-missing": "pytorch#reinstall-torch",
    "cudnn-version-mismatch": "pytorch#unset-library-path",
    "cudnn-init-failed": "memory#find-hidden-holder",
    "nccl-unsupported-os": "nccl#use-another-backend",
    "nccl-no-gpu-visible": "nccl#see-the-gpu-first",
    "nccl-symbol-mismatch": "pytorch#unset-library-path",
    "nccl-shm-too-small": "container-toolkit#shm-size",
    "nccl-p2p-failure": "nccl#peer-to-peer",
    "nccl-duplicate-gpu": "smoke#one-process-per-gpu",
    "nccl-init-failed": "nccl#start",
    "extension-lacks-gpu-arch": "pytorch#rebuild-extension",
    "extension-built-without-cuda": "pytorch#rebuild-extension",
    "extension-abi-mismatch": "pytorch#rebuild-extension",
    "torchvision-mismatch": "pytorch#match-companions-with-pip",
    "cuda-library-conflict": "pytorch#unset-library-path",
    "cuda-runtime-library-missing": "pytorch#reinstall-torch",
    "bitsandbytes-cuda-setup": "pytorch#match-bitsandbytes",
    "model-larger-than-vram": "memory#fit-the-model",
    "training-state-exceeds-vram": "memory#shrink-the-training-state",
    "workload-exceeds-vram": "memory#shorten-the-work",
    "kv-cache-exceeds-vram": "memory#shrink-the-kv-cache",
    "vram-held-by-other-process": "memory#find-hidden-holder",
    "vram-fragmentation": "memory#expandable-segments",
    "host-memory-too-small": "memory#host-memory",
    "tensors-on-different-devices": "smoke#same-device",
    "half-not-supported-on-cpu": "smoke#choose-dtype",
    "bf16-unsupported-gpu": "smoke#choose-dtype",
    "flash-attention-gpu-too-old": "launch#choose-attention",
    "checkpoint-missing": "launch#find-the-checkpoint",
    "model-parallel-mismatch": "launch#one-process-per-shard",
    "command-line-malformed": "launch#repair-the-command-line",
    "file-is-lfs-pointer-or-truncated": "launch#download-again",
    "gated-repo-unauthorized": "launch#ask-for-access",
    "weights-only-unpickling": "launch#load-trusted-pickle",
    "invalid-device-ordinal": "smoke#one-process-per-gpu",
    "cuda-visible-devices-wrong": "pytorch#fix-visible-devices",
    "device-side-assert-index": "smoke#match-tokenizer",
    "rendezvous-port-in-use": "smoke#free-the-port",
    "cuda-fork-reinit": "launch#spawn-workers",
    "gpu-fault": "hardware#unstable-gpu",
}
BUILDS = (
    "torch-cpu-only-build",
    "torch-gpu-arch-too-new",
    "torch-gpu-arch-too-old",
    "nccl-not-in-torch-build",
)
"""Cured by another build of PyTorch."""
ASSUMED_PYTHON = "3.10"
"""Ubuntu 22.04's own, where a text does not tell the Python."""
ASSUMED_OLD = "5.0"
"""Where a text calls a GPU too old and does not tell it: the oldest that PyTorch 2.8 and newer have code for."""


def fix(told: Told, suspect: Suspect) -> Fix:
    """The section and its values."""
    if suspect.step:
        return Fix(suspect.step, (*_values(told, suspect.step), *suspect.values), where=_where(told, suspect.step))
    if suspect.code in BUILDS:
        return _build(told, suspect).fix
    step = _STEPS.get(suspect.code, "gpudoctor#report-a-bug")
    return Fix(step, (*_values(told, step), *suspect.values), where=_where(told, step))


def words(told: Told, suspect: Suspect) -> str:
    """What is to be said of the cure beside its section."""
    if suspect.step or suspect.code not in BUILDS:
        return ""
    return _build(told, suspect).why


def _build(told: Told, suspect: Suspect) -> cure.Cure:
    """The build for this Python, driver and GPU. A build that is to be replaced for its own sake is not kept."""
    facts = _presumed(told)
    if suspect.code.startswith("torch-gpu-arch"):
        facts = dataclasses.replace(facts, torch=Unknown("it is to be replaced"))
    old = suspect.code == "torch-gpu-arch-too-old"
    advice = cure.cuda_build(facts, presumed=(ASSUMED_OLD,) if old else ())
    assumed = [advice.why]
    if old and advice.found and not capabilities(facts):
        assumed.append(f"The text does not tell your GPU: the command takes it to be of compute capability {ASSUMED_OLD} or newer.")
    if advice.found and not isinstance(told.facts.interpreter, Interpreter):
        assumed.append(f"The text does not tell your Python: the command takes it to be a {ASSUMED_PYTHON} of your environment.")
    return dataclasses.replace(advice, why=" ".join(filter(None, assumed)))


def _presumed(told: Told) -> Facts:
    """The facts with a Python, where the text shows none: a command needs one."""
    if isinstance(told.facts.interpreter, Interpreter):
        return told.facts
    python = Interpreter(
        path="python3",
        chosen_by="assumed",
        version=ASSUMED_PYTHON,
        tag=f"cp{ASSUMED_PYTHON.replace('.', '')}",
        machine=told.system.machine if told.system else "x86_64",
        glibc=None,
        prefix="",
        site_packages=(),
        owner="pip",
        has_pip=True,
        project=None,
    )
    return dataclasses.replace(told.facts, interpreter=python)


def _where(told: Told, step: str) -> str | None:
    """What has to be done to the host's driver is not done in a container."""
    page = step.partition("#")[0]
    return (
        "host"
        if told.container and page in ("driver", "kernel-modules", "fabric-manager", "hardware", "nouveau", "secure-boot")
        else None
    )


def _values(told: Told, step: str) -> tuple[tuple[str, str], ...]:
    """Everything that a section may ask for and that the text tells."""
    page = step.partition("#")[0]
    python = told.facts.interpreter
    found: dict[str, str] = {"PYTHON": python.path if isinstance(python, Interpreter) else "python3"}
    if page in ("driver", "kernel-modules", "secure-boot", "fabric-manager"):
        found |= _driver_values(told)
    torch_cuda = told.torch_cuda or _cuda_in_words(told)
    compiler = told.first("gcc-unsupported")
    if compiler is not None and compiler.value("gcc"):
        found["GCC"] = f"gcc-{compiler.value('gcc')}"
    if page == "cuda-toolkit" and torch_cuda:
        found |= {"CUDA": torch_cuda, "CUDA_PACKAGE": f"cuda-toolkit-{torch_cuda.replace('.', '-')}"}
    if page == "pytorch" and told.torch:
        found |= dict(cure.build_values(told.torch))
    package = _package(told, step)
    if package:
        found["NAME"] = package
    return tuple(found.items())


def _cuda_in_words(told: Told) -> str | None:
    """PyTorch's CUDA, where the message itself names it."""
    symptom = told.first("nvcc-mismatch", "deepspeed-mismatch")
    return symptom.value("torch") if symptom else None


_PACKAGES = {
    "flash_attn": "flash-attn",
    "xformers": "xformers",
    "selective_scan": "mamba-ssm",
    "mamba_ssm": "mamba-ssm",
    "causal_conv1d": "causal-conv1d",
    "mmcv": "mmcv",
    "detectron2": "detectron2",
    "bitsandbytes": "bitsandbytes",
    "torch_scatter": "torch-scatter",
    "torch_sparse": "torch-sparse",
    "torch_cluster": "torch-cluster",
    "exllama": "exllamav2",
    "gptq": "auto-gptq",
    "awq": "autoawq",
    "vllm": "vllm",
    "pytorch3d": "pytorch3d",
    "llama_cpp": "llama-cpp-python",
    "ctranslate2": "ctranslate2",
    "onnxruntime": "onnxruntime-gpu",
    "deepspeed": "deepspeed",
    "spconv": "spconv",
    "natten": "natten",
}
"""The names that pip knows of modules that texts name."""


def _package(told: Told, step: str) -> str | None:
    """The package that is to be built or taken anew; None where the text names none that pip knows."""
    if "match-companions" in step:
        spoken = " ".join(symptom.text for symptom in told.symptoms)
        return "torchaudio" if "torchaudio" in spoken and "torchvision" not in spoken else "torchvision"
    return next((pip for name in told.complaint.names for module, pip in _PACKAGES.items() if module in name), None)


def _driver_values(told: Told) -> dict[str, str]:
    machine = machine_of(told.facts)
    found = {"BRANCH": machine.wanted_branch}
    if machine.place.kernel:
        found["KERNEL"] = machine.place.kernel
    if machine.place.flavour:
        found["FLAVOUR"] = machine.place.flavour
    return found
