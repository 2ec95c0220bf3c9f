"""`muster resume` and `muster undo`: go on with a record, or take back what it did."""

from __future__ import annotations

import click

from muster.commands.restoring import stopping
from muster.invocation import Command, Exit, Invocation, described
from muster.verbs.replicate import tools_for
from muster.verbs.restore import declare_down as send_nothing
from muster.verbs.restore import request_of, teller
from muster.wiring import Wiring


@described(
    "muster resume last",
    "muster resume 20261122T0912 --format json",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS),
)
@click.command("resume", cls=Command)
@click.argument("record", default="last")
@click.option(
    "--declare-down", multiple=True, metavar="REGION", help="Send nothing to this region."
)
@click.pass_obj
def command(invocation: Invocation, record: str, declare_down: tuple[str, ...]) -> int:
    """Go on with RECORD after a crash, a stop, or a repaired cause.

    Steps that were begun are looked up first: what they made is adopted, not made twice. Regions
    that were declared down when it was planned stay so.
    """
    from muster.report.plan import document, outcome_lines
    from muster.report.progress import ProgressLine
    from snapshots.restore import resume
    from snapshots.steps import StepState

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        records = wiring.records()
        known = records.read(record)
        if known.plan.down:
            names = ", ".join(known.plan.down)
            invocation.say(f"declared down, as when it was planned: {names}")
        send_nothing(wiring, (*known.plan.down, *declare_down))
        request = request_of(wiring, known)
        tools = tools_for(wiring, known)
        with ProgressLine(invocation) as line, stopping(invocation) as stop:
            done = resume(request, tools, records, known.id, stop=stop, tell=teller(line.tell))
        if invocation.json:
            invocation.emit(
                document(
                    "resume",
                    done.record.plan,
                    record=done.record,
                    remaining=done.remaining,
                    seconds=done.seconds,
                    calls=done.calls,
                )
            )
        else:
            invocation.show(
                *outcome_lines(
                    done.record,
                    done.remaining,
                    stopped=done.stopped,
                    seconds=done.seconds,
                    calls=done.calls,
                )
            )
    if done.stopped:
        return Exit.INTERRUPTED
    states = {done.record.state(step.id) for step in done.record.plan.steps}
    whole = states <= {StepState.DONE, StepState.ADOPTED}
    return Exit.CLEAN if done.complete and whole else Exit.FINDINGS


@described(
    "muster undo last",
    "muster undo last --apply --yes",
    "muster undo 20261122T0912 --overwrite --apply",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS),
)
@click.command("undo", cls=Command)
@click.argument("record", default="last")
@click.option("--apply", "apply_", is_flag=True, help="Do it; without, only show what would be.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Take back also what somebody changed since: that change is lost.",
)
@click.pass_obj
def undo(invocation: Invocation, record: str, apply_: bool, yes: bool, overwrite: bool) -> int:
    """Take back what RECORD did, last first.

    What was made is deleted, what was changed is written back, what was deleted is made again.
    Each is read again first: what somebody changed since RECORD wrote it is left alone and told,
    and the exit code is 2.
    """
    from muster.report.plan import document
    from muster.report.progress import ProgressLine
    from muster.report.terminal import plural, text
    from snapshots.apply import left_behind, to_undo
    from snapshots.restore import take_back
    from snapshots.steps import StepState

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        records = wiring.records()
        known = records.read(record)
        steps = to_undo(known)
        if not apply_ or not steps:
            if invocation.json:
                invocation.emit(document("undo", known.plan, record=known))
            else:
                for step in steps:
                    action = step.undo.value if step.undo is not None else "nothing for"
                    invocation.show(text(f"{action} {step.key}  (was {step.action.value})"))
                    if left_behind(step):
                        invocation.show(text(f"    {left_behind(step)}", "yellow"))
                invocation.show(text(f"{plural(len(steps), 'step')} to take back", "bold"))
                if steps:
                    invocation.say("nothing was changed: --apply does it")
            return Exit.CLEAN
        if not invocation.confirm(f"take back {plural(len(steps), 'step')}?", yes=yes):
            invocation.warn("nothing was changed")
            return Exit.ERROR
        send_nothing(wiring, known.plan.down)
        tools = tools_for(wiring, known)
        with ProgressLine(invocation) as line, stopping(invocation) as stop:
            found = take_back(
                tools,
                records,
                known.id,
                threads=wiring.settings.restore.threads,
                stop=stop,
                tell=teller(line.tell),
                overwrite=lambda _step: overwrite,
            )
        left = [s for s in steps if found.state(s.id) is not StepState.UNDONE]
        if invocation.json:
            invocation.emit(document("undo", found.plan, record=found))
        else:
            for step in left:
                last = found.last(step.id)
                invocation.show(
                    text(f"not taken back: {step.key}: {last.error if last else ''}", "bold red")
                )
            for step in steps:
                if step not in left and left_behind(step):
                    invocation.show(text(f"{step.key}: {left_behind(step)}", "yellow"))
            done = len(steps) - len(left)
            invocation.show(text(f"{plural(done, 'step')} taken back", "bold"))
    if stop.is_set():
        return Exit.INTERRUPTED
    return Exit.FINDINGS if left else Exit.CLEAN
