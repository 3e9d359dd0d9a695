"""The driver check on facts built in place: one line of data for each cause, and properties over their combinations."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from importlib import import_module
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudoctor import steps
from gpudoctor.facts import (
    ConfigLine,
    DkmsBuild,
    Facts,
    NvidiaSmi,
    Nvml,
    Unknown,
    User,
)
from gpudoctor.findings import Check, Finding, Verdict
from tests.driver_alive import ALIVE, BLIND, CAVEATS, HEALTHY, UVM_ERROR, xid
from tests.driver_dead import (
    BARE,
    DEAD,
    DKMS,
    DOCKER,
    EMPTY_ML,
    FAILED,
    GCC,
    MIXED,
    NAMED_GCC,
    NEEDS_OPEN,
    NEWER,
    NO_BAR,
    NO_GSP,
    NO_MODULE,
    REJECTED,
    STUB,
    UNSUPPORTED,
)
from tests.driver_facts import (
    APT,
    HERE,
    KEY,
    LIBS,
    NEW,
    NO_NVML,
    NODES,
    OLD,
    UNSEEN,
    card,
    dead,
    driver,
    facts,
    gpu,
    image,
    intel,
    kernel,
    lost,
    node,
    nvml,
    package,
    refused,
    system,
    torch,
    unloaded,
)

CHECK = cast("Check", import_module("gpudoctor.checks.driver").CHECK)


def judge(given_facts: Facts) -> Verdict:
    return CHECK.judge(given_facts, False)


def codes(verdict: Verdict) -> list[str]:
    return [finding.code for finding in verdict.findings]


def only(given_facts: Facts) -> Finding:
    verdict = judge(given_facts)
    assert len(verdict.findings) == 1, [(f.code, f.summary) for f in verdict.findings]
    return verdict.findings[0]


@pytest.mark.parametrize("given_facts", HEALTHY.values(), ids=HEALTHY)
def test_no_finding_when(given_facts: Facts) -> None:
    verdict = judge(given_facts)
    assert codes(verdict) == []
    assert verdict.status == "pass"


@pytest.mark.parametrize(
    ("given_facts", "line"),
    [
        (facts(), "535.86.10 serves CUDA 12.2, and by minor-version compatibility every 12.x build"),
        (
            facts(nvml=nvml(driver_version="580.95.05", cuda_version=13000)),
            "580.95.05 serves CUDA 13.0, and by minor-version compatibility every 13.x build; 11.x and 12.x builds run too",
        ),
        (
            facts(nvml=nvml(cuda_version=UNSEEN), cuda_driver=UNSEEN),
            "535.86.10 serves CUDA 12.2, and by minor-version compatibility every 12.x build",
        ),
        (
            facts(nvml=nvml(driver_version="999.10", cuda_version=99010)),
            "999.10 serves CUDA 99.1; 11.x, 12.x and 13.x builds run too",
        ),
        (
            facts(nvml=Unknown("the GPU is asleep"), pci=(intel(), card(power="suspended"))),
            "535.86.10 is loaded and serves CUDA 12.2; NVIDIA GeForce RTX 4070 is asleep to save power and was not woken",
        ),
        (
            facts(nvml=NO_NVML, pci=(), system=system(platform="jetson"), driver=UNSEEN, kernel=UNSEEN, torch_import=None),
            "the driver of a Jetson serves CUDA 12.2; NVML is not there to ask",
        ),
    ],
    ids=["12.2", "13.0", "by the branch's table", "newer than our data", "asleep", "Jetson without NVML"],
)
def test_one_line_says_what_the_driver_serves(given_facts: Facts, line: str) -> None:
    assert judge(given_facts).summary == line
    assert codes(judge(given_facts)) == []


@pytest.mark.parametrize(("given_facts", "code", "step"), DEAD.values(), ids=DEAD)
def test_dead_driver_has_one_cause(given_facts: Facts, code: str, step: str) -> None:
    finding = only(given_facts)
    assert (finding.code, finding.fix.step) == (code, step)
    assert finding.severity == "fail"


@pytest.mark.parametrize(("given_facts", "code", "step"), ALIVE.values(), ids=ALIVE)
def test_living_driver_with_one_fault(given_facts: Facts, code: str, step: str) -> None:
    finding = only(given_facts)
    assert (finding.code, finding.fix.step) == (code, step)
    assert judge(given_facts).summary == finding.summary


@pytest.mark.parametrize(("given_facts", "code", "severity"), CAVEATS.values(), ids=CAVEATS)
def test_living_driver_with_a_caveat(given_facts: Facts, code: str, severity: str) -> None:
    finding = only(given_facts)
    assert (finding.code, finding.severity) == (code, severity)
    assert judge(given_facts).summary.startswith(f"{OLD} serves CUDA 12.2")


def test_faults_of_several_gpus_are_one_finding() -> None:
    hot = gpu(throttle=("sw-thermal",))
    finding = only(
        facts(nvml=nvml(hot, replace(hot, index=1, pci_address="0000:02:00.0"), replace(hot, index=2, pci_address="0000:03:00.0")))
    )
    assert finding.code == "throttle-thermal"
    assert finding.summary.endswith("2 more GPUs likewise")


# ------------------------------------------------------------------ what is not known


@pytest.mark.parametrize(
    ("given_facts", "words"),
    [
        (Facts(), "nobody looked"),
        (facts(nvml=NO_NVML, pci=UNSEEN, driver=replace(BARE, module_version=UNSEEN), torch_import=None), "not looked at"),
        (facts(nvml=Unknown("nvidia-ml-py is not installed beside gpudoctor"), torch_import=None), "nvidia-ml-py"),
        (
            facts(
                nvml=NO_NVML,
                driver=BARE,
                torch_import=None,
                nvidia_smi=NvidiaSmi("/usr/bin/nvidia-smi", 0, OLD, "12.2", "NVIDIA-SMI"),
            ),
            "NVML could not be loaded",
        ),
        (facts(nvml=nvml(gpu(error="ValueError: odd"))), "GPU 0"),
    ],
    ids=[
        "nobody looked",
        "no bus and no library",
        "no NVML binding",
        "nvidia-smi answers, NVML is elsewhere",
        "a GPU that our own reader fails on",
    ],
)
def test_unknown_is_neither_healthy_nor_a_fault(given_facts: Facts, words: str) -> None:
    verdict = judge(given_facts)
    assert verdict.status == "unknown"
    assert codes(verdict) == []
    assert any(words in what for what in verdict.unknown)


@pytest.mark.parametrize("answer", [NO_NVML, UNSEEN], ids=["no NVML", "NVML not asked"])
def test_cuda_that_works_is_the_stronger_proof(answer: Nvml | Unknown) -> None:
    verdict = judge(facts(nvml=answer, pci=UNSEEN, driver=UNSEEN, kernel=UNSEEN))
    assert verdict.status == "pass"
    assert "CUDA 12.2" in verdict.summary


# ------------------------------------------------------------------ place and person


def test_cure_names_the_host_inside_a_container() -> None:
    assert only(facts(system=DOCKER, nvml=nvml(lost(15)), torch_import=BLIND)).fix.where == "host"


def test_cure_is_the_administrators_for_someone_without_sudo() -> None:
    nobody = system(user=User("eve", 1001, ("eve",), may_sudo=False))
    assert only(dead(system=nobody)).fix.where == "administrator"
    assert only(dead()).fix.where is None


@pytest.mark.parametrize("platform", ["jetson", "dgx"])
def test_stock_driver_is_never_offered_on_a_vendors_platform(platform: str) -> None:
    for given_facts, _, step in (*DEAD.values(), *ALIVE.values()):
        there = given_facts.system
        if isinstance(there, Unknown) or there.container or there.wsl:
            continue
        verdict = judge(replace(given_facts, system=replace(there, platform=platform)))
        for finding in verdict.findings:
            assert finding.fix.step not in (
                "driver#install",
                "driver#install-server",
                "driver#change-branch",
                "driver#reinstall-libraries",
            ), step


def test_values_of_a_module_for_an_aws_kernel() -> None:
    there = system(kernel="6.8.0-1021-aws", product="Amazon EC2 g5.xlarge")
    packages = (package("nvidia-driver-535-server"), package("libnvidia-compute-535-server"))
    missing = kernel(replace(NO_MODULE, release="6.8.0-1021-aws"), loaded=())
    fix = only(dead(system=there, kernel=missing, driver=unloaded(packages=packages))).fix
    assert dict(fix.values) == {"BRANCH": "535-server", "FLAVOUR": "aws", "KERNEL": "6.8.0-1021-aws"}


@pytest.mark.parametrize(
    ("device", "name", "branch"),
    [
        ("102d", None, "470"),
        ("1b80", None, "580"),
        ("2786", None, "580-open"),
        ("2b85", None, "580-open"),
        ("2330", None, "580-server-open"),
    ],
    ids=["Kepler", "Pascal", "Ada", "Blackwell", "H100"],
)
def test_branch_to_install_fits_the_card(device: str, name: str | None, branch: str) -> None:
    bare = facts(pci=(card(device=device, name=name, driver=None),), nvml=NO_NVML, driver=BARE, torch_import=None)
    assert dict(only(bare).fix.values)["BRANCH"] == branch


@pytest.mark.parametrize(("build", "compiler"), [(GCC, "gcc-12"), (NAMED_GCC, "gcc-13")], ids=["by the option", "by its name"])
def test_missing_compiler_is_named(build: DkmsBuild, compiler: str) -> None:
    fix = only(dead(kernel=kernel(NO_MODULE, loaded=(), dkms=(build,)), driver=unloaded(packages=DKMS))).fix
    assert dict(fix.values) == {"COMPILER": compiler, "KERNEL": HERE}


def test_permission_names_node_group_and_user() -> None:
    finding = only(facts(nvml=refused(4), driver=driver(nodes=(node("/dev/nvidiactl", "rw-rw----", group="video", usable=False),))))
    for word in ("ada", "/dev/nvidiactl", "rw-rw----", "video"):
        assert word in finding.summary


def test_holder_of_an_exclusive_gpu_is_named() -> None:
    finding = only(ALIVE["exclusive mode and somebody there"][0])
    for word in ("4242", "eve", "serve.py"):
        assert word in finding.summary


# ------------------------------------------------------------------ contracts

TOLD_BY_A_TEXT = {"container-toolkit-missing"}
EVERYTHING = [given_facts for given_facts, *_ in (*DEAD.values(), *ALIVE.values(), *CAVEATS.values())]


def test_every_code_is_listed_and_raised_here() -> None:
    raised = {finding.code for given_facts in EVERYTHING for finding in judge(given_facts).findings}
    assert sorted(raised) == sorted(set(CHECK.codes) - TOLD_BY_A_TEXT)


def test_every_fix_fills_its_section() -> None:
    unfilled: list[str] = []
    for given_facts in EVERYTHING:
        for finding in judge(given_facts).findings:
            resolved = steps.resolve(finding.fix)
            unfilled += [f"{finding.fix.step}: {line}" for line in resolved.commands if re.search(r"\$\{?[A-Z][A-Z0-9_]+\b", line)]
    assert unfilled == []


def test_every_finding_shows_what_was_seen() -> None:
    for given_facts in EVERYTHING:
        for finding in judge(given_facts).findings:
            assert finding.evidence, finding.code
            assert all(evidence.text and len(evidence.text) <= 300 for evidence in finding.evidence)
            assert "\n" not in finding.summary
            assert not finding.summary.endswith(".")


# ------------------------------------------------------------------ any

NVML_CODES = st.sampled_from([None, 1, 2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 999])
KERNEL_DRIVERS = st.sampled_from([None, "nvidia", "nouveau", "nova_core", "vfio-pci"])
TRUTH = st.sampled_from([True, False, UNSEEN])


@st.composite
def machines(draw: st.DrawFn) -> Facts:
    """Any combination of NVML's word, bound driver, Secure Boot, DKMS, place and missing facts."""
    code = draw(NVML_CODES)
    answer: Nvml | Unknown = (
        nvml(*draw(st.sampled_from([(gpu(),), (lost(15),), (gpu(), lost(999, index=1))]))) if code is None else refused(code)
    )
    if isinstance(answer, Nvml):
        answer = replace(
            answer, hung=draw(st.sampled_from([None, None, "nvmlInit"])), crashed=draw(st.sampled_from([None, None, "SIGSEGV"]))
        )
    built = image(
        module_path=draw(st.sampled_from([None, "/lib/modules/x/nvidia.ko"])),
        module_version=draw(st.sampled_from([None, OLD, NEW, UNSEEN])),
        module_license=draw(st.sampled_from([None, "NVIDIA", "Dual MIT/GPL", UNSEEN])),
        module_signer=draw(st.sampled_from([None, "Canonical Ltd. Kernel Module Signing", "box", UNSEEN])),
        module_key=draw(st.sampled_from([None, KEY, "99", UNSEEN])),
        headers=draw(st.booleans()),
        running=draw(st.booleans()),
    )
    inside = kernel(
        built,
        loaded=draw(st.sampled_from([(), ("nvidia",), ("nouveau",), UNSEEN])),
        dkms=draw(st.sampled_from([(), (FAILED,), (GCC,), (replace(FAILED, state="added", log=None),), UNSEEN])),
        secure_boot=draw(st.sampled_from([True, False, None, UNSEEN])),
        mok_pending=draw(TRUTH),
        enrolled_keys=draw(st.sampled_from([(), (KEY,), UNSEEN])),
        modprobe=draw(st.sampled_from([(), (ConfigLine("/etc/modprobe.d/a.conf", "blacklist nvidia"),)])),
    )
    files = driver(
        module_version=draw(st.sampled_from([None, OLD, NEW, UNSEEN])),
        libraries=draw(st.sampled_from([(), LIBS, NEWER, (EMPTY_ML,), (STUB, LIBS[0]), UNSEEN])),
        packages=draw(st.sampled_from([(), APT, DKMS, MIXED, UNSEEN])),
        nodes=draw(st.sampled_from([(), NODES, UNSEEN])),
        runfile=draw(st.booleans()),
        prime=draw(st.sampled_from([None, "off", "on-demand"])),
    )
    there = system(
        container=draw(st.sampled_from([None, "docker", "lxc"])),
        wsl=draw(st.sampled_from([0, 0, 1, 2])),
        platform=draw(st.sampled_from([None, None, "jetson", "dgx"])),
        user=draw(st.sampled_from([User("ada", 1000, ("ada",), may_sudo=may) for may in (True, False, UNSEEN)])),
    )
    bus = draw(st.sampled_from([(), (intel(),), "card", UNSEEN]))
    return facts(
        nvml=draw(st.sampled_from([answer, answer, UNSEEN])),
        pci=(intel(), card(driver=draw(KERNEL_DRIVERS))) if bus == "card" else bus,
        kernel=draw(st.sampled_from([inside, inside, UNSEEN])),
        driver=draw(st.sampled_from([files, files, UNSEEN])),
        system=draw(st.sampled_from([there, there, UNSEEN])),
        kernel_log=draw(st.sampled_from([(), NEEDS_OPEN, NO_GSP, UNSUPPORTED, NO_BAR, REJECTED, xid(79), xid(119), UNSEEN])),
        torch_import=draw(st.sampled_from([None, BLIND, torch(available=False, error=UVM_ERROR), UNSEEN])),
    )


@settings(max_examples=400, deadline=None)
@given(machines())
def test_any_machine_whose_driver_is_dead_has_at_most_one_fault(given_facts: Facts) -> None:
    verdict = judge(given_facts)
    assert set(codes(verdict)) <= set(CHECK.codes)
    assert verdict.findings or verdict.unknown or verdict.status == "pass"
    answers = isinstance(given_facts.nvml, Nvml) and given_facts.nvml.error_code is None
    if not answers:
        assert len(verdict.findings) <= 1
    for finding in verdict.findings:
        steps.resolve(finding.fix)


@settings(max_examples=100, deadline=None)
@given(machines())
def test_any_fault_without_nvml_or_bus_is_told_only_from_what_was_seen(given_facts: Facts) -> None:
    unseen = replace(
        given_facts, nvml=UNSEEN, pci=UNSEEN, kernel=UNSEEN, driver=UNSEEN, torch_import=UNSEEN, kernel_log=UNSEEN, system=system()
    )
    assert judge(unseen).status == "unknown"


def test_a_cuda_version_that_no_driver_has_costs_no_time() -> None:
    well = facts()
    assert isinstance(well.nvml, Nvml)
    started = time.monotonic()
    verdict = judge(replace(well, nvml=replace(well.nvml, cuda_version=10**15)))
    assert "CUDA 1000000000000.0" in verdict.summary
    assert time.monotonic() - started < 1
