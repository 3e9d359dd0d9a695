"""The CUDA version that counts: cuDriverGetVersion of the libcuda.so.1 that the target interpreter would load.

It is not always the driver's own: cuda-compat on LD_LIBRARY_PATH or in ld.so.conf changes it. The question is asked in a
child of the target interpreter, whose search path decides. Only the version is asked for, never cuInit: no context is made
and no GPU woken.
"""

from __future__ import annotations

import json
import sys

from gpudoctor.codec import Json, NotOurs, from_json
from gpudoctor.facts import CudaDriver, Unknown
from gpudoctor.probes import child
from gpudoctor.probes.scope import COMMAND_DEADLINE, Scope

# Runs in the user's interpreter: Python 3.8, standard library only. The last "call" it wrote is the one it hangs or dies in.
CHILD = r"""
import ctypes, json, os

def say(**event):
    os.write(int(os.environ["GPUDOCTOR_REPORT_FD"]), (json.dumps(event) + "\n").encode("ascii"))

def mapped():
    with open("/proc/self/maps", "rb") as stream:
        for line in stream.read().decode("utf-8", "replace").splitlines():
            path = line.partition("/")[2]
            if path.rpartition("/")[2].startswith("libcuda.so"):
                return "/" + path

def ask():
    say(call="the loading of libcuda.so.1")
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"error": str(error)}
    say(path=mapped(), call="cuDriverGetVersion")
    version = ctypes.c_int()
    try:
        code = library.cuDriverGetVersion(ctypes.byref(version))
    except AttributeError as error:
        return {"error": str(error)}
    return {"version": version.value} if code == 0 else {"error": "cuDriverGetVersion failed with error %d" % code}

say(call=None, **ask())
os._exit(0)
"""


def look(scope: Scope) -> CudaDriver | Unknown:
    """Ask the target interpreter (the doctor's own where there is no target); Unknown when it could not be asked at all."""
    python = scope.python or sys.executable
    deadline = scope.within(COMMAND_DEADLINE)
    try:
        answer = child.run([python, "-I", "-S", "-B", "-c", CHILD], deadline=deadline, env=scope.environ, report=True)
    except child.NotStarted as error:
        return Unknown(str(error))
    heard = _heard(answer.report)
    if not heard:
        return Unknown(f"{python}: {_last_words(answer, deadline)}")
    problem = heard.get("error")
    if heard.get("call") is not None:
        ending = f"no answer within {deadline:g} s" if answer.hung else answer.signal or f"exit code {answer.exit_code}"
        problem = f"{ending} in {heard['call']}"
    try:
        return from_json(CudaDriver, {"path": heard.get("path"), "version": heard.get("version"), "error": problem})
    except NotOurs as mismatch:
        return Unknown(f"{python} gave an answer that makes no sense: {mismatch}")


def _heard(report: str) -> dict[str, Json]:
    """The latest value of every key; a torn last line is left out."""
    heard: dict[str, Json] = {}
    for line in report.splitlines():
        try:
            heard.update(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            continue
    return heard


def _last_words(answer: child.Answer, deadline: float) -> str:
    if answer.hung:
        return f"no answer within {deadline:g} s"
    lines = answer.stderr.strip().splitlines()
    return lines[-1] if lines else answer.signal or f"exit code {answer.exit_code} without a word"
