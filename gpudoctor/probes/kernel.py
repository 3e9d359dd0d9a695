"""The kernel's side of the driver: loaded modules, the NVIDIA module of every installed kernel, DKMS, Secure Boot."""

from __future__ import annotations

import posixpath
import re
import time
from typing import TYPE_CHECKING

from gpudoctor.facts import Kernel, KernelImage, Unknown
from gpudoctor.probes import dkms, kernel_log, kernel_release, links, modprobe, secure_boot
from gpudoctor.probes.child import NotStarted

if TYPE_CHECKING:
    from gpudoctor.probes.scope import Scope

MODULES = "/lib/modules"
WATCHED = (
    "nvidia",
    "nvidia_uvm",
    "nvidia_drm",
    "nvidia_modeset",
    "nvidia_peermem",
    "nouveau",
    "nova_core",
    "vfio_pci",
    "amdgpu",
    "i915",
    "xe",
)
KERNELS_LOOKED_AT = 12
_DEADLINE = 3.0
_ALL_KERNELS = 8.0
"""Seconds for all the kernels together: a modinfo that is slow each time must not cost the rest of the facts."""
# where the module lies: DKMS, Ubuntu's prebuilt packages (kernel/nvidia-535), NVIDIA's .run, Fedora and SUSE
_FOLDERS = (
    "updates/dkms",
    "updates",
    "kernel/drivers/video",
    "kernel/drivers/video/nvidia",
    "extra",
    "extra/nvidia",
    "weak-updates",
)
_FILE = re.compile(r"nvidia(?:-current)?\.ko(?:\.(?:zst|xz|gz))?")
_FIELD = re.compile(r"^(filename|version|license|signer|sig_key):[ \t]*(.*)$", re.MULTILINE)


def look(scope: Scope) -> Kernel:
    """Facts about the kernel; what cannot be read is Unknown, nothing is raised."""
    return Kernel(
        loaded=_loaded(scope),
        images=_images(scope),
        dkms=dkms.builds(scope),
        secure_boot=secure_boot.enabled(scope),
        mok_pending=secure_boot.pending(scope),
        enrolled_keys=secure_boot.enrolled(scope),
        modprobe=modprobe.lines(scope),
        suspended_since_boot=_suspended(scope),
    )


def _loaded(scope: Scope) -> tuple[str, ...] | Unknown:
    text = scope.text("/proc/modules", 1 << 20)
    if text is not None:
        names = {line.split(" ", 1)[0] for line in text.splitlines()}
        return tuple(name for name in WATCHED if name in names)
    if not links.exists(scope, "/sys/module"):
        return Unknown("neither /proc/modules nor /sys/module can be read")
    # initstate tells a loaded module from one that is built in
    return tuple(name for name in WATCHED if links.exists(scope, f"/sys/module/{name}/initstate"))


def _images(scope: Scope) -> tuple[KernelImage, ...] | Unknown:
    releases = [name for name in scope.names(MODULES) if links.is_folder(scope, f"{MODULES}/{name}")]
    if not releases and not links.exists(scope, MODULES):
        return Unknown("there is no /lib/modules here")
    running = kernel_release.running(scope)
    ordered = sorted(releases, key=kernel_release.order)
    bootable = [release for release in ordered if _has_image(scope, release)]
    newest = (bootable or ordered or [""])[-1]
    kept = ordered[-KERNELS_LOOKED_AT:]
    kept += [release for release in (running, newest) if release in ordered and release not in kept]
    told = _told(scope, kept)
    return tuple(_image(scope, release, told[release], running=running, newest=newest) for release in kept)


def _told(scope: Scope, releases: list[str]) -> dict[str, dict[str, str] | Unknown]:
    """What modinfo says for each kernel; one that hung or is not there is not asked again."""
    told: dict[str, dict[str, str] | Unknown] = {}
    silent: Unknown | None = None
    until = time.monotonic() + scope.within(_ALL_KERNELS)
    for release in releases:
        late = Unknown("modinfo took too long for the kernels before") if time.monotonic() > until else None
        answer = silent or late or _modinfo(scope, release)
        silent = answer if isinstance(answer, Unknown) else None
        told[release] = answer
    return told


def _has_image(scope: Scope, release: str) -> bool:
    return any(links.exists(scope, f"/boot/{kind}-{release}") for kind in ("vmlinuz", "vmlinux"))


def _image(scope: Scope, release: str, told: dict[str, str] | Unknown, *, running: str, newest: str) -> KernelImage:
    path = module_file(scope, release)
    if isinstance(told, dict) and told.get("filename", "").startswith("/"):
        path = _below_root(scope, told["filename"])
    return KernelImage(
        release=links.printable(release),
        running=release == running,
        newest=release == newest,
        headers=links.is_folder(scope, f"{MODULES}/{release}/build"),
        module_path=path,
        module_version=_value(told, path, "version"),
        module_license=_value(told, path, "license"),
        module_signer=_value(told, path, "signer"),
        module_key=_key(_value(told, path, "sig_key")),
    )


def _value(told: dict[str, str] | Unknown, path: str | None, name: str) -> str | None | Unknown:
    if path is None:
        return None
    if isinstance(told, Unknown):
        return told
    return told.get(name) or (None if told else Unknown("modinfo does not find the module: depmod has not run since"))


def _key(value: str | None | Unknown) -> str | None | Unknown:
    return secure_boot.fingerprint(value) if isinstance(value, str) else value


def _modinfo(scope: Scope, release: str) -> dict[str, str] | Unknown:
    """What modinfo says of the module nvidia for this kernel: empty when it knows none."""
    try:
        # /usr/sbin is not on every user's PATH
        program = scope.which("modinfo") or "/usr/sbin/modinfo"
        answer = scope.run(program, "-b", str(scope.root), "-k", release, "nvidia", deadline=_DEADLINE)
    except NotStarted as error:
        return Unknown(f"modinfo could not be asked: {error}")
    if answer.hung:
        return Unknown("modinfo gave no answer in time")
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(answer.stdout):
        fields.setdefault(name, value.strip())
    return fields


def module_file(scope: Scope, release: str) -> str | None:
    """The module's file by its usual folders; None when it is in none of them."""
    base = f"{MODULES}/{release}"
    prebuilt = [f"kernel/{name}" for name in scope.names(f"{base}/kernel") if name.startswith("nvidia")]
    for folder in (*_FOLDERS, *prebuilt):
        for name in scope.names(f"{base}/{folder}"):
            if _FILE.fullmatch(name):
                return links.printable(posixpath.join(base, folder, name))
    return None


def _below_root(scope: Scope, path: str) -> str:
    root = str(scope.root).rstrip("/")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def _suspended(scope: Scope) -> bool | Unknown:
    log = kernel_log.text(scope)
    return log if isinstance(log, Unknown) else "PM: suspend exit" in log
