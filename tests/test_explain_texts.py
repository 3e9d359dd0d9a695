"""Known texts get their root cause first, and decoys no finding; see tests/texts/README.md."""

from __future__ import annotations

import json
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from gpudoctor import pasted, symptoms
from gpudoctor.explain import explain
from gpudoctor.knowledge import table
from gpudoctor.knowledge.table import Row

TEXTS = Path(__file__).parent / "texts"
PROVOKED = sorted(path.stem for path in (TEXTS / "provoked").glob("*.txt"))
RIGHT = 0.97


@cache
def cases() -> tuple[dict[str, Any], ...]:
    """The texts of public threads: those with a ``strict`` and those that were found later."""
    files = (TEXTS / "dev.jsonl", *sorted(TEXTS.glob("found-*.jsonl")))
    return tuple(json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines())


@cache
def found() -> tuple[dict[str, Any], ...]:
    """Texts of other public threads, found later: found-*.jsonl."""
    paths = sorted(TEXTS.glob("found-*.jsonl"))
    return tuple(json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines())


@cache
def toml(name: str) -> Row:
    """A table of tests/texts."""
    parser = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    data: Row = parser.loads((TEXTS / name).read_text(encoding="utf-8"))
    return data


def codes(text: str) -> list[str]:
    """What the text is found to mean, the likeliest first."""
    return [finding.code for finding in explain(pasted.read(text, "a text")).findings]


def is_right(text: str, expect: str | None) -> bool:
    """The cause comes first; a decoy has none."""
    return codes(text)[:1] == ([] if expect is None else [expect])


@pytest.mark.parametrize("strict", [False, True], ids=["all", "strict"])
def test_the_root_cause_comes_first_in_texts_of_public_threads(strict: bool) -> None:
    chosen = [case for case in cases() if case.get("strict") or not strict]
    wrong = [
        (case["id"], case["expect"], codes(case["evidence"])) for case in chosen if not is_right(case["evidence"], case["expect"])
    ]
    assert len(wrong) <= (1 - RIGHT) * len(chosen), wrong


@pytest.mark.parametrize("case", [case for case in cases() if case["expect"] is None], ids=lambda case: str(case["id"]))
def test_a_decoy_gives_no_finding(case: dict[str, Any]) -> None:
    assert codes(case["evidence"]) == []


def test_the_root_cause_comes_first_in_texts_that_were_found_later() -> None:
    wrong = [
        (case["id"], case["expect"], codes(case["evidence"])) for case in found() if not is_right(case["evidence"], case["expect"])
    ]
    assert len(wrong) <= (1 - RIGHT) * len(found()), wrong


@pytest.mark.parametrize("case", [case for case in found() if case["expect"] is None], ids=lambda case: str(case["id"]))
def test_a_decoy_that_was_found_later_gives_no_finding(case: dict[str, Any]) -> None:
    assert codes(case["evidence"]) == []


@pytest.mark.parametrize("name", PROVOKED)
def test_a_provoked_error_has_its_cause_first(name: str) -> None:
    about = json.loads((TEXTS / "provoked" / f"{name}.json").read_text(encoding="utf-8"))
    text = (TEXTS / "provoked" / f"{name}.txt").read_text(encoding="utf-8", errors="replace")
    assert codes(text)[:1] == ([] if about["expect"] is None else [about["expect"]])


@pytest.mark.parametrize("case", toml("told.toml")["text"], ids=lambda case: str(case["id"]))
def test_told_texts(case: Row) -> None:
    assert codes(case["says"])[:1] == ([case["expect"]] if "expect" in case else [])


@pytest.mark.parametrize("row", table.read("pasted")["symptom"], ids=lambda row: str(row["id"]))
def test_each_row_of_pasted_texts_finds_its_line(row: Row) -> None:
    line = toml("lines.toml")["lines"][row["id"]]
    found = [symptom.id for symptom in symptoms.read(f"before\n{line}\nafter\n", "a text", pasted=True)]
    assert row["id"] in found
