"""What the reports promise: the schema, and that nothing a machine says can style, break or forge them."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gpudoctor.diagnose import CheckResult, Diagnosis
from gpudoctor.facts import Facts
from gpudoctor.findings import Evidence, Finding, Fix
from gpudoctor.report import document, github, junit, markdown, prometheus, terminal
from gpudoctor.report.words import plain
from gpudoctor.steps import Step
from tests import report_schema

HOSTILE = "\x1b]0;owned\x07\x1b[31m[bold red]x[/]\n::error::forged\r\u202eevil %0A `rm`"


def step(command: str = "true", *, where: str = "machine") -> Step:
    return Step("gpudoctor#report-a-bug", where, "none", (command,), ("true",), "words", needs_root=False, needs_reboot=False)


def sick(text: str) -> tuple[Diagnosis, dict[Finding, Step]]:
    finding = Finding("some-code", "fail", text, text, (Evidence(text, text),), Fix("gpudoctor#report-a-bug"))
    result = CheckResult("driver", "driver", "fail", text, (finding,), None, 0.1)
    return Diagnosis("fail", ("some-code",), (result,)), {finding: step()}


def as_text(text: str, width: int = 80) -> str:
    diagnosis, steps = sick(text)
    file = io.StringIO()
    terminal.render(Facts(), diagnosis, steps, Console(file=file, width=width, force_terminal=False))
    return file.getvalue()


def test_the_published_schema_is_that_of_the_code() -> None:
    assert json.loads(report_schema.PATH.read_text()) == report_schema.schema()


def test_a_report_is_valid_by_the_published_schema() -> None:
    diagnosis, steps = sick("x")
    jsonschema.validate(document.document(Facts(), diagnosis, steps), report_schema.schema())


@given(st.text())
def test_any_text_comes_out_without_control_characters(text: str) -> None:
    for made in (plain(text), as_text(text)):
        assert not any(ord(c) < 32 and c not in "\n\t" for c in made)
        assert "\x9b" not in made


@given(st.text(min_size=1))
def test_any_text_makes_one_workflow_command_per_line(text: str) -> None:
    diagnosis, steps = sick(text)
    lines = github.render(diagnosis, steps).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("::") for line in lines)


@given(st.text())
def test_any_text_makes_well_formed_xml(text: str) -> None:
    diagnosis, steps = sick(text)
    ET.fromstring(junit.render(diagnosis, steps))  # noqa: S314 - our own text; any parser will do


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_command_is_never_wrapped(width: int) -> None:
    command = "sudo apt-get install " + "linux-modules-nvidia " * 12
    diagnosis, steps = sick("x")
    steps = {finding: step(command) for finding in steps}
    file = io.StringIO()
    terminal.render(Facts(), diagnosis, steps, Console(file=file, width=width))
    assert command in file.getvalue()


def test_hostile_text_stays_text() -> None:
    assert "owned" not in as_text(HOSTILE)
    assert "[bold red]x[/]" in as_text(HOSTILE)
    diagnosis, steps = sick(HOSTILE)
    assert "\n::error::forged" not in github.render(diagnosis, steps)
    assert "\x1b" not in markdown.render(Facts(), diagnosis, steps)


def test_prometheus_names_the_state_and_the_code() -> None:
    text = prometheus.render(sick("x")[0])
    assert "gpudoctor_healthy 0" in text
    assert 'gpudoctor_check{check="driver",state="fail"} 1' in text
    assert 'gpudoctor_finding{code="some-code",severity="fail"} 1' in text


@pytest.mark.parametrize(
    ("where", "whose"), [("machine", "node"), ("host", "node"), ("image", "image"), ("environment", "image"), ("code", "job")]
)
def test_a_ci_job_learns_whose_fault_it_is(where: str, whose: str) -> None:
    assert github.at_fault(step(where=where)) == whose
