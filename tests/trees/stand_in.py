# mypy: ignore-errors
# ruff: noqa: ANN001, ANN202, T201, F401, F811 - it plays a package of the user's
"""A stand-in for torch/__init__.py: answers as behaviour.json beside it says. Python 3.8 syntax; it runs in test environments."""

import builtins
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
