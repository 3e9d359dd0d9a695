"""CUDA toolkit: not needed to run PyTorch; when it is asked for, it has to fit PyTorch, the compiler and the GPU.

PyTorch's wheels bring the CUDA libraries that they use. A toolkit (nvcc) compiles extensions. So its absence is no fault
unless ``--require cuda_toolkit`` asks for one. It is then the toolkit that PyTorch's extension builder would take
(torch.utils.cpp_extension): CUDA_HOME, else nvcc on PATH, else /usr/local/cuda.

* ``cuda-toolkit-missing``: no nvcc.
* ``nvcc-torch-version-mismatch``: another CUDA major than PyTorch's; minor versions may differ.
* ``host-compiler-unsupported``: gcc is newer than nvcc accepts.
* ``nvcc-arch-unsupported``: nvcc is older, or of a later major, than the GPU's architecture allows.
* ``multi-cuda``: several toolkits; which one builds is a matter of CUDA_HOME.
* ``toolkit-damaged``: a toolkit whose own files cannot be read. Like all of this it is said only when one is asked for.
"""

from __future__ import annotations

from gpudoctor.facts import BuildTools, Facts, Toolkit, Torch, Unknown
from gpudoctor.findings import Check, Evidence, Finding, Fix, Verdict, listed_codes
from gpudoctor.knowledge import cuda, drivers
from gpudoctor.knowledge.table import version_key

from .cards import capabilities
from .serving import serving
from .words import listing

_CHOICE = ("CUDA_HOME", "CUDA_PATH", "PATH", "/usr/local/cuda")


def judge(facts: Facts, required: bool) -> Verdict:
    """The toolkits of this machine."""
    if isinstance(facts.toolkits, Unknown):
        unknown = (f"CUDA toolkits: {facts.toolkits.why}",) if required else ()
        return Verdict(f"not known ({facts.toolkits.why}); PyTorch brings its own CUDA", unknown=unknown)
    if not required:
        return Verdict(_not_needed(facts.toolkits))
    damaged = tuple(_damaged(toolkit) for toolkit in facts.toolkits if toolkit.problem is not None)
    taken = chosen(facts.toolkits)
    if taken is None or taken.nvcc is None:
        return Verdict("none, and --require asks for one", (_missing(facts, taken), *damaged))
    findings = (*_faults(facts, taken), *damaged, *_several(facts.toolkits, taken))
    if findings and findings[0].severity == "fail":
        return Verdict(findings[0].summary, findings)
    unknown = (f"version of the toolkit at {taken.path}: {taken.version.why}",) if isinstance(taken.version, Unknown) else ()
    return Verdict(f"{_version(taken)} at {taken.path}{_tools(facts)}", findings, unknown)


def chosen(toolkits: tuple[Toolkit, ...]) -> Toolkit | None:
    """The one that builds PyTorch's extensions."""
    for reason in _CHOICE:
        for toolkit in toolkits:
            if reason in toolkit.found_by:
                return toolkit
    return toolkits[0] if toolkits else None


def _version(toolkit: Toolkit) -> str:
    return toolkit.version if isinstance(toolkit.version, str) else "a toolkit of unknown version"


def _not_needed(toolkits: tuple[Toolkit, ...]) -> str:
    if not toolkits:
        return "none, and none is needed: PyTorch brings its own CUDA"
    return f"{listing([f'{_version(toolkit)} at {toolkit.path}' for toolkit in toolkits], 3)}; not needed by PyTorch's wheels"


def _tools(facts: Facts) -> str:
    """What else a build needs, where it is missing."""
    tools = facts.build_tools
    if not isinstance(tools, BuildTools):
        return ""
    lacking = [word for word, absent in (("gcc", tools.gcc is None), ("Python.h", tools.python_header is False)) if absent]
    return (
        f"; {listing(lacking)}, which building an extension needs, {'are' if len(lacking) > 1 else 'is'} not there"
        if lacking
        else ""
    )


# ---------------------------------------------------------------- faults


def _faults(facts: Facts, taken: Toolkit) -> tuple[Finding, ...]:
    """A toolkit of another major is not the one to build with: what else it cannot do says nothing."""
    wrong = _other_major(facts, taken)
    found = (wrong,) if wrong is not None else (_compiler(facts, taken), _architecture(facts, taken))
    return tuple(fault for fault in found if fault is not None)


def _missing(facts: Facts, taken: Toolkit | None) -> Finding:
    where = f"{taken.path} has no nvcc" if taken else "no nvcc on PATH, in CUDA_HOME or /usr/local/cuda"
    return Finding(
        code="cuda-toolkit-missing",
        severity="fail",
        summary="No CUDA toolkit, which --require cuda_toolkit asks for",
        cause=(
            'Building an extension needs nvcc. Running PyTorch does not: its wheels bring their own CUDA, and the "CUDA '
            'Version" of nvidia-smi is what the driver can run, not an installed toolkit. A toolkit has to be of the '
            "major version of PyTorch's CUDA."
        ),
        evidence=(Evidence("PATH, CUDA_HOME, /usr/local", where),),
        fix=_install(facts),
        stands_alone=True,
    )


def _wanted(facts: Facts) -> str | None:
    """The CUDA to build with: PyTorch's, else the driver's, else the newest that is known."""
    if isinstance(facts.torch, Torch) and facts.torch.cuda:
        return facts.torch.cuda
    number = serving(facts).cuda
    if number is not None:
        return cuda.decode(number)
    known = cuda.toolkits()
    return known[0].cuda if known else None


def _install(facts: Facts, version: str | None = None) -> Fix:
    wanted = version or _wanted(facts)
    if wanted is None:
        return Fix("cuda-toolkit#install")
    return Fix("cuda-toolkit#install", (("CUDA_PACKAGE", f"cuda-toolkit-{wanted.replace('.', '-')}"), ("CUDA", wanted)))


def _other_major(facts: Facts, taken: Toolkit) -> Finding | None:
    torch = facts.torch
    if not isinstance(torch, Torch) or torch.cuda is None or isinstance(taken.version, Unknown):
        return None
    major = torch.cuda.partition(".")[0]
    if taken.version.partition(".")[0] == major:
        return None
    toolkits = () if isinstance(facts.toolkits, Unknown) else facts.toolkits
    fitting = next((t for t in toolkits if isinstance(t.version, str) and t.version.partition(".")[0] == major and t.nvcc), None)
    there = f" {fitting.path} has CUDA {fitting.version}, which fits: set CUDA_HOME to it for the build." if fitting else ""
    return Finding(
        code="nvcc-torch-version-mismatch",
        severity="fail",
        summary=f"nvcc {taken.version} at {taken.path} does not fit PyTorch {torch.version}, which is built with CUDA {torch.cuda}",
        cause=(
            "PyTorch's extension builder refuses another CUDA major than its own. Toolkits live side by side: nothing has "
            f"to be removed.{there}"
        ),
        evidence=(
            Evidence(f"{taken.nvcc} --version", str(taken.full_version)),
            Evidence(f"{torch.path}/version.py", f"cuda = {torch.cuda!r}"),
        ),
        fix=Fix("cuda-toolkit#choose-toolkit") if fitting else _install(facts),
        stands_alone=True,
    )


def _compiler(facts: Facts, taken: Toolkit) -> Finding | None:
    tools = facts.build_tools
    if not isinstance(tools, BuildTools) or not isinstance(tools.gcc_version, str) or isinstance(taken.gcc_max, Unknown):
        return None
    major = tools.gcc_version.partition(".")[0]
    if not major.isdigit() or int(major) <= taken.gcc_max:
        return None
    return Finding(
        code="host-compiler-unsupported",
        severity="fail",
        summary=f"gcc {tools.gcc_version} is newer than nvcc {_version(taken)} accepts (up to {taken.gcc_max})",
        cause=(
            'nvcc stops with "unsupported GNU version". An older gcc beside the present one cures it; '
            "-allow-unsupported-compiler only silences the message."
        ),
        evidence=(
            Evidence(f"{tools.gcc} --version", tools.gcc_version),
            Evidence(f"{taken.path}/include/crt/host_config.h", f"gcc later than {taken.gcc_max} is not supported"),
        ),
        fix=Fix("cuda-toolkit#host-compiler", (("GCC", f"gcc-{taken.gcc_max}"),)),
        stands_alone=True,
    )


def _architecture(facts: Facts, taken: Toolkit) -> Finding | None:
    if isinstance(taken.version, Unknown):
        return None
    for capability in capabilities(facts):
        row = drivers.architecture(drivers.architecture_of(capability))
        if row is None:
            continue
        first = version_key(row.first_cuda.removeprefix("CUDA").strip())
        have = version_key(taken.version)
        dropped = row.last_cuda_major is not None and have[:1] > (row.last_cuda_major,)
        if have >= first and not dropped:
            continue
        needs = f"CUDA {row.last_cuda_major} at most" if dropped else f"CUDA {row.first_cuda.removeprefix('CUDA').strip()} or later"
        return Finding(
            code="nvcc-arch-unsupported",
            severity="fail",
            summary=f"nvcc {taken.version} cannot compile for compute capability {capability} ({row.name}), which needs {needs}",
            cause=(
                'nvcc stops with "Unsupported gpu architecture". Another toolkit beside this one knows the GPU; PyTorch '
                "itself is not concerned."
            ),
            evidence=(
                Evidence(f"{taken.nvcc} --version", str(taken.full_version)),
                Evidence("GPU", f"compute capability {capability}"),
            ),
            fix=_install(facts),
            stands_alone=True,
        )
    return None


def _several(toolkits: tuple[Toolkit, ...], taken: Toolkit) -> tuple[Finding, ...]:
    versions = {toolkit.version for toolkit in toolkits if isinstance(toolkit.version, str)}
    if len(versions) < 2:
        return ()
    return (
        Finding(
            code="multi-cuda",
            severity="note",
            summary=f"{len(toolkits)} CUDA toolkits; {taken.path} is the one that builds",
            cause=(
                "That is normal and harms nothing that runs. CUDA_HOME decides which one a build takes, then nvcc on PATH, "
                "then /usr/local/cuda."
            ),
            evidence=tuple(Evidence(", ".join(t.found_by), f"{_version(t)} at {t.path}") for t in toolkits),
            fix=Fix("cuda-toolkit#choose-toolkit"),
        ),
    )


def _damaged(toolkit: Toolkit) -> Finding:
    return Finding(
        code="toolkit-damaged",
        severity="warn",
        summary=f"The CUDA toolkit at {toolkit.path} is damaged: {toolkit.problem}",
        cause=(
            "Builds that take this toolkit may fail with messages that point elsewhere. PyTorch does not use it and runs "
            "all the same."
        ),
        evidence=(Evidence(toolkit.path, toolkit.problem or ""),),
        fix=Fix("cuda-toolkit#repair"),
    )


CHECK = Check(
    name="cuda_toolkit",
    title="CUDA toolkit",
    needs=(),
    codes=listed_codes(__doc__),
    judge=judge,
)
