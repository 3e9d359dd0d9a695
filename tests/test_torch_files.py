from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor.codec import to_json
from gpudoctor.facts import Torch, Unknown
from gpudoctor.probes import interpreter, torch_files
from gpudoctor.probes.scope import Scope
from tests.trees import TREES, install, make_environment, recorded, site_packages
from tests.trees.small_elf import fat_binary, small_elf

CUDA_TREES = [tree for tree in TREES if not tree.endswith("-cpu")]


def _scope(python: Path, **environ: str) -> Scope:
    return Scope(root=Path("/"), environ={"PATH": os.defpath, **environ}, python=str(python), chosen_by="--python")


def _read(python: Path, **environ: str) -> Torch:
    torch = torch_files.look(_scope(python, **environ))
    assert isinstance(torch, Torch)
    return torch


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return make_environment(tmp_path / "llama")


@pytest.fixture
def site(python: Path) -> Path:
    return site_packages(python)


@pytest.mark.parametrize("tree", TREES)
def test_a_recorded_tree_gives_the_facts_of_the_original(python: Path, site: Path, tree: str) -> None:
    install(tree, site)
    found: dict[str, Any] = json.loads(json.dumps(to_json(_read(python))).replace(str(site), "{site}"))
    assert found == recorded(tree)["facts"]


def test_no_torch_is_none(python: Path) -> None:
    assert torch_files.look(_scope(python)) is None


def test_an_interpreter_that_does_not_answer_makes_it_unknown(tmp_path: Path) -> None:
    found = torch_files.look(_scope(tmp_path / "gone"))
    assert isinstance(found, Unknown)


def test_what_an_uninstallation_left_behind_is_none(python: Path, site: Path) -> None:
    (site / "torch/lib").mkdir(parents=True)
    assert torch_files.look(_scope(python)) is None


def test_a_tree_can_become_another_build(python: Path, site: Path) -> None:
    install("torch-2.5.1-cu124", site, version="2.6.0", cuda="12.6", local="cu126", sm=["7.5", "9.0a", "12.0+PTX"])
    found = _read(python)
    assert (found.version, found.cuda, found.sm, found.ptx) == ("2.6.0+cu126", "12.6", ("7.5", "9.0a", "12.0"), ("12.0",))
    assert (found.duplicates, found.missing_files, found.missing_libraries) == ((), (), ())


def test_versions_are_read_from_a_syntax_tree_and_nothing_is_run(python: Path, site: Path) -> None:
    folder = install("torch-2.5.1-cu124", site)
    (folder / "version.py").write_text(
        "import os\nos.mkdir('/tmp/never-run')\n__version__ = '2.9.0a0+git1'\ncuda: 'str | None' = '12.9'\nhip = None\n"
    )
    found = _read(python)
    assert (found.version, found.cuda, found.hip, found.git) == ("2.9.0a0+git1", "12.9", None, None)


BROKEN = {"empty": "", "cut": "__version__ = (", "nul": "\0", "long": "x" * 300_000, "deep": "(" * 3000}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_version_file_leaves_the_metadata(python: Path, site: Path, text: str) -> None:
    folder = install("torch-2.5.1-cu124", site, local="cu124")
    (folder / "version.py").write_text(text)
    found = _read(python)
    assert (found.version, found.cuda) == ("2.5.1+cu124", "12.4")


# ---------------------------------------------------------------- libraries


def test_a_library_that_nothing_provides_is_missing(python: Path, site: Path) -> None:
    install("torch-2.5.1-cu124", site)
    shutil.rmtree(site / "nvidia/cudnn")
    found = _read(python)
    assert found.missing_libraries == ("libcudnn.so.9",)
    taken = next(item for item in found.resolutions if item.soname == "libcudnn.so.9")
    assert (taken.taken, taken.own) == (None, None)


def test_an_empty_library_is_missing_too(python: Path, site: Path) -> None:
    install("torch-2.5.1-cu124", site)
    (site / "nvidia/nccl/lib/libnccl.so.2").write_bytes(b"")
    assert _read(python).missing_libraries == ("libnccl.so.2",)


def test_the_drivers_library_is_not_missed(python: Path, site: Path) -> None:
    folder = install("torch-2.5.1-cu124", site)
    (folder / "lib/libc10_cuda.so").write_bytes(small_elf(soname="libc10_cuda.so", needed=["libcuda.so.1", "libnone.so.9"]))
    assert _read(python).missing_libraries == ("libnone.so.9",)


def test_ld_library_path_does_not_win_over_rpath(python: Path, site: Path, tmp_path: Path) -> None:
    install("torch-2.5.1-cu124", site)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange/libcudnn.so.9").write_bytes(small_elf(soname="libcudnn.so.9"))
    found = _read(python, LD_LIBRARY_PATH=str(tmp_path / "strange"))
    taken = next(item for item in found.resolutions if item.soname == "libcudnn.so.9")
    assert (taken.taken, taken.taken_by) == (taken.own, "rpath")


@pytest.mark.parametrize(
    ("tree", "part", "wins"),
    [
        ("torch-2.3.1-cu121", "libcudnn_ops_infer.so.8", True),
        ("torch-2.11.0-cu130", "libcudnn_graph.so.9", True),
        ("torch-2.15.0-cu132", "libcudnn_graph.so.9", False),
    ],
)
def test_the_part_of_cudnn_that_computes_can_be_a_strangers(
    python: Path, site: Path, tmp_path: Path, tree: str, part: str, wins: bool
) -> None:
    # seen on the real wheels: up to cuDNN 9.19 the dispatcher looks through DT_RUNPATH, since 9.26 through DT_RPATH
    install(tree, site)
    stranger = tmp_path / "other/lib" / part
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(small_elf(soname=part))
    (tmp_path / "other/include").mkdir()
    (tmp_path / "other/include/cudnn_version.h").write_text(
        "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 1\n#define CUDNN_PATCHLEVEL 0\n"
    )
    found = _read(python, LD_LIBRARY_PATH=str(stranger.parent))
    taken = next(item for item in found.resolutions if item.soname == part)
    assert (taken.taken == str(stranger)) is wins
    if wins:
        assert (taken.taken_by, taken.taken_version) == ("LD_LIBRARY_PATH", "9.1.0")


def test_nvjitlink_of_2_5_follows_its_runpath_and_later_ones_are_opened_by_path(python: Path, site: Path) -> None:
    install("torch-2.8.0-cu128", site)
    found = {item.soname: item.taken_by for item in _read(python).resolutions}
    assert found["libnvJitLink.so.12"] == "preload"
    assert found["libcudart.so.12"] == "rpath"


def test_wheels_in_another_folder_of_the_path_are_found_by_the_fallback(python: Path, site: Path, tmp_path: Path) -> None:
    # torch and its nvidia-* wheels need not share a site-packages folder
    install("torch-2.5.1-cu124", site)
    shutil.move(site / "nvidia", tmp_path / "elsewhere/nvidia")
    assert "libcudart.so.12" in str(_read(python).missing_libraries)
    assert _read(python, PYTHONPATH=str(tmp_path / "elsewhere")).missing_libraries != ()  # nvrtc is not recorded: the series ends


def test_a_build_without_libraries_is_unknown(python: Path, site: Path) -> None:
    folder = install("torch-2.5.1-cu124", site)
    shutil.rmtree(folder / "lib")
    found = _read(python)
    assert isinstance(found.sm, Unknown)
    assert isinstance(found.nccl_built_in, Unknown)
    assert isinstance(found.missing_libraries, Unknown)
    assert found.missing_files[0].startswith("torch/lib/")


def _cuda_library(folder: Path, **sections: bytes) -> None:
    parts = {f".{name}": data for name, data in sections.items()}
    (folder / "lib/libtorch_cuda.so").write_bytes(small_elf(soname="libtorch_cuda.so", sections=parts))


@pytest.mark.parametrize(
    ("text", "sm", "ptx"),
    [
        (b"-gencode;arch=compute_80,code=sm_80;-gencode;arch=compute_90a,code=sm_90a", ("8.0", "9.0a"), ()),
        (b"-gencode arch=compute_70,code=sm_70 -gencode arch=compute_70,code=compute_70", ("7.0",), ("7.0",)),
        (b"-gencode=arch=compute_86,code=[compute_86,sm_86]", ("8.6",), ("8.6",)),
        (b"-gencode;arch=compute_100f,code=sm_100f;-gencode;arch=compute_120,code=compute_120", ("10.0f",), ("12.0",)),
    ],
    ids=["semicolons", "blanks", "list", "family"],
)
def test_flags_in_any_of_nvccs_forms(python: Path, site: Path, text: bytes, sm: tuple[str, ...], ptx: tuple[str, ...]) -> None:
    _cuda_library(install("torch-2.5.1-cu124", site), rodata=b"\0" + text + b"\0")
    found = _read(python)
    assert (found.sm, found.ptx) == (sm, ptx)


def test_without_flags_the_device_code_tells(python: Path, site: Path) -> None:
    usual = fat_binary([(2, 80), (2, 90), (1, 90)])
    data = usual * 5 + fat_binary([(2, 80), (2, 90), (1, 90), (2, 103)])
    _cuda_library(install("torch-2.5.1-cu124", site), nv_fatbin=data, rodata=b"\0nothing\0")
    found = _read(python)
    assert (found.sm, found.ptx) == (("8.0", "9.0"), ("9.0",))


def test_a_static_nccl_is_built_in_and_none_is_not(python: Path, site: Path) -> None:
    folder = install("torch-2.5.1-cu124", site)
    _cuda_library(folder, dynstr=b"_ZN4c10d16ProcessGroupNCCLC1E\0")
    assert _read(python).nccl_built_in is True
    _cuda_library(folder)
    assert _read(python).nccl_built_in is False


# ---------------------------------------------------------------- metadata


def test_a_second_torch_is_a_duplicate(python: Path, site: Path) -> None:
    install("torch-2.5.1-cu124", site)
    (site / "torch-2.1.0.dist-info").mkdir()
    assert _read(python).duplicates == ("2.1.0 (torch-2.1.0.dist-info)",)


def test_condas_record_beside_pips_is_a_duplicate(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "env", owner="conda")
    install("torch-2.5.1-cu124", site_packages(python))
    record = tmp_path / "env/conda-meta/pytorch-2.3.0-py3.11_cuda12.1_cudnn8.9.2_0.json"
    record.write_text("{}")
    (record.parent / "pytorch-cuda-12.1-h1.json").write_text("{}")
    assert _read(python).duplicates == (f"2.3.0 (conda-meta/{record.name})",)


def test_condas_own_install_is_no_duplicate(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "env", owner="conda")
    site = site_packages(python)
    install("torch-2.5.1-cu124", site)
    (site / "torch-2.5.1.dist-info/INSTALLER").write_text("conda\n")
    (tmp_path / "env/conda-meta/pytorch-2.5.1-cuda126_py311h1.json").write_text("{}")
    found = _read(python)
    assert (found.duplicates, found.installer) == ((), "conda")


def test_files_that_record_lists_are_missed(python: Path, site: Path) -> None:
    folder = install("torch-2.5.1-cu124", site)
    (folder / "lib/libtorch_cuda.so").unlink()
    whole = (folder / "lib/libtorch_python.so").read_bytes()
    (folder / "lib/libtorch_python.so").write_bytes(whole[:-100])
    (folder / "lib/libc10.so").write_bytes(b"")
    missing = {f"torch/lib/{name}" for name in ("libtorch_cuda.so", "libtorch_python.so", "libc10.so")}
    assert set(_read(python).missing_files) == missing


def test_missing_bytecode_is_seen(python: Path, site: Path) -> None:
    folder = install("torch-2.5.1-cu124", site)
    assert not _read(python).missing_bytecode
    shutil.rmtree(folder / "__pycache__")
    assert _read(python).missing_bytecode


def test_a_pin_that_is_not_met(python: Path, site: Path) -> None:
    install("torch-2.5.1-cu124", site)
    (site / "nvidia_cudnn_cu12-9.1.0.70.dist-info").rename(site / "nvidia_cudnn_cu12-8.9.2.26.dist-info")
    shutil.rmtree(next(site.glob("nvidia_nccl_cu12-*.dist-info")))
    found = {pin.name: (pin.installed, pin.satisfied) for pin in _read(python).pins}
    assert found["nvidia-cudnn-cu12"] == ("8.9.2.26", False)
    assert found["nvidia-nccl-cu12"] == (None, False)
    assert found["triton"] == ("3.1.0", True)


def test_markers_are_those_of_the_target(python: Path, site: Path) -> None:
    install("torch-2.5.1-cu124", site)
    path = site / "torch-2.5.1.dist-info/METADATA"
    path.write_text(
        "Name: torch\n"
        "Requires-Dist: nvidia-a==1; platform_machine == 's390x'\n"
        "Requires-Dist: nvidia-b>=1,<3; python_version > '3'\n"
        "Requires-Dist: nvidia-c==1; extra == 'x'\n"
        "Requires-Dist: this is no requirement\n"
        "Requires-Dist: numpy\n\n"
        "Requires-Dist: nvidia-d==1\n"
    )
    assert [(pin.name, pin.wanted) for pin in _read(python).pins] == [("nvidia-b", "<3,>=1")]


# ---------------------------------------------------------------- any


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_a_fact_and_never_an_exception(python: Path, site: Path, data: st.DataObject) -> None:
    shutil.rmtree(site)  # one folder serves all examples
    install(data.draw(st.sampled_from(TREES)), site)
    paths = sorted(path for path in site.rglob("*") if path.is_file())
    for path in data.draw(st.lists(st.sampled_from(paths), max_size=6, unique=True)):
        whole = path.read_bytes()
        cut = whole[: data.draw(st.integers(0, len(whole)))]
        path.write_bytes(cut + data.draw(st.binary(max_size=40)))
    found = torch_files.look(_scope(python))
    assert found is None or isinstance(found, Torch)


@pytest.mark.parametrize("tree", CUDA_TREES)
def test_reading_takes_milliseconds(python: Path, site: Path, tree: str) -> None:
    install(tree, site)
    scope = _scope(python)
    interpreter.of(scope)
    started = time.perf_counter()
    torch_files.look(scope)
    assert time.perf_counter() - started < 0.5  # 10 ms on a quiet machine
