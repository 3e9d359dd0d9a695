"""The plan as Markdown, for whoever may do what its reader may not: what to run, why, what it risks, how to see that it worked."""

from __future__ import annotations

from gpudoctor.facts import Facts
from gpudoctor.report.headline import headline
from gpudoctor.report.markdown import block, text
from gpudoctor.report.terminal import RISK, WHERE
from gpudoctor.setup.plan import Item, Plan

NO_RISK = "none that is known: nothing is removed, no service is restarted, nobody's programs end"


def render(facts: Facts, plan: Plan, root: str = "/") -> str:
    """A ticket with a heading for each section."""
    lines = ["## GPU of this machine: what has to be done", "", text(headline(facts)), ""]
    if root != "/":
        lines += [f"For the system below {text(root)}, not the one that runs: its steps are run there, by chroot.", ""]
    if plan.foreign is not None:
        lines += [text(plan.foreign), ""]
    if not plan.items:
        return "\n".join([*lines, "Nothing has to be done."]) + "\n"
    many = "s" if len(plan.items) > 1 else ""
    lines += [f"{len(plan.items)} step{many}, in this order. Written by gpudoctor; `gpudoctor explain CODE` tells more of each."]
    for number, item in enumerate(plan.items, 1):
        lines += ["", *_item(number, item)]
    return "\n".join(lines) + "\n"


def _item(number: int, item: Item) -> list[str]:
    step, fields = item.step, item.section.fields
    code = f" (`{item.code}`)" if item.code else ""
    lines = [f"### {number}. {text(item.why)}{code}", ""]
    if item.cause:
        lines += [f"**Why:** {text(item.cause)}", ""]
    root = "root is needed" if step.needs_root else "no root is needed"
    risk = RISK.get(step.risk, step.risk) or NO_RISK
    lines += [f"**Where:** {text(WHERE.get(step.where, step.where))}; {root}", "", f"**Risk:** {text(risk)}", ""]
    if step.prose:
        lines += [f"**What to do:** {text(step.prose)}", ""]
    if step.commands:
        lines += ["**Run**, one line at a time:", "", *block(step.commands), ""]
    if step.verify:
        after = " after the restart" if step.needs_reboot else ""
        lines += [f"**Verify**{after}:", "", *block(step.verify), ""]
    undo = fields.get("undo", "" if step.undo else "not needed.")
    if step.undo:
        lines += ["**To take it back**:", "", *block(step.undo), *(["", text(undo)] if undo else [])]
    else:
        lines += [f"**To take it back:** {text(undo)}"]
    if fields.get("source"):
        lines += ["", f"**Source:** {text(fields['source'])}"]
    return lines
