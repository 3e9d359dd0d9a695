"""One recorded machine, rebuilt, examined by the real command line, and what its record expects of the report."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from rich.console import Console

from gpudoctor import codec, steps
from gpudoctor.cures import cures
from gpudoctor.diagnose import built_in, diagnose, on_request
from gpudoctor.facts import Facts, Unknown
from gpudoctor.report import terminal
from tests import trees
from tests.fake_nvml import environ_for
from tests.harness import programs, record, world
from tests.trees.small_elf import small_elf

Json = Any  # recorded JSON

BLIND = Unknown("nobody could look")
ASKED = Path(__file__).with_name("asked.py")
TIME_LIMIT = 60.0
"""Seconds after which a run counts as hung, whatever the record allows."""


@dataclass(frozen=True)
class Built:
    """A machine that stands: where its files are, and how its doctor is called."""

    name: str
    record: Json
    folder: Path
    root: Path
    python: Path
    environ: dict[str, str]
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What the command line said: its document, its exit code, its wall time in seconds."""

    document: Json
    exit_code: int
    seconds: float
    stderr: str


def build(name: str, folder: Path, *, but: Json | None = None) -> Built:
    """Rebuild the recorded machine ``name`` below ``folder``, with what ``but`` says otherwise."""
    root = folder / "root"
    machine = record.merge(record.load(name, root=str(root)), but or {})
    world.build(machine, root)
    path = programs.build(machine, folder)
    scenario = machine.get("nvml")
    gpu = next((gpu.get("name") for gpu in (scenario or {}).get("gpus", [])), None)
    python = _environment(machine.get("python", {}), root, gpu)
    for other in machine.get("others", []):
        _environment(other, root, gpu)
    fake = environ_for({"library": "none", "libcuda": None} if scenario is None else scenario)
    _fakes(machine.get("fakes", {}), root)
    own = dict(machine.get("environ", {}))
    search = ":".join(part for part in (own.pop("LD_LIBRARY_PATH", ""), fake["LD_LIBRARY_PATH"]) if part)
    environ = {
        "PATH": path,
        "HOME": f"{root}/home/ada",
        "USER": "ada",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        **own,
        **fake,
    }
    environ["LD_LIBRARY_PATH"] = search
    if not search:
        del environ["LD_LIBRARY_PATH"]
    arguments = ("check", "--root", str(root), "--python", str(python), *machine.get("arguments", []))
    return Built(name, machine, folder, root, python, environ, arguments)


def _environment(spec: Json, root: Path, gpu: str | None) -> Path:
    """An environment of the machine with its PyTorch, which works on that GPU, and further packages; the path of its python."""
    place = root / spec.get("at", "/home/ada/llama").lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    python = trees.make_environment(place, owner=spec.get("owner", "pip"))
    site = trees.site_packages(python)
    if spec.get("torch"):
        trees.install(spec["torch"], site, **spec.get("as", {}))
        behaviour = spec.get("behaviour", {"available": True, "devices": 1})
        trees.importable(site, behaviour={"gpu": gpu, "smoke": {}, **behaviour})
    for pattern in spec.get("remove", []):
        for path in site.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, text in spec.get("add", {}).items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name, parts in spec.get("add_elf", {}).items():
        flags = ";".join(f"-gencode;arch=compute_{sm},code=sm_{sm}" for sm in (c.replace(".", "") for c in parts.get("sm", [])))
        path = site / name
        path.write_bytes(small_elf(soname=path.name, needed=parts.get("needed", ()), sections={".rodata": flags.encode() + b"\0"}))
    return Path(python)


def _fakes(wanted: dict[str, str], root: Path) -> None:
    """Copies of a fake library at places of the machine where the live loader shall find it: libcuda or libnvidia-ml."""
    folder = Path(environ_for({})["LD_LIBRARY_PATH"].split(":")[0]).parent
    sources = {"libcuda": folder / "cuda/libcuda.so.1", "libnvidia-ml": folder / "full/libnvidia-ml.so.1"}
    for path, name in wanted.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sources[name], place)


def examine(built: Built) -> Report:
    """``gpudoctor check --format json`` on the machine, with the smoke test that its record asks for."""
    if "smoke" in built.record:
        root, python = built.arguments[built.arguments.index("--root") + 1], built.arguments[built.arguments.index("--python") + 1]
        return _answered(built, [sys.executable, str(ASKED), root, python, json.dumps(built.record["smoke"])])
    return _run(built, (*built.arguments, "--format", "json"))


def replay(built: Built, report: Report) -> Report:
    """``gpudoctor check --from`` with that report's document."""
    saved = built.folder / "report.json"
    saved.write_text(json.dumps(report.document), encoding="utf-8")
    return _run(built, ("check", "--from", str(saved), *_judging(built), "--format", "json"))


def text(built: Built, report: Report) -> str:
    """What the terminal shows for the report, blanks and line breaks reduced to single blanks."""
    facts = codec.from_json(Facts, report.document["facts"])
    required = [layer for argument in _required(built)[1:] for layer in argument.split(",")]
    diagnosis = diagnose(facts, required=required, also=_also(built.record))
    console = Console(file=io.StringIO(), width=160, no_color=True, highlight=False, emoji=False, markup=False)
    terminal.render(facts, diagnosis, cures(facts, diagnosis), console)
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def _judging(built: Built) -> tuple[str, ...]:
    """Of the machine's arguments those that judging needs too."""
    return (*_required(built), *(f"--{name.replace('_', '-')}" for name in _also(built.record)))


def _required(built: Built) -> tuple[str, ...]:
    arguments = built.record.get("arguments", [])
    return tuple(arguments[arguments.index("--require") :][:2]) if "--require" in arguments else ()


def _also(machine: Json) -> tuple[str, ...]:
    """The checks on request that the machine's arguments ask for."""
    return ("next_boot",) if "--next-boot" in machine.get("arguments", []) else ()


def _run(built: Built, arguments: tuple[str, ...]) -> Report:
    return _answered(built, [sys.executable, "-m", "gpudoctor", *arguments])


def _answered(built: Built, command: list[str]) -> Report:
    started = time.monotonic()
    done = subprocess.run(  # a hang of the doctor itself is a failure of the test
        command, env=built.environ, cwd=built.folder, capture_output=True, timeout=TIME_LIMIT, check=False, stdin=subprocess.DEVNULL
    )
    seconds = time.monotonic() - started
    stderr = done.stderr.decode("utf-8", "replace")
    try:
        document = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(
            f"{built.name}: no JSON on stdout (exit {done.returncode}):\n{done.stdout[:500]!r}\n{stderr[-3000:]}"
        ) from None
    return Report(document, done.returncode, seconds, stderr)


# ---------------------------------------------------------------- what the record expects


def findings(report: Report) -> list[Json]:
    """All findings of a document, in its order."""
    return [finding for check in report.document["checks"] for finding in check["findings"]]


def disagreements(built: Built, report: Report, shown: str) -> list[str]:
    """Every point in which the report is not what the record expects, each as a line."""
    wanted = built.record["expect"]
    document = report.document
    found = findings(report)
    wrong = []
    roots = wanted.get("root_causes", [])
    status = wanted.get("status", "fail" if roots else "pass")
    exit_code = wanted.get("exit", {"fail": 1, "unknown": 3}.get(status, 0))
    for what, value, expected in (
        ("root_causes", document["root_causes"], roots),
        ("status", document["status"], status),
        ("exit", report.exit_code, exit_code),
        ("findings", sorted({f["code"] for f in found}), sorted(wanted.get("findings", roots))),
    ):
        if value != expected:
            wrong.append(f"{what}: {value}, expected {expected}")
    statuses = {check["name"]: check["status"] for check in document["checks"]}
    wrong += [
        f"check {name}: {statuses.get(name)}, expected {s}"
        for name, s in wanted.get("checks", {}).items()
        if statuses.get(name) != s
    ]
    wrong += [f"the text lacks {words!r}" for words in wanted.get("says", []) if words not in shown]
    wrong += [f"the text has {words!r}" for words in wanted.get("never_says", []) if words in shown]
    wrong += _wrong_facts(document["facts"], wanted.get("facts", {}))
    wrong += _wrong_cure(wanted, found)
    if "seconds" in wanted and report.seconds > wanted["seconds"]:
        wrong.append(f"took {report.seconds:.1f} s, expected at most {wanted['seconds']}")
    return wrong


def _wrong_cure(wanted: Json, found: list[Json]) -> list[str]:
    """The first finding's cure against step, where and commands; further findings' commands against ``fixes``."""
    first = next(iter(wanted.get("root_causes") or wanted.get("findings") or [""]))
    fixes = {finding["code"]: finding["fix"] for finding in found}
    expected = {code: list(words) for code, words in wanted.get("fixes", {}).items()}
    expected.setdefault(first, []).extend(wanted.get("commands", []))
    wrong = []
    for code, words in expected.items():
        commands = "\n".join(fixes.get(code, {}).get("commands", []))
        wrong += [f"the commands for {code} lack {word!r}: {commands!r}" for word in words if word not in commands]
    fix = fixes.get(first, {})
    return wrong + [
        f"{key}: {fix.get(key)}, expected {wanted[key]}"
        for key in ("step", "where")
        if key in wanted and fix.get(key) != wanted[key]
    ]


def _wrong_facts(facts: Json, wanted: Json) -> list[str]:
    wrong = []
    for path, expected in wanted.items():
        value = facts
        for key in path.split("."):
            if isinstance(value, list):
                value = value[int(key)] if int(key) < len(value) else None
            else:
                value = value.get(key) if isinstance(value, dict) else None
        if value != expected:
            wrong.append(f"fact {path}: {value!r}, expected {expected!r}")
    return wrong


def unfilled(report: Report) -> list[str]:
    """Commands with a $NAME in upper case that nobody filled in. The shell's own variables are lower case on the pages."""
    commands = [(f["code"], command) for f in findings(report) for command in (*f["fix"]["commands"], *f["fix"]["verify"])]
    return [f"{code}: {command}" for code, command in commands if re.search(r"\$\{?[A-Z][A-Z0-9_]*\b", command)]


def miscured(report: Report) -> list[str]:
    """Findings whose section does not say that it cures them."""
    wrong = []
    for finding in findings(report):
        section = steps.find(finding["fix"]["step"])
        if finding["code"] not in section.cures:
            wrong.append(f"{finding['code']}: {finding['fix']['step']} cures {', '.join(section.cures)}")
    return wrong


def same_diagnosis(first: Report, second: Report) -> list[str]:
    """Differences between two reports of the same facts, the time that checks took apart."""
    differences = [
        f"{key}: {second.document[key]!r}, was {first.document[key]!r}"
        for key in ("status", "root_causes", "facts")
        if first.document[key] != second.document[key]
    ]
    for old, new in zip(first.document["checks"], second.document["checks"], strict=True):
        if {**old, "seconds": 0} != {**new, "seconds": 0}:
            differences.append(f"check {old['name']}: {new}, was {old}")
    if first.exit_code != second.exit_code:
        differences.append(f"exit {second.exit_code}, was {first.exit_code}")
    return differences


def blinded(report: Report) -> Iterator[tuple[str, Facts]]:
    """The report's facts with one of them unknown, each fact that can be unknown in turn: (its path, the facts)."""
    facts = codec.from_json(Facts, report.document["facts"])
    for field, hint in get_type_hints(Facts).items():
        value = getattr(facts, field)
        if Unknown in get_args(hint):
            yield field, _with(facts, field, BLIND)
        for inner, changed in _blinded_inside(value):
            yield f"{field}.{inner}", _with(facts, field, changed)


def _with(facts: Facts, field: str, value: Any) -> Facts:
    return replace(facts, **{field: value})


def _blinded_inside(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        yield from ((f"0.{name}", (changed, *value[1:])) for name, changed in _blinded_inside(value[0]))
    if not is_dataclass(value) or isinstance(value, (type, Unknown)):
        return
    for name, hint in get_type_hints(type(value)).items():
        if Unknown in get_args(hint):
            yield name, replace(value, **{name: BLIND})
        if isinstance(getattr(value, name), tuple):
            yield from (
                (f"{name}.{inner}", replace(value, **{name: changed})) for inner, changed in _blinded_inside(getattr(value, name))
            )


def wrong_when_blind(report: Report) -> list[str]:
    """With any one fact unknown: checks that crash, findings without a cure, and faults invented on a machine that has none."""
    seen = codec.from_json(Facts, report.document["facts"])
    healthy = not report.document["root_causes"] and not diagnose(seen, checks=on_request()).root_causes
    wrong = []
    for path, facts in blinded(report):
        diagnosis = diagnose(facts, checks=(*built_in(), *on_request()))
        cures(facts, diagnosis)
        wrong += [f"without {path}: {f.evidence[0].text}" for f in diagnosis.findings if f.code == "check-crashed"]
        if healthy and diagnosis.root_causes:
            wrong.append(f"without {path}: {', '.join(diagnosis.root_causes)}")
    return wrong


def main() -> None:
    """``python -m tests.harness.machine NAME``: rebuild a machine in a folder of its own and print how to examine it."""
    folder = Path(tempfile.mkdtemp(prefix=f"machine-{sys.argv[1]}-"))
    built = build(sys.argv[1], folder)
    report = examine(built)
    sys.stdout.write(json.dumps(report.document, indent=1) + "\n" + text(built, report) + "\n")
    sys.stdout.write("\n".join(disagreements(built, report, text(built, report))) + f"\n{folder}  {report.seconds:.2f} s\n")


if __name__ == "__main__":
    main()
