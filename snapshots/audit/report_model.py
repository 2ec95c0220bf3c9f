"""What an audit found: the one model from which every report is written.

Nothing here is escaped: each report escapes for its own medium. Every text may hold what a user of
the estate typed (names, descriptions, tags), so none is harmless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from snapshots.model import CallCount, ChangeType, Gap, Json, Key, Missing, Resource

SCHEMA = "muster/audit/1"


class Class(StrEnum):
    """Whether somebody meant it."""

    PLANNED = "planned"
    PLANNED_BUT_DIFFERENT = "planned-but-different"
    UNPLANNED = "unplanned"
    PLATFORM = "platform"
    UNKNOWN = "unknown"


class Severity(StrEnum):
    """How bad a finding is, mildest first."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info to 4 for critical."""
        return list(Severity).index(self)

    def at_least(self, other: Severity) -> bool:
        """Whether this is as bad as `other`, or worse."""
        return self.rank >= other.rank


class PrincipalKind(StrEnum):
    """What kind of principal made a change."""

    USER = "User"
    SERVICE_PRINCIPAL = "ServicePrincipal"
    MANAGED_IDENTITY = "ManagedIdentity"
    PLATFORM = "platform"  # Azure itself
    UNKNOWN = "unknown"


class Confidence(StrEnum):
    """How sure an attribution is; its reasons say why."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NONE = "none"  # unattributed


class Direction(StrEnum):
    """Which way a change goes, as its rule sees it."""

    WEAKER = "weaker"
    STRONGER = "stronger"
    NEUTRAL = "neutral"


class Mode(StrEnum):
    """How live state was read."""

    SWEEP = "sweep"  # everything
    INCREMENTAL = "incremental"  # only accounts touched since the earlier full read


@dataclass(frozen=True, slots=True)
class Attribution:
    """Who did it, as far as Azure's records tell. Empty texts stand for what they do not tell."""

    who: str = ""  # user principal name, or the object id of an application
    principal_kind: PrincipalKind = PrincipalKind.UNKNOWN
    principal_id: str = ""  # object id
    app_id: str = ""  # client id of the program that acted
    client: str = ""  # its name, where it is known: "Azure Portal"
    address: str = ""  # IP address of the caller
    when: datetime | None = None  # aware, UTC
    operation: str = ""  # Microsoft.CognitiveServices/accounts/deployments/write
    correlation_id: str = ""
    events: tuple[str, ...] = ()  # event ids of the Activity Log, ids of resource changes
    confidence: Confidence = Confidence.NONE
    reasons: tuple[str, ...] = ()  # one sentence each

    @property
    def known(self) -> bool:
        """Whether somebody, or Azure itself, is named."""
        return self.confidence is not Confidence.NONE

    @property
    def complete(self) -> bool:
        """Whether the address is told, too; Azure itself has none."""
        return bool(self.address) or self.principal_kind is PrincipalKind.PLATFORM


UNATTRIBUTED = Attribution(reasons=("unattributed: no record was looked at",))


@dataclass(frozen=True, slots=True)
class PropertyFinding:
    """One property that differs from the baseline, by its RFC 6901 pointer into the body."""

    path: str
    before: Json | Missing  # of the baseline
    after: Json | Missing  # live
    attribution: Attribution | None = None  # where the sources tell single properties apart


@dataclass(frozen=True, slots=True)
class RuleHit:
    """A rule that says something about a finding."""

    id: str  # pack/rule, such as "builtin/content-filter-loosened"
    title: str
    severity: Severity
    direction: Direction
    why: str  # what it means for the workload, one sentence
    paths: tuple[str, ...] = ()  # the properties that made it fire; none: the whole resource


@dataclass(frozen=True, slots=True)
class Ignored:
    """Somebody's decision to leave a finding alone for a while."""

    by: str
    reason: str
    at: datetime
    expires: datetime
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """An approval that waits for a second person."""

    by: tuple[str, ...]
    reason: str
    at: datetime
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class LedgerPlace:
    """Where the ledger keeps the resource: for links, and for places in SARIF."""

    path: str  # resources/…/name.json
    commit: str  # of the state in which it is there: live, or baseline when it was removed


@dataclass(frozen=True, slots=True)
class Finding:
    """A change with its story: who, when, from where; planned or not; how bad."""

    id: str  # 12 hex digits: the same difference has the same id in every run
    fingerprint: str  # 32 hex digits: the same resource and kind of change, whatever the values
    key: Key
    kind: str
    kind_title: str  # "model deployments"
    change: ChangeType
    resource_id: str  # as Azure spells it; "" when it was never read
    paths: tuple[PropertyFinding, ...]
    class_: Class
    severity: Severity
    rules: tuple[RuleHit, ...]
    attribution: Attribution
    reasons: tuple[str, ...]  # why this class, one sentence each
    place: LedgerPlace
    first_seen: datetime
    window: tuple[datetime | None, datetime]  # last read as in the baseline, first read otherwise
    ticket: str = ""  # of the change record that planned it
    gap: Gap | None = None  # why, when the change is unknown
    renamed_from: Key | None = None
    before: Resource | None = None  # of the baseline
    after: Resource | None = None  # live
    restore: str = ""  # how the kind comes back: what a restore would do to it
    recovery: str = ""  # restored, recreated, copied, rebuilt, recorded, lost
    undo: str = ""  # what `muster revert` would do, in a sentence
    ignored: Ignored | None = None
    pending: Pending | None = None

    @property
    def counted(self) -> bool:
        """Whether it counts for the exit code: not ignored."""
        return self.ignored is None


@dataclass(frozen=True, slots=True)
class Risk:
    """Something in live state that is no change and will hurt: a model near its retirement."""

    key: Key
    rule: RuleHit
    due: datetime | None
    message: str


@dataclass(frozen=True, slots=True)
class Reading:
    """How live state was read for this audit."""

    mode: Mode
    why: str  # why a sweep, or what an incremental read relies on
    accounts_read: int
    accounts_known: int
    events: int  # records of the Activity Log that were looked at
    log_through: datetime | None  # changes after it may not be in the Activity Log yet
    holes: tuple[str, ...] = ()  # what Azure's records could not tell, one sentence each


@dataclass(frozen=True, slots=True)
class AuditReport:
    """One audit: live state against the baseline."""

    id: str  # names the audit in the ledger
    estate: str
    at: datetime  # aware, UTC
    version: str  # of muster
    baseline: str  # commit; "" when nothing is approved yet
    baseline_at: datetime | None
    baseline_by: str
    live: str  # commit that keeps the state that was audited
    findings: tuple[Finding, ...]  # worst first
    gaps: tuple[Gap, ...]
    calls: CallCount
    reading: Reading
    last_sweep: datetime | None  # the last time everything was read
    resources: int  # in live state
    seconds: float
    scope: tuple[str, ...] = ()  # what --scope asked for; empty: everything
    since: datetime | None = None  # what --since asked for
    risks: tuple[Risk, ...] = ()
    ignored: int = 0  # findings that somebody decided to leave alone
    hidden: int = 0  # findings that --scope or --since left out
    expired: tuple[str, ...] = ()  # approvals and ignores that ran out, one sentence each
    warnings: tuple[str, ...] = ()
    by_class: Mapping[str, int] = field(default_factory=dict)
    by_severity: Mapping[str, int] = field(default_factory=dict)

    @property
    def incomplete(self) -> bool:
        """Whether something could not be read: then nobody may call the estate clean."""
        return bool(self.gaps) or any(f.change is ChangeType.UNKNOWN for f in self.findings)

    @property
    def sweep_age(self) -> float | None:
        """How many seconds before this audit everything was last read."""
        return None if self.last_sweep is None else (self.at - self.last_sweep).total_seconds()

    def counting(self, least: Severity = Severity.INFO) -> tuple[Finding, ...]:
        """Give the findings that fail a run: not ignored, known, as bad as `least` or worse."""
        return tuple(
            f
            for f in self.findings
            if f.counted and f.change is not ChangeType.UNKNOWN and f.severity.at_least(least)
        )

    def worst(self) -> Severity | None:
        """Give the worst severity of what counts."""
        found = [f.severity for f in self.counting()]
        return max(found, key=lambda severity: severity.rank) if found else None


def count_by(findings: Sequence[Finding]) -> tuple[dict[str, int], dict[str, int]]:
    """Give how many findings there are of each class and of each severity, zeros included."""
    classes = {class_.value: 0 for class_ in Class}
    severities = {severity.value: 0 for severity in Severity}
    for finding in findings:
        classes[finding.class_.value] += 1
        severities[finding.severity.value] += 1
    return classes, severities
