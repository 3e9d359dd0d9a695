"""The GPU whose memory is asked for: one that is here, by its facts; one that is not, by our table or by a size."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpudoctor.knowledge import gpus
from gpudoctor.knowledge.gpus import GpuModel

KEPT, KEPT_PART = 208 << 20, 0.009
"""What the driver keeps of a card's nominal size: PyTorch sees 11.69 of 12 GiB (RTX 4070), 15.77 of 16 (V100), 23.64 of 24 (RTX
4090), 39.4 to 39.6 of 40 and 79.1 to 79.2 of 80 (A100)."""
ECC = 15 / 16
"""Of a data-centre card with GDDR memory: its error correction keeps a sixteenth (a T4 shows 14.6 to 14.75 of 16 GiB)."""
OF_SHARED, MARGIN = 0.935, 2 << 30
"""Of a memory that CPU and GPU share: a GB10 of 128 GiB has 119.7 (https://github.com/leptonai/gpud). And what is left to the
system: to take more than there is freezes the machine (https://github.com/vllm-project/vllm/issues/35313)."""
_COUNTED = re.compile(r"\s*(\d{1,3})\s*x\s*([a-z0-9].*)", re.IGNORECASE | re.DOTALL)
_SIZE = re.compile(r"(\d+)\s?g(?:b|ib)?\b", re.IGNORECASE)
SOLD_AS = {"dgx spark": "NVIDIA GB10", "spark": "NVIDIA GB10"}
_SAYS_NOTHING = {"nvidia", "geforce", "tesla", "gpu", "quadro"}
HOPPER, AMPERE = (9, 0), (8, 0)


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has memory of the card. Sizes are bytes."""

    pid: int
    name: str
    user: str | None
    kind: str
    """compute or graphics."""
    used: int | None
    mine: bool = False
    """It belongs to the user who asks."""


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU, or one MIG instance of it, or a size. Sizes are bytes."""

    name: str
    total: int | None
    free: int
    count: int = 1
    """How many of it there are: what is free is that of the fullest."""
    holders: tuple[Holder, ...] = ()
    here: bool = False
    shared: bool = False
    """CPU and GPU use one memory; free is what the system says is available."""
    capability: str | None = None
    part: bool = False
    """It is a MIG instance."""
    alike: int = 1
    """How many of this product the machine has, itself included."""

    @property
    def hopper(self) -> bool:
        """Hopper or newer, as far as is known."""
        return self.capability is not None and tuple(int(part) for part in self.capability.split(".")) >= HOPPER

    @property
    def ampere(self) -> bool:
        """Ampere or newer, or nobody knows."""
        return self.capability is None or tuple(int(part) for part in self.capability.split(".")) >= AMPERE

    @property
    def held(self) -> int:
        """What is not free, whoever has it."""
        return 0 if self.total is None else max(0, self.total - self.free)


class NoSuchCard(ValueError):
    """The table has no such product, or several; one line says so and names the nearest."""


def usable(model: GpuModel) -> int:
    """Bytes that a program sees of the product: the nominal size less error correction and what the driver keeps."""
    nominal = model.memory_bytes
    if model.unified:
        return int(nominal * OF_SHARED - MARGIN)
    if model.kind == "datacenter" and (model.memory_type or "").startswith("GDDR"):
        nominal = int(nominal * ECC)
    return int(nominal - KEPT - KEPT_PART * nominal)


def named(text: str) -> Card:
    """``RTX 4070``, ``NVIDIA A100-SXM4-80GB``, ``A100 80GB``, ``8x V100 16GB``; raises NoSuchCard."""
    counted = _COUNTED.fullmatch(text)
    count = int(counted[1]) if counted else 1
    model = product(counted[2] if counted else text)
    if not 1 <= count <= 64:
        raise NoSuchCard(f"expected 1 to 64 GPUs, not {count}")
    size = usable(model)
    return Card(model.name, size, size, count, shared=model.unified, capability=model.compute_capability)


def product(text: str) -> GpuModel:
    """The row of our table that is meant; raises NoSuchCard."""
    text = SOLD_AS.get(" ".join(text.casefold().split()), text)
    exact = gpus.by_name(text) or gpus.by_name(f"GeForce {text}")
    if exact is not None:
        return exact
    wanted, sizes = _words(text)
    fits = [model for model in gpus.models() if wanted <= _words(model.name)[0] and _of_size(model, sizes)] if wanted else []
    if not fits:
        raise NoSuchCard(f"our table of GPUs has no {_shown(text)}{_near(text)}; --free SIZE plans for any card")
    # the shortest name is meant, and one without a size where none is named: an RTX 3060 is not the RTX 3060 8GB
    extra = {model.name: (len(words), bool(own) and not sizes) for model in fits for words, own in (_words(model.name),)}
    closest = [model for model in fits if extra[model.name] == min(extra.values())]
    if len({model.memory_gib for model in closest}) > 1:
        raise NoSuchCard(f"{_shown(text)} may be {' or '.join(sorted(model.name for model in closest)[:4])}: say which")
    return closest[0]


def _of_size(model: GpuModel, sizes: set[int]) -> bool:
    return not sizes or any(abs(model.memory_gib - size) < 1 for size in sizes)


def _words(name: str) -> tuple[set[str], set[int]]:
    """What tells products apart in a name, and the sizes in it: RTX 4060 Ti 16GB -> {rtx, 4060, ti}, {16}; A10 -> {a, 10}."""
    sizes = {int(size) for size in _SIZE.findall(name)}
    rest = _SIZE.sub(" ", name[:100].casefold())
    return set(re.findall(r"[a-z]+|[0-9]+", rest)) - _SAYS_NOTHING, sizes


def _near(text: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - slow to import, and only a mistyped name needs it

    plain = {" ".join(sorted(_words(model.name)[0])): model.name for model in gpus.models()}
    near = get_close_matches(" ".join(sorted(_words(text)[0])), plain, n=3, cutoff=0.5)
    return f"; nearest: {', '.join(dict.fromkeys(plain[key] for key in near))}" if near else ""


def _shown(text: str) -> str:
    line = "".join(letter if letter.isprintable() else "?" for letter in text[:60])
    return repr(line if len(text) <= 60 else f"{line}...")
