"""The story's machine in good health, as facts, and ways to change one thing about it."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

from gpudoctor.facts import (
    CudaDriver,
    Facts,
    Gpu,
    GpuProcess,
    Interpreter,
    Nvml,
    PciDevice,
    Resolution,
    Smoke,
    System,
    Torch,
    TorchImport,
    Unknown,
    User,
)
from gpudoctor.findings import Check

MIB = 1 << 20
GIB = 1 << 30
PYTHON = "/home/ada/llama/bin/python"
SITE = "/home/ada/llama/lib/python3.10/site-packages"
_NO = Unknown("not supported")

SYSTEM = System(
    os_id="ubuntu",
    os_version="22.04",
    os_name="Ubuntu 22.04.3 LTS",
    kernel="6.2.0-26-generic",
    machine="x86_64",
    wsl=0,
    container=None,
    product="ASUS System Product Name",
    platform=None,
    scheduler=None,
    memory_total=32 * GIB,
    memory_available=28 * GIB,
    memory_limit=None,
    shm_total=16 * GIB,
    cmdline="quiet splash",
    user=User("ada", 1000, ("ada", "sudo"), may_sudo=True),
)

INTERPRETER = Interpreter(
    path=PYTHON,
    chosen_by="--python",
    version="3.10.12",
    tag="cp310",
    machine="x86_64",
    glibc="2.35",
    prefix="/home/ada/llama",
    site_packages=(SITE,),
    owner="pip",
    has_pip=True,
    project=None,
)

TORCH = Torch(
    version="2.5.1+cu124",
    cuda="12.4",
    hip=None,
    git="a8d6afb511a69687bbb2b7e88a3cf67917e1697e",
    path=f"{SITE}/torch",
    installer="pip",
    sm=("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0"),
    ptx=(),
    nccl_built_in=True,
    cudnn_built_for="9.1.0",
    pins=(),
    missing_libraries=(),
    duplicates=(),
    missing_files=(),
    missing_bytecode=False,
    resolutions=(
        Resolution(
            "libcudnn.so.9",
            f"{SITE}/nvidia/cudnn/lib/libcudnn.so.9",
            "rpath",
            "9.1.0",
            f"{SITE}/nvidia/cudnn/lib/libcudnn.so.9",
            "9.1.0",
        ),
        Resolution(
            "libnccl.so.2",
            f"{SITE}/nvidia/nccl/lib/libnccl.so.2",
            "rpath",
            "2.21.5",
            f"{SITE}/nvidia/nccl/lib/libnccl.so.2",
            "2.21.5",
        ),
    ),
)

IMPORT = TorchImport(
    seconds=2.1,
    version="2.5.1+cu124",
    cuda="12.4",
    available=True,
    device_count=1,
    arch_list=("sm_86",),
    nccl=True,
    cudnn=90100,
    error=None,
    signal=None,
    hung=False,
    phase="done",
)

SMOKE = Smoke(
    checkpoint="open_llama_3b",
    format="none",
    weights="random",
    parameters=3_426_473_600,
    phase="done",
    error=None,
    symptoms=(),
    signal=None,
    hung=False,
    device="cuda",
    device_name="NVIDIA GeForce RTX 4070",
    dtype="bf16",
    processes=1,
    backend="nccl",
    all_reduce=True,
    all_reduce_bandwidth=None,
    finite=True,
    difference=0.004,
    tolerance=0.05,
    repeatable=True,
    new_tokens=32,
    seconds_to_first_token=0.031,
    seconds_total=4.2,
    tokens_per_second=61.2,
    bytes_per_token=6_700_000_000,
    bandwidth=450_000_000_000,
    predicted_memory=6_980_000_000,
    needed_memory=7_110_000_000,
    free_memory=int(11.04 * (1 << 30)),
    peak_memory=6_960_000_000,
    completions=(),
    notes=(),
)


def smoke(**changes: Any) -> Smoke:
    """A smoke test that came through on the healthy machine."""
    return replace(SMOKE, **changes)


def died(phase: str, error: str | None = None, **changes: Any) -> Smoke:
    """A smoke test that ended in that phase, with that error; what only later phases tell is not known."""
    proofs = ("finite", "difference", "tolerance", "repeatable")
    speeds = ("tokens_per_second", "seconds_to_first_token", "bandwidth", "peak_memory")
    changes = {**dict.fromkeys((*proofs, *speeds)), "new_tokens": 0, **changes}
    return replace(SMOKE, phase=phase, error=error, **changes)


def process(pid: int, used: int | Unknown, command: str, **changes: Any) -> GpuProcess:
    known = GpuProcess(pid=pid, used=used, kind="compute", user="ada", command=command, state="S")
    return replace(known, **changes)


DESKTOP = (
    process(1201, 412 * MIB, "/usr/lib/xorg/Xorg vt2", kind="graphics", user="root"),
    process(1344, 97 * MIB, "/usr/bin/gnome-shell", kind="graphics"),
    process(2210, 157 * MIB, "/usr/lib/firefox/firefox", kind="graphics"),
)


def gpu(index: int = 0, name: str = "NVIDIA GeForce RTX 4070", capability: str = "8.9", **changes: Any) -> Gpu:
    total = int(11.69 * GIB)
    known = Gpu(
        index=index,
        error=None,
        error_code=None,
        uuid=f"GPU-{index:08d}-89ab-4def-8123-456789abcdef",
        name=name,
        pci_address=f"0000:0{index + 1}:00.0",
        compute_capability=capability,
        memory_total=total,
        memory_free=total - 666 * MIB,
        memory_used=666 * MIB,
        processes=DESKTOP,
        compute_mode="default",
        mig=_NO,
        mig_pending=_NO,
        mig_devices=_NO,
        persistence=False,
        display_active=True,
        pcie_generation=4,
        pcie_generation_max=4,
        pcie_width=16,
        pcie_width_max=16,
        utilization=3,
        throttle=(),
        ecc_uncorrected=_NO,
        remap_pending=_NO,
        remap_failed=_NO,
        temperature=41,
        power_draw=12000,
        power_limit=200000,
        fabric="not-supported",
        virtualization="none",
        vgpu_licensed=None,
    )
    return replace(known, **changes)


def nvml(*gpus: Gpu, driver: str = "535.86.10", cuda: int = 12020) -> Nvml:
    return Nvml(
        library="/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
        error_code=None,
        error=None,
        crashed=None,
        hung=None,
        driver_version=driver,
        cuda_version=cuda,
        gpus=gpus,
    )


CARD = PciDevice(
    address="0000:01:00.0",
    vendor="10de",
    device="2786",
    pci_class="030000",
    name="NVIDIA GeForce RTX 4070",
    driver="nvidia",
    power="active",
    responds=True,
)


def facts(
    *gpus: Gpu,
    driver: str = "535.86.10",
    cuda: int = 12020,
    variables: dict[str, str] | None = None,
    **changes: Any,
) -> Facts:
    """The healthy machine; ``driver`` and ``cuda`` are those of NVML and of the libcuda that the target loads."""
    known = Facts(
        system=SYSTEM,
        pci=(CARD,),
        nvml=nvml(*(gpus or (gpu(),)), driver=driver, cuda=cuda),
        cuda_driver=CudaDriver("/usr/lib/x86_64-linux-gnu/libcuda.so.1", cuda, None),
        toolkits=(),
        libraries=(),
        interpreter=INTERPRETER,
        torch=TORCH,
        torch_import=IMPORT,
        companions=(),
        environments=(),
        variables=tuple(sorted((variables or {}).items())),
        kernel_log=(),
    )
    return replace(known, **changes)


def check(name: str) -> Check:
    """The check of that name; by its module's name, since type checkers cannot follow the folder's mapping."""
    found = import_module(f"gpudoctor.checks.{name}").CHECK
    assert isinstance(found, Check)
    return found
