"""The engine: order, what blocks what, and a check that crashes."""

from __future__ import annotations

from dataclasses import replace

from gpudoctor.diagnose import diagnose
from gpudoctor.facts import Facts
from gpudoctor.findings import Check, Evidence, Finding, Fix, Severity, Verdict


def finding(code: str, *, severity: Severity = "fail", stands_alone: bool = False) -> Finding:
    return Finding(code, severity, "summary", "cause", (Evidence("here", "this"),), Fix("gpudoctor#report-a-bug"), stands_alone)


def check(name: str, verdict: Verdict | Exception, *needs: str) -> Check:
    def judge(_facts: Facts, _required: bool) -> Verdict:
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    return Check(name, name, needs, (), judge)


WELL = Verdict("fine")


def test_all_well_is_a_pass_without_a_word() -> None:
    diagnosis = diagnose(Facts(), checks=[check("driver", WELL), check("vram", WELL, "driver")])
    assert (diagnosis.status, diagnosis.root_causes, diagnosis.findings) == ("pass", (), ())


def test_what_is_downstream_of_a_fault_is_blocked_by_it_and_not_a_second_alarm() -> None:
    checks = [check("driver", Verdict("dead", (finding("dead"),))), check("vram", Verdict("low", (finding("low"),)), "driver")]
    diagnosis = diagnose(Facts(), checks=checks)
    assert diagnosis.root_causes == ("dead",)
    assert (diagnosis.checks[1].status, diagnosis.checks[1].blocked_by) == ("blocked", "dead")


def test_a_fault_that_stands_alone_is_the_second_root_cause() -> None:
    own = Verdict("cpu build", (finding("cpu", stands_alone=True), finding("no-gpu-seen")))
    diagnosis = diagnose(Facts(), checks=[check("driver", Verdict("dead", (finding("dead"),))), check("torch", own, "driver")])
    assert diagnosis.root_causes == ("dead", "cpu")
    assert diagnosis.checks[1].status == "fail"


def test_a_fault_beside_a_layer_does_not_block_what_needs_the_layer() -> None:
    beside = replace(finding("torchvision-mismatch"), blocks=False)
    checks = [check("torch", Verdict("of another", (beside,))), check("cudnn", WELL, "torch")]
    diagnosis = diagnose(Facts(), checks=checks)
    assert diagnosis.root_causes == ("torchvision-mismatch",)
    assert (diagnosis.checks[1].status, diagnosis.checks[1].blocked_by) == ("pass", None)


def test_a_block_passes_through_a_blocked_check() -> None:
    checks = [
        check("driver", Verdict("dead", (finding("dead"),))),
        check("torch", WELL, "driver"),
        check("nccl", WELL, "torch"),
    ]
    assert diagnose(Facts(), checks=checks).checks[2].blocked_by == "dead"


def test_the_order_of_display_may_differ_from_the_order_of_need() -> None:
    checks = [check("cudnn", WELL, "torch"), check("torch", Verdict("bad", (finding("bad"),)))]
    diagnosis = diagnose(Facts(), checks=checks)
    assert [c.name for c in diagnosis.checks] == ["cudnn", "torch"]
    assert diagnosis.checks[0].blocked_by == "bad"


def test_unknown_is_not_healthy_and_a_fault_beside_it_is_a_fault() -> None:
    unknown = check("driver", Verdict("not known", unknown=("NVML",)))
    assert diagnose(Facts(), checks=[unknown]).status == "unknown"
    assert diagnose(Facts(), checks=[unknown, check("x", Verdict("bad", (finding("bad"),)))]).status == "fail"


def test_no_check_at_all_is_no_verdict() -> None:
    assert diagnose(Facts(), checks=[]).status == "unknown"


def test_a_crashing_check_is_a_finding_and_the_others_go_on() -> None:
    diagnosis = diagnose(Facts(), checks=[check("driver", RuntimeError("boom")), check("vram", WELL)])
    assert diagnosis.status == "unknown"
    assert [f.code for f in diagnosis.findings] == ["check-crashed"]
    assert diagnosis.checks[1].status == "pass"


def test_warnings_and_notes_do_not_block() -> None:
    checks = [check("driver", Verdict("hot", (finding("hot", severity="warn"),))), check("vram", WELL, "driver")]
    diagnosis = diagnose(Facts(), checks=checks)
    assert (diagnosis.status, diagnosis.root_causes, diagnosis.checks[1].status) == ("warn", (), "pass")


SAME = replace(finding("no-module-next"), same_as=("no-module",))


def test_what_an_earlier_check_has_told_is_not_told_again() -> None:
    faulty = [check("driver", Verdict("dead", (finding("no-module"),))), check("next", Verdict("dead then", (SAME,)))]
    diagnosis = diagnose(Facts(), checks=faulty)
    assert diagnosis.root_causes == ("no-module",)
    assert (diagnosis.checks[1].status, diagnosis.checks[1].blocked_by) == ("blocked", "no-module")
    assert diagnosis.checks[1].summary == "blocked by no-module"


def test_what_nobody_has_told_yet_is_told() -> None:
    diagnosis = diagnose(Facts(), checks=[check("driver", WELL), check("next", Verdict("dead then", (SAME,)))])
    assert diagnosis.root_causes == ("no-module-next",)


def test_another_fault_beside_one_that_is_told_already_stays() -> None:
    both = Verdict("dead then", (SAME, replace(finding("no-disk"), summary="no disk")))
    diagnosis = diagnose(Facts(), checks=[check("driver", Verdict("dead", (finding("no-module"),))), check("next", both)])
    assert diagnosis.root_causes == ("no-module", "no-disk")
    assert (diagnosis.checks[1].status, diagnosis.checks[1].summary) == ("fail", "no disk")
