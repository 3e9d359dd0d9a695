from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from gpudoctor.facts import Environment, Unknown
from gpudoctor.probes import environments
from gpudoctor.probes.scope import Scope
from tests.trees import install, make_environment, site_packages


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "root/home/ada"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    return tmp_path / "root"


def _scope(root: Path, python: Path | None = None) -> Scope:
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/home/ada"}
    return Scope(root=root, environ=environ, python=None if python is None else str(python), chosen_by="--python")


def _looked(scope: Scope) -> dict[str, Environment]:
    found = environments.look(scope)
    assert not isinstance(found, Unknown)
    return {item.python: item for item in found}


def _made(root: Path, place: str, owner: str = "pip", tree: str | None = "torch-2.5.1-cu124") -> Path:
    python = make_environment(root / place.lstrip("/"), owner=owner)
    if tree is not None:
        install(tree, site_packages(python))
    return python


def test_nothing_is_nothing(root: Path) -> None:
    assert _looked(_scope(root)) == {}


@pytest.mark.parametrize(
    ("place", "owner", "kind", "name"),
    [
        ("/home/ada/llama", "pip", "venv", "llama"),
        ("/home/ada/project/.venv", "uv", "uv", "project/.venv"),
        ("/home/ada/.virtualenvs/chat", "pip", "venv", "chat"),
        ("/home/ada/miniconda3/envs/ml", "conda", "conda", "ml"),
        ("/opt/conda", "conda", "conda", "base"),
        ("/home/ada/.cache/pypoetry/virtualenvs/bot-x1-py3.10", "poetry", "poetry", "bot-x1-py3.10"),
        ("/home/ada/game/.pixi/envs/default", "pixi", "pixi", "game/default"),
        ("/home/ada/.local/share/uv/tools/vllm", "uv", "uv", "vllm"),
    ],
    ids=str,
)
def test_environments_are_found_where_tools_put_them(root: Path, place: str, owner: str, kind: str, name: str) -> None:
    _made(root, place, owner)
    expected = Environment(f"{place}/bin/python", kind, name, "2.5.1+cu124", "12.4")
    assert _looked(_scope(root)) == {expected.python: expected}


def test_what_conda_has_noted_is_found_anywhere(root: Path) -> None:
    _made(root, "/data/envs/big", "conda", "torch-2.13.0-cpu")
    (root / "home/ada/.conda").mkdir()
    (root / "home/ada/.conda/environments.txt").write_text("/data/envs/big\n/data/envs/gone\n")
    found = _looked(_scope(root))
    assert found == {"/data/envs/big/bin/python": Environment("/data/envs/big/bin/python", "conda", "big", "2.13.0+cpu", None)}


def test_a_jupyter_kernel_is_listed_beside_its_environment(root: Path) -> None:
    _made(root, "/home/ada/llama")
    kernel = root / "home/ada/.local/share/jupyter/kernels/chat/kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": ["/home/ada/llama/bin/python", "-m", "ipykernel_launcher"]}))
    for name, text in (("broken", "{"), ("empty", '{"argv": []}'), ("odd", '{"argv": [7]}'), ("relative", '{"argv": ["python"]}')):
        (kernel.parent.parent / name).mkdir()
        (kernel.parent.parent / name / "kernel.json").write_text(text)
    found = environments.look(_scope(root))
    assert not isinstance(found, Unknown)
    assert [(item.kind, item.name) for item in found] == [("jupyter", "chat"), ("venv", "llama")]


def test_the_target_is_left_out(root: Path) -> None:
    python = _made(root, "/home/ada/llama")
    _made(root, "/home/ada/other")
    assert list(_looked(_scope(root, python))) == ["/home/ada/other/bin/python"]


def test_an_environment_without_torch_is_listed_with_none(root: Path) -> None:
    _made(root, "/home/ada/plain", tree=None)
    assert _looked(_scope(root))["/home/ada/plain/bin/python"].torch is None


def test_a_torch_without_version_file_is_known_by_its_metadata(root: Path) -> None:
    python = _made(root, "/home/ada/llama")
    (site_packages(python) / "torch/version.py").unlink()
    assert _looked(_scope(root))["/home/ada/llama/bin/python"].torch == "2.5.1"


def test_the_distributions_python_with_debians_folders(root: Path) -> None:
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/python3.10").write_bytes(b"\x7fELF")
    (root / "usr/bin/python3").symlink_to("python3.10")
    user = root / "home/ada/.local/lib/python3.10/site-packages/torch"
    user.mkdir(parents=True)
    (user / "version.py").write_text("__version__ = '2.0.1+cu117'\ncuda = '11.7'\n")
    expected = Environment("/usr/bin/python3", "system", "python3 on PATH", "2.0.1+cu117", "11.7")
    assert _looked(_scope(root)) == {"/usr/bin/python3": expected}


def test_nothing_is_run(root: Path) -> None:
    python = _made(root, "/home/ada/llama", tree=None)
    python.unlink()
    python.write_text(f"#!/bin/sh\ntouch {root}/ran\n")
    python.chmod(0o755)
    assert "/home/ada/llama/bin/python" in _looked(_scope(root))
    assert not (root / "ran").exists()


def test_it_stops_when_its_time_is_up(root: Path) -> None:
    for number in range(5):
        _made(root, f"/home/ada/env{number}", tree=None)
    ticks = itertools.count(step=0.9)
    found = environments.look(_scope(root), clock=lambda: next(ticks))
    assert not isinstance(found, Unknown)
    assert len(found) < 5


def test_it_stops_at_a_number(root: Path) -> None:
    for number in range(environments.MOST + 10):
        folder = root / f"home/ada/env{number}"
        (folder / "bin").mkdir(parents=True)
        (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
        (folder / "bin/python").touch()
    found = environments.look(_scope(root))
    assert not isinstance(found, Unknown)
    assert len(found) == environments.MOST


def test_home_may_carry_the_root(root: Path) -> None:
    _made(root, "/home/ada/llama")
    scope = Scope(root=root, environ={"PATH": os.defpath, "HOME": str(root / "home/ada")}, python=None, chosen_by="own")
    assert list(_looked(scope)) == ["/home/ada/llama/bin/python"]
