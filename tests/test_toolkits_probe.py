from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor.facts import Toolkit, Unknown
from gpudoctor.probes import toolkits
from gpudoctor.probes.scope import Scope

VERSION_JSON = json.dumps({"cuda": {"name": "CUDA SDK", "version": "12.4.1"}})
CUDA_H = "#ifndef __cuda_cuda_h__\n#define CUDA_VERSION 12040\n"
HOST_CONFIG = "#if defined(__GNUC__)\n#if __GNUC__ > 13\n#error -- unsupported GNU version!\n#endif /* __GNUC__ > 13 */\n"


def write(path: Path, text: str | bytes, *, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def look(root: Path, *, path: str = "", cap: float | None = None, **variables: str) -> tuple[Toolkit, ...]:
    found = toolkits.look(Scope(root, {"PATH": path or str(root / "no-programs"), **variables}, None, "none", cap))
    assert not isinstance(found, Unknown)
    return found


def only(found: tuple[Toolkit, ...]) -> Toolkit:
    assert len(found) == 1, found
    return found[0]


def nvcc(folder: Path, script: str) -> Path:
    return write(folder / "bin/nvcc", f"#!/bin/sh\n{script}\n", mode=0o755)


@pytest.fixture
def toolkit(tmp_path: Path) -> Path:
    """The folder of a whole toolkit below the root tmp_path."""
    folder = tmp_path / "usr/local/cuda-12.4"
    write(folder / "version.json", VERSION_JSON)
    write(folder / "include/cuda.h", CUDA_H)
    write(folder / "include/crt/host_config.h", HOST_CONFIG)
    write(folder / "bin/nvcc", "#!/bin/sh\n", mode=0o755)
    return folder


# ---------------------------------------------------------------- the real one


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="this machine has no nvcc")
def test_the_nvcc_of_this_machine_is_found_with_its_version_and_its_folder() -> None:
    found = toolkits.look(Scope(Path("/"), dict(os.environ), None, "none"))
    assert not isinstance(found, Unknown)
    first = found[0]
    assert first.found_by[0] == "PATH"
    assert isinstance(first.full_version, str)
    assert first.full_version.startswith(f"{first.version}.")
    assert isinstance(first.gcc_max, int)
    assert first.problem is None
    assert len({toolkit.path for toolkit in found}) == len(found)


# ---------------------------------------------------------------- places


def test_none(tmp_path: Path) -> None:
    assert look(tmp_path) == ()


def test_a_link_and_its_target_are_one_toolkit(toolkit: Path, tmp_path: Path) -> None:
    (tmp_path / "etc/alternatives").mkdir(parents=True)
    (tmp_path / "etc/alternatives/cuda").symlink_to("/usr/local/cuda-12.4")
    (tmp_path / "usr/local/cuda").symlink_to("/etc/alternatives/cuda")
    found = only(look(tmp_path, CUDA_HOME="/usr/local/cuda"))
    assert found.path == "/usr/local/cuda-12.4"
    assert found.found_by == ("CUDA_HOME", "/usr/local/cuda", "/usr/local")
    assert (found.version, found.full_version, found.gcc_max) == ("12.4", "12.4.1", 13)
    assert toolkit.is_dir()


def test_a_wrapper_script_leads_to_the_toolkit_behind_it(tmp_path: Path) -> None:
    real = tmp_path / "opt/cuda-13.0"
    nvcc(real, "echo 'Cuda compilation tools, release 13.0, V13.0.88'")
    wrapper = write(tmp_path / "programs/nvcc", f'#!/bin/sh\nexec {real}/bin/nvcc "$@"\n', mode=0o755)
    found = only(look(Path("/"), path=str(wrapper.parent))[:1])
    assert (found.path, found.nvcc, found.version, found.full_version) == (str(real), str(wrapper), "13.0", "13.0.88")
    assert found.found_by == ("PATH",)


def test_ubuntus_own_package(tmp_path: Path) -> None:
    write(tmp_path / "usr/lib/nvidia-cuda-toolkit/bin/nvcc", "#!/bin/sh\n", mode=0o755)
    write(tmp_path / "usr/include/cuda.h", "#define CUDA_VERSION 11050\n")
    write(tmp_path / "usr/include/crt/host_config.h", "#if __GNUC__ > 11\n")
    found = only(look(tmp_path))
    assert (found.version, found.origin, found.gcc_max) == ("11.5", "ubuntu", 11)


def test_libraries_alone_are_no_toolkit(tmp_path: Path) -> None:
    write(tmp_path / "usr/local/cuda-12.4/lib64/libcudart.so.12", b"\x7fELF")
    assert look(tmp_path) == ()


# ---------------------------------------------------------------- versions


def test_version_txt_of_old_toolkits(tmp_path: Path) -> None:
    write(tmp_path / "usr/local/cuda-10.2/version.txt", "CUDA Version 10.2.89\n")
    assert only(look(tmp_path)).full_version == "10.2.89"


def test_cuda_h_where_nothing_else_tells(toolkit: Path, tmp_path: Path) -> None:
    (toolkit / "version.json").unlink()
    found = only(look(tmp_path))
    assert (found.version, found.problem) == ("12.4", None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is a folder"),
        (b"\x00\xff\x9f binary", "names no CUDA version"),
        (b"{" * 70_000, "bytes long"),
        (b"[" * 60_000, "names no CUDA version"),
        (b'{"cuda": {"version": 12}}', "names no CUDA version"),
        (b"", "names no CUDA version"),
    ],
    ids=["folder", "binary", "huge", "deep", "number", "empty"],
)
def test_an_unreadable_version_json_is_a_problem_and_the_header_still_tells(
    toolkit: Path, tmp_path: Path, content: bytes | None, words: str
) -> None:
    (toolkit / "version.json").unlink()
    if content is None:
        (toolkit / "version.json").mkdir()
    else:
        write(toolkit / "version.json", content)
    found = only(look(tmp_path))
    assert found.version == "12.4"
    assert words in (found.problem or "")


def test_a_named_pipe_as_version_json_does_not_hang(toolkit: Path, tmp_path: Path) -> None:
    (toolkit / "version.json").unlink()
    os.mkfifo(toolkit / "version.json")
    assert "no plain file" in (only(look(tmp_path)).problem or "")


# ---------------------------------------------------------------- an nvcc that misbehaves


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 3", "exit code 3"),
        ("kill -SEGV $$", "SIGSEGV"),
        ("head -c 100000 /dev/urandom", "told no version"),
        ("sleep 60", "gave no answer in time"),
    ],
    ids=["fails", "crashes", "noise", "hangs"],
)
def test_an_nvcc_that_does_not_answer_is_a_problem(tmp_path: Path, script: str, words: str) -> None:
    program = nvcc(tmp_path / "cuda", script)
    started = time.monotonic()
    found = look(tmp_path, path=f"{program.parent}:/usr/bin:/bin", cap=0.5)[0]
    assert time.monotonic() - started < 5
    assert isinstance(found.version, Unknown)
    assert words in (found.problem or "")


def test_nothing_below_another_root_is_started(toolkit: Path, tmp_path: Path) -> None:
    nvcc(toolkit, f"touch {tmp_path}/started")
    look(tmp_path)
    assert not (tmp_path / "started").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_any_version_json_is_read_without_raising(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "usr/local/cuda-12.4/version.json", content)
    assert isinstance(look(tmp_path), tuple)
