"""memory/runtimes/transformers.py against every allocation of the real generate(), in small sizes of six architectures.

What a CPU does otherwise than a GPU: its attention works in buffers of up to 0.6 MB for each thread, more in bf16; hence one
thread, and sizes beside which that is little. The sums know of copies for every query head in releases before 4.54, and after
them wherever there is a mask; the tests go by the release that is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")
transformers = pytest.importorskip("transformers", reason="transformers is what is measured; .ci/run installs it")

from gpudoctor.contents import Architecture
from gpudoctor.knowledge import dtypes
from gpudoctor.memory.model import Model
from gpudoctor.memory.need import Need, Work
from gpudoctor.memory.runtimes.transformers import need
from tests.smoke.allocations import widest

TOLERANCE = 0.005
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}


class Case(NamedTuple):
    family: str
    work: Work
    dtype: str = "fp32"
    dim: int = 256
    hidden: int = 896
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    vocab: int = 8000
    layers: int = 3
    window: int | None = None

    def __str__(self) -> str:
        window = "" if self.window is None else f"-window{self.window}"
        sizes = f"{self.layers}x{self.dim}-{self.heads}:{self.kv_heads}x{self.head_dim}-{self.hidden}-{self.vocab}{window}"
        return f"{self.family}-{self.dtype}-{sizes}-{self.work.batch}x{self.work.prompt}+{self.work.new}"


LONG_PROMPT, SEVERAL_PROMPTS = Work(1, 1200, 4), Work(4, 300, 2)
LONG_ANSWER, SHORT = Work(2, 4, 160), Work(3, 2, 8)
CASES = [
    *(Case(family, work) for family in ("llama", "qwen2", "qwen3") for work in (LONG_PROMPT, SEVERAL_PROMPTS)),
    *(Case("llama", work, heads=4, kv_heads=kv, head_dim=64) for kv in (1, 2, 4) for work in (SEVERAL_PROMPTS, SHORT)),
    *(Case("llama", LONG_ANSWER, heads=8, kv_heads=kv, head_dim=64, vocab=1000, hidden=512) for kv in (2, 8)),
    Case("llama", LONG_PROMPT, heads=8, kv_heads=8, head_dim=64, hidden=300),  # turning the queries is widest
    Case("llama", LONG_PROMPT, dtype="bf16", vocab=32000),
    Case("llama", SEVERAL_PROMPTS, dtype="bf16", dim=512, hidden=1365, vocab=32000),
    Case("llama", SHORT, vocab=32000),  # the logits are
    *(Case("mistral", work, window=256) for work in (LONG_PROMPT, SEVERAL_PROMPTS)),
    Case("mistral", Work(2, 700, 2), window=256, heads=4, kv_heads=4, head_dim=64, hidden=300),  # the mask is
    Case("mistral", LONG_ANSWER, window=64, vocab=1000, kv_heads=8),
    Case("mistral", SEVERAL_PROMPTS),
    *(Case("mixtral", work, layers=2) for work in (LONG_PROMPT, SEVERAL_PROMPTS, SHORT)),
    *(Case("gemma2", work, window=128) for work in (SEVERAL_PROMPTS, SHORT)),
    Case("gemma2", Work(1, 600, 2), dtype="bf16", window=128),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def real(case: Case) -> Any:
    """The model as transformers makes it, with any weights."""
    extra: dict[str, Any] = EXPERTS if case.family == "mixtral" else {}
    if case.family in ("mistral", "gemma2"):
        extra = {"sliding_window": case.window}
    config = transformers.AutoConfig.for_model(
        case.family,
        hidden_size=case.dim,
        intermediate_size=case.hidden,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_key_value_heads=case.kv_heads,
        head_dim=case.head_dim,
        vocab_size=case.vocab,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
        **extra,
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    return model.to(torch.float32 if case.dtype == "fp32" else torch.bfloat16).eval()


def model_of(case: Case, model: Any) -> Model:
    windowed = 0 if case.window is None else case.layers if case.family == "mistral" else -(-case.layers // 2)
    experts = (4, 2, case.hidden) if case.family == "mixtral" else (0, 0, 0)
    a = Architecture(
        family=case.family,
        layers=case.layers,
        dim=case.dim,
        heads=case.heads,
        kv_heads=case.kv_heads,
        head_dim=case.head_dim,
        hidden=case.hidden,
        vocab=case.vocab,
        max_seq_len=4096,
        window=case.window,
        windowed_layers=windowed,
        experts=experts[0],
        experts_per_token=experts[1],
        expert_hidden=experts[2],
    )
    ends = case.vocab * case.dim
    parameters = sum(parameter.numel() for parameter in model.parameters())
    vectors = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 1)
    return Model("case", a, embedding=ends, head=ends, linear=parameters - vectors - 2 * ends, other=vectors)


def measured(model: Any, work: Work) -> int:
    def generate() -> object:
        tokens = torch.ones(work.batch, work.prompt, dtype=torch.long)
        mask = torch.ones_like(tokens)
        return model.generate(
            tokens, attention_mask=mask, max_new_tokens=work.new, min_new_tokens=work.new, do_sample=False, pad_token_id=0
        )

    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) + widest(generate)


@pytest.mark.parametrize("work", [Work(1, 600, 2, ampere=False), Work(2, 300, 2, ampere=False)], ids=["one", "several"])
def test_without_a_fused_kernel_all_scores_are_written_down(work: Work) -> None:
    """As on cards before Ampere, where heads share keys; PyTorch's plain attention is the same code on a CPU."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    case = Case("llama", work, dtype="bf16", dim=256, heads=8, kv_heads=2, head_dim=32)
    model = real(case)
    with sdpa_kernel(SDPBackend.MATH):
        found = measured(model, work)
    wanted = counted(case, model)
    assert wanted.allocated - wanted.workspace == pytest.approx(found, rel=TOLERANCE)
    assert wanted.allocated > 1.2 * counted(case._replace(work=replace(work, ampere=True)), model).allocated


def counted(case: Case, model: Any) -> Need:
    return need(model_of(case, model), case.work, dtypes.of(case.dtype), transformers.__version__)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_generate_holds_at_its_widest_is_what_was_counted(case: Case) -> None:
    model = real(case)
    found, wanted = measured(model, case.work), counted(case, model)
    assert wanted.allocated - wanted.workspace == pytest.approx(found, rel=TOLERANCE)  # a CPU has no cuBLAS


def test_a_longer_prompt_takes_more_than_its_keys_and_values() -> None:
    """Three products of the feed-forward part and four states for each token: what docs/memory-published.md holds against 4.51."""
    short, long = Case("qwen3", Work(1, 200, 2)), Case("qwen3", Work(1, 1200, 2))
    model = real(long)
    more = measured(model, long.work) - measured(model, short.work)
    cached = counted(long, model).kv_cache - counted(short, model).kv_cache
    passing = 1000 * (3 * long.hidden + 4 * long.dim) * 4
    assert more > cached + passing
    assert more == pytest.approx(cached + passing, rel=0.05)
