"""What ``gpudoctor smoke`` says, of facts made by hand: a run that came through, one that died, one that never began."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gpudoctor.cures import cures
from gpudoctor.diagnose import CheckResult, Diagnosis
from gpudoctor.facts import Completion, Facts, Skipped, Smoke, Unknown
from gpudoctor.findings import Finding, Fix
from gpudoctor.report import smoke as report
from gpudoctor.report import smoke_document
from gpudoctor.roofline import share_of_bandwidth
from gpudoctor.smoke.plan import STORIES15M, Plan, Shape
from tests import healthy, smoke_schema

LLAMA = Shape(dim=4096, layers=32, heads=32, kv_heads=32, head_dim=128, hidden=11008, vocab=32000, max_seq_len=4096)
PLAN = Plan(name="llama-2-7b", format="none", shape=LLAMA, no_tokenizer="random weights have no tokenizer")
REAL = replace(PLAN, name="SmolLM2", format="transformers", foreign="/models/smol", no_tokenizer=None)
PASSED = CheckResult("smoke", "smoke test", "pass", "32 tokens at 61 tokens/s", (), None, 0.1)


def smoke(**changes: Any) -> Smoke:
    """Llama 2 7B in bf16 on the story's card, all well."""
    own: dict[str, Any] = {
        "checkpoint": "llama-2-7b",
        "parameters": 6_738_415_616,
        "difference": 0.003,
        "seconds_to_first_token": 0.052,
        "seconds_total": 9.3,
        "tokens_per_second": 29.2,
        "bytes_per_token": 13_476_000_000,
        "needed_memory": 13 << 30,
        "free_memory": 14 << 30,
        "predicted_memory": int(12.83 * (1 << 30)),
        "peak_memory": int(12.9 * (1 << 30)),
        "completions": (Completion("The capital of France is", (3681, 338, 29871), None, None),),
    }
    return healthy.smoke(**{**own, **changes})


CPU: dict[str, Any] = {
    "device": "cpu",
    "device_name": "AMD EPYC",
    "dtype": "fp32",
    "backend": "gloo",
    "difference": None,
    "tolerance": None,
    "free_memory": None,
}


def shown(facts: Facts, diagnosis: Diagnosis | None = None, *, plan: Plan = PLAN, width: int = 200, encoding: str = "utf-8") -> str:
    diagnosis = diagnosis or Diagnosis("pass", (), (PASSED,))
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    report.render(plan, facts, diagnosis, cures(facts, diagnosis), Console(file=file, width=width, force_terminal=False))
    file.flush()
    file.seek(0)
    return file.read()


def one_line(text: str) -> str:
    return " ".join(text.split())


def made(facts: Facts, diagnosis: Diagnosis | None = None, *, plan: Plan = PLAN) -> dict[str, Any]:
    diagnosis = diagnosis or Diagnosis("pass", (), (PASSED,))
    document: dict[str, Any] = json.loads(smoke_document.render(plan, facts, diagnosis, cures(facts, diagnosis)))
    jsonschema.validate(document, smoke_schema.schema())
    return document


def died(code: str = "smoke-died", **changes: Any) -> tuple[Facts, Diagnosis]:
    finding = Finding(code, "fail", "It was killed while loading", "Host memory ran out.", (), Fix("gpudoctor#report-a-bug"))
    result = CheckResult("smoke", "smoke test", "fail", "killed while loading", (finding,), None, 0.1)
    values: dict[str, Any] = {"phase": "load", "signal": "SIGKILL", "tokens_per_second": None, "completions": (), **changes}
    return healthy.facts(smoke=smoke(**values)), Diagnosis("fail", (code,), (result,))


# ---------------------------------------------------------------- a run that came through


def test_the_first_line_says_what_was_run_and_that_the_weights_are_random() -> None:
    assert one_line(shown(healthy.facts(smoke=smoke()))).startswith(
        "llama-2-7b · random weights: memory, kernels and speed are tested, the text is noise · 6.74 B parameters, bf16 · "
        f"NVIDIA GeForce RTX 4070 · {healthy.PYTHON} (3.10) "
    )


def test_every_proof_has_its_line() -> None:
    text = shown(healthy.facts(smoke=smoke()))
    for line in (
        "✓ logits      finite",
        "✓ agreement   CPU and GPU agree (largest difference 0.30 % of 5.00 % allowed)",
        "✓ repetition  greedy decoding repeats",
        "✓ NCCL        all-reduce right (world of 1)",
        "✓ speed       29.2 tokens/s, 78 % of this card's memory bandwidth (504 GB/s); first token after 52 ms; 9.3 s in all",
        "✓ memory      peak 12.90 GiB of 14.00 GiB free",
        "The smoke test passed.",
    ):
        assert line in text
    assert "GPU  " not in text


def test_what_was_not_tested_is_said() -> None:
    text = shown(healthy.facts(smoke=smoke(difference=None, repeatable=None, all_reduce=None, finite=None, tokens_per_second=None)))
    for line in (
        "– logits      not looked at",
        "– agreement   not compared",
        "– repetition  not tried",
        "– NCCL        not started",
        "– speed       not measured with so few tokens",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("device", "facts", "says"),
    [
        (None, healthy.facts(pci=(), nvml=Unknown("no library")), "this machine has no NVIDIA GPU"),
        ("cpu", healthy.facts(), "as asked"),
        (None, healthy.facts(), "PyTorch offers no GPU here"),
    ],
    ids=["no GPU", "asked", "not offered"],
)
def test_nobody_thinks_that_a_gpu_was_tested_on_the_cpu(device: str | None, facts: Facts, says: str) -> None:
    text = shown(replace(facts, smoke=smoke(**CPU)), plan=replace(PLAN, device=device))
    first = " ".join(text.splitlines()[:3])
    assert says in first
    assert "no GPU is tested" in first
    assert "– GPU         not tested" in text
    assert "gloo        all-reduce right" in text
    assert "The smoke test passed on the CPU." in text
    assert "CPU (AMD EPYC)" in one_line(text)


def test_words_are_shown_where_there_are_words_and_ids_with_the_reason_where_not() -> None:
    words = Completion("The capital of France is", (1, 2), " Paris.\nIt is", None)
    text = shown(healthy.facts(smoke=smoke(completions=(words, Completion("A", (5, 6, 7), None, None)))))
    assert "  prompt  The capital of France is\n  text     Paris.\n          It is\n" in text
    assert "  tokens  5 6 7  (no words: random weights have no tokenizer)\n" in text


def test_log_probabilities_are_told_one_by_one_and_as_a_whole() -> None:
    text = shown(healthy.facts(smoke=smoke(completions=(Completion("A", (5, 6), "b", (-0.5, -1.5)),))))
    assert "mean -1.00, perplexity 2.718; 5:-0.50  6:-1.50" in text


def test_notes_are_shown() -> None:
    assert "· no tokenizer: sentencepiece is not installed" in shown(
        healthy.facts(smoke=smoke(notes=("no tokenizer: sentencepiece is not installed",)))
    )


def test_several_processes_are_told_with_their_bandwidth() -> None:
    text = shown(healthy.facts(smoke=smoke(processes=4, all_reduce_bandwidth=210_000_000_000)))
    assert "4 x NVIDIA GeForce RTX 4070" in one_line(text)
    assert "all-reduce right (world of 4, 210 GB/s bus bandwidth)" in text


@pytest.mark.parametrize("width", [20, 45, 80, 300])
def test_it_fits_the_terminal(width: int) -> None:
    text = shown(healthy.facts(smoke=smoke(completions=(Completion("A " * 50, (1,), "b " * 200, (-1.0,)),))), width=width)
    assert max(len(line) for line in text.splitlines()) <= max(width, 24)
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_a_terminal_without_unicode_gets_ascii() -> None:
    facts = healthy.facts(smoke=smoke(completions=(Completion("a", (1,), "plain", (-1.0,)),), notes=("a note",)))
    assert shown(facts, encoding="ascii").isascii()


@given(st.text(), st.text())
def test_any_text_comes_out_without_control_characters(prompt: str, text: str) -> None:
    made = shown(healthy.facts(smoke=smoke(completions=(Completion(prompt, (1,), text, None),), notes=(text,), device_name=text)))
    assert not any(ord(c) < 32 and c not in "\n\t" for c in made)
    assert "\x9b" not in made
    assert "\x7f" not in made


# ---------------------------------------------------------------- one that did not


def test_a_death_is_told_like_check_does() -> None:
    facts, diagnosis = died()
    text = shown(facts, diagnosis)
    assert "✗ smoke test  killed while loading" in text
    assert "1  It was killed while loading  (smoke-died)" in text
    assert "1 fault. Cure it, then run gpudoctor smoke again. gpudoctor check shows all layers." in text
    assert "tokens/s" not in text


@pytest.mark.parametrize("what", [Skipped("a GPU that others use"), Unknown("a GPU that others use")], ids=["skipped", "unknown"])
def test_no_end_is_no_pass(what: Skipped | Unknown) -> None:
    result = CheckResult("smoke", "smoke test", "skipped", "skipped: a GPU that others use", (), None, 0.1)
    text = shown(healthy.facts(smoke=what), Diagnosis("unknown", (), (result,)))
    assert "– smoke test  skipped: a GPU that others use" in text
    assert "No fault was found, but the smoke test came to no end. gpudoctor check shows all layers." in text
    assert "llama-2-7b · random weights" in text


# ---------------------------------------------------------------- the document


def test_the_published_schema_is_that_of_the_code() -> None:
    assert json.loads(smoke_schema.PATH.read_text(encoding="utf-8")) == smoke_schema.schema()


def test_the_document_has_the_keys_of_the_contract() -> None:
    found = made(healthy.facts(smoke=smoke(completions=(Completion("A", (5,), " b", (-0.5,)),))))
    assert found["schema"] == "gpudoctor.smoke/1"
    assert found["checkpoint"] == {"name": "llama-2-7b", "format": "none", "parameters": 6_738_415_616, "weights": "random"}
    assert found["device"] == "cuda"
    assert found["tokens_per_second"] == 29.2
    assert found["seconds_to_first_token"] == 0.052
    assert found["seconds_total"] == 9.3
    assert found["peak_memory_bytes"] == int(12.9 * (1 << 30))
    assert found["predicted_memory_bytes"] == int(12.83 * (1 << 30))
    assert found["memory_bandwidth_fraction"] == pytest.approx(0.78, abs=0.005)
    assert found["completions"] == [{"prompt": "A", "tokens": [5], "text": " b", "logprobs": [-0.5]}]
    assert found["findings"] == []


@pytest.mark.parametrize("what", [Skipped("why"), Unknown("why")], ids=["skipped", "unknown"])
def test_every_key_is_there_where_nothing_was_run(what: Skipped | Unknown) -> None:
    whole, empty = made(healthy.facts(smoke=smoke())), made(healthy.facts(smoke=what), Diagnosis("unknown", (), ()))
    assert list(whole) == list(empty)
    assert empty["reason"] == "why"
    assert empty["checkpoint"]["weights"] == "random"
    assert made(healthy.facts(smoke=what), plan=REAL)["checkpoint"]["weights"] == "real"


def test_a_death_has_its_findings_as_in_a_report_of_check() -> None:
    found = made(*died())
    assert (found["status"], found["root_causes"], found["phase"]) == ("fail", ["smoke-died"], "load")
    assert set(found["findings"][0]) == {"code", "severity", "summary", "cause", "evidence", "fix"}


def test_what_json_cannot_say_is_null() -> None:
    nan = float("nan")
    found = made(healthy.facts(smoke=smoke(difference=nan, completions=(Completion("\ud800", (5,), None, (nan, -float("inf"))),))))
    assert found["proofs"]["difference"] is None
    assert found["completions"][0]["logprobs"] == [None, None]


# ---------------------------------------------------------------- the share of the memory's bandwidth


def test_the_share_is_of_the_table_where_the_card_is_in_it_and_of_the_measured_where_not() -> None:
    known = share_of_bandwidth(healthy.facts(smoke=smoke()))
    other = share_of_bandwidth(healthy.facts(smoke=smoke(device_name="NVIDIA Something New")))
    assert known is not None
    assert other is not None
    assert (known.of_table, known.bandwidth) == (True, 504_200_000_000)
    assert (other.of_table, other.bandwidth) == (False, 450_000_000_000)
    assert other.fraction == pytest.approx(29.2 * 13_476_000_000 / 450_000_000_000)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens_per_second": None},
        {"bytes_per_token": None},
        {"bytes_per_token": 30 << 20},
        {"device_name": "unheard of", "bandwidth": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_share_that_means_nothing_is_none(changes: dict[str, Any]) -> None:
    assert share_of_bandwidth(healthy.facts(smoke=smoke(**changes))) is None


def test_a_small_model_on_a_cpu_has_a_share_of_what_was_measured_in_the_same_run() -> None:
    plan = replace(PLAN, shape=STORIES15M)
    found = made(
        healthy.facts(smoke=smoke(**CPU, bytes_per_token=61_000_000, tokens_per_second=100.0, bandwidth=12_200_000_000)), plan=plan
    )
    assert found["memory_bandwidth_fraction"] == pytest.approx(0.5)
    assert found["memory_bandwidth_source"] == "measured"


@pytest.mark.parametrize("facts", [Facts(smoke=Skipped("blocked")), Facts(smoke=healthy.died("load"))], ids=["skipped", "died"])
def test_a_test_that_came_to_no_end_claims_to_have_tested_nothing(facts: Facts) -> None:
    text = shown(facts)
    assert "random weights" in text.splitlines()[0]
    assert "are tested" not in text.splitlines()[0]
