"""`muster prune`: let old snapshots go."""

from __future__ import annotations

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.settings import RetentionSettings
from muster.wiring import Wiring


@described(
    "muster prune",
    "muster prune --daily 14 --monthly 24",
    "muster prune --apply",
    "muster prune --apply --yes --format json",
)
@click.command("prune", cls=Command)
@click.option("--hourly", type=click.IntRange(0), help="Keep the newest of so many hours.")
@click.option("--daily", type=click.IntRange(0), help="… of so many days.")
@click.option("--weekly", type=click.IntRange(0), help="… of so many weeks.")
@click.option("--monthly", type=click.IntRange(0), help="… of so many months.")
@click.option("--apply", is_flag=True, help="Do it; without it, nothing is touched.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def command(
    invocation: Invocation,
    hourly: int | None,
    daily: int | None,
    weekly: int | None,
    monthly: int | None,
    apply: bool,
    yes: bool,
) -> int:
    """Let old snapshots go by retention, in the ledger and the vault together; dry by default.

    What baseline or evidence name is never touched. Payloads that no kept snapshot names go after
    a grace of seven days.
    """
    from muster.report import documents
    from muster.report.terminal import moment, plural, size, table, text
    from snapshots.errors import InputError
    from snapshots.ledger import Retention
    from snapshots.prune import prune

    said = invocation.settings().retention
    chosen = RetentionSettings(
        said.hourly if hourly is None else hourly,
        said.daily if daily is None else daily,
        said.weekly if weekly is None else weekly,
        said.monthly if monthly is None else monthly,
    )
    policy = Retention(chosen.hourly, chosen.daily, chosen.weekly, chosen.monthly)
    if not any((policy.hourly, policy.daily, policy.weekly, policy.monthly)):
        raise InputError("this retention keeps nothing", remedy="let one of the four be 1 or more")
    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        ledger, vault = wiring.ledger(), wiring.vault()
        found = prune(ledger, vault, policy)
        gone = bool(found.plan.dropped or found.sweep.condemned or found.sweep.removed)
        if apply and gone:
            question = f"Let {plural(len(found.plan.dropped), 'snapshot')} go for good?"
            if not invocation.confirm(question, yes=yes):
                invocation.say("nothing was touched")
                return Exit.ERROR
            found = prune(ledger, vault, policy, apply=True)
    if invocation.json:
        invocation.emit(
            {
                "schema": documents.schema("prune"),
                "applied": found.applied,
                "snapshots": [
                    {
                        "snapshot": d.entry.commit,
                        "snapshot_id": d.entry.snapshot,
                        "keep": d.keep,
                        "reasons": list(d.reasons),
                    }
                    for d in found.plan.decisions
                ],
                "kept": len(found.plan.kept),
                "dropped": len(found.plan.dropped),
                "vault": {
                    "kept": found.sweep.kept,
                    "condemned": list(found.sweep.condemned),
                    "removed": list(found.sweep.removed),
                    "removed_bytes": found.sweep.removed_bytes,
                    "protected": list(found.sweep.protected),
                },
            }
        )
        return Exit.CLEAN
    rows = [
        (
            "keep" if d.keep else "drop",
            d.entry.commit[:12],
            moment(d.entry.taken_at),
            "; ".join(d.reasons),
        )
        for d in found.plan.decisions
    ]
    sweep = found.sweep
    invocation.show(
        table(["", "snapshot", "taken", "why"], rows) if rows else text("no snapshot yet"),
        text(
            f"{len(found.plan.kept)} kept, {len(found.plan.dropped)} "
            f"{'dropped' if found.plan.applied else 'would go'}; vault: "
            f"{plural(sweep.kept, 'payload')} kept, "
            f"{len(sweep.condemned)} condemned, {len(sweep.removed)} "
            f"{'removed' if sweep.applied else 'would be removed'} ({size(sweep.removed_bytes)})"
        ),
    )
    if sweep.protected:
        invocation.show(text(f"{plural(len(sweep.protected), 'object')} protected by the store"))
    if not apply and gone:
        invocation.show(text("nothing was touched: --apply does it", "bold"))
    return Exit.CLEAN
