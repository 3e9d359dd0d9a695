"""What the smoke test says of a machine: a proof, or one fault that one layer names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudoctor import symptoms
from gpudoctor.diagnose import Diagnosis, built_in, diagnose
from gpudoctor.facts import Facts, Interpreter, Skipped, Smoke, Symptom, System, Unknown
from gpudoctor.findings import Finding
from tests.driver_dead import BARE
from tests.driver_facts import NO_NVML
from tests.healthy import DESKTOP, GIB, IMPORT, MIB, SYSTEM, check, died, facts, gpu, process, smoke
from tests.test_symptoms import SEEN

CHECK = check("smoke")
CARD = "GPU 0 has a total capacity of 11.69 GiB of which 64.81 MiB is free."
OURS = "Including non-PyTorch memory, this process has 10.90 GiB memory in use."
HELD = f"{OURS} Of the allocated memory 10.60 GiB is allocated by PyTorch, and 20.00 MiB is reserved by PyTorch but unallocated."
OOM = f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 86.00 MiB. {CARD} {HELD}"
OOM_OF_2_0 = (
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 86.00 MiB (GPU 0; 11.69 GiB total capacity; 9.70 GiB "
    "already allocated; 64.81 MiB free; 9.70 GiB reserved in total by PyTorch) If reserved memory is >> allocated memory"
)
LLAMA: dict[str, Any] = {
    "checkpoint": "llama-2-7b",
    "dtype": "fp16",
    "parameters": 6_738_415_616,
    "needed_memory": int(13.28 * GIB),
    "free_memory": int(11.04 * GIB),
}
NCCL = "torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:77, unhandled cuda error\n"


NO_GGUF = (
    "RuntimeError: these weights are quantised (Q8_0), and the library that reads them is not there (No module named 'gguf'). "
    "To install it: /home/ada/my llama/bin/python -m pip install gguf"
)


def whole(of: Smoke | Skipped | Unknown, *, machine: Facts | None = None) -> Diagnosis:
    """The diagnosis of the healthy machine with that smoke test, by every check."""
    return diagnose(replace(machine or facts(), smoke=of), checks=built_in())


def fault(of: Smoke, machine: Facts | None = None) -> Finding:
    """The one fault of the healthy machine with that smoke test."""
    found = whole(of, machine=machine)
    faults = [finding for finding in found.findings if finding.severity == "fail"]
    assert [finding.code for finding in faults] == list(found.root_causes)
    assert len(faults) == 1, [finding.code for finding in faults]
    test = found.checks[-1]
    assert test.status == ("fail" if faults[0] in test.findings else "blocked")
    assert test.blocked_by == (None if test.status == "fail" else faults[0].code)
    return faults[0]


def without_a_gpu() -> Facts:
    said = replace(IMPORT, available=False, device_count=0)
    return replace(facts(), pci=(), nvml=NO_NVML, driver=BARE, torch_import=said)


def summary(of: Smoke | Skipped | Unknown) -> str:
    return CHECK.judge(replace(facts(), smoke=of), False).summary


# ---------------------------------------------------------------- it came through, or was not made


def test_a_healthy_machine_passes_with_the_proof() -> None:
    found = whole(smoke())
    assert found.status == "pass"
    assert [check.status for check in found.checks if check.name == "smoke"] == ["pass"]
    assert found.checks[-1].summary == (
        "32 tokens at 61.2 tok/s, 81 % of this card's memory bandwidth, peak 6.48 GiB as predicted; "
        "open_llama_3b with random weights"
    )


def test_on_a_cpu_it_says_so() -> None:
    on_cpu = smoke(
        device="cpu", device_name="AMD EPYC", tokens_per_second=450.0, weights="real", checkpoint="stories15M", bytes_per_token=0
    )
    assert summary(on_cpu) == "32 tokens at 450 tok/s on the CPU; stories15M"


def test_a_single_token_has_no_rate() -> None:
    alone = "1 token, peak 6.48 GiB as predicted; open_llama_3b with random weights"
    assert summary(smoke(new_tokens=1, tokens_per_second=None)) == alone


@pytest.mark.parametrize("reason", ["not asked for", "process 4711 (python train.py) computes on GPU 0"])
def test_what_was_left_out_makes_no_report_worse(reason: str) -> None:
    found = whole(Skipped(reason))
    assert found.status == "pass"
    assert found.checks[-1].status == "skipped"
    assert found.checks[-1].summary == f"not run: {reason}"


def test_facts_without_a_smoke_test_are_as_good_as_before() -> None:
    assert diagnose(facts(), checks=built_in()).status == "pass"


def test_what_could_not_be_had_is_unknown() -> None:
    found = whole(Unknown("no answer within 60 s"))
    assert found.status == "unknown"
    assert found.checks[-1].status == "unknown"
    assert found.root_causes == ()


def test_a_test_that_came_through_is_not_blocked_by_what_it_did_not_need() -> None:
    """On the CPU of a machine without a GPU."""
    nobody = without_a_gpu()
    found = whole(smoke(device="cpu", device_name="AMD EPYC", tokens_per_second=450.0, bandwidth=None), machine=nobody)
    assert "no-nvidia-gpu" in found.root_causes
    assert found.checks[-1].status == "pass"


def test_a_test_that_died_below_a_fault_is_blocked_by_it() -> None:
    machine = replace(facts(), torch=replace(facts().torch, cuda=None, version="2.5.1+cpu", sm=(), nccl_built_in=False))  # type: ignore[type-var]
    found = whole(died("device", "AssertionError: Torch not compiled with CUDA enabled"), machine=machine)
    assert found.root_causes == ("torch-cpu-only-build",)
    assert found.checks[-1].status == "blocked"


# ---------------------------------------------------------------- GPU memory


def test_a_model_larger_than_the_card_is_told_before_it_is_loaded() -> None:
    found = fault(died("memory", **LLAMA))
    assert found.code == "model-larger-than-vram"
    assert found.summary == "llama-2-7b in fp16 needs 13.28 GiB; GPU 0 has 11.69 GiB, of which 11.04 GiB were free"
    assert "12.55 GiB of that are weights" in found.cause


@pytest.mark.parametrize("error", [OOM, OOM_OF_2_0], ids=["now", "before 2.1"])
def test_the_story(error: str) -> None:
    assert fault(died("load", error, **LLAMA)).code == "model-larger-than-vram"


def test_half_the_weights_on_each_of_two_cards_fit() -> None:
    two = facts(gpu(0), gpu(1))
    found = fault(died("memory", **{**LLAMA, "processes": 2, "needed_memory": int(12.1 * GIB)}), machine=two)
    assert found.code == "workload-exceeds-vram"


def test_prompts_that_are_too_long() -> None:
    found = fault(died("memory", needed_memory=int(14.2 * GIB)))
    assert found.code == "workload-exceeds-vram"
    assert found.summary == "open_llama_3b in bf16 needs 14.20 GiB; GPU 0 has 11.69 GiB, of which 11.04 GiB were free"


def test_memory_that_ran_out_though_the_count_said_otherwise() -> None:
    found = fault(died("tokens", OOM))
    assert found.code == "workload-exceeds-vram"
    assert "ran out of GPU memory" in found.summary


def test_another_process_holds_what_the_model_would_need() -> None:
    training = process(4242, 6 * GIB, "/home/eve/bin/python train.py", user="eve")
    card = gpu(memory_free=5 * GIB, memory_used=int(6.69 * GIB), processes=(*DESKTOP, training))
    found = fault(died("memory", free_memory=5 * GIB), machine=facts(card))
    assert found.code == "vram-held-by-other-process"
    assert "python of eve (process 4242) holds the rest" in found.summary
    assert dict(found.fix.values) == {"PID": "4242", "USER": "eve"}


def test_the_desktop_holds_what_the_model_would_need() -> None:
    found = fault(died("memory", needed_memory=int(11.2 * GIB)))
    assert found.code == "vram-held-by-other-process"
    assert "the desktop holds the rest" in found.summary
    assert found.fix.step == "memory#move-display"


def test_who_holds_it_cannot_be_seen_inside_a_container() -> None:
    card = gpu(memory_free=5 * GIB, memory_used=6 * GIB, processes=())
    machine = facts(card, system=replace(SYSTEM, container="docker"))
    found = fault(died("memory", free_memory=5 * GIB), machine=machine)
    assert found.code == "vram-held-by-other-process"
    assert found.fix.step == "memory#find-hidden-holder"


def test_somebody_takes_the_memory_while_it_is_loaded() -> None:
    text = OOM.replace("10.90 GiB memory in use", "3.10 GiB memory in use")
    assert fault(died("load", text)).code == "vram-held-by-other-process"


def test_memory_in_pieces() -> None:
    text = OOM.replace("20.00 MiB is reserved", "2.10 GiB is reserved")
    found = fault(died("tokens", text))
    assert found.code == "vram-fragmentation"
    assert "2.10 GiB" in found.summary


@pytest.mark.parametrize(
    "text",
    [
        "torch.AcceleratorError: CUDA error: out of memory",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        f"{NCCL}ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 'out of memory'",
    ],
    ids=["CUDA", "cuBLAS", "NCCL"],
)
def test_other_words_for_no_memory(text: str) -> None:
    assert fault(died("first-token", text)).code == "workload-exceeds-vram"


def test_one_memory_for_cpu_and_gpu() -> None:
    system = replace(SYSTEM, memory_total=119 * GIB, memory_available=40 * GIB)
    spark = gpu(name="NVIDIA GB10", capability="12.1", memory_total=Unknown("not supported"), memory_free=Unknown("not supported"))
    known: dict[str, Any] = {"device_name": "NVIDIA GB10", "free_memory": 38 * GIB, "needed_memory": 90 * GIB}
    torch = replace(facts().torch, version="2.11.0+cu130", cuda="13.0", sm=("12.0", "12.1"))  # type: ignore[type-var]
    machine = facts(spark, system=system, torch=torch, driver="580.95.05", cuda=13000)
    found = fault(died("memory", **known), machine=machine)
    assert found.code == "vram-held-by-other-process"
    assert found.fix.step == "memory#unified-memory"


def test_memory_is_judged_where_nvml_is_silent() -> None:
    machine = replace(facts(), nvml=Unknown("no answer within 20 s"))
    found = whole(died("load", OOM, **LLAMA), machine=machine)
    assert "model-larger-than-vram" in found.root_causes


# ---------------------------------------------------------------- other layers


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (
            "RuntimeError: Error in dlopen: libnvrtc.so.12: cannot open shared object file: No such file",
            "cuda-runtime-library-missing",
        ),
        ("RuntimeError: nvrtc: error: failed to open libnvrtc-builtins.so.12.4.", "cuda-runtime-library-missing"),
        ("OSError: /usr/lib/libnvJitLink.so.12: file too short", "cuda-runtime-library-missing"),
        ("/x/libcusparse.so.12: undefined symbol: __nvJitLinkComplete_12_4, version libnvJitLink.so.12", "cuda-library-conflict"),
        ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "torch-gpu-arch-too-old"),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ARCH_MISMATCH when calling `cublasGemmEx(handle)`", "torch-gpu-arch-too-old"),
        ("CUDA error: the provided PTX was compiled with an unsupported toolchain.", "driver-too-old-for-cuda"),
        ("Could not load library libcudnn_graph.so.9: cannot open shared object file", "cudnn-library-missing"),
        ("Unable to load any of {libcudnn_graph.so.9.1.0, libcudnn_graph.so.9.1, libcudnn_graph.so.9}", "cudnn-library-missing"),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", "cudnn-init-failed"),
        ("Error: /usr/local/cuda/lib64/libcudnn_graph.so.9: undefined symbol: cudnnGetLibConfig", "cudnn-version-mismatch"),
        (
            "cuDNN version incompatibility: PyTorch was compiled  against (9, 10, 2) but found runtime version (8, 9, 2).",
            "cudnn-version-mismatch",
        ),
        (
            f"{NCCL}ncclInternalError: Internal check.\nLast error:\nBootstrap : no socket interface found",
            "nccl-init-failed",
        ),
        (
            f"{NCCL}ncclUnhandledCudaError: Failed.\nLast error:\nCuda failure 'peer access is not supported between these two'",
            "nccl-p2p-failure",
        ),
        (
            f"{NCCL}ncclInvalidUsage: ...\nLast error:\nDuplicate GPU detected : rank 0 and rank 1 both on CUDA device 1000",
            "nccl-duplicate-gpu",
        ),
        (
            f"{NCCL}ncclSystemError: ...\nLast error:\nError while creating shared memory segment /dev/shm/nccl-V (size 21823)",
            "nccl-shm-too-small",
        ),
    ],
)
def test_what_belongs_to_another_layer_is_its_finding(text: str, code: str) -> None:
    assert fault(died("first-token" if "NCCL" not in text else "nccl", text)).code == code


@pytest.mark.parametrize(("processes", "code"), [(1, "nccl-init-failed"), (2, "nccl-p2p-failure")])
def test_silence_in_nccl(processes: int, code: str) -> None:
    test = died("nccl", hung=True, processes=processes, seconds_total=60.0)
    assert fault(test, machine=facts(*(gpu(index) for index in range(processes)))).code == code


def test_shared_memory_that_is_full_is_a_bus_error() -> None:
    assert fault(died("nccl", "rank 1 was ended by SIGBUS", processes=2)).code == "nccl-shm-too-small"


@pytest.mark.parametrize(
    ("weights", "step"), [("real", "smoke#compare-checksums"), ("random", "smoke#trace-a-crash")], ids=["a file", "no file"]
)
def test_a_checkpoint_that_becomes_shorter_is_no_fault_of_pytorch(weights: str, step: str) -> None:
    found = fault(died("load", signal="SIGBUS", weights=weights))
    assert (found.code, found.fix.step if found.fix else None) == ("smoke-crashes", step)


def test_a_watchdog_that_gave_up() -> None:
    text = "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1, OpType=ALLREDUCE, NumelIn=1"
    assert fault(died("nccl", text, processes=2)).code == "nccl-p2p-failure"


def test_gloo_on_a_cpu_is_not_nccl() -> None:
    found = fault(died("nccl", hung=True, device="cpu", backend="gloo", processes=2))
    assert found.code == "smoke-hangs"


def test_warnings_that_stopped_nothing_are_not_the_cause() -> None:
    warned = Symptom("library-missing", "libjpeg.so.8: cannot open shared object file", "stderr", (("library", "libjpeg.so.8"),))
    found = fault(died("load", "KeyError: 'lm_head.weight'", symptoms=(warned,)))
    assert found.code == "smoke-fails"


def test_what_stood_on_stderr_explains_a_crash() -> None:
    text = "Cuda failure 2 'out of memory'"
    said = Symptom("cuda-out-of-memory", text, "stderr", (("tried", "86.00 MiB"),))
    assert fault(died("load", "Aborted", signal="SIGABRT", symptoms=(said,))).code == "workload-exceeds-vram"


# ---------------------------------------------------------------- the smoke test's own faults


@pytest.mark.parametrize(
    ("test", "code", "words"),
    [
        (died("first-token", "CUDA error: device-side assert triggered"), "device-side-assert-index", "token id"),
        (
            died("tokens", "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"),
            "tensors-on-different-devices",
            "cuda:0 and cpu",
        ),
        (
            died("first-token", "\"addmm_impl_cpu_\" not implemented for 'Half'", device="cpu", dtype="fp16"),
            "half-not-supported-on-cpu",
            "fp16",
        ),
        (died("device", "RuntimeError: this GPU does not support bfloat16"), "bf16-unsupported-gpu", "compute in bf16"),
        (
            died("device", "RuntimeError: CUDA error: invalid device ordinal", processes=2),
            "invalid-device-ordinal",
            "1 can be seen",
        ),
        (
            died("nccl", "The server socket has failed to bind to [::]:29500 (errno: 98 - Address already in use).", processes=2),
            "rendezvous-port-in-use",
            "Port 29500",
        ),
        (died("tokens", "CUDA error: an illegal memory access was encountered"), "gpu-fault", "illegal memory access"),
        (died("tokens", "CUDA error: uncorrectable ECC error encountered"), "gpu-fault", "ECC"),
        (
            died("tokens", "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(h)`"),
            "gpu-fault",
            "EXECUTION_FAILED",
        ),
        (died("load", signal="SIGKILL"), "smoke-killed", "SIGKILL in phase load"),
        (died("load", "rank 1 was ended by SIGKILL", processes=2), "smoke-killed", "SIGKILL"),
        (died("tokens", signal="SIGTERM"), "smoke-killed", "SIGTERM"),
        (died("first-token", signal="SIGSEGV"), "smoke-crashes", "SIGSEGV"),
        (died("load", hung=True, seconds_total=61.3), "smoke-hangs", "after 61 s"),
        (died("load", "Traceback ...\nKeyError: 'lm_head.weight'"), "smoke-fails", "KeyError: 'lm_head.weight'"),
        (died("load"), "smoke-fails", "without a word"),
        (died("load", "_pickle.UnpicklingError: Weights only load failed."), "weights-only-unpickling", "torch.load refuses"),
        (
            died("load", "Error while deserializing header: HeaderTooLarge"),
            "file-is-lfs-pointer-or-truncated",
            "no whole checkpoint",
        ),
        (died("tokens", "FlashAttention only supports Ampere GPUs or newer."), "flash-attention-gpu-too-old", "older than Ampere"),
        (died("load", f"Traceback ...\n{NO_GGUF}"), "checkpoint-package-missing", "read by the Python package gguf"),
        (died("device", "CUDA error: CUDA-capable device(s) is/are busy or unavailable"), "smoke-fails", "busy or unavailable"),
        (
            died("load", "DefaultCPUAllocator: can't allocate memory: you tried to allocate 26953662464 bytes."),
            "host-memory-too-small",
            "28.00 GiB were available",
        ),
        (died("load", "MemoryError"), "host-memory-too-small", "phase load"),
        (
            died("memory", device="cpu", needed_memory=40 * GIB, free_memory=27 * GIB),
            "host-memory-too-small",
            "needs 40.00 GiB; 27.00 GiB were available",
        ),
    ],
)
def test_every_way_to_die_has_a_name(test: Smoke, code: str, words: str) -> None:
    found = fault(test)
    assert found.code == code
    assert words in f"{found.summary} {found.evidence}"


def test_the_kernel_says_that_it_was_memory() -> None:
    line = Symptom(
        "oom-killer", "Out of memory: Killed process 4711 (python3)", "kernel log", (("pid", "4711"), ("name", "python3"))
    )
    machine = facts(kernel_log=(line,))
    found = fault(died("load", signal="SIGKILL"), machine=machine)
    assert found.code == "host-memory-too-small"
    assert "Out of memory: Killed process" in str(found.evidence)


def test_a_killer_at_another_program_says_nothing() -> None:
    line = Symptom("oom-killer", "Out of memory: Killed process 77 (chrome)", "kernel log", (("pid", "77"), ("name", "chrome")))
    assert fault(died("load", signal="SIGKILL"), machine=facts(kernel_log=(line,))).code == "smoke-killed"


def test_a_container_s_limit_is_named() -> None:
    system = replace(SYSTEM, container="docker", memory_limit=8 * GIB)
    found = fault(died("load", "MemoryError"), machine=facts(system=system))
    assert "8.00 GiB: a limit of its container" in found.cause


def test_a_scheduler_is_named_where_something_was_killed() -> None:
    found = fault(died("load", signal="SIGTERM"), machine=facts(system=replace(SYSTEM, scheduler="slurm")))
    assert "slurm started it" in found.cause


def test_each_phase_that_hangs_says_what_it_waits_for() -> None:
    causes = {fault(died(phase, hung=True)).cause for phase in ("device", "memory", "load", "first-token", "tokens", "proofs")}
    assert len(causes) == 6


def test_faults_on_a_cpu_stand_beside_faults_of_the_gpu() -> None:
    nobody = without_a_gpu()
    found = whole(died("load", "MemoryError", device="cpu"), machine=nobody)
    assert found.root_causes == ("no-nvidia-gpu", "host-memory-too-small")


ENDS = st.lists(st.sampled_from([text for _, text, _ in SEEN]) | st.text(max_size=40), max_size=3).map("\n".join)
PHASES = st.sampled_from(("import", "device", "nccl", "memory", "load", "first-token", "tokens", "proofs"))
SIGNALS = st.sampled_from((None, "SIGKILL", "SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGTERM"))


@settings(deadline=None, max_examples=300)
@given(
    error=ENDS,
    stderr=ENDS,
    phase=PHASES,
    signal=SIGNALS,
    hung=st.booleans(),
    device=st.sampled_from((None, "cuda", "cpu")),
    world=st.integers(1, 2),
)
def test_any_end_is_one_fault(
    error: str, stderr: str, phase: str, signal: str | None, hung: bool, device: str | None, world: int
) -> None:
    said = symptoms.read(stderr, "stderr")
    fault(died(phase, error, symptoms=said, signal=signal, hung=hung, device=device, processes=world))


# ---------------------------------------------------------------- what it proved


@pytest.mark.parametrize(
    ("changes", "code", "step"),
    [
        ({"finite": False, "weights": "real", "dtype": "fp16"}, "logits-not-finite", "smoke#choose-dtype"),
        ({"finite": False, "weights": "real", "dtype": "bf16"}, "logits-not-finite", "smoke#compare-checksums"),
        ({"finite": False}, "logits-not-finite", "hardware#unstable-gpu"),
        ({"finite": False, "device": "cpu"}, "logits-not-finite", "smoke#keep-the-error"),
        ({"difference": 0.7}, "cpu-gpu-disagree", "hardware#unstable-gpu"),
        ({"difference": float("nan")}, "cpu-gpu-disagree", "hardware#unstable-gpu"),
        ({"all_reduce": False, "processes": 2}, "all-reduce-wrong", "nccl#peer-to-peer"),
        ({"all_reduce": False}, "all-reduce-wrong", "hardware#unstable-gpu"),
        ({"all_reduce": False, "device": "cpu", "backend": "gloo"}, "all-reduce-wrong", "smoke#keep-the-error"),
        ({"finite": False, "phase": "first-token"}, "logits-not-finite", "hardware#unstable-gpu"),
        ({"all_reduce": False, "phase": "nccl", "finite": None}, "all-reduce-wrong", "hardware#unstable-gpu"),
    ],
)
def test_a_proof_that_fails_is_a_fault(changes: dict[str, Any], code: str, step: str) -> None:
    found = fault(smoke(**changes))
    assert (found.code, found.fix.step) == (code, step)


def test_rounding_is_no_difference() -> None:
    assert whole(smoke(difference=0.05, tolerance=0.05)).status == "pass"


def test_a_fault_of_the_card_s_memory_explains_wrong_numbers() -> None:
    machine = facts(gpu(name="NVIDIA A100-SXM4-80GB", capability="8.0", ecc_uncorrected=3))
    found = whole(smoke(difference=0.7), machine=machine)
    assert found.root_causes == ("xid48-dbe",)
    assert found.checks[-1].status == "unknown"
    assert "xid48-dbe explains that" in found.checks[-1].summary


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"repeatable": False}, "generation-not-repeatable"),
        ({"tokens_per_second": 20.0}, "decode-slow"),
        ({"bandwidth": 200_000_000_000, "tokens_per_second": 25.0}, "memory-bandwidth-low"),
    ],
)
def test_what_is_odd_is_a_warning(changes: dict[str, Any], code: str) -> None:
    found = whole(smoke(**changes))
    assert found.status == "warn"
    assert [finding.code for finding in found.findings] == [code]
    assert found.checks[-1].status == "warn"


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens_per_second": 900.0, "bytes_per_token": 50 * MIB},
        {"bytes_per_token": None, "tokens_per_second": 1.0},
        {"bandwidth": None, "tokens_per_second": 1.0},
        {"device": "cpu", "tokens_per_second": 1.0, "bandwidth": 10_000_000_000},
        {"format": "transformers", "tokens_per_second": 10.0},
    ],
    ids=["small model", "nobody counted", "nobody measured", "CPU", "another's loop"],
)
def test_speed_is_judged_only_where_it_means_something(changes: dict[str, Any]) -> None:
    assert whole(smoke(**changes)).status == "pass"


@pytest.mark.parametrize("part", [{"mig": True}, {"virtualization": "vgpu"}], ids=["MIG", "vGPU"])
def test_a_part_of_a_card_has_a_part_of_its_bandwidth(part: dict[str, Any]) -> None:
    verdict = CHECK.judge(replace(facts(gpu(**part)), smoke=smoke(bandwidth=100_000_000_000, tokens_per_second=None)), False)
    assert verdict.findings == ()


def test_causes_of_slowness_that_are_seen_are_named_first() -> None:
    card = gpu(utilization=97, processes=(process(9, GIB, "python train.py"),), throttle=("sw-thermal",))
    machine = facts(card, variables={"CUDA_LAUNCH_BLOCKING": "1"})
    verdict = CHECK.judge(replace(machine, smoke=smoke(tokens_per_second=20.0)), False)
    cause = verdict.findings[0].cause
    for words in ("it is hot", "other processes compute on it", "97 % busy", "CUDA_LAUNCH_BLOCKING"):
        assert words in cause


def test_the_memory_of_a_container_is_less_than_the_machine_s() -> None:
    system = replace(SYSTEM, memory_available=200 * GIB, memory_limit=4 * GIB)
    found = fault(died("memory", device="cpu", needed_memory=6 * GIB, free_memory=4 * GIB), machine=facts(system=system))
    assert isinstance(system, System)
    assert "4.00 GiB were available" in found.summary


def test_a_package_that_is_missing_is_installed_with_what_owns_the_environment() -> None:
    assert fault(died("load", NO_GGUF)).fix.step == "smoke#install-package"
    machine = facts()
    assert isinstance(machine.interpreter, Interpreter)
    uv = replace(machine, interpreter=replace(machine.interpreter, owner="uv"))
    assert fault(died("load", NO_GGUF), uv).fix.step == "smoke#install-package-with-uv"
    assert fault(died("load", NO_GGUF.replace("gguf", "transformers"))).fix.values[-1] == ("PACKAGE", "transformers")


@pytest.mark.parametrize(("needed", "dtype", "said"), [(26, "fp32", True), (26, "bf16", False), (60, "fp32", False)])
def test_half_the_bytes_are_offered_where_they_fit(needed: int, dtype: str, said: bool) -> None:
    counted = {"device": "cpu", "needed_memory": needed * GIB, "free_memory": 20 * GIB, "dtype": dtype}
    found = fault(died("memory", "needs more", **counted))
    assert found.code == "host-memory-too-small"
    assert ("--dtype bf16" in found.cause) is said


def test_memory_that_ran_out_although_it_was_counted_says_so() -> None:
    text = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 26953662464 bytes."
    found = fault(died("load", text, device="cpu", needed_memory=26 * GIB, free_memory=27 * GIB))
    assert found.summary.startswith("The machine's memory ran out in phase load: ")


# ---------------------------------------------------------------- the memory that was predicted


@pytest.mark.parametrize(
    ("predicted", "peak", "warns"),
    [
        (13 * GIB, 13 * GIB, False),
        (13 * GIB, int(13.38 * GIB), False),  # 2.9 %
        (13 * GIB, int(13.5 * GIB), True),
        (13 * GIB, int(12.5 * GIB), True),
        (100 << 20, 160 << 20, False),  # 60 MiB, of a small model
        (None, 13 * GIB, False),
    ],
)
def test_a_peak_that_is_not_what_was_predicted_is_worth_a_word(predicted: int | None, peak: int, warns: bool) -> None:
    codes = [
        finding.code for finding in CHECK.judge(facts(smoke=smoke(predicted_memory=predicted, peak_memory=peak)), False).findings
    ]
    assert ("memory-not-as-predicted" in codes) is warns


def test_on_a_cpu_the_process_is_not_compared_with_the_model() -> None:
    on_cpu = smoke(device="cpu", predicted_memory=1 * GIB, peak_memory=2 * GIB)
    assert "memory-not-as-predicted" not in [finding.code for finding in CHECK.judge(facts(smoke=on_cpu), False).findings]
