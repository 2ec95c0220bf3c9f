"""Write an audit as JUnit XML, which most build servers show: a suite a kind, a test a finding."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable

from muster.report import audit_words as words
from snapshots.audit.report_model import AuditReport, Finding, Severity
from snapshots.model import ChangeType, Gap

_LONGEST = 4_000  # characters of one value
_PATHS = 50


def audit_junit(report: AuditReport, least: Severity = Severity.INFO) -> bytes:
    """Give the XML 1.0 document, UTF-8.

    A finding as bad as `least` or worse is a failure, a milder one a test that passed and tells it;
    a gap, and a resource of unknown state, is an error; an ignored finding is skipped. The suite
    `audit` holds one test for a complete read and one for an approved baseline, so that a clean
    audit is a green one and never an empty one.
    """
    cases: dict[str, list[ET.Element]] = {}
    for finding in [*words.shown(report.findings), *words.set_aside(report.findings)]:
        kind = words.visible(finding.kind)
        cases.setdefault(kind, []).append(_finding(finding, least))
    for gap in report.gaps:
        cases.setdefault(words.visible(gap.key.kind), []).append(_gap(gap))
    root = ET.Element("testsuites", {"name": words.visible(f"muster audit of {report.estate}")})
    suites = [("audit", _whole(report)), *sorted(cases.items())]
    for name, found in suites:
        suite = ET.SubElement(root, "testsuite", {"name": words.cut(name, 200), **_counts(found)})
        suite.set("timestamp", words.iso(report.at)[:19])  # the schema knows no zone: UTC
        suite.set("time", f"{report.seconds if name == 'audit' else 0:.3f}")
        if name == "audit":
            properties = ET.SubElement(suite, "properties")
            for term, text in (
                ("estate", report.estate),
                ("baseline", report.baseline),
                ("live", report.live),
                ("last_sweep", words.iso(report.last_sweep)),
                ("read", report.reading.mode.value),
                ("may_miss", words.may_miss(report)),
                ("calls", str(report.calls.made)),
                ("ignored", str(report.ignored)),
                ("muster", report.version),
            ):
                ET.SubElement(properties, "property", {"name": term, "value": words.visible(text)})
        suite.extend(found)
    for term, total in _counts(case for _, found in suites for case in found).items():
        root.set(term, total)
    root.set("time", f"{report.seconds:.3f}")
    ET.indent(root)
    data: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _counts(cases: Iterable[ET.Element]) -> dict[str, str]:
    found = list(cases)
    return {
        "tests": str(len(found)),
        "failures": str(sum(1 for case in found if case.find("failure") is not None)),
        "errors": str(sum(1 for case in found if case.find("error") is not None)),
        "skipped": str(sum(1 for case in found if case.find("skipped") is not None)),
    }


def _case(suite: str, name: str) -> ET.Element:
    return ET.Element(
        "testcase",
        {"classname": words.cut(f"muster.{suite}", 200), "name": words.cut(name, 400), "time": "0"},
    )


def _whole(report: AuditReport) -> list[ET.Element]:
    read = _case("audit", "everything could be read")
    if report.incomplete:
        _tell(read, "error", "incomplete", words.verdict(report)[1], "")
    baseline = _case("audit", "a baseline is approved")
    if not report.baseline:
        text = "approve what there is: muster approve --all --reason '…'"
        _tell(baseline, "failure", "no-baseline", "nothing is approved yet", text)
    return [read, baseline]


def _finding(finding: Finding, least: Severity) -> ET.Element:
    key = words.visible(str(finding.key))
    case = _case(words.visible(finding.kind), f"{key} ({finding.change.value})")
    message = f"{finding.severity.value}, {finding.class_.value}: {words.title(finding)}"
    body = _body(finding)
    if finding.ignored is not None:
        until = words.moment(finding.ignored.expires)
        why = words.visible(finding.ignored.reason)
        skipped = ET.SubElement(case, "skipped")
        skipped.set("message", words.cut(f"ignored until {until}: {why}", _LONGEST))
    elif finding.change is ChangeType.UNKNOWN:
        why = words.gap_why(finding.gap) if finding.gap else "it could not be read"
        _tell(case, "error", "unknown", why, body)
    elif finding.severity.at_least(least):
        _tell(case, "failure", finding.severity.value, message, body)
    else:
        ET.SubElement(case, "system-out").text = f"{message}\n{body}"
    return case


def _tell(case: ET.Element, tag: str, type_: str, message: str, body: str) -> None:
    told = ET.SubElement(case, tag, {"type": type_, "message": words.cut(message, _LONGEST)})
    told.text = body


def _gap(gap: Gap) -> ET.Element:
    case = _case(words.visible(gap.key.kind), f"{words.gap_name(gap)} (gap)")
    _tell(case, "error", gap.reason.value, words.gap_why(gap), "")
    return case


def _body(finding: Finding) -> str:
    by = finding.attribution
    lines = [
        f"who: {words.who(by)} ({words.confidence(by)})",
        f"when: {words.seen(finding)}",
        f"from: {words.visible(by.address) or 'unknown'}",
        f"operation: {words.visible(by.operation) or 'unknown'}",
        f"correlation: {words.visible(by.correlation_id) or 'unknown'}",
    ]
    lines += [f"because: {words.visible(reason)}" for reason in finding.reasons]
    lines += [
        f"rule: {words.visible(rule.id)}: {words.visible(rule.why)}" for rule in finding.rules
    ]
    lines += [
        f"{words.pointer(p.path)}: {words.cut(words.value(p.before), _LONGEST)} -> "
        f"{words.cut(words.value(p.after), _LONGEST)}"
        for p in finding.paths[:_PATHS]
    ]
    if len(finding.paths) > _PATHS:
        lines.append(f"{words.plural(len(finding.paths) - _PATHS, 'property', 'properties')} more")
    lines += [f"ledger: {words.visible(finding.place.path)}", f"undo: {words.restore(finding)}"]
    lines += [f"$ {words.revert(finding)}", f"$ {words.approve(finding)}"]
    return "\n".join(words.cut(line, 3 * _LONGEST) for line in lines)
