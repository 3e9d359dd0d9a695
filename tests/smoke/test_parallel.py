"""Several processes under torchrun, with Gloo on the CPU: they compute what one computes, and their failures have an author."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")

from gpudoctor.smoke import parallel, plan, worker
from gpudoctor.smoke.parallel import Place
from gpudoctor.smoke.plan import Plan, Shape

CPU = torch.device("cpu")
SHAPE = Shape(dim=64, layers=3, heads=8, kv_heads=4, head_dim=8, hidden=96, vocab=500, max_seq_len=128)
TWO = Plan(name="tiny", format="none", shape=SHAPE, device="cpu", new_tokens=24, processes=2, prompts=("Once", "upon a time"))
FRONT = """
import json, os, sys
import torch
from gpudoctor.smoke import plan, worker
pipe = os.dup(1)
def say(**values):
    os.write(pipe, (json.dumps(values) + "\\n").encode())
worker.run(plan.from_json(json.loads(sys.argv[1])), say)
os._exit(0)
"""


@pytest.fixture
def _leave_no_process_group() -> Iterator[None]:
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def start(what: Plan, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """A process that carries out the plan and says all on stdout."""
    command = [sys.executable, "-c", FRONT, json.dumps(plan.to_json(what))]
    scratch = {"TMPDIR": str(cwd), **environment}
    return subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **scratch},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def heard(
    what: Plan, cwd: Path, at: Callable[[dict[str, Any], int], None] = lambda _line, _pid: None, **environment: str
) -> list[dict[str, Any]]:
    """All that is said; ``at`` gets each line at once, and the number of the process."""
    with start(what, cwd, **environment) as front:
        assert front.stdout is not None
        said = []
        for text in front.stdout:
            said.append(json.loads(text))
            at(said[-1], front.pid)
        assert front.stderr is not None
        assert front.wait(10) == 0, front.stderr.read()
    return said


def ranks(parent: int) -> dict[int, int]:
    """Process number by rank of the children of a process."""
    found: dict[int, int] = {}
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split():
        for variable in Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0"):
            if variable.startswith("RANK="):
                found[int(variable[5:])] = int(pid)
    return found


def last(said: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for line in said for name, value in line.items()}


# ---------------------------------------------------------------- the way through


def test_two_processes_say_what_one_says(tmp_path: Path) -> None:
    for name in ("model", "generate", "plan", "device", "rank"):  # a user's modules of our names are neither found nor in the way
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')\n", encoding="ascii")
    job: dict[str, Any] = {
        "PET_NNODES": "2",
        "PET_RDZV_ENDPOINT": "192.0.2.1:1",
        "PET_NO_PYTHON": "1",
        "RANK": "7",
        "WORLD_SIZE": "9",
    }
    said = heard(TWO, tmp_path, PYTHONPATH=str(tmp_path), **job)  # nor is the job that this is part of
    alone: list[dict[str, Any]] = []
    worker.run(dataclasses.replace(TWO, processes=1), lambda **values: alone.append(values))
    torch.distributed.destroy_process_group()
    facts, expected = last(said), last(alone)
    assert [row["tokens"] for row in facts["completions"]] == [row["tokens"] for row in expected["completions"]]
    assert len(facts["completions"][0]["tokens"]) == 24
    assert (facts["backend"], facts["all_reduce"], facts["repeatable"]) == ("gloo", True, True)
    assert facts["all_reduce_bandwidth"] > 1e6
    assert facts["bytes_per_token"] < expected["bytes_per_token"]
    for rank in (0, 1):
        assert [line["begin"] for line in said if "begin" in line and line["rank"] == rank] == list(plan.PHASES[1:])
    assert all(set(line) == {"begin", "rank"} for line in said if line["rank"] == 1)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]  # torchrun's folder of logs is gone


# ---------------------------------------------------------------- failures


def test_a_rank_that_is_killed_is_named_and_not_those_that_wait_for_it(tmp_path: Path) -> None:
    def kill(line: dict[str, Any], front: int) -> None:
        if line == {"begin": "tokens", "rank": 1}:
            os.kill(ranks(front)[1], signal.SIGKILL)

    said = heard(dataclasses.replace(TWO, new_tokens=100_000, max_seq_len=100_000), tmp_path, kill)
    assert said[-1] == {"failed": "rank 1 was ended by SIGKILL", "rank": 1}


def test_an_exception_of_a_rank_is_passed_on_with_its_number(tmp_path: Path) -> None:
    said = heard(dataclasses.replace(TWO, max_seq_len=8), tmp_path)
    assert "ValueError: prompt 2 has 11 tokens, and the model sees 8" in said[-1]["failed"]
    assert said[-1]["rank"] in (0, 1)


def test_ranks_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    started: dict[int, int] = {}

    def kill(line: dict[str, Any], front: int) -> None:
        if line.get("begin") == "tokens":
            started.update(ranks(front))
            os.kill(front, signal.SIGKILL)

    with pytest.raises(AssertionError):  # its exit code
        heard(dataclasses.replace(TWO, new_tokens=100_000, max_seq_len=100_000), tmp_path, kill)
    assert set(started) == {0, 1}
    until = time.monotonic() + 5
    while any(alive(pid) for pid in started.values()):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False


@pytest.mark.parametrize(
    ("failures", "dead", "blamed"),
    [
        ({}, {1: -9}, (1, "rank 1 was ended by SIGKILL")),
        ({0: "Connection closed by peer"}, {0: 1, 1: -11}, (1, "rank 1 was ended by SIGSEGV")),
        ({0: "Connection closed by peer"}, {0: 1, 1: 7}, (1, "rank 1 ended with exit code 7")),
        ({1: "CUDA out of memory", 0: "Connection closed by peer"}, {0: 1, 1: 1}, (1, "CUDA out of memory")),
        ({1: "CUDA out of memory"}, {0: -15, 1: 1}, (1, "CUDA out of memory")),
        ({}, {0: -99}, (0, "rank 0 was ended by signal 99")),
        ({}, {0: -15}, (0, "torchrun ended the processes")),
    ],
)
def test_blame_goes_to_the_first(failures: dict[int, str], dead: dict[int, int], blamed: tuple[int, str]) -> None:
    assert parallel.blame(failures, dead) == blamed


# ---------------------------------------------------------------- the process group


@pytest.mark.usefixtures("_leave_no_process_group")
def test_a_process_alone_adds_up_too() -> None:
    assert parallel.join(CPU, Place()) == "gloo"
    assert parallel.adds_up(CPU, Place())
    assert parallel.bus_bandwidth(CPU, Place()) is None


@pytest.mark.usefixtures("_leave_no_process_group")
def test_a_sum_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    parallel.join(CPU, Place())
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor[999].add_(1))
    assert not parallel.adds_up(CPU, Place())


def test_a_build_without_a_backend_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parallel.lacks("gloo") is None
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    assert parallel.lacks("nccl") == "this PyTorch is built without NCCL"
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    assert parallel.lacks("gloo") == "this PyTorch is built without torch.distributed"
