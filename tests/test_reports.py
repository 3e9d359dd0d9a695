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
from gpudoctor.report.words import plain, short_text
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


def shown(*, checks: tuple[CheckResult, ...], steps: dict[Finding, Step]) -> str:
    file = io.StringIO()
    causes = tuple(f.code for c in checks for f in c.findings)
    terminal.render(Facts(), Diagnosis("fail", causes, checks), steps, Console(file=file, width=200))
    return file.getvalue()


def test_the_closing_lines_name_what_must_not_be_reinstalled() -> None:
    beside = Finding("beside", "fail", "a", "b", (), Fix("gpudoctor#report-a-bug"), blocks=False)
    dead = Finding("dead", "fail", "a", "b", (), Fix("gpudoctor#report-a-bug"))
    driver = CheckResult("driver", "driver", "warn", "works", (), None, 0.1)
    torch = CheckResult("pytorch", "PyTorch", "fail", "a", (beside,), None, 0.1)
    assert "The driver and PyTorch are well: do not reinstall them." in shown(checks=(driver, torch), steps={beside: step()})
    torch = CheckResult("pytorch", "PyTorch", "fail", "a", (dead,), None, 0.1)
    assert "The driver is well: do not reinstall it." in shown(checks=(driver, torch), steps={dead: step()})
    assert "reinstall" not in shown(checks=(torch,), steps={dead: step()})


def test_a_cure_says_its_risk_before_its_commands_and_repeats_no_command() -> None:
    finding = Finding("code", "fail", "a", "b", (Evidence("log", "x" * 500),), Fix("gpudoctor#report-a-bug"))
    cure = Step("p#s", "machine", "reboots", ("look", "sudo reboot"), ("look", "prove"), "", needs_root=True, needs_reboot=True)
    text = shown(checks=(CheckResult("driver", "driver", "fail", "a", (finding,), None, 0.1),), steps={finding: cure})
    lines = [line.strip() for line in text.splitlines()]
    assert lines.index("What to do on this machine (needs a reboot):") < lines.index("look") < lines.index("prove")
    assert lines.count("look") == 1
    assert "x" * 170 not in text


def test_paths_below_home_are_short_in_prose_and_whole_elsewhere() -> None:
    assert short_text("/home/ada/x says; /home/adam/x; /mnt/home/ada/x", "/home/ada") == "~/x says; /home/adam/x; /mnt/home/ada/x"


def test_hostile_text_stays_text() -> None:
    assert "owned" not in as_text(HOSTILE)
    assert "[bold red]x[/]" in as_text(HOSTILE)
    diagnosis, steps = sick(HOSTILE)
    assert "\n::error::forged" not in github.render(diagnosis, steps)
    assert "\x1b" not in markdown.render(Facts(), diagnosis, steps)


def test_markdown_keeps_what_must_be_known_before_the_commands() -> None:
    diagnosis, steps = sick("x")
    text = markdown.render(Facts(), diagnosis, steps)
    assert text.index("What to do on this machine: words") < text.index("```sh\ntrue\n```")


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
