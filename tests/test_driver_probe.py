"""The driver's files: module, libraries, nodes, services, container tools."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor.facts import ConfigLine, LibraryFile, Unknown
from gpudoctor.probes import device_nodes, driver, driver_libraries, services
from tests.probe_world import is_root, program, says, scope, write

PROPRIETARY = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.86.10  Wed Jul 26 23:20:03 UTC 2023\nGCC version:  gcc 12\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build  (dvs-builder@U16)\n"
ARCH = "/usr/lib/x86_64-linux-gnu"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    place.mkdir()
    return place


@pytest.mark.parametrize(("line", "version", "flavour"), [(PROPRIETARY, "535.86.10", "proprietary"), (OPEN, "570.124.06", "open")])
def test_the_loaded_module(root: Path, line: str, version: str, flavour: str) -> None:
    write(root, {"/proc/driver/nvidia/version": line})
    seen = driver.look(scope(root))
    assert (seen.module_version, seen.module_flavour, seen.version_line) == (version, flavour, line.splitlines()[0])


def test_a_module_seen_through_sysfs_only(root: Path) -> None:
    write(root, {"/sys/module/nvidia/version": "570.124.06\n", "/sys/module/nvidia/taint": "OE\n"})
    seen = driver.look(scope(root))
    assert (seen.module_version, seen.module_flavour) == ("570.124.06", "open")


def test_no_module_and_nothing_to_see(root: Path) -> None:
    assert isinstance(driver.look(scope(root)).module_version, Unknown)
    write(root, {"/proc/modules": ""})
    seen = driver.look(scope(root))
    assert (seen.module_version, seen.module_flavour, seen.version_line) == (None, None, None)


def test_libraries_in_the_loader_s_order(root: Path) -> None:
    write(
        root,
        {
            f"{ARCH}/libcuda.so.535.86.10": b"\x7fELF\x02 real",
            f"{ARCH}/libcuda.so.1": "-> libcuda.so.535.86.10",
            f"{ARCH}/libnvidia-ml.so.535.86.10": b"\x7fELF\x02",
            f"{ARCH}/libnvidia-ml.so.1": "-> libnvidia-ml.so.535.86.10",
            "/usr/local/cuda/compat/libcuda.so.550.54.15": b"\x7fELF\x02",
            "/usr/local/cuda/compat/libcuda.so.1": "-> libcuda.so.550.54.15",
            "/opt/first/libcuda.so.1": b"",
            "/usr/lib/i386-linux-gnu/libcuda.so.1": b"\x7fELF\x01",
            "/usr/lib/wsl/lib/libcuda.so.1": b"\x7fELF\x02",
            "/lib": "-> usr/lib",
            "/etc/ld.so.conf": "# all\ninclude /etc/ld.so.conf.d/*.conf\n",
            "/etc/ld.so.conf.d/000_cuda.conf": "/usr/local/cuda/compat\n",
            "/etc/ld.so.conf.d/i386-linux-gnu.conf": "/usr/lib/i386-linux-gnu\n",
            "/etc/ld.so.conf.d/x86_64-linux-gnu.conf": f"/usr/local/lib/x86_64-linux-gnu\n/lib/x86_64-linux-gnu\n{ARCH}\n",
            "/etc/ld.so.conf.d/loop.conf": "include /etc/ld.so.conf.d/*.conf\n",
        },
    )
    seen = driver_libraries.look(scope(root, {"LD_LIBRARY_PATH": "/opt/first:relative::/does/not/exist"}))
    assert [(file.path, file.version, file.size, file.origin) for file in seen] == [
        ("/opt/first/libcuda.so.1", None, 0, "LD_LIBRARY_PATH"),
        ("/usr/local/cuda/compat/libcuda.so.1", "550.54.15", 5, "ld.so.conf"),
        ("/lib/x86_64-linux-gnu/libcuda.so.1", "535.86.10", 10, "default"),
        ("/usr/lib/wsl/lib/libcuda.so.1", None, 5, "wsl"),
        ("/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "535.86.10", 5, "default"),
    ]
    assert seen[1] == LibraryFile(
        "libcuda.so.1",
        "/usr/local/cuda/compat/libcuda.so.1",
        "/usr/local/cuda/compat/libcuda.so.550.54.15",
        "550.54.15",
        5,
        "ld.so.conf",
    )


def test_an_absolute_link_stays_below_the_root(root: Path) -> None:
    write(
        root,
        {
            "/usr/lib/libcuda.so.1": "-> /etc/alternatives/cuda",
            "/etc/alternatives/cuda": "-> /opt/libcuda.so.535.1",
            "/opt/libcuda.so.535.1": "x",
        },
    )
    assert [(file.real_path, file.version) for file in driver_libraries.look(scope(root))] == [("/opt/libcuda.so.535.1", "535.1")]


def test_a_link_that_leads_nowhere_is_no_library(root: Path) -> None:
    write(root, {"/usr/lib/libcuda.so.1": "-> libcuda.so.535.86.10"})
    assert driver_libraries.look(scope(root)) == ()


def test_device_nodes(root: Path) -> None:
    write(root, {"/dev/nvidia0": "", "/dev/nvidiactl": "", "/dev/nvidia-caps/nvidia-cap1": "", "/dev/dxg": "", "/dev/null": ""})
    (root / "dev/nvidia0").chmod(0o600)
    (root / "dev/nvidiactl").chmod(0o444)
    seen = device_nodes.look(scope(root))
    assert not isinstance(seen, Unknown)
    assert [node.path for node in seen] == ["/dev/dxg", "/dev/nvidia-caps/nvidia-cap1", "/dev/nvidia0", "/dev/nvidiactl"]
    assert [node.mode for node in seen[2:]] == ["rw-------", "r--r--r--"]
    assert seen[3].usable is is_root()


def test_owners_by_the_root_s_own_names(root: Path) -> None:
    write(root, {"/dev/nvidia0": "", "/etc/passwd": f"alien:x:{os.geteuid()}:0:::\n", "/etc/group": f"aliens:x:{os.getegid()}:\n"})
    seen = device_nodes.look(scope(root))
    assert not isinstance(seen, Unknown)
    assert (seen[0].owner, seen[0].group) == ("alien", "aliens")


def test_no_dev_is_unknown(root: Path) -> None:
    assert isinstance(device_nodes.look(scope(root)), Unknown)


SHOWN = """Id=nvidia-persistenced.service
LoadState=loaded
ActiveState=active

Id=nvidia-fabricmanager.service
LoadState=loaded
ActiveState=failed

Id=nvidia-imex.service
LoadState=not-found
ActiveState=inactive

Id=docker.service
LoadState=masked
ActiveState=inactive
"""


def test_services(root: Path) -> None:
    says(root, "systemctl", SHOWN)
    seen = services.look(scope(root))
    assert not isinstance(seen, Unknown)
    assert [(s.unit, s.installed, s.active) for s in seen] == [
        ("nvidia-persistenced", True, "active"),
        ("nvidia-fabricmanager", True, "failed"),
        ("nvidia-imex", False, "inactive"),
        ("docker", True, "inactive"),
    ]


def test_services_that_cannot_be_asked(root: Path) -> None:
    assert services.look(scope(root)) == Unknown("there is no systemctl")
    says(root, "systemctl", "", error="System has not been booted with systemd as init system (PID 1). Can't operate.\n", code=1)
    seen = services.look(scope(root))
    assert isinstance(seen, Unknown)
    assert "booted with systemd" in seen.why


def test_a_systemctl_that_hangs(root: Path) -> None:
    program(root, "systemctl", "sleep 60")
    started = time.monotonic()
    assert services.look(scope(root, cap=0.3)) == Unknown("systemctl gave no answer in time")
    assert time.monotonic() - started < 1.5


def test_container_tools_and_their_specifications(root: Path) -> None:
    write(
        root,
        {
            "/usr/bin/nvidia-ctk": "",
            "/snap/bin/docker": "",
            "/etc/cdi/nvidia.yaml": f"cdiVersion: 0.5.0\n- hostPath: {ARCH}/libcuda.so.535.86.10\n",
            "/run/cdi/nvidia.json": f'{{"hostPath": "{ARCH}/libnvidia-ml.so.550.54.15"}}',
            "/var/run": "-> /run",
            "/etc/cdi/amd.yaml": "libcuda.so.1.2",
            "/usr/bin/nvidia-uninstall": "",
            "/etc/prime-discrete": "on-demand\n",
        },
    )
    seen = driver.look(scope(root))
    assert (seen.container_toolkit, seen.docker, seen.runfile, seen.prime) == (True, "/snap/bin/docker", True, "on-demand")
    assert seen.cdi == (ConfigLine("/etc/cdi/nvidia.yaml", "535.86.10"), ConfigLine("/run/cdi/nvidia.json", "550.54.15"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(data=st.binary(max_size=300) | st.sampled_from([b"include *\n", b"include /etc/ld.so.conf\n/usr/lib\n", b"NVRM version: x"]))
def test_any_bytes_in_any_file_never_raise(root: Path, data: bytes) -> None:
    write(
        root,
        dict.fromkeys(
            (
                "/proc/driver/nvidia/version",
                "/sys/module/nvidia/version",
                "/etc/ld.so.conf",
                "/etc/prime-discrete",
                "/etc/cdi/nvidia.yaml",
                "/etc/passwd",
                "/etc/group",
                "/usr/lib/libcuda.so.1",
                "/dev/nvidia0",
            ),
            data,
        ),
    )
    driver.look(scope(root))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(path=st.text(max_size=60))
def test_any_library_path_never_raises(root: Path, path: str) -> None:
    driver_libraries.look(scope(root, {"LD_LIBRARY_PATH": f"/{path}"}))
