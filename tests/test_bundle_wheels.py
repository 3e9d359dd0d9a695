"""Wheels of a bundle: fetched by pip from an index on loopback, then installed by pip and by uv without any network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpudoctor.bundle import wheels
from gpudoctor.diagnose import diagnose
from gpudoctor.report import document
from tests import healthy, small_wheels
from tests.root.world import OS_RELEASE

MINE = f"cp{sys.version_info.major}{sys.version_info.minor}"
UV = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
OFFLINE = (
    ("unshare", "--net") if os.geteuid() == 0 and subprocess.run(["unshare", "--net", "true"], check=False).returncode == 0 else ()
)
Json = Any  # a manifest
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="--root runs things for root alone")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package with what it depends on: for one Python, for some Pythons, in an extra that somebody asks for."""
    folder = tmp_path / "served"
    small_wheels.wheel(folder, "whole", "1.0", ["compiled>=2", "old_part; python_version < '3.11'", "parts[more]"])
    small_wheels.wheel(folder, "old_part", "1.0")
    small_wheels.wheel(
        folder, "parts", "1.0", ["extra_part; extra == 'more'", "windows_part; sys_platform == 'win32'"], extras=["more"]
    )
    small_wheels.wheel(folder, "extra_part", "1.0", ["arm_part; platform_machine == 'aarch64'"])
    for tag in ("cp310", MINE):
        small_wheels.wheel(folder, "compiled", "2.0", tag=f"{tag}-{tag}-linux_x86_64")
        small_wheels.wheel(folder, "compiled", "2.1", tag=f"{tag}-{tag}-manylinux_2_28_x86_64")
        small_wheels.wheel(folder, "compiled", "2.2", tag=f"{tag}-{tag}-manylinux_2_99_x86_64")
    with small_wheels.index(folder) as address:
        yield address


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with Ubuntu of which nothing is there but its name."""
    root = tmp_path / "root"
    for folder in ("etc", "tmp", "mnt"):
        (root / folder).mkdir(parents=True)
    (root / "etc/os-release").write_text(OS_RELEASE)
    return root


def setup(*arguments: str | Path, home: Path, index: str | None = None, offline: bool = False) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    environ = {**kept, "HOME": str(home), "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_NO_CONFIG": "1"}
    environ |= {"PIP_INDEX_URL": index} if index else {}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    command = [*(OFFLINE if offline else ()), sys.executable, "-m", "gpudoctor", "setup", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120, check=False)


def held(bundle: Path) -> list[str]:
    return sorted(path.name for path in (bundle / "wheels").iterdir())


def manifest(bundle: Path) -> Json:
    return json.loads((bundle / "bundle.json").read_text())


@only_root
@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_what_was_fetched_here_is_installed_without_a_network(tool: str, index: str, root: Path, tmp_path: Path) -> None:
    bundle, venv = root / "mnt/a bundle, with blanks", tmp_path / "venv"
    if tool == "uv":
        if UV is None:
            pytest.skip("there is no uv")
        subprocess.run([UV, "venv", "--quiet", "--no-config", "--python", sys.executable, str(venv)], check=True, timeout=60)
    else:
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=60)
    step = "smoke#install-package-with-uv" if tool == "uv" else "smoke#install-package"
    asked: list[str | Path] = [step, "--set", "PACKAGE=whole", "--root", root, "--python", venv / "bin/python", "--bundle", bundle]

    done = setup(*asked, home=tmp_path, index=index)
    assert done.returncode == 0, done.stdout + done.stderr
    here = [
        f"compiled-2.1-{MINE}-{MINE}-manylinux_2_28_x86_64.whl",
        "extra_part-1.0-py3-none-any.whl",
        "parts-1.0-py3-none-any.whl",
    ]
    old = ["old_part-1.0-py3-none-any.whl"] if sys.version_info < (3, 11) else []
    assert held(bundle) == sorted([*here, *old, "whole-1.0-py3-none-any.whl"])
    assert manifest(bundle)["target"]["python"] == MINE
    assert not (bundle / "partial").exists()

    done = setup("--yes", *asked, home=tmp_path, index="http://127.0.0.1:9/simple", offline=True)
    assert "smoke#install-package" in done.stdout, done.stdout + done.stderr
    answer = subprocess.run(
        [venv / "bin/python", "-c", "import whole, compiled; print(compiled.__version__)"], capture_output=True, check=True
    )
    assert answer.stdout == b"2.1\n"
    assert list((root / "tmp").iterdir()) == []


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Of a machine with Python 3.10 and glibc 2.35."""
    path, facts = tmp_path / "report.json", healthy.facts()
    path.write_text(document.render(facts, diagnose(facts), {}))
    return path


def test_wheels_for_another_machine_are_those_of_its_python(index: str, report: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    done = setup(
        "smoke#install-package", "--set", "PACKAGE=whole", "--from", report, "--bundle", bundle, home=tmp_path, index=index
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "old_part-1.0-py3-none-any.whl" in held(bundle)  # pip alone would have judged by the Python that runs it
    assert "compiled-2.1-cp310-cp310-manylinux_2_28_x86_64.whl" in held(bundle)
    assert not [name for name in held(bundle) if name.startswith(("windows", "arm"))]


def test_an_older_library_gets_older_wheels() -> None:
    tags = wheels.platforms(replace(healthy.INTERPRETER, glibc="2.17"))
    assert tags[:3] == ("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_16_x86_64")
    assert tags[-1] == "linux_x86_64"
    assert wheels.platforms(replace(healthy.INTERPRETER, glibc=None)) == ()
    assert wheels.platforms(replace(healthy.INTERPRETER, glibc="2.39", machine="aarch64"))[-2] == "manylinux2014_aarch64"


def test_a_wheel_that_was_cut_short_is_fetched_again(tmp_path: Path) -> None:
    path = small_wheels.wheel(tmp_path, "whole", "1.0")
    path.write_bytes(path.read_bytes()[:200])
    assert wheels.lacking(tmp_path, ["whole"], healthy.INTERPRETER) == {"whole"}
    assert not path.exists()


def test_no_network_is_one_line_and_no_bundle(report: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    asked: list[str | Path] = ["smoke#install-package", "--set", "PACKAGE=whole", "--from", report, "--bundle", bundle]
    done = setup(*asked, home=tmp_path, index="http://127.0.0.1:9/simple")
    assert done.returncode == 1
    assert "is not whole yet: run the same command again" in " ".join(done.stdout.split())
    assert not (bundle / "bundle.json").exists()


def test_what_was_cut_off_goes_on(index: str, report: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "partial/wheels").mkdir(parents=True)
    (bundle / "partial/wheels/whole-1.0-py3-none-any.whl").write_bytes(b"PK\3\4 cut off")
    done = setup(
        "smoke#install-package", "--set", "PACKAGE=whole", "--from", report, "--bundle", bundle, home=tmp_path, index=index
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (bundle / "wheels/whole-1.0-py3-none-any.whl").stat().st_size > 100
