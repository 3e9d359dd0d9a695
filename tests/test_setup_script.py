"""The plan as a shell script and as a ticket: what is printed can be read, saved and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudoctor import steps
from gpudoctor.findings import Fix
from gpudoctor.report import ticket
from gpudoctor.setup import script
from gpudoctor.setup.plan import Item, Plan
from gpudoctor.steps import Section
from tests import healthy

SHELLCHECK = str(Path(sys.executable).parent / "shellcheck")
EVERY = [
    pytest.param(section, id=f"{section.page}#{section.name}")
    for page in steps.pages()
    for section in steps.sections(steps.DEFAULT_RELEASE, page)
    if section.code.get("do")
]
NASTY = "a b'c\"d$(touch /tmp/evil)`e`\\ ;f"


def item(section: Section, value: str = "value", **more: object) -> Item:
    values = tuple((name, value) for name in steps.wanted(section))
    step = steps.resolve(Fix(f"{section.page}#{section.name}", values))
    return Item(section, step, values, "it is so", "some-code", **more)  # type: ignore[arg-type]


def of(name: str, **values: str) -> Item:
    section = steps.find(name)
    given = tuple(values.items())
    return Item(section, steps.resolve(Fix(name, given)), given, "it is so", "some-code")


def written(*items: Item, foreign: str | None = None) -> str:
    return script.render(Plan(items, steps.DEFAULT_RELEASE, foreign), "Ubuntu 22.04.3 · kernel 6.2.0-26")


def run(text: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environ}
    command = ["bash", "-s", "--", *arguments]
    done = subprocess.run(command, input=text.encode(), capture_output=True, env=env, timeout=30, check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize("section", EVERY)
@pytest.mark.parametrize("value", ["value", NASTY], ids=["plain", "nasty"])
def test_bash_and_shellcheck_accept_the_script_of_every_section(section: Section, value: str) -> None:
    text = written(item(section, value))
    parsed = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=20, check=False)
    assert parsed.returncode == 0, parsed.stderr
    # SC2016, SC2088: a line is shown as it is written, before it runs. SC2009: see the pages' test. SC2034: from is a number
    command = [SHELLCHECK, "-s", "bash", "-e", "SC2016,SC2088,SC2009,SC2034", "-"]
    checked = subprocess.run(command, input=text, capture_output=True, text=True, timeout=20, check=False)
    assert checked.returncode == 0, checked.stdout


def shows(name: str, line: str, *more: str, verify: str = "true", **values: str) -> Item:
    """A section made for this test."""
    lines = (line, *more)
    section = Section("page", name, {"where": "machine", "risk": "none"}, {"do": lines, "verify": (verify,)})
    step = steps.Step(f"page#{name}", "machine", "none", lines, (verify,), "", False, "sudo reboot" in lines)
    return Item(section, step, tuple(values.items()), "why", None)


@given(value=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_value_reaches_the_command_as_it_is(value: str) -> None:
    done = run(written(shows("one", 'printf "[%s]" "$FILE"', FILE=value)))
    assert done.returncode == 0, done.stderr
    assert f"[{value}]" in done.stdout


@given(value=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_value_is_seen_by_whoever_reads_the_script(value: str) -> None:
    text = written(shows("one", 'printf "[%s]" "$FILE"', FILE=value))
    assert all(character.isprintable() for line in text.split("\n") for character in line)


@given(words=st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_nothing_that_a_machine_says_leaves_a_comment(words: str) -> None:
    made = Item(steps.find("driver#persistence"), steps.resolve(Fix("driver#persistence")), (), words, None, obstacle=words)
    text = script.render(Plan((made,), steps.DEFAULT_RELEASE, words), words)
    code = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert "\n".join(code) == "\n".join(
        line for line in script.render(Plan((), "", None), "").splitlines() if line and not line.startswith("#")
    )


def test_values_are_variables_that_can_be_given_from_outside() -> None:
    text = written(shows("one", 'echo "$BRANCH $LIBRARY_BRANCH $SERIES"', BRANCH="580-server-open"))
    assert "580-server-open 580-server 580\n" in run(text).stdout
    assert "535 535 535\n" in run(text, GPUDOCTOR_BRANCH="535").stdout
    assert "580-server-open" in run(text, BRANCH="535").stdout  # a name as common as PYTHON or USER must not leak in


def test_lists_are_words() -> None:
    text = written(shows("one", 'printf "<%s>" begin "${COMPANIONS[@]}"', COMPANIONS="torchvision==0.1 torchaudio"))
    assert "<begin><torchvision==0.1><torchaudio>" in run(text).stdout
    assert "<begin>" in run(written(shows("one", 'printf "<%s>" begin "${COMPANIONS[@]}"'))).stdout


def test_it_stops_at_the_first_command_that_fails() -> None:
    done = run(written(shows("one", "false"), shows("two", "echo never")))
    assert done.returncode == 1
    assert "never" not in done.stdout


def test_it_stops_before_a_restart_and_goes_on_after_it() -> None:
    text = written(shows("one", "echo first", "sudo reboot", verify="nvidia-smi"), shows("two", "echo second"))
    done = run(text)
    assert done.returncode == 0
    assert "bash setup.sh 2" in done.stdout
    assert "nvidia-smi" in done.stdout
    assert "second" not in done.stdout
    again = run(text, "2")
    assert (again.returncode, "first" in again.stdout, "second" in again.stdout) == (0, False, True)
    assert not re.search(r"^\s*sudo reboot", text, re.MULTILINE)


@pytest.mark.parametrize("argument", ["x", "-1", "1 2", "$(id)"])
def test_a_number_that_is_none(argument: str) -> None:
    done = run(written(shows("one", "echo never")), argument)
    assert (done.returncode, done.stdout) == (2, "")


def test_what_setup_leaves_to_people_is_a_comment_with_its_reason() -> None:
    left = Item(
        steps.find("hardware#no-nvidia-gpu"),
        steps.resolve(Fix("hardware#no-nvidia-gpu")),
        (),
        "no card",
        "no-nvidia-gpu",
        obstacle="it is done by hand",
    )
    text = written(left)
    assert "# Left out: no card: hardware#no-nvidia-gpu, because it is done by hand." in text
    assert "Nothing is to be run." in run(text).stdout


def test_the_doctor_is_not_needed_by_it() -> None:
    for param in EVERY:
        section = param.values[0]
        assert isinstance(section, Section)
        assert not re.search(r"^\s*gpudoctor ", written(item(section)), re.MULTILINE)


# ---------------------------------------------------------------- the ticket


def test_a_ticket_says_what_to_run_why_the_risk_and_how_to_verify() -> None:
    made = of("kernel-modules#install-prebuilt-module", BRANCH="535", FLAVOUR="generic", KERNEL="6.2.0-26-generic")
    text = ticket.render(healthy.facts(), Plan((made,), steps.DEFAULT_RELEASE, None))
    for part in (
        "### 1. it is so (`some-code`)",
        "**Where:** on this machine; root is needed",
        "**Risk:**",
        "**Verify**:",
        "**To take it back**:",
        "**Source:**",
    ):
        assert part in text
    assert "sudo apt-get install linux-modules-nvidia-535-generic linux-modules-nvidia-535-6.2.0-26-generic" in text


def test_a_ticket_for_a_well_machine() -> None:
    assert "Nothing has to be done." in ticket.render(healthy.facts(), Plan((), steps.DEFAULT_RELEASE, None))


@pytest.mark.parametrize("section", EVERY)
def test_every_section_makes_a_ticket(section: Section) -> None:
    text = ticket.render(healthy.facts(), Plan((item(section, NASTY),), steps.DEFAULT_RELEASE, "another system"))
    assert text.count("### 1. ") == 1
    assert "$NAME" not in text
