"""`muster snapshot`: take the estate's state and keep it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.via import SNAPSHOT, via
from muster.wiring import Wiring

if TYPE_CHECKING:
    from muster.verbs.snapshot import Taken


@via(SNAPSHOT)
@described(
    "muster snapshot",
    "muster snapshot --format json --quiet",
    "muster snapshot --no-content        configuration only, no bytes of files",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.INCOMPLETE),
)
@click.command("snapshot", cls=Command)
@click.option(
    "--content/--no-content", default=None, help="The bytes of files, or only their names."
)
@click.option(
    "--reference/--no-reference", default=None, help="Also catalogue, quota and capacity."
)
@click.pass_obj
def command(invocation: Invocation, content: bool | None, reference: bool | None) -> int:
    """Take the estate's state and keep it.

    One commit in the ledger, payloads in the vault, each byte once. What could not be read is a
    gap: it is named, the rest is kept, and the exit code is 3.
    """
    from muster.report import snapshot as report

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        kept = keep_snapshot(wiring, invocation, content=content, reference=reference)
        budget = wiring.cloud().budget.view()
    for warning in kept.warnings:
        invocation.warn(warning)
    document = partial(report.document, kept.snapshot, kept.kept, kept.bundle, kept.warnings)
    invocation.observe("snapshot", document, budget)
    if invocation.json:
        invocation.emit(document())
    else:
        invocation.show(*report.lines(kept.snapshot, kept.kept))
    return Exit.INCOMPLETE if kept.snapshot.gaps else Exit.CLEAN


def keep_snapshot(
    wiring: Wiring,
    invocation: Invocation,
    *,
    content: bool | None = None,
    reference: bool | None = None,
) -> Taken:
    """Take and keep one snapshot, saying on stderr how far it is."""
    from muster.report.progress import ProgressLine
    from muster.verbs import snapshot as verb

    with ProgressLine(invocation) as line:
        return verb.keep_snapshot(wiring, tell=line.tell, content=content, reference=reference)
