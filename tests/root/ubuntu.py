"""What Ubuntu's archive has in this world: kernels, the driver in each of its spellings, and what the pages ask for beside them.

Names, dependencies and files are those of the real packages where something depends on them; the rest is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.root import versions
from tests.root.deb import Deb, instead_of
from tests.root.versions import (
    COMPILER,
    FLAVOUR,
    KERNELS,
    NEW,
    OLD,
    SPELLINGS,
    driver,
    driver_package,
    kernel_package,
    library_branch,
)
from tests.trees.small_elf import small_elf

PROGRAMS = Path(__file__).with_name("programs")
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
CANONICAL = """signer:         Canonical Ltd. Kernel Module Signing
sig_key:        88:F7:52:E5:60:A1:E0:73:7E:31:16:3A:46:6A:D7:B7:0A:85:0C:19
"""
NEW_STATE = {"postinst": "#!/bin/sh\nmodule-state\n", "postrm": "#!/bin/sh\nmodule-state || true\n"}
NEW_INITRAMFS = {"postinst": "#!/bin/sh\nupdate-initramfs -u -k all\n", "postrm": "#!/bin/sh\nupdate-initramfs -u -k all || true\n"}


def archive(age: int, fakes: Mapping[str, bytes]) -> Iterator[Deb]:
    """Every package of one age. ``fakes`` are the compiled libraries, libcuda.so.1 and libnvidia-ml.so.1."""
    yield from _kernel(age)
    for spelling in SPELLINGS:
        yield from _driver(spelling, age)
        yield from _modules(spelling, age)
    for branch in sorted({library_branch(spelling) for spelling in SPELLINGS}):
        yield from _libraries(branch, age, fakes)
    for number in versions.DRIVERS:
        yield from _fabric(str(number), age)
    if age == OLD:
        yield from _tools()


def program(name: str) -> str:
    """The text of a program that a package brings."""
    return (PROGRAMS / "packaged" / name).read_text()


def with_program(*names: str) -> dict[str, str | bytes]:
    """Programs of a package, each also where the doctor finds it from outside."""
    outside = (PROGRAMS / "outside").read_text()
    inside: dict[str, str | bytes] = {f"/usr/bin/{name}": program(name) for name in names}
    return inside | {f"/usr/share/outside/{name}": outside for name in names}


def unit(name: str) -> dict[str, str | bytes]:
    """The file of a systemd unit."""
    return {f"/lib/systemd/system/{name}.service": f"[Unit]\nDescription={name}\n"}


def _kernel(age: int) -> Iterator[Deb]:
    kernel, version = KERNELS[age], kernel_package(age)
    new = f"#!/bin/sh\nset -e\nupdate-initramfs -c -k {kernel}\nrun-parts --arg={kernel} /etc/kernel/postinst.d\n"
    yield Deb(
        f"linux-image-{kernel}",
        version,
        {"Depends": f"linux-modules-{kernel}"},
        {f"/boot/vmlinuz-{kernel}": "image\n"},
        {"postinst": new, "postrm": f"#!/bin/sh\nrm -f /boot/initrd.img-{kernel}\n"},
    )
    folder = f"/lib/modules/{kernel}"
    nouveau = "license:        GPL and additional rights\n" + CANONICAL
    files: dict[str, str | bytes] = {f"{folder}/modules.builtin": "", f"{folder}/compiler": f"{COMPILER}\n"}
    yield Deb(f"linux-modules-{kernel}", version, {}, {**files, f"{folder}/kernel/drivers/gpu/drm/nouveau/nouveau.ko": nouveau})
    headers = f"/usr/src/linux-headers-{kernel}"
    built = f"#!/bin/sh\nset -e\nrun-parts --arg={kernel} /etc/kernel/header_postinst.d\n"
    files = {f"{headers}/Makefile": "# kernel\n", f"{folder}/build": f"-> {headers}"}
    yield Deb(f"linux-headers-{kernel}", version, {}, files, {"postinst": built})
    yield Deb(f"linux-image-{FLAVOUR}", version, {"Depends": f"linux-image-{kernel}"})
    yield Deb(f"linux-headers-{FLAVOUR}", version, {"Depends": f"linux-headers-{kernel}"})
    yield Deb(
        f"linux-{FLAVOUR}", version, {"Depends": f"linux-image-{FLAVOUR} (= {version}), linux-headers-{FLAVOUR} (= {version})"}
    )


def _driver(spelling: str, age: int) -> Iterator[Deb]:
    """The metapackages and the source for DKMS. A prebuilt module stands for nvidia-dkms, in the driver's own version."""
    version, upstream, branch = driver_package(spelling, age), driver(spelling, age), library_branch(spelling)
    module = f"nvidia-dkms-{spelling} (<= {upstream}-1), nvidia-dkms-{spelling} (>= {upstream})"
    same = ", ".join(
        f"{name}-{branch} (= {version})" for name in ("libnvidia-compute", "nvidia-compute-utils", "nvidia-kernel-common")
    )
    only = instead_of("nvidia-driver-binary")
    yield Deb(f"nvidia-driver-{spelling}", version, {"Depends": f"{module}, {same}, nvidia-utils-{branch} (= {version})", **only})
    yield Deb(f"nvidia-headless-no-dkms-{spelling}", version, {"Depends": same, **only})
    source = f"/usr/src/nvidia-{upstream}"
    licence = "Dual MIT/GPL" if spelling.endswith("-open") else "NVIDIA"
    dkms = {
        "Provides": "nvidia-dkms-kernel",
        "Conflicts": "nvidia-dkms-kernel",
        "Depends": f"dkms, nvidia-kernel-common-{branch} (= {version})",
    }
    yield Deb(
        f"nvidia-dkms-{spelling}",
        f"{upstream}-0ubuntu0.22.04.1",
        {**dkms, "Replaces": "nvidia-dkms-kernel"},
        {f"{source}/dkms.conf": f'PACKAGE_NAME="nvidia"\nPACKAGE_VERSION="{upstream}"\n', f"{source}/license": f"{licence}\n"},
        {
            "postinst": _BUILD.format(version=upstream),
            "prerm": f"#!/bin/sh\ndkms remove -m nvidia -v {upstream} --all\n",
        },
    )


_BUILD = """#!/bin/sh
set -e
for kernel in $(ls /lib/modules); do
    if [ -e "/lib/modules/$kernel/build/Makefile" ]; then
        dkms install -m nvidia -v {version} -k "$kernel"
    else
        echo "Module build for kernel $kernel was skipped since the kernel headers for this kernel do not seem to be installed."
    fi
done
"""


def _modules(spelling: str, age: int) -> Iterator[Deb]:
    """Prebuilt modules: those of the new kernel, and after an update of the driver the old kernel's too."""
    branch = library_branch(spelling)
    for number, kernel in enumerate(KERNELS[: age + 1]):
        version = f"{kernel_package(number)}+{age + 1}"
        licence = "Dual MIT/GPL" if spelling.endswith("-open") else "NVIDIA"
        vermagic = f"{kernel} SMP preempt mod_unload modversions"
        text = f"version:        {driver(spelling, age)}\nlicense:        {licence}\nvermagic:       {vermagic}\n"
        one = f"nvidia-modules-for-{kernel}"
        yield Deb(
            f"linux-modules-nvidia-{spelling}-{kernel}",
            version,
            {
                "Depends": f"linux-image-{kernel}, nvidia-kernel-common-{branch} (<= {driver(spelling, age)}-1), "
                f"nvidia-kernel-common-{branch} (>= {driver(spelling, age)})",
                "Provides": f"{one}, nvidia-dkms-{spelling} (= {driver(spelling, age)})",
                "Conflicts": one,
                "Replaces": one,
            },
            {f"/lib/modules/{kernel}/kernel/nvidia-{spelling}/nvidia.ko": text + CANONICAL},
        )
    newest = KERNELS[age]
    version = f"{kernel_package(age)}+{age + 1}"
    modules = f"linux-modules-nvidia-{spelling}-{newest} (= {version})"
    provided = f"nvidia-dkms-{spelling} (= {driver(spelling, age)})"
    yield Deb(f"linux-modules-nvidia-{spelling}-{FLAVOUR}", version, {"Depends": modules, "Provides": provided})


def _libraries(branch: str, age: int, fakes: Mapping[str, bytes]) -> Iterator[Deb]:
    version, number = driver_package(branch, age), driver(branch, age)
    files: dict[str, str | bytes] = {}
    for soname, data in fakes.items():
        file = f"{soname.removesuffix('.1')}.{number}"
        files |= {f"{LIBRARIES}/{file}": data, f"{LIBRARIES}/{soname}": f"-> {file}"}
    kept_out = "blacklist nouveau\nblacklist lbm-nouveau\nalias nouveau off\nalias lbm-nouveau off\n"
    for name, content, scripts in (
        ("libnvidia-compute", files, NEW_STATE),
        ("nvidia-utils", with_program("nvidia-smi", "nvidia-bug-report.sh"), {}),
        ("nvidia-compute-utils", {**unit("nvidia-persistenced"), **unit("nvidia-gridd")}, {}),
        (
            "nvidia-kernel-common",
            {"/usr/lib/modprobe.d/nvidia-graphics-drivers.conf": kept_out, **with_program("nvidia-modprobe")},
            NEW_INITRAMFS,
        ),
    ):
        one = instead_of(f"{name}-of-ubuntu")
        depends = f"libnvidia-compute-{branch} (= {version})" if name == "nvidia-utils" else ""
        yield Deb(f"{name}-{branch}", version, {**one, "Depends": depends}, content, scripts)


def _fabric(number: str, age: int) -> Iterator[Deb]:
    version = driver_package(number, age)
    yield Deb(f"nvidia-fabricmanager-{number}", version, {}, unit("nvidia-fabricmanager"))
    name = f"libnvidia-nscq.so.{driver(number, age)}"
    yield Deb(f"libnvidia-nscq-{number}", version, {}, {f"{LIBRARIES}/{name}": small_elf(soname="libnvidia-nscq.so.2")})


def _tools() -> Iterator[Deb]:
    yield Deb("ubuntu-drivers-common", "1:0.9.6.2~0.22.04.6", {}, with_program("ubuntu-drivers"))
    hook = program("dkms-for-new-kernel")
    hooks: dict[str, str | bytes] = {"/etc/kernel/postinst.d/dkms": hook, "/etc/kernel/header_postinst.d/dkms": hook}
    yield Deb("dkms", "2.8.7-2ubuntu2.2", {"Depends": "gcc", "Recommends": "gcc-12"}, {**with_program("dkms"), **hooks})
    yield Deb("mokutil", "0.6.0-2~22.04.1", {}, with_program("mokutil"))
    shim: dict[str, str | bytes] = {"/usr/sbin/update-secureboot-policy": program("update-secureboot-policy")}
    yield Deb("shim-signed", "1.51.4+15.8-0ubuntu1", {"Depends": "mokutil"}, shim)
    yield Deb("nvidia-prime", "0.8.17.1", {}, with_program("prime-select"))
    yield Deb("docker.io", "24.0.7-0ubuntu2~22.04.1", {}, {**with_program("docker"), **unit("docker")})
    for major in ("11", "12"):
        for name in ("gcc", "g++"):
            banner = f"#!/bin/sh\necho '{name} (Ubuntu {major}.4.0-1ubuntu1~22.04) {major}.4.0'\n"
            yield Deb(f"{name}-{major}", f"{major}.4.0-1ubuntu1~22.04", {}, {f"/usr/bin/{name}-{major}": banner})
    yield Deb("gcc", "4:11.2.0-1ubuntu1", {"Depends": "gcc-11"}, {"/usr/bin/gcc": "-> gcc-11"})
    yield Deb("g++", "4:11.2.0-1ubuntu1", {"Depends": "g++-11, gcc"}, {"/usr/bin/g++": "-> g++-11"})
    yield Deb("build-essential", "12.9ubuntu3", {"Depends": "gcc, g++"})
    yield Deb("python3.10-venv", "3.10.12-1~22.04.5", {})
    yield Deb("python3-dev", "3.10.6-1~22.04", {})


AGES = (OLD, NEW)
