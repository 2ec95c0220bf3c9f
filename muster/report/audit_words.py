"""The words that every audit report shares: verdict, who, what it is called, what to type next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from snapshots.audit.report_model import (
    Attribution,
    AuditReport,
    Class,
    Finding,
    Mode,
    PrincipalKind,
    RuleHit,
    Severity,
)
from snapshots.model import ChangeType, Gap, Json, Missing

SEVERITIES = tuple(reversed(Severity))  # worst first
CLASSES = (
    Class.UNPLANNED,
    Class.PLANNED_BUT_DIFFERENT,
    Class.UNKNOWN,
    Class.PLATFORM,
    Class.PLANNED,
)
PRINCIPALS = {
    PrincipalKind.USER: "user",
    PrincipalKind.SERVICE_PRINCIPAL: "service principal",
    PrincipalKind.MANAGED_IDENTITY: "managed identity",
    PrincipalKind.PLATFORM: "Azure itself",
    PrincipalKind.UNKNOWN: "kind of principal unknown",
}


def visible(text: str, *, lines: bool = False) -> str:
    r"""Write what cannot be seen as escapes: control characters, bidi overrides, odd spaces.

    What is left is printable, so that it fits any medium and two names that differ look different.
    With `lines`, line ends stay as \n.
    """
    if text.isprintable():
        return text
    if lines:
        text = text.replace("\r\n", "\n")
    return "".join(c if c.isprintable() or (lines and c == "\n") else _escape(ord(c)) for c in text)


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cut(text: str, limit: int) -> str:
    """Shorten a text to about `limit` characters, and say how much was cut."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit:,} more characters)"


def value(found: Json | Missing, *, indent: bool = False) -> str:
    """Write a value as JSON, all of it printable; a property that is not there is (absent)."""
    if isinstance(found, Missing):
        return "(absent)"
    words = json.dumps(
        found,
        ensure_ascii=False,
        sort_keys=True,
        indent=2 if indent else None,
        separators=None if indent else (",", ":"),
    )
    return visible(words, lines=indent)


def pointer(path: str) -> str:
    """Write a property's pointer; the whole resource is `/`."""
    return visible(path) or "/"


def moment(when: datetime | None) -> str:
    """Write a time as UTC, to the second; empty when it is not known."""
    return "" if when is None else when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def iso(when: datetime | None) -> str:
    """Write a time for machines: RFC 3339, UTC; empty when it is not known."""
    return "" if when is None else when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def may_miss(report: AuditReport) -> str:
    """Say what an incremental read may not have seen; "" after a full sweep."""
    how = report.reading
    if how.mode is Mode.SWEEP:
        return ""
    late = f"changes after {moment(how.log_through)}" if how.log_through else "late changes"
    return (
        f"{late} may not be in Azure's log yet, and those of the data plane never are: the last "
        f"full sweep was {age(report.sweep_age)}{' before this' if report.last_sweep else ''}; "
        "--sweep reads everything now"
    )


def age(seconds: float | None) -> str:
    """Write how long ago something was, in its two largest units."""
    if seconds is None:
        return "never"
    left = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
        if len(parts) == 2 or (parts and not count):
            break
    return " ".join(parts) or "0 s"


def plural(count: int, one: str, many: str = "") -> str:
    """Write a number with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def shown(findings: Iterable[Finding]) -> list[Finding]:
    """Give the findings that nobody ignores, worst first; the order is otherwise kept."""
    return sorted((f for f in findings if f.counted), key=_worst_first)


def set_aside(findings: Iterable[Finding]) -> list[Finding]:
    """Give the findings that somebody decided to leave alone, worst first."""
    return sorted((f for f in findings if not f.counted), key=_worst_first)


def _worst_first(finding: Finding) -> tuple[int, bool]:
    return -finding.severity.rank, finding.change is ChangeType.UNKNOWN


def worst_rule(finding: Finding) -> RuleHit | None:
    """Give the rule that says the worst about a finding, if any says something."""
    return max(finding.rules, key=lambda rule: rule.severity.rank, default=None)


def title(finding: Finding) -> str:
    """Say in a few words what happened: the worst rule's title, or what changed."""
    rule = worst_rule(finding)
    if rule is not None:
        return visible(rule.title)
    what = visible(finding.kind_title or finding.kind)
    if finding.renamed_from is not None:
        return f"Renamed: {what}"
    return f"{finding.change.value.capitalize()}: {what}"


def name(finding: Finding) -> str:
    """Give the resource's own name."""
    return visible(finding.key.name if finding.key.path else str(finding.key))


def who(found: Attribution) -> str:
    """Name who did it, honestly."""
    if not found.known:
        return "unattributed"
    if found.who:
        return visible(found.who)
    if found.principal_kind is PrincipalKind.PLATFORM:
        return PRINCIPALS[PrincipalKind.PLATFORM]
    return visible(found.principal_id or found.app_id) or "a caller without a name"


def principal(found: Attribution) -> str:
    """Say what kind of principal it was, and with what it worked; empty when nobody is named."""
    if not found.known or found.principal_kind is PrincipalKind.PLATFORM:
        return ""
    kind = PRINCIPALS[found.principal_kind]
    return visible(f"{kind}, {found.client}" if found.client else kind)


def seen(finding: Finding) -> str:
    """Say when it happened: the time of the event, or between which two reads."""
    if finding.attribution.when is not None:
        return moment(finding.attribution.when)
    earliest, latest = finding.window
    return (
        f"between {moment(earliest)} and {moment(latest)}"
        if earliest
        else (f"before {moment(latest)}")
    )


def restore(finding: Finding) -> str:
    """Say what would undo it, in one sentence: by revert, or by a restore of the kind."""
    return visible(finding.undo or finding.restore) or "muster does not know a way back"


def approve(finding: Finding) -> str:
    """Write the command that makes the live state the approved one."""
    return f"muster approve {shlex.quote(cut(visible(finding.id), 64))} --reason '…'"


def revert(finding: Finding) -> str:
    """Write the command that shows how the baseline's state would come back; --apply does it."""
    return f"muster revert {shlex.quote(cut(visible(finding.id), 64))}"


def gap_name(gap: Gap) -> str:
    """Name what could not be read."""
    return visible(f"all of {gap.key}" if gap.listing else str(gap.key))


def gap_why(gap: Gap) -> str:
    """Say why it could not be read: reason, status, code, detail."""
    words = gap.reason.value
    if gap.status is not None:
        words += f", HTTP {gap.status}"
    if gap.code:
        words += f" {visible(gap.code)}"
    return f"{words}: {visible(gap.detail)}" if gap.detail else words


def verdict(report: AuditReport) -> tuple[str, str]:
    """Give the verdict as one word (clean, findings, incomplete, unapproved) and as a sentence."""
    counting = len(report.counting())
    unknown = sum(1 for f in report.findings if f.counted and f.change is ChangeType.UNKNOWN)
    unread = [plural(len(report.gaps), "gap")] if report.gaps else []
    unread += [plural(unknown, "resource") + " of unknown state"] if unknown else []
    differs = plural(counting, "finding") if counting else "no finding where it could be read"
    if report.incomplete:
        return "incomplete", f"Incomplete: {', '.join(unread) or 'a gap'}; {differs}"
    if not report.baseline:
        return "unapproved", "No baseline yet: nothing is approved, so nothing can be judged"
    if counting:
        worst = report.worst()
        return "findings", f"{differs}, the worst {worst.value if worst else 'info'}"
    return "clean", "Clean: live state is the approved baseline"


def by_severity(findings: Sequence[Finding]) -> list[tuple[Severity, int]]:
    """Count findings by severity, worst first, zeros included."""
    return [(s, sum(1 for f in findings if f.severity is s)) for s in SEVERITIES]


def by_class(findings: Sequence[Finding]) -> list[tuple[Class, int]]:
    """Count findings by class, what needs a person first, zeros included."""
    return [(c, sum(1 for f in findings if f.class_ is c)) for c in CLASSES]


def confidence(found: Attribution) -> str:
    """Say how sure an attribution is."""
    return "nobody is named" if not found.known else f"{found.confidence.value} confidence"


def reading(report: AuditReport) -> str:
    """Say how live state was read, in one sentence."""
    how = report.reading
    words = f"{how.mode.value}: {plural(how.accounts_read, 'account')} of {how.accounts_known:,}"
    return f"{words}; {visible(how.why)}" if how.why else words


def calls(report: AuditReport) -> str:
    """Say which calls it took."""
    made = report.calls
    return (
        f"{made.made:,} made, {made.floor:,} would be the least, "
        f"{made.throttled:,} throttled, {made.retried:,} retried"
    )
