"""What the site tells: everything recorded of an estate, ready to be shown, as frozen values.

Texts are as they were recorded; templates escape them, and `see` makes what is invisible visible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from muster.report.audit_timeline import Chart
from muster.report.audit_words import age, cut, visible

TEXT = 600  # characters of a name, a reason, a sentence


class Level(StrEnum):
    """How something stands. What nobody knows is never fine."""

    GOOD = "good"
    NOTE = "note"  # nothing is wrong, somebody should still know
    RISK = "at risk"
    UNKNOWN = "not known"
    BAD = "problem"

    @property
    def rank(self) -> int:
        """0 for good to 4 for a problem."""
        return list(Level).index(self)

    @property
    def slug(self) -> str:
        """Its name as a class of the style sheet."""
        return self.value.replace(" ", "-")


def worst(levels: list[Level]) -> Level:
    """Give the worst; of none at all: not known."""
    return max(levels, key=lambda level: level.rank, default=Level.UNKNOWN)


def see(text: object, limit: int = TEXT) -> str:
    """Make a text from outside printable and of bounded length."""
    return cut(visible(str(text)), limit)


def when(at: datetime | None) -> str:
    """Write a time with its zone, to the second; "not known" when there is none."""
    return "not known" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def day(at: datetime) -> str:
    """Write a day."""
    return at.astimezone(UTC).strftime("%Y-%m-%d")


def before(at: datetime | None, now: datetime) -> str:
    """Say how long before the report something was."""
    if at is None:
        return "never"
    if at > now + timedelta(seconds=1):
        return f"{age((at - now).total_seconds())} after this report"
    return f"{age((now - at).total_seconds())} before this report"


def span(seconds: float | None) -> str:
    """Write a duration in its two largest units; short ones to a tenth of a second."""
    if seconds is None:
        return "not measured"
    return f"{seconds:.1f} s" if 0 <= seconds < 60 else age(seconds)


@dataclass(frozen=True, slots=True)
class Source:
    """Where figures come from: a commit, an evidence, a store; shown on the page of evidence."""

    anchor: str  # of its row
    name: str  # "snapshot 20261122T…"
    ref: str  # commit or id; "" when there is none
    at: datetime | None
    command: str = ""  # how to see it without this site


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that needs a person, where it is told, and what to do next."""

    level: Level
    text: str
    page: str  # address of the page that tells more
    remedy: str = ""
    weight: int = 0  # among those of one level: more first


@dataclass(frozen=True, slots=True)
class Part:
    """What every page begins with: how it stands, in one sentence, and what it rests on."""

    level: Level
    headline: str
    sources: tuple[Source, ...] = ()
    missing: tuple[str, ...] = ()  # what is not known, each with what to run


# --------------------------------------------------------------------------------------- estate


@dataclass(frozen=True, slots=True)
class KindRow:
    """One kind in one recovery class."""

    kind: str
    title: str
    recovery: str
    count: int
    unread: int
    sentence: str
    source: str


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One account and what is below it."""

    name: str
    group: str
    subscription: str
    region: str
    role: str  # what the pairs make of its region
    level: Level
    resources: int
    unread: int
    lost: int  # recorded only, or lost


@dataclass(frozen=True, slots=True)
class ResourceRow:
    """One resource."""

    kind: str
    name: str
    within: str
    region: str
    recovery: str
    unread: bool
    finding: str  # anchor of its open finding, "" when there is none


@dataclass(frozen=True, slots=True)
class GapRow:
    """Something that could not be read."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class SnapshotPoint:
    """One snapshot of the history."""

    at: datetime
    id: str
    commit: str
    resources: int
    gaps: int
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Estate:
    """What there is, and how it would come back."""

    part: Part
    resources: int = 0
    unread: int = 0
    comes_back: int = 0
    by_recovery: Mapping[str, int] = field(default_factory=dict)
    by_region: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    kinds: tuple[KindRow, ...] = ()
    accounts: tuple[AccountRow, ...] = ()
    rows: tuple[ResourceRow, ...] = ()
    gaps: tuple[GapRow, ...] = ()
    history: tuple[SnapshotPoint, ...] = ()  # oldest first
    payloads: int = 0
    payload_bytes: int = 0
    facts: tuple[tuple[str, str], ...] = ()


# ------------------------------------------------------------------------------------- readiness


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One check of readiness."""

    level: Level
    state: str
    name: str
    subject: str
    detail: str
    date: datetime | None
    remedy: str
    promise: str


@dataclass(frozen=True, slots=True)
class Promised:
    """One objective and how it stands."""

    name: str
    promised: str
    level: Level
    state: str
    detail: str


@dataclass(frozen=True, slots=True)
class PairView:
    """One pair, or what belongs to the whole estate, as it was last asked for."""

    name: str
    anchor: str
    level: Level
    state: str
    at: datetime | None
    checks: tuple[CheckRow, ...] = ()
    objectives: tuple[Promised, ...] = ()
    note: str = ""

    @property
    def open(self) -> tuple[CheckRow, ...]:
        """The checks that are not met."""
        return tuple(check for check in self.checks if check.level is not Level.GOOD)

    @property
    def met(self) -> tuple[CheckRow, ...]:
        """The checks that are met."""
        return tuple(check for check in self.checks if check.level is Level.GOOD)


@dataclass(frozen=True, slots=True)
class Clock:
    """A time after which something can no longer be had back."""

    level: Level
    name: str
    what: str
    ends: datetime
    left: str
    step: str
    source: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """Could we recover? As it was last asked."""

    part: Part
    pairs: tuple[PairView, ...] = ()
    objectives: tuple[Promised, ...] = ()
    clocks: tuple[Clock, ...] = ()


# ----------------------------------------------------------------------------------------- drift


@dataclass(frozen=True, slots=True)
class FindingRow:
    """One open finding."""

    id: str
    anchor: str
    severity: str
    class_: str
    change: str
    title: str
    name: str
    key: str
    who: str
    when: str
    why: str
    paths: tuple[tuple[str, str, str], ...]  # pointer, baseline, live
    more_paths: int
    first_seen: str
    undo: str
    note: str  # ignored until, waits for
    place: str  # of the resource in the ledger
    commit: str
    command: str


@dataclass(frozen=True, slots=True)
class StoryRow:
    """One change that was seen, whether it is still there or not."""

    at: datetime
    change: str
    name: str
    kind: str
    who: str
    confidence: str
    paths: str


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """One decision: an approval, an ignore, a revert, a sign-off."""

    at: datetime
    what: str
    by: str
    reason: str
    ticket: str
    commit: str


@dataclass(frozen=True, slots=True)
class AuditPoint:
    """One audit of the history."""

    at: datetime
    id: str
    findings: int
    gaps: int
    commit: str


@dataclass(frozen=True, slots=True)
class Drift:
    """What differs from the baseline, and what was decided."""

    part: Part
    findings: tuple[FindingRow, ...] = ()
    ignored: tuple[FindingRow, ...] = ()
    by_severity: Mapping[str, int] = field(default_factory=dict)
    by_class: Mapping[str, int] = field(default_factory=dict)
    audits: tuple[AuditPoint, ...] = ()  # oldest first
    stories: tuple[StoryRow, ...] = ()  # newest first
    stories_by_day: Mapping[str, int] = field(default_factory=dict)
    decisions: tuple[DecisionRow, ...] = ()  # newest first
    timeline: Chart | None = None  # of the open findings
    risks: tuple[tuple[str, str, str], ...] = ()  # severity, message, due
    facts: tuple[tuple[str, str], ...] = ()


# ----------------------------------------------------------------------------------- replication


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """One fine-tuned model in the standby."""

    level: Level
    model: str
    source: str
    target: str
    way: str
    state: str
    proof: str
    lag: str
    deadline: datetime | None
    left: str
    detail: str


@dataclass(frozen=True, slots=True)
class ReplicationPair:
    """One pair and what is known of its standby."""

    name: str
    level: Level
    headline: str
    last: datetime | None
    facts: tuple[tuple[str, str], ...] = ()
    replicas: tuple[ReplicaRow, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplicationView:
    """Whether the standbys are in step."""

    part: Part
    pairs: tuple[ReplicationPair, ...] = ()


# ---------------------------------------------------------------------------------------- drills


@dataclass(frozen=True, slots=True)
class Timed:
    """A step of a drill."""

    level: Level
    name: str
    kind: str
    state: str
    phase: str
    seconds: str
    took: float  # seconds
    critical: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Proved:
    """A check of a drill, and what it said of a broken copy."""

    level: Level
    name: str
    subject: str
    state: str
    control: str
    detail: str
    seen: str = ""  # what it said of the broken copy


@dataclass(frozen=True, slots=True)
class SeedRow:
    """One run of a rehearsal."""

    seed: str
    level: Level
    verdict: str
    rto: str
    reasons: str


@dataclass(frozen=True, slots=True)
class RehearsalRow:
    """Many runs in a sandbox: how long they took, and what failed."""

    drill: str
    at: datetime | None
    runs: int
    verdicts: str
    level: Level
    times: tuple[float, ...]
    shares: tuple[tuple[str, str], ...]  # p50, p90 …
    objective: float | None
    failing: tuple[tuple[str, int], ...]
    seeds: tuple[SeedRow, ...] = ()
    page: str = ""  # of its evidence


@dataclass(frozen=True, slots=True)
class Verified:
    """One thing that was verified of an evidence for this report, and what came of it."""

    level: Level
    what: str
    words: str


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of a drill."""

    id: str
    page: str  # of its own, "" when it has none
    json: str  # path of the copy of its evidence
    drill: str
    title: str
    mode: str
    level: Level
    verdict: str
    at: datetime | None
    seconds: float
    rto: float | None
    rpo: float | None
    objective_rto: float | None
    objective_rpo: float | None
    reasons: tuple[str, ...]
    findings: tuple[str, ...]
    gate: tuple[Proved, ...]
    checks: tuple[Proved, ...]
    steps: tuple[Timed, ...]
    phases: tuple[tuple[str, str], ...]
    cleanup: str
    cleanup_level: Level
    cleanup_notes: tuple[str, ...]
    approvals: tuple[str, ...]
    verified: tuple[Verified, ...]  # hash and verdict, chain, copy in the vault, signature
    hash: str
    previous: str
    problems: tuple[str, ...]  # what speaks against the evidence itself
    script: str
    facts: tuple[tuple[str, str], ...]
    rehearsal: RehearsalRow | None = None

    @property
    def signature(self) -> Verified:
        """What came of verifying its signature."""
        return self.verified[-1]

    @property
    def late(self) -> bool:
        """Whether it took longer than was promised."""
        return (
            self.rto is not None
            and self.objective_rto is not None
            and self.rto > self.objective_rto
        )


@dataclass(frozen=True, slots=True)
class DrillView:
    """One drill and how it went."""

    name: str
    title: str
    anchor: str
    level: Level
    headline: str
    runs: tuple[RunRow, ...]  # newest first
    objective_rto: float | None
    real: RunRow | None  # the newest that was no rehearsal and no dry run


@dataclass(frozen=True, slots=True)
class Drills:
    """What was rehearsed."""

    part: Part
    drills: tuple[DrillView, ...] = ()
    rehearsals: tuple[RehearsalRow, ...] = ()
    never: tuple[tuple[str, str], ...] = ()  # name, title


# --------------------------------------------------------------------------------- unrecoverable


@dataclass(frozen=True, slots=True)
class LostRow:
    """State that does not come back, and who answers for that."""

    anchor: str
    level: Level
    what: str  # what a sign-off would name
    title: str
    recovery: str
    count: int | None  # None: nobody counted
    sentence: str
    source: str
    state: str  # signed, not signed, expired
    signed: int
    owner: str
    at: datetime | None
    expires: datetime | None
    reason: str
    names: tuple[str, ...]
    unsigned: tuple[str, ...]
    more: int
    command: str


@dataclass(frozen=True, slots=True)
class Unrecoverable:
    """What would not come back."""

    part: Part
    rows: tuple[LostRow, ...] = ()
    idle: tuple[str, ...] = ()  # sign-offs that are about nothing, in words


# -------------------------------------------------------------------------------------- evidence


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """One thing that was written down."""

    at: datetime | None
    kind: str
    id: str
    level: Level
    verdict: str
    page: str
    ref: str  # commit, or hash
    command: str
    signature: Verified | None = None  # of a drill's evidence


@dataclass(frozen=True, slots=True)
class Applied:
    """A plan that was applied: a restore, a revert, a replication."""

    id: str
    target: str
    at: datetime
    finished: bool
    steps: int
    done: int  # steps that came to what was wanted
    taken_back: bool = False  # what it did was undone


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """Everything that proves something."""

    part: Part
    rows: tuple[EvidenceRow, ...] = ()
    more: int = 0
    sources: tuple[Source, ...] = ()
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that the site tells."""

    estate_name: str
    now: datetime
    version: str
    ledger: str  # its path, for commands
    vault: str
    objectives: tuple[tuple[str, str], ...]
    estate: Estate
    readiness: Readiness
    drift: Drift
    replication: ReplicationView
    drills: Drills
    unrecoverable: Unrecoverable
    evidence: EvidenceView
    problems: tuple[Problem, ...]  # worst first
    troubles: tuple[str, ...] = ()  # stores and documents that could not be read
    copies: Mapping[str, bytes] = field(default_factory=dict)  # evidence/<id>.json

    @property
    def level(self) -> Level:
        """How the estate stands as a whole."""
        parts = (
            self.estate.part,
            self.readiness.part,
            self.drift.part,
            self.replication.part,
            self.drills.part,
            self.unrecoverable.part,
            self.evidence.part,
        )
        return worst([part.level for part in parts])
