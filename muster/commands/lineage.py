"""`muster lineage`: what a resource came from and what it reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring

if TYPE_CHECKING:
    from rich.text import Text

    from snapshots.lineage import Lineage, Relative
    from snapshots.model import Json, Key


@described(
    "muster lineage file/claims-train.jsonl",
    "muster lineage gpt-4o --at baseline",
    "muster lineage agent/claims-helper --format json",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.INCOMPLETE),
)
@click.command("lineage", cls=Command)
@click.argument("key")
@click.option("--at", default="latest", show_default=True, metavar="SNAPSHOT", help="Which state.")
@click.pass_obj
def command(invocation: Invocation, key: str, at: str) -> int:
    """Say what a resource came from and what it reached, over the references that kinds declare.

    For a file with data: every job, model, deployment and agent it went into. Exit code 3: the
    snapshot has gaps, so that something may be missing.
    """
    from muster.report import documents
    from muster.report.terminal import plural, text
    from snapshots.kinds import KINDS
    from snapshots.lineage import graph

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        ledger = wiring.ledger()
        commit = ledger.resolve(at)
        snapshot = ledger.load(commit)
        found = graph(snapshot, KINDS).lineage(ledger.find(commit, key))
    if invocation.json:
        invocation.emit(
            {
                "schema": documents.schema("lineage"),
                "snapshot": commit,
                "key": str(found.key),
                "came_from": _relatives(found.came_from),
                "reached": _relatives(found.reached),
                "holds": [str(inner) for inner in found.holds],
                "missing": [
                    {"holder": str(d.holder), "path": d.path, "kind": d.kind, "value": d.value}
                    for d in found.dangling
                ],
                "gaps": documents.gaps(found.gaps),
            }
        )
        return Exit.INCOMPLETE if found.gaps else Exit.CLEAN
    invocation.show(text(str(found.key), "bold"), text(f"  in snapshot {commit[:12]}"))
    invocation.show(text("came from", "bold"), *_tree(found.key, found.came_from, "<-"))
    invocation.show(*_missing(found))
    invocation.show(text("reached", "bold"), *_tree(found.key, found.reached, "->"))
    counts = _counts(found)
    if counts:
        invocation.show(text(f"  in all: {counts}"))
    if found.holds:
        invocation.show(text(f"holds {plural(len(found.holds), 'resource')}"))
    if found.gaps:
        told = f"INCOMPLETE: {plural(len(found.gaps), 'gap')}, something may be missing above"
        invocation.show(text(told, "bold red"))
    return Exit.INCOMPLETE if found.gaps else Exit.CLEAN


def _relatives(found: tuple[Relative, ...]) -> list[Json]:
    return [
        {
            "key": str(r.key),
            "kind": r.key.kind,
            "through": str(r.through),
            "path": r.path,
            "distance": r.distance,
            "data": r.data,
        }
        for r in found
    ]


def _tree(start: Key, found: tuple[Relative, ...], arrow: str) -> list[Text]:
    """Indent each under the one it was reached through; data flow is told apart from need."""
    from muster.report.terminal import text

    below: dict[Key, list[Relative]] = {}
    for relative in found:
        below.setdefault(relative.through, []).append(relative)
    lines: list[Text] = []

    def write(key: Key, depth: int) -> None:
        for relative in below.get(key, ()):
            note = "" if relative.data else "  (uses)"
            lines.append(text(f"{'  ' * depth}{arrow} {relative.key}{note}"))
            write(relative.key, depth + 1)

    write(start, 1)
    return lines or [text("  nothing that is known")]


def _missing(found: Lineage) -> list[Text]:
    from muster.report.terminal import text

    return [
        text(f"  <- {d.value}: no longer there ({d.holder} names it)", "yellow")
        for d in found.dangling
    ]


def _counts(found: Lineage) -> str:
    from collections import Counter

    from muster.report.terminal import plural

    counts = Counter(relative.key.kind for relative in found.reached)
    return ", ".join(plural(count, kind) for kind, count in sorted(counts.items()))
