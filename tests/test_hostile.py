"""Files, surroundings and documents that nobody should have, and somebody has."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from gpudoctor import codec
from gpudoctor.cures import cures
from gpudoctor.diagnose import diagnose
from gpudoctor.facts import Facts
from gpudoctor.probes import environments, packages
from gpudoctor.probes.scope import Scope
from gpudoctor.report import document, github, junit, markdown, prometheus, terminal
from tests import healthy
from tests.trees import make_environment, site_packages

CHECK = [sys.executable, "-m", "gpudoctor", "check", "--no-import"]
FORMATS = ("text", "json", "markdown", "junit", "github", "prometheus")
DEEP = "[" * 100_000
NOBODY = 65534


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*CHECK, *arguments], capture_output=True, timeout=60, check=False, **options)


def listing(root: Path) -> dict[str, tuple[int, ...]]:
    """Every name below the root with what a change would alter; the time of access is nobody's business."""
    found: dict[str, tuple[int, ...]] = {}
    for folder, folders, files in os.walk(root, onerror=lambda _: None):
        for name in [*folders, *files, "."]:
            status = os.lstat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = (
                status.st_mode,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
            )
    return found


# ---------------------------------------------------------------- a root of horrors

# every file that a probe reads, so that each can be something else
FILES = (
    "etc/os-release",
    "etc/ld.so.conf",
    "etc/passwd",
    "etc/group",
    "etc/prime-discrete",
    "etc/cdi/nvidia.yaml",
    "etc/modprobe.d/a.conf",
    "proc/version",
    "proc/modules",
    "proc/meminfo",
    "proc/cmdline",
    "proc/self/mounts",
    "proc/self/cgroup",
    "proc/1/cgroup",
    "proc/sys/kernel/osrelease",
    "proc/driver/nvidia/version",
    "proc/1/environ",
    "sys/module/nvidia/version",
    "sys/class/dmi/id/sys_vendor",
    "sys/bus/pci/devices/0000:01:00.0/vendor",
    "sys/bus/pci/devices/0000:01:00.0/class",
    "sys/bus/pci/devices/0000:01:00.0/device",
    "sys/bus/pci/devices/0000:01:00.0/config",
    "sys/bus/pci/devices/0000:01:00.0/power/runtime_status",
    "sys/bus/pci/devices/0000:01:00.0/driver",
    "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
    "sys/firmware/efi/efivars/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23",
    "usr/share/misc/pci.ids",
    "var/lib/dpkg/status",
    "var/log/kern.log",
    "var/lib/dkms/nvidia/535.86.10/build/make.log",
    "lib/modules/6.2.0-26-generic/updates/dkms/nvidia.ko",
    "boot/vmlinuz-6.2.0-26-generic",
    "usr/lib/x86_64-linux-gnu/libcuda.so.1",
    "usr/lib/x86_64-linux-gnu/libnccl.so.2",
    "usr/lib/x86_64-linux-gnu/libcudnn.so.9",
    "usr/local/cuda-12.4/bin/nvcc",
    "usr/local/cuda-12.4/version.json",
    "usr/local/cuda-12.4/version.txt",
    "usr/local/cuda-12.4/include/cuda.h",
    "root/.conda/environments.txt",
    "root/.local/share/jupyter/kernels/a/kernel.json",
    "root/.virtualenvs/a/pyvenv.cfg",
    "dev/nvidia0",
    "dev/shm",
)


def _fifo(place: Path) -> None:
    os.mkfifo(place)


def _socket(place: Path) -> None:
    here = os.getcwd()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        try:
            os.chdir(place.parent)  # a socket's name is short
            server.bind(place.name[:90])
        finally:
            os.chdir(here)


def _sparse(place: Path) -> None:
    with place.open("wb") as file:
        file.truncate(10 << 30)


def _device(place: Path) -> None:
    try:
        os.mknod(place, 0o20666, os.makedev(1, 5))  # zero
    except OSError:
        _fifo(place)


def _circle(place: Path) -> None:
    other = place.with_name(place.name + ".b")
    place.symlink_to(other.name)
    other.symlink_to(place.name)


HORRORS: dict[str, Callable[[Path], object]] = {
    "pipes": _fifo,
    "sockets": _socket,
    "folders": Path.mkdir,
    "links-to-themselves": lambda place: place.symlink_to(place.name),
    "links-in-a-circle": _circle,
    "links-to-zero": lambda place: place.symlink_to("/dev/zero"),
    "devices": _device,
    "sparse-ten-gigabytes": _sparse,
    "empty": Path.touch,
    "binary": lambda place: place.write_bytes(bytes(range(256)) * 1000),
    "one-endless-line": lambda place: place.write_bytes(b"a=1,0x10de NVRM Xid include /\xff" * 100_000),
    "deeply-nested": lambda place: place.write_text(DEEP),
    "digits": lambda place: place.write_text("9" * 10_000),
    "unreadable": lambda place: place.touch(mode=0),
}


@pytest.mark.parametrize("horror", HORRORS)
def test_a_root_in_which_every_file_is_something_else(horror: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        HORRORS[horror](root / name)
    before, started = listing(root), time.monotonic()
    done = run("--root", str(root), "--format", "json", env={"PATH": "/nonexistent", "HOME": "/root"})
    seconds = time.monotonic() - started
    assert done.stderr == b""
    assert b"the probe failed" not in done.stdout
    assert b"no answer within" not in done.stdout
    assert json.loads(done.stdout)["status"] in ("fail", "unknown")
    assert listing(root) == before
    assert seconds < 10


def test_a_root_whose_folders_are_files(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("etc", "proc", "sys", "usr", "lib", "var", "root", "boot", "dev", "run"):
        (root / name).write_text("no folder")
    done = run("--root", str(root), "--format", "json")
    assert done.stderr == b""
    assert b"the probe failed" not in done.stdout


NAMES = ["\n", "a\nb", "\x1b[31mred", "\u202eorder", "a b'c\"d$(e)`f`", "-rf", "*", os.fsdecode(b"\xff\xfe"), "%s%n{0}", "9" * 200]


def test_names_that_no_one_would_give_reach_no_terminal(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in NAMES:
        for place in (
            f"lib/modules/{name}/updates",
            f"sys/bus/pci/devices/{name}",
            f"var/lib/dkms/nvidia/5{name}/{name}/x86_64/module",
            f"usr/local/cuda-12.4/targets/{name}/include",
            f"etc/modprobe.d/{name}.conf",
            f"root/{name}/.venv/bin",
            f"dev/nvidia{name}",
            f"root/.local/share/jupyter/kernels/{name}",
            f"root/{name}/.venv/lib/python3.10/site-packages/torch",
        ):
            with contextlib.suppress(FileExistsError):
                (root / place).mkdir(parents=True)
        (root / f"root/{name}/.venv/pyvenv.cfg").write_text("home = /usr/bin")
        (root / f"root/{name}/.venv/bin/python").touch()
        (root / f"root/.local/share/jupyter/kernels/{name}/kernel.json").write_text('{"argv": ["/a\\u0000b\\ud800"]}')
        (root / f"sys/bus/pci/devices/{name}/vendor").write_text("0x10de\n")
        (root / f"sys/bus/pci/devices/{name}/class").write_text("0x030000\n")
        (root / f"sys/bus/pci/devices/{name}/device").write_text(f"0x{name}\n", errors="surrogateescape")
    for output_format in FORMATS:
        done = run("--root", str(root), "--format", output_format, env={"PATH": "/nonexistent", "HOME": "/root"})
        assert done.stderr == b""
        assert b"\x1b" not in done.stdout
        assert "\u202e" not in done.stdout.decode()
        assert b"the probe failed" not in done.stdout
        assert done.returncode in (1, 3)


# ---------------------------------------------------------------- too much of everything


def test_too_much_of_everything_is_bounded(tmp_path: Path) -> None:
    root = tmp_path / "root"
    bus = root / "sys/bus/pci/devices"
    for number in range(2000):
        device = bus / f"{number:04x}:01:00.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text("0x030000\n")
        (device / "device").write_text("0x2786\n")
    for number in range(500):
        (root / f"lib/modules/6.8.0-{number}-generic/updates/dkms").mkdir(parents=True)
        (root / f"lib/modules/6.8.0-{number}-generic/updates/dkms/nvidia.ko").touch()
    for number in range(3000):
        (root / f"root/venv{number}").mkdir(parents=True)
        (root / f"root/venv{number}/pyvenv.cfg").write_text("home = /usr")
    (root / "root/.conda").mkdir()
    (root / "root/.conda/environments.txt").write_bytes(b"/a\0b\n/\xff\n\n/..\n" + b"/root/envs/x\n" * 200_000)
    (root / "etc").mkdir()
    (root / "etc/ld.so.conf").write_text("include /etc/ld.so.conf\ninclude /etc/*\ninclude ld.so.conf\n" + "/lib/x\n" * 10_000)
    stanza = b"Package: linux-image-%d\nStatus: install ok installed\nVersion: 1\nDescription: " + b"x" * 400 + b"\n\n"
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_bytes(
        b"".join(stanza % number for number in range(1000)) + b"Package: aaaa\n\n" * 3_000_000
    )
    (root / "var/log").mkdir()
    (root / "var/log/kern.log").write_bytes(
        b"[    1.000000] NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', GPU has fallen off\n" * 60_000
    )
    started = time.monotonic()
    done = run("--root", str(root), "--format", "json", env={"PATH": "/nonexistent", "HOME": "/root"})
    seconds = time.monotonic() - started
    assert done.stderr == b""
    assert b"the probe failed" not in done.stdout
    assert b"no answer within" not in done.stdout
    assert len(done.stdout) < 8 << 20
    assert seconds < 15


def test_a_regular_expression_has_no_bad_day_with_the_package_list(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    for text in (b"Package: nvidia" + b"-a" * 2_000_000, b"Package: linux-" * 500_000, b"Package: cuda\n" * 100_000):
        (tmp_path / "var/lib/dpkg/status").write_bytes(text)
        started = time.monotonic()
        packages.look(Scope(tmp_path, {}, None, "own"))
        assert time.monotonic() - started < 3


def test_the_search_for_environments_ends_in_time_where_there_are_none(tmp_path: Path) -> None:
    for number in range(40):
        for inner in range(50):
            (tmp_path / f"root/{number}/{inner}").mkdir(parents=True)
    ticks = iter(range(1000))
    assert environments.look(Scope(tmp_path, {"HOME": "/root"}, None, "own"), clock=lambda: next(ticks) / 100) == ()
    assert next(ticks) < 300


VERSION_FILES = {
    "fifty-megabytes": "#" * (50 << 20),
    "nested": "__version__ = " + "(" * 60_000,
    "sums": "__version__ = " + "1+" * 30_000 + "1",
    "signs": "__version__ = " + "-" * 60_000 + "1",
    "dots": "cuda = a" + ".b" * 30_000,
    "escapes": "__version__ = '2.1.0\x1b[31m'\ncuda = '\u202e12'\n",
    "latin-1": "__version__ = '2.1.0\udcff'\n",
    "lists": "__version__ = " + "[" * 30_000 + "]" * 30_000,
}


@pytest.mark.parametrize("text", VERSION_FILES.values(), ids=VERSION_FILES)
def test_a_version_file_can_be_anything(text: str, tmp_path: Path) -> None:
    """In a process of its own: the text may end it."""
    (tmp_path / "version.py").write_text(text, errors="surrogateescape")
    source = (
        "import sys, pathlib; from gpudoctor.probes import torch_files; from gpudoctor.probes.scope import Scope; "
        "print(torch_files.version_file(pathlib.Path(sys.argv[1]), Scope(pathlib.Path('/'), {}, None, 'own')).version)"
    )
    done = subprocess.run([sys.executable, "-c", source, str(tmp_path)], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


@pytest.mark.parametrize("name", ["plain", "with space, quo'te\"s and $(x)", "new\nline"])
def test_an_environment_full_of_garbage_on_any_path(name: str, tmp_path: Path) -> None:
    python = make_environment(tmp_path / name)
    site = site_packages(python)
    (site / "torch/lib").mkdir(parents=True)
    (site / "torch/__init__.py").write_text("(" * 100_000)
    for library in ("libtorch_cuda.so", "libtorch_global_deps.so", "libc10.so"):
        (site / "torch/lib" / library).write_bytes(b"\x7fELF\x02\x01" + b"\xff" * 4000)
    (site / "torch/lib/libtorch.so").touch()
    os.mkfifo(site / "torch/_C.cpython-310-x86_64-linux-gnu.so")
    metadata = site / "torch-2.4.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_bytes(b"Name: torch\nRequires-Dist: \xe9 ; (((\nRequires-Dist: " + b"[" * 10_000 + b"\n")
    (metadata / "RECORD").write_bytes(b"torch/lib/libtorch_%d.so,sha256=x,1\n" * 1_000_000)
    (metadata / "INSTALLER").write_bytes(b"\xff\x1b[31m")
    (site / "xformers-0.0.1.dist-info").mkdir()
    (site / "xformers").mkdir()
    (site / "xformers/cpp_lib.json").write_text(DEEP)
    (site / "xformers-0.0.1.dist-info/direct_url.json").write_text(DEEP)
    before = listing(tmp_path / name)
    for output_format in ("json", "text"):
        done = run("--python", str(python), "--format", output_format, "--root", str(tmp_path))
        assert done.stderr == b""
        assert b"the probe failed" not in done.stdout
        assert b"\x1b" not in done.stdout
    assert listing(tmp_path / name) == before
    assert not list(site.rglob("__pycache__"))


# ---------------------------------------------------------------- surroundings


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    root.chmod(0o755)
    return root


SURROUNDINGS: dict[str, dict[str, str]] = {
    "nothing-set": {},
    "language-c": {"LANG": "C", "PATH": "/usr/bin:/bin"},
    "ascii": {"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"},
    "no-such-locale": {"LC_ALL": "xx_XX.UTF-8", "LANG": "xx"},
    "dumb-terminal": {"TERM": "dumb", "COLUMNS": "1"},
    "nonsense-size": {"COLUMNS": "-7", "LINES": "x"},
    "relative-path": {"PATH": "bin:.:", "HOME": "."},
    "colour-forced": {"FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": "1"},
}


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
@pytest.mark.parametrize("output_format", ["text", "markdown"], ids=str)
def test_strange_surroundings(surroundings: dict[str, str], output_format: str, bare: Path) -> None:
    done = run("--root", str(bare), "--format", output_format, env=surroundings)
    assert done.stderr == b""
    assert done.returncode in (1, 3)
    assert done.stdout


def test_a_current_folder_that_has_been_removed(bare: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f'cd "{gone}" && rmdir "{gone}" && "{shutil.which("env")}" PATH=bin: {" ".join(CHECK)} --root {bare} --format json'
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=False)
    assert done.stderr == b""
    assert b"the probe failed" not in done.stdout
    assert done.returncode in (1, 3)


@pytest.mark.parametrize(
    ("streams", "code"), [("<&-", (1, 3)), (">&-", (1, 3)), ("2>&-", (1, 3)), ("<&- >&- 2>&-", (1, 3)), (">/dev/full", (2,))]
)
def test_closed_streams(streams: str, code: tuple[int, ...], bare: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(CHECK)} --root {bare} {streams}"], capture_output=True, timeout=60, check=False, text=True
    )
    assert done.returncode in code
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == int(code == (2,))


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_reader_that_goes_away_changes_nothing_about_the_machine(output_format: str, bare: Path) -> None:
    command = f"{' '.join(CHECK)} --root {bare} --format {output_format} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=False)
    assert done.stderr == b""
    assert done.returncode in (1, 3)


def test_another_user_without_rights_gets_a_report_too(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become somebody else")
    root = tmp_path / "root"
    for name in ("lib/modules/6.2.0-26-generic", "root/llama/bin", "usr/local/cuda-12.4/bin", "sys/bus/pci/devices/0000:01:00.0"):
        (root / name).mkdir(parents=True)
    (root / "usr/share/jupyter/kernels/a").mkdir(parents=True)
    (root / "usr/share/jupyter/kernels/a/kernel.json").write_text('{"argv": ["/root/llama/bin/python"]}')
    for name in ("root", "lib/modules", "usr/local/cuda-12.4", "sys/bus/pci/devices/0000:01:00.0"):
        (root / name).chmod(0)
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    for folder in (root, *tmp_path.parents[:3], tmp_path):
        folder.chmod(folder.stat().st_mode | 0o055)
    look = "import gpudoctor, os, sys; os.stat(sys.executable)"
    if subprocess.run([*become, sys.executable, "-c", look], capture_output=True, check=False).returncode != 0:
        pytest.skip("this Python lies where only root may look")
    for python in (("--python", sys.executable), ()):
        done = subprocess.run(
            [*become, *CHECK, "--root", str(root), "--format", "json", *python],
            capture_output=True,
            timeout=60,
            check=False,
            env={},
        )
        assert done.stderr == b""
        assert b"the probe failed" not in done.stdout
        assert done.returncode in (1, 3)


def test_without_a_network_the_answer_is_the_same(bare: Path) -> None:
    alone = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    if alone.returncode != 0:
        pytest.skip("a network namespace cannot be made here")
    arguments = [*CHECK, "--root", str(bare), "--format", "text"]
    answers = [
        subprocess.run([*prefix, *arguments], capture_output=True, timeout=60, check=False) for prefix in ([], ["unshare", "-n"])
    ]
    assert [(answer.stderr, answer.returncode) for answer in answers] == [(b"", 1)] * 2
    assert answers[0].stdout == answers[1].stdout != b""


# ---------------------------------------------------------------- saved reports


FACTS: dict[str, Any] = json.loads(json.dumps(codec.to_json(healthy.facts())))


def _report(facts: object) -> dict[str, Any]:
    return {"schema": document.SCHEMA, "root_causes": ["forged"], "facts": facts}


DOCUMENTS = {
    "deep": DEEP,
    "deep-facts": '{"schema": "gpudoctor.report/1", "facts": ' + '{"system":' * 900 + "1" + "}" * 901,
    "deep-unknown": '{"schema": "gpudoctor.report/1", "facts": {"system": {"unknown": ' + "[" * 950 + "]" * 950 + "}}}",
    "not-a-number": '{"schema": "gpudoctor.report/1", "facts": {"slow": [["a", NaN]]}}',
    "infinity": '{"schema": "gpudoctor.report/1", "facts": {"slow": [["a", 1e999]]}}',
    "huge-integer": '{"schema": "gpudoctor.report/1", "facts": {"slow": [["a", ' + "9" * 4000 + "]]}}",
    "more-digits-than-python-reads": '{"schema": "gpudoctor.report/1", "facts": {"slow": [["a", ' + "9" * 10_000 + "]]}}",
    "a-schema-of-megabytes": '{"schema": "' + "x\x7f" * 1_000_000 + '"}',
    "a-list-as-schema": '{"schema": ' + "[" * 500 + "]" * 500 + "}",
    "facts-missing": '{"schema": "gpudoctor.report/1"}',
    "an-unknown-that-is-no-text": '{"schema": "gpudoctor.report/1", "facts": {"system": {"unknown": {"a": 1}}}}',
    "sixty-five-megabytes": '{"schema": "gpudoctor.report/1", "x": "' + "x" * (65 << 20) + '"}',
}


@pytest.mark.parametrize("text", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_hostile_document_is_refused_in_one_short_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(text)
    done = run("--from", str(file))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert len(done.stderr) < 400
    assert done.stdout == b""


def test_a_forged_verdict_in_a_report_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps({**_report(FACTS), "status": "fail", "checks": DEEP[:10]}))
    done = run("--from", str(file), "--format", "json")
    assert "forged" not in done.stdout.decode()
    assert json.loads(done.stdout)["status"] != "fail"


def _places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in children for place in _places(child, (*path, key)))]


def _with(value: Any, path: tuple[Any, ...], new: object) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = _with(value[path[0]], path[1:], new)
    return copy


LETTERS = st.text(st.characters() | st.sampled_from("\x1b\x9b\u202e\ud800\0\n|`<&;'\"$%"), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | LETTERS
    | st.sampled_from(["", "0", "-1", "535", "12.4", "1e9", "9" * 30, "2.1+cpu"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["unknown", "version"]) | LETTERS, inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_place_of_any_fact_gives_a_diagnosis_or_one_line(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = data.draw(st.sampled_from(_places(FACTS)))
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_text(json.dumps(_report(_with(FACTS, place, data.draw(JSON)))))
    try:
        found = document.read(file)
    except document.NotAReport as error:
        refusal = str(error)
    else:
        refusal = "no refusal"
        assert_harmless(found)
    assert len(refusal.splitlines()) == 1


def assert_harmless(found: Facts) -> None:
    for text in _renderings(found):
        assert not {"\x1b", "\x9b", "\u202e", "\ud800", "\0"} & set(text)


def _renderings(found: Facts) -> list[str]:
    diagnosis = diagnose(found)
    assert [finding.evidence for finding in diagnosis.findings if finding.code == "check-crashed"] == []
    steps = cures(found, diagnosis)
    page = io.StringIO()
    terminal.render(found, diagnosis, steps, Console(file=page, width=80, no_color=True))
    return [
        page.getvalue(),
        document.render(found, diagnosis, steps),
        markdown.render(found, diagnosis, steps),
        junit.render(diagnosis, steps),
        github.render(diagnosis, steps),
        prometheus.render(diagnosis),
    ]
