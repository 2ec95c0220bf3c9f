"""`muster coverage`: how each kind would come back, and what was unread."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring
from snapshots.model import Recovery

if TYPE_CHECKING:
    from snapshots.model import Snapshot

_WORDS = {
    Recovery.RESTORED: "restored: same identity",
    Recovery.RECREATED: "recreated: with a new id",
    Recovery.COPIED: "copied: from the source region",
    Recovery.REBUILT: "rebuilt: hours of work",
    Recovery.RECORDED: "recorded: history only",
    Recovery.LOST: "lost: Azure cannot bring it back",
}


@dataclass(frozen=True, slots=True)
class Covered:
    """One kind in one recovery class: how many, how many of them not read now, and why."""

    kind: str
    title: str
    recovery: Recovery
    count: int
    stale: int
    gaps: int
    sentence: str
    source: str


@described(
    "muster coverage",
    "muster coverage baseline --format json",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.INCOMPLETE),
)
@click.command("coverage", cls=Command)
@click.argument("snapshot", default="latest")
@click.pass_obj
def command(invocation: Invocation, snapshot: str) -> int:
    """Say how everything in a snapshot would come back, and what was unread and why."""
    from muster.report import documents
    from muster.report.terminal import GAP_COLUMNS, gap_rows, moment, plural, table, text

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        state = wiring.ledger().load(wiring.ledger().resolve(snapshot))
    rows = covered(state)
    totals = {r: sum(row.count for row in rows if row.recovery is r) for r in Recovery}
    if invocation.json:
        invocation.emit(
            {
                "schema": documents.schema("coverage"),
                "snapshot": state.id,
                "recovery": {recovery.value: count for recovery, count in totals.items()},
                "kinds": [
                    {
                        "kind": row.kind,
                        "title": row.title,
                        "recovery": row.recovery.value,
                        "count": row.count,
                        "stale": row.stale,
                        "gaps": row.gaps,
                        "sentence": row.sentence,
                        "source": row.source,
                    }
                    for row in rows
                ],
                "gaps": documents.gaps(state.gaps),
            }
        )
        return Exit.INCOMPLETE if state.gaps else Exit.CLEAN
    invocation.show(text(f"snapshot {state.id[:12]}  {moment(state.taken_at)}", "bold"))
    for recovery in Recovery:
        own = [row for row in rows if row.recovery is recovery]
        if own:
            invocation.show(
                table(
                    ["kind", "count", "unread", "why", "source"],
                    [(r.title, str(r.count), str(r.gaps), r.sentence, r.source) for r in own],
                    title=f"{_WORDS[recovery]} ({plural(totals[recovery], 'resource')})",
                    right=["count", "unread"],
                )
            )
    if state.gaps:
        invocation.show(
            text(f"INCOMPLETE: {plural(len(state.gaps), 'gap')}", "bold red"),
            table(GAP_COLUMNS, gap_rows(state.gaps), right=["gaps"]),
        )
    return Exit.INCOMPLETE if state.gaps else Exit.CLEAN


def covered(state: Snapshot) -> list[Covered]:
    """Count a snapshot's resources by kind and recovery class, in the order of KINDS."""
    from snapshots.kinds import BY_NAME, KINDS
    from snapshots.kinds.base import Comeback

    counts: Counter[tuple[str, Comeback]] = Counter()
    stale: Counter[tuple[str, Comeback]] = Counter()
    for target, resources in ((counts, state.resources), (stale, state.stale)):
        for key, resource in resources.items():
            kind = BY_NAME.get(key.kind)
            unknown = Comeback(Recovery.RECORDED, "a kind this version does not know", "")
            target[key.kind, kind.recovery(resource) if kind else unknown] += 1
    order = {kind.name: number for number, kind in enumerate(KINDS)}
    found = {*counts, *stale, *((kind.name, kind.comeback) for kind in KINDS)}
    return [
        Covered(
            name,
            BY_NAME[name].title if name in BY_NAME else name,
            comeback.recovery,
            counts[name, comeback],
            stale[name, comeback],
            sum(name in gap.hides if gap.listing else gap.key.kind == name for gap in state.gaps),
            comeback.sentence,
            comeback.source,
        )
        for name, comeback in sorted(
            found, key=lambda f: (order.get(f[0], len(order)), f[0], f[1].recovery, f[1].sentence)
        )
    ]
