"""How fast the smoke test decoded, against what the memory can deliver.

Decoding one sequence reads every weight once a token, so that memory bandwidth is its limit (a roofline model). A model that
is small against a GPU's caches and the time of a kernel launch says nothing of that.
"""

from __future__ import annotations

from gpudoctor.facts import Facts, Gpu, Smoke, Unknown
from gpudoctor.findings import Evidence, Finding, Fix
from gpudoctor.roofline import share_of_bandwidth, theoretical
from gpudoctor.visible import visible

from ..words import listing

LEAST_READ = 1 << 30
"""Bytes a token below which launches, not memory, bound decoding."""
SLOW_DECODE, LOW_BANDWIDTH = 0.4, 0.6
_THROTTLED = {
    "sw-thermal": "it is hot (hardware#cooling)",
    "hw-thermal": "it is hot (hardware#cooling)",
    "power-brake": "its power is being held back (hardware#power-supply)",
    "hw-slowdown": "its power is being held back (hardware#power-supply)",
    "power-cap": "it works at its power limit (hardware#power-limit)",
}
FOREIGN = "transformers"
"""A loop that is not ours: how long it takes between kernels says nothing of the machine."""
_VIRTUAL = ("vgpu", "host-vgpu", "host-vsga")


def findings(facts: Facts, smoke: Smoke) -> tuple[Finding, ...]:
    """Memory that is slower than the card's should be explains slow decoding: one of the two is named."""
    if smoke.device != "cuda":
        return ()
    found = _low_bandwidth(facts, smoke) or _slow_decode(facts, smoke)
    return (found,) if found is not None else ()


def share_in_words(facts: Facts) -> str:
    """Such as: 78 % of this card's memory bandwidth; empty where it means nothing."""
    share = share_of_bandwidth(facts)
    if share is None:
        return ""
    return f"{percent(share.fraction)} of {share.whole}"


def percent(fraction: float) -> str:
    """Such as: 78 %."""
    return f"{fraction * 100:.0f} %"


def figure(number: float) -> str:
    """Three figures that mean something: 1234, 61.2, 0.85."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _slow_decode(facts: Facts, smoke: Smoke) -> Finding | None:
    rate, read, bandwidth = smoke.tokens_per_second, smoke.bytes_per_token, smoke.bandwidth
    if not rate or not read or not bandwidth or read < LEAST_READ or smoke.processes > 1 or smoke.format == FOREIGN:
        return None
    fraction = rate * read / bandwidth
    if fraction >= SLOW_DECODE:
        return None
    seen = _seen(facts, smoke)
    causes = f"Seen here: {listing(seen)}." if seen else "Nothing of the kind was seen from here before the test."
    return Finding(
        code="decode-slow",
        severity="warn",
        summary=f"Decoding runs at {figure(rate)} tok/s, {percent(fraction)} of what this card's memory could feed",
        cause=(
            "The memory itself was fast in the same run, so something keeps the GPU waiting between kernels: a slow or busy "
            "processor, other work on the GPU, clocks that are held down, debugging variables. "
            f"{causes} Results are right, only late."
        ),
        evidence=(
            Evidence("smoke test", f"{figure(rate)} tok/s x {read / 1e9:.1f} GB read per token = {rate * read / 1e9:.0f} GB/s"),
            Evidence("smoke test, device copy", f"{bandwidth / 1e9:.0f} GB/s"),
        ),
        fix=Fix("smoke#find-what-slows-decoding"),
    )


def _low_bandwidth(facts: Facts, smoke: Smoke) -> Finding | None:
    gpu = _gpu(facts, smoke)
    if not smoke.bandwidth or not smoke.device_name or gpu is None or gpu.mig is True or gpu.virtualization in _VIRTUAL:
        return None  # part of a card has part of its bandwidth
    whole = theoretical(facts, smoke.device_name)
    if not whole:
        return None
    fraction = smoke.bandwidth / whole
    if fraction >= LOW_BANDWIDTH:
        return None
    seen = _seen(facts, smoke)
    causes = f"Seen here: {listing(seen)}." if seen else "None of these was seen before the test, when the card was idle."
    return Finding(
        code="memory-bandwidth-low",
        severity="warn",
        summary=(
            f"{smoke.device_name} copies {smoke.bandwidth / 1e9:.0f} GB/s in its own memory, {percent(fraction)} of the "
            f"{whole / 1e9:.0f} that it is made for"
        ),
        cause=(
            "A copy within the card needs neither the processor nor the bus; 75 to 95 % is usual. Memory clocks that are held down "
            "by heat, power or a setting, or another process on the card, halve it. "
            f"{causes} Tokens come as much slower; they are right."
        ),
        evidence=(Evidence("smoke test, device copy", f"{smoke.bandwidth / 1e9:.0f} GB/s"), *_clocks(gpu)),
        fix=Fix("hardware#slow-memory", (("GPU", str(gpu.index)),)),
    )


def _gpu(facts: Facts, smoke: Smoke) -> Gpu | None:
    seen = visible(facts)
    if isinstance(seen, Unknown):
        return None
    return next((gpu for gpu in seen.gpus if gpu.name == smoke.device_name), next(iter(seen.gpus), None))


def _seen(facts: Facts, smoke: Smoke) -> tuple[str, ...]:
    """The likely causes that the facts show, each as a clause."""
    gpu = _gpu(facts, smoke)
    if gpu is None:
        return ()
    throttle = () if isinstance(gpu.throttle, Unknown) else gpu.throttle
    found = [_THROTTLED[reason] for reason in throttle if reason in _THROTTLED]
    if isinstance(gpu.processes, tuple) and any(process.kind == "compute" for process in gpu.processes):
        found.append("other processes compute on it")
    if isinstance(gpu.utilization, int) and gpu.utilization > 50:
        found.append(f"it was {gpu.utilization} % busy before the test")
    if facts.variable("CUDA_LAUNCH_BLOCKING") not in (None, "", "0"):
        found.append("CUDA_LAUNCH_BLOCKING makes every launch wait")
    return tuple(dict.fromkeys(found))


def _clocks(gpu: Gpu) -> tuple[Evidence, ...]:
    words = [] if isinstance(gpu.throttle, Unknown) else [f"clock event reasons: {', '.join(gpu.throttle) or 'none'}"]
    if isinstance(gpu.power_limit, int):
        words.append(f"power limit {gpu.power_limit / 1000:.0f} W")
    return (Evidence(f"NVML, GPU {gpu.index}", "; ".join(words)),) if words else ()
