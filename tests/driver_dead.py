"""Machines whose driver is dead: (facts, code, step) for each cause."""

from __future__ import annotations

from dataclasses import replace

from gpudoctor.facts import (
    ConfigLine,
    DkmsBuild,
    User,
)
from tests.driver_facts import (
    HERE,
    LIBS,
    NEW,
    NEXT,
    NO_NVML,
    OLD,
    OPEN_580,
    UNSEEN,
    amd,
    card,
    dead,
    driver,
    facts,
    image,
    intel,
    kernel,
    library,
    log,
    node,
    nvml,
    package,
    refused,
    system,
    unloaded,
)

# ------------------------------------------------------------------ dead, one cause each

EMPTY_ML = library("libnvidia-ml.so.1", size=0)
STUB = library("libcuda.so.1", None, path="/usr/local/cuda/lib64/stubs/libcuda.so.1")
BARE = driver(module_version=None, module_flavour=None, libraries=(), packages=(), nodes=())
NOUVEAU = (card(driver="nouveau"),)
DKMS = (package("nvidia-dkms-535"), package("libnvidia-compute-535"), package("nvidia-driver-535"))
NO_MODULE = image(module_path=None, module_version=None, module_license=None, module_signer=None, module_key=None)
OWN_KEY = image(module_signer="box Secure Boot Module Signature key", module_key="DD:EE")
NEEDS_OPEN = log("NVRM: installed in this system requires use of the NVIDIA open kernel modules.")
NO_GSP = log(
    "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:1b80)",
    "NVRM: installed in this system is not supported by open",
    "NVRM: nvidia.ko because it does not include the required GPU",
    "NVRM: System Processor (GSP).",
)
UNSUPPORTED = log(
    "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:102d)",
    "NVRM: installed in this system is not supported by the",
    f"NVRM: NVIDIA {OLD} driver release.",
)
NO_BAR = log("NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:", "NVRM: BAR1 is 0M @ 0x0 (PCI:0000:01:00.0)")
REJECTED = log("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service")
KEPLER = card(device="102d", name=None, driver=None)
RTX_5090 = card(device="2b85", name="NVIDIA GeForce RTX 5090")
PASCAL = card(device="1b80", name="GP104 [GeForce GTX 1080]")
FAILED = DkmsBuild(OLD, HERE, "failed", "error: implicit declaration of function 'drm_foo'")
GCC = DkmsBuild(OLD, HERE, "failed", "gcc: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'")
NAMED_GCC = DkmsBuild(OLD, HERE, "failed", "/bin/sh: 1: x86_64-linux-gnu-gcc-13: not found")
DOCKER = system(container="docker", user=User("root", 0, ("root",), may_sudo=True))
MIXED = (package("libnvidia-compute-535"), package("nvidia-dkms-550", "550.54.14-0ubuntu1"))
NEWER = (library("libnvidia-ml.so.1", NEW), library("libcuda.so.1", NEW))

DEAD = {
    "no card and nothing else": (
        facts(pci=(), nvml=NO_NVML, driver=BARE, torch_import=None),
        "no-nvidia-gpu",
        "hardware#no-nvidia-gpu",
    ),
    "an AMD card": (facts(pci=(amd(),), nvml=NO_NVML, driver=BARE, torch_import=None), "no-nvidia-gpu", "hardware#no-nvidia-gpu"),
    "an AMD card and placeholders of a library": (
        facts(pci=(amd(),), nvml=NO_NVML, driver=replace(BARE, libraries=(EMPTY_ML,)), torch_import=None),
        "no-nvidia-gpu",
        "hardware#no-nvidia-gpu",
    ),
    "the driver is installed, the card was taken out": (dead(pci=(intel(),)), "no-nvidia-gpu", "hardware#no-nvidia-gpu"),
    "the module found no card": (
        dead(pci=(), kernel_log=log("NVRM: No NVIDIA GPU found.")),
        "no-nvidia-gpu",
        "hardware#no-nvidia-gpu",
    ),
    "a fresh Ubuntu with nouveau": (
        facts(pci=NOUVEAU, nvml=NO_NVML, driver=BARE, torch_import=None),
        "driver-not-installed",
        "driver#install",
    ),
    "a server without driver": (
        facts(pci=(card(device="27b8", name="NVIDIA L4", driver=None),), nvml=NO_NVML, driver=BARE, torch_import=None),
        "driver-not-installed",
        "driver#install-server",
    ),
    "half a driver": (
        facts(
            nvml=NO_NVML,
            driver=unloaded(libraries=(), packages=(package("libnvidia-compute-535", state="half-installed"),)),
            torch_import=None,
        ),
        "driver-not-installed",
        "driver#reinstall-libraries",
    ),
    "the module alone": (
        facts(nvml=NO_NVML, driver=driver(libraries=(), packages=()), torch_import=None),
        "driver-not-installed",
        "driver#install",
    ),
    "packages whose files are gone": (
        facts(nvml=NO_NVML, driver=driver(libraries=()), torch_import=None),
        "driver-not-installed",
        "driver#reinstall-libraries",
    ),
    "vfio without a driver": (
        facts(pci=(card(driver="vfio-pci"),), nvml=NO_NVML, driver=BARE, torch_import=None),
        "vfio-bound",
        "kernel-modules#release-from-vfio",
    ),
    "an empty library first": (
        facts(
            nvml=replace(NO_NVML, error="libnvidia-ml.so.1: file too short"),
            driver=driver(libraries=(EMPTY_ML, *LIBS)),
            torch_import=None,
        ),
        "zero-byte-lib",
        "driver#reinstall-libraries",
    ),
    "a truncated library on a hidden bus": (
        facts(pci=(), nvml=replace(NO_NVML, error="libnvidia-ml.so.1: file too short"), torch_import=None),
        "zero-byte-lib",
        "driver#reinstall-libraries",
    ),
    "a library of the other word size": (
        facts(nvml=replace(NO_NVML, error="libnvidia-ml.so.1: wrong ELF class: ELFCLASS32"), torch_import=None),
        "zero-byte-lib",
        "driver#reinstall-libraries",
    ),
    "nouveau first": (dead(pci=NOUVEAU), "nouveau-conflict", "nouveau#blacklist-nouveau"),
    "nouveau until the restart": (
        dead(
            pci=NOUVEAU,
            kernel=kernel(
                loaded=("nouveau",), modprobe=(ConfigLine("/lib/modprobe.d/nvidia-graphics-drivers.conf", "blacklist nouveau"),)
            ),
        ),
        "nouveau-conflict",
        "kernel-modules#reboot-into-installed-driver",
    ),
    "vfio": (
        dead(
            pci=(card(driver="vfio-pci"),),
            kernel=kernel(
                loaded=("vfio_pci",), modprobe=(ConfigLine("/etc/modprobe.d/vfio.conf", "options vfio-pci ids=10de:2786"),)
            ),
        ),
        "vfio-bound",
        "kernel-modules#release-from-vfio",
    ),
    "a blacklist": (
        dead(kernel=kernel(loaded=(), modprobe=(ConfigLine("/etc/modprobe.d/no.conf", "blacklist nvidia"),))),
        "driver-module-blacklisted",
        "kernel-modules#allow-nvidia-module",
    ),
    "the kernel's command line": (
        dead(system=system(cmdline="quiet modprobe.blacklist=nouveau,nvidia")),
        "driver-module-blacklisted",
        "kernel-modules#allow-nvidia-module",
    ),
    "prime-select intel": (
        dead(driver=unloaded(prime="off")),
        "driver-module-blacklisted",
        "kernel-modules#select-nvidia-with-prime",
    ),
    "a build that failed": (
        dead(kernel=kernel(NO_MODULE, loaded=(), dkms=(FAILED,)), driver=unloaded(packages=DKMS)),
        "dkms-build-failed",
        "kernel-modules#repair-dkms-build",
    ),
    "a compiler that is too old": (
        dead(kernel=kernel(NO_MODULE, loaded=(), dkms=(GCC,)), driver=unloaded(packages=DKMS)),
        "dkms-build-failed",
        "kernel-modules#install-kernel-compiler",
    ),
    "headers that are missing": (
        dead(kernel=kernel(replace(NO_MODULE, headers=False), loaded=()), driver=unloaded(packages=DKMS)),
        "dkms-headers-missing",
        "kernel-modules#install-headers",
    ),
    "a kernel without its prebuilt module": (
        dead(kernel=kernel(NO_MODULE, image(release="5.19.0-50-generic", running=False, newest=False), loaded=())),
        "kernel-module-missing-for-kernel",
        "kernel-modules#install-prebuilt-module",
    ),
    "a kernel that DKMS left out": (
        dead(kernel=kernel(NO_MODULE, loaded=()), driver=unloaded(packages=DKMS)),
        "kernel-module-missing-for-kernel",
        "kernel-modules#build-with-dkms",
    ),
    "a kernel of one's own": (
        dead(
            system=system(kernel="6.9.3-060903-generic"),
            kernel=kernel(replace(NO_MODULE, release="6.9.3-060903-generic"), loaded=()),
        ),
        "kernel-module-missing-for-kernel",
        "kernel-modules#build-with-dkms",
    ),
    "an enrolment that waits": (
        dead(kernel=kernel(OWN_KEY, loaded=(), secure_boot=True, mok_pending=True)),
        "mok-pending",
        "secure-boot#confirm-enrolment",
    ),
    "a key that is not enrolled": (
        dead(kernel=kernel(OWN_KEY, loaded=(), secure_boot=True)),
        "secure-boot-unsigned-module",
        "secure-boot#enrol-signing-key",
    ),
    "a key that is not enrolled, in a cloud": (
        dead(system=system(product="Amazon EC2 g5.xlarge"), kernel=kernel(OWN_KEY, loaded=(), secure_boot=True)),
        "secure-boot-unsigned-module",
        "secure-boot#use-signed-modules",
    ),
    "no signature": (
        dead(kernel=kernel(image(module_signer=None, module_key=None), loaded=(), secure_boot=True)),
        "secure-boot-unsigned-module",
        "secure-boot#use-signed-modules",
    ),
    "the kernel's own word about a key": (
        dead(kernel=kernel(replace(OWN_KEY, module_key=UNSEEN), loaded=(), secure_boot=True), kernel_log=REJECTED),
        "secure-boot-unsigned-module",
        "secure-boot#enrol-signing-key",
    ),
    "a card for the open modules": (dead(kernel_log=NEEDS_OPEN), "blackwell-needs-open", "driver#switch-to-open-modules"),
    "a card for the open modules, by the tables": (
        dead(pci=(RTX_5090,), kernel=kernel(image(module_version="575.57.08"), loaded=())),
        "blackwell-needs-open",
        "driver#switch-to-open-modules",
    ),
    "a card for the proprietary modules": (
        dead(pci=(PASCAL,), kernel=kernel(image(**OPEN_580), loaded=()), kernel_log=NO_GSP),
        "open-module-no-gsp",
        "driver#switch-to-proprietary-modules",
    ),
    "a card for the proprietary modules, by the tables": (
        dead(pci=(PASCAL,), kernel=kernel(image(**OPEN_580), loaded=())),
        "open-module-no-gsp",
        "driver#switch-to-proprietary-modules",
    ),
    "a card that the branch dropped": (
        dead(pci=(KEPLER,), kernel_log=UNSUPPORTED),
        "gpu-unsupported-by-branch",
        "driver#change-branch",
    ),
    "a card that the branch does not know yet": (dead(pci=(RTX_5090,)), "gpu-unsupported-by-branch", "driver#change-branch"),
    "no memory window": (dead(kernel_log=NO_BAR), "bar-unassigned", "hardware#assign-bars"),
    "a library without a driver": (
        dead(driver=replace(BARE, libraries=LIBS), kernel=kernel(NO_MODULE, loaded=())),
        "driver-not-installed",
        "driver#install",
    ),
    "nothing that is seen": (dead(), "module-not-loaded", "kernel-modules#load-module"),
    "a module that Canonical signed under Secure Boot": (
        dead(kernel=kernel(loaded=(), secure_boot=True)),
        "module-not-loaded",
        "kernel-modules#load-module",
    ),
    "NVML 9 on a bus without cards": (
        dead(pci=(), kernel=UNSEEN, driver=UNSEEN),
        "module-not-loaded",
        "kernel-modules#load-module",
    ),
    "libraries that are newer, a module that waits": (
        facts(nvml=refused(18), driver=driver(libraries=NEWER), kernel=kernel(image(module_version=NEW))),
        "driver-library-mismatch",
        "kernel-modules#reboot-into-installed-driver",
    ),
    "libraries that are newer, no module for the next kernel": (
        facts(
            nvml=refused(18),
            driver=driver(libraries=NEWER),
            kernel=kernel(image(newest=False, module_version=NEW), replace(NO_MODULE, release=NEXT, running=False)),
        ),
        "driver-library-mismatch",
        "kernel-modules#install-module-and-restart",
    ),
    "libraries that are newer, an old module on the disk": (
        facts(nvml=refused(18), driver=driver(libraries=NEWER, packages=DKMS)),
        "driver-library-mismatch",
        "kernel-modules#build-module-and-restart",
    ),
    "libraries that are newer, a module that Secure Boot will refuse": (
        facts(
            nvml=refused(18), driver=driver(libraries=NEWER), kernel=kernel(replace(OWN_KEY, module_version=NEW), secure_boot=True)
        ),
        "driver-library-mismatch",
        "secure-boot#enrol-signing-key",
    ),
    "a mismatch that a silent NVML does not tell": (
        facts(nvml=UNSEEN, driver=driver(libraries=NEWER), kernel=kernel(image(module_version=NEW)), torch_import=None),
        "driver-library-mismatch",
        "kernel-modules#reboot-into-installed-driver",
    ),
    "a stray library before the driver's own": (
        facts(
            nvml=refused(18), driver=driver(libraries=(library("libnvidia-ml.so.1", NEW, path="/opt/x/libnvidia-ml.so.1"), *LIBS))
        ),
        "driver-library-mismatch",
        "driver#remove-stray-libcuda",
    ),
    "a mismatch in a container": (
        facts(nvml=refused(18), system=DOCKER, driver=driver(libraries=NEWER)),
        "driver-library-mismatch",
        "container-toolkit#recreate-container",
    ),
    "the .run installer over packages": (
        facts(nvml=refused(18), driver=driver(runfile=True)),
        "mixed-driver-packages",
        "driver#remove-runfile-driver",
    ),
    "two branches": (facts(nvml=refused(18), driver=driver(packages=MIXED)), "mixed-driver-packages", "driver#keep-one-branch"),
    "closed nodes": (
        facts(nvml=refused(4), driver=driver(nodes=(node("/dev/nvidiactl", "rw-rw----", group="video", usable=False),))),
        "device-node-permission",
        "kernel-modules#device-permission",
    ),
    "closed nodes of root's own": (
        facts(nvml=refused(4), driver=driver(nodes=(node("/dev/nvidiactl", "rw-rw----", group="root", usable=False),))),
        "device-node-permission",
        "kernel-modules#open-device-nodes",
    ),
    "nouveau where the driver has no module": (
        dead(pci=NOUVEAU, kernel=kernel(NO_MODULE)),
        "kernel-module-missing-for-kernel",
        "kernel-modules#install-prebuilt-module",
    ),
    "no nodes": (facts(nvml=refused(9), driver=driver(nodes=())), "dev-nodes-missing", "kernel-modules#create-device-nodes"),
    "a call that hangs": (facts(nvml=nvml(hung="nvmlInit")), "driver-hang", "driver#recover-hung-driver"),
    "a call that hangs because the card is gone": (
        facts(
            nvml=nvml(hung="nvmlInit"),
            kernel_log=log("NVRM: Xid (PCI:0000:01:00): 79, pid=1, name=python, GPU has fallen off the bus."),
        ),
        "gpu-fallen-off-bus",
        "hardware#gpu-fallen-off-bus",
    ),
    "a library that crashes": (facts(nvml=nvml(crashed="SIGSEGV in nvmlInit")), "nvml-crash", "driver#reinstall-libraries"),
    "a library that crashes, of two branches": (
        facts(nvml=nvml(crashed="SIGSEGV in nvmlInit"), driver=driver(packages=MIXED)),
        "mixed-driver-packages",
        "driver#keep-one-branch",
    ),
    "an unknown error on a host": (facts(nvml=refused(999)), "gpu-init-failed", "hardware#gpu-init-failed"),
    "a lost GPU at the start": (facts(nvml=refused(15)), "gpu-fallen-off-bus", "hardware#gpu-fallen-off-bus"),
    "a container without GPUs": (
        facts(system=DOCKER, nvml=NO_NVML, driver=replace(BARE, module_version=OLD), torch_import=None),
        "container-no-gpu-access",
        "container-toolkit#run-with-gpus",
    ),
    "a container on a host whose module is not loaded": (
        dead(system=DOCKER),
        "ctr-driver-not-loaded",
        "container-toolkit#repair-host-driver",
    ),
    "a container on a host with nouveau": (
        facts(system=DOCKER, pci=NOUVEAU, nvml=NO_NVML, driver=BARE, torch_import=None),
        "ctr-driver-not-loaded",
        "container-toolkit#repair-host-driver",
    ),
    "a container that lost its GPUs": (
        facts(system=DOCKER, nvml=refused(999)),
        "container-nvml-lost",
        "container-toolkit#recreate-container",
    ),
    "placeholders in an image": (
        facts(
            system=DOCKER,
            nvml=replace(NO_NVML, error="libnvidia-ml.so.1: file too short"),
            driver=driver(libraries=(EMPTY_ML,)),
            torch_import=None,
        ),
        "zero-byte-lib",
        "container-toolkit#remove-driver-files-from-image",
    ),
    "a container without a card": (
        facts(system=DOCKER, pci=(), nvml=NO_NVML, driver=BARE, torch_import=None),
        "no-nvidia-gpu",
        "hardware#no-nvidia-gpu",
    ),
    "WSL 1": (
        facts(system=system(wsl=1), pci=(), nvml=NO_NVML, driver=BARE, torch_import=None),
        "wsl2-gpu-setup",
        "wsl#update-windows-driver",
    ),
    "WSL 2 without Windows' libraries": (
        facts(system=system(wsl=2), pci=(), nvml=NO_NVML, driver=BARE, torch_import=None),
        "wsl2-gpu-setup",
        "wsl#update-windows-driver",
    ),
    "a Linux driver in WSL 2": (dead(system=system(wsl=2), pci=()), "wsl-linux-driver", "wsl#remove-linux-driver"),
}
