"""What a smoke test says of itself, as a fact, whatever became of it.

Every line is one JSON object from a process that may be anything: what does not have the shape of its field is left out, and
an earlier value stays. Of several ranks the first that failed is the one that is quoted.
"""

from __future__ import annotations

import dataclasses

from gpudoctor import symptoms
from gpudoctor.codec import Json, NotOurs, from_json
from gpudoctor.facts import Smoke, Symptom
from gpudoctor.probes.child import Answer
from gpudoctor.probes.torch_import_report import json_object, last_lines
from gpudoctor.smoke.plan import PHASES, Plan

SOURCE = "smoke test"
RANKS_MOST = 1024
_FIELDS = tuple(field.name for field in dataclasses.fields(Smoke))
_PLANNED = {"checkpoint", "format", "weights", "parameters", "processes"}
_OBSERVED = {"phase", "error", "symptoms", "signal", "hung", "seconds_total"}
_SAYABLE = set(_FIELDS) - _PLANNED - _OBSERVED
_WORDS = {
    "start": "starting the smoke test",
    "import": "starting the smoke test",
    "device": "starting the device",
    "nccl": "starting torch.distributed",
    "memory": "counting the memory that is needed",
    "first-token": "reading the prompt",
    "proofs": "computing again, to compare",
    "done": "ending the smoke test",
}
_BEFORE = "import"
"""The phase of what happens before the first one is named: our modules, and what they need, are imported."""


class Heard:
    """All that was said so far."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._values = _nothing(plan)
        self._phases: dict[int, str] = {}  # by rank; -1 is a process alone, or the one that starts the others
        self._failed: tuple[int, str] | None = None
        self._loaded: tuple[int, int] | None = None
        self._token = 0

    def line(self, text: str) -> None:
        """One line of the report."""
        said = json_object(text)
        rank = said.get("rank", -1)
        if not isinstance(rank, int) or not -1 <= rank < RANKS_MOST:
            return
        phase, failed = said.get("begin"), said.get("failed")
        if isinstance(phase, str) and phase in PHASES:
            self._phases[rank] = phase
        if isinstance(failed, str) and self._failed is None:
            self._failed = rank, failed
        if rank <= 0:
            self._progress(said.get("loaded"), said.get("of"), said.get("token"))
            for name in _SAYABLE & said.keys():
                self._keep(name, said[name])

    @property
    def phase(self) -> str:
        """Where it failed, or else how far the last of all ranks has come."""
        if self._failed is not None:
            return self._phases.get(self._failed[0], self._slowest)
        return self._slowest

    @property
    def failed(self) -> str | None:
        """The traceback with which it, or the first of its ranks, gave up."""
        return None if self._failed is None else self._failed[1]

    @property
    def title(self) -> str:
        """What it does just now, for a person who waits."""
        phase = self.phase
        if phase == "load":
            verb = "filling" if _is_random(self._plan) else "loading"
            if self._loaded is None or self._loaded[1] < 1 << 30:
                return f"{verb} the weights"
            return f"{verb} the weights: {self._loaded[0] / 2**30:.1f} of {self._loaded[1] / 2**30:.2f} GiB"
        if phase == "tokens":
            return f"generating: {self._token} of {self._plan.new_tokens} tokens"
        return _WORDS[phase]

    @property
    def values(self) -> dict[str, Json]:
        """The fields of facts.Smoke; what was not said is null, false or empty."""
        theirs = [note for note in self._values["notes"] if note not in self._plan.notes]
        return {**self._values, "phase": self.phase, "notes": [*self._plan.notes, *theirs]}

    @property
    def _slowest(self) -> str:
        ranks = {rank: phase for rank, phase in self._phases.items() if rank >= 0} or self._phases
        return min(ranks.values(), key=PHASES.index, default=_BEFORE)

    def _progress(self, loaded: object, of: object, token: object) -> None:
        if isinstance(loaded, int) and isinstance(of, int) and 0 <= loaded <= of < 1 << 60:
            self._loaded = loaded, of
        if isinstance(token, int) and 0 <= token < 1 << 40:
            self._token = token

    def _keep(self, name: str, value: Json) -> None:
        try:
            from_json(Smoke, {**_nothing(self._plan), name: value})
        except NotOurs:
            return
        self._values[name] = value


def read(plan: Plan, heard: Heard, answer: Answer, seconds: float) -> Smoke:
    """The fact. ``seconds`` are those of the smoke test alone, without the import."""
    values = heard.values
    well = values["phase"] == "done" and heard.failed is None and answer.exit_code == 0
    error = None if well else _error(heard.failed, answer)
    smoke = from_json(Smoke, {**_nothing(plan), **values, "seconds_total": seconds, "error": error})
    return dataclasses.replace(smoke, symptoms=_symptoms(heard.failed, answer.stderr), signal=answer.signal, hung=answer.hung)


def _error(failed: str | None, answer: Answer) -> str | None:
    """The last words: its own, or what was left on stderr; where there are none, and it was not ended from outside, that."""
    words = last_lines(failed or "") or last_lines(answer.stderr)
    if words or answer.hung or answer.signal is not None:
        return words or None
    return f"it ended without a word (exit code {answer.exit_code})"


def _symptoms(failed: str | None, stderr: str) -> tuple[Symptom, ...]:
    """Each once; what it gave up with comes first."""
    return tuple(dict.fromkeys((*symptoms.read(failed or "", SOURCE), *symptoms.read(stderr, SOURCE))))


def _is_random(plan: Plan) -> bool:
    return not plan.pieces and plan.foreign is None


def _nothing(plan: Plan) -> dict[str, Json]:
    """A smoke test of which nothing has been heard yet."""
    values: dict[str, Json] = dict.fromkeys(_FIELDS)
    return {
        **values,
        "checkpoint": plan.name,
        "format": plan.format,
        "weights": "random" if _is_random(plan) else "real",
        "parameters": None if plan.shape is None else plan.shape.parameters,
        "phase": _BEFORE,
        "symptoms": [],
        "hung": False,
        "device": plan.device,
        "processes": plan.processes,
        "new_tokens": 0,
        "seconds_total": 0.0,
        "completions": [],
        "notes": [],
    }
