"""What NVIDIA's own archives have in this world: newer drivers than Ubuntu, the toolkit, cuDNN, NCCL, the container toolkit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.root.deb import Deb, instead_of
from tests.root.ubuntu import LIBRARIES, NEW_INITRAMFS, NEW_STATE, unit, with_program
from tests.root.versions import CUDA, FROM_NVIDIA
from tests.trees.small_elf import small_elf

CUDA_PLACE = "developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/x86_64"
TOOLKIT_PLACE = "nvidia.github.io/libnvidia-container"
TOOLKIT_ARCHIVE = f"{TOOLKIT_PLACE}/stable/deb/amd64"
TOOLKIT_KEY = f"{TOOLKIT_PLACE}/gpgkey"
KEYRING = "/usr/share/keyrings/cuda-archive-keyring.gpg"
CUDA_FINGERPRINT = "EB693B3035CD5710E231E123A4B469963BF863CC"
TOOLKIT_FINGERPRINT = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"


def keyring(key: bytes) -> Deb:
    """The package that adds the archive: its key, its list, and a pin that prefers it to Ubuntu for everything."""
    return Deb(
        "cuda-keyring",
        "1.1-1",
        {},
        {
            KEYRING: key,
            "/etc/apt/sources.list.d/cuda-ubuntu2204-x86_64.list": f"deb [signed-by={KEYRING}] https://{CUDA_PLACE}/ /\n",
            "/etc/apt/preferences.d/cuda-repository-pin-600": "Package: *\nPin: release l=NVIDIA CUDA\nPin-Priority: 600\n",
        },
        architecture="all",
    )


def cuda_archive(fakes: Mapping[str, bytes]) -> Iterator[Deb]:
    """Drivers under this archive's names and under Ubuntu's, and the libraries."""
    for number, version in FROM_NVIDIA.items():
        yield from _unnumbered(version, fakes)
        yield _pinning(number, version)
    yield from _under_ubuntus_names("580", FROM_NVIDIA[580], fakes)
    yield from _toolkit()
    cudnn: dict[str, str | bytes] = {
        f"{LIBRARIES}/libcudnn.so.9.13.0": small_elf(soname="libcudnn.so.9"),
        f"{LIBRARIES}/libcudnn.so.9": "-> libcudnn.so.9.13.0",
    }
    yield Deb("libcudnn9-cuda-13", "9.13.0.50-1", {}, cudnn)
    yield Deb("cudnn9-cuda-13", "9.13.0-1", {"Depends": "libcudnn9-cuda-13"})
    yield Deb("cudnn", "9.13.0-1", {"Depends": "cudnn9-cuda-13"})
    nccl: dict[str, str | bytes] = {
        f"{LIBRARIES}/libnccl.so.2.28.3": small_elf(soname="libnccl.so.2"),
        f"{LIBRARIES}/libnccl.so.2": "-> libnccl.so.2.28.3",
    }
    yield Deb("libnccl2", "2.28.3-1+cuda13.0", {}, nccl)
    yield Deb("libnccl-dev", "2.28.3-1+cuda13.0", {"Depends": "libnccl2 (= 2.28.3-1+cuda13.0)"})


def container_archive() -> Iterator[Deb]:
    """The container toolkit."""
    yield Deb("nvidia-container-toolkit", "1.17.8-1", {}, with_program("nvidia-ctk"))


def _pinning(number: int, version: str) -> Deb:
    names = "*nvidia* cuda-drivers* libxnvctrl*"
    text = f"Package: {names}\nPin: version {number}.*\nPin-Priority: 1000\n"
    return Deb(
        f"nvidia-driver-pinning-{number}", f"{version}-1", {}, {f"/etc/apt/preferences.d/nvidia-driver-pinning-{number}": text}
    )


def _driver_files(version: str, fakes: Mapping[str, bytes]) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {}
    for soname, data in fakes.items():
        file = f"{soname.removesuffix('.1')}.{version}"
        files |= {f"{LIBRARIES}/{file}": data, f"{LIBRARIES}/{soname}": f"-> {file}"}
    return files


def _unnumbered(version: str, fakes: Mapping[str, bytes]) -> Iterator[Deb]:
    """As this archive has named its driver since branch 590: the branch is in the version alone."""
    full = f"{version}-1ubuntu1"
    source = f"/usr/src/nvidia-{version}"
    yield Deb("libnvidia-compute", full, instead_of("libnvidia-compute-of-ubuntu"), _driver_files(version, fakes), NEW_STATE)
    ubuntus = ", ".join(f"nvidia-{name}-of-ubuntu" for name in ("utils", "compute-utils", "kernel-common"))
    utilities = {"Conflicts": ubuntus, "Replaces": ubuntus}
    tools = {**with_program("nvidia-smi", "nvidia-modprobe"), **unit("nvidia-persistenced")}
    yield Deb("nvidia-driver-cuda", full, {"Depends": f"libnvidia-compute (= {full})", **utilities}, tools)
    blacklist: dict[str, str | bytes] = {"/usr/lib/modprobe.d/nvidia.conf": "blacklist nouveau\n"}
    yield Deb(
        "nvidia-kernel-common",
        full,
        {},
        blacklist,
        NEW_INITRAMFS,
    )
    yield Deb(
        "nvidia-dkms-open",
        full,
        {"Depends": f"dkms, gcc-12, nvidia-kernel-common (= {full})"},
        {f"{source}/dkms.conf": f'PACKAGE_NAME="nvidia"\nPACKAGE_VERSION="{version}"\n', f"{source}/license": "Dual MIT/GPL\n"},
        {
            "postinst": f"#!/bin/sh\ndkms install -m nvidia -v {version}\n",
            "prerm": f"#!/bin/sh\ndkms remove -m nvidia -v {version} --all\n",
        },
    )
    yield Deb("nvidia-open", full, {"Depends": f"nvidia-dkms-open (= {full}), nvidia-driver-cuda (= {full})"})
    yield Deb("cuda-drivers", full, {"Depends": f"nvidia-driver-cuda (= {full})"})


def _under_ubuntus_names(branch: str, version: str, fakes: Mapping[str, bytes]) -> Iterator[Deb]:
    """The names that both archives have; these are newer, and would take over."""
    full = f"{version}-0ubuntu1"
    for name, files in (
        ("libnvidia-compute", _driver_files(version, fakes)),
        ("nvidia-utils", with_program("nvidia-smi")),
        ("nvidia-compute-utils", unit("nvidia-persistenced")),
        ("nvidia-kernel-common", with_program("nvidia-modprobe")),
    ):
        one = instead_of(f"{name}-of-ubuntu")
        yield Deb(f"{name}-{branch}", full, one, files)
    for spelling in (branch, f"{branch}-open"):
        yield Deb(f"nvidia-dkms-{spelling}", full, {"Depends": f"nvidia-kernel-common-{branch} (= {full})"})
        same = ", ".join(f"{name}-{branch} (= {full})" for name in ("libnvidia-compute", "nvidia-compute-utils", "nvidia-utils"))
        only = instead_of("nvidia-driver-binary")
        yield Deb(f"nvidia-driver-{spelling}", full, {"Depends": f"nvidia-dkms-{spelling} (= {full}), {same}", **only})


def _toolkit() -> Iterator[Deb]:
    release = CUDA.replace("-", ".")
    folder = f"/usr/local/cuda-{release}"
    nvcc = f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.48'\n"
    files: dict[str, str | bytes] = {
        f"{folder}/bin/nvcc": nvcc,
        f"{folder}/include/cuda_runtime.h": "/* */\n",
        f"{folder}/version.json": f'{{"cuda": {{"name": "CUDA SDK", "version": "{release}.0"}}}}\n',
    }
    yield Deb(f"cuda-nvcc-{CUDA}", f"{release}.48-1", {}, files)
    yield Deb(f"cuda-toolkit-{CUDA}", f"{release}.0-1", {"Depends": f"cuda-nvcc-{CUDA}"})
    yield Deb("cuda", f"{release}.0-1", {"Depends": f"cuda-toolkit-{CUDA}, cuda-drivers"})
