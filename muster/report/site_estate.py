"""What there is, how fresh that is, and how it would come back: of the newest snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from muster.report import audit_words as words
from muster.report.site_model import (
    AccountRow,
    Estate,
    GapRow,
    KindRow,
    Level,
    Part,
    ResourceRow,
    SnapshotPoint,
    before,
    see,
    span,
    when,
    worst,
)
from muster.report.site_reading import BACK, POINTS, Reading, comeback_of, everything_of, size
from snapshots.kinds import BY_NAME, KINDS
from snapshots.kinds.base import Comeback
from snapshots.kinds.fields import location
from snapshots.ledger import LIVE
from snapshots.ledger.entries import Entry
from snapshots.model import Key, Recovery, Resource, Snapshot

# Beyond these the site says what it leaves out; docs/site.md has the table.
SNAPSHOTS = 400  # of the history


GAPS = 500


def states_of(reading: Reading) -> tuple[Snapshot | None, list[Entry]]:
    """Give the newest snapshot, and the commits of the history, newest first."""
    ledger = reading.ledger
    if ledger is None:
        return None, []
    empty: list[Entry] = []
    history = reading.attempt(
        "the history of snapshots", lambda: list(ledger.log(SNAPSHOTS, ref=LIVE)), empty
    )
    if not history:
        return None, []
    return reading.attempt("the newest snapshot", lambda: ledger.load(history[0].commit), None), (
        history
    )


def _regions(resources: Mapping[Key, Resource]) -> dict[tuple[str, ...], str]:
    """Give the region of each account, by subscription, group and name."""
    found: dict[tuple[str, ...], str] = {}
    for key, resource in resources.items():
        where = resource.body.get("location")
        if key.kind == "account" and isinstance(where, str):
            found[key.path[:3]] = location(where)
    return found


def estate_of(
    reading: Reading,
    state: Snapshot | None,
    history: Sequence[Entry],
    anchors: Mapping[str, str],
) -> Estate:
    """Tell the newest snapshot; `anchors` has the place of an open finding by key."""
    points = tuple(
        SnapshotPoint(
            e.taken_at,
            e.snapshot or e.commit[:12],
            e.commit,
            int(e.number("Resources")),
            int(e.number("Gaps")),
            int(e.number("Api-Calls")),
            e.number("Duration"),
        )
        for e in reversed(history)
    )
    if state is None or not history:
        told = "no snapshot was ever taken" if not history else "the snapshot cannot be read"
        reading.problem(
            Level.BAD if not history else Level.UNKNOWN,
            f"Nothing is known to be recoverable: {told}",
            "estate.html",
            "run `muster snapshot`",
            9,
        )
        return Estate(Part(Level.UNKNOWN, f"Not known: {told}", (), ("run `muster snapshot`",)))
    newest = history[0]
    source = reading.source(
        "snapshot",
        f"snapshot {newest.snapshot}",
        newest.commit,
        newest.taken_at,
        f"muster show {newest.commit[:12]}",
    )
    everything = everything_of(state)
    regions = _regions({key: r for key, (r, _) in everything.items()})
    by_recovery: Counter[str] = Counter()
    by_region: dict[str, Counter[str]] = {}
    kinds: Counter[tuple[str, Comeback]] = Counter()
    unread: Counter[tuple[str, Comeback]] = Counter()
    accounts: dict[tuple[str, ...], list[tuple[Comeback, bool]]] = {}
    rows: list[ResourceRow] = []
    for key, (resource, stale) in sorted(everything.items()):
        comeback = comeback_of(resource)
        region = regions.get(key.path[:3], "")
        by_recovery[comeback.recovery.value] += 1
        by_region.setdefault(region or "no region of its own", Counter())[
            comeback.recovery.value
        ] += 1
        (unread if stale else kinds)[key.kind, comeback] += 1
        if region:
            accounts.setdefault(key.path[:3], []).append((comeback, stale))
        rows.append(
            ResourceRow(
                key.kind,
                see(key.name, 160),
                see(" / ".join(key.within[1:]) or key.subscription, 240),
                see(region, 60),
                comeback.recovery.value,
                stale,
                anchors.get(str(key), ""),
            )
        )
    back = sum(1 for r, s in everything.values() if not s and comeback_of(r).recovery in BACK)
    level, headline = _freshness(reading, history, state)
    total = len(everything)
    payloads = {p.sha256: p.size for r, _ in everything.values() for p in r.payloads}
    level = worst([level, _payloads(reading, payloads)])
    return Estate(
        Part(level, headline, (source,)),
        total,
        len(state.stale),
        back,
        {r.value: by_recovery[r.value] for r in Recovery},
        {name: dict(counts) for name, counts in sorted(by_region.items())},
        tuple(_kind_rows(kinds, unread, state)),
        tuple(_account_rows(reading, accounts, regions)),
        tuple(rows),
        tuple(
            GapRow(see(words.gap_name(g), 300), see(words.gap_why(g)))
            for g in sorted(state.gaps, key=lambda g: (g.key, g.listing))[:GAPS]
        ),
        points[-POINTS:],
        len(payloads),
        sum(payloads.values()),
        (
            ("Snapshot", see(newest.snapshot)),
            ("Taken", f"{when(newest.taken_at)}, {before(newest.taken_at, reading.now)}"),
            ("Commit", newest.commit),
            ("Calls", f"{int(newest.number('Api-Calls')):,}, in {newest.number('Duration'):.1f} s"),
            (
                "Snapshots kept",
                f"{len(history):,}" + (" or more" if len(history) == SNAPSHOTS else ""),
            ),
            ("Payloads", f"{len(payloads):,} files, {size(sum(payloads.values()))}"),
            ("Gaps", f"{len(state.gaps):,}" if state.gaps else "none: everything was read"),
            ("Written by", f"muster {state.version}"),
        ),
    )


def _freshness(reading: Reading, history: Sequence[Entry], state: Snapshot) -> tuple[Level, str]:
    now, rpo = reading.now, reading.promises.rpo
    complete = next((e for e in history if not e.number("Gaps")), None)
    if state.gaps:
        reading.problem(
            Level.RISK,
            f"The newest snapshot is incomplete: {words.plural(len(state.gaps), 'gap')}",
            "estate.html#gaps",
            "`muster coverage` names what was unread and why",
        )
    if complete is None:
        reading.problem(
            Level.BAD,
            "No snapshot that is kept is complete",
            "estate.html#gaps",
            "grant what `muster doctor` names, then run `muster snapshot`",
            5,
        )
        return Level.BAD, "No complete snapshot is kept"
    old = now - complete.taken_at
    told = f"Last complete snapshot {before(complete.taken_at, now)}"
    if rpo is not None and old > rpo:
        reading.problem(
            Level.BAD,
            f"{told}; {span(rpo.total_seconds())} is promised as RPO",
            "estate.html",
            "run `muster snapshot`, and on a schedule from now on",
            4,
        )
        return Level.BAD, f"{told}: older than the promised RPO of {span(rpo.total_seconds())}"
    if state.gaps:
        return Level.RISK, f"{told}; the newest has {words.plural(len(state.gaps), 'gap')}"
    if rpo is None:
        return Level.NOTE, f"{told}; no RPO is promised"
    return Level.GOOD, f"{told}, within the promised RPO of {span(rpo.total_seconds())}"


def _payloads(reading: Reading, payloads: Mapping[str, int]) -> Level:
    vault = reading.vault
    if vault is None:
        if payloads:
            reading.problem(
                Level.UNKNOWN,
                "Whether the vault holds the payloads is not known",
                "estate.html",
                "run `muster verify`",
            )
            return Level.UNKNOWN
        return Level.GOOD
    known = reading.attempt("the payloads of the vault", vault.known, None)
    if known is None:
        return Level.UNKNOWN
    lost = sorted(set(payloads) - known)
    if lost:
        reading.problem(
            Level.BAD,
            f"{len(lost):,} of {len(payloads):,} payloads are missing in the vault",
            "estate.html",
            "run `muster verify`, then `muster snapshot` while the source is there",
            8,
        )
        return Level.BAD
    return Level.GOOD


def _kind_rows(
    counts: Counter[tuple[str, Comeback]], stale: Counter[tuple[str, Comeback]], state: Snapshot
) -> Iterator[KindRow]:
    order = {kind.name: number for number, kind in enumerate(KINDS)}
    classes = list(Recovery)
    found = {*counts, *stale}
    gaps: Counter[str] = Counter()
    for gap in state.gaps:
        gaps.update(gap.hides if gap.listing else [gap.key.kind])
    # A kind of which nothing was read stays in the table when a gap hides it.
    found |= {
        (k.name, k.comeback) for k in KINDS if gaps[k.name] and k.name not in {n for n, _ in found}
    }
    for name, comeback in sorted(
        found,
        key=lambda f: (
            -classes.index(f[1].recovery),
            order.get(f[0], len(order)),
            f[0],
            f[1].sentence,
        ),
    ):
        kind = BY_NAME.get(name)
        yield KindRow(
            see(name, 80),
            see(kind.title if kind else name, 80),
            comeback.recovery.value,
            counts[name, comeback],
            stale[name, comeback] + gaps[name],
            comeback.sentence,
            comeback.source,
        )


def _account_rows(
    reading: Reading,
    accounts: Mapping[tuple[str, ...], Sequence[tuple[Comeback, bool]]],
    regions: Mapping[tuple[str, ...], str],
) -> Iterator[AccountRow]:
    pairs = reading.promises.pairs
    alone: dict[str, int] = {}
    rows: list[AccountRow] = []
    for path, held in sorted(accounts.items()):
        region = regions[path]
        standby = [s for p, s in pairs if p == region]
        if standby:
            role, level = f"primary, standby in {', '.join(standby)}", Level.GOOD
        elif any(s == region for _, s in pairs):
            role, level = "standby", Level.GOOD
        else:
            role, level = "no standby region is named", Level.RISK
            alone[region] = alone.get(region, 0) + 1
        rows.append(
            AccountRow(
                see(path[-1], 120),
                see(path[1], 120),
                see(path[0], 60),
                see(region, 60),
                role,
                level,
                len(held),
                sum(stale for _, stale in held),
                sum(c.recovery not in BACK for c, _ in held),
            )
        )
    for region, count in sorted(alone.items()):
        reading.problem(
            Level.RISK,
            f"{words.plural(count, 'account')} in {region} without a standby region",
            "estate.html#accounts",
            "add [[estate.pair]] to muster.toml, or take them out of [[estate.scope]]",
        )
    yield from rows
