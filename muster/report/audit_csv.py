"""Write an audit as CSV (RFC 4180), a row a property, that a spreadsheet cannot be made to run."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping

from muster.report import audit_words as words
from snapshots.audit.report_model import AuditReport, Finding, PropertyFinding
from snapshots.model import MISSING, Json, Missing

COLUMNS = (
    "row",  # finding, gap or risk
    "id",
    "severity",
    "class",
    "change",
    "kind",
    "key",
    "resource_id",
    "path",
    "before",
    "after",
    "who",
    "principal_kind",
    "principal_id",
    "client",
    "app_id",
    "address",
    "when",
    "operation",
    "correlation_id",
    "confidence",
    "rules",
    "reasons",
    "ticket",
    "first_seen",
    "not_before",
    "not_after",
    "ignored_by",
    "ignored_until",
    "ignored_reason",
    "pending_by",
    "undo",
    "ledger_path",
    "ledger_commit",
    "detail",
)
_LONGEST = 32_000  # characters: a cell of Excel holds 32,767
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
# A cell that begins so is a formula to Excel, LibreOffice or Google Sheets; the wide forms are what
# an input method for Chinese or Japanese gives.
_FORMULA = ("=", "+", "-", "@", "|", "%", "＝", "＋", "－", "＠", "\t", "\r", "\n")


def audit_csv(report: AuditReport) -> bytes:
    """Give the table: UTF-8 without a mark, CRLF, every cell quoted, none of them a formula.

    A finding has a row for each property (one without, when it came or went whole); then come gaps,
    risks, and how live state was read. `before` and `after` are JSON, empty where the property is
    not there.
    """
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in _rows(report):
        writer.writerow([cell(row.get(column, "")) for column in COLUMNS])
    return out.getvalue().encode("utf-8")


def cell(text: str) -> str:
    """Make a text harmless: printable, not too long, and never a formula.

    What would be one begins with an apostrophe; a plain number stays a number.
    """
    text = words.cut(words.visible(text), _LONGEST)
    if text.lstrip().startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def _rows(report: AuditReport) -> Iterator[Mapping[str, str]]:
    for finding in [*words.shown(report.findings), *words.set_aside(report.findings)]:
        shared = _finding(finding)
        for path in finding.paths or (PropertyFinding("", MISSING, MISSING),):
            by = path.attribution or finding.attribution
            yield {
                **shared,
                "path": path.path,
                "before": _json(path.before),
                "after": _json(path.after),
                "who": by.who,
                "principal_kind": by.principal_kind.value,
                "principal_id": by.principal_id,
                "client": by.client,
                "app_id": by.app_id,
                "address": by.address,
                "when": words.iso(by.when),
                "operation": by.operation,
                "correlation_id": by.correlation_id,
                "confidence": by.confidence.value,
            }
    for gap in report.gaps:
        yield {
            "row": "gap",
            "kind": gap.key.kind,
            "key": str(gap.key),
            "change": "unknown",
            "detail": words.gap_why(gap),
        }
    for risk in report.risks:
        yield {
            "row": "risk",
            "severity": risk.rule.severity.value,
            "kind": risk.key.kind,
            "key": str(risk.key),
            "when": words.iso(risk.due),
            "rules": risk.rule.id,
            "detail": risk.message,
        }
    yield _basis(report)


def _basis(report: AuditReport) -> Mapping[str, str]:
    swept = f"last full sweep {words.iso(report.last_sweep) or 'never'}"
    missed = words.may_miss(report)
    return {
        "row": "reading",
        "when": words.iso(report.at),
        "detail": f"{report.reading.mode.value}; {swept}" + (f"; {missed}" if missed else ""),
    }


def _finding(finding: Finding) -> Mapping[str, str]:
    ignored, pending = finding.ignored, finding.pending
    return {
        "row": "finding",
        "id": finding.id,
        "severity": finding.severity.value,
        "class": finding.class_.value,
        "change": finding.change.value,
        "kind": finding.kind,
        "key": str(finding.key),
        "resource_id": finding.resource_id,
        "rules": "; ".join(rule.id for rule in finding.rules),
        "reasons": "; ".join(finding.reasons),
        "ticket": finding.ticket,
        "first_seen": words.iso(finding.first_seen),
        "not_before": words.iso(finding.window[0]),
        "not_after": words.iso(finding.window[1]),
        "ignored_by": ignored.by if ignored else "",
        "ignored_until": words.iso(ignored.expires) if ignored else "",
        "ignored_reason": ignored.reason if ignored else "",
        "pending_by": ", ".join(pending.by) if pending else "",
        "undo": finding.undo,
        "ledger_path": finding.place.path,
        "ledger_commit": finding.place.commit,
        "detail": words.gap_why(finding.gap) if finding.gap else "",
    }


def _json(found: Json | Missing) -> str:
    return "" if isinstance(found, Missing) else words.value(found)
