"""`muster asof`: show what was there at a moment."""

from __future__ import annotations

from datetime import datetime

import click

from muster.commands.moments import MOMENT
from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring


@described(
    "muster asof 2026-11-22",
    "muster asof 2026-11-22T10:30Z gpt-4o",
    "muster asof 2h",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.INCOMPLETE),
)
@click.command("asof", cls=Command)
@click.argument("when", type=MOMENT)
@click.argument("key", required=False)
@click.pass_obj
def command(invocation: Invocation, when: datetime, key: str | None) -> int:
    """Show what was known at a moment: the newest snapshot kept by then, or one resource of it.

    WHEN is a date (its end), a time (UTC unless it names a zone), or how long ago: 2h, 3d.
    """
    from muster.commands.states import show_resource, show_state

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        ledger = wiring.ledger()
        commit = ledger.asof(when).commit
        if key is None:
            return show_state(invocation, ledger, commit, command="asof")
        return show_resource(invocation, ledger, commit, key, command="asof")
