"""What a pasted text tells, as the rules here ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from gpudoctor import symptoms
from gpudoctor.facts import Complaint, Facts, Symptom, System, Torch, Unknown
from gpudoctor.findings import Evidence

if TYPE_CHECKING:
    from gpudoctor.symptoms import Kind

SHOWN = 3
_VAGUE = ("plain-error", "plain-attribute-error", "flash-attn-not-installed")
"""Ordinary errors by their shape alone: a line that is one of these may well say more."""


def _kind(symptom: Symptom) -> Kind | None:
    row = symptoms.row_of(symptom.id)
    return None if row is None else row.kind


def _settled(symptom: Symptom) -> bool:
    return _kind(symptom) == "harmless" or (_kind(symptom) == "ordinary" and symptom.id not in _VAGUE)


@dataclass(frozen=True)
class Suspect:
    """A fault that the text may mean: how surely, in per cent, and the words that say so.

    ``summary`` and ``why`` are this text's own; without them the symptom's condition and the page of the code speak. Of several
    suspects of one code the surest counts.
    """

    code: str
    sure: int
    said: tuple[Symptom, ...]
    summary: str = ""
    why: str = ""
    step: str = ""
    values: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Told:
    """A complaint beside the facts that its text tells."""

    facts: Facts
    complaint: Complaint

    @cached_property
    def symptoms(self) -> tuple[Symptom, ...]:
        """Those of the complaint, but for what stands in a line that is known to need no action, or to be another's affair."""
        known = {symptom.text for symptom in self.complaint.symptoms if _settled(symptom)}
        return tuple(s for s in self.complaint.symptoms if s.text not in known or _kind(s) != "complaint")

    @cached_property
    def by_id(self) -> Mapping[str, tuple[Symptom, ...]]:
        """The symptoms by their id, each in the order of the text."""
        found: dict[str, tuple[Symptom, ...]] = {}
        for symptom in self.symptoms:
            found[symptom.id] = (*found.get(symptom.id, ()), symptom)
        return found

    def said(self, *ids: str) -> tuple[Symptom, ...]:
        """The symptoms of these ids."""
        return tuple(symptom for name in ids for symptom in self.by_id.get(name, ()))

    def first(self, *ids: str) -> Symptom | None:
        """The first of them."""
        return next(iter(self.said(*ids)), None)

    def has(self, *ids: str) -> bool:
        """Whether one of them was said."""
        return any(name in self.by_id for name in ids)

    def of_kind(self, kind: Kind) -> tuple[Symptom, ...]:
        """The symptoms whose row is of that kind."""
        return tuple(symptom for symptom in self.complaint.symptoms if _kind(symptom) == kind)

    @property
    def system(self) -> System | None:
        """The system, where the text tells of one."""
        return self.facts.system if isinstance(self.facts.system, System) else None

    @property
    def os(self) -> str:
        """windows, macos, linux, ubuntu, ...; empty where the text does not say."""
        return self.system.os_id if self.system else ""

    @property
    def container(self) -> bool:
        """The text comes from a container, or from whoever starts one."""
        return bool(self.system and self.system.container)

    @property
    def wsl(self) -> bool:
        """The text comes from WSL."""
        return bool(self.system and self.system.wsl)

    @property
    def torch(self) -> Torch | None:
        """The PyTorch that the text names."""
        return self.facts.torch if isinstance(self.facts.torch, Torch) else None

    @property
    def torch_cuda(self) -> str | None:
        """The CUDA of that PyTorch."""
        return self.torch.cuda if self.torch else None

    @property
    def without_cuda(self) -> bool:
        """The text shows a PyTorch that is built without CUDA."""
        return self.has("torch-cpuonly-package", "torch-built-without-cuda", "torch-cuda-none-below") or bool(
            self.torch and self.torch.cuda is None and ("+cpu" in self.torch.version)
        )

    @property
    def nvcc(self) -> str | None:
        """The version of nvcc that the text shows."""
        if isinstance(self.facts.toolkits, Unknown) or not self.facts.toolkits:
            return None
        version = self.facts.toolkits[0].version
        return version if isinstance(version, str) else None

    @property
    def driver_cuda(self) -> int | None:
        """The CUDA that the driver serves, as major * 1000 + minor * 10."""
        if isinstance(self.facts.nvml, Unknown) or isinstance(self.facts.nvml.cuda_version, Unknown):
            return None
        return self.facts.nvml.cuda_version

    @property
    def driver(self) -> str | None:
        """The driver's version."""
        if isinstance(self.facts.nvml, Unknown) or isinstance(self.facts.nvml.driver_version, Unknown):
            return None
        return self.facts.nvml.driver_version

    @property
    def gpus(self) -> tuple[tuple[str, str | None], ...]:
        """(name, compute capability) of each GPU that the text names."""
        if isinstance(self.facts.nvml, Unknown):
            return ()
        return tuple(
            (g.name, g.compute_capability if isinstance(g.compute_capability, str) else None)
            for g in self.facts.nvml.gpus
            if isinstance(g.name, str)
        )

    def names(self, *parts: str) -> bool:
        """Whether the text names a model or package whose name has one of these parts."""
        return any(part in name for name in self.complaint.names for part in parts)

    def evidence(self, said: tuple[Symptom, ...]) -> tuple[Evidence, ...]:
        """The lines that say so, each once."""
        lines = dict.fromkeys((symptom.source, symptom.text) for symptom in said)
        whole = [pair for pair in lines if not any(pair[1] != other and pair[1] in other for _, other in lines)]
        return tuple(Evidence(source, text) for source, text in whole[:SHOWN])
