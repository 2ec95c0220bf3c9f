"""Train a lost fine-tuned model again: from the recorded job and the training file in the vault.

The new model has another id and other weights. What ties it to the old one is a mark in the
metadata of its job, so that a later look knows it again, and a second run starts no second job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from snapshots.asking import Asking
from snapshots.cloud.place import Cursor, Place
from snapshots.errors import CloudError, MissingError
from snapshots.kinds.openai import is_fine_tuned
from snapshots.mapping import put_at, take_at
from snapshots.model import Json, JsonObject, Key, Resource
from snapshots.steps import IdMap, Substitution, token_of

JOBS = "/openai/v1/fine_tuning/jobs"
_MODELS = "/openai/v1/models"
_SENT = ("model", "seed", "suffix", "method", "hyperparameters", "training_file", "validation_file")
_MARK = "muster_source_digest"  # by its name no secret, so that snapshots keep it
_USUAL = 7200.0  # seconds, where the job does not say how long it took
_LONGEST = 86_400.0  # seconds until it is given up
_ENDED = frozenset({"failed", "cancelled"})


def mark_of(model: str) -> str:
    """Give what stands in a job's metadata for the model that it trains again."""
    return hashlib.sha256(model.encode()).hexdigest()[:32]


# ------------------------------------------------------------------------------------ before


def trained_again(
    wanted: Mapping[Key, Resource],
    there: Mapping[Key, Resource],
    models: frozenset[tuple[str, str]],
) -> tuple[dict[Key, Resource], tuple[Substitution, ...]]:
    """Want the model that was trained again where the old one's weights are nowhere.

    `models` holds the models whose weights can be had, as (ARM id of the account, name). Pure.
    """
    new = {
        (key.path[:3], str(mark)): name
        for key, job in there.items()
        if key.kind == "fine-tuning-job"
        and (mark := take_at(job.body, f"/metadata/{_MARK}"))
        and (name := _named(job.body.get("fine_tuned_model")))
        and Key("fine-tuned-model", (*key.path[:3], name)) in there
    }
    found = dict(wanted)
    listed: list[Substitution] = []
    for key, name in _lost_weights(wanted, models):
        now = new.get((key.path[:3], mark_of(name)))
        if now is None:
            continue
        found[key] = with_model(wanted[key], now)
        found.pop(Key("fine-tuned-model", (*key.path[:3], name)), None)
        why = "trained again from the same file with the same settings: other weights"
        listed.append(Substitution(key, "/properties/model/name", name, now, why))
    return found, tuple(listed)


def rebuilds(
    wanted: Mapping[Key, Resource],
    models: frozenset[tuple[str, str]],
    has: Callable[[str], bool],
) -> tuple[dict[Key, Resource], dict[Key, str]]:
    """Give what has to be trained again so that deployments can stand, and why some cannot.

    Bodies are what the jobs are asked for, files as tokens, with what the first training took
    under `recorded`. The reasons go by the deployment. Pure but for `has` (the vault).
    """
    found: dict[Key, Resource] = {}
    why: dict[Key, str] = {}
    for key, name in _lost_weights(wanted, models):
        job = _job_of(wanted, key.path[:3], name)
        if job is None:
            why[key] = "Its fine-tuning job is not in the snapshot, so it cannot be trained again."
            continue
        if token_of(job.body.get("model")) is not None:
            why[key] = "It was trained on another fine-tuned model: train that one first, by hand."
            continue
        training = token_of(job.body.get("training_file"))
        file = wanted.get(training[0]) if training is not None else None
        if file is None or not file.payloads or not has(file.payloads[0].sha256):
            why[key] = "Its training file is not in the vault, so it cannot be trained again."
            continue
        old = job.body
        body: JsonObject = {n: old[n] for n in ("model", "seed", "training_file") if n in old}
        if suffix := old.get("user_provided_suffix"):
            body["suffix"] = suffix
        if isinstance(old.get("method"), dict):
            body["method"] = old["method"]
        if old.get("hyperparameters") and "hyperparameters" not in str(old.get("method")):
            body["hyperparameters"] = old["hyperparameters"]
        validation = token_of(old.get("validation_file"))
        checked = wanted.get(validation[0]) if validation is not None else None
        if checked is not None and checked.payloads and has(checked.payloads[0].sha256):
            body["validation_file"] = old["validation_file"]
        body["metadata"] = {_MARK: mark_of(name)}
        begun, ended = old.get("created_at"), old.get("finished_at")
        body["recorded"] = {
            "seconds": float(ended) - float(begun)
            if isinstance(begun, int | float) and isinstance(ended, int | float) and ended > begun
            else None,
            "trained_tokens": old.get("trained_tokens"),
            "trained_at": datetime.fromtimestamp(float(ended), UTC).date().isoformat()
            if isinstance(ended, int | float)
            else None,
        }
        model = Key("fine-tuned-model", (*key.path[:3], name))
        found[model] = Resource(model, name, body)
    return found, why


def seconds_of(model: Resource) -> float:
    """Give how long the first training took, seconds."""
    found = take_at(model.body, "/recorded/seconds")
    return float(found) if isinstance(found, int | float) else _USUAL


def note_of(model: Resource) -> str:
    """Say what training again takes and costs, in one line."""
    tokens = take_at(model.body, "/recorded/trained_tokens")
    known = take_at(model.body, "/recorded/seconds") is not None
    took = f"took {seconds_of(model):.0f} s the first time" if known else "takes hours"
    billed = f"{tokens} trained tokens the first time" if tokens else "tokens not recorded"
    return (
        f"trained again: {took}, and may wait in Azure's queue; billed as training of "
        f"{model.body.get('model')}, by the token ({billed}), then hosting by the hour; other "
        "weights than before"
    )


def files_of(model: Resource) -> Iterable[Key]:
    """Give the files that a training reads."""
    for name in ("training_file", "validation_file"):
        named = token_of(model.body.get(name))
        if named is not None:
            yield named[0]


def with_model(deployment: Resource, name: str) -> Resource:
    """Give a deployment with another fine-tuned model, of its own account."""
    model = take_at(deployment.body, "/properties/model")
    kept = model if isinstance(model, dict) else {}
    made: JsonObject = {k: v for k, v in kept.items() if k not in {"source", "sourceAccount"}}
    body = put_at(deployment.body, "/properties/model", {**made, "name": name})
    assert isinstance(body, dict)
    return replace(deployment, body=body)


def trained_as(deployment: Resource, ids: IdMap) -> Resource:
    """Give a deployment with what was trained again in the place of the model that is lost."""
    name = take_at(deployment.body, "/properties/model/name")
    new = ids.ids.get(Key("fine-tuned-model", (*deployment.key.path[:3], str(name))))
    return deployment if new is None or new == name else with_model(deployment, new)


def _lost_weights(
    wanted: Mapping[Key, Resource], models: frozenset[tuple[str, str]]
) -> Iterator[tuple[Key, str]]:
    """Give the deployments whose fine-tuned model can be had nowhere, and its name."""
    for key, resource in sorted(wanted.items()):
        model = take_at(resource.body, "/properties/model") if key.kind == "deployment" else None
        if not isinstance(model, dict) or not is_fine_tuned(str(model.get("name") or "")):
            continue
        own = resource.id.rsplit("/", 2)[0].lower()
        named = str(model.get("source") or model.get("sourceAccount") or own).lower()
        name = str(model["name"])
        if (own, name) not in models and (named, name) not in models:
            yield key, name


def _job_of(
    resources: Mapping[Key, Resource], account: tuple[str, ...], name: str
) -> Resource | None:
    for key, job in sorted(resources.items()):
        if key.kind != "fine-tuning-job" or key.path[:3] != account:
            continue
        points = job.body.get("checkpoints")
        names = {
            _named(point.get("fine_tuned_model_checkpoint"))
            for point in (points if isinstance(points, list) else [])
            if isinstance(point, dict)
        }
        if name in names | {_named(job.body.get("fine_tuned_model"))}:
            return job
    return None


def _named(value: Json) -> str:
    """Give the name of a model that a logical body refers to."""
    found = token_of(value)
    return found[0].name if found is not None else str(value or "")


# ------------------------------------------------------------------------------------- doing


def train(cloud: Asking, place: Place, body: JsonObject, wait: Callable[[float, str], None]) -> str:
    """Train, and give the new model's name; a training that an earlier run began is gone on with.

    `body` is what `rebuilds` gave, with the target's file ids. `wait` sleeps that many seconds
    before the next look at that path; it raises to give up. Raises CloudError when Azure fails.
    """
    job = running(cloud, place, body)
    if job is None:
        sent: JsonObject = {name: body[name] for name in _SENT if body.get(name) is not None}
        sent["metadata"] = body.get("metadata")
        job = _object(cloud.post(place, JOBS, sent, kind="fine-tuning-job").body)
    looks, waited = 0, 0.0
    while job.get("status") != "succeeded":
        where = f"{JOBS}/{job.get('id')}"
        if job.get("status") in _ENDED:
            message = take_at(job, "/error/message")
            raise CloudError(
                f"Azure could not train the model: {message or job.get('status')}",
                where=where,
                remedy="look at the job's events, mend the cause, and resume the record",
            )
        if waited > _LONGEST:
            raise CloudError(
                "the training did not end within a day",
                where=where,
                remedy="it goes on by itself: `muster resume` finds it",
            )
        pause = min(30.0, 1.5**looks)
        wait(pause, where)
        waited, looks = waited + pause, looks + 1
        job = _object(cloud.get(place, where, kind="fine-tuning-job").body)
    return str(job.get("fine_tuned_model"))


def running(cloud: Asking, place: Place, body: JsonObject) -> JsonObject | None:
    """Give the training of the same model that is under way or done, None without one."""
    listed = cloud.list(
        place,
        JOBS,
        params={"limit": "100"},
        kind="fine-tuning-job",
        items="data",
        cursor=Cursor.OPENAI_AFTER,
    )
    for job in listed:
        if job.get("metadata") != body.get("metadata") or job.get("status") in _ENDED:
            continue
        if job.get("status") != "succeeded" or _stands(cloud, place, job):
            return job
    return None


def _stands(cloud: Asking, place: Place, job: JsonObject) -> bool:
    """Whether a training's model is still there: one that was taken back is not."""
    try:
        cloud.get(place, f"{_MODELS}/{job.get('fine_tuned_model')}", kind="fine-tuned-model")
    except MissingError:
        return False
    return True


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}
