"""Keep the standby in step with the primary: configuration by the engine, fine-tuned models proved.

Everything that is written by name goes the way of a restore: take, map, compare, plan, apply. What
that cannot do is here: models whose weights have to be copied or trained, the proof that a replica
answers as its source, and the call that keeps an idle deployment alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from threading import Event
from typing import Final

from snapshots import replication
from snapshots.apply import THREADS, Tell
from snapshots.cloud import Cloud
from snapshots.cloud.place import Cursor, Permission
from snapshots.errors import CloudError
from snapshots.fine_tuned import CS, JOBS, ModelWorker, as_dict, props, rows
from snapshots.gates import GateResult
from snapshots.kinds import BY_NAME
from snapshots.kinds.accounts import API
from snapshots.kinds.fields import location
from snapshots.kinds.openai import is_fine_tuned
from snapshots.mapping import place_of, translate
from snapshots.model import Json, JsonObject, Key, Resource, Snapshot
from snapshots.plan import schedule, serial_of
from snapshots.records import Records
from snapshots.replication import IDLE_LIMIT, CopyWay, Replica, ReplicaState, Replication, Run
from snapshots.restore import Prepared, Request, Restored, Tools, execute, gates, prepare
from snapshots.steps import Action, ModelWork, Plan, Step, Work
from snapshots.steps import Mapping as Places

_RIGHT: Final = "Microsoft.CognitiveServices/accounts/AIServices/fine-tunes/write"
_PING_AFTER: Final = timedelta(days=7)  # of the 15 days
# What a standby does not take over, and why: the report says so.
LEFT: Final[Mapping[str, str]] = {
    "lock": "a lock in the standby would stop the next replication; a restore sets it",
    "role-assignment": "who may do what in the standby is decided there; a restore sets it",
    "thread": "conversations are history: they stay where they were held",
    "fine-tuning-job": "a job is history: it is recorded with its files, settings and seed",
    "fine-tuned-model": "models go their own way: see the way of each deployment",
    "commitment-plan": "a commitment plan is a purchase: it is recorded and never bought again",
}
_RESULTS: Final = frozenset({"fine-tune-results", "batch_output", "assistants_output"})
_HOURS_A_MONTH: Final = 730
_CALLS_A_MONTH: Final = 4  # one a week


class Warmth(StrEnum):
    """Whether the standby's deployments stand."""

    WARM = "warm"
    COLD = "cold"


class KeepAlive(StrEnum):
    """What is done about the 15 days after which Azure deletes an uncalled deployment."""

    PING = "ping"
    REDEPLOY = "redeploy"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Policy:
    """How a pair is kept in step."""

    deployments: Warmth = Warmth.WARM
    fine_tuned: tuple[CopyWay, ...] = (CopyWay.SOURCE, CopyWay.CHECKPOINT)
    keep_alive: KeepAlive = KeepAlive.PING
    prompts: tuple[str, ...] = ()
    retrain: bool = False  # asked for on the line: hours and money

    @property
    def ways(self) -> tuple[CopyWay, ...]:
        """The ways that may be gone, best first; retraining only when it was asked for."""
        named = [way for way in self.fine_tuned if way is not CopyWay.RETRAIN]
        return (*named, CopyWay.RETRAIN) if self.retrain else tuple(named)


@dataclass(frozen=True, slots=True)
class Model:
    """A fine-tuned deployment of the primary."""

    deployment: Resource
    name: str  # the model's name
    account: Resource
    target: Key  # the deployment in the standby
    target_account: str  # ARM id
    job: Resource | None
    training: str  # digest of the training file, "" when it is not in the vault
    made_at: datetime


@dataclass(frozen=True, slots=True)
class Choice:
    """Which way a model goes, and why not the better ones."""

    model: Model
    way: CopyWay | None  # None: nothing can be done
    done: bool
    refused: tuple[str, ...] = ()  # "checkpoint: …"

    @property
    def takes(self) -> str:
        """How long this way takes, as a class: "minutes", "hours", "" without a way."""
        if self.way is None:
            return ""
        return "hours" if self.way is CopyWay.RETRAIN else "minutes"

    @property
    def price(self) -> str:
        """What this way is billed as, besides hosting while the replica is deployed."""
        if self.way is not CopyWay.RETRAIN:
            return "" if self.way is None else "hosting"
        tokens = self.model.job.body.get("trained_tokens") if self.model.job is not None else None
        return f"training ({tokens or 'an unknown number of'} tokens the first time) and hosting"


@dataclass(frozen=True, slots=True)
class Replicating:
    """A replication that is prepared: what the engine does, and what is done for models."""

    primary: str
    standby: str
    policy: Policy
    source: Snapshot  # the primary as it was taken
    prepared: Prepared  # its plan has the steps for models, too
    choices: tuple[Choice, ...]
    known: Replication
    left: Mapping[str, int] = field(default_factory=dict)  # kinds that are left out, and how many

    @property
    def is_empty(self) -> bool:
        """Whether the standby is in step."""
        return self.prepared.plan.is_empty


@dataclass(frozen=True, slots=True)
class Replicated:
    """What a replication came to."""

    restored: Restored | None
    known: Replication
    complete: bool
    seconds: float
    calls: int


@dataclass(slots=True)
class Replicator:
    """One pair and what it takes to keep it in step."""

    primary: str
    standby: str
    mapping: Places
    policy: Policy
    tools: Tools
    ledger: replication.Branches
    read_payload: Callable[[str], Iterable[bytes]]
    secrets: Mapping[str, str] = field(default_factory=dict)
    # The primary's tenant, when it is another: the way out there, and a token of it.
    source_cloud: Cloud | None = None
    auxiliary: Callable[[], str] | None = None
    say: Callable[[str], None] = lambda _words: None
    worker: ModelWorker = field(init=False)

    def __post_init__(self) -> None:
        """Make the one who does the steps for models."""
        self.worker = ModelWorker(
            self.primary,
            self.standby,
            self.tools.cloud,
            self.tools.clock,
            self.ledger,
            self.read_payload,
            self.policy.prompts,
            self.auxiliary,
            self.say,
            self.source_cloud,
        )

    @property
    def cloud(self) -> Cloud:
        """The way out."""
        return self.tools.cloud

    # ---- before ---------------------------------------------------------------------------

    def prepare(self, source: Snapshot) -> Replicating:
        """Give what would be done to bring the standby in step with `source`. Changes nothing.

        `source` is the primary as it is, or as it was last kept. Raises what `restore.prepare`
        raises, and DamagedStoreError for a damaged registry.
        """
        known = replication.read(self.ledger, self.primary, self.standby)
        models = tuple(self._models(source))
        for model in models:
            self.worker.from_source(model.account.id)
        standing = {model.target: self._deployed(model) for model in models}
        choices = tuple(self._choose(m, known, standing[m.target], source) for m in models)
        request = Request(
            snapshot=self._engine_part(source, choices, known, standing),
            target=f"standby {self.standby}",
            mapping=self.mapping,
            regions=(self.primary,),
            secrets=self.secrets,
        )
        prepared = prepare(request, self.tools)
        steps = tuple(self._steps(choices, known, standing, prepared, source))
        counts: dict[str, int] = {}
        for key in source.resources:
            if key.kind in LEFT:
                counts[key.kind] = counts.get(key.kind, 0) + 1
        return Replicating(
            self.primary,
            self.standby,
            self.policy,
            source,
            replace(prepared, plan=_with_steps(prepared.plan, steps)),
            choices,
            known,
            counts,
        )

    def gates(self, made: Replicating) -> tuple[GateResult, ...]:
        """Ask beforehand what would stop it half way. Only reads."""
        return gates(made.prepared, self.tools)

    def _models(self, source: Snapshot) -> Iterator[Model]:
        for key, deployment in sorted(source.resources.items()):
            name = _model_name(deployment)
            account = source.resources.get(Key("account", key.path[:3]))
            if key.kind != "deployment" or not is_fine_tuned(name) or account is None:
                continue
            if location(str(account.body.get("location") or "")) != location(self.primary):
                continue
            place, _ = place_of(self.mapping, account)
            path = (place.subscription, place.resource_group.lower(), place.name.lower())
            job = _job_of(source, key.path[:3], name)
            training = job.body.get("training_file") if job is not None else None
            digests = [
                payload.sha256
                for k, r in source.resources.items()
                if k.kind == "file" and k.path[:3] == key.path[:3] and r.id == training
                for payload in r.payloads
            ]
            ended = job.body.get("finished_at") if job is not None else None
            made = (
                datetime.fromtimestamp(float(ended), UTC)
                if isinstance(ended, int | float)
                else source.taken_at
            )
            yield Model(
                deployment,
                name,
                account,
                Key("deployment", (*path, key.name)),
                f"/subscriptions/{path[0]}/resourceGroups/{place.resource_group}/{CS}"
                f"/accounts/{place.name}",
                job,
                digests[0] if digests else "",
                made,
            )

    def _choose(
        self,
        model: Model,
        known: Replication,
        standing: JsonObject | None,
        source: Snapshot,
    ) -> Choice:
        replica = known.of(model.deployment.key)
        cold = self.policy.deployments is Warmth.COLD
        current = replica if replica is not None and replica.model == model.name else None
        if current is not None and current.state is ReplicaState.PROVED:
            there = _name_of(standing) == current.name
            gone_on_purpose = not there and self.policy.keep_alive is KeepAlive.OFF
            if there or cold or gone_on_purpose:
                return Choice(model, current.way, done=True)
        refused: list[str] = []
        for way in self.policy.ways:
            why = self._why_not(way, model, source, cold=cold)
            if not why:
                return Choice(model, way, done=False, refused=tuple(refused))
            refused.append(f"{way.value}: {why}")
        return Choice(model, None, done=False, refused=tuple(refused))

    def _why_not(self, way: CopyWay, model: Model, source: Snapshot, *, cold: bool) -> str:
        """Say what stands in the way, "" when nothing does. Only reads."""
        other = self.source_cloud is not None
        try:
            match way:
                case CopyWay.SOURCE | CopyWay.CHECKPOINT if other:
                    return "the primary is in another tenant: Azure copies within one only"
                case CopyWay.SOURCE:
                    if cold:
                        return "nothing can be kept without a deployment (deployments = cold)"
                    listed = Key("fine-tuned-model", (*model.account.key.path, model.name))
                    return "" if listed in source.resources else "the source account lists it not"
                case CopyWay.CHECKPOINT:
                    return self._no_checkpoint(model)
                case CopyWay.CROSS_TENANT:
                    if not other or self.auxiliary is None:
                        return "primary and standby are in one tenant ([[estate.pair]] tenant)"
                    return "cold keeps no deployment" if cold else ""
                case CopyWay.RETRAIN:
                    if model.job is None:
                        return "its fine-tuning job is not known"
                    return "" if model.training else "its training file is not in the vault"
        except CloudError as error:
            return f"could not be asked: {error.what}"

    def _no_checkpoint(self, model: Model) -> str:
        """The documented prerequisites of a checkpoint copy, asked beforehand."""
        if not _checkpoint_of(model):
            return "the job has no checkpoint"
        wire = self.worker.account(model.target_account)
        if not wire:
            return "the standby account is not there yet"
        if str(props(wire).get("publicNetworkAccess") or "").lower() == "disabled":
            return "public network access of the standby account is disabled"
        jobs = self.cloud.list(
            self.worker.data(model.target_account),
            JOBS,
            params={"limit": "1"},
            kind="fine-tuning-job",
            items="data",
            cursor=Cursor.OPENAI_AFTER,
        )
        if next(jobs, None) is None:
            return "the standby account has no fine-tuning job, and needs one"
        there = self.worker.account(model.account.id)
        users = as_dict(as_dict(there.get("identity")).get("userAssignedIdentities"))
        principals = {
            str(as_dict(found).get("principalId")).lower()
            for found in users.values()
            if as_dict(found).get("principalId")
        }
        if not principals:
            return "the source account has no user-assigned identity"
        if not self._granted(principals, model.target_account):
            return (
                "no user-assigned identity of the source holds Azure AI User on the standby account"
            )
        return ""

    def _granted(self, principals: set[str], scope: str) -> bool:
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments"
        version = {"api-version": "2022-04-01"}
        place = self.worker.arm(scope)
        for row in self.cloud.list(place, path, params=version, kind="role-assignment"):
            found = props(row)
            if str(found.get("principalId") or "").lower() not in principals:
                continue
            role = self.cloud.get(
                place, str(found.get("roleDefinitionId")), params=version, kind="role-definition"
            )
            for entry in rows(props(as_dict(role.body)).get("permissions")):
                granted = Permission(
                    data_actions=_texts(entry.get("dataActions")),
                    not_data_actions=_texts(entry.get("notDataActions")),
                )
                if granted.allows_data(_RIGHT):
                    return True
        return False

    def _engine_part(
        self,
        source: Snapshot,
        choices: Sequence[Choice],
        known: Replication,
        standing: Mapping[Key, JsonObject | None],
    ) -> Snapshot:
        """Give what the engine brings over: all but what has no business there, or another way."""
        cold = self.policy.deployments is Warmth.COLD
        mine = {choice.model.deployment.key: choice for choice in choices}
        kept: dict[Key, Resource] = {}
        groups = self._groups(source)
        for key, resource in source.resources.items():
            if key.kind in LEFT or (cold and key.kind == "deployment"):
                continue
            if key.kind in {"file", "project-file"} and resource.body.get("purpose") in _RESULTS:
                continue  # written by the service alone, of a job that the standby has not
            if key.kind == "resource-group" and key.path in groups:
                continue  # the standby's group is there, with tags of its own
            choice = mine.get(key)
            if choice is None:
                kept[key] = resource
                continue
            there = _name_of(standing[choice.model.target])
            replica = known.of(key)
            if replica is not None and there and there == replica.name:
                kept[key] = _with_model(resource, standing[choice.model.target])  # in step
            elif choice.way is CopyWay.SOURCE and not (choice.done and not there):
                kept[key] = resource
        return replace(source, resources=kept)

    def _groups(self, source: Snapshot) -> set[tuple[str, ...]]:
        """Give the primary's groups whose counterpart in the standby holds accounts already."""
        found: set[tuple[str, ...]] = set()
        for key, account in source.resources.items():
            if key.kind != "account":
                continue
            place, _ = place_of(self.mapping, account)
            group = f"/subscriptions/{place.subscription}/resourceGroups/{place.resource_group}/"
            self.worker.account(f"{group}{CS}/accounts/{place.name}")
            if self.worker.accounts_in(group):
                found.add(key.path[:2])
        return found

    def _steps(
        self,
        choices: Sequence[Choice],
        known: Replication,
        standing: Mapping[Key, JsonObject | None],
        prepared: Prepared,
        source: Snapshot,
    ) -> Iterator[Step]:
        plan = prepared.plan
        by_key = {step.key: step.id for step in plan.steps}
        wanted = translate(source, self.mapping).snapshot.resources
        number = len(plan.steps)
        for choice in choices:
            model = choice.model
            there = standing[model.target]
            after = wanted.get(model.target, replace(model.deployment, key=model.target))
            base = ModelWork(
                work=Work.CALL,
                way=(choice.way or CopyWay.SOURCE).value,
                source=model.deployment.key,
                model=model.name,
                made_at=model.made_at,
                source_account=model.account.id,
                target_account=model.target_account,
                wanted=after,
                deploy=self.policy.deployments is Warmth.WARM,
                job=model.job.id if model.job is not None else "",
                checkpoint=_checkpoint_of(model),
                training=model.training,
                request=_request_of(model),
            )

            def step(
                action: Action,
                work: ModelWork,
                needs: Sequence[str],
                note: str,
                cost: tuple[float, int],
                *,
                serial: bool = False,
            ) -> Step:
                nonlocal number
                number += 1
                return Step(
                    id=f"s{number}",
                    action=action,
                    key=work.wanted.key,
                    target=f"{work.target_account}/deployments/{work.wanted.key.name}",
                    region=location(self.standby),
                    source=work.source,
                    before=prepared.target.resources.get(work.wanted.key),
                    needs=tuple(dict.fromkeys(need for need in needs if need)),
                    # While a deployment is written, Azure refuses others of its account.
                    serial=serial_of(BY_NAME["deployment"], work.wanted.key) if serial else "",
                    seconds=cost[0],
                    calls=cost[1],
                    note=note,
                    work=work,
                )

            if choice.done:
                replica = known.of(model.deployment.key)
                if replica is not None and self._needs_call(replica, there):
                    note = "called, so that Azure does not delete it after 15 days without a call"
                    yield step(Action.UPDATE, base, (), note, (2.0, 1))
                continue
            if choice.way is None:
                continue
            needs = [
                by_key.get(Key("account", model.target.path[:3]), ""),
                by_key.get(model.target, ""),
                *self._needed(after, by_key),
            ]
            if choice.way is not CopyWay.SOURCE:
                action = Action.REBUILD if choice.way is CopyWay.RETRAIN else Action.COPY
                work = replace(base, work=Work.BRING)
                cost = (_seconds(choice.way), 8)
                made = step(action, work, needs[:1], _note(choice), cost)
                yield made
                needs.append(made.id)
            note = "asked the same as its source: the proof that it is the right model"
            work = replace(base, work=Work.PROVE)
            copied = choice.way is not CopyWay.SOURCE
            yield step(Action.SWITCH, work, needs, note, (10.0, 18), serial=copied)

    @staticmethod
    def _needed(deployment: Resource, by_key: Mapping[Key, str]) -> Iterator[str]:
        """The steps that make what a deployment refers to: its content filter."""
        policy = props(deployment.body).get("raiPolicyName")
        if policy:
            yield by_key.get(Key("rai-policy", (*deployment.key.path[:3], str(policy).lower())), "")

    def _needs_call(self, replica: Replica, standing: JsonObject | None) -> bool:
        if self.policy.keep_alive is not KeepAlive.PING or standing is None:
            return False
        last = max(replica.made_at, replica.kept_alive_at or replica.made_at)
        return self.tools.clock.now() - last >= _PING_AFTER

    # ---- doing it ---------------------------------------------------------------------------

    def run(
        self,
        made: Replicating,
        records: Records,
        *,
        stop: Event | None = None,
        tell: Tell | None = None,
    ) -> Replicated:
        """Do it: one plan, one record, each replica kept in the registry as it comes.

        With nothing to do it is written down that the standby was found in step, and when.
        A crash loses nothing: the record goes on with `muster resume`, and another replication
        finds what was made, too.
        """
        clock = self.tools.clock
        begun, before = clock.now(), self._calls()
        self._settle(made)
        restored: Restored | None = None
        if not made.prepared.plan.is_empty:
            tools = replace(self.tools, models=self.worker)
            restored = execute(made.prepared, tools, records, stop=stop, tell=tell)
        stuck = any(choice.way is None for choice in made.choices)
        unread = bool(made.source.gaps or made.prepared.target.gaps)
        now = clock.now()
        if restored is None:
            run: Run | None = Run(now, not (stuck or unread), 0, 0.0, "", made.source.id)
        else:
            run = replication.read(self.ledger, self.primary, self.standby).last
            if run is not None and unread:
                run = replace(run, complete=False)  # what a gap hides may not be in step
        known = self.worker.keep(lambda known: replace(known, last=run), "how it ended")
        complete = known.last is not None and known.last.complete
        calls = self._calls() - before
        seconds = (clock.now() - begun).total_seconds()
        return Replicated(restored, known, complete, seconds, calls)

    def _calls(self) -> int:
        clouds = {id(cloud): cloud for cloud in (self.cloud, self.source_cloud) if cloud}
        return sum(cloud.calls.snapshot().made for cloud in clouds.values())

    def _settle(self, made: Replicating) -> None:
        """Keep what is known without a call: models that no way leads for, and those that went."""
        nowhere = [self._nowhere(choice) for choice in made.choices if choice.way is None]
        gone = {r.source for r in made.known.replicas} - {
            choice.model.deployment.key for choice in made.choices
        }
        hidden = {key for key in gone if any(_hides(gap.key, key) for gap in made.source.gaps)}

        def changed(known: Replication) -> Replication:
            for key in gone - hidden:
                known = known.without(key)
            for replica in nowhere:
                known = known.with_replica(replica)
            return known

        self.worker.keep(changed, "what is replicated, and what cannot be")

    def _nowhere(self, choice: Choice) -> Replica:
        model, now = choice.model, self.tools.clock.now()
        why = "; ".join(choice.refused) or "no way is allowed ([estate.pair.replicate] fine_tuned)"
        return Replica(
            model.deployment.key,
            model.name,
            model.target,
            "",
            self.policy.ways[0] if self.policy.ways else CopyWay.RETRAIN,
            ReplicaState.MISSING,
            now,
            model.made_at,
            deployed=False,
            detail=why,
        )

    # ---- the standby's deployments -----------------------------------------------------------

    def _deployed(self, model: Model) -> JsonObject | None:
        if not self.worker.account(model.target_account):
            return None
        for row in self.cloud.list(
            self.worker.arm(model.target_account),
            f"{model.target_account}/deployments",
            params=API,
            kind="deployment",
        ):
            if str(row.get("name") or "").lower() == model.target.name.lower():
                return row
        return None


# ------------------------------------------------------------------------------------ pieces


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way to keep models in the standby costs a month, and what it means."""

    policy: str  # "ping", "redeploy", "off", or "cold"
    hosting_hours: int  # billed by the hour while a fine-tuned model is deployed
    calls: int  # of a few tokens each
    means: str
    chosen: bool


# "Hosting is billed hourly", and an uncalled deployment goes after 15 days:
# learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-deploy, 2025-10-25.
def costs(made: Replicating) -> tuple[Cost, ...]:
    """Give what each policy costs a month for the models of a pair, the chosen one among them."""
    models = len(made.choices)
    cold = made.policy.deployments is Warmth.COLD
    chosen = "cold" if cold else made.policy.keep_alive.value
    always = models * _HOURS_A_MONTH
    idle = int(IDLE_LIMIT.total_seconds() // 3600) * models

    def cost(policy: str, hours: int, calls: int, means: str) -> Cost:
        return Cost(policy, hours, calls, means, policy == chosen)

    return (
        cost("ping", always, models * _CALLS_A_MONTH, "stands always: serves at once"),
        cost("redeploy", always, 0, "missing from its deletion until the next replication"),
        cost("off", idle, 0, "goes after 15 days without a call: minutes at the failover"),
        cost("cold", 0, 0, "a copied checkpoint, deployed at the failover: minutes"),
    )


def _note(choice: Choice) -> str:
    match choice.way:
        case CopyWay.CHECKPOINT:
            return f"checkpoint {_checkpoint_of(choice.model)} is copied by Azure"
        case CopyWay.CROSS_TENANT:
            return "deployed from the source account of another tenant"
        case CopyWay.RETRAIN:
            return f"trained again: hours, billed as {choice.price}; not the same bits"
        case _:
            return "deployed with the source account named"


def _with_steps(plan: Plan, steps: Sequence[Step]) -> Plan:
    """Give a plan with the steps for models behind its own, timed anew."""
    whole = (*plan.steps, *steps)
    path, length, makespan = schedule(whole, THREADS)
    return replace(
        plan,
        steps=whole,
        replica=True,
        critical_path=path,
        critical_path_seconds=round(length, 3),
        seconds=round(makespan, 3),
        calls=round(sum(step.calls for step in whole)),
    )


def _request_of(model: Model) -> JsonObject:
    """Give what the model's training was asked for, but for its file."""
    if model.job is None:
        return {}
    old = model.job.body
    body: JsonObject = {"model": old.get("model"), "seed": old.get("seed")}
    if suffix := old.get("user_provided_suffix"):
        body["suffix"] = suffix
    if isinstance(old.get("method"), dict):
        body["method"] = old["method"]
    elif old.get("hyperparameters"):
        body["hyperparameters"] = old["hyperparameters"]
    return body


def _hides(gap: Key, key: Key) -> bool:
    """Whether a gap may hide a resource: it is of what holds it, or of the thing itself."""
    return key.path[: len(gap.path)] == gap.path


def _seconds(way: CopyWay) -> float:
    return {CopyWay.CHECKPOINT: 300.0, CopyWay.RETRAIN: 7200.0}.get(way, 60.0)


def _job_of(source: Snapshot, account: tuple[str, ...], name: str) -> Resource | None:
    for key, job in sorted(source.resources.items()):
        if key.kind != "fine-tuning-job" or key.path[:3] != account:
            continue
        points = {
            str(p.get("fine_tuned_model_checkpoint")) for p in rows(job.body.get("checkpoints"))
        }
        if job.body.get("fine_tuned_model") == name or name in points:
            return job
    return None


def _checkpoint_of(model: Model) -> str:
    """Give the checkpoint that is the model: itself, or the last of its job."""
    if model.job is None:
        return ""
    points = rows(model.job.body.get("checkpoints"))
    names = [str(p.get("fine_tuned_model_checkpoint")) for p in points]
    if model.name in names:
        return model.name
    steps = [
        (int(n), str(p.get("id"))) for p in points if isinstance(n := p.get("step_number"), int)
    ]
    return max(steps)[1] if steps else ""


def _model_name(deployment: Resource) -> str:
    return str(as_dict(props(deployment.body).get("model")).get("name") or "")


def _name_of(wire: JsonObject | None) -> str:
    return str(as_dict(props(wire).get("model")).get("name") or "") if wire else ""


def _with_model(deployment: Resource, standing: JsonObject | None) -> Resource:
    """Give a deployment with the model that stands for it: sku, policy and tags may differ."""
    properties = props(deployment.body)
    there = as_dict(props(standing or {}).get("model"))
    model: JsonObject = {
        part: value
        for part, value in as_dict(properties.get("model")).items()
        if part not in {"source", "sourceAccount"}
    }
    model["name"] = there.get("name")
    for part in ("source", "sourceAccount"):
        if there.get(part):
            model[part] = str(there[part]).lower()
    return replace(
        deployment, body={**deployment.body, "properties": {**properties, "model": model}}
    )


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()
