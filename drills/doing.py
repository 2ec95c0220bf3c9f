"""Do one step of a drill: what it may leave behind is in the journal before it happens."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Event
from typing import assert_never

import requests

from drills.journal import RunJournal, read_answers
from drills.leavings import (
    ACCOUNTS,
    OwnGroup,
    arm_place,
    run_command,
    same_at,
    text,
    writable,
    write_file,
)
from drills.loss import Loss, expected_at_home, loss_of
from drills.model import (
    ApproveStep,
    DeployStep,
    Drill,
    DrillStep,
    DrillStepState,
    FaultKind,
    FaultStep,
    Mode,
    ParallelStep,
    PathPart,
    Phase,
    RunStep,
    StepOutcome,
    SwitchKind,
    SwitchStep,
    TargetKind,
    Verb,
    VerbStep,
    WaitStep,
)
from drills.verbs import Act, Ask, Equipment, Restored
from snapshots.errors import CloudError, MusterError, NotFoundError, RefusedError
from snapshots.kinds import BY_NAME
from snapshots.kinds.base import Way
from snapshots.mapping import region_of, translate
from snapshots.model import Json, JsonObject, Key, Snapshot
from snapshots.plan import chosen
from snapshots.restore import in_regions
from snapshots.steps import AccountPlace, IdMap, SkuRule
from snapshots.steps import Mapping as Substitutions
from snapshots.writing import Writer

_TICK = 0.2  # seconds between two looks at the stop switch
_KIND = "drill"
_POST_LIMIT = 30.0  # seconds for a webhook


class StoppedError(RefusedError):
    """The stop switch, a signal or the time limit ended the drill."""


@dataclass(slots=True)
class Running:
    """One run while it goes: what its steps share."""

    id: str
    drill: Drill
    mode: Mode
    seed: int
    equipment: Equipment
    journal: RunJournal
    ends: float  # seconds of the clock
    group: OwnGroup | None = None
    ref: str = ""
    keep: bool = False  # --keep: nothing that is built is taken away
    used: tuple[str, bool] | None = None  # which snapshot, and whether of the standby
    source: Snapshot | None = None  # the snapshot in its own names
    expected: Snapshot | None = None  # in the target's names
    mapping: Substitutions = field(default_factory=Substitutions)
    changes: JsonObject = field(default_factory=dict)  # to the Mapping, by steps so far
    regions: tuple[str, ...] = ()  # of the source's accounts that take part; empty: all
    ids: IdMap = field(default_factory=IdMap)
    loss: Loss | None = None  # of a failback: what was written in the standby since
    kept: list[str] = field(default_factory=list)  # what the script says shall stay
    approvals: list[str] = field(default_factory=list)
    faults: int = 0
    questions: int = 0  # that people were asked so far

    @property
    def dry(self) -> bool:
        """Whether nothing may be changed."""
        return self.mode is Mode.DRY_RUN

    def seconds(self) -> float:
        """The clock in seconds."""
        return self.equipment.clock.now().timestamp()

    def look_up(self) -> None:
        """Raise StoppedError when the drill shall end."""
        equipment = self.equipment
        if equipment.stopping.is_set():
            raise StoppedError("the drill was interrupted")
        if equipment.stop_file.exists():
            raise StoppedError(
                "the stop switch is on",
                where=str(equipment.stop_file),
                remedy="remove the file when drills may run again",
            )
        if self.seconds() > self.ends:
            raise StoppedError(
                f"the drill took longer than its limit of {self.drill.limit:.0f} s",
                remedy="raise `limit` in the script, or find what is slow",
            )

    def rest(self, seconds: float) -> None:
        """Let time pass, and notice the stop switch meanwhile."""
        until = self.seconds() + seconds
        while (left := until - self.seconds()) > 0:
            self.look_up()
            self.equipment.clock.sleep(min(left, max(_TICK, seconds / 50)))

    def filled(self, value: Json) -> Json:
        """Put what is known of the run into a script's texts."""
        if isinstance(value, str):
            for name, known in self._words().items():
                value = value.replace("${" + name + "}", known)
            return value
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        if isinstance(value, dict):
            return {name: self.filled(item) for name, item in value.items()}
        return value

    def filled_object(self, value: JsonObject) -> JsonObject:
        """Do the same for an object."""
        found = self.filled(value)
        return found if isinstance(found, dict) else {}

    def word(self, value: str) -> str:
        """Do the same for one text."""
        return str(self.filled(value))

    def _words(self) -> Mapping[str, str]:
        equipment = self.equipment
        return {
            "drill": short(self.id),
            "group": self.group.path if self.group is not None else "",
            "subscription": equipment.subscription,
            "primary": self.primary,
            "standby": self.standby,
            "seed": str(self.seed),
        }

    def own(self) -> OwnGroup:
        """Give the drill's own group. Raises RefusedError without one."""
        if self.group is None:
            raise RefusedError("the drill has no target of its own", remedy="target: isolated")
        return self.group

    # The snapshot --------------------------------------------------------------------------

    def use(self, ref: str, *, back: bool = False) -> Snapshot:
        """Load the drill's snapshot, and put it into the target's names.

        With `back` it is the standby as it is now, in the primary's names.
        """
        wanted = ("", True) if back else (ref or self.ref, False)
        if self.source is None or (self.used != wanted and (ref or back)):
            loaded = self._standby() if back else self.equipment.verbs.load(wanted[0])
            self.used = wanted
            if not back:
                self.ref = wanted[0]
            self.take(loaded)
        assert self.source is not None
        return self.source

    def take(self, snapshot: Snapshot) -> None:
        """Go on with this snapshot: map it, and say what shall be in the target."""
        self.source = snapshot
        self.mapping = self._changed(self._mapping(snapshot), snapshot)
        self.regions = self._regions(snapshot)
        translated = translate(in_regions(snapshot, self.regions), self.mapping).snapshot
        keep = self.drill.scope.only
        self.expected = translated
        if keep:
            resources = {k: r for k, r in translated.resources.items() if chosen(keep, k, None)}
            self.expected = replace(translated, resources=resources)
        self.journal.write(
            {
                "event": "facts",
                "what": {
                    "snapshot": snapshot.id,
                    "taken_at": snapshot.taken_at.isoformat(),
                    "mapping": self.mapping.document(),
                },
            }
        )

    def change(self, changes: JsonObject) -> None:
        """Change the Mapping from here on, as a step says."""
        if changes:
            self.changes = {**self.changes, **changes}
            if self.source is not None:
                self.take(self.source)

    def _changed(self, mapping: Substitutions, snapshot: Snapshot) -> Substitutions:
        if not self.changes:
            return mapping
        document = mapping.document()
        for name, value in self.changes.items():
            known = document.get(name)
            if name == "accounts" and isinstance(known, dict) and isinstance(value, dict):
                places = {k.lower(): v for k, v in known.items()}
                for account, place in value.items():
                    places[account.lower()] = {
                        **_object(places.get(account.lower())),
                        **_object(place),
                    }
                document[name] = places
            elif isinstance(known, dict) and isinstance(value, dict):
                document[name] = {**known, **value}
            elif isinstance(known, list) and isinstance(value, list):
                document[name] = [*known, *value]  # of two rules for one name the last one counts
        try:
            changed = Substitutions.from_document(document)
        except ValueError as error:
            raise RefusedError(f"the change of the mapping cannot be read: {error}") from error
        units = self.changes.get("units")
        return _sized(changed, snapshot, units) if isinstance(units, int) else changed

    def _regions(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Say which accounts take part: what belongs to a whole subscription stays where it is."""
        match self.drill.target:
            case TargetKind.STANDBY:
                return (self.primary,) if self.primary else ()
            case TargetKind.ISOLATED:
                accounts = [r for k, r in snapshot.resources.items() if k.kind == "account"]
                return tuple(sorted({region_of(account) for account in accounts}))
            case TargetKind.SAME:
                back = self.used is not None and self.used[1]
                return (self.standby,) if back and self.standby else ()
            case TargetKind.NONE:
                return ()

    @property
    def primary(self) -> str:
        """The primary region."""
        return self.drill.scope.primary or self.equipment.primary

    @property
    def standby(self) -> str:
        """The standby region."""
        return self.drill.scope.standby or self.equipment.standby

    def _mapping(self, snapshot: Snapshot) -> Substitutions:
        if self.used is not None and self.used[1]:
            return inverse_of(self.equipment.verbs.load(self.ref), self.equipment.mapping)
        match self.drill.target:
            case TargetKind.STANDBY:
                return self.equipment.mapping
            case TargetKind.ISOLATED:
                group = self.own()
                accounts: dict[str, AccountPlace] = {}
                subscriptions: dict[str, str] = {}
                groups: dict[str, str] = {}
                for key in snapshot.resources:
                    if key.kind == "account":
                        name = f"{key.name[:50]}-{short(self.id)}"
                        accounts[key.name] = AccountPlace(
                            name, group.name, group.subscription, name
                        )
                    if len(key.path) > 1 and "/" not in key.path[1]:
                        groups[key.path[1]] = group.name
                    subscriptions[key.subscription] = group.subscription
                pair = self.equipment.mapping
                moved = Substitutions(
                    subscriptions=subscriptions, resource_groups=groups, accounts=accounts
                )
                if not self.drill.forced:
                    return moved
                # The primary is not to be called: everything is made in the standby region.
                return replace(moved, regions=pair.regions, skus=pair.skus, versions=pair.versions)
            case TargetKind.SAME | TargetKind.NONE:
                return Substitutions()

    def _standby(self) -> Snapshot:
        """Read the standby as it is now."""
        expected = translate(
            in_regions(self.equipment.verbs.load(self.ref), (self.primary,)),
            self.equipment.mapping,
        ).snapshot
        return self.equipment.verbs.look(groups_of(expected))

    def live(self) -> Snapshot:
        """Read the target now."""
        verbs = self.equipment.verbs
        if self.group is not None:
            return verbs.look({self.group.subscription: [self.group.name]})
        groups = groups_of(self.expected) if self.expected is not None else {}
        return verbs.look(groups) if groups else verbs.load("live")


def groups_of(snapshot: Snapshot) -> dict[str, list[str]]:
    """Give the resource groups that a snapshot's resources lie in, by subscription."""
    found: dict[str, set[str]] = {}
    for key in snapshot.resources:
        if len(key.path) > 1 and "/" not in key.path[1]:
            found.setdefault(key.path[0], set()).add(key.path[1])
    return {name: sorted(groups) for name, groups in sorted(found.items())}


def _sized(mapping: Substitutions, snapshot: Snapshot, units: int) -> Substitutions:
    """Give every deployment the same small size: a drill serves nobody, and quota is scarce.

    Provisioned units are billed by the hour, used or not: a copy of them is a global standard one.
    """
    known = {rule.of.lower(): rule for rule in mapping.skus}
    rules = list(mapping.skus)
    for key, resource in sorted(snapshot.resources.items()):
        sku = resource.body.get("sku") if key.kind == "deployment" else None
        if not isinstance(sku, dict):
            continue
        rule = known.get(key.name.lower()) or known.get(text(sku, "name").lower())
        name = rule.name if rule is not None and rule.name else text(sku, "name")
        rules.append(SkuRule(key.name, "GlobalStandard" if "Provisioned" in name else name, units))
    return replace(mapping, skus=tuple(rules))


def inverse_of(snapshot: Snapshot, mapping: Substitutions) -> Substitutions:
    """Give the Mapping that leads back: the standby's names and sizes into those of `snapshot`."""
    there = in_regions(snapshot, tuple(mapping.regions))
    keys = translate(there, mapping).keys
    accounts: dict[str, AccountPlace] = {}
    skus: list[SkuRule] = []
    for key, to in sorted(keys.items()):
        body = snapshot.resources[key].body
        if key.kind == "account":
            name = body.get("name")
            properties = body.get("properties")
            domain = text(properties, "customSubDomainName") if isinstance(properties, dict) else ""
            spelled = name if isinstance(name, str) and name else key.name
            accounts[to.name] = AccountPlace(spelled, key.path[1], key.path[0], domain)
        sku = body.get("sku") if key.kind == "deployment" else None
        if isinstance(sku, dict):
            capacity = sku.get("capacity")
            count = capacity if isinstance(capacity, int) else None
            skus.append(SkuRule(to.name, text(sku, "name"), count))

    def turned(table: Mapping[str, str]) -> dict[str, str]:
        return {to: name for name, to in sorted(table.items(), reverse=True)}

    return Substitutions(
        subscriptions=turned(mapping.subscriptions),
        regions=turned(mapping.regions),
        resource_groups=turned(mapping.resource_groups),
        accounts=accounts,
        skus=tuple(skus),
        hosts=turned(mapping.hosts),
        keys=turned(mapping.keys),
        resources=turned(mapping.resources),
    )


def short(id_: str) -> str:
    """Give the part of a run's id that fits into names of resources."""
    return id_.rsplit("-", 1)[-1]


def kind_of(step: DrillStep) -> str:
    """What evidence calls a step."""
    match step:
        case VerbStep():
            return f"verb:{step.verb}"
        case FaultStep():
            return f"fault:{step.fault}"
        case SwitchStep():
            return f"switch:{step.switch}"
        case DeployStep():
            return "deploy"
        case WaitStep():
            return "wait"
        case ApproveStep():
            return "approve"
        case RunStep():
            return "run"
        case ParallelStep():
            return "parallel"
        case _:
            assert_never(step)


def skipped(step: DrillStep, why: str) -> StepOutcome:
    """Say that a step was not done."""
    inner = step.steps if isinstance(step, ParallelStep) else ()
    return StepOutcome(
        name=step.name,
        kind=kind_of(step),
        state=DrillStepState.SKIPPED,
        phase=step.phase,
        detail=why,
        steps=tuple(skipped(s, why) for s in inner),
    )


def do(step: DrillStep, running: Running) -> StepOutcome:
    """Do one step. Its failure is an outcome; StoppedError and KeyboardInterrupt leave."""
    running.look_up()
    clock, calls = running.equipment.clock, running.equipment.cloud.calls
    started, before = clock.now(), calls.snapshot().made
    outcome = StepOutcome(
        name=step.name,
        kind=kind_of(step),
        state=DrillStepState.DONE,
        phase=step.phase,
        started_at=started,
        inputs=_inputs(step, running),
    )
    try:
        outcome = _outcome(step, running, outcome)
    except StoppedError:
        raise
    except MusterError as error:
        outcome = replace(outcome, state=DrillStepState.FAILED, detail=_told(error))
    except OSError as error:
        detail = f"{type(error).__name__}: {error.strerror or 'failed'}"
        outcome = replace(outcome, state=DrillStepState.FAILED, detail=detail)
    if isinstance(step, VerbStep) and step.fails:
        outcome = _refused(step, outcome)
    return replace(
        outcome,
        seconds=(clock.now() - started).total_seconds(),
        calls=calls.snapshot().made - before,
    )


def _told(error: MusterError) -> str:
    """Say what happened, and to what: a step's line is all that somebody may see of it."""
    return f"{error.what} ({error.where})" if error.where else error.what


def _refused(step: VerbStep, outcome: StepOutcome) -> StepOutcome:
    """Turn a step that must fail round: it is done when it failed for the reason that was named."""
    if outcome.state is DrillStepState.SKIPPED:
        return outcome
    if outcome.state is not DrillStepState.FAILED:
        words = f"it should have failed ({step.fails}), and did not"
        return replace(outcome, state=DrillStepState.FAILED, detail=words)
    if step.fails.lower() not in outcome.detail.lower():
        words = f"it failed for another reason than {step.fails!r}: {outcome.detail}"
        return replace(outcome, detail=words)
    words = f"it failed, as it must: {outcome.detail}"
    return replace(outcome, state=DrillStepState.DONE, detail=words)


def _outcome(step: DrillStep, running: Running, outcome: StepOutcome) -> StepOutcome:
    breaks = isinstance(step, FaultStep | VerbStep) and step.if_sandbox
    if breaks and running.equipment.faults is None:
        return replace(outcome, state=DrillStepState.SKIPPED, detail="left out: no sandbox")
    if running.dry and not _read_only(step):
        return replace(outcome, state=DrillStepState.SKIPPED, detail=_preview(step, running))
    match step:
        case VerbStep():
            return _verb(step, running, outcome)
        case FaultStep():
            return replace(outcome, detail=_fault(step, running))
        case SwitchStep():
            return replace(outcome, detail=_SWITCHES[step.switch](step, running))
        case DeployStep():
            return replace(outcome, detail=_deploy(step, running))
        case WaitStep():
            running.rest(step.seconds)
            return outcome
        case ApproveStep():
            return _approve(step, running, outcome)
        case RunStep():
            return replace(outcome, detail=_run(step, running))
        case ParallelStep():
            return _parallel(step, running, outcome)
        case _:
            assert_never(step)


def _read_only(step: DrillStep) -> bool:
    match step:
        case VerbStep():
            return step.verb in (Verb.SNAPSHOT, Verb.RECONSTRUCT, Verb.PLAN)
        case RunStep():
            return step.read_only
        case _:
            return False


def _preview(step: DrillStep, running: Running) -> str:
    """Say what a dry run can find out about a step without doing it."""
    if not isinstance(step, VerbStep) or running.drill.target is TargetKind.ISOLATED:
        return "a dry run does not do it"
    if step.verb is Verb.RESTORE:
        return f"planned: {_planned(step, running).detail}"
    if step.verb is Verb.REPLICATE:
        return f"planned: {running.equipment.verbs.replicate(act=None).detail}"
    return "a dry run does not do it"


def _inputs(step: DrillStep, running: Running) -> JsonObject:
    """What evidence says a step was given. Bodies are told by digest: they may hold anything."""
    match step:
        case VerbStep():
            found: JsonObject = {
                "only": list(step.only),
                "snapshot": step.snapshot or running.ref,
                "prune": step.prune,
                "keep": step.keep or running.drill.keep,
                "back": step.back,
                "map": step.changes,
            }
            if step.if_sandbox and running.equipment.faults is None:
                found["if_sandbox"] = True
            return {**found, "fails": step.fails} if step.fails else found
        case FaultStep():
            given: JsonObject = {
                "only": list(step.only),
                "region": running.word(step.region),
                "rule": running.filled(step.rule),
                "call": step.call,
                "body": running.filled(step.body),
            }
            left_out = step.if_sandbox and running.equipment.faults is None
            return {**given, "if_sandbox": True} if left_out else given
        case SwitchStep():
            return {"resource": running.word(step.resource), "path": step.path, "keep": step.keep}
        case DeployStep():
            return {"path": running.word(step.path), "api_version": step.api_version}
        case WaitStep():
            return {"seconds": step.seconds}
        case ApproveStep():
            return {
                "question": running.word(step.question),
                "approvers": list(running.drill.approvers),
                "people": step.people,
                "within": step.within,
            }
        case RunStep():
            words = "\0".join(step.command).encode()
            return {
                "program": step.command[0],
                "command_sha256": hashlib.sha256(words).hexdigest(),
                "limit": step.limit,
            }
        case ParallelStep():
            return {"steps": len(step.steps)}
        case _:
            assert_never(step)


def _verb(step: VerbStep, running: Running, outcome: StepOutcome) -> StepOutcome:
    verbs = running.equipment.verbs
    running.change(running.filled_object(step.changes))
    match step.verb:
        case Verb.SNAPSHOT:
            taken = running.use(step.snapshot or "live")
            if taken.gaps:
                raise NotFoundError(f"the snapshot has {len(taken.gaps)} gaps")
            return replace(outcome, detail=f"{len(taken.resources)} resources")
        case Verb.PLAN:
            planned = _planned(step, running)
            return replace(outcome, detail=planned.detail, found=planned.found)
        case Verb.RESTORE:
            act = _act(step, running)
            if step.back:
                return _brought(step, running, outcome, _homeward(step, running, act))
            restored = verbs.restore(_ask(step, running), act=act)
            return _brought(step, running, outcome, restored)
        case Verb.REPLICATE:
            return _brought(step, running, outcome, verbs.replicate(act=_act(step, running)))
        case Verb.RECONSTRUCT:
            found = verbs.reconstruct(step.snapshot)
            running.used = (step.snapshot, False)
            running.take(found.snapshot)
            if found.missing:
                raise NotFoundError(
                    f"{len(found.missing)} payloads are missing from the vault or damaged"
                )
            count = len(found.snapshot.resources)
            words = f"{count} resources and {len(found.payloads)} payloads from {found.bundle}"
            return replace(outcome, detail=words)
        case Verb.RECOVER:
            return replace(outcome, detail=_recover(running))
        case _:
            assert_never(step.verb)


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _ask(step: VerbStep, running: Running) -> Ask:
    source = running.use(step.snapshot, back=step.back)
    return Ask(
        snapshot=source,
        mapping=running.mapping,
        only=step.only or running.drill.scope.only,
        regions=running.regions,
        prune=step.prune,
        # What is made for the drill alone needs no real secret, and gets one only where it is set.
        placeholders=running.drill.target is TargetKind.ISOLATED,
    )


def _homeward(step: VerbStep, running: Running, act: Act | None) -> Restored:
    """Bring home what was written in the standby since the snapshot, and nothing else.

    What the Mapping made otherwise there (a version, a size, a store without its lost file) is no
    reason to write into the primary. Without `act`, only say it: the loss statement.
    """
    verbs = running.equipment.verbs
    ask = _ask(step, running)
    if running.loss is None:
        newest = verbs.load(running.ref)
        loss = loss_of(newest, ask.snapshot, running.equipment.mapping)
        if ask.only:
            loss = Loss(tuple(w for w in loss.written if chosen(ask.only, w.key, None)))
        running.loss = loss
        running.expected = expected_at_home(
            newest, ask.snapshot, loss, running.mapping, running.primary
        )
    loss = running.loss
    statement = loss.document()
    if not loss.home:
        return Restored(steps=0, detail=loss.words(), found=statement)
    ask = replace(ask, only=tuple(str(key) for key in loss.home))
    restored = verbs.restore(ask, act=act)
    words = f"{loss.words()}; {restored.detail}"
    return replace(restored, detail=words, found={**restored.found, **statement})


def _planned(step: VerbStep, running: Running) -> Restored:
    if step.back:
        return _homeward(step, running, None)
    return running.equipment.verbs.restore(_ask(step, running), act=None)


def _act(step: VerbStep, running: Running) -> Act:
    """Give leave to change something: what takes it back is in the journal before it happens."""
    stop = Event()
    stays = step.keep or running.drill.keep

    def leave(item: JsonObject) -> None:
        if stays:
            running.kept.append(f"{step.name}: {text(item, 'record') or text(item, 'account')}")
            running.journal.write({"event": "kept", "what": running.kept[-1]})
        else:
            running.journal.write({"event": "undo", "what": item})

    def tell(words: str) -> None:
        try:
            running.look_up()
        except StoppedError:
            stop.set()
        if words:
            running.equipment.tell(f"  {words}")

    return Act(leave=leave, stop=stop, tell=tell)


def _brought(
    step: VerbStep, running: Running, outcome: StepOutcome, restored: Restored
) -> StepOutcome:
    """Take a restore or a replication in: what differs still is a failure of the step."""
    running.look_up()  # it may have been stopped half way
    if step.verb is Verb.RESTORE:
        running.ids = restored.ids
    return brought(outcome, restored)


def brought(outcome: StepOutcome, restored: Restored) -> StepOutcome:
    """Give the outcome of a step that restored: what differs still is its failure."""
    outcome = replace(outcome, detail=restored.detail, found=restored.found)
    if not restored.remaining:
        return outcome
    names = ", ".join(restored.remaining[:3])
    more = f" and {len(restored.remaining) - 3} more" if len(restored.remaining) > 3 else ""
    words = f"{len(restored.remaining)} changes are left: {names}{more} ({restored.detail})"
    return replace(outcome, state=DrillStepState.FAILED, detail=words)


def _recover(running: Running) -> str:
    """Take back every soft-deleted account of the drill's own group."""
    group, cloud = running.own(), running.equipment.cloud
    gone = group.deleted(running.equipment)
    if not gone:
        raise NotFoundError("no soft-deleted account of this drill is there to be taken back")
    for account in gone:
        path = f"{group.path}/providers/Microsoft.CognitiveServices/accounts/"
        body: JsonObject = {n: account[n] for n in ("location", "kind", "sku") if n in account}
        # properties.restore: learn.microsoft.com/azure/ai-services/recover-purge-resources
        body["properties"] = {"restore": True}
        name = text(account, "name")
        cloud.put(group.place(), path + name, body, params=ACCOUNTS, kind=_KIND)
    return f"{len(gone)} accounts taken back"


def _fault(step: FaultStep, running: Running) -> str:
    if step.fault is FaultKind.DELETE:
        return _delete(step, running)
    faults = running.equipment.faults
    if faults is None:
        raise RefusedError(f"fault {step.fault} works in a sandbox only, and this is none")
    if step.fault is FaultKind.CLOCK:
        faults.advance(step.seconds)
        return f"the sandbox's clock moved {step.seconds:.0f} s"
    if step.fault is FaultKind.CONTROL:
        mend: JsonObject = {"undo": "control", "call": step.call, "body": running.filled(step.undo)}
        running.journal.write({"event": "undo", "what": mend})
        faults.control(step.call, _object(running.filled(step.body)))
        return f"the sandbox took {step.call}"
    running.faults += 1
    id_ = f"{running.id}-{running.faults}"
    rule: Json = dict(step.rule)
    if step.fault is FaultKind.REGION_DOWN:
        rule = {"kind": "outage", "region": step.region, "mode": "refused"}
        region = running.word(step.region)
        if running.drill.forced:
            running.equipment.cloud.regions.declare_down(region, f"drill {running.id}")
    filled = running.filled(rule)
    running.journal.write({"event": "undo", "what": {"undo": "fault", "id": id_}})
    faults.add({**(filled if isinstance(filled, dict) else {}), "id": id_})
    return f"fault {id_}"


def _delete(step: FaultStep, running: Running) -> str:
    group = running.own()
    found = running.equipment.verbs.look({group.subscription: [group.name]})
    # Azure's own policies (Microsoft.Default…) belong to every account, and nobody can delete them.
    hit = [
        k
        for k in sorted(found.resources)
        if chosen(step.only, k, None) and not k.name.lower().startswith("microsoft.")
    ]
    if not hit:
        raise NotFoundError(f"nothing in the target is called {', '.join(step.only)}")
    left = [key for key in reversed(hit) if _deletable(key)]
    writer = Writer(
        running.equipment.cloud,
        running.equipment.vault,
        running.equipment.clock,
        IdMap,
        lambda _account: group.region,
    )
    while left:  # what another one needs goes after it
        refused: list[Key] = []
        for key in left:
            try:
                writer.delete(found.resources[key], found.resources[key].id)
            except CloudError as error:
                if error.status not in (400, 409) or len(refused) + 1 == len(left):
                    raise
                refused.append(key)
        left = refused
    return "deleted " + ", ".join(str(k) for k in hit)


def _deletable(key: Key) -> bool:
    if BY_NAME[key.kind].way is Way.NEVER or key.kind == "resource-group":
        raise RefusedError(f"a drill does not delete a {key.kind}")
    return True


def _switch_patch(step: SwitchStep, running: Running) -> str:
    path, cloud = running.word(step.resource), running.equipment.cloud
    version, place = {"api-version": step.api_version}, arm_place(path)
    body = running.filled(step.body)
    before = cloud.get(place, path, params=version, kind=_KIND).body
    if not isinstance(before, dict) or not isinstance(body, dict):
        raise RefusedError(f"{path} is no resource that can be switched")
    if not step.keep:
        undo: JsonObject = {
            "undo": "patch",
            "resource": path,
            "api_version": step.api_version,
            "before": before,
            "touched": body,
        }
        running.journal.write({"event": "undo", "what": undo})
    try:
        cloud.patch(place, path, body, params=version, kind=_KIND)
    except CloudError as error:
        if error.status not in (404, 405, 501):
            raise
        cloud.put(place, path, merged(writable(before), body), params=version, kind=_KIND)
    now = cloud.get(place, path, params=version, kind=_KIND).body
    if not same_at(now, body, body):
        raise RefusedError(f"{path} did not take the switch")
    return "switched: " + ", ".join(sorted(body))


def merged(before: Json, change: Json) -> Json:
    """Merge as RFC 7396 says."""
    if not isinstance(change, dict):
        return change
    out = dict(before) if isinstance(before, dict) else {}
    for name, value in change.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = merged(out.get(name), value)
    return out


def _switch_webhook(step: SwitchStep, running: Running) -> str:
    if running.mode is Mode.REHEARSAL:
        return "a rehearsal calls nobody"
    try:
        answer = requests.post(
            step.url, json=running.filled(step.body), timeout=_POST_LIMIT, allow_redirects=False
        )
    except requests.RequestException as error:
        raise RefusedError(f"the webhook did not answer: {type(error).__name__}") from None
    if answer.status_code >= 300:
        raise RefusedError(f"the webhook answered {answer.status_code}")
    return f"answered {answer.status_code}"


def _switch_file(step: SwitchStep, running: Running) -> str:
    path = running.equipment.home / step.path
    if not path.resolve().is_relative_to(running.equipment.home.resolve()):
        raise RefusedError(f"{step.path} leads out of the configuration's folder")
    before = path.read_bytes() if path.exists() else None
    if not step.keep:
        undo: JsonObject = {
            "undo": "file",
            "path": str(path),
            "content": base64.b64encode(before).decode() if before is not None else None,
        }
        running.journal.write({"event": "undo", "what": undo})
    write_file(path, running.word(step.content).encode())
    return f"wrote {step.path}"


_SWITCHES: Mapping[SwitchKind, Callable[[SwitchStep, Running], str]] = {
    SwitchKind.PATCH: _switch_patch,
    SwitchKind.WEBHOOK: _switch_webhook,
    SwitchKind.FILE: _switch_file,
}


def _deploy(step: DeployStep, running: Running) -> str:
    group = running.own()
    path = f"{group.path}/{running.word(step.path)}"
    body = running.filled(step.body)
    params = {"api-version": step.api_version}
    running.equipment.cloud.put(group.place(), path, body, params=params, kind=_KIND)
    return path


def _approve(step: ApproveStep, running: Running, outcome: StepOutcome) -> StepOutcome:
    if running.mode is Mode.REHEARSAL:
        return replace(outcome, detail="a rehearsal asks nobody", approver="rehearsal")
    approver = running.equipment.approver
    names: list[str] = []

    def said_yes(who: str) -> None:
        names.append(who)
        running.approvals.append(f"{who}: {running.word(step.question)}")
        running.journal.write({"event": "approval", "what": running.approvals[-1]})

    if approver is not None and (approver.name or not step.within):
        said_yes(approver.ask(running.word(step.question), running.drill.approvers))
    elif not step.within:
        raise RefusedError("nobody is there to approve")
    if len(names) < step.people:
        _wait_for_people(step, running, names, said_yes)
    return replace(outcome, approver=", ".join(names), detail=f"{' and '.join(names)} said yes")


def _wait_for_people(
    step: ApproveStep, running: Running, names: list[str], said_yes: Callable[[str], None]
) -> None:
    """Wait for `muster drill approve`. Raises RefusedError for a no, and when time is up."""
    until = running.seconds() + step.within
    running.questions += 1
    number = running.questions
    asked: JsonObject = {
        "question": running.word(step.question),
        "people": step.people,
        "number": number,
    }
    running.journal.write({"event": "facts", "what": {"asked": asked}})
    running.equipment.tell(
        f"waiting up to {step.within:.0f} s for {step.people - len(names)} of "
        f"{', '.join(running.drill.approvers) or 'anybody'}: "
        f"muster drill approve {running.id} --approver NAME"
    )
    while len(names) < step.people:
        running.look_up()
        for answer in read_answers(running.journal.path):
            # A yes to an earlier question is none to this one.
            if answer.get("question") != number:
                continue
            who, yes = text(answer, "who"), answer.get("yes") is True
            if running.drill.approvers and who not in running.drill.approvers:
                continue
            if not yes:
                raise RefusedError(f"{who} did not say yes")
            if who not in names:
                said_yes(who)
        if len(names) < step.people:
            if running.seconds() >= until:
                raise RefusedError(
                    f"{len(names)} of {step.people} people approved within {step.within:.0f} s",
                    remedy="ask them before the drill, or raise `within`",
                )
            running.equipment.clock.sleep(_TICK)
    running.journal.write({"event": "facts", "what": {"asked": {}}})


def _run(step: RunStep, running: Running) -> str:
    command = [running.word(word) for word in step.command]
    if step.undo:
        undo: JsonObject = {
            "undo": "run",
            "command": [running.word(word) for word in step.undo],
            "limit": step.limit,
        }
        running.journal.write({"event": "undo", "what": undo})
    code, detail = run_command(command, step.limit, running.equipment.home)
    if code != 0:
        raise RefusedError(f"{command[0]}: {detail}")
    return detail


def _parallel(step: ParallelStep, running: Running, outcome: StepOutcome) -> StepOutcome:
    with ThreadPoolExecutor(len(step.steps), thread_name_prefix="drill") as pool:
        futures = [pool.submit(do, inner, running) for inner in step.steps]
        try:
            done = [future.result() for future in futures]
        except BaseException:
            running.equipment.stopping.set()
            raise
    bad = [inner.name for inner in done if inner.state is DrillStepState.FAILED]
    longest = max(range(len(done)), key=lambda at: done[at].seconds)
    inner = tuple(replace(o, critical=at == longest) for at, o in enumerate(done))
    if bad:
        return replace(
            outcome,
            state=DrillStepState.FAILED,
            steps=inner,
            detail=f"failed: {', '.join(bad)}",
        )
    return replace(outcome, steps=inner)


def phases_of(
    outcomes: Sequence[StepOutcome], begun: float, validated: float | None
) -> dict[Phase, float]:
    """Give when each phase was reached, in seconds after the loss."""
    found: dict[Phase, float] = {}
    for outcome in outcomes:
        for one in (outcome, *outcome.steps):
            done = one.state is DrillStepState.DONE and one.started_at is not None
            if one.phase is not None and done and one.started_at is not None:
                at = one.started_at.timestamp() + one.seconds - begun
                found[one.phase] = max(found.get(one.phase, 0.0), round(max(at, 0.0), 3))
    if validated is not None:
        found[Phase.VALIDATED] = max(
            found.get(Phase.VALIDATED, 0.0), round(max(validated - begun, 0.0), 3)
        )
    return found


def path_of(outcomes: Sequence[StepOutcome], begun: float) -> tuple[PathPart, ...]:
    """Give the critical path: each step from the loss on, of a parallel group its slowest."""
    found: list[PathPart] = []
    for outcome in outcomes:
        inner = next((one for one in outcome.steps if one.critical), None)
        one = inner or outcome
        if one.started_at is not None and one.state is DrillStepState.DONE and outcome.critical:
            begins = one.started_at.timestamp() - begun
            if begins + one.seconds <= 0:
                continue  # before the loss: preparation, and the loss itself
            found.append(
                PathPart(
                    name=one.name,
                    phase=one.phase,
                    begins=round(max(begins, 0.0), 3),
                    ends=round(begins + one.seconds, 3),
                )
            )
    return tuple(found)
