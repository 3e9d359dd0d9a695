from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudoctor import knowledge
from gpudoctor.knowledge import cuda, cudnn_nccl, drivers, gpus, kernels, torch_builds
from gpudoctor.knowledge.table import read, version_key

TABLES = ("cuda", "drivers", "gpus", "torch_builds", "cudnn_nccl", "kernels")


# ---------------------------------------------------------------- every table


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_when_it_was_collected(name: str) -> None:
    assert read(name)["schema"] == 1
    assert date.fromisoformat(str(read(name)["collected"]))


def test_the_date_of_the_data_is_text() -> None:
    assert date.fromisoformat(knowledge.collected())


def test_every_row_names_its_source() -> None:
    cited = [
        *(row.sources for row in gpus.models()),
        *(row.sources for row in drivers.branches()),
        *(row.sources for row in drivers.architectures()),
        *(row.sources for row in cuda.toolkits()),
        *(row.sources for row in torch_builds.releases()),
        *(row.sources for row in torch_builds.builds()),
        *(row.sources for row in kernels.flavours()),
    ]
    assert len(cited) > 300
    assert all(sources and all(source.strip() for source in sources) for sources in cited)


def test_what_stands_before_a_colon_is_a_known_key_or_an_address() -> None:
    for name in TABLES:
        known = read(name).get("sources", {})
        for rows in read(name).values():
            tables = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
            written = [row["source"] for row in tables]
            for text in [text for item in written for text in ([item] if isinstance(item, str) else item)]:
                key = text.partition(":")[0]
                assert key in known or key in {"https", "PyPI"} or " " in text, (name, text)


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([row.name for row in gpus.models()], id="gpu"),
        pytest.param([row.number for row in drivers.branches()], id="branch"),
        pytest.param([row.name for row in drivers.architectures()], id="architecture"),
        pytest.param([cc for row in drivers.architectures() for cc in row.compute_capabilities], id="capability"),
        pytest.param([row.release for row in cuda.toolkits()], id="toolkit"),
        pytest.param([row.version for row in torch_builds.releases()], id="release"),
        pytest.param([(row.torch, row.variant) for row in torch_builds.builds()], id="build"),
        pytest.param([(row.release, row.suffix, s) for row in kernels.flavours() for s in row.series], id="flavour"),
    ],
)
def test_no_key_stands_twice(keys: list[object]) -> None:
    assert [key for key, count in Counter(keys).items() if count > 1] == []


def test_a_table_is_read_on_first_use_only() -> None:
    script = (
        "import sys, gpudoctor.knowledge as k\n"
        "from gpudoctor.knowledge import cuda, drivers, gpus, kernels, torch_builds, table\n"
        "assert table.read.cache_info().currsize == 0 and 'tomllib' not in sys.modules\n"
        "drivers.branch_of('535.86.10'); assert table.read.cache_info().currsize == 0\n"
        "drivers.branch(535); assert table.read.cache_info().currsize == 1\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# ---------------------------------------------------------------- GPUs


def test_a_gpu_by_its_name() -> None:
    model = gpus.by_name("NVIDIA GeForce RTX 4070")
    assert model is not None
    assert (model.compute_capability, model.architecture, model.memory_gib) == ("8.9", "Ada", 12)
    assert model.memory_bytes == 12 << 30


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GeForce GTX 1080", "NVIDIA GeForce GTX 1080"),
        ("geforce rtx 4090", "NVIDIA GeForce RTX 4090"),
        ("Tesla V100S-PCIE-32GB", "Tesla V100S-PCIE-32GB"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA A100-SXM4-40GB"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "NVIDIA GeForce RTX 4070 Ti SUPER"),
    ],
)
def test_a_name_is_found_as_old_drivers_and_people_write_it(name: str, expected: str) -> None:
    model = gpus.by_name(name)
    assert model is not None
    assert model.name == expected


@pytest.mark.parametrize("name", ["", "NVIDIA", "NVIDIA GeForce RTX 9090", "Intel Arc A770"])
def test_a_name_that_is_not_in_the_data(name: str) -> None:
    assert gpus.by_name(name) is None


def test_memory_tells_products_of_one_name_apart() -> None:
    name = "NVIDIA GeForce RTX 4060 Ti"
    sizes = [gpus.by_name(name, memory_total=gib << 30) for gib in (8, 16)]
    assert [model.name for model in sizes if model] == [name, f"{name} 16GB"]
    assert gpus.by_name(name) == sizes[0]
    orin = gpus.by_name("Orin (nvgpu)", memory_total=int(61.3 * (1 << 30)))
    assert orin is not None
    assert orin.name == "Orin (Jetson AGX Orin 64GB)"


def test_a_gpu_by_its_pci_id() -> None:
    assert [model.name for model in gpus.by_pci_id("0x2786")] == ["NVIDIA GeForce RTX 4070"]
    assert gpus.by_pci_id("2204") == gpus.by_pci_id("0x2204")
    assert gpus.by_pci_id("ffff") == ()


@pytest.mark.parametrize(
    ("device_id", "name", "expected"),
    [
        ("1b80", None, "Pascal"),
        ("1d81", None, "Volta"),
        ("0fc6", "GK107 [GeForce GTX 650]", "Kepler"),
        ("ffff", "TU117 [GeForce GTX 1630]", "Turing"),
        ("ffff", "GH100 [H100]", None),
        ("no id", None, None),
    ],
)
def test_a_chip_tells_the_architecture_of_a_card_without_a_row(device_id: str, name: str | None, expected: str | None) -> None:
    assert gpus.architecture_of_chip(device_id, name) == expected


def test_some_pci_ids_belong_to_several_products() -> None:
    owners = Counter(device for model in gpus.models() for device in model.pci_ids)
    assert sum(count > 1 for count in owners.values()) == 37
    assert all(len(device) == 4 and device == device.lower() for device in owners)


def test_a_gpu_agrees_with_its_architecture() -> None:
    for model in gpus.models():
        assert drivers.architecture_of(model.compute_capability) == model.architecture, model.name
        row = drivers.architecture(model.architecture)
        assert row is not None
        assert model.last_branch == row.last_branch, model.name
        if model.first_driver:
            assert (drivers.branch_of(model.first_driver) or 0) >= row.first_branch, model.name
        if model.modules not in {"jetson", row.modules}:
            assert model.name.startswith("NVIDIA GH200"), model.name


# ---------------------------------------------------------------- drivers


@pytest.mark.parametrize(
    ("version", "expected"), [("535.86.10", 535), ("570.26", 570), ("N/A", None), ("", None), ("535.86.x", None)]
)
def test_the_branch_of_a_version(version: str, expected: int | None) -> None:
    assert drivers.branch_of(version) == expected


def test_a_branch() -> None:
    row = drivers.branch(535)
    assert row is not None
    assert (row.type, row.cuda, row.open_modules, row.proprietary_modules) == ("LTS", "12.2", True, True)
    assert drivers.branch(541) is None
    newest = drivers.branches()[-1]
    assert (newest.number, newest.proprietary_modules) == (620, False)


def test_what_newer_cuda_a_newer_branch_speaks() -> None:
    spoken = [cuda.encode(row.cuda) for row in drivers.branches()]
    assert spoken == sorted(spoken)
    assert 0 not in spoken


def test_the_recommended_branch_is_usable() -> None:
    assert drivers.recommended() == drivers.recommended("no such architecture") == 580
    for row in drivers.architectures():
        number = drivers.recommended(row.name)
        assert number in drivers.usable_today() or row.name == "Kepler"
        assert drivers.supports(number, row.name), row.name


def test_a_card_that_needs_a_newer_branch_gets_it() -> None:
    assert drivers.recommended("Rubin") == 620
    assert drivers.recommended("Blackwell", first_driver="580.119.02") == 580
    assert drivers.recommended("Blackwell", first_driver="590.44.01") == 595


def test_every_gpu_is_driven_by_the_branch_recommended_for_it() -> None:
    for model in gpus.models():
        number = drivers.recommended(model.architecture, first_driver=model.first_driver)
        assert drivers.supports(number, model.architecture), model.name
        assert number >= (drivers.branch_of(model.first_driver or "") or 0), model.name


@pytest.mark.parametrize(
    ("number", "architecture", "expected"),
    [
        (580, "Pascal", True),
        (590, "Pascal", False),
        (9999, "Pascal", False),
        (565, "Blackwell", False),
        (570, "Blackwell Ultra", True),
        (535, "Ada Lovelace", True),
        (540, "Ampere", True),
        (9999, "Ada", None),
        (440, "Turing", None),
        (580, "Feynman", None),
    ],
)
def test_which_branch_drives_which_architecture(number: int, architecture: str, expected: bool | None) -> None:
    assert drivers.supports(number, architecture) is expected


@pytest.mark.parametrize(
    ("architecture", "number", "expected"),
    [
        ("Pascal", None, "proprietary-required"),
        ("Ada", None, "either"),
        ("Ada", 620, "open-required"),
        ("Ada", 510, "proprietary-required"),
        ("Hopper", 580, "either"),
        ("Grace Hopper", 580, "open-required"),
        ("Blackwell", 570, "open-required"),
        ("Feynman", 580, None),
    ],
)
def test_the_flavour_of_the_kernel_modules(architecture: str, number: int | None, expected: str | None) -> None:
    assert drivers.module_flavour(architecture, number=number) == expected


def test_the_end_of_a_branch() -> None:
    assert drivers.end_of_life(535) == "2026-06"
    assert drivers.has_ended(535, date(2026, 6, 30)) is False
    assert drivers.has_ended(535, date(2026, 7, 1)) is True
    assert drivers.has_ended(590, date(2026, 12, 22)) is False
    assert drivers.has_ended(620, date(2026, 11, 23)) is None
    assert drivers.end_of_life(9999) is None


def test_the_usable_branches_have_not_ended_when_the_data_was_collected() -> None:
    day = date.fromisoformat(knowledge.collected())
    assert not any(drivers.has_ended(number, day) for number in drivers.usable_today())


@pytest.mark.parametrize(("capability", "expected"), [("8.9", "Ada"), ("12.1", "Blackwell"), ("99.0", None)])
def test_the_architecture_of_a_capability(capability: str, expected: str | None) -> None:
    assert drivers.architecture_of(capability) == expected


# ---------------------------------------------------------------- CUDA


def test_the_floor_of_a_cuda_major() -> None:
    assert [cuda.minor_compat_floor(major) for major in (11, 12, 13)] == ["450.80.02", "525.60.13", "580.65.06"]
    assert cuda.minor_compat_floor(12, windows=True) == "527.41"
    assert cuda.minor_compat_floor(13, windows=True) is None
    assert cuda.minor_compat_floor(99) is None


@pytest.mark.parametrize(
    ("driver", "major", "expected"),
    [
        ("525.60.13", 12, True),
        ("525.53", 12, False),
        ("535.86.10", 13, False),
        ("999.1", 13, True),
        ("N/A", 12, None),
        ("999.1", 99, None),
    ],
)
def test_whether_a_driver_serves_a_cuda_major(driver: str, major: int, expected: bool | None) -> None:
    assert cuda.serves(driver, major) is expected


@pytest.mark.parametrize(
    ("toolkit", "expected"),
    [
        ("12.4", "550.54.14"),
        ("12.4.1", "550.54.15"),
        ("11.0", "450.51.05"),
        ("12.8", "570.26"),
        ("13.5", None),
        ("12.7", None),
    ],
)
def test_the_driver_of_a_toolkit(toolkit: str, expected: str | None) -> None:
    assert cuda.toolkit_driver(toolkit) == expected


def test_every_minor_version_of_a_toolkit_has_one_first_release() -> None:
    minors = {row.cuda for row in cuda.toolkits()}
    assert Counter(row.cuda for row in cuda.toolkits() if row.ga) == dict.fromkeys(minors, 1)


def test_the_cuda_of_a_driver() -> None:
    assert cuda.cuda_of_driver("535.86.10") == "12.2"
    assert cuda.cuda_of_driver("9999.1") is None


def test_ubuntus_own_toolkit() -> None:
    assert cuda.ubuntu_toolkit("22.04") == "11.5"
    assert cuda.ubuntu_toolkit("20.10") is None


@given(st.integers(9, 40), st.integers(0, 9))
def test_any_cuda_version_survives_its_encoding(major: int, minor: int) -> None:
    assert cuda.decode(cuda.encode(f"{major}.{minor}")) == f"{major}.{minor}"


def test_known_encodings() -> None:
    assert cuda.decode(12020) == "12.2"
    assert cuda.encode("13.0") == 13000
    assert cuda.encode("unknown") == 0
    assert [knowledge.cudnn_version(number) for number in (90100, 91002, 8902)] == ["9.1.0", "9.10.2", "8.9.2"]
    assert [knowledge.nccl_version(number) for number in (22105, 23203, 2803)] == ["2.21.5", "2.32.3", "2.8.3"]


# ---------------------------------------------------------------- PyTorch


def test_every_build_has_a_floor_and_its_release() -> None:
    minors = {release.minor for release in torch_builds.releases()}
    for build in torch_builds.builds():
        assert build.torch in minors
        assert cuda.minor_compat_floor(int(build.cuda.split(".")[0])), build
        assert build.variant == f"cu{build.cuda.replace('.', '')}"
        assert build.sm_x86_64


def test_each_release_has_one_default_and_it_is_the_one_on_the_index() -> None:
    for release in torch_builds.releases():
        defaults = [build for build in torch_builds.builds() if build.torch == release.minor and build.default]
        assert [build.cuda for build in defaults] == [release.cuda], release.version
        assert release.min_driver == cuda.minor_compat_floor(int(release.cuda.split(".")[0]))
        assert defaults[0].status != "unlisted"
        assert release.aarch64_cuda <= bool(defaults[0].sm_aarch64)


def test_the_newest_release_is_the_last() -> None:
    assert torch_builds.releases()[-1].version == torch_builds.newest()


def test_no_build_pairs_old_gpus_with_a_cudnn_that_refuses_them() -> None:
    last = version_key(cudnn_nccl.pre_turing_cudnn())
    for build in torch_builds.builds():
        if build.cudnn and min(version_key(code) for code in build.sm_x86_64) < (7, 5):
            assert version_key(build.cudnn)[:3] <= last, build


def test_looking_up_a_release_and_a_build() -> None:
    release, build = torch_builds.release("2.14.1+cu126"), torch_builds.build("2.14.1+cu126", "cu126")
    assert release is not None
    assert build is not None
    assert (release.minor, "cp310" in release.cpython("x86_64"), release.cpython("ppc64le")) == ("2.14", True, ())
    assert (build.cuda, build.sm("aarch64"), build.sm("ppc64le")) == ("12.6", ("8.0", "9.0"), ())
    assert torch_builds.release("99.0") is None
    assert torch_builds.build("99.0", "cu126") is None
    assert torch_builds.index_url("cu126") == "https://download.pytorch.org/whl/cu126"


# ---------------------------------------------------------------- Ubuntu's kernels


@pytest.mark.parametrize(
    ("ubuntu", "kernel", "expected"),
    [
        ("22.04", "5.15.0-144-generic", "generic"),
        ("22.04", "6.2.0-26-generic", "generic-hwe-22.04"),
        ("22.04", "6.8.0-1036-aws", "aws"),
        ("22.04", "5.15.0-1085-oracle", "oracle-lts-22.04"),
        ("22.04", "6.8.0-138-lowlatency", "lowlatency-hwe-22.04"),
        ("24.04", "6.8.0-79-generic", "generic"),
        ("24.04", "6.14.0-24-generic", "generic-hwe-24.04"),
        ("24.04", "6.8.0-1063-aws", "aws-lts-24.04"),
        ("22.04", "7.9.0-1-generic", None),
        ("22.04", "6.6.87.2-microsoft-standard-WSL2", None),
        ("20.04", "5.15.0-144-generic", None),
        ("22.04", "", None),
    ],
)
def test_the_flavour_of_a_kernel(ubuntu: str, kernel: str, expected: str | None) -> None:
    flavour = kernels.flavour(ubuntu, kernel)
    assert (flavour.name if flavour else None) == expected


def test_the_packages_of_a_flavour() -> None:
    flavour = kernels.flavour("22.04", "6.2.0-26-generic")
    assert flavour is not None
    assert flavour.image == "linux-image-generic-hwe-22.04"
    assert flavour.headers == "linux-headers-generic-hwe-22.04"
    assert flavour.modules(535) == "linux-modules-nvidia-535-generic-hwe-22.04"
    assert flavour.modules(580, server=True, open_modules=True) == ("linux-modules-nvidia-580-server-open-generic-hwe-22.04")


def test_the_tables_lie_beside_their_module() -> None:
    folder = Path(knowledge.__file__).parent
    assert all((folder / f"{name}.toml").is_file() for name in TABLES)
