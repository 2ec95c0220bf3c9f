"""`muster restore` and `muster plan`: from a snapshot back to a working estate."""

from __future__ import annotations

from dataclasses import replace

import click

from muster.commands.restoring import approved, stopping, target_options
from muster.invocation import Command, Exit, Invocation, described
from muster.verbs.restore import (
    cloud_for,
    planned_code,
    refused,
    request_for,
    save_plan,
    teller,
)
from muster.verbs.restore import declare_down as send_nothing
from muster.via import RESTORE, via
from muster.wiring import Wiring


@via(RESTORE)
@described(
    "muster restore",
    "muster restore latest --only deployment/gpt4o --apply",
    "muster restore latest --to standby --declare-down swedencentral --apply --yes --approve 42",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS, Exit.INCOMPLETE),
)
@click.command("restore", cls=Command)
@target_options
@click.option("--dry-run", is_flag=True, help="Only show the plan (what happens anyway).")
@click.option("--apply", "apply_", is_flag=True, help="Do what the plan says.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--approve",
    type=int,
    metavar="N",
    help="The number of steps, for a plan of more than [restore] max_steps.",
)
@click.option("--save", type=click.Path(dir_okay=False), help="Write the plan to this file too.")
@click.pass_obj
def command(
    invocation: Invocation,
    snapshot: str,
    to: str,
    pair: str | None,
    only: tuple[str, ...],
    prune: bool,
    on_conflict: str,
    retrain: bool,
    declare_down: tuple[str, ...],
    dry_run: bool,
    apply_: bool,
    yes: bool,
    approve: int | None,
    save: str | None,
) -> int:
    """Bring SNAPSHOT back: a single resource or a whole estate, in place or elsewhere.

    Shows the plan; --apply does it, after asking. Everything that would stop it half way is asked
    beforehand: a gate that does not open ends it with exit code 1, and nothing was changed.
    Afterwards the target is taken again: exit code 0 means that no change is left, 2 that some is.
    Without --apply, 2 means that a gate is closed, 3 that something could not be read, so that the
    plan is not whole.
    """
    if dry_run and apply_:
        raise click.UsageError("--dry-run and --apply exclude each other")
    return _run(
        invocation,
        "restore",
        (snapshot, to, pair, only, prune, on_conflict, retrain),
        declare_down,
        apply_=apply_,
        yes=yes,
        approve=approve,
        save=save,
    )


@described(
    "muster plan",
    "muster plan latest --to standby",
    "muster plan 2026-11-21 --only 'agent/*' --format json",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS, Exit.INCOMPLETE),
)
@click.command("plan", cls=Command)
@target_options
@click.option("--save", type=click.Path(dir_okay=False), help="Write the plan to this file too.")
@click.pass_obj
def plan(
    invocation: Invocation,
    snapshot: str,
    to: str,
    pair: str | None,
    only: tuple[str, ...],
    prune: bool,
    on_conflict: str,
    retrain: bool,
    declare_down: tuple[str, ...],
    save: str | None,
) -> int:
    """Show what a restore of SNAPSHOT would do, in which order, how long it takes; change nothing.

    Also what is different on purpose, what cannot come back and why, and the gates that would stop
    it: then the exit code is 2, and 3 where something could not be read.
    """
    return _run(
        invocation,
        "plan",
        (snapshot, to, pair, only, prune, on_conflict, retrain),
        declare_down,
        apply_=False,
        yes=False,
        approve=None,
        save=save,
    )


def _run(
    invocation: Invocation,
    name: str,
    what: tuple[str, str, str | None, tuple[str, ...], bool, str, bool],
    down: tuple[str, ...],
    *,
    apply_: bool,
    yes: bool,
    approve: int | None,
    save: str | None,
) -> int:
    from muster.report.plan import document, gate_lines, outcome_lines, plan_lines
    from muster.report.progress import ProgressLine
    from snapshots.restore import execute, gates, prepare

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        send_nothing(wiring, down)
        request = request_for(wiring, *what)
        if request.snapshot.gaps:
            invocation.warn(
                f"the snapshot has {len(request.snapshot.gaps)} gaps: what they hid is not "
                f"restored; {_newest_whole(wiring)}"
            )
        with ProgressLine(invocation) as line:
            tools = wiring.restore_tools(
                lambda p: line.tell(f"looking: {p.kind}, {p.done} of {p.total} listings")
            )
            tools = replace(tools, cloud=cloud_for(wiring, request.mapping))
            prepared = prepare(request, tools)
            asked = gates(prepared, tools)
        save_plan(prepared.plan, save)
        closed = refused(asked)
        if not apply_ or closed or prepared.plan.is_empty:
            if invocation.json:
                invocation.emit(document(name, prepared.plan, gates=asked))
            else:
                invocation.show(*plan_lines(prepared.plan), *gate_lines(asked))
                if not apply_ and not closed and not prepared.plan.is_empty and name == "restore":
                    invocation.say("nothing was changed: --apply does it")
            if closed and apply_:
                invocation.warn("a gate did not open: nothing was changed")
            return planned_code(prepared.plan, asked, apply=apply_)
        if not invocation.json:
            invocation.show(*plan_lines(prepared.plan))
        most = wiring.settings.restore.max_steps
        if not approved(invocation, prepared.plan, yes=yes, approve=approve, most=most):
            invocation.warn("nothing was changed")
            return Exit.ERROR
        with ProgressLine(invocation) as line, stopping(invocation) as stop:
            done = execute(prepared, tools, wiring.records(), stop=stop, tell=teller(line.tell))
        shown = document(
            name,
            done.record.plan,
            record=done.record,
            remaining=done.remaining,
            gates=asked,
            seconds=done.seconds,
            calls=done.calls,
        )
        invocation.observe("restore", lambda: shown)
        if invocation.json:
            invocation.emit(shown)
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
    return Exit.CLEAN if done.complete else Exit.FINDINGS


def _newest_whole(wiring: Wiring) -> str:
    """Name the newest snapshot without gaps: one of an outage has some, and hides what is lost."""
    for entry in wiring.ledger().log():
        if entry.snapshot and not entry.number("Gaps"):
            return f"the newest without is {entry.commit[:12]} of {entry.taken_at:%Y-%m-%d %H:%M}Z"
    return "there is none without"
