"""What `muster audit` tells people: a summary, each finding's story, and how live was read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.report import terminal
from muster.report.audit_words import cut, gap_name, gap_why, visible
from muster.report.audit_words import value as whole_value
from muster.report.terminal import moment, plural, span, table
from snapshots.audit.report_model import (
    Attribution,
    AuditReport,
    Finding,
    Mode,
    PrincipalKind,
    Severity,
)
from snapshots.model import ChangeType

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from snapshots.model import Json, Missing

_LONGEST_VALUE = 72
_LONGEST_LINE = 2_000
_MOST_PATHS = 12
_MOST_GAPS = 20
_MOST_UNKNOWN = 5
_STYLES = {
    Severity.CRITICAL: "bold red",
    Severity.HIGH: "red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFO: "",
}
_SIGNS = {
    ChangeType.ADDED: "+",
    ChangeType.REMOVED: "-",
    ChangeType.CHANGED: "~",
    ChangeType.UNKNOWN: "?",
}


def text(words: str, style: str = "") -> Text:
    """Make one line: nothing in it breaks the line, turns its direction or fills the screen."""
    return terminal.text(visible(cut(words, _LONGEST_LINE)), style)


def value(found: Json | Missing) -> str:
    """Write one value on one line, cut where it is long."""
    words = whole_value(found)
    return words if len(words) <= _LONGEST_VALUE else words[: _LONGEST_VALUE - 1] + "…"


def lines(report: AuditReport) -> list[RenderableType]:
    """Give a whole report for a terminal."""
    parts: list[RenderableType] = []
    if not report.baseline:
        parts += [
            text("no baseline yet: nothing is approved, so nothing can differ from it", "bold"),
            text("  look:    `muster show`"),
            text("  approve: `muster approve --all --reason TEXT`"),
        ]
    for finding in report.findings:
        if finding.change is not ChangeType.UNKNOWN:
            parts += finding_lines(finding)
    parts += _unknown(report)
    if report.risks:
        parts.append(text("risks (no change, and will hurt)", "bold"))
        parts += [
            text(f"  {risk.rule.severity.value}  {risk.key}: {risk.message}  [{risk.rule.id}]")
            for risk in report.risks
        ]
    if report.gaps:
        rows = [
            [cut(gap_name(gap), _LONGEST_LINE), cut(gap_why(gap), _LONGEST_LINE)]
            for gap in report.gaps[:_MOST_GAPS]
        ]
        parts += [
            text(f"INCOMPLETE: {plural(len(report.gaps), 'gap')}", "bold red"),
            table(["unread", "why"], rows),
        ]
        if len(report.gaps) > len(rows):
            parts.append(text(f"  and {len(report.gaps) - len(rows)} more: see --format json"))
    parts += [text(f"expired: {words}", "yellow") for words in report.expired]
    parts += _summary(report)
    return parts


def _unknown(report: AuditReport) -> list[RenderableType]:
    """Give what a gap hides, together by gap: one denied listing may hide thousands."""
    groups: dict[str, list[Finding]] = {}
    for finding in report.findings:
        if finding.change is ChangeType.UNKNOWN:
            why = finding.gap.detail if finding.gap is not None else "it was not read"
            reason = finding.gap.reason.value if finding.gap is not None else "unread"
            groups.setdefault(f"{reason}, {why}", []).append(finding)
    parts: list[RenderableType] = []
    for why, findings in groups.items():
        parts.append(text(f"? unknown, since unread: {why}", "magenta"))
        parts += [text(f"    {finding.key}") for finding in findings[:_MOST_UNKNOWN]]
        if len(findings) > _MOST_UNKNOWN:
            parts.append(text(f"    and {len(findings) - _MOST_UNKNOWN} more"))
    return parts


def finding_lines(finding: Finding) -> list[RenderableType]:
    """Give one finding: what, how bad, who, when, why, and what differs."""
    style = "dim" if finding.ignored is not None else _STYLES[finding.severity]
    head = (
        f"{_SIGNS[finding.change]} {finding.id}  {finding.severity.value}  "
        f"{finding.class_.value}  {finding.key}"
    )
    parts: list[RenderableType] = [text(head, style)]
    if finding.renamed_from is not None:
        parts.append(text(f"    was called {finding.renamed_from}"))
    if finding.gap is not None:
        parts.append(text(f"    unread: {finding.gap.reason.value}, {finding.gap.detail}"))
    if finding.change is ChangeType.CHANGED:
        parts += [
            text(f"    {path.path or '/'}: {value(path.before)} -> {value(path.after)}")
            for path in finding.paths[:_MOST_PATHS]
        ]
        if len(finding.paths) > _MOST_PATHS:
            parts.append(text(f"    and {len(finding.paths) - _MOST_PATHS} more properties"))
    if finding.change is not ChangeType.UNKNOWN:
        parts.append(text(f"    by:   {who_words(finding.attribution)}"))
    parts += [text(f"    rule: {hit.title}: {hit.why}  [{hit.id}]") for hit in finding.rules]
    parts += [text(f"    why {finding.class_.value}: {reason}") for reason in finding.reasons]
    if finding.ignored is not None:
        decision = finding.ignored
        parts.append(
            text(
                f"    ignored by {decision.by} until {moment(decision.expires)}: {decision.reason}"
            )
        )
    if finding.pending is not None:
        parts.append(
            text(
                f"    approved by {', '.join(finding.pending.by)}, and waits for a second person",
                "yellow",
            )
        )
    return parts


def who_words(who: Attribution) -> str:
    """Say on one line who made a change."""
    if not who.known:
        return "; ".join(who.reasons) or "unattributed"
    kind = "" if who.principal_kind is PrincipalKind.PLATFORM else f" ({who.principal_kind.value})"
    words = f"{who.who or 'somebody'}{kind}"
    if who.client:
        words += f" with {who.client}"
    if who.address:
        words += f" from {who.address}"
    if who.when is not None:
        words += f", {moment(who.when)}"
    if who.operation:
        words += f", {who.operation}"
    if who.correlation_id:
        words += f", correlation {who.correlation_id}"
    return f"{words}  [{who.confidence.value}: {'; '.join(who.reasons)}]"


def _summary(report: AuditReport) -> list[RenderableType]:
    counting = report.counting()
    worst = report.worst()
    parts: list[RenderableType] = []
    if report.baseline:
        told = plural(len(counting), "finding")
        if report.ignored:
            told += f", {report.ignored} ignored"
        unknown = sum(f.change is ChangeType.UNKNOWN for f in report.findings)
        if unknown:
            told += f", {unknown} unknown"
        if report.hidden:
            told += f", {report.hidden} left out by --scope or --since"
        if worst is not None:
            told += f"; worst {worst.value}"
        classes = [f"{n} {name}" for name, n in report.by_class.items() if n]
        if classes:
            told += f"; {', '.join(classes)}"
        parts.append(text(told, "bold"))
        at = f" of {moment(report.baseline_at)}" if report.baseline_at is not None else ""
        parts.append(text(f"  baseline {report.baseline[:12]}{at} by {report.baseline_by}"))
    calls, reading = report.calls, report.reading
    parts.append(
        text(
            f"  live     {report.live[:12]}, {plural(report.resources, 'resource')}; "
            f"{plural(calls.made, 'call')} ({calls.throttled} throttled) in {span(report.seconds)}"
        )
    )
    kind = "a full sweep" if reading.mode is Mode.SWEEP else "incremental"
    parts.append(
        text(
            f"  read     {kind}: {reading.why}; {reading.accounts_read} of "
            f"{plural(reading.accounts_known, 'account')}, {plural(reading.events, 'log record')}"
        )
    )
    if report.last_sweep is not None and report.sweep_age is not None:
        parts.append(
            text(f"  swept    {moment(report.last_sweep)}, {span(report.sweep_age)} before this")
        )
    if reading.log_through is not None and reading.mode is Mode.INCREMENTAL:
        parts.append(
            text(
                f"  log      may still lack changes after {moment(reading.log_through)}, and never "
                "has those of the data plane: `--sweep` reads everything now"
            )
        )
    parts += [text(f"  hole     {hole}", "yellow") for hole in reading.holes]
    if counting:
        first = counting[0].id
        parts.append(text(f"  next     `muster approve {first}` or `muster revert {first}`"))
    return parts
