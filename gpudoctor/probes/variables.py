"""Environment variables that change what CUDA, NCCL, PyTorch or the loader do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpudoctor.probes import links

if TYPE_CHECKING:
    from gpudoctor.probes.scope import Scope

VALUE_LIMIT = 4096
_MATTER = re.compile(
    r"(?:CUDA|NVIDIA|NCCL|PYTORCH|TORCH|TORCHINDUCTOR|TORCH_NCCL|NSIGHT|TRITON|CUDNN|NVIDIA_TF32)_\w+"
    r"|SLURM_\w*(?:GPU|GRES|TRES)\w*|SLURM_JOB_ID|SLURM_STEP_ID"
    r"|(?:HIP|ROCR)_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL"
    r"|LD_LIBRARY_PATH|LD_PRELOAD|LD_BIND_NOW|PYTHONPATH|PYTHONHOME|PYTHONNOUSERSITE|VIRTUAL_ENV|CONDA_PREFIX|CONDA_DEFAULT_ENV"
    r"|CI|GITHUB_ACTIONS|WSL_DISTRO_NAME"
)
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|PASSWD|AUTH|CREDENTIAL|COOKIE")
_ACCOUNT = re.compile(r"://[^/@\s]{1,200}@")


def look(scope: Scope) -> tuple[tuple[str, str], ...]:
    """Names and values, sorted; never one whose name speaks of a secret, and no account within an address."""
    chosen = (name for name in scope.environ if _MATTER.fullmatch(name) and not _SECRET.search(name))
    return tuple((name, _value(scope.environ[name])) for name in sorted(chosen))


def _value(value: str) -> str:
    return links.printable(_ACCOUNT.sub("://***@", value[:VALUE_LIMIT]))
