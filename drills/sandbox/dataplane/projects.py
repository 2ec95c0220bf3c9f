"""A Foundry project's own endpoint: agents, connections, deployments, datasets and indexes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from drills.sandbox.arm import Arm, Record
from drills.sandbox.dataplane import responses
from drills.sandbox.dataplane.ask import (
    DEPLOYMENT,
    FOUNDRY_ONLY,
    SERVICES,
    Ask,
    DataError,
    Handler,
    Route,
    checked_metadata,
    cursor_list,
    space,
)
from drills.sandbox.dataplane.catalogue import base_model
from drills.sandbox.dataplane.engine import mind_of
from drills.sandbox.wire import Answer, Body
from drills.sandbox.world import World

_NAME = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")
_VERSION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$")
_KINDS = ("prompt", "hosted", "workflow", "external", "voice")


def _bad(message: str, *, param: str | None = None) -> DataError:
    return DataError(400, "invalid_request_error", message, param=param)


def _missing(what: str, name: str) -> DataError:
    return DataError(404, "not_found", f"{what} '{name}' was not found.")


# -- agents -------------------------------------------------------------------------------------


def put_version(
    world: World,
    owner: str,
    name: str,
    definition: Body,
    *,
    now: float,
    description: str | None = None,
    metadata: dict[str, str] | None = None,
    draft: bool = False,
) -> Body:
    """Add a version to an agent (made when it is not there) and return the version."""
    where = space(owner, "agents")
    agent = world.store.get(where, name) or {
        "name": name,
        "guid": world.guid(),  # a recreated agent is another one, even under the same name
        "state": "enabled",
        "next": 1,
        "agent_endpoint": None,
        "agent_card": None,
        "versions": [],
    }
    number = str(agent["next"])
    version: Body = {
        "object": "agent.version",
        "id": f"{name}:{number}",
        "name": name,
        "version": number,
        "description": description or "",
        "metadata": metadata or {},
        "created_at": int(now),
        "definition": definition,
        "status": "active",
        "draft": draft,
        "agent_guid": agent["guid"],
    }
    changed = {**agent, "next": agent["next"] + 1, "versions": [*agent["versions"], version]}
    world.store.put(where, name, changed)
    return version


def _agent_view(agent: Body) -> Body:
    released = [v for v in agent["versions"] if not v["draft"]] or agent["versions"]
    shown: Body = {
        "object": "agent",
        "id": agent["name"],
        "name": agent["name"],
        "state": agent["state"],
        "configuration_state": agent["state"],
        "versions": {"latest": released[-1]},
    }
    for name in ("agent_endpoint", "agent_card"):
        if agent[name] is not None:
            shown[name] = agent[name]
    return shown


def _agent(ask: Ask) -> Body:
    name = ask.names["agent"]
    agent = ask.world.store.get(ask.space("agents"), name)
    if agent is None:
        raise _missing("Agent", name)
    return agent


def _definition(body: Body) -> Body:
    definition = body.get("definition")
    if not isinstance(definition, dict):
        raise _bad("Missing required parameter: 'definition'.", param="definition")
    kind = definition.get("kind")
    if kind not in _KINDS:
        raise _bad(f"'definition.kind' is one of {', '.join(_KINDS)}.", param="definition.kind")
    if kind != "prompt":
        raise DataError(
            501,
            "SandboxUnsupported",
            f"This sandbox plays agents of the kind 'prompt' only, not '{kind}'.",
        )
    if not isinstance(definition.get("model"), str) or not definition["model"]:
        raise _bad("Missing required parameter: 'definition.model'.", param="definition.model")
    tools = definition.get("tools") or []
    if not isinstance(tools, list) or any(
        not isinstance(tool, dict) or not tool.get("type") for tool in tools
    ):
        raise _bad("Every tool needs a 'type'.", param="definition.tools")
    return definition


def _add(ask: Ask, name: str, body: Body) -> Body:
    if not _NAME.match(name):
        raise _bad(
            f"Invalid agent name '{name}': letters, digits and hyphens in the middle, at most 63.",
            param="name",
        )
    definition = _definition(body)
    return put_version(
        ask.world,
        ask.owner,
        name,
        definition,
        now=ask.now,
        description=body.get("description"),
        metadata=checked_metadata(body),
        draft=bool(body.get("draft", False)),
    )


def list_agents(ask: Ask) -> Answer:
    """GET /agents."""
    views = [_agent_view(agent) for _, agent in ask.world.store.items(ask.space("agents"))]
    if kind := ask.call.parameter("kind"):
        views = [v for v in views if v["versions"]["latest"]["definition"]["kind"] == kind]
    return cursor_list(ask, views)


def create_agent(ask: Ask) -> Answer:
    """POST /agents."""
    body = ask.body()
    name = ask.text(body, "name")
    if ask.world.store.get(ask.space("agents"), name) is not None:
        raise DataError(409, "conflict", f"Agent '{name}' already exists.")
    _add(ask, name, body)
    return Answer(200, _agent_view(ask.world.store.get(ask.space("agents"), name) or {}))


def get_agent(ask: Ask) -> Answer:
    """GET /agents/{agent}."""
    return Answer(200, _agent_view(_agent(ask)))


def update_agent(ask: Ask) -> Answer:
    """POST /agents/{agent}: a new version when the definition differs from the latest."""
    agent, body = _agent(ask), ask.body()
    if _definition(body) != agent["versions"][-1]["definition"]:
        _add(ask, agent["name"], body)
    return Answer(200, _agent_view(_agent(ask)))


def patch_agent(ask: Ask) -> Answer:
    """PATCH /agents/{agent}: what belongs to no version (its endpoint and its card)."""
    changed, body = dict(_agent(ask)), ask.body()
    for name in ("agent_endpoint", "agent_card"):
        if name in body:
            changed[name] = body[name]
    ask.world.store.put(ask.space("agents"), changed["name"], changed)
    return Answer(200, _agent_view(changed))


def delete_agent(ask: Ask) -> Answer:
    """DELETE /agents/{agent}: with all versions; nothing brings it back under the same identity."""
    name = _agent(ask)["name"]
    ask.world.store.remove(ask.space("agents"), name)
    return Answer(200, {"object": "agent.deleted", "name": name, "deleted": True})


def _switch(state: str) -> Handler:
    def switch(ask: Ask) -> Answer:
        changed = {**_agent(ask), "state": state}
        ask.world.store.put(ask.space("agents"), changed["name"], changed)
        return Answer(204)

    return switch


def list_versions(ask: Ask) -> Answer:
    """GET /agents/{agent}/versions."""
    versions = _agent(ask)["versions"]
    if ask.call.parameter("include_drafts").lower() != "true":
        versions = [v for v in versions if not v["draft"]]
    return cursor_list(ask, versions)


def create_version(ask: Ask) -> Answer:
    """POST /agents/{agent}/versions: makes the agent too."""
    return Answer(200, _add(ask, ask.names["agent"], ask.body()))


def _version(ask: Ask, agent: Body) -> Body:
    wanted = ask.names["version"]
    for version in agent["versions"]:
        if version["version"] == wanted:
            return dict(version)
    raise _missing("Agent version", f"{agent['name']}:{wanted}")


def get_version(ask: Ask) -> Answer:
    """GET /agents/{agent}/versions/{version}."""
    return Answer(200, _version(ask, _agent(ask)))


def delete_version(ask: Ask) -> Answer:
    """DELETE /agents/{agent}/versions/{version}; with the last one the agent goes too."""
    agent = _agent(ask)
    gone = _version(ask, agent)
    rest = [v for v in agent["versions"] if v["version"] != gone["version"]]
    if rest:
        ask.world.store.put(ask.space("agents"), agent["name"], {**agent, "versions": rest})
    else:
        ask.world.store.remove(ask.space("agents"), agent["name"])
    shown = {"name": agent["name"], "version": gone["version"], "deleted": True}
    return Answer(200, {"object": "agent.version.deleted", **shown})


# -- deployments ----------------------------------------------------------------------------------


def _deployment_view(world: World, record: Record) -> Body:
    model = record.properties.get("model") or {}
    name, version = str(model.get("name", "")), str(model.get("version") or "")
    found = mind_of(world, name, version)
    base = found[1] if found else base_model(name, version)
    sku = record.body.get("sku") or {}
    return {
        "type": "ModelDeployment",
        "name": record.name,
        "modelName": name,
        "modelVersion": version,
        "modelPublisher": str(model.get("publisher") or model.get("format") or "OpenAI"),
        "capabilities": {
            key: "true"
            for key, can in (
                ("chat_completion", base is not None and base.chat),
                ("embeddings", base is not None and base.dimensions > 0),
            )
            if can
        },
        "sku": {
            "name": sku.get("name", ""),
            "capacity": sku.get("capacity", 0),
            "family": sku.get("family", ""),
            "size": sku.get("size", ""),
            "tier": sku.get("tier", ""),
        },
    }


def list_deployments(ask: Ask) -> Answer:
    """GET /deployments."""
    records = ask.world.arm.children(ask.account.id, DEPLOYMENT)
    views = [_deployment_view(ask.world, record) for record in records]
    for parameter, key in (("modelName", "modelName"), ("modelPublisher", "modelPublisher")):
        if wanted := ask.call.parameter(parameter):
            views = [view for view in views if view[key] == wanted]
    return Answer(200, {"value": views})


def get_deployment(ask: Ask) -> Answer:
    """GET /deployments/{name}."""
    record = ask.world.arm.find(f"{ask.account.id}/deployments/{ask.names['name']}")
    if record is None:
        raise _missing("Deployment", ask.names["name"])
    return Answer(200, _deployment_view(ask.world, record))


# -- connections ----------------------------------------------------------------------------------


def _connections(ask: Ask) -> Iterable[Record]:
    """The project's own connections, then those that the account shares with all projects."""
    seen: set[str] = set()
    for owner, type_ in (
        (ask.owner, "Microsoft.CognitiveServices/accounts/projects/connections"),
        (ask.account.id, "Microsoft.CognitiveServices/accounts/connections"),
    ):
        for _, kept in ask.world.store.items(Arm.space(owner, type_)):
            record = Record(**kept)
            if owner != ask.owner and record.properties.get("isSharedToAll") is False:
                continue
            if record.name.lower() not in seen:
                seen.add(record.name.lower())
                yield record


def _connection_view(record: Record, *, secrets: bool) -> Body:
    properties = record.properties
    auth = str(properties.get("authType") or "None")
    credentials: Body = {"type": auth}
    if secrets:
        kept: Any = record.hidden.get("credentials") or {}
        # custom keys stand beside the type, as the projects package reads them
        credentials = {**(kept.get("keys", {}) if auth == "CustomKeys" else kept), "type": auth}
    return {
        "name": record.name,
        "id": record.id,
        "type": properties.get("category"),
        "target": properties.get("target") or "",
        "isDefault": bool(properties.get("isDefault", False)),
        "credentials": credentials,
        "metadata": properties.get("metadata") or {},
    }


def list_connections(ask: Ask) -> Answer:
    """GET /connections."""
    views = [_connection_view(record, secrets=False) for record in _connections(ask)]
    if wanted := ask.call.parameter("connectionType"):
        views = [view for view in views if str(view["type"]).lower() == wanted.lower()]
    if default := ask.call.parameter("defaultConnection"):
        views = [view for view in views if view["isDefault"] is (default.lower() == "true")]
    return Answer(200, {"value": views})


def _connection(ask: Ask) -> Record:
    wanted = ask.names["name"].lower()
    for record in _connections(ask):
        if record.name.lower() == wanted:
            return record
    raise _missing("Connection", ask.names["name"])


def get_connection(ask: Ask) -> Answer:
    """GET /connections/{name}: without its secrets."""
    return Answer(200, _connection_view(_connection(ask), secrets=False))


def get_with_credentials(ask: Ask) -> Answer:
    """POST /connections/{name}/getConnectionWithCredentials: the one way to read the secrets."""
    return Answer(200, _connection_view(_connection(ask), secrets=True))


# -- datasets and indexes -------------------------------------------------------------------------


def _key(name: str, version: str) -> str:
    return f"{name}/{version}"


def put_asset(
    world: World, project: Record, what: str, *, name: str, version: str, body: Body
) -> tuple[Body, bool]:
    """Keep a version of a dataset or index; returns it and whether it is new."""
    where = space(project.id, what)
    before = world.store.get(where, _key(name, version))
    names = project.rid.names
    part = "data" if what == "datasets" else "indexes"
    fixed = {
        "id": f"azureai://accounts/{names[0]}/projects/{names[1]}/{part}/{name}/versions/{version}",
        "name": name,
        "version": version,
    }
    kept = {**(before or {}), **body, **fixed}
    if what == "datasets":
        kept.setdefault("isReference", True)
    world.store.put(where, _key(name, version), kept)
    return kept, before is None


def _assets(what: str) -> tuple[Route, ...]:
    label = "Dataset" if what == "datasets" else "Index"

    def found(ask: Ask) -> Body:
        name, version = ask.names["name"], ask.names["version"]
        item = ask.world.store.get(ask.space(what), _key(name, version))
        if item is None:
            raise _missing(f"{label} version", f"{name}:{version}")
        return item

    def newest(ask: Ask) -> Answer:
        latest = {item["name"]: item for _, item in ask.world.store.items(ask.space(what))}
        return Answer(200, {"value": list(latest.values())})

    def versions(ask: Ask) -> Answer:
        name = ask.names["name"]
        items = [i for _, i in ask.world.store.items(ask.space(what)) if i["name"] == name]
        return Answer(200, {"value": items[::-1]})

    def get(ask: Ask) -> Answer:
        return Answer(200, found(ask))

    def write(ask: Ask) -> Answer:
        name, version, body = ask.names["name"], ask.names["version"], ask.body()
        if not _VERSION.match(name) or not _VERSION.match(version):
            raise _bad(f"Invalid name or version: '{name}', '{version}'.")
        before = ask.world.store.get(ask.space(what), _key(name, version))
        if before is None and not body.get("type"):
            raise _bad("Missing required parameter: 'type'.", param="type")
        if before is not None and what == "datasets":
            fixed = body.get("dataUri", before.get("dataUri")) == before.get("dataUri")
            if not fixed:
                raise DataError(409, "conflict", "A dataset version cannot change its data.")
        if ask.project is None:
            raise _missing("Project", "")
        item, new = put_asset(ask.world, ask.project, what, name=name, version=version, body=body)
        return Answer(201 if new else 200, item)

    def delete(ask: Ask) -> Answer:
        ask.world.store.remove(ask.space(what), _key(ask.names["name"], ask.names["version"]))
        return Answer(204)

    one, action = f"/{what}/{{name}}/versions/{{version}}", f"{SERVICES}/{what}"
    table: tuple[tuple[str, str, str, Callable[[Ask], Answer]], ...] = (
        ("GET", f"/{what}", "read", newest),
        ("GET", f"/{what}/{{name}}/versions", "read", versions),
        ("GET", one, "read", get),
        ("PATCH", one, "write", write),
        ("DELETE", one, "delete", delete),
    )
    return tuple(Route(m, t, f"{action}/{v}", h, FOUNDRY_ONLY) for m, t, v, h in table)


_A, _C = f"{SERVICES}/agents", f"{SERVICES}/connections"
_ONE = "/agents/{agent}"
_RAW: tuple[tuple[str, str, str, Handler], ...] = (
    ("GET", "/agents", f"{_A}/read", list_agents),
    ("POST", "/agents", f"{_A}/write", create_agent),
    ("POST", "/agents/{agent}:enable", f"{_A}/write", _switch("enabled")),
    ("POST", "/agents/{agent}:disable", f"{_A}/write", _switch("disabled")),
    ("GET", _ONE, f"{_A}/read", get_agent),
    ("POST", _ONE, f"{_A}/write", update_agent),
    ("PATCH", _ONE, f"{_A}/write", patch_agent),
    ("DELETE", _ONE, f"{_A}/delete", delete_agent),
    ("GET", f"{_ONE}/versions", f"{_A}/read", list_versions),
    ("POST", f"{_ONE}/versions", f"{_A}/write", create_version),
    ("GET", f"{_ONE}/versions/{{version}}", f"{_A}/read", get_version),
    ("DELETE", f"{_ONE}/versions/{{version}}", f"{_A}/delete", delete_version),
    ("POST", f"{_ONE}/endpoint/protocols/openai/responses", f"{_A}/write", responses.create),
    ("GET", "/deployments", f"{SERVICES}/deployments/read", list_deployments),
    ("GET", "/deployments/{name}", f"{SERVICES}/deployments/read", get_deployment),
    ("GET", "/connections", f"{_C}/read", list_connections),
    ("GET", "/connections/{name}", f"{_C}/read", get_connection),
    (
        "POST",
        "/connections/{name}/getConnectionWithCredentials",
        f"{_C}/listsecrets/action",
        get_with_credentials,
    ),
)
ROUTES: tuple[Route, ...] = (
    *(Route(method, path, action, do, FOUNDRY_ONLY) for method, path, action, do in _RAW),
    *_assets("datasets"),
    *_assets("indexes"),
)
