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
)
from gpudoctor.symptoms import read
from tests import healthy

UNSEEN = Unknown("not looked at")
HERE, NEXT = "6.2.0-26-generic", "6.5.0-28-generic"
OLD, NEW = "535.86.10", "535.183.01"
BUS = "0000:01:00.0"
KEY = "AA:BB:CC"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"

# ------------------------------------------------------------------ a healthy machine, part by part


def system(**changes: Any) -> System:
    return replace(healthy.SYSTEM, **changes)


def card(**changes: Any) -> PciDevice:
    return replace(healthy.CARD, **changes)


def intel() -> PciDevice:
    return PciDevice("0000:00:02.0", "8086", "4680", "030000", None, "i915", "active", responds=True)


def amd() -> PciDevice:
    return PciDevice("0000:03:00.0", "1002", "744c", "030000", "Navi 31", "amdgpu", "active", responds=True)


def image(**changes: Any) -> KernelImage:
    known = KernelImage(
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
    return replace(known, **changes)


OPEN_580 = {"module_license": "Dual MIT/GPL", "module_version": "580.95.05"}


def kernel(*images: KernelImage, **changes: Any) -> Kernel:
    known = Kernel(
        loaded=("nvidia", "nvidia_uvm"),
        images=images or (image(),),
        dkms=(),
        secure_boot=False,
        mok_pending=False,
        enrolled_keys=(KEY,),
        modprobe=(),
        suspended_since_boot=False,
    )
    return replace(known, **changes)


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
    known = Driver(
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
    return replace(known, **changes)


def gpu(**changes: Any) -> Gpu:
    idle: dict[str, Any] = {
        "pci_address": BUS,
        "processes": (),
        "mig": False,
        "mig_pending": False,
        "mig_devices": (),
        "pcie_generation": 1,
        "throttle": ("idle",),
    }
    return healthy.gpu(**{**idle, **changes})


def lost(code: int, **changes: Any) -> Gpu:
    """A GPU that NVML lists and cannot open."""
    gone = {name: UNSEEN for name in Gpu.__slots__ if name not in ("index", "error", "error_code", "pci_address", "vgpu_licensed")}
    return replace(gpu(), **{**gone, "error": "GPU is lost", "error_code": code, **changes})


def nvml(*gpus: Gpu, **changes: Any) -> Nvml:
    return replace(healthy.nvml(*(gpus or (gpu(),))), **changes)


def refused(code: int, words: str = "as NVML says") -> Nvml:
    return nvml(error_code=code, error=words, driver_version=UNSEEN, cuda_version=UNSEEN, gpus=())


NO_NVML = replace(refused(12, "libnvidia-ml.so.1: cannot open shared object file: No such file or directory"), library=None)


def torch(*, available: bool = True, error: str | None = None) -> TorchImport:
    return replace(healthy.IMPORT, available=available, device_count=int(available), error=error)


def facts(**changes: Any) -> Facts:
    known = Facts(
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
    return replace(known, **changes)


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
