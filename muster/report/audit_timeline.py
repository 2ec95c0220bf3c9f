"""Where on a timeline the findings of an audit stand: plain geometry, drawn by a template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from muster.report import audit_words as words
from snapshots.audit.report_model import AuditReport, Finding

_WIDTH, _LEFT, _RIGHT, _TOP = 1000, 84, 980, 40
_LANE = 34  # least height of a lane
_STEP = 13  # from one mark to the next above it
_STACK = 5  # marks above each other before they share a place
_STEPS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 30, 60, 180, 360, 720)) + tuple(
    timedelta(days=days) for days in (1, 2, 7, 14, 30, 90, 365, 1825, 18250)
)


_Scale: TypeAlias = Callable[[datetime], float]


@dataclass(frozen=True, slots=True)
class Placed:
    """A finding and the anchor of its place on the page."""

    finding: Finding
    anchor: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One severity's row."""

    y: float
    name: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A time on the axis."""

    x: float
    name: str


@dataclass(frozen=True, slots=True)
class Flag:
    """A moment that matters: the approval of the baseline, the last full read."""

    x: float
    text_x: float
    text_y: float
    anchor: str  # of the text: start or end
    name: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One finding: a dot at its time, with a bar back to `start` where the time is not known."""

    x: float
    y: float
    start: float | None
    length: float
    tone: str
    anchor: str
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A whole timeline, in units of its own."""

    width: int
    height: float
    left: int
    right: int
    top: int
    bottom: float
    label: str
    lanes: tuple[Lane, ...]
    ticks: tuple[Tick, ...]
    flags: tuple[Flag, ...]
    marks: tuple[Mark, ...]


def chart(report: AuditReport, placed: Sequence[Placed]) -> Chart | None:
    """Lay the findings out by time and severity; None when there is none to lay out."""
    if not placed:
        return None
    start, end = _span(report, placed)
    seconds = (end - start).total_seconds()

    def x(when: datetime) -> float:
        share = (when - start).total_seconds() / seconds
        return round(_LEFT + min(1.0, max(0.0, share)) * (_RIGHT - _LEFT), 1)

    lanes: list[Lane] = []
    marks: list[Mark] = []
    top: float = _TOP
    for severity in words.SEVERITIES:
        of_lane = [p for p in placed if p.finding.severity is severity]
        if not of_lane:
            continue
        taken: dict[int, int] = {}  # column -> marks in it
        drawn: list[tuple[Placed, float, float | None, int]] = []
        for item in sorted(of_lane, key=lambda p: _when(p.finding)):
            if item.finding.attribution.when is None:
                continue
            at = x(_when(item.finding))
            column = int(at // _STEP)
            level = min(max(taken.get(column, 0), taken.get(column - 1, 0)), _STACK - 1)
            taken[column] = level + 1
            drawn.append((item, at, None, level))
        # Those without a time lie above the dots, each on a row of its own while there is room.
        row = max(taken.values(), default=0)
        for number, item in enumerate(p for p in of_lane if p.finding.attribution.when is None):
            first = x(item.finding.window[0] or start)
            drawn.append((item, x(_when(item.finding)), first, row + min(number, _STACK - 1)))
        highest = max(level for *_, level in drawn)
        height = _LANE + highest * _STEP
        y = top + height - _LANE / 2
        lanes.append(Lane(y, severity.value))
        for item, at, began, level in drawn:
            label = (
                f"{severity.value}: {words.title(item.finding)}, {words.name(item.finding)}, "
                f"{words.seen(item.finding)}, {words.who(item.finding.attribution)}"
            )
            marks.append(
                Mark(
                    at,
                    y - level * _STEP,
                    began,
                    round(max(0.0, at - began), 1) if began is not None else 0.0,
                    severity.value,
                    item.anchor,
                    words.cut(label, 300),
                )
            )
        top += height
    bottom = top + 6
    return Chart(
        _WIDTH,
        bottom + 28,
        _LEFT,
        _RIGHT,
        _TOP,
        bottom,
        f"{words.plural(len(placed), 'finding')} from {words.moment(start)} to {words.moment(end)}",
        tuple(lanes),
        tuple(Tick(x(at), name) for at, name in _ticks(start, end)),
        tuple(_flags(report, start, x(report.at), x)),
        tuple(marks),
    )


def _when(finding: Finding) -> datetime:
    return finding.attribution.when or finding.window[1]


def _span(report: AuditReport, placed: Sequence[Placed]) -> tuple[datetime, datetime]:
    times = [_when(p.finding) for p in placed]
    times += [
        p.finding.window[0]
        for p in placed
        if p.finding.attribution.when is None and p.finding.window[0] is not None
    ]
    start, end = min(times), max(*times, report.at)
    # A moment is no span; and the first dot should not sit on the edge.
    room = max((end - start) * 0.04, timedelta(minutes=5))
    return _moved(start, -room), _moved(end, room)


def _moved(when: datetime, by: timedelta) -> datetime:
    try:
        return when + by
    except OverflowError:  # year 1 or 9999: an answer of Azure is not to be trusted with dates
        return when


def _ticks(start: datetime, end: datetime) -> list[tuple[datetime, str]]:
    step = next((s for s in _STEPS if (end - start) / s <= 8), _STEPS[-1])
    first = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if step >= timedelta(days=1):
        first = first.replace(hour=0)
    elif step > timedelta(hours=1):
        first = first.replace(hour=first.hour - first.hour % int(step / timedelta(hours=1)))
    found: list[tuple[datetime, str]] = []
    at = first
    while at <= end and len(found) < 40:
        if at >= start:
            style = "%Y-%m-%d" if step >= timedelta(days=1) else "%H:%M"
            midnight = style == "%H:%M" and at.hour == at.minute == 0
            found.append((at, at.strftime("%m-%d" if midnight else style)))
        later = _moved(at, step)
        if later == at:
            break
        at = later
    return found


def _flags(report: AuditReport, start: datetime, now: float, x: _Scale) -> list[Flag]:
    flags: list[Flag] = []
    row = 0
    for when, name in (
        (report.baseline_at, "baseline approved"),
        (report.last_sweep, "last full sweep"),
    ):
        # One that lies before the axis begins is told in the summary; here it would mislead.
        if when is None or when < start or when > report.at:
            continue
        at = x(when)
        at_end = at > (_LEFT + _RIGHT) / 2
        flags.append(
            Flag(
                at, at - 5 if at_end else at + 5, 14 + 15 * row, "end" if at_end else "start", name
            )
        )
        row += 1
    if row < 2 or all(abs(flag.x - now) > 160 for flag in flags):
        flags.append(Flag(now, now - 5, 14 + 15 * min(row, 1), "end", "this audit"))
    return flags
