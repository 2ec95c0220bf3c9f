"""Fine-tuned models in the standby: brought over, proved by their answers, and kept alive.

What a write by name cannot do, as steps of an ordinary plan: so the record is ahead of each of
them, and `resume` and `undo` know them. Each may be begun twice: what an earlier run made is found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Event, Lock
from typing import Final

import orjson

from snapshots import replication
from snapshots.clock import Clock
from snapshots.cloud import Cloud
from snapshots.cloud.place import Cursor, Place, Plane
from snapshots.errors import CloudError, ConcurrentError, MissingError, RefusedError
from snapshots.kinds.accounts import API
from snapshots.kinds.fields import location
from snapshots.model import Json, JsonObject
from snapshots.replication import CopyWay, Proof, Replica, ReplicaState, Replication, Run
from snapshots.steps import ModelWork, Record, Step, StepState, Work
from snapshots.writing import Written

COPY_HEADER: Final = {"aoai-copy-ft-checkpoints": "preview"}
CS: Final = "providers/Microsoft.CognitiveServices"
JOBS: Final = "/openai/v1/fine_tuning/jobs"
FILES: Final = "/openai/v1/files"
_CHAT: Final = {"api-version": "2024-10-21"}
_PROMPTS: Final = 6
_REPEATS: Final = 2  # a model need not say the same thing twice
_TRAINING: Final = timedelta(hours=24)
_COPYING: Final = timedelta(hours=2)
_UPLOADING: Final = timedelta(minutes=30)
_ATTEMPTS: Final = 5
_DONE: Final = frozenset({StepState.DONE, StepState.ADOPTED})
_ENDED: Final = frozenset({"failed", "cancelled"})


@dataclass(slots=True)
class ModelWorker:
    """Does the steps of a replication that are for fine-tuned models. Thread-safe.

    `cloud` reaches the standby. When the primary lies in another tenant, `source_cloud` reaches
    that, and `auxiliary` gives a token of it for the requests that name both.
    """

    primary: str
    standby: str
    cloud: Cloud
    clock: Clock
    ledger: replication.Branches
    read_payload: Callable[[str], Iterable[bytes]]
    prompts: tuple[str, ...] = ()
    auxiliary: Callable[[], str] | None = None
    say: Callable[[str], None] = lambda _words: None
    source_cloud: Cloud | None = None
    _theirs: set[str] = field(default_factory=set)  # accounts of the primary, in lower case
    _wires: dict[str, JsonObject] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    # ---- what a plan asks ---------------------------------------------------------------------

    def begun(self, record: Record) -> None:
        """Write down that a replication is under way: until it ends the standby is not in step."""
        if record.plan.replica:
            self._ended(record, record.started_at, complete=False)

    def ended(self, record: Record, remaining: int) -> None:
        """Write down how it ended. What was taken back is not in step."""
        if not record.plan.replica:
            return
        states = {record.state(step.id) for step in record.plan.steps}
        known = replication.read(self.ledger, self.primary, self.standby)
        stuck = any(r.state is ReplicaState.MISSING for r in known.replicas)
        complete = states <= _DONE and not remaining and not stuck
        self._ended(record, self.clock.now(), complete=complete)

    def _ended(self, record: Record, at: datetime, *, complete: bool) -> None:
        run = Run(
            at,
            complete,
            len(record.plan.steps),
            round((self.clock.now() - record.started_at).total_seconds(), 3),
            record.id,
            record.plan.snapshot,
        )
        self.keep(lambda known: replace(known, last=run), f"replicate to {self.standby}")

    def do(self, step: Step, *, again: bool, stop: Event) -> Written:
        """Do a step; done before, it finds what it made. Raises MusterError, or its model is wrong.

        `again` makes no difference: each looks for what is there before it makes anything.
        """
        del again
        work = _work_of(step)
        self.from_source(work.source_account)
        match work.work:
            case Work.CALL:
                self.ask(work.target_account, step.key.name, ({"role": "user", "content": "ping"},))
                self._change(work, lambda found: replace(found, kept_alive_at=self.clock.now()))
                return Written()
            case Work.BRING:
                name = self._bring(work, stop)
                replica = self._replica(step, name, ReplicaState.UNPROVED, detail="not asked yet")
                self.remember(replica)
                return Written()
            case Work.PROVE:
                replica = self._proved(step)
                self.remember(replica)
                if replica.state is not ReplicaState.PROVED:
                    raise RefusedError(
                        replica.detail or "it could not be proved",
                        where=str(step.key),
                        remedy="it does not count as a replica; run `muster replicate` again once "
                        "the cause is mended",
                    )
                return Written()

    def undo(self, step: Step) -> Written:
        """Take a step back. A copied checkpoint stays, unused: Azure has no call to delete it."""
        work = _work_of(step)
        match work.work:
            case Work.CALL:
                return Written(adopted=True)
            case Work.PROVE:
                self._undeploy(work, trial_of(step))
                if work.deploy and work.way != CopyWay.SOURCE:
                    self._put_back(work, step)
                if work.way == CopyWay.SOURCE:
                    self.keep(lambda k: k.without(work.source), f"undo {step.key.name}")
                else:
                    self._change(work, _unproved)
                return Written()
            case Work.BRING:
                if work.way == CopyWay.RETRAIN:
                    self._untrain(work)
                    self.keep(lambda k: k.without(work.source), f"undo {step.key.name}")
                    return Written()
                if work.way == CopyWay.CHECKPOINT:
                    why = "taken back; the copy itself stays: Azure has no call to delete it"
                    self._change(work, lambda found: replace(_unproved(found), detail=why))
                else:
                    self.keep(lambda k: k.without(work.source), f"undo {step.key.name}")
                return Written(adopted=True)

    # ---- the registry -------------------------------------------------------------------------

    def keep(self, change: Callable[[Replication], Replication], why: str) -> Replication:
        """Change what is known of the pair. Raises ConcurrentError when others will not let it."""
        with self._lock:
            for attempt in range(_ATTEMPTS):
                known = replication.read(self.ledger, self.primary, self.standby)
                changed = change(known)
                if changed == known:
                    return known
                try:
                    replication.write(self.ledger, changed, why)
                except ConcurrentError:
                    if attempt == _ATTEMPTS - 1:
                        raise
                    continue
                return changed
        raise AssertionError  # the last attempt returns or raises

    def remember(self, replica: Replica) -> None:
        """Keep a replica at once: Azure lists no copied checkpoint, and a crash must not forget."""
        why = f"{replica.state.value} {replica.target.name}"
        self.keep(lambda known: known.with_replica(replica), why)

    def _change(self, work: ModelWork, change: Callable[[Replica], Replica]) -> None:
        def changed(known: Replication) -> Replication:
            found = known.of(work.source)
            return known if found is None else known.with_replica(change(found))

        self.keep(changed, f"{work.work.value} {work.source.name}")

    def _known(self, work: ModelWork) -> Replica | None:
        found = replication.read(self.ledger, self.primary, self.standby).of(work.source)
        return found if found is not None and found.model == work.model else None

    def _replica(self, step: Step, name: str, state: ReplicaState, *, detail: str) -> Replica:
        work, known, now = _work_of(step), self._known(_work_of(step)), self.clock.now()
        same = known is not None and known.name == name
        return Replica(
            work.source,
            work.model,
            step.key,
            name,
            CopyWay(work.way),
            state,
            known.made_at if known is not None and same else now,
            work.made_at,
            deployed=False,
            detail=detail,
        )

    # ---- bringing it --------------------------------------------------------------------------

    def _bring(self, work: ModelWork, stop: Event) -> str:
        """Bring the weights to the standby; give the model's name there."""
        match CopyWay(work.way):
            case CopyWay.CHECKPOINT:
                return self._copied(work, stop)
            case CopyWay.RETRAIN:
                return self._retrained(work, stop)
            case CopyWay.CROSS_TENANT | CopyWay.SOURCE:
                return work.model

    def _copied(self, work: ModelWork, stop: Event) -> str:
        path = f"{JOBS}/{work.job}/checkpoints/{work.checkpoint}/copy"
        place, kind = self.data(work.source_account), "checkpoint-copy"
        body: JsonObject = {
            "destinationResourceId": work.target_account,
            "region": location(self.standby),
        }
        # Asked again it goes on with the copy that runs: it may be repeated.
        cloud = self.reach(work.source_account)
        answer = cloud.post(place, path, body, kind=kind, headers=COPY_HEADER)
        until, looks = self.clock.now() + _COPYING, 0
        while True:
            for detail in rows(as_dict(answer.body).get("copiedAccountDetails")):
                if str(detail.get("destinationResourceId")).lower() != work.target_account.lower():
                    continue
                match detail.get("status"):
                    case "Completed":
                        name = as_dict(answer.body).get("checkpointedModelName")
                        return str(name or work.checkpoint)
                    case "Failed":
                        raise CloudError(
                            "Azure could not copy the checkpoint",
                            where=path,
                            remedy="run `muster replicate` again, or go another way",
                        )
                    case _:
                        pass
            self._wait(until, path, looks, stop)
            looks += 1
            answer = cloud.get(place, path, kind=kind, headers=COPY_HEADER)

    def _wait(self, until: datetime, where: str, looks: int, stop: Event) -> None:
        """Wait for the next look: a second at first, half a minute in the end."""
        if stop.is_set() or self.clock.now() >= until:
            what = "stopped while Azure" if stop.is_set() else "Azure has not finished in time: it"
            raise CloudError(
                f"{what} goes on by itself",
                where=where,
                remedy="`muster resume`, or `muster replicate` again, finds what it made",
            )
        if looks:
            self.say(f"Azure works on {where.removeprefix(JOBS)}: looked {looks} times")
        self.clock.sleep(min(30.0, 1.5**looks))

    def _retrained(self, work: ModelWork, stop: Event) -> str:
        """Train again from the vault's file with the recorded settings; give the new model."""
        place = self.data(work.target_account)
        training = self._uploaded(place, work, stop)
        job = self._job(place, work)
        if job is None:
            body: JsonObject = {
                **work.request,
                "training_file": training,
                "metadata": marks_of(work),
            }
            job = as_dict(self.cloud.post(place, JOBS, body, kind="fine-tuning-job").body)
        until, looks = self.clock.now() + _TRAINING, 0
        while job.get("status") != "succeeded":
            where = f"{JOBS}/{job.get('id')}"
            if job.get("status") in _ENDED:
                raise CloudError("the training failed", where=where)
            self._wait(until, where, looks, stop)
            looks += 1
            job = as_dict(self.cloud.get(place, where, kind="fine-tuning-job").body)
        return str(job.get("fine_tuned_model"))

    def _job(self, place: Place, work: ModelWork) -> JsonObject | None:
        """Give the training that an earlier run began, told by its metadata; None without one."""
        for job in self.cloud.list(
            place,
            JOBS,
            params={"limit": "100"},
            kind="fine-tuning-job",
            items="data",
            cursor=Cursor.OPENAI_AFTER,
        ):
            if job.get("metadata") != marks_of(work) or job.get("status") in _ENDED:
                continue
            if job.get("status") != "succeeded" or self._stands(place, job):
                return job
        return None

    def _stands(self, place: Place, job: JsonObject) -> bool:
        """Whether the model of a training is still there: one that was taken back is not."""
        path = f"/openai/v1/models/{job.get('fine_tuned_model')}"
        try:
            self.cloud.get(place, path, kind="fine-tuned-model")
        except MissingError:
            return False
        return True

    def _uploaded(self, place: Place, work: ModelWork, stop: Event) -> str:
        """Give the id of the training file in the standby, uploading it when it is not there."""
        data = b"".join(self.read_payload(work.training))
        name = training_name(work)
        id_ = ""
        for row in self._files(place, name):
            if row.get("bytes") == len(data):
                id_ = str(row.get("id"))
        if not id_:
            answer = self.cloud.upload(
                place, FILES, fields={"purpose": "fine-tune"}, file=(name, data), kind="file"
            )
            id_ = str(as_dict(answer.body).get("id"))
        until, looks = self.clock.now() + _UPLOADING, 0
        while True:
            found = as_dict(self.cloud.get(place, f"{FILES}/{id_}", kind="file").body)
            if found.get("status") in {"processed", "error"}:
                return id_
            self._wait(until, f"{FILES}/{id_}", looks, stop)
            looks += 1

    def _files(self, place: Place, name: str) -> list[JsonObject]:
        return [
            row
            for row in self.cloud.list(
                place,
                FILES,
                params={"limit": "100"},
                kind="file",
                items="data",
                cursor=Cursor.OPENAI_AFTER,
            )
            if row.get("filename") == name
        ]

    def _untrain(self, work: ModelWork) -> None:
        """Take a training back: its model and its file; the job stays as history."""
        place = self.data(work.target_account)
        job = self._job(place, work)
        if job is not None and job.get("status") not in {"succeeded", *_ENDED}:
            self.cloud.post(place, f"{JOBS}/{job['id']}/cancel", kind="fine-tuning-job")
        if job is not None and job.get("fine_tuned_model"):
            self._gone(place, f"/openai/v1/models/{job['fine_tuned_model']}", "fine-tuned-model")
        for row in self._files(place, training_name(work)):
            self._gone(place, f"{FILES}/{row['id']}", "file")

    def _gone(self, place: Place, path: str, kind: str) -> None:
        try:
            self.cloud.delete(place, path, kind=kind)
        except MissingError:
            return

    # ---- proof --------------------------------------------------------------------------------

    def _proved(self, step: Step) -> Replica:
        """Ask source and replica the same; a copy goes into service only once it is proved."""
        work = _work_of(step)
        known = self._known(work)
        name = known.name if known is not None and known.name else work.model
        if work.way == CopyWay.SOURCE:
            proof, why = self._compare(work, step.key.name)
        else:
            trial = trial_of(step)
            try:
                self._deploy(work, name, trial, trial=True)
                proof, why = self._compare(work, trial)
            finally:
                self._undeploy(work, trial)
        state = ReplicaState.UNPROVED
        if proof is not None:
            state = ReplicaState.PROVED if proof.holds else ReplicaState.WRONG
        made = self._replica(step, name, state, detail=why)
        deployed = work.way == CopyWay.SOURCE
        if not deployed and work.deploy and state is ReplicaState.PROVED:
            self._deploy(work, name, step.key.name)
            deployed = True
        return replace(made, deployed=deployed, proof=proof, kept_alive_at=self.clock.now())

    def _compare(self, work: ModelWork, deployment: str) -> tuple[Proof | None, str]:
        prompts = self._prompts(work)
        if not prompts:
            return None, "there are no prompts: name some in [estate.pair.replicate]"
        try:
            theirs = [self.ask(work.source_account, work.source.name, prompt) for prompt in prompts]
        except CloudError as error:
            return None, f"the source could not be asked: {error.what}"
        same = 0
        for prompt, answer in zip(prompts, theirs, strict=True):
            same += any(
                _alike(answer, self.ask(work.target_account, deployment, prompt))
                for _ in range(_REPEATS)
            )
        base = self._base_of(work)
        unlike = 0
        if base:
            try:
                unlike = sum(
                    not _alike(answer, self.ask(work.source_account, base, prompt))
                    for prompt, answer in zip(prompts, theirs, strict=True)
                )
            except CloudError:
                base = ""
        digest = hashlib.sha256("\n".join(theirs).encode()).hexdigest()
        proof = Proof(self.clock.now(), len(prompts), same, unlike, base, digest)
        if not proof.holds:
            return proof, f"answers otherwise than its source: {same} of {len(prompts)} alike"
        if base and not unlike:
            return None, "source and base answer alike: these prompts prove nothing, name others"
        return proof, ""

    def _prompts(self, work: ModelWork) -> list[tuple[JsonObject, ...]]:
        """Give the conversations that are asked: the policy's, else those it was trained on."""
        if self.prompts:
            return [({"role": "user", "content": text},) for text in self.prompts]
        if not work.training:
            return []
        found: list[tuple[JsonObject, ...]] = []
        for line in b"".join(self.read_payload(work.training)).splitlines():
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            messages = rows(as_dict(row).get("messages"))
            while messages and messages[-1].get("role") == "assistant":
                messages.pop()
            if messages:
                found.append(
                    tuple({"role": m.get("role"), "content": m.get("content")} for m in messages)
                )
        step = max(1, len(found) // _PROMPTS)
        return found[::step][:_PROMPTS]

    def _base_of(self, work: ModelWork) -> str:
        """Give a deployment of the base model beside the source, "" when there is none."""
        base = work.model.partition(".ft-")[0]
        for row in self.reach(work.source_account).list(
            self.arm(work.source_account),
            f"{work.source_account}/deployments",
            params=API,
            kind="deployment",
        ):
            found = as_dict(props(row).get("model"))
            if f"{found.get('name')}-{found.get('version')}" == base or found.get("name") == base:
                return str(row.get("name"))
        return ""

    def ask(self, account: str, deployment: str, messages: Sequence[JsonObject]) -> str:
        """Give what a deployment answers."""
        body: JsonObject = {
            "messages": list(messages),
            "temperature": 0,
            "seed": 7,
            "max_tokens": 256,
        }
        answer = self.reach(account).post(
            self.data(account),
            f"/openai/deployments/{deployment}/chat/completions",
            body,
            params=_CHAT,
            kind="probe",
            reads=True,
        )
        for choice in rows(as_dict(answer.body).get("choices")):
            return str(as_dict(choice.get("message")).get("content") or "")
        return ""

    # ---- the standby's deployments ------------------------------------------------------------

    def _deploy(self, work: ModelWork, name: str, deployment: str, *, trial: bool = False) -> None:
        """Deploy a model in the standby. A trial is as small as can be, without policy or tags."""
        wanted = work.wanted.body
        sku = dict(as_dict(wanted.get("sku")))
        if trial:
            sku["capacity"] = 1
        model: JsonObject = {"format": "OpenAI", "name": name, "version": "1"}
        headers: dict[str, str] = {}
        if work.way == CopyWay.CROSS_TENANT:
            if self.auxiliary is None:
                raise RefusedError(
                    "there is no credential of the source's tenant",
                    where=work.source_account,
                    remedy="name the standby's tenant in [[estate.pair]]",
                )
            model["sourceAccount"] = work.source_account
            headers["x-ms-authorization-auxiliary"] = f"Bearer {self.auxiliary()}"
        properties: JsonObject = {"model": model}
        for part in ("versionUpgradeOption", "raiPolicyName"):
            if props(wanted).get(part) and not (trial and part == "raiPolicyName"):
                properties[part] = props(wanted)[part]
        body: JsonObject = {"sku": sku, "properties": properties}
        if wanted.get("tags") and not trial:
            body["tags"] = wanted["tags"]
        self.cloud.put(
            self.arm(work.target_account),
            f"{work.target_account}/deployments/{deployment}",
            body,
            params=API,
            kind="deployment",
            headers=headers or None,
        )

    def _undeploy(self, work: ModelWork, deployment: str) -> None:
        try:
            self.cloud.delete(
                self.arm(work.target_account),
                f"{work.target_account}/deployments/{deployment}",
                params=API,
                kind="deployment",
            )
        except MissingError:
            return

    def _put_back(self, work: ModelWork, step: Step) -> None:
        """Put what stood under the name of a deployment back, nothing when nothing did."""
        if step.before is None:
            self._undeploy(work, step.key.name)
            return
        old = step.before.body
        body: JsonObject = {
            "sku": old.get("sku"),
            "properties": {
                part: value
                for part in ("model", "versionUpgradeOption", "raiPolicyName")
                if (value := props(old).get(part)) is not None
            },
        }
        if old.get("tags"):
            body["tags"] = old["tags"]
        self.cloud.put(
            self.arm(work.target_account),
            f"{work.target_account}/deployments/{step.key.name}",
            body,
            params=API,
            kind="deployment",
        )

    # ---- places -------------------------------------------------------------------------------

    def from_source(self, id_: str) -> None:
        """Say that an account is one of the primary."""
        self._theirs.add(id_.lower())

    def reach(self, id_: str) -> Cloud:
        """Give the way out to an account's tenant."""
        if self.source_cloud is not None and id_.lower() in self._theirs:
            return self.source_cloud
        return self.cloud

    def arm(self, id_: str) -> Place:
        """Give the place of an account's control plane, in its region."""
        found = self.account(id_).get("location")
        region = location(str(found)) if found else location(self.standby)
        return Place(Plane.ARM, "", id_.split("/")[2], region)

    def account(self, id_: str) -> JsonObject:
        """Give an account as it is, empty when it is not there."""
        if id_.lower() not in self._wires:
            place = Place(Plane.ARM, "", id_.split("/")[2], "")
            path = f"/subscriptions/{id_.split('/')[2]}/{CS}/accounts"
            for row in self.reach(id_).list(place, path, params=API, kind="account"):
                self._wires[str(row.get("id")).lower()] = row
        return self._wires.get(id_.lower(), {})

    def accounts_in(self, group: str) -> bool:
        """Whether a group is known to hold accounts: its ARM id, with a slash at the end."""
        return any(id_.startswith(group.lower()) for id_ in self._wires)

    def data(self, id_: str) -> Place:
        """Give the place of an account's data plane. Raises CloudError without an endpoint."""
        wire = self.account(id_)
        endpoints = as_dict(props(wire).get("endpoints"))
        base = endpoints.get("OpenAI Language Model Instance API") or props(wire).get("endpoint")
        if not base:
            raise CloudError("Azure names no endpoint for the account", where=id_)
        region = location(str(wire.get("location") or ""))
        return Place(Plane.OPENAI, str(base).rstrip("/"), id_.split("/")[2], region)


# ------------------------------------------------------------------------------------ pieces


def trial_of(step: Step) -> str:
    """Give the name of a step's test deployment: the same each time, so that none is left over."""
    work = _work_of(step)
    mark = hashlib.sha256(f"{step.key}\n{work.model}".encode()).hexdigest()[:8]
    return f"muster-proof-{mark}"


def marks_of(work: ModelWork) -> JsonObject:
    """Give what tells a model's training from others."""
    return {"muster_source": hashlib.sha256(work.model.encode()).hexdigest()[:32]}


def training_name(work: ModelWork) -> str:
    """Give the name of the training file in the standby, told by its digest."""
    return f"muster-{work.training[:16]}.jsonl"


def _work_of(step: Step) -> ModelWork:
    if step.work is None:
        raise RefusedError("this step is not for a fine-tuned model", where=str(step.key))
    return step.work


def _unproved(replica: Replica) -> Replica:
    return replace(
        replica, state=ReplicaState.UNPROVED, deployed=False, proof=None, detail="taken back"
    )


def _alike(one: str, two: str) -> bool:
    return " ".join(one.lower().split()) == " ".join(two.lower().split())


def props(body: Mapping[str, Json]) -> JsonObject:
    """Give a body's properties, empty without them."""
    return as_dict(body.get("properties"))


def as_dict(value: Json) -> JsonObject:
    """Give an object, empty for anything else."""
    return value if isinstance(value, dict) else {}


def rows(value: Json) -> list[JsonObject]:
    """Give the objects of a list, none for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
