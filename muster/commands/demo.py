"""`muster demo`: the whole story in minutes, without Azure."""

from __future__ import annotations

from pathlib import Path

import click

from muster.invocation import Command, described


@described(
    "muster demo",
    "muster demo --keep             leaves ledger, vault and state to look at",
    "muster demo --folder ./demo    works there",
)
@click.command("demo", cls=Command)
@click.option("--keep", is_flag=True, help="Leave what it made, and say where.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Where to work.  [default: a temporary folder, removed at the end]",
)
@click.option("--blob/--no-blob", default=False, help="Start Azurite, too.")
def command(keep: bool, folder: Path | None, blob: bool) -> int:
    """Tell the whole story on a local Azure: nothing leaves this machine."""
    from muster.demo import tell

    return tell(keep=keep, folder=folder, blob=blob)
