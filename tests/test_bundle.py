"""Bundles without a root: what lines fetch, what a manifest promises, what is refused before anything is begun."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpudoctor import steps
from gpudoctor.bundle import fetches, manifest, serve
from gpudoctor.bundle.fetches import Beyond, Download, Driver, Fetch, Looked, Packages, Settings, Unpacked, Wheels
from gpudoctor.bundle.manifest import Archive, Manifest, NotABundle, Target
from gpudoctor.diagnose import diagnose
from gpudoctor.facts import System
from gpudoctor.findings import Fix
from gpudoctor.report import document
from gpudoctor.setup.shell import Served, Shell
from tests import healthy

KERNEL, NEWEST = "6.8.0-40-generic", "6.8.0-45-generic"
KERNELS = fetches.Kernels(KERNEL, NEWEST)
FETCHERS = re.compile(
    r"\b(?:apt-get install|wget|curl|pip install|uv (?:add|sync)|(?:conda|pixi|poetry) (?:install|add)|ubuntu-drivers install)\b"
)
LOCAL = re.compile(r"^(?:apt-get -s|apt-cache)\b")


def sections() -> Iterator[tuple[str, str]]:
    """(release, section) of every section that setup may run."""
    for release in steps.releases():
        for page in steps.pages(release):
            for section in steps.sections(release, page):
                if section.fields.get("setup"):
                    yield release, f"{page}#{section.name}"


@pytest.mark.parametrize(("release", "step"), list(sections()))
def test_each_line_of_a_runnable_section_that_fetches_is_understood(release: str, step: str) -> None:
    names = steps.wanted(steps.find(step, release))
    commands = steps.resolve(Fix(step, tuple((name, f"{name.lower()}-1") for name in names)), release).commands
    found = fetches.of(commands, KERNELS)
    understood = {line for line, _ in found}
    assert not [name for _, fetch in found if isinstance(fetch, Packages) for name in fetch.names if "$" in name]
    assert [line for line in commands if FETCHERS.search(line) and not LOCAL.match(line) and line not in understood] == []


@pytest.mark.parametrize(
    ("line", "fetch"),
    [
        ("sudo apt-get install 'gcc-12' g++-12", Packages(("gcc-12", "g++-12"))),
        ('sudo apt-get install "linux-headers-$(uname -r)"', Packages((f"linux-headers-{KERNEL}",))),
        ('sudo apt-get install "h-$(linux-version list | linux-version sort | tail -n 1)"', Packages((f"h-{NEWEST}",))),
        ("sudo apt-get install --reinstall libnvidia-compute-535", Packages(("libnvidia-compute-535",), ("--reinstall",))),
        ("sudo apt-get install --only-upgrade nvidia-dkms-535", Packages(("nvidia-dkms-535",))),
        ("sudo apt-get install --fix-broken", Packages((), ("--fix-broken",))),
        ("apt-get -s install nvidia-open", None),
        ("sudo apt-get update", None),
        ("sudo apt-get purge nvidia-dkms-535", None),
        ("sudo ubuntu-drivers install --gpgpu nvidia:535-server", Driver("535-server", True)),
        ("ubuntu-drivers list", None),
        ("sudo dpkg --install ~/cuda-keyring.deb", Unpacked("~/cuda-keyring.deb")),
        ("dpkg-deb --fsys-tarfile ~/cuda-keyring.deb | gpg --show-keys", Looked()),
        ('wget --output-document ~/k.deb "https://host/$(uname -m | sed s/aarch64/sbsa/)/k_1.deb"', Download("k_1.deb", "~/k.deb")),
        ("printf '%s\\n' 'Package: *' | sudo tee /etc/apt/preferences.d/00-ours", Settings("/etc/apt/preferences.d/00-ours")),
        (
            "/v/bin/python -m pip install torch==2.8.0+cu126 --index-url https://host/whl",
            Wheels(("torch==2.8.0+cu126",), "https://host/whl", False),
        ),
        ("/v/bin/python -m pip install --force-reinstall --no-deps torch==2.8.0", Wheels(("torch==2.8.0",), None, True)),
        ("/v/bin/python -m pip uninstall --yes torch", None),
        ("/v/bin/python -m venv ~/torch", None),
        (
            "uv pip install --python /v/bin/python --reinstall-package torch torch==2.8.0 torchvision",
            Wheels(("torch==2.8.0", "torchvision"), None, False),
        ),
        ("uv pip show --python /v/bin/python torch", None),
    ],
)
def test_what_a_line_fetches(line: str, fetch: Fetch | None) -> None:
    assert [found for _, found in fetches.of([line], KERNELS)] == ([] if fetch is None else [fetch])


@pytest.mark.parametrize(
    "line",
    [
        "uv sync --project p",
        "conda install --prefix p x",
        "pixi add --manifest-path p x",
        "poetry --directory p add x",
        "python -m pip install --no-build-isolation x",
    ],
)
def test_what_no_bundle_can_bring(line: str) -> None:
    assert [type(fetch) for _, fetch in fetches.of([line], KERNELS)] == [Beyond]


# ------------------------------------------------------------ the manifest

TARGET = Target("a machine", "ubuntu", "22.04", "x86_64", "cp310")


def written(folder: Path, **files: bytes) -> Manifest:
    (folder / "partial").mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    archive = Archive("apt/0", "jammy", "main", "amd64", "/usr/share/keyrings/k.gpg", brought=True)
    made = Manifest(
        "2026-01-01T00:00:00Z", TARGET, (), (), ("apt:gcc-12",), (archive,), tuple(manifest.measured(folder, files, lambda _: None))
    )
    manifest.write(folder, made)
    return made


def test_a_manifest_reads_as_it_was_written(tmp_path: Path) -> None:
    made = written(tmp_path / "b", one=b"1", two=b"22")
    assert manifest.read(tmp_path / "b") == made
    told: list[int] = []
    manifest.check(tmp_path / "b", made, told.append)
    assert told == [1, 3]


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "apt/../../outside"])
def test_no_file_outside_is_read(path: str, tmp_path: Path) -> None:
    written(tmp_path / "b")
    listed = json.loads((tmp_path / "b/bundle.json").read_text())
    listed["files"] = [{"path": path, "size": 1, "sha256": "0"}]
    (tmp_path / "b/bundle.json").write_text(json.dumps(listed))
    with pytest.raises(NotABundle, match="damaged"):
        manifest.read(tmp_path / "b")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("component", "main\nTrusted: yes"),
        ("suite", "jammy main"),
        ("folder", "../elsewhere"),
        ("signed_by", "/media/stick/key.gpg"),
        ("signed_by", "/usr/share/keyrings/../../../media/stick/key.gpg"),
        ("signed_by", "-----BEGIN PGP PUBLIC KEY BLOCK-----"),
    ],
)
def test_nobody_declares_an_archive_trusted(field: str, value: str, tmp_path: Path) -> None:
    written(tmp_path / "b")
    listed = json.loads((tmp_path / "b/bundle.json").read_text())
    listed["archives"][0][field] = value
    (tmp_path / "b/bundle.json").write_text(json.dumps(listed))
    with pytest.raises(NotABundle, match="damaged"):
        manifest.read(tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "damaged"),
        ("[]", "not the list of a bundle"),
        ('{"schema": "gpudoctor.bundle/9"}', "take the gpudoctor that prepared it"),
        ('{"schema": "gpudoctor.bundle/1"}', "damaged"),
    ],
)
def test_a_manifest_of_another_kind_is_one_sentence(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(NotABundle, match=says):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("data", "says"), [(b"12", "2 bytes and should have 1"), (b"2", "not the file that was put there"), (None, "cannot be read")]
)
def test_a_changed_file_is_found(data: bytes | None, says: str, tmp_path: Path) -> None:
    made = written(tmp_path / "b", one=b"1")
    (tmp_path / "b/one").unlink()
    if data is not None:
        (tmp_path / "b/one").write_bytes(data)
    with pytest.raises(NotABundle, match=says):
        manifest.check(tmp_path / "b", made, lambda _: None)


def test_another_python_is_no_fit() -> None:
    assert serve.misfit(TARGET, healthy.facts()) is None
    assert "its wheels are for cp313" in str(serve.misfit(Target("", "ubuntu", "22.04", "x86_64", "cp313"), healthy.facts()))
    assert "ubuntu 24.04 on x86_64" in str(serve.misfit(Target("", "ubuntu", "24.04", "x86_64", None), healthy.facts()))


# ------------------------------------------------------------ what sudo keeps


@pytest.mark.parametrize("attended", [True, False])
def test_sudo_takes_the_bundle_along(attended: bool, tmp_path: Path) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/bash\n[ "$1" != -n ] || shift\nexec env -i PATH="$PATH" "$@"\n')
    sudo.chmod(0o755)
    shell = Shell(
        Path("/"), attended, is_root=False, served=Served({"APT_CONFIG": "/a place/apt.conf"}, "wget() { echo served; }\n")
    )
    environ = shell.environment("machine", {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    lines = "sudo printenv APT_CONFIG; printenv APT_CONFIG; wget"
    told = subprocess.run(
        shell.command(lines, "machine"), env=environ, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    assert told.stdout.splitlines() == ["/a place/apt.conf", "/a place/apt.conf", "served"]


# ------------------------------------------------------------ the command line


def setup(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpudoctor", "setup", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def report(folder: Path, **system: Any) -> Path:
    """Of a healthy machine with Ubuntu 22.04."""
    facts = healthy.facts()
    assert isinstance(facts.system, System)
    facts = replace(facts, system=replace(facts.system, **system))
    path = folder / "report.json"
    path.write_text(document.render(facts, diagnose(facts), {}))
    return path


@pytest.mark.parametrize("options", [["--dry-run"], ["--output", "x"]])
def test_options_that_do_not_go_together(options: list[str], tmp_path: Path) -> None:
    done = setup("--bundle", tmp_path / "b", *options)
    assert done.returncode == 2
    assert "--bundle: not together" in done.stderr
    assert not (tmp_path / "b").exists()


def test_a_report_does_not_go_with_a_bundle_that_is_whole(tmp_path: Path) -> None:
    written(tmp_path / "b")
    done = setup("--bundle", tmp_path / "b", "--from", "x.json")
    assert done.returncode == 2
    assert "has been prepared already" in done.stderr


def test_packages_for_another_kind_of_machine_are_refused_with_the_need(tmp_path: Path) -> None:
    saved = report(tmp_path, machine="aarch64")
    done = setup("kernel-modules#install-kernel-compiler", "--set", "COMPILER=gcc-12", "--from", saved, "--bundle", tmp_path / "b")
    assert done.returncode == 2
    assert "have to be fetched by apt on ubuntu 22.04 on aarch64, and this is" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "b").exists()


def test_what_conda_fetches_is_said_not_to_be_in_it(tmp_path: Path) -> None:
    saved = report(tmp_path)
    done = setup("pytorch#cuda-build-with-conda", "--set", "PREFIX=/c", "--from", saved, "--bundle", tmp_path / "b")
    assert done.returncode == 1, done.stderr
    assert "Not in a bundle: pytorch#cuda-build-with-conda, for conda fetches by itself" in " ".join(done.stdout.split())
    assert not (tmp_path / "b").exists()


def test_a_machine_that_needs_nothing_needs_no_bundle(tmp_path: Path) -> None:
    done = setup("--from", report(tmp_path), "--bundle", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert "there is nothing to put into" in " ".join(done.stdout.split())


def test_a_release_without_pages_is_refused(tmp_path: Path) -> None:
    done = setup("--from", report(tmp_path, os_id="debian", os_version="12"), "--bundle", tmp_path / "b")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
