"""`muster log`: list the snapshots."""

from __future__ import annotations

from datetime import datetime

import click

from muster.commands.moments import MOMENT
from muster.invocation import Command, Invocation, described
from muster.wiring import Wiring


@described(
    "muster log",
    "muster log --limit 5 --format json",
    "muster log --since 7d",
    "muster log --branch baseline",
)
@click.command("log", cls=Command)
@click.option("--limit", "-n", type=click.IntRange(1, 10**9), default=None, help="At most so many.")
@click.option("--since", type=MOMENT, help="Not older: 2026-11-22, 2026-11-22T10:00Z, 7d.")
@click.option("--until", type=MOMENT, help="Not newer.")
@click.option(
    "--branch",
    type=click.Choice(["live", "baseline", "evidence"]),
    default="live",
    show_default=True,
    help="Whose history.",
)
@click.pass_obj
def command(
    invocation: Invocation,
    limit: int | None,
    since: datetime | None,
    until: datetime | None,
    branch: str,
) -> int:
    """List the snapshots, newest first."""
    from muster.report import documents
    from muster.report.terminal import moment, span, table, text

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        entries = list(wiring.ledger().log(limit, since, until, ref=branch))
    if invocation.json:
        invocation.emit(
            {
                "schema": documents.schema("log"),
                "branch": branch,
                "snapshots": [documents.entry(entry) for entry in entries],
            }
        )
        return 0
    if not entries:
        invocation.show(text("no snapshot in that time" if since or until else "no snapshot yet"))
        return 0
    rows = [
        (
            entry.commit[:12],
            moment(entry.taken_at),
            f"{entry.number('Resources'):.0f}" if entry.snapshot else "",
            f"{entry.number('Gaps'):.0f}" if entry.snapshot else "",
            f"{entry.number('Api-Calls'):.0f}" if entry.snapshot else "",
            span(entry.number("Duration")) if entry.snapshot else "",
            entry.subject,
        )
        for entry in entries
    ]
    columns = ["snapshot", "taken", "resources", "gaps", "calls", "time", "subject"]
    invocation.show(table(columns, rows, right=["resources", "gaps", "calls", "time"]))
    return 0
