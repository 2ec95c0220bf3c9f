"""What differs from the baseline, what was seen to change, and what was decided."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from muster.report import audit_words as words
from muster.report.audit_timeline import Chart, Placed, chart
from muster.report.site_model import (
    AuditPoint,
    DecisionRow,
    Drift,
    FindingRow,
    Level,
    Part,
    StoryRow,
    before,
    day,
    see,
    when,
    worst,
)
from muster.report.site_readiness import STALE
from muster.report.site_reading import POINTS, Reading, number_of, rows_of, text_of, time_of
from snapshots.audit.approve import Decisions, change_of, load_decisions
from snapshots.audit.archive import Story, load_stories
from snapshots.audit.report_json import findings_in
from snapshots.audit.report_model import AuditReport, Finding, Mode, Severity
from snapshots.audit.report_model import Reading as AuditReading
from snapshots.errors import NotFoundError
from snapshots.ledger import BASELINE, EVIDENCE, Ledger
from snapshots.ledger.entries import Entry
from snapshots.model import (
    CallCount,
    Change,
    ChangeType,
    Json,
    JsonObject,
    Key,
    Missing,
    Resource,
    canonical,
)

FINDINGS = 1_000


STORIES = 300


DECISIONS = 300


PROPERTIES = 8  # of a finding
WHOLE = 100  # findings on the timeline, and told whole on the page


def drift_of(reading: Reading, document: JsonObject | None) -> Drift:
    """Read the newest audit, the history of audits, the stories and the decisions."""
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
    at = time_of(document.get("at"))
    baseline = text_of(document, "baseline")
    kept = next((e for e in logged if e.trailers.get("Audit-Id") == document.get("audit")), None)
    if kept is not None and (at is None or at > reading.now):
        at = kept.when  # an audit tells Azure's time, which may run ahead of ours
    source = reading.source(
        "audit",
        f"audit {text_of(document, 'audit')}",
        kept.commit if kept is not None else "",
        at,
        "git --git-dir=LEDGER show evidence:audits/latest.json",
    )
    sources = [source]
    if baseline:
        sources.append(
            reading.source(
                "baseline",
                f"baseline by {text_of(document, 'baseline_by') or 'somebody'}",
                baseline,
                time_of(document.get("baseline_at")),
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
            ignored=decided.ignored(f.id, _difference(ledger, document, f, decided), reading.now),
            pending=decided.pending.get(f.id),
        )
        for f in found
    ]
    counted, aside = words.shown(marked), words.set_aside(marked)
    missing: list[str] = []
    if _moved_on(approved, baseline):
        missing.append("the baseline was changed after this audit: run `muster audit` again")
    gaps = len(rows_of(document, "gaps"))
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
        timeline=_timeline(document, counted),
        risks=tuple(
            (text_of(r, "severity"), text_of(r, "message"), text_of(r, "due")[:10])
            for r in rows_of(document, "risks")[:FINDINGS]
        ),
        facts=(
            ("Audit", f"{text_of(document, 'audit')}, {when(at)}"),
            (
                "Baseline",
                f"{baseline[:12]} of {when(time_of(document.get('baseline_at')))} by "
                f"{text_of(document, 'baseline_by') or 'not known'}"
                if baseline
                else "none yet",
            ),
            ("Live state", text_of(document, "live")[:12]),
            ("Last full sweep", when(time_of(document.get("last_sweep")))),
            ("Resources", f"{int(number_of(document, 'resources') or 0):,}"),
            ("Gaps", f"{gaps:,}" if gaps else "none"),
        ),
    )


def _timeline(document: JsonObject, counted: Sequence[Finding]) -> Chart | None:
    """Lay the findings that are told whole out by time; in Azure's time, as they were recorded."""
    times = [time_of(document.get(name)) for name in ("at", "baseline_at", "last_sweep")]
    at = times[0]
    if at is None:
        return None
    report = AuditReport(
        id="",
        estate="",
        at=at,
        version="",
        baseline="",
        baseline_at=times[1],
        baseline_by="",
        live="",
        findings=(),
        gaps=(),
        calls=CallCount(),
        reading=AuditReading(Mode.SWEEP, "", 0, 0, 0, None),
        last_sweep=times[2],
        resources=0,
        seconds=0.0,
    )
    return chart(report, [Placed(f, _anchor(f, n)) for n, f in enumerate(counted[:WHOLE])])


def _difference(
    ledger: Ledger, document: JsonObject, finding: Finding, decided: Decisions
) -> Change:
    """Give a finding as a difference, with its states where a decision may ask for them."""
    change = change_of(finding)
    if not any(r.any_value and r.key == finding.key for r in decided.ignores):
        return change
    states: list[Resource | None] = []
    for ref in ("baseline", "live"):
        try:
            states.append(ledger.read(text_of(document, ref), finding.key))
        except NotFoundError:
            states.append(None)
    return replace(change, before=states[0], after=states[1])


def _moved_on(approved: Sequence[Entry], baseline: str) -> bool:
    """Whether what is approved changed after an audit; words of owners change nothing."""
    for entry in approved:
        if entry.commit == baseline:
            return False
        if not {"Signed-By", "Ignored-By"} & set(entry.trailers):
            return bool(baseline)
    return False


def _drift_level(
    reading: Reading, counted: Sequence[Finding], gaps: int, baseline: str, at: datetime | None
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
            f"{words.title(finding)}: {words.name(finding)}, "
            f"{words.who(finding.attribution)}, {_utc(words.seen(finding))}",
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
            f"{words.plural(len(counted), 'open finding')}, the worst "
            f"{counted[0].severity.value}, {told}"
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
        by = ", ".join(finding.pending.by)
        note = f"approved by {by}, waits for a second person: {finding.pending.reason}"
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
        see(finding.place.path, 300),
        see(finding.place.commit, 80),
        see(words.revert(finding), 120),
    )


def _utc(text: str) -> str:
    return re.sub(r"(\d\d:\d\d:\d\d)Z", r"\1 UTC", text)


def _value(found: Json | Missing) -> str:
    return "not there" if isinstance(found, Missing) else see(canonical(found).decode(), 200)


def _stories(reading: Reading) -> tuple[tuple[StoryRow, ...], dict[str, int]]:
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
