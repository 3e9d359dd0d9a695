"""The distribution's packages, from dpkg's status file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor.facts import Package, Unknown
from gpudoctor.probes import packages
from tests.probe_world import scope, write


def stanza(name: str, version: str, status: str = "install ok installed") -> str:
    return (
        f"Package: {name}\nStatus: {status}\nPriority: optional\nArchitecture: amd64\nVersion: {version}\nDescription: a\n long\n\n"
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    place.mkdir()
    return place


def test_the_packages_that_matter(root: Path) -> None:
    text = (
        stanza("adduser", "3.118")
        + stanza("libnvidia-compute-535", "535.86.10-0ubuntu1", "hold ok installed")
        + stanza("linux-image-6.2.0-26-generic", "6.2.0-26.26~22.04.1")
        + stanza("linux-aws", "6.2.0.1")
        + stanza("linux-tools-common", "5.15")
        + stanza("nvidia-dkms-535", "535.86.10-0ubuntu1", "install ok half-configured")
        + stanza("nvidia-driver-470", "470.1", "deinstall ok config-files")
        + stanza("nvidia-gone", "1", "unknown ok not-installed")
        + stanza("python3-cuda-thing", "1")
    )
    write(root, {"/var/lib/dpkg/status": text})
    assert packages.look(scope(root)) == (
        Package("libnvidia-compute-535", "535.86.10-0ubuntu1", held=True, state="installed"),
        Package("linux-image-6.2.0-26-generic", "6.2.0-26.26~22.04.1", held=False, state="installed"),
        Package("linux-aws", "6.2.0.1", held=False, state="installed"),
        Package("nvidia-dkms-535", "535.86.10-0ubuntu1", held=False, state="half-configured"),
        Package("nvidia-driver-470", "470.1", held=False, state="config-files"),
    )


def test_no_dpkg_is_unknown(root: Path) -> None:
    assert packages.look(scope(root)) == Unknown("this machine has no dpkg")


def test_the_last_stanza_without_its_empty_line(root: Path) -> None:
    write(root, {"/var/lib/dpkg/status": stanza("nvidia-dkms-535", "1").rstrip("\n")})
    assert packages.look(scope(root)) == (Package("nvidia-dkms-535", "1", held=False, state="installed"),)


def test_five_megabytes_take_no_time(root: Path) -> None:
    filler = "".join(stanza(f"libsomething{number}", "1." + "0" * 500) for number in range(9000))
    write(root, {"/var/lib/dpkg/status": filler + stanza("nvidia-dkms-535", "1")})
    assert len(filler) > 5 << 20
    started = time.perf_counter()
    seen = packages.look(scope(root))
    # measured: 15 ms; the bound leaves room for a busy machine
    assert time.perf_counter() - started < 0.5
    assert not isinstance(seen, Unknown)
    assert len(seen) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=300), name=st.text(max_size=20))
def test_any_bytes_never_raise(root: Path, data: bytes, name: str) -> None:
    write(root, {"/var/lib/dpkg/status": b"Package: nvidia-x\n" + data + b"\n\n" + stanza(f"nvidia-{name}", "1").encode()})
    packages.look(scope(root))
