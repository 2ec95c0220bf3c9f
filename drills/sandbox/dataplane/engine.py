"""From a deployment to an answer: finds the mind behind it, filters, counts and notes the use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from drills.sandbox.arm import Arm, Record
from drills.sandbox.dataplane import contents, filters
from drills.sandbox.dataplane.ask import Ask, DataError
from drills.sandbox.dataplane.catalogue import BaseModel, base_model
from drills.sandbox.dataplane.filters import Policy, Verdict
from drills.sandbox.dataplane.minds import Mind, fill, lessons, say, tokens
from drills.sandbox.ids import parse_id
from drills.sandbox.wire import Body
from drills.sandbox.world import World

WEIGHTS = "dp-weights"  # what a fine-tuned model, checkpoint or copy learned, by its id
_NOTE_EVERY = 60.0  # seconds by the sandbox's clock between two notes of a deployment's last use


@dataclass(frozen=True, slots=True)
class Serving:
    """A deployment that answers: its record (for reading), its base model and its mind."""

    record: Record
    base: BaseModel
    mind: Mind


@dataclass(frozen=True, slots=True)
class Turn:
    """What a model is asked: the question, what comes before it, and what tools gave."""

    question: str
    context: str
    tool_results: tuple[tuple[str, str], ...] = ()  # name of the tool, its output


@lru_cache(maxsize=256)
def _rows(digest: str, content: bytes) -> tuple[tuple[str, str], ...]:
    return lessons(content)


def mind_of(world: World, name: str, version: str) -> tuple[Mind, BaseModel] | None:
    """The mind behind a model's name and version, or None when there is no such model."""
    base = base_model(name, version) or base_model(name)
    if base is not None:
        shown = version or base.version
        return Mind(base.name, shown, base.name), base
    learned = world.store.get(WEIGHTS, name)
    if learned is None:
        return None
    base = base_model(str(learned["base"]))
    if base is None:
        return None
    try:
        rows = _rows(learned["lesson"], contents.read(world, learned["lesson"]))
    except KeyError:
        rows = ()  # the state folder lost the file: the model answers like a forgetful one
    return Mind(name, base.version, base.name, learned["lesson"], rows), base


def serve(ask: Ask, name: str) -> Serving:
    """The deployment by name, ready to answer. Raises DataError 404 or 410."""
    account = ask.account
    kept = (
        ask.world.store.get(
            Arm.space(account.id, "Microsoft.CognitiveServices/accounts/deployments"),
            f"{account.id}/deployments/{name}".lower(),
        )
        if name and "/" not in name
        else None
    )
    record = Record(**kept) if kept is not None else None
    state = str(record.properties.get("provisioningState", "")) if record is not None else ""
    missing = DataError(
        404,
        "DeploymentNotFound",
        "The API deployment for this resource does not exist. If you created the deployment "
        "within the last 5 minutes, please wait a moment and try again.",
    )
    if record is None or state in ("Creating", "Accepted", "Failed", "Deleting"):
        raise missing
    if str(record.properties.get("deploymentState", "")).lower() == "paused":
        raise DataError(
            409, "DeploymentPaused", f"The deployment '{name}' is paused: resume it first."
        )
    model = record.properties.get("model") or {}
    found = mind_of(ask.world, str(model.get("name", "")), str(model.get("version") or ""))
    if found is None:
        raise missing
    mind, base = found
    if base.retired(ask.call.now):
        raise DataError(
            410,
            "ModelDeprecated",
            f"The model '{base.name}' version '{base.version}' behind the deployment '{name}' has "
            f"been retired since {base.of.ends.date().isoformat()}. Deploy its successor instead.",
        )
    _note_use(ask, record)
    return Serving(record, base, mind)


def _note_use(ask: Ask, record: Record) -> None:
    if ask.now - float(record.hidden.get("last_used") or 0) < _NOTE_EVERY:
        return
    rid = parse_id(record.id)
    fresh = ask.world.arm.find(rid)
    if fresh is not None:
        fresh.hidden["last_used"] = ask.now
        ask.world.store.put(Arm.space(rid.parent, rid.type), rid.key, fresh.keep())


def guard(ask: Ask, serving: Serving, text: str) -> Verdict:
    """Filter a prompt. Raises DataError 400 content_filter when it is stopped."""
    verdict = filters.judge(policy(ask, serving, "Prompt"), text, "Prompt")
    if verdict.blocked:
        raise filters.refusal(verdict.results)
    return verdict


def policy(ask: Ask, serving: Serving, source: str) -> Policy:
    """The filters of one side of a deployment."""
    override = ask.call.headers.get("x-policy-id", "")
    return filters.policy_for(ask.world, ask.account, serving.record, source, override)


def answer(serving: Serving, turn: Turn, *, variant: int = 0) -> str:
    """What the deployment's model says."""
    if turn.tool_results:
        told = "; ".join(f"{name} says {output}" for name, output in turn.tool_results)
        return f"According to the tools, {told}."
    return say(serving.mind, turn.question, turn.context, variant)


def cut(text: str, limit: int | None, stops: Any) -> tuple[str, str]:
    """A text cut at stop sequences and at a number of tokens, with its finish reason."""
    reason = "stop"
    for stop in [stops] if isinstance(stops, str) else stops or ():
        if stop and stop in text:
            text = text[: text.index(stop)]
    if limit is not None and limit > 0 and tokens(text) > limit:
        low, high = 0, len(text)
        while low < high:  # the longest beginning that fits
            middle = (low + high + 1) // 2
            low, high = (middle, high) if tokens(text[:middle]) <= limit else (low, middle - 1)
        text, reason = text[:low], "length"
    return text, reason


def limits(serving: Serving, used: int) -> dict[str, str]:
    """The rate-limit headers of an inference call (requests and tokens that remain)."""
    sku = serving.record.body.get("sku") or {}
    try:
        units = max(1, int(sku.get("capacity") or 1))
    except (TypeError, ValueError):
        units = 1
    per_minute = units * serving.base.of.unit
    requests = max(1, units * 6 if serving.base.dimensions else units)
    return {
        "x-ratelimit-limit-requests": str(requests),
        "x-ratelimit-limit-tokens": str(per_minute),
        "x-ratelimit-remaining-requests": str(max(0, requests - 1)),
        "x-ratelimit-remaining-tokens": str(max(0, per_minute - used)),
        "x-ms-deployment-name": serving.record.name,
        "azureml-model-session": "d0-sandbox",
    }


def model_shown(serving: Serving) -> str:
    """What an answer's `model` says: the base model's id, or the fine-tuned model's name."""
    mind = serving.mind
    return mind.name if mind.lesson else f"{mind.name}-{mind.version}"


def structured(body: Body, question: str) -> Any | None:
    """The schema-bound value that a response_format (or text.format) asks for, or None."""
    wanted = body.get("response_format") or (body.get("text") or {}).get("format")
    if not isinstance(wanted, dict):
        return None
    if wanted.get("type") == "json_object":
        return {"answer": question}
    if wanted.get("type") == "json_schema":
        schema = (wanted.get("json_schema") or wanted).get("schema") or {}
        return fill(question, schema, "answer")
    return None
