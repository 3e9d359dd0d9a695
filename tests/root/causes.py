"""Takes a fresh machine into each cause of a dead driver that software can cure, by the way on which people get there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.root import cards
from tests.root.machine import Machine
from tests.root.nvidia import CUDA_PLACE
from tests.root.ubuntu import program
from tests.root.versions import FLAVOUR, KERNELS, NEW, OLD, driver
from tests.root.world import STATE, write

OPEN = "580-open"


@dataclass(frozen=True)
class Cause:
    """``code`` is the root cause that the doctor names then, ``step`` the section that it offers."""

    code: str
    step: str
    make: Callable[[Machine], None]
    card: cards.Card = cards.RTX_4070
    imports_torch: bool = False
    """It shows only where somebody asks CUDA."""


def _installed(machine: Machine, spelling: str = OPEN, *, dkms: bool = False) -> None:
    machine.install_driver(spelling, dkms=dkms)
    machine.boot()


def bare(_machine: Machine) -> None:
    """No driver."""


def newer_kernel_waits(machine: Machine) -> None:
    """No driver, and the updates of some weeks are installed without a restart."""
    machine.time_passes()
    machine.run("apt-get", "dist-upgrade")


def new_kernel_without_module(machine: Machine) -> None:
    """The kernel is upgraded, the metapackage of its modules is not."""
    _installed(machine)
    machine.time_passes()
    machine.install(f"linux-image-{FLAVOUR}")
    machine.boot()


def new_kernel_without_build(machine: Machine) -> None:
    """A new kernel with its headers, and DKMS was not called for it."""
    _installed(machine, dkms=True)
    machine.time_passes()
    hooks = ("/etc/kernel/postinst.d/dkms", "/etc/kernel/header_postinst.d/dkms")
    machine.run("chmod", "-x", *hooks)
    machine.install(f"linux-image-{FLAVOUR}", f"linux-headers-{FLAVOUR}")
    machine.run("chmod", "+x", *hooks)
    machine.boot()


def new_kernel_without_headers(machine: Machine) -> None:
    """DKMS had nothing to build against."""
    _installed(machine, dkms=True)
    machine.time_passes()
    machine.install(f"linux-image-{KERNELS[NEW]}")
    machine.boot()


def compiler_missing(machine: Machine) -> None:
    """The kernel was built by a compiler that is not here."""
    _installed(machine, dkms=True)
    machine.run("apt-get", "purge", "gcc-12")
    machine.time_passes()
    machine.install(f"linux-image-{FLAVOUR}", f"linux-headers-{FLAVOUR}")
    machine.boot()


def source_too_old(machine: Machine) -> None:
    """The driver's source does not compile with the new kernel."""
    _installed(machine, dkms=True)
    machine.remember("source-too-old", f"{driver(OPEN, OLD)}\n")
    machine.time_passes()
    machine.install(f"linux-image-{FLAVOUR}", f"linux-headers-{FLAVOUR}")
    machine.boot()


def key_not_enrolled(machine: Machine) -> None:
    """Secure Boot, and a module that DKMS signed with this machine's own key."""
    machine.secure_boot(on=True)
    machine.install("shim-signed")
    _installed(machine, dkms=True)


def module_unsigned(machine: Machine) -> None:
    """DKMS built the module while Secure Boot was off; there is no key."""
    _installed(machine, dkms=True)
    machine.secure_boot(on=True)
    machine.boot()


def enrolment_pending(machine: Machine) -> None:
    """The key was handed in, and nobody was at the screen."""
    key_not_enrolled(machine)
    machine.run("mokutil", "--import", "/var/lib/shim-signed/mok/MOK.der", stdin="password1\npassword1\n")
    machine.boot()


def nouveau_not_blacklisted(machine: Machine) -> None:
    """The driver is there, and nothing keeps nouveau away."""
    machine.install_driver(OPEN)
    (machine.root / "usr/lib/modprobe.d/nvidia-graphics-drivers.conf").unlink()
    machine.run("update-initramfs", "-u", "-k", "all")
    machine.boot()


def nouveau_in_old_initramfs(machine: Machine) -> None:
    """The blacklist is there, and the early start does not know of it."""
    machine.install_driver(OPEN)
    (machine.root / STATE / "initramfs" / KERNELS[OLD] / "nvidia-graphics-drivers.conf").unlink()
    machine.boot()


def upgraded_not_restarted(machine: Machine) -> None:
    """apt replaced libraries and modules; the old module still runs."""
    _installed(machine)
    machine.time_passes()
    machine.run("apt-get", "dist-upgrade")


def upgraded_for_this_kernel_only(machine: Machine) -> None:
    """The same, and the kernel that boots next has no module."""
    _installed(machine)
    machine.install(f"linux-modules-nvidia-{OPEN}-{KERNELS[OLD]}")
    machine.run("apt-get", "purge", f"linux-modules-nvidia-{OPEN}-{FLAVOUR}")
    machine.time_passes()
    machine.run("apt-get", "dist-upgrade")


def not_loaded(machine: Machine) -> None:
    """Somebody unloaded the module."""
    _installed(machine)
    machine.run("rmmod", "nvidia_uvm")
    machine.run("rmmod", "nvidia")


def blacklisted(machine: Machine) -> None:
    """A file of modprobe.d switches the module off."""
    machine.install_driver(OPEN)
    write(machine.root, {"etc/modprobe.d/no-nvidia.conf": "# for the other card\nblacklist nvidia\nalias nvidia off\n"})
    machine.run("update-initramfs", "-u", "-k", "all")
    machine.boot()


def prime_intel(machine: Machine) -> None:
    """prime-select intel, to save power."""
    machine.install_driver(OPEN)
    machine.install("nvidia-prime")
    machine.run("prime-select", "intel")
    machine.boot()


def runfile_over_packages(machine: Machine) -> None:
    """NVIDIA's .run installer, and then apt put its own libraries back."""
    _installed(machine)
    module = "version:        550.54.14\nlicense:        NVIDIA\n"
    write(
        machine.root,
        {f"lib/modules/{KERNELS[OLD]}/updates/nvidia.ko": module, "usr/bin/nvidia-uninstall": program("nvidia-uninstall")},
    )
    (machine.root / "usr/bin/nvidia-uninstall").chmod(0o755)
    machine.boot()


def two_branches(machine: Machine) -> None:
    """The module's source from NVIDIA's archive beside Ubuntu's driver."""
    _installed(machine)
    machine.run("dpkg", "--install", f"/srv/web/{CUDA_PLACE}/cuda-keyring_1.1-1_all.deb")
    machine.install("nvidia-dkms-open")
    machine.boot()


def empty_library(machine: Machine) -> None:
    """The disk was full when the library was written."""
    _installed(machine)
    (machine.root / f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{driver(OPEN, OLD)}").write_bytes(b"")


def proprietary_on_blackwell(machine: Machine) -> None:
    """The proprietary modules on a card that knows the open ones only."""
    _installed(machine, "580")


def open_on_pascal(machine: Machine) -> None:
    """The open modules on a card without a GSP."""
    _installed(machine, OPEN)


def branch_too_old(machine: Machine) -> None:
    """A card that is newer than the branch."""
    _installed(machine, "535-open")


def no_nodes(machine: Machine) -> None:
    """A minimal system on which nobody makes the device nodes."""
    machine.remember("no-nodes")
    _installed(machine)


def no_uvm(machine: Machine) -> None:
    """nvidia_uvm is not loaded."""
    machine.remember("no-uvm")
    _installed(machine)


CAUSES = {
    "no driver": Cause("driver-not-installed", "driver#install", bare),
    "no driver, a newer kernel waits": Cause("driver-not-installed", "driver#install", newer_kernel_waits),
    "no driver on a server": Cause("driver-not-installed", "driver#install-server", bare, cards.A100),
    "new kernel without module": Cause(
        "kernel-module-missing-for-kernel", "kernel-modules#install-prebuilt-module", new_kernel_without_module
    ),
    "new kernel without build": Cause(
        "kernel-module-missing-for-kernel", "kernel-modules#build-with-dkms", new_kernel_without_build
    ),
    "headers missing": Cause("dkms-headers-missing", "kernel-modules#install-headers", new_kernel_without_headers),
    "compiler missing": Cause("dkms-build-failed", "kernel-modules#install-kernel-compiler", compiler_missing),
    "source too old": Cause("dkms-build-failed", "kernel-modules#repair-dkms-build", source_too_old),
    "key not enrolled": Cause("secure-boot-unsigned-module", "secure-boot#enrol-signing-key", key_not_enrolled),
    "module unsigned": Cause("secure-boot-unsigned-module", "secure-boot#use-signed-modules", module_unsigned),
    "enrolment pending": Cause("mok-pending", "secure-boot#confirm-enrolment", enrolment_pending),
    "nouveau": Cause("nouveau-conflict", "nouveau#blacklist-nouveau", nouveau_not_blacklisted),
    "nouveau in an old initramfs": Cause(
        "nouveau-conflict", "kernel-modules#reboot-into-installed-driver", nouveau_in_old_initramfs
    ),
    "upgraded": Cause("driver-library-mismatch", "kernel-modules#reboot-into-installed-driver", upgraded_not_restarted),
    "upgraded, next kernel without module": Cause(
        "driver-library-mismatch", "kernel-modules#install-module-and-restart", upgraded_for_this_kernel_only
    ),
    "not loaded": Cause("module-not-loaded", "kernel-modules#load-module", not_loaded),
    "blacklisted": Cause("driver-module-blacklisted", "kernel-modules#allow-nvidia-module", blacklisted),
    "prime-select intel": Cause("driver-module-blacklisted", "kernel-modules#select-nvidia-with-prime", prime_intel),
    "runfile over packages": Cause("mixed-driver-packages", "driver#remove-runfile-driver", runfile_over_packages),
    "two branches": Cause("mixed-driver-packages", "driver#keep-one-branch", two_branches),
    "empty library": Cause("zero-byte-lib", "driver#reinstall-libraries", empty_library),
    "proprietary module on Blackwell": Cause(
        "blackwell-needs-open", "driver#switch-to-open-modules", proprietary_on_blackwell, cards.RTX_5090
    ),
    "open module on Pascal": Cause("open-module-no-gsp", "driver#switch-to-proprietary-modules", open_on_pascal, cards.GTX_1080),
    "branch too old": Cause("gpu-unsupported-by-branch", "driver#change-branch", branch_too_old, cards.RTX_5090),
    "no device nodes": Cause("dev-nodes-missing", "kernel-modules#create-device-nodes", no_nodes),
    "no uvm": Cause("cuda-unknown-error-uvm", "kernel-modules#load-uvm", no_uvm, imports_torch=True),
}
