"""The commands that `fit` proposes: each a line of shell for the environment that is meant, whatever a name is made of."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudoctor.knowledge import models
from gpudoctor.memory import card, commands
from gpudoctor.memory.model import of_known
from gpudoctor.memory.need import Work
from gpudoctor.memory.options import options
from gpudoctor.memory.question import Environment, Question
from gpudoctor.memory.runtimes import RUNTIMES, by_name


def ask(
    runtime: str = "transformers",
    model: str = "llama-2-7b",
    where: Environment | None = None,
    batch: int = 1,
    length: int | None = None,
) -> Question:
    known, found = models.by_name(model), by_name(runtime)
    assert known is not None
    assert found is not None
    return Question(
        of_known(known), found, Work(batch=batch, length=length), card=card.named("RTX 4070"), environment=where or Environment()
    )


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Environment(), "python3 -m pip install accelerate"),
        (Environment("/a b/python", "pip"), "'/a b/python' -m pip install accelerate"),
        (Environment("/env/bin/python", "uv"), "uv pip install --python /env/bin/python accelerate"),
        (Environment("/p/.venv/bin/python", "uv", "/p/.venv", "/p"), "uv add --project /p accelerate"),
        (Environment("/c/bin/python", "conda", "/c"), "conda install --prefix /c --channel conda-forge accelerate"),
        (Environment("/x/bin/python", "pixi", "/x", "/proj"), "pixi add --manifest-path /proj accelerate"),
        (Environment("/x/bin/python", "poetry", "/x", "/proj"), "poetry --directory /proj add accelerate"),
    ],
    ids=lambda value: value.owner if isinstance(value, Environment) else "",
)
def test_packages_are_changed_with_the_tool_that_owns_the_environment(where: Environment, expected: str) -> None:
    assert commands.install(ask(where=where), "accelerate") == (expected,)


def test_a_protected_python_gets_an_environment_beside_it() -> None:
    question = ask(where=Environment("/usr/bin/python3", "system"))
    assert commands.install(question, "accelerate") == (
        "/usr/bin/python3 -m venv llm",
        "llm/bin/python -m pip install torch accelerate",
    )
    assert commands.run(question)[-1].startswith("llm/bin/python -c ")


@pytest.mark.parametrize("runtime", [runtime.name for runtime in RUNTIMES])
def test_every_command_is_one_line_of_shell(runtime: str) -> None:
    for option in options(ask(runtime, batch=2)):
        assert option.commands
        for command in option.commands:
            assert "\n" not in command
            subprocess.run(["bash", "-n", "-c", command], check=True)


@given(name=st.text(min_size=1, max_size=20))
def test_any_name_stays_one_word_of_shell_and_one_string_of_python(name: str) -> None:
    question = ask()
    question = replace(question, model=replace(question.model, hf=name))
    words = shlex.split(commands.run(question)[-1])
    assert words[:2] == ["python3", "-c"]
    assert len(words) == 3
    found: dict[str, str] = {}
    exec(words[2].split("; ")[1] if "; " not in name else "name = ''", found)  # noqa: S102 - the assignment alone
    assert "; " in name or found["name"] == name


def test_vllm_is_told_how_much_there_is_where_that_is_less_than_it_takes() -> None:
    question = ask("vllm", length=4096)
    busy = replace(question, card=replace(card.named("RTX 4090"), free=15 << 30))
    assert "--gpu-memory-utilization 0.63" in commands.vllm(busy)
    assert "--gpu-memory-utilization" not in commands.vllm(question.on(card.named("RTX 4090")))


def test_what_fits_only_if_vllm_takes_more_than_it_does_is_tight() -> None:
    question = ask("vllm", "llama-3.1-8b", length=45000).on(card.named("RTX 3090"))
    assert (question.verdict, question.in_usual_part) == ("tight", False)
    assert "--gpu-memory-utilization 0.97" in commands.vllm(question)
