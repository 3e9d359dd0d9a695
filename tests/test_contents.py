"""What a checkpoint holds, counted from its headers: every format of the same model, and Llama 2 in its true size."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from gpudoctor.checkpoint import describe
from gpudoctor.contents import Architecture, Quantization
from gpudoctor.smoke.plan import Shape
from tests import sparse
from tests.checkpoints import TINY, seeded, write_gguf, write_hf, write_llama2c, write_meta

TIED = replace(TINY, tied=True)


def numbers(found: Architecture | None) -> tuple[int, ...]:
    assert found is not None
    names = ("layers", "dim", "heads", "kv_heads", "head_dim", "hidden", "vocab", "tied")
    return tuple(getattr(found, name) for name in names)


@pytest.mark.parametrize("shape", [TINY, TIED], ids=["plain", "tied"])
@pytest.mark.parametrize("form", ["hf", "hf-sharded", "gguf", "llama2c", "llama2c-1"])
def test_each_format_of_one_model(tmp_path: Path, form: str, shape: Shape) -> None:
    tensors = seeded(shape)
    path = {
        "hf": lambda: write_hf(tmp_path, shape, tensors),
        "hf-sharded": lambda: write_hf(tmp_path, shape, tensors, shards=3),
        "gguf": lambda: write_gguf(tmp_path / "tiny.gguf", shape, tensors),
        "llama2c": lambda: write_llama2c(tmp_path / "tiny.bin", shape, tensors),
        "llama2c-1": lambda: write_llama2c(tmp_path / "tiny.bin", shape, tensors, version=1),
    }[form]()
    found = describe(str(path))
    angles = 4 * shape.max_seq_len * shape.head_dim if form == "llama2c" else 0  # which llama2.c keeps and nobody reads
    assert (found.parameters, found.size, found.dtype) == (shape.parameters, 4 * shape.parameters + angles, "F32")
    assert numbers(found.architecture) == numbers(Architecture("", **{k: getattr(shape, k) for k in KEYS}, tied=shape.tied))
    assert found.of("head") == ((0, 0) if shape.tied else (shape.vocab * shape.dim, 4 * shape.vocab * shape.dim))
    assert (found.quantization, found.why_not, found.pickled) == (None, None, False)


KEYS = ("layers", "dim", "heads", "kv_heads", "head_dim", "hidden", "vocab", "max_seq_len")


@pytest.mark.parametrize(("said", "once"), [(True, True), (False, False), (None, False)])
def test_a_head_that_is_stored_and_said_to_be_the_embedding(tmp_path: Path, said: bool | None, once: bool) -> None:
    found = describe(str(write_hf(tmp_path, TINY, seeded(TINY), config={"tie_word_embeddings": said})))
    assert found.parameters == TINY.parameters - once * TINY.vocab * TINY.dim
    assert found.architecture is not None
    assert found.architecture.tied is once


@pytest.mark.parametrize("shape", [TINY, TIED], ids=["plain", "tied"])
def test_llama2c_in_int8(tmp_path: Path, shape: Shape) -> None:
    found = describe(str(write_llama2c(tmp_path / "tiny.bin", shape, seeded(shape), version=2)))
    norms = (2 * shape.layers + 1) * shape.dim
    matrices = shape.parameters - norms
    assert (found.parameters, found.size) == (shape.parameters, matrices + 4 * matrices // 8 + 4 * norms)
    assert (found.quantization, found.dtype) == (Quantization("int8", 8.0, 8), "I8")
    assert found.of("other") == (norms, 4 * norms)


@pytest.mark.parametrize("embedding_dim", [0, 1])
@pytest.mark.parametrize("shards", [1, 2])
def test_files_of_meta(tmp_path: Path, shards: int, embedding_dim: int) -> None:
    folder = write_meta(tmp_path, TINY, seeded(TINY), shards, kind="F16", embedding_dim=embedding_dim)
    found = describe(str(folder))
    angles = 2 * TINY.head_dim // 2  # rope.freqs, once
    assert (found.parameters, found.size, found.pickled, len(found.files)) == (
        TINY.parameters,
        2 * TINY.parameters + angles,
        True,
        shards,
    )
    assert numbers(found.architecture)[:-1] == tuple(getattr(TINY, key) for key in KEYS[:-1])


@pytest.mark.parametrize(("name", "form"), [(name, form) for name in sparse.LLAMA2 for form in sparse.FORMATS])
def test_llama_2_in_its_true_size(tmp_path: Path, name: str, form: str) -> None:
    shape, path = sparse.LLAMA2[name], sparse.FORMATS[form](tmp_path / "llama", name)
    begin = time.monotonic()
    found = describe(str(path))
    assert time.monotonic() - begin < 5, "headers only; a hundredth of that on an idle machine"
    assert found.parameters == sparse.PARAMETERS[name] == shape.parameters
    assert numbers(found.architecture)[:-1] == tuple(getattr(shape, key) for key in KEYS[:-1])
    assert found.size == sparse.BYTES[form](shape)
    assert sum(size for _, size in found.files) > found.size
    assert sum(file.stat().st_blocks for file in (tmp_path / "llama").iterdir()) * 512 < 40 << 20
