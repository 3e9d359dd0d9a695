"""The operating system, the walls around it, its memory and its user, from files below a root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor.facts import Unknown
from gpudoctor.probes import system
from gpudoctor.probes.scope import Scope
from tests.probe_world import scope, write

JAMMY = 'PRETTY_NAME="Ubuntu 22.04.3 LTS"\nNAME="Ubuntu"\nVERSION_ID="22.04"\nID=ubuntu\nID_LIKE=debian\n'
MEMINFO = "MemTotal:       65686924 kB\nMemFree:  1000 kB\nMemAvailable:   60000000 kB\n"
WSL2 = "Linux version 5.15.153.1-microsoft-standard-WSL2 (root@941d701f84f1) (gcc 11.2.0) #1 SMP"
WSL1 = "Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com) (gcc version 5.4.0 (GCC) ) #1237-Microsoft"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    place.mkdir()
    return place


def test_the_story_s_machine(root: Path) -> None:
    write(
        root,
        {
            "/etc/os-release": JAMMY,
            "/proc/sys/kernel/osrelease": "6.2.0-26-generic\n",
            "/proc/version": "Linux version 6.2.0-26-generic (buildd@bos03) #26~22.04.1-Ubuntu",
            "/proc/meminfo": MEMINFO,
            "/proc/cmdline": "BOOT_IMAGE=/vmlinuz-6.2.0-26-generic ro quiet splash\n",
            "/proc/mounts": "tmpfs /dev/shm tmpfs rw,nosuid,nodev,inode64 0 0\n",
            "/sys/class/dmi/id/sys_vendor": "ASUS\n",
            "/sys/class/dmi/id/product_name": "PRIME B650M\n",
            "/usr/lib/x86_64-linux-gnu/libc.so.6": "",
            "/etc/passwd": "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/bash\n",
            "/etc/group": "root:x:0:\nsudo:x:27:ann\nrender:x:109:ann,bob\nann:x:1000:\n",
        },
    )
    seen = system.look(scope(root, {"USER": "ann"}))
    assert (seen.os_id, seen.os_version, seen.os_name) == ("ubuntu", "22.04", "Ubuntu 22.04.3 LTS")
    assert (seen.kernel, seen.machine, seen.wsl, seen.container) == ("6.2.0-26-generic", "x86_64", 0, None)
    assert (seen.product, seen.platform, seen.scheduler) == ("ASUS PRIME B650M", None, None)
    assert (seen.memory_total, seen.memory_available) == (65686924 * 1024, 60000000 * 1024)
    assert seen.shm_total == 65686924 * 1024 // 2
    assert seen.cmdline == "BOOT_IMAGE=/vmlinuz-6.2.0-26-generic ro quiet splash"
    assert (seen.user.name, seen.user.uid, seen.user.groups, seen.user.may_sudo) == ("ann", 1000, ("ann", "render", "sudo"), True)


def test_an_empty_root_is_unknown_not_wrong(root: Path) -> None:
    seen = system.look(scope(root))
    assert (seen.os_id, seen.kernel, seen.container, seen.product) == ("", "", None, None)
    assert isinstance(seen.memory_total, Unknown)
    assert isinstance(seen.shm_total, Unknown)
    assert isinstance(seen.cmdline, Unknown)
    assert isinstance(seen.user.may_sudo, Unknown)


@pytest.mark.parametrize(
    ("files", "environ", "kind"),
    [
        pytest.param({"/.dockerenv": ""}, {}, "docker", id="docker's marker"),
        pytest.param({"/proc/1/cgroup": "12:cpu:/docker/3f5c\n"}, {}, "docker", id="docker's control group"),
        pytest.param({"/run/.containerenv": "engine=podman"}, {}, "podman", id="podman"),
        pytest.param({"/proc/1/cgroup": "0::/kubepods.slice/pod1\n", "/.dockerenv": ""}, {}, "kubernetes", id="kubepods"),
        pytest.param({"/.dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes", id="a pod's variable"),
        pytest.param({"/proc/1/environ": "TERM=x\0container=lxc\0"}, {}, "lxc", id="lxc"),
        pytest.param({"/run/systemd/container": "systemd-nspawn\n"}, {}, "systemd-nspawn", id="nspawn"),
        pytest.param({"/run/systemd/container": "rkt\n"}, {}, "container", id="one that we do not know"),
        pytest.param({"/run/systemd/container": "wsl\n"}, {}, None, id="WSL's systemd calls itself a container"),
        pytest.param({"/.singularity.d/env/a": ""}, {}, "apptainer", id="apptainer"),
        pytest.param({"/proc/1/cgroup": "0::/init.scope\n"}, {}, None, id="none"),
    ],
)
def test_containers(root: Path, files: dict[str, str], environ: dict[str, str], kind: str | None) -> None:
    write(root, files)
    assert system.look(scope(root, environ)).container == kind


@pytest.mark.parametrize(
    ("files", "environ", "version"),
    [
        pytest.param({"/proc/version": WSL2}, {}, 2, id="2"),
        pytest.param({"/proc/version": WSL1}, {}, 1, id="1"),
        pytest.param(
            {"/dev/dxg": "", "/proc/version": "Linux version 6.1.21.2 own kernel"}, {}, 2, id="2 with a kernel of one's own"
        ),
        pytest.param({}, {"WSL_INTEROP": "/run/WSL/8_interop"}, 2, id="by its variable alone"),
        pytest.param({"/proc/version": "Linux version 6.2.0"}, {"WSL_INTEROP": "x"}, 0, id="a variable that was carried elsewhere"),
    ],
)
def test_wsl(root: Path, files: dict[str, str], environ: dict[str, str], version: int) -> None:
    write(root, files)
    assert system.look(scope(root, environ)).wsl == version


@pytest.mark.parametrize(
    ("files", "platform", "product"),
    [
        ({"/etc/nv_tegra_release": "# R36"}, "jetson", None),
        ({"/proc/device-tree/model": "NVIDIA Jetson AGX Orin\0"}, "jetson", "NVIDIA Jetson AGX Orin"),
        ({"/etc/dgx-release": "DGX_NAME=x", "/sys/class/dmi/id/sys_vendor": "NVIDIA\n"}, "dgx", "NVIDIA"),
    ],
)
def test_platforms(root: Path, files: dict[str, str], platform: str, product: str | None) -> None:
    write(root, files)
    seen = system.look(scope(root))
    assert (seen.platform, seen.product) == (platform, product)


def test_schedulers(root: Path) -> None:
    assert system.look(scope(root, {"SLURM_JOB_ID": "7"})).scheduler == "slurm"
    assert system.look(scope(root, {"LSB_JOBID": "7"})).scheduler == "lsf"


def test_memory_limits_of_both_versions(root: Path) -> None:
    write(root, {"/proc/self/cgroup": "0::/user.slice/run-1.scope\n", "/sys/fs/cgroup/user.slice/memory.max": "8589934592\n"})
    write(root, {"/sys/fs/cgroup/user.slice/run-1.scope/memory.max": "max\n"})
    assert system.look(scope(root)).memory_limit == 8 << 30


def test_a_version_1_limit_and_no_limit(root: Path) -> None:
    write(root, {"/proc/self/cgroup": "4:memory:/job\n", "/sys/fs/cgroup/memory/job/memory.limit_in_bytes": "4294967296\n"})
    write(root, {"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"})
    assert system.look(scope(root)).memory_limit == 4 << 30


@pytest.mark.parametrize(
    ("options", "size"),
    [("rw,size=65536k", 64 << 20), ("rw,size=1073741824", 1 << 30), ("rw,size=25%", 65686924 * 1024 // 4), ("rw", 65686924 * 512)],
)
def test_dev_shm_from_the_mount_table(root: Path, options: str, size: int) -> None:
    write(root, {"/proc/mounts": f"shm /dev/shm tmpfs {options} 0 0\n", "/proc/meminfo": MEMINFO})
    assert system.look(scope(root)).shm_total == size


def test_no_dev_shm_is_none(root: Path) -> None:
    write(root, {"/proc/mounts": "proc /proc proc rw 0 0\n"})
    assert system.look(scope(root)).shm_total is None


def test_the_newest_kernel_counts_without_proc(root: Path) -> None:
    for release in ("6.8.0-90-generic", "6.8.0-100-generic", "5.15.0-200-generic"):
        (root / "lib/modules" / release).mkdir(parents=True)
    assert system.look(scope(root)).kernel == "6.8.0-100-generic"


def test_the_live_machine() -> None:
    seen = system.look(Scope(Path("/"), os.environ, None, "own"))
    assert seen.kernel == os.uname().release
    assert seen.machine == os.uname().machine
    assert seen.user.uid == os.geteuid()
    assert isinstance(seen.memory_total, int)


FILES = (
    "/etc/os-release",
    "/proc/meminfo",
    "/proc/version",
    "/proc/mounts",
    "/proc/self/cgroup",
    "/proc/1/cgroup",
    "/proc/1/environ",
    "/etc/passwd",
    "/etc/group",
    "/sys/class/dmi/id/product_name",
    "/run/systemd/container",
    "/proc/sys/kernel/osrelease",
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.binary(max_size=400) | st.sampled_from([b"0::/../../..\n", b"::memory:\n", b"a:b:c:d:e\n" * 3, b"MemTotal: 1 kB"]))
def test_any_bytes_in_any_file_never_raise(root: Path, data: bytes) -> None:
    write(root, dict.fromkeys(FILES, data))
    system.look(scope(root, {"USER": "a"}))
