"""The world in which machines are cured is sound: clean scripts, refusals in the real words, a cache that stays as it was made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.root import base, cards
from tests.root.machine import Machine
from tests.root.ubuntu import PROGRAMS
from tests.root.versions import KERNELS, NEW, OLD

SCRIPTS = [path for path in sorted(PROGRAMS.rglob("*")) if path.is_file() and "perl" not in path.read_text().partition("\n")[0]]
# SC1090, SC1091, SC2154: machine.sh and the card's values are sourced. SC2012: file names are ours. SC2015, SC2086: meant so.
SHELLCHECK = (
    str(Path(sys.executable).parent / "shellcheck"),
    "-s",
    "bash",
    "-e",
    "SC1007,SC1090,SC1091,SC2012,SC2015,SC2034,SC2045,SC2086,SC2154",
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_accepts_the_programs(script: Path) -> None:
    checked = subprocess.run([*SHELLCHECK, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine.lent(tmp_path_factory.mktemp("world")) as machine:
        yield machine


def refusal(machine: Machine, *command: str) -> str:
    done = machine.run(*command, check=False)
    assert done.code != 0
    return done.stderr.strip()


@pytest.mark.root
def test_a_module_that_is_not_there_is_not_found(machine: Machine) -> None:
    words = refusal(machine, "modprobe", "nvidia")
    assert words == f"modprobe: FATAL: Module nvidia not found in directory /lib/modules/{KERNELS[OLD]}"


@pytest.mark.root
def test_a_card_that_nouveau_holds_is_no_device(machine: Machine) -> None:
    machine.install_driver("580-open")
    assert refusal(machine, "modprobe", "nvidia") == "modprobe: ERROR: could not insert 'nvidia': No such device"
    assert "The NVIDIA probe routine was not called" in machine.run("dmesg").stdout


@pytest.mark.root
def test_a_start_takes_the_newest_kernel_and_a_new_boot_id(machine: Machine) -> None:
    before = machine.read("/proc/sys/kernel/random/boot_id")
    machine.time_passes()
    machine.run("apt-get", "dist-upgrade")
    machine.boot()
    assert machine.run("uname", "-r").stdout.strip() == KERNELS[NEW]
    assert machine.read("/proc/sys/kernel/random/boot_id") != before
    assert machine.run("nvidia-smi", "-L").stdout.startswith("GPU 0: NVIDIA GeForce RTX 4070")


@pytest.mark.root
def test_a_key_asks_for_a_password_and_for_the_person_at_the_screen(machine: Machine) -> None:
    machine.secure_boot(on=True)
    machine.install("shim-signed")
    machine.run("update-secureboot-policy", "--new-key")
    key = "/var/lib/shim-signed/mok/MOK.der"
    assert machine.run("mokutil", "--import", key, check=False).code != 0
    machine.run("mokutil", "--import", key, stdin="password1\npassword1\n")
    machine.boot()
    assert "[key 1]" in machine.run("mokutil", "--list-new").stdout
    machine.boot(confirm_enrolment=True)
    assert machine.run("mokutil", "--list-new").stdout == "MokNew is empty\n"
    assert machine.run("mokutil", "--test-key", key, check=False).stdout == f"{key} is already enrolled\n"


@pytest.mark.root
def test_without_a_network_apt_says_so(machine: Machine) -> None:
    machine.remember("no-network")
    assert machine.shell("wget --output-document /tmp/x https://developer.download.nvidia.com/x", check=False).code != 0
    machine.forget("no-network")


@pytest.mark.root
def test_the_cached_root_stays_as_it_was_made(tmp_path: Path) -> None:
    before = base.fingerprint(base.base())
    with Machine.lent(tmp_path, cards.A100) as machine:
        machine.install_driver("580-server-open", headless=True)
        machine.time_passes()
        machine.run("apt-get", "dist-upgrade")
        machine.run("apt-get", "install", "--reinstall", "bash", check=False)
        machine.shell("ldconfig; depmod || true; apt-get purge nvidia-utils-580-server")
        machine.boot()
    assert base.fingerprint(base.base()) == before
