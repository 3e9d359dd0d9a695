"""The driver and its surroundings: one message, several causes, weighed by where the text comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .told import Suspect, Told

NO_DRIVER = ("torch-no-driver", "torch-no-driver-short")
NO_LIBRARY = ("libcuda-missing", "nvcuda-missing", "nvml-library-missing", "smi-not-there", "smi-not-in-image")
NOT_LOADED = (
    "smi-no-communication",
    "smi-no-communication-short",
    "smi-cannot-talk",
    "nvml-driver-not-loaded",
    "nvidia-kernel-module-not-loaded",
)
NO_DEVICE = ("torch-no-gpus", "cuda-no-device", "cuda-no-device-name", "torch-init-failed")
INSUFFICIENT = ("cuda-driver-insufficient", "cuda-driver-insufficient-name")
NO_CARD = ("clue-no-card", "clue-amd-gpu", "clue-intel-gpu", "clue-lspci-other", "nvidia-card-none", "nvrm-no-gpu", "clue-colab")
UNAVAILABLE = (
    "torch-not-available",
    "torch-not-available-below",
    "webui-no-gpu",
    "needs-a-gpu",
    "gpu-not-found-words",
    "no-cuda-gpu-words",
    "torch-deserialize-no-cuda",
    "ultralytics-device",
)
_XIDS = {
    "79": ("gpu-fallen-off-bus", 95),
    "48": ("xid48-dbe", 90),
    "95": ("xid48-dbe", 90),
    "94": ("xid94-contained", 88),
    "119": ("xid119-gsp", 90),
    "120": ("xid119-gsp", 90),
    "54": ("aux-power-missing", 88),
    "64": ("row-remap-failed", 80),
    "63": ("row-remap-pending", 80),
    "61": ("gpu-init-failed", 60),
    "62": ("gpu-init-failed", 60),
}
_AMD = re.compile(r"(?i)\b(?:AMD|Radeon)\b")
_OF_A_PROGRAM = ("13", "31", "43", "45", "69")


def no_driver(told: Told) -> Iterator[Suspect]:
    """No driver answers: no card, none installed, or a container or WSL that was not given one."""
    said = told.said(*NO_DRIVER)
    library = told.said(*NO_LIBRARY)
    if not said and not library:
        return
    sure = 90 if said else 74
    words = said or library
    card = _card_is_there(told)
    if told.wsl:
        yield Suspect("wsl2-gpu-setup", sure + 2, words)
    elif told.container and not told.has("container-cli-no-library"):
        yield Suspect("container-no-gpu-access", sure + 3, words)
    no_card = told.said(*NO_CARD) or (told.os == "macos")
    if no_card and not card:
        yield Suspect("no-nvidia-gpu", sure + 2, words)
    yield Suspect("driver-not-installed", sure - (28 if told.wsl or told.container or (no_card and not card) else 0), words)
    if not card and not no_card:
        yield Suspect("no-nvidia-gpu", sure - 30, words)


def _card_is_there(told: Told) -> bool:
    """An NVIDIA card; programs list AMD's by the same words."""
    return told.has("clue-lspci-nvidia") or any(not _AMD.search(name) for name, _ in told.gpus)


def not_loaded(told: Told) -> Iterator[Suspect]:
    """The module is not loaded, which is a symptom: of a kernel without one, a key, another driver, configuration."""
    said = told.said(*NOT_LOADED, "nvidia-fallback")
    if not said:
        return
    if told.has("no-module-version"):
        yield Suspect("module-not-loaded", 66, (*said, *told.said("no-module-version")))
    if told.has("modinfo-not-found"):  # nvidia-smi is there, so a driver is installed
        yield Suspect("kernel-module-missing-for-kernel", 88, (*told.said("modinfo-not-found"), *said))
    if told.wsl:
        yield Suspect("wsl2-gpu-setup", 84, said)
        return
    if told.container:
        yield Suspect("ctr-driver-not-loaded", 62, said)
        yield Suspect("container-no-gpu-access", 58, said)
    if told.has("clue-secure-boot", "mok-words"):
        yield Suspect("secure-boot-unsigned-module", 86, (*told.said("clue-secure-boot", "mok-words"), *said))
    if told.has("clue-upgraded") or _other_kernels(told):
        yield Suspect(
            "kernel-module-missing-for-kernel",
            84,
            (*said, *told.said("clue-upgraded", "uname-release", "dkms-status-line", "clue-module-file")),
        )
    if told.has(*NO_CARD) and not _card_is_there(told):
        yield Suspect("no-nvidia-gpu", 82, said)
    yield Suspect("kernel-module-missing-for-kernel", 66 if told.has("nvidia-fallback") else 52, said)
    yield Suspect("module-not-loaded", 50, said)
    yield Suspect("secure-boot-unsigned-module", 46, said)


def _other_kernels(told: Told) -> bool:
    """DKMS has modules, and none for the kernel that runs."""
    running = told.first("uname-release", "uname-release-below")
    built = [symptom.value("kernel") for symptom in told.said("dkms-status-line") if symptom.value("state") == "installed"]
    built += [symptom.value("kernel") for symptom in told.said("clue-module-file")]
    return bool(running and built and running.value("kernel") not in built)


def built_for_other_kernels(told: Told) -> Iterator[Suspect]:
    """The same, where nobody quotes an error."""
    if _other_kernels(told):
        yield Suspect(
            "kernel-module-missing-for-kernel",
            78,
            told.said("uname-release", "uname-release-below", "dkms-status-line", "clue-module-file"),
        )


def nothing_to_see(told: Told) -> Iterator[Suspect]:
    """The driver answers, and CUDA sees no GPU."""
    said = told.said(*NO_DEVICE)
    if not said:
        return
    hidden = told.said("clue-visible-devices")
    if hidden:
        yield Suspect("cuda-visible-devices-wrong", 88, (*said, *hidden))
    if told.wsl:
        yield Suspect("wsl2-gpu-setup", 80, said)
    elif told.container:
        yield Suspect("container-no-gpu-access", 80, said)
    if told.has(*NO_CARD) and not told.has("clue-smi-table"):
        yield Suspect("no-nvidia-gpu", 82, said)
    by_pytorch = told.has("torch-no-gpus") or told.has("clue-smi-table")
    yield Suspect("cuda-visible-devices-wrong", 62 if by_pytorch else 50, said)
    yield Suspect("no-nvidia-gpu", 48 if by_pytorch else 61, said)
    yield Suspect("driver-not-installed", 42 if by_pytorch else 54, said)


def no_devices(told: Told) -> Iterator[Suspect]:
    """nvidia-smi finds no device: the kernel log says why, if it is there."""
    said = told.said("smi-no-devices", "nvml-no-devices")
    if said:
        yield Suspect(
            "container-no-gpu-access" if told.container else "wsl2-gpu-setup" if told.wsl else "gpu-init-failed", 80, said
        )


def too_old(told: Told) -> Iterator[Suspect]:
    """The driver's CUDA against that of the build."""
    said = told.said(*INSUFFICIENT)
    if said:
        nothing = told.has(*NO_LIBRARY, *NOT_LOADED)
        if told.container and not told.driver:
            yield Suspect("container-no-gpu-access", 70, said)
        yield Suspect("driver-too-old-for-cuda", 70 if nothing else 88, said)
        if nothing:
            yield Suspect("driver-not-installed", 76, said)
    old = told.first("torch-driver-old")
    if old:
        yield Suspect("driver-too-old-for-cuda", 96, (old,), _serves(told, int(old.value("version") or 0)))
    vague = told.said("vllm-driver-old")
    if vague:
        yield Suspect("driver-too-old-for-cuda", 74, vague)
    if told.has(*UNAVAILABLE) and _driver_is_older(told):
        yield Suspect(
            "driver-too-old-for-cuda", 90, told.said(*UNAVAILABLE, "clue-smi-table"), _serves(told, told.driver_cuda or 0)
        )


def _driver_is_older(told: Told) -> bool:
    """Within one CUDA major every build runs, from 11 on."""
    wanted = _number(told.torch_cuda)
    served = told.driver_cuda
    if not wanted or not served:
        return False
    return served // 1000 < wanted // 1000 or (wanted < 11000 and served < wanted)


def _number(version: str | None) -> int:
    major, _, minor = (version or "").partition(".")
    return int(major) * 1000 + int(minor[:1] or 0) * 10 if major.isdigit() and minor[:1].isdigit() else 0


def _serves(told: Told, number: int) -> str:
    served = f"CUDA {number // 1000}.{number % 1000 // 10}" if number >= 1000 else "an older CUDA"
    driver = f"The driver ({told.driver})" if told.driver else "The driver"
    wanted = (
        f"; PyTorch {told.torch.version} is built for CUDA {told.torch_cuda}"
        if told.torch and told.torch_cuda
        else "; the program needs a newer one"
    )
    return f"{driver} serves {served}{wanted}"


def xids(told: Told) -> Iterator[Suspect]:
    """The number of an Xid says what happened."""
    for symptom in told.said("nvrm-xid"):
        number = symptom.value("xid") or ""
        if number in _XIDS:
            code, sure = _XIDS[number]
            yield Suspect(code, sure, (symptom,))
        elif number in _OF_A_PROGRAM:
            yield Suspect("xid-app", 64, (symptom,))
    firmware = told.said("nvrm-gsp-timeout")
    if firmware:
        yield Suspect(
            "gpu-init-failed" if told.has("nvrm-rminit", "rm-init-failed", "gfw-boot", "nvml-no-devices") else "xid119-gsp",
            84,
            firmware,
        )


def wsl(told: Told) -> Iterator[Suspect]:
    """In WSL the driver is that of Windows."""
    if told.has("wsl-symlink"):
        yield Suspect("wsl2-gpu-setup", 70, told.said("wsl-symlink"))
    blocked = told.said("gpu-access-blocked", "smi-err")
    if blocked:
        yield Suspect("wsl2-gpu-setup", 92 if told.wsl else 76, blocked)
    insufficient = told.said(*INSUFFICIENT)
    if told.wsl and insufficient and not told.driver:  # no driver of Windows was seen that could be the older one
        yield Suspect("wsl2-gpu-setup", 90, insufficient)
    busy = told.said("cuda-busy")
    if told.wsl and busy:  # WSL has no compute mode that could be set
        yield Suspect("wsl2-gpu-setup", 80, busy)
    failing = told.said(*UNAVAILABLE, "cuda-unknown", "library-mismatch", "smi-no-devices", "cuda-driver-insufficient")
    if told.wsl and failing and not told.has("torch-built-without-cuda", "torch-cpuonly-package"):
        yield Suspect("wsl2-gpu-setup", 96 if told.has("clue-wsl1") else 72, failing)


_COUNTED = {
    "2": ("vram-held-by-other-process", 62),
    "3": ("cuda-unknown-error-uvm", 60),
    "30": ("cuda-unknown-error-uvm", 84),
    "34": ("stub-library", 90),
    "35": ("driver-too-old-for-cuda", 84),
    "36": ("driver-too-old-for-cuda", 84),
    "46": ("compute-mode", 76),
    "101": ("cuda-visible-devices-wrong", 64),
    "304": ("cuda-unknown-error-uvm", 62),
    "999": ("cuda-unknown-error-uvm", 86),
}


def counted(told: Told) -> Iterator[Suspect]:
    """The number with which CUDA failed to count its GPUs. In WSL the driver of Windows is what fails."""
    for symptom in told.said("cuda-count-error", "cuda-call-returned"):
        code, sure = _COUNTED.get(symptom.value("code") or "", ("", 0))
        if sure and told.wsl:
            yield Suspect("wsl2-gpu-setup", 84, (symptom,))
        elif sure:
            yield Suspect(code, sure, (symptom,))


def modules(told: Told) -> Iterator[Suspect]:
    """Messages of modprobe that have several causes."""
    said = told.said("module-no-device")
    if said:
        yield Suspect("nouveau-conflict" if told.has("nouveau-in-use", "nouveau-line") else "gpu-init-failed", 66, said)
        if told.has(*NO_CARD):
            yield Suspect("no-nvidia-gpu", 80, said)


def permission(told: Told) -> Iterator[Suspect]:
    """As root it works."""
    said = told.said("clue-root-works", "clue-root-succeeds")
    failing = told.said(
        *UNAVAILABLE,
        *NO_DEVICE,
        *NO_LIBRARY,
        *NOT_LOADED,
        "cuda-unknown",
        "device-node-mode",
        "user-in-video-group",
        "smi-no-devices",
    )
    if said and failing:
        yield Suspect("device-node-permission", 90, (*said, *failing))
    elif told.has("user-in-video-group") and failing:
        yield Suspect("device-node-permission", 84, (*told.said("user-in-video-group"), *failing))


def no_card_told(told: Told) -> Iterator[Suspect]:
    """Whoever says that there is no card has said the cause, whatever the container's tools or pip say of it."""
    refused = told.said("container-cli-not-loaded")
    if refused and told.has("clue-no-card") and not _card_is_there(told):
        yield Suspect("no-nvidia-gpu", 94, (*told.said("clue-no-card"), *refused))
    wheel = told.said("nvidia-wheel-missing")
    if wheel and (told.os == "macos" or told.has(*NO_CARD)) and not _card_is_there(told):
        yield Suspect("no-nvidia-gpu", 84, wheel)


def unavailable(told: Told) -> Iterator[Suspect]:
    """PyTorch sees no GPU, and the text says what machine it is."""
    said = told.said(*UNAVAILABLE)
    if not said or told.without_cuda:
        return
    if told.os == "macos" or (told.has(*NO_CARD) and not _card_is_there(told)):
        yield Suspect("no-nvidia-gpu", 86, said)
    elif told.container and not told.driver:
        yield Suspect("container-no-gpu-access", 68, said)
    elif told.has("clue-suspend", "clue-uvm-reload") and not told.wsl:
        yield Suspect("cuda-unknown-error-uvm", 76, (*said, *told.said("clue-suspend", "clue-uvm-reload")))
    elif not told.driver and not told.has("clue-smi-table") and not told.wsl:
        yield Suspect("driver-not-installed", 52, said)


def module_memory(told: Told) -> Iterator[Suspect]:
    """Error 999 after a suspend or an update: nvidia_uvm is stale."""
    said = told.said("torch-unknown-error", "cuda-unknown", "cuda-unknown-name", "cuda-999", "cuda-runtime-error-30")
    if said:
        stale = told.said("clue-suspend", "clue-uvm-reload", "clue-driver-updated", "clue-upgraded")
        yield Suspect("cuda-unknown-error-uvm", 93 if stale else 86, (*said, *stale))
    stale = told.said("clue-uvm-reload")
    if stale and told.has("clue-suspend"):
        yield Suspect("cuda-unknown-error-uvm", 82, (*told.said("clue-suspend"), *stale))


def less_for_the_container(told: Told, suspect: Suspect) -> int:
    """NVML's unknown error outside a container is not the container's."""
    if suspect.code == "container-nvml-lost" and not told.container:
        return 10
    if suspect.code == "device-node-permission" and told.has("container-nvml-unknown") and told.container:
        return 15
    return 0


def less_where_a_deeper_one_speaks(told: Told, suspect: Suspect) -> int:
    """nouveau is named in many logs; the module's own refusal is the better word."""
    if suspect.code == "nouveau-conflict" and told.has("module-key-refused", "module-key-rejected", "dkms-build-status"):
        return 30
    if suspect.code == "cuda-visible-devices-wrong" and told.has(*NOT_LOADED) and not told.has("clue-visible-devices"):
        return 20
    if suspect.code == "gpu-init-failed" and told.has("nvrm-off-bus", "smi-lost-device", "gpu-is-lost", "nvrm-needs-open"):
        return 20
    if suspect.code == "kernel-module-missing-for-kernel" and told.has(
        "dkms-build-status", "module-key-refused", "runfile-build-failed", "dkms-autoinstall"
    ):
        return 30
    if suspect.code == "dkms-build-failed" and told.has("dkms-other-module") and not _names_nvidia(told):
        return 60
    if suspect.code == "driver-library-mismatch" and told.has("cuda-803-words", "cuda-803") and suspect.sure < 95:
        return 10
    return 0


def _names_nvidia(told: Told) -> bool:
    """DKMS builds other modules too, which may fail beside NVIDIA's."""
    return any("nvidia" in symptom.text.lower() for symptom in told.complaint.symptoms)


RULES = (
    no_driver,
    not_loaded,
    built_for_other_kernels,
    nothing_to_see,
    no_devices,
    too_old,
    xids,
    wsl,
    counted,
    modules,
    permission,
    no_card_told,
    unavailable,
    module_memory,
)
DOUBTS = (less_for_the_container, less_where_a_deeper_one_speaks)
