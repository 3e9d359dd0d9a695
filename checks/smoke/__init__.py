"""Smoke test: the machine generates tokens, the right ones, the same ones again, as fast as its memory allows.

Everything else that is checked is a reason to expect that a model will run; this is the proof. It runs the Llama
architecture in the target interpreter, with a checkpoint or with random weights of a known shape. Which fault stopped a
test is judged by the check of the layer that it belongs to: memory by VRAM, missing libraries and code by PyTorch, NCCL by
NCCL. This check names what is left.

It did not come through:

* ``smoke-hangs``: it fell silent in one of its phases.
* ``smoke-killed``: somebody ended it from outside.
* ``smoke-crashes``: a signal of its own ended it.
* ``host-memory-too-small``: the machine's own memory, or what a container or job may use of it, is too small.
* ``gpu-fault``: a kernel failed while it ran.
* ``device-side-assert-index``: a token id that the model's vocabulary does not have.
* ``tensors-on-different-devices``: an operation got tensors of two devices.
* ``half-not-supported-on-cpu``: 16-bit numbers on a CPU whose PyTorch has no code for them.
* ``bf16-unsupported-gpu``: bfloat16 on a GPU before Ampere.
* ``invalid-device-ordinal``: more processes than GPUs.
* ``rendezvous-port-in-use``: the port at which processes meet is taken.
* ``checkpoint-package-missing``: a Python package reads this checkpoint, and is not installed.
* ``smoke-fails``: an error that none of the known texts explains.

In how a program is run, told by its text:

* ``checkpoint-missing``: the files are not at the path.
* ``model-parallel-mismatch``: another number of processes than the checkpoint has parts.
* ``command-line-malformed``: a line was cut, and options got lost.
* ``file-is-lfs-pointer-or-truncated``: a file that is no whole checkpoint.
* ``gated-repo-unauthorized``: the model is given out only to those whom its owner admitted.
* ``weights-only-unpickling``: torch.load refuses to build an object of an unknown class.
* ``flash-attention-gpu-too-old``: FlashAttention 2 on a GPU before Ampere.
* ``cuda-fork-reinit``: CUDA was used before worker processes were forked.

It came through, and what it computed is wrong:

* ``logits-not-finite``: NaN or infinity where there should be numbers.
* ``cpu-gpu-disagree``: CPU and GPU compute different things from the same weights.
* ``all-reduce-wrong``: a sum over several processes is not the sum.
* ``generation-not-repeatable``: two greedy runs gave different tokens (a warning).

It is right, and slow:

* ``decode-slow``: decoding uses less than 0.4 of the bandwidth that the same run measured.
* ``memory-bandwidth-low``: that bandwidth is less than 0.6 of what the card should have.

It took other memory than was counted:

* ``memory-not-as-predicted``: the peak on the GPU is more than 3 % (and 64 MiB) off.
"""

from __future__ import annotations

from gpudoctor.facts import Facts, Skipped, Smoke, Unknown
from gpudoctor.findings import Check, Finding, Verdict, listed_codes

from ..driver import hardware
from ..driver.machine import machine_of
from ..ending import ending
from . import deaths, memory, proofs, speed


def judge(facts: Facts, required: bool) -> Verdict:  # noqa: ARG001 - the signature of every check
    """What the smoke test proved, or why it did not come through."""
    smoke = facts.smoke
    if isinstance(smoke, Skipped):
        return Verdict(f"not run: {smoke.reason}", skipped=True)
    if isinstance(smoke, Unknown):
        return Verdict(f"unknown: {smoke.why}", unknown=(f"whether this machine generates tokens: {smoke.why}",))
    end = ending(facts)
    if end is not None and end.kind != "proof":
        return _failed(facts, (deaths.finding(facts, end),))
    wrong = proofs.findings(facts, smoke)
    faults = tuple(finding for finding in wrong if finding.severity == "fail")
    if faults:
        return _failed(facts, faults)
    other = memory.finding(smoke)
    findings = (*wrong, *speed.findings(facts, smoke), *((other,) if other is not None else ()))
    return Verdict(_summary(facts, smoke), findings, proven=True)


def _failed(facts: Facts, faults: tuple[Finding, ...]) -> Verdict:
    """A card that is known to be defective explains what such a card does: one fault, which the driver's check names."""
    sick = [finding.code for finding in hardware.findings(machine_of(facts)) if finding.severity == "fail"]
    if not sick or not faults[0].fix.step.startswith("hardware#"):
        return Verdict(faults[0].summary, faults)
    return Verdict(f"{faults[0].summary}: {sick[0]} explains that", unknown=(f"whether it is right once {sick[0]} is cured",))


def _summary(facts: Facts, smoke: Smoke) -> str:
    """As 32 tokens at 61 tok/s, 78 % of this card's memory bandwidth, peak 12.9 GiB; with what they were made of."""
    rate = "" if smoke.tokens_per_second is None else f" at {speed.figure(smoke.tokens_per_second)} tok/s"
    where = " on the CPU" if smoke.device == "cpu" else f" on {smoke.processes} GPUs" if smoke.processes > 1 else ""
    made = f"{smoke.new_tokens} token{'' if smoke.new_tokens == 1 else 's'}{rate}{where}"
    parts = [made, speed.share_in_words(facts), memory.in_words(smoke)]
    model = f"{smoke.checkpoint} with random weights" if smoke.weights == "random" else smoke.checkpoint
    return f"{', '.join(part for part in parts if part)}; {model}"


CHECK = Check(
    name="smoke",
    title="smoke test",
    needs=("driver", "pytorch", "cudnn", "nccl", "vram"),
    codes=listed_codes(__doc__),
    judge=judge,
)
