"""The nouns of drills: Drill and its steps, Check and what it found, DrillResult and Evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeAlias

from snapshots.clock import Clock
from snapshots.cloud import Cloud
from snapshots.ledger import Ledger
from snapshots.model import Json, JsonObject, Snapshot
from snapshots.steps import IdMap
from snapshots.steps import Mapping as Substitutions
from snapshots.vault import Vault


class Mode(StrEnum):
    """How a drill is run."""

    DRY_RUN = "dry-run"  # nothing is changed; every read-only check is real
    REHEARSAL = "rehearsal"  # in a sandbox of its own, with faults and seeds
    REAL = "real"


class Phase(StrEnum):
    """What a step brings about; the RTO is told by these."""

    DETECTED = "detected"
    DECIDED = "decided"
    RESTORED = "restored"
    VALIDATED = "validated"
    SWITCHED = "switched"


class Verdict(StrEnum):
    """What a drill proved."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_PROVED = "not proved"  # nothing failed, but something could not be shown
    INTERRUPTED = "interrupted"


# -------------------------------------------------------------------------------------- a script


@dataclass(frozen=True, slots=True)
class Objective:
    """Promised RTO and RPO, in seconds. None where nothing is promised."""

    rto: float | None = None
    rpo: float | None = None


class TargetKind(StrEnum):
    """Where a drill works."""

    NONE = "none"  # it changes nothing in Azure
    ISOLATED = "isolated"  # resource groups of its own, tagged, with a time limit
    STANDBY = "standby"  # the standby region of a pair
    SAME = "same"  # the primary itself: only with approvers


@dataclass(frozen=True, slots=True)
class DrillScope:
    """What of the estate a drill takes part in. Empty means everything."""

    only: tuple[str, ...] = ()  # keys or globs of keys
    primary: str = ""  # region; "": the first pair's
    standby: str = ""


@dataclass(frozen=True, slots=True)
class CheckDeclaration:
    """One check as a script asks for it: which, of what, with which settings."""

    check: str  # a name the checks library knows: "state", "content-filter" …
    name: str = ""  # in reports; "": the name of the check
    subject: str = ""  # a key, a glob of keys, or "" for everything in the target
    settings: JsonObject = field(default_factory=dict)  # the check's own, validated by its maker
    line: int = 0  # in the script, for errors

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.name or self.check


class Verb(StrEnum):
    """The verbs of the engine that a script can ask for."""

    SNAPSHOT = "snapshot"  # take, and keep in memory: `from: live` of later steps
    PLAN = "plan"  # say what a restore would do and what would be lost; changes nothing
    RESTORE = "restore"  # plan and apply a snapshot into the target
    REPLICATE = "replicate"  # bring the standby in step
    RECONSTRUCT = "reconstruct"  # rebuild ledger and snapshot from the vault alone
    RECOVER = "recover"  # take a soft-deleted account back


class FaultKind(StrEnum):
    """What a script can break: `delete` in the drill's own target, the rest in a sandbox only."""

    DELETE = "delete"
    REGION_DOWN = "region-down"
    RULE = "rule"  # any rule of the sandbox's fault API
    CLOCK = "clock"  # the sandbox's clock moves on
    CONTROL = (
        "control"  # any other request to the sandbox's control API, with the one that mends it
    )


class SwitchKind(StrEnum):
    """What a switch acts on."""

    PATCH = "patch"  # any ARM resource: gateways, priorities, values, DNS records
    WEBHOOK = "webhook"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbStep:
    """Use one verb of the engine."""

    name: str
    verb: Verb
    phase: Phase | None = None
    only: tuple[str, ...] = ()  # within the drill's scope
    snapshot: str = ""  # a snapshot, a branch or "live"; "": the drill's own
    kinds: tuple[str, ...] = ()
    prune: bool = False  # delete from the target what the snapshot has not
    keep: bool = False  # what it builds stays when the drill is over
    back: bool = False  # from the standby as it is now to the primary: a failback
    changes: JsonObject = field(default_factory=dict)  # to the Mapping, from this step on
    fails: str = ""  # it must fail, and say this; "": it must not
    if_sandbox: bool = False  # left out where there is no sandbox: it needs what was broken there
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultStep:
    """Break something on purpose."""

    name: str
    fault: FaultKind
    phase: Phase | None = None
    only: tuple[str, ...] = ()  # what `delete` takes away, in the target
    region: str = ""
    seconds: float = 0.0
    if_sandbox: bool = False  # left out where there is no sandbox, and nothing lacks for it
    rule: JsonObject = field(default_factory=dict)
    call: str = ""  # of `control`: "PUT quota"
    body: JsonObject = field(default_factory=dict)
    undo: JsonObject = field(default_factory=dict)  # the body that mends it
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchStep:
    """Point traffic elsewhere; the undo is computed from what was there before."""

    name: str
    switch: SwitchKind
    phase: Phase | None = Phase.SWITCHED
    resource: str = ""  # ARM id
    api_version: str = ""
    body: JsonObject = field(default_factory=dict)  # merged into the resource, or the webhook's
    url: str = ""
    path: str = ""  # of a file, beside the configuration
    content: str = ""
    keep: bool = False  # whether the switch stays when the drill is over
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployStep:
    """Put one ARM resource into the drill's own target."""

    name: str
    path: str  # below the drill's resource group: "providers/…/accounts/{name}"
    api_version: str
    body: JsonObject
    phase: Phase | None = Phase.RESTORED
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitStep:
    """Let time pass."""

    name: str
    seconds: float
    phase: Phase | None = None
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveStep:
    """People say yes in time, or the drill ends there."""

    name: str
    question: str
    people: int = 1  # different ones
    within: float = 0.0  # seconds that they have; 0: only who is at the terminal now is asked
    phase: Phase | None = Phase.DECIDED
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep:
    """Run a command; anything but exit 0 within the limit is a failure."""

    name: str
    command: tuple[str, ...]
    limit: float  # seconds
    phase: Phase | None = None
    undo: tuple[str, ...] = ()  # run at clean-up, when the command was begun
    read_only: bool = False  # a dry run runs it, too
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelStep:
    """Steps that go at the same time; it is over when the last of them is."""

    name: str
    steps: tuple[DrillStep, ...]
    phase: Phase | None = None
    line: int = 0


DrillStep: TypeAlias = (
    VerbStep | FaultStep | SwitchStep | DeployStep | WaitStep | ApproveStep | RunStep | ParallelStep
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """A scripted rehearsal."""

    name: str  # of its file, without the ending
    title: str
    about: str
    text: str  # the script as it was read; evidence keeps a copy
    file: Path
    objective: Objective
    scope: DrillScope
    target: TargetKind
    limit: float  # seconds; past it the drill is stopped and cleaned up
    blast_radius: str
    cost_ceiling: float  # US dollars
    approvers: tuple[str, ...]
    forced: bool  # the primary is never called
    keep: bool  # a failover that is meant: what its verbs build stays
    gate: tuple[CheckDeclaration, ...]
    steps: tuple[DrillStep, ...]
    checks: tuple[CheckDeclaration, ...]
    clean_up: tuple[DrillStep, ...]  # beside what is cleaned up by itself
    parameters: JsonObject = field(default_factory=dict)  # what `${name}` stood for


# ---------------------------------------------------------------------------------------- checks


class CheckState(StrEnum):
    """What came of a check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not-run"  # it could not run: never passed


class Control(StrEnum):
    """What came of the same check on a deliberately broken copy."""

    FAILED = "failed"  # as it must: the check can see what it is there to see
    PASSED = "passed"  # the check proves nothing
    NOT_RUN = "not-run"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """A question with an expected and an observed answer, and how it went.

    `expected` and `observed` are scrubbed: no secret, no customer text beyond what a golden data
    set holds. A check leaves `negative_control` as it is; the engine puts the control's there.
    """

    name: str
    subject: str
    state: CheckState
    expected: Json = None
    observed: Json = None
    detail: str = ""  # one line for people: why it failed, or could not run
    seconds: float = 0.0
    negative_control: Control = Control.NOT_RUN
    control_detail: str = ""  # what the control saw

    def document(self) -> JsonObject:
        """Give it as evidence keeps it."""
        return {
            "name": self.name,
            "subject": self.subject,
            "state": self.state.value,
            "expected": self.expected,
            "observed": self.observed,
            "detail": self.detail,
            "seconds": round(self.seconds, 3),
            "negative_control": self.negative_control.value,
            "control_detail": self.control_detail,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckContext:
    """What a check may look at.

    `expected` is what shall be in the target, in the target's own names (the mapped snapshot);
    `live` reads the target, once for all checks (its gaps say what could not be read). A check
    never writes to what it looks at; a golden data set's file is found beside `folder`.
    """

    cloud: Cloud
    clock: Clock
    live: Callable[[], Snapshot]
    expected: Snapshot | None = None
    source: Snapshot | None = None  # the snapshot in its own names
    mapping: Substitutions = field(default_factory=Substitutions)
    ids: IdMap = field(default_factory=IdMap)
    ledger: Ledger | None = None
    vault: Vault | None = None
    primary: str = ""  # region
    standby: str = ""
    folder: Path = Path()
    seed: int = 0


class Check(Protocol):
    """A question with an expected and an observed answer.

    `run` asks it. `control` asks the same of a deliberately broken copy: its outcome must be
    failed, or the check proves nothing. Neither raises for what it finds; a MusterError that does
    leave is an outcome `not-run`. The checks library gives them: `drills.checks.make(declaration)`
    raises InputError for unknown names and settings, and `drills.checks.NAMES` lists what it knows.
    """

    @property
    def name(self) -> str:
        """What the library calls it: "state", "content-filter" and so on."""
        ...

    def run(self, context: CheckContext) -> CheckOutcome:
        """Ask."""
        ...

    def control(self, context: CheckContext) -> CheckOutcome:
        """Ask the same of a broken copy."""
        ...


CheckMaker: TypeAlias = Callable[[CheckDeclaration], Check]


# --------------------------------------------------------------------------------------- results


class DrillStepState(StrEnum):
    """Where a step of a drill stands."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"  # not reached, or a dry run does not do it


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """How one step went."""

    name: str
    kind: str  # "verb:restore", "wait" …
    state: DrillStepState
    phase: Phase | None = None
    started_at: datetime | None = None
    seconds: float = 0.0
    calls: int = 0
    inputs: JsonObject = field(default_factory=dict)
    detail: str = ""
    found: JsonObject = field(default_factory=dict)  # what a plan says would be done and lost
    approver: str = ""
    critical: bool = False  # on the critical path
    steps: tuple[StepOutcome, ...] = ()  # of a parallel group

    def document(self) -> JsonObject:
        """Give it as evidence keeps it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "state": self.state.value,
            "phase": self.phase.value if self.phase is not None else None,
            "started_at": self.started_at.isoformat() if self.started_at is not None else None,
            "seconds": round(self.seconds, 3),
            "calls": self.calls,
            "inputs": self.inputs,
            "detail": self.detail,
            "found": self.found,
            "approver": self.approver,
            "critical": self.critical,
            "steps": [step.document() for step in self.steps],
        }


class CleanUpState(StrEnum):
    """Whether a drill left nothing behind."""

    CLEAN = "clean"  # proved: looked for, and nothing there
    LEFT = "left"  # something is still there
    UNKNOWN = "unknown"  # it could not be looked for
    KEPT = "kept"  # on request


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanUp:
    """What was taken away after a drill, and the proof that nothing is left."""

    state: CleanUpState
    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()  # what is still there, in words
    proof: tuple[str, ...] = ()  # what was looked for, and not found
    kept: tuple[str, ...] = ()  # what the script says shall stay
    seconds: float = 0.0

    def document(self) -> JsonObject:
        """Give it as evidence keeps it."""
        return {
            "state": self.state.value,
            "removed": list(self.removed),
            "left": list(self.left),
            "proof": list(self.proof),
            "kept": list(self.kept),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPart:
    """A part of the critical path, in seconds after the loss."""

    name: str
    phase: Phase | None
    begins: float
    ends: float

    def document(self) -> JsonObject:
        """Give it as evidence keeps it."""
        phase = self.phase.value if self.phase is not None else None
        return {"name": self.name, "phase": phase, "begins": self.begins, "ends": self.ends}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What rehearsals said beforehand of the recovery time, in seconds."""

    p50: float
    p90: float
    runs: int
    evidence: str  # id of the rehearsal

    def document(self) -> JsonObject:
        """Give it as evidence keeps it."""
        return {"p50": self.p50, "p90": self.p90, "runs": self.runs, "evidence": self.evidence}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a drill took. Seconds; US dollars."""

    rto: float | None = None  # None: it was not brought back
    rpo: float | None = None  # the worst of `rpo_by_class`
    phases: Mapping[Phase, float] = field(default_factory=dict)  # reached after seconds
    # By recovery class; None: what is of it does not come back, whatever the snapshot's age.
    rpo_by_class: Mapping[str, float | None] = field(default_factory=dict)
    critical_path: tuple[PathPart, ...] = ()
    calls: int = 0
    cost: float = 0.0  # an estimate

    def document(self) -> JsonObject:
        """Give it as evidence keeps it."""
        return {
            "rto_seconds": self.rto,
            "rpo_seconds": self.rpo,
            "phases": {phase.value: seconds for phase, seconds in self.phases.items()},
            "rpo_by_class": dict(self.rpo_by_class),
            "critical_path": [part.document() for part in self.critical_path],
            "calls": self.calls,
            "cost_estimate": self.cost,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillResult:
    """What one run of a drill came to. Evidence is made of it."""

    id: str
    drill: Drill
    mode: Mode
    seed: int
    estate: str
    version: str  # of muster
    started_at: datetime
    finished_at: datetime
    verdict: Verdict
    reasons: tuple[str, ...] = ()  # why it is not passed
    findings: tuple[str, ...] = ()  # slower than before, over the objective …
    snapshot: str = ""
    mapping: Substitutions = field(default_factory=Substitutions)
    target: str = ""
    gate: tuple[CheckOutcome, ...] = ()
    steps: tuple[StepOutcome, ...] = ()
    checks: tuple[CheckOutcome, ...] = ()
    clean_up: CleanUp = field(default_factory=lambda: CleanUp(state=CleanUpState.UNKNOWN))
    measured: Measured = field(default_factory=Measured)
    estimate: Estimate | None = None
    approvals: tuple[str, ...] = ()  # "who: what"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The record of one drill or restore: script, versions, steps, checks, times, verdict.

    Hash-chained: `hash` is the SHA-256 of the canonical document without it, and the document
    names the hash of the evidence before it.
    """

    id: str
    document: JsonObject
    hash: str
    signature: str = ""  # armoured; "" when no key is configured
