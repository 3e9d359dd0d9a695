from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudoctor.knowledge import cuda, drivers, torch_builds
from gpudoctor.knowledge.table import version_key
from gpudoctor.wheels import NoWheel, Recommendation, driver_runs, recommend, runs_on

TEGRA = {"5.3", "6.2", "7.2", "8.7"}
CAPABILITIES = sorted({cc for row in drivers.architectures() for cc in row.compute_capabilities} | {"13.0"}, key=version_key)
TAGS = sorted({tag for release in torch_builds.releases() for tag in release.cpython_x86_64})
DRIVERS = sorted(
    {row.driver for row in cuda.toolkits() if row.driver}
    | {row.latest for row in drivers.branches() if row.latest}
    | {"440.33.01", "535.86.10", "999.1"},
    key=version_key,
)


def choose(
    python_tag: str = "cp310",
    driver_version: str | None = "535.86.10",
    *capabilities: str,
    machine: str = "x86_64",
    keep: str | None = None,
    cuda_version: int | None = None,
    glibc: str | None = "2.35",
) -> Recommendation | NoWheel:
    return recommend(
        python_tag=python_tag,
        machine=machine,
        driver_version=driver_version,
        cuda_version=cuda_version,
        compute_capabilities=capabilities,
        keep=keep,
        glibc=glibc,
    )


def version(answer: Recommendation | NoWheel) -> tuple[str, str]:
    assert isinstance(answer, Recommendation), answer
    return answer.torch, answer.variant


# ---------------------------------------------------------------- the binary rule


@pytest.mark.parametrize(
    ("sm", "ptx", "device", "expected"),
    [
        pytest.param(["8.0", "8.6"], [], "8.9", "binary", id="ada-runs-ampere-code"),
        pytest.param(["8.6"], [], "8.0", "no", id="minor-above"),
        pytest.param(["8.0"], [], "9.0", "no", id="another-major"),
        pytest.param(["9.0"], ["9.0"], "12.0", "ptx", id="ptx-below"),
        pytest.param(["12.0"], ["12.0"], "12.1", "binary", id="gb10"),
        pytest.param(["10.0"], [], "10.3", "binary", id="b300"),
        pytest.param([], ["12.0"], "10.0", "no", id="ptx-above"),
        pytest.param(["8.0", "8.6"], [], "8.7", "no", id="orin-needs-its-own"),
        pytest.param(["8.7"], [], "8.9", "no", id="orins-code-is-orins"),
        pytest.param(["8.7"], [], "8.7", "binary", id="orin"),
        pytest.param(["7.0"], ["7.0"], "7.2", "ptx", id="xavier-compiles-ptx"),
        pytest.param(["9.0a"], [], "9.0", "binary", id="a-on-exactly-that"),
        pytest.param(["10.0a"], [], "10.3", "no", id="a-on-nothing-else"),
        pytest.param(["10.0f"], [], "10.3", "binary", id="f-on-its-family"),
        pytest.param(["12.1f"], [], "12.0", "no", id="f-not-below"),
        pytest.param([], ["9.0a"], "10.0", "no", id="ptx-a"),
        pytest.param([], ["10.0f"], "12.0", "no", id="ptx-f"),
        pytest.param([], ["10.0f"], "10.3", "ptx", id="ptx-f-on-its-family"),
        pytest.param(["10.1"], [], "11.0", "binary", id="thor-under-its-old-name"),
        pytest.param(["sm_86", "sm_120"], ["compute_120"], "12.0", "binary", id="as-pytorch-writes-it"),
        pytest.param(["sm_90a"], [], "9.0", "binary", id="as-pytorch-writes-it-with-letter"),
        pytest.param(["gfx90a", ""], ["?"], "9.0", "no", id="no-cuda-code"),
        pytest.param(["8.0"], ["8.0"], "unknown", "no", id="no-capability"),
        pytest.param([], [], "8.9", "no", id="nothing"),
    ],
)
def test_how_a_build_runs_on_a_device(sm: list[str], ptx: list[str], device: str, expected: str) -> None:
    assert runs_on(sm, ptx, device) == expected


@given(st.lists(st.text(max_size=8)), st.lists(st.text(max_size=8)), st.text(max_size=8))
def test_any_text_is_an_architecture_or_ignored(sm: list[str], ptx: list[str], device: str) -> None:
    assert runs_on(sm, ptx, device) in {"binary", "ptx", "no"}


@given(st.sampled_from(CAPABILITIES))
def test_any_device_runs_code_made_for_it(capability: str) -> None:
    assert runs_on([capability], [], capability) == "binary"
    assert runs_on([], [capability], capability) == "ptx"


# ---------------------------------------------------------------- the driver rule


@pytest.mark.parametrize(
    ("release", "driver", "number", "expected"),
    [
        pytest.param("12.6", "535.86.10", None, True, id="minor-version-compatibility"),
        pytest.param("13.0", "535.86.10", 12020, False, id="below-the-floor"),
        pytest.param("13.0", "535.86.10", 13000, True, id="cuda-compat"),
        pytest.param("13.2", None, 13000, True, id="only-cuda-is-known"),
        pytest.param("13.0", None, 12090, False, id="only-cuda-is-known-and-too-old"),
        pytest.param("11.8", "450.51.05", 11000, False, id="floor-above-the-first-driver-of-its-major"),
        pytest.param("13.0", "N/A", 13000, True, id="unreadable-version"),
        pytest.param("13.0", None, None, None, id="nothing-known"),
    ],
)
def test_whether_a_driver_runs_a_build(release: str, driver: str | None, number: int | None, expected: bool | None) -> None:
    assert driver_runs(release, driver_version=driver, cuda_version=number) is expected


# ---------------------------------------------------------------- the recommendation


def test_the_storys_machine() -> None:
    assert choose("cp310", "535.86.10", "8.9") == Recommendation(
        torch="2.14.1",
        variant="cu126",
        cuda="12.6",
        index_url="https://download.pytorch.org/whl/cu126",
        default=False,
        reason="the newest build for Python 3.10 that driver 535 can run",
    )


def test_a_driver_of_today_gets_the_default_of_the_newest_release() -> None:
    answer = choose("cp311", "580.95.05", "8.9")
    assert version(answer) == (torch_builds.newest(), "cu132")
    assert isinstance(answer, Recommendation)
    assert (answer.default, answer.index_url) == (True, None)


def test_python_310_ends_at_214() -> None:
    assert version(choose("cp310", "580.95.05", "8.9")) == ("2.14.1", "cu130")


def test_pascal_gets_cuda_126_on_any_driver() -> None:
    answer = choose("cp312", "580.95.05", "6.1")
    assert version(answer) == ("2.14.1", "cu126")
    assert isinstance(answer, Recommendation)
    assert answer.reason.endswith("and that has code for compute capability 6.1")


def test_blackwell_on_driver_570_gets_a_cuda_12_build_that_has_its_code() -> None:
    torch, variant = version(choose("cp310", "570.124.06", "12.0"))
    build = torch_builds.build(torch, variant)
    assert build is not None
    assert (12, 8) <= version_key(build.cuda) < (13, 0)
    assert "12.0" in build.sm_x86_64


def test_the_installed_version_stays_where_a_build_of_it_fits() -> None:
    answer = choose("cp310", "535.86.10", "8.9", keep="2.4.1+cpu")
    assert version(answer) == ("2.4.1", "cu121")
    assert isinstance(answer, Recommendation)
    assert (answer.default, answer.reason) == (True, "the same PyTorch 2.4.1, in a build with CUDA 12.1")
    assert version(choose("cp312", "570.124.06", "12.0", keep="2.7.0")) == ("2.7.0", "cu128")


@pytest.mark.parametrize("keep", ["2.15.0", "99.0.0", "2.4.0a0+git1234", "", None])
def test_a_version_that_cannot_stay_gives_way_to_the_newest(keep: str | None) -> None:
    assert version(choose("cp310", "535.86.10", "8.9", keep=keep)) == ("2.14.1", "cu126")


def test_a_build_that_its_release_does_not_list_is_never_recommended() -> None:
    assert version(choose("cp310", "575.57.08", "12.0", keep="2.12.1")) == ("2.11.0", "cu128")


def test_aarch64_has_cuda_on_the_default_index_from_211_on() -> None:
    answer = choose("cp312", "570.124.06", "9.0", machine="aarch64", keep="2.10.0")
    assert version(answer) == ("2.10.0", "cu128")
    assert isinstance(answer, Recommendation)
    assert answer.index_url == "https://download.pytorch.org/whl/cu128"
    assert version(choose("cp312", "580.119.02", "12.1", machine="aarch64")) == (torch_builds.newest(), "cu132")


def test_ptx_is_no_way_out_on_a_driver_older_than_the_toolkit() -> None:
    # nothing has binary code for 13.0; 2.7's PTX was made by CUDA 12.8, and its own driver or a newer one compiles it
    assert version(choose("cp312", "570.124.06", "13.0")) == ("2.7.1", "cu128")
    answer = choose("cp312", "535.86.10", "13.0")
    assert isinstance(answer, NoWheel)
    assert answer.needs == "driver"


def test_an_unknown_driver_excludes_nothing() -> None:
    assert version(choose("cp312", None)) == (torch_builds.newest(), "cu132")
    assert version(choose("cp312", "N/A", "8.9")) == (torch_builds.newest(), "cu132")


def test_cuda_compat_lifts_an_older_driver() -> None:
    answer = choose("cp312", "535.86.10", "9.0", cuda_version=13000)
    assert version(answer) == (torch_builds.newest(), "cu132")
    assert isinstance(answer, Recommendation)
    assert "with its CUDA 13.0 compatibility libraries" in answer.reason


def test_an_old_c_library_ends_at_26() -> None:
    assert version(choose("cp312", "535.86.10", "8.9", glibc="2.27")) == ("2.6.0", "cu124")
    assert version(choose("cp312", "535.86.10", "8.9", glibc="2.28")) == ("2.14.1", "cu126")
    assert version(choose("cp312", "535.86.10", "8.9", glibc=None)) == ("2.14.1", "cu126")


@pytest.mark.parametrize(
    ("answer", "needs", "driver", "word"),
    [
        pytest.param(choose("cp313", "440.33.01", "8.6"), "driver", "450.80.02", "driver 450.80.02", id="driver"),
        pytest.param(choose("cp314", "520.61.05", "8.6"), "driver", "525.60.13", "Python 3.14", id="driver-python"),
        pytest.param(choose("cp37", "535.86.10", "8.9"), "python", None, "Python 3.7", id="old-python"),
        pytest.param(choose("cp399", "535.86.10", "8.9"), "python", None, "Python 3.99", id="new-python"),
        pytest.param(choose("pp310", "535.86.10", "8.9"), "python", None, "pp310", id="pypy"),
        pytest.param(choose("cp315", "580.95.05", "6.1"), "python", None, "2.14.1", id="gpu-wants-older-python"),
        pytest.param(choose("cp312", "580.95.05", "6.1", "12.0"), "gpu", None, "6.1 and 12.0", id="two-gpus"),
        pytest.param(choose("cp310", "540.4", "8.7", machine="aarch64"), "gpu", None, "Jetson", id="orin"),
        pytest.param(choose("cp310", "535.86.10", "3.5"), "gpu", None, "3.5", id="kepler"),
        pytest.param(choose(machine="ppc64le"), "platform", None, "ppc64le", id="machine"),
        pytest.param(choose("cp312", machine="aarch64", glibc="2.1"), "platform", None, "2.1", id="c-library"),
    ],
)
def test_where_nothing_fits_the_answer_says_what_is_in_the_way(
    answer: Recommendation | NoWheel, needs: str, driver: str | None, word: str
) -> None:
    assert isinstance(answer, NoWheel), answer
    assert (answer.needs, answer.driver_needed) == (needs, driver)
    assert word in answer.reason


# ---------------------------------------------------------------- for any machine

machines = st.sampled_from(["x86_64", "aarch64"])
tags = st.sampled_from(TAGS)
some_drivers = st.sampled_from(DRIVERS)
cards = st.lists(st.sampled_from(CAPABILITIES), max_size=2)
kept = st.sampled_from([None, *(release.version for release in torch_builds.releases())])


@given(tags, some_drivers, cards, machines, kept)
def test_any_recommendation_keeps_the_rules(tag: str, driver: str, cards: list[str], machine: str, keep: str | None) -> None:
    answer = choose(tag, driver, *cards, machine=machine, keep=keep)
    if isinstance(answer, NoWheel):
        assert answer.reason
        assert (answer.needs == "driver") == (answer.driver_needed is not None)
        return
    build, release = torch_builds.build(answer.torch, answer.variant), torch_builds.release(answer.torch)
    assert build is not None
    assert release is not None
    assert tag in release.cpython(machine)
    floor = cuda.minor_compat_floor(int(build.cuda.split(".")[0]))
    assert floor is not None
    assert version_key(driver) >= version_key(floor)
    for card in cards:
        way = runs_on(build.sm(machine), build.ptx, card)
        own = cuda.toolkit_driver(build.cuda)
        assert way == "binary" or (way == "ptx" and own and version_key(driver) >= version_key(own))
    assert answer.default == (answer.index_url is None)


@given(tags, some_drivers, cards, machines)
def test_any_driver_that_is_said_to_be_needed_is_enough(tag: str, driver: str, cards: list[str], machine: str) -> None:
    answer = choose(tag, driver, *cards, machine=machine)
    if isinstance(answer, NoWheel) and answer.driver_needed:
        assert version_key(answer.driver_needed) > version_key(driver)
        assert isinstance(choose(tag, answer.driver_needed, *cards, machine=machine), Recommendation)


@given(tags, some_drivers, some_drivers, cards, machines)
def test_any_newer_driver_never_yields_an_older_torch(tag: str, one: str, other: str, cards: list[str], machine: str) -> None:
    older, newer = sorted((one, other), key=version_key)
    before, after = choose(tag, older, *cards, machine=machine), choose(tag, newer, *cards, machine=machine)
    if isinstance(before, Recommendation):
        assert isinstance(after, Recommendation)
        assert version_key(after.torch) >= version_key(before.torch)


@given(st.text(max_size=6), st.text(max_size=8), st.lists(st.text(max_size=5), max_size=2), st.text(max_size=8))
def test_any_text_gives_an_answer(tag: str, driver: str, cards: list[str], machine: str) -> None:
    assert choose(tag, driver, *cards, machine=machine, keep=driver, glibc=tag).reason
