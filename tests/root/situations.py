"""Where each section of the install pages is tried: machines, and on each the sections in the order in which its story has them.

A situation says how the machine comes to need the section and which values a finding would bring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.root import cards
from tests.root.machine import Machine
from tests.root.ubuntu import program
from tests.root.versions import CUDA, FLAVOUR, KERNELS, NEW, OLD, driver
from tests.root.world import write

SPELLING, LIBRARY = "580-open", "580"
OWN_KEY = "/var/lib/shim-signed/mok/MOK.der"
PASSWORD = "password1\npassword1\n"  # noqa: S105 - a person invents one for the blue screen


def _as_it_is(_machine: Machine) -> None:
    """Nothing has to happen before."""


@dataclass(frozen=True)
class Situation:
    """One section on one machine."""

    section: str
    values: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[Machine], None] = _as_it_is
    stdin: str = ""


@dataclass(frozen=True)
class Story:
    """A machine and what befalls it, in this order."""

    card: cards.Card
    situations: tuple[Situation, ...]


def _with_file(path: str, text: str) -> Callable[[Machine], None]:
    return lambda machine: write(machine.root, {path.lstrip("/"): text})


def _unloaded(machine: Machine) -> None:
    for name in ("nvidia_uvm", "nvidia"):
        machine.run("rmmod", name, check=False)


def _without_nodes(machine: Machine) -> None:
    machine.shell("rm -f /dev/nvidia*; module-state")


def _without_uvm(machine: Machine) -> None:
    machine.shell("rmmod nvidia_uvm; rm -f /dev/nvidia-uvm; module-state")


def _user_ada(machine: Machine) -> None:
    machine.run("useradd", "--create-home", "ada")


def _nouveau_first(machine: Machine) -> None:
    machine.shell("rm -f /usr/lib/modprobe.d/nvidia-graphics-drivers.conf; update-initramfs -u -k all")
    machine.boot()


def _prime_intel(machine: Machine) -> None:
    machine.install("nvidia-prime")
    machine.run("prime-select", "intel")
    machine.boot()


def _empty_library(machine: Machine) -> None:
    write(machine.root, {f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{driver(SPELLING, OLD)}": ""})


def _stray_library(machine: Machine) -> None:
    machine.shell("cp /usr/lib/x86_64-linux-gnu/libcuda.so.1 /usr/local/lib/libcuda.so.1")


def _docker(machine: Machine) -> None:
    machine.install("docker.io")


def _cdi(machine: Machine) -> None:
    write(machine.root, {"etc/cdi/nvidia.yaml": "hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.535.1.1\n"})


def _runfile(machine: Machine) -> None:
    write(machine.root, {"usr/bin/nvidia-uninstall": program("nvidia-uninstall")})
    machine.run("chmod", "+x", "/usr/bin/nvidia-uninstall")


def _without_initramfs(machine: Machine) -> None:
    machine.run("rm", f"/boot/initrd.img-{KERNELS[OLD]}")


def _second_branch(machine: Machine) -> None:
    machine.install("nvidia-fabricmanager-535")


def _vfio(machine: Machine) -> None:
    write(machine.root, {"etc/modprobe.d/vfio.conf": "options vfio-pci ids=10de:2786\n"})


def _empty_in_image(machine: Machine) -> None:
    write(machine.root, {"usr/lib/x86_64-linux-gnu/libcuda.so.470.1.1": ""})


def _libraries_of_windows(machine: Machine) -> None:
    machine.shell("mkdir -p /usr/lib/wsl/lib; cp -L /usr/lib/x86_64-linux-gnu/libcuda.so.1 /usr/bin/nvidia-smi /usr/lib/wsl/lib")


def _other_version_of_fabric_manager(machine: Machine) -> None:
    machine.time_passes()
    machine.install("nvidia-fabricmanager-580")


def _dkms_driver(machine: Machine) -> None:
    machine.secure_boot(on=True)
    machine.install_driver(SPELLING, dkms=True)
    machine.boot()


def _key_pending(machine: Machine) -> None:
    machine.install("shim-signed")
    _dkms_driver(machine)
    machine.run("mokutil", "--import", OWN_KEY, stdin=PASSWORD)


def _forget_build(machine: Machine) -> None:
    machine.shell("rm -rf /lib/modules/*/updates /var/lib/dkms/nvidia")


def _new_kernel(machine: Machine) -> None:
    machine.time_passes()
    machine.install(f"linux-image-{KERNELS[NEW]}")
    machine.boot(confirm_enrolment=True)


def _without_compiler(machine: Machine) -> None:
    _forget_build(machine)
    machine.run("apt-get", "purge", "gcc-12")
    machine.run("dkms", "autoinstall", "-k", KERNELS[NEW], check=False)


def _source_too_old(machine: Machine) -> None:
    _forget_build(machine)
    machine.remember("source-too-old", f"{driver(SPELLING, OLD)}\n")
    machine.run("dkms", "autoinstall", "-k", KERNELS[NEW], check=False)


def _prebuilt_and_new_kernel(machine: Machine) -> None:
    machine.install_driver(SPELLING)
    machine.boot()
    _new_kernel(machine)


NEWEST = {"KERNEL": KERNELS[NEW], "FLAVOUR": FLAVOUR}
LOOKING = (
    "no-nvidia-gpu",
    "gpu-init-failed",
    "assign-bars",
    "gpu-fallen-off-bus",
    "memory-errors",
    "row-remap-pending",
    "replace-gpu",
    "contained-memory-error",
    "gsp-timeout",
    "application-fault",
    "inforom",
    "connect-power",
    "interrupts",
    "pcie-width",
    "cooling",
    "power-supply",
    "power-limit",
    "gpu-missing",
    "unstable-gpu",
)
"""Sections of the page hardware that need no values."""
STORIES = {
    "a desktop": Story(
        cards.RTX_4070,
        (
            Situation("driver#install", {"BRANCH": SPELLING}),
            Situation("kernel-modules#load-module", before=_unloaded),
            Situation("kernel-modules#create-device-nodes", before=_without_nodes),
            Situation("kernel-modules#load-uvm", before=_without_uvm),
            Situation("kernel-modules#reload-uvm"),
            Situation("kernel-modules#device-permission", {"GROUP": "video", "USER": "ada"}, _user_ada),
            Situation("kernel-modules#open-device-nodes"),
            Situation(
                "kernel-modules#allow-nvidia-module",
                {"FILE": "/etc/modprobe.d/no nvidia.conf"},
                _with_file("/etc/modprobe.d/no nvidia.conf", "blacklist nvidia\nalias nvidia off\n"),
            ),
            Situation("kernel-modules#release-from-vfio", {"FILE": "/etc/modprobe.d/vfio.conf"}, _vfio),
            Situation("kernel-modules#select-nvidia-with-prime", before=_prime_intel),
            Situation("nouveau#blacklist-nouveau", before=_nouveau_first),
            Situation("kernel-modules#reboot-into-installed-driver"),
            Situation("packages#finish-interrupted"),
            Situation("kernel-modules#renew-initramfs", {"KERNEL": KERNELS[OLD]}),
            Situation("kernel-modules#make-initramfs", {"KERNEL": KERNELS[OLD]}, _without_initramfs),
            Situation("kernel-modules#follow-the-kernel", {"BRANCH": SPELLING, "FLAVOUR": FLAVOUR}),
            Situation("driver#reinstall-libraries", {"BRANCH": SPELLING}, _empty_library),
            Situation("driver#remove-stray-libcuda", {"FILE": "/usr/local/lib/libcuda.so.1"}, _stray_library),
            Situation("driver#remove-cuda-compat", {"DIRECTORY": "/usr/local/cuda/compat"}),
            Situation("driver#remove-stubs-from-path"),
            Situation("driver#recover-hung-driver"),
            Situation("driver#compute-mode", {"GPU": "0"}),
            Situation("driver#wait-for-gpu", {"GPU": "0"}),
            Situation("driver#create-mig-instance", {"GPU": "0"}),
            Situation("driver#persistence"),
            Situation("driver#vgpu-licence"),
            Situation("driver#vendor-driver"),
            Situation("container-toolkit#shm-size"),
            *(Situation(f"hardware#{name}") for name in LOOKING),
            Situation("hardware#reset-gpu", {"GPU": "0"}),
            Situation("hardware#slow-memory", {"GPU": "0"}),
            Situation("memory#free-held-memory"),
            Situation("memory#find-hidden-holder"),
            Situation("memory#move-display"),
            Situation("memory#leftover-processes"),
            Situation("memory#unified-memory"),
            Situation("memory#expandable-segments"),
            Situation("memory#host-memory"),
            Situation("launch#find-the-checkpoint"),
            Situation("launch#download-again"),
            Situation("smoke#one-process-per-gpu"),
            Situation("smoke#look-where-it-hangs"),
            Situation("smoke#find-who-ended-it"),
            Situation("smoke#find-what-slows-decoding"),
            Situation("gpudoctor#report-a-bug"),
            Situation("nccl#see-the-gpu-first"),
            Situation("nccl#peer-to-peer"),
            Situation("pytorch#use-other-environment"),
            Situation("pytorch#import-hangs"),
            Situation("pytorch#unset-library-path", {"DIRECTORY": "/opt/cuda/lib64"}),
            Situation("pytorch#fix-visible-devices"),
            Situation("pytorch#device-order"),
            Situation("pytorch#unset-debug-variables", {"NAME": "CUDA_LAUNCH_BLOCKING"}),
            Situation("container-toolkit#install", before=_docker),
            Situation("container-toolkit#run-with-gpus"),
            Situation("container-toolkit#recreate-container"),
            Situation("container-toolkit#repair-host-driver"),
            Situation("container-toolkit#refresh-cdi", before=_cdi),
            Situation("cuda-toolkit#host-compiler", {"GCC": "gcc-12"}),
            Situation("cuda-toolkit#install", {"CUDA_PACKAGE": f"cuda-toolkit-{CUDA}", "CUDA": CUDA.replace("-", ".")}),
            Situation("cuda-toolkit#choose-toolkit"),
            Situation("cuda-toolkit#repair"),
            Situation("cudnn#install"),
            Situation("nccl#install"),
            Situation("driver#prefer-ubuntu-driver"),
            Situation("driver#hold-driver", {"BRANCH": SPELLING, "FLAVOUR": FLAVOUR}),
            Situation("driver#release-hold", {"BRANCH": SPELLING, "FLAVOUR": FLAVOUR}),
            Situation("driver#remove-runfile-driver", before=_runfile),
            Situation("driver#keep-one-branch", {"PACKAGE": "nvidia-fabricmanager-535"}, _second_branch),
            Situation("driver#change-branch", {"BRANCH": "535-open"}),
            Situation("driver#switch-to-proprietary-modules", {"BRANCH": "535", "FLAVOUR": FLAVOUR}),
            Situation("driver#switch-to-open-modules", {"BRANCH": "535-open", "FLAVOUR": FLAVOUR}),
        ),
    ),
    "a server": Story(
        cards.A100,
        (
            Situation("driver#install-server", {"BRANCH": "580-server-open"}),
            Situation("fabric-manager#install", {"BRANCH": "580-server-open"}),
            Situation("fabric-manager#start"),
            Situation(
                "fabric-manager#match-version",
                {"BRANCH": "580-server-open", "VERSION": driver("580-server-open", OLD)},
                _other_version_of_fabric_manager,
            ),
            Situation("container-toolkit#remove-driver-files-from-image", before=_empty_in_image),
            Situation("wsl#remove-linux-driver", before=_libraries_of_windows),
        ),
    ),
    "Secure Boot and DKMS": Story(
        cards.RTX_4070,
        (
            Situation("secure-boot#create-signing-key", {"BRANCH": SPELLING}, _dkms_driver),
            Situation("secure-boot#enrol-signing-key", {"KEYFILE": OWN_KEY}, stdin=PASSWORD),
            Situation("kernel-modules#build-with-dkms", {"KERNEL": KERNELS[OLD], "FLAVOUR": FLAVOUR}, _forget_build),
            Situation("kernel-modules#follow-with-headers", {"FLAVOUR": FLAVOUR}),
            Situation("kernel-modules#install-headers", NEWEST, _new_kernel),
            Situation("kernel-modules#build-module-and-restart", NEWEST, _forget_build),
            Situation("kernel-modules#install-kernel-compiler", {"KERNEL": KERNELS[NEW], "COMPILER": "gcc-12"}, _without_compiler),
            Situation(
                "kernel-modules#repair-dkms-build",
                {"DKMS_VERSION": driver(SPELLING, OLD), "KERNEL": KERNELS[NEW], "BRANCH": SPELLING},
                _source_too_old,
            ),
            Situation("secure-boot#use-signed-modules", {"BRANCH": SPELLING, "FLAVOUR": FLAVOUR}, _unloaded),
        ),
    ),
    "a pending key": Story(
        cards.RTX_4070,
        (Situation("secure-boot#confirm-enrolment", before=_key_pending),),
    ),
    "prebuilt modules": Story(
        cards.RTX_4070,
        (
            Situation("kernel-modules#install-prebuilt-module", {**NEWEST, "BRANCH": SPELLING}, _prebuilt_and_new_kernel),
            Situation("kernel-modules#install-module-and-restart", {**NEWEST, "BRANCH": SPELLING}),
        ),
    ),
    "NVIDIA's own driver": Story(cards.RTX_4070, (Situation("driver#install-newer-branch", {"BRANCH": "615-open"}),)),
}

PYTHON_PACKAGES = "it changes a Python environment from a package index; the tests of setup's PyTorch step do that for real"
COMPUTES = "it computes on a GPU, or asks a program that is not part of this world"
NOT_RUN = {
    "pytorch#collect-evidence": COMPUTES,
    "smoke#trace-a-crash": COMPUTES,
    "smoke#keep-the-error": COMPUTES,
    "nccl#start": COMPUTES,
    "nccl#use-another-backend": COMPUTES,
    "smoke#free-the-port": "it needs a process that listens, and ss",
    "launch#ask-for-access": "it logs in to a model hub",
    "wsl#update-windows-driver": "its commands are those of Windows",
    **dict.fromkeys(
        (
            "pytorch#cuda-build-with-pip",
            "pytorch#default-build-with-pip",
            "pytorch#cuda-build-with-uv",
            "pytorch#default-build-with-uv",
            "pytorch#cuda-build-with-uv-project",
            "pytorch#cuda-build-with-conda",
            "pytorch#cuda-build-with-pixi",
            "pytorch#cuda-build-with-poetry",
            "pytorch#make-environment",
            "pytorch#make-environment-for-torch",
            "pytorch#jetson-build",
            "pytorch#match-companions-with-pip",
            "pytorch#match-companions-with-uv",
            "pytorch#rebuild-extension",
            "pytorch#rebuild-extension-with-uv",
            "pytorch#reinstall-torch",
            "pytorch#reinstall-torch-with-uv",
            "pytorch#reinstall-torch-with-conda",
            "pytorch#remove-duplicate",
            "pytorch#remove-duplicate-with-conda",
            "pytorch#match-bitsandbytes",
            "pytorch#match-bitsandbytes-with-uv",
            "smoke#install-package",
            "smoke#install-package-with-uv",
        ),
        PYTHON_PACKAGES,
    ),
}
"""Sections with commands that are not tried here, and why."""
