"""Models and packages that a text names."""

from __future__ import annotations

import re

MOST = 24
_MODEL = re.compile(
    r"\b((?:code)?llama|vicuna|alpaca|mistral|mixtral|qwen\d?|falcon|gpt|opt|bloom|baichuan\d?|chatglm\d?|yi|gemma|phi|deepseek|internlm\d?|pythia"
    r"|starcoder\d?|wizardlm|pygmalion|dolly|stablelm|mpt|rwkv|llava|cogvlm|open_?llama|tinyllama)([\w.-]{0,40})"
)
_WORD = re.compile(r"[a-z0-9_.-]{2,80}")
_SIZE = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d{1,2})?) ?b\b")
_PACKAGE = re.compile(
    r"(flash_?attn\w{0,8}|xformers|bitsandbytes|mmcv|mmdet3?d?|detectron2|selective_scan\w{0,8}|mamba_ssm|causal_conv1d\w{0,6}|apex|fused_\w{1,20}"
    r"|pointnet2\w{0,10}|spconv|torch_scatter|torch_sparse|torch_cluster|multiscaledeformableattention|ms_deform\w{0,10}|ms_deform_attn|exllama\w{0,8}|auto_?gptq"
    r"|autoawq|awq\w{0,10}|awq_inference_engine|vllm|deepspeed|groundingdino|nvdiffrast|pytorch3d|tinycudann|diff_gaussian\w{0,16}|simple_knn|natten|dcn\w{0,6}|correlation_cuda"
    r"|minkowskiengine|torchsparse|llama_cpp|ggml|ctranslate2|onnxruntime|maskrcnn_benchmark|roi_?align\w{0,20}|iou3d\w{0,8}|deform_conv\w{0,10}|quant_cuda|gptq\w{0,8}|rasterizer|gridencoder|raymarching|sageattention|cupy)"
)


def read(text: str) -> tuple[str, ...]:
    """The names in lower case, each once, in the order of the text; sizes such as 7b among them."""
    low = text.lower()
    found: dict[str, int] = {}
    for match in _SIZE.finditer(low):
        found.setdefault(f"{match.group(1)}b", match.start())
    words: dict[str, int] = {}
    for match in _WORD.finditer(low):
        words.setdefault(match.group(), match.start())
    for word, start in words.items():  # each word once: a log says the same again and again
        for name in _MODEL.finditer(word):
            found.setdefault(name.group().rstrip(".-/"), start + name.start())
        for package in _PACKAGE.finditer(word):
            found.setdefault(package.group(1), start + package.start())
    return tuple(sorted(found, key=found.__getitem__)[:MOST])
