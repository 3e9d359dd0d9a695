"""Whether the GPU survives the next start: facts in, findings out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudoctor import codec, steps
from gpudoctor.cures import steps_for
from gpudoctor.diagnose import CheckResult, diagnose
from gpudoctor.facts import ConfigLine, Facts, NextBoot, Package, Unknown
from gpudoctor.findings import Finding
from gpudoctor.next_boot import judged
from tests.driver_facts import (
    APT,
    HERE,
    KEY,
    LIBRARIES,
    NEXT,
    OLD,
    driver,
    facts,
    image,
    kernel,
    library,
    package,
    refused,
    system,
    torch,
)

CANNOT = Unknown("nobody could look")
META = package("linux-generic-hwe-22.04", "6.2.0.26.26")
BOOT = NextBoot(HERE, "first", None, f"/boot/initrd.img-{HERE}", needs_initrd=True, newer_settings=())
DKMS = (package("nvidia-dkms-535"), package("libnvidia-compute-535"), META)
BUILT: dict[str, Any] = {"module_path": f"/lib/modules/{HERE}/updates/dkms/nvidia.ko", "module_signer": None, "module_key": None}


def machine(*packages: Package, boot: NextBoot | Unknown = BOOT, **changes: Any) -> Facts:
    return facts(**{"driver": driver(packages=packages or (*APT, META)), "next_boot": boot, **changes})


def codes(seen: Facts) -> list[str]:
    return [finding.code for finding in judged(seen).findings]


def the_one(seen: Facts) -> Finding:
    (finding,) = judged(seen).findings
    return finding


def values(finding: Finding) -> dict[str, str]:
    return dict(finding.fix.values)


def held(*packages: Package) -> tuple[Package, ...]:
    return tuple(replace(package, held=True) for package in packages)


def test_all_well_is_one_line() -> None:
    result = judged(machine())
    assert (result.name, result.title, result.status, result.findings) == ("next_boot", "next boot", "pass", ())
    assert result.summary == f"{HERE} boots next: module {OLD}, signed by Canonical, equal to the libraries; metapackages follow"


def test_it_is_shown_only_when_asked_for() -> None:
    assert "next_boot" not in [check.name for check in diagnose(machine()).checks]
    assert diagnose(machine(), also=("next_boot",)).checks[7].name == "next_boot"


@pytest.mark.parametrize(
    ("by", "words"), [("fixed", "boots next (GRUB_DEFAULT)"), ("saved", "saved in GRUB"), ("once", "this once (grub-reboot)")]
)
def test_the_line_says_who_chose_the_kernel(by: str, words: str) -> None:
    assert words in judged(machine(boot=replace(BOOT, chosen_by=by))).summary


# ---------------------------------------------------------------- where it is not asked


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (machine(system=system(wsl=2)), "in WSL"),
        (machine(system=system(container="docker")), "in a container"),
        (machine(system=system(platform="jetson")), "on a Jetson"),
        (machine(pci=(), nvml=CANNOT), "without an NVIDIA GPU"),
        (
            machine(driver=driver(packages=(META,), libraries=()), kernel=kernel(image(module_path=None, module_version=None))),
            "without an NVIDIA driver",
        ),
    ],
)
def test_where_the_question_does_not_arise_one_line_says_so(seen: Facts, words: str) -> None:
    result = judged(seen)
    assert (result.status, result.findings) == ("skipped", ())
    assert words in result.summary


# ---------------------------------------------------------------- unknown is no pass, and no alarm


UNKNOWN: dict[str, Facts] = {
    "next_boot": machine(boot=CANNOT),
    "kernel": machine(boot=replace(BOOT, kernel=CANNOT)),
    "initrd": machine(boot=replace(BOOT, initrd=CANNOT)),
    "needs_initrd": machine(boot=replace(BOOT, initrd=None, needs_initrd=CANNOT)),
    "newer_settings": machine(boot=replace(BOOT, newer_settings=CANNOT)),
    "images": machine(kernel=kernel(images=CANNOT)),
    "no folder": machine(boot=replace(BOOT, kernel=NEXT)),
    "module_version": machine(kernel=kernel(image(module_version=CANNOT))),
    "libraries": machine(driver=driver(packages=(*APT, META), libraries=CANNOT)),
    "packages": machine(driver=driver(packages=CANNOT)),
    "driver": machine(driver=CANNOT),
    "signer": machine(kernel=kernel(image(module_signer=CANNOT), secure_boot=True)),
    "secure_boot": machine(kernel=kernel(image(module_signer="box"), secure_boot=CANNOT)),
    "enrolled_keys": machine(kernel=kernel(image(module_signer="box"), secure_boot=True, enrolled_keys=CANNOT)),
    "mok_pending": machine(kernel=kernel(image(module_signer="box"), secure_boot=True, mok_pending=CANNOT)),
}


@pytest.mark.parametrize("fact", UNKNOWN)
def test_what_cannot_be_known_is_unknown(fact: str) -> None:
    result = judged(UNKNOWN[fact])
    assert (result.status, result.findings) == ("unknown", ())


def test_a_report_of_an_older_gpudoctor_is_read_and_leaves_it_unknown() -> None:
    saved = codec.to_json(machine())
    assert judged(codec.from_json(Facts, saved)).status == "pass"
    del saved["next_boot"]
    assert judged(codec.from_json(Facts, saved)).status == "unknown"


# ---------------------------------------------------------------- the module


def test_a_kernel_without_a_module_gets_one_of_its_own_flavour() -> None:
    ga = image(release="5.15.0-91-generic", running=False, newest=True, module_path=None, module_version=None)
    generic = package("linux-image-generic", "5.15.0.91.88")
    seen = machine(*APT, META, generic, kernel=kernel(image(newest=False), ga), boot=replace(BOOT, kernel=ga.release))
    found = the_one(seen)
    assert (found.code, found.severity, found.fix.step) == (
        "next-boot-without-module",
        "fail",
        "kernel-modules#install-prebuilt-module",
    )
    assert values(found) == {"BRANCH": "535", "FLAVOUR": "generic", "KERNEL": ga.release}


def test_what_the_drivers_check_says_of_the_running_kernel_is_said_once() -> None:
    bare = kernel(image(module_path=None, module_version=None), loaded=())
    there = driver(packages=(*APT, META), module_version=None)
    seen = machine(kernel=bare, driver=there, nvml=refused(9), torch_import=torch(available=False))
    assert codes(seen) == ["next-boot-without-module"]
    diagnosis = diagnose(seen, also=("next_boot",))
    assert "next-boot-without-module" not in diagnosis.root_causes
    last = diagnosis.checks[7]
    assert (last.status, last.blocked_by) == ("blocked", "kernel-module-missing-for-kernel")


@pytest.mark.parametrize("signer", [None, "box Secure Boot Module Signature key"])
def test_a_key_that_waits_helps_only_what_is_signed(signer: str | None) -> None:
    built = image(**{**BUILT, "module_signer": signer, "module_key": "11:22"})
    seen = machine(*DKMS, kernel=kernel(built, secure_boot=True, mok_pending=True))
    assert codes(seen) == ["next-boot-needs-confirmation" if signer else "next-boot-module-untrusted"]


def test_an_enrolled_key_is_trusted() -> None:
    seen = machine(*DKMS, kernel=kernel(image(**{**BUILT, "module_signer": "box", "module_key": KEY}), secure_boot=True))
    assert judged(seen).summary.endswith("signed by an enrolled key, equal to the libraries; headers and metapackages follow")


def test_a_second_copy_of_the_library_is_another_affair() -> None:
    copies = (library("libnvidia-ml.so.1", "550.54.14", path="/opt/old/libnvidia-ml.so.1"), library("libnvidia-ml.so.1"))
    assert codes(machine(driver=driver(packages=(*APT, META), libraries=copies))) == []


def test_libraries_of_another_version() -> None:
    seen = machine(driver=driver(packages=(*APT, META), libraries=(library("libnvidia-ml.so.1", "535.183.01"),)))
    found = the_one(seen)
    assert found.code == "next-boot-version-differs"
    assert [evidence.text for evidence in found.evidence] == [OLD, "535.183.01"]
    assert found.evidence[1].source.startswith(LIBRARIES)


# ---------------------------------------------------------------- upgrades


@pytest.mark.parametrize(
    ("packages", "follows"),
    [
        ((*APT, META), True),
        ((*APT, package("linux-image-virtual-hwe-22.04", "6.2.0.26.26")), True),
        (APT, True),  # nothing moves the kernel
        ((*APT[:2], META), False),
        ((*APT[:2], META, package("linux-modules-nvidia-535-6.2.0-26-generic", "6.2.0-26.26")), False),
        ((*APT[:2], META, package("linux-modules-nvidia-535-open-generic-hwe-22.04", "6.2.0-26.26")), True),
        ((*APT[:2], *held(META)), True),
        ((*APT[:2], META, package("nvidia-dkms-535")), True),  # DKMS builds for the kernel that has no prebuilt one
        ((*APT, package("linux-generic", "5.15.0.91.88"), META), True),
    ],
)
def test_whether_the_module_follows_the_kernel(packages: tuple[Package, ...], follows: bool) -> None:
    assert ("module-does-not-follow-kernel" not in codes(machine(*packages))) is follows


@pytest.mark.parametrize(
    ("packages", "follows"),
    [
        (DKMS, True),
        ((*DKMS[:2], package("linux-image-generic-hwe-22.04", "6.2.0.26.26")), False),
        ((*DKMS[:2], package("linux-image-generic-hwe-22.04", "6.2.0.26.26"), package("linux-headers-generic-hwe-22.04")), True),
        ((*DKMS[:2], package("linux-image-generic-hwe-22.04", "6.2.0.26.26"), package("linux-headers-6.2.0-26-generic")), False),
    ],
)
def test_whether_the_headers_follow_the_kernel(packages: tuple[Package, ...], follows: bool) -> None:
    assert codes(machine(*packages, kernel=kernel(image(**BUILT)))) == ([] if follows else ["module-does-not-follow-kernel"])


def test_missing_headers_are_said_once_with_their_metapackage() -> None:
    bare = (*DKMS[:2], package("linux-image-generic-hwe-22.04", "6.2.0.26.26"))
    found = the_one(machine(*bare, kernel=kernel(image(**BUILT, headers=False))))
    assert (found.code, found.fix.step) == ("next-boot-without-headers", "kernel-modules#install-headers")
    assert values(found) == {"KERNEL": HERE, "FLAVOUR": "generic-hwe-22.04"}


def test_the_runfile_driver_follows_nothing() -> None:
    there = driver(packages=(META,), runfile=True)
    installed = image(module_path=f"/lib/modules/{HERE}/kernel/drivers/video/nvidia.ko", module_signer=None)
    found = the_one(machine(driver=there, kernel=kernel(installed)))
    assert (found.code, found.fix.step) == ("module-does-not-follow-kernel", "driver#remove-runfile-driver")


# ---------------------------------------------------------------- holds


DRIVER, LIBRARY, MODULES = APT
ONE_KERNEL = package("linux-modules-nvidia-535-6.2.0-26-generic", "6.2.0-26.26")


@pytest.mark.parametrize(
    ("packages", "whole"),
    [
        ((*held(*APT), *held(META)), True),
        ((*held(*APT), META, *held(package("linux-image-generic-hwe-22.04", "6.2.0.26.26"))), True),
        ((*held(*APT), *held(META), ONE_KERNEL), True),
        ((*APT, *held(package("nvidia-container-toolkit", "1.14.3-1")), META), True),
        ((*held(*APT), META), False),  # the next kernel has no module
        ((*APT, *held(META)), False),  # libraries move, the held kernel's module does not
        ((*held(DRIVER), LIBRARY, MODULES, META), False),
        ((DRIVER, *held(LIBRARY), MODULES, META), False),
        ((*held(*APT), package("libnvidia-gl-535"), *held(META)), False),
        ((*held(*APT), package("nvidia-fabricmanager-535"), package("libnvidia-gl-470", "470.256.02-0ubuntu0"), *held(META)), True),
        ((*held(*APT), package("libnvidia-compute-535"), *held(META)), True),  # the same for a second architecture
    ],
)
def test_a_hold_is_whole_or_it_is_none(packages: tuple[Package, ...], whole: bool) -> None:
    assert codes(machine(*packages)) == ([] if whole else ["hold-incomplete"])


@pytest.mark.parametrize(
    ("packages", "whole"),
    [((*held(*DKMS[:2]), META), True), ((*DKMS[:2], *held(META)), True), ((*held(DKMS[0]), *DKMS[1:]), False)],
)
def test_where_dkms_builds_the_module_the_kernel_is_no_part_of_the_set(packages: tuple[Package, ...], whole: bool) -> None:
    assert codes(machine(*packages, kernel=kernel(image(**BUILT)))) == ([] if whole else ["hold-incomplete"])


# ---------------------------------------------------------------- the initial RAM disk


@pytest.mark.parametrize(("needed", "expected"), [(True, ["next-boot-without-initramfs"]), (False, [])])
def test_a_missing_disk_counts_where_the_machine_starts_with_one(needed: bool, expected: list[str]) -> None:
    assert codes(machine(boot=replace(BOOT, initrd=None, needs_initrd=needed))) == expected


def test_settings_that_the_disk_does_not_know() -> None:
    found = the_one(machine(boot=replace(BOOT, newer_settings=(ConfigLine("/etc/modprobe.d/a.conf", "blacklist nouveau"),))))
    assert (found.code, found.severity) == ("initramfs-older-than-settings", "warn")


# ---------------------------------------------------------------- the driver's own advice


def test_advice_about_a_mismatch_goes_by_the_kernel_that_grub_starts() -> None:
    bare = image(release=NEXT, running=False, newest=False, module_path=None, module_version=None)
    two = kernel(image(), bare)
    differ = driver(libraries=(library("libnvidia-ml.so.1", "535.183.01"),))
    chosen = replace(BOOT, kernel=NEXT, chosen_by="saved")
    said = [diagnose(facts(kernel=two, driver=differ, nvml=CANNOT, torch_import=None, next_boot=boot)) for boot in (CANNOT, chosen)]
    assert [NEXT in diagnosis.findings[0].cause for diagnosis in said] == [False, True]


# ---------------------------------------------------------------- any facts


NAMES = (
    *("linux-", "linux-image-", "linux-generic", "linux-generic-hwe-22.04", "linux-image-virtual", "linux-headers-generic", "-"),
    *("nvidia-driver-535", "libnvidia-compute-535", "nvidia-dkms-535", "nvidia-open"),
    *("linux-modules-nvidia-535-generic", "linux-modules-nvidia-535-"),
)
RELEASES = (HERE, NEXT, "6.1.0-13-amd64", "6.9.3", "-", "a-b-c-d", "6.9.3-060903-generic")
MAYBE = st.sampled_from([None, CANNOT, "535.86.10", "Canonical Ltd.", "box", "\x1b[31m", ""])
PACKAGES = st.builds(
    Package, st.sampled_from(NAMES), st.sampled_from([OLD, "6.2.0.26.26", ""]), st.booleans(), st.just("installed")
)
BOOTS = st.builds(
    NextBoot,
    st.sampled_from([*RELEASES, CANNOT]),
    st.sampled_from(["first", "fixed", "once", "?"]),
    st.sampled_from([None, ConfigLine("", "")]),
    MAYBE,
    st.sampled_from([True, False, CANNOT]),
    st.sampled_from([CANNOT, (), (ConfigLine("/etc/modprobe.d/a.conf", "x"),)]),
)


@st.composite
def anything(draw: st.DrawFn) -> Facts:
    images = [
        image(
            release=release,
            running=draw(st.booleans()),
            newest=draw(st.booleans()),
            headers=draw(st.booleans()),
            module_path=draw(st.sampled_from([None, "/kernel/nvidia-535/nvidia.ko", "/updates/dkms/nvidia.ko"])),
            **{name: draw(MAYBE) for name in ("module_version", "module_signer", "module_key")},
        )
        for release in RELEASES
    ]
    trust = {name: draw(st.sampled_from([True, False, CANNOT])) for name in ("secure_boot", "mok_pending")}
    packages = tuple(draw(st.lists(PACKAGES, max_size=6)))
    libraries = draw(st.sampled_from([CANNOT, (), (library("libnvidia-ml.so.1"),), (library("libnvidia-ml.so.1", None),)]))
    there = driver(packages=draw(st.sampled_from([packages, CANNOT])), libraries=libraries, runfile=draw(st.booleans()))
    platform = draw(st.sampled_from([None, "dgx"]))
    return machine(boot=draw(BOOTS), driver=there, kernel=kernel(*images, **trust), system=system(platform=platform))


@settings(deadline=None, max_examples=300)
@given(seen=anything())
def test_any_facts_give_a_verdict_and_every_finding_a_cure(seen: Facts) -> None:
    result: CheckResult = judged(seen)
    assert [finding.evidence for finding in result.findings if finding.code == "check-crashed"] == []
    assert result.summary
    for finding, step in steps_for(seen, result.findings).items():
        assert finding.code in steps.find(step.step).cures
        assert not [line for line in step.commands if any(name in line for name in ('"$BRANCH', '"$KERNEL', '"$KEYFILE'))]
