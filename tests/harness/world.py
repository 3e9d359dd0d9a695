"""Rebuilds a recorded machine below a folder: its files, its PCI bus, its kernels, its processes.

The short forms of a record (``pci``, ``kernels``, ``packages``, ...) become the very files that a real machine has.
Device nodes need root to make, so they are plain files with the node's mode.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.trees.small_elf import small_elf

Json = Any  # recorded JSON

_EFI = "/sys/firmware/efi/efivars"
_SECURE_BOOT = f"{_EFI}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_MOK_NEW = f"{_EFI}/MokNew-605dab50-e046-4300-abb6-3dd810dd8b23"


def build(record: Json, root: Path) -> None:
    """Write every file of the machine below ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    _mirror(root)
    texts: dict[str, str] = {}
    links: dict[str, str] = {}
    for expand in (_pci, _kernels, _modules, _packages, _processes, _firmware, _services, _kernel_log):
        for path, content, is_link in expand(record):
            (links if is_link else texts)[path] = content
    texts.update({path: text for path, text in record.get("files", {}).items() if text is not None})
    links.update({path: target for path, target in record.get("links", {}).items() if target is not None})
    for folder in record.get("folders", []):
        _place(root, folder).mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        _write(root, path, text.encode())
    for path, data in record.get("hex", {}).items():
        _write(root, path, bytes.fromhex(data))
    for path, soname in record.get("elf", {}).items():
        _write(root, path, small_elf(soname=soname))
    for path, target in links.items():
        _link(root, path, target)
    for path, mode in record.get("modes", {}).items():
        if mode is None:
            continue
        if not _place(root, path).exists():
            _write(root, path, b"")
        _place(root, path).chmod(int(mode, 8))
    for path, age in record.get("ages", {}).items():
        written = time.time() - age * 86400
        os.utime(_place(root, path), (written, written))


def _mirror(root: Path) -> None:
    """Make ``root``'s own path lead back to ``root`` from within.

    A path that both the live loader and the machine below the root must understand (LD_LIBRARY_PATH, HOME) is written
    with the root in front; looked up below the root it then means the same file.
    """
    inside = _place(root, str(root))
    inside.parent.mkdir(parents=True, exist_ok=True)
    if not inside.is_symlink():
        inside.symlink_to(os.path.relpath(root, inside.parent))  # relative: right for the live loader and below the root


def _place(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _write(root: Path, path: str, data: bytes) -> None:
    place = _place(root, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)


def _link(root: Path, path: str, target: str) -> None:
    place = _place(root, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        # absolute targets are the machine's own: kept below the root
        place.symlink_to(os.path.relpath(_place(root, target), place.parent) if target.startswith("/") else target)


File = tuple[str, str, bool]
"""(path, text or link target, whether it is a link)"""


def _pci(record: Json) -> Iterator[File]:
    if "pci" in record:
        record.setdefault("folders", []).append("/sys/bus/pci/devices")
    for address, device in record.get("pci", {}).items():
        vendor, number = device["id"].split(":")
        bus, folder = f"/sys/bus/pci/devices/{address}", f"/sys/devices/pci0000:00/{address}"
        yield bus, folder, True
        yield f"{folder}/vendor", f"0x{vendor}\n", False
        yield f"{folder}/device", f"0x{number}\n", False
        yield f"{folder}/class", f"0x{device.get('class', '030000')}\n", False
        subsystem = device.get("subsystem", "1458:40ee").split(":")
        yield f"{folder}/subsystem_vendor", f"0x{subsystem[0]}\n", False
        yield f"{folder}/subsystem_device", f"0x{subsystem[1]}\n", False
        yield f"{folder}/power/runtime_status", f"{device.get('power', 'active')}\n", False
        swapped = bytes.fromhex(vendor)[::-1] + bytes.fromhex(number)[::-1]
        content = b"\xff" * 64 if device.get("gone") else swapped + b"\x07\x00\x10\x00" + bytes(56)
        # configuration space is bytes; latin-1 would not survive encode(), so it goes in by hex
        record.setdefault("hex", {})[f"{folder}/config"] = content.hex()
        yield from ((f"{folder}/{name}", text, False) for name, text in device.get("files", {}).items())
        if device.get("driver"):
            yield f"{folder}/driver", f"/sys/bus/pci/drivers/{device['driver']}", True
            yield f"/sys/bus/pci/drivers/{device['driver']}/module", f"{device['driver']}\n", False


def _kernels(record: Json) -> Iterator[File]:
    for release, kernel in record.get("kernels", {}).items():
        folder = f"/lib/modules/{release}"
        yield f"{folder}/modules.builtin", "", False
        yield f"{folder}/modules.dep", "", False
        if kernel.get("image", True):
            yield f"/boot/vmlinuz-{release}", "image\n", False
        if kernel.get("headers"):
            yield f"{folder}/build", f"/usr/src/linux-headers-{release}", True
            yield f"/usr/src/linux-headers-{release}/Makefile", "# kernel\n", False
        elif kernel.get("headers") is False:
            yield f"{folder}/build", f"/usr/src/linux-headers-{release}", True  # dangling, as after a removal
        if kernel.get("nvidia"):
            yield f"{folder}/{module_file(kernel)}", "ELF\n", False
        if kernel.get("nouveau", True):
            yield f"{folder}/kernel/drivers/gpu/drm/nouveau/nouveau.ko", "ELF\n", False


def module_file(kernel: Mapping[str, str]) -> str:
    """Where this kernel's nvidia.ko lies, below its folder of /lib/modules."""
    return kernel.get("module", "updates/dkms/nvidia.ko")


def _modules(record: Json) -> Iterator[File]:
    loaded = [name for name, is_loaded in record.get("loaded", {}).items() if is_loaded]
    if "loaded" in record:
        yield "/proc/modules", "".join(f"{name} 1234567 4 - Live 0x0000000000000000 (POE)\n" for name in loaded), False
    for name in loaded:
        yield f"/sys/module/{name}/refcnt", "4\n", False
        yield f"/sys/module/{name}/initstate", "live\n", False


def _packages(record: Json) -> Iterator[File]:
    if "packages" not in record:
        return
    paragraphs = []
    for name, package in record["packages"].items():
        detail = package if isinstance(package, Mapping) else {"version": package}
        want = "hold" if detail.get("held") else "install"
        state = detail.get("state", "installed")
        want, flag = ("deinstall", "ok") if state == "config-files" else (want, detail.get("flag", "ok"))
        paragraphs.append(
            f"Package: {name}\nStatus: {want} {flag} {state}\nPriority: optional\nSection: non-free/libs\n"
            f"Architecture: {detail.get('architecture', 'amd64')}\nVersion: {detail['version']}\nDescription: recorded\n"
        )
    yield "/var/lib/dpkg/status", "\n".join(paragraphs), False


def _processes(record: Json) -> Iterator[File]:
    for pid, process in record.get("processes", {}).items():
        name, state, uid = process["name"], process.get("state", "S"), process.get("uid", 1000)
        yield f"/proc/{pid}/stat", f"{pid} ({name}) {state} 1 {pid} {pid} 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 100 0 0\n", False
        yield f"/proc/{pid}/comm", f"{name}\n", False
        yield f"/proc/{pid}/cmdline", process.get("command", name).replace(" ", "\0") + "\0", False
        yield f"/proc/{pid}/status", f"Name:\t{name}\nState:\t{state}\nPid:\t{pid}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n", False


def _firmware(record: Json) -> Iterator[File]:
    """The EFI variables that tell of Secure Boot and of a key that waits for its confirmation."""
    firmware = record.get("secure_boot")
    if firmware is None:
        return
    record.setdefault("hex", {})[_SECURE_BOOT] = "0600000001" if firmware.get("on") else "0600000000"
    if firmware.get("pending"):
        record["hex"][_MOK_NEW] = "0700000000"
    yield f"{_EFI}/../fw_platform_size", "64\n", False


def _services(record: Json) -> Iterator[File]:
    for unit in record.get("services", {}):
        yield f"/lib/systemd/system/{unit}.service", f"[Unit]\nDescription={unit}\n", False


def _kernel_log(record: Json) -> Iterator[File]:
    if record.get("log"):
        yield "/var/log/kern.log", "".join(f"Aug 20 09:00:00 box kernel: {line}\n" for line in record["log"]), False
