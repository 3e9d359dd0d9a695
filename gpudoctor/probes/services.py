"""The systemd units that the driver and containers depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpudoctor.facts import Service, Unknown
from gpudoctor.probes import links
from gpudoctor.probes.child import NotStarted

if TYPE_CHECKING:
    from gpudoctor.probes.scope import Scope

UNITS = ("nvidia-persistenced", "nvidia-fabricmanager", "nvidia-imex", "docker")
_STATES = frozenset({"active", "inactive", "failed", "activating", "deactivating", "reloading", "maintenance"})


def look(scope: Scope) -> tuple[Service, ...] | Unknown:
    """Every unit of UNITS, installed or not, asked in one call; Unknown where systemd does not run."""
    program = scope.which("systemctl")
    if program is None:
        return Unknown("there is no systemctl")
    if scope.live and not links.exists(scope, "/run/systemd/system"):
        return Unknown("systemd does not run here")
    units = [f"{unit}.service" for unit in UNITS]
    try:
        answer = scope.run(program, "show", "--no-pager", "--property=Id,LoadState,ActiveState", *units)
    except NotStarted as error:
        return Unknown(f"systemctl could not be started: {error}")
    if answer.hung:
        return Unknown("systemctl gave no answer in time")
    blocks = [_block(text) for text in answer.stdout.split("\n\n") if "LoadState=" in text]
    if not blocks:
        said = (answer.stderr.strip().splitlines() or ["nothing"])[-1]
        return Unknown(f"systemctl said: {said[:160]}")
    # an alias answers under its target's name, so that the order of the answers counts and not their Id
    return tuple(_service(unit, block) for unit, block in zip(UNITS, blocks, strict=False))


def _block(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition("=") for line in text.splitlines())}


def _service(unit: str, block: dict[str, str]) -> Service:
    state = block.get("ActiveState", "")
    return Service(
        unit=unit,
        installed=block.get("LoadState") not in ("not-found", "", None),
        active=state if state in _STATES else Unknown("systemctl named no state"),
    )
