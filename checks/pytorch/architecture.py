"""The machine code of the build against every GPU that the target sees.

The rules are those of ``wheels``: machine code by ``runs_on``, PTX by ``compiles_ptx``.

Where one of several GPUs is not served, PyTorch warns and works on the others. That is a warning here too, so that an
old card for the monitor beside a new one is no fault of the machine; it is a fault when no visible GPU is served.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpudoctor import wheels
from gpudoctor.facts import Facts, Gpu, Torch, Unknown
from gpudoctor.findings import Evidence, Finding, Fix
from gpudoctor.knowledge import drivers
from gpudoctor.knowledge.table import version_key
from gpudoctor.visible import Visible, visible

from ..cards import capabilities, capability_of
from ..serving import serving
from ..words import listing
from . import cure
from .part import Part


@dataclass(frozen=True, slots=True)
class _Card:
    """One GPU (or one that only PCI shows): its compute capability and how the build serves it: binary, ptx or no."""

    label: str
    capability: str
    served: str
    uuid: str | None


def judge(facts: Facts, torch: Torch) -> Part:
    """Whether the build has code for the GPUs."""
    if isinstance(torch.sm, Unknown):
        return Part(unknown=(f"for which GPUs PyTorch has code: {torch.sm.why}",))
    seen = visible(facts)
    ptx = () if isinstance(torch.ptx, Unknown) else torch.ptx
    cards = _cards(facts, seen, torch.sm, ptx, _compiles_ptx(facts, torch))
    if not cards:
        return Part()
    left_out = [card for card in cards if card.served == "no"]
    if not left_out:
        return Part(words=(_words(cards, torch.sm, ptx),))
    if isinstance(torch.ptx, Unknown) and any(_newer_than(torch.sm, card.capability) for card in left_out):
        return Part(unknown=(f"whether PyTorch has PTX for a GPU newer than its code: {torch.ptx.why}",))
    if len(left_out) < len(cards):
        finding = _some(left_out, [c for c in cards if c.served != "no"], torch, certain=isinstance(seen, Unknown) or seen.certain)
        served = [card for card in cards if card.served != "no"]
        return Part((finding,) if finding else (), (_words(served, torch.sm, ptx),))
    return Part((_none(facts, cards, torch),))


def _cards(facts: Facts, seen: Visible | Unknown, sm: tuple[str, ...], ptx: tuple[str, ...], jit: bool) -> list[_Card]:
    """The GPUs to serve. An index that may mean any of several different GPUs leaves them all in question."""
    if isinstance(seen, Unknown) or isinstance(facts.nvml, Unknown):
        return [_Card(f"the GPU of compute capability {c}", c, _served(sm, ptx, c, jit), None) for c in capabilities(facts)]
    gpus = seen.gpus if seen.certain and seen.gpus else facts.nvml.gpus
    return [_card(gpu, sm, ptx, jit) for gpu in gpus if capability_of(gpu) is not None]


def _card(gpu: Gpu, sm: tuple[str, ...], ptx: tuple[str, ...], jit: bool) -> _Card:
    capability = capability_of(gpu) or ""
    name = gpu.name if isinstance(gpu.name, str) else f"GPU {gpu.index}"
    return _Card(name, capability, _served(sm, ptx, capability, jit), gpu.uuid if isinstance(gpu.uuid, str) else None)


def _served(sm: tuple[str, ...], ptx: tuple[str, ...], capability: str, jit: bool) -> str:
    how = wheels.runs_on(sm, ptx, capability)
    return "no" if how == "ptx" and not jit else how


def _compiles_ptx(facts: Facts, torch: Torch) -> bool:
    """Whether the libcuda that is loaded compiles the build's PTX. Unknown to all, it is given the benefit of the doubt."""
    compiles = wheels.compiles_ptx(torch.cuda or "", driver_version=None, cuda_version=serving(facts).cuda)
    return compiles is not False


def _words(cards: list[_Card], sm: tuple[str, ...], ptx: tuple[str, ...]) -> str:
    """Such as: code for 8.9 by sm_86."""
    parts: list[str] = []
    for capability in dict.fromkeys(card.capability for card in cards):
        by_ptx = any(card.served == "ptx" for card in cards if card.capability == capability)
        code = _best(ptx if by_ptx else sm, capability)
        name = f"compute_{code.replace('.', '')}, compiled at the first use" if by_ptx else f"sm_{code.replace('.', '')}"
        parts.append(f"code for {capability} by {name}" if code else f"code for {capability}")
    return " and ".join(parts)


def _newer_than(sm: tuple[str, ...], capability: str) -> bool:
    return all(version_key(code.rstrip("af")) < version_key(capability) for code in sm)


def _best(codes: tuple[str, ...], capability: str) -> str:
    """The newest of the codes that is not newer than the GPU."""
    fitting = [code for code in codes if version_key(code.rstrip("af")) <= version_key(capability)]
    return max(fitting, key=lambda code: version_key(code.rstrip("af")), default="")


# ---------------------------------------------------------------- findings


def _none(facts: Facts, cards: list[_Card], torch: Torch) -> Finding:
    first = cards[0]
    code = _code(first, torch)
    advice = cure.cuda_build(facts)
    names = listing(tuple(dict.fromkeys(card.label for card in cards)))
    age = "newer" if code == "torch-gpu-arch-too-new" else "older"
    fix = cure.with_environment(facts, "pytorch#jetson-build") if first.capability in drivers.tegra() else advice.fix
    why = "A Jetson needs the builds that NVIDIA makes for it." if first.capability in drivers.tegra() else advice.why
    return Finding(
        code=code,
        severity="fail",
        summary=f"PyTorch {torch.version} has no code for {names} (compute capability {first.capability})",
        cause=(
            f'This build has code for {_range(torch)}; the GPU is {age} than that. What CUDA says of it is "no kernel image is '
            f'available for execution on the device". Driver and GPU are well.{_late_ptx(facts, torch, first)} {why}'
        ),
        evidence=_evidence(cards, torch),
        fix=fix,
        stands_alone=True,
    )


def _some(left_out: list[_Card], served: list[_Card], torch: Torch, *, certain: bool) -> Finding | None:
    if not certain:
        return None
    names = listing(tuple(dict.fromkeys(f"{card.label} ({card.capability})" for card in left_out)))
    others = listing(tuple(dict.fromkeys(card.label for card in served)))
    value = ",".join(card.uuid for card in served if card.uuid)
    return Finding(
        code=_code(left_out[0], torch),
        severity="warn",
        summary=f"PyTorch {torch.version} has no code for {names}; it works on {others}",
        cause=(
            f'This build has code for {_range(torch)}. Work that is put on the other GPU fails with "no kernel image is '
            'available". Showing only the GPUs that it serves keeps everything else as it is.'
        ),
        evidence=_evidence([*left_out, *served], torch),
        fix=Fix("pytorch#fix-visible-devices", (("VALUE", value),) if value else ()),
    )


def _code(card: _Card, torch: Torch) -> str:
    built = [version_key(code.rstrip("af")) for code in (torch.sm if not isinstance(torch.sm, Unknown) else ())]
    newest = max(built, default=())
    return "torch-gpu-arch-too-new" if version_key(card.capability) > newest else "torch-gpu-arch-too-old"


def _range(torch: Torch) -> str:
    codes = () if isinstance(torch.sm, Unknown) else tuple(f"sm_{code.replace('.', '')}" for code in torch.sm)
    more = () if isinstance(torch.ptx, Unknown) else tuple(f"PTX of compute_{code.replace('.', '')}" for code in torch.ptx)
    return listing((*codes, *more), 12) or "no GPU at all"


def _late_ptx(facts: Facts, torch: Torch, card: _Card) -> str:
    """PTX would do, but this driver is older than the compiler that wrote it."""
    ptx = () if isinstance(torch.ptx, Unknown) else torch.ptx
    sm = () if isinstance(torch.sm, Unknown) else torch.sm
    if _compiles_ptx(facts, torch) or wheels.runs_on(sm, ptx, card.capability) != "ptx":
        return ""
    return f" Its PTX would run here with a driver that serves CUDA {torch.cuda}; {serving(facts).words}, cannot compile it."


def _evidence(cards: list[_Card], torch: Torch) -> tuple[Evidence, ...]:
    lines = [Evidence(f"{torch.path}/lib/libtorch_cuda.so", f"code for {_range(torch)}")]
    lines += [Evidence("NVML" if card.uuid else "PCI", f"{card.label}: compute capability {card.capability}") for card in cards]
    return tuple(lines)
