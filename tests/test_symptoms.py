"""Known error texts: each row finds its text, says what was captured, and takes no longer for a hostile log."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudoctor import symptoms
from gpudoctor.facts import Symptom

# id, text as it was seen (sources: the rows of the table), what is captured
SEEN = [
    (
        "nvrm-xid",
        "[ 4.5] NVRM: Xid (PCI:0000:01:00): 31, pid=123, name=python, Ch 0000001e, intr 00000000. MMU Fault: ENGINE GRAPHICS",
        {"pci": "0000:01:00", "xid": "31", "pid": "123", "name": "python"},
    ),
    ("nvrm-xid", "NVRM: Xid (PCI:0000:65:00 GPU-I:05): 94, pid=7, name=x, Contained: CE", {"xid": "94"}),
    ("nvrm-off-bus", "NVRM: GPU at 0000:01:00.0 has fallen off the bus.", {"pci": "0000:01:00.0"}),
    ("nvrm-off-bus", "NVRM: GPU at PCI:0000:01:00: GPU-3cb has fallen off the bus", {}),
    (
        "nvrm-off-bus",
        (
            "NVRM: The NVIDIA GPU 0000:18:00.0\nNVRM: (PCI ID: 10de:2330) installed in this system has\n"
            "NVRM: fallen off the bus and is not responding to commands."
        ),
        {"pci": "0000:18:00.0"},
    ),
    (
        "nvrm-rminit",
        "[5.5] NVRM: GPU 0000:02:00.0: RmInitAdapter failed! (0x22:0x56:884)",
        {"pci": "0000:02:00.0", "status": "0x22:0x56:884"},
    ),
    (
        "nvrm-needs-open",
        (
            "[ 5.559842] NVRM: The NVIDIA GPU 0000:02:00.0 (PCI ID: 10de:2c58)\n"
            "               NVRM: installed in this system requires use of the NVIDIA open kernel modules."
        ),
        {"pci": "0000:02:00.0", "device": "10de:2c58"},
    ),
    (
        "nvrm-no-gsp",
        (
            "NVRM: The NVIDIA GPU 0000:af:00.0 (PCI ID: 10de:1db5)\nNVRM: installed in this system is not supported by open\n"
            "NVRM: nvidia.ko because it does not include the required GPU\nNVRM: System Processor (GSP)."
        ),
        {"pci": "0000:af:00.0", "device": "10de:1db5"},
    ),
    (
        "nvrm-unsupported",
        (
            "[1.0] NVRM: The NVIDIA GPU 0000:8a:00.0 (PCI ID: 10de:26b9)\n NVRM: installed in this system is not supported by the\n"
            " NVRM: NVIDIA 470.256.02 driver release."
        ),
        {"pci": "0000:8a:00.0", "driver": "470.256.02"},
    ),
    (
        "nvrm-unsupported",
        (
            "Jul 31 14:10:32 box kernel: [ 2739.854] NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:0a75) installed\n"
            "Jul 31 14:10:32 box kernel: [ 2739.855] NVRM: in this system is not supported by the 280.04 NVIDIA Linux"
        ),
        {"pci": "0000:01:00.0", "driver": "280.04"},
    ),
    ("nvrm-probe-not-called", "NVRM: The NVIDIA probe routine was not called for 3 device(s).", {"count": "3"}),
    ("nvrm-no-gpu", "NVRM: No NVIDIA GPU found.", {}),
    (
        "nvrm-bar",
        "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:\nNVRM: BAR1 is 0M @ 0x0 (PCI:0000:01:00.0)",
        {"bar": "1", "size": "0M", "address": "0x0", "pci": "0000:01:00.0"},
    ),
    ("nvrm-irq", "NVRM: Can't find an IRQ for your NVIDIA card!", {}),
    (
        "nvrm-api-mismatch",
        "NVRM: API mismatch: the client has the version 570.172.08, but\nNVRM: this kernel module has the version 570.169.  Please",
        {"library": "570.172.08", "module": "570.169"},
    ),
    (
        "nvrm-api-mismatch",
        (
            "NVRM: API mismatch: the client 'python' (pid 9)\nNVRM: has the version 595.1.2, but\n"
            "NVRM: this kernel module has the version 580.1."
        ),
        {"client": "python", "library": "595.1.2", "module": "580.1"},
    ),
    (
        "nvrm-gsp-timeout",
        "NVRM: Xid (PCI:0000:01:00): 119, pid=1, name=x, Timeout after 6s of waiting for RPC response from GSP0!",
        {},
    ),
    ("nvrm-gsp-timeout", "NVRM: RmInitAdapter: Cannot initialize GSP firmware RM", {}),
    (
        "module-key-rejected",
        "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service",
        {"module": "nvidia", "words": "Key was rejected by service"},
    ),
    (
        "module-unsigned",
        "[ 5.1] Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7",
        {"program": "modprobe"},
    ),
    ("module-unsigned", "[27532.356706] Loading of unsigned module is rejected", {}),
    ("module-key-unknown", "[3.3] Loading of module with unavailable key is rejected", {"words": "unavailable key"}),
    (
        "module-verification-failed",
        "nvidia: module verification failed: signature and/or required key missing - tainting kernel",
        {"module": "nvidia"},
    ),
    ("module-no-device", "modprobe: ERROR: could not insert 'nvidia': No such device", {"module": "nvidia"}),
    (
        "module-not-found",
        "modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.5.0-15-generic",
        {"path": "/lib/modules/6.5.0-15-generic"},
    ),
    ("suspend-exit", "[ 99.1] PM: suspend exit", {}),
    (
        "hung-task",
        "INFO: task nvidia-smi:4242 blocked for more than 120 seconds.",
        {"task": "nvidia-smi", "pid": "4242", "seconds": "120"},
    ),
    ("uvm-kaslr", "nvidia-uvm: uvm_pmm_gpu.c:3176 devmem_alloc_pagemap[pid:92821] request_free_mem_region() err -34", {}),
    (
        "library-missing",
        "ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory",
        {"library": "libcudnn.so.9"},
    ),
    (
        "library-empty",
        "OSError: /usr/lib/x86_64-linux-gnu/libcuda.so.1: file too short",
        {"library": "/usr/lib/x86_64-linux-gnu/libcuda.so.1"},
    ),
    (
        "undefined-symbol",
        "ImportError: /x/libcusparse.so.12: undefined symbol: __nvJitLinkComplete_12_4, version libnvJitLink.so.12",
        {"file": "/x/libcusparse.so.12", "symbol": "__nvJitLinkComplete_12_4", "version": "libnvJitLink.so.12"},
    ),
    (
        "library-version-missing",
        "ImportError: /lib/x86_64-linux-gnu/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by /x/y.so)",
        {"version": "GLIBCXX_3.4.32", "needed_by": "/x/y.so"},
    ),
    ("torch-cpu-build", "AssertionError: Torch not compiled with CUDA enabled", {}),
    ("torch-no-driver", "RuntimeError: Found no NVIDIA driver on your system. Please check", {}),
    ("torch-driver-old", "The NVIDIA driver on your system is too old (found version 11040). Please update", {"version": "11040"}),
    ("torch-no-gpus", "RuntimeError: No CUDA GPUs are available", {}),
    ("torch-init-failed", "CUDA driver initialization failed, you might not have a CUDA gpu.", {}),
    ("torch-unknown-error", "CUDA unknown error - this may be due to an incorrectly set up environment, e.g.", {}),
    (
        "cuda-device-count",
        (
            "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() "
            "that might have already set an error? Error 802: system not yet initialized (Triggered internally at x.cpp:108.)"
        ),
        {"code": "802", "words": "system not yet initialized"},
    ),
    ("cuda-no-kernel-image", "RuntimeError: CUDA error: no kernel image is available for execution on the device", {}),
    (
        "cuda-error",
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        {"words": "an illegal memory access was encountered"},
    ),
    (
        "torch-arch-unsupported",
        "NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch installation.",
        {"gpu": "NVIDIA GeForce RTX 5090", "sm": "120"},
    ),
    (
        "torch-arch-not-included",
        "Your installed torch==2.13.0 does not include kernels for this GPU. Reinstall",
        {"version": "2.13.0"},
    ),
    ("torch-arch-too-old", "PyTorch no longer supports this GPU because it is too old.", {}),
    (
        "cudnn-mismatch",
        "cuDNN version incompatibility: PyTorch was compiled  against (9, 10, 2) but found runtime version (8, 9, 2).",
        {"built": "9, 10, 2", "found": "8, 9, 2"},
    ),
    ("cudnn-old-gpu", "cuDNN version 91100 is not compatible with devices with SM < 7.5.", {"version": "91100", "sm": "7.5"}),
    (
        "oom-killer",
        "[ 812.3] Out of memory: Killed process 4711 (python3) total-vm:41234567kB, anon-rss:31000000kB, file-rss:0kB",
        {"scope": "Out", "pid": "4711", "name": "python3"},
    ),
    ("oom-killer", "Memory cgroup out of memory: Kill process 77 (pt_main_thread) score 1999", {"scope": "Memory cgroup out"}),
    (
        "cudnn-not-loaded",
        "Unable to load any of {libcudnn_graph.so.9.1.0, libcudnn_graph.so.9.1, libcudnn_graph.so.9, libcudnn_graph.so}",
        {"library": "libcudnn_graph.so.9.1.0"},
    ),
    (
        "nvrtc-builtins",
        "RuntimeError: nvrtc: error: failed to open libnvrtc-builtins.so.12.4.",
        {"library": "libnvrtc-builtins.so.12.4"},
    ),
    ("cudnn-not-initialized", "RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", {"status": "NOT_INITIALIZED"}),
    (
        "cuda-out-of-memory",
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0 has a total capacity of 14.57 GiB of "
            "which 1.58 GiB is free. Process 2493055 has 12.02 GiB memory in use. Including non-PyTorch memory, this process has "
            "966.00 MiB memory in use. Of the allocated memory 734.07 MiB is allocated by PyTorch, and 33.93 MiB is reserved by "
            "PyTorch but unallocated. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF="
        ),
        {
            "tried": "1.95 GiB",
            "gpu": "0",
            "total": "14.57 GiB",
            "free": "1.58 GiB",
            "own": "966.00 MiB",
            "allocated": "734.07 MiB",
            "unused": "33.93 MiB",
        },
    ),
    (
        "cuda-out-of-memory",
        (
            "CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacty of 139.81 GiB of which 1.88 MiB is free. "
            "Including non-PyTorch memory, this process has 17179869184.00 GiB memory in use. Of the allocated memory 138.10 GiB "
            "is allocated by PyTorch, with 44.00 MiB allocated in private pools (e.g., CUDA Graphs), and 1.20 GiB is reserved by "
            "PyTorch but unallocated."
        ),
        {"tried": "2.00 MiB", "allocated": "138.10 GiB", "unused": "1.20 GiB"},
    ),
    (
        "cuda-out-of-memory-before-2-1",
        (
            "CUDA out of memory. Tried to allocate 86.00 MiB (GPU 0; 11.69 GiB total capacity; 9.70 GiB already allocated; "
            "64.81 MiB free; 9.70 GiB reserved in total by PyTorch) If reserved memory is >> allocated memory try setting"
        ),
        {"tried": "86.00 MiB", "total": "11.69 GiB", "allocated": "9.70 GiB", "free": "64.81 MiB", "reserved": "9.70 GiB"},
    ),
    ("cuda-allocation-failed", "torch.AcceleratorError: CUDA error: out of memory", {"words": "out of memory"}),
    ("cuda-allocation-failed", "RuntimeError: CUDA driver error: out of memory", {}),
    (
        "cublas-error",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        {"status": "ALLOC_FAILED", "call": "cublasCreate"},
    ),
    (
        "host-out-of-memory",
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 26953662464 bytes. Error code 12 (Cannot allocate memory)"
        ),
        {"bytes": "26953662464"},
    ),
    ("python-out-of-memory", "MemoryError", {}),
    ("python-out-of-memory", "OSError: [Errno 12] Cannot allocate memory", {}),
    (
        "python-out-of-memory",
        "RuntimeError: unable to mmap 9877989586 bytes from file </models/pytorch_model.bin>: Cannot allocate memory (12)",
        {"bytes": "9877989586"},
    ),
    ("bad-alloc", "terminate called after throwing an instance of 'std::bad_alloc'", {}),
    ("cuda-device-assert", "RuntimeError: CUDA error: device-side assert triggered", {}),
    (
        "cuda-index-assert",
        (
            "../aten/src/ATen/native/cuda/Indexing.cu:1236: indexSelectSmallIndex: block: [3,0,0], thread: [39,0,0] "
            "Assertion `srcIndex < srcSelectDimSize` failed."
        ),
        {"claim": "srcIndex < srcSelectDimSize"},
    ),
    (
        "cuda-fault",
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        {"words": "an illegal memory access was encountered"},
    ),
    ("cuda-fault", "CUDA error: uncorrectable ECC error encountered", {"words": "uncorrectable ECC error encountered"}),
    ("cuda-ptx-too-new", "CUDA error: the provided PTX was compiled with an unsupported toolchain.", {}),
    ("cuda-device-busy", "CUDA error: CUDA-capable device(s) is/are busy or unavailable", {}),
    ("cuda-invalid-device", "CUDA error: invalid device ordinal", {}),
    (
        "tensors-on-different-devices",
        "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (when",
        {"first": "cuda:0", "second": "cpu"},
    ),
    (
        "tensors-on-different-devices",
        "Expected all tensors to be on the same device, but got index is on cpu, different from other tensors on cuda:0",
        {"words": "index is on cpu, different from other tensors on cuda:0"},
    ),
    (
        "half-not-supported",
        "RuntimeError: \"addmm_impl_cpu_\" not implemented for 'Half'",
        {"operation": "addmm_impl_cpu_", "dtype": "Half"},
    ),
    ("bf16-unsupported", "ValueError: Your setup doesn't support bf16/gpu. You need Ampere+ GPU with cuda>=11.0", {}),
    ("bf16-unsupported", "Bfloat16 is only supported on GPUs with compute capability of at least 8.0.", {}),
    (
        "bf16-needs-ampere",
        "RuntimeError: bf16 needs compute capability 8.0; this GPU has 7.5",
        {"needed": "8.0", "has": "7.5"},
    ),
    ("torch-no-nccl", "RuntimeError: Distributed package doesn't have NCCL built in", {}),
    ("nccl-no-gpu", "ProcessGroupNCCL is only supported with GPUs, no GPUs found!", {}),
    ("nccl-error", "ncclUnhandledCudaError: Call to CUDA function failed.", {"kind": "ncclUnhandledCudaError"}),
    ("nccl-error", "ncclSystemError: System call (e.g. socket, malloc) or device error.", {"kind": "ncclSystemError"}),
    (
        "nccl-cuda-failure",
        "Cuda failure 'peer access is not supported between these two devices'",
        {"words": "peer access is not supported between these two devices"},
    ),
    ("nccl-cuda-failure", "box:1:9 [0] init.cc:416 NCCL WARN Cuda failure 2 'out of memory'", {"words": "out of memory"}),
    (
        "nccl-duplicate-gpu",
        "NCCL WARN Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1000",
        {"first": "0", "second": "1", "device": "1000"},
    ),
    ("nccl-ranks-share-gpu", "Multiple Ranks are using the same GPU/Partition. Set NCCL_MULTI_RANK_GPU_ENABLE=1", {}),
    (
        "nccl-shm",
        "misc/shmutils.cc:113 NCCL WARN Error while creating shared memory segment /dev/shm/nccl-UbzKZ9 (size 9637888)",
        {"size": "9637888"},
    ),
    (
        "nccl-shm",
        "Error while creating shared memory segment /dev/shm/nccl-VPyhzw (size 21823872), error: No space left on device (28)",
        {"size": "21823872"},
    ),
    ("nccl-shm", "NCCL WARN Error: failed to extend /dev/shm/nccl-UbzKZ9 to 9637892 bytes", {"wanted": "9637892"}),
    (
        "nccl-timeout",
        (
            "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, "
            "Timeout(ms)=120000) ran for 120621 milliseconds before timing out."
        ),
        {"operation": "ALLREDUCE"},
    ),
    ("nccl-no-interface", "NCCL WARN Bootstrap : no socket interface found", {"part": "Bootstrap"}),
    (
        "rendezvous-port-in-use",
        (
            "RuntimeError: The server socket has failed to listen on any local network address. The server socket has failed to "
            "bind to [::]:29500 (errno: 98 - Address already in use)."
        ),
        {"port": "29500"},
    ),
    (
        "rendezvous-port-in-use",
        (
            "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. port: 29500, "
            "useIpv6: true, code: -98, name: EADDRINUSE, message: address already in use"
        ),
        {"port": "29500"},
    ),
    ("smi-no-communication", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure", {}),
    ("nvml-version-mismatch", "Failed to initialize NVML: Driver/library version mismatch", {}),
    ("nvml-no-devices", "No devices were found", {}),
]


@pytest.mark.parametrize(("symptom_id", "text", "values"), SEEN, ids=[f"{number}-{row[0]}" for number, row in enumerate(SEEN)])
def test_each_text_is_found_with_its_values(symptom_id: str, text: str, values: dict[str, str]) -> None:
    found = [symptom for symptom in symptoms.read(f"before\n{text}\nafter\n", "a log") if symptom.id == symptom_id]
    assert len(found) == 1, f"found {symptoms.read(text, 'a log')}"
    assert found[0].source == "a log"
    assert values.items() <= dict(found[0].values).items()


def test_each_row_is_tried_here() -> None:
    assert {row.id for row in symptoms.rows()} == {row[0] for row in SEEN}


def test_each_row_is_sound() -> None:
    rows = symptoms.rows(pasted=True)
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", row.id)
        assert row.by is None or row.by in row.pattern.groupindex
        assert row.condition
        assert row.source
        assert symptoms.condition(row.id) == row.condition
        assert not re.search(r"(?<!\\)[*+](?![^\[]*\])", row.pattern.pattern), f"{row.id} has an unbounded repetition"


def test_the_same_text_with_and_without_joined_lines_is_one_symptom() -> None:
    text = "NVRM: GPU 0000:02:00.0: RmInitAdapter failed! (0x22:0x56:884)\nNVRM: GPU at 0000:01:00.0 has fallen off the bus.\n"
    assert [(s.id, s.value("pci"), s.text) for s in symptoms.read(text, "log")] == [
        ("nvrm-rminit", "0000:02:00.0", "NVRM: GPU 0000:02:00.0: RmInitAdapter failed! (0x22:0x56:884)"),
        ("nvrm-off-bus", "0000:01:00.0", "NVRM: GPU at 0000:01:00.0 has fallen off the bus."),
    ]


def test_rsyslog_s_escaped_newlines() -> None:
    text = "box kernel: NVRM: API mismatch: the client has the version 570.1, but#012NVRM: this kernel module has the version 5.6."
    assert [dict(s.values) for s in symptoms.read(text, "log")] == [{"library": "570.1", "module": "5.6"}]


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "[  100.123456] ",
        "[  100.123456] box.example.org kernel: ",
        "Aug  1 10:00:00 box.example.org kernel: [  100.123456] ",
        "2026-08-01T10:00:00.123+02:00 box.example.org kernel: ",
        "[Tue Aug  1 10:00:00 2026] ",
        "<3>[  100.123456] ",
        "\x1b[32m[  100.123456] \x1b[0m",
    ],
)
def test_timestamps_and_host_names_are_left_out(prefix: str) -> None:
    found = symptoms.read(f"{prefix}NVRM: No NVIDIA GPU found.", "log")
    assert found == (Symptom("nvrm-no-gpu", "NVRM: No NVIDIA GPU found.", "log"),)


def test_a_storm_keeps_its_ends_and_hides_no_other() -> None:
    storm = [f"NVRM: Xid (PCI:0000:01:00): 31, pid={number}, name=python, MMU Fault" for number in range(1000)]
    storm.insert(500, "NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.")
    found = [s for s in symptoms.read("\n".join(storm), "log") if s.id == "nvrm-xid"]
    assert [(s.value("xid"), s.value("pid")) for s in found] == [
        ("31", "0"),
        ("31", "1"),
        ("31", "2"),
        ("79", None),
        ("31", "997"),
        ("31", "998"),
        ("31", "999"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[ 5.5] box kernel: usb 1-1: new high-speed USB device number\n" * 70000, id="an ordinary log"),
        pytest.param("NVRM: Xid (PCI:0000:01:00): 31, pid=1, name=x, MMU Fault\n" * 70000, id="a storm"),
        pytest.param("NVRM: GPU GPU at PCI:0000:01:00.0 GPU at " * 100000 + "fallen off the bus", id="one long line"),
        pytest.param("undefined symbol: " * 200000, id="one hint and nothing else"),
        pytest.param(
            "NVRM: GPU 0000:01:00.0 (PCI ID: 10de:1234) installed in this system is not supported by the\n" * 45000,
            id="halves",
        ),
        pytest.param(
            "x with CUDA capability sm_ is not compatible with the current PyTorch installation" * 40000, id="near misses"
        ),
    ],
)
def test_four_megabytes_are_read_in_time(text: str) -> None:
    started = time.perf_counter()
    symptoms.read(text, "log")
    # measured: 0.05 to 0.7 s on two slow cores; a quadratic row would take minutes
    assert time.perf_counter() - started < 8


FRAGMENT = (
    st.sampled_from([text for _, text, _ in SEEN])
    | st.text(max_size=80)
    | st.sampled_from(["NVRM: ", "\n", "[ 1.0] ", "kernel: ", "#012"])
)


@settings(deadline=None, max_examples=150)
@given(parts=st.lists(FRAGMENT, max_size=12))
def test_any_text_gives_symptoms_without_raising(parts: list[str]) -> None:
    known = {row.id for row in symptoms.rows()}
    for found in (symptoms.read("".join(parts), "log"), symptoms.read("\n".join(parts), "log")):
        assert all(symptom.id in known and len(symptom.text) <= symptoms.EVIDENCE_LIMIT for symptom in found)


@settings(deadline=None)
@given(data=st.binary(max_size=500))
def test_any_bytes_give_symptoms_without_raising(data: bytes) -> None:
    symptoms.read(data.decode("utf-8", "replace"), "log")
    symptoms.read(data.decode("utf-8", "surrogateescape"), "log")
