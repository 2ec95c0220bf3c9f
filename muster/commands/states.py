"""What the commands that read history share: which state, and which resource, is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.invocation import Exit, Invocation
from snapshots.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from snapshots.ledger import Ledger
    from snapshots.model import Key, Resource, Snapshot


def state_and_key(ledger: Ledger, words: tuple[str, ...]) -> tuple[str, str | None]:
    """Say what [SNAPSHOT] [KEY] mean: one word may be either. Gives commit and key words."""
    match words:
        case ():
            return ledger.resolve("latest"), None
        case (word,):
            try:
                return ledger.resolve(word), None
            except (NotFoundError, InputError) as no_state:
                commit = ledger.resolve("latest")
                try:
                    ledger.find(commit, word)
                except NotFoundError as no_key:
                    raise NotFoundError(
                        f"{word!r} is neither a snapshot nor a resource of the newest one",
                        where=str(ledger.path),
                        remedy=no_key.remedy or no_state.remedy,
                    ) from no_key
                return commit, word
        case _:
            return ledger.resolve(words[0]), words[1]


def one_resource(snapshot: Snapshot, key: Key) -> tuple[Resource, bool]:
    """Give a resource, and whether a gap hid it so that this is what was read before."""
    found = snapshot.resources.get(key)
    if found is not None:
        return found, False
    stale = snapshot.stale.get(key)
    if stale is None:
        raise NotFoundError(f"the snapshot has no resource {key}", remedy="see `muster show`")
    return stale, True


def show_state(invocation: Invocation, ledger: Ledger, commit: str, *, command: str) -> int:
    """Print what one snapshot holds."""
    from collections import Counter

    from muster.report import documents
    from muster.report.terminal import GAP_COLUMNS, gap_rows, moment, plural, table, text

    snapshot, entry = ledger.load(commit), ledger.entry(commit)
    if invocation.json:
        invocation.emit(
            {
                "schema": documents.schema(command),
                **documents.entry(entry),
                "estate": snapshot.estate,
                "gaps": documents.gaps(snapshot.gaps),
                "resources": documents.resources(snapshot),
                "resource": None,
            }
        )
        return Exit.INCOMPLETE if snapshot.gaps else Exit.CLEAN
    counts = Counter(key.kind for key in snapshot.resources)
    parts = [
        text(f"snapshot {commit[:12]}  {moment(entry.taken_at)}  {snapshot.estate}", "bold"),
        text(f"  {plural(len(snapshot.resources), 'resource')}, version {snapshot.version}"),
    ]
    for kind, count in sorted(counts.items()):
        parts.append(text(f"{kind}  ({count})", "bold"))
        parts += [
            text("  " + "/".join(key.path))
            for key in sorted(snapshot.resources)
            if key.kind == kind
        ]
    invocation.show(*parts)
    if snapshot.stale:
        lines = [text(f"  {key}") for key in sorted(snapshot.stale)]
        invocation.show(text("not read now, known from before:", "magenta"), *lines)
    if snapshot.gaps:
        invocation.show(
            text(f"INCOMPLETE: {plural(len(snapshot.gaps), 'gap')}", "bold red"),
            table(GAP_COLUMNS, gap_rows(snapshot.gaps), right=["gaps"]),
        )
    return Exit.INCOMPLETE if snapshot.gaps else Exit.CLEAN


def show_resource(
    invocation: Invocation, ledger: Ledger, commit: str, words: str, *, command: str
) -> int:
    """Print one resource of one snapshot."""
    from muster.report import documents
    from muster.report.terminal import moment, size, text
    from snapshots.model import pretty

    key = ledger.find(commit, words)
    snapshot, entry = ledger.load(commit), ledger.entry(commit)
    found, stale = one_resource(snapshot, key)
    if invocation.json:
        invocation.emit(
            {
                "schema": documents.schema(command),
                **documents.entry(entry),
                "estate": snapshot.estate,
                "gaps": documents.gaps(gap for gap in snapshot.gaps if gap.covers(key)),
                "resources": [],
                "resource": documents.resource(found, stale=stale),
            }
        )
    else:
        invocation.show(
            text(str(key), "bold"),
            text(f"  {found.id}"),
            text(f"  snapshot {commit[:12]}, {moment(entry.taken_at)}"),
        )
        if stale:
            invocation.show(text("  not read then: this is what was known before", "magenta"))
        for payload in found.payloads:
            invocation.show(
                text(f"  payload {payload.name}: {size(payload.size)}, sha256 {payload.sha256}")
            )
        invocation.show(text(pretty(found.body).decode().rstrip()))
    return Exit.INCOMPLETE if stale else Exit.CLEAN
