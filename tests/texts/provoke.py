"""Provokes real errors on a machine without a GPU and records what they print in tests/texts/provoked.

    python tests/texts/provoke.py --cpu ENV --cuda ENV --old ENV --extras FOLDER --llama FOLDER [NAME ...]

Without a NAME all are provoked. No test runs this: it wants gigabytes of wheels, root (for mounts), Debian 12 with gcc 12 on
x86-64, and CUDA 13.0 in /usr/local/cuda. The environments:

    cpu    Python 3.11: torch 2.13.0 (CPU build), transformers 5.24.0, safetensors, gguf, ninja, setuptools, fairscale, fire and
           sentencepiece
    cuda   Python 3.11: torch 2.5.0 (CUDA 12.4, as pip installs it), numpy, setuptools, wheel
    old    Python 3.10: torch 1.12.1 (CUDA 10.2, as pip installs it), numpy 2.0.2
    llama  a checkout of meta-llama/llama
    extras one folder for each of EXTRAS, filled by `pip install --target FOLDER/NAME --no-deps REQUIREMENTS`

A provocation is a function whose docstring says what goes wrong; PROVOCATIONS says with which code, if any, it should be explained.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MOST = 8000  # bytes of one text
HOME = "/home/ada"
PROJECT = f"{HOME}/llama"

EXTRAS = {
    "bitsandbytes": "bitsandbytes==0.49.0",
    "bitsandbytes-0.41": "bitsandbytes==0.41.3 scipy",
    "ctransformers": "ctransformers==0.2.27 py-cpuinfo",
    # and, unpacked into it, usr/ of Debian's nvidia-cuda-toolkit 11.8
    "cuda-11.8": "nvidia-cuda-nvcc-cu11==11.8.89 nvidia-cuda-runtime-cu11==11.8.89",
    "cudnn-9.0": "nvidia-cudnn-cu12==9.0.0.312",
    "cupy": "cupy-cuda12x==13.6.0 fastrlock",
    "driver-535": "",  # unpacked: nvidia-smi, libnvidia-ml1 and libcuda1 535.261.03 of Debian 12
    "nccl-2.18": "nvidia-nccl-cu12==2.18.1",
    "numba": "numba==0.61.2 llvmlite==0.44.0 numpy==2.2.6",
    "nvjitlink-12.1": "nvidia-nvjitlink-cu12==12.1.105",
    "pynvml": "nvidia-ml-py",
    "onnxruntime-gpu": "onnxruntime-gpu==1.20.2 flatbuffers coloredlogs humanfriendly protobuf packaging",
    "torchao": "torchao==0.14.1",
    "torchaudio": "torchaudio==2.6.0",
    "torchvision-0.21": "torchvision==0.21.0 pillow",
    "transformers-4": "transformers==4.46.3 numpy==2.0.2 (and what they need)",
    "uv": "uv",
    "xformers": "xformers==0.0.28.post3",
    "xllamacpp": "xllamacpp==2026.10.11549",
}
LFS_POINTER = """\
version https://git-lfs.github.com/spec/v1
oid sha256:4665f3ab4f6ee4a3ae0eb7a3c1b9d6b0b3f9cbb4fd1d1a0e0a0a6a9a7e5f0f61
size 13476925163
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """The interpreters, and an empty folder in which one thing goes wrong."""

    cpu: Path
    cuda: Path
    old: Path
    extras: Path
    llama: Path
    folder: Path

    def run(self, command: list[str], env: Mapping[str, str] | None = None, *, prompt: str = "", mounts: str = "") -> str:
        """What `command` prints, stderr and stdout as they came; `mounts` is shell that is run before it in a mount namespace."""
        line = ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh", *command] if mounts else command
        world = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "COLUMNS": "120",
        }
        ended = subprocess.run(
            line,
            cwd=self.folder,
            env=world | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=500,
            check=False,
        )
        text = ended.stdout.decode(errors="replace")
        return f"$ {prompt}\n{text}" if prompt else text

    def python(
        self,
        venv: Path,
        program: str,
        *arguments: str,
        name: str = "chat.py",
        env: Mapping[str, str] | None = None,
        prompt: str = "",
        mounts: str = "",
    ) -> str:
        """What a small program prints in the interpreter of `venv`."""
        (self.folder / name).write_text(textwrap.dedent(program).lstrip())
        return self.run([str(venv / "bin/python"), name, *arguments], inside(venv) | dict(env or {}), prompt=prompt, mounts=mounts)

    def torchrun(self, venv: Path, *arguments: str, env: Mapping[str, str] | None = None, prompt: str = "") -> str:
        """What torchrun prints in the interpreter of `venv`."""
        return self.run([str(venv / "bin/torchrun"), *arguments], inside(venv) | dict(env or {}), prompt=prompt)

    def beside(self, *names: str) -> dict[str, str]:
        """Variables that put packages of `extras` before those of the interpreter."""
        return {"PYTHONPATH": ":".join(str(self.extras / name) for name in names)}

    def file(self, name: str, content: str | bytes) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


def inside(venv: Path) -> dict[str, str]:
    """Variables of a shell in which `venv` is active."""
    return {"PATH": f"{venv}/bin:/usr/local/cuda/bin:/usr/local/bin:/usr/bin:/bin", "VIRTUAL_ENV": str(venv)}


# PyTorch's CPU build


def nccl_on_cpu_wheel(bench: Bench) -> str:
    """init_process_group("nccl") asks the CPU build for a library that only CUDA builds bring."""
    program = """
        import os

        import torch
        import torch.distributed as dist

        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29531", RANK="0", WORLD_SIZE="1")
        print(torch.__version__)
        dist.init_process_group("nccl")
        """
    return bench.python(bench.cpu, program, name="train.py")


def llama_on_cpu_wheel(bench: Bench) -> str:
    """Llama 2's own example, started by torchrun on the CPU build, fails at its process group."""
    copy_llama(bench)
    words = ["example_chat_completion.py", "--ckpt_dir", "llama-2-7b-chat/", "--tokenizer_path", "tokenizer.model"]
    return bench.torchrun(bench.cpu, "--nproc_per_node", "1", *words, prompt=f"torchrun --nproc_per_node 1 {' '.join(words)}")


def cuda_on_cpu_wheel(bench: Bench) -> str:
    """.cuda() on the CPU build."""
    program = """
        import torch
        from torch import nn

        model = nn.Linear(8, 8)
        model = model.cuda()
        """
    return bench.python(bench.cpu, program)


def to_cuda_on_cpu_wheel(bench: Bench) -> str:
    """A tensor made on device="cuda" with the CPU build, with the version that the person printed first."""
    shown = bench.run([str(bench.cpu / "bin/python"), "-c", "import torch; print(torch.__version__, torch.version.cuda)"])
    failed = bench.run([str(bench.cpu / "bin/python"), "-c", 'import torch; x = torch.randn(4, 4, device="cuda")'])
    return (
        f'$ python -c "import torch; print(torch.__version__, torch.version.cuda)"\n{shown}'
        f"$ python -c 'import torch; x = torch.randn(4, 4, device=\"cuda\")'\n{failed}"
    )


def cuda_checkpoint_on_cpu_wheel(bench: Bench) -> str:
    """A checkpoint saved from a GPU is loaded with the CPU build, whose collect_env follows."""
    program = """
        import torch

        torch.serialization.location_tag = lambda storage: "cuda:0"
        torch.save({"w": torch.zeros(4)}, "consolidated.00.pth")
        """
    bench.python(bench.cpu, program, name="save.py")
    failed = bench.python(bench.cpu, 'import torch\n\ntorch.load("consolidated.00.pth")\n', name="load.py")
    return f"{failed}\n{collect_env(bench, bench.cpu)}"


# PyTorch's CUDA build on a machine that has no driver


def cuda_wheel_without_driver(bench: Bench) -> str:
    """.cuda() with a CUDA build where no driver is installed."""
    program = """
        import torch
        from torch import nn

        model = nn.Linear(8, 8)
        model.cuda()
        """
    return bench.python(bench.cuda, program)


def cuda_init_without_driver_and_collect_env(bench: Bench) -> str:
    """torch.cuda.init() where no driver is installed, followed by the output of torch.utils.collect_env."""
    failed = bench.python(bench.cuda, "import torch\n\ntorch.cuda.init()\n")
    return f"{failed}\n{collect_env(bench, bench.cuda)}"


def old_torch_without_driver(bench: Bench) -> str:
    """device="cuda" with PyTorch 1.12 where no driver is installed."""
    return bench.python(bench.old, 'import torch\n\nx = torch.ones(2, 2, device="cuda")\n', name="train.py")


def visible_devices_nonsense_without_driver(bench: Bench) -> str:
    """CUDA_VISIBLE_DEVICES names a card that is not there; the driver is not there either, and says so first."""
    return bench.python(
        bench.cuda,
        "import torch\n\nprint(torch.cuda.device_count())\ntorch.cuda.set_device(0)\n",
        env={"CUDA_VISIBLE_DEVICES": "7"},
        prompt="CUDA_VISIBLE_DEVICES=7 python chat.py",
    )


def nccl_without_gpu(bench: Bench) -> str:
    """A CUDA build starts NCCL where no GPU is visible."""
    program = """
        import os

        import torch
        import torch.distributed as dist

        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29532", RANK="0", WORLD_SIZE="1")
        dist.init_process_group("nccl")
        dist.all_reduce(torch.ones(1))
        """
    return bench.python(bench.cuda, program, name="train.py")


def nccl_without_gpu_in_old_torch(bench: Bench) -> str:
    """PyTorch 1.12 starts NCCL where no GPU is visible."""
    program = """
        import torch.distributed as dist

        dist.init_process_group("nccl", init_method="tcp://127.0.0.1:29533", rank=0, world_size=1)
        """
    return bench.python(bench.old, program, name="train.py")


def llama_without_driver(bench: Bench) -> str:
    """Llama 2's own example, started by torchrun on a CUDA build that sees no GPU."""
    copy_llama(bench)
    words = [
        "example_text_completion.py",
        "--ckpt_dir",
        "llama-2-7b/",
        "--tokenizer_path",
        "tokenizer.model",
        "--max_seq_len",
        "128",
    ]
    return bench.torchrun(
        bench.cuda,
        "--nproc_per_node",
        "1",
        *words,
        env=borrowed(bench),
        prompt=f"torchrun --nproc_per_node 1 {' '.join(words)}",
    )


def numba_without_driver(bench: Bench) -> str:
    """Numba looks for libcuda where no driver is installed."""
    program = """
        import numpy as np
        from numba import cuda

        on_device = cuda.to_device(np.arange(10))
        """
    return bench.python(bench.cpu, program, name="add.py", env=bench.beside("numba"))


def triton_without_driver(bench: Bench) -> str:
    """A kernel of Triton is started where no driver is installed, as nvidia-smi shows."""
    program = """
        import torch
        import triton
        import triton.language as tl

        @triton.jit
        def fill(x, n: tl.constexpr):
            tl.store(x, 1.0)

        fill[(1,)](torch.zeros(4), 4)
        """
    return f"{bench.python(bench.cuda, program, name='kernel.py')}\n{no_nvidia_smi(bench)}"


def nvml_without_driver(bench: Bench) -> str:
    """NVIDIA's own binding looks for NVML where no driver is installed."""
    return bench.python(bench.cpu, "import pynvml\n\npynvml.nvmlInit()\n", name="watch.py", env=bench.beside("pynvml"))


def nvidia_smi_without_libraries(bench: Bench) -> str:
    """nvidia-smi is there alone, without the driver's libraries."""
    return bench.run([str(bench.extras / "driver-535/usr/lib/nvidia/current/nvidia-smi")], prompt="nvidia-smi")


def nvidia_smi_without_module(bench: Bench) -> str:
    """nvidia-smi and the driver's libraries are there; no kernel module is loaded."""
    smi = bench.run(
        [str(bench.extras / "driver-535/usr/lib/nvidia/current/nvidia-smi")], driver_libraries(bench), prompt="nvidia-smi"
    )
    return smi + bench.run(["cat", "/proc/driver/nvidia/version"], prompt="cat /proc/driver/nvidia/version")


def torch_without_module(bench: Bench) -> str:
    """PyTorch finds libcuda and no GPU, since no kernel module is loaded, as nvidia-smi shows."""
    program = 'import torch\n\nmodel = torch.nn.Linear(8, 8).to("cuda:0")\n'
    return f"{bench.python(bench.cuda, program, env=driver_libraries(bench))}\n{nvidia_smi_without_module(bench)}"


def cuda_before_fork(bench: Bench) -> str:
    """A forked process uses CUDA after its parent did."""
    program = """
        import contextlib

        import torch
        import torch.multiprocessing as mp

        def work(rank):
            torch.zeros(1, device=f"cuda:{rank}")

        if __name__ == "__main__":
            with contextlib.suppress(RuntimeError):
                torch.cuda.init()
            process = mp.Process(target=work, args=(0,))
            process.start()
            process.join()
        """
    return bench.python(bench.cuda, program, name="serve.py")


def empty_libcuda(bench: Bench) -> str:
    """A libcuda.so.1 of no bytes is first on the path of a program that opens the driver by name."""
    bench.file("lib/libcuda.so.1", "")
    return bench.python(
        bench.cpu,
        'import ctypes\n\ncuda = ctypes.CDLL("libcuda.so.1")\nprint(cuda.cuInit(0))\n',
        name="probe.py",
        env={"LD_LIBRARY_PATH": str(bench.folder / "lib")},
    )


def no_nvidia_smi(bench: Bench) -> str:
    """nvidia-smi is not there, since no driver is."""
    return bench.run(["bash", "-c", "nvidia-smi"], prompt="nvidia-smi")


def cupy_without_driver(bench: Bench) -> str:
    """CuPy asks a runtime of CUDA 12 for memory where no driver is installed, as nvidia-smi shows."""
    failed = bench.python(bench.cpu, "import cupy as cp\n\nx = cp.arange(10)\n", env=bench.beside("cupy"))
    return f"{failed}\n{no_nvidia_smi(bench)}"


# Foreign, empty and missing CUDA libraries


def foreign_nvjitlink(bench: Bench) -> str:
    """LD_LIBRARY_PATH puts the libnvJitLink of CUDA 12.1 before the one that came with the wheel."""
    library = bench.extras / "nvjitlink-12.1/nvidia/nvjitlink/lib"
    return bench.python(bench.cuda, "import torch\n", env={"LD_LIBRARY_PATH": str(library)})


def older_nccl_wheel(bench: Bench) -> str:
    """Another package brought an NCCL of 2023 in place of the one for which PyTorch was built."""
    older = bench.extras / "nccl-2.18/nvidia/nccl/lib"
    mounts = f"mount --bind {older} {site_packages(bench.cuda)}/nvidia/nccl/lib"
    return bench.python(bench.cuda, "import torch\n", name="train.py", mounts=mounts)


def foreign_cudnn(bench: Bench) -> str:
    """LD_LIBRARY_PATH puts cuDNN 9.0 before the 9.1 for which PyTorch was built."""
    library = bench.extras / "cudnn-9.0/nvidia/cudnn/lib"
    return bench.python(
        bench.cuda, "import torch\n\nprint(torch.backends.cudnn.version())\n", env={"LD_LIBRARY_PATH": str(library)}
    )


def missing_cudnn(bench: Bench) -> str:
    """The wheel of cuDNN was removed from beside a CUDA build."""
    with moved_away(site_packages(bench.cuda) / "nvidia/cudnn/lib"):
        return bench.python(bench.cuda, "import torch\n")


def missing_cublas(bench: Bench) -> str:
    """The wheel of cuBLAS was removed from beside a CUDA build."""
    with moved_away(site_packages(bench.cuda) / "nvidia/cublas/lib"):
        return bench.python(bench.cuda, "import torch\n")


def onnxruntime_without_cuda(bench: Bench) -> str:
    """onnxruntime-gpu is asked for CUDA where no CUDA libraries are."""
    value = field(2, field(1, b"\x08\x01" + field(2, b"")))  # a float32 of no dimension
    node = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Identity"))
    graph = node + field(2, b"g") + field(11, field(1, b"x") + value) + field(12, field(1, b"y") + value)
    bench.file("model.onnx", b"\x08\x08" + field(7, graph) + field(8, b"\x10\x0d"))
    program = """
        import onnxruntime as ort

        session = ort.InferenceSession("model.onnx", providers=["CUDAExecutionProvider"])
        print(session.get_providers())
        """
    return bench.python(bench.cpu, program, env=bench.beside("onnxruntime-gpu"), name="serve.py")


# Companions of another PyTorch


def torchvision_of_another_release(bench: Bench) -> str:
    """torchvision 0.21, made for PyTorch 2.6, beside PyTorch 2.13."""
    return bench.python(bench.cpu, "import torchvision\n", env=bench.beside("torchvision-0.21"))


def torchaudio_of_another_release(bench: Bench) -> str:
    """torchaudio 2.6, made for PyTorch 2.6 with CUDA, beside a CPU build of PyTorch 2.13."""
    return bench.python(bench.cpu, "import torchaudio\n", env=bench.beside("torchaudio"))


def extension_of_another_torch(bench: Bench) -> str:
    """An extension that was compiled against PyTorch 2.13 is imported beside PyTorch 2.5."""
    build_extension(bench, bench.cpu)
    return bench.python(bench.cuda, "import torch\nimport fused_ops\n\nprint(fused_ops.forward(torch.ones(2)))\n")


def xformers_of_another_torch(bench: Bench) -> str:
    """xformers that was built for PyTorch 2.5 with CUDA is used beside a CPU build of PyTorch 2.13."""
    program = """
        import torch
        import xformers.ops

        q = torch.randn(1, 16, 4, 64)
        print(xformers.ops.memory_efficient_attention(q, q, q).shape)
        """
    return bench.python(bench.cpu, program, name="demo.py", env=bench.beside("xformers"))


def torchao_of_another_torch(bench: Bench) -> str:
    """torchao says that it does without its compiled part; what was asked for is done."""
    return bench.python(bench.cpu, "import torchao\n\nprint('quantized')\n", name="quantize.py", env=bench.beside("torchao"))


def bitsandbytes_without_gpu(bench: Bench) -> str:
    """bitsandbytes 0.49 with a CUDA build of PyTorch that sees no GPU."""
    program = """
        import torch
        import bitsandbytes as bnb

        layer = bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False).to("cuda")
        """
    return bench.python(bench.cuda, program, env=bench.beside("bitsandbytes"))


def old_bitsandbytes_without_gpu(bench: Bench) -> str:
    """bitsandbytes 0.41 examines itself, with a CUDA build of PyTorch that sees no GPU."""
    return bench.run(
        [str(bench.cuda / "bin/python"), "-m", "bitsandbytes"],
        inside(bench.cuda) | bench.beside("bitsandbytes-0.41"),
        prompt="python -m bitsandbytes",
    )


# Compilers


def gcc_too_new(bench: Bench) -> str:
    """nvcc 11.8 takes gcc up to 11 and meets gcc 12."""
    nvcc = cuda_11(bench)
    bench.file("saxpy.cu", "__global__ void f() {}\n\nint main() { f<<<1, 1>>>(); }\n")
    return bench.run([nvcc, "-o", "saxpy", "saxpy.cu"], prompt="nvcc -o saxpy saxpy.cu")


def gcc_too_new_for_make(bench: Bench) -> str:
    """make compiles with nvcc 11.8, which refuses gcc 12."""
    nvcc = cuda_11(bench)
    bench.file("kernels/rms_norm.cu", "__global__ void rms_norm() {}\n")
    rule = "kernels/rms_norm.o: kernels/rms_norm.cu\n\t$(NVCC) -O3 -arch=sm_86 -Xcompiler -fPIC -c $< -o $@\n"
    bench.file("Makefile", f"NVCC ?= nvcc\n\n{rule}")
    return bench.run(["make", f"NVCC={nvcc}"], prompt="make")


def nvcc_too_old_for_blackwell(bench: Bench) -> str:
    """nvcc 11.8 does not know compute_120."""
    nvcc = cuda_11(bench)
    bench.file("saxpy.cu", "__global__ void f() {}\n")
    flags = ["-gencode=arch=compute_120,code=sm_120", "-c", "saxpy.cu"]
    return bench.run([nvcc, *flags], prompt=f"nvcc {' '.join(flags)}")


def ptxas_too_old_for_blackwell(bench: Bench) -> str:
    """ptxas 11.8 does not know sm_120."""
    bench.file("kernel.ptx", ".version 7.8\n.target sm_80\n.address_size 64\n")
    ptxas = bench.extras / "cuda-11.8/usr/bin/ptxas"
    return bench.run([str(ptxas), "-arch=sm_120", "kernel.ptx"], prompt="ptxas -arch=sm_120 kernel.ptx")


def nvcc_too_new_for_pascal(bench: Bench) -> str:
    """nvcc 13.0 no longer knows compute_61."""
    bench.file("saxpy.cu", "__global__ void f() {}\n")
    flags = ["-gencode=arch=compute_61,code=sm_61", "-c", "saxpy.cu"]
    return bench.run(["/usr/local/cuda/bin/nvcc", *flags], prompt=f"nvcc {' '.join(flags)}")


def no_nvcc_for_an_extension(bench: Bench) -> str:
    """An extension with CUDA sources is built where there is no toolkit."""
    cuda_extension(bench)
    return build(bench, bench.cuda, mounts="mount -t tmpfs none /usr/local")


def broken_cuda_home_for_an_extension(bench: Bench) -> str:
    """CUDA_HOME leads to a toolkit that was removed."""
    cuda_extension(bench)
    return build(bench, bench.cuda, env={"CUDA_HOME": "/usr/local/cuda-12.4"})


def nvcc_of_another_cuda_for_an_extension(bench: Bench) -> str:
    """An extension is built with nvcc 13.0 for a PyTorch of CUDA 12.4."""
    cuda_extension(bench)
    return build(bench, bench.cuda)


def cuda_extension_with_cpu_wheel(bench: Bench) -> str:
    """An extension with CUDA sources is built with nvcc at hand and a CPU build of PyTorch, which looks for no toolkit."""
    cuda_extension(bench)
    nvcc = bench.run(["nvcc", "--version"], inside(bench.cpu), prompt="nvcc --version")
    shown = bench.run([str(bench.cpu / "bin/python"), "-c", "import torch; print(torch.__version__, torch.version.cuda)"])
    return f'{nvcc}$ python -c "import torch; print(torch.__version__, torch.version.cuda)"\n{shown}{build(bench, bench.cpu)}'


def make_without_nvcc(bench: Bench) -> str:
    """make calls nvcc, which is not there."""
    bench.file("kernels/rms_norm.cu", "__global__ void rms_norm() {}\n")
    bench.file("Makefile", "kernels/rms_norm.o: kernels/rms_norm.cu\n\tnvcc -O3 -c $< -o $@\n")
    return bench.run(["make"], prompt="make", mounts="mount -t tmpfs none /usr/local")


def cmake_without_nvcc(bench: Bench) -> str:
    """CMake looks for a CUDA compiler where there is no toolkit."""
    return cmake(bench, {}, mounts="mount -t tmpfs none /usr/local")


def cmake_with_gcc_too_new(bench: Bench) -> str:
    """CMake tries nvcc 11.8, which refuses gcc 12."""
    return cmake(bench, {"CUDACXX": cuda_11(bench)})


def flash_attn_without_nvcc(bench: Bench) -> str:
    """pip builds flash-attn where there is no toolkit."""
    command = [
        str(bench.cuda / "bin/python"),
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "flash-attn==2.7.4.post1",
    ]
    return bench.run(
        command,
        inside(bench.cuda) | pip_world(),
        prompt="pip install flash-attn==2.7.4.post1 --no-build-isolation",
        mounts="mount -t tmpfs none /usr/local",
    )


# Checkpoints


def lfs_pointer_as_safetensors(bench: Bench) -> str:
    """A git-lfs pointer lies where a .safetensors file should."""
    bench.file("model.safetensors", LFS_POINTER)
    program = """
        from safetensors.torch import load_file

        weights = load_file("model.safetensors")
        """
    return bench.python(bench.cpu, program)


def lfs_pointer_in_transformers(bench: Bench) -> str:
    """transformers loads a model that was cloned without git-lfs."""
    small_llama(bench)
    bench.file("Llama-3.2-1B/model.safetensors", LFS_POINTER)
    return from_pretrained(bench, bench.cpu, "Llama-3.2-1B")


def lfs_pointer_in_old_transformers(bench: Bench) -> str:
    """transformers 4.46 loads a model that was cloned without git-lfs."""
    small_llama(bench)
    bench.file("Llama-2-7b-hf/config.json", (bench.folder / "Llama-3.2-1B/config.json").read_bytes())
    bench.file("Llama-2-7b-hf/pytorch_model.bin", LFS_POINTER)
    return from_pretrained(bench, bench.cpu, "Llama-2-7b-hf", env=bench.beside("transformers-4"))


def lfs_pointer_as_pth(bench: Bench) -> str:
    """torch.load meets a git-lfs pointer: operand 118 is its first letter, v."""
    bench.file("llama-2-7b/consolidated.00.pth", LFS_POINTER)
    return bench.python(
        bench.cpu, 'import torch\n\ncheckpoint = torch.load("llama-2-7b/consolidated.00.pth", map_location="cpu")\n'
    )


def lfs_pointer_in_old_torch(bench: Bench) -> str:
    """torch.load of PyTorch 1.12 meets a git-lfs pointer."""
    bench.file("pytorch_model.bin", LFS_POINTER)
    return bench.python(bench.old, 'import torch\n\nweights = torch.load("pytorch_model.bin", map_location="cpu")\n')


def lfs_pointer_as_gguf(bench: Bench) -> str:
    """gguf reads a git-lfs pointer."""
    bench.file("llama-2-7b.Q4_K_M.gguf", LFS_POINTER)
    return bench.python(bench.cpu, 'from gguf import GGUFReader\n\nreader = GGUFReader("llama-2-7b.Q4_K_M.gguf")\n')


def lfs_pointer_in_llama_cpp(bench: Bench) -> str:
    """llama.cpp opens a git-lfs pointer."""
    bench.file("llama-2-7b.Q4_K_M.gguf", LFS_POINTER)
    return llama_cpp(bench, "llama-2-7b.Q4_K_M.gguf")


def lfs_pointer_in_ctransformers(bench: Bench) -> str:
    """ctransformers, an old llama.cpp, opens a git-lfs pointer."""
    bench.file("llama-2-7b.Q4_K_M.gguf", LFS_POINTER)
    program = """
        from ctransformers import AutoModelForCausalLM

        llm = AutoModelForCausalLM.from_pretrained("llama-2-7b.Q4_K_M.gguf", model_type="llama", lib="basic")
        """
    return bench.python(bench.cpu, program, env=bench.beside("ctransformers"))


def truncated_gguf(bench: Bench) -> str:
    """llama.cpp opens a file whose download broke off."""
    program = """
        import numpy
        from gguf import GGUFWriter

        writer = GGUFWriter("whole.gguf", "llama")
        writer.add_block_count(1)
        for name in ("token_embd.weight", "output.weight"):
            writer.add_tensor(name, numpy.zeros((64, 256), dtype=numpy.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        """
    bench.python(bench.cpu, program, name="write.py")
    whole = (bench.folder / "whole.gguf").read_bytes()
    bench.file("llama-2-7b.Q4_K_M.gguf", whole[: len(whole) // 2])
    return llama_cpp(bench, "llama-2-7b.Q4_K_M.gguf")


def lfs_pointer_as_tokenizer(bench: Bench) -> str:
    """sentencepiece opens a git-lfs pointer in place of tokenizer.model."""
    bench.file("tokenizer.model", LFS_POINTER)
    program = """
        from sentencepiece import SentencePieceProcessor

        tokenizer = SentencePieceProcessor(model_file="tokenizer.model")
        """
    return bench.python(bench.cpu, program)


def truncated_safetensors(bench: Bench) -> str:
    """A .safetensors file whose download broke off."""
    program = """
        import torch
        from safetensors.torch import load_file, save_file

        save_file({"w": torch.zeros(256, 256)}, "whole.safetensors")
        """
    bench.python(bench.cpu, program, name="write.py")
    whole = (bench.folder / "whole.safetensors").read_bytes()
    bench.file("model-00001-of-00002.safetensors", whole[: len(whole) // 2])
    program = """
        from safetensors import safe_open

        with safe_open("model-00001-of-00002.safetensors", framework="pt", device="cpu") as weights:
            print(weights.keys())
        """
    return bench.python(bench.cpu, program)


def truncated_pth(bench: Bench) -> str:
    """A .pth file whose download broke off."""
    half_a_checkpoint(bench, "consolidated.00.pth")
    return bench.python(bench.cpu, 'import torch\n\ncheckpoint = torch.load("consolidated.00.pth", map_location="cpu")\n')


def truncated_pth_in_old_torch(bench: Bench) -> str:
    """PyTorch 1.12 opens a .pth file whose download broke off."""
    half_a_checkpoint(bench, "consolidated.01.pth")
    return bench.python(bench.old, 'import torch\n\ncheckpoint = torch.load("consolidated.01.pth", map_location="cpu")\n')


def empty_pth(bench: Bench) -> str:
    """A checkpoint of no bytes."""
    bench.file("adapter_model.bin", "")
    return bench.python(bench.cpu, 'import torch\n\nadapter = torch.load("adapter_model.bin")\n')


def web_page_as_checkpoint(bench: Bench) -> str:
    """A web page was saved in place of the checkpoint."""
    bench.file("pytorch_model.bin", "<!doctype html>\n<html><head><title>Sign in</title></head><body></body></html>\n")
    return bench.python(bench.cpu, 'import torch\n\nweights = torch.load("pytorch_model.bin", weights_only=False)\n')


def weights_only_refuses_numpy(bench: Bench) -> str:
    """torch.load refuses a NumPy number that a trainer saved beside the weights."""
    program = """
        import numpy
        import torch

        torch.save({"epoch": numpy.float64(3.0), "w": torch.zeros(2)}, "checkpoint.pt")
        torch.load("checkpoint.pt")
        """
    return bench.python(bench.cpu, program, name="resume.py")


def weights_only_refuses_a_class(bench: Bench) -> str:
    """torch.load refuses the trainer's own class in a checkpoint."""
    program = """
        import argparse

        import torch

        torch.save({"args": argparse.Namespace(lr=1e-4), "w": torch.zeros(2)}, "last.ckpt")
        torch.load("last.ckpt", map_location="cpu")
        """
    return bench.python(bench.cpu, program, name="resume.py")


def pickle_of_a_missing_class(bench: Bench) -> str:
    """A checkpoint was pickled with a class of a program that is not here."""
    bench.file("models/__init__.py", "")
    bench.file("models/yolo.py", "class Model:\n    pass\n")
    bench.python(bench.old, 'import torch\n\nfrom models.yolo import Model\n\ntorch.save(Model(), "best.pt")\n', name="save.py")
    shutil.rmtree(bench.folder / "models")
    return bench.python(bench.cpu, 'import torch\n\nmodel = torch.load("best.pt", weights_only=False)\n', name="detect.py")


def size_mismatch(bench: Bench) -> str:
    """A state dict of another shape is loaded into a model."""
    program = """
        from torch import nn

        nn.Linear(4096, 32000).load_state_dict(nn.Linear(4096, 32001).state_dict())
        """
    return bench.python(bench.cpu, program)


def no_weights_in_the_folder(bench: Bench) -> str:
    """transformers is led to a folder that has a config and no weights."""
    small_llama(bench)
    return from_pretrained(bench, bench.cpu, "Llama-3.2-1B")


def missing_shard(bench: Bench) -> str:
    """The index names a shard that is not in the folder."""
    small_llama(bench)
    index = {"metadata": {"total_size": 8}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    bench.file("Llama-3.2-1B/model.safetensors.index.json", json.dumps(index))
    return from_pretrained(bench, bench.cpu, "Llama-3.2-1B")


def no_such_model_folder(bench: Bench) -> str:
    """transformers is led to a folder that does not exist."""
    return from_pretrained(bench, bench.cpu, "./models/Llama-2-7b-hf", env=bench.beside("transformers-4"))


def llama_without_checkpoints(bench: Bench) -> str:
    """Llama 2's loader finds no .pth file in --ckpt_dir."""
    (bench.folder / "llama-2-7b-chat").mkdir()
    return llama_on_gloo(bench, "--ckpt_dir", "llama-2-7b-chat/", "--tokenizer_path", "tokenizer.model")


def llama_without_tokenizer(bench: Bench) -> str:
    """Llama 2's loader finds no tokenizer.model."""
    program = """
        import json

        import torch

        torch.save({}, "llama-2-7b/consolidated.00.pth")
        json.dump({"dim": 64, "n_layers": 1, "n_heads": 1, "norm_eps": 1e-5}, open("llama-2-7b/params.json", "w"))
        """
    (bench.folder / "llama-2-7b").mkdir()
    bench.python(bench.cpu, program, name="write.py")
    return llama_on_gloo(bench, "--ckpt_dir", "llama-2-7b/", "--tokenizer_path", "tokenizer.model")


def llama_with_too_few_processes(bench: Bench) -> str:
    """Llama 2 13B, in two parts, is started with one process."""
    bench.file("llama-2-13b-chat/consolidated.00.pth", "")
    bench.file("llama-2-13b-chat/consolidated.01.pth", "")
    return llama_on_gloo(bench, "--ckpt_dir", "llama-2-13b-chat/", "--tokenizer_path", "tokenizer.model")


def llama_with_a_broken_command_line(bench: Bench) -> str:
    """A space after the backslash makes an argument of what should have been the next line."""
    line = "torchrun --nproc_per_node 1 example_chat_completion.py \\ "
    return llama_in_a_shell(bench, f"{line}\n    --ckpt_dir llama-2-7b-chat/ \\\n    --tokenizer_path tokenizer.model\n")


def llama_with_a_joined_command_line(bench: Bench) -> str:
    """A command of two lines was pasted as one, with the backslash still in it."""
    line = "torchrun --nproc_per_node 1 example_chat_completion.py \\ "
    return llama_in_a_shell(bench, f"{line}--ckpt_dir llama-2-7b-chat/ --max_seq_len 512 --max_batch_size 6")


# Starting several processes


def no_master_addr(bench: Bench) -> str:
    """init_process_group without torchrun and without its variables."""
    return bench.python(bench.cpu, 'import torch.distributed as dist\n\ndist.init_process_group("gloo")\n', name="train.py")


def port_in_use(bench: Bench) -> str:
    """init_process_group meets another program on its port."""
    return join_group(bench, bench.cpu)


def port_in_use_in_old_torch(bench: Bench) -> str:
    """init_process_group of PyTorch 1.12 meets another program on its port."""
    return join_group(bench, bench.old)


def port_in_use_for_torchrun(bench: Bench) -> str:
    """torchrun meets another program on its port."""
    bench.file("train.py", "print('trained')\n")
    with listening() as port:
        words = ["--nproc_per_node", "2", f"--master_port={port}", "train.py"]
        return bench.torchrun(bench.cuda, *words, prompt=f"torchrun {' '.join(words)}")


def torchrun_reports_a_bug(bench: Bench) -> str:
    """torchrun reports that the program itself raised a KeyError."""
    program = 'config = {"lr": 1e-4}\nprint(config["learning_rate"])\n'
    bench.file("train.py", program)
    return bench.torchrun(bench.cpu, "--nproc_per_node", "2", "train.py")


# Numbers and shapes


def half_on_cpu_in_old_torch(bench: Bench) -> str:
    """PyTorch 1.12 multiplies half precision matrices on the CPU."""
    program = """
        import torch
        from torch import nn

        model = nn.Linear(16, 16).half()
        model(torch.ones(1, 16, dtype=torch.float16))
        """
    return bench.python(bench.old, program)


def half_convolution_on_cpu_in_old_torch(bench: Bench) -> str:
    """PyTorch 1.12 convolves in half precision on the CPU."""
    program = """
        import torch
        from torch import nn

        nn.Conv2d(3, 8, 3).half()(torch.ones(1, 3, 8, 8).half())
        """
    return bench.python(bench.old, program, name="demo.py")


def half_on_cpu_in_new_torch(bench: Bench) -> str:
    """PyTorch 2.13 decomposes a half precision matrix on the CPU."""
    return bench.python(bench.cpu, "import torch\n\ntorch.linalg.qr(torch.eye(3, dtype=torch.float16))\n", name="solve.py")


def mixed_dtypes(bench: Bench) -> str:
    """A float32 input meets bfloat16 weights."""
    program = """
        import torch
        from torch import nn

        nn.Linear(8, 8, dtype=torch.bfloat16)(torch.ones(1, 8))
        """
    return bench.python(bench.cpu, program)


def linear_left_on_meta(bench: Bench) -> str:
    """An input on the CPU meets a layer whose weights were left on the meta device."""
    program = """
        import torch
        from torch import nn

        layer = nn.Linear(8, 8, device="meta")
        layer(torch.ones(1, 8))
        """
    return bench.python(bench.cpu, program)


def token_outside_the_vocabulary_on_cpu(bench: Bench) -> str:
    """A token id beyond the embedding's rows, on the CPU, where it is an IndexError."""
    program = """
        import torch
        from torch import nn

        embedding = nn.Embedding(32000, 64)
        embedding(torch.tensor([[1, 15043, 32000]]))
        """
    return bench.python(bench.cpu, program)


def shapes_do_not_fit(bench: Bench) -> str:
    """Two matrices whose shapes do not fit."""
    program = """
        import torch
        from torch import nn

        nn.Sequential(nn.Linear(768, 512), nn.ReLU(), nn.Linear(256, 10))(torch.ones(4, 768))
        """
    return bench.python(bench.cpu, program, name="classify.py")


# Bugs and files of the person's own


def plain_bug(bench: Bench) -> str:
    """The tokenizer's answer was not checked for None."""
    program = """
        import re

        import torch

        def answer(text: str) -> str:
            match = re.search(r"### Response:(.*)", text)
            return match.group(1).strip()

        print("device:", torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        print(answer("Hello"))
        """
    return bench.python(bench.cpu, program)


def unknown_option(bench: Bench) -> str:
    """A program is given an option that it does not have."""
    program = """
        import argparse

        parser = argparse.ArgumentParser()
        parser.add_argument("--model", required=True)
        parser.add_argument("--gpu-memory-utilization", type=float, default=0.9)
        parser.parse_args()
        """
    return bench.python(
        bench.cpu, program, "--model", "llama", "--gpus", "2", name="serve.py", prompt="python serve.py --model llama --gpus 2"
    )


def not_enough_host_memory(bench: Bench) -> str:
    """The host's memory, limited by ulimit, ends while weights are made; the GPU has no part in it."""
    bench.file("load.py", "import torch\n\nweights = torch.zeros(40_000, 40_000)\n")
    line = f"ulimit -v 6000000; exec {bench.cpu}/bin/python load.py"
    return bench.run(["bash", "-c", line], inside(bench.cpu), prompt="python load.py")


def small_dev_shm(bench: Bench) -> str:
    """Workers of a DataLoader share batches through a /dev/shm of 4 MB."""
    program = """
        import torch
        from torch.utils.data import DataLoader

        class Images(torch.utils.data.Dataset):
            def __len__(self):
                return 64

            def __getitem__(self, index):
                return torch.ones(3, 512, 512)

        if __name__ == "__main__":
            for batch in DataLoader(Images(), batch_size=8, num_workers=2):
                print(batch.shape)
        """
    return bench.python(bench.cpu, program, name="train.py", mounts="mount -t tmpfs -o size=4m none /dev/shm")


# transformers and its companions


def no_accelerate(bench: Bench) -> str:
    """device_map="auto" without accelerate."""
    small_llama(bench)
    return from_pretrained(bench, bench.cpu, "Llama-3.2-1B", words=', device_map="auto"')


def no_accelerate_in_old_transformers(bench: Bench) -> str:
    """load_in_8bit in transformers 4.46 without accelerate and bitsandbytes."""
    small_llama(bench)
    return from_pretrained(bench, bench.cpu, "Llama-3.2-1B", words=", load_in_8bit=True", env=bench.beside("transformers-4"))


def no_flash_attn(bench: Bench) -> str:
    """attn_implementation="flash_attention_2" in transformers 4.46 without flash-attn."""
    small_llama(bench)
    program = """
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained("Llama-3.2-1B")
        model = AutoModelForCausalLM.from_config(config, attn_implementation="flash_attention_2")
        """
    return bench.python(bench.cpu, program, env=bench.beside("transformers-4"))


def no_sentencepiece(bench: Bench) -> str:
    """LlamaTokenizer of transformers 4.46 without sentencepiece."""
    program = """
        from transformers import LlamaTokenizer

        tokenizer = LlamaTokenizer.from_pretrained("Llama-2-7b-hf")
        """
    with moved_away(site_packages(bench.cpu) / "sentencepiece"):
        return bench.python(bench.cpu, program, env=bench.beside("transformers-4"))


# Installing


def externally_managed(bench: Bench) -> str:
    """pip refuses to install into Debian's own Python."""
    return bench.run(["/usr/bin/python3", "-m", "pip", "install", "torch"], prompt="pip install torch")


def environment_without_pip(bench: Bench) -> str:
    """An environment made by uv has no pip."""
    bench.run([str(bench.extras / "uv/bin/uv"), "venv", "--python", "/usr/bin/python3", ".venv"])
    return bench.run([".venv/bin/python", "-m", "pip", "install", "torch"], prompt="python -m pip install torch")


def versions_that_conflict(bench: Bench) -> str:
    """pip is asked for a PyTorch and a torchvision that exclude each other."""
    command = [str(bench.cuda / "bin/python"), "-m", "pip", "install", "--dry-run", "torch==2.5.0", "torchvision==0.21.0"]
    return bench.run(command, inside(bench.cuda) | pip_world(), prompt="pip install torch==2.5.0 torchvision==0.21.0")


def no_such_torch(bench: Bench) -> str:
    """pip knows no PyTorch so old for this Python."""
    command = [str(bench.cuda / "bin/python"), "-m", "pip", "install", "torch==1.7.1+cu110"]
    return bench.run(command, inside(bench.cuda) | pip_world(), prompt="pip install torch==1.7.1+cu110")


# Harmless words


def numpy_2_beside_old_torch(bench: Bench) -> str:
    """PyTorch 1.12, built for NumPy 1, warns of NumPy 2 and goes on."""
    return bench.python(bench.old, "import torch\n\nprint(torch.ones(2) * 2)\n")


def weights_only_will_change(bench: Bench) -> str:
    """torch.load of PyTorch 2.5 warns of a coming default; the program ends well."""
    program = """
        import torch

        torch.save({"w": torch.zeros(2)}, "weights.pt")
        weights = torch.load("weights.pt")
        print(sorted(weights))
        """
    return bench.python(bench.cuda, program)


def deprecated_autocast(bench: Bench) -> str:
    """torch.cuda.amp's old names warn; the program ends well."""
    program = """
        import torch

        scaler = torch.cuda.amp.GradScaler(enabled=False)
        with torch.cuda.amp.autocast(enabled=False):
            print(torch.ones(2).sum())
        print("done")
        """
    return bench.python(bench.cpu, program, name="train.py")


def scheduler_before_optimizer(bench: Bench) -> str:
    """The order of scheduler and optimizer is warned of; the program ends well."""
    program = """
        import torch

        weight = torch.nn.Parameter(torch.ones(1))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        scheduler.step()
        optimizer.step()
        print("epoch 1 done")
        """
    return bench.python(bench.cpu, program, name="train.py")


def torchrun_sets_threads(bench: Bench) -> str:
    """torchrun says that it sets OMP_NUM_THREADS; the program ends well."""
    bench.file("train.py", 'import os\n\nprint("rank", os.environ["RANK"], "finished")\n')
    return bench.torchrun(bench.cpu, "--nproc_per_node", "2", "train.py", prompt="torchrun --nproc_per_node 2 train.py")


def weights_newly_initialised(bench: Bench) -> str:
    """transformers says that a new head has fresh weights; training may begin."""
    program = """
        from transformers import BertConfig, BertForSequenceClassification, BertModel

        config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16, vocab_size=50)
        BertModel(config).save_pretrained("bert-tiny")
        BertForSequenceClassification.from_pretrained("bert-tiny")
        print("loaded")
        """
    return bench.python(bench.cpu, program, name="finetune.py", env=bench.beside("transformers-4"))


# What several provocations share


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer message, shorter than 128 bytes."""
    return bytes((number << 3 | 2, len(content))) + content


def collect_env(bench: Bench, venv: Path) -> str:
    """The part of PyTorch's own report that people paste: down to the line before the processor."""
    report = bench.run([str(venv / "bin/python"), "-m", "torch.utils.collect_env"], inside(venv))
    return re.sub(r"\nCPU:\n.*?\n\n", "\n", report, flags=re.DOTALL)


def copy_llama(bench: Bench) -> None:
    for name in ("llama", "example_chat_completion.py", "example_text_completion.py"):
        source = bench.llama / name
        if source.is_dir():
            shutil.copytree(source, bench.folder / name)
        else:
            shutil.copy(source, bench.folder / name)


def driver_libraries(bench: Bench) -> dict[str, str]:
    return {"LD_LIBRARY_PATH": str(bench.extras / "driver-535/usr/lib/x86_64-linux-gnu/nvidia/current")}


def borrowed(bench: Bench) -> dict[str, str]:
    """Variables that lend what Llama needs to an environment of the same Python that has only PyTorch."""
    folder = bench.folder / "borrowed"
    folder.mkdir()
    for name in ("fairscale", "fire", "sentencepiece", "termcolor"):
        (folder / name).symlink_to(site_packages(bench.cpu) / name)
    return {"PYTHONPATH": str(folder)}


def llama_on_gloo(bench: Bench, *words: str) -> str:
    """The example as people change it for a machine without a GPU."""
    gloo_llama(bench)
    words = ("example_chat_completion.py", *words)
    return bench.torchrun(
        bench.cpu,
        "--nproc_per_node",
        "1",
        *words,
        env={"OMP_NUM_THREADS": "1"},
        prompt=f"torchrun --nproc_per_node 1 {' '.join(words)}",
    )


def llama_in_a_shell(bench: Bench, line: str) -> str:
    gloo_llama(bench)
    text = bench.run(["bash", "-c", line], inside(bench.cpu) | {"OMP_NUM_THREADS": "1"})
    return "$ " + line.strip().replace("\n    ", "\n>     ") + f"\n{text}"


def gloo_llama(bench: Bench) -> None:
    copy_llama(bench)
    loader = bench.folder / "llama/generation.py"
    text = loader.read_text().replace('init_process_group("nccl")', 'init_process_group("gloo")')
    loader.write_text(text.replace("torch.cuda.set_device(local_rank)", "# torch.cuda.set_device(local_rank)"))


def join_group(bench: Bench, venv: Path) -> str:
    with listening() as port:
        program = f"""
            import torch.distributed as dist

            dist.init_process_group("gloo", init_method="tcp://127.0.0.1:{port}", rank=0, world_size=1)
            """
        return bench.python(venv, program, name="train.py")


def small_llama(bench: Bench) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "vocab_size": 32,
    }
    bench.file("Llama-3.2-1B/config.json", json.dumps(config))


def from_pretrained(bench: Bench, venv: Path, model: str, *, words: str = "", env: Mapping[str, str] | None = None) -> str:
    program = f"""
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained("{model}"{words})
        """
    return bench.python(venv, program, env=env)


def llama_cpp(bench: Bench, model: str) -> str:
    program = f"""
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = "{model}"
        server = xllamacpp.Server(params)
        """
    return bench.python(bench.cpu, program, env=bench.beside("xllamacpp"))


def half_a_checkpoint(bench: Bench, name: str) -> None:
    bench.python(bench.old, 'import torch\n\ntorch.save({"w": torch.zeros(256, 256)}, "whole.pth")\n', name="write.py")
    whole = (bench.folder / "whole.pth").read_bytes()
    bench.file(name, whole[: len(whole) // 2])


def build_extension(bench: Bench, venv: Path) -> None:
    """Compile fused_ops against the PyTorch of `venv`, into the folder."""
    source = """
        #include <torch/extension.h>

        at::Tensor forward(const at::Tensor& x) {
          TORCH_CHECK(x.dim() > 0, "no dimension");
          return at::relu(x.contiguous());
        }

        PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("forward", &forward); }
        """
    bench.file("fused_ops.cpp", textwrap.dedent(source).lstrip())
    setup = """
        from setuptools import setup
        from torch.utils.cpp_extension import BuildExtension, CppExtension

        setup(name="fused_ops", ext_modules=[CppExtension("fused_ops", ["fused_ops.cpp"])], cmdclass={"build_ext": BuildExtension})
        """
    bench.python(venv, setup, "build_ext", "--inplace", name="setup.py")


def cmake(bench: Bench, env: Mapping[str, str], *, mounts: str = "") -> str:
    bench.file("CMakeLists.txt", "cmake_minimum_required(VERSION 3.18)\nproject(ggml LANGUAGES C CXX CUDA)\n")
    return bench.run(["/usr/bin/cmake", "-B", "build"], env, prompt="cmake -B build", mounts=mounts)


def cuda_11(bench: Bench) -> str:
    """The nvcc of a toolkit 11.8 that is put together from Debian's programs and the headers of NVIDIA's wheels."""
    parts = bench.extras / "cuda-11.8"
    toolkit = bench.folder / "cuda-11.8"
    shutil.copytree(parts / "usr/bin", toolkit / "bin", ignore=shutil.ignore_patterns("compute-sanitizer", "nv[dlp]*", "Tree*"))
    shutil.copytree(parts / "nvidia/cuda_nvcc/nvvm", toolkit / "nvvm")
    for package in ("cuda_nvcc", "cuda_runtime"):
        shutil.copytree(parts / "nvidia" / package / "include", toolkit / "include", dirs_exist_ok=True)
    for program, place in (("nvcc", "bin"), ("cicc", "nvvm/bin"), ("crt", "bin/crt")):
        source = parts / "usr/lib/nvidia-cuda-toolkit/bin" / program
        if source.is_dir():
            shutil.copytree(source, toolkit / place)
        else:
            (toolkit / place).mkdir(exist_ok=True)
            shutil.copy(source, toolkit / place / program)
    profile = """
        TOP              = $(_HERE_)/..
        NVVMIR_LIBRARY_DIR = $(TOP)/$(_NVVM_BRANCH_)/libdevice
        PATH            += $(TOP)/$(_NVVM_BRANCH_)/bin:$(_HERE_):
        INCLUDES        += "-I$(TOP)/include" $(_SPACE_)
        """
    bench.file("cuda-11.8/bin/nvcc.profile", textwrap.dedent(profile).lstrip())
    return str(toolkit / "bin/nvcc")


def cuda_extension(bench: Bench) -> None:
    bench.file("fused_ops.cu", "#include <torch/extension.h>\n__global__ void f() {}\n")
    setup = """
        from setuptools import setup
        from torch.utils.cpp_extension import BuildExtension, CUDAExtension

        setup(name="fused_ops", ext_modules=[CUDAExtension("fused_ops", ["fused_ops.cu"])], cmdclass={"build_ext": BuildExtension})
        """
    bench.file("setup.py", textwrap.dedent(setup).lstrip())


def build(bench: Bench, venv: Path, *, env: Mapping[str, str] | None = None, mounts: str = "") -> str:
    command = [str(venv / "bin/python"), "setup.py", "build_ext", "--inplace"]
    return bench.run(command, inside(venv) | dict(env or {}), prompt="python setup.py build_ext --inplace", mounts=mounts)


def pip_world() -> dict[str, str]:
    """Variables with which pip asks the public index, and only it."""
    kept = ("PIP_CERT", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }


def site_packages(venv: Path) -> Path:
    return next((venv / "lib").glob("python3.*")) / "site-packages"


@contextmanager
def moved_away(path: Path) -> Iterator[None]:
    """`path` is not there for a while."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@contextmanager
def listening() -> Iterator[int]:
    """A port on which something listens."""
    with socket.create_server(("", 29500 + os.getpid() % 300)) as server:
        yield server.getsockname()[1]


@dataclass(frozen=True, slots=True)
class Provocation:
    """What to do, the code that should explain it (None: nothing of the environment is at fault), and whose versions to note."""

    does: Callable[[Bench], str]
    expect: str | None
    venv: str = ""
    packages: tuple[str, ...] = ("torch",)
    extra: str = ""
    tools: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.does.__name__.replace("_", "-")


def version_line(bench: Bench, *command: str) -> str:
    """The last number with dots that a program calls its version."""
    found: list[str] = re.findall(r"\d+(?:\.\d+)+", bench.run([*command]))
    return found[-1]


TOOLS: dict[str, Callable[[Bench], str]] = {
    "gcc": lambda bench: version_line(bench, "gcc", "-dumpfullversion"),
    "nvcc": lambda bench: version_line(bench, "sh", "-c", "/usr/local/cuda/bin/nvcc --version | grep -o 'V[0-9.]*'"),
    "cmake": lambda bench: version_line(bench, "cmake", "--version"),
    "pip": lambda bench: version_line(bench, "sh", "-c", "/usr/bin/python3 -m pip --version | cut -d' ' -f2"),
    "driver": lambda _: "535.261.03",
}
LFS = "file-is-lfs-pointer-or-truncated"
TRANSFORMERS = ("torch", "transformers")
PROVOCATIONS = (
    Provocation(nccl_on_cpu_wheel, "nccl-not-in-torch-build", "cpu"),
    Provocation(llama_on_cpu_wheel, "nccl-not-in-torch-build", "cpu", ("torch", "fairscale")),
    Provocation(cuda_on_cpu_wheel, "torch-cpu-only-build", "cpu"),
    Provocation(to_cuda_on_cpu_wheel, "torch-cpu-only-build", "cpu"),
    Provocation(cuda_checkpoint_on_cpu_wheel, "torch-cpu-only-build", "cpu"),
    Provocation(cuda_wheel_without_driver, "driver-not-installed", "cuda"),
    Provocation(cuda_init_without_driver_and_collect_env, "driver-not-installed", "cuda"),
    Provocation(old_torch_without_driver, "driver-not-installed", "old"),
    Provocation(visible_devices_nonsense_without_driver, "driver-not-installed", "cuda"),
    Provocation(nccl_without_gpu, "nccl-no-gpu-visible", "cuda"),
    Provocation(nccl_without_gpu_in_old_torch, "nccl-no-gpu-visible", "old"),
    Provocation(llama_without_driver, "nccl-no-gpu-visible", "cuda"),
    Provocation(numba_without_driver, "driver-not-installed", "cpu", ("numba",), "numba"),
    Provocation(triton_without_driver, "driver-not-installed", "cuda", ("torch", "triton")),
    Provocation(nvml_without_driver, "driver-not-installed", "cpu", ("nvidia-ml-py",), "pynvml"),
    Provocation(nvidia_smi_without_libraries, "driver-not-installed", tools=("driver",)),
    Provocation(nvidia_smi_without_module, "module-not-loaded", tools=("driver",)),
    Provocation(torch_without_module, "module-not-loaded", "cuda", tools=("driver",)),
    Provocation(cuda_before_fork, "cuda-fork-reinit", "cuda"),
    Provocation(empty_libcuda, "zero-byte-lib", "cpu", ()),
    Provocation(no_nvidia_smi, "driver-not-installed"),
    Provocation(cupy_without_driver, "driver-not-installed", "cpu", ("cupy-cuda12x",), "cupy"),
    Provocation(foreign_nvjitlink, "cuda-library-conflict", "cuda", ("torch", "nvidia-nvjitlink-cu12"), "nvjitlink-12.1"),
    Provocation(older_nccl_wheel, "nccl-symbol-mismatch", "cuda", ("torch", "nvidia-nccl-cu12"), "nccl-2.18"),
    Provocation(foreign_cudnn, "cudnn-version-mismatch", "cuda", ("torch", "nvidia-cudnn-cu12"), "cudnn-9.0"),
    Provocation(missing_cudnn, "cudnn-library-missing", "cuda"),
    Provocation(missing_cublas, "cuda-runtime-library-missing", "cuda"),
    Provocation(onnxruntime_without_cuda, "cuda-runtime-library-missing", "cpu", ("onnxruntime-gpu",), "onnxruntime-gpu"),
    Provocation(torchvision_of_another_release, "torchvision-mismatch", "cpu", ("torch", "torchvision"), "torchvision-0.21"),
    Provocation(torchaudio_of_another_release, "torchvision-mismatch", "cpu", ("torch", "torchaudio"), "torchaudio"),
    Provocation(extension_of_another_torch, "extension-abi-mismatch", "cuda"),
    Provocation(xformers_of_another_torch, "extension-abi-mismatch", "cpu", ("torch", "xformers"), "xformers"),
    Provocation(bitsandbytes_without_gpu, "driver-not-installed", "cuda", ("torch", "bitsandbytes"), "bitsandbytes"),
    Provocation(old_bitsandbytes_without_gpu, "driver-not-installed", "cuda", ("torch", "bitsandbytes"), "bitsandbytes-0.41"),
    Provocation(gcc_too_new, "host-compiler-unsupported", "cpu", ("nvidia-cuda-nvcc-cu11",), "cuda-11.8", ("gcc",)),
    Provocation(gcc_too_new_for_make, "host-compiler-unsupported", "cpu", ("nvidia-cuda-nvcc-cu11",), "cuda-11.8", ("gcc",)),
    Provocation(
        cmake_with_gcc_too_new, "host-compiler-unsupported", "cpu", ("nvidia-cuda-nvcc-cu11",), "cuda-11.8", ("gcc", "cmake")
    ),
    Provocation(nvcc_too_old_for_blackwell, "nvcc-arch-unsupported", "cpu", ("nvidia-cuda-nvcc-cu11",), "cuda-11.8"),
    Provocation(ptxas_too_old_for_blackwell, "nvcc-arch-unsupported", "cpu", ("nvidia-cuda-nvcc-cu11",), "cuda-11.8"),
    Provocation(nvcc_too_new_for_pascal, "nvcc-arch-unsupported", tools=("nvcc",)),
    Provocation(no_nvcc_for_an_extension, "cuda-toolkit-missing", "cuda"),
    Provocation(broken_cuda_home_for_an_extension, "cuda-toolkit-missing", "cuda"),
    Provocation(nvcc_of_another_cuda_for_an_extension, "nvcc-torch-version-mismatch", "cuda", tools=("nvcc",)),
    Provocation(cuda_extension_with_cpu_wheel, "torch-cpu-only-build", "cpu", tools=("nvcc",)),
    Provocation(make_without_nvcc, "cuda-toolkit-missing"),
    Provocation(cmake_without_nvcc, "cuda-toolkit-missing", tools=("cmake",)),
    Provocation(flash_attn_without_nvcc, "cuda-toolkit-missing", "cuda"),
    Provocation(lfs_pointer_as_safetensors, LFS, "cpu", ("safetensors",)),
    Provocation(lfs_pointer_in_transformers, LFS, "cpu", TRANSFORMERS),
    Provocation(lfs_pointer_in_old_transformers, LFS, "cpu", TRANSFORMERS, "transformers-4"),
    Provocation(lfs_pointer_as_pth, LFS, "cpu"),
    Provocation(lfs_pointer_in_old_torch, LFS, "old"),
    Provocation(lfs_pointer_as_gguf, LFS, "cpu", ("gguf",)),
    Provocation(lfs_pointer_in_llama_cpp, LFS, "cpu", ("xllamacpp",), "xllamacpp"),
    Provocation(lfs_pointer_in_ctransformers, LFS, "cpu", ("ctransformers",), "ctransformers"),
    Provocation(lfs_pointer_as_tokenizer, LFS, "cpu", ("sentencepiece",)),
    Provocation(truncated_gguf, LFS, "cpu", ("xllamacpp",), "xllamacpp"),
    Provocation(truncated_safetensors, LFS, "cpu", ("safetensors",)),
    Provocation(truncated_pth, LFS, "cpu"),
    Provocation(truncated_pth_in_old_torch, LFS, "old"),
    Provocation(empty_pth, LFS, "cpu"),
    Provocation(web_page_as_checkpoint, LFS, "cpu"),
    Provocation(weights_only_refuses_numpy, "weights-only-unpickling", "cpu"),
    Provocation(weights_only_refuses_a_class, "weights-only-unpickling", "cpu"),
    Provocation(pickle_of_a_missing_class, None, "cpu"),
    Provocation(size_mismatch, None, "cpu"),
    Provocation(no_weights_in_the_folder, "checkpoint-missing", "cpu", TRANSFORMERS),
    Provocation(missing_shard, "checkpoint-missing", "cpu", TRANSFORMERS),
    Provocation(no_such_model_folder, "checkpoint-missing", "cpu", TRANSFORMERS, "transformers-4"),
    Provocation(llama_without_checkpoints, "checkpoint-missing", "cpu"),
    Provocation(llama_without_tokenizer, "checkpoint-missing", "cpu"),
    Provocation(llama_with_too_few_processes, "model-parallel-mismatch", "cpu"),
    Provocation(llama_with_a_broken_command_line, "command-line-malformed", "cpu"),
    Provocation(llama_with_a_joined_command_line, "command-line-malformed", "cpu"),
    Provocation(no_master_addr, None, "cpu"),
    Provocation(port_in_use, "rendezvous-port-in-use", "cpu"),
    Provocation(port_in_use_in_old_torch, "rendezvous-port-in-use", "old"),
    Provocation(port_in_use_for_torchrun, "rendezvous-port-in-use", "cuda"),
    Provocation(torchrun_reports_a_bug, None, "cpu"),
    Provocation(half_on_cpu_in_old_torch, "half-not-supported-on-cpu", "old"),
    Provocation(half_convolution_on_cpu_in_old_torch, "half-not-supported-on-cpu", "old"),
    Provocation(half_on_cpu_in_new_torch, "half-not-supported-on-cpu", "cpu"),
    Provocation(mixed_dtypes, None, "cpu"),
    Provocation(linear_left_on_meta, "tensors-on-different-devices", "cpu"),
    Provocation(token_outside_the_vocabulary_on_cpu, None, "cpu"),
    Provocation(shapes_do_not_fit, None, "cpu"),
    Provocation(plain_bug, None, "cpu"),
    Provocation(unknown_option, None, "cpu", ()),
    Provocation(not_enough_host_memory, None, "cpu"),
    Provocation(small_dev_shm, "nccl-shm-too-small", "cpu"),
    Provocation(no_accelerate, None, "cpu", TRANSFORMERS),
    Provocation(no_accelerate_in_old_transformers, None, "cpu", TRANSFORMERS, "transformers-4"),
    Provocation(no_flash_attn, None, "cpu", TRANSFORMERS, "transformers-4"),
    Provocation(no_sentencepiece, None, "cpu", TRANSFORMERS, "transformers-4"),
    Provocation(externally_managed, None, tools=("pip",)),
    Provocation(environment_without_pip, None, "cpu", ("uv",), "uv"),
    Provocation(versions_that_conflict, None, "cuda", ()),
    Provocation(no_such_torch, None, "cuda", ()),
    Provocation(numpy_2_beside_old_torch, None, "old", ("torch", "numpy")),
    Provocation(torchao_of_another_torch, None, "cpu", ("torch", "torchao"), "torchao"),
    Provocation(weights_only_will_change, None, "cuda"),
    Provocation(deprecated_autocast, None, "cpu"),
    Provocation(scheduler_before_optimizer, None, "cpu"),
    Provocation(torchrun_sets_threads, None, "cpu"),
    Provocation(weights_newly_initialised, None, "cpu", TRANSFORMERS, "transformers-4"),
)


def versions(provocation: Provocation, bench: Bench) -> dict[str, str]:
    """The versions of the packages that take part."""
    program = (
        "import importlib.metadata as m, json, platform, sys; "
        "print(json.dumps({'python': platform.python_version()} | {name: m.version(name) for name in sys.argv[1:]}))"
    )
    tools = {tool: TOOLS[tool](bench) for tool in provocation.tools}
    if not provocation.venv:
        return tools
    venv = {"cpu": bench.cpu, "cuda": bench.cuda, "old": bench.old}[provocation.venv]
    env = bench.beside(provocation.extra) if provocation.extra else {}
    found: dict[str, str] = json.loads(bench.run([str(venv / "bin/python"), "-c", program, *provocation.packages], env))
    return found | tools


def neutral(text: str, bench: Bench) -> str:
    """`text` as if from the machine of a person named Ada: no folder and no name of this machine is in it."""
    for venv in (bench.cpu, bench.cuda, bench.old):
        own = site_packages(venv)
        base = Path(os.path.realpath(venv / "bin/python")).parent.parent
        for extra in sorted(EXTRAS, key=len, reverse=True):
            inner = bench.extras / extra
            text = text.replace(str(inner), f"{PROJECT}/.venv/lib/{own.parent.name}/site-packages")
        text = text.replace(str(venv), f"{PROJECT}/.venv").replace(str(base), "/usr")
    for ours, theirs in (
        (f"{bench.folder}/cuda-11.8", "/usr/local/cuda-11.8"),
        (str(bench.folder), PROJECT),
        ("/root/", f"{HOME}/"),
    ):
        text = text.replace(ours, theirs)
    text = re.sub(rf"\b{re.escape(socket.gethostname())}\b", "atlas", text).replace(platform.release(), "6.1.0-40-amd64")
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def cut(text: str) -> str:
    """The last lines of `text` that fit, as a person copies the end of a log."""
    while len(text.encode()) > MOST:
        text = text.partition("\n")[2]
    return text


def record(provocation: Provocation, bench: Bench) -> str:
    """Write NAME.txt and NAME.json; the text."""
    noted = versions(provocation, bench)
    text = cut(neutral(provocation.does(bench), bench)).strip() + "\n"
    about = (provocation.does.__doc__ or "").strip()
    data = {"expect": provocation.expect, "about": about, "versions": noted}
    (HERE / "provoked" / f"{provocation.name}.txt").write_text(text)
    (HERE / "provoked" / f"{provocation.name}.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    return text


def main(arguments: list[str]) -> int:
    """Provoke what was named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for place in ("cpu", "cuda", "old", "extras", "llama"):
        parser.add_argument(f"--{place}", type=Path, required=True)
    parser.add_argument("names", nargs="*", metavar="NAME")
    chosen = parser.parse_args(arguments)
    (HERE / "provoked").mkdir(exist_ok=True)
    for provocation in PROVOCATIONS:
        if chosen.names and provocation.name not in chosen.names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(
                cpu=chosen.cpu, cuda=chosen.cuda, old=chosen.old, extras=chosen.extras, llama=chosen.llama, folder=Path(folder)
            )
            text = record(provocation, bench)
        sys.stdout.write(f"{provocation.name} ({provocation.expect}): {text.splitlines()[-1][:100]}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
