from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor.facts import LibraryCopy, Unknown
from gpudoctor.probes import libraries
from gpudoctor.probes.scope import Scope

CUDNN_H = "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 1\n#define CUDNN_PATCHLEVEL 0\n"
NCCL_H = "#define NCCL_MAJOR 2\n#define NCCL_MINOR 21\n#define NCCL_PATCH 5\n"
NCCL_TEXT = b"\x7fELF" + b"\0" * 5000 + b"NCCL version info only\0NCCL version 2.30.7+cuda13.3\0NCCL_DEBUG" + b"\0" * 100
LIB = "usr/lib/x86_64-linux-gnu"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def look(root: Path, *, python: Path | None = None, **variables: str) -> tuple[LibraryCopy, ...]:
    scope = Scope(root, {"PATH": "/usr/bin:/bin", **variables}, None if python is None else str(python), "--python")
    found = libraries.look(scope)
    assert not isinstance(found, Unknown)
    return found


def only(found: tuple[LibraryCopy, ...]) -> LibraryCopy:
    assert len(found) == 1, found
    return found[0]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A real environment without packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    return tmp_path / "env/bin/python"


def site(python: Path) -> Path:
    return next(python.parent.parent.glob("lib/python3*/site-packages"))


def wheel(packages: Path, name: str, version: str, part: str, library: str, headers: dict[str, str]) -> None:
    (packages / f"{name.replace('-', '_')}-{version}.dist-info").mkdir(parents=True)
    write(packages / "nvidia" / part / "lib" / library, b"\x7fELF")
    for header, text in headers.items():
        write(packages / "nvidia" / part / "include" / header, text)


# ---------------------------------------------------------------- wheels


def test_the_wheels_of_cuda_12(python: Path, tmp_path: Path) -> None:
    wheel(site(python), "nvidia-cudnn-cu12", "9.1.0.70", "cudnn", "libcudnn.so.9", {"cudnn_version.h": CUDNN_H})
    wheel(site(python), "nvidia-nccl-cu12", "2.21.5", "nccl", "libnccl.so.2", {"nccl.h": NCCL_H})
    cudnn, nccl = look(tmp_path / "root", python=python)
    assert (cudnn.kind, cudnn.version, cudnn.origin, cudnn.package, cudnn.cuda_major) == (
        "cudnn",
        "9.1.0",
        "wheel",
        "nvidia-cudnn-cu12",
        12,
    )
    assert cudnn.path == f"{site(python)}/nvidia/cudnn/lib/libcudnn.so.9"
    assert (nccl.kind, nccl.version, nccl.origin, nccl.package, nccl.cuda_major) == (
        "nccl",
        "2.21.5",
        "wheel",
        "nvidia-nccl-cu12",
        12,
    )


def test_the_shared_folder_of_cuda_13(python: Path, tmp_path: Path) -> None:
    wheel(site(python), "nvidia-cudnn-cu13", "9.1.0.70", "cu13", "libcudnn.so.9", {"cudnn_version.h": CUDNN_H})
    found = only(look(tmp_path / "root", python=python))
    assert (found.version, found.package, found.cuda_major) == ("9.1.0", "nvidia-cudnn-cu13", 13)


def test_two_wheels_over_one_another_are_told_by_the_header(python: Path, tmp_path: Path) -> None:
    wheel(site(python), "nvidia-cudnn-cu11", "8.9.6.50", "cudnn", "libcudnn.so.9", {})
    (site(python) / "nvidia_cudnn_cu12-9.1.0.70.dist-info").mkdir()
    write(site(python) / "nvidia/cudnn/include/cudnn_version.h", CUDNN_H)
    found = only(look(tmp_path / "root", python=python))
    assert (found.version, found.package) == ("9.1.0", "nvidia-cudnn-cu12")


def test_a_wheel_without_headers_has_its_packages_version(python: Path, tmp_path: Path) -> None:
    wheel(site(python), "nvidia-nccl-cu12", "2.26.2.post1", "nccl", "libnccl.so.2", {})
    assert only(look(tmp_path / "root", python=python)).version == "2.26.2"


def test_metadata_without_files_is_no_copy(python: Path, tmp_path: Path) -> None:
    (site(python) / "nvidia_nccl_cu12-2.21.5.dist-info").mkdir()
    assert look(tmp_path / "root", python=python) == ()


def test_a_copy_inside_torch_tells_its_version_itself(python: Path, tmp_path: Path) -> None:
    write(site(python) / "torch/lib/libnccl.so.2", NCCL_TEXT)
    found = only(look(tmp_path / "root", python=python))
    assert (found.version, found.origin, found.cuda_major) == ("2.30.7", "torch", 13)


def test_condas_copies(python: Path, tmp_path: Path) -> None:
    prefix = python.parent.parent
    write(prefix / "conda-meta/cudnn-9.1.0.70-hf0e3a66_0.json", "{}")
    write(prefix / "lib/libcudnn.so.9.1.0", b"\x7fELF")
    (prefix / "lib/libcudnn.so.9").symlink_to("libcudnn.so.9.1.0")
    found = only(look(tmp_path / "root", python=python))
    assert (found.version, found.origin, found.package) == ("9.1.0", "conda", "cudnn")


# ---------------------------------------------------------------- the system


def test_the_systems_packages(tmp_path: Path) -> None:
    status = "Package: libcudnn8\nStatus: install ok installed\nVersion: 8.9.2.26-1+cuda12.1\n\n"
    status += "Package: libnccl2\nStatus: deinstall ok config-files\nVersion: 2.18.3-1+cuda12.2\n\n"
    write(tmp_path / "var/lib/dpkg/status", status)
    write(tmp_path / LIB / "libcudnn.so.8.9.2", b"\x7fELF")
    (tmp_path / LIB / "libcudnn.so.8").symlink_to("libcudnn.so.8.9.2")
    (tmp_path / LIB / "libcudnn.so").symlink_to("/etc/alternatives/libcudnn_so")
    found = only(look(tmp_path))
    assert (found.version, found.origin, found.package, found.cuda_major) == ("8.9.2", "system", "libcudnn8", 12)
    assert found.path == f"/{LIB}/libcudnn.so.8"


def test_a_copy_in_a_toolkit_and_one_on_the_library_path(tmp_path: Path) -> None:
    write(tmp_path / "usr/local/cuda-12.1/lib64/libcudnn.so.8", b"\x7fELF")
    write(tmp_path / "usr/local/cuda-12.1/include/cudnn_version.h", CUDNN_H.replace("9", "8"))
    write(tmp_path / "opt/nccl/lib/libnccl.so.2", NCCL_TEXT)
    by_origin = {copy.origin: copy for copy in look(tmp_path, LD_LIBRARY_PATH=":/opt/nccl/lib:relative")}
    assert by_origin["toolkit"].version == "8.1.0"
    assert by_origin["LD_LIBRARY_PATH"].version == "2.30.7"


def test_one_file_under_two_names_is_one_copy(tmp_path: Path) -> None:
    write(tmp_path / LIB / "libnccl.so.2.18.3", b"\x7fELF")
    (tmp_path / LIB / "libnccl.so.2").symlink_to("libnccl.so.2.18.3")
    assert only(look(tmp_path, LD_LIBRARY_PATH=f"/{LIB}")).version == "2.18.3"


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"NCCL version 2"], ids=["empty", "zeros", "cut"])
def test_a_file_that_tells_nothing_is_unknown(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "opt/nccl/libnccl.so.2", content)
    assert isinstance(only(look(tmp_path, LD_LIBRARY_PATH="/opt/nccl")).version, Unknown)


def test_a_link_that_leads_nowhere_is_no_copy(tmp_path: Path) -> None:
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/libnccl.so.2").symlink_to("gone")
    assert look(tmp_path, LD_LIBRARY_PATH="/opt") == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_any_content_is_read_without_raising(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "opt/libnccl.so.2", content)
    assert len(look(tmp_path, LD_LIBRARY_PATH="/opt")) == 1
