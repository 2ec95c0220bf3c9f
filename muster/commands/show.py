"""`muster show`: show a snapshot, or one resource of it."""

from __future__ import annotations

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring


@described(
    "muster show",
    "muster show latest~1",
    "muster show deployment/aoai-prod/gpt-4o",
    "muster show 3f2a9c1 gpt-4o --format json",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.INCOMPLETE),
)
@click.command("show", cls=Command)
@click.argument("words", nargs=-1, metavar="[SNAPSHOT] [KEY]")
@click.pass_obj
def command(invocation: Invocation, words: tuple[str, ...]) -> int:
    """Show a snapshot, or one resource of it.

    SNAPSHOT is the beginning of an id, `latest`, `latest~2`, `baseline`, or a date. KEY is a
    resource's key, or as much of its end as is needed. Exit code 3: the snapshot has gaps.
    """
    from muster.commands.states import show_resource, show_state, state_and_key

    if len(words) > 2:
        raise click.UsageError("at most a SNAPSHOT and a KEY", click.get_current_context())
    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        ledger = wiring.ledger()
        commit, key = state_and_key(ledger, words)
        if key is None:
            return show_state(invocation, ledger, commit, command="show")
        return show_resource(invocation, ledger, commit, key, command="show")
