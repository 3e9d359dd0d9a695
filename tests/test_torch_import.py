from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gpudoctor.facts import TorchImport, Unknown
from gpudoctor.probes import torch_import, torch_import_report
from gpudoctor.probes.child import Answer
from gpudoctor.probes.scope import Scope
from tests.trees import importable, install, make_environment, site_packages


def _scope(python: Path | None, root: Path = Path("/"), cap: float | None = 10.0, **environ: str) -> Scope:
    path = None if python is None else str(python)
    return Scope(root=root, environ={"PATH": os.defpath, **environ}, python=path, chosen_by="--python", cap=cap)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    python = make_environment(tmp_path / "llama")
    install("torch-2.5.1-cu124", site_packages(python))
    return python


def _imported(python: Path, behaviour: dict[str, Any], cap: float = 10.0) -> TorchImport:
    importable(site_packages(python), behaviour=behaviour)
    found = torch_import.look(_scope(python, cap=cap))
    assert isinstance(found, TorchImport)
    return found


def test_a_torch_that_works(python: Path) -> None:
    found = _imported(python, {"available": True, "devices": 2})
    assert (found.version, found.cuda, found.available, found.device_count) == ("2.5.1+cu124", "12.4", True, 2)
    assert (found.nccl, found.cudnn, found.arch_list[0], found.arch_list[-1]) == (True, 90100, "sm_50", "sm_90")
    assert (found.phase, found.error, found.signal, found.hung) == ("done", None, None, False)


def test_noise_on_its_outputs_changes_nothing(python: Path) -> None:
    found = _imported(python, {"available": True, "devices": 1, "noise": True})
    assert (found.phase, found.available, found.error) == ("done", True, None)


def test_the_warning_says_why_there_is_no_gpu(python: Path) -> None:
    text = "CUDA initialization: The NVIDIA driver on your system is too old (found version 12020)."
    found = _imported(python, {"available": False, "warning": text})
    assert (found.phase, found.available, found.device_count, found.error) == ("done", False, 0, text)


def test_an_import_that_raises_keeps_the_end_of_its_traceback(python: Path) -> None:
    found = _imported(python, {"raise": "OSError: libcudart.so.12: cannot open shared object file: No such file or directory"})
    assert (found.phase, found.version, found.available) == ("start", None, None)
    assert found.error is not None
    assert found.error.endswith("OSError: libcudart.so.12: cannot open shared object file: No such file or directory")


@pytest.mark.parametrize(("behaviour", "phase"), [({"hang": True}, "start"), ({"hang": "available"}, "import")])
def test_a_hang_names_its_place(python: Path, behaviour: dict[str, Any], phase: str) -> None:
    found = _imported(python, behaviour, cap=1.5)
    assert (found.hung, found.phase, found.available, found.signal) == (True, phase, None, None)


@pytest.mark.parametrize(
    ("behaviour", "phase"),
    [({"crash": "SIGSEGV"}, "start"), ({"crash": "SIGABRT", "at": "available", "noise": True}, "import")],
)
def test_a_crash_names_its_signal_and_its_place(python: Path, behaviour: dict[str, Any], phase: str) -> None:
    found = _imported(python, behaviour)
    assert (found.signal, found.phase, found.hung) == (behaviour["crash"], phase, False)


def test_no_torch_is_none(tmp_path: Path) -> None:
    assert torch_import.look(_scope(make_environment(tmp_path / "empty"))) is None
    assert torch_import.look(_scope(None)) is None


def test_a_module_that_torch_itself_misses_is_an_error_and_not_an_absence(python: Path) -> None:
    (site_packages(python) / "torch/__init__.py").write_text("import torch_needs_this\n")
    found = torch_import.look(_scope(python))
    assert isinstance(found, TorchImport)
    assert found.error is not None
    assert "No module named 'torch_needs_this'" in found.error


def test_a_folder_without_code_is_an_error(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "hollow")
    (site_packages(python) / "torch").mkdir()
    found = torch_import.look(_scope(python))
    assert isinstance(found, TorchImport)
    assert found.error is not None
    assert "without code" in found.error


def test_files_of_the_current_folder_do_not_shadow(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    assert _imported(python, {"available": True}).phase == "done"


def test_it_leaves_no_bytecode(python: Path) -> None:
    before = set(python.parent.parent.rglob("*.pyc"))
    _imported(python, {"available": True})
    assert set(python.parent.parent.rglob("*.pyc")) == before


def _gpu(root: Path, status: str, vendor: str = "0x10de") -> None:
    device = root / "sys/bus/pci/devices/0000:01:00.0"
    (device / "power").mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text("0x030200\n")
    (device / "power/runtime_status").write_text(f"{status}\n")


@pytest.mark.parametrize(
    ("status", "vendor", "asked"),
    [("suspended", "0x10de", False), ("active", "0x10de", True), ("suspended", "0x8086", True)],
    ids=["asleep", "awake", "another vendor"],
)
def test_a_sleeping_gpu_is_not_woken(python: Path, tmp_path: Path, status: str, vendor: str, asked: bool) -> None:
    _gpu(tmp_path / "root", status, vendor)
    importable(site_packages(python), behaviour={"crash": "SIGABRT", "at": "available"})
    found = torch_import.look(_scope(python, root=tmp_path / "root"))
    assert isinstance(found, TorchImport)
    assert (found.signal == "SIGABRT") is asked
    assert (found.phase, found.available, found.version, found.nccl) == ("import", None, "2.5.1+cu124", True)


def test_an_interpreter_that_cannot_start_is_unknown(tmp_path: Path) -> None:
    assert isinstance(torch_import.look(_scope(tmp_path / "gone")), Unknown)
    assert isinstance(torch_import.look(_scope(Path("/bin/true"))), Unknown)


@pytest.mark.parametrize("report", ["", "{", '[]\n3\n"x"', '{"phase": 7}', "\x00\xff"], ids=repr)
def test_any_nonsense_in_the_report_is_unknown(report: str) -> None:
    answer = Answer(exit_code=0, stdout="", stderr="", report=report, signal=None, hung=False, seconds=1.0)
    assert isinstance(torch_import_report.read(answer), Unknown)


def test_the_first_error_is_kept() -> None:
    report = '{"phase": "available", "available": false, "error": "CUDA initialization"}\n{"phase": "done", "error": "later"}\n'
    found = torch_import_report.read(Answer(0, "", "", report, None, False, 1.0))
    assert isinstance(found, TorchImport)
    assert found.error == "CUDA initialization"
