"""Kernel modules, DKMS and modprobe.d, from a folder and from small programs on the PATH."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor.facts import ConfigLine, DkmsBuild, KernelImage, Unknown
from gpudoctor.probes import dkms, kernel, kernel_release, links, modprobe
from tests.probe_world import program, says, scope, write

NEW, OLD = "6.5.0-15-generic", "6.2.0-26-generic"
MODINFO = """filename:       /lib/modules/6.2.0-26-generic/updates/dkms/nvidia.ko
alias:          char-major-195-*
version:        535.86.10
license:        NVIDIA
vermagic:       6.2.0-26-generic SMP preempt mod_unload modversions
sig_id:         PKCS#7
signer:         box Secure Boot Module Signature key
sig_key:        68:1f:37:5D:4F:84
sig_hashalgo:   sha512
signature:      5F:3E:01
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    place.mkdir()
    return place


def images(root: Path) -> tuple[KernelImage, ...]:
    seen = kernel.look(scope(root)).images
    assert not isinstance(seen, Unknown)
    return seen


def two_kernels(root: Path) -> None:
    """The old kernel runs and has the module; the new one boots next and has none: the story of a kernel upgrade."""
    write(
        root,
        {
            "/proc/sys/kernel/osrelease": OLD,
            f"/lib/modules/{OLD}/updates/dkms/nvidia.ko": "",
            f"/lib/modules/{NEW}/modules.dep": "",
            f"/boot/vmlinuz-{OLD}": "",
            f"/boot/vmlinuz-{NEW}": "",
            f"/usr/src/linux-headers-{OLD}/Makefile": "",
            f"/lib/modules/{OLD}/build": f"-> /usr/src/linux-headers-{OLD}",
            f"/lib/modules/{NEW}/build": f"-> /usr/src/linux-headers-{NEW}",
        },
    )


def test_two_kernels_of_which_one_has_the_module(root: Path) -> None:
    two_kernels(root)
    says(root, "modinfo.text", MODINFO)
    answers = root.parent / "answers" / "modinfo.text"
    program(
        root,
        "modinfo",
        f'case "$4" in {OLD}) cat {answers} ;; *) echo "modinfo: ERROR: Module nvidia not found." >&2; exit 1 ;; esac',
    )
    old, new = images(root)
    assert old == KernelImage(
        release=OLD,
        running=True,
        newest=False,
        headers=True,
        module_path=f"/lib/modules/{OLD}/updates/dkms/nvidia.ko",
        module_version="535.86.10",
        module_license="NVIDIA",
        module_signer="box Secure Boot Module Signature key",
        module_key="68:1F:37:5D:4F:84",
    )
    assert (new.release, new.running, new.newest, new.headers) == (NEW, False, True, False)
    assert (new.module_path, new.module_version, new.module_signer) == (None, None, None)


def test_without_modinfo_the_folders_tell_where_the_module_is(root: Path) -> None:
    two_kernels(root)
    program(root, "modinfo", "exec /does/not/exist")
    seen = scope(root)
    assert kernel.module_file(seen, OLD) == f"/lib/modules/{OLD}/updates/dkms/nvidia.ko"
    assert kernel.module_file(seen, NEW) is None


@pytest.mark.parametrize(
    "place",
    ["kernel/nvidia-535srv/nvidia.ko", "updates/dkms/nvidia.ko.zst", "extra/nvidia.ko.xz", "updates/dkms/nvidia-current.ko"],
)
def test_where_modules_lie(root: Path, place: str) -> None:
    write(root, {f"/lib/modules/{OLD}/{place}": "", f"/lib/modules/{OLD}/kernel/drivers/video/nvidiafb.ko": ""})
    assert kernel.module_file(scope(root), OLD) == f"/lib/modules/{OLD}/{place}"


def test_a_module_that_depmod_does_not_know(root: Path) -> None:
    two_kernels(root)
    says(root, "modinfo", "", error="modinfo: ERROR: Module nvidia not found.\n", code=1)
    old = images(root)[0]
    assert old.module_path is not None
    assert isinstance(old.module_version, Unknown)
    assert "depmod" in old.module_version.why


def test_an_unsigned_module(root: Path) -> None:
    two_kernels(root)
    says(root, "modinfo", "\n".join(line for line in MODINFO.splitlines() if not line.startswith("sig")))
    assert (images(root)[0].module_signer, images(root)[0].module_key) == (None, None)


def test_a_modinfo_that_hangs_is_asked_once(root: Path) -> None:
    two_kernels(root)
    program(root, "modinfo", "sleep 60")
    started = time.monotonic()
    seen = kernel.look(scope(root, cap=0.3)).images
    assert time.monotonic() - started < 2
    assert not isinstance(seen, Unknown)
    assert seen[0].module_version == Unknown("modinfo gave no answer in time")
    assert seen[1].module_version is None


def test_no_modules_folder_is_unknown(root: Path) -> None:
    assert isinstance(kernel.look(scope(root)).images, Unknown)


def test_loaded_modules(root: Path) -> None:
    write(root, {"/proc/modules": "nvidia_uvm 1 0 - Live\nnvidia 56 2 nvidia_uvm, Live\nsnd 1 0 - Live\nnouveau_x 1\n"})
    assert kernel.look(scope(root)).loaded == ("nvidia", "nvidia_uvm")


def test_loaded_modules_by_sysfs_leave_out_what_is_built_in(root: Path) -> None:
    write(root, {"/sys/module/nvidia/initstate": "live", "/sys/module/i915/parameters/x": ""})
    assert kernel.look(scope(root)).loaded == ("nvidia",)


def test_nothing_to_see_is_unknown(root: Path) -> None:
    seen = kernel.look(scope(root))
    assert isinstance(seen.loaded, Unknown)
    assert isinstance(seen.suspended_since_boot, Unknown)


def test_suspended(root: Path) -> None:
    write(root, {"/var/log/kern.log": "Aug 20 09:00:01 box kernel: [  99.1] PM: suspend exit\n"})
    assert kernel.look(scope(root)).suspended_since_boot is True


FAILED = f"""DKMS make.log for nvidia-535.86.10 for kernel {NEW} (x86_64)
Mon Feb  5 10:00:00 UTC 2024
make[1]: Entering directory '/usr/src/linux-headers-{NEW}'
  CC [M]  /var/lib/dkms/nvidia/535.86.10/build/nvidia/nv.o
gcc-11: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'
make[3]: *** [scripts/Makefile.build:251: /var/lib/dkms/nvidia/535.86.10/build/nvidia/nv.o] Error 1
make[1]: Leaving directory '/usr/src/linux-headers-{NEW}'
"""


def test_dkms_installed_built_and_failed(root: Path) -> None:
    tree = "/var/lib/dkms/nvidia"
    write(
        root,
        {
            f"{tree}/535.86.10/{OLD}/x86_64/module/nvidia.ko": "",
            f"{tree}/535.86.10/5.15.0-1-generic/x86_64/module/nvidia.ko.zst": "",
            f"{tree}/535.86.10/build/make.log": FAILED,
            f"{tree}/535.86.10/source": "-> /usr/src/nvidia-535.86.10",
            f"{tree}/kernel-{OLD}-x86_64": f"-> 535.86.10/{OLD}/x86_64",
            "/var/lib/dkms/nvidia-fs/2.17/source": "-> /usr/src/nvidia-fs-2.17",
        },
    )
    seen = dkms.builds(scope(root))
    assert not isinstance(seen, Unknown)
    assert [(b.kernel, b.state) for b in seen] == [("5.15.0-1-generic", "built"), (OLD, "installed"), (NEW, "failed")]
    assert seen[2].log is not None
    assert "ftrivial-auto-var-init" in seen[2].log.splitlines()[0]


def test_dkms_added_only(root: Path) -> None:
    write(root, {"/var/lib/dkms/nvidia-srv/535.129.03/source/dkms.conf": ""})
    assert dkms.builds(scope(root)) == (DkmsBuild("535.129.03", "", "added", None),)


def test_no_dkms(root: Path) -> None:
    assert dkms.builds(scope(root)) == ()


def test_a_failed_log_that_newer_dkms_keeps_beside_the_kernel(root: Path) -> None:
    write(root, {f"/var/lib/dkms/nvidia/535.86.10/{NEW}/x86_64/log/make.log": FAILED})
    seen = dkms.builds(scope(root))
    assert not isinstance(seen, Unknown)
    assert [(b.kernel, b.state) for b in seen] == [(NEW, "failed")]


def test_modprobe_lines(root: Path) -> None:
    write(
        root,
        {
            "/etc/modprobe.d/blacklist-framebuffer.conf": "blacklist nvidiafb\nblacklist vesafb\n",
            "/etc/modprobe.d/vfio.conf": "options vfio-pci \\\n ids=10de:2786,10de:22bc\n",
            "/lib/modprobe.d/blacklist-nvidia.conf": "# prime-select intel\nblacklist nvidia\nalias nvidia-drm off\n",
            "/usr/lib/modprobe.d/nvidia-graphics-drivers.conf": "blacklist nouveau\noptions nvidia_drm modeset=1\n",
            "/usr/lib/modprobe.d/masked.conf": "blacklist nvidia_uvm\n",
            "/etc/modprobe.d/masked.conf": "-> /dev/null",
            "/etc/modprobe.d/install.conf": "install nvidia /bin/false\ninstall snd /bin/true\n",
            "/etc/modprobe.d/not-read.conf.bak": "blacklist nvidia\n",
            "/proc/cmdline": "ro quiet modprobe.blacklist=nouveau,snd vfio-pci.ids=10de:2786 module_blacklist=floppy\n",
        },
    )
    assert modprobe.lines(scope(root)) == (
        ConfigLine("/lib/modprobe.d/blacklist-nvidia.conf", "blacklist nvidia"),
        ConfigLine("/lib/modprobe.d/blacklist-nvidia.conf", "alias nvidia-drm off"),
        ConfigLine("/etc/modprobe.d/install.conf", "install nvidia /bin/false"),
        ConfigLine("/usr/lib/modprobe.d/nvidia-graphics-drivers.conf", "blacklist nouveau"),
        ConfigLine("/etc/modprobe.d/vfio.conf", "options vfio-pci   ids=10de:2786,10de:22bc"),
        ConfigLine("/proc/cmdline", "modprobe.blacklist=nouveau,snd"),
        ConfigLine("/proc/cmdline", "vfio-pci.ids=10de:2786"),
    )


def test_a_file_in_etc_hides_its_namesake(root: Path) -> None:
    write(root, {"/etc/modprobe.d/a.conf": "# nothing\n", "/usr/lib/modprobe.d/a.conf": "blacklist nvidia\n"})
    assert modprobe.lines(scope(root)) == ()


@pytest.mark.parametrize(
    ("older", "newer"), [("6.8.0-90-generic", "6.8.0-100-generic"), ("5.15.0-1-aws", "6.2.0-1-aws"), ("6.8.0-rc1", "6.8.0-1")]
)
def test_the_order_of_kernels(older: str, newer: str) -> None:
    assert kernel_release.order(older) < kernel_release.order(newer)


@given(a=st.text(max_size=30), b=st.text(max_size=30))
def test_any_two_releases_compare(a: str, b: str) -> None:
    assert (kernel_release.order(a) < kernel_release.order(b)) in (True, False)


def test_links_begin_at_the_root(root: Path) -> None:
    write(root, {"/run/cdi/a": "", "/var/run": "-> /run", "/loop": "-> /loop", "/up": "-> ../../../run"})
    seen = scope(root)
    assert links.real_path(seen, "/var/run/cdi/a") == "/run/cdi/a"
    assert links.real_path(seen, "/up/cdi") == "/run/cdi"
    assert links.real_path(seen, "/loop") is None
    assert links.real_path(seen, "/etc/nothing") is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(data=st.binary(max_size=300) | st.sampled_from([b"blacklist nvidia\\\n" * 20, b"for kernel x\nerror:" * 9, b"nvidia " * 40]))
def test_any_bytes_in_any_file_never_raise(root: Path, data: bytes) -> None:
    write(
        root,
        dict.fromkeys(
            (
                "/proc/modules",
                "/proc/cmdline",
                "/etc/modprobe.d/a.conf",
                "/var/lib/dkms/nvidia/1.2/build/make.log",
                "/var/lib/dkms/nvidia/1.2/k/x86_64/log/make.log",
                "/var/log/kern.log",
                "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
                "/sys/firmware/efi/efivars/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23",
                "/sys/firmware/efi/efivars/MokNew-605dab50-e046-4300-abb6-3dd810dd8b23",
                f"/lib/modules/{OLD}/build",
            ),
            data,
        ),
    )
    kernel.look(scope(root))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
@given(data=st.binary(max_size=300))
def test_any_bytes_from_modinfo_and_mokutil_never_raise(root: Path, data: bytes) -> None:
    two = root.parent / "answers"
    two.mkdir(exist_ok=True)
    (two / "any").write_bytes(data)
    (root / "lib/modules" / OLD).mkdir(parents=True, exist_ok=True)
    for name in ("modinfo", "mokutil", "dmesg"):
        program(root, name, f"cat '{two / 'any'}'")
    kernel.look(scope(root))
