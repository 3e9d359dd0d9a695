"""A model of another architecture, read and run by the user's own transformers, behind the calls that ``generate`` makes.

Nothing is fetched, and no code that a checkpoint brings is run.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import importlib.util
import inspect
import os
import re
import sys
from typing import Any, Iterator, NamedTuple

import torch

from .device import text
from .plan import Plan

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "USE_TF": "0", "USE_FLAX": "0"}
"""Read when transformers is imported: it asks no server, and leaves other frameworks alone."""
FIXED = ("HybridCache", "StaticCache")
"""Caches that some releases make as long as the first prompt, so that nothing more fits in."""


class Known(NamedTuple):
    """What is known of the model's shape."""

    vocab: int


class Foreign:
    """A transformers model with the calls of ``model.Llama``."""

    def __init__(self, plan: Plan, like: torch.Tensor, rows: int, length: int) -> None:
        """Load the plan's folder to the device of ``like`` and in its dtype; raises RuntimeError, in words, where that fails."""
        if plan.foreign is None:
            raise RuntimeError("the plan names no folder that transformers could read")
        self.model = opened(plan.foreign, like)
        config = self.model.config
        most = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
        self.rows, self.length = rows, min(length, most) if isinstance(most, int) and most > 0 else length
        self.norm = like
        """Names device and dtype, as a Llama's does."""
        self.shape = Known(self.model.get_input_embeddings().weight.shape[0])
        self.cache: Any = None
        self.cache_name = "cache" if takes(self.model, "cache") else "past_key_values"
        self.seen = torch.empty(rows, 0, dtype=torch.long, device=like.device)
        """The tokens so far, for a model that keeps no cache."""

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return sum(tensor.numel() for tensor in self.tensors().values())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its weights by their names in transformers."""
        return dict(self.model.named_parameters())

    def __call__(self, tokens: torch.Tensor, start: int, last: bool = False) -> torch.Tensor:
        """Logits (B, T, V) in float32 for ``tokens`` (B, T) at positions ``start`` and on; (B, 1, V), the last ones, if ``last``.

        ``start`` is 0, which begins anew, or follows the last position; raises ValueError otherwise.
        """
        if start == 0:
            self.cache, self.seen = None, tokens[:, :0]
        if start != self.seen.shape[1]:
            raise ValueError("position %d does not follow the %d that were read" % (start, self.seen.shape[1]))
        self.seen = torch.cat((self.seen, tokens), 1)
        made = self.model(tokens if self.cache is not None else self.seen, use_cache=True, **{self.cache_name: self.cache})
        self.cache = getattr(made, self.cache_name, None)
        if type(self.cache).__name__ in FIXED:
            self.cache = None
        logits = made.logits[:, -tokens.shape[1] :]
        return (logits[:, -1:] if last else logits).float()


def takes(model: Any, name: str) -> bool:  # noqa: ANN401 - a transformers model
    """Whether its forward pass has a parameter of that name: from transformers 5.24 on ``past_key_values`` is called ``cache``."""
    return name in inspect.signature(model.forward).parameters


def needed(folder: str, like: torch.Tensor) -> int:
    """Bytes of the weights of a folder in the dtype of ``like``; what else the model needs is not known before it is read."""
    return stored(folder) * like.element_size() // stored_itemsize(folder)


def stored(folder: str) -> int:
    """Bytes of the weights in a folder, as its files have them."""
    return sum(os.path.getsize(path) for path in weight_files(folder))


def stored_itemsize(folder: str) -> int:
    """Bytes of a number in these files, by the folder's config.json; 2 where that says nothing."""
    found = re.search(r'"(?:torch_)?dtype"\s*:\s*"(\w+)"', text(os.path.join(folder, "config.json")))
    kind = getattr(torch, found.group(1), None) if found else None
    return torch.empty(0, dtype=kind).element_size() if isinstance(kind, torch.dtype) else 2


def weight_files(folder: str) -> list[str]:
    """The safetensors files of a folder; where there are none, its pickles."""
    return glob.glob(os.path.join(glob.escape(folder), "*.safetensors")) or glob.glob(os.path.join(glob.escape(folder), "*.bin"))


def opened(folder: str, like: torch.Tensor) -> Any:  # noqa: ANN401 - a transformers model
    """The model on the device of ``like`` and in its dtype; raises RuntimeError where transformers is missing or refuses it."""
    os.environ.update(OFFLINE)
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise RuntimeError(
            "this architecture is read by transformers, which is not there (%s). To install it: "
            "%s -m pip install transformers" % (error, sys.executable)
        ) from error
    safe = any(path.endswith(".safetensors") for path in weight_files(folder))
    options = {
        "local_files_only": True,
        "trust_remote_code": False,
        # a pickle is read as plain data; what cannot promise that refuses the option
        **({"use_safetensors": True} if safe else {"weights_only": True}),
        # straight to the device, where the library for it is there
        **({"device_map": {"": like.device}} if like.is_cuda and importlib.util.find_spec("accelerate") else {}),
    }
    try:
        with plain_data():
            model = loaded(transformers.AutoModelForCausalLM.from_pretrained, folder, like.dtype, options)
    except RuntimeError:  # PyTorch's own, such as that memory is out
        raise
    except Exception as error:
        raise RuntimeError(refusal(folder, error, str(transformers.__version__))) from error
    return model.to(like.device).eval()


@contextlib.contextmanager
def plain_data() -> Iterator[None]:
    """Until its end, PyTorch opens no pickle but as plain data, and no TorchScript, which is a program.

    Old releases of transformers do not pass ``weights_only`` on, and PyTorch before 2.6 hands a file of weights that is
    TorchScript to ``torch.jit.load`` all the same (CVE-2025-32434).
    """
    load, run = torch.load, torch.jit.load

    def as_data(*args: Any, **named: Any) -> Any:  # noqa: ANN401 - torch.load's
        return load(*args, **{**named, "pickle_module": None, "weights_only": True})

    def refused(*_args: object, **_named: object) -> None:
        raise ValueError("the file of weights is a program (TorchScript), and was not opened")

    torch.load, torch.jit.load = as_data, refused
    try:
        yield
    finally:
        torch.load, torch.jit.load = load, run


def loaded(read: Any, folder: str, dtype: torch.dtype, options: dict[str, Any]) -> Any:  # noqa: ANN401 - from_pretrained, a model
    """Call ``read``; how it wants to hear of the dtype changed over time."""
    try:
        return read(folder, dtype=dtype, **options)
    except TypeError:  # "unexpected keyword argument", before anything is loaded
        return read(folder, torch_dtype=dtype, **options)


def refusal(folder: str, error: Exception, version: str) -> str:
    """Why transformers does not read it, in one line."""
    text = str(error).strip()
    if "trust_remote_code" in text:
        return "%s brings its own Python code, which is not run here" % folder
    first = text.splitlines()[0] if text else ""
    return "transformers %s cannot read %s: %s: %s" % (version, folder, type(error).__name__, first[:300])
