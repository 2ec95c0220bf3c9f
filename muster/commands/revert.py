"""`muster revert`: undo findings, dry by default."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring

if TYPE_CHECKING:
    from snapshots.audit.revert import Prepared, Reverted
    from snapshots.model import Change, Json, JsonObject


@described(
    "muster revert 3edebff5988f",
    "muster revert 3edebff5988f --apply --reason 'nobody planned this' --yes",
    "muster revert 3edebff5988f --path /sku/capacity --apply --reason 'too small'",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS, Exit.INCOMPLETE),
)
@click.command("revert", cls=Command)
@click.argument("findings", nargs=-1, required=True, metavar="FINDING…")
@click.option("--apply", "act", is_flag=True, help="Do it; without this it is only shown.")
@click.option("--reason", default="", metavar="TEXT", help="Why; needed with --apply.")
@click.option(
    "--path",
    "paths",
    multiple=True,
    metavar="POINTER",
    help="Only this property (/sku/capacity); may be repeated.",
)
@click.option(
    "--cap",
    type=click.IntRange(min=1),
    metavar="N",
    help="The most findings this run may undo (default: [audit] cap, 10).",
)
@click.option("--yes", is_flag=True, help="Do not ask (for scripts).")
@click.option("--by", metavar="NAME", help="Who decides (default: git's user.email).")
@click.pass_obj
def command(
    invocation: Invocation,
    findings: tuple[str, ...],
    act: bool,
    reason: str,
    paths: tuple[str, ...],
    cap: int | None,
    yes: bool,
    by: str | None,
) -> int:
    """Set what was found back to the baseline, property by property.

    Dry by default; --apply acts, and asks first unless --yes is given.

    Live state is read again first: what is no more as it was reported is left alone and named
    (exit code 2). Writes go one at a time for each account, and are read again afterwards. Nothing
    is reverted inside a deny window, while a restore or drill is open, or after three reverts of
    the same thing in 24 hours.
    """
    from muster import __version__
    from muster.commands.deciding import chosen, decider, latest, reported
    from snapshots.audit.planned import load_plans
    from snapshots.audit.revert import Reader, carry_out, in_the_way, prepare
    from snapshots.audit.texts import sound
    from snapshots.errors import InputError, RefusedError

    who, reason = decider(by), sound(reason)
    if act and not reason.strip():
        raise InputError("a revert needs a reason", remedy="add --reason TEXT")
    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        ledger, vault = wiring.ledger(), wiring.vault()
        picked = chosen(reported(ledger, wiring.clock.now()), findings)
        records = wiring.records()
        reader = Reader(
            estate=wiring.settings.estate.name,
            scopes=wiring.scopes(),
            cloud=wiring.cloud(),
            fingerprints=wiring.fingerprints(),
            clock=wiring.clock,
            version=__version__,
            options=wiring.take_options(),
        )
        prepared = prepare(
            ledger,
            reader,
            picked,
            ledger.load(str(latest(ledger).get("live"))),
            load_plans(ledger),
            baseline=ledger.resolve("baseline"),
            paths=paths,
            cap=cap if cap is not None else wiring.settings.audit.cap,
            busy=in_the_way(records, wiring.busy()),
            secrets=wiring.settings.restore.secrets,
        )
        done = None
        if act and not prepared.plan.is_empty:
            question = f"Make {len(prepared.plan.steps)} writes in Azure?"
            if not invocation.confirm(question, yes=yes):
                raise RefusedError(
                    "nothing was reverted: nobody agreed to it", remedy="answer y, or add --yes"
                )
            done = carry_out(
                ledger,
                reader,
                wiring.cloud(),
                prepared,
                records,
                vault,
                by=who,
                reason=reason,
                secret=wiring.secret,
            )
    if invocation.json:
        invocation.emit(document(prepared, done))
    else:
        show(invocation, prepared, done)
    return exit_code(prepared, done)


def exit_code(prepared: Prepared, done: Reverted | None) -> int:
    """Give 3 for what could not be read again, 2 for what was left alone or still differs."""
    if done is not None and done.unread:
        return Exit.INCOMPLETE
    left = any(not item.done for item in prepared.left)
    lost = bool(prepared.plan.not_restorable)
    return Exit.FINDINGS if left or lost or (done is not None and done.differs) else Exit.CLEAN


def show(invocation: Invocation, prepared: Prepared, done: Reverted | None) -> None:
    """Tell people what would be done, or what was."""
    from muster.report.audit_text import text, value
    from muster.report.terminal import plural

    for choice in prepared.chosen:
        finding = choice.finding
        invocation.show(text(f"{finding.id}  {finding.key}: {finding.undo}", "bold"))
        for change in choice.changes:
            for path in change.paths:
                invocation.show(
                    text(f"    {path.path}: {value(path.before)} -> {value(path.after)}")
                )
    for step in prepared.plan.steps:
        for question in step.questions:
            if not question.answer:
                needs = (
                    f"needs {question.what}: say where it is in [restore.secrets] of muster.toml"
                )
                invocation.show(text(f"{step.key} {needs}", "yellow"))
    for lost in prepared.plan.not_restorable:
        invocation.show(text(f"cannot come back: {lost.key}: {lost.sentence}", "yellow"))
    for item in prepared.left:
        style = "" if item.done else "yellow"
        invocation.show(
            text(f"left alone: {item.finding.id}  {item.finding.key}: {item.why}", style)
        )
    steps = plural(len(prepared.plan.steps), "write")
    if done is None:
        if not prepared.plan.is_empty:
            invocation.show(text(f"{steps} would be made; add --apply --reason TEXT to make them"))
        return
    for name in done.verified:
        invocation.show(text(f"{name} is as in the baseline again: read and compared", "green"))
    for name, paths in done.differs.items():
        places = ", ".join(path.path or "/" for path in paths[:5])
        invocation.show(text(f"{name} still differs: {places}", "bold red"))
    for outcome in done.record.outcomes:
        if outcome.error:
            invocation.show(text(f"    {outcome.step}: {outcome.error}  {outcome.remedy}", "red"))
    for name in done.unread:
        invocation.show(text(f"{name} could not be read afterwards", "bold red"))
    invocation.show(text(f"  record {done.record.id}: {steps}; `muster undo` takes it back"))


def document(prepared: Prepared, done: Reverted | None) -> JsonObject:
    """Give the result for machines."""
    return {
        "schema": "muster/revert/1",
        "applied": done is not None,
        "reverts": [
            {
                "finding": choice.finding.id,
                "key": str(choice.finding.key),
                "change": choice.finding.change.value,
                "paths": _paths(choice.changes),
                "verified": done is not None and choice.finding.id in done.verified,
                "differs": [
                    path.path for path in (done.differs.get(choice.finding.id, ()) if done else ())
                ],
            }
            for choice in prepared.chosen
        ],
        "left": [
            {
                "finding": item.finding.id,
                "key": str(item.finding.key),
                "why": item.why,
                "done": item.done,
            }
            for item in prepared.left
        ],
        "writes": len(prepared.plan.steps),
        "record": None if done is None else done.record.id,
        "errors": [] if done is None else [o.error for o in done.record.outcomes if o.error],
        "evidence": None if done is None else done.commit,
    }


def _paths(changes: Iterable[Change]) -> list[Json]:
    from muster.report.documents import path

    return [path(p) for change in changes for p in change.paths]
