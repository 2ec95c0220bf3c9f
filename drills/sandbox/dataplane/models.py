"""Models of an account: base models, fine-tuned ones, and the deployments that serve them."""

from __future__ import annotations

from drills.sandbox.dataplane.ask import (
    DEPLOYMENT,
    OPENAI,
    Ask,
    DataError,
    Route,
    not_found,
    space,
)
from drills.sandbox.dataplane.catalogue import BASE_MODELS, base_model
from drills.sandbox.wire import Answer, Body
from drills.sandbox.world import World


def model_view(item: Body) -> Body:
    """What `GET /models` shows of a fine-tuned model."""
    base = base_model(item["model"])
    shown = base.view() if base else {"capabilities": {}, "deprecation": {"inference": 0}}
    shown.pop("status", None)
    return {
        "status": "succeeded",
        **shown,
        "model": item["model"],
        "fine_tune": item["fine_tune"],
        "id": item["id"],
        "created_at": item["created_at"],
        "object": "model",
        "capabilities": {**shown["capabilities"], "fine_tune": bool(base)},
    }


def _shown(ask: Ask, view: Body) -> Body:
    if ask.classic:
        return view
    owner = "openai" if "fine_tune" not in view else "user"
    return {**view, "created": view["created_at"], "owned_by": owner}


def list_(ask: Ask) -> Answer:
    """GET /models: base models, then the account's own; copies of checkpoints do not show."""
    views = [_shown(ask, model.view()) for model in BASE_MODELS]
    for _, item in ask.world.store.items(ask.account_space("models")):
        if item["kind"] == "fine-tuned":
            views.append(_shown(ask, model_view(item)))
    return Answer(200, {"data": views, "object": "list"})


def get(ask: Ask) -> Answer:
    """GET /models/{model}."""
    name = ask.names["model"]
    item = ask.world.store.get(ask.account_space("models"), name)
    if item is not None and item["kind"] == "fine-tuned":
        return Answer(200, _shown(ask, model_view(item)))
    base = base_model(name)
    if base is None or base.id != name:
        raise not_found(f"The model '{name}' was not found.")
    return Answer(200, _shown(ask, base.view()))


def delete(ask: Ask) -> Answer:
    """DELETE /models/{model}: only the account's own, and not while it is deployed."""
    name = ask.names["model"]
    item = ask.world.store.get(ask.account_space("models"), name)
    if item is None:
        if base_model(name) is not None:
            raise DataError(403, "forbidden", f"The base model '{name}' cannot be deleted.")
        raise not_found(f"The model '{name}' was not found.")
    used = deployments_of(ask.world, ask.account.id, name)
    if used:
        raise DataError(
            409,
            "conflict",
            f"The model '{name}' cannot be deleted because it is deployed ('{used[0]}'). "
            "Delete its deployments first.",
        )
    ask.world.store.remove(ask.account_space("models"), name)
    if ask.classic:
        return Answer(204)
    return Answer(200, {"id": name, "object": "model", "deleted": True})


def deployments_of(world: World, account: str, model: str) -> list[str]:
    """The names of an account's deployments that serve a model."""
    return [
        record.name
        for record in world.arm.children(account, DEPLOYMENT)
        if (record.properties.get("model") or {}).get("name") == model
    ]


def own_model(world: World, account: str, name: str) -> Body | None:
    """A fine-tuned model, checkpoint or copy that an account can deploy, by its exact id."""
    return world.store.get(space(account, "models"), name)


def list_deployments(ask: Ask) -> Answer:
    """GET /deployments: the old read-only view of the account's deployments."""
    data = [
        _deployment(record.name, record.properties, record.system)
        for record in ask.world.arm.children(ask.account.id, DEPLOYMENT)
    ]
    return Answer(200, {"data": data, "object": "list"})


def get_deployment(ask: Ask) -> Answer:
    """GET /deployments/{deployment}."""
    record = ask.world.arm.find(f"{ask.account.id}/deployments/{ask.names['deployment']}")
    if record is None:
        raise not_found(f"The deployment '{ask.names['deployment']}' was not found.")
    return Answer(200, _deployment(record.name, record.properties, record.system))


def _deployment(name: str, properties: Body, system: Body) -> Body:
    model = properties.get("model") or {}
    return {
        "id": name,
        "object": "deployment",
        "model": model.get("name", ""),
        "owner": "organization-owner",
        "status": str(properties.get("provisioningState", "")).lower(),
        "created_at": system.get("createdAt", ""),
        "scale_settings": {"scale_type": "standard"},
    }


ROUTES: tuple[Route, ...] = (
    Route("GET", "/models", f"{OPENAI}/models/read", list_),
    Route("GET", "/models/{model}", f"{OPENAI}/models/read", get),
    Route("DELETE", "/models/{model}", f"{OPENAI}/models/delete", delete),
    Route("GET", "/deployments", f"{OPENAI}/deployments/read", list_deployments),
    Route("GET", "/deployments/{deployment}", f"{OPENAI}/deployments/read", get_deployment),
)
