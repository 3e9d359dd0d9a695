"""Records what the doctor reads of a PyTorch install as a small tree in tests/trees.

    python tests/record_torch_tree.py NAME ENVIRONMENT

ENVIRONMENT holds the wheels of one release from the package index. Libraries that lie outside of it (libc, libstdc++) are left out,
so that a tree reads the same on every machine.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from gpudoctor.codec import to_json
from gpudoctor.facts import Torch
from gpudoctor.probes import elf, interpreter, torch_files, torch_loader, torch_metadata
from gpudoctor.probes.scope import Scope

HERE = Path(__file__).parent
NUMBER = r"^#define (?:CUDNN_(?:MAJOR|MINOR|PATCHLEVEL)|NCCL_(?:MAJOR|MINOR|PATCH)) +\d+.*$"
HEADERS = ("cudnn_version.h", "cudnn_version_v8.h", "cudnn_version_v9.h", "nccl.h")


def record(name: str, environment: Path) -> None:
    """Write tests/trees/NAME.json."""
    python = str(environment / "bin/python")
    scope = Scope(root=Path("/"), environ={"PATH": os.defpath}, python=python, chosen_by="--python")
    answer = interpreter.answer_of(scope)
    facts = torch_files.look(scope)
    if isinstance(answer, interpreter.Silent) or not isinstance(facts, Torch):
        raise SystemExit(f"no PyTorch to record in {environment}")
    folder = Path(facts.path)
    process = torch_loader.import_torch(folder, scope, program=answer.executable, search=answer.search, cuda=facts.cuda)
    process.open(folder / "lib/libtorch_cuda_linalg.so")
    for soname in torch_loader.OPENED_LATER:
        process.use(soname)
    data = {
        "recorded": {
            "by": "tests/record_torch_tree.py",
            "from": f"torch {facts.version}, wheels of the package index",
            "python": answer.interpreter.version,
        },
        "version": facts.version,
        "cuda": facts.cuda,
        "preloads": to_json_preloads(torch_loader.preloads(folder, scope)),
        "files": files(folder, answer.interpreter.site_packages[0], scope),
        "elf": libraries(folder, process),
        "facts": json.loads(json.dumps(to_json(facts)).replace(str(folder.parent), "{site}")),
    }
    path = HERE / "trees" / f"{name}.json"
    path.write_text(json.dumps(data, indent=1) + "\n")


def to_json_preloads(preloads: torch_loader.Preloads) -> dict[str, Any]:
    return {
        "always": [list(pair) for pair in preloads.always],
        "condition": preloads.condition,
        "required": preloads.required,
        "fallback": [list(pair) for pair in preloads.fallback],
    }


def files(folder: Path, site: str, scope: Scope) -> dict[str, str]:
    """version.py, the metadata of torch and of what it pins, and the numbers of the headers."""
    texts = {"torch/version.py": (folder / "version.py").read_text()}
    for entry in sorted(os.listdir(site)):
        if not re.match(r"(torch|triton|nvidia_.*|cuda_.*)-[^-]*\.dist-info$", entry):
            continue
        lines = torch_metadata.header((Path(site) / entry / "METADATA").read_text())
        kept: tuple[str, ...] = ("Metadata-Version", "Name", "Version")
        kept += () if entry.startswith(("nvidia", "triton")) else ("Requires-Dist", "Provides-Extra")
        texts[f"{entry}/METADATA"] = "".join(f"{line}\n" for line in lines if line.startswith(kept) and _wanted(line))
        if entry.startswith("torch-"):
            texts[f"{entry}/INSTALLER"] = (Path(site) / entry / "INSTALLER").read_text()
            used = torch_metadata.Metadata("torch", "", str(Path(site) / entry), None)
            texts[f"{entry}/RECORD"] = "".join(f"{name},,\n" for name in torch_metadata.essential_files(used, scope))
    for header in sorted(path for name in HEADERS for path in Path(site).glob(f"nvidia/*/include/{name}")):
        numbers = re.findall(NUMBER, header.read_text(), re.MULTILINE)
        texts[str(header.relative_to(site))] = "".join(f"{line}\n" for line in numbers)
    return texts


def _wanted(line: str) -> bool:
    """cuda-toolkit's metadata lists hundreds of extras; those that PyTorch asks for are enough."""
    extra = re.search(r"extra == '([^']*)'", line) or re.match(r"Provides-Extra: (.*)", line)
    asked = ("cublas", "cudart", "cufft", "cufile", "cupti", "curand", "cusolver", "cusparse", "nvjitlink", "nvrtc", "nvtx")
    return extra is None or extra[1] in asked


def libraries(folder: Path, process: torch_loader.Process) -> dict[str, dict[str, Any]]:
    """What the loader reads of each library below site-packages."""
    site = str(folder.parent) + "/"
    paths = {os.path.normpath(taken.path) for taken in process.loaded.values()}
    paths |= {str(path) for path in [*folder.glob("lib/lib*.so*"), *folder.glob("_C.*.so")]}
    found = {}
    inside = {soname for soname, taken in process.loaded.items() if os.path.normpath(taken.path).startswith(site)}
    for path in sorted(path for path in paths if path.startswith(site)):
        with elf.opened(path) as image:
            dynamic = image.dynamic()
            parts: dict[str, Any] = {"soname": dynamic.soname, "needed": [name for name in dynamic.needed if name in inside]}
            parts |= {"rpath": ":".join(dynamic.rpath)} if dynamic.rpath else {}
            parts |= {"runpath": ":".join(dynamic.runpath)} if dynamic.runpath else {}
            if path.endswith("/libtorch_cuda.so"):
                rodata, names = image.section(".rodata"), image.section(".dynstr")
                flags = image.text_with(rodata, b"-gencode") if rodata else None
                parts |= {"flags": flags} if flags else {}
                parts |= {"exports": ["ProcessGroupNCCL"]} if names and image.contains(names, b"ProcessGroupNCCL") else {}
        found[path.removeprefix(site)] = parts
    return found


if __name__ == "__main__":
    record(sys.argv[1], Path(sys.argv[2]))
