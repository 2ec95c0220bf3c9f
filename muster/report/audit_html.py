"""Write an audit as one HTML page that an auditor can keep: no script, nothing fetched."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from muster.report import audit_words as words
from muster.report.audit_timeline import Placed, chart
from muster.report.pages import page
from snapshots.audit.report_model import Attribution, AuditReport, Finding, PropertyFinding
from snapshots.model import ChangeType, Gap, Json, Missing

# A page that no browser opens helps nobody: beyond these, the page says what it leaves out.
_WHOLE = 400  # findings told whole
_LISTED = 5_000  # rows of a table
_OPEN = 10  # findings that are unfolded at first
_PROPERTIES = 60  # of one finding
_LINES = 300  # of one side of a property
_LINE = 2_000  # characters of one line
_TEXT = 1_000  # characters of a name, a reason, a sentence
_CONTEXT = 3  # equal lines kept around those that differ
_HEX = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a side: what differs in it is `core`, where that is known."""

    head: str = ""
    core: str = ""
    tail: str = ""
    differs: bool = False
    skipped: int = 0  # this many equal lines stand here


@dataclass(frozen=True, slots=True)
class Side:
    """A property on one side."""

    lines: tuple[Line, ...] = ()
    absent: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Property:
    """A property before and after."""

    path: str
    before: Side
    after: Side
    by: str = ""  # who changed just this one, where that is known


@dataclass(frozen=True, slots=True)
class Row:
    """A finding in the table of all."""

    finding: Finding
    anchor: str  # empty: the page does not tell it whole
    title: str
    name: str
    kind: str
    who: str
    what: str  # kind of principal, and its program: an application's id says nothing to people
    when: str


@dataclass(frozen=True, slots=True)
class Card:
    """A finding, told whole. All texts are printable; the template escapes them."""

    finding: Finding
    anchor: str
    title: str
    name: str
    kind: str
    who: str
    when: str
    open: bool
    properties: tuple[Property, ...]
    properties_more: str
    story: tuple[tuple[str, str], ...]
    where: tuple[tuple[str, str], ...]
    restore: str
    approve: str
    revert: str
    decidable: bool  # whether it can be approved or reverted


def audit_html(report: AuditReport) -> bytes:
    """Give the page: UTF-8, complete in itself, safe whatever the estate's texts hold."""
    counted, ignored = words.shown(report.findings), words.set_aside(report.findings)
    anchors = _anchors([*counted[:_WHOLE], *ignored[:_WHOLE]])
    told = list(zip(counted[:_WHOLE], anchors, strict=False))
    left = list(zip(ignored[:_WHOLE], anchors[len(told) :], strict=True))
    cards = [_card(f, a, unfold=number < _OPEN) for number, (f, a) in enumerate(told)]
    whole = {id(card.finding): card.anchor for card in cards}
    verdict, sentence = words.verdict(report)
    worst = report.worst()
    context: dict[str, object] = {
        "report": report,
        "version": words.visible(report.version),
        "verdict": verdict,
        "sentence": sentence,
        "worst": worst.value if worst is not None and verdict == "findings" else "",
        "severities": words.by_severity(counted),
        "classes": words.by_class(counted),
        "sweep": words.age(report.sweep_age) + (" ago" if report.last_sweep else ""),
        "basis": _basis(report),
        "remarks": _remarks(report),
        "chart": chart(report, [Placed(card.finding, card.anchor) for card in cards]),
        "total": len(counted),
        "findings": cards,
        "index": [_row(f, whole.get(id(f), "")) for f in counted[:_LISTED]],
        "more": _more(counted),
        "gap_rows": [(_see(words.gap_name(g)), _gap_why(g)) for g in report.gaps[:_LISTED]],
        "gaps_more": _left_out(len(report.gaps), _LISTED, "gap"),
        "risks": report.risks[:_LISTED],
        "risks_more": _left_out(len(report.risks), _LISTED, "risk"),
        "ignored": [_card(f, a, unfold=False) for f, a in left],
        "ignored_count": max(report.ignored, len(ignored)),
        "see": _see,
        "moment": words.moment,
        "gap_why": _gap_why,
    }
    return page("audit.html.j2", context)


def _see(text: str) -> str:
    return words.cut(words.visible(text), _TEXT)


def _gap_why(gap: Gap) -> str:
    return words.cut(words.gap_why(gap), _TEXT)


def _anchors(findings: Sequence[Finding]) -> list[str]:
    """Give each finding an anchor of its own, the same in every run where ids are what they are."""
    taken: set[str] = set()
    anchors: list[str] = []
    for number, finding in enumerate(findings):
        anchor = f"f-{finding.id}" if _HEX.fullmatch(finding.id) else f"f-number-{number}"
        if anchor in taken:
            anchor = f"{anchor}-{number}"
        taken.add(anchor)
        anchors.append(anchor)
    return anchors


def _left_out(count: int, limit: int, noun: str) -> str:
    return f"{words.plural(count - limit, noun)} more left out here" if count > limit else ""


def _more(counted: Sequence[Finding]) -> str:
    parts: list[str] = []
    if len(counted) > _WHOLE:
        parts.append(f"The worst {_WHOLE:,} findings are told whole below.")
    if len(counted) > _LISTED:
        parts.append(
            f"The table ends after {_LISTED:,} of {len(counted):,}: the JSON and CSV reports "
            "have them all."
        )
    return " ".join(parts)


def _basis(report: AuditReport) -> list[tuple[str, str]]:
    baseline = "none yet"
    if report.baseline:
        by = f" by {_see(report.baseline_by)}" if report.baseline_by else ""
        at = f", approved {words.moment(report.baseline_at)}" if report.baseline_at else ""
        baseline = f"{words.visible(report.baseline[:12])}{at}{by}"
    sweep = "never: an edit that left no event may be missed"
    if report.last_sweep is not None:
        sweep = f"{words.moment(report.last_sweep)}, {words.age(report.sweep_age)} before this"
    scope = _see(", ".join(report.scope))
    return [
        ("Baseline", baseline),
        ("Live", words.visible(report.live[:12])),
        ("How it was read", words.cut(words.reading(report), _TEXT)),
        ("Last full sweep", sweep),
        ("Calls", f"{words.calls(report)}, in {report.seconds:,.1f} s"),
        ("Activity Log", _log(report)),
        ("May be missed", words.may_miss(report)),
        ("Scope", scope),
        ("Since", words.moment(report.since)),
    ]


def _log(report: AuditReport) -> str:
    how = report.reading
    text = f"{words.plural(how.events, 'record')} looked at"
    return f"{text}, complete until {words.moment(how.log_through)}" if how.log_through else text


def _remarks(report: AuditReport) -> list[tuple[str, tuple[str, ...]]]:
    return [
        ("What Azure's records could not tell", report.reading.holes),
        ("Decisions that ran out", report.expired),
        ("Warnings", report.warnings),
    ]


def _row(finding: Finding, anchor: str) -> Row:
    return Row(
        finding,
        anchor,
        words.cut(words.title(finding), 200),
        words.cut(words.name(finding), 200),
        _see(finding.kind_title or finding.kind),
        words.cut(words.who(finding.attribution), 120),
        words.cut(words.principal(finding.attribution), 120),
        words.moment(finding.attribution.when) or "time unknown",
    )


def _card(finding: Finding, anchor: str, *, unfold: bool) -> Card:
    paths = finding.paths
    if not paths:
        paths = _whole(finding)
    return Card(
        finding,
        anchor,
        words.cut(words.title(finding), 300),
        words.cut(words.name(finding), 300),
        _see(finding.kind_title or finding.kind),
        words.cut(words.who(finding.attribution), 200),
        words.seen(finding),
        unfold,
        tuple(_property(p, finding.attribution) for p in paths[:_PROPERTIES]),
        _left_out(len(paths), _PROPERTIES, "property"),
        _story(finding),
        _where(finding),
        words.cut(words.restore(finding), _TEXT),
        words.approve(finding),
        words.revert(finding),
        decidable=finding.change is not ChangeType.UNKNOWN and finding.counted,
    )


def _whole(finding: Finding) -> tuple[PropertyFinding, ...]:
    """Show what came or went as a whole."""
    match finding.change:
        case ChangeType.ADDED if finding.after is not None:
            return (PropertyFinding("", Missing(), finding.after.body),)
        case ChangeType.REMOVED if finding.before is not None:
            return (PropertyFinding("", finding.before.body, Missing()),)
        case _:
            return ()


def _story(finding: Finding) -> tuple[tuple[str, str], ...]:
    found = finding.attribution
    client = words.visible(found.client)
    if found.app_id:
        client = (
            f"{client} ({words.visible(found.app_id)})" if client else words.visible(found.app_id)
        )
    pairs = (
        ("who", words.who(found)),
        ("kind", words.PRINCIPALS[found.principal_kind] if found.known else ""),
        ("object id", words.visible(found.principal_id)),
        ("when", words.seen(finding)),
        ("from", words.visible(found.address)),
        ("with", client),
        ("operation", words.visible(found.operation)),
        ("correlation", words.visible(found.correlation_id)),
        ("confidence", words.confidence(found)),
    )
    return tuple((term, words.cut(text, 600)) for term, text in pairs)


def _where(finding: Finding) -> tuple[tuple[str, str], ...]:
    pairs = (
        ("resource", words.visible(finding.resource_id or str(finding.key))),
        ("ticket", words.visible(finding.ticket)),
        ("first seen", words.moment(finding.first_seen)),
        ("evidence", words.visible(", ".join(finding.attribution.events[:6]))),
    )
    return tuple((term, words.cut(text, 600)) for term, text in pairs)


def _property(found: PropertyFinding, whole: Attribution) -> Property:
    before, after = sides(found.before, found.after)
    by = ""
    if found.attribution is not None and found.attribution != whole:
        own = found.attribution
        when = words.moment(own.when) or "at a time nobody recorded"
        by = words.cut(words.who(own), 200)
        by += f", {when}, {words.confidence(own)}" if own.known else ""
    return Property(words.cut(words.pointer(found.path), 400), before, after, by)


# -------------------------------------------------------------------------- before and after


def sides(before: Json | Missing, after: Json | Missing) -> tuple[Side, Side]:
    """Give both sides of a property line by line, what differs marked, long equal runs left out."""
    if isinstance(before, Missing) or isinstance(after, Missing):
        return _alone(before), _alone(after)
    plain = any(isinstance(v, str) and "\n" in v for v in (before, after))
    olds, news = _lines(before, plain=plain), _lines(after, plain=plain)
    left, right = olds[:_LINES], news[:_LINES]
    old: list[Line] = []
    new: list[Line] = []
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    codes = matcher.get_opcodes()
    for number, (tag, a, b, c, d) in enumerate(codes):
        if tag == "equal":
            keep = _kept(b - a, first=number == 0, last=number == len(codes) - 1)
            old += _equal(left[a:b], keep)
            new += _equal(right[c:d], keep)
            continue
        for n in range(max(b - a, d - c)):
            was = left[a + n] if a + n < b else None
            now = right[c + n] if c + n < d else None
            if was is not None and now is not None:
                one, two = _marked(was, now)
                old.append(one)
                new.append(two)
            elif was is not None:
                old.append(_line(was, differs=True))
            elif now is not None:
                new.append(_line(now, differs=True))
    return Side(tuple(old), note=_note(olds)), Side(tuple(new), note=_note(news))


def _alone(found: Json | Missing) -> Side:
    if isinstance(found, Missing):
        return Side(absent=True)
    lines = _lines(found, plain=isinstance(found, str) and "\n" in found)
    return Side(tuple(_line(text, differs=True) for text in lines[:_LINES]), note=_note(lines))


def _lines(found: Json, *, plain: bool) -> list[str]:
    """Write a value as lines: a long text as it reads, anything else as JSON."""
    if plain and isinstance(found, str):
        return words.visible(found, lines=True).split("\n")
    return words.value(found, indent=True).split("\n")


def _note(lines: Sequence[str]) -> str:
    parts: list[str] = []
    if len(lines) > _LINES:
        parts.append(f"{words.plural(len(lines) - _LINES, 'line')} more")
    if any(len(line) > _LINE for line in lines[:_LINES]):
        parts.append("long lines cut")
    return f"{', '.join(parts)}: the ledger has it whole" if parts else ""


def _line(text: str, *, differs: bool = False) -> Line:
    return Line(head=words.cut(text, _LINE), differs=differs)


def _marked(was: str, now: str) -> tuple[Line, Line]:
    """Mark what differs between two lines, between their common beginning and end."""
    if max(len(was), len(now)) > _LINE:
        return _line(was, differs=True), _line(now, differs=True)
    least = min(len(was), len(now))
    start = next((n for n in range(least) if was[n] != now[n]), least)
    end = next((n for n in range(least - start) if was[-1 - n] != now[-1 - n]), least - start)
    if start + end < max(8, least // 3):  # hardly anything in common: marks would be noise
        return _line(was, differs=True), _line(now, differs=True)
    return _split(was, start, end), _split(now, start, end)


def _split(text: str, start: int, end: int) -> Line:
    return Line(text[:start], text[start : len(text) - end], text[len(text) - end :], differs=True)


def _kept(count: int, *, first: bool, last: bool) -> tuple[int, int]:
    """Give how many equal lines to keep at the beginning and at the end of a run."""
    head, tail = (0 if first else _CONTEXT), (0 if last else _CONTEXT)
    return (count, 0) if count <= head + tail + 2 else (head, tail)


def _equal(lines: Sequence[str], keep: tuple[int, int]) -> list[Line]:
    head, tail = keep
    if head >= len(lines):
        return [_line(text) for text in lines]
    return [
        *(_line(text) for text in lines[:head]),
        Line(skipped=len(lines) - head - tail),
        *(_line(text) for text in lines[len(lines) - tail :]),
    ]
