"""Judges a text that somebody pasted: which faults it complains of, and how surely.

The facts are those of ``gpudoctor.pasted``. What a text means by itself stands in its row of the tables of known texts; here
stands what depends on something else: one message with several causes gets the one that fits the card, the build, the driver,
the system that the text tells of. Each layer's check asks for its own codes. Without a complaint there is no finding.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from gpudoctor import steps, symptoms
from gpudoctor.facts import Facts
from gpudoctor.findings import Check, Finding, Verdict
from gpudoctor.knowledge import causes

from . import build, cures, driver, launch, libraries, nccl, pytorch, vram
from .told import Suspect, Told

Rule = Callable[[Told], Iterable[Suspect]]
RULES: tuple[Rule, ...] = (
    *driver.RULES,
    *build.RULES,
    *libraries.RULES,
    *nccl.RULES,
    *pytorch.RULES,
    *vram.RULES,
    *launch.RULES,
)
LEAST = 40
"""Per cent below which a suspicion is none."""


def listening(check: Check) -> Check:
    """The check, which judges a complaint by the rules here where there is one."""

    def judge(facts: Facts, required: bool) -> Verdict:
        return check.judge(facts, required) if facts.complaint is None else verdict(facts, check.codes)

    return dataclasses.replace(check, judge=judge)


def verdict(facts: Facts, codes: tuple[str, ...]) -> Verdict:
    """What the text complains of, of these codes; the surest first."""
    findings = tuple(finding for finding in suspected(facts) if finding.code in codes)
    return Verdict(findings[0].summary if findings else "the text complains of nothing here", findings)


@lru_cache(maxsize=4)
def suspected(facts: Facts) -> tuple[Finding, ...]:
    """Every fault that the text may mean, the surest first."""
    if facts.complaint is None:
        return ()
    told = Told(facts, facts.complaint)
    best: dict[str, Suspect] = {}
    for suspect in _suspects(told):
        if suspect.code not in best or suspect.sure > best[suspect.code].sure:
            best[suspect.code] = suspect
    weighed = [_weighed(told, suspect) for suspect in best.values()]
    ranked = sorted((s for s in weighed if s.sure >= LEAST), key=lambda suspect: -suspect.sure)
    return tuple(_finding(told, suspect) for suspect in ranked)


def _suspects(told: Told) -> Iterator[Suspect]:
    for symptom in told.symptoms:
        row = symptoms.row_of(symptom.id)
        for code, sure in row.tells.items() if row else ():
            yield Suspect(code, sure, (symptom,))
    for rule in RULES:
        yield from rule(told)


def _weighed(told: Told, suspect: Suspect) -> Suspect:
    """What its layer's rules take off, where something else in the text explains it better."""
    less = sum(rule(told, suspect) for rule in (*driver.DOUBTS, *libraries.DOUBTS, *pytorch.DOUBTS, *launch.DOUBTS))
    return suspect if not less else Suspect(**{**vars(suspect), "sure": suspect.sure - less})


def _finding(told: Told, suspect: Suspect) -> Finding:
    fix = cures.fix(told, suspect)
    return Finding(
        code=suspect.code,
        severity="fail",
        summary=suspect.summary or _sentence(suspect),
        cause=" ".join(part for part in (suspect.why or _why(suspect), cures.words(told, suspect)) if part),
        evidence=told.evidence(suspect.said),
        fix=fix,
        sure=suspect.sure,
        apart=causes.apart(suspect.code),
    )


def _why(suspect: Suspect) -> str:
    """The text of the code's page, which is true wherever the fault is met."""
    return steps.about(suspect.code) or ""


_AS_WRITTEN = {"bitsandbytes", "libcuda", "libcudart", "nvcc", "torchrun", "torchvision", "xformers"}
"""Names that are no words at the beginning of a sentence either."""


def _sentence(suspect: Suspect) -> str:
    """The condition of the symptom that means just this, with its values, as a sentence; else the code's own line."""
    rows = [
        (row, symptom)
        for symptom in suspect.said
        if (row := symptoms.row_of(symptom.id)) is not None and set(row.tells) == {suspect.code}
    ]
    title = causes.title(suspect.code)
    if not rows:
        return title or "The text complains of this"
    row, symptom = rows[0]
    values = dict(symptom.values)
    words = re.sub(r"\{(\w{1,20})\}", lambda match: values.get(match.group(1), "another"), row.condition)
    first = words.partition(" ")[0]
    return words if first in _AS_WRITTEN or not first.isalpha() or not first.islower() else f"{words[:1].upper()}{words[1:]}"
