"""The smoke test's child, from the doctor's side: whatever it says and however it ends, a fact comes of it that names the phase."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudoctor.codec import from_json, to_json
from gpudoctor.examine import examine
from gpudoctor.facts import Completion, Facts, Skipped, Smoke, TorchImport, Unknown
from gpudoctor.probes import nvml, smoke, smoke_report, torch_import, worker
from gpudoctor.probes.child import Answer
from gpudoctor.probes.scope import Request, Scope
from gpudoctor.probes.smoke_report import Heard
from gpudoctor.smoke import plan as plans
from gpudoctor.smoke.plan import PHASES, STORIES15M, Plan
from tests.fake_nvml import environ_for
from tests.trees import importable, make_environment, site_packages

PLAN = Plan(name="stories15M", format="none", shape=STORIES15M, device="cpu")
WORKER = """
import os, signal, sys, time
def run(plan, say):
    pipe = say.__globals__["_pipe"]
    {body}
"""
THROUGH = "for phase in {phases}: say(begin=phase)"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = make_environment(tmp_path_factory.mktemp("env") / "llama")
    importable(site_packages(python), behaviour={"available": False})
    return python


@pytest.fixture
def said(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Generates with a worker of which the test says what it does; the fact that comes of it."""
    monkeypatch.setattr(worker, "FOLDER", tmp_path / "smoke")
    monkeypatch.setattr(worker, "SILENCE", 1.5)

    def look(body: str, *, plan: Plan = PLAN, asked: bool = True, cap: float | None = 20, **environ: str) -> Any:
        _folder(tmp_path / "smoke", body)
        return smoke.look(_scope(python, Request(plan, asked), cap, **environ))

    return look


def _folder(folder: Path, body: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    shutil.copy(plans.__file__, folder / "plan.py")
    (folder / "worker.py").write_text(WORKER.format(body=body.replace("\n", "\n    ")))
    return folder


def _scope(python: Path, request: Request | None, cap: float | None = 20, **environ: str) -> Scope:
    return Scope(Path("/"), {"PATH": os.defpath, **environ}, str(python), "--python", cap, request)


def _until(phase: str) -> str:
    return THROUGH.format(phases=PHASES[2 : PHASES.index(phase) + 1]) + "\n"


# ---------------------------------------------------------------- all is well


def test_what_is_said_becomes_the_fact(said: Callable[..., Any]) -> None:
    found = said(
        _until("memory")
        + "say(device='cpu', device_name='EPYC', dtype='fp32', backend='gloo', all_reduce=True, notes=['one'])\n"
        + _until("tokens")
        + "say(new_tokens=2, tokens_per_second=61, notes=['one', 'two'], finite=True)\n"
        + "say(completions=[{'prompt': 'a', 'tokens': [1, 2], 'text': 'bc', 'logprobs': None}])\n"
        + _until("done")
    )
    assert isinstance(found, Smoke)
    assert (found.checkpoint, found.format, found.weights, found.parameters) == ("stories15M", "none", "random", 15191712)
    assert (found.phase, found.error, found.symptoms, found.signal, found.hung) == ("done", None, (), None, False)
    assert (found.device, found.device_name, found.dtype, found.backend, found.all_reduce) == ("cpu", "EPYC", "fp32", "gloo", True)
    assert (found.new_tokens, found.tokens_per_second, found.finite, found.repeatable) == (2, 61.0, True, None)
    assert found.completions == (Completion("a", (1, 2), "bc", None),)
    assert found.notes == ("one", "two")
    assert 0 < found.seconds_total < 10
    assert from_json(Facts, to_json(Facts(smoke=found))).smoke == found


def test_the_worker_gets_the_plan_with_device_and_budget(said: Callable[..., Any]) -> None:
    plan = dataclasses.replace(PLAN, prompts=("é\n",), processes=2, notes=("from the cache",))
    found = said(f"say(device_name=repr(plan))\n{_until('done')}", plan=plan)
    assert "prompts=('é\\n',)" in found.device_name
    budget = int(found.device_name.split("budget=")[1].split(",")[0])
    assert 0 < budget < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    assert (found.notes, found.processes) == (("from the cache",), 2)


def test_a_plan_of_megabytes_arrives(said: Callable[..., Any]) -> None:
    words = plans.TokenizerPlan(kind="pieces", tokens=tuple(f"piece {n}" for n in range(100_000)))
    found = said(
        f"say(device_name=str(len(plan.tokenizer.tokens)))\n{_until('done')}", plan=dataclasses.replace(PLAN, tokenizer=words)
    )
    assert found.device_name == "100000"


def test_no_folder_of_ours_is_searched_and_no_bytecode_is_left(said: Callable[..., Any], python: Path, tmp_path: Path) -> None:
    before = set(python.parent.parent.rglob("*.pyc"))
    found = said(f"say(device_name=repr((sys.path, 'gpudoctor' in sys.modules, __name__)))\n{_until('done')}")
    assert "'gpudoctor_smoke.worker'" in found.device_name
    assert ", False," in found.device_name
    assert str(tmp_path) not in found.device_name
    assert str(Path(worker.__file__).parents[2]) not in found.device_name
    assert set(python.parent.parent.rglob("*.pyc")) == before
    assert not list(tmp_path.rglob("*.pyc"))


def test_torch_is_imported_once_for_both_facts(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FOLDER", _folder(tmp_path / "smoke", _until("done") + "say(device_name=str(os.getpid()))"))
    marks = tmp_path / "marks"
    start = site_packages(python) / "sitecustomize.py"
    start.write_text(f"import os, sys\nif 'smoke' in sys.argv: open({str(marks)!r}, 'a').write('%d ' % os.getpid())\n")
    try:
        facts = examine(_scope(python, Request(PLAN, asked=False)))
    finally:
        start.unlink()
    assert isinstance(facts.torch_import, TorchImport)
    assert isinstance(facts.smoke, Smoke)
    assert (facts.torch_import.phase, facts.smoke.phase) == ("done", "done")
    assert marks.read_text().split() == [facts.smoke.device_name]


# ---------------------------------------------------------------- it ends badly


@pytest.mark.parametrize("phase", PHASES[2:-1])
@pytest.mark.parametrize("ending", ["SIGSEGV", "exception"])
def test_whatever_ends_it_the_phase_is_named(said: Callable[..., Any], ending: str, phase: str) -> None:
    end = "raise RuntimeError('no')" if ending == "exception" else f"os.kill(os.getpid(), signal.{ending})"
    found = said(_until(phase) + end)
    assert isinstance(found, Smoke)
    assert (found.phase, found.hung) == (phase, False)
    assert found.signal == (None if ending == "exception" else ending)
    assert (found.error or "").endswith("RuntimeError: no" if ending == "exception" else "")


WORDLESS = "it ended without a word (exit code 0)"
BAD_ENDS: dict[str, tuple[str, str | None, bool, str | None]] = {
    "hangs": ("time.sleep(60)", None, True, None),
    "ignores-signals": ("[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; time.sleep(60)", None, True, None),
    "closes-its-pipe": ("os.close(pipe); time.sleep(60)", None, True, None),
    "stops": ("os.kill(os.getpid(), signal.SIGSTOP)", None, True, None),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL", False, None),
    "SIGABRT": ("os.abort()", "SIGABRT", False, None),
    "leaves": ("os._exit(0)", None, False, WORDLESS),
    "leaves-7": ("os._exit(7)", None, False, "it ended without a word (exit code 7)"),
    "stderr": (r"os.write(2, b'\x1b[31mlast \xff words\n\n'); os._exit(1)", None, False, "last \ufffd words"),
    "SystemExit": ("sys.exit('enough')", None, False, "SystemExit: enough"),
    "floods": (r"while True: os.write(1, b'x' * 65536); os.write(2, b'y\n' * 9999)", None, True, "y\ny\ny\ny\ny\ny"),
    "floods-its-report": ("while True: os.write(pipe, b'z' * 65536)", None, True, None),
    "half-a-line": ('os.write(pipe, b\'{"begin": "tok\'); os._exit(0)', None, False, WORDLESS),
    "binary": (r"os.write(pipe, b'\xff\x00\n[[[\n' + b'[' * 99999 + b'\n'); os._exit(0)", None, False, WORDLESS),
}


@pytest.mark.parametrize(("body", "signal_name", "hung", "error"), BAD_ENDS.values(), ids=BAD_ENDS)
def test_bad_ends(said: Callable[..., Any], body: str, signal_name: str | None, hung: bool, error: str | None) -> None:
    started = time.monotonic()
    found = said(_until("load") + body)
    assert isinstance(found, Smoke), found
    assert (found.phase, found.signal, found.hung) == ("load", signal_name, hung)
    assert error is None or (found.error or "").endswith(error)
    assert time.monotonic() - started < 8


def test_a_flood_of_lines_is_ended_by_the_deadline(said: Callable[..., Any]) -> None:
    found = said(_until("load") + "while True: say(token=1)", cap=2)
    assert isinstance(found, Unknown)
    assert found.why.endswith(" s: filling the weights")


def test_slow_is_not_hung(said: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TOTAL", 1.5)
    talks = _until("tokens") + "for n in range(40): say(token=n); time.sleep(0.1)\n" + _until("done")
    assert said(talks, cap=None).phase == "done"
    plan = dataclasses.replace(PLAN, new_tokens=40)
    found = said(talks, plan=plan, cap=None, asked=False)
    assert isinstance(found, Unknown)
    assert found.why.startswith("not done after 2 s: generating: 1")


def test_a_deadline_that_ends_it_is_not_a_hang(said: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "SILENCE", 60)
    assert isinstance(said(_until("load") + "time.sleep(60)", cap=2.5), Unknown)


def test_known_texts_are_read_from_its_last_words(said: Callable[..., Any]) -> None:
    text = (
        "CUDA out of memory. Tried to allocate 86.00 MiB (GPU 0; 11.69 GiB total capacity; 9.70 GiB already allocated; "
        "64.81 MiB free; 9.70 GiB reserved in total by PyTorch)"
    )
    found = said(_until("load") + f"raise RuntimeError({text!r})")
    assert {symptom.source for symptom in found.symptoms} == {"smoke test"}
    assert any("86.00" in symptom.text for symptom in found.symptoms)


def test_a_warning_of_its_libraries_is_seen_on_stderr(said: Callable[..., Any]) -> None:
    found = said(_until("load") + "import warnings; warnings.warn('an old card'); os._exit(1)")
    assert "an old card" in found.error


def test_without_a_worker_the_reason_is_an_import_error(
    said: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FOLDER", tmp_path / "nowhere")
    found = said("pass")
    assert (found.phase, found.signal) == ("import", None)
    assert "FileNotFoundError" in found.error


# ---------------------------------------------------------------- may it run? asked of the others while the child waits

ON_GPU = dataclasses.replace(PLAN, device=None)


@pytest.fixture
def able(python: Path) -> Iterator[None]:
    """PyTorch says that it sees a GPU."""
    importable(site_packages(python), behaviour={"available": True})
    yield
    importable(site_packages(python), behaviour={"available": False})


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        ({"gpus": [{"processes": [{"pid": 1, "used_mib": 4000}]}]}, "process 1"),
        ({"gpus": [{"memory": {"total": 12282, "used": 11900}}]}, "0.37 GiB|somebody holds 11.62"),  # the latter in a container
        ({"init": "crash"}, "the driver gave no answer"),
    ],
    ids=["busy", "full", "NVML crashes"],
)
def test_a_check_leaves_others_alone_and_by_name_it_runs(said: Callable[..., Any], scenario: dict[str, Any], reason: str) -> None:
    environ = environ_for(scenario)
    skipped = said(_until("done"), plan=ON_GPU, asked=False, **environ)
    assert isinstance(skipped, Skipped)
    assert re.match(reason, skipped.reason)
    found = said("say(device=plan.device, free_memory=plan.budget)\n" + _until("done"), plan=ON_GPU, **environ)
    assert (found.phase, found.device) == ("done", "cuda")
    assert found.free_memory == (None if "init" in scenario else (12282 - sum(_used(scenario)) << 20))


def _used(scenario: dict[str, Any]) -> tuple[int, int]:
    """MiB used and reserved."""
    return (11900, 0) if "memory" in scenario["gpus"][0] else (1, 312)


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("asked", [False, True])
def test_a_driver_that_hangs_is_not_waited_for_longer_than_its_own_deadline(
    said: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setattr(nvml, "DEADLINE", 1.5)
    started = time.monotonic()
    found = said(_until("done"), plan=ON_GPU, asked=asked, cap=None, **environ_for({"init": "hang"}))
    assert time.monotonic() - started < 5
    assert isinstance(found, Smoke) if asked else found == Skipped("the driver gave no answer")


@pytest.mark.parametrize("asked", [False, True])
def test_nobody_waits_for_the_driver_of_a_gpu_that_is_not_used(said: Callable[..., Any], asked: bool) -> None:
    started = time.monotonic()
    assert said(_until("done"), asked=asked, **environ_for({"init": "hang"})).phase == "done"
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(("asked", "device"), [(False, None), (False, "cpu"), (True, "cpu"), (True, None)])
def test_a_gpu_that_sleeps_is_woken_only_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool, device: str | None
) -> None:
    card = tmp_path / "root/sys/bus/pci/devices/0000:01:00.0"
    (card / "power").mkdir(parents=True)
    for name, text in (("vendor", "0x10de"), ("class", "0x030200"), ("power/runtime_status", "suspended")):
        (card / name).write_text(text)
    python = make_environment(tmp_path / "llama")
    importable(site_packages(python), behaviour={"crash": "SIGABRT", "at": "available"})  # to ask would be seen
    monkeypatch.setattr(worker, "FOLDER", _folder(tmp_path / "smoke", _until("done")))
    request = Request(dataclasses.replace(PLAN, device=device), asked)
    scope = dataclasses.replace(_scope(python, request), root=tmp_path / "root")
    imported, found = torch_import.look(scope), smoke.look(scope)
    assert isinstance(imported, TorchImport)
    if device == "cpu":
        assert isinstance(found, Smoke)
        assert (imported.phase, found.phase) == ("import", "done")
    elif asked:
        assert found == Skipped("PyTorch dies of SIGABRT when it looks for a GPU")
    else:
        assert found == Skipped("the GPU is asleep, and this would wake it; gpudoctor smoke does")


# ---------------------------------------------------------------- what the import says does not change


@pytest.mark.parametrize("body", ["os.kill(os.getpid(), signal.SIGSEGV)", "time.sleep(60)", "raise RuntimeError('no')"])
def test_how_the_smoke_test_ends_is_not_the_imports(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(worker, "FOLDER", _folder(tmp_path / "smoke", body))
    monkeypatch.setattr(worker, "SILENCE", 1.5)
    scope = _scope(python, Request(PLAN, asked=True))
    started = time.monotonic()
    found = torch_import.look(scope)
    assert time.monotonic() - started < 1.5  # it does not wait for the other fact
    assert isinstance(found, TorchImport)
    assert (found.phase, found.signal, found.hung, found.error, found.version) == ("done", None, False, None, "2.5.1+cu124")
    assert isinstance(smoke.look(scope), Smoke)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"raise": "OSError: libcudart.so.12: cannot open shared object file"}, "PyTorch does not import"),
        ({"crash": "SIGSEGV"}, "PyTorch dies of SIGSEGV when it is imported"),
        ({"crash": "SIGABRT", "at": "available"}, "PyTorch dies of SIGABRT when it looks for a GPU"),
        ({"hang": True}, "the import of PyTorch does not end"),
        ({"hang": "available"}, "PyTorch hangs when it looks for a GPU"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_torch_that_does_not_import_generates_nothing(tmp_path: Path, behaviour: dict[str, Any], reason: str) -> None:
    python = make_environment(tmp_path / "llama")
    importable(site_packages(python), behaviour=behaviour)
    assert smoke.look(_scope(python, Request(PLAN, asked=True), cap=1)) == Skipped(reason)


def test_no_torch_no_python_no_wish(tmp_path: Path, python: Path) -> None:
    request = Request(PLAN, asked=False)
    empty = make_environment(tmp_path / "empty")
    assert smoke.look(_scope(empty, request)) == Skipped("PyTorch is not installed in the target interpreter")
    assert isinstance(smoke.look(_scope(tmp_path / "gone", request)), Unknown)
    assert isinstance(smoke.look(_scope(Path("/bin/true"), request)), Unknown)
    nobody = Scope(Path("/"), {}, None, "--python", 5, request)
    assert smoke.look(nobody) == Skipped("there is no Python to run it in")
    assert smoke.look(_scope(python, None)) == Skipped("not asked for")


def test_without_the_import_there_is_no_smoke_test(python: Path) -> None:
    facts = examine(_scope(python, Request(PLAN, asked=False)), skip=("torch_import",))
    assert (facts.torch_import, facts.smoke) == (Unknown("not asked for"), Skipped("PyTorch is not to be imported"))


def test_a_deadline_that_leaves_no_time_is_said(said: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LEAST", 5)
    assert said("pass", cap=3) == Skipped("--deadline leaves no time for it")


# ---------------------------------------------------------------- several ranks


def _read(lines: list[dict[str, Any]], plan: Plan = PLAN, **answer: Any) -> Smoke:
    heard = Heard(plan)
    for line in lines:
        heard.line(json.dumps(line))
    ended = Answer(
        **{"exit_code": 0, "stdout": "", "stderr": "", "report": "", "signal": None, "hung": False, "seconds": 9.0, **answer}
    )
    return smoke_report.read(plan, heard, ended, 2.0)


def test_the_first_rank_that_fails_is_quoted_with_its_phase() -> None:
    found = _read(
        [
            *({"rank": rank, "begin": phase} for phase in ("device", "nccl") for rank in (0, 1)),
            {"rank": 0, "begin": "memory"},
            {"rank": 1, "failed": "RuntimeError: mine"},
            {"rank": 0, "begin": "load"},
            {"rank": 0, "failed": "RuntimeError: Connection closed by peer"},
        ]
    )
    assert (found.phase, found.error) == ("nccl", "RuntimeError: mine")


def test_of_ranks_that_hang_the_last_one_names_the_phase() -> None:
    found = _read([{"rank": 0, "begin": "load"}, {"rank": 1, "begin": "nccl"}, {"begin": "device"}], exit_code=None, hung=True)
    assert (found.phase, found.hung) == ("nccl", True)


def test_only_the_first_rank_sends_results() -> None:
    found = _read([{"rank": 1, "dtype": "fp16"}, {"rank": 0, "dtype": "bf16"}, {"rank": 1, "dtype": "fp32"}])
    assert found.dtype == "bf16"


# ---------------------------------------------------------------- any words


@pytest.mark.parametrize(
    "line",
    [
        {"tokens_per_second": "fast"},
        {"tokens_per_second": 1e999},
        {"tokens_per_second": float("nan")},
        {"new_tokens": 2**70},
        {"new_tokens": True},
        {"completions": [{"prompt": 7}]},
        {"completions": "x"},
        {"notes": [1]},
        {"device": 3},
        {"phase": "done"},
        {"begin": "victory"},
        {"begin": ["load"]},
        {"rank": "x", "begin": "load"},
        {"rank": -7, "dtype": "x"},
        {"rank": 10**9, "begin": "load"},
        {"failed": 7},
        {"hung": True, "signal": "SIGKILL", "error": "x", "symptoms": [], "seconds_total": 1, "checkpoint": "y", "processes": 9},
    ],
    ids=str,
)
def test_words_that_make_no_sense_change_nothing(line: dict[str, Any]) -> None:
    good: list[dict[str, Any]] = [
        {"begin": "tokens"},
        {"device": "cuda", "dtype": "bf16", "tokens_per_second": 61.5, "new_tokens": 3, "notes": ["a"]},
    ]
    assert _read([*good, line]) == _read(good)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                [*(field.name for field in dataclasses.fields(Smoke)), "begin", "failed", "rank", "loaded", "of", "token"]
            ),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(PHASES),
                lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
                max_leaves=4,
            ),
        ),
        max_size=6,
    )
)
def test_any_words_make_a_fact_that_json_carries(lines: list[dict[str, Any]]) -> None:
    found = _read(lines)
    assert found.phase in PHASES
    assert from_json(Facts, json.loads(json.dumps(to_json(Facts(smoke=found))))).smoke == found


def test_whoever_waits_reads_what_is_done() -> None:
    plan = dataclasses.replace(PLAN, foreign="/a/folder", new_tokens=32)
    heard = Heard(plan)
    titles = []
    for line in (
        {"begin": "load"},
        {"loaded": int(3.1 * 2**30), "of": int(12.55 * 2**30)},
        {"begin": "tokens"},
        {"token": 17},
        {"begin": "proofs"},
    ):
        heard.line(json.dumps(line))
        titles.append(heard.title)
    assert titles == [
        "loading the weights",
        "loading the weights: 3.1 of 12.55 GiB",
        "generating: 0 of 32 tokens",
        "generating: 17 of 32 tokens",
        "computing again, to compare",
    ]


def test_progress_follows_the_phases(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "say(begin='tokens')\nfor n in (8, 16, 24): say(token=n); time.sleep(0.15)\n" + _until("done")
    monkeypatch.setattr(worker, "FOLDER", _folder(tmp_path / "smoke", body))
    shown: list[str] = []
    examine(_scope(python, Request(PLAN, asked=True)), progress=shown.extend)
    order = list(dict.fromkeys(title for title in shown if title.startswith(("importing", "generating"))))
    assert order[0] == "importing torch in the target interpreter"
    # it is looked at some times a second: a busy machine may miss one, and never shows them out of order
    counts = [int(title.split()[1]) for title in order[1:]]
    assert counts
    assert set(counts) <= {8, 16, 24}
    assert counts == sorted(counts)
    assert "" not in shown


# ---------------------------------------------------------------- the end of the doctor

DOCTOR = """
import os, signal, sys
from pathlib import Path
from gpudoctor import cli
from gpudoctor.examine import examine
from gpudoctor.probes import child, worker
from gpudoctor.probes.scope import Request, Scope
from gpudoctor.smoke.plan import STORIES15M, Plan
signal.signal(signal.SIGINT, cli._ended)
child.adopt()
worker.FOLDER = sys.argv[2]
plan = Plan(name="x", format="none", shape=STORIES15M, device="cpu")
examine(Scope(Path("/"), dict(os.environ), sys.argv[1], "--python", None, Request(plan, True)))
"""
RANKS = """import subprocess
steady = [sys.executable, '-c', 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)']
ranks = [subprocess.Popen(steady, start_new_session=True).pid for _ in range(3)]
open({marks!r}, 'w').write(' '.join(map(str, [os.getpid(), *ranks])) + ' .')
time.sleep(60)
"""


def test_ctrl_c_ends_the_child_and_its_ranks_within_a_second(python: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    folder = _folder(tmp_path / "smoke", _until("load") + RANKS.format(marks=str(marks)))
    doctor = subprocess.Popen([sys.executable, "-c", DOCTOR, str(python), str(folder)], stderr=subprocess.PIPE)
    until = time.monotonic() + 20
    while not (marks.exists() and marks.read_text().endswith(".")) and time.monotonic() < until:
        time.sleep(0.02)
    pids = [int(pid) for pid in marks.read_text().split()[:-1]]
    pressed = time.monotonic()
    doctor.send_signal(signal.SIGINT)
    _, errors = doctor.communicate(timeout=5)
    seconds = time.monotonic() - pressed
    assert (doctor.returncode, errors) == (-signal.SIGINT, b"")
    assert seconds < 1
    assert len(pids) == 4
    assert not any(Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in pids)
