"""Write an audit as SARIF 2.1.0, each result at its line of the ledger's documents."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from muster.report import audit_words as words
from snapshots.audit.report_model import AuditReport, Finding, RuleHit, Severity
from snapshots.model import ChangeType, Gap, Json, JsonObject, Missing, Resource, pretty

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LIMIT = 5_000  # results: GitHub shows no more of a run, and would choose for us
_LEVELS = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.INFO: "note",
}
# GitHub's bands: over 9.0 is critical, 7.0 high, 4.0 medium, below it low.
_SCORES = {
    Severity.CRITICAL: "9.5",
    Severity.HIGH: "8.0",
    Severity.MEDIUM: "5.5",
    Severity.LOW: "2.0",
    Severity.INFO: "0.0",
}
_BASE = "LEDGER"


def audit_sarif(report: AuditReport, limit: int = LIMIT) -> bytes:
    """Give the log: one run, a result a finding, the worst `limit` of them, said when cut.

    The place of a result is the resource's document in the ledger, the same path in every run, and
    the line of its first property there; its fingerprints do not hang on values. A gap is a
    notification of the run, which then was not successful. An ignored finding is a suppressed one.
    """
    findings = [*words.shown(report.findings), *words.set_aside(report.findings)]
    told = findings[:limit]
    rules = _rules(told)
    order = {id_: number for number, id_ in enumerate(rules)}
    notes: list[Json] = [_notification(gap) for gap in report.gaps]
    if len(findings) > limit:
        notes.append(
            {
                "descriptor": {"id": "results-cut"},
                "level": "warning",
                "message": {
                    "text": f"{len(findings) - limit} of {len(findings)} findings are left out "
                    "here, none of them worse than those that are told"
                },
            }
        )
    driver: JsonObject = {
        "name": "muster",
        "version": words.visible(report.version),
        "rules": list(rules.values()),
        "notifications": [
            {"id": "gap", "shortDescription": {"text": "Something could not be read"}},
            {"id": "results-cut", "shortDescription": {"text": "Findings were left out"}},
        ],
    }
    run: JsonObject = {
        "tool": {"driver": driver},
        "automationDetails": {
            "id": f"muster/audit/{quote(report.estate.encode('utf-8', 'replace'))}/"
        },
        "invocations": [
            {
                "executionSuccessful": not report.incomplete,
                "endTimeUtc": words.iso(report.at),
                "toolExecutionNotifications": notes,
            }
        ],
        "originalUriBaseIds": {
            _BASE: {"description": {"text": "The root of a clone of the ledger."}}
        },
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, order) for finding in told],
        "properties": {
            "estate": words.visible(report.estate),
            "baseline": words.visible(report.baseline),
            "live": words.visible(report.live),
            "lastSweep": words.iso(report.last_sweep),
            "read": report.reading.mode.value,
            "mayMiss": words.may_miss(report),
            "calls": report.calls.made,
            "gaps": len(report.gaps),
            "ignored": report.ignored,
            "findings": len(findings),
            "omitted": max(0, len(findings) - limit),
        },
    }
    return pretty({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def message(text: str) -> str:
    """Write a text as a SARIF message: brackets, backslashes and braces mean themselves.

    SARIF 2.1.0, 3.11.5 and 3.11.6: braces make placeholders, brackets make links.
    """
    text = words.cut(words.visible(text), 2_000)
    for character in "\\[]":
        text = text.replace(character, "\\" + character)
    return text.replace("{", "{{").replace("}", "}}")


# ---------------------------------------------------------------------------------------- rules


def _rule_id(finding: Finding) -> str:
    rule = words.worst_rule(finding)
    name = words.cut(words.visible(rule.id), 200) if rule is not None else ""
    return name or f"muster/{finding.change.value}"


def _rules(findings: Sequence[Finding]) -> dict[str, Json]:
    """Describe each rule that is used, by its id, in the order of ids."""
    hits: dict[str, RuleHit | None] = {}
    changes: dict[str, ChangeType] = {}
    for finding in findings:
        hits.setdefault(_rule_id(finding), words.worst_rule(finding))
        changes.setdefault(_rule_id(finding), finding.change)
    return {id_: _rule(id_, hits[id_], changes[id_]) for id_ in sorted(hits)}


def _rule(id_: str, hit: RuleHit | None, change: ChangeType) -> Json:
    if hit is None:
        text = f"A resource is {change.value}, and no rule says more about it"
        return {
            "id": id_,
            "shortDescription": {"text": text},
            "properties": {"tags": ["change"]},
        }
    return {
        "id": id_,
        "shortDescription": {"text": message(hit.title) or id_},
        "fullDescription": {"text": message(hit.why) or id_},
        "help": {"text": message(hit.why) or id_},
        "defaultConfiguration": {"level": _LEVELS[hit.severity]},
        "properties": {
            "tags": ["change", "security"],
            "security-severity": _SCORES[hit.severity],
            "direction": hit.direction.value,
        },
    }


# -------------------------------------------------------------------------------------- results


def _result(finding: Finding, order: dict[str, int]) -> Json:
    by = finding.attribution
    unknown = finding.change is ChangeType.UNKNOWN
    id_ = _rule_id(finding)
    text = (
        f"{words.title(finding)}: {words.visible(str(finding.key))} is {finding.change.value} "
        f"({finding.severity.value}, {finding.class_.value}), by {words.who(by)}, "
        f"{words.seen(finding)}."
    )
    if finding.paths:
        named = ", ".join(words.cut(words.pointer(p.path), 120) for p in finding.paths[:5])
        more = f" and {len(finding.paths) - 5} more" if len(finding.paths) > 5 else ""
        text += f" Properties: {named}{more}."
    if finding.gap is not None:
        text += f" Could not be read: {words.gap_why(finding.gap)}."
    result: JsonObject = {
        "ruleId": id_,
        "ruleIndex": order[id_],
        # SARIF 3.27.10: what is not a failure has no level.
        "kind": "open" if unknown else "fail",
        "level": "none" if unknown else _LEVELS[finding.severity],
        "message": {"text": message(text)},
        "locations": [_location(finding, path) for path in _places(finding)],
        "partialFingerprints": {
            "musterFinding/v1": words.visible(finding.fingerprint),
            # GitHub's own name: without it, it would hash lines of a file that it may not have.
            "primaryLocationLineHash": f"{words.visible(finding.fingerprint)}:1",
        },
        "fingerprints": {"musterDifference/v1": words.visible(finding.id)},
        "properties": {
            "id": words.visible(finding.id),
            "change": finding.change.value,
            "class": finding.class_.value,
            "severity": finding.severity.value,
            "rules": [*sorted({words.visible(rule.id) for rule in finding.rules})],
            "who": words.visible(by.who),
            "principalKind": by.principal_kind.value,
            "when": words.iso(by.when),
            "address": words.visible(by.address),
            "operation": words.visible(by.operation),
            "correlationId": words.visible(by.correlation_id),
            "confidence": by.confidence.value,
            "reasons": [words.visible(reason) for reason in finding.reasons],
            "paths": [words.cut(words.pointer(p.path), 400) for p in finding.paths[:100]],
            "commit": words.visible(finding.place.commit),
            "undo": words.restore(finding),
        },
    }
    suppressions = _suppressions(finding)
    if suppressions:
        result["suppressions"] = suppressions
    return result


def _suppressions(finding: Finding) -> list[Json]:
    found: list[Json] = []
    if finding.ignored is not None:
        until = words.iso(finding.ignored.expires)
        why = f"{finding.ignored.reason} (by {finding.ignored.by}, until {until})"
        found.append(
            {"kind": "external", "status": "accepted", "justification": words.visible(why)}
        )
    if finding.pending is not None:
        why = f"{finding.pending.reason} (by {', '.join(finding.pending.by)})"
        found.append(
            {"kind": "external", "status": "underReview", "justification": words.visible(why)}
        )
    return found


def _places(finding: Finding) -> list[str]:
    """Give the pointers that get a place: that of the first property, which is the result's."""
    return [finding.paths[0].path] if finding.paths else [""]


def _location(finding: Finding, path: str) -> Json:
    key = words.visible(str(finding.key))
    physical: JsonObject = {
        "artifactLocation": {"uri": uri(finding.place.path), "uriBaseId": _BASE},
        "region": {"startLine": _line(finding, path)},
    }
    logical: JsonObject = {
        "fullyQualifiedName": key + (words.visible(path) if path else ""),
        "kind": "resource" if not path else "property",
    }
    return {"physicalLocation": physical, "logicalLocations": [logical]}


def uri(path: str) -> str:
    """Write a path of the ledger as a relative reference: no scheme, no host, nothing to escape."""
    encoded = quote(path.encode("utf-8", "replace"), safe="/-_.~!$&'()*+,;=@")
    return encoded.lstrip("/") or "resources"


def _line(finding: Finding, path: str) -> int:
    removed = finding.change is ChangeType.REMOVED
    resource = finding.before if removed else finding.after
    if resource is None:
        return 1
    # An index of what was removed counts in the old list: then only its holder has a line.
    gone = any(p.path == path and isinstance(p.after, Missing) for p in finding.paths)
    return line_of(resource, path, holder=gone and not removed)


def line_of(resource: Resource, pointer: str, *, holder: bool = False) -> int:
    """Give the line, from 1, at which the ledger's document of a resource has a property.

    `pointer` is one of `compare`: into the body, or /payloads/<name>, or /id. A property that is
    not there has the line of what would hold it; with `holder`, its last step is not looked for.
    """
    steps = [s.replace("~1", "/").replace("~0", "~") for s in pointer.split("/")[1:]]
    document = resource.document()
    if steps[:1] == ["payloads"] and "payloads" not in resource.body and resource.payloads:
        names = [payload.name for payload in resource.payloads]
        name = "/".join(steps[1:])
        steps = ["payloads", str(names.index(name))] if name in names else ["payloads"]
    elif steps == ["id"] and "id" not in resource.body:
        pass
    else:
        steps = ["body", *steps]
    return _walk(document, steps[:-1] if holder and len(steps) > 1 else steps)


def _walk(value: Json, steps: Sequence[str]) -> int:
    line = 1
    for step in steps:
        match value:
            case dict() if step in value:
                before = [value[name] for name in sorted(value) if name < step]
                value = value[step]
            case list() if step.isdecimal() and int(step) < len(value):
                before = value[: int(step)]
                value = value[int(step)]
            case _:
                return line
        line += 1 + sum(_height(item) for item in before)
    return line


def _height(value: Json) -> int:
    """Count the lines that the ledger's form of a value takes."""
    match value:
        case dict() if value:
            return 2 + sum(_height(item) for item in value.values())
        case list() if value:
            return 2 + sum(_height(item) for item in value)
        case _:
            return 1


def _notification(gap: Gap) -> Json:
    return {
        "descriptor": {"id": "gap"},
        "level": "error",
        "message": {"text": message(f"{words.gap_name(gap)}: {words.gap_why(gap)}")},
    }
