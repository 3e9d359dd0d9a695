"""Feeds damaged checkpoints to ``describe`` and ``read`` for as long as it is let: see README.md beside it.

An input is a byte that chooses one of ``TARGETS`` and the content of one file of it; the rest of that checkpoint is sound. What
must hold for each: nothing but NotACheckpoint is raised, its message is one printable line that names the place, what is counted
has room in the file, nothing is written or started, and it takes little time and memory.
"""

from __future__ import annotations

import ast
import atexit
import importlib
import json
import os
import pickle
import re
import resource
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
atheris: Any = importlib.import_module("atheris")  # only where the extra ``fuzz`` is installed

with atheris.instrument_imports(include=["gpudoctor.checkpoint"]):
    from gpudoctor import checkpoint
    from gpudoctor.checkpoint import Checkpoint, NotACheckpoint
    from gpudoctor.contents import Contents

# the code under test is imported first, instrumented
from tests import checkpoint_configs as configs  # noqa: E402 - see above
from tests import checkpoints, sparse  # noqa: E402 - see above

TINY = checkpoints.TINY
TENSORS = checkpoints.seeded(TINY)
_SECONDS, _MEGABYTES = 3.0, 300
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FORBIDDEN = (
    "ctypes.",
    "os.exec",
    "os.fork",
    "os.mkdir",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.system",
    "os.truncate",
    "pickle.",
    "shutil.",
    "socket.",
    "subprocess.",
)


class Forbidden(BaseException):
    """Something was written or started; no handler of the code under test catches this."""


class _Watch:
    armed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _Watch.armed:
        return
    if event.startswith(_FORBIDDEN) or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES):
        raise Forbidden(event, arguments)


# ---------------------------------------------------------------- the targets


def _hf(folder: Path) -> Path:
    return checkpoints.write_hf(folder, TINY, TENSORS)


def _sharded(folder: Path) -> Path:
    return checkpoints.write_hf(folder, TINY, TENSORS, shards=2)


def _meta(folder: Path) -> Path:
    return checkpoints.write_meta(folder, TINY, TENSORS, params={"max_seq_len": 64})


def _parts(folder: Path) -> Path:
    return checkpoints.write_meta(folder, TINY, TENSORS, 2)


def _stories(folder: Path) -> Path:
    """A model of llama2.c in a folder, with the words that it needs."""
    checkpoints.write_llama2c(folder / "tiny.bin", TINY, TENSORS)
    checkpoints.write_tokenizer_bin(folder / "tokenizer.bin", [(b"<0x0A>", 0.0)] * TINY.vocab)
    return folder


def _bin(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 4}))
    return folder


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _plain(data: bytes) -> bytes:
    return data


def _header(data: bytes) -> bytes:
    """The text as the header of a safetensors file with as many bytes after it as it speaks of, if they are not too many."""
    ends = [int(end) for end in re.findall(rb'"data_offsets"\s*:\s*\[\s*\d+\s*,\s*(\d{1,5})', data)]
    return struct.pack("<Q", len(data)) + data + bytes(max(ends, default=0))


def _zipped(data: bytes) -> bytes:
    """The program as the pickle of an archive with a few storages."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "x")
        storages = {f"x/data/{key}": bytes(256) for key in range(4)}
        return checkpoints.write_zip(path, {"x/data.pkl": data, "x/byteorder": b"little", **storages}).read_bytes()


TARGETS: list[tuple[str, Callable[[Path], Path], str, Callable[[bytes], bytes]]] = [
    ("safetensors", _hf, "model.safetensors", _plain),
    ("safetensors-header", _hf, "model.safetensors", _header),
    ("config", _hf, "config.json", _plain),
    ("quantize-config", _hf, "quantize_config.json", _plain),
    ("index", _sharded, "model.safetensors.index.json", _plain),
    ("pth", _meta, "consolidated.00.pth", _plain),
    ("pickle", _bin, "pytorch_model.bin", _zipped),
    ("bin", _bin, "pytorch_model.bin", _plain),
    ("part", _parts, "consolidated.01.pth", _plain),
    ("params", _meta, "params.json", _plain),
    ("params-of-parts", _parts, "params.json", _plain),
    ("tokenizer", _meta, "tokenizer.model", _plain),
    ("words", _stories, "tokenizer.bin", _plain),
    ("gguf", _empty, "x.gguf", _plain),
    ("llama2c", _empty, "x.bin", _plain),
]
"""Name, what writes the sound checkpoint, which of its files is replaced, and how the input becomes that file."""


class _Places:
    """The sound checkpoints, written once, on a file system in memory where there is one."""

    root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108 - a name of its own in it
    made: dict[int, tuple[Path, Path]] = {}  # noqa: RUF012 - it is filled as targets are chosen


def _place(number: int) -> tuple[Path, Path]:
    """What to read, and the file to replace."""
    if number not in _Places.made:
        name, write, file, _ = TARGETS[number]
        folder = write(_Places.root / name)
        inside = file if write is _empty else "tiny.bin" if write is _stories else ""
        _Places.made[number] = folder / inside, folder / file
    return _Places.made[number]


def _sound(found: Checkpoint | Contents) -> None:
    """Raises AssertionError for counts that the files have no room for, and for words that are none."""
    if isinstance(found, Contents):
        words = [found.dtype, found.why_not or "", *(group.kind for group in found.groups)]
        fits = 0 < found.size <= sum(size for _, size in found.files) and 0 < found.parameters <= 8 * found.size
    else:
        words, fits = [found.dtype, found.no_tokenizer or ""], found.size >= 0
    if not fits or not all(word.isprintable() and len(word) < 500 for word in words):
        raise AssertionError(f"not sound: {str(found)[:1000]}")


def one_input(data: bytes) -> None:
    """Raises what must not happen."""
    if not data:
        return
    number = data[0] % len(TARGETS)
    path, file = _place(number)
    file.write_bytes(TARGETS[number][3](data[1:]))
    for look in (checkpoint.describe, checkpoint.read):
        begin, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _Watch.armed = True
        try:
            found = look(str(path))
        except NotACheckpoint as reason:
            said = str(reason)
            if not said.isprintable() or not 0 < len(said) <= 500 or str(path) not in said:
                raise AssertionError(f"a line that is none, or that names nothing: {said!r}") from reason
        else:
            _sound(found)
        finally:
            _Watch.armed = False
        seconds, grown = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        if seconds > _SECONDS or grown > _MEGABYTES << 10:
            raise AssertionError(f"{seconds:.1f} s and {grown >> 10} MiB for {len(data)} bytes")


# ---------------------------------------------------------------- what it begins with


_LAYER = "model.layers.0.mlp.down_proj"
_PACKED: list[list[sparse.Row]] = [
    [("model.embed_tokens.weight", (32, 16), "F32"), ("lm_head.weight", (32, 16), "F32")],
    [
        (f"{_LAYER}.qweight", (4, 32), "I32"),
        (f"{_LAYER}.qzeros", (1, 4), "I32"),
        (f"{_LAYER}.scales", (1, 32), "F16"),
        (f"{_LAYER}.g_idx", (32,), "I32"),
    ],
    [(f"{_LAYER}.weight", (64, 1), "U8"), (f"{_LAYER}.weight.absmax", (2,), "F32"), (f"{_LAYER}.weight.quant_map", (16,), "F32")],
    [
        (f"{_LAYER}.weight_packed", (8, 4), "I32"),
        (f"{_LAYER}.weight_scale", (8, 1), "BF16"),
        (f"{_LAYER}.weight_shape", (2,), "I64"),
    ],
    [(f"{_LAYER}.weight", (8, 4), "U8"), (f"{_LAYER}.weight_scale", (8, 1), "F8_E4M3")],
    [
        ("model.layers.0.mlp.experts.down_proj_blocks", (2, 4, 1, 16), "U8"),
        ("model.layers.0.mlp.experts.down_proj_scales", (2, 4, 1), "U8"),
    ],
    [("model.layers.0.self_attn.k_proj.weight", (8, 16), "F16"), ("h.0.attn.bias", (1, 1, 4, 4), "U8")],
]


def _seeds() -> Iterator[tuple[int, bytes]]:
    """Each target's own sound content, and for the JSON ones that of many families."""
    for number, (_, write, file, change) in enumerate(TARGETS):
        with tempfile.TemporaryDirectory() as place:
            content = write(Path(place, "x")) / file
            if content.exists() and change is _plain:
                yield number, content.read_bytes()
    numbers = {name: number for number, (name, *_) in enumerate(TARGETS)}
    for rows in _PACKED:
        header = checkpoints.safetensors(
            [(name, size, kind, bytes(sparse.size_of((name, size, kind)))) for name, size, kind in rows]
        )
        yield numbers["safetensors-header"], header[8 : 8 + struct.unpack("<Q", header[:8])[0]]
    for config in configs.CONFIGS.values():
        yield numbers["config"], json.dumps(config).encode()
    for told in configs.QUANTIZED.values():
        yield numbers["quantize-config"], json.dumps(told).encode()
        yield numbers["config"], json.dumps({**checkpoints.hf_config(TINY), "quantization_config": told}).encode()
    for params in configs.PARAMS.values():
        yield numbers["params"], json.dumps(params).encode()
        yield numbers["params-of-parts"], json.dumps({**checkpoints.meta_params(TINY), **params}).encode()
    program = b"\x80\x02}(" + checkpoints.text("a") + checkpoints.pickled_tensor("0", "F32", (4, 4)) + b"u."
    yield numbers["pickle"], program
    yield numbers["pickle"], pickle.dumps({"a": os.system}, 2)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "x")
        yield numbers["bin"], sparse.sparse_legacy(path, [("wte.weight", (4, 4), "F32")]).read_bytes()
        yield numbers["bin"], sparse.sparse_pth(path, [("wte.weight", (4, 4), "F32")]).read_bytes()
        for version in (0, 1, 2):
            yield numbers["llama2c"], checkpoints.write_llama2c(path, TINY, TENSORS, version=version).read_bytes()
        for arch, metadata in configs.GGUF.items():
            made = checkpoints.write_gguf(path, TINY, {"embedding": TENSORS["embedding"]}, arch=arch, metadata=metadata)
            yield numbers["gguf"], made.read_bytes()
        yield numbers["gguf"], checkpoints.write_gguf(path, TINY, TENSORS, arch="llama").read_bytes()
        words = {
            "model": "gpt2",
            "tokens": ["a", "b"],
            "scores": [0.5, 1.0],
            "token_type": [1, 2],
            "merges": ["a b"],
            "pre": "smollm",
        }
        metadata = {f"tokenizer.ggml.{key}": value for key, value in words.items()}
        yield numbers["gguf"], checkpoints.write_gguf(path, TINY, TENSORS, arch="qwen3", metadata=metadata).read_bytes()
        scaling = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0, "split.count": 2}
        yield numbers["gguf"], checkpoints.write_gguf(path, TINY, TENSORS, arch="llama", metadata=scaling).read_bytes()
    yield numbers["tokenizer"], b"\x0a\x07\x0a\x01a\x15\0\0\0\x12\0"
    yield numbers["tokenizer"], b"IQ== 0\nIg== 1\nIw== 2\n"


def _words() -> list[str]:
    """The strings in the code under test: keys, names of tensors, kinds."""
    found: set[str] = set()
    for path in (ROOT / "gpudoctor" / "checkpoint").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isascii() and " " not in node.value:
                found.add(node.value)
    return sorted(word for word in found if word.isprintable() and 2 < len(word) < 48)


def prepare(folder: Path) -> None:
    """The inputs to begin with and a dictionary, in ``folder``/corpus and ``folder``/words."""
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    for count, (number, content) in enumerate(_seeds()):
        (folder / "corpus" / f"seed-{count:03}").write_bytes(bytes([number]) + content)
    quoted = (word.replace("\\", "\\\\").replace('"', '\\"') for word in _words())
    (folder / "words").write_text("".join(f'"{word}"\n' for word in quoted))


def main() -> None:
    """``FOLDER [options of libFuzzer]``: goes on until something must not have happened, or -max_total_time is over."""
    if len(sys.argv) < 2:
        sys.exit(f"usage: python {sys.argv[0]} FOLDER [options of libFuzzer]")
    folder = Path(sys.argv[1])
    prepare(folder)
    atexit.register(shutil.rmtree, _Places.root, ignore_errors=True)
    sys.addaudithook(_hook)
    given = sys.argv[2:]
    corpus = [] if any(Path(argument).is_file() for argument in given) else [str(folder / "corpus")]  # a file is run alone
    usual = [f"-dict={folder / 'words'}", "-max_len=40000", "-timeout=20", "-rss_limit_mb=1500", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *usual, *given, *corpus], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
