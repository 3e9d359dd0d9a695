"""gcc and Python.h: what compiles extensions, and what Triton, torch.compile and vLLM need at run time."""

from __future__ import annotations

import re

from gpudoctor.facts import BuildTools, Unknown
from gpudoctor.probes import child, interpreter, links
from gpudoctor.probes.scope import Scope

_VERSION = re.compile(r"\b(\d+\.\d+\.\d+)\b")


def look(scope: Scope) -> BuildTools:
    """The C compiler that an extension build would take ($CC, else gcc, else cc), and the target's Python.h."""
    compiler = _compiler(scope)
    return BuildTools(
        gcc=compiler,
        gcc_version=None if compiler is None else _version(scope, compiler),
        python_header=_python_header(scope),
    )


def _compiler(scope: Scope) -> str | None:
    named = (scope.environ.get("CC") or "").split()
    for program in (*named[:1], "gcc", "cc"):
        found = scope.which(program)
        if found is not None:
            return found
    return None


def _version(scope: Scope, compiler: str) -> str | None | Unknown:
    """major.minor.patch of its banner's first line; the package's own version in parentheses is passed over."""
    try:
        answer = scope.run(compiler, "--version")
    except child.NotStarted as error:
        return Unknown(str(error))
    if answer.hung:
        return Unknown(f"{compiler} --version gave no answer in time")
    banner = re.sub(r"\([^)]*\)", "", answer.stdout.partition("\n")[0])
    match = _VERSION.search(banner)
    return match.group(1) if match else Unknown(f"{compiler} --version told no version")


def _python_header(scope: Scope) -> bool | Unknown:
    answer = interpreter.answer_of(scope)
    if isinstance(answer, interpreter.Silent):
        return Unknown(answer.why)
    if answer.include is None:
        return Unknown("the interpreter does not say where its headers belong")
    return links.exists(interpreter.here(scope), f"{answer.include}/Python.h")
