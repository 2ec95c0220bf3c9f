"""Do one step of a drill: what it may leave behind is in the journal before it happens."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import assert_never

import requests

from drills.journal import RunJournal
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
from drills.verbs import Equipment
from snapshots.cloud.place import Plane
from snapshots.errors import CloudError, MusterError, NotFoundError, RefusedError
from snapshots.kinds import BY_NAME
from snapshots.mapping import translate
from snapshots.model import Json, JsonObject, Key, Snapshot
from snapshots.plan import chosen
from snapshots.steps import AccountPlace, IdMap
from snapshots.steps import Mapping as Substitutions

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
    source: Snapshot | None = None  # the snapshot in its own names
    expected: Snapshot | None = None  # in the target's names
    mapping: Substitutions = field(default_factory=Substitutions)
    ids: IdMap = field(default_factory=IdMap)
    approvals: list[str] = field(default_factory=list)
    faults: int = 0

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

    def word(self, value: str) -> str:
        """Do the same for one text."""
        return str(self.filled(value))

    def _words(self) -> Mapping[str, str]:
        equipment = self.equipment
        return {
            "drill": short(self.id),
            "group": self.group.path if self.group is not None else "",
            "subscription": equipment.subscription,
            "primary": self.drill.scope.primary or equipment.primary,
            "standby": self.drill.scope.standby or equipment.standby,
            "seed": str(self.seed),
        }

    def own(self) -> OwnGroup:
        """Give the drill's own group. Raises RefusedError without one."""
        if self.group is None:
            raise RefusedError("the drill has no target of its own", remedy="target: isolated")
        return self.group

    # The snapshot --------------------------------------------------------------------------

    def use(self, ref: str) -> Snapshot:
        """Load the drill's snapshot, and put it into the target's names."""
        wanted = ref or self.ref
        if self.source is None or (ref and ref != self.ref):
            self.source = self.equipment.verbs.load(wanted)
            self.ref = ref or self.ref
            self.mapping = self._mapping(self.source)
            translated = translate(self.source, self.mapping).snapshot
            keep = self.drill.scope.only
            if keep:
                self.expected = replace(
                    translated,
                    resources={
                        k: r for k, r in translated.resources.items() if chosen(keep, k, None)
                    },
                )
            else:
                self.expected = translated
            self.journal.write(
                {
                    "event": "facts",
                    "what": {
                        "snapshot": self.source.id,
                        "taken_at": self.source.taken_at.isoformat(),
                        "mapping": self.mapping.document(),
                    },
                }
            )
        return self.source

    def _mapping(self, snapshot: Snapshot) -> Substitutions:
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
                return Substitutions(
                    subscriptions=subscriptions, resource_groups=groups, accounts=accounts
                )
            case TargetKind.SAME | TargetKind.NONE:
                return Substitutions()

    def live(self) -> Snapshot:
        """Read the target now."""
        verbs = self.equipment.verbs
        if self.group is not None:
            return verbs.look(self.group.subscription, [self.group.name])
        if self.expected is not None:
            groups: dict[str, set[str]] = {}
            for key in self.expected.resources:
                if len(key.path) > 1 and "/" not in key.path[1]:
                    groups.setdefault(key.path[0], set()).add(key.path[1])
            first = next(iter(sorted(groups.items())), None)
            if first is not None and len(groups) == 1:
                return verbs.look(first[0], sorted(first[1]))
        return verbs.load("live")


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
        outcome = replace(outcome, state=DrillStepState.FAILED, detail=error.what)
    except OSError as error:
        detail = f"{type(error).__name__}: {error.strerror or 'failed'}"
        outcome = replace(outcome, state=DrillStepState.FAILED, detail=detail)
    return replace(
        outcome,
        seconds=(clock.now() - started).total_seconds(),
        calls=calls.snapshot().made - before,
    )


def _outcome(step: DrillStep, running: Running, outcome: StepOutcome) -> StepOutcome:
    if running.dry and not _read_only(step):
        return replace(outcome, state=DrillStepState.SKIPPED, detail=_preview(step, running))
    match step:
        case VerbStep():
            return replace(outcome, detail=_verb(step, running))
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
            return step.verb in (Verb.SNAPSHOT, Verb.RECONSTRUCT)
        case RunStep():
            return step.read_only
        case _:
            return False


def _preview(step: DrillStep, running: Running) -> str:
    """Say what a dry run can find out about a step without doing it."""
    verbs = running.equipment.verbs
    if not isinstance(step, VerbStep) or running.drill.target is TargetKind.ISOLATED:
        return "a dry run does not do it"
    if step.verb is Verb.RESTORE:
        source = running.use(step.snapshot)
        only = step.only or running.drill.scope.only
        return "planned: " + verbs.restore(source, running.mapping, only, dry=True).detail
    if step.verb is Verb.REPLICATE:
        return "planned: " + verbs.replicate(dry=True).detail
    return "a dry run does not do it"


def _inputs(step: DrillStep, running: Running) -> JsonObject:
    """What evidence says a step was given. Bodies are told by digest: they may hold anything."""
    match step:
        case VerbStep():
            return {"only": list(step.only), "snapshot": step.snapshot or running.ref}
        case FaultStep():
            return {"only": list(step.only), "region": step.region, "rule": step.rule}
        case SwitchStep():
            return {"resource": running.word(step.resource), "path": step.path, "keep": step.keep}
        case DeployStep():
            return {"path": running.word(step.path), "api_version": step.api_version}
        case WaitStep():
            return {"seconds": step.seconds}
        case ApproveStep():
            return {"question": step.question, "approvers": list(running.drill.approvers)}
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


def _verb(step: VerbStep, running: Running) -> str:
    verbs = running.equipment.verbs
    match step.verb:
        case Verb.SNAPSHOT:
            taken = running.use(step.snapshot or "live")
            if taken.gaps:
                raise NotFoundError(f"the snapshot has {len(taken.gaps)} gaps")
            return f"{len(taken.resources)} resources"
        case Verb.RESTORE:
            source = running.use(step.snapshot)
            only = step.only or running.drill.scope.only
            restored = verbs.restore(source, running.mapping, only, dry=False)
            running.ids = restored.ids
            return restored.detail
        case Verb.REPLICATE:
            return verbs.replicate(dry=False).detail
        case Verb.RECONSTRUCT:
            found = verbs.reconstruct()
            running.source = found.snapshot
            if found.missing:
                raise NotFoundError(
                    f"{len(found.missing)} payloads are missing from the vault or damaged"
                )
            count = len(found.snapshot.resources)
            return f"{count} resources and {len(found.payloads)} payloads from {found.bundle}"
        case Verb.RECOVER:
            return _recover(running)
        case _:
            assert_never(step.verb)


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
    group, cloud = running.own(), running.equipment.cloud
    found = running.equipment.verbs.look(group.subscription, [group.name])
    # Azure's own policies (Microsoft.Default…) belong to every account, and nobody can delete them.
    hit = [
        k
        for k in sorted(found.resources)
        if chosen(step.only, k, None) and not k.name.lower().startswith("microsoft.")
    ]
    if not hit:
        raise NotFoundError(f"nothing in the target is called {', '.join(step.only)}")
    left = [key for key in reversed(hit) if _deletable(key)]
    while left:  # what another one needs goes after it
        refused: list[Key] = []
        for key in left:
            params = {"api-version": BY_NAME[key.kind].api_version}
            try:
                cloud.delete(group.place(), found.resources[key].id, params=params, kind=_KIND)
            except CloudError as error:
                if error.status not in (400, 409) or len(refused) + 1 == len(left):
                    raise
                refused.append(key)
        left = refused
    return "deleted " + ", ".join(str(k) for k in hit)


def _deletable(key: Key) -> bool:
    if BY_NAME[key.kind].plane is not Plane.ARM or key.kind == "resource-group":
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
    if approver is None:
        raise RefusedError("nobody is there to approve")
    who = approver.ask(step.question, running.drill.approvers)
    running.approvals.append(f"{who}: {step.question}")
    running.journal.write({"event": "approval", "what": running.approvals[-1]})
    return replace(outcome, approver=who, detail=f"{who} said yes")


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
