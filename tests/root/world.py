"""Makes the Debian root into this world: its name, its archives and their keys, its programs, its kernel, its card."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests import fake_nvml
from tests.root import nvidia, ubuntu
from tests.root.deb import write_archive
from tests.root.versions import FLAVOUR, KERNELS, NEW, OLD

CHROOT = "/usr/sbin/chroot"
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STATE = "var/lib/fake-machine"
UBUNTU_KEYRING = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
SOURCES = {OLD: "/srv/archive/jammy", NEW: "/srv/archive/jammy-updates"}
OS_RELEASE = """NAME="Ubuntu"
PRETTY_NAME="Ubuntu 22.04.5 LTS"
VERSION_ID="22.04"
VERSION="22.04.5 LTS (Jammy Jellyfish)"
VERSION_CODENAME=jammy
ID=ubuntu
ID_LIKE=debian
UBUNTU_CODENAME=jammy
"""
APT = f'DPkg::Path "{SEARCH}";\nDPkg::Use-Pty "false";\n'
"""Maintainer scripts find this world's programs too; a pseudo-terminal would need a mounted /dev/pts."""
ASSUME_YES = 'APT::Get::Assume-Yes "true";\n'
KERNEL_FILES = {
    "proc/sys/kernel/arch": "x86_64\n",
    "proc/sys/kernel/osrelease": f"{KERNELS[OLD]}\n",
    "proc/sys/kernel/random/boot_id": "",
    "proc/modules": "",
    "proc/meminfo": "MemTotal:       32734520 kB\nMemFree:        18232144 kB\nMemAvailable:   27113920 kB\n",
    "proc/mounts": "tmpfs /dev/shm tmpfs rw,nosuid,nodev,size=16367260k,inode64 0 0\n/dev/nvme0n1p2 / ext4 rw,relatime 0 0\n",
    "proc/1/comm": "systemd\n",
    "proc/1/cgroup": "0::/init.scope\n",
    "sys/class/dmi/id/sys_vendor": "ASUS\n",
    "sys/class/dmi/id/product_name": "System Product Name\n",
    "sys/firmware/efi/fw_platform_size": "64\n",
    "var/log/kern.log": "",
    "etc/default/grub": 'GRUB_DEFAULT=0\nGRUB_TIMEOUT_STYLE=hidden\nGRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet splash"\n',
    "boot/grub/grubenv": "# GRUB Environment Block\n",
}
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def inside(root: Path, *command: str, given: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """What a command says inside the root; it must succeed."""
    env = {"PATH": SEARCH, "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **(environ or {})}
    done = subprocess.run(
        [CHROOT, str(root), *command], input=given, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} exited {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def furnish(root: Path) -> None:
    """Everything that makes a Debian root a machine with Ubuntu 22.04, a kernel and a card, and no driver."""
    (root / "etc/os-release").unlink()  # a link to Debian's own
    write(root, {"etc/os-release": OS_RELEASE, "etc/hostname": "box\n", "etc/hosts": "127.0.0.1 localhost box\n", **KERNEL_FILES})
    write(
        root,
        {"etc/dpkg/dpkg.cfg.d/quick": "force-unsafe-io\n", "etc/apt/apt.conf.d/world": APT, f"{STATE}/assume-yes.conf": ASSUME_YES},
    )
    for folder in ("efi/efivars", "../bus/pci/devices"):
        (root / "sys/firmware" / folder).mkdir(parents=True, exist_ok=True)
    for folder in (
        "etc/modprobe.d",
        "run/systemd/system",
        "etc/kernel/postinst.d",
        "etc/kernel/header_postinst.d",
        "etc/modules-load.d",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / SECURE_BOOT).write_bytes(bytes.fromhex("0600000000"))
    _programs(root)
    with tempfile.TemporaryDirectory() as scratch:
        _archives(root, _fakes(Path(scratch)))
    inside(root, "apt-get", "update")
    inside(root, "apt-get", "install", "-y", f"linux-{FLAVOUR}", "mokutil", "zlib1g")
    # the host's own addresses are no business of the machine's
    (root / "etc/resolv.conf").unlink(missing_ok=True)


def write(root: Path, files: Mapping[str, str]) -> None:
    """Text files below the root. Each is a new file, never one that is shared with the cached root."""
    for path, text in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.write_text(text, encoding="utf-8")


def _programs(root: Path) -> None:
    local, outside = root / "usr/local/sbin", root / "usr/share/outside"
    outside.mkdir(parents=True)
    (root / "usr/local/lib/machine.sh").write_bytes((ubuntu.PROGRAMS / "machine.sh").read_bytes())
    for source in sorted((ubuntu.PROGRAMS / "local").iterdir()):
        shutil.copyfile(source, local / source.name)
        (local / source.name).chmod(0o755)
    for name in ("modinfo", "systemctl", "journalctl", "dmesg", "lspci", "lsmod", "dpkg-query", "apt-cache", "apt-get", "uname"):
        shutil.copyfile(ubuntu.PROGRAMS / "outside", outside / name)
        (outside / name).chmod(0o755)
    method = root / "usr/lib/apt/methods/https"
    method.unlink(missing_ok=True)  # a link to the method for http, which stays as it is
    shutil.copyfile(ubuntu.PROGRAMS / "apt-https", method)
    method.chmod(0o755)


def _fakes(scratch: Path) -> dict[str, bytes]:
    built = fake_nvml.build(scratch).parent
    return {
        "libnvidia-ml.so.1": (built / "full/libnvidia-ml.so.1").read_bytes(),
        "libcuda.so.1": (built / "cuda/libcuda.so.1").read_bytes(),
    }


def _archives(root: Path, fakes: Mapping[str, bytes]) -> None:
    """Ubuntu's and NVIDIA's archives, each signed by a key of its own, and the addresses under which they are found."""
    keys = {name: _key(root, name) for name in ("ubuntu", "cuda", "toolkit")}
    web = root / "srv/web"
    for age, place in SOURCES.items():
        release = {"Origin": "Ubuntu", "Label": "Ubuntu", "Suite": Path(place).name}
        _signed(root, write_archive(root / place.lstrip("/"), ubuntu.archive(age, fakes), release), "ubuntu")
    cuda = {"Origin": "NVIDIA", "Label": "NVIDIA CUDA"}
    _signed(root, write_archive(web / nvidia.CUDA_PLACE, nvidia.cuda_archive(fakes), cuda), "cuda")
    keyring = nvidia.keyring(_exported(root, "cuda"))
    (web / nvidia.CUDA_PLACE / keyring.file_name).write_bytes(keyring.data())
    toolkit = {"Origin": "NVIDIA", "Label": "NVIDIA container toolkit"}
    _signed(root, write_archive(web / nvidia.TOOLKIT_ARCHIVE, nvidia.container_archive(), toolkit), "toolkit")
    (web / nvidia.TOOLKIT_KEY).write_bytes(_exported(root, "toolkit", "--armor"))
    (root / UBUNTU_KEYRING.lstrip("/")).write_bytes(_exported(root, "ubuntu"))
    table = f"s/{keys['cuda']}/{nvidia.CUDA_FINGERPRINT}/\ns/{keys['toolkit']}/{nvidia.TOOLKIT_FINGERPRINT}/\n"
    write(root, {f"{STATE}/fingerprints.sed": table, "etc/apt/sources.list": source(OLD)})
    inside(root, "gpgconf", "--homedir", "/root/signing", "--kill", "all")
    shutil.rmtree(root / "root/signing")


def source(age: int) -> str:
    """The line of sources.list for the archive of that age."""
    return f"deb [signed-by={UBUNTU_KEYRING}] file:{SOURCES[age]} /\n"


def _key(root: Path, name: str) -> str:
    """A new signing key of that name; its fingerprint."""
    folder = root / "root/signing"
    folder.mkdir(mode=0o700, exist_ok=True)
    gpg = ("/usr/bin/gpg", "--homedir", "/root/signing", "--batch", "--quiet")
    inside(root, *gpg, "--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "never")
    listed = inside(root, *gpg, "--list-keys", "--with-colons", name)
    return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))


def _exported(root: Path, name: str, *options: str) -> bytes:
    command = [CHROOT, str(root), "/usr/bin/gpg", "--homedir", "/root/signing", "--batch", *options, "--export", name]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


def _signed(root: Path, release: Path, key: str) -> None:
    path = f"/{release.relative_to(root)}"
    gpg = ("/usr/bin/gpg", "--homedir", "/root/signing", "--batch", "--yes", "--local-user", key)
    inside(root, *gpg, "--clear-sign", "--output", path.replace("Release", "InRelease"), path)
