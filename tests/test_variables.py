"""Environment variables that matter, and those that nobody may see."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gpudoctor.probes import variables
from gpudoctor.probes.scope import Scope


def look(environ: dict[str, str]) -> dict[str, str]:
    return dict(variables.look(Scope(Path("/"), environ, None, "own")))


def test_what_matters_and_what_does_not() -> None:
    seen = look(
        {
            "CUDA_VISIBLE_DEVICES": "0",
            "LD_LIBRARY_PATH": "/usr/local/cuda/lib64",
            "NCCL_DEBUG": "INFO",
            "SLURM_JOB_GPUS": "2,3",
            "SLURM_JOB_NAME": "x",
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
            "PATH": "/bin",
            "HOME": "/root",
            "CI": "true",
        }
    )
    assert list(seen) == [
        "CI",
        "CUDA_VISIBLE_DEVICES",
        "LD_LIBRARY_PATH",
        "NCCL_DEBUG",
        "PYTORCH_CUDA_ALLOC_CONF",
        "SLURM_JOB_GPUS",
    ]


def test_secrets_stay_out() -> None:
    assert look({"NVIDIA_API_KEY": "x", "NVIDIA_NGC_TOKEN": "x", "TORCH_SECRET": "x", "CUDA_AUTH": "x", "NCCL_PASSWORD": "x"}) == {}
    assert look({"TORCH_HUB": "https://ann:hush@example.org/x"}) == {"TORCH_HUB": "https://***@example.org/x"}


def test_values_are_bounded() -> None:
    assert len(look({"LD_PRELOAD": "x" * 10000})["LD_PRELOAD"]) == 4096


@given(value=st.text(max_size=50) | st.binary(max_size=50).map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_any_value_can_be_printed(value: str) -> None:
    look({"CUDA_HOME": value, "CUDA_" + value: "x"})["CUDA_HOME"].encode("utf-8")
