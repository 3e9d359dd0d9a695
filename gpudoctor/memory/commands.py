"""The commands that run a model in some way, for pasting. Names go in quoted; nothing here is run by gpudoctor."""

from __future__ import annotations

import json
import shlex

from gpudoctor.memory.model import BITSANDBYTES
from gpudoctor.memory.need import GIB
from gpudoctor.memory.question import Question
from gpudoctor.memory.runtimes.vllm import TAKES

_TORCH = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
LARGEST_PART = 0.97
"""Of the card: what is left goes to the driver."""
OWN = "llm"
"""The folder of an environment beside a Python that may not be changed."""


def target(question: Question) -> str:
    """The model as a command wants it: the folder or file that is here, or its name on Hugging Face."""
    contents = question.model.contents
    return contents.path if contents is not None else question.model.hf or question.model.name


def install(question: Question, *packages: str) -> tuple[str, ...]:
    """Packages for the environment that is meant, by the tool that owns it; a protected Python gets an environment beside it."""
    where = question.environment
    if where.owner == "uv":
        uv = ["uv", "add", "--project", where.project] if where.project else ["uv", "pip", "install", "--python", where.python]
        return (shlex.join([*uv, *packages]),)
    if where.owner == "conda":
        return (shlex.join(["conda", "install", "--prefix", where.prefix, "--channel", "conda-forge", *packages]),)
    if where.owner == "pixi" and where.project:
        return (shlex.join(["pixi", "add", "--manifest-path", where.project, *packages]),)
    if where.owner == "poetry" and where.project:
        return (shlex.join(["poetry", "--directory", where.project, "add", *packages]),)
    if where.owner == "system":
        made = shlex.join([where.python, "-m", "venv", OWN])
        return made, shlex.join([f"{OWN}/bin/python", "-m", "pip", "install", "torch", *packages])
    return (shlex.join([where.python, "-m", "pip", "install", *packages]),)


def upgrade(question: Question, package: str) -> str:
    """A newer release of a package that is there."""
    where = question.environment
    if where.owner == "uv":
        if where.project:
            return shlex.join(["uv", "add", "--project", where.project, "--upgrade-package", package, package])
        return shlex.join(["uv", "pip", "install", "--python", where.python, "--upgrade-package", package, package])
    if where.owner == "conda":
        return shlex.join(["conda", "update", "--prefix", where.prefix, "--channel", "conda-forge", package])
    return shlex.join([where.python, "-m", "pip", "install", "--upgrade", package])


def _python(question: Question) -> str:
    return f"{OWN}/bin/python" if question.environment.owner == "system" else question.environment.python


def generate(question: Question, *, more: str = "", new: int = 20) -> str:
    """One line of Python that lets transformers continue a text, with the model in the numbers that are asked about."""
    options, imports = _loading(question)
    load = f'AutoModelForCausalLM.from_pretrained(name, device_map="auto"{options}{more})'
    lines = (
        f"from transformers import AutoModelForCausalLM, AutoTokenizer{imports}",
        f"name = {json.dumps(target(question), ensure_ascii=False)}",  # what JSON quotes, Python reads
        f"words, model = AutoTokenizer.from_pretrained(name), {load}",
        'ids = words("The capital of France is", return_tensors="pt").to(model.device)',
        f"print(words.decode(model.generate(**ids, max_new_tokens={new})[0]))",
    )
    return shlex.join([_python(question), "-c", "; ".join(lines)])


def _loading(question: Question) -> tuple[str, str]:
    """What from_pretrained is told of the numbers, and what has to be imported for that."""
    dtype = question.dtype
    if dtype is None or dtype.kind in ("files", "gguf"):
        return ', dtype="auto"', ""
    if dtype.name == "int8":
        return ", quantization_config=BitsAndBytesConfig(load_in_8bit=True)", ", BitsAndBytesConfig"
    if dtype.name == "int4":
        four = 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True'
        return f", quantization_config=BitsAndBytesConfig({four})", ", BitsAndBytesConfig"
    if dtype.name == "fp8":
        return ", quantization_config=FineGrainedFP8Config()", ", FineGrainedFP8Config"
    return f', dtype="{_TORCH[dtype.name]}"', ""


def in_transformers(question: Question, *, more: str = "", new: int = 20) -> tuple[str, ...]:
    """What has to be installed, and the line that runs it."""
    packages = ["transformers", "accelerate"]
    if question.dtype is not None and question.dtype.name in BITSANDBYTES:
        packages.append("bitsandbytes")
    if question.dtype is None and question.model.mxfp4:
        packages.append("kernels")  # without it the weights are unpacked to 16 bits
    return *install(question, *packages), generate(question, more=more, new=new)


def as_gguf(question: Question, layers: int = 99) -> tuple[str, ...]:
    """llama.cpp, by way of a GGUF file in the numbers that are asked about."""
    prepared, path = _gguf(question)
    kind = question.dtype
    if kind is not None and kind.kind == "gguf":
        packed = f"{path.rpartition('/')[2].removesuffix('.gguf').removesuffix('-f16')}-{kind.name}.gguf"
        prepared = (*prepared, shlex.join(["llama-quantize", path, packed, kind.name]))
        path = packed
    room = str(question.work.room * question.work.batch)
    return (*prepared, shlex.join(["llama-cli", "-m", path, "--n-gpu-layers", str(layers), "--ctx-size", room]))


def _gguf(question: Question) -> tuple[tuple[str, ...], str]:
    """The commands that make a GGUF file of the model, and its name; none where it is one."""
    contents = question.model.contents
    if contents is not None and contents.format == "gguf":
        return (), contents.path
    repository = target(question).rstrip("/")
    name = repository.rpartition("/")[2]
    folder = contents.path if contents is not None else name
    wide = f"{name}-f16.gguf"
    fetch = () if contents is not None else (shlex.join(["hf", "download", repository, "--local-dir", name]),)
    clone = "git clone https://github.com/ggml-org/llama.cpp"
    convert = [_python(question), "llama.cpp/convert_hf_to_gguf.py", folder, "--outtype", "f16", "--outfile", wide]
    return (*fetch, clone, shlex.join(convert)), wide


def vllm(question: Question, *extra: str) -> str:
    """A server for sequences of the asked length, told how much of the card there is where that is not its usual part."""
    card = question.card
    part: tuple[str, ...] = ()
    if card is not None and card.total:
        share = min(LARGEST_PART, int(100 * card.free / card.total) / 100)
        if share < TAKES or not question.in_usual_part:
            part = ("--gpu-memory-utilization", f"{share:.2f}")
    packed = {"fp8": ("--quantization", "fp8"), "int4": ("--quantization", "bitsandbytes")}
    numbers = () if question.dtype is None else packed.get(question.dtype.name, ())
    split = () if question.work.gpus == 1 else ("--tensor-parallel-size", str(question.work.gpus))
    return shlex.join(
        ["vllm", "serve", target(question), "--max-model-len", str(question.work.room), *numbers, *split, *part, *extra]
    )


def offloaded(question: Question, layers: int, on_gpu: int, each: int) -> tuple[str, ...]:
    """Some layers (of ``each`` bytes) on the GPU, ``on_gpu`` bytes of weights in all; the others in the host's memory."""
    if question.runtime.name == "llama.cpp":
        return as_gguf(question, layers)
    if question.runtime.name == "vllm":
        behind = -(-(question.need.weights - on_gpu) // GIB)
        return (vllm(question, "--cpu-offload-gb", str(behind)),)
    host = -(-(question.need.weights - on_gpu) // GIB) + 2
    # accelerate keeps room for one layer more, through which the others pass
    room = (on_gpu + each >> 20) + 1
    return in_transformers(question, more=f', max_memory={{0: "{room}MiB", "cpu": "{host}GiB"}}')


def run(question: Question) -> tuple[str, ...]:
    """The model as it was counted: this runtime, these numbers, this work."""
    work, name = question.work, question.runtime.name
    if name == "meta":
        sizes = ["--max_seq_len", str(work.room), "--max_batch_size", str(work.batch)]
        folder, per_node = f"{target(question).rstrip('/')}/", str(work.gpus)
        script = ["torchrun", "--nproc_per_node", per_node, "example_text_completion.py"]
        return (shlex.join([*script, "--ckpt_dir", folder, "--tokenizer_path", "tokenizer.model", *sizes]),)
    if name == "gpudoctor":
        split = [] if work.gpus == 1 else ["--nproc", str(work.gpus)]
        numbers = [] if question.dtype is None else ["--dtype", question.dtype.name]
        asked = ["gpudoctor", "smoke", "--ckpt", _ours(question), *numbers, "--max-new-tokens", str(work.new), *split]
        return (shlex.join(asked),)
    if name == "vllm":
        return (vllm(question),)
    if name == "llama.cpp":
        return as_gguf(question)
    return in_transformers(question, new=work.new)


def _ours(question: Question) -> str:
    return question.model.contents.path if question.model.contents is not None else question.model.name


def again(question: Question, *extra: str) -> str:
    """The question once more, with something changed."""
    work = question.work
    asked = ["gpudoctor", "fit", _ours(question), "--runtime", question.runtime.name]
    if question.dtype is not None:
        asked += ["--dtype", question.dtype.name]
    sizes = ["--prompt-tokens", str(work.prompt), "--new-tokens", str(work.new), "--batch", str(work.batch)]
    if work.length is not None:
        sizes += ["--max-seq-len", str(work.length)]
    return shlex.join([*asked, *sizes, *extra])
