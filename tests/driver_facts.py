"""Facts of a healthy machine, part by part, for tests that change one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gpudoctor.facts import (
    CudaDriver,
    DeviceNode,
    Driver,
    Facts,
    Gpu,
    Kernel,
    KernelImage,
    LibraryFile,
    Nvml,
    Package,
    PciDevice,
    Symptom,
    System,
    TorchImport,
    Unknown,
    User,
)
from gpudoctor.symptoms import read

UNSEEN = Unknown("not looked at")
HERE, NEXT = "6.2.0-26-generic", "6.5.0-28-generic"
OLD, NEW = "535.86.10", "535.183.01"
BUS = "0000:01:00.0"
KEY = "AA:BB:CC"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"

# ------------------------------------------------------------------ a healthy machine, part by part


def system(**changes: Any) -> System:
    healthy = System(
        os_id="ubuntu",
        os_version="22.04",
        os_name="Ubuntu 22.04.3 LTS",
        kernel=HERE,
        machine="x86_64",
        wsl=0,
        container=None,
        product="ASUS System Product Name",
        platform=None,
        scheduler=None,
        memory_total=64 << 30,
        memory_available=60 << 30,
        memory_limit=None,
        shm_total=32 << 30,
        cmdline="quiet splash",
        user=User("ada", 1000, ("ada", "sudo"), may_sudo=True),
    )
    return replace(healthy, **changes)


def card(**changes: Any) -> PciDevice:
    return replace(
        PciDevice(BUS, "10de", "2786", "030000", "NVIDIA GeForce RTX 4070", "nvidia", "active", responds=True), **changes
    )


def intel() -> PciDevice:
    return PciDevice("0000:00:02.0", "8086", "4680", "030000", None, "i915", "active", responds=True)


def amd() -> PciDevice:
    return PciDevice("0000:03:00.0", "1002", "744c", "030000", "Navi 31", "amdgpu", "active", responds=True)


def image(**changes: Any) -> KernelImage:
    healthy = KernelImage(
        release=HERE,
        running=True,
        newest=True,
        headers=True,
        module_path=f"/lib/modules/{HERE}/kernel/nvidia-535/nvidia.ko",
        module_version=OLD,
        module_license="NVIDIA",
        module_signer="Canonical Ltd. Kernel Module Signing",
        module_key="11:22:33",
    )
    return replace(healthy, **changes)


OPEN_580 = {"module_license": "Dual MIT/GPL", "module_version": "580.95.05"}


def kernel(*images: KernelImage, **changes: Any) -> Kernel:
    healthy = Kernel(
        loaded=("nvidia", "nvidia_uvm"),
        images=images or (image(),),
        dkms=(),
        secure_boot=False,
        mok_pending=False,
        enrolled_keys=(KEY,),
        modprobe=(),
        suspended_since_boot=False,
    )
    return replace(healthy, **changes)


def package(name: str, version: str = f"{OLD}-0ubuntu0.22.04.1", state: str = "installed") -> Package:
    return Package(name, version, held=False, state=state)


def library(soname: str, version: str | None = OLD, **changes: Any) -> LibraryFile:
    path = f"{LIBRARIES}/{soname}"
    return replace(LibraryFile(soname, path, f"{path.removesuffix('.1')}.{version}", version, 1 << 20, "default"), **changes)


def node(path: str, mode: str = "rw-rw-rw-", *, group: str = "root", usable: bool = True) -> DeviceNode:
    return DeviceNode(path, mode, "root", group, usable)


NODES = tuple(node(f"/dev/{name}") for name in ("nvidia0", "nvidiactl", "nvidia-uvm"))
APT = (
    package("nvidia-driver-535"),
    package("libnvidia-compute-535"),
    package("linux-modules-nvidia-535-generic-hwe-22.04", "6.2.0-26.26"),
)
LIBS = (library("libnvidia-ml.so.1"), library("libcuda.so.1"))


def driver(**changes: Any) -> Driver:
    healthy = Driver(
        module_version=OLD,
        module_flavour="proprietary",
        version_line=None,
        libraries=LIBS,
        packages=APT,
        runfile=False,
        prime=None,
        services=(),
        nodes=NODES,
        container_toolkit=False,
        docker=None,
        cdi=(),
    )
    return replace(healthy, **changes)


def gpu(**changes: Any) -> Gpu:
    healthy = Gpu(
        index=0,
        error=None,
        error_code=None,
        uuid="GPU-0",
        name="NVIDIA GeForce RTX 4070",
        pci_address=BUS,
        compute_capability="8.9",
        memory_total=12 << 30,
        memory_free=11 << 30,
        memory_used=1 << 30,
        processes=(),
        compute_mode="default",
        mig=False,
        mig_pending=False,
        mig_devices=(),
        persistence=False,
        display_active=True,
        pcie_generation=1,
        pcie_generation_max=4,
        pcie_width=16,
        pcie_width_max=16,
        utilization=0,
        throttle=("idle",),
        ecc_uncorrected=Unknown("not supported"),
        remap_pending=Unknown("not supported"),
        remap_failed=Unknown("not supported"),
        temperature=41,
        power_draw=12000,
        power_limit=200000,
        fabric=Unknown("not supported"),
        virtualization="none",
        vgpu_licensed=None,
    )
    return replace(healthy, **changes)


def lost(code: int, **changes: Any) -> Gpu:
    """A GPU that NVML lists and cannot open."""
    gone = {name: UNSEEN for name in Gpu.__slots__ if name not in ("index", "error", "error_code", "pci_address", "vgpu_licensed")}
    return replace(gpu(), **{**gone, "error": "GPU is lost", "error_code": code, **changes})


def nvml(*gpus: Gpu, **changes: Any) -> Nvml:
    healthy = Nvml(
        library=f"{LIBRARIES}/libnvidia-ml.so.{OLD}",
        error_code=None,
        error=None,
        crashed=None,
        hung=None,
        driver_version=OLD,
        cuda_version=12020,
        gpus=gpus or (gpu(),),
    )
    return replace(healthy, **changes)


def refused(code: int, words: str = "as NVML says") -> Nvml:
    return nvml(error_code=code, error=words, driver_version=UNSEEN, cuda_version=UNSEEN, gpus=())


NO_NVML = replace(refused(12, "libnvidia-ml.so.1: cannot open shared object file: No such file or directory"), library=None)


def torch(*, available: bool = True, error: str | None = None) -> TorchImport:
    return TorchImport(
        2.0,
        "2.5.1+cu124",
        "12.4",
        available,
        int(available),
        (),
        nccl=True,
        cudnn=None,
        error=error,
        signal=None,
        hung=False,
        phase="done",
    )


def facts(**changes: Any) -> Facts:
    healthy = Facts(
        system=system(),
        pci=(intel(), card()),
        kernel=kernel(),
        driver=driver(),
        nvml=nvml(),
        nvidia_smi=None,
        cuda_driver=CudaDriver(f"{LIBRARIES}/libcuda.so.1", 12020, None),
        torch_import=torch(),
        variables=(),
        kernel_log=(),
    )
    return replace(healthy, **changes)


def log(*lines: str) -> tuple[Symptom, ...]:
    return read("\n".join(lines), "kernel log")


def dead(**changes: Any) -> Facts:
    """The module is not loaded (NVML 9); everything else is as it should be."""
    parts: dict[str, Any] = {
        "pci": (intel(), card(driver=None)),
        "kernel": kernel(loaded=()),
        "driver": driver(module_version=None, module_flavour=None, nodes=()),
        "nvml": refused(9),
        "torch_import": torch(available=False),
    }
    return facts(**{**parts, **changes})


def unloaded(**changes: Any) -> Driver:
    return driver(module_version=None, module_flavour=None, nodes=(), **changes)
