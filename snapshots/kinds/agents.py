"""The data plane of a Foundry project: agents with versions, and threads when asked for."""

from __future__ import annotations

from collections.abc import Mapping

from snapshots.cloud.place import Cursor, Plane
from snapshots.kinds.base import By, Comeback, Flow, Fold, Kind, Location, Reference, Way
from snapshots.kinds.fields import Default, Fields, Items
from snapshots.kinds.projects import project_endpoint
from snapshots.model import Json, JsonObject, Recovery

_V1 = {"api-version": "v1", "limit": "100"}
_AGENT_DR = "https://learn.microsoft.com/azure/ai-foundry/how-to/agent-service-disaster-recovery"


def _name(wire: Mapping[str, Json]) -> str:
    return str(wire.get("name") or wire.get("id") or "")


def _versions(wire: JsonObject) -> JsonObject:
    """`versions` of the listing is {"latest": …}; the fold brought the list of all of them."""
    versions = wire.get("versions")
    return wire if isinstance(versions, list) else {**wire, "versions": []}


AGENT = Kind(
    name="agent",
    title="agents with versions",
    parent="project",
    plane=Plane.FOUNDRY,
    endpoint=project_endpoint,
    needs=(
        "deployment",
        "project-connection",
        "project-capability-host",
        "project-vector-store",
        "project-file",
        "vector-store",
        "file",
    ),
    location=Location(path="/agents", params=_V1, items="data", cursor=Cursor.FOUNDRY_AFTER),
    named=_name,
    shape=_versions,
    folds=(
        Fold(
            into="versions",
            location=Location(
                path="/agents/{name}/versions",
                params=_V1,
                items="data",
                cursor=Cursor.FOUNDRY_AFTER,
            ),
        ),
    ),
    fields=Fields(
        volatile=(
            "state",
            "state_source",
            "instance_identity",
            "blueprint",
            "blueprint_reference",
            "created_at",
            "versions[].object",
            "versions[].id",
            "versions[].name",
            "versions[].created_at",
            "versions[].status",
            "versions[].instance_identity",
            "versions[].blueprint",
            "versions[].blueprint_reference",
            "versions[].agent_guid",
        ),
        secret=(
            "versions[].definition.tools[].headers",
            "versions[].definition.tools[].authorization",
        ),
        items=(
            Items("versions", ("version",)),
            Items("versions[].definition.tools[].vector_store_ids"),
            Items("versions[].definition.tools[].container.file_ids"),
        ),
        defaults=(
            Default("configuration_state", "enabled"),
            Default("versions[].metadata", {}),
            Default("versions[].description", ""),
            Default("versions[].draft", value=False),
            Default("versions[].definition.tools", []),
        ),
        verbatim=(
            "versions[].definition.tools[].parameters",
            "versions[].definition.tools[].function.parameters",
            "versions[].definition.tools[].openapi.spec",
            "versions[].definition.text",
            "versions[].definition.structured_inputs",
        ),
    ),
    references=(
        Reference("versions[].definition.model", "deployment", By.NAME, Flow.IN),
        Reference(
            "versions[].definition.tools[].vector_store_ids[]",
            "project-vector-store",
            By.ID,
            Flow.IN,
            or_kinds=("vector-store",),
        ),
        Reference(
            "versions[].definition.tools[].container.file_ids[]",
            "project-file",
            By.ID,
            Flow.IN,
            or_kinds=("file",),
        ),
        Reference(
            "versions[].definition.tools[].project_connection_id", "project-connection", By.NAME
        ),
        Reference("versions[].definition.rai_config.rai_policy_name", "rai-policy", By.NAME),
    ),
    way=Way.POST,
    comeback=Comeback(
        Recovery.RECREATED,
        "Made again from its definition, with a new id; \"Agent Service doesn't provide built-in "
        "disaster recovery capabilities. It doesn't replicate state, create backups, or support "
        'point-in-time restore."',
        _AGENT_DR,
    ),
)

THREAD = Kind(
    name="thread",
    title="threads (conversations)",
    parent="project",
    plane=Plane.FOUNDRY,
    endpoint=project_endpoint,
    optional=True,
    location=Location(path="/threads", params=_V1, items="data", cursor=Cursor.FOUNDRY_AFTER),
    named=lambda wire: str(wire.get("id") or ""),
    folds=(
        Fold(
            into="messages",
            location=Location(
                path="/threads/{id}/messages",
                params=_V1,
                items="data",
                cursor=Cursor.FOUNDRY_AFTER,
            ),
        ),
    ),
    fields=Fields(
        volatile=("messages[].object", "messages[].thread_id"),
        items=(Items("messages", ("created_at", "id")),),
        defaults=(Default("metadata", {}), Default("tool_resources", {})),
    ),
    way=Way.NEVER,
    comeback=Comeback(
        Recovery.LOST,
        "Recorded when asked for, and never brought back: \"Microsoft Support can't recover "
        'orphaned data, migrate data between projects, or combine state."',
        _AGENT_DR,
    ),
)
