"""Tensors gathered into groups: so many of one role and one kind, so many weights, so many bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from gpudoctor.checkpoint import packed, roles
from gpudoctor.checkpoint.found import NotACheckpoint, Stored
from gpudoctor.contents import Group

_MATRIX = (2, 2)  # the shape that a packed matrix is judged by; its own says little


def role_of(name: str, tensors: Mapping[str, Stored]) -> str:
    """The role of a tensor, a quantiser's scales having that of their matrix."""
    matrix = packed.matrix_of(name, tensors)
    return roles.role(name, tensors[name].shape) if matrix is None else roles.role(matrix, _MATRIX)


def distinct(tensors: Mapping[str, Stored], *, tied: bool) -> dict[str, Stored]:
    """The tensors without those that are another one under a second name: the same stretch of a file; with ``tied``, the head."""
    embeddings = {name for name, stored in tensors.items() if roles.role(name, stored.shape) == "embedding"}
    widths = {tensors[name].shape for name in embeddings}
    seen: set[tuple[str, int, int]] = set()
    kept: dict[str, Stored] = {}
    for name in sorted(tensors, key=lambda name: name not in embeddings):
        stored = tensors[name]
        place = (stored.file, stored.offset, stored.size)
        twin = tied and stored.shape in widths and roles.role(name, stored.shape) == "head"
        if not twin and (place not in seen or stored.size == 0):
            kept[name] = stored
            seen.add(place)
    return kept


def groups(tensors: Mapping[str, Stored], where: str, *, bits: float | None = None) -> tuple[Group, ...]:
    """All tensors, counted; ``bits`` is what the checkpoint says of its packed weights. Raises NotACheckpoint."""
    count: Counter[tuple[str, str]] = Counter()
    weights: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for name, stored in tensors.items():
        key = (role_of(name, tensors), stored.kind)
        count[key] += 1
        weights[key] += 0 if roles.buffer(name, stored.shape) else packed.weights(name, tensors, bits)
        sizes[key] += stored.size
    found = tuple(Group(*key, count[key], weights[key], sizes[key]) for key in sorted(count))
    if not any(group.parameters for group in found):
        raise NotACheckpoint(f"{where} holds no weights: there is no tensor in it")
    return found


def commonest(found: Sequence[Group]) -> str:
    """The kind that most bytes of the matrices have; of all tensors, where there are no matrices."""
    matrices = [group for group in found if group.role != "other"] or found
    sizes: Counter[str] = Counter()
    for group in matrices:
        sizes[group.kind] += group.size
    return sizes.most_common(1)[0][0]


def total(found: Iterable[Group]) -> tuple[int, int]:
    """(weights, bytes) of all groups."""
    several = tuple(found)
    return sum(group.parameters for group in several), sum(group.size for group in several)
