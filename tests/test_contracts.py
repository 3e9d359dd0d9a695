"""The promises that hold the house together: each fault has one name, one cure and one recorded machine."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import sys
import types
import typing
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor import codec, steps, symptoms
from gpudoctor.cli import command_line
from gpudoctor.cures import cures
from gpudoctor.diagnose import built_in, diagnose, on_request
from gpudoctor.facts import Facts, Unknown
from gpudoctor.knowledge import causes, table
from gpudoctor.report import document
from tests.harness import record

ROOT = Path(__file__).resolve().parent.parent
CHECKS_FOLDER = Path(str(import_module("gpudoctor.checks").__file__)).parent
CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
STEP = re.compile(r"[a-z][a-z0-9-]*#[a-z0-9-]*[a-z0-9]")
CHECKS = (*built_in(), *on_request())
LISTED = {code: check for check in CHECKS for code in check.codes}
SECTIONS = {f"{page}#{section.name}": section for page in steps.pages() for section in steps.sections(steps.DEFAULT_RELEASE, page)}


@cache
def texts() -> dict[str, list[str]]:
    """Each code with the texts of tests/texts that mean it; that they do is what test_explain_texts.py tests."""
    folder, meant = ROOT / "tests" / "texts", dict[str, list[str]]()
    files = (folder / "dev.jsonl", *sorted(folder.glob("found-*.jsonl")))
    public = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    provoked = [{"id": path.stem, **json.loads(path.read_text(encoding="utf-8"))} for path in (folder / "provoked").glob("*.json")]
    parser = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    written = parser.loads((folder / "told.toml").read_text(encoding="utf-8"))["text"]
    for text in (*public, *provoked, *written):
        if text.get("expect") is not None:
            meant.setdefault(text["expect"], []).append(text["id"])
    return meant


@cache
def recorded() -> dict[str, list[str]]:
    """Each code with the recorded machines and texts that raise it; that they do is what test_machines.py tests."""
    raised: dict[str, list[str]] = {code: list(names) for code, names in texts().items()}
    for name in record.names():
        expected = record.load(name, root="/root")["expect"]
        for code in dict.fromkeys((*expected.get("root_causes", []), *expected.get("findings", []))):
            raised.setdefault(code, []).append(name)
    return raised


def steps_in_source() -> set[str]:
    """Every ``page#section`` that stands as a literal in the checks."""
    texts = [path.read_text(encoding="utf-8") for path in CHECKS_FOLDER.rglob("*.py")]
    strings = [
        node.value
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return {text for text in strings if STEP.fullmatch(text)}


# ---------------------------------------------------------------- codes


@pytest.mark.parametrize("code", LISTED)
def test_each_listed_code_is_raised_by_a_recorded_machine_or_text(code: str) -> None:
    assert recorded().get(code), f"no machine in tests/machines and no text in tests/texts raises {code}"


def test_each_raised_code_is_listed_by_a_check() -> None:
    assert set(recorded()) - set(LISTED) == set()


def test_codes_are_kebab_case_and_belong_to_one_check() -> None:
    counted = Counter(code for check in CHECKS for code in check.codes)
    assert [code for code in counted if not CODE.fullmatch(code)] == []
    assert [code for code, count in counted.items() if count > 1] == []


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.name))
def test_the_docstring_of_a_check_lists_its_codes(check: Any) -> None:
    """A code that its docstring mentions outside the list, or in a line of another shape, would be missed by the list."""
    module = import_module(f"gpudoctor.checks.{check.name}")
    mentioned = re.findall(r"``([a-z0-9]+(?:-[a-z0-9]+)+)``", module.__doc__ or "")
    assert check.codes
    assert sorted(mentioned) == sorted(check.codes)


@pytest.mark.parametrize("code", LISTED)
def test_each_listed_code_is_cured_by_a_section(code: str) -> None:
    assert [name for name, section in SECTIONS.items() if code in section.cures]


def test_sections_cure_codes_that_exist() -> None:
    known = {*LISTED, *LATER, "check-crashed"}
    assert {name: unknown for name, section in SECTIONS.items() if (unknown := set(section.cures) - known)} == {}


LATER = frozenset({"pcie-gen1"})
"""Codes whose cure stands before anything raises them."""


def test_what_tells_causes_apart_is_told_of_codes_that_exist() -> None:
    rows = table.read("causes")["cause"]
    assert [row["code"] for row in rows if row["code"] not in LISTED] == []
    told = {code for row in symptoms.rows(pasted=True) for code in row.tells}
    assert sorted(told - set(LISTED)) == []


@pytest.mark.parametrize("code", sorted(texts()))
def test_each_code_that_a_text_means_has_a_line_and_a_question_of_its_own(code: str) -> None:
    assert causes.title(code)
    assert causes.apart(code)


# ---------------------------------------------------------------- cures


@pytest.mark.parametrize("step", sorted(steps_in_source()))
def test_each_step_that_a_check_names_exists(step: str) -> None:
    assert step in SECTIONS, f"{step} is no section of install/{steps.DEFAULT_RELEASE}"


def test_each_section_is_named_by_a_finding_or_a_readme() -> None:
    expected = (record.load(name, root="/root")["expect"] for name in record.names())
    named = {machine["step"] for machine in expected if "step" in machine} | steps_in_source() | {"gpudoctor#report-a-bug"}
    for readme in (ROOT / "install").glob("*/README.md"):
        named |= {
            f"{page}#{name}" for page, name in re.findall(r"\(([a-z-]+)\.md#([a-z0-9-]+)\)", readme.read_text(encoding="utf-8"))
        }
    assert sorted(set(SECTIONS) - named) == []


@pytest.mark.parametrize("release", [name for name in steps.releases() if name != steps.DEFAULT_RELEASE])
def test_pages_of_another_release_replace_sections_that_exist(release: str) -> None:
    own = {f"{page}#{section.name}" for page in steps.pages(release) for section in steps.sections(release, page)}
    assert own - set(SECTIONS) == set()


# ---------------------------------------------------------------- the command line


def options() -> list[tuple[str, str]]:
    """(verb, option) for every option of every verb."""
    group = typer.main.get_command(command_line())
    assert isinstance(group, click.Group)
    commands = [(name, command) for name, command in group.commands.items() if not command.hidden]
    return [
        (name, option)
        for name, command in commands
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and option != "--help"
    ]


@pytest.mark.parametrize(("verb", "option"), options())
def test_each_option_is_documented(verb: str, option: str) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    # the name as a word of its own: --from must not count for --from-file
    pattern = re.compile(rf"{re.escape(option)}(?![\w-])")
    assert any(pattern.search(page.read_text(encoding="utf-8")) for page in pages if page.is_file()), f"gpudoctor {verb} {option}"


# ---------------------------------------------------------------- any facts

# Words of the field, so that arbitrary facts reach the branches behind comparisons.
SPOKEN = """535.86.10 580.95.05 525.60.13 470.256.02 12.4 12.2 13.0 11.8 8.9 6.1 12.0 9.0a
10de 1002 8086 nvidia nouveau vfio-pci
open proprietary suspended 030000 068000 0000:01:00.0 ubuntu debian 22.04 24.04 6.2.0-26-generic 6.8.0-1021-aws x86_64 aarch64
docker jetson dgx slurm pip uv conda pixi poetry system cp310 2.5.1 2.13.0+cpu 2.11.0+cu130 torchvision flash-attn
libnvidia-ml.so.1 libcuda.so.1 /usr/lib/x86_64-linux-gnu/libcuda.so.1 /dev/nvidiactl active failed installed nvidia-driver-535
libnvidia-compute-550 nvidia-fabricmanager vgpu default prohibited exclusive-process not-started sw-thermal power-cap compute
graphics CUDA_VISIBLE_DEVICES LD_LIBRARY_PATH 0,1 -1 nvrm-xid 79 PATH done available ==2.4.1"""
WORDS = ("", "NVIDIA GeForce RTX 4070", "NVIDIA A100-SXM4-80GB", "blacklist nvidia", "$(reboot)", "\x1b[31m", *SPOKEN.split())
TEXTS = st.sampled_from(WORDS) | st.text(max_size=12)
NUMBERS = st.sampled_from((0, 1, 9, 12, 15, 18, 999, 12020, 13000, 1 << 33, 24 << 30)) | st.integers(-(2**40), codec.LARGEST - 1)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: NUMBERS,
    bool: st.booleans(),
    float: st.floats(-1e6, 1e18),
    types.NoneType: st.none(),
    Unknown: st.builds(Unknown, why=TEXTS),
}


def any_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type hint of facts.py: plain ones, unions, tuples, dataclasses."""
    if hint in PLAIN:
        return PLAIN[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([any_of(option) for option in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(any_of(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*(any_of(item) for item in arguments))
    return any_dataclass(hint)


@cache
def any_dataclass(cls: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{field.name: any_of(hints[field.name]) for field in dataclasses.fields(cls)})


ANY_FACTS = any_dataclass(Facts)
PATIENT = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@PATIENT
@given(facts=ANY_FACTS, required=st.sets(st.sampled_from([check.name for check in built_in()])))
def test_any_facts_give_a_diagnosis_without_raising(facts: Facts, required: set[str]) -> None:
    diagnosis = diagnose(facts, required=required, checks=CHECKS)
    crashed = [finding for finding in diagnosis.findings if finding.code == "check-crashed"]
    assert [evidence.text for finding in crashed for evidence in finding.evidence] == []
    assert [finding.code for finding in diagnosis.findings if finding.code not in LISTED] == []
    written = document.render(facts, diagnosis, cures(facts, diagnosis))
    assert json.loads(written)["status"] == diagnosis.status


@PATIENT
@given(facts=ANY_FACTS)
def test_any_facts_survive_json_both_ways(facts: Facts) -> None:
    assert codec.from_json(Facts, json.loads(json.dumps(codec.to_json(facts)))) == facts


@PATIENT
@given(facts=ANY_FACTS)
def test_any_facts_are_judged_the_same_after_json(facts: Facts) -> None:
    again = codec.from_json(Facts, json.loads(json.dumps(codec.to_json(facts))))
    first, second = diagnose(facts, checks=CHECKS), diagnose(again, checks=CHECKS)
    assert (first.status, first.root_causes, first.findings) == (second.status, second.root_causes, second.findings)
