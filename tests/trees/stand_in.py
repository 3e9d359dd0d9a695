# mypy: ignore-errors
# ruff: noqa: ANN001, ANN202, ARG002, T201, F401, F811 - it plays a package of the user's
"""A stand-in for torch/__init__.py: answers as behaviour.json beside it says. Python 3.8 syntax; it runs in test environments."""

import builtins
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
import warnings
from types import SimpleNamespace

from torch.version import __version__, cuda  # pyright: ignore[reportMissingImports]

with open(os.path.join(os.path.dirname(__file__), "behaviour.json")) as _file:
    _behaviour = json.load(_file)


def _at(moment):
    """What is to happen while torch is imported ("import") or asked ("available")."""
    hang = _behaviour.get("hang")
    if hang and (hang if hang != True else "import") == moment:  # noqa: E712 - any other truth names the moment
        time.sleep(3600)
    if _behaviour.get("crash") and _behaviour.get("at", "import") == moment:
        os.kill(os.getpid(), getattr(signal, _behaviour["crash"]))


if _behaviour.get("noise"):
    print("loading the model zoo ...", {"not": "json"})
    sys.stdout.flush()
    os.write(1, b"\x00\xff\xfe\x80 binary\n" * 100)
    os.write(2, b"\x1b[31m\xff noise on stderr\n" * 100)
_at("import")
if _behaviour.get("raise"):
    _name, _, _text = _behaviour["raise"].partition(": ")
    raise getattr(builtins, _name, OSError)(_text)


def _is_available():
    _at("available")
    if _behaviour.get("warning"):
        warnings.warn(_behaviour["warning"], UserWarning, stacklevel=2)
    return bool(_behaviour.get("available"))


_flags = " ".join(_behaviour.get("arch_list", []))
_C = SimpleNamespace(_cuda_getArchFlags=lambda: _flags or None)
cuda = SimpleNamespace(
    is_available=_is_available,
    device_count=lambda: _behaviour.get("devices", 1 if _behaviour.get("available") else 0),
    get_arch_list=lambda: _flags.split() if _behaviour.get("available") else [],
)
distributed = SimpleNamespace(is_available=lambda: True, is_nccl_available=lambda: bool(_behaviour.get("nccl")))
backends = SimpleNamespace(cudnn=SimpleNamespace(version=lambda: _behaviour.get("cudnn")))


class _Player(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for the module that carries out the smoke test, which would need a torch that computes."""

    def find_spec(self, fullname, path=None, target=None):
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == "gpudoctor_smoke.worker" else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.run = _play  # pyright: ignore[reportAttributeAccessIssue] - it plays a module


def _play(plan, say):
    """A smoke test as behaviour["smoke"] has it: the phases up to ``until`` with what they say, and then how it ends."""
    part = _behaviour["smoke"]
    said = dict(_healthy(plan), **part.get("say", {}))
    for phase, names in _SAID.items():
        say(begin=phase)
        say(**{name: said[name] for name in names.split() if name in said})
        if phase == part.get("until"):
            break
    os.write(2, part.get("stderr", "").encode())
    if part.get("failed"):
        say(failed=part["failed"])
    if part.get("hang"):
        time.sleep(3600)
    if part.get("signal"):
        os.kill(os.getpid(), getattr(signal, part["signal"]))
    if "exit" in part:
        os._exit(part["exit"])


_SAID = {
    "device": "device device_name dtype notes",
    "nccl": "backend all_reduce all_reduce_bandwidth",
    "memory": "predicted_memory needed_memory free_memory",
    "load": "",
    "first-token": "finite seconds_to_first_token",
    "tokens": "new_tokens tokens_per_second completions peak_memory",
    "proofs": "repeatable difference tolerance bytes_per_token bandwidth",
    "done": "",
}


def _healthy(plan):
    """What a machine in good health says."""
    on_gpu = plan.device != "cpu"
    known = {
        "device": "cuda" if on_gpu else "cpu",
        "device_name": _behaviour.get("gpu") if on_gpu else "AMD Ryzen 7 5800X 8-Core Processor",
        "dtype": plan.dtype or ("bf16" if on_gpu else "fp32"),
        "backend": "nccl" if on_gpu else "gloo",
        "all_reduce": True,
        "predicted_memory": 398 << 20,
        "needed_memory": plan.shape.parameters * 2 + (300 << 20) if plan.shape else None,
        "free_memory": plan.budget,
        "finite": True,
        "seconds_to_first_token": 0.02,
        "new_tokens": plan.new_tokens,
        "tokens_per_second": 1200.0 if on_gpu else 450.0,
        "peak_memory": 400 << 20,
        "repeatable": True,
        "bytes_per_token": plan.shape.parameters * 2 if plan.shape else None,
    }
    return dict(known, difference=0.004, tolerance=0.05) if on_gpu else known


if "smoke" in _behaviour:
    sys.meta_path.insert(0, _Player())
