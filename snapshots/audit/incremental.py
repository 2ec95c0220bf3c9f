"""Read live state at a cost that grows with what changed: only accounts that may have moved.

Those are the accounts that the Activity Log says were written to, those that muster itself wrote to
(its records tell at once what the log tells up to 20 minutes later), and those with findings that
are still open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from snapshots.audit import records
from snapshots.audit.archive import State
from snapshots.audit.records import LAG, Records
from snapshots.audit.report_model import Mode, Reading
from snapshots.audit.written import account_of, written
from snapshots.kinds import BY_NAME, KINDS, descendants
from snapshots.kinds.base import SUBSCRIPTION
from snapshots.ledger import LIVE, Ledger
from snapshots.model import Gap, Key, Resource, Snapshot, canonical
from snapshots.records import Records as Writes
from snapshots.secrets import Fingerprints
from snapshots.take import Calls, Payloads, Progress, Scope, TakeOptions, take
from snapshots.take import Cloud as TakeCloud

MARGIN: Final = LAG  # a record may come late, and a long operation goes on after it
READ: Final = "Read"  # trailers of a commit on live that an audit made
SWEPT_AT: Final = "Swept-At"
READ_AT: Final = "Read-At"
READ_UNTIL: Final = "Read-Until"  # where its stories end: later commits are told apart by it

_TOPS: Final = tuple(
    kind.name
    for kind in KINDS
    if kind.parent == SUBSCRIPTION and not kind.attached and len(descendants(kind.name)) > 1
)
# What lies below such a one and costs calls of its own: what is embedded comes along for nothing.
_BELOW: Final = {
    top: frozenset(name for name in descendants(top) if name != top and not BY_NAME[name].embedded)
    for top in _TOPS
}


class Cloud(TakeCloud, records.Cloud, Protocol):  # type: ignore[misc]
    """What an audit asks of the one way out to Azure."""

    @property
    def calls(self) -> Calls:
        """The counter of requests."""
        ...

    def server_time(self) -> datetime | None:
        """Tell what Azure's clock said in the last answer."""
        ...


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Tell the moment, aware, in UTC."""
        ...


@dataclass(frozen=True, slots=True)
class LiveRead:
    """Live state as an audit read it, and what is known of how."""

    snapshot: Snapshot
    previous: Snapshot | None
    state: State  # to be kept once the snapshot is
    before: State  # as it was found
    reading: Reading
    records: Records
    now: datetime  # Azure's clock, before the first read
    done: datetime  # and after the last
    tops_read: frozenset[Key]

    def last_read(self, key: Key) -> datetime | None:
        """Give when `key` was last read before this audit, None when it never was."""
        if self.previous is None:
            return None
        top = top_of(key)
        if top is None:
            # Listed by subscription: read by every audit, whatever else it leaves out.
            return self.before.read_at.get(SUBSCRIPTION, self.before.swept_at)
        return self.before.read_of(str(top))


def top_of(key: Key) -> Key | None:
    """Give the account that a key lies in, None for what a subscription lists itself."""
    for top, below in _BELOW.items():
        if key.kind in below and len(key.path) > 3:
            return Key(top, key.path[:3])
    return None


def azure_now(cloud: Cloud, clock: Clock) -> datetime:
    """Give Azure's time: its last answer's, else ours."""
    found = cloud.server_time()
    return (found or clock.now()).astimezone(UTC)


def state_of(ledger: Ledger, kept: State, previous: Snapshot | None) -> State:
    """Say how far the newest snapshot was read: as noted, or as its commit tells."""
    if previous is None:
        return State()
    if kept.live == previous.id and kept.swept_at is not None:
        return kept
    entry = ledger.entry(previous.id)
    try:
        name = SWEPT_AT if entry.trailers.get(READ) else READ_AT
        swept = datetime.fromisoformat(entry.trailers.get(name, ""))
    except ValueError:
        swept = entry.taken_at
    return State(
        previous.id,
        swept,
        kept.base_at or swept,
        {},
        kept.seen,
        previous.version,
        kept.records,
        kept.owed,
    )


def read_live(
    estate: str,
    scopes: Sequence[Scope],
    cloud: Cloud,
    ledger: Ledger,
    kept: State,
    *,
    fingerprints: Fingerprints,
    clock: Clock,
    version: str,
    payloads: Payloads | None = None,
    options: TakeOptions | None = None,
    interval: timedelta = timedelta(hours=24),
    sweep: bool = False,
    only: Callable[[Key], bool] | None = None,
    writes: Writes | None = None,
    suspects: Callable[[Snapshot], Iterable[Key]] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> LiveRead:
    """Read live state: all of it, or what may have been touched since the last read.

    What a subscription lists itself (accounts, groups, roles, locks) is always read. `only` says
    which accounts are looked into; the others stay as they were last read. `writes` are muster's
    own records; `suspects` names what of the last state is read again in any case. Nothing is kept
    here.
    """
    previous = ledger.load(LIVE) if ledger.tip(LIVE) else None
    before = state_of(ledger, kept, previous)
    log = Records()
    started = clock.now()
    subscriptions = sorted({scope.subscription for scope in scopes})
    if previous is not None:
        oldest = min([*before.read_at.values(), before.swept_at or started])
        for subscription in subscriptions:
            log.read_log(cloud, subscription, oldest - MARGIN, started)
    now = azure_now(cloud, clock)
    own = written(writes, before.records, before.owed)
    why = _why_sweep(previous, before, log, now, version, interval, asked=sweep)
    if not why and own.damaged:
        why = f"the record {own.damaged} of muster's own writes cannot be read"
    whole = bool(why) and (only is None or previous is None)
    touched: set[Key] = set()
    if previous is not None:
        touched = _touched(previous, before, log)
        asked_again = suspects(previous) if suspects is not None else ()
        touched |= {top for key in asked_again if (top := top_of(key)) is not None}
        touched |= {k for k in previous.resources if k.kind in _TOPS and account_of(k) in own.owed}
    fresh: set[Key] = set()
    left: set[Key] = set()

    def descend(resource: Resource) -> bool:
        wanted = only is None or only(resource.key) or previous is None
        if wanted and (why or _moved(resource, previous, touched)):
            fresh.add(resource.key)
            return True
        left.add(resource.key)
        return False

    asked = replace(options or TakeOptions(), reference=False)
    snapshot = take(
        estate,
        scopes,
        cloud,
        fingerprints=fingerprints,
        clock=clock,
        version=version,
        previous=previous,
        payloads=payloads,
        progress=progress,
        options=asked,
        descend=descend,
        confirm=True,
    )
    done = max(now, azure_now(cloud, clock))
    if previous is not None:
        snapshot = _joined(snapshot, previous, left)
    tops = {r.id.lower(): key for key, r in snapshot.resources.items() if key.kind in _TOPS}
    state = _next_state(before, now, version, whole, why, fresh, interval)
    state = replace(
        state,
        seen=_seen(before, state, log, tops, fresh),
        records=own.records,
        owed=own.owed & {account_of(key) for key in left},
    )
    mode = Mode.SWEEP if whole else Mode.INCREMENTAL
    if mode is Mode.INCREMENTAL:
        read = sum(key.kind in _TOPS for key in fresh)
        why = (
            f"only {read} of {len(fresh | left)} accounts were touched since they were last read, "
            "or have open findings"
            if not why
            else f"only what --scope names was read; a sweep is due: {why}"
        )
    reading = Reading(
        mode=mode,
        why=why,
        accounts_read=len(fresh),
        accounts_known=len(fresh | left),
        events=len(log.events),
        log_through=now - LAG,
        holes=tuple(log.holes),
    )
    return LiveRead(snapshot, previous, state, before, reading, log, now, done, frozenset(fresh))


def same_state(before: Snapshot | None, after: Snapshot) -> bool:
    """Whether two states hold the same: then nothing needs to be kept."""
    if before is None or before.resources.keys() != after.resources.keys():
        return False
    if set(before.gaps) != set(after.gaps) or before.version != after.version:
        return False
    for key, old in before.resources.items():
        new = after.resources[key]
        if old is not new and (
            old.id != new.id
            or old.payloads != new.payloads
            or canonical(old.body) != canonical(new.body)
        ):
            return False
    return True


def _why_sweep(
    previous: Snapshot | None,
    state: State,
    log: Records,
    now: datetime,
    version: str,
    interval: timedelta,
    *,
    asked: bool,
) -> str:
    """Say why everything must be read; "" when the log can be relied on."""
    if previous is None:
        return "there is no earlier full read"
    if asked:
        return "it was asked for"
    if previous.version != version:
        return "this is another version of muster than that of the last read"
    if state.swept_at is None or now - state.swept_at >= interval:
        return f"the last sweep is older than {_words(interval)}"
    if log.holes:
        return f"the Activity Log has a hole: {log.holes[0]}"
    base = state.base_at or state.swept_at
    if now - base < LAG:
        return (
            f"the last full read is younger than the {_words(LAG)} that Azure takes to write its "
            "log: the log cannot speak of that time yet"
        )
    return ""


def _next_state(
    before: State,
    now: datetime,
    version: str,
    whole: bool,
    why: str,
    fresh: Iterable[Key],
    interval: timedelta,
) -> State:
    if whole:
        # Sweeps that were made because the log was too young do not put off the first audit that
        # can rely on it.
        young = why.startswith("the last full read is younger")
        base = before.base_at if young and before.base_at else now
        if now - base >= interval:
            base = now
        return State("", now, base, {}, frozenset(), version)
    read_at = {**before.read_at, **{str(key): now for key in fresh}, SUBSCRIPTION: now}
    return State("", before.swept_at, before.base_at, read_at, frozenset(), version)


def _seen(
    before: State, after: State, log: Records, tops: Mapping[str, Key], fresh: set[Key]
) -> frozenset[str]:
    """Give the events near a read that led to it: they are no reason to read again."""
    found: set[str] = set()
    for event in log.events.values():
        top = _top_in(event.resource, tops)
        read = None if top is None else after.read_of(str(top))
        near = read is not None and event.at >= read - MARGIN
        if near and (top in fresh or event.id in before.seen):
            found.add(event.id)
    return frozenset(found)


def _top_in(resource: str, tops: Mapping[str, Key]) -> Key | None:
    # An id is /subscriptions/S/resourceGroups/G/providers/N/T/name and what lies below.
    return tops.get("/".join(resource.split("/")[:9]))


def _touched(previous: Snapshot, state: State, log: Records) -> set[Key]:
    """Give the accounts that were written to since they were last read, and those half read."""
    by_id = {r.id.lower(): key for key, r in previous.resources.items() if key.kind in _TOPS}
    found: set[Key] = set()
    for event in log.events.values():
        if not event.writes or event.status.lower() == "failed":
            continue
        top = _top_in(event.resource, by_id)
        if top is None:
            continue
        read = state.read_of(str(top))
        if read is None or (event.at >= read - MARGIN and event.id not in state.seen):
            found.add(top)
    for key in by_id.values():
        hidden = any(_gap_touches(gap, key) for gap in previous.gaps)
        if hidden or any(stale.path[:3] == key.path for stale in previous.stale):
            found.add(key)
    return found


def _gap_touches(gap: Gap, top: Key) -> bool:
    length = min(len(gap.key.path), len(top.path))
    return gap.key.path[:length] == top.path[:length]


def _moved(resource: Resource, previous: Snapshot | None, touched: set[Key]) -> bool:
    if previous is None or resource.key in touched:
        return True
    before = previous.resources.get(resource.key)
    return (
        before is None
        or before.id.lower() != resource.id.lower()
        or canonical(before.body) != canonical(resource.body)
    )


def _joined(snapshot: Snapshot, previous: Snapshot, left: set[Key]) -> Snapshot:
    """Add what was not read again to what was: as it was, with its gaps and what they hid."""
    resources = dict(snapshot.resources)
    gaps = list(snapshot.gaps)
    inside = {key.path for key in left}

    def belongs(key: Key) -> bool:
        return any(
            key.kind in _BELOW[top.kind] and key.path[:3] == top.path
            for top in (Key(name, key.path[:3]) for name in _TOPS)
            if top.path in inside
        )

    for key, resource in previous.resources.items():
        if key not in resources and belongs(key):
            resources[key] = resource
    # Gaps of what was not looked into again stay gaps.
    for gap in previous.gaps:
        if gap not in gaps and len(gap.key.path) >= 3 and gap.key.path[:3] in inside:
            gaps.append(gap)
    hidden = {**previous.stale, **previous.resources}
    joined = replace(
        snapshot,
        resources=dict(sorted(resources.items())),
        gaps=tuple(gaps),
        reference=previous.reference,
    )
    stale = {
        key: resource
        for key, resource in hidden.items()
        if key not in resources and joined.hidden(key) is not None
    }
    return replace(joined, stale=stale)


def trailers_of(read: LiveRead) -> Mapping[str, str]:
    """Give what the commit on live says of how it was read."""
    swept = read.state.swept_at
    return {
        READ: read.reading.mode.value,
        READ_AT: read.now.isoformat(),
        READ_UNTIL: read.done.isoformat(),
        SWEPT_AT: swept.isoformat() if swept else "",
    }


def _words(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit if seconds // size > 1 else unit[:-1]}"
    return f"{seconds} seconds"
