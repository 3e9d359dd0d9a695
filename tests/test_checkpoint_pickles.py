"""A pickle is a program: what its walk lets pass, and that nothing of it ever runs."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import pytest

from gpudoctor import checkpoint
from gpudoctor.checkpoint import NotACheckpoint, pickles, pth
from tests.checkpoints import TINY, pickled_tensor, seeded, text, write_meta, write_zip
from tests.checkpoints import pth as members

TENSOR = pickled_tensor("0", "F32", (2, 3))


def walk(program: bytes) -> dict[str, pickles.Tensor]:
    return pickles.tensors(program, "x.pth")


def folder_with(folder: Path, program: bytes) -> Path:
    """A Meta folder whose one file holds this pickle."""
    write_meta(folder, TINY, seeded(TINY))
    write_zip(folder / "consolidated.00.pth", {"x/data.pkl": program, "x/byteorder": b"little", "x/data/0": bytes(24)})
    return folder


class Runs:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("nested", [False, True])
def test_a_malicious_pth_does_not_run(tmp_path: Path, protocol: int, nested: bool) -> None:
    proof = tmp_path / "it-ran"
    program = pickle.dumps({"a": Runs(f"touch {proof}")} if nested else Runs(f"touch {proof}"), protocol)
    with pytest.raises(NotACheckpoint, match=r"posix\.system|has the opcode") as refusal:
        checkpoint.read(str(folder_with(tmp_path / "m", program)))
    if protocol >= 1:
        assert "wants to run posix.system, which no state dict of tensors needs: it was not opened" in str(refusal.value)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("program", "name"),
    [
        (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "builtins.eval"),
        (b"(S'true'\nios\nsystem\n.", "has the opcode b'S'"),
        (b"(ios\nsystem\n.", "os.system"),
        (b"ctorch\nload\n.", "torch.load"),
        (b"ctorch._utils\n_rebuild_tensor_v3\n.", "torch._utils._rebuild_tensor_v3"),
        (b"ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
        (b"ctorch\nFloatStorage.__init__\n.", "torch.FloatStorage.__init__"),
        (b"\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"ccollections\nOrderedDict.fromkeys\n.", "collections.OrderedDict.fromkeys"),
        (b"\x82\x01.", "has the opcode"),
        (b"}\x81.", "has the opcode"),
    ],
)
def test_whatever_is_not_a_state_dict_is_named(program: bytes, name: str) -> None:
    with pytest.raises(NotACheckpoint) as refusal:
        walk(b"\x80\x02" + program)
    assert name in str(refusal.value)


def test_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(sys.modules)
    monkeypatch.setattr("builtins.__import__", None)
    found = walk(b"\x80\x02}" + text("a") + TENSOR + b"s.")
    monkeypatch.undo()
    assert list(found) == ["a"]
    assert set(sys.modules) == before


def test_what_torch_writes_in_other_ways() -> None:
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + TENSOR + b"\x88ccollections\nOrderedDict\n)RtR"
    module = b"\x80\x02ccollections\nOrderedDict\n)R(" + text("w") + parameter + text("epoch") + b"K\x05" + b"u"
    module += b"}" + text("_metadata") + b"}" + text("version") + b"K\x01ssb."
    assert walk(module) == {"w": pickles.Tensor(pickles.Storage("F32", "0"), 0, (2, 3), (3, 1))}
    framed = b"\x80\x04\x95" + struct.pack("<Q", 500) + b"}\x94(\x8c\x01w\x94" + TENSOR.replace(b"cpu", b"gpu") + b"\x94u."
    assert list(walk(framed)) == ["w"]


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b".",
        b"\x80",
        b"}",
        b"K\x01.",
        b"h\x07.",
        b"q\x00.",
        b"u.",
        b"(0.",
        b"}(K\x01u.",
        b"})K\x01s.",
        b"]K\x01K\x02s.",
        b"}X\xff\xff\xff\xff",
        b"X\x01\x00\x00\x00\xff.",
        b"\x8a\xff.",
        b"Q.",
        b"K\x01Q.",
        b"ccollections\nOrderedDict\nK\x01R.",
        b"ccollections\nOrderedDict\n(K\x01tR.",
        b"ccollections\nOrderedDict\n.",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"ctorch._utils\n_rebuild_parameter\n)R.",
        b"c" + b"a" * 2000,
        b"c\xff\n\n.",
    ],
)
def test_a_damaged_pickle_is_one_line(program: bytes) -> None:
    with pytest.raises(NotACheckpoint, match=r"holds a damaged pickle|holds no state dict"):
        walk(program)


@pytest.mark.parametrize(
    "tensor",
    [
        pickled_tensor("0", "F32", (-1, 3)),
        pickled_tensor("0", "F32", (2, 3), offset=-4),
        pickled_tensor("0", "F32", (1,) * 9),
        pickled_tensor("0", "F32", (2, 3), stride=(3,)),
        pickled_tensor("0", "F32", (1 << 200,), stride=(1,)),
        pickled_tensor("0", "F32", (2, 3)).replace(b"FloatStorage", b"HalfStorage\nFloat", 1),
    ],
)
def test_a_tensor_of_no_possible_size_is_one_line(tensor: bytes) -> None:
    with pytest.raises(NotACheckpoint):
        walk(b"\x80\x02}" + text("a") + tensor + b"s.")


@pytest.mark.parametrize(
    "program", [b"(" * 70000 + b".", b"]" * 70000 + b".", b"N0" * (1 << 20) + b"."], ids=["marks", "lists", "steps"]
)
def test_a_pickle_that_only_grows_is_given_up(program: bytes) -> None:
    with pytest.raises(NotACheckpoint):
        walk(program)


def test_tuples_that_double_cost_nothing() -> None:
    bomb = b"\x80\x02}" + b")q\x00" + b"h\x00h\x00\x86q\x00" * 5000
    assert walk(bomb + b"0" * 5001 + b".") == {}
    with pytest.raises(NotACheckpoint):
        walk(bomb + b"K\x01s.")  # as a key it would have to be hashed


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (pickled_tensor("0", "F32", (2, 3), stride=(1, 2)), "a is not contiguous"),
        (pickled_tensor("0", "F32", (2, 4)), "a needs 32 bytes of x/data/0, which has 24"),
        (pickled_tensor("0", "F32", (2, 3), offset=1), "a needs 28 bytes of x/data/0, which has 24"),
        (pickled_tensor("0", "F32", (1 << 40, 1 << 40)), "of x/data/0, which has 24"),
        (pickled_tensor("../../etc/passwd", "F32", (2, 3)), "should be in x/data/../../etc/passwd, which is not there"),
    ],
)
def test_tensors_that_are_not_one_stretch_of_their_storage(tmp_path: Path, tensor: bytes, message: str) -> None:
    with pytest.raises(NotACheckpoint) as refusal:
        pth.read(str(folder_with(tmp_path, b"\x80\x02}" + text("a") + tensor + b"s.") / "consolidated.00.pth"))
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("entries", "compression", "message"),
    [
        ({"x/data.pkl": b"}."}, zipfile.ZIP_DEFLATED, "x/data.pkl is compressed"),
        ({"x/readme": b""}, zipfile.ZIP_STORED, "it has 0 data.pkl"),
        ({"x/data.pkl": b"}.", "y/data.pkl": b"}."}, zipfile.ZIP_STORED, "it has 2 data.pkl"),
        ({"x/data.pkl": b"}.", "x/byteorder": b"big"}, zipfile.ZIP_STORED, "big-endian"),
        ({"x/data.pkl": bytes(5 << 20)}, zipfile.ZIP_STORED, "its pickle has 5242880 bytes"),
    ],
)
def test_archives_that_torch_did_not_write(tmp_path: Path, entries: dict[str, bytes], compression: int, message: str) -> None:
    path = write_zip(tmp_path / "x.pth", entries, compression=compression)
    with pytest.raises(NotACheckpoint) as refusal:
        pth.read(str(path))
    assert message in str(refusal.value)


def test_the_format_before_zip_files(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"\x80\x02M\xe9\x03.")
    with pytest.raises(NotACheckpoint, match=r"PyTorch before 1\.6"):
        pth.read(str(tmp_path / "x.pth"))


def test_an_archive_larger_than_four_gigabytes(tmp_path: Path) -> None:
    entries = text("big") + pickled_tensor("0", "F16", (1 << 31,)) + text("last") + pickled_tensor("1", "F16", (1,))
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}(" + entries + b"u.")
        archive.writestr("x/data/0", b"")
        archive.writestr("x/data/1", b"")
    grown = sparse(path.read_bytes(), tmp_path / "large.pth")
    found = pth.read(str(grown))
    assert (found["big"].size, found["last"].size) == (1 << 32, 2)
    with grown.open("rb") as file:
        file.seek(found["last"].offset)
        assert file.read(2) == b"ok"


def sparse(small: bytes, path: Path) -> Path:
    """The archive with x/data/0 grown to 4 GiB of a hole and x/data/1 to two bytes, as the 64-bit extension of zip keeps it."""
    size, at = 1 << 32, small.index(b"x/data/0") - 30
    before, last = small[:at], at + 30 + 8 + 20 + size
    local = b"PK\x03\x04" + struct.pack("<5H3I2H", 45, 0, 0, 0, 33, 0, 0xFFFFFFFF, 0xFFFFFFFF, 8, 20)
    huge = local + b"x/data/0" + struct.pack("<2H2Q", 1, 16, size, size)
    final = b"PK\x03\x04" + struct.pack("<5H3I2H", 20, 0, 0, 0, 33, 0, 2, 2, 8, 0) + b"x/data/1ok"
    entries = []
    for name, length, where in (("x/data.pkl", at - 30 - 10, 0), ("x/data/0", size, at), ("x/data/1", 2, last)):
        extra = struct.pack("<2H3Q", 1, 24, length, length, where)
        fields = struct.pack("<6H3I5H2I", 45, 45, 0, 0, 0, 33, 0, 0xFFFFFFFF, 0xFFFFFFFF, len(name), 28, 0, 0, 0, 0, 0xFFFFFFFF)
        entries.append(b"PK\x01\x02" + fields + name.encode() + extra)
    directory, start = b"".join(entries), last + len(final)
    end = b"PK\x06\x06" + struct.pack("<Q2H2I4Q", 44, 45, 45, 0, 0, 3, 3, len(directory), start)
    end += b"PK\x06\x07" + struct.pack("<IQI", 0, start + len(directory), 1)
    end += b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    with path.open("wb") as file:
        file.write(before + huge)
        file.seek(last)
        file.write(final + directory + end)
    return path


def test_shards_that_do_not_belong_together(tmp_path: Path) -> None:
    folder = write_meta(tmp_path, TINY, seeded(TINY), 2)
    size = (8, 16)
    odd = members([("layers.0.attention.wq.weight", size, "F32", bytes(512))])
    write_zip(folder / "consolidated.01.pth", odd)
    with pytest.raises(NotACheckpoint, match="a file has no tensor"):
        checkpoint.read(str(folder))
