from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudoctor.probes import elf
from tests.trees.small_elf import fat_binary, small_elf

REAL = [
    path
    for pattern in ("libc.so.6", "libstdc++.so.6", "libm.so.6", "libz.so.1", "libgcc_s.so.1")
    for folder in ("/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib64")
    for path in Path(folder).glob(pattern)
] + [Path(sys.executable).resolve()]
SAMPLE = small_elf(
    soname="libtorch_cuda.so",
    needed=["libcudart.so.12", "libc.so.6"],
    rpath="$ORIGIN/../../nvidia/cudnn/lib:$ORIGIN",
    sections={".rodata": b"x\0-gencode;arch=compute_80,code=sm_80\0y", ".dynstr": b"_ZN4c10d16ProcessGroupNCCLE\0"},
)


def _section(file: ELFFile, name: str) -> Any:
    """A section as pyelftools sees it, whose attributes depend on what it holds."""
    return file.get_section_by_name(name)


def _written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "library.so"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("path", REAL, ids=str)
def test_pyelftools_reads_the_same_of_real_files(path: Path) -> None:
    mine = elf.dynamic(path)
    with path.open("rb") as file:
        other = ELFFile(file)
        tags: list[Any] = list(_section(other, ".dynamic").iter_tags())
        rodata = _section(other, ".rodata")
    assert mine.needed == tuple(tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED")
    assert mine.soname == next((tag.soname for tag in tags if tag.entry.d_tag == "DT_SONAME"), None)
    assert ":".join(mine.runpath) == next((tag.runpath for tag in tags if tag.entry.d_tag == "DT_RUNPATH"), "")
    assert ":".join(mine.rpath) == next((tag.rpath for tag in tags if tag.entry.d_tag == "DT_RPATH"), "")
    with elf.opened(path) as image:
        assert image.whole()
        found = image.section(".rodata")
    assert (found.offset, found.size) == (rodata["sh_offset"], rodata["sh_size"]) if found else rodata is None


def test_our_small_files_are_sound_to_pyelftools(tmp_path: Path) -> None:
    with _written(tmp_path, SAMPLE).open("rb") as file:
        tags: list[Any] = list(_section(ELFFile(file), ".dynamic").iter_tags("DT_NEEDED"))
        assert [tag.needed for tag in tags] == ["libcudart.so.12", "libc.so.6"]


def test_strings_and_sections_are_found(tmp_path: Path) -> None:
    with elf.opened(_written(tmp_path, SAMPLE)) as image:
        rodata, names = image.section(".rodata"), image.section(".dynstr")
        assert rodata is not None
        assert names is not None
        assert image.text_with(rodata, b"code=sm_") == "-gencode;arch=compute_80,code=sm_80"
        assert image.text_with(rodata, b"ProcessGroupNCCL") is None
        assert image.contains(names, b"ProcessGroupNCCL")
        assert image.section(".text") is None
        assert image.dynamic().rpath == ("$ORIGIN/../../nvidia/cudnn/lib", "$ORIGIN")


def test_a_string_across_the_edge_of_a_chunk_is_found(tmp_path: Path) -> None:
    data = b"\0" * ((1 << 20) - 500) + b"a\0-gencode;code=sm_90" + b";more" * 200 + b"\0"
    with elf.opened(_written(tmp_path, small_elf(sections={".rodata": data}))) as image:
        rodata = image.section(".rodata")
        assert rodata is not None
        text = image.text_with(rodata, b"-gencode")
        assert text is not None
        assert text.startswith("-gencode;code=sm_90")
        assert text.endswith(";more")


def test_device_code_is_counted_per_fat_binary(tmp_path: Path) -> None:
    data = fat_binary([(2, 80), (2, 90), (1, 90)]) + fat_binary([(2, 80), (2, 80)])
    with elf.opened(_written(tmp_path, small_elf(sections={".nv_fatbin": data}))) as image:
        seen, binaries = image.device_code()
    assert binaries == 2
    assert dict(seen) == {(2, 80): 2, (2, 90): 1, (1, 90): 1}


def test_a_cut_file_is_not_whole(tmp_path: Path) -> None:
    with elf.opened(_written(tmp_path, SAMPLE[:400])) as image:
        assert not image.whole()


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "too short"), (b"\x7fELF", "too short"), (b"not a library" * 20, "invalid ELF header")],
    ids=["empty", "cut", "text"],
)
def test_the_reason_is_the_loaders(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(elf.NotElf, match=words):
        elf.dynamic(_written(tmp_path, data))


def test_a_32_bit_file_is_another_machines(tmp_path: Path) -> None:
    with pytest.raises(elf.OtherMachine):
        elf.dynamic(_written(tmp_path, SAMPLE[:4] + b"\x01" + SAMPLE[5:]))


@pytest.mark.parametrize("path", ["/", "/nowhere/at/all", "with\0nul"])
def test_what_is_no_file_is_no_elf_file(path: str) -> None:
    with pytest.raises(elf.NotElf):
        elf.dynamic(path)


def _everything(data: bytes) -> None:
    """Every reading of the file, or NotElf."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            with elf.opened(file.name) as image:
                image.whole()
                for name in (".rodata", ".dynstr", ".nv_fatbin"):
                    section = image.section(name)
                    if section is not None:
                        image.text_with(section, b"-gencode")
                image.device_code(most=50)
                image.dynamic()
        except elf.NotElf:
            pass


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_give_notelf_or_an_answer(data: bytes) -> None:
    _everything(data)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(SAMPLE)), st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), max_size=12))
def test_any_damage_gives_notelf_or_an_answer(length: int, changes: list[tuple[int, int]]) -> None:
    data = bytearray(SAMPLE)
    for at, value in changes:
        data[at] = value
    _everything(bytes(data[:length]))
