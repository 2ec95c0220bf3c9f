"""The nouns of the way back: Mapping, IdMap, Step, Plan and Record, as data that can be saved.

A body that waits to be written is in *logical form*: where it holds an id that the target gives
anew (a file, a vector store, a principal), it holds a token that names the resource instead, and
`apply` puts the target's id there. So one plan fits a target whose ids are not known yet.
"""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from snapshots.model import (
    MISSING,
    Gap,
    Json,
    JsonObject,
    Key,
    Missing,
    PathChange,
    Payload,
    Recovery,
    Resource,
)

_REF = "muster-id:"
_PRINCIPAL = "muster-principal:"


def token(key: Key, *, principal: bool = False) -> str:
    """Give what stands in a logical body for the id (or the principal) of a resource."""
    return (_PRINCIPAL if principal else _REF) + str(key)


def token_of(value: object) -> tuple[Key, bool] | None:
    """Read a token back: the key, and whether its principal is meant. None for anything else."""
    if not isinstance(value, str):
        return None
    for start, principal in ((_REF, False), (_PRINCIPAL, True)):
        if value.startswith(start):
            try:
                key = Key.parse(value.removeprefix(start))
            except ValueError:
                return None
            # What has an id or principal of its own lies in an account; all else is just text.
            return (key, principal) if len(key.path) >= 3 else None
    return None


# ----------------------------------------------------------------------------------- mapping


@dataclass(frozen=True, slots=True)
class AccountPlace:
    """How one account is named and placed in the target. "" means as in the source."""

    name: str
    resource_group: str = ""
    subscription: str = ""
    subdomain: str = ""  # of its endpoint; globally unique, "" derives it from the name


@dataclass(frozen=True, slots=True)
class SkuRule:
    """What a deployment's sku becomes. `of` is a deployment's name or a sku's name."""

    of: str
    name: str = ""  # "": the same sku
    capacity: int | None = None  # None: the same capacity


@dataclass(frozen=True, slots=True)
class Mapping:
    """How what is in a snapshot is named, sized and placed in the target: typed substitutions.

    All empty is the identity: a restore in place. Names are compared without case; regions
    without case and spaces. An account not named here goes by the rules of its region, group and
    subscription.
    """

    subscriptions: abc.Mapping[str, str] = field(default_factory=dict)
    regions: abc.Mapping[str, str] = field(default_factory=dict)  # primary -> standby
    resource_groups: abc.Mapping[str, str] = field(default_factory=dict)
    accounts: abc.Mapping[str, AccountPlace] = field(default_factory=dict)
    skus: tuple[SkuRule, ...] = ()
    # "model" or "model@version" -> version
    versions: abc.Mapping[str, str] = field(default_factory=dict)
    # host -> host, in endpoints and connection targets
    hosts: abc.Mapping[str, str] = field(default_factory=dict)
    keys: abc.Mapping[str, str] = field(default_factory=dict)  # key vault URI -> key vault URI
    # ARM id (of a subnet, a storage account, a workspace, an identity) -> ARM id
    resources: abc.Mapping[str, str] = field(default_factory=dict)

    @property
    def is_identity(self) -> bool:
        """Whether everything stays where and what it was."""
        return self == Mapping()

    def document(self) -> JsonObject:
        """Give it as JSON: `from_document` reads it back."""
        return {
            "subscriptions": dict(self.subscriptions),
            "regions": dict(self.regions),
            "resource_groups": dict(self.resource_groups),
            "accounts": {
                name: {
                    "name": place.name,
                    "resource_group": place.resource_group,
                    "subscription": place.subscription,
                    "subdomain": place.subdomain,
                }
                for name, place in self.accounts.items()
            },
            "skus": [
                {"of": rule.of, "name": rule.name, "capacity": rule.capacity} for rule in self.skus
            ],
            "versions": dict(self.versions),
            "hosts": dict(self.hosts),
            "keys": dict(self.keys),
            "resources": dict(self.resources),
        }

    @classmethod
    def from_document(cls, document: abc.Mapping[str, Json]) -> Mapping:
        """Read back what `document()` wrote. Raises ValueError when it is not one."""
        accounts = document.get("accounts")
        places: dict[str, AccountPlace] = {}
        for name, place in (accounts if isinstance(accounts, dict) else {}).items():
            if not isinstance(place, dict):
                message = f"the place of account {name} is not an object"
                raise ValueError(message)
            places[name] = AccountPlace(
                _text(place, "name"),
                _text(place, "resource_group"),
                _text(place, "subscription"),
                _text(place, "subdomain"),
            )
        return cls(
            subscriptions=_texts_of(document, "subscriptions"),
            regions=_texts_of(document, "regions"),
            resource_groups=_texts_of(document, "resource_groups"),
            accounts=places,
            skus=tuple(
                SkuRule(
                    _text(rule, "of"),
                    _text(rule, "name"),
                    int(_number(rule, "capacity")) if rule.get("capacity") is not None else None,
                )
                for rule in objects(document, "skus")
            ),
            versions=_texts_of(document, "versions"),
            hosts=_texts_of(document, "hosts"),
            keys=_texts_of(document, "keys"),
            resources=_texts_of(document, "resources"),
        )


@dataclass(frozen=True, slots=True, order=True)
class Substitution:
    """One thing that is different in the target on purpose. `path` is a pointer, "" for the key."""

    key: Key  # in the target
    path: str
    before: str
    after: str
    why: str


@dataclass(frozen=True, slots=True)
class IdMap:
    """Old id -> new id, for everything that came back under a new identity.

    `ids` goes by the key in the target: the id it has there. `principals` likewise. `old` goes by
    the id in the source, for those who look for an old file, agent or model.
    """

    ids: abc.Mapping[Key, str] = field(default_factory=dict)
    principals: abc.Mapping[Key, str] = field(default_factory=dict)
    old: abc.Mapping[str, str] = field(default_factory=dict)

    def with_id(self, key: Key, new: str, *, old: str = "", principal: str = "") -> IdMap:
        """Give the map with one more resource."""
        return IdMap(
            {**self.ids, key: new},
            {**self.principals, key: principal} if principal else self.principals,
            {**self.old, old: new} if old and old != new else self.old,
        )

    def document(self) -> JsonObject:
        """What the Record keeps of it."""
        return {
            "ids": {str(k): v for k, v in sorted(self.ids.items())},
            "principals": {str(k): v for k, v in sorted(self.principals.items())},
            "old": dict(sorted(self.old.items())),
        }


# ------------------------------------------------------------------------------------- steps


class Action(StrEnum):
    """What a step does."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    COPY = "copy"  # server-side: a deployment with model.source, a checkpoint copy
    REBUILD = "rebuild"  # hours: a fine-tuned model is trained again
    SWITCH = "switch"  # a soft-deleted account is taken back; traffic is pointed elsewhere


class StepState(StrEnum):
    """Where a step stands."""

    WAITING = "waiting"
    BEGUN = "begun"  # the Record has it; whether Azure did it is not sure until it is done
    DONE = "done"
    ADOPTED = "adopted"  # it was there already, as wanted: nothing was sent
    FAILED = "failed"
    BLOCKED = "blocked"  # what it needs failed, or a question has no answer
    UNDONE = "undone"


class Keep(StrEnum):
    """Which side wins where a property was changed both in the baseline and live."""

    BASELINE = "baseline"
    LIVE = "live"
    TARGET = "target"  # what the target had when the plan was made


@dataclass(frozen=True, slots=True)
class Question:
    """A secret that a step needs and no snapshot holds. `answer` is where it is: never itself."""

    path: str  # RFC 6901 pointer into the body
    what: str  # one line for people
    answer: str = ""  # "env:NAME" or "keyvault:https://…/secrets/name"; "" when there is none


@dataclass(frozen=True, slots=True)
class Conflict:
    """A property that was changed on two sides, and which of them the plan takes."""

    key: Key
    path: str
    baseline: Json | Missing
    live: Json | Missing
    target: Json | Missing
    keep: Keep


@dataclass(frozen=True, slots=True)
class NotRestorable:
    """What cannot come back, how it would, and in whose words."""

    key: Key
    recovery: Recovery
    sentence: str
    source: str


class Work(StrEnum):
    """What a step does for a fine-tuned model that no write by name can do."""

    BRING = "bring"  # its weights: a checkpoint copied, a model trained again
    PROVE = "prove"  # ask source and replica the same; a proved copy goes into service
    CALL = "call"  # so that Azure does not delete its deployment for idleness


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWork:
    """Everything that such a step takes, so that `resume` and `undo` need no second look."""

    work: Work
    way: str  # a CopyWay
    source: Key  # the deployment in the primary
    model: str  # its model's name there
    made_at: datetime  # when the model was made
    source_account: str  # ARM id
    target_account: str  # ARM id
    wanted: Resource  # the deployment as it shall stand, but for its model's name
    deploy: bool = True  # False: a proved copy stays cold
    job: str = ""  # id of the fine-tuning job
    checkpoint: str = ""  # what is copied
    training: str = ""  # sha256 of the file it was trained on
    request: JsonObject = field(default_factory=dict)  # what the job was asked for

    def document(self) -> JsonObject:
        """Give it as JSON: `from_document` reads it back."""
        return {
            "work": self.work.value,
            "way": self.way,
            "source": str(self.source),
            "model": self.model,
            "made_at": self.made_at.isoformat(),
            "source_account": self.source_account,
            "target_account": self.target_account,
            "wanted": self.wanted.document(),
            "deploy": self.deploy,
            "job": self.job,
            "checkpoint": self.checkpoint,
            "training": self.training,
            "request": self.request,
        }

    @classmethod
    def from_document(cls, document: abc.Mapping[str, Json]) -> ModelWork:
        """Read back what `document()` wrote. Raises ValueError when it is not one."""
        return cls(
            work=Work(_text(document, "work")),
            way=_text(document, "way"),
            source=Key.parse(_text(document, "source")),
            model=_text(document, "model"),
            made_at=datetime.fromisoformat(_text(document, "made_at")),
            source_account=_text(document, "source_account"),
            target_account=_text(document, "target_account"),
            wanted=Resource.from_document(_object(document, "wanted")),
            deploy=document.get("deploy") is not False,
            job=_text(document, "job"),
            checkpoint=_text(document, "checkpoint"),
            training=_text(document, "training"),
            request=_object(document, "request"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One action as data. It knows what it needs first, and its undo.

    `before` is what is in the target now (None for a create), `after` what shall be there, in
    logical form (None for a delete). An undo of a create deletes, of an update writes `before`
    back, of a delete makes `before` again.
    """

    id: str  # "s1", "s2" … in an order that respects `needs`
    action: Action
    key: Key  # in the target
    target: str  # the ARM id, or the data plane's URL path, for people
    region: str = ""  # where the request goes, for the region guard
    source: Key | None = None  # in the snapshot, where it has another key
    old_id: str = ""  # in the snapshot
    before: Resource | None = None
    after: Resource | None = None
    paths: tuple[PathChange, ...] = ()
    needs: tuple[str, ...] = ()  # ids of steps
    serial: str = ""  # steps of one serial group run one at a time
    seconds: float = 1.0  # an estimate
    calls: float = 1.0  # requests, an estimate
    questions: tuple[Question, ...] = ()
    note: str = ""  # why, or what to know, in one line
    work: ModelWork | None = None  # for a fine-tuned model: done by `replicate`

    @property
    def undo(self) -> Action | None:
        """What takes it back, None where nothing does."""
        match self.action:
            case Action.CREATE | Action.COPY:
                return Action.DELETE
            case Action.UPDATE:
                return Action.UPDATE
            case Action.DELETE:
                return Action.CREATE
            case Action.SWITCH:
                return Action.SWITCH
            case Action.REBUILD:
                return Action.DELETE

    @property
    def payloads(self) -> tuple[Payload, ...]:
        """The bytes it needs from the vault."""
        return self.after.payloads if self.after is not None else ()

    def document(self) -> JsonObject:
        """Give it as JSON, whole: `from_document` reads it back."""
        return {
            "id": self.id,
            "action": self.action.value,
            "key": str(self.key),
            "target": self.target,
            "region": self.region,
            "source": str(self.source) if self.source is not None else None,
            "old_id": self.old_id,
            "before": self.before.document() if self.before is not None else None,
            "after": self.after.document() if self.after is not None else None,
            "paths": [_path_document(path) for path in self.paths],
            "needs": list(self.needs),
            "serial": self.serial,
            "seconds": self.seconds,
            "calls": self.calls,
            "questions": [
                {"path": q.path, "what": q.what, "answer": q.answer} for q in self.questions
            ],
            "note": self.note,
            "work": self.work.document() if self.work is not None else None,
        }

    @classmethod
    def from_document(cls, document: abc.Mapping[str, Json]) -> Step:
        """Read back what `document()` wrote. Raises ValueError when it is not one."""
        source = _text(document, "source")
        work = document.get("work")
        before, after = document.get("before"), document.get("after")
        return cls(
            id=_text(document, "id"),
            action=Action(_text(document, "action")),
            key=Key.parse(_text(document, "key")),
            target=_text(document, "target"),
            region=_text(document, "region"),
            source=Key.parse(source) if source else None,
            old_id=_text(document, "old_id"),
            before=Resource.from_document(before) if isinstance(before, dict) else None,
            after=Resource.from_document(after) if isinstance(after, dict) else None,
            paths=tuple(_path_of(item) for item in objects(document, "paths")),
            needs=texts(document, "needs"),
            serial=_text(document, "serial"),
            seconds=_number(document, "seconds"),
            calls=_number(document, "calls"),
            questions=tuple(
                Question(_text(q, "path"), _text(q, "what"), _text(q, "answer"))
                for q in objects(document, "questions")
            ),
            note=_text(document, "note"),
            work=ModelWork.from_document(work) if isinstance(work, dict) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps in order, printable, savable, empty when there is nothing to do."""

    estate: str
    snapshot: str  # id of what is restored
    target: str  # in words: "same", "standby eastus2", a scope
    made_at: datetime
    version: str  # of muster
    mapping: Mapping = field(default_factory=Mapping)
    only: tuple[str, ...] = ()  # keys or globs that were chosen; empty: everything
    prune: bool = False  # whether what the snapshot has not is deleted
    replica: bool = False  # of the snapshot only what its steps say: made by `replicate`
    down: tuple[str, ...] = ()  # regions that were declared down: nothing is sent there
    steps: tuple[Step, ...] = ()
    substitutions: tuple[Substitution, ...] = ()
    not_restorable: tuple[NotRestorable, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    extra: tuple[Key, ...] = ()  # in the target and not in the snapshot: left there
    unknown: tuple[Gap, ...] = ()  # could not be read: nothing is done or deleted there
    critical_path: tuple[str, ...] = ()  # ids of steps
    critical_path_seconds: float = 0.0
    seconds: float = 0.0  # expected, with the threads there are
    calls: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.steps

    def step(self, id_: str) -> Step:
        """Give the step of that id. Raises KeyError."""
        for step in self.steps:
            if step.id == id_:
                return step
        raise KeyError(id_)

    def with_steps(self, steps: abc.Iterable[Step]) -> Plan:
        """Give the same plan with other steps."""
        return replace(self, steps=tuple(steps))

    def document(self) -> JsonObject:
        """Give it as JSON, whole: `from_document` reads it back."""
        return {
            "estate": self.estate,
            "snapshot": self.snapshot,
            "target": self.target,
            "made_at": self.made_at.isoformat(),
            "version": self.version,
            "mapping": self.mapping.document(),
            "only": list(self.only),
            "prune": self.prune,
            "replica": self.replica,
            "down": list(self.down),
            "steps": [step.document() for step in self.steps],
            "substitutions": [
                {
                    "key": str(s.key),
                    "path": s.path,
                    "before": s.before,
                    "after": s.after,
                    "why": s.why,
                }
                for s in self.substitutions
            ],
            "not_restorable": [
                {
                    "key": str(n.key),
                    "recovery": n.recovery.value,
                    "sentence": n.sentence,
                    "source": n.source,
                }
                for n in self.not_restorable
            ],
            "conflicts": [
                {
                    "key": str(c.key),
                    "path": c.path,
                    "keep": c.keep.value,
                    **_sided("baseline", c.baseline),
                    **_sided("live", c.live),
                    **_sided("target", c.target),
                }
                for c in self.conflicts
            ],
            "extra": [str(key) for key in self.extra],
            "unknown": [gap.document() for gap in self.unknown],
            "critical_path": list(self.critical_path),
            "critical_path_seconds": self.critical_path_seconds,
            "seconds": self.seconds,
            "calls": self.calls,
        }

    @classmethod
    def from_document(cls, document: abc.Mapping[str, Json]) -> Plan:
        """Read back what `document()` wrote. Raises ValueError when it is not one."""
        return cls(
            estate=_text(document, "estate"),
            snapshot=_text(document, "snapshot"),
            target=_text(document, "target"),
            made_at=datetime.fromisoformat(_text(document, "made_at")),
            version=_text(document, "version"),
            mapping=Mapping.from_document(_object(document, "mapping")),
            only=texts(document, "only"),
            prune=document.get("prune") is True,
            replica=document.get("replica") is True,
            down=texts(document, "down"),
            steps=tuple(Step.from_document(item) for item in objects(document, "steps")),
            substitutions=tuple(
                Substitution(
                    Key.parse(_text(s, "key")),
                    _text(s, "path"),
                    _text(s, "before"),
                    _text(s, "after"),
                    _text(s, "why"),
                )
                for s in objects(document, "substitutions")
            ),
            not_restorable=tuple(
                NotRestorable(
                    Key.parse(_text(n, "key")),
                    Recovery(_text(n, "recovery")),
                    _text(n, "sentence"),
                    _text(n, "source"),
                )
                for n in objects(document, "not_restorable")
            ),
            conflicts=tuple(
                Conflict(
                    Key.parse(_text(c, "key")),
                    _text(c, "path"),
                    c.get("baseline", MISSING),
                    c.get("live", MISSING),
                    c.get("target", MISSING),
                    Keep(_text(c, "keep")),
                )
                for c in objects(document, "conflicts")
            ),
            extra=tuple(Key.parse(text) for text in texts(document, "extra")),
            unknown=tuple(Gap.from_document(item) for item in objects(document, "unknown")),
            critical_path=texts(document, "critical_path"),
            critical_path_seconds=_number(document, "critical_path_seconds"),
            seconds=_number(document, "seconds"),
            calls=int(_number(document, "calls")),
        )


# ------------------------------------------------------------------------------------ record


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one step ended, or where it stands."""

    step: str
    state: StepState
    at: datetime
    seconds: float = 0.0
    id: str = ""  # the id it has in the target
    principal: str = ""  # of its system-assigned identity, where it has one
    operation: str = ""  # URL of the long operation it started
    error: str = ""  # one line for people: never a secret
    remedy: str = ""
    note: str = ""  # what to know of it although it went well: what an undo left behind

    def document(self) -> JsonObject:
        """Give it as one line of the Record."""
        return {
            "step": self.step,
            "state": self.state.value,
            "at": self.at.isoformat(),
            "seconds": round(self.seconds, 3),
            "id": self.id,
            "principal": self.principal,
            "operation": self.operation,
            "error": self.error,
            "remedy": self.remedy,
            **({"note": self.note} if self.note else {}),
        }

    @classmethod
    def from_document(cls, document: abc.Mapping[str, Json]) -> Outcome:
        """Read back what `document()` wrote. Raises ValueError when it is not one."""
        return cls(
            step=_text(document, "step"),
            state=StepState(_text(document, "state")),
            at=datetime.fromisoformat(_text(document, "at")),
            seconds=_number(document, "seconds"),
            id=_text(document, "id"),
            principal=_text(document, "principal"),
            operation=_text(document, "operation"),
            error=_text(document, "error"),
            remedy=_text(document, "remedy"),
            note=_text(document, "note"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What an applied plan did: every step's outcome, times, ids. Append-only; survives a crash.

    `outcomes` is the whole history, in the order of writing; `state` says where a step stands.
    """

    id: str
    plan: Plan
    started_at: datetime
    outcomes: tuple[Outcome, ...] = ()
    ids: IdMap = field(default_factory=IdMap)
    planned_ids: IdMap = field(default_factory=IdMap)  # in the target when the plan was made
    finished_at: datetime | None = None
    replans: int = 0  # how often the rest was planned anew from what was there
    calls: abc.Mapping[str, int] = field(default_factory=dict)  # requests by kind, of the last run

    def last(self, step: str) -> Outcome | None:
        """Give the newest outcome of a step, None before its first."""
        return next((o for o in reversed(self.outcomes) if o.step == step), None)

    def state(self, step: str) -> StepState:
        """Say where a step stands."""
        last = self.last(step)
        return last.state if last is not None else StepState.WAITING


# --------------------------------------------------------------------------------------- json


def _sided(name: str, value: Json | Missing) -> JsonObject:
    """Leave out a property that is not there: null is a value."""
    return {} if isinstance(value, Missing) else {name: value}


def _path_document(path: PathChange) -> JsonObject:
    return {"path": path.path, **_sided("before", path.before), **_sided("after", path.after)}


def _path_of(document: abc.Mapping[str, Json]) -> PathChange:
    return PathChange(
        _text(document, "path"), document.get("before", MISSING), document.get("after", MISSING)
    )


def _text(document: abc.Mapping[str, Json], name: str) -> str:
    value = document.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        message = f"{name} is not a text"
        raise ValueError(message)
    return value


def _number(document: abc.Mapping[str, Json], name: str) -> float:
    value = document.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        message = f"{name} is not a number"
        raise ValueError(message)
    return float(value)


def _object(document: abc.Mapping[str, Json], name: str) -> JsonObject:
    value = document.get(name, {})
    if not isinstance(value, dict):
        message = f"{name} is not an object"
        raise ValueError(message)
    return value


def _texts_of(document: abc.Mapping[str, Json], name: str) -> dict[str, str]:
    found = _object(document, name)
    if not all(isinstance(value, str) for value in found.values()):
        message = f"{name} does not hold texts"
        raise ValueError(message)
    return {key: value for key, value in found.items() if isinstance(value, str)}


def objects(document: abc.Mapping[str, Json], name: str) -> tuple[JsonObject, ...]:
    """Give the objects of a list in a document. Raises ValueError when it is something else."""
    value = document.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        message = f"{name} is not a list of objects"
        raise ValueError(message)
    return tuple(item for item in value if isinstance(item, dict))


def texts(document: abc.Mapping[str, Json], name: str) -> tuple[str, ...]:
    """Give the texts of a list in a document. Raises ValueError when it is something else."""
    value = document.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        message = f"{name} is not a list of texts"
        raise ValueError(message)
    return tuple(item for item in value if isinstance(item, str))
