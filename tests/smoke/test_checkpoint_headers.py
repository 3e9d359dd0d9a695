"""What torch, transformers and sentencepiece really write, read from its headers alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")

from gpudoctor import checkpoint
from gpudoctor.checkpoint import NotACheckpoint, pth, tokenizers
from gpudoctor.checkpoint.found import Stored
from gpudoctor.smoke.plan import RopeScaling


def equal(path: Path, stored: Stored, tensor: Any) -> bool:
    """Whether the stretch of the file holds the tensor's own bytes."""
    with path.open("rb") as file:
        file.seek(stored.offset)
        return file.read(stored.size) == bytes(tensor.detach().reshape(-1).view(torch.uint8).tolist())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_state_dicts_as_torch_saves_them(tmp_path: Path, protocol: int) -> None:
    layer = torch.nn.Linear(5, 3)
    shared = torch.arange(24, dtype=torch.float16).view(6, 4)
    tensors = {
        "weight": layer.weight,  # a parameter
        "bf16": torch.randn(3, 7).bfloat16(),
        "part": shared[2:4],
        "column": torch.randn(4, 1)[:, 0],
        "ids": torch.arange(5),
        "double": torch.randn(2).double(),
    }
    path = tmp_path / "x.pth"
    torch.save(tensors, path, pickle_protocol=protocol)
    found = pth.read(str(path))
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].shape == tuple(tensor.shape)
        assert equal(path, found[name], tensor)


def test_the_state_dict_of_a_module(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.BatchNorm1d(3))
    path = tmp_path / "x.pth"
    torch.save(module.state_dict(), path)
    found = pth.read(str(path))
    assert all(equal(path, found[name], tensor) for name, tensor in module.state_dict().items())


def test_a_transposed_tensor_is_one_line(tmp_path: Path) -> None:
    torch.save({"a": torch.randn(3, 4).t()}, tmp_path / "x.pth")
    with pytest.raises(NotACheckpoint, match="a is not contiguous"):
        pth.read(str(tmp_path / "x.pth"))


@pytest.mark.parametrize("what", [torch.nn.Linear(2, 2), {"a": torch.zeros(2).to_sparse()}], ids=["module", "sparse"])
def test_what_is_no_state_dict_of_plain_tensors(tmp_path: Path, what: object) -> None:
    torch.save(what, tmp_path / "x.pth")
    with pytest.raises(NotACheckpoint, match=r"wants to run torch\..*it was not opened"):
        pth.read(str(tmp_path / "x.pth"))


def test_the_format_before_zip_files(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(NotACheckpoint, match=r"PyTorch before 1\.6"):
        pth.read(str(tmp_path / "x.pth"))


@pytest.mark.parametrize("shard", ["5GB", "40KB"])
@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_folders_as_transformers_saves_them(tmp_path: Path, family: str, shard: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers writes the folders of this test; .ci/run installs it")
    config = getattr(transformers, f"{family}Config")(
        vocab_size=120,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        tie_word_embeddings=family == "Qwen2",
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        eos_token_id=7,
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    found = checkpoint.read(str(tmp_path))
    shape = found.shape
    assert shape is not None
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (shape.rope_theta, shape.rope_scaling) == (5e5, RopeScaling("llama3", 8.0, 1.0, 4.0, 64))
    assert (shape.tied, shape.qkv_bias, shape.qk_norm) == (family == "Qwen2", family == "Qwen2", family == "Qwen3")
    assert (shape.window, shape.head_dim, shape.norm_eps, found.eos) == (4096 if family == "Mistral" else None, 8, 1e-5, (7,))
    query = next(piece for piece in found.pieces if piece.name == "layers.1.query")
    stored = Stored("", query.offset, query.shape, query.kind, query.size)
    assert equal(Path(found.files[query.file]), stored, model.model.layers[1].self_attn.q_proj.weight)


def test_the_ids_in_a_sentencepiece_model() -> None:
    library = pytest.importorskip("sentencepiece", reason="sentencepiece writes the model of this test; .ci/run installs it")
    for ids in ({}, {"bos_id": 5, "eos_id": 6, "pad_id": 2, "unk_id": 1}, {"bos_id": -1}):
        model = io.BytesIO()
        library.SentencePieceTrainer.train(
            sentence_iterator=iter(["the capital of France is Paris"] * 5),
            model_writer=model,
            vocab_size=20,
            minloglevel=2,
            **ids,
        )
        processor = library.SentencePieceProcessor(model_proto=model.getvalue())
        assert tokenizers.sentencepiece_ids(model.getvalue()) == (processor.bos_id(), processor.eos_id())
