"""Devices, kinds of numbers, checkpoints, the command line: what is at fault in how a program is run."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .told import Suspect, Told

_GATED = re.compile(r"(?i)meta-llama/|google/gemma|mistralai/|stabilityai/|black-forest-labs/|bigcode/|CohereForAI/")
_HUB = re.compile(r"(?i)huggingface|hf\.co|gated|repo|llama")
_OPTION = re.compile(r"^\s{0,4}-{1,2}\w|\\|^\s*$")


def half(told: Told) -> Iterator[Suspect]:
    """16-bit numbers without code: on a CPU, or bfloat16 where an older PyTorch has none."""
    for symptom in told.said("half-not-implemented", "bf16-not-implemented", "half-not-supported"):
        on_gpu = "cuda" in symptom.text.split("not implemented")[0].lower()
        if not on_gpu:
            yield Suspect("half-not-supported-on-cpu", 93 if "Half" in symptom.text else 78, (symptom,))
        elif "BFloat16" in symptom.text:
            yield Suspect("bf16-unsupported-gpu", 56, (symptom,))


def devices(told: Told) -> Iterator[Suspect]:
    """Input and weights of two types: on two devices, or of two kinds of numbers, which is the program's own business."""
    symptom = told.first("same-device-types")
    if symptom is not None:
        first, second = symptom.value("first") or "", symptom.value("second") or ""
        if ("cuda" in first) != ("cuda" in second):
            yield Suspect("tensors-on-different-devices", 94, (symptom,))
        elif "cuda" not in first and "Half" in first + second:
            yield Suspect("half-not-supported-on-cpu", 55, (symptom,))


def checkpoint_folder(told: Told) -> Iterator[Suspect]:
    """The folder that is searched is an option: the shell's line was cut. Else it has no checkpoint."""
    for symptom in told.said("llama-no-checkpoints"):
        cut = _OPTION.match(symptom.value("folder") or "")
        yield Suspect("command-line-malformed" if cut else "checkpoint-missing", 95 if cut else 93, (symptom,))


def arguments(told: Told) -> Iterator[Suspect]:
    """An argument that did not arrive, of a program for models."""
    symptom = told.first("required-argument")
    if symptom is None:
        return
    named = f"{symptom.value('name') or ''}{symptom.value('names') or ''}"
    if told.has("clue-c10d") or re.search(r"ckpt|tokenizer|training_script|model", named):
        yield Suspect("command-line-malformed", 80, (symptom,))


def repository(told: Told) -> Iterator[Suspect]:
    """Hugging Face tells neither a name that does not exist nor one that this account may not know."""
    said = told.said("hf-no-such-repo", "hf-not-appear")
    token = told.said("hub-token")
    gated = any(_GATED.search(symptom.text) for symptom in said)
    if said and token and gated:
        yield Suspect("gated-repo-unauthorized", 86, (*said, *token))


def damaged(told: Told) -> Iterator[Suspect]:
    """A safetensors file that does not begin as one; a header of some megabytes that is really there is a limit of the library."""
    said = told.said("safetensors-header")
    if said and not told.has("clue-large-file"):
        yield Suspect("file-is-lfs-pointer-or-truncated", 93, said)
    empty = told.said("bare-eof")
    if empty and told.has("clue-loads-model", "clue-reads-pickle"):
        yield Suspect("file-is-lfs-pointer-or-truncated", 86, empty)


def less_where_it_works(told: Told, suspect: Suspect) -> int:
    """A warning after which all went on."""
    warned = all("warn" in symptom.text.lower() or " was compiled without" in symptom.text for symptom in suspect.said)
    return 40 if warned and told.has("clue-works-after-all") else 0


def less_for_the_launch(told: Told, suspect: Suspect) -> int:
    """Where a better word is in the same text."""
    surely_cut = told.has("pickle-load-key", "lfs-pointer", "operand-118", "zip-central-directory")
    if suspect.code == "file-is-lfs-pointer-or-truncated" and told.has("weights-only", "weights-only-unpickler") and not surely_cut:
        return 20
    if suspect.code == "weights-only-unpickling" and surely_cut:
        return 12
    if suspect.code == "file-is-lfs-pointer-or-truncated" and told.has("clue-large-file"):
        return 60
    if suspect.code == "checkpoint-missing" and told.has("hub-gated", "llama-mp", "hub-unreachable"):
        return 30
    if (
        suspect.code == "gated-repo-unauthorized"
        and not told.has("hub-gated", "hub-token")
        and told.has("meta-download-403")
        and not told.names("llama")
    ):
        return 10
    if suspect.code == "gated-repo-unauthorized" and not any(_HUB.search(symptom.text) for symptom in suspect.said):
        return 45
    if suspect.code == "device-side-assert-index" and suspect.sure < 90 and told.has("oom-any"):
        return 20
    if suspect.code == "invalid-device-ordinal" and told.has("nccl-duplicate-gpu", "nccl-duplicate-words"):
        return 10
    return 0


RULES = (half, devices, checkpoint_folder, arguments, repository, damaged)
DOUBTS = (less_where_it_works, less_for_the_launch)
