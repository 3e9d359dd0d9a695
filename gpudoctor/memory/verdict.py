"""Whether it fits: three answers, since the last few hundred megabytes cannot be counted beforehand."""

from __future__ import annotations

from typing import Literal

from gpudoctor.memory.need import Need

Answer = Literal["fits", "tight", "no"]


def verdict(need: Need, free: int) -> Answer:
    """fits: even with the largest context and what the allocator wastes. no: not even with the smallest. tight: in between."""
    if need.least > free:
        return "no"
    return "fits" if need.most <= free else "tight"
