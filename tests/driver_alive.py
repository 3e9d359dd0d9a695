"""Machines whose driver answers: in good health, with one fault, and with a caveat."""

from __future__ import annotations

from dataclasses import replace

from gpudoctor.facts import (
    ConfigLine,
    CudaDriver,
    GpuProcess,
    MigDevice,
    Service,
    Symptom,
    Unknown,
)
from tests.driver_dead import BARE, DOCKER, MIXED, NEEDS_OPEN, NOUVEAU, STUB
from tests.driver_facts import (
    APT,
    LIBS,
    NEW,
    NODES,
    OLD,
    OPEN_580,
    UNSEEN,
    card,
    driver,
    facts,
    gpu,
    image,
    intel,
    kernel,
    library,
    log,
    lost,
    node,
    nvml,
    package,
    system,
    torch,
)

# ------------------------------------------------------------------ well

GPU_A100 = gpu(name="NVIDIA A100-SXM4-80GB", compute_capability="8.0", display_active=False, persistence=True)

HEALTHY = {
    "the story's machine": facts(),
    "nobody could read the kernel log, Secure Boot or the packages": facts(
        kernel_log=UNSEEN, kernel=UNSEEN, driver=UNSEEN, system=UNSEEN, pci=UNSEEN
    ),
    "the bus is hidden in a sandbox where NVML answers": facts(pci=()),
    "the module was built by DKMS with a key that nobody enrolled, and Secure Boot is off": facts(
        kernel=kernel(image(module_signer="box Secure Boot Module Signature key"))
    ),
    "the uvm node is not made before the first CUDA program": facts(driver=driver(nodes=NODES[:2]), torch_import=None),
    "the link rests at generation 1": facts(nvml=nvml(gpu(pcie_generation=1))),
    "a laptop's link has half the lanes": facts(
        nvml=nvml(gpu(name="NVIDIA GeForce RTX 4070 Laptop GPU", pcie_width=8)), pci=(intel(), card(name=None))
    ),
    "the machine slept and CUDA works": facts(kernel=kernel(suspended_since_boot=True)),
    "WSL2 has no module, no nodes and no process list": facts(
        system=system(wsl=2, kernel="5.15.153.1-microsoft-standard-WSL2"),
        pci=(),
        kernel=UNSEEN,
        driver=driver(
            module_version=None,
            module_flavour=None,
            packages=(),
            nodes=(node("/dev/dxg"),),
            libraries=(library("libcuda.so.1", None, path="/usr/lib/wsl/lib/libcuda.so.1"),),
        ),
    ),
    "a container gets one of eight GPUs": facts(
        system=system(container="docker"), pci=tuple(card(address=f"0000:0{bus}:00.0") for bus in range(1, 9))
    ),
    "a job of a scheduler gets one of eight GPUs": facts(
        system=system(scheduler="slurm"), pci=tuple(card(address=f"0000:0{bus}:00.0") for bus in range(1, 9))
    ),
    "a second card is kept for a virtual machine": facts(pci=(card(), card(address="0000:02:00.0", driver="vfio-pci"))),
    "a second card is too old for this driver and shows the desktop": facts(
        pci=(card(), card(address="0000:02:00.0", driver=None)),
        kernel_log=log(
            "NVRM: The NVIDIA GPU 0000:02:00.0 (PCI ID: 10de:1004)",
            "NVRM: installed in this system is not supported by the",
            f"NVRM: NVIDIA {OLD} driver release.",
        ),
    ),
    "exclusive mode and nobody on the GPU": facts(nvml=nvml(gpu(compute_mode="exclusive-process"))),
    "one GPU is taken and another is free": facts(
        nvml=nvml(
            gpu(compute_mode="exclusive-process", processes=(GpuProcess(7, 1 << 30, "compute", "eve", "python", "S"),)),
            gpu(index=1, uuid="GPU-1", pci_address="0000:02:00.0"),
        )
    ),
    "MIG with an instance": facts(
        nvml=nvml(replace(GPU_A100, mig=True, mig_devices=(MigDevice("MIG-1", "1g.10gb", UNSEEN, UNSEEN),)))
    ),
    "eight A100 in an NVSwitch machine whose fabric manager runs": facts(
        pci=(card(), card(address="0000:05:00.0", pci_class="068000", driver="nvidia")),
        driver=driver(services=(Service("nvidia-fabricmanager.service", installed=True, active="active"),)),
    ),
    "two different GPUs in the order of the bus": facts(
        nvml=nvml(gpu(), gpu(index=1, name="NVIDIA GeForce RTX 3060", pci_address="0000:02:00.0")),
        variables=(("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),),
    ),
    "debugging is switched off": facts(variables=(("CUDA_LAUNCH_BLOCKING", "0"),)),
    "a transitional package bears an old name": facts(
        driver=driver(
            packages=(package("libnvidia-compute-535", "550.120-0ubuntu1"), package("nvidia-dkms-550", "550.120-0ubuntu1"))
        )
    ),
    "an old branch's configuration is left behind": facts(
        driver=driver(packages=(*APT, package("nvidia-dkms-470", "470.256.02-0ubuntu1", "config-files")))
    ),
    "the .run installer alone": facts(driver=driver(packages=(), runfile=True)),
    "an open driver of the next major": facts(
        kernel=kernel(image(**OPEN_580)), nvml=nvml(driver_version="580.95.05", cuda_version=13000)
    ),
    "cuda-compat on a data-centre card": facts(
        driver=driver(
            libraries=(
                library("libnvidia-ml.so.1"),
                library("libcuda.so.1", "550.54.15", path="/usr/local/cuda/compat/libcuda.so.1"),
            )
        ),
        nvml=nvml(GPU_A100),
    ),
    "CUDA_VISIBLE_DEVICES hides everything: that is PyTorch's affair": facts(
        variables=(("CUDA_VISIBLE_DEVICES", ""),), torch_import=torch(available=False)
    ),
}


# ------------------------------------------------------------------ alive, with something wrong

UVM_ERROR = (
    "UserWarning: CUDA initialization: CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing "
    "env variable CUDA_VISIBLE_DEVICES after program start. Setting the available devices to be zero."
)
COUNT_ERROR = (
    "UserWarning: CUDA initialization: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
    "NumCudaDevices() that might have already set an error? Error {}: words (Triggered internally at ...)"
)
SWITCH = card(address="0000:05:00.0", device="22a3", pci_class="068000", driver="nvidia", name=None)
H100 = gpu(name="NVIDIA H100 80GB HBM3", compute_capability="9.0", display_active=False, persistence=True)
MANAGER = Service("nvidia-fabricmanager.service", installed=True, active="failed")
MANAGER_PACKAGE = package("nvidia-fabricmanager-535", f"{OLD}-0ubuntu0.22.04.1")
BLIND = torch(available=False)
SECOND = card(address="0000:02:00.0")


def xid(number: int, words: str = "pid=7, name=python, words", bus: str = "0000:01:00") -> tuple[Symptom, ...]:
    return log(f"NVRM: Xid (PCI:{bus}): {number}, {words}")


ALIVE = {
    "no GPU listed and no reason": (facts(nvml=nvml(gpus=()), torch_import=BLIND), "gpu-init-failed", "hardware#gpu-init-failed"),
    "no GPU listed: RmInitAdapter": (
        facts(
            nvml=nvml(gpus=()), kernel_log=log("NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0x65:1792)"), torch_import=BLIND
        ),
        "gpu-init-failed",
        "hardware#gpu-init-failed",
    ),
    "no GPU listed: the open modules": (
        facts(nvml=nvml(gpus=()), kernel_log=NEEDS_OPEN, torch_import=BLIND),
        "blackwell-needs-open",
        "driver#switch-to-open-modules",
    ),
    "no GPU listed: the old module's line, the open one loaded": (
        facts(
            nvml=nvml(gpus=()),
            driver=driver(module_flavour="open"),
            kernel_log=(*NEEDS_OPEN, *log("NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0x65:1792)")),
            torch_import=BLIND,
        ),
        "gpu-init-failed",
        "hardware#gpu-init-failed",
    ),
    "no GPU listed: nouveau": (
        facts(nvml=nvml(gpus=()), pci=NOUVEAU, torch_import=BLIND),
        "nouveau-conflict",
        "nouveau#blacklist-nouveau",
    ),
    "no GPU listed: no card": (
        facts(nvml=nvml(gpus=()), pci=(), driver=BARE, torch_import=BLIND),
        "no-nvidia-gpu",
        "hardware#no-nvidia-gpu",
    ),
    "no GPU listed in a container": (
        facts(nvml=nvml(gpus=()), system=DOCKER, torch_import=BLIND),
        "container-no-gpu-access",
        "container-toolkit#run-with-gpus",
    ),
    "no GPU listed in WSL": (
        facts(nvml=nvml(gpus=()), system=system(wsl=2), torch_import=BLIND),
        "wsl2-gpu-setup",
        "wsl#update-windows-driver",
    ),
    "one of two is lost": (
        facts(
            nvml=nvml(gpu(), lost(15, index=1, pci_address="0000:02:00.0")),
            pci=(card(), SECOND),
            kernel_log=xid(79, "GPU has fallen off the bus.", "0000:02:00"),
            torch_import=torch(available=False, error=UVM_ERROR),
        ),
        "gpu-fallen-off-bus",
        "hardware#gpu-fallen-off-bus",
    ),
    "a GPU that wants a reset": (facts(nvml=nvml(lost(16)), torch_import=BLIND), "reset-required", "hardware#reset-gpu"),
    "a power cable": (facts(nvml=nvml(lost(8)), torch_import=BLIND), "aux-power-missing", "hardware#connect-power"),
    "no interrupts": (facts(nvml=nvml(lost(11)), torch_import=BLIND), "irq-issue", "hardware#interrupts"),
    "a GPU that says only Unknown Error": (
        facts(nvml=nvml(lost(999)), torch_import=BLIND),
        "gpu-init-failed",
        "hardware#gpu-init-failed",
    ),
    "three of four": (
        facts(pci=(card(), SECOND), nvml=nvml(gpu())),
        "ci-gpu-count",
        "hardware#gpu-missing",
    ),
    "three of four, one not answering on the bus": (
        facts(pci=(card(), replace(SECOND, responds=False)), nvml=nvml(gpu())),
        "gpu-fallen-off-bus",
        "hardware#gpu-fallen-off-bus",
    ),
    "three of four, one node closed": (
        facts(pci=(card(), SECOND), driver=driver(nodes=(*NODES, node("/dev/nvidia1", "rw-rw----", group="video", usable=False)))),
        "device-node-permission",
        "kernel-modules#device-permission",
    ),
    "uvm absent": (
        facts(
            kernel=kernel(loaded=("nvidia",)), driver=driver(nodes=NODES[:2]), torch_import=torch(available=False, error=UVM_ERROR)
        ),
        "cuda-unknown-error-uvm",
        "kernel-modules#load-uvm",
    ),
    "uvm stale after a suspend": (
        facts(kernel=kernel(suspended_since_boot=True), torch_import=torch(available=False, error=UVM_ERROR)),
        "cuda-unknown-error-uvm",
        "kernel-modules#reload-uvm",
    ),
    "uvm absent and PyTorch silent": (
        facts(kernel=kernel(loaded=("nvidia",)), torch_import=BLIND),
        "cuda-unknown-error-uvm",
        "kernel-modules#load-uvm",
    ),
    "error 803": (
        facts(
            driver=driver(libraries=(LIBS[0], library("libcuda.so.1", "470.57.02", path="/opt/old/libcuda.so.1"))),
            torch_import=torch(available=False, error=COUNT_ERROR.format(803)),
        ),
        "libcuda-kernel-combination-803",
        "driver#remove-stray-libcuda",
    ),
    "error 802 and no manager": (
        facts(nvml=nvml(H100), torch_import=torch(available=False, error=COUNT_ERROR.format(802))),
        "fabric-manager-not-running",
        "fabric-manager#install",
    ),
    "a fabric that is not set up": (
        facts(
            nvml=nvml(replace(H100, fabric="in-progress")),
            driver=driver(packages=(*APT, MANAGER_PACKAGE), services=(MANAGER,)),
            torch_import=None,
        ),
        "fabric-manager-not-running",
        "fabric-manager#start",
    ),
    "a manager of another version": (
        facts(
            pci=(card(), SWITCH),
            driver=driver(packages=(*APT, package("nvidia-fabricmanager-535", NEW)), services=(MANAGER,)),
            torch_import=None,
        ),
        "fabric-manager-not-running",
        "fabric-manager#match-version",
    ),
    "a stub": (
        facts(driver=driver(libraries=(LIBS[0], STUB)), torch_import=BLIND),
        "stub-library",
        "driver#remove-stubs-from-path",
    ),
    "an empty libcuda": (
        facts(driver=driver(libraries=(LIBS[0], library("libcuda.so.1", size=0))), torch_import=BLIND),
        "zero-byte-lib",
        "driver#reinstall-libraries",
    ),
    "a container for nvidia-smi only": (
        facts(
            system=DOCKER,
            driver=driver(libraries=LIBS[:1]),
            cuda_driver=CudaDriver(None, None, "libcuda.so.1: cannot open"),
            torch_import=BLIND,
        ),
        "container-no-gpu-access",
        "container-toolkit#run-with-gpus",
    ),
    "a Linux libcuda in WSL 2": (facts(system=system(wsl=2), torch_import=BLIND), "wsl-linux-driver", "wsl#remove-linux-driver"),
    "MIG without an instance": (facts(nvml=nvml(replace(GPU_A100, mig=True))), "mig-no-instance", "driver#create-mig-instance"),
    "compute mode prohibited": (facts(nvml=nvml(gpu(compute_mode="prohibited"))), "compute-mode", "driver#compute-mode"),
    "exclusive mode and somebody there": (
        facts(
            nvml=nvml(
                gpu(compute_mode="exclusive-process", processes=(GpuProcess(4242, 1 << 30, "compute", "eve", "serve.py", "S"),))
            )
        ),
        "compute-mode",
        "driver#wait-for-gpu",
    ),
    "uncorrectable errors counted": (facts(nvml=nvml(replace(GPU_A100, ecc_uncorrected=2))), "xid48-dbe", "hardware#memory-errors"),
    "uncorrectable errors logged": (facts(kernel_log=xid(48)), "xid48-dbe", "hardware#memory-errors"),
    "no spare rows": (
        facts(nvml=nvml(replace(GPU_A100, remap_failed=True, ecc_uncorrected=9))),
        "row-remap-failed",
        "hardware#replace-gpu",
    ),
    "a hanging firmware processor": (
        facts(kernel_log=xid(119, "Timeout waiting for RPC from GSP!"), torch_import=torch(available=False, error=UVM_ERROR)),
        "xid119-gsp",
        "hardware#gsp-timeout",
    ),
    "two branches that still work": (facts(driver=driver(packages=MIXED)), "mixed-driver-packages", "driver#keep-one-branch"),
    "a CDI description of the last driver": (
        facts(driver=driver(cdi=(ConfigLine("/etc/cdi/nvidia.yaml", "535.54.03"),))),
        "ctr-cdi-stale",
        "container-toolkit#refresh-cdi",
    ),
}
TWO_KINDS = nvml(gpu(), gpu(index=1, name="NVIDIA GeForce RTX 3060", pci_address="0000:02:00.0"))
CAVEATS = {
    "a bad row waits": (facts(nvml=nvml(replace(GPU_A100, remap_pending=True, ecc_uncorrected=1))), "row-remap-pending", "warn"),
    "a contained error": (facts(kernel_log=(*xid(48), *xid(94))), "xid94-contained", "warn"),
    "a program's fault": (facts(kernel_log=xid(31)), "xid-app", "warn"),
    "a damaged infoROM": (
        facts(nvml=nvml(replace(GPU_A100, ecc_uncorrected=Unknown("Corrupted infoROM")))),
        "inforom-corrupt",
        "warn",
    ),
    "a GPU with a damaged infoROM": (facts(nvml=nvml(lost(14))), "inforom-corrupt", "warn"),
    "heat": (facts(nvml=nvml(gpu(throttle=("hw-slowdown", "hw-thermal"), temperature=92))), "throttle-thermal", "warn"),
    "power brake": (facts(nvml=nvml(gpu(throttle=("hw-slowdown", "power-brake")))), "throttle-hw", "warn"),
    "the power limit": (facts(nvml=nvml(gpu(throttle=("power-cap",)))), "throttle-powercap", "note"),
    "four lanes": (facts(nvml=nvml(gpu(pcie_width=4))), "pcie-width", "warn"),
    "no licence": (facts(nvml=nvml(gpu(virtualization="vgpu", vgpu_licensed=False))), "vgpu-unlicensed", "warn"),
    "two kinds of GPU": (facts(nvml=TWO_KINDS), "device-order", "warn"),
    "a debugging variable": (facts(variables=(("CUDA_LAUNCH_BLOCKING", "1"),)), "bad-cuda-env", "warn"),
    "a data-centre card without persistence": (facts(nvml=nvml(replace(GPU_A100, persistence=False))), "persistence-off", "note"),
}
