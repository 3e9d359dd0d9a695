from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gpudoctor.facts import Companion, Unknown
from gpudoctor.probes import companions
from gpudoctor.probes.scope import Scope
from tests.trees import make_environment, site_packages
from tests.trees.small_elf import small_elf


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return make_environment(tmp_path / "llama")


def _looked(python: Path) -> tuple[Companion, ...]:
    scope = Scope(root=Path("/"), environ={"PATH": os.defpath}, python=str(python), chosen_by="--python")
    found = companions.look(scope)
    assert not isinstance(found, Unknown)
    return found


def _package(python: Path, metadata: str, requires: str | None, files: dict[str, str | bytes]) -> None:
    site = site_packages(python)
    folder = site / f"{metadata}.dist-info"
    folder.mkdir()
    name, _, version = metadata.partition("-")
    lines = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (f"Requires-Dist: {requires}\n" if requires else "")
    (folder / "METADATA").write_text(lines + "\nRequires-Dist: torch==0.1\n")
    for path, content in files.items():
        target = folder / path.removeprefix("@/") if path.startswith("@/") else site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_none_are_none(python: Path) -> None:
    assert _looked(python) == ()


def test_torchvision_says_it_in_its_version(python: Path) -> None:
    text = "__version__ = '0.20.1+cu124'\ngit_version = 'x'\nfrom torchvision.extension import _check_cuda_version\n"
    _package(python, "torchvision-0.20.1", "torch (==2.5.1)", {"torchvision/version.py": text})
    assert _looked(python) == (Companion("torchvision", "0.20.1+cu124", "==2.5.1", "12.4", None),)


def test_torchaudio_of_the_cpu(python: Path) -> None:
    _package(python, "torchaudio-2.5.1+cpu", "torch==2.5.1", {"torchaudio/version.py": "__version__ = '2.5.1+cpu'\n"})
    assert _looked(python) == (Companion("torchaudio", "2.5.1+cpu", "==2.5.1", "cpu", None),)


def test_flash_attn_says_it_in_its_wheels_name(python: Path) -> None:
    wheel = "https://github.com/x/flash_attn-2.7.4.post1%2Bcu12torch2.5cxx11abiFALSE-cp310-cp310-linux_x86_64.whl"
    files: dict[str, str | bytes] = {"flash_attn/__init__.py": '__version__ = "2.7.4.post1"\n'}
    files["@/direct_url.json"] = json.dumps({"url": wheel})
    _package(python, "flash_attn-2.7.4.post1", "torch", files)
    assert _looked(python) == (Companion("flash-attn", "2.7.4.post1", "2.5", "12", None),)


def test_flash_attn_built_here_is_known_by_its_library(python: Path) -> None:
    library = small_elf(needed=["libcudart.so.12", "libtorch_cuda.so"])
    files: dict[str, str | bytes] = {"flash_attn/__init__.py": "", "flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so": library}
    _package(python, "flash_attn-2.7.4.post1", "torch", files)
    assert _looked(python) == (Companion("flash-attn", "2.7.4.post1", None, "12", None),)


def test_bitsandbytes_lists_its_libraries(python: Path) -> None:
    names = ("cuda118", "cuda121", "cuda124", "cuda118_nocublaslt", "cpu")
    files: dict[str, str | bytes] = {f"bitsandbytes/libbitsandbytes_{name}.so": small_elf() for name in names}
    _package(python, "bitsandbytes-0.45.0", "torch>=2.0,<3", files)
    assert _looked(python) == (Companion("bitsandbytes", "0.45.0", "<3,>=2.0", "11.8, 12.1, 12.4", None),)


def test_xformers_says_it_in_cpp_lib_json(python: Path) -> None:
    data = json.dumps({"version": {"cuda": 1204, "torch": "2.5.1+cu124", "python": "3.10"}, "env": {}})
    _package(python, "xformers-0.0.28.post3", None, {"xformers/cpp_lib.json": data})
    assert _looked(python) == (Companion("xformers", "0.0.28.post3", "==2.5.1", "12.4", None),)


def test_vllm_by_its_library(python: Path) -> None:
    _package(python, "vllm-0.6.6", "torch==2.5.1", {"vllm/_C.abi3.so": small_elf(needed=["libcudart.so.12"])})
    assert _looked(python) == (Companion("vllm", "0.6.6", "==2.5.1", "12", None),)


def test_an_extra_that_asks_for_torch_is_no_requirement(python: Path) -> None:
    _package(python, "vllm-0.6.6", 'torch==2.0; extra == "old"', {"vllm/__init__.py": ""})
    assert _looked(python)[0].wants_torch is None


def test_parts_that_are_missing_are_said(python: Path) -> None:
    _package(python, "torchaudio-2.5.1", "torch==2.5.1", {})
    _package(python, "vllm-0.6.6", "torch==2.5.1", {"vllm/_C.abi3.so": b""})
    site = site_packages(python)
    problems = [item.problem for item in _looked(python)]
    assert problems == [f"{site}/torchaudio is missing or empty", f"{site}/vllm/_C.abi3.so is empty"]


@pytest.mark.parametrize("data", ["", "{", "[]", "null", '{"version": 3}', '{"version": {"cuda": "x", "torch": []}}'], ids=repr)
def test_any_nonsense_in_its_files_is_silence(python: Path, data: str) -> None:
    _package(python, "xformers-0.0.28", None, {"xformers/cpp_lib.json": data, "@/direct_url.json": data})
    assert _looked(python) == (Companion("xformers", "0.0.28", None, None, None),)
