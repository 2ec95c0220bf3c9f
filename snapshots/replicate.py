"""Keep the standby in step with the primary: configuration by the engine, fine-tuned models proved.

Everything that is written by name goes the way of a restore: take, map, compare, plan, apply. What
that cannot do is here: models whose weights have to be copied or trained, the proof that a replica
answers as its source, and the call that keeps an idle deployment alive.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import orjson

from snapshots import replication
from snapshots.apply import Tell
from snapshots.cloud import Cloud
from snapshots.cloud.place import Permission, Place, Plane
from snapshots.errors import CloudError, MusterError, RefusedError
from snapshots.kinds.accounts import API
from snapshots.kinds.fields import location
from snapshots.kinds.openai import is_fine_tuned
from snapshots.mapping import place_of
from snapshots.model import Json, JsonObject, Key, Resource, Snapshot
from snapshots.records import Records
from snapshots.replication import (
    CopyWay,
    Proof,
    Replica,
    ReplicaState,
    Replication,
    Run,
)
from snapshots.restore import Prepared, Request, Restored, Tools, execute, prepare
from snapshots.steps import Action
from snapshots.steps import Mapping as Places

_CS: Final = "providers/Microsoft.CognitiveServices"
_COPY_HEADER: Final = {"aoai-copy-ft-checkpoints": "preview"}
_CHAT: Final = {"api-version": "2024-10-21"}
_RIGHT: Final = "Microsoft.CognitiveServices/accounts/AIServices/fine-tunes/write"
_PROMPTS: Final = 6
_REPEATS: Final = 2  # a model need not say the same thing twice
_PING_AFTER: Final = timedelta(days=7)  # of the 15 days
_TRAINING: Final = timedelta(hours=24)
_COPYING: Final = timedelta(hours=2)
# What a standby does not take over: locks would stop the next replication, role assignments are for
# people of that subscription to decide (a restore brings them), history stays history.
_LEFT: Final = frozenset(
    {"lock", "role-assignment", "thread", "fine-tuning-job", "fine-tuned-model", "commitment-plan"}
)
_RESULTS: Final = frozenset({"fine-tune-results", "batch_output", "assistants_output"})
_HOURS_A_MONTH: Final = 730


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
class ModelStep:
    """One thing to do for a fine-tuned model, beside the engine's steps."""

    id: str
    action: Action
    key: Key  # the standby's deployment
    target: str
    needs: tuple[str, ...]
    way: CopyWay | None
    note: str
    seconds: float
    calls: int
    state: str = "waiting"
    took: float = 0.0
    error: str = ""


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
    way: CopyWay | None  # None: nothing to do, or nothing can be done
    done: bool
    refused: tuple[str, ...] = ()  # "checkpoint: …"


@dataclass(frozen=True, slots=True)
class Replicating:
    """A replication that is prepared: what the engine does, and what is done for models."""

    primary: str
    standby: str
    policy: Policy
    source: Snapshot  # the primary as it was taken
    prepared: Prepared
    choices: tuple[Choice, ...]
    steps: tuple[ModelStep, ...]
    known: Replication

    @property
    def is_empty(self) -> bool:
        """Whether the standby is in step."""
        return self.prepared.plan.is_empty and not self.steps


@dataclass(frozen=True, slots=True)
class Replicated:
    """What a replication came to."""

    restored: Restored | None
    steps: tuple[ModelStep, ...]
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
    # Gives a token of the tenant that an account lies in, for the cross-tenant way.
    auxiliary: Callable[[str], str] | None = None
    say: Callable[[str], None] = lambda _words: None
    _wires: dict[str, JsonObject] = field(default_factory=dict)

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
        steps = tuple(self._steps(choices, known, standing, prepared))
        return Replicating(
            self.primary,
            self.standby,
            self.policy,
            source,
            prepared,
            choices,
            steps,
            known,
        )

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
                f"/subscriptions/{path[0]}/resourceGroups/{place.resource_group}/{_CS}"
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
        try:
            match way:
                case CopyWay.SOURCE:
                    if cold:
                        return "nothing can be kept without a deployment (deployments = cold)"
                    listed = Key("fine-tuned-model", (*model.account.key.path, model.name))
                    return "" if listed in source.resources else "the source account lists it not"
                case CopyWay.CHECKPOINT:
                    return self._no_checkpoint(model)
                case CopyWay.CROSS_TENANT:
                    if self.auxiliary is None:
                        return "there is no credential of the source's tenant"
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
        wire = self._account(model.target_account)
        if not wire:
            return "the standby account is not there yet"
        if str(_props(wire).get("publicNetworkAccess") or "").lower() == "disabled":
            return "public network access of the standby account is disabled"
        jobs = self.cloud.list(
            self._data(model.target_account),
            "/openai/v1/fine_tuning/jobs",
            params={"limit": "1"},
            kind="fine-tuning-job",
            items="data",
        )
        if next(jobs, None) is None:
            return "the standby account has no fine-tuning job, and needs one"
        there = self._account(model.account.id)
        users = _dict(_dict(there.get("identity")).get("userAssignedIdentities"))
        principals = {
            str(_dict(found).get("principalId")).lower()
            for found in users.values()
            if _dict(found).get("principalId")
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
        place = self._arm(scope)
        for row in self.cloud.list(place, path, params=version, kind="role-assignment"):
            found = _props(row)
            if str(found.get("principalId") or "").lower() not in principals:
                continue
            role = self.cloud.get(
                place, str(found.get("roleDefinitionId")), params=version, kind="role-definition"
            )
            for entry in _rows(_props(_dict(role.body)).get("permissions")):
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
            if key.kind in _LEFT or (cold and key.kind == "deployment"):
                continue
            if key.kind == "file" and resource.body.get("purpose") in _RESULTS:
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
                kept[key] = _with_model(resource, replica.name)  # in step: sku, policy, tags
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
            self._account(f"{group}{_CS}/accounts/{place.name}")
            if any(id_.startswith(group.lower()) for id_ in self._wires):
                found.add(key.path[:2])
        return found

    def _steps(
        self,
        choices: Sequence[Choice],
        known: Replication,
        standing: Mapping[Key, JsonObject | None],
        prepared: Prepared,
    ) -> Iterator[ModelStep]:
        by_key = {step.key: step.id for step in prepared.plan.steps}
        number = 0
        for choice in choices:
            model = choice.model
            account = by_key.get(Key("account", model.target.path[:3]), "")
            target = f"{model.target_account}/deployments/{model.target.name}"
            above = (account,) if account else ()
            if choice.done:
                replica = known.of(model.deployment.key)
                if replica is not None and self._needs_call(replica, standing[model.target]):
                    number += 1
                    note = "called, so that Azure does not delete it after 15 days without a call"
                    yield ModelStep(
                        f"m{number}", Action.UPDATE, model.target, target, (), None, note, 2.0, 1
                    )
                continue
            if choice.way is None:
                continue
            before = by_key.get(model.target, "")
            needs = (before,) if before else above
            if choice.way is not CopyWay.SOURCE:
                number += 1
                action = Action.REBUILD if choice.way is CopyWay.RETRAIN else Action.COPY
                yield ModelStep(
                    f"m{number}",
                    action,
                    model.target,
                    target,
                    needs,
                    choice.way,
                    _note(choice.way, model),
                    _seconds(choice.way),
                    8,
                )
                needs = (f"m{number}",)
            number += 1
            note = "asked the same as its source: the proof that it is the right model"
            yield ModelStep(
                f"m{number}", Action.SWITCH, model.target, target, needs, choice.way, note, 10.0, 18
            )

    def _needs_call(self, replica: Replica, standing: JsonObject | None) -> bool:
        if self.policy.keep_alive is not KeepAlive.PING or standing is None:
            return False
        last = max(replica.made_at, replica.kept_alive_at or replica.made_at)
        return self.tools.clock.now() - last >= _PING_AFTER

    # ---- doing it ---------------------------------------------------------------------------

    def run(self, made: Replicating, records: Records, *, tell: Tell | None = None) -> Replicated:
        """Do it: the engine's plan first, then the models, each kept in the registry as it comes.

        A crash loses nothing: the record goes on with `muster resume`, and what was done for
        models is found again by the next replication.
        """
        clock = self.tools.clock
        begun, before = clock.now(), self.cloud.calls.snapshot().made
        restored: Restored | None = None
        if not made.prepared.plan.is_empty:
            restored = execute(made.prepared, self.tools, records, tell=tell)
        self._wires.clear()
        known = made.known
        done: list[ModelStep] = []
        choices = {choice.model.target: choice for choice in made.choices}
        failed: set[Key] = set()
        for step in made.steps:
            started = clock.now()
            if step.key in failed:
                done.append(replace(step, state="blocked", error="the step before it failed"))
                continue
            self.say(f"{step.key.name}: {step.note}")
            try:
                known = self._do(step, choices[step.key], known)
                replica = known.of(choices[step.key].model.deployment.key)
                wrong = replica is not None and replica.state is not ReplicaState.PROVED
                state = "failed" if step.action is Action.SWITCH and wrong else "done"
                error = replica.detail if replica is not None and state == "failed" else ""
                took = (clock.now() - started).total_seconds()
                done.append(replace(step, state=state, error=error, took=took))
            except MusterError as error:
                took = (clock.now() - started).total_seconds()
                done.append(replace(step, state="failed", error=error.what, took=took))
            if done[-1].state != "done":
                failed.add(step.key)
        stuck = [choice for choice in made.choices if choice.way is None]
        for choice in stuck:
            known = known.with_replica(self._nowhere(choice))
        complete = not failed and not stuck and (restored is None or restored.complete)
        finished = clock.now()
        seconds = (finished - begun).total_seconds()
        count = len(done) + len(made.prepared.plan.steps)
        record = restored.record.id if restored is not None else ""
        run = Run(finished, complete, count, round(seconds, 3), record, made.source.id)
        known = replace(known, last=run)
        replication.write(self.ledger, known, f"replicate {self.primary} to {self.standby}")
        calls = self.cloud.calls.snapshot().made - before
        return Replicated(restored, tuple(done), known, complete, seconds, calls)

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

    def _do(self, step: ModelStep, choice: Choice, known: Replication) -> Replication:
        model, now = choice.model, self.tools.clock.now()
        replica = known.of(model.deployment.key)
        match step.action:
            case Action.UPDATE:
                if replica is None:
                    raise RefusedError("there is no replica to call", where=str(model.target))
                self._ask(
                    model.target_account, model.target.name, ({"role": "user", "content": "ping"},)
                )
                found = replace(replica, kept_alive_at=now)
            case Action.SWITCH:
                found = self._proved(model, step.way or CopyWay.SOURCE, replica)
            case _:
                way = step.way or CopyWay.CHECKPOINT
                name = self._bring(model, way)
                found = Replica(
                    model.deployment.key,
                    model.name,
                    model.target,
                    name,
                    way,
                    ReplicaState.UNPROVED,
                    self.tools.clock.now(),
                    model.made_at,
                    deployed=False,
                    detail="not asked yet",
                )
        known = known.with_replica(found)
        # Kept at once: Azure lists no copied checkpoint, and a crash must not forget it.
        replication.write(self.ledger, known, f"{step.action.value} {model.target.name}")
        return known

    def _bring(self, model: Model, way: CopyWay) -> str:
        """Bring the weights to the standby; give the model's name there."""
        match way:
            case CopyWay.CHECKPOINT:
                return self._copied(model)
            case CopyWay.RETRAIN:
                return self._retrained(model)
            case CopyWay.CROSS_TENANT | CopyWay.SOURCE:
                return model.name

    def _copied(self, model: Model) -> str:
        checkpoint = _checkpoint_of(model)
        job = model.job.id if model.job is not None else ""
        path = f"/openai/v1/fine_tuning/jobs/{job}/checkpoints/{checkpoint}/copy"
        place, kind = self._data(model.account.id), "checkpoint-copy"
        body: JsonObject = {
            "destinationResourceId": model.target_account,
            "region": location(self.standby),
        }
        # Asked again it goes on with the copy that runs: it may be repeated.
        answer = self.cloud.post(place, path, body, kind=kind, headers=_COPY_HEADER)
        until, looks = self.tools.clock.now() + _COPYING, 0
        while True:
            for detail in _rows(_dict(answer.body).get("copiedAccountDetails")):
                if str(detail.get("destinationResourceId")).lower() != model.target_account.lower():
                    continue
                match detail.get("status"):
                    case "Completed":
                        return str(_dict(answer.body).get("checkpointedModelName") or checkpoint)
                    case "Failed":
                        raise CloudError(
                            "Azure could not copy the checkpoint",
                            where=path,
                            remedy="run `muster replicate` again, or go another way",
                        )
                    case _:
                        pass
            self._wait(until, path, looks)
            looks += 1
            answer = self.cloud.get(place, path, kind=kind, headers=_COPY_HEADER)

    def _wait(self, until: datetime, where: str, looks: int) -> None:
        """Wait for the next look: a second at first, half a minute in the end."""
        if self.tools.clock.now() >= until:
            raise CloudError(
                "Azure has not finished in time",
                where=where,
                remedy="it goes on by itself: run `muster replicate` again later",
            )
        self.tools.clock.sleep(min(30.0, 1.5**looks))

    def _retrained(self, model: Model) -> str:
        """Train again from the vault's file with the recorded settings; give the new model."""
        if model.job is None:
            raise RefusedError("its fine-tuning job is not known", where=str(model.target))
        place, old = self._data(model.target_account), model.job.body
        training = self._uploaded(place, model)
        method = old.get("method")
        marks: JsonObject = {"muster_source": hashlib.sha256(model.name.encode()).hexdigest()[:32]}
        path = "/openai/v1/fine_tuning/jobs"
        running = [
            job
            for job in self.cloud.list(
                place, path, params={"limit": "100"}, kind="fine-tuning-job", items="data"
            )
            if job.get("metadata") == marks and job.get("status") not in {"failed", "cancelled"}
        ]
        if running:
            job: JsonObject = running[0]  # an earlier run began it
        else:
            body: JsonObject = {
                "model": old.get("model"),
                "training_file": training,
                "seed": old.get("seed"),
                "metadata": marks,
            }
            if suffix := old.get("user_provided_suffix"):
                body["suffix"] = suffix
            if isinstance(method, dict):
                body["method"] = method
            elif old.get("hyperparameters"):
                body["hyperparameters"] = old["hyperparameters"]
            job = _dict(self.cloud.post(place, path, body, kind="fine-tuning-job").body)
        until, looks = self.tools.clock.now() + _TRAINING, 0
        while job.get("status") != "succeeded":
            if job.get("status") in {"failed", "cancelled"}:
                raise CloudError("the training failed", where=f"{path}/{job.get('id')}")
            self._wait(until, f"{path}/{job.get('id')}", looks)
            looks += 1
            job = _dict(self.cloud.get(place, f"{path}/{job['id']}", kind="fine-tuning-job").body)
        return str(job.get("fine_tuned_model"))

    def _uploaded(self, place: Place, model: Model) -> str:
        """Give the id of the training file in the standby, uploading it when it is not there."""
        data = b"".join(self.read_payload(model.training))
        name = f"muster-{model.training[:16]}.jsonl"
        for row in self.cloud.list(
            place, "/openai/v1/files", params={"limit": "100"}, kind="file", items="data"
        ):
            if row.get("filename") == name and row.get("bytes") == len(data):
                return str(row.get("id"))
        answer = self.cloud.upload(
            place,
            "/openai/v1/files",
            fields={"purpose": "fine-tune"},
            file=(name, data),
            kind="file",
        )
        id_ = str(_dict(answer.body).get("id"))
        until, looks = self.tools.clock.now() + timedelta(minutes=30), 0
        while True:
            found = _dict(self.cloud.get(place, f"/openai/v1/files/{id_}", kind="file").body)
            if found.get("status") in {"processed", "error"}:
                return id_
            self._wait(until, f"/openai/v1/files/{id_}", looks)
            looks += 1

    # ---- proof ------------------------------------------------------------------------------

    def _proved(self, model: Model, way: CopyWay, replica: Replica | None) -> Replica:
        """Ask source and replica the same; a copy goes into service only once it is proved."""
        name = replica.name if replica is not None and replica.model == model.name else model.name
        warm = self.policy.deployments is Warmth.WARM
        now = self.tools.clock.now
        made = Replica(
            model.deployment.key,
            model.name,
            model.target,
            name,
            way,
            ReplicaState.UNPROVED,
            replica.made_at if replica is not None and replica.name == name else now(),
            model.made_at,
            deployed=warm,
        )
        if way is CopyWay.SOURCE:
            proof, why = self._compare(model, model.target.name)
        else:
            trial = f"muster-proof-{secrets.token_hex(4)}"
            try:
                self._deploy(model, way, name, trial, capacity=1)
                proof, why = self._compare(model, trial)
            finally:
                self._undeploy(model, trial)
        state = ReplicaState.UNPROVED
        if proof is not None:
            state = ReplicaState.PROVED if proof.holds else ReplicaState.WRONG
        if way is not CopyWay.SOURCE and warm and state is ReplicaState.PROVED:
            self._deploy(model, way, name, model.target.name)
        elif way is not CopyWay.SOURCE:
            made = replace(made, deployed=False)
        return replace(made, state=state, proof=proof, kept_alive_at=now(), detail=why)

    def _compare(self, model: Model, deployment: str) -> tuple[Proof | None, str]:
        prompts = self._prompts(model)
        if not prompts:
            return None, "there are no prompts: name some in [estate.pair.replicate]"
        try:
            theirs = [
                self._ask(model.account.id, model.deployment.key.name, prompt) for prompt in prompts
            ]
        except CloudError as error:
            return None, f"the source could not be asked: {error.what}"
        same = 0
        for prompt, answer in zip(prompts, theirs, strict=True):
            same += any(
                _alike(answer, self._ask(model.target_account, deployment, prompt))
                for _ in range(_REPEATS)
            )
        base = self._base_of(model)
        unlike = 0
        if base:
            try:
                unlike = sum(
                    not _alike(answer, self._ask(model.account.id, base, prompt))
                    for prompt, answer in zip(prompts, theirs, strict=True)
                )
            except CloudError:
                base = ""
        digest = hashlib.sha256("\n".join(theirs).encode()).hexdigest()
        proof = Proof(self.tools.clock.now(), len(prompts), same, unlike, base, digest)
        if not proof.holds:
            return proof, f"answers otherwise than its source: {same} of {len(prompts)} alike"
        if base and not unlike:
            return None, "source and base answer alike: these prompts prove nothing, name others"
        return proof, ""

    def _prompts(self, model: Model) -> list[tuple[JsonObject, ...]]:
        """Give the conversations that are asked: the policy's, else those it was trained on."""
        if self.policy.prompts:
            return [({"role": "user", "content": text},) for text in self.policy.prompts]
        if not model.training:
            return []
        found: list[tuple[JsonObject, ...]] = []
        for line in b"".join(self.read_payload(model.training)).splitlines():
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            messages = _rows(_dict(row).get("messages"))
            while messages and messages[-1].get("role") == "assistant":
                messages.pop()
            if messages:
                found.append(
                    tuple({"role": m.get("role"), "content": m.get("content")} for m in messages)
                )
        step = max(1, len(found) // _PROMPTS)
        return found[::step][:_PROMPTS]

    def _base_of(self, model: Model) -> str:
        """Give a deployment of the base model beside the source, "" when there is none."""
        base = model.name.partition(".ft-")[0]
        for row in self.cloud.list(
            self._arm(model.account.id),
            f"{model.account.id}/deployments",
            params=API,
            kind="deployment",
        ):
            found = _dict(_props(row).get("model"))
            if f"{found.get('name')}-{found.get('version')}" == base or found.get("name") == base:
                return str(row.get("name"))
        return ""

    def _ask(self, account: str, deployment: str, messages: Sequence[JsonObject]) -> str:
        body: JsonObject = {
            "messages": list(messages),
            "temperature": 0,
            "seed": 7,
            "max_tokens": 256,
        }
        answer = self.cloud.post(
            self._data(account),
            f"/openai/deployments/{deployment}/chat/completions",
            body,
            params=_CHAT,
            kind="probe",
            reads=True,
        )
        for choice in _rows(_dict(answer.body).get("choices")):
            return str(_dict(choice.get("message")).get("content") or "")
        return ""

    # ---- the standby's deployments -------------------------------------------------------------

    def _deployed(self, model: Model) -> JsonObject | None:
        if not self._account(model.target_account):
            return None
        for row in self.cloud.list(
            self._arm(model.target_account),
            f"{model.target_account}/deployments",
            params=API,
            kind="deployment",
        ):
            if str(row.get("name") or "").lower() == model.target.name.lower():
                return row
        return None

    def _deploy(
        self, model: Model, way: CopyWay, name: str, deployment: str, *, capacity: int | None = None
    ) -> None:
        sku = dict(_dict(model.deployment.body.get("sku")))
        rules = {rule.of.lower(): rule for rule in self.mapping.skus}
        rule = rules.get(model.deployment.key.name) or rules.get(str(sku.get("name")).lower())
        if rule is not None:
            sku["name"] = rule.name or sku.get("name")
            if rule.capacity is not None:
                sku["capacity"] = rule.capacity
        if capacity is not None:
            sku["capacity"] = capacity
        old = _props(model.deployment.body)
        wanted: JsonObject = {"format": "OpenAI", "name": name, "version": "1"}
        headers: dict[str, str] = {}
        if way is CopyWay.CROSS_TENANT:
            if self.auxiliary is None:
                raise RefusedError("there is no credential of the source's tenant")
            wanted["sourceAccount"] = model.account.id
            headers["x-ms-authorization-auxiliary"] = f"Bearer {self.auxiliary(model.account.id)}"
        properties: JsonObject = {"model": wanted}
        trial = capacity is not None
        for part in ("versionUpgradeOption", "raiPolicyName"):
            if old.get(part) and not (trial and part == "raiPolicyName"):
                properties[part] = old[part]
        body: JsonObject = {"sku": sku, "properties": properties}
        if model.deployment.body.get("tags") and not trial:
            body["tags"] = model.deployment.body["tags"]
        self.cloud.put(
            self._arm(model.target_account),
            f"{model.target_account}/deployments/{deployment}",
            body,
            params=API,
            kind="deployment",
            headers=headers or None,
        )

    def _undeploy(self, model: Model, deployment: str) -> None:
        self.cloud.delete(
            self._arm(model.target_account),
            f"{model.target_account}/deployments/{deployment}",
            params=API,
            kind="deployment",
        )

    # ---- places ------------------------------------------------------------------------------

    def _arm(self, id_: str) -> Place:
        region = self.primary if self._is_source(id_) else self.standby
        return Place(Plane.ARM, "", id_.split("/")[2], location(region))

    def _is_source(self, id_: str) -> bool:
        wire = self._wires.get(id_.lower())
        at = location(str(wire.get("location") or "")) if wire else ""
        return at == location(self.primary)

    def _account(self, id_: str) -> JsonObject:
        """Give an account as it is, empty when it is not there."""
        if id_.lower() not in self._wires:
            place = Place(Plane.ARM, "", id_.split("/")[2], "")
            path = f"/subscriptions/{id_.split('/')[2]}/{_CS}/accounts"
            rows = list(self.cloud.list(place, path, params=API, kind="account"))
            for row in rows:
                self._wires[str(row.get("id")).lower()] = row
        return self._wires.get(id_.lower(), {})

    def _data(self, id_: str) -> Place:
        wire = self._account(id_)
        endpoints = _dict(_props(wire).get("endpoints"))
        base = endpoints.get("OpenAI Language Model Instance API") or _props(wire).get("endpoint")
        if not base:
            raise CloudError("Azure names no endpoint for the account", where=id_)
        region = location(str(wire.get("location") or ""))
        return Place(Plane.OPENAI, str(base).rstrip("/"), id_.split("/")[2], region)


# ------------------------------------------------------------------------------------ pieces


def hosting(made: Replicating) -> tuple[int, int]:
    """Give what the policy costs a month: hosting hours of standing models, and calls."""
    warm = made.policy.deployments is Warmth.WARM
    models = sum(choice.way is not None for choice in made.choices) if warm else 0
    calls = models * 4 if made.policy.keep_alive is KeepAlive.PING else 0
    return models * _HOURS_A_MONTH, calls


def _note(way: CopyWay, model: Model) -> str:
    match way:
        case CopyWay.CHECKPOINT:
            return f"checkpoint {_checkpoint_of(model)} is copied by Azure"
        case CopyWay.CROSS_TENANT:
            return "deployed from the source account of another tenant"
        case CopyWay.RETRAIN:
            tokens = model.job.body.get("trained_tokens") if model.job is not None else None
            return (
                f"trained again: hours, billed as training ({tokens or 'unknown number of'} tokens "
                "the first time); not the same bits"
            )
        case CopyWay.SOURCE:
            return "deployed with the source account named"


def _seconds(way: CopyWay) -> float:
    return {CopyWay.CHECKPOINT: 300.0, CopyWay.RETRAIN: 7200.0}.get(way, 60.0)


def _job_of(source: Snapshot, account: tuple[str, ...], name: str) -> Resource | None:
    for key, job in sorted(source.resources.items()):
        if key.kind != "fine-tuning-job" or key.path[:3] != account:
            continue
        points = {
            str(p.get("fine_tuned_model_checkpoint")) for p in _rows(job.body.get("checkpoints"))
        }
        if job.body.get("fine_tuned_model") == name or name in points:
            return job
    return None


def _checkpoint_of(model: Model) -> str:
    """Give the checkpoint that is the model: itself, or the last of its job."""
    if model.job is None:
        return ""
    points = _rows(model.job.body.get("checkpoints"))
    names = [str(p.get("fine_tuned_model_checkpoint")) for p in points]
    if model.name in names:
        return model.name
    steps = [
        (int(n), str(p.get("id"))) for p in points if isinstance(n := p.get("step_number"), int)
    ]
    return max(steps)[1] if steps else ""


def _model_name(deployment: Resource) -> str:
    return str(_dict(_props(deployment.body).get("model")).get("name") or "")


def _name_of(wire: JsonObject | None) -> str:
    return str(_dict(_props(wire).get("model")).get("name") or "") if wire else ""


def _with_model(deployment: Resource, name: str) -> Resource:
    properties = _props(deployment.body)
    model = _dict(properties.get("model"))
    return replace(
        deployment,
        body={
            **deployment.body,
            "properties": {**properties, "model": {**model, "name": name}},
        },
    )


def _alike(one: str, two: str) -> bool:
    return " ".join(one.lower().split()) == " ".join(two.lower().split())


def _props(body: Mapping[str, Json]) -> JsonObject:
    return _dict(body.get("properties"))


def _dict(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _rows(value: Json) -> list[JsonObject]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()
