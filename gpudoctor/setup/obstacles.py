"""Why setup does not carry out a section itself: where it has to be done, what it takes, whom it disturbs."""

from __future__ import annotations

from dataclasses import dataclass

from gpudoctor.steps import Section, Step

ELSEWHERE = {
    "image": "it belongs into the image that this container is made from",
    "host": "it is done on the host, outside this container",
    "windows": "it is done in Windows, not inside WSL",
    "hypervisor": "it is done on the hypervisor that runs this virtual machine",
    "administrator": "it is for the administrator of this machine; setup --dry-run --format markdown writes them a ticket",
    "code": "it is done in your own code or command line",
}


@dataclass(frozen=True, slots=True)
class Person:
    """Who is there while setup runs."""

    attended: bool
    """Somebody answers questions at a terminal; False under --yes."""
    may_be_root: bool | None
    """Root itself, or may use sudo; None where nobody knows."""
    unnamed_environment: bool = False
    """Another root is meant, and no Python was named: whatever Python runs here is not that system's."""
    borrowed_root: bool = False
    """Setup itself was started with sudo: what it puts into a person's environment would belong to root."""


def obstacle(section: Section, step: Step, person: Person) -> str | None:
    """What keeps setup from running the section, as a clause; None when nothing does."""
    if step.where in ELSEWHERE:
        return ELSEWHERE[step.where]
    allowed = section.fields.get("setup", "")
    if not step.commands or not allowed:
        return "it is done by hand" if step.commands else "no command does it"
    if step.needs_root and person.may_be_root is False:
        return (
            "it needs root, and this user may not use sudo: setup --dry-run --format markdown writes a ticket for an administrator"
        )
    if step.where == "environment" and person.unnamed_environment:
        return "with --root the Python that is meant has to be named: --python"
    if step.where == "environment" and person.borrowed_root:
        return "the environment's files would belong to root: run setup without sudo, it asks for root where a step needs it"
    if allowed.startswith("asks") and not person.attended:
        return f"a person has to be there: {allowed.partition(':')[2].strip() or 'it disturbs others'}"
    return None
