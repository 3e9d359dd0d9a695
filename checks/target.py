"""What a PyTorch build has to serve: the GPUs that the target sees, and the driver below them.

Where the driver is dead, the GPUs are those that PCI shows, and the driver is the one that its own cure would install.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpudoctor.facts import CudaDriver, Facts, Gpu, Nvml, Unknown
from gpudoctor.knowledge import cuda, drivers, gpus

from .place import apt_branch, installed_packages
from .visible import visible

NVIDIA = "10de"


@dataclass(frozen=True, slots=True)
class Serving:
    """The driver as CUDA programs meet it. ``cuda`` is major*1000 + minor*10, of the libcuda that the target loads."""

    version: str | None
    cuda: int | None
    compat: str | None
    """The folder of a cuda-compat library that is loaded in place of the driver's own."""

    @property
    def words(self) -> str:
        """Such as: driver 535.86.10, with the CUDA that it serves where that is known."""
        name = f"driver {self.version}" if self.version else "the driver"
        return name if self.cuda is None else f"{name}, which serves CUDA {cuda.decode(self.cuda)}"


def serving(facts: Facts) -> Serving:
    """The driver that is in place; parts that nobody could ask are None."""
    nvml = facts.nvml if isinstance(facts.nvml, Nvml) else None
    loaded = facts.cuda_driver if isinstance(facts.cuda_driver, CudaDriver) else None
    version = nvml.driver_version if nvml and isinstance(nvml.driver_version, str) else None
    if version is None and not isinstance(facts.driver, Unknown) and isinstance(facts.driver.module_version, str):
        version = facts.driver.module_version
    number = loaded.version if loaded else None
    if number is None and nvml and isinstance(nvml.cuda_version, int):
        number = nvml.cuda_version
    in_compat = loaded is not None and loaded.path is not None and "/compat/" in loaded.path
    return Serving(version, number, loaded.path.rpartition("/")[0] if in_compat and loaded and loaded.path else None)


def driver_to_serve(facts: Facts) -> tuple[str, int | None, bool]:
    """(driver version, CUDA number, whether it is the one in place): else the one to be installed for this GPU."""
    found = serving(facts)
    installed = _installed(facts)
    if found.version is None and installed is not None:
        return installed, None, True
    if found.version is not None:
        number = found.cuda if found.compat is None else _own_cuda(facts)
        return found.version, number, True
    architecture = next((drivers.architecture_of(capability) for capability in capabilities(facts)), None)
    branch = drivers.branch(drivers.recommended(architecture))
    if branch is None:
        return f"{drivers.recommended(architecture)}.0", None, False
    return branch.latest or f"{branch.number}.0", cuda.encode(branch.cuda) or None, False


def _installed(facts: Facts) -> str | None:
    """The version of a driver whose module is not at work: its cure keeps the branch. By its libraries, else its packages."""
    if isinstance(facts.driver, Unknown):
        return None
    libraries = () if isinstance(facts.driver.libraries, Unknown) else facts.driver.libraries
    # a cuda-compat library or a stub is no driver
    own = (
        lib.version
        for lib in libraries
        if lib.soname == "libcuda.so.1" and "/compat/" not in lib.path and "/stubs/" not in lib.path
    )
    version = next((version for version in own if version), None)
    if version is not None:
        return version
    number = re.match(r"\d+", apt_branch(installed_packages(facts.driver)) or "")
    branch = drivers.branch(int(number.group())) if number else None
    return (branch.latest or f"{branch.number}.0") if branch else None


def _own_cuda(facts: Facts) -> int | None:
    """The CUDA of the driver itself where a cuda-compat library stands before it."""
    if isinstance(facts.nvml, Unknown) or isinstance(facts.nvml.driver_version, Unknown):
        return None
    known = cuda.cuda_of_driver(facts.nvml.driver_version)
    return cuda.encode(known) if known else None


def capabilities(facts: Facts) -> tuple[str, ...]:
    """Compute capabilities that the build must serve, of the visible GPUs, or of those that PCI shows."""
    seen = visible(facts)
    if not isinstance(seen, Unknown):
        # a variable that hides them all is a fault of its own; the build still has to serve what is there
        present = seen.gpus or (facts.nvml.gpus if isinstance(facts.nvml, Nvml) else ())
        known = [capability for gpu in present if (capability := capability_of(gpu)) is not None]
        if known:
            return tuple(dict.fromkeys(known))
    if isinstance(facts.pci, Unknown):
        return ()
    found = [gpus.by_pci_id(device.device) for device in facts.pci if device.vendor == NVIDIA]
    return tuple(dict.fromkeys(models[0].compute_capability for models in found if models))


def capability_of(gpu: Gpu) -> str | None:
    """NVML's word, else that of our table for its name; None when neither knows."""
    if isinstance(gpu.compute_capability, str):
        return gpu.compute_capability
    model = gpus.by_name(gpu.name) if isinstance(gpu.name, str) else None
    return model.compute_capability if model else None


def asleep(facts: Facts) -> bool:
    """Every NVIDIA GPU is suspended and was left so (a hybrid laptop on its other GPU)."""
    if isinstance(facts.pci, Unknown):
        return False
    cards = [device for device in facts.pci if device.vendor == NVIDIA and device.pci_class.startswith(("0300", "0302"))]
    return bool(cards) and all(device.power == "suspended" for device in cards)


def has_gpu(facts: Facts) -> bool | Unknown:
    """Whether the machine has an NVIDIA GPU, by NVML or else by the PCI bus."""
    if isinstance(facts.nvml, Nvml) and facts.nvml.gpus:
        return True
    if isinstance(facts.pci, Unknown):
        return Unknown(facts.pci.why)
    return any(device.vendor == NVIDIA and device.pci_class.startswith(("0300", "0302")) for device in facts.pci)
