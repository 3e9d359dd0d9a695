"""The facts as the driver check reads them: what could not be observed is None here, and a fix knows its place."""

from __future__ import annotations

from dataclasses import dataclass

from gpudoctor.cards import AMD, INTEL, NVIDIA, cards_on_bus, is_display
from gpudoctor.facts import (
    Driver,
    Facts,
    Gpu,
    Kernel,
    KernelImage,
    LibraryFile,
    NvidiaSmi,
    Nvml,
    Package,
    PciDevice,
    Service,
    Symptom,
    System,
    TorchImport,
    Unknown,
)
from gpudoctor.findings import Evidence, Finding, Fix, Severity
from gpudoctor.knowledge import drivers
from gpudoctor.symptoms import read

from ..place import Place, installed_packages, place_of
from ..words import listing
from . import models

EVIDENCE_LIMIT = 300
NVML_LIBRARY = "libnvidia-ml.so.1"
CUDA_LIBRARY = "libcuda.so.1"
OTHER_DRIVERS = ("nouveau", "nova_core", "nova-core", "vfio-pci")

# Pages whose steps change the machine below a container and need an administrator.
_MACHINE_PAGES = ("driver", "nouveau", "secure-boot", "kernel-modules", "fabric-manager", "hardware")
_FOR_ANYONE = ("driver#remove-stubs-from-path", "driver#wait-for-gpu", "hardware#application-fault")
# Steps that put a stock driver, or another one, in place of the vendor's own.
_STOCK_DRIVER = (
    "driver#install",
    "driver#install-server",
    "driver#change-branch",
    "driver#switch-to-open-modules",
    "driver#switch-to-proprietary-modules",
    "driver#reinstall-libraries",
    "driver#remove-runfile-driver",
    "driver#keep-one-branch",
    "secure-boot#use-signed-modules",
    "kernel-modules#install-prebuilt-module",
    "kernel-modules#install-module-and-restart",
    "kernel-modules#build-with-dkms",
    "kernel-modules#build-module-and-restart",
    "kernel-modules#repair-dkms-build",
    "kernel-modules#follow-the-kernel",
    "kernel-modules#follow-with-headers",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine; every attribute that is None could not be observed (``facts`` says why)."""

    facts: Facts
    place: Place
    system: System | None
    kernel: Kernel | None
    driver: Driver | None
    nvml: Nvml | None
    cards: tuple[PciDevice, ...] | None
    """NVIDIA's display and 3D controllers on the PCI bus."""
    others: tuple[PciDevice, ...]
    """Everybody else's display controllers."""
    switches: tuple[PciDevice, ...]
    """NVSwitches: bridges of class 0680 from NVIDIA."""
    packages: tuple[Package, ...]
    log: tuple[Symptom, ...]

    @property
    def running(self) -> KernelImage | None:
        """The folder of modules that belongs to the running kernel."""
        return next((image for image in self.images if image.running), None)

    @property
    def images(self) -> tuple[KernelImage, ...]:
        """The installed kernels; empty when nobody could look."""
        return () if self.kernel is None or isinstance(self.kernel.images, Unknown) else self.kernel.images

    @property
    def module(self) -> str | None:
        """The version of the loaded kernel module; None when none is loaded or nobody could look."""
        version = self.driver.module_version if self.driver else None
        return version if isinstance(version, str) else None

    @property
    def module_is_absent(self) -> bool:
        """Somebody looked, and no NVIDIA module is loaded."""
        return self.driver is not None and self.driver.module_version is None

    @property
    def answers(self) -> bool:
        """NVML came up and every call returned."""
        nvml = self.nvml
        return nvml is not None and nvml.error_code is None and not (nvml.error or nvml.crashed or nvml.hung)

    @property
    def code(self) -> int | None:
        """The code with which NVML refused; None when it answered, hung, crashed or was not asked."""
        return self.nvml.error_code if self.nvml else None

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that NVML lists, dead ones included."""
        return self.nvml.gpus if self.nvml else ()

    @property
    def torch(self) -> TorchImport | None:
        """What a child said that imported torch."""
        return self.facts.torch_import if isinstance(self.facts.torch_import, TorchImport) else None

    @property
    def cuda_works(self) -> bool:
        """PyTorch saw a GPU through this driver: no stronger proof exists."""
        return self.torch is not None and self.torch.available is True and bool(self.torch.device_count)

    @property
    def smi(self) -> NvidiaSmi | None:
        """nvidia-smi, where it ran and named a driver."""
        smi = self.facts.nvidia_smi
        return smi if isinstance(smi, NvidiaSmi) and smi.exit_code == 0 and smi.driver_version else None

    @property
    def boots(self) -> KernelImage | None:
        """The kernel that boots next, as far as is known: GRUB's choice, else the newest."""
        told = self.facts.next_boot
        chosen = None if isinstance(told, Unknown) else told.kernel
        mine = next((image for image in self.images if image.release == chosen), None)
        return mine or next((image for image in self.images if image.newest), self.running)

    @property
    def needs_dkms(self) -> bool:
        """The installed driver builds its module on this machine."""
        names = any(package.name.startswith(("nvidia-dkms", "nvidia-kernel-source")) for package in self.packages)
        return names or bool(self.kernel and not isinstance(self.kernel.dkms, Unknown) and self.kernel.dkms)

    @property
    def card_names(self) -> str:
        """The NVIDIA cards on the bus, as a person reads them."""
        return listing([card_name(card) for card in self.cards or ()]) or "the GPU"

    @property
    def architecture(self) -> str | None:
        """The architecture that all NVIDIA cards here share; None when it is not known or they differ."""
        return models.the_one([model.architecture for model in self.models])

    @property
    def module_flavour(self) -> str | None:
        """open-required, proprietary-required or either, where all NVIDIA cards here agree; None when that is not known."""
        return models.the_one([model.modules for model in self.models])

    @property
    def models(self) -> tuple[models.Model, ...]:
        """What our tables know of each card, by NVML's word where there is one, else by the bus."""
        if self.answers and self.gpus:
            return tuple(models.of_gpu(gpu) for gpu in self.gpus)
        return tuple(models.of_card(card) for card in self.cards or ())

    @property
    def branch(self) -> str:
        """The driver branch that is installed, as apt spells it; the one to install where there is none."""
        return self.place.branch or branch_of(self.module) or self.wanted_branch

    @property
    def wanted_branch(self) -> str:
        """The branch that we advise for these cards, as apt spells it: for servers the one without a desktop's libraries."""
        first = [model.first_driver for model in self.models if model.first_driver]
        newest = max(first, key=lambda version: drivers.branch_of(version) or 0, default=None)
        number = drivers.recommended(self.architecture, first_driver=newest)
        flavour = "-open" if self.module_flavour in ("open-required", "either") else ""
        return f"{number}{'-server' if self.is_server else ''}{flavour}"

    @property
    def is_server(self) -> bool:
        """The installed packages are a server's; without any, a cloud machine or one with data-centre cards."""
        if self.place.branch is not None:
            return "-server" in self.place.branch
        return self.place.cloud is not None or any(model.kind == "datacenter" for model in self.models)

    @property
    def flavour(self) -> str:
        """What this kernel's metapackages end in; for a kernel that is not Ubuntu's, the best guess of apt's."""
        return self.place.flavour or "generic"

    def libraries(self, soname: str) -> tuple[LibraryFile, ...]:
        """The files that answer to a soname, the loader's choice first; empty when there is none or nobody could look."""
        if self.driver is None or isinstance(self.driver.libraries, Unknown):
            return ()
        return tuple(file for file in self.driver.libraries if file.soname == soname)

    def library_version(self) -> str | None:
        """The version of the libnvidia-ml.so.1 that the loader takes."""
        return next((file.version for file in self.libraries(NVML_LIBRARY)), None)

    def service(self, unit: str) -> Service | None:
        """One systemd unit, where it is known."""
        services = () if self.driver is None or isinstance(self.driver.services, Unknown) else self.driver.services
        return next((service for service in services if service.unit.removesuffix(".service") == unit), None)

    def package(self, *prefixes: str) -> Package | None:
        """The first installed package whose name begins so."""
        return next((package for package in self.packages if package.name.startswith(prefixes)), None)

    def has_node(self, path: str) -> bool | None:
        """Whether /dev has this node; None when nobody could look."""
        if self.driver is None or isinstance(self.driver.nodes, Unknown):
            return None
        return any(node.path == path for node in self.driver.nodes)

    def symptom(self, *ids: str, card: str | None = None) -> Symptom | None:
        """The last line of the kernel log with one of these ids, about ``card`` if that is given."""
        found = [s for s in self.log if s.id in ids and (card is None or same_card(s.value("pci"), card))]
        return found[-1] if found else None

    def xid(self, *numbers: str, card: str | None = None) -> Symptom | None:
        """The last Xid of these numbers in the kernel log, about ``card`` if that is given."""
        found = [s for s in self.log if s.id == "nvrm-xid" and s.value("xid") in numbers]
        found = [s for s in found if card is None or same_card(s.value("pci"), card)]
        return found[-1] if found else None

    def torch_symptoms(self) -> tuple[Symptom, ...]:
        """The known error texts in what ``import torch`` and libcuda said."""
        said = self.torch.error if self.torch else None
        cuda = None if isinstance(self.facts.cuda_driver, Unknown) else self.facts.cuda_driver.error
        return (*(read(said, "import torch") if said else ()), *(read(cuda, CUDA_LIBRARY) if cuda else ()))

    def fix(self, step: str, *, where: str | None = None, risk: str | None = None, **values: str) -> Fix:
        """The section ``step`` with its values, moved to where it can be done and by whom."""
        if self.place.vendor and step in _STOCK_DRIVER:
            return Fix("driver#vendor-driver", where="administrator")
        filled = tuple((name, value) for name, value in values.items() if value)
        return Fix(step, filled, where or self._where(step), risk)

    def _where(self, step: str) -> str | None:
        if step.partition("#")[0] not in _MACHINE_PAGES or step in _FOR_ANYONE:
            return None
        if self.place.container:
            return "host"
        return "administrator" if self.place.may_sudo is False else None


def machine_of(facts: Facts) -> Machine:
    """The machine that these facts describe."""
    pci = None if isinstance(facts.pci, Unknown) else facts.pci
    cards = cards_on_bus(facts)
    return Machine(
        facts=facts,
        place=place_of(facts),
        system=None if isinstance(facts.system, Unknown) else facts.system,
        kernel=None if isinstance(facts.kernel, Unknown) else facts.kernel,
        driver=None if isinstance(facts.driver, Unknown) else facts.driver,
        nvml=None if isinstance(facts.nvml, Unknown) else facts.nvml,
        cards=None if isinstance(cards, Unknown) else cards,
        others=tuple(device for device in pci or () if device.vendor != NVIDIA and is_display(device)),
        switches=tuple(d for d in pci or () if d.vendor == NVIDIA and d.pci_class.startswith("0680")),
        packages=installed_packages(facts.driver),
        log=() if isinstance(facts.kernel_log, Unknown) else facts.kernel_log,
    )


def finding(
    code: str,
    summary: str,
    cause: str,
    evidence: tuple[Evidence | None, ...],
    fix: Fix,
    *,
    severity: Severity = "fail",
    same_as: tuple[str, ...] = (),
) -> Finding:
    """A finding with the evidence that there is."""
    there = tuple(item for item in evidence if item is not None)
    return Finding(code, severity, summary, cause, there, fix, same_as=same_as)


def seen(source: str, text: object) -> Evidence:
    """What was read in ``source``, cut to a few lines' worth."""
    words = str(text).strip()
    return Evidence(source, words if len(words) <= EVIDENCE_LIMIT else f"{words[: EVIDENCE_LIMIT - 4]} ...")


def logged(symptom: Symptom | None) -> Evidence | None:
    """A line of the kernel log as evidence."""
    return None if symptom is None else seen(symptom.source, symptom.text)


def bound(card: PciDevice) -> Evidence:
    """Which kernel driver holds a card."""
    return seen(f"/sys/bus/pci/devices/{card.address}", f"{card_name(card)}: kernel driver {card.driver or 'none'}")


def nvml_said(machine: Machine) -> Evidence | None:
    """NVML's own words for why it did not come up."""
    nvml = machine.nvml
    if nvml is None or nvml.error_code is None:
        return None
    return seen(nvml.library or "NVML", f"{nvml.error or 'no words'} (NVML code {nvml.error_code})")


def card_name(card: PciDevice) -> str:
    """The product's name, or at least its ids and address."""
    maker = {NVIDIA: "NVIDIA", AMD: "AMD", INTEL: "Intel"}.get(card.vendor, "display")
    return card.name or f"{maker} device {card.vendor}:{card.device} at {card.address}"


def gpu_name(gpu: Gpu) -> str:
    """Such as: GPU 1 (NVIDIA GeForce RTX 4070)."""
    if isinstance(gpu.name, str):
        return f"GPU {gpu.index} ({gpu.name})"
    return f"GPU {gpu.index} at {gpu.pci_address}" if isinstance(gpu.pci_address, str) else f"GPU {gpu.index}"


def address_of(gpu: Gpu) -> str | None:
    """Where the GPU is on the bus."""
    return gpu.pci_address if isinstance(gpu.pci_address, str) else None


def branch_of(version: str | None) -> str | None:
    """The branch number of a driver version, as text."""
    number = drivers.branch_of(version) if version else None
    return None if number is None else str(number)


def same_card(logged_address: str | None, address: str) -> bool:
    """Whether an address of the kernel log (0000:01:00, 00000000:01:00.0) means this PCI device."""
    if not logged_address:
        return False
    return _bus_and_slot(logged_address) == _bus_and_slot(address)


def _bus_and_slot(address: str) -> tuple[str, ...]:
    parts = address.lower().partition(".")[0].split(":")
    domain = parts[0][-4:] if len(parts) == 3 else "0000"
    return (domain, *parts[-2:])
