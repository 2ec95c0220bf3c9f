"""`muster ignore`: leave findings alone for a while; every report counts them."""

from __future__ import annotations

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring


@described(
    "muster ignore 3edebff5988f --reason 'load test until Friday' --expires 5d",
    "muster ignore 3edebff5988f --any-value --reason 'autoscaled' --expires 90d",
)
@click.command("ignore", cls=Command)
@click.argument("findings", nargs=-1, required=True, metavar="FINDING…")
@click.option("--reason", required=True, metavar="TEXT", help="Why it may stay for now.")
@click.option("--expires", required=True, metavar="WHEN", help="30d or 2026-12-24.")
@click.option("--ticket", default="", metavar="ID", help="Where it is followed up.")
@click.option("--any-value", is_flag=True, help="These properties, whatever they hold.")
@click.option("--by", metavar="NAME", help="Who decides (default: git's user.email).")
@click.pass_obj
def command(
    invocation: Invocation,
    findings: tuple[str, ...],
    reason: str,
    expires: str,
    ticket: str,
    any_value: bool,
    by: str | None,
) -> int:
    """Leave findings alone until they expire: no exit code, and counted in every report.

    Without --any-value just this difference is ignored: another value is a new finding.
    """
    from muster.commands.deciding import chosen, decider, reported, until
    from muster.report.audit_text import text
    from muster.report.terminal import moment
    from snapshots.audit.approve import Approval, ignore

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        ledger, now = wiring.ledger(), wiring.clock.now()
        approval = Approval(decider(by), reason, ticket, until(expires, now))
        picked = chosen(reported(ledger, now), findings)
        commit = ignore(ledger, picked, approval, now, any_value=any_value)
    assert approval.expires is not None  # --expires is required
    if invocation.json:
        invocation.emit(
            {
                "schema": "muster/ignore/1",
                "baseline": commit,
                "ignored": [finding.id for finding in picked],
                "by": approval.by,
                "expires": approval.expires.isoformat().replace("+00:00", "Z"),
                "any_value": any_value,
            }
        )
    else:
        for finding in picked:
            invocation.show(
                text(f"{finding.id} is ignored until {moment(approval.expires)}: {finding.key}")
            )
    return Exit.CLEAN
