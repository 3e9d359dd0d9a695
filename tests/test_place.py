"""Where we are, by the facts: whose driver, which kernel flavour, which branch in apt's spelling."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest

from gpudoctor.facts import Driver, Facts, Package, PciDevice, Unknown
from tests.healthy import SYSTEM

place: Any = import_module("gpudoctor.checks.place")
UNSEEN = Unknown("not looked at")


def driver(*packages: Package) -> Driver:
    return Driver(None, None, None, (), packages, False, None, (), (), False, None, ())


def packages(*pairs: str) -> tuple[Package, ...]:
    """name=version, or a name alone."""
    return tuple(Package(pair.partition("=")[0], pair.partition("=")[2] or "1", held=False, state="installed") for pair in pairs)


@pytest.mark.parametrize(
    ("kernel", "release", "flavour"),
    [
        ("5.15.0-91-generic", "22.04", "generic"),
        ("6.2.0-26-generic", "22.04", "generic-hwe-22.04"),
        ("6.8.0-45-generic", "22.04", "generic-hwe-22.04"),
        ("6.8.0-45-generic", "24.04", "generic"),
        ("6.8.0-45-lowlatency", "22.04", "lowlatency-hwe-22.04"),
        ("6.8.0-1021-aws", "22.04", "aws"),
        ("6.8.0-1020-azure", "22.04", "azure"),
        ("5.15.0-1066-aws", "22.04", "aws-lts-22.04"),
        ("6.99.0-12-generic", "26.04", "generic"),
    ],
)
def test_flavour_follows_the_booted_kernel(kernel: str, release: str, flavour: str) -> None:
    assert place.kernel_flavour(kernel, "ubuntu", release) == flavour


@pytest.mark.parametrize(
    "kernel", ["6.9.3-060903-generic", "6.1.0-18-amd64", "5.15.153.1-microsoft-standard-WSL2", "6.18.44-fc-v657", ""]
)
def test_kernel_that_is_not_ubuntus_has_no_flavour(kernel: str) -> None:
    assert place.kernel_flavour(kernel, "debian" if "amd64" in kernel else "ubuntu", "22.04") is None


@pytest.mark.parametrize(
    ("names", "branch"),
    [
        ((), None),
        (("nvidia-container-toolkit=1.17", "libnvidia-container1=1.17", "nvidia-fabricmanager-535=535.129.03"), None),
        (("nvidia-driver-535=535.86.10-0ubuntu0.22.04.1", "libnvidia-compute-535=535.86.10-0ubuntu0.22.04.1"), "535"),
        (("nvidia-driver-580-open=580.95.05-0ubuntu0", "libnvidia-compute-580=580.95.05-0ubuntu0"), "580-open"),
        (("nvidia-headless-no-dkms-580-server-open=580.95.05-0", "libnvidia-compute-580-server=580.95.05-0"), "580-server-open"),
        (("linux-modules-nvidia-535-server-generic-hwe-22.04=6.5.0-28.29", "nvidia-utils-535-server=535.183.01-0"), "535-server"),
        (("linux-modules-nvidia-535-open-6.2.0-26-generic=6.2.0-26.26",), "535-open"),
        (("nvidia-driver-535=550.120-0ubuntu0", "nvidia-driver-550=550.120-0ubuntu0"), "550"),
        (("nvidia-driver-535=550.120-0ubuntu0",), None),
        (("nvidia-open=580.95.05-0ubuntu1", "libnvidia-compute=580.95.05-0ubuntu1"), "580-open"),
        (("cuda-drivers-580=580.95.05-0ubuntu1", "nvidia-driver-580=580.95.05-0ubuntu1"), "580"),
        (("nvidia-dkms-550=1:550.54.14-0ubuntu1", "libnvidia-compute-535=535.86.10-0"), "550"),
    ],
    ids=[
        "nothing installed",
        "what is no driver",
        "desktop",
        "open modules",
        "server with open modules",
        "prebuilt modules for a server",
        "modules for one kernel",
        "a transitional package beside its successor",
        "a transitional package alone",
        "NVIDIA's repository without numbers",
        "NVIDIA's repository with numbers",
        "two branches: the newer",
    ],
)
def test_branch_in_the_spelling_of_apt(names: tuple[str, ...], branch: str | None) -> None:
    assert place.apt_branch(packages(*names)) == branch


def test_packages_that_were_removed_do_not_count() -> None:
    removed = Package("nvidia-driver-470", "470.256.02-0ubuntu0", held=False, state="config-files")
    facts = Facts(system=SYSTEM, driver=driver(removed, *packages("nvidia-driver-535=535.86.10-0")))
    assert place.place_of(facts).branch == "535"


@pytest.mark.parametrize(
    ("changes", "attribute", "value"),
    [
        ({"platform": "jetson"}, "vendor", "a Jetson"),
        ({"platform": "dgx"}, "vendor", "DGX OS"),
        ({"product": "Amazon EC2 g5.xlarge"}, "cloud", "aws"),
        ({"product": "Google Google Compute Engine"}, "cloud", "gcp"),
        ({"product": "Microsoft Corporation Virtual Machine"}, "cloud", "azure"),
        ({"kernel": "6.8.0-1021-oracle"}, "cloud", "oracle"),
        ({"product": "LENOVO ThinkPad P1 Gen 6"}, "laptop", True),
        ({"container": "docker"}, "container", "docker"),
        ({"scheduler": "slurm"}, "scheduler", "slurm"),
        ({"wsl": 2}, "wsl", 2),
        ({}, "vendor", None),
        ({}, "cloud", None),
        ({}, "laptop", False),
        ({}, "may_sudo", True),
    ],
)
def test_place_is_read_from_the_system(changes: dict[str, Any], attribute: str, value: object) -> None:
    assert getattr(place.place_of(Facts(system=replace(SYSTEM, **changes))), attribute) == value


def test_a_grid_package_makes_a_vgpu_guest() -> None:
    facts = Facts(system=SYSTEM, driver=driver(*packages("nvidia-linux-grid-535=535.129.03")))
    assert place.place_of(facts).vendor == "a vGPU guest"


def test_a_laptops_gpu_makes_a_laptop() -> None:
    card = PciDevice("0000:01:00.0", "10de", "2820", "030000", "NVIDIA GeForce RTX 4070 Laptop GPU", None, None, responds=True)
    assert place.place_of(Facts(system=SYSTEM, pci=(card,))).laptop


def test_nothing_known_is_no_place_at_all() -> None:
    nowhere = place.place_of(Facts())
    assert (nowhere.container, nowhere.wsl, nowhere.vendor, nowhere.cloud, nowhere.flavour, nowhere.branch) == (
        None,
        0,
        None,
        None,
        None,
        None,
    )
    assert nowhere.may_sudo is None
