"""A walk through the pickle of a state dict that calls nothing and imports nothing.

A pickle is a program for a small stack machine (CPython's ``pickletools`` documents it). This machine knows only what
``torch.save`` writes for a dict of tensors: strings, numbers, tuples, lists, dicts, and the few names below, which become notes
of what was meant. Any other name ends the walk before anything has happened: that is how a pickle would run a program.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from gpudoctor.checkpoint.found import NotACheckpoint

STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
_TENSOR, _PARAMETER, _DICT = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "collections.OrderedDict"
_OLD_TENSOR = "torch._utils._rebuild_tensor"  # until version 0.3, with fewer arguments
_ALLOWED = {_TENSOR, _OLD_TENSOR, _PARAMETER, _DICT, *(f"torch.{name}" for name in STORAGES)}
_MOST_STEPS = 1 << 20  # a tensor takes about thirty
_DEEPEST = 1 << 16


@dataclass(frozen=True, slots=True)
class Name:
    """A name that the pickle wants imported, from the list of those that a state dict needs."""

    path: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers of one kind, kept in the archive under ``key``."""

    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def contiguous(self) -> bool:
        """Row-major without gaps, so that it is one stretch of the file."""
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size != 1 and stride != step:
                return False
            step *= size
        return True


def tensors(data: bytes, where: str) -> dict[str, Tensor]:
    """The tensors of a pickled state dict by their names; ``where`` is named in NotACheckpoint."""
    return state(values(data, where, 1).values[0], where)


def state(value: object, where: str) -> dict[str, Tensor]:
    """The tensors in what a pickle built."""
    if not isinstance(value, dict):
        raise NotACheckpoint(f"{where} holds no state dict")
    return {key: item for key, item in value.items() if isinstance(key, str) and isinstance(item, Tensor)}


@dataclass(frozen=True, slots=True)
class Walked:
    """Pickles that stand one after the other: what each builds, where the last one ends, the kind of each storage they name."""

    values: tuple[object, ...]
    end: int
    storages: dict[str, str]


def values(data: bytes, where: str, count: int) -> Walked:
    """What ``count`` pickles build; ``where`` is named in NotACheckpoint."""
    end, steps, storages = 0, 0, dict[str, str]()
    found: list[object] = []
    try:
        for _ in range(count):
            machine = _Machine(data, where, end, storages, steps)
            found.append(machine.run())
            end, steps = machine.at, machine.steps
    except (struct.error, IndexError, KeyError, UnicodeDecodeError, TypeError):
        raise NotACheckpoint(f"{where} holds a damaged pickle, or none of a state dict") from None
    return Walked(tuple(found), end, storages)


class _Machine:
    """The stack machine; each opcode is a byte and its argument."""

    def __init__(self, data: bytes, where: str, at: int, storages: dict[str, str], steps: int) -> None:
        self.data, self.where, self.at = data, where, at
        self.storages, self.steps = storages, steps
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        """What the pickle builds."""
        while self.steps < _MOST_STEPS:
            self.steps += 1
            code = self.take(1)
            if code == b".":
                return self.stack[-1]
            if code in _PUSH:
                self.stack.append(_PUSH[code](self))
            elif code in _ACT:
                _ACT[code](self)
            else:
                raise NotACheckpoint(
                    f"{self.where} is no state dict of tensors: its pickle has the opcode {code!r}; it was not opened"
                )
            if len(self.stack) > _DEEPEST:
                break
        raise NotACheckpoint(f"{self.where} holds a pickle that is far larger than a state dict needs")

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes of the program."""
        if count < 0 or self.at + count > len(self.data):
            raise IndexError
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> int:
        """The next number, in ``struct``'s notation."""
        (value,) = struct.unpack("<" + form, self.take(struct.calcsize(form)))
        return int(value)

    def line(self) -> str:
        """The next text up to a line's end."""
        end = self.data.find(b"\n", self.at, self.at + 1000)
        text = self.take(end - self.at).decode()  # where there is no end, this is a negative count
        self.at += 1
        return text

    def string(self, form: str) -> str:
        """The next text, after its length."""
        return self.take(self.number(form)).decode("utf-8", "surrogatepass")

    def name(self, module: str, qualified: str) -> Name:
        """A name, if it is one of those allowed: this is the one place where a pickle reaches outside itself."""
        path = f"{module}.{qualified}"
        if path not in _ALLOWED:
            raise NotACheckpoint(f"{self.where} wants to run {path}, which no state dict of tensors needs: it was not opened")
        return Name(path)

    def since_mark(self) -> list[object]:
        """What was put on the stack since the last mark; taken off."""
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def pop(self, count: int) -> tuple[object, ...]:
        """The last ``count`` values, in their order; taken off."""
        if count > len(self.stack) - (self.marks[-1] if self.marks else 0):
            raise IndexError
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return items

    def stacked_name(self) -> Name:
        """A name whose two parts are on the stack."""
        module, qualified = self.pop(2)
        if not isinstance(module, str) or not isinstance(qualified, str):
            raise TypeError
        return self.name(module, qualified)

    def called_name(self) -> None:
        """A name that is to be called at once: no state dict has it."""
        self.name(self.line(), self.line())
        raise TypeError

    def remember(self, key: int) -> None:
        """Note the top of the stack, to be put there again by ``key``."""
        self.memo[key] = self.stack[-1]

    def put_all(self, items: list[object]) -> None:
        """Add keys and values, alternating, to the dict on top."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise TypeError  # a tuple of tuples of tuples could take for ever to hash
            target[key] = value

    def add_all(self, items: list[object]) -> None:
        """Add values to the list on top."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError
        target.extend(items)

    def build(self) -> None:
        """Attributes of an OrderedDict (``_metadata``, which ``state_dict()`` leaves there): of no interest."""
        target, _ = self.pop(2)
        if not isinstance(target, dict):
            raise TypeError
        self.stack.append(target)

    def storage(self) -> Storage:
        """What a persistent id names: ("storage", its class, its key in the archive, a device, how many numbers).

        Before version 1.6, also what it is a view of: of nothing, or this is a file that is not read.
        """
        (identity,) = self.pop(1)
        if not isinstance(identity, tuple) or len(identity) not in {5, 6} or (len(identity) == 6 and identity[5] is not None):
            raise TypeError
        word, kind, key, *_ = identity
        if word != "storage" or not isinstance(kind, Name) or not isinstance(key, str):
            raise TypeError
        found = Storage(STORAGES[kind.path.removeprefix("torch.")], key)
        if self.storages.setdefault(key, found.kind) != found.kind:
            raise TypeError
        return found

    def reduce(self) -> object:
        """What a call would have made, for the names that a state dict calls."""
        name, arguments = self.pop(2)
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise TypeError
        if name.path == _DICT and not arguments:
            return {}
        if name.path == _PARAMETER and isinstance(arguments[0], Tensor):
            return arguments[0]
        if name.path in {_TENSOR, _OLD_TENSOR}:
            return _tensor(arguments)
        raise TypeError


def _tensor(arguments: tuple[object, ...]) -> Tensor:
    if len(arguments) < 4:
        raise TypeError
    storage, offset, shape, stride = arguments[:4]
    if (
        not isinstance(storage, Storage)
        or not isinstance(shape, tuple)
        or not isinstance(stride, tuple)
        or not len(shape) == len(stride) <= 8
    ):
        raise TypeError
    sizes = (_count(offset), *(_count(value) for value in shape), *(_count(value) for value in stride))
    return Tensor(storage, sizes[0], sizes[1 : 1 + len(shape)], sizes[1 + len(shape) :])


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise TypeError
    return value


def _long(machine: _Machine) -> int:
    return int.from_bytes(machine.take(machine.number("B")), "little", signed=True)


def _mark(machine: _Machine) -> None:
    machine.marks.append(len(machine.stack))


_PUSH: dict[bytes, Callable[[_Machine], object]] = {
    b"N": lambda _: None,
    b"\x88": lambda _: True,
    b"\x89": lambda _: False,
    b"J": lambda m: m.number("i"),
    b"K": lambda m: m.number("B"),
    b"M": lambda m: m.number("H"),
    b"\x8a": _long,
    b"G": lambda m: struct.unpack(">d", m.take(8))[0],
    b"X": lambda m: m.string("I"),
    b"\x8c": lambda m: m.string("B"),
    b"U": lambda m: m.string("B"),
    b"}": lambda _: {},
    b"]": lambda _: [],
    b")": lambda _: (),
    b"t": lambda m: tuple(m.since_mark()),
    b"\x85": lambda m: m.pop(1),
    b"\x86": lambda m: m.pop(2),
    b"\x87": lambda m: m.pop(3),
    b"h": lambda m: m.memo[m.number("B")],
    b"j": lambda m: m.memo[m.number("I")],
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": lambda m: m.stacked_name(),
    b"Q": lambda m: m.storage(),
    b"R": lambda m: m.reduce(),
}
"""Opcodes that put a value on the stack."""

_ACT: dict[bytes, Callable[[_Machine], object]] = {
    b"\x80": lambda m: m.take(1),  # the protocol's number
    b"\x95": lambda m: m.take(8),  # the length of a frame
    b"(": _mark,
    b"0": lambda m: m.pop(1),
    b"q": lambda m: m.remember(m.number("B")),
    b"r": lambda m: m.remember(m.number("I")),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"s": lambda m: m.put_all(list(m.pop(2))),
    b"u": lambda m: m.put_all(m.since_mark()),
    b"a": lambda m: m.add_all(list(m.pop(1))),
    b"e": lambda m: m.add_all(m.since_mark()),
    b"b": lambda m: m.build(),
    b"i": lambda m: m.called_name(),
}
"""Opcodes that change what is there."""
