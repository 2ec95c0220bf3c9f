"""What the commands print for machines, each shape held by a schema of docs/schemas."""

from __future__ import annotations

from collections.abc import Iterable

from muster.report.terminal import iso
from snapshots.ledger.entries import Entry
from snapshots.model import (
    Change,
    Gap,
    Json,
    JsonObject,
    Key,
    Missing,
    PathChange,
    Payload,
    Resource,
    Snapshot,
)


def schema(command: str) -> str:
    """Name the schema of a command's output."""
    return f"muster/{command}/1"


def gaps(found: Iterable[Gap]) -> list[Json]:
    """Give gaps: key, reason, detail, and whether a whole listing is unread."""
    return [
        {
            "key": str(gap.key),
            "reason": gap.reason.value,
            "detail": gap.detail,
            "listing": gap.listing,
        }
        for gap in sorted(found, key=lambda gap: (gap.key, gap.listing, gap.reason))
    ]


def entry(found: Entry) -> JsonObject:
    """Give one snapshot of the history."""
    return {
        "snapshot": found.commit,
        "snapshot_id": found.snapshot,
        "tree": found.tree,
        "taken_at": iso(found.taken_at),
        "resources": int(found.number("Resources")),
        "gaps": int(found.number("Gaps")),
        "calls": int(found.number("Api-Calls")),
        "seconds": found.number("Duration"),
        "version": found.trailers.get("Muster-Version", ""),
        "subject": found.subject,
    }


def payloads(found: Iterable[Payload]) -> list[Json]:
    """Give payloads: name, digest, size."""
    return [{"name": p.name, "sha256": p.sha256, "size": p.size} for p in found]


def resource(found: Resource, *, stale: bool = False) -> JsonObject:
    """Give one resource whole."""
    return {
        "key": str(found.key),
        "kind": found.key.kind,
        "id": found.id,
        "stale": stale,
        "body": found.body,
        "payloads": payloads(found.payloads),
    }


def resources(snapshot: Snapshot) -> list[Json]:
    """Give every resource's name, without bodies; what a gap hid is there as stale."""
    named: dict[Key, tuple[Resource, bool]] = {
        **{key: (r, False) for key, r in snapshot.resources.items()},
        **{key: (r, True) for key, r in snapshot.stale.items()},
    }
    return [
        {
            "key": str(key),
            "kind": key.kind,
            "id": found.id,
            "stale": stale,
            "payloads": len(found.payloads),
        }
        for key, (found, stale) in sorted(named.items())
    ]


def change(found: Change) -> JsonObject:
    """Give one change; a property that is not there has no `before` or `after`."""
    return {
        "change": found.type.value,
        "key": str(found.key),
        "kind": found.key.kind,
        "renamed_from": str(found.renamed_from) if found.renamed_from else None,
        "gap": gaps([found.gap])[0] if found.gap else None,
        "paths": [path(p) for p in found.paths],
    }


def path(found: PathChange) -> JsonObject:
    """Give one property's change."""
    document: JsonObject = {"path": found.path}
    if not isinstance(found.before, Missing):
        document["before"] = found.before
    if not isinstance(found.after, Missing):
        document["after"] = found.after
    return document
