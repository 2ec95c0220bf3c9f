"""`muster diff`: say what differs between two snapshots."""

from __future__ import annotations

from collections import Counter

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring, list_identity


@described(
    "muster diff",
    "muster diff baseline latest",
    "muster diff 2026-11-21 2026-11-22 --format json",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS, Exit.INCOMPLETE),
)
@click.command("diff", cls=Command)
@click.argument("a", default="latest~1")
@click.argument("b", default="latest")
@click.option("--exit-code", is_flag=True, help="Exit with 2 when something differs.")
@click.pass_obj
def command(invocation: Invocation, a: str, b: str, exit_code: bool) -> int:
    """Say what differs from snapshot A to snapshot B: by default, what the newest one brought.

    Exit code 3: a gap hides something on either side, so that nobody knows.
    """
    from muster.report import documents
    from muster.report.terminal import change_lines, moment, text
    from snapshots.compare import compare
    from snapshots.model import ChangeType

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        ledger = wiring.ledger()
        before, after = ledger.load(ledger.resolve(a)), ledger.load(ledger.resolve(b))
    changes = list(compare(before, after, list_identity))
    counts = Counter(change.type for change in changes)
    if invocation.json:
        invocation.emit(
            {
                "schema": documents.schema("diff"),
                "before": before.id,
                "after": after.id,
                "counts": {type_.value: counts[type_] for type_ in ChangeType},
                "gaps": documents.gaps({*before.gaps, *after.gaps}),
                "changes": [documents.change(change) for change in changes],
            }
        )
    else:
        invocation.show(
            text(f"from {before.id[:12]}  {moment(before.taken_at)}"),
            text(f"to   {after.id[:12]}  {moment(after.taken_at)}"),
        )
        for change in changes:
            invocation.show(*change_lines(change))
        told = [f"{counts[type_]} {type_.value}" for type_ in ChangeType if counts[type_]]
        invocation.show(text(", ".join(told) if told else "no change", "bold"))
        if before.gaps or after.gaps:
            unread = f"INCOMPLETE: {len(before.gaps)} gaps before, {len(after.gaps)} after"
            invocation.show(text(unread, "bold red"))
    if counts[ChangeType.UNKNOWN] or before.gaps or after.gaps:
        return Exit.INCOMPLETE
    return Exit.FINDINGS if exit_code and changes else Exit.CLEAN
