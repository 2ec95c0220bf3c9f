"""`muster blame`: who set each property of a resource last."""

from __future__ import annotations

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring


@described(
    "muster blame aoai-prod/chat",
    "muster blame aoai-prod/chat --format json",
)
@click.command("blame", cls=Command)
@click.argument("key")
@click.pass_obj
def command(invocation: Invocation, key: str) -> int:
    """Say, property by property, who set it last and when it was first seen so.

    KEY is a key of `muster show`, or enough of its end. Live state as the ledger last kept it.
    """
    from muster.report import documents
    from muster.report.audit_text import text, value
    from muster.report.terminal import iso, moment, table
    from snapshots.audit.archive import attribution_document
    from snapshots.audit.history import blame
    from snapshots.ledger import LIVE

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        ledger = wiring.ledger()
        found = ledger.find(LIVE, key)
        lines = blame(ledger, found)
    if invocation.json:
        invocation.emit(
            {
                "schema": documents.schema("blame"),
                "key": str(found),
                "properties": [
                    {
                        "path": line.path,
                        "value": line.value,
                        "seen": iso(line.at),
                        "commit": line.commit,
                        "attribution": attribution_document(line.attribution),
                    }
                    for line in lines
                ],
            }
        )
        return Exit.CLEAN
    rows = [
        (
            line.path,
            value(line.value),
            line.attribution.who or line.attribution.reasons[0],
            moment(line.attribution.when or line.at),
            line.commit[:12],
        )
        for line in lines
    ]
    invocation.show(
        text(str(found), "bold"), table(["property", "value", "by", "when", "commit"], rows)
    )
    return Exit.CLEAN
