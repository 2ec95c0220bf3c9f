"""What `muster snapshot` tells."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from muster.report import documents
from muster.report.terminal import GAP_COLUMNS, gap_rows, iso, plural, span, table, text
from snapshots.ledger import Kept
from snapshots.model import JsonObject, Snapshot

if TYPE_CHECKING:
    from rich.console import RenderableType


def document(snapshot: Snapshot, kept: Kept, bundle: str, warnings: tuple[str, ...]) -> JsonObject:
    """Give the result for machines."""
    counts = Counter(key.kind for key in snapshot.resources)
    return {
        "schema": documents.schema("snapshot"),
        "snapshot": kept.commit,
        "snapshot_id": kept.snapshot,
        "tree": kept.tree,
        "taken_at": iso(snapshot.taken_at),
        "estate": snapshot.estate,
        "resources": len(snapshot.resources),
        "kinds": dict(sorted(counts.items())),
        "written": kept.written,
        "removed": kept.removed,
        "unchanged": kept.unchanged,
        "stale": kept.stale,
        "payloads": len(_digests(snapshot)),
        "gaps": documents.gaps(snapshot.gaps),
        "calls": snapshot.calls.made,
        "calls_floor": snapshot.calls.floor,
        "throttled": snapshot.calls.throttled,
        "retried": snapshot.calls.retried,
        "seconds": round(snapshot.seconds, 3),
        "bundle": bundle,
        "warnings": list(warnings),
    }


def lines(snapshot: Snapshot, kept: Kept) -> list[RenderableType]:
    """Give the result for people."""
    calls = snapshot.calls
    parts: list[RenderableType] = [
        text(
            f"snapshot {kept.commit[:12]}  {plural(len(snapshot.resources), 'resource')}, "
            f"{plural(len(_digests(snapshot)), 'payload')}",
            "bold",
        ),
        text(
            f"  {kept.written} new or changed, {kept.removed} removed, {kept.unchanged} unchanged; "
            f"{plural(calls.made, 'call')} (floor {calls.floor}, {calls.throttled} throttled) "
            f"in {span(snapshot.seconds)}"
        ),
    ]
    if snapshot.gaps:
        parts += [
            text(f"INCOMPLETE: {plural(len(snapshot.gaps), 'gap')}", "bold red"),
            table(GAP_COLUMNS, gap_rows(snapshot.gaps), right=["gaps"]),
        ]
    return parts


def _digests(snapshot: Snapshot) -> set[str]:
    return {p.sha256 for r in snapshot.resources.values() for p in r.payloads}
