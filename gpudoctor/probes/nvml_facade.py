"""NVML as a table of questions about one GPU: the one place that knows nvidia-ml-py.

That package is untyped, and what it holds differs from release to release: a function it lacks is an AttributeError, one
that the driver lacks is NVML's code 13, and some raise exceptions that are no NVMLError. Here each question gives plain
JSON values for fields of ``facts.Gpu``, or raises; ``refusal`` puts any such exception into words. NVML's numbers are
those of nvml.h, written out because older nvidia-ml-py releases lack some of the names.

Only the child imports this module: a call into the driver may hang or crash.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

import pynvml

_nvml: Any = pynvml
Handle = Any  # an opaque pointer
Json = Any

NOT_SUPPORTED, FUNCTION_NOT_FOUND = 3, 13
DEVICE_FAILED = frozenset({8, 11, 15, 16})
"""Power cable, interrupt, lost, reset required: the GPU itself fails, so no further question makes sense."""

COMPUTE_MODES = {0: "default", 1: "exclusive-thread", 2: "prohibited", 3: "exclusive-process"}
FABRIC_STATES = {0: "not-supported", 1: "not-started", 2: "in-progress", 3: "completed"}
VIRTUALIZATION = {0: "none", 1: "passthrough", 2: "vgpu", 3: "host-vgpu", 4: "host-vsga"}
CLOCK_REASONS = (  # bit 0 upwards
    "idle",
    "app-clocks",
    "power-cap",
    "hw-slowdown",
    "sync-boost",
    "sw-thermal",
    "hw-thermal",
    "power-brake",
    "display",
    "board-limit",
    "reliability",
)


class Question(NamedTuple):
    """One call and the fields of ``facts.Gpu`` that its answer fills, in the order of the answer."""

    call: str
    fields: tuple[str, ...]
    ask: Callable[[Handle], tuple[Json, ...]]


class _FabricInfo(ctypes.Structure):
    """nvmlGpuFabricInfo_t of nvml.h; that of nvidia-ml-py 12.535 is 64 bytes too long and reads the state beside the point."""

    _fields_ = (
        ("cluster", ctypes.c_ubyte * 16),
        ("status", ctypes.c_uint),
        ("clique", ctypes.c_uint),
        ("state", ctypes.c_ubyte),
    )
    status: int
    state: int


class _FabricInfoV2(ctypes.Structure):
    """nvmlGpuFabricInfo_v2_t of nvml.h."""

    _fields_ = (("version", ctypes.c_uint), ("info", _FabricInfo), ("health", ctypes.c_uint))
    info: _FabricInfo


class Refusal(NamedTuple):
    """Why a question got no answer. ``code`` is NVML's, None where the exception has none."""

    code: int | None
    why: str


def initialise() -> None:
    """Start NVML; raises what ``refusal`` reads."""
    _nvml.nvmlInit()


def driver_version() -> str:
    """Version of the driver, such as the one that nvidia-smi prints."""
    return _text(_nvml.nvmlSystemGetDriverVersion)


def cuda_version() -> int:
    """CUDA version of the driver as major*1000 + minor*10."""
    return int(_first_known(("nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion")))


def gpu_count() -> int:
    """How many GPUs NVML counts, those it cannot open included."""
    return int(_nvml.nvmlDeviceGetCount())


def open_gpu(index: int) -> Handle:
    """The handle of one GPU; raises with a code of DEVICE_FAILED when the GPU is sick."""
    return _nvml.nvmlDeviceGetHandleByIndex(index)


def refusal(error: Exception) -> Refusal:
    """What an exception of nvidia-ml-py means."""
    if isinstance(error, AttributeError):
        return Refusal(None, "not supported by this nvidia-ml-py")
    code = getattr(error, "value", None)
    if not isinstance(error, _nvml.NVMLError) or not isinstance(code, int):
        mismatch = type(error).__name__ == "NVMLLibraryMismatchError"
        return Refusal(None, "not supported by this driver" if mismatch else f"{type(error).__name__}: {error}")
    if code == NOT_SUPPORTED:
        return Refusal(code, "not supported by this GPU")
    if code == FUNCTION_NOT_FOUND:
        return Refusal(code, "not supported by this driver")
    return Refusal(code, _words(error, code))


def _words(error: Exception, code: int) -> str:
    """The driver's own words, which people search for; nvidia-ml-py has a table of its own with others."""
    try:
        return _text(lambda: _nvml.nvmlErrorString(code))
    except Exception:  # noqa: BLE001 - a library that cannot even do this; the error at hand is the one to report
        return str(error)


def _text(ask: Callable[[], str | bytes]) -> str:
    """Older releases give bytes; newer ones decode, and raise on bytes that are no UTF-8."""
    try:
        answer = ask()
    except UnicodeDecodeError as error:
        answer = error.object
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)


def _first_known(names: tuple[str, ...], *arguments: Json) -> Json:
    """The answer of the first of these functions that nvidia-ml-py and the driver both have; names newest first."""
    for name in names[:-1]:
        try:
            return getattr(_nvml, name)(*arguments)
        except AttributeError:
            continue
        except _nvml.NVMLError as error:
            if error.value != FUNCTION_NOT_FOUND:
                raise
    return getattr(_nvml, names[-1])(*arguments)


def _memory(handle: Handle) -> tuple[Json, ...]:
    """Total, free and used; used without what the driver reserves where the driver can tell (version 2 of the call)."""
    try:
        memory = _nvml.nvmlDeviceGetMemoryInfo(handle, version=_nvml.nvmlMemory_v2)
    except (AttributeError, TypeError, _nvml.NVMLError) as error:
        if getattr(error, "value", None) in DEVICE_FAILED:
            raise
        memory = _nvml.nvmlDeviceGetMemoryInfo(handle)
    return memory.total, memory.free, memory.used


def _pci_address(handle: Handle) -> tuple[Json, ...]:
    domain, rest = _text(lambda: _nvml.nvmlDeviceGetPciInfo(handle).busId).split(":", 1)
    return (f"{int(domain, 16):04x}:{rest.lower()}",)


def _capability(handle: Handle) -> tuple[Json, ...]:
    major, minor = _nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return (f"{major}.{minor}",)


def _processes(handle: Handle) -> tuple[Json, ...]:
    """Compute and graphics processes merged by pid; user, command and state are filled in later."""
    merged: dict[int, Json] = {}
    for kind in ("Graphics", "Compute"):
        names = (f"nvmlDeviceGet{kind}RunningProcesses_v3", f"nvmlDeviceGet{kind}RunningProcesses_v2")
        try:
            entries = _first_known(names, handle)
        except _nvml.NVMLError as error:
            if kind == "Graphics" and error.value not in DEVICE_FAILED:
                continue  # a GPU without graphics
            raise
        for entry in entries:
            known = merged.get(entry.pid, {"used": None})["used"]
            sizes = [size for size in (known, entry.usedGpuMemory) if size is not None]
            merged[entry.pid] = {"pid": entry.pid, "used": max(sizes, default=None), "kind": kind.lower()}
    return (sorted(merged.values(), key=lambda process: int(process["pid"])),)


def _mig_mode(handle: Handle) -> tuple[Json, ...]:
    current, pending = _nvml.nvmlDeviceGetMigMode(handle)
    return bool(current), bool(pending)


def _mig_devices(handle: Handle) -> tuple[Json, ...]:
    current, _ = _nvml.nvmlDeviceGetMigMode(handle)
    if not current:
        return ([],)
    devices = []
    for index in range(_nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = _nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except _nvml.NVMLError as error:
            if error.value in DEVICE_FAILED:
                raise
            continue  # no instance has this number
        devices.append(_mig_device(instance))
    return (devices,)


def _mig_device(instance: Handle) -> Json:
    try:
        total, free, _ = _memory(instance)
    except _nvml.NVMLError as error:
        total = free = {"unknown": refusal(error).why}
    uuid = _text(lambda: _nvml.nvmlDeviceGetUUID(instance))
    name = _text(lambda: _nvml.nvmlDeviceGetName(instance))
    return {"uuid": uuid, "name": name, "memory_total": total, "memory_free": free}


def _throttle(handle: Handle) -> tuple[Json, ...]:
    names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
    mask = int(_first_known(names, handle))
    reasons = [name for bit, name in enumerate(CLOCK_REASONS) if mask >> bit & 1]
    beyond = mask >> len(CLOCK_REASONS) << len(CLOCK_REASONS)
    return ([*reasons, hex(beyond)] if beyond else reasons,)


def _remapped_rows(handle: Handle) -> tuple[Json, ...]:
    _, _, pending, failed = _nvml.nvmlDeviceGetRemappedRows(handle)
    return bool(pending), bool(failed)


def _temperature(handle: Handle) -> tuple[Json, ...]:
    core = 0
    return (int(_first_known(("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"), handle, core)),)


def _fabric(handle: Handle) -> tuple[Json, ...]:
    info = _fabric_info(handle)
    state = info.state
    if FABRIC_STATES.get(state) == "completed" and info.status != 0:
        return ("failed",)
    return (FABRIC_STATES.get(state, f"state {state}"),)


def _fabric_info(handle: Handle) -> _FabricInfo:
    """The versioned call where there is one, else the first form of it (drivers and nvidia-ml-py before 545)."""
    try:
        newer = _FabricInfoV2(version=ctypes.sizeof(_FabricInfoV2) | 2 << 24)
        _nvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(newer))
    except (AttributeError, _nvml.NVMLError) as error:
        if getattr(error, "value", FUNCTION_NOT_FOUND) != FUNCTION_NOT_FOUND:
            raise
        info = _FabricInfo()
        _nvml.nvmlDeviceGetGpuFabricInfo(handle, ctypes.byref(info))
        return info
    return newer.info


def _licence(handle: Handle) -> tuple[Json, ...]:
    """None unless this is a vGPU guest: licences of bare-metal cards concern graphics only."""
    if VIRTUALIZATION.get(_nvml.nvmlDeviceGetVirtualizationMode(handle)) != "vgpu":
        return (None,)
    licences = _nvml.nvmlDeviceGetGridLicensableFeatures(handle)
    if not licences.isGridLicenseSupported:
        return (None,)
    features = licences.gridLicensableFeatures[: licences.licensableFeaturesCount]
    return (any(feature.featureState for feature in features),)


def _string(name: str, field: str) -> Question:
    return Question(name, (field,), lambda handle: (_text(lambda: getattr(_nvml, name)(handle)),))


def _count(name: str, field: str) -> Question:
    return Question(name, (field,), lambda handle: (int(getattr(_nvml, name)(handle)),))


def _flag(name: str, field: str) -> Question:
    return Question(name, (field,), lambda handle: (bool(getattr(_nvml, name)(handle)),))


def _word(name: str, field: str, words: dict[int, str]) -> Question:
    def ask(handle: Handle) -> tuple[Json, ...]:
        value = int(getattr(_nvml, name)(handle))
        return (words.get(value, f"mode {value}"),)

    return Question(name, (field,), ask)


def _uncorrected(handle: Handle) -> tuple[Json, ...]:
    uncorrected, volatile = 1, 0
    return (int(_nvml.nvmlDeviceGetTotalEccErrors(handle, uncorrected, volatile)),)


QUESTIONS: tuple[Question, ...] = (  # what matters most first, so that a hang later on costs little
    _string("nvmlDeviceGetName", "name"),
    _string("nvmlDeviceGetUUID", "uuid"),
    Question("nvmlDeviceGetPciInfo", ("pci_address",), _pci_address),
    Question("nvmlDeviceGetCudaComputeCapability", ("compute_capability",), _capability),
    Question("nvmlDeviceGetMemoryInfo", ("memory_total", "memory_free", "memory_used"), _memory),
    _word("nvmlDeviceGetComputeMode", "compute_mode", COMPUTE_MODES),
    Question("nvmlDeviceGetMigMode", ("mig", "mig_pending"), _mig_mode),
    Question("nvmlDeviceGetMigDeviceHandleByIndex", ("mig_devices",), _mig_devices),
    Question("nvmlDeviceGetComputeRunningProcesses", ("processes",), _processes),
    _word("nvmlDeviceGetVirtualizationMode", "virtualization", VIRTUALIZATION),
    Question("nvmlDeviceGetGridLicensableFeatures", ("vgpu_licensed",), _licence),
    Question("nvmlDeviceGetGpuFabricInfo", ("fabric",), _fabric),
    _flag("nvmlDeviceGetPersistenceMode", "persistence"),
    _flag("nvmlDeviceGetDisplayActive", "display_active"),
    _count("nvmlDeviceGetCurrPcieLinkGeneration", "pcie_generation"),
    _count("nvmlDeviceGetMaxPcieLinkGeneration", "pcie_generation_max"),
    _count("nvmlDeviceGetCurrPcieLinkWidth", "pcie_width"),
    _count("nvmlDeviceGetMaxPcieLinkWidth", "pcie_width_max"),
    Question("nvmlDeviceGetTotalEccErrors", ("ecc_uncorrected",), _uncorrected),
    Question("nvmlDeviceGetRemappedRows", ("remap_pending", "remap_failed"), _remapped_rows),
    Question("nvmlDeviceGetCurrentClocksEventReasons", ("throttle",), _throttle),
    Question(
        "nvmlDeviceGetUtilizationRates",
        ("utilization",),
        lambda handle: (int(_nvml.nvmlDeviceGetUtilizationRates(handle).gpu),),
    ),
    Question("nvmlDeviceGetTemperature", ("temperature",), _temperature),
    _count("nvmlDeviceGetPowerUsage", "power_draw"),
    _count("nvmlDeviceGetEnforcedPowerLimit", "power_limit"),
)
