"""PyTorch in the target interpreter, read from its files without importing it.

What is read where, and on which releases that was verified: docs/reading-torch-without-importing.md.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

from gpudoctor.facts import Pin, Resolution, Torch, Unknown
from gpudoctor.probes import elf, interpreter, torch_loader, torch_metadata
from gpudoctor.probes.scope import Scope

# the libraries whose choice decides whether PyTorch's own or a stranger's code runs
WATCHED = (
    "libcudnn",
    "libcudnn_graph",
    "libcudnn_ops_infer",
    "libnccl",
    "libcublas",
    "libcublasLt",
    "libcudart",
    "libnvJitLink",
    "libcusparse",
)
C_LIBRARY = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "ld-linux-x86-64.so.2")
"""Where the interpreter runs its C library is there, even if it is not where we look (NixOS, a root without one)."""
# the driver's own libraries: a machine without a driver has none of them, and that is the driver's check
DRIVER_LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1")
_WHEEL_PACKAGES = {
    "libcudnn": "cudnn",
    "libcudnn_graph": "cudnn",
    "libcudnn_ops_infer": "cudnn",
    "libnccl": "nccl",
    "libcublas": "cublas",
    "libcublasLt": "cublas",
    "libcudart": "cuda-runtime",
    "libnvJitLink": "nvjitlink",
    "libcusparse": "cusparse",
}
_CUDNN_HEADER = (("cudnn_version.h", "cudnn_version_v9.h", "cudnn_version_v8.h"), "CUDNN_{}", ("MAJOR", "MINOR", "PATCHLEVEL"))
_HEADERS = {
    "libcudnn": _CUDNN_HEADER,
    "libcudnn_graph": _CUDNN_HEADER,
    "libcudnn_ops_infer": _CUDNN_HEADER,
    "libnccl": (("nccl.h",), "NCCL_{}", ("MAJOR", "MINOR", "PATCH")),
}
_HEADER_LIMIT = 1 << 16
_ASSIGNED = re.compile(
    r"""^(?P<name>__version__|cuda|hip|git_version|debug)[ \t]{0,8}(?::[^=\n#]{1,80})?=[ \t]{0,8}"""
    r"""(?:(?P<quote>["'])(?P<text>[\w.+!-]{1,200})(?P=quote)|(?P<word>None|True|False)\b)[ \t]*(?:[#;].*)?$""",
    re.MULTILINE,
)
_MOST_MISSING = 5


@dataclass(frozen=True, slots=True)
class VersionFile:
    """torch/version.py: strings that the build wrote; None for a name that is absent or None."""

    version: str | None
    cuda: str | None
    hip: str | None
    git: str | None
    debug: bool


def look(scope: Scope) -> Torch | None | Unknown:
    """PyTorch; None when the interpreter would find none."""
    answer = interpreter.answer_of(scope)
    if isinstance(answer, interpreter.Silent):
        return Unknown(answer.why)
    live = interpreter.here(scope)
    folder = _folder(answer)
    metadata = torch_metadata.of("torch", answer.interpreter.site_packages, live)
    if folder is None:
        return None
    stated = version_file(folder, live)
    used = torch_metadata.in_use(metadata, folder, stated.version)
    if stated.version is None and used is None and not os.path.isfile(folder / "__init__.py"):
        return None  # what an uninstallation left behind, or a folder that merely bears the name
    return _torch(folder, stated, used, metadata, answer, scope)


def version_file(folder: Path, scope: Scope) -> VersionFile:
    """What the lines of ``version.py`` in ``folder`` assign; nothing is run.

    No syntax tree is made of it: how deeply a text may be nested before the parser, or the process, ends depends on the Python.
    """
    text = scope.text(str(folder / "version.py"), _HEADER_LIMIT) or ""
    values = {match["name"]: match["text"] or match["word"] for match in _ASSIGNED.finditer(text)}
    debug = values.get("debug") == "True"
    version, cuda, hip, git = (_stated(values.get(name)) for name in ("__version__", "cuda", "hip", "git_version"))
    return VersionFile(version, cuda, hip, git, debug)


def _stated(value: str | None) -> str | None:
    return None if value in (None, "None", "True", "False") else value


def _folder(answer: interpreter.Answer) -> Path | None:
    """Where ``import torch`` goes; else, for an install whose folder is gone or hollow, where one lies on the path."""
    if answer.torch is not None and os.path.isdir(answer.torch):
        return Path(answer.torch)
    for place in answer.interpreter.site_packages:
        if os.path.isdir(os.path.join(place, "torch")) or torch_metadata.names("torch", place):
            return Path(place, "torch")
    return None


def _torch(
    folder: Path,
    stated: VersionFile,
    used: torch_metadata.Metadata | None,
    metadata: tuple[torch_metadata.Metadata, ...],
    answer: interpreter.Answer,
    scope: Scope,
) -> Torch:
    live = interpreter.here(scope)
    target = answer.interpreter
    version = stated.version or (used.version if used else "")
    cuda = stated.cuda or (None if stated.version else _cuda_of_local(version))
    process = torch_loader.import_torch(folder, scope, program=answer.executable, search=answer.search, cuda=cuda)
    if cuda is not None or stated.hip is not None:
        process.open(folder / "lib" / "libtorch_cuda_linalg.so")  # loaded on the first use of a solver
        for soname in torch_loader.OPENED_LATER:
            process.use(soname)
    sm, ptx = architectures(folder, gpu_build=cuda is not None)
    pins = torch_metadata.pins(used, target, live) if used else ()
    return Torch(
        version=version,
        cuda=cuda,
        hip=stated.hip,
        git=stated.git,
        path=str(folder),
        installer=used.installer if used else None,
        sm=sm,
        ptx=ptx,
        nccl_built_in=nccl_built_in(folder, gpu_build=cuda is not None or stated.hip is not None),
        cudnn_built_for=_cudnn_built_for(folder, pins),
        pins=pins,
        missing_libraries=_missing_libraries(folder, process),
        duplicates=torch_metadata.duplicates(metadata, used, target, live),
        missing_files=_missing_files(folder, used, live),
        missing_bytecode=not any(name.endswith(".pyc") for name in live.names(str(folder / "__pycache__"))),
        resolutions=_resolutions(folder, process, answer, live),
    )


def _cuda_of_local(version: str) -> str | None:
    """2.5.1+cu124 -> 12.4, for an install whose version.py is gone."""
    match = re.search(r"\+cu(\d+)(\d)$", version)
    return f"{match[1]}.{match[2]}" if match else None


# ---------------------------------------------------------------- what the libraries tell


def architectures(folder: Path, *, gpu_build: bool) -> tuple[tuple[str, ...] | Unknown, tuple[str, ...] | Unknown]:
    """(compute capabilities with machine code, those with PTX) of the build in ``folder``.

    The flags that nvcc was given stand as one string in .rodata, for ``torch.__config__.show()``; a build that keeps no such
    string is read from its device code: what at least half of the fat binaries hold, since single ones hold more.
    """
    if not gpu_build:
        return (), ()
    why = "PyTorch has no libtorch_cuda.so"
    for name in ("libtorch_cuda.so", "libtorch_cuda_cu.so", "libtorch_cuda_cpp.so"):
        try:
            with elf.opened(folder / "lib" / name) as image:
                found = _from_flags(image) or _from_device_code(image)
        except elf.NotElf as error:
            why = why if "cannot be opened" in str(error) else f"{name}: {error}"
            continue
        if found is not None:
            return found
        why = f"{name} names no architectures"
    return Unknown(why), Unknown(why)


def _from_flags(image: elf.Image) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    section = image.section(".rodata")
    text = image.text_with(section, b"-gencode") if section is not None else None
    if text is None:
        return None
    codes = [code for group in re.findall(r"code=\[?([\w,]+)", text) for code in group.split(",")]
    codes += re.findall(r"arch=(sm_\w+)", text)  # nvcc's short form
    sm = _capabilities(re.findall(r"\bsm_(\d+[a-z]?)\b", " ".join(codes)))
    ptx = _capabilities(re.findall(r"\bcompute_(\d+[a-z]?)\b", " ".join(codes)))
    return (sm, ptx) if sm or ptx else None


def _from_device_code(image: elf.Image) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    seen, binaries = image.device_code(most=100)
    often = [key for key, times in seen.items() if 2 * times >= binaries]
    if not often:
        return None
    return (
        _capabilities([str(architecture) for kind, architecture in often if kind == 2]),
        _capabilities([str(architecture) for kind, architecture in often if kind == 1]),
    )


def _capabilities(numbers: list[str]) -> tuple[str, ...]:
    """80, 86, 90a -> 8.0, 8.6, 9.0a, in order and once each."""
    parts = [(int(number.rstrip("abcdef")), number.lstrip("0123456789")) for number in numbers]
    return tuple(f"{value // 10}.{value % 10}{letter}" for value, letter in sorted(set(parts)))


def nccl_built_in(folder: Path, *, gpu_build: bool) -> bool | Unknown:
    """Whether ``torch.distributed`` has its NCCL backend.

    A wheel's libtorch_cuda.so needs libnccl.so.2; a build with a static NCCL still exports ProcessGroupNCCL. (That name in
    libtorch_python.so says nothing: CPU wheels have it too.)
    """
    if not gpu_build:
        return False
    for name in ("libtorch_cuda.so", "libtorch_hip.so"):
        path = folder / "lib" / name
        if not os.path.exists(path):
            continue
        try:
            with elf.opened(path) as image:
                if any(needed.startswith(("libnccl.so", "librccl.so")) for needed in image.dynamic().needed):
                    return True
                names = image.section(".dynstr")
                return names is not None and image.contains(names, b"ProcessGroupNCCL")
        except elf.NotElf as error:
            return Unknown(f"{name}: {error}")
    return Unknown("PyTorch has no libtorch_cuda.so")


def _cudnn_built_for(folder: Path, pins: tuple[Pin, ...]) -> str | None | Unknown:
    """The cuDNN that the wheel pins, as major.minor.patch; else the major version that its library needs.

    The headers that it was compiled with may be older (2.8.0: 9.8.0 beside a pin of 9.10.2); no file tells them.
    """
    for pin in pins:
        match = re.match(r"===?(\d+\.\d+\.\d+)", pin.wanted)
        if match and pin.name.startswith("nvidia-cudnn"):
            return match[1]
    path = folder / "lib" / "libtorch_cuda.so"
    if not os.path.exists(path):
        return None
    try:
        needed = elf.dynamic(path).needed
    except elf.NotElf as error:
        return Unknown(f"libtorch_cuda.so: {error}")
    return next((name.rpartition(".")[2] for name in needed if name.startswith("libcudnn.so.")), None)


def _missing_libraries(folder: Path, process: torch_loader.Process) -> tuple[str, ...] | Unknown:
    names = {*process.missing, *process.refused} - set(DRIVER_LIBRARIES) - set(C_LIBRARY)
    if not os.path.isdir(folder / "lib"):
        return Unknown(f"{folder / 'lib'} is not there")
    return tuple(sorted(names))


def _missing_files(folder: Path, used: torch_metadata.Metadata | None, scope: Scope) -> tuple[str, ...]:
    """Of the files that PyTorch cannot start without, those that RECORD lists and that are absent, empty or cut short."""
    listed = torch_metadata.essential_files(used, scope) if used else ()
    base = folder.parent
    return tuple(itertools.islice((name for name in listed if not _sound(base / name)), _MOST_MISSING))


def _sound(path: Path) -> bool:
    try:
        if path.stat().st_size == 0:
            return False
    except OSError:
        return False
    if ".so" not in path.name:
        return True
    try:
        with elf.opened(path) as image:
            return image.whole()
    except elf.NotElf:
        return False


# ---------------------------------------------------------------- which file the loader takes


def _resolutions(folder: Path, process: torch_loader.Process, answer: interpreter.Answer, scope: Scope) -> tuple[Resolution, ...]:
    names = {**process.loaded, **process.refused, **dict.fromkeys(process.missing)}
    found = [
        _resolution(soname, taken, folder, answer, scope) for soname, taken in names.items() if soname.split(".so")[0] in WATCHED
    ]
    order = {stem: position for position, stem in enumerate(WATCHED)}
    return tuple(sorted(found, key=lambda item: order[item.soname.split(".so")[0]]))


def _resolution(
    soname: str, taken: torch_loader.Taken | None, folder: Path, answer: interpreter.Answer, scope: Scope
) -> Resolution:
    own = _own(soname, folder, answer)
    return Resolution(
        soname=soname,
        taken=os.path.normpath(taken.path) if taken else None,
        taken_by=taken.by if taken else None,
        taken_version=library_version(os.path.normpath(taken.path), scope) if taken else None,
        own=own,
        own_version=library_version(own, scope) if own else None,
    )


def _own(soname: str, folder: Path, answer: interpreter.Answer) -> str | None:
    """The copy that came with PyTorch: bundled, in a wheel beside it, or in its conda environment."""
    places = [folder / "lib"]
    for place in dict.fromkeys((str(folder.parent), *answer.interpreter.site_packages)):
        places += sorted(Path(place).glob("nvidia/*/lib"))
    if answer.interpreter.owner in ("conda", "pixi"):
        places.append(Path(answer.interpreter.prefix, "lib"))
    return next((str(place / soname) for place in places if os.path.exists(place / soname)), None)


def library_version(path: str, scope: Scope) -> str | None:
    """The version of a CUDA library, from the header beside it, the wheel that it came with, or its real file's name."""
    stem = os.path.basename(path).split(".so")[0]
    return _version_from_header(stem, path, scope) or _version_from_wheel(stem, path) or _version_from_name(os.path.realpath(path))


def _version_from_header(stem: str, path: str, scope: Scope) -> str | None:
    if stem not in _HEADERS:
        return None
    names, pattern, parts = _HEADERS[stem]
    for name in names:
        text = scope.text(os.path.join(os.path.dirname(os.path.dirname(path)), "include", name), _HEADER_LIMIT) or ""
        numbers = [re.search(rf"#\s*define\s+{pattern.format(part)}\s+(\d+)", text) for part in parts]
        if all(numbers):
            return ".".join(number[1] for number in numbers if number)
    return None


def _version_from_wheel(stem: str, path: str) -> str | None:
    """The version of the nvidia-* wheel below whose site-packages the library lies."""
    place, found, _ = path.rpartition("/nvidia/")
    if not found or stem not in _WHEEL_PACKAGES:
        return None
    return torch_metadata.installed_version(_WHEEL_PACKAGES[stem], place)


def _version_from_name(real_path: str) -> str | None:
    """libcublas.so.12.4.5.8 -> 12.4.5.8; a soname's single number is no version."""
    match = re.search(r"\.so\.(\d+(?:\.\d+)+)$", real_path)
    return match[1] if match else None
