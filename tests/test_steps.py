"""Reading the install pages and filling in their commands."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudoctor import steps
from gpudoctor.fill import fill
from gpudoctor.findings import Fix
from gpudoctor.steps import Section

PAGE = """fix-it

- **cures** `one-code`, `other-code`: `one-code`: it is so. And: so.
  `other-code`: it is otherwise.
- **when** always,
  and then some
- **where** machine
- **risk** reboots
- **do** say $NAME aloud
  ```sh
  # a comment is no command
  echo "$NAME" \\
    --flag

  sudo reboot
  ```
  and read this:
  ```yaml
  - **when** this is YAML
  ```
- **verify**
  ```sh
  true
  ```
- **undo** nothing
- **source** none
"""

# what a shell can be given as an argument: anything without NUL
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
# what a person could meet on a real machine and what an attacker would try
HOSTILE = ("", " ", "'", '"', "$HOME", "$(id)", "`id`", "a  b", "!x", "\\", "-rf /", "a;b", "a\nb", "*", "~", "(", "#x")
values = st.one_of(words, st.sampled_from(HOSTILE))


@pytest.fixture
def section() -> Section:
    return steps._parse("page", PAGE)


def test_a_section_has_its_fields_with_wrapped_prose_joined(section: Section) -> None:
    assert section.name == "fix-it"
    assert section.fields["when"] == "always, and then some"
    assert section.fields["where"] == "machine"
    assert section.fields["do"] == "say $NAME aloud and read this:"


def test_only_sh_blocks_are_commands_and_a_continued_line_is_one(section: Section) -> None:
    assert section.code["do"] == ('echo "$NAME" --flag', "sudo reboot")
    assert section.code["verify"] == ("true",)


def test_the_codes_end_at_the_first_colon(section: Section) -> None:
    assert section.cures == ("one-code", "other-code")


def test_a_section_says_which_values_it_wants(section: Section) -> None:
    assert steps.wanted(section) == ("NAME",)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param('"$PYTHON" -m pip', "/a/python -m pip", id="whole-word"),
        pytest.param('"$PYTHON" -m pip', "'/a b/python' -m pip", id="value-with-a-blank"),
        pytest.param('"torch==$TORCH+$VARIANT"', "torch==2.13.0+cu126", id="inside-a-longer-word"),
        pytest.param('"${TORCH}x"', "2.13.0x", id="braces"),
        pytest.param('--index="$VARIANT"', "--index=cu126", id="after-other-text"),
        pytest.param("torch==$TORCH", "torch==2.13.0", id="unquoted"),
        pytest.param("'$TORCH' \\$TORCH \"\\$TORCH\"", "'$TORCH' \\$TORCH \"\\$TORCH\"", id="where-the-shell-would-not"),
        pytest.param("true # it's $TORCH", "true # it's $TORCH", id="comment"),
        pytest.param('"$OTHER-$TORCH"', '"$OTHER-2.13.0"', id="one-name-unknown"),
        pytest.param('"a-$(uname -r)-$TORCH"', '"a-$(uname -r)-2.13.0"', id="beside-a-substitution"),
        pytest.param('"$lower$TORCH" $lower$TORCH', '"$lower""2.13.0" $lower\'\'2.13.0', id="after-another-name"),
        pytest.param('"$(basename "$PYTHON")"', '"$(basename /a/python)"', id="inside-a-substitution"),
        pytest.param('(cd "$PYTHON" && ls) "$TORCH"', "(cd /a/python && ls) 2.13.0", id="group"),
    ],
)
def test_a_value_is_quoted_for_its_place(line: str, expected: str, request: pytest.FixtureRequest) -> None:
    blank = "value-with-a-blank" in request.node.name
    assert fill(line, {"PYTHON": "/a b/python" if blank else "/a/python", "TORCH": "2.13.0", "VARIANT": "cu126"}) == expected


TEMPLATES = ['"$A"', '"x==$A+$B"', "$A$B", 'p"$A"q', "\"$A\"'$A'", '"-$A" "$B"', '"\\"$A\\\\"', "\"é $A '$B'\""]


@given(a=values, b=values, template=st.sampled_from(TEMPLATES))
def test_any_value_comes_back_unchanged_inside_its_word(a: str, b: str, template: str) -> None:
    """The words of the filled line are those of the template with the values put in after splitting."""
    marked = shlex.split(fill(template, {"A": "\ue000", "B": "\ue001"}))
    expected = [word.replace("\ue000", "\0").replace("\ue001", b).replace("\0", a) for word in marked]
    assert shlex.split(fill(template, {"A": a, "B": b})) == expected


@pytest.mark.parametrize("value", [*HOSTILE, "plain", "1_a"])
def test_bash_itself_hands_a_hostile_value_on_unchanged(value: str) -> None:
    template = 'a=1; printf "%s|" "$A" "x$A" "$(printf %s "-$A")" "$(true)$A" "$a$A" $a$A $a"$A"'
    line = fill(template, {"A": value})
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=10, check=True)
    stripped = f"-{value}".rstrip("\n")  # a substitution drops newlines at its end
    assert done.stdout == f"{value}|x{value}|{stripped}|{value}|1{value}|1{value}|1{value}|"


@given(line=st.text(max_size=60), a=values)
def test_any_line_can_be_filled(line: str, a: str) -> None:
    fill(line, {"A": a})


@pytest.mark.parametrize(
    ("branch", "library", "series"),
    [
        ("580", "580", "580"),
        ("580-open", "580", "580"),
        ("580-server", "580-server", "580"),
        ("580-server-open", "580-server", "580"),
    ],
)
def test_package_names_follow_from_the_branch(branch: str, library: str, series: str) -> None:
    derived = steps._derived({"BRANCH": branch})
    assert (derived["LIBRARY_BRANCH"], derived["SERIES"]) == (library, series)


def test_a_derived_value_can_be_given_outright() -> None:
    assert steps._derived({"GCC": "gcc-12", "GXX": "clang"})["GXX"] == "clang"
    assert steps._derived({"GCC": "gcc-12"})["GXX"] == "g++-12"


def test_an_unknown_page_or_section_is_said() -> None:
    for step in ("nosuch#install", "driver#nosuch", "driver", ""):
        with pytest.raises(steps.NoSuchStep):
            steps.resolve(Fix(step))


def test_a_fix_may_say_where_it_runs_and_what_it_risks() -> None:
    step = steps.resolve(Fix("driver#install", (("BRANCH", "580"),), where="image", risk="none"))
    assert (step.where, step.risk) == ("image", "none")


def test_a_release_without_the_section_takes_the_default_one() -> None:
    fix = Fix("driver#install", (("BRANCH", "580"),))
    assert steps.resolve(fix, "ubuntu-24.04") == steps.resolve(fix)
    assert steps.resolve(fix, "debian-12") == steps.resolve(fix)


def test_a_reboot_and_root_are_noticed() -> None:
    step = steps.resolve(Fix("driver#install", (("BRANCH", "580"),)))
    assert step.needs_root
    assert step.needs_reboot
    assert step.commands[-1] == "sudo reboot"
    assert not any("$BRANCH" in command for command in step.commands)


def test_a_code_is_explained_by_its_own_part_of_the_text() -> None:
    text = steps.about("torch-cpu-only-build")
    assert text is not None
    assert "NCCL" in text
    assert steps.about("no-such-code") is None


def test_a_list_becomes_words_each_quoted_and_an_empty_one_nothing() -> None:
    line = 'pip install torch "${COMPANIONS[@]}" --index-url x'
    assert (
        fill(line, {"COMPANIONS": "torchvision==0.28.0+cu126 a;b"})
        == "pip install torch torchvision==0.28.0+cu126 'a;b' --index-url x"
    )
    assert fill(line, {}) == "pip install torch --index-url x"
