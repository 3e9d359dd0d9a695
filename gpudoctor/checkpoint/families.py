"""What a config.json means that does not say everything: the numbers that transformers fills in for each model_type.

They are the defaults of the configuration classes of transformers 5.24 (``models/*/configuration_*.py``), collected 2026-11-28.
A folder that transformers wrote says most of them; the text_config of a model that also sees often says three.
"""

from __future__ import annotations

from typing import NamedTuple


class Defaults(NamedTuple):
    """What stands for a key that is absent; 0: what follows from the others, and where nothing does, nobody knows."""

    layers: int
    dim: int
    heads: int
    kv_heads: int
    """0: as many as heads."""
    head_dim: int
    """0: the width divided among the heads."""
    hidden: int
    """0: four times the width."""
    vocab: int
    max_seq_len: int
    tied: bool


FAMILIES: dict[str, Defaults] = {
    "llama": Defaults(32, 4096, 32, 0, 0, 11008, 32000, 2048, False),
    "mistral": Defaults(32, 4096, 32, 8, 0, 14336, 32000, 131072, False),
    "mixtral": Defaults(32, 4096, 32, 8, 0, 14336, 32000, 131072, False),
    "ministral": Defaults(32, 4096, 32, 8, 0, 14336, 32000, 131072, False),
    "ministral3": Defaults(34, 4096, 32, 8, 128, 14336, 131072, 262144, False),
    "qwen2": Defaults(32, 4096, 32, 32, 0, 22016, 151936, 32768, False),
    "qwen2_moe": Defaults(24, 2048, 16, 16, 0, 5632, 151936, 32768, False),
    "qwen2_vl_text": Defaults(80, 8192, 64, 8, 0, 29568, 152064, 32768, False),
    "qwen2_5_vl_text": Defaults(80, 8192, 64, 8, 0, 29568, 152064, 32768, False),
    "qwen3": Defaults(32, 4096, 32, 32, 128, 22016, 151936, 32768, False),
    "qwen3_moe": Defaults(24, 2048, 32, 4, 0, 6144, 151936, 32768, False),
    "qwen3_next": Defaults(48, 2048, 16, 2, 256, 5632, 151936, 32768, False),
    "qwen3_vl_text": Defaults(32, 4096, 32, 32, 128, 22016, 151936, 128000, False),
    "qwen3_vl_moe_text": Defaults(24, 2048, 16, 16, 0, 5632, 151936, 128000, False),
    "qwen3_5_text": Defaults(32, 4096, 16, 4, 256, 12288, 248320, 32768, False),
    "phi": Defaults(24, 2048, 32, 0, 0, 8192, 51200, 2048, False),
    "phi3": Defaults(32, 3072, 32, 0, 0, 8192, 32064, 4096, False),
    "phimoe": Defaults(32, 4096, 32, 8, 0, 6400, 32064, 131072, False),
    "gemma": Defaults(28, 3072, 16, 16, 256, 24576, 256000, 8192, True),
    "gemma2": Defaults(26, 2304, 8, 4, 256, 9216, 256000, 8192, True),
    "gemma3_text": Defaults(26, 2304, 8, 4, 256, 9216, 262208, 131072, True),
    "gemma3n_text": Defaults(35, 2048, 8, 2, 256, 16384, 262400, 32768, True),
    "gpt2": Defaults(12, 768, 12, 0, 0, 0, 50257, 1024, True),
    "gpt_neo": Defaults(24, 2048, 16, 0, 0, 0, 50257, 2048, True),
    "gpt_neox": Defaults(44, 6144, 64, 0, 0, 24576, 50432, 2048, False),
    "gptj": Defaults(28, 4096, 16, 0, 0, 0, 50400, 2048, False),
    "gpt_bigcode": Defaults(12, 768, 12, 1, 0, 0, 50257, 1024, True),
    "gpt_oss": Defaults(36, 2880, 64, 8, 64, 2880, 201088, 131072, False),
    "codegen": Defaults(28, 4096, 16, 0, 0, 0, 50400, 2048, False),
    "falcon": Defaults(32, 4544, 71, 0, 0, 0, 65024, 2048, True),
    "bloom": Defaults(0, 0, 0, 0, 0, 0, 250880, 2048, True),
    "opt": Defaults(12, 768, 12, 0, 0, 3072, 50272, 2048, True),
    "mpt": Defaults(24, 2048, 16, 0, 0, 0, 50368, 2048, True),
    "biogpt": Defaults(24, 1024, 16, 0, 0, 4096, 42384, 1024, True),
    "xglm": Defaults(24, 1024, 16, 0, 0, 4096, 256008, 2048, True),
    "jamba": Defaults(32, 4096, 32, 8, 0, 14336, 65536, 262144, False),
    "granite": Defaults(32, 4096, 32, 0, 0, 11008, 32000, 2048, False),
    "granitemoe": Defaults(32, 4096, 32, 0, 0, 11008, 32000, 2048, False),
    "granitemoehybrid": Defaults(32, 4096, 32, 0, 0, 11008, 32000, 2048, False),
    "granitemoeshared": Defaults(32, 4096, 32, 0, 0, 11008, 32000, 2048, False),
    "starcoder2": Defaults(30, 3072, 24, 2, 0, 12288, 49152, 4096, True),
    "cohere": Defaults(40, 8192, 64, 0, 0, 22528, 256000, 8192, True),
    "cohere2": Defaults(40, 8192, 64, 0, 0, 22528, 256000, 8192, True),
    "stablelm": Defaults(32, 2560, 32, 32, 0, 6912, 50304, 4096, False),
    "llama4_text": Defaults(48, 5120, 40, 8, 128, 8192, 202048, 131072, False),
    "mllama_text_model": Defaults(40, 4096, 32, 8, 0, 14336, 128256, 131072, False),
    "olmo": Defaults(32, 4096, 32, 0, 0, 11008, 50304, 2048, False),
    "olmo2": Defaults(32, 4096, 32, 0, 0, 11008, 50304, 2048, False),
    "olmo3": Defaults(32, 4096, 32, 0, 0, 11008, 50304, 2048, False),
    "olmoe": Defaults(16, 2048, 16, 0, 0, 2048, 50304, 4096, False),
    "exaone4": Defaults(32, 4096, 32, 32, 0, 16384, 102400, 2048, False),
    "glm": Defaults(40, 4096, 32, 2, 128, 13696, 151552, 131072, False),
    "glm4": Defaults(40, 4096, 32, 2, 128, 13696, 151552, 131072, False),
    "glm4_moe": Defaults(46, 4096, 96, 8, 0, 10944, 151552, 131072, False),
    "nemotron": Defaults(32, 6144, 48, 0, 0, 24576, 256000, 4096, False),
    "persimmon": Defaults(36, 4096, 64, 0, 0, 16384, 262144, 16384, False),
    "dbrx": Defaults(24, 2048, 16, 1, 0, 3584, 32000, 2048, False),
    "internlm3": Defaults(48, 4096, 32, 2, 128, 10240, 128512, 32768, False),
    "helium": Defaults(24, 2560, 20, 20, 128, 7040, 48000, 4096, False),
    "smollm3": Defaults(36, 2048, 16, 4, 0, 11008, 128256, 32768, True),
    "minimax": Defaults(32, 4096, 32, 8, 0, 14336, 32000, 131072, False),
    "minimax_m2": Defaults(62, 3072, 48, 8, 128, 1536, 200064, 196608, False),
    "lfm2": Defaults(32, 2560, 32, 8, 0, 12288, 65536, 128000, True),
    "lfm2_moe": Defaults(32, 2048, 32, 8, 0, 7168, 65536, 128000, True),
    "falcon_h1": Defaults(32, 4096, 32, 8, 0, 14336, 128000, 8192, False),
    "bamba": Defaults(32, 4096, 32, 8, 0, 14336, 128000, 262144, False),
    "zamba": Defaults(76, 3712, 16, 0, 0, 14848, 32000, 4096, True),
    "zamba2": Defaults(54, 2560, 32, 0, 0, 10240, 32000, 4096, True),
    "recurrent_gemma": Defaults(26, 2560, 10, 0, 256, 3840, 256000, 8192, True),
    "kimi_linear": Defaults(27, 2304, 32, 32, 0, 9216, 163840, 0, False),
    "deepseek_v2": Defaults(32, 4096, 32, 0, 0, 11008, 102400, 2048, False),
    "deepseek_v3": Defaults(61, 7168, 128, 128, 0, 18432, 129280, 4096, False),
    "ernie4_5": Defaults(18, 1024, 16, 2, 128, 3072, 103424, 131072, True),
    "ernie4_5_moe": Defaults(28, 2560, 20, 4, 0, 12288, 103424, 131072, True),
    "hunyuan_v1_dense": Defaults(32, 4096, 32, 0, 0, 11008, 290943, 2048, False),
    "hunyuan_v1_moe": Defaults(32, 4096, 32, 0, 0, 11008, 290943, 2048, False),
    "dots1": Defaults(62, 4608, 32, 32, 0, 10944, 152064, 2048, False),
    "seed_oss": Defaults(64, 4096, 80, 8, 128, 27648, 155136, 524288, False),
    "apertus": Defaults(32, 4096, 32, 0, 0, 14336, 131072, 65536, False),
    "arcee": Defaults(32, 2560, 32, 0, 0, 18432, 32000, 4096, False),
    "cwm": Defaults(64, 6144, 48, 8, 128, 21504, 128256, 131072, False),
    "bitnet": Defaults(30, 2560, 20, 5, 0, 6912, 128256, 2048, False),
    "diffllama": Defaults(16, 2048, 32, 0, 0, 8192, 32000, 2048, False),
    "flex_olmo": Defaults(32, 4096, 32, 0, 0, 11008, 100352, 4096, False),
    "vaultgemma": Defaults(26, 2304, 8, 4, 256, 9216, 256000, 8192, True),
    "chameleon": Defaults(32, 4096, 32, 32, 0, 11008, 65536, 4096, False),
}
SAY_ALL = {
    "aquila",
    "baichuan",
    "chatglm",
    "deepseek",
    "deepseek_vl_v2",
    "internlm",
    "internlm2",
    "kimi_k2",
    "minicpm",
    "minicpm3",
    "mixformer-sequential",
    "orion",
    "phi-msft",
    "qwen",
    "stablelm_epoch",
    "xverse",
}
"""Families with a configuration class of their own beside the weights: they say all their numbers but, where keys and values
have as many heads as queries, that one."""
STATE = {"mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv5", "rwkv6", "rwkv7", "xlstm"}
"""Families whose layers keep a state of fixed size, and no keys and values."""
NOT_ALONE = {"bart", "mbart", "pegasus", "marian", "m2m_100", "t5", "mt5", "umt5", "longt5", "led", "whisper", "blenderbot"}
"""An encoder and a decoder."""
READS_ONLY = {
    "albert",
    "bert",
    "camembert",
    "clip",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "modernbert",
    "mpnet",
    "nomic_bert",
    "roberta",
    "siglip",
    "vit",
    "wav2vec2",
    "xlm-roberta",
}
"""Encoders."""


class Windows(NamedTuple):
    """Which layers see only so many positions, where no layer_types says it."""

    size: int | None
    """What stands for an absent sliding_window; None: no window then."""
    rule: str
    """all; from (those after max_window_layers); last (all but the last of each ``period``), first (all but the first of each)."""
    period: int = 0


WINDOWS: dict[str, Windows] = {
    "mistral": Windows(4096, "all"),
    "ministral": Windows(4096, "all"),
    "ministral3": Windows(None, "all"),
    "mixtral": Windows(None, "all"),
    "phi3": Windows(None, "all"),
    "phi4_multimodal": Windows(None, "all"),
    "phimoe": Windows(None, "all"),
    "starcoder2": Windows(None, "all"),
    "qwen3_moe": Windows(4096, "all"),
    "qwen2": Windows(4096, "from", 28),
    "qwen3": Windows(4096, "from", 28),
    "qwen2_vl": Windows(4096, "from", 80),
    "qwen2_vl_text": Windows(4096, "from", 80),
    "qwen2_5_vl": Windows(4096, "from", 80),
    "qwen2_5_vl_text": Windows(4096, "from", 80),
    "dots1": Windows(4096, "from", 62),
    "gemma2": Windows(4096, "last", 2),
    "vaultgemma": Windows(4096, "last", 2),
    "gpt_oss": Windows(128, "last", 2),
    "cohere2": Windows(4096, "last", 4),
    "exaone4": Windows(4096, "last", 4),
    "llama4_text": Windows(8192, "last", 4),
    "olmo3": Windows(4096, "last", 4),
    "gemma3n_text": Windows(512, "last", 5),
    "gemma3_text": Windows(4096, "last", 6),
    "cwm": Windows(8192, "first", 4),
}
ASKED = {"qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text", "smollm3"}
"""Families that have a window only where use_sliding_window is true."""
