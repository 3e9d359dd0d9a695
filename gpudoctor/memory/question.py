"""What is asked, and its count: a model, in a dtype, by a runtime, doing some work, on a card."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpudoctor.knowledge import dtypes
from gpudoctor.knowledge.dtypes import Dtype
from gpudoctor.knowledge.table import version_key
from gpudoctor.memory.card import Card
from gpudoctor.memory.model import Model
from gpudoctor.memory.need import Need, Work
from gpudoctor.memory.runtimes import Runtime, transformers, vllm
from gpudoctor.memory.verdict import Answer, verdict


@dataclass(frozen=True, slots=True)
class Environment:
    """The interpreter that commands name, and the tool that changes packages there."""

    python: str = "python3"
    owner: str = "pip"
    """pip, uv, conda, pixi, poetry, or system (a Python that PEP 668 protects)."""
    prefix: str = ""
    project: str = ""
    """The folder of the project that uv, pixi or poetry keeps it for; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Question:
    """``dtype`` None: as the files have it, or as the model is published. ``card`` None: nobody knows what is free."""

    model: Model
    runtime: Runtime
    work: Work
    dtype: Dtype | None = None
    card: Card | None = None
    version: str | None = None
    """The runtime's, where that makes a difference."""
    environment: Environment = Environment()
    """Where commands run."""

    @property
    def in_words(self) -> str:
        """Such as: llama-2-7b in fp16."""
        return f"{self.model.name} in {self.numbers}"

    @property
    def need(self) -> Need:
        """Bytes, part by part, on the fullest GPU."""
        if self.runtime.name == "transformers":
            return transformers.need(self.model, self.work, self.dtype, self.version)
        return self.runtime.need(self.model, self.work, self.dtype)

    def keeps(self, dtype: Dtype) -> bool:
        """Whether weights stay in these numbers on this card; transformers unpacks them where it is too old."""
        if self.runtime.name != "transformers" or dtype.capability is None or self.card is None or self.card.capability is None:
            return True
        return version_key(self.card.capability) >= version_key(dtype.capability)

    @property
    def verdict(self) -> Answer | None:
        """Whether it fits what is free; None where nobody knows."""
        if self.card is None:
            return None
        answer = verdict(self.need, self.card.free)
        return "tight" if answer == "fits" and not self.in_usual_part else answer

    @property
    def in_usual_part(self) -> bool:
        """False where vLLM has to be told to take more of the card than it does by itself; its CUDA graphs come on top of that."""
        if self.runtime.name != "vllm" or self.card is None or self.card.total is None:
            return True
        return self.need.most - vllm.GRAPHS <= vllm.TAKES * self.card.total

    @property
    def numbers(self) -> str:
        """The dtype in words: fp16, 4-bit (GPTQ), Q4_1."""
        if self.dtype is not None:
            return self.dtype.name
        if self.runtime.name in ("gpudoctor", "meta"):
            return self.model.stored if self.model.stored == "bf16" else "fp16"
        stored = self.model.stored
        if stored is None:
            return self.model.published.name
        if self.model.contents is not None and self.model.contents.format == "gguf":
            return self.model.contents.dtype
        known = dtypes.by_name(stored)
        return known.name if known is not None else stored

    @property
    def too_large(self) -> bool:
        """The weights alone are more than the whole card: nothing that is done with them changes that."""
        return self.card is not None and self.need.weights > (self.card.total or self.card.free)

    def on(self, card: Card | None) -> Question:
        """The same question about this card, whose generation changes what libraries take."""
        if card is None:
            return replace(self, card=None)
        return replace(self, card=card, work=replace(self.work, hopper=card.hopper, ampere=card.ampere))

    def but(self, *, work: Work | None = None, **changes: object) -> Question:
        """The same question with something changed."""
        return replace(self, work=work or self.work, **changes)  # type: ignore[arg-type]  # the fields' own names
