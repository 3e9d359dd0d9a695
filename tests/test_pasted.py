"""Facts from what people paste: versions, GPUs, memory, processes, system, container; what is not said stays unknown."""

from __future__ import annotations

import pytest

from gpudoctor import pasted
from gpudoctor.facts import BuildTools, Facts, Gpu, Interpreter, Nvml, System, Torch, Unknown
from gpudoctor.knowledge import pasted as known
from gpudoctor.pasted import cards, excerpt, names

OLD = """\
+-----------------------------------------------------------------------------+
| NVIDIA-SMI 470.86       Driver Version: 470.86       CUDA Version: 11.4     |
|-------------------------------+----------------------+----------------------+
| GPU  Name        Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |
|   0  NVIDIA GeForce ...  Off  | 00000000:01:00.0  On |                  N/A |
| 30%   45C    P8    20W / 350W |   1234MiB / 24259MiB |      2%      Default |
+-----------------------------------------------------------------------------+
|    0   N/A  N/A      1234      G   /usr/lib/xorg/Xorg                130MiB |
"""
R610 = """\
| NVIDIA-SMI 610.10.02              KMD Version: 610.10.02     CUDA UMD Version: 13.4     |
|   0  NVIDIA GeForce RTX 4090        Off |   00000000:01:00.0 Off |                  Off |
|  0%   38C    P8             18W /  450W |   22105MiB /  24564MiB |      0%   E. Process |
|   1  NVIDIA H100 80GB HBM3          On  |   00000000:02:00.0 Off |                    0 |
| N/A   35C    P0             70W /  700W |       4MiB /  81559MiB |      0%      Default |
|    0   N/A  N/A      4242      C   /home/ada/llama/bin/python                  22090MiB |
"""
LISTED = """\
GPU 0: NVIDIA A10 (UUID: GPU-96ab329d-7a1f-73a8-a9b7-18b4b2855f92)
GPU 1: Tesla T4 (UUID: GPU-06ab329d-7a1f-73a8-a9b7-18b4b2855f92)
"""
QUERY = """\
==============NVSMI LOG==============
Driver Version                            : 470.103.01
CUDA Version                              : 11.4
GPU 00000000:01:00.0
    Product Name                          : Quadro P400
"""
XML = """\
<nvidia_smi_log><driver_version>535.86.10</driver_version><cuda_version>12.2</cuda_version>
<gpu id="0"><product_name>NVIDIA GeForce RTX 4070</product_name>
<fb_memory_usage><total>12282 MiB</total><used>666 MiB</used><free>11301 MiB</free></fb_memory_usage></gpu></nvidia_smi_log>
"""
COLLECT_ENV = """\
Collecting environment information...
PyTorch version: 2.4.1+cu121
CUDA used to build PyTorch: 12.1
OS: Ubuntu 22.04.4 LTS (x86_64)
GCC version: (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0
Python version: 3.10.12 (main, Nov 20 2023, 15:14:05) [GCC 11.4.0] (64-bit runtime)
Is CUDA available: True
CUDA runtime version: 12.3.107
GPU models and configuration:
GPU 0: NVIDIA RTX 6000 Ada Generation
GPU 1: NVIDIA RTX 6000 Ada Generation

Nvidia driver version: 545.23.08
cuDNN version: Probably one of the following:
/usr/lib/x86_64-linux-gnu/libcudnn.so.8.9.7
[pip3] torch==2.4.1+cu121
[pip3] torchvision==0.19.1
[conda] flash-attn                2.6.3                    pypi_0    pypi
"""
DETECTRON = """\
sys.platform            linux
Python                  3.7.3
detectron2._C           failed to import
PyTorch                 1.3.1
CUDA available          True
GPU 0                   GeForce RTX 2080 Ti
CUDA_HOME               /usr/local/cuda
NVCC                    Cuda compilation tools, release 10.0, V10.0.130
torchvision             0.4.1
"""


def facts(text: str) -> Facts:
    return pasted.read(text, "a text")


def nvml(text: str) -> Nvml:
    found = facts(text).nvml
    assert isinstance(found, Nvml)
    return found


def gpus(text: str) -> list[tuple[str | Unknown, str | Unknown]]:
    return [(gpu.name, gpu.compute_capability) for gpu in nvml(text).gpus]


@pytest.mark.parametrize(
    ("text", "driver", "cuda"),
    [
        (OLD, "470.86", 11040),
        (R610, "610.10.02", 13040),
        (QUERY, "470.103.01", 11040),
        (XML, "535.86.10", 12020),
        (COLLECT_ENV, "545.23.08", 12030),
        ("Nvidia driver version: 396.44", "396.44", 9020),
        ("driver 535.161.07, 3x RTX A6000", "535.161.07", 12020),
    ],
    ids=["before R610", "since R610", "-q", "-q -x", "collect_env", "an old branch", "in words"],
)
def test_driver_and_the_cuda_that_it_serves(text: str, driver: str, cuda: int) -> None:
    assert (nvml(text).driver_version, nvml(text).cuda_version) == (driver, cuda)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (R610, [("NVIDIA GeForce RTX 4090", "8.9"), ("NVIDIA H100 80GB HBM3", "9.0")]),
        (LISTED, [("NVIDIA A10", "8.6"), ("Tesla T4", "7.5")]),
        (QUERY, [("Quadro P400", "6.1")]),
        (XML, [("NVIDIA GeForce RTX 4070", "8.9")]),
        (COLLECT_ENV, [("NVIDIA RTX 6000 Ada Generation", "8.9")] * 2),
        (DETECTRON, [("GeForce RTX 2080 Ti", "7.5")]),
        ("a Tesla K40m and torch 1.3", [("Tesla K40m", "3.5")]),
    ],
    ids=["table", "-L", "-q", "-q -x", "collect_env", "detectron2", "in passing"],
)
def test_gpus(text: str, expected: list[tuple[str, str]]) -> None:
    assert gpus(text) == expected


def test_memory_processes_and_compute_mode_of_a_screen() -> None:
    first, second = nvml(R610).gpus
    assert (first.memory_used, first.memory_total, first.compute_mode) == (22105 << 20, 24564 << 20, "exclusive-process")
    assert isinstance(first.processes, tuple)
    assert [(process.pid, process.kind, process.used) for process in first.processes] == [(4242, "compute", 22090 << 20)]
    assert isinstance(second.processes, Unknown)


def test_torch_and_what_is_compiled_against_it() -> None:
    found = facts(COLLECT_ENV)
    assert isinstance(found.torch, Torch)
    assert (found.torch.version, found.torch.cuda) == ("2.4.1+cu121", "12.1")
    assert isinstance(found.companions, tuple)
    assert {c.name: c.version for c in found.companions} == {"torchvision": "0.19.1", "flash-attn": "2.6.3"}
    assert isinstance(found.libraries, Unknown)


@pytest.mark.parametrize(
    ("text", "version", "cuda"),
    [
        (DETECTRON, "1.3.1", "10.1"),
        ("torch              2.0.1+cpu\n", "2.0.1+cpu", None),
        ("[conda] pytorch 1.3.0 py3.7_cuda10.1.243_cudnn7.6.3_0", "1.3.0", "10.1"),
        ("PyTorch version: 2.1.0+rocm5.6", "2.1.0+rocm5.6", None),
        ("PyTorch 2.5.1, CUDA 12.2", "2.5.1", "12.2"),
        ("torch==2.7.0", "2.7.0", "12.6"),
    ],
)
def test_torch_in_its_many_forms(text: str, version: str, cuda: str | None) -> None:
    found = facts(text).torch
    assert isinstance(found, Torch)
    assert (found.version, found.cuda) == (version, cuda)


def test_a_release_that_a_message_speaks_of_is_not_the_one_that_is_installed() -> None:
    assert isinstance(facts("In PyTorch 2.6, we changed the default value of the `weights_only` argument").torch, Unknown)


def test_toolkit_and_compiler() -> None:
    found = facts(DETECTRON)
    assert isinstance(found.toolkits, tuple)
    assert (found.toolkits[0].version, found.toolkits[0].path) == ("10.0", "/usr/local/cuda")
    assert facts(COLLECT_ENV).build_tools == BuildTools("gcc", "11.4.0", Unknown("not in the text"))


@pytest.mark.parametrize(
    ("text", "os_id", "container", "wsl"),
    [
        (COLLECT_ENV, "ubuntu", None, 0),
        ('File "C:\\Users\\ada\\x.py", line 1', "windows", None, 0),
        ("MacBook Pro, macOS 13.5", "macos", None, 0),
        ("Fedora 38, gcc 13", "fedora", None, 0),
        ("WSL2, Ubuntu 20.04", "ubuntu", None, 2),
        ("root@3f2b9d1c0a7e:/workspace# nvidia-smi", "", "docker", 0),
        ("kubectl logs vllm-0", "", "container", 0),
    ],
)
def test_where_a_text_comes_from(text: str, os_id: str, container: str | None, wsl: int) -> None:
    found = facts(text).system
    assert isinstance(found, System)
    assert (found.os_id, found.container, found.wsl) == (os_id, container, wsl)


def test_the_python_of_a_traceback() -> None:
    found = facts('File "/opt/conda/envs/llm/lib/python3.11/site-packages/torch/cuda/__init__.py", line 1').interpreter
    assert isinstance(found, Interpreter)
    assert (found.path, found.tag, found.owner) == ("/opt/conda/envs/llm/bin/python", "cp311", "conda")


def test_variables_that_are_set() -> None:
    assert facts("CUDA_VISIBLE_DEVICES=3 python x.py").variables == (("CUDA_VISIBLE_DEVICES", "3"),)


def test_what_is_not_said_is_unknown() -> None:
    found = facts("KeyError: 'llama'\n")
    for value in (found.system, found.nvml, found.torch, found.toolkits, found.interpreter, found.companions, found.variables):
        assert value == Unknown("not in the text")


def test_models_and_packages_that_are_named() -> None:
    assert names.read("llama-2-7b-chat/ with flash_attn, 7B") == ("llama-2-7b-chat", "7b", "flash_attn")


def test_a_card_s_capability_by_whatever_name() -> None:
    assert [cards.capability(name) for name in ("GTX 1080 Ti", "A100-SXM4-80GB", "RTX 5090", "Voodoo 2")] == [
        "6.1",
        "8.0",
        "12.0",
        None,
    ]
    assert known.cards("a T4 and an RTX 3090, no A4 paper") == ["T4", "RTX 3090"]


def test_of_a_long_text_the_ends_and_the_telling_lines_are_looked_at() -> None:
    middle = "PyTorch version: 2.4.1+cu121"
    text = "\n".join(["step 17 loss 2.5"] * 4000 + [middle] + ["step 18 loss 2.4"] * 4000)
    assert middle in excerpt.of(text)
    assert len(excerpt.of(text)) < 30_000


def test_a_gpu_has_nothing_that_was_not_said() -> None:
    gpu = nvml("a Tesla T4").gpus[0]
    assert isinstance(gpu, Gpu)
    assert gpu.memory_total == gpu.processes == Unknown("not in the text")
