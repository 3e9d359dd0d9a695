from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpudoctor.probes import torch_loader
from gpudoctor.probes.scope import Scope
from tests.trees.small_elf import small_elf


def _scope(root: Path | str = "/", **environ: str) -> Scope:
    return Scope(root=Path(root), environ=environ, python=None, chosen_by="own")


def _library(path: Path, **parts: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_elf(**parts))  # type: ignore[arg-type]
    return path


SOME = (Path("/usr/bin/git"), Path("/bin/tar"), Path("/usr/bin/gcc"))
PROGRAMS = [Path(sys.executable).resolve(), *(path for path in SOME if path.exists())]


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_the_real_loader_takes_the_same_files(program: Path) -> None:
    # the loader itself lists what it would take (ld.so(8): LD_TRACE_LOADED_OBJECTS)
    environ = {"PATH": os.defpath, "LD_TRACE_LOADED_OBJECTS": "1"}
    answer = subprocess.run([str(program)], env=environ, capture_output=True, text=True, check=True, timeout=20)
    lines = [line.strip().split(" => ") for line in answer.stdout.splitlines() if " => " in line]
    real = {soname: path.split(" (")[0] for soname, path in lines}
    process = torch_loader.Process(_scope(), program=str(program))
    assert process.missing == {}
    for soname, path in real.items():
        assert os.path.realpath(process.loaded[soname].path) == os.path.realpath(path)


def test_rpath_wins_over_ld_library_path_which_wins_over_runpath(tmp_path: Path) -> None:
    own, other = _library(tmp_path / "own/liba.so.1"), _library(tmp_path / "other/liba.so.1")
    by_rpath = _library(tmp_path / "x/librpath.so", needed=["liba.so.1"], rpath="$ORIGIN/../own")
    by_runpath = _library(tmp_path / "x/librunpath.so", needed=["liba.so.1"], runpath="${ORIGIN}/../own")
    scope = _scope(LD_LIBRARY_PATH=str(other.parent))
    for requester, expected, by in ((by_rpath, own, "rpath"), (by_runpath, other, "LD_LIBRARY_PATH")):
        taken = torch_loader.resolve("liba.so.1", requester, scope)
        assert taken is not None
        assert (os.path.realpath(taken.path), taken.by) == (str(expected), by)


def test_the_rpath_of_whoever_loaded_the_requester_counts(tmp_path: Path) -> None:
    _library(tmp_path / "deep/libb.so.1")
    _library(tmp_path / "mid/liba.so.1", needed=["libb.so.1"])
    top = _library(tmp_path / "libtop.so", needed=["liba.so.1"], rpath="$ORIGIN/mid:$ORIGIN/deep")
    process = torch_loader.Process(_scope())
    process.open(top)
    assert process.missing == {}
    assert process.loaded["libb.so.1"].by == "rpath"


def test_a_runpath_ends_the_chain_of_rpaths(tmp_path: Path) -> None:
    _library(tmp_path / "deep/libgpudoctor-b.so.1")
    _library(tmp_path / "mid/liba.so.1", needed=["libgpudoctor-b.so.1"], runpath="$ORIGIN")
    top = _library(tmp_path / "libtop.so", needed=["liba.so.1"], rpath="$ORIGIN/mid:$ORIGIN/deep")
    process = torch_loader.Process(_scope())
    process.open(top)
    assert list(process.missing) == ["libgpudoctor-b.so.1"]


def test_what_is_loaded_already_wins(tmp_path: Path) -> None:
    first, second = _library(tmp_path / "one/liba.so.1", soname="liba.so.1"), _library(tmp_path / "two/liba.so.1")
    user = _library(tmp_path / "libuser.so", needed=["liba.so.1"], rpath=str(second.parent))
    taken = torch_loader.resolve("liba.so.1", user, _scope(), loaded=[str(first)])
    assert taken is not None
    assert taken.path == str(first)


def test_a_file_for_another_machine_is_passed_over_and_a_broken_one_is_taken(tmp_path: Path) -> None:
    program = str(Path(sys.executable).resolve())
    for folder, data in (("foreign", small_elf(machine=2)), ("broken", b""), ("good", small_elf())):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "liba.so.1").write_bytes(data)
    search = [str(tmp_path / name) for name in ("foreign", "good", "broken")]
    user = _library(tmp_path / "libuser.so", needed=["liba.so.1"])
    taken = torch_loader.resolve("liba.so.1", user, _scope(LD_LIBRARY_PATH=":".join(search)), program=program)
    assert taken is not None
    assert taken.path == str(tmp_path / "good/liba.so.1")
    taken = torch_loader.resolve("liba.so.1", user, _scope(LD_LIBRARY_PATH=f"{search[2]}:{search[1]}"), program=program)
    assert taken is not None
    assert (taken.path, taken.dynamic, taken.error) == (str(tmp_path / "broken/liba.so.1"), None, "file too short")


def test_ld_so_conf_is_read_below_the_root_with_its_includes(tmp_path: Path) -> None:
    _library(tmp_path / "usr/local/cuda/lib64/libgpudoctor-x.so.1")
    (tmp_path / "etc/ld.so.conf.d").mkdir(parents=True)
    (tmp_path / "etc/ld.so.conf").write_text("# all\ninclude ld.so.conf.d/*.conf\ninclude /etc/ld.so.conf\n")
    (tmp_path / "etc/ld.so.conf.d/cuda.conf").write_text("/usr/local/cuda/lib64\n")
    taken = torch_loader.resolve("libgpudoctor-x.so.1", "/nowhere", _scope(tmp_path))
    assert taken is not None
    assert (taken.path, taken.by) == (str(tmp_path / "usr/local/cuda/lib64/libgpudoctor-x.so.1"), "ld.so.conf")


def test_ld_preload_comes_first(tmp_path: Path) -> None:
    mine = _library(tmp_path / "libmine.so", soname="liba.so.1")
    process = torch_loader.Process(_scope(LD_PRELOAD=f"{mine} /nowhere/libnone.so"))
    assert process.loaded["liba.so.1"].path == str(mine)


def test_libraries_that_need_each_other_end(tmp_path: Path) -> None:
    _library(tmp_path / "liba.so", needed=["libb.so"], rpath="$ORIGIN")
    _library(tmp_path / "libb.so", needed=["liba.so"], rpath="$ORIGIN")
    process = torch_loader.Process(_scope())
    process.open(tmp_path / "liba.so")
    assert {"liba.so", "libb.so"} <= set(process.loaded)
