"""Whether the GPU survives the next start: what ``check --next-boot`` shows as its last line, for whoever needs only that.

``gpudoctor setup`` asks it before it says "reboot". The facts are those of ``looking.look`` (all of them hold ``Facts.next_boot``),
taken after the last command that changed packages, modules or keys: ``no_import=True`` saves the seconds of the interpreter.
"""

from __future__ import annotations

from gpudoctor.diagnose import CheckResult, diagnose, on_request
from gpudoctor.facts import Facts

NAME = "next_boot"


def judged(facts: Facts) -> CheckResult:
    """The verdict on the next start alone, whatever else is wrong with the machine; raises nothing.

    Its ``status`` says what to do. fail: do not restart, cure ``findings`` in their order first. unknown: say what could not be
    seen (``summary``) and let the person decide. warn: a restart works, and a finding tells what to do before the next upgrade, or
    during the start (``next-boot-needs-confirmation``: somebody has to be at the machine's screen). skipped: the question does not
    arise here (a container, WSL, no driver). Unlike in a whole report nothing is left out because the driver's check says it too.
    """
    checks = [check for check in on_request() if check.name == NAME]
    return diagnose(facts, checks=checks).checks[0]
