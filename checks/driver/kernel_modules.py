"""Whether a kernel has its module, and if not, who should have built or brought it."""

from __future__ import annotations

import re

from gpudoctor.facts import DkmsBuild, KernelImage, Unknown
from gpudoctor.findings import Evidence, Finding, Fix

from .machine import Machine, finding, seen

_COMPILER = re.compile(r"(?<![\w.])(?:[\w-]+-linux-gnu-)?(gcc-\d{1,2})(?:: (?:command )?not found|: No such file)")
_KERNELS_COMPILER = re.compile(r"(?:kernel was built by|built with)\D{0,40}?(gcc-\d{1,2})")
# The kernel asks for an option that gcc learnt in version 12: https://gcc.gnu.org/gcc-12/changes.html
_NEW_OPTION, _COMPILER_OF_OPTION = "ftrivial-auto-var-init", "gcc-12"
_WITH_RESTART = {
    "kernel-modules#install-prebuilt-module": "kernel-modules#install-module-and-restart",
    "kernel-modules#build-with-dkms": "kernel-modules#build-module-and-restart",
}
_NO_HEADERS = "kernel headers for kernel"


def missing(machine: Machine) -> Finding | None:
    """The running kernel has no nvidia module; why, and how it gets one."""
    image = machine.running
    if image is None:
        return _no_folder(machine)
    if image.module_path is not None:
        return None
    build = build_for(machine, image.release)
    if build is not None and build.state == "failed" and not _lacks_headers(build, image):
        return _build_failed(machine, build)
    if not image.headers and machine.needs_dkms:
        return _headers_missing(machine, image, build)
    return _no_module(machine, image.release, other=_other_kernel(machine))


def build_for(machine: Machine, kernel: str) -> DkmsBuild | None:
    """What DKMS did for that kernel: a failure before anything else, as it is the newest attempt that counts."""
    builds = () if machine.kernel is None or isinstance(machine.kernel.dkms, Unknown) else machine.kernel.dkms
    mine = [build for build in builds if build.kernel == kernel]
    return next((build for build in mine if build.state == "failed"), mine[0] if mine else None)


def provide(machine: Machine, kernel: str) -> Fix:
    """The way to a module for that kernel: Ubuntu's prebuilt one, or a build by DKMS where the driver is of that kind."""
    prebuilt = machine.place.flavour is not None and not (machine.driver is not None and machine.driver.runfile)
    if prebuilt and not machine.needs_dkms:
        return machine.fix("kernel-modules#install-prebuilt-module", BRANCH=machine.branch, FLAVOUR=machine.flavour, KERNEL=kernel)
    if machine.driver is not None and machine.driver.runfile and machine.place.branch is None:
        return machine.fix("driver#remove-runfile-driver", BRANCH=machine.wanted_branch)
    return machine.fix("kernel-modules#build-with-dkms", KERNEL=kernel, FLAVOUR=machine.flavour)


def provide_and_restart(machine: Machine, kernel: str) -> Fix:
    """The same while another module is loaded: it stays until the restart, which comes after the new one is there."""
    fix = provide(machine, kernel)
    return Fix(_WITH_RESTART.get(fix.step, fix.step), fix.values, fix.where, fix.risk)


def _no_folder(machine: Machine) -> Finding | None:
    """Other kernels are installed, and the running one is not among them."""
    if not machine.images or not machine.place.kernel:
        return None
    return _no_module(machine, machine.place.kernel, other=_other_kernel(machine))


def _lacks_headers(build: DkmsBuild, image: KernelImage) -> bool:
    return not image.headers or _NO_HEADERS in (build.log or "")


def _other_kernel(machine: Machine) -> str | None:
    return next((image.release for image in machine.images if image.module_path and not image.running), None)


def _build_failed(machine: Machine, build: DkmsBuild) -> Finding:
    log = build.log or ""
    source = f"/var/lib/dkms/nvidia/{build.version}/build/make.log"
    compiler = _missing_compiler(log)
    if compiler is not None:
        return finding(
            "dkms-build-failed",
            f"DKMS could not build nvidia {build.version} for {build.kernel}: the kernel's compiler {compiler} is missing",
            f"This kernel was compiled with {compiler} and its modules must be too; the system's default gcc is older. The "
            "driver and the headers are fine: install that compiler and build again.",
            (seen(source, log), _module_evidence(machine, build.kernel)),
            machine.fix("kernel-modules#install-kernel-compiler", COMPILER=compiler, KERNEL=build.kernel),
        )
    return finding(
        "dkms-build-failed",
        f"DKMS failed to build nvidia {build.version} for kernel {build.kernel}",
        "The module's source is usually older than this kernel. A newer driver of a maintained branch, or Ubuntu's prebuilt "
        "module, cures that; until then the previous kernel still works (choose it in GRUB). Building the same source again "
        "does not help.",
        (seen(source, log or "ended in an error"), _module_evidence(machine, build.kernel)),
        machine.fix(
            "kernel-modules#repair-dkms-build",
            DKMS_VERSION=build.version,
            KERNEL=build.kernel,
            BRANCH=machine.branch,
            FLAVOUR=machine.flavour,
        ),
    )


def _missing_compiler(log: str) -> str | None:
    named = _COMPILER.search(log)
    if named:
        return named.group(1)
    if _NEW_OPTION not in log:
        return None
    built = _KERNELS_COMPILER.search(log)
    return built.group(1) if built else _COMPILER_OF_OPTION


def _headers_missing(machine: Machine, image: KernelImage, build: DkmsBuild | None) -> Finding:
    own = "" if machine.place.flavour else " This kernel is not one of Ubuntu's: its headers come from where it came from."
    return finding(
        "dkms-headers-missing",
        f"No kernel headers for {image.release}, so DKMS could not build the nvidia module",
        "The driver is of the kind that is compiled for each kernel on this machine, and for that it needs the kernel's headers. "
        f"Install the headers' metapackage too, so that the next kernel brings its own.{own} The driver is not at fault.",
        (
            seen(f"/lib/modules/{image.release}/build", "missing"),
            seen(f"/var/lib/dkms/nvidia/{build.version}", f"{build.kernel}: {build.state}") if build else None,
        ),
        machine.fix("kernel-modules#install-headers", KERNEL=image.release, FLAVOUR=machine.flavour),
    )


def _no_module(machine: Machine, kernel: str, *, other: str | None) -> Finding | None:
    if machine.place.branch is None and not (machine.driver and machine.driver.runfile) and other is None:
        return None  # no driver at all: that is another finding
    before = f" Kernel {other} has one, so the kernel was upgraded and the driver was not." if other else ""
    return finding(
        "kernel-module-missing-for-kernel",
        f"The driver is installed, but has no module for the running kernel {kernel}",
        f"A kernel module fits one kernel only.{before} Let the module follow the kernel by its metapackage, otherwise the next "
        "upgrade brings the fault back. Libraries, CUDA and PyTorch are not concerned.",
        (
            _module_evidence(machine, kernel),
            seen("/lib/modules", f"an nvidia module for {other}" if other else "no kernel has an nvidia module"),
        ),
        provide(machine, kernel),
    )


def _module_evidence(machine: Machine, kernel: str) -> Evidence:
    known = any(image.release == kernel for image in machine.images)
    return seen(f"/lib/modules/{kernel}", "no nvidia module" if known else "no such folder")
