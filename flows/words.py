"""What came of a verb, as Markdown for an artifact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from snapshots.model import Json, JsonObject

_MOST = 50  # rows of a table in an artifact; the documents have them all


def cell(value: object) -> str:
    """Make a value harmless inside a Markdown table."""
    text = " ".join(str("" if value is None else value).split())
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return text


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Give a table's lines; after 50 rows, how many more there are."""
    found = list(rows)
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cell(value) for value in row)} |" for row in found[:_MOST]]
    if len(found) > _MOST:
        lines.append(f"\n… and {len(found) - _MOST} more")
    return ["", *lines, ""]


def dicts(value: Json) -> list[JsonObject]:
    """Give the objects of a list, of anything else none."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def snapshot_markdown(document: JsonObject) -> str:
    """Give a snapshot's document (docs/schemas/snapshot.schema.json)."""
    gaps = dicts(document["gaps"])
    kinds = document["kinds"]
    whole = "INCOMPLETE" if gaps else "Complete"
    lines = [
        f"# Snapshot of {cell(document['estate'])}",
        "",
        f"**{whole}**, commit `{str(document['snapshot'])[:12]}`, taken {document['taken_at']}",
    ]
    names = ("resources", "written", "removed", "unchanged", "payloads", "calls", "throttled")
    lines += table(("", ""), [(name, document[name]) for name in (*names, "seconds")])
    if gaps:
        lines += ["## Not read"]
        lines += table(
            ("key", "reason", "detail"), [(g["key"], g["reason"], g["detail"]) for g in gaps]
        )
    if isinstance(kinds, dict):
        lines += ["## Kinds", *table(("kind", "number"), sorted(kinds.items()))]
    return "\n".join(lines)
