"""Whether a recovery would work, as `muster ready` last answered, and the clocks that run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from muster.report import audit_words as words
from muster.report.site_model import (
    CheckRow,
    Clock,
    Level,
    PairView,
    Part,
    Promised,
    Readiness,
    Source,
    before,
    see,
    span,
    when,
    worst,
)
from muster.report.site_reading import (
    Reading,
    json_files,
    number_of,
    rows_of,
    text_of,
    texts_of,
    time_of,
)
from snapshots.ledger import EVIDENCE
from snapshots.ledger.entries import Entry
from snapshots.model import Json, JsonObject

READINESS = "readiness/"


STALE = timedelta(hours=24)  # an answer of `muster ready` older than that is told as old


_STATES = {
    "met": Level.GOOD,
    "at risk": Level.RISK,
    "not known": Level.UNKNOWN,
    "not met": Level.BAD,
}


def readiness_of(reading: Reading, history: Sequence[Entry]) -> Readiness:
    """Tell the last answers of `muster ready`; for each pair the newest counts."""
    answers = sorted(
        (at, path, document)
        for path, document in json_files(reading, EVIDENCE, READINESS)
        if (at := time_of(document.get("at"))) is not None
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
        for check in rows_of(document, "checks"):
            grouped.setdefault(text_of(check, "pair"), []).append(_check(check))
        for pair in texts_of(document, "pairs"):
            grouped.setdefault(pair, [])
        everything = not path.removeprefix(READINESS).startswith("pair-")
        if everything:
            whole = (at, document)
        for pair, checks in grouped.items():
            if not pair and not everything and "" in newest:
                # A pair alone is not asked for what no pair covers: the older answer stands.
                asked_now = {c.name for c in checks}
                checks += [c for c in newest[""][1] if c.name not in asked_now]
            newest[pair] = (at, checks)
    for p, s in reading.promises.pairs:
        newest.setdefault(f"{p}:{s}", (datetime.min.replace(tzinfo=UTC), []))
    views = tuple(
        _pair_view(reading, pair, *found) for pair, found in sorted(newest.items()) if pair
    )
    if "" in newest:
        views = (_pair_view(reading, "", *newest[""]), *views)
    latest_at, latest = (whole[0], whole[1]) if whole else (answers[-1][0], answers[-1][2])
    objectives = tuple(_promised(row) for row in rows_of(latest, "objectives"))
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
    asked_of = text_of(latest, "snapshot")
    missing: tuple[str, ...] = ()
    if whole is None:
        missing = (
            f"the accounts that no pair covers were never asked for: {remedy} without --pair",
        )
    asked = next((e for e in history if e.snapshot == asked_of), None)
    if history and asked_of and (asked is None or asked.tree != history[0].tree):
        told = f"whether that still holds: it was asked of snapshot {asked_of}, and the estate "
        missing = (*missing, f"{told}changed since; {remedy} again")
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
    state = text_of(check, "state")
    return CheckRow(
        _STATES.get(state, Level.UNKNOWN),
        state or "not known",
        text_of(check, "name"),
        text_of(check, "subject"),
        text_of(check, "detail"),
        time_of(check.get("date")),
        text_of(check, "remedy"),
        text_of(check, "objective").upper(),
    )


def _promised(row: Mapping[str, Json]) -> Promised:
    state = text_of(row, "state")
    seconds = number_of(row, "promised_seconds")
    return Promised(
        text_of(row, "name").upper(),
        span(seconds) if seconds is not None else "no number is promised",
        _STATES.get(state, Level.UNKNOWN),
        state,
        text_of(row, "detail"),
    )


def _pair_view(reading: Reading, pair: str, at: datetime, checks: Sequence[CheckRow]) -> PairView:
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


def _told(reading: Reading, check: CheckRow) -> bool:
    """Whether a check is told elsewhere: as a clock, or at least as badly by a page of its own."""
    page = _FIRST_HAND.get(check.name)
    clock = check.name == "rescue clock" and check.date is not None
    return clock or any(
        page is not None and p.page.startswith(page) and p.level.rank >= check.level.rank
        for p in reading.problems
    )


def ready_problems(reading: Reading, views: Sequence[PairView]) -> None:
    """Note what is not met, when all other parts have noted theirs."""
    for view in views:
        for level in (Level.BAD, Level.UNKNOWN, Level.RISK):
            found: dict[str, list[CheckRow]] = {}
            for check in view.checks:
                # Clocks and what other pages know first-hand are told by those.
                if check.level is level and not _told(reading, check):
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


def with_clocks(reading: Reading, readiness: Readiness, more: Sequence[Clock]) -> Readiness:
    """Add the clocks that the checks name to those known otherwise."""
    clocks = list(more)
    for view in readiness.pairs:
        for check in view.checks:
            # Dates of other checks say when something was, not when it ends.
            if check.date is None or check.name not in _ENDING:
                continue
            if check.level is Level.GOOD and check.name != "rescue clock":
                continue
            clocks.append(
                clock_of(
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
# What other pages know themselves, and newer: the check, and where it is told.
_FIRST_HAND = {
    "drill": "drills.html",
    "verify": "evidence.html",
    "snapshot age": "estate.html",
    "replication": "replication.html",
}


def clock_of(
    reading: Reading, name: str, what: str, ends: datetime, step: str, source: str
) -> Clock:
    """Judge one clock at the moment of the report."""
    left = ends - reading.now
    if left <= timedelta(0):
        level, told = Level.BAD, f"ended {words.age(-left.total_seconds())} before this report"
    else:
        level = Level.RISK if left <= _SOON or name == "rescue clock" else Level.NOTE
        told = f"ends in {words.age(left.total_seconds())}"
    return Clock(level, name, see(what, 300), ends, told, see(step), source)
