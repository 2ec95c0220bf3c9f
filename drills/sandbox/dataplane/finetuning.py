"""Fine-tuning jobs: creation, states by the clock, events, checkpoints, results and the model."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from drills.sandbox.dataplane import contents, files
from drills.sandbox.dataplane.ask import (
    CLASSIC_ONLY,
    OPENAI,
    V1_ONLY,
    Ask,
    DataError,
    Dialect,
    Route,
    checked_metadata,
    cursor_list,
    invalid,
    not_found,
    space,
)
from drills.sandbox.dataplane.catalogue import base_model
from drills.sandbox.dataplane.engine import WEIGHTS
from drills.sandbox.dataplane.minds import lessons, tokens
from drills.sandbox.ids import region_name
from drills.sandbox.wire import Answer, Body
from drills.sandbox.world import World

DUE = "dp.job"
_VALIDATING, _QUEUED = 0.05, 0.10  # shares of a job's time
_KEPT_EPOCHS = 3  # checkpoints exist for the last epochs only (fine-tuning guide)
_ENDED = ("succeeded", "failed", "cancelled")
_ACTION = f"{OPENAI}/fine-tunes"


# -- states ---------------------------------------------------------------------------------


def share(job: Body, now: float) -> float:
    """How much of a job is done, 0 to 1."""
    if job["state"] in ("succeeded", "failed"):
        return 1.0
    spent = float(job["spent"])
    if job["state"] == "active":
        spent += now - job["began"]
    return max(0.0, min(0.999, spent / float(job["total"] or 1.0)))


def status(job: Body, now: float, dialect: Dialect) -> str:
    """A job's status as the dialect spells it."""
    state = str(job["state"])
    if state == "active":
        done = share(job, now)
        state = (
            "validating_files" if done < _VALIDATING else "queued" if done < _QUEUED else "running"
        )
    if dialect is Dialect.CLASSIC:
        return {"validating_files": "pending", "queued": "pending", "paused": "pending"}.get(
            state, state
        )
    return state


def view(job: Body, now: float, dialect: Dialect) -> Body:
    """What a client sees of a job."""
    shown: Body = {
        "id": job["id"],
        "object": "fine_tuning.job",
        "model": job["model"],
        "created_at": job["created_at"],
        "status": status(job, now, dialect),
        "training_file": job["training_file"],
        "validation_file": job["validation_file"],
        "hyperparameters": job["hyperparameters"],
        "result_files": job["result_files"],
        "fine_tuned_model": job["fine_tuned_model"],
        "finished_at": job["finished_at"],
        "trained_tokens": job["trained_tokens"],
        "error": job["error"],
        "seed": job["seed"],
        "estimated_finish": None
        if job["state"] in _ENDED
        else int(now + job["total"] * (1 - share(job, now))),
    }
    if dialect is Dialect.CLASSIC:
        shown["suffix"] = job["suffix"]
        return {key: value for key, value in shown.items() if value is not None}
    return shown | {
        "user_provided_suffix": job["suffix"],
        "organization_id": "",
        "integrations": job["integrations"],
        "method": job["method"],
        "metadata": job["metadata"],
    }


# -- creation -------------------------------------------------------------------------------


def _training_file(ask: Ask, name: str, id_: str) -> Body:
    item = files.find(ask, id_)
    if item is None:
        raise invalid(f"The specified {name} '{id_}' could not be found.", param=name)
    if item["purpose"] != "fine-tune":
        raise invalid(
            f"The specified {name} '{id_}' has the purpose '{item['purpose']}'; 'fine-tune' is "
            "required.",
            param=name,
        )
    if files.status(item, ask.now) == "error":
        raise DataError(
            400,
            "jsonlValidationFailed",
            f"The specified {name} '{id_}' cannot be used: {item['problem']}",
            param=name,
        )
    return item


def _hyperparameters(body: Body, rows: int) -> tuple[Body, Body]:
    method = body.get("method")
    sent: Any = body.get("hyperparameters") or {}
    kind = "supervised"
    if isinstance(method, dict):
        kind = str(method.get("type") or "supervised")
        if kind not in ("supervised", "dpo", "reinforcement"):
            raise invalid(f"Invalid value for 'method.type': '{kind}'.", param="method")
        sent = (method.get(kind) or {}).get("hyperparameters") or sent
    if not isinstance(sent, dict):
        raise invalid("'hyperparameters' must be an object.", param="hyperparameters")
    chosen: Body = {
        "n_epochs": 3,
        "batch_size": max(1, min(256, math.ceil(rows * 0.002))),
        "learning_rate_multiplier": 1.0,
    }
    for name, value in sent.items():
        if value in (None, "auto"):
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise invalid(f"Invalid value for '{name}': {value!r}.", param="hyperparameters")
        chosen[name] = value
    if chosen["n_epochs"] > 50:
        raise invalid("'n_epochs' must be at most 50.", param="hyperparameters")
    return chosen, {"type": kind, kind: {"hyperparameters": chosen}}


def create(ask: Ask) -> Answer:
    """POST /fine_tuning/jobs."""
    body = ask.body()
    files.require_key(ask)
    name, training = ask.text(body, "model"), ask.text(body, "training_file")
    suffix = body.get("suffix")
    if suffix is not None and (
        not isinstance(suffix, str)
        or not 0 < len(suffix) <= 64
        or not suffix.replace("-", "").replace("_", "").isalnum()
    ):
        raise invalid(
            "'suffix' must be 1 to 64 letters, digits, hyphens or underscores.", param="suffix"
        )
    region = region_name(str(ask.account.body.get("location", "")))
    parent = ask.world.store.get(ask.account_space("models"), name)
    base = base_model(str(parent["model"])) if parent else base_model(name)
    kind = str(body.get("trainingType") or "")
    if base is None or not base.tunable(region, kind, ask.call.now):
        raise invalid(
            f"The specified base model '{name}' does not support fine-tuning in the region "
            f"'{region}'.",
            param="model",
        )
    item = _training_file(ask, "training_file", training)
    checking = body.get("validation_file")
    if checking:
        _training_file(ask, "validation_file", str(checking))
    most = files.capability(ask.account, "MaxRunningFineTuneCount", 3)
    running = [
        j
        for _, j in ask.world.store.items(ask.account_space("jobs"))
        if j["state"] not in (*_ENDED, "paused")
    ]
    if len(running) >= most:
        raise DataError(
            429 if not ask.classic else 400,
            "quotaExceeded",
            "Quota limit for concurrent running fine-tuning jobs has been reached. "
            f"Max allowed quota: {most}.",
        )
    everything = files.capability(ask.account, "MaxFineTuneCount", 500)
    if ask.world.store.count(ask.account_space("jobs")) >= everything:
        raise DataError(
            400,
            "quotaExceeded",
            f"Quota limit for fine-tuning jobs has been reached. Max allowed quota: {everything}.",
        )
    content = contents.read(ask.world, item["digest"])
    chosen, method = _hyperparameters(body, len(lessons(content)))
    seed = body.get("seed")
    job = put_job(
        ask.world,
        ask.account.id,
        model=name if parent else base.id,
        training_file=training,
        lesson=_lesson(ask.world, content, parent),
        base=base.id,
        now=ask.now,
        validation_file=str(checking) if checking else None,
        hyperparameters=chosen,
        method=method,
        suffix=suffix,
        seed=seed if isinstance(seed, int) else int(ask.world.hex(7), 16),
        metadata=checked_metadata(body) or None,
    )
    seconds, outcome = ask.world.faults.operation(
        ask.call, f"{ask.account.id}/fineTuningJobs/{job['id']}", job["total"]
    )
    job = {**job, "total": seconds, "outcome": outcome}
    ask.world.store.put(ask.account_space("jobs"), job["id"], _schedule(ask.world, job))
    return ask.created(view(job, ask.now, ask.dialect))


def _lesson(world: World, content: bytes, parent: Body | None) -> str:
    if parent is None:
        return hashlib.sha256(content).hexdigest()
    learned = world.store.get(WEIGHTS, parent["id"])
    if learned is None:
        return hashlib.sha256(content).hexdigest()
    # a model that is tuned further knows both; what it was taught last comes first
    return contents.keep(world, content.rstrip() + b"\n" + contents.read(world, learned["lesson"]))


def put_job(
    world: World,
    account: str,
    *,
    model: str,
    training_file: str,
    lesson: str,
    base: str,
    now: float,
    validation_file: str | None = None,
    hyperparameters: Body | None = None,
    method: Body | None = None,
    suffix: str | None = None,
    seed: int = 42,
    metadata: Body | None = None,
    hex_: str = "",
) -> Body:
    """Keep a job that begins now; `lesson` is the digest of what it teaches."""
    hex_ = hex_ or world.hex(32)
    chosen = hyperparameters or {
        "n_epochs": 3,
        "batch_size": 1,
        "learning_rate_multiplier": 1.0,
    }
    job: Body = {
        "id": f"ftjob-{hex_}",
        "hex": hex_,
        "account": account,
        "created_at": int(now),
        "model": model,
        "base": base,
        "lesson": lesson,
        "training_file": training_file,
        "validation_file": validation_file,
        "hyperparameters": chosen,
        "method": method or {"type": "supervised", "supervised": {"hyperparameters": chosen}},
        "integrations": [],
        "suffix": suffix,
        "seed": seed,
        "metadata": metadata,
        "state": "active",
        "began": now,
        "spent": 0.0,
        "total": world.seconds("fine-tune"),
        "outcome": None,
        "timer": 0,
        "result_files": [],
        "fine_tuned_model": None,
        "finished_at": None,
        "trained_tokens": None,
        "error": None,
    }
    return world.store.put(space(account, "jobs"), job["id"], job)


def _schedule(world: World, job: Body) -> Body:
    if job["outcome"] == "stuck":
        return job
    rest = max(0.0, job["total"] - job["spent"])
    timer = world.after(rest, DUE, {"account": job["account"], "job": job["id"]})
    return {**job, "timer": timer}


# -- the end --------------------------------------------------------------------------------


def job_due(world: World, body: Body) -> None:
    """A job's time has come: it ends, well or badly."""
    job = world.store.get(space(body["account"], "jobs"), body["job"])
    if job is None or job["state"] != "active":
        return
    due = float(body.get("due") or world.clock.timestamp())
    if isinstance(job["outcome"], dict):
        world.store.put(
            space(job["account"], "jobs"),
            job["id"],
            {**job, "state": "failed", "finished_at": int(due), "error": job["outcome"]},
        )
        return
    item = world.store.get(space(job["account"], "files"), job["training_file"])
    if item is not None and item["problem"]:
        error = {"code": "jsonlValidationFailed", "message": item["problem"], "param": None}
        failed = {**job, "state": "failed", "finished_at": int(due), "error": error}
        world.store.put(space(job["account"], "jobs"), job["id"], failed)
        return
    finish(world, job, due)


def steps_of(job: Body, rows: int) -> tuple[int, int]:
    """A job's steps in one epoch, and its epochs."""
    size = max(1, int(job["hyperparameters"].get("batch_size") or 1))
    return max(1, math.ceil(rows / size)), int(job["hyperparameters"].get("n_epochs") or 3)


def metrics(job: Body, step: int, total: int) -> Body:
    """Plausible numbers of one step, the same whenever they are asked for."""
    noise = int(hashlib.sha256(f"{job['id']}|{step}".encode()).hexdigest()[:6], 16) / 0xFFFFFF
    done = step / total
    loss = round(2.4 * math.exp(-3 * done) + 0.05 + 0.05 * noise, 5)
    accuracy = round(min(0.995, 0.45 + 0.5 * done + 0.04 * noise), 5)
    shown: Body = {"step": step, "train_loss": loss, "train_mean_token_accuracy": accuracy}
    if job["validation_file"]:
        shown |= {
            "valid_loss": round(loss * 1.1, 5),
            "valid_mean_token_accuracy": round(accuracy * 0.97, 5),
            "full_valid_loss": round(loss * 1.08, 5),
            "full_valid_mean_token_accuracy": round(accuracy * 0.975, 5),
        }
    return shown


def model_id(job: Body) -> str:
    """The id of the model that a job makes."""
    tail = f"-{job['suffix']}" if job["suffix"] else ""
    return f"{job['base']}.ft-{job['hex']}{tail}"


def finish(world: World, job: Body, now: float) -> Body:
    """End a job well: its model, checkpoints and results are there. Returns the ended job."""
    account = job["account"]
    content = contents.read(world, job["lesson"])
    rows = lessons(content)
    per_epoch, epochs = steps_of(job, len(rows))
    total = per_epoch * epochs
    model, learned = model_id(job), {"lesson": job["lesson"], "base": job["base"]}
    made = {"fine_tune": job["id"], "model": job["base"], "base": job["base"]}
    world.store.put(WEIGHTS, model, learned)
    world.store.put(
        space(account, "models"),
        model,
        {"id": model, "kind": "fine-tuned", "created_at": int(now), **made},
    )
    for epoch in range(max(1, epochs - _KEPT_EPOCHS + 1), epochs + 1):
        step = per_epoch * epoch
        digest = hashlib.sha256(f"{job['hex']}|{step}".encode()).hexdigest()[:32]
        name = f"ftchkpt-{digest}"
        world.store.put(WEIGHTS, name, learned)
        world.store.put(
            space(account, "models"),
            name,
            {"id": name, "kind": "checkpoint", "created_at": int(now), **made},
        )
        world.store.put(
            space(account, "checkpoints"),
            name,
            {
                "id": name,
                "object": "fine_tuning.job.checkpoint",
                "created_at": int(now),
                "fine_tuned_model_checkpoint": name,
                "fine_tuning_job_id": job["id"],
                "step_number": step,
                "metrics": metrics(job, step, total),
            },
        )
    results = files.add(
        world,
        account,
        filename="results.csv",
        purpose="fine-tune-results",
        content=_results(job, total),
        now=now,
        seconds=0,
    )
    trained = sum(tokens(q) + tokens(a) for q, a in rows) * epochs
    ended = {
        **job,
        "state": "succeeded",
        "finished_at": int(now),
        "fine_tuned_model": model,
        "result_files": [results["id"]],
        "trained_tokens": trained,
    }
    return world.store.put(space(account, "jobs"), job["id"], ended)


def _results(job: Body, total: int) -> bytes:
    names = list(metrics(job, 1, total))
    every = max(1, total // 200)
    lines = [",".join(names)]
    for step in range(1, total + 1):
        if step % every == 0 or step == total:
            row = metrics(job, step, total)
            lines.append(",".join(str(row[name]) for name in names))
    return ("\n".join(lines) + "\n").encode()


# -- reading and steering ---------------------------------------------------------------------


def found(ask: Ask) -> Body:
    """The job that the path names. Raises DataError 404."""
    job = ask.world.store.get(ask.account_space("jobs"), ask.names["job"])
    if job is None:
        raise not_found(f"The fine-tuning job '{ask.names['job']}' was not found.")
    return job


def list_(ask: Ask) -> Answer:
    """GET /fine_tuning/jobs."""
    jobs = [
        view(job, ask.now, ask.dialect)
        for _, job in ask.world.store.items(ask.account_space("jobs"))
    ]
    return cursor_list(ask, jobs, ids=False)


def get(ask: Ask) -> Answer:
    """GET /fine_tuning/jobs/{job}."""
    return Answer(200, view(found(ask), ask.now, ask.dialect))


def _wrong_state(job: Body, verb: str, state: str) -> DataError:
    return DataError(
        409,
        "unexpectedEntityState",
        f"The fine-tuning job '{job['id']}' cannot be {verb} because its status is '{state}'.",
    )


def _steered(ask: Ask, verb: str, state: str, allowed: tuple[str, ...]) -> Answer:
    job = found(ask)
    if job["state"] not in allowed:
        raise _wrong_state(job, verb, status(job, ask.now, ask.dialect))
    if job["timer"]:
        ask.world.store.cancel_timer(job["timer"])
    spent = share(job, ask.now) * job["total"]
    changed = {**job, "state": state, "spent": spent, "began": ask.now, "timer": 0}
    if state == "cancelled":
        changed["finished_at"] = int(ask.now)
    if state == "active":
        changed = _schedule(ask.world, changed)
    ask.world.store.put(ask.account_space("jobs"), job["id"], changed)
    return Answer(200, view(changed, ask.now, ask.dialect))


def cancel(ask: Ask) -> Answer:
    """POST …/cancel."""
    return _steered(ask, "cancelled", "cancelled", ("active", "paused"))


def pause(ask: Ask) -> Answer:
    """POST …/pause."""
    return _steered(ask, "paused", "paused", ("active",))


def resume(ask: Ask) -> Answer:
    """POST …/resume."""
    files.require_key(ask)
    return _steered(ask, "resumed", "active", ("paused",))


def delete(ask: Ask) -> Answer:
    """DELETE /fine_tuning/jobs/{job}: the job goes, its model and files stay."""
    job = found(ask)
    if job["state"] not in _ENDED:
        raise _wrong_state(job, "deleted", status(job, ask.now, ask.dialect))
    ask.world.store.remove(ask.account_space("jobs"), job["id"])
    for id_, item in ask.world.store.items(ask.account_space("checkpoints")):
        if item["fine_tuning_job_id"] == job["id"]:
            ask.world.store.remove(ask.account_space("checkpoints"), id_)
    return Answer(204)


def checkpoints(ask: Ask) -> Answer:
    """GET …/checkpoints: the last epochs' of this account's own job, newest first."""
    job = found(ask)
    items = [
        item
        for _, item in ask.world.store.items(ask.account_space("checkpoints"))
        if item["fine_tuning_job_id"] == job["id"]
    ]
    return cursor_list(ask, items, default=10, ids=not ask.classic)


def events(ask: Ask) -> Answer:
    """GET …/events, newest first."""
    job = found(ask)
    now, total = ask.now, float(job["total"])
    done = share(job, now)
    began = float(job["created_at"])
    told: list[Body] = []

    def tell(at: float, message: str, level: str = "info", data: Body | None = None) -> None:
        digest = hashlib.sha256(f"{job['id']}|{len(told)}".encode()).hexdigest()[:32]
        told.append(
            {
                "id": f"ftevent-{digest}",
                "object": "fine_tuning.job.event",
                "created_at": int(at),
                "level": level,
                "message": message,
                "type": "metrics" if data else "message",
                "data": data or {},
            }
        )

    tell(began, "Job enqueued. Waiting for jobs ahead to complete.")
    if done >= _VALIDATING:
        tell(began + total * _VALIDATING, "Preprocessing completed for file training file.")
    if done >= _QUEUED:
        tell(began + total * _QUEUED, "Training started.")
    epochs = int(job["hyperparameters"].get("n_epochs") or 3)
    for step in range(1, 10):
        if job["state"] in ("active", "succeeded") and done >= 0.1 * step:
            row = metrics(job, step, 10)
            message = f"Step {step * epochs}: training loss={row['train_loss']}"
            tell(began + total * 0.1 * step, message, data=row)
    ended = float(job["finished_at"] or now)
    match job["state"]:
        case "succeeded":
            tell(ended, f"Completed results file: {job['result_files'][0]}")
            tell(ended, f"Job succeeded. Created model: {job['fine_tuned_model']}")
        case "failed":
            tell(ended, f"Job failed: {job['error']['message']}", "error")
        case "cancelled":
            tell(ended, "Job cancelled.", "warn")
        case "paused":
            tell(float(job["began"]), "Job paused.")
        case _:
            pass
    return cursor_list(ask, told, ids=False)


_JOB = "/fine_tuning/jobs/{job}"
ROUTES: tuple[Route, ...] = (
    Route("POST", "/fine_tuning/jobs", f"{_ACTION}/write", create),
    Route("GET", "/fine_tuning/jobs", f"{_ACTION}/read", list_),
    Route("GET", _JOB, f"{_ACTION}/read", get),
    Route("DELETE", _JOB, f"{_ACTION}/delete", delete, CLASSIC_ONLY),
    Route("POST", f"{_JOB}/cancel", f"{_ACTION}/write", cancel),
    Route("POST", f"{_JOB}/pause", f"{_ACTION}/write", pause, V1_ONLY),
    Route("POST", f"{_JOB}/resume", f"{_ACTION}/write", resume, V1_ONLY),
    Route("GET", f"{_JOB}/events", f"{_ACTION}/read", events),
    Route("GET", f"{_JOB}/checkpoints", f"{_ACTION}/read", checkpoints),
)
