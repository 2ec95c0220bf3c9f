"""Read what is recorded of an estate, in ledger and vault, into a Site; nothing of Azure is asked.

What was never recorded is told as not known with the command that records it; what cannot be read
is named, and never counts as fine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import orjson

from drills.evidence import FOLDER as DRILLS
from drills.evidence import EvidenceBook, problems_of
from drills.model import Evidence
from muster.report import audit_words as words
from muster.report import site_signoffs as signoffs
from muster.report.site_model import (
    AccountRow,
    AuditPoint,
    CheckRow,
    Clock,
    DecisionRow,
    Drift,
    Drills,
    DrillView,
    Estate,
    EvidenceRow,
    EvidenceView,
    FindingRow,
    GapRow,
    KindRow,
    Level,
    LostRow,
    PairView,
    Part,
    Problem,
    Promised,
    Proved,
    Readiness,
    RehearsalRow,
    ReplicaRow,
    ReplicationPair,
    ReplicationView,
    ResourceRow,
    RunRow,
    Site,
    SnapshotPoint,
    Source,
    StoryRow,
    Timed,
    Unrecoverable,
    before,
    day,
    see,
    span,
    when,
    worst,
)
from snapshots.audit.approve import Decisions, load_decisions
from snapshots.audit.archive import Story, load_latest, load_stories
from snapshots.audit.report_json import findings_in
from snapshots.audit.report_model import Finding, Severity
from snapshots.errors import MusterError
from snapshots.kinds import BY_NAME, KINDS
from snapshots.kinds.base import Comeback
from snapshots.kinds.fields import location
from snapshots.ledger import BASELINE, EVIDENCE, LIVE, Ledger
from snapshots.ledger.entries import Entry
from snapshots.model import (
    ChangeType,
    Json,
    JsonObject,
    Key,
    Missing,
    Recovery,
    Resource,
    Snapshot,
    canonical,
)
from snapshots.replication import BRANCH as REPLICATION
from snapshots.replication import Replica, ReplicaState, Replication, path_of
from snapshots.vault import Vault

# Beyond these the site says what it leaves out; docs/site.md has the table.
SNAPSHOTS = 400  # of the history
POINTS = 90  # of a chart
FINDINGS = 1_000
STORIES = 300
DECISIONS = 300
GAPS = 500
ACCOUNTS = 500
NAMES = 200  # of one row of what does not come back
RUNS = 200  # pages of drill runs, and copies of their evidence
INDEX = 2_000  # rows of the index of evidence
PROPERTIES = 8  # of a finding

READINESS = "readiness/"
REHEARSALS = "rehearsals/"
STALE = timedelta(hours=24)  # an answer of `muster ready` older than that is told as old
_BACK = (Recovery.RESTORED, Recovery.RECREATED, Recovery.COPIED, Recovery.REBUILT)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Promises:
    """What was promised, and the pairs that are configured."""

    rto: timedelta | None = None
    rpo: timedelta | None = None
    pairs: tuple[tuple[str, str], ...] = ()  # primary, standby
    threads_read: bool = True  # whether conversations are looked at


@dataclass(slots=True)
class _Reading:
    """What is read once and used by several pages, and what could not be read."""

    ledger: Ledger | None
    vault: Vault | None
    now: datetime
    promises: Promises
    troubles: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)

    def attempt(self, what: str, work: Callable[[], _T], instead: _T) -> _T:
        """Do it; what cannot be read is told and never taken for absent."""
        try:
            return work()
        except MusterError as error:
            self.troubles.append(see(f"{what}: {error.what}" + _at(error)))
            return instead

    def source(
        self, kind: str, name: str, ref: str, at: datetime | None, command: str = ""
    ) -> Source:
        """Note where figures come from."""
        anchor = "s-" + re.sub(r"[^a-z0-9]+", "-", f"{kind}-{ref or name}".lower()).strip("-")[:80]
        found = Source(anchor, see(name, 200), see(ref, 200), at, see(command, 300))
        return self.sources.setdefault(anchor, found)

    def problem(
        self, level: Level, text: str, page: str, remedy: str = "", weight: int = 0
    ) -> None:
        """Note something that needs a person."""
        self.problems.append(Problem(level, see(text), page, see(remedy), weight))

    def tip(self, branch: str) -> str:
        """Give where a branch stands, "" when there is no ledger or no branch."""
        return self.ledger.tip(branch) if self.ledger is not None else ""


def _at(error: MusterError) -> str:
    return f" ({error.where})" if error.where else ""


def gather(
    ledger: Ledger | None,
    vault: Vault | None,
    *,
    name: str,
    now: datetime,
    version: str,
    promises: Promises | None = None,
    ledger_path: str = "",
    vault_location: str = "",
    scripts: Mapping[str, str] | None = None,
    records: Sequence[str] = (),
    troubles: Sequence[str] = (),
) -> Site:
    """Read everything that is recorded. Raises nothing for what a store does: that is a trouble.

    `ledger` and `vault` are None where there is none or it cannot be opened; `troubles` says why.
    `scripts` are the drills that could be run (name -> title), `records` ids of what was applied.
    """
    promised = promises or Promises()
    reading = _Reading(ledger, vault, now, promised, [see(t) for t in troubles])
    state, history = _states(reading)
    drift_document = (
        reading.attempt("the newest audit", lambda: load_latest(ledger), None) if ledger else None
    )
    drift = _drift(reading, drift_document)
    anchors = {f.key: f.anchor for f in drift.findings}
    estate = _estate(reading, state, history, anchors)
    readiness = _readiness(reading, history)
    replication, clocks = _replication(reading)
    readiness = _with_clocks(reading, readiness, clocks)
    drills, copies, evidences = _drills(reading, scripts or {})
    unrecoverable = _unrecoverable(reading, state)
    evidence = _evidence(reading, evidences, drills, drift, records)
    for trouble in reading.troubles:
        reading.problem(Level.UNKNOWN, f"could not be read: {trouble}", "evidence.html", weight=9)
    problems = sorted(reading.problems, key=lambda p: (-p.level.rank, -p.weight, p.text))
    return Site(
        see(name, 120),
        now,
        see(version, 40),
        see(ledger_path, 400),
        see(vault_location, 400),
        (
            (
                "RTO",
                span(promised.rto.total_seconds()) if promised.rto else "no number is promised",
            ),
            (
                "RPO",
                span(promised.rpo.total_seconds()) if promised.rpo else "no number is promised",
            ),
        ),
        estate,
        readiness,
        drift,
        replication,
        drills,
        unrecoverable,
        evidence,
        tuple(problems),
        tuple(reading.troubles),
        copies,
    )


def _states(reading: _Reading) -> tuple[Snapshot | None, list[Entry]]:
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


# --------------------------------------------------------------------------------------- estate


def _comeback(resource: Resource) -> Comeback:
    kind = BY_NAME.get(resource.key.kind)
    if kind is None:
        return Comeback(Recovery.RECORDED, "a kind this version does not know", "")
    return kind.recovery(resource)


def _regions(resources: Mapping[Key, Resource]) -> dict[tuple[str, ...], str]:
    """Give the region of each account, by subscription, group and name."""
    found: dict[tuple[str, ...], str] = {}
    for key, resource in resources.items():
        where = resource.body.get("location")
        if key.kind == "account" and isinstance(where, str):
            found[key.path[:3]] = location(where)
    return found


def _everything(state: Snapshot) -> dict[Key, tuple[Resource, bool]]:
    return {
        **{key: (r, False) for key, r in state.resources.items()},
        **{key: (r, True) for key, r in state.stale.items()},
    }


def _estate(
    reading: _Reading,
    state: Snapshot | None,
    history: Sequence[Entry],
    anchors: Mapping[str, str],
) -> Estate:
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
    everything = _everything(state)
    regions = _regions({key: r for key, (r, _) in everything.items()})
    by_recovery: Counter[str] = Counter()
    by_region: dict[str, Counter[str]] = {}
    kinds: Counter[tuple[str, Comeback]] = Counter()
    unread: Counter[tuple[str, Comeback]] = Counter()
    accounts: dict[tuple[str, ...], list[tuple[Comeback, bool]]] = {}
    rows: list[ResourceRow] = []
    for key, (resource, stale) in sorted(everything.items()):
        comeback = _comeback(resource)
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
    back = sum(1 for r, s in everything.values() if not s and _comeback(r).recovery in _BACK)
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
            ("Payloads", f"{len(payloads):,} files, {_size(sum(payloads.values()))}"),
            ("Gaps", f"{len(state.gaps):,}" if state.gaps else "none: everything was read"),
            ("Written by", f"muster {state.version}"),
        ),
    )


def _freshness(reading: _Reading, history: Sequence[Entry], state: Snapshot) -> tuple[Level, str]:
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


def _payloads(reading: _Reading, payloads: Mapping[str, int]) -> Level:
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
    reading: _Reading,
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
                sum(c.recovery not in _BACK for c, _ in held),
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


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


# ------------------------------------------------------------------------------------- readiness


_STATES = {
    "met": Level.GOOD,
    "at risk": Level.RISK,
    "not known": Level.UNKNOWN,
    "not met": Level.BAD,
}


def _json_files(reading: _Reading, branch: str, prefix: str) -> list[tuple[str, JsonObject]]:
    """Give the JSON documents below a folder of a branch; damaged ones are troubles."""
    ledger = reading.ledger
    if ledger is None or not ledger.tip(branch):
        return []
    nothing: list[tuple[str, bytes]] = []
    files = reading.attempt(
        f"{branch}:{prefix}", lambda: list(ledger.files(branch, prefix)), nothing
    )
    found: list[tuple[str, JsonObject]] = []
    for path, content in files:
        if not path.endswith(".json"):
            continue
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError:
            document = None
        if isinstance(document, dict):
            found.append((path, document))
        else:
            reading.troubles.append(see(f"{branch}:{path} is no JSON object"))
    return found


def _text(document: Mapping[str, Json], name: str) -> str:
    value = document.get(name)
    return see(value) if isinstance(value, str) else ""


def _number(document: Mapping[str, Json], name: str) -> float | None:
    value = document.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _rows(document: Mapping[str, Json], name: str) -> list[JsonObject]:
    value = document.get(name)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _texts(document: Mapping[str, Json], name: str) -> tuple[str, ...]:
    value = document.get(name)
    return tuple(see(v) for v in value) if isinstance(value, list) else ()


def _time(value: Json) -> datetime | None:
    if not isinstance(value, str) or not value:
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _readiness(reading: _Reading, history: Sequence[Entry]) -> Readiness:
    answers = sorted(
        (at, path, document)
        for path, document in _json_files(reading, EVIDENCE, READINESS)
        if (at := _time(document.get("at"))) is not None
    )
    remedy = "run `muster ready`"
    if not answers:
        reading.problem(
            Level.UNKNOWN,
            "Whether a recovery would work is not known: nobody asked, or no answer was kept",
            "readiness.html",
            remedy,
            6,
        )
        views = tuple(
            PairView(f"{p} → {s}", f"pair-{p}-{s}", Level.UNKNOWN, "not known", None)
            for p, s in reading.promises.pairs
        )
        return Readiness(
            Part(Level.UNKNOWN, "Not known: no answer is recorded", (), (remedy,)), views
        )
    sources: list[Source] = []
    newest: dict[str, tuple[datetime, list[CheckRow]]] = {}
    whole: tuple[datetime, JsonObject] | None = None
    for at, path, document in answers:
        sources.append(
            reading.source(
                "readiness",
                f"answer of muster ready ({path})",
                f"{reading.tip(EVIDENCE)[:12]}:{path}",
                at,
                f"git --git-dir=LEDGER show evidence:{path}",
            )
        )
        grouped: dict[str, list[CheckRow]] = {}
        for check in _rows(document, "checks"):
            grouped.setdefault(_text(check, "pair"), []).append(_check(check))
        for pair in _texts(document, "pairs"):
            grouped.setdefault(pair, [])
        everything = not path.removeprefix(READINESS).startswith("pair-")
        if everything:
            whole = (at, document)
        for pair, checks in grouped.items():
            if pair or everything:
                newest[pair] = (at, checks)
    for p, s in reading.promises.pairs:
        newest.setdefault(f"{p}:{s}", (datetime.min.replace(tzinfo=UTC), []))
    views = tuple(
        _pair_view(reading, pair, *found) for pair, found in sorted(newest.items()) if pair
    )
    if "" in newest:
        views = (_pair_view(reading, "", *newest[""]), *views)
    latest_at, latest = (whole[0], whole[1]) if whole else (answers[-1][0], answers[-1][2])
    objectives = tuple(_promised(row) for row in _rows(latest, "objectives"))
    level = worst([view.level for view in views])
    headline = f"{_verdict_words(level)}, as asked {before(latest_at, reading.now)}"
    if reading.now - latest_at > STALE:
        level = worst([level, Level.RISK])
        headline += ": an old answer"
        reading.problem(
            Level.RISK,
            f"The last answer of `muster ready` is from {when(latest_at)}",
            "readiness.html",
            remedy,
        )
    if whole is None:
        level = worst([level, Level.UNKNOWN])
        headline += "; the whole estate was never asked for"
    asked_of = _text(latest, "snapshot")
    missing: tuple[str, ...] = ()
    asked = next((e for e in history if e.snapshot == asked_of), None)
    if history and asked_of and (asked is None or asked.tree != history[0].tree):
        missing = (
            f"whether that still holds: it was asked of snapshot {asked_of}, and the estate "
            f"changed since; {remedy} again",
        )
    _ready_problems(reading, views)
    return Readiness(Part(level, headline, tuple(sources[-6:]), missing), views, objectives)


def _verdict_words(level: Level) -> str:
    return {
        Level.GOOD: "A recovery would work",
        Level.NOTE: "A recovery would work",
        Level.RISK: "A recovery would work today, with risks",
        Level.UNKNOWN: "Not known whether a recovery would work",
        Level.BAD: "A recovery would not keep its promises",
    }[level]


def _check(check: Mapping[str, Json]) -> CheckRow:
    state = _text(check, "state")
    return CheckRow(
        _STATES.get(state, Level.UNKNOWN),
        state or "not known",
        _text(check, "name"),
        _text(check, "subject"),
        _text(check, "detail"),
        _time(check.get("date")),
        _text(check, "remedy"),
        _text(check, "objective").upper(),
    )


def _promised(row: Mapping[str, Json]) -> Promised:
    state = _text(row, "state")
    seconds = _number(row, "promised_seconds")
    return Promised(
        _text(row, "name").upper(),
        span(seconds) if seconds is not None else "no number is promised",
        _STATES.get(state, Level.UNKNOWN),
        state,
        _text(row, "detail"),
    )


def _pair_view(reading: _Reading, pair: str, at: datetime, checks: Sequence[CheckRow]) -> PairView:
    primary, _, standby = pair.partition(":")
    name = f"{primary} → {standby}" if pair else "The whole estate"
    anchor = "pair-" + (re.sub(r"[^a-z0-9]+", "-", pair.lower()) if pair else "estate")
    asked = at > datetime.min.replace(tzinfo=UTC)
    ordered = tuple(sorted(checks, key=lambda c: (-c.level.rank, c.name, c.subject)))
    if not asked:
        return PairView(
            name, anchor, Level.UNKNOWN, "not known", None, note="never asked: run `muster ready`"
        )
    level = worst([c.level for c in ordered]) if ordered else Level.UNKNOWN
    state = next((s for s, found in _STATES.items() if found is level), "not known")
    configured = not pair or (primary, standby) in reading.promises.pairs
    note = "" if configured else "no longer configured"
    return PairView(name, anchor, level, state, at, ordered, note=note)


def _ready_problems(reading: _Reading, views: Sequence[PairView]) -> None:
    for view in views:
        for level in (Level.BAD, Level.UNKNOWN, Level.RISK):
            found: dict[str, list[CheckRow]] = {}
            for check in view.checks:
                # Clocks and what other pages know first-hand are told by those.
                if check.level is level and check.name != "rescue clock":
                    found.setdefault(check.name, []).append(check)
            for name, checks in found.items():
                where = "" if view.anchor == "pair-estate" else f" ({view.name})"
                more = f", and {len(checks) - 1} more" if len(checks) > 1 else ""
                subject = checks[0].subject.rsplit("/", 1)[-1]
                reading.problem(
                    level,
                    f"{name.capitalize()}{where}: {subject}: {checks[0].detail}{more}",
                    f"readiness.html#{view.anchor}",
                    checks[0].remedy,
                    2,
                )


def _with_clocks(reading: _Reading, readiness: Readiness, more: Sequence[Clock]) -> Readiness:
    clocks = list(more)
    for view in readiness.pairs:
        for check in view.checks:
            # Dates of other checks say when something was, not when it ends.
            if check.date is None or check.name not in _ENDING:
                continue
            if check.level is Level.GOOD and check.name != "rescue clock":
                continue
            clocks.append(
                _clock(
                    reading,
                    check.name,
                    check.subject,
                    check.date,
                    check.remedy or check.detail,
                    "muster ready",
                )
            )
    known = {(c.name, c.what, c.ends): c for c in clocks}
    for clock in known.values():
        if clock.level in (Level.BAD, Level.RISK):
            reading.problem(
                clock.level,
                f"{clock.name.capitalize()}: {clock.what} {clock.left}",
                "readiness.html#clocks",
                clock.step,
                3,
            )
    return replace(readiness, clocks=tuple(sorted(known.values(), key=lambda c: (c.ends, c.what))))


_ENDING = frozenset({"rescue clock", "retirement", "lifecycle", "15 days without a call"})
_SOON = timedelta(days=3)


def _clock(
    reading: _Reading, name: str, what: str, ends: datetime, step: str, source: str
) -> Clock:
    left = ends - reading.now
    if left <= timedelta(0):
        level, told = Level.BAD, f"ended {words.age(-left.total_seconds())} before this report"
    else:
        level = Level.RISK if left <= _SOON or name == "rescue clock" else Level.NOTE
        told = f"ends in {words.age(left.total_seconds())}"
    return Clock(level, name, see(what, 300), ends, told, see(step), source)


# ----------------------------------------------------------------------------------------- drift


def _drift(reading: _Reading, document: JsonObject | None) -> Drift:
    ledger = reading.ledger
    remedy = "run `muster audit`"
    none: list[Entry] = []
    logged = (
        reading.attempt(
            "the history of audits", lambda: list(ledger.log(5_000, ref=EVIDENCE)), none
        )
        if ledger
        else none
    )
    approved = (
        reading.attempt(
            "the history of the baseline", lambda: list(ledger.log(DECISIONS, ref=BASELINE)), none
        )
        if ledger
        else none
    )
    audits = tuple(
        AuditPoint(
            e.when,
            see(e.trailers["Audit-Id"], 80),
            int(e.number("Findings")),
            int(e.number("Gaps")),
            e.commit,
        )
        for e in reversed(logged)
        if "Audit-Id" in e.trailers
    )
    decisions = tuple(_decisions(approved, logged))[:DECISIONS]
    stories, per_day = _stories(reading)
    base = Drift(
        Part(Level.UNKNOWN, "Not known: no audit is recorded", (), (remedy,)),
        audits=audits[-POINTS:],
        stories=stories,
        stories_by_day=per_day,
        decisions=decisions,
    )
    if document is None or ledger is None:
        reading.problem(
            Level.UNKNOWN,
            "Whether anything drifted is not known: there was no audit",
            "drift.html",
            remedy,
            5,
        )
        return base
    at = _time(document.get("at"))
    baseline = _text(document, "baseline")
    kept = next((e for e in logged if e.trailers.get("Audit-Id") == document.get("audit")), None)
    if kept is not None and (at is None or at > reading.now):
        at = kept.when  # an audit tells Azure's time, which may run ahead of ours
    source = reading.source(
        "audit",
        f"audit {_text(document, 'audit')}",
        kept.commit if kept is not None else "",
        at,
        "git --git-dir=LEDGER show evidence:audits/latest.json",
    )
    sources = [source]
    if baseline:
        sources.append(
            reading.source(
                "baseline",
                f"baseline by {_text(document, 'baseline_by') or 'somebody'}",
                baseline,
                _time(document.get("baseline_at")),
                f"muster show {baseline[:12]}",
            )
        )
    found = reading.attempt(
        "the findings of the newest audit", lambda: findings_in(document, {}, {}), None
    )
    if found is None:
        return replace(
            base,
            part=Part(
                Level.UNKNOWN,
                "Not known: the newest audit cannot be read",
                tuple(sources),
                (remedy,),
            ),
        )
    undecided = Decisions()
    decided = reading.attempt(
        "the decisions on the baseline", lambda: load_decisions(ledger), undecided
    )
    marked = [
        replace(
            f,
            ignored=decided.ignored(f.id, f.key, f.change, [p.path for p in f.paths], reading.now),
            pending=decided.pending.get(f.id),
        )
        for f in found
    ]
    counted, aside = words.shown(marked), words.set_aside(marked)
    missing: list[str] = []
    if _moved_on(approved, baseline):
        missing.append("the baseline was changed after this audit: run `muster audit` again")
    gaps = len(_rows(document, "gaps"))
    level, headline = _drift_level(reading, counted, gaps, baseline, at)
    by_severity = {s.value: n for s, n in words.by_severity(counted)}
    by_class = {c.value: n for c, n in words.by_class(counted)}
    return replace(
        base,
        part=Part(level, headline, tuple(sources), tuple(missing)),
        findings=tuple(_finding(f, n) for n, f in enumerate(counted[:FINDINGS])),
        ignored=tuple(_finding(f, n, "ignored") for n, f in enumerate(aside[:FINDINGS])),
        by_severity=by_severity,
        by_class=by_class,
        risks=tuple(
            (_text(r, "severity"), _text(r, "message"), _text(r, "due")[:10])
            for r in _rows(document, "risks")[:FINDINGS]
        ),
        facts=(
            ("Audit", f"{_text(document, 'audit')}, {when(at)}"),
            (
                "Baseline",
                f"{baseline[:12]} of {when(_time(document.get('baseline_at')))} by {_text(document, 'baseline_by') or 'not known'}"
                if baseline
                else "none yet",
            ),
            ("Live state", _text(document, "live")[:12]),
            ("Last full sweep", when(_time(document.get("last_sweep")))),
            ("Resources", f"{int(_number(document, 'resources') or 0):,}"),
            ("Gaps", f"{gaps:,}" if gaps else "none"),
        ),
    )


def _moved_on(approved: Sequence[Entry], baseline: str) -> bool:
    """Whether what is approved changed after an audit; words of owners change nothing."""
    for entry in approved:
        if entry.commit == baseline:
            return False
        if not {"Signed-By", "Ignored-By"} & set(entry.trailers):
            return bool(baseline)
    return False


def _id_time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _drift_level(
    reading: _Reading, counted: Sequence[Finding], gaps: int, baseline: str, at: datetime | None
) -> tuple[Level, str]:
    now = reading.now
    told = f"as audited {before(at, now)}"
    if not baseline:
        reading.problem(
            Level.UNKNOWN,
            "Nothing is approved yet, so no change can be judged",
            "drift.html",
            "run `muster approve --all --reason TEXT`",
            4,
        )
        return Level.UNKNOWN, "No baseline: nothing is approved, so nothing can be judged"
    levels: list[Level] = []
    for finding in counted:
        bad = finding.severity.at_least(Severity.HIGH)
        unknown = finding.change is ChangeType.UNKNOWN
        levels.append(Level.UNKNOWN if unknown else Level.BAD if bad else Level.RISK)
    for number, (finding, level) in enumerate(zip(counted, levels, strict=True)):
        if number == 5 and len(counted) > 6:
            reading.problem(
                worst(levels[5:]),
                f"{len(counted) - 5:,} more open findings",
                "drift.html#findings",
                "",
                finding.severity.rank,
            )
            break
        reading.problem(
            level,
            f"{words.title(finding)}: {words.name(finding)}, {words.who(finding.attribution)}, {_utc(words.seen(finding))}",
            f"drift.html#{_anchor(finding, number)}",
            f"`muster revert {finding.id}`, or `muster approve {finding.id} --reason TEXT`",
            finding.severity.rank + 1,
        )
    if gaps:
        reading.problem(
            Level.UNKNOWN,
            f"The newest audit could not read everything: {words.plural(gaps, 'gap')}",
            "drift.html",
            "`muster doctor` names missing permissions",
        )
        levels.append(Level.UNKNOWN)
    old = at is None or now - at > STALE
    if old:
        reading.problem(
            Level.RISK, f"The last audit is from {when(at)}", "drift.html", "run `muster audit`"
        )
        levels.append(Level.RISK)
    if counted:
        return worst(levels), (
            f"{words.plural(len(counted), 'open finding')}, the worst {counted[0].severity.value}, {told}"
        )
    if gaps:
        return (
            Level.UNKNOWN,
            f"No finding where it could be read, {words.plural(gaps, 'gap')}, {told}",
        )
    return worst([Level.GOOD, *levels]), f"Live state is the approved baseline, {told}"


def _anchor(finding: Finding, number: int) -> str:
    return (
        f"f-{finding.id}" if re.fullmatch(r"[0-9a-f]{6,64}", finding.id) else f"f-number-{number}"
    )


def _finding(finding: Finding, number: int, prefix: str = "") -> FindingRow:
    rule = words.worst_rule(finding)
    note = ""
    if finding.ignored is not None:
        kept = finding.ignored
        note = f"ignored by {kept.by} until {when(kept.expires)}: {kept.reason}"
    elif finding.pending is not None:
        note = f"approved by {', '.join(finding.pending.by)}, waits for a second person: {finding.pending.reason}"
    return FindingRow(
        see(finding.id, 64),
        prefix + _anchor(finding, number),
        finding.severity.value,
        finding.class_.value,
        finding.change.value,
        see(words.title(finding), 200),
        see(words.name(finding), 200),
        see(finding.key, 400),
        see(words.who(finding.attribution), 160),
        see(_utc(words.seen(finding)), 160),
        see(rule.why if rule is not None else "; ".join(finding.reasons)),
        tuple(
            (see(words.pointer(p.path), 200), _value(p.before), _value(p.after))
            for p in finding.paths[:PROPERTIES]
        ),
        max(0, len(finding.paths) - PROPERTIES),
        when(finding.first_seen),
        see(words.restore(finding)),
        see(note),
        see(words.revert(finding), 120),
    )


def _utc(text: str) -> str:
    return re.sub(r"(\d\d:\d\d:\d\d)Z", r"\1 UTC", text)


def _value(found: Json | Missing) -> str:
    return "not there" if isinstance(found, Missing) else see(canonical(found).decode(), 200)


def _stories(reading: _Reading) -> tuple[tuple[StoryRow, ...], dict[str, int]]:
    ledger = reading.ledger
    if ledger is None or not ledger.tip(EVIDENCE):
        return (), {}
    none: dict[Key, list[Story]] = {}
    found = reading.attempt("the stories of changes", lambda: load_stories(ledger), none)
    rows = [
        StoryRow(
            story.attribution.when or story.until,
            story.change.value,
            see(story.key.name, 160),
            see(story.key.kind, 80),
            see(words.who(story.attribution), 160),
            story.attribution.confidence.value,
            see(", ".join(words.pointer(p.change.path) for p in story.paths[:4]), 200),
        )
        for stories in found.values()
        for story in stories
    ]
    rows.sort(key=lambda r: (r.at, r.kind, r.name), reverse=True)
    per_day = Counter(day(row.at) for row in rows)
    return tuple(rows[:STORIES]), dict(sorted(per_day.items())[-POINTS:])


def _decisions(approved: Sequence[Entry], logged: Sequence[Entry]) -> list[DecisionRow]:
    found: list[DecisionRow] = []
    for entry in (*approved, *logged):
        by = next(
            (
                entry.trailers[name]
                for name in ("Approved-By", "Ignored-By", "Reverted-By", "Signed-By")
                if name in entry.trailers
            ),
            "",
        )
        baseline = entry in approved
        if by or baseline:
            found.append(
                DecisionRow(
                    entry.when,
                    see(entry.subject, 200),
                    see(by or entry.author, 160),
                    see(entry.trailers.get("Reason", "")),
                    see(entry.trailers.get("Ticket", ""), 80),
                    entry.commit,
                )
            )
    found.sort(key=lambda d: (d.at, d.commit), reverse=True)
    return found


# ----------------------------------------------------------------------------------- replication


def _replication(reading: _Reading) -> tuple[ReplicationView, list[Clock]]:
    remedy = "run `muster replicate --apply`"
    known: dict[tuple[str, str], Replication] = {}
    damaged: set[str] = set()
    for path, document in _json_files(reading, REPLICATION, "replication/"):
        try:
            found = Replication.from_document(document)
        except ValueError as wrong:
            reading.troubles.append(see(f"{REPLICATION}:{path} cannot be read: {wrong}"))
            damaged.add(path)
            continue
        known[found.primary, found.standby] = found
    pairs = [*reading.promises.pairs]
    pairs += [pair for pair in sorted(known) if pair not in pairs]
    clocks: list[Clock] = []
    views: list[ReplicationPair] = []
    for primary, standby in pairs:
        pair = known.get((primary, standby))
        name = f"{primary} → {standby}"
        if path_of(primary, standby) in damaged:
            views.append(
                ReplicationPair(name, Level.UNKNOWN, "what is known of it is damaged", None)
            )
            continue
        if pair is None or (pair.last is None and not pair.replicas):
            reading.problem(
                Level.BAD,
                f"The standby of {name} was never brought in step",
                "replication.html",
                remedy,
                4,
            )
            views.append(ReplicationPair(name, Level.BAD, "never brought in step", None))
            continue
        views.append(_pair(reading, name, pair, clocks))
    sources: list[Source] = []
    tip = reading.tip(REPLICATION)
    if tip and reading.ledger is not None:
        entry = reading.attempt("the registry of replicas", lambda: _entry(reading, tip), None)
        sources.append(
            reading.source(
                "replication",
                "registry of replicas",
                tip,
                entry.when if entry else None,
                "git --git-dir=LEDGER show replication",
            )
        )
    if not pairs:
        reading.problem(
            Level.UNKNOWN,
            "No standby region is named, so nothing is kept in step",
            "replication.html",
            "add [[estate.pair]] to muster.toml",
            3,
        )
        part = Part(
            Level.UNKNOWN,
            "Not known: no pair of regions is configured",
            (),
            ("add [[estate.pair]] with primary and standby to muster.toml",),
        )
        return ReplicationView(part), clocks
    level = worst([view.level for view in views])
    headline = "; ".join(f"{view.name}: {view.headline}" for view in views[:3])
    missing = (remedy,) if any(view.last is None for view in views) else ()
    return ReplicationView(Part(level, headline, tuple(sources), missing), tuple(views)), clocks


def _entry(reading: _Reading, commit: str) -> Entry | None:
    return reading.ledger.entry(commit) if reading.ledger is not None else None


def _pair(reading: _Reading, name: str, pair: Replication, clocks: list[Clock]) -> ReplicationPair:
    rows: list[ReplicaRow] = []
    for replica in pair.replicas:
        deadline = replica.deadline
        level = {
            ReplicaState.PROVED: Level.GOOD,
            ReplicaState.UNPROVED: Level.RISK,
            ReplicaState.WRONG: Level.BAD,
            ReplicaState.MISSING: Level.BAD,
        }[replica.state]
        left = ""
        if deadline is not None and replica.state is not ReplicaState.MISSING:
            clock = _clock(
                reading,
                "idle deployment",
                f"{replica.target.name} in {pair.standby}: Azure deletes it when it is not called",
                deadline,
                "run `muster replicate --apply`: it keeps replicas alive",
                "registry of replicas",
            )
            clocks.append(clock)
            left = clock.left
            level = worst([level, clock.level if clock.level is not Level.NOTE else Level.GOOD])
        if level is not Level.GOOD:
            reading.problem(
                level,
                f"Replica of {replica.model} is {replica.state.value}"
                + (f": {replica.detail}" if replica.detail else ""),
                "replication.html",
                "run `muster replicate --apply`",
                2,
            )
        rows.append(_replica(replica, level, left))
    last = pair.last
    if last is None:
        level, headline = Level.UNKNOWN, "no run is recorded"
    elif last.complete:
        level, headline = Level.GOOD, f"in step {before(last.at, reading.now)}"
    else:
        level, headline = Level.RISK, f"something was left to do {before(last.at, reading.now)}"
        reading.problem(
            Level.RISK,
            f"The last replication of {name} did not come to an end",
            "replication.html",
            "run `muster replicate --apply`",
            2,
        )
    rpo = reading.promises.rpo
    if last is not None and rpo is not None and reading.now - last.at > rpo:
        headline += f", longer ago than the promised RPO of {span(rpo.total_seconds())}"
        level = worst([level, Level.RISK])
        reading.problem(
            Level.RISK,
            f"{name} was brought in step {before(last.at, reading.now)}; {span(rpo.total_seconds())} is promised as RPO",
            "replication.html",
            "run `muster replicate --apply`",
            1,
        )
    facts = (
        (
            ("Last run", f"{when(last.at)}, {before(last.at, reading.now)}"),
            ("Came to", "nothing was left to do" if last.complete else "something was left to do"),
            ("Steps", f"{last.steps:,}, in {span(last.seconds)}"),
            ("Record", see(last.record) or "none: nothing had to be done"),
            ("Snapshot", see(last.snapshot) or "not known"),
        )
        if last is not None
        else ()
    )
    return ReplicationPair(
        name,
        worst([level, *(row.level for row in rows)]),
        headline,
        last.at if last else None,
        facts,
        tuple(rows),
    )


def _replica(replica: Replica, level: Level, left: str) -> ReplicaRow:
    proof = "never proved"
    if replica.proof is not None:
        found = replica.proof
        proof = f"{found.same} of {found.prompts} answers the same, {when(found.at)}"
        if found.base:
            proof += f"; {found.unlike_base} unlike the base model"
    return ReplicaRow(
        level,
        see(replica.model, 200),
        see(replica.source.name, 120),
        see(replica.target.name, 120),
        replica.way.value,
        replica.state.value,
        see(proof),
        span(replica.lag.total_seconds()),
        replica.deadline,
        left or ("kept cold: nothing to delete" if not replica.deployed else ""),
        see(replica.detail),
    )


# ---------------------------------------------------------------------------------------- drills


_VERDICTS = {
    "passed": Level.GOOD,
    "not proved": Level.RISK,
    "interrupted": Level.RISK,
    "failed": Level.BAD,
}
_STEPS = {"done": Level.GOOD, "skipped": Level.NOTE, "failed": Level.BAD}
_CHECKS = {"passed": Level.GOOD, "failed": Level.BAD}
_CLEAN = {"clean": Level.GOOD, "kept": Level.NOTE, "left": Level.BAD}
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


def _drills(
    reading: _Reading, scripts: Mapping[str, str]
) -> tuple[Drills, dict[str, bytes], list[RunRow]]:
    ledger = reading.ledger
    none: tuple[Evidence, ...] = ()
    kept = none
    raw: dict[str, bytes] = {}
    if ledger is not None and ledger.tip(EVIDENCE):
        kept = reading.attempt("the evidence of drills", EvidenceBook(ledger, None).all, none)
        raw = reading.attempt(
            "the evidence of drills", lambda: dict(ledger.files(EVIDENCE, f"{DRILLS}/")), raw
        )
    hashes = {e.hash for e in kept}
    roots = sum(1 for e in kept if not e.document.get("previous"))
    runs: list[RunRow] = []
    copies: dict[str, bytes] = {}
    for evidence in kept:
        wrong = [*problems_of(evidence)]
        previous = evidence.document.get("previous")
        if previous and previous not in hashes:
            wrong.append("the chain is broken: the evidence before it is missing or changed")
        elif not previous and roots > 1:
            wrong.append("the chain has more than one beginning")
        runs.append(_run(evidence, wrong, signed=f"{DRILLS}/{evidence.id}.sig" in raw))
    runs.sort(key=lambda r: (r.at or datetime.min.replace(tzinfo=UTC), r.id), reverse=True)
    for number, run in enumerate(runs):
        data = raw.get(f"{DRILLS}/{run.id}.json")
        if number < RUNS and data is not None and _SAFE_ID.fullmatch(run.id):
            copies[f"evidence/{run.id}.json"] = data
            runs[number] = replace(run, page=f"drill-{run.id}.html", json=f"evidence/{run.id}.json")
        if run.problems:
            reading.problem(
                Level.BAD,
                f"Evidence {run.id} does not hold: {run.problems[0]}",
                "drills.html",
                f"run `muster drill check {run.id}`",
                9,
            )
    views = [_drill_view(reading, name, runs, scripts) for name in sorted({r.drill for r in runs})]
    rehearsals = _rehearsals(reading, runs)
    never = tuple(
        (see(name, 80), see(title, 160))
        for name, title in sorted(scripts.items())
        if name not in {view.name for view in views}
    )
    source = (
        (
            reading.source(
                "evidence",
                "evidence branch",
                reading.tip(EVIDENCE),
                runs[0].at,
                "muster drill check last",
            ),
        )
        if runs
        else ()
    )
    remedy = "run `muster drill run NAME` (`muster drill list` names them)"
    real = [view.real for view in views if view.real is not None]
    if not real:
        told = "no recovery was ever rehearsed for real"
        reading.problem(
            Level.UNKNOWN,
            f"How long a recovery takes is not known: {told}",
            "drills.html",
            remedy,
            5,
        )
        level, headline = Level.UNKNOWN, f"Not known: {told}"
    else:
        level = worst([view.level for view in views if view.real is not None])
        passed = sum(1 for run in real if run.verdict == "passed")
        newest = max(real, key=lambda r: (r.at or datetime.min.replace(tzinfo=UTC), r.id))
        headline = (
            f"{passed} of {words.plural(len(real), 'drill')} passed when last run; "
            f"the newest {before(newest.at, reading.now)}"
        )
    missing = () if real else (remedy,)
    return (
        Drills(Part(level, headline, source, missing), tuple(views), rehearsals, never),
        copies,
        runs,
    )


def _run(evidence: Evidence, wrong: Sequence[str], *, signed: bool) -> RunRow:
    document = evidence.document
    verdict = _text(document, "verdict")
    objective = document.get("objective")
    promised = objective if isinstance(objective, dict) else {}
    cleaned = document.get("cleanup")
    cleanup = cleaned if isinstance(cleaned, dict) else {}
    begun, ended = _time(document.get("started_at")), _time(document.get("finished_at"))
    phases = document.get("phases")
    script = document.get("script")
    versions = document.get("versions")
    level = Level.BAD if wrong else _VERDICTS.get(verdict, Level.UNKNOWN)
    rto, most = _number(document, "rto_seconds"), _number(promised, "rto_seconds")
    if rto is not None and most is not None and rto > most:
        level = Level.BAD
    state = _text(cleanup, "state")
    return RunRow(
        see(evidence.id, 120),
        "",
        "",
        _text(document, "drill"),
        _text(document, "title"),
        _text(document, "mode"),
        level,
        verdict or "not known",
        ended or begun,
        (ended - begun).total_seconds() if begun and ended else 0.0,
        rto,
        _number(document, "rpo_seconds"),
        most,
        _number(promised, "rpo_seconds"),
        _texts(document, "reasons"),
        _texts(document, "findings"),
        tuple(_proved(c) for c in _rows(document, "gate")),
        tuple(_proved(c) for c in _rows(document, "checks")),
        tuple(_steps(_rows(document, "steps"))),
        tuple(
            (see(name, 80), span(float(value)))
            for name, value in (phases.items() if isinstance(phases, dict) else ())
            if isinstance(value, int | float)
        ),
        state or "not known",
        _CLEAN.get(state, Level.UNKNOWN),
        (*(f"left: {t}" for t in _texts(cleanup, "left")), *_texts(cleanup, "proof")),
        _texts(document, "approvals"),
        signed,
        evidence.hash,
        _text(document, "previous"),
        tuple(see(w) for w in wrong),
        see_lines(script.get("text") if isinstance(script, dict) else ""),
        (
            ("Estate", _text(document, "estate")),
            ("Mode", _text(document, "mode")),
            ("Seed", see(document.get("seed"))),
            ("Began", when(begun)),
            ("Ended", when(ended)),
            ("Snapshot", _text(document, "snapshot")),
            ("Target", _text(document, "target")),
            ("Blast radius", _text(document, "blast_radius")),
            ("Calls", see(document.get("calls", ""))),
            ("Cost estimate", f"{_number(document, 'cost_estimate') or 0:.2f} US dollars"),
            ("muster", _text(versions, "muster") if isinstance(versions, dict) else ""),
        ),
    )


def see_lines(text: object, limit: int = 20_000) -> str:
    """Make a text of several lines printable and of bounded length."""
    return words.cut(words.visible(str(text), lines=True), limit)


def _proved(check: Mapping[str, Json]) -> Proved:
    state, control = _text(check, "state"), _text(check, "negative_control")
    level = _CHECKS.get(state, Level.UNKNOWN)
    if level is Level.GOOD and control != "failed":
        level = Level.RISK  # it cannot fail, or nobody knows whether it can
    detail = _text(check, "detail") or _text(check, "control_detail")
    return Proved(
        level,
        _text(check, "name"),
        _text(check, "subject"),
        state,
        {"failed": "refused, as it must", "passed": "NOT refused", "not-run": "not run"}.get(
            control, control
        ),
        detail,
    )


def _steps(rows: Iterable[JsonObject], depth: int = 0) -> Iterator[Timed]:
    for row in rows:
        state = _text(row, "state")
        yield Timed(
            _STEPS.get(state, Level.UNKNOWN),
            "\u2003" * depth + _text(row, "name"),
            _text(row, "kind"),
            state,
            _text(row, "phase"),
            span(_number(row, "seconds")),
            _number(row, "seconds") or 0.0,
            row.get("critical") is True,
            _text(row, "detail"),
        )
        if depth < 4:
            yield from _steps(_rows(row, "steps"), depth + 1)


def _drill_view(
    reading: _Reading, name: str, every: Sequence[RunRow], scripts: Mapping[str, str]
) -> DrillView:
    runs = tuple(run for run in every if run.drill == name)
    real = next((run for run in runs if run.mode == "real"), None)
    title = see(scripts.get(name, ""), 160) or runs[0].title
    anchor = "drill-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    again = f"run `muster drill run {name}` again"
    if real is None:
        return DrillView(
            name,
            title,
            anchor,
            Level.UNKNOWN,
            "never run for real",
            runs,
            runs[0].objective_rto,
            None,
        )
    told = f"{real.verdict} {before(real.at, reading.now)}, RTO {span(real.rto)}"
    if real.objective_rto is not None:
        told += f" of {span(real.objective_rto)} promised"
    if real.level is not Level.GOOD:
        why = real.reasons[0] if real.reasons else told
        reading.problem(
            real.level,
            f"Drill {name} {real.verdict}: {why}",
            f"drills.html#{anchor}",
            again,
            3,
        )
    return DrillView(name, title, anchor, real.level, told, runs, real.objective_rto, real)


def _rehearsals(reading: _Reading, runs: Sequence[RunRow]) -> tuple[RehearsalRow, ...]:
    """Give the distributions: of recorded rehearsals, and of evidence in mode rehearsal."""
    rows: list[RehearsalRow] = []
    for path, document in _json_files(reading, EVIDENCE, REHEARSALS):
        inner = document.get("document")
        found = inner if isinstance(inner, dict) else document
        at = _time(found.get("at")) or _id_time(path.rsplit("/", 1)[-1])
        each = _rows(found, "runs")
        verdicts = Counter(_text(run, "verdict") for run in each)
        times = [t for run in each if (t := _number(run, "rto_seconds")) is not None]
        failing = found.get("failing_steps")
        rows.append(
            _rehearsal(
                _text(found, "drill"),
                at,
                verdicts,
                times,
                _number(found, "objective_seconds"),
                [
                    (see(step, 200), int(n))
                    for step, n in (failing.items() if isinstance(failing, dict) else ())
                    if isinstance(n, int)
                ],
            )
        )
    recorded = {row.drill for row in rows}
    for name in sorted({run.drill for run in runs if run.mode == "rehearsal"} - recorded):
        mine = [run for run in runs if run.drill == name and run.mode == "rehearsal"]
        failed = Counter(
            step.name.strip() for run in mine for step in run.steps if step.level is Level.BAD
        )
        rows.append(
            _rehearsal(
                name,
                mine[0].at,
                Counter(run.verdict for run in mine),
                [run.rto for run in mine if run.rto is not None],
                mine[0].objective_rto,
                failed.most_common(10),
            )
        )
    rows.sort(key=lambda r: (r.at or datetime.min.replace(tzinfo=UTC), r.drill), reverse=True)
    return tuple(rows[:24])


def _rehearsal(
    drill: str,
    at: datetime | None,
    verdicts: Counter[str],
    times: Sequence[float],
    objective: float | None,
    failing: Sequence[tuple[str, int]],
) -> RehearsalRow:
    ordered = sorted(times)
    runs = sum(verdicts.values())

    def share(part: float) -> str:
        return span(ordered[min(len(ordered) - 1, int(part * len(ordered)))])

    shares = (
        (
            ("fastest", share(0.0)),
            ("half within", share(0.5)),
            ("9 of 10 within", share(0.9)),
            ("slowest", span(ordered[-1])),
        )
        if ordered
        else ()
    )
    level = Level.GOOD if verdicts["passed"] == runs and runs else Level.RISK
    if objective is not None and ordered and ordered[-1] > objective:
        level = Level.BAD
    return RehearsalRow(
        see(drill, 120),
        at,
        runs,
        ", ".join(f"{n:,} {see(v, 40)}" for v, n in sorted(verdicts.items())),
        level,
        tuple(ordered),
        shares,
        objective,
        tuple(failing),
    )


# --------------------------------------------------------------------------------- unrecoverable


def _unrecoverable(reading: _Reading, state: Snapshot | None) -> Unrecoverable:
    ledger = reading.ledger
    none: tuple[signoffs.SignOff, ...] | None = None
    signed = (
        reading.attempt("the sign-offs", lambda: signoffs.load(ledger), none)
        if ledger is not None
        else ()
    )
    if state is None:
        return Unrecoverable(
            Part(Level.UNKNOWN, "Not known: there is no snapshot", (), ("run `muster snapshot`",))
        )
    broken = signed is None
    grouped: dict[tuple[str, Comeback], list[Resource]] = {}
    for resource, _ in _everything(state).values():
        comeback = _comeback(resource)
        if comeback.recovery not in _BACK:
            grouped.setdefault((resource.key.kind, comeback), []).append(resource)
    rows = [
        _lost(reading, kind, comeback, found, signed or ())
        for (kind, comeback), found in sorted(
            grouped.items(),
            key=lambda g: (g[0][1].recovery is not Recovery.LOST, g[0][0], g[0][1].sentence),
        )
    ]
    thread = BY_NAME.get("thread")
    counted = any(kind == "thread" for kind, _ in grouped)
    if thread is not None and not reading.promises.threads_read and not counted:
        rows.insert(0, _lost(reading, "thread", thread.comeback, None, signed or ()))
    rows.sort(key=lambda row: -row.level.rank)
    used = {s.what for s in signed or () if any(_about(s, row, grouped) for row in rows)}
    idle = tuple(
        see(f"{s.what}, signed by {s.owner}: nothing of that is in the newest snapshot")
        for s in signed or ()
        if s.what not in used
    )
    open_ = [row for row in rows if row.level is not Level.NOTE]
    for row in open_:
        reading.problem(
            row.level,
            f"{row.title} would not come back, and nobody signed for it ({row.state})",
            f"unrecoverable.html#{row.anchor}",
            row.command,
            1,
        )
    count = sum(row.count or 0 for row in rows)
    source = next((s for s in reading.sources.values() if s.anchor.startswith("s-snapshot")), None)
    sources = [source] if source else []
    tip = reading.tip(BASELINE)
    if tip:
        sources.append(
            reading.source(
                "signoffs",
                "sign-offs on the baseline",
                tip,
                max((s.at for s in signed or ()), default=None),
                "git --git-dir=LEDGER ls-tree -r baseline signoffs/",
            )
        )
    if broken:
        part = Part(Level.UNKNOWN, "Not known: the sign-offs cannot be read", tuple(sources))
    elif not rows:
        part = Part(Level.GOOD, "Everything that was read comes back", tuple(sources))
    elif open_:
        part = Part(
            worst([row.level for row in open_]),
            f"{words.plural(count, 'resource')} would not come back; {len(open_)} of {len(rows)} entries "
            "are not signed",
            tuple(sources),
        )
    else:
        part = Part(
            Level.NOTE,
            f"{words.plural(count, 'resource')} would not come back, all signed for by an owner",
            tuple(sources),
        )
    return Unrecoverable(part, tuple(rows), idle)


def _about(
    signed: signoffs.SignOff,
    row: LostRow,
    grouped: Mapping[tuple[str, Comeback], Sequence[Resource]],
) -> bool:
    recovery = Recovery(row.recovery)
    if signed.covers_kind(row.what, recovery):
        return True
    return any(
        signed.covers(r.key, recovery, r.id)
        for (kind, comeback), found in grouped.items()
        if kind == row.what and comeback.recovery is recovery
        for r in found
    )


def _lost(
    reading: _Reading,
    kind: str,
    comeback: Comeback,
    found: Sequence[Resource] | None,
    signed: Sequence[signoffs.SignOff],
) -> LostRow:
    now = reading.now
    declared = BY_NAME.get(kind)
    recovery = comeback.recovery
    valid = [s for s in signed if s.valid(now)]
    whole = next((s for s in valid if s.covers_kind(kind, recovery)), None)
    expired = next((s for s in signed if not s.valid(now) and s.covers_kind(kind, recovery)), None)
    names, unsigned, single = [], [], whole
    for resource in sorted(found or (), key=lambda r: r.key):
        by = whole or next(
            (s for s in valid if s.covers(resource.key, recovery, resource.id)), None
        )
        single = single or by
        names.append(str(resource.key))
        if by is None:
            unsigned.append(str(resource.key))
            expired = expired or next(
                (
                    s
                    for s in signed
                    if not s.valid(now) and s.covers(resource.key, recovery, resource.id)
                ),
                None,
            )
    done = whole is not None or (found is not None and not unsigned)
    total = len(names)
    title = declared.title if declared else kind
    if done:
        level, state = Level.NOTE, "signed"
    else:
        level = Level.BAD if recovery is Recovery.LOST else Level.RISK
        state = "sign-off expired" if expired is not None else "not signed"
        if found is not None and len(unsigned) < total:
            state = f"{len(unsigned)} of {total} not signed"
    shown = single if single is not None else expired
    slug = re.sub(r"[^a-z0-9]+", "-", f"{kind}-{recovery.value}-{comeback.sentence[:24]}".lower())
    what = kind if recovery is (declared.comeback.recovery if declared else recovery) else "KEY"
    return LostRow(
        f"lost-{slug}".strip("-"),
        level,
        see(kind, 80),
        see(title, 120).capitalize(),
        recovery.value,
        None if found is None else total,
        comeback.sentence,
        comeback.source,
        state,
        total - len(unsigned),
        see(shown.owner, 160) if shown else "",
        shown.at if shown else None,
        shown.expires if shown else None,
        see(shown.reason) if shown else "",
        tuple(see(n, 300) for n in names[:NAMES]),
        tuple(see(n, 300) for n in unsigned[:NAMES]),
        max(0, total - NAMES),
        f"muster report sign-off {what if what != 'KEY' or not unsigned else unsigned[0]} --owner NAME --reason TEXT",
    )


# -------------------------------------------------------------------------------------- evidence


def _evidence(
    reading: _Reading,
    runs: Sequence[RunRow],
    drills: Drills,
    drift: Drift,
    records: Sequence[str],
) -> EvidenceView:
    rows: list[EvidenceRow] = [
        EvidenceRow(
            run.at,
            "drill",
            run.id,
            run.level,
            run.verdict if not run.problems else f"{run.verdict}, DOES NOT HOLD",
            run.page,
            run.hash,
            f"muster drill check {run.id}",
        )
        for run in runs
    ]
    level = Level.BAD if any(run.problems for run in runs) else Level.GOOD
    verified: list[tuple[datetime, str]] = []
    for path, document in _json_files(reading, EVIDENCE, "verifications/"):
        at, verdict = _time(document.get("at")), _text(document, "verdict")
        if at is not None:
            verified.append((at, verdict))
        rows.append(
            EvidenceRow(
                at,
                "verification",
                path.rsplit("/", 1)[-1].removesuffix(".json"),
                Level.GOOD if verdict == "whole" else Level.BAD,
                verdict,
                "",
                "",
                f"git --git-dir=LEDGER show evidence:{path}",
            )
        )
    level = worst([level, _verified(reading, verified)])
    rows += [
        EvidenceRow(
            audit.at,
            "audit",
            audit.id,
            Level.NOTE,
            f"{words.plural(audit.findings, 'finding')}, {words.plural(audit.gaps, 'gap')}",
            "drift.html",
            audit.commit,
            f"git --git-dir=LEDGER show {audit.commit[:12]}:audits/latest.json",
        )
        for audit in drift.audits
    ]
    rows += [
        EvidenceRow(
            decision.at,
            "decision",
            decision.what,
            Level.NOTE,
            f"by {decision.by}",
            "drift.html#decisions",
            decision.commit,
            f"git --git-dir=LEDGER show {decision.commit[:12]}",
        )
        for decision in drift.decisions
    ]
    rows += [
        EvidenceRow(
            _id_time(id_), "record", see(id_, 120), Level.NOTE, "what was applied", "", "", ""
        )
        for id_ in records
    ]
    rows.sort(key=lambda r: (r.at or datetime.min.replace(tzinfo=UTC), r.kind, r.id), reverse=True)
    if reading.troubles:
        level = worst([level, Level.UNKNOWN])
    signed = sum(run.signed for run in runs)
    headline = (
        f"{words.plural(len(runs), 'drill evidence', 'drill evidences')} in one chain, {signed} signed; "
        f"{words.plural(len(verified), 'verification')}"
    )
    if any(run.problems for run in runs):
        headline = "Some evidence does not hold"
    elif reading.troubles:
        headline += f"; {words.plural(len(reading.troubles), 'thing')} could not be read"
    return EvidenceView(
        Part(level, headline, drills.part.sources),
        tuple(rows[:INDEX]),
        max(0, len(rows) - INDEX),
        tuple(sorted(reading.sources.values(), key=lambda s: s.anchor)),
        tuple(reading.troubles),
    )


def _verified(reading: _Reading, found: list[tuple[datetime, str]]) -> Level:
    remedy = "run `muster verify`"
    if not found:
        reading.problem(
            Level.UNKNOWN,
            "Whether what was kept is whole is not known: it was never verified",
            "evidence.html",
            remedy,
            4,
        )
        return Level.UNKNOWN
    at, verdict = max(found)
    if verdict != "whole":
        reading.problem(
            Level.BAD,
            f"The last verification found what was kept {verdict or 'damaged'} ({when(at)})",
            "evidence.html",
            f"{remedy} and follow what it says",
            8,
        )
        return Level.BAD
    return Level.GOOD


def record_names(folder: Path, limit: int = 500) -> list[str]:
    """Give the ids of records beside the ledger, newest first, without reading them."""
    try:
        found = sorted((path.stem for path in folder.glob("*.jsonl")), reverse=True)
    except OSError:
        return []
    return found[:limit]
