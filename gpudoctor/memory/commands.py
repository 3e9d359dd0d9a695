"""The commands that run a model in some way, for pasting. Names go in quoted; nothing here is run by gpudoctor."""

from __future__ import annotations

import json
import shlex

from gpudoctor.memory.need import GIB
from gpudoctor.memory.question import Question
from gpudoctor.memory.runtimes.vllm import TAKES

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


def generate(question: Question, *, options: str = "", device_map: str = '"auto"', imports: str = "") -> str:
    """One line of Python that lets transformers continue a text."""
    load = f"AutoModelForCausalLM.from_pretrained(name, device_map={device_map}{options})"
    lines = (
        f"from transformers import AutoModelForCausalLM, AutoTokenizer{imports}",
        f"name = {json.dumps(target(question), ensure_ascii=False)}",  # what JSON quotes, Python reads
        f"words, model = AutoTokenizer.from_pretrained(name), {load}",
        'ids = words("The capital of France is", return_tensors="pt").to(model.device)',
        "print(words.decode(model.generate(**ids, max_new_tokens=20)[0]))",
    )
    return shlex.join([_python(question), "-c", "; ".join(lines)])


def eight_bit(question: Question) -> tuple[str, ...]:
    """transformers with bitsandbytes."""
    made = generate(question, options=", quantization_config=BitsAndBytesConfig(load_in_8bit=True)", imports=", BitsAndBytesConfig")
    return *install(question, "transformers", "accelerate", "bitsandbytes"), made


def four_bit(question: Question) -> tuple[str, ...]:
    """Likewise in NF4, its scales quantised once more."""
    config = 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)'
    made = generate(question, options=f", quantization_config={config}", imports=", BitsAndBytesConfig")
    return *install(question, "transformers", "accelerate", "bitsandbytes"), made


def as_gguf(question: Question, kind: str | None, layers: int = 99) -> tuple[str, ...]:
    """llama.cpp, by way of a GGUF file in numbers of this kind (None: in half precision, or as it is)."""
    prepared, wide = _gguf(question)
    path = wide
    if kind is not None:
        path = f"{wide.rpartition('/')[2].removesuffix('.gguf').removesuffix('-f16')}-{kind}.gguf"
        prepared = (*prepared, shlex.join(["llama-quantize", wide, path, kind]))
    run = ["llama-cli", "-m", path, "--n-gpu-layers", str(layers), "--ctx-size", str(question.work.room * question.work.batch)]
    return (*prepared, shlex.join(run))


def _gguf(question: Question) -> tuple[tuple[str, ...], str]:
    """The commands that make a GGUF file of the model, and its name; none where it is one."""
    contents = question.model.contents
    if contents is not None and contents.format == "gguf":
        return (), contents.path
    repository = target(question).rstrip("/")
    name = repository.rpartition("/")[2]
    fetch = () if contents is not None else (shlex.join(["hf", "download", repository, "--local-dir", name]),)
    folder = contents.path if contents is not None else name
    wide = f"{name}-f16.gguf"
    return (*fetch, shlex.join([_python(question), "convert_hf_to_gguf.py", folder, "--outfile", wide])), wide


def vllm(question: Question, *extra: str) -> str:
    """A server for sequences of the asked length, told how much of the card there is where that is less than it would take."""
    card = question.card
    part: tuple[str, ...] = ()
    if card is not None and card.total is not None:
        share = min(LARGEST_PART, int(100 * card.free / card.total) / 100)
        if share < TAKES or not question.in_usual_part:
            part = ("--gpu-memory-utilization", f"{share:.2f}")
    return shlex.join(["vllm", "serve", target(question), "--max-model-len", str(question.work.room), *part, *extra])


def offloaded(question: Question, layers: int, need: int) -> tuple[str, ...]:
    """Some layers on the GPU, the others in the host's memory."""
    if question.runtime.name == "llama.cpp":
        return as_gguf(question, None, layers)
    if question.runtime.name == "vllm":
        behind = -(-(question.need.total - need) // GIB)
        return (vllm(question, "--cpu-offload-gb", str(behind)),)
    whole = question.need
    room = (need - whole.context - whole.activations - whole.workspace) >> 20  # for weights and cache, in MiB
    memory = f', max_memory={{0: "{max(1, room)}MiB", "cpu": "{_host(question)}GiB"}}, dtype="auto"'
    return *install(question, "transformers", "accelerate"), generate(question, options=memory)


def _host(question: Question) -> int:
    return max(4, -(-question.model.bytes_as(question.dtype) // GIB) + 2)


def split(question: Question, count: int) -> tuple[str, ...]:
    """The model over several GPUs."""
    if question.runtime.name == "gpudoctor":
        return (shlex.join(["gpudoctor", "smoke", "--ckpt", _ours(question), "--nproc", str(count)]),)
    if question.runtime.name == "vllm":
        return (vllm(question, "--tensor-parallel-size", str(count)),)
    if question.runtime.name == "llama.cpp":
        return as_gguf(question, None)
    return *install(question, "transformers", "accelerate"), generate(question, options=', dtype="auto"')


def shorter(question: Question) -> tuple[str, ...]:
    """The same with less work."""
    work, name = question.work, question.runtime.name
    if name == "meta":
        sizes = ["--max_seq_len", str(work.room), "--max_batch_size", str(work.batch)]
        folder = f"{target(question).rstrip('/')}/"
        return (
            shlex.join(
                [
                    "torchrun",
                    "--nproc_per_node",
                    str(work.gpus),
                    "example_text_completion.py",
                    "--ckpt_dir",
                    folder,
                    "--tokenizer_path",
                    "tokenizer.model",
                    *sizes,
                ]
            ),
        )
    if name == "gpudoctor":
        return (shlex.join(["gpudoctor", "smoke", "--ckpt", _ours(question), "--max-new-tokens", str(work.new)]),)
    if name == "vllm":
        return (vllm(question),)
    if name == "llama.cpp":
        return as_gguf(question, None)
    return (generate(question, options=', dtype="auto"').replace("max_new_tokens=20", f"max_new_tokens={work.new}"),)


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
