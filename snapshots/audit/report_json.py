"""An audit's report as JSON, and findings read back from it (docs/schemas/audit.schema.json)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from snapshots.audit.archive import attribution_document, attribution_in
from snapshots.audit.report_model import (
    SCHEMA,
    AuditReport,
    Class,
    Direction,
    Finding,
    LedgerPlace,
    PropertyFinding,
    Risk,
    RuleHit,
    Severity,
)
from snapshots.audit.texts import sound_document
from snapshots.errors import DamagedStoreError
from snapshots.model import (
    MISSING,
    CallCount,
    ChangeType,
    Gap,
    Json,
    JsonObject,
    Key,
    Missing,
    Resource,
)


def report_document(report: AuditReport) -> JsonObject:
    """Give a whole report as JSON, each of its texts such that UTF-8 can hold it."""
    reading = report.reading
    document: JsonObject = {
        "schema": SCHEMA,
        "audit": report.id,
        "estate": report.estate,
        "at": iso(report.at),
        "version": report.version,
        "baseline": report.baseline or None,
        "baseline_at": iso(report.baseline_at),
        "baseline_by": report.baseline_by or None,
        "live": report.live,
        "resources": report.resources,
        "incomplete": report.incomplete,
        "findings": [finding_document(finding) for finding in report.findings],
        "counts": {
            "findings": len(report.findings),
            "ignored": report.ignored,
            "left_out": report.hidden,
            "class": dict(report.by_class),
            "severity": dict(report.by_severity),
        },
        "risks": [_risk(risk) for risk in report.risks],
        "gaps": [gap.document() for gap in report.gaps],
        "calls": _calls(report.calls),
        "reading": {
            "mode": reading.mode.value,
            "why": reading.why,
            "accounts_read": reading.accounts_read,
            "accounts_known": reading.accounts_known,
            "events": reading.events,
            "log_through": iso(reading.log_through),
            "holes": list(reading.holes),
        },
        "last_sweep": iso(report.last_sweep),
        "sweep_age_seconds": None if report.sweep_age is None else round(report.sweep_age, 3),
        "scope": list(report.scope),
        "since": iso(report.since),
        "expired": list(report.expired),
        "warnings": list(report.warnings),
        "seconds": round(report.seconds, 3),
    }
    return sound_document(document)


def finding_document(finding: Finding) -> JsonObject:
    """Give one finding as JSON."""
    who = finding.attribution
    return {
        "id": finding.id,
        "fingerprint": finding.fingerprint,
        "key": str(finding.key),
        "kind": finding.kind,
        "kind_title": finding.kind_title,
        "change": finding.change.value,
        "resource_id": finding.resource_id or None,
        "renamed_from": None if finding.renamed_from is None else str(finding.renamed_from),
        "paths": [_path(path) for path in finding.paths],
        "class": finding.class_.value,
        "severity": finding.severity.value,
        "rules": [_rule(rule) for rule in finding.rules],
        "who": who.who or None,
        "principal_kind": who.principal_kind.value if who.known else None,
        "principal_id": who.principal_id or None,
        "app_id": who.app_id or None,
        "client": who.client or None,
        "address": who.address or None,
        "when": iso(who.when),
        "operation": who.operation or None,
        "correlation_id": who.correlation_id or None,
        "events": list(who.events),
        "confidence": who.confidence.value,
        "attribution_reasons": list(who.reasons),
        "reasons": list(finding.reasons),
        "ticket": finding.ticket or None,
        "first_seen": iso(finding.first_seen),
        "window": {"after": iso(finding.window[0]), "until": iso(finding.window[1])},
        "ledger": {"path": finding.place.path, "commit": finding.place.commit},
        "gap": None if finding.gap is None else finding.gap.document(),
        "restore": finding.restore,
        "recovery": finding.recovery,
        "undo": finding.undo,
        "ignored": None
        if finding.ignored is None
        else {
            "by": finding.ignored.by,
            "reason": finding.ignored.reason,
            "ticket": finding.ignored.ticket or None,
            "at": iso(finding.ignored.at),
            "expires": iso(finding.ignored.expires),
        },
        "pending": None
        if finding.pending is None
        else {
            "by": list(finding.pending.by),
            "reason": finding.pending.reason,
            "ticket": finding.pending.ticket or None,
            "at": iso(finding.pending.at),
        },
    }


def findings_in(
    document: Mapping[str, Json], before: Mapping[Key, Resource], after: Mapping[Key, Resource]
) -> tuple[Finding, ...]:
    """Read findings back from a report; `before` and `after` are the states it was about.

    Raises DamagedStoreError for a document that is none.
    """
    listed = document.get("findings")
    try:
        return tuple(
            _finding_in(entry, before, after)
            for entry in (listed if isinstance(listed, list) else ())
            if isinstance(entry, dict)
        )
    except (KeyError, TypeError, ValueError) as wrong:
        raise DamagedStoreError(
            f"the newest audit's report cannot be read: {wrong}",
            remedy="run `muster audit` again",
        ) from wrong


def _finding_in(
    found: Mapping[str, Json], before: Mapping[Key, Resource], after: Mapping[Key, Resource]
) -> Finding:
    key = Key.parse(str(found["key"]))
    renamed = found.get("renamed_from")
    old_key = Key.parse(renamed) if isinstance(renamed, str) else key
    change = ChangeType(str(found["change"]))
    window, place = found["window"], found["ledger"]
    assert isinstance(window, dict)
    assert isinstance(place, dict)
    attributed = {**found, "reasons": found.get("attribution_reasons")}
    if attributed.get("principal_kind") is None:
        attributed["principal_kind"] = "unknown"
    gap = found.get("gap")
    first_seen = moment(found["first_seen"])
    until = moment(window.get("until"))
    if first_seen is None or until is None:
        message = "it says no time"
        raise ValueError(message)
    return Finding(
        id=str(found["id"]),
        fingerprint=str(found["fingerprint"]),
        key=key,
        kind=key.kind,
        kind_title=str(found["kind_title"]),
        change=change,
        resource_id=str(found.get("resource_id") or ""),
        paths=tuple(_path_in(p) for p in _list(found["paths"]) if isinstance(p, dict)),
        class_=Class(str(found["class"])),
        severity=Severity(str(found["severity"])),
        rules=tuple(_rule_in(r) for r in _list(found["rules"]) if isinstance(r, dict)),
        attribution=attribution_in(attributed),
        reasons=tuple(str(r) for r in _list(found["reasons"])),
        place=LedgerPlace(str(place["path"]), str(place["commit"])),
        first_seen=first_seen,
        window=(moment(window.get("after")), until),
        ticket=str(found.get("ticket") or ""),
        gap=Gap.from_document(gap) if isinstance(gap, dict) else None,
        renamed_from=Key.parse(renamed) if isinstance(renamed, str) else None,
        before=None if change is ChangeType.ADDED else before.get(old_key),
        after=None if change is ChangeType.REMOVED else after.get(key),
        restore=str(found.get("restore") or ""),
        recovery=str(found.get("recovery") or ""),
        undo=str(found.get("undo") or ""),
    )


def _path(found: PropertyFinding) -> JsonObject:
    document: JsonObject = {"path": found.path}
    if not isinstance(found.before, Missing):
        document["before"] = found.before
    if not isinstance(found.after, Missing):
        document["after"] = found.after
    if found.attribution is not None:
        document["attribution"] = attribution_document(found.attribution)
    return document


def _path_in(found: Mapping[str, Json]) -> PropertyFinding:
    who = found.get("attribution")
    return PropertyFinding(
        str(found["path"]),
        found.get("before", MISSING),
        found.get("after", MISSING),
        attribution_in(who) if isinstance(who, dict) else None,
    )


def _rule(rule: RuleHit) -> JsonObject:
    return {
        "id": rule.id,
        "title": rule.title,
        "severity": rule.severity.value,
        "direction": rule.direction.value,
        "why": rule.why,
        "paths": list(rule.paths),
    }


def _rule_in(found: Mapping[str, Json]) -> RuleHit:
    return RuleHit(
        str(found["id"]),
        str(found["title"]),
        Severity(str(found["severity"])),
        Direction(str(found["direction"])),
        str(found["why"]),
        tuple(str(p) for p in _list(found["paths"])),
    )


def _risk(risk: Risk) -> JsonObject:
    return {
        "key": str(risk.key),
        "rule": risk.rule.id,
        "title": risk.rule.title,
        "severity": risk.rule.severity.value,
        "due": iso(risk.due),
        "message": risk.message,
    }


def _calls(calls: CallCount) -> JsonObject:
    return {
        "made": calls.made,
        "floor": calls.floor,
        "throttled": calls.throttled,
        "retried": calls.retried,
        "by_kind": dict(sorted(calls.by_kind.items())),
    }


def _list(value: Json) -> Iterable[Json]:
    return value if isinstance(value, list) else ()


def iso(when: datetime | None) -> str | None:
    """Write a time for machines: RFC 3339, UTC."""
    return None if when is None else when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def moment(text: Json) -> datetime | None:
    """Read back what `iso` wrote."""
    if not isinstance(text, str) or not text:
        return None
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
