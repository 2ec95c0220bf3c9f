"""Foundry projects, connections and capability hosts."""

from __future__ import annotations

from snapshots.kinds.accounts import API, has_projects, properties
from snapshots.kinds.base import By, Comeback, Kind, Location, Parent, Reference, own_name
from snapshots.kinds.fields import Default, Fields, Items
from snapshots.model import JsonObject, Recovery

_AGENT_DR = "https://learn.microsoft.com/azure/ai-foundry/how-to/agent-service-disaster-recovery"


def _bare_name(wire: JsonObject) -> JsonObject:
    """The wire says account/project (recorded 2025-10-24); documentation shows the bare name."""
    return {**wire, "name": own_name(wire)}


def project_endpoint(parent: Parent) -> str:
    """Give the base URL of a project's data plane, "" while it has none."""
    endpoints = properties(parent.wire).get("endpoints")
    if not isinstance(endpoints, dict):
        return ""
    named = endpoints.get("AI Foundry API") or next(iter(endpoints.values()), "")
    return str(named or "").rstrip("/")


PROJECT = Kind(
    name="project",
    title="Foundry projects",
    parent="account",
    needs=("account-connection", "account-capability-host"),
    applies=has_projects,
    location=Location(path="{id}/projects", params=API),
    shape=_bare_name,
    fields=Fields(
        volatile=(
            "kind",
            "identity.tenantId",
            "identity.userAssignedIdentities.*.principalId",
            "identity.userAssignedIdentities.*.clientId",
            "properties.endpoints",
            "properties.internalId",
        ),
        read_only=("identity.principalId", "properties.isDefault"),
        defaults=(
            Default("properties.description", ""),
            Default("properties.isDefault", value=False),
        ),
    ),
    references=(Reference("identity.principalId", "project", By.PRINCIPAL),),
    comeback=Comeback(
        Recovery.RESTORED,
        "Made again by name, the default project first; a project has no soft delete, and its "
        'threads and files are lost: "One project can\'t use the data of another project."',
        _AGENT_DR,
    ),
)

_CONNECTION = Fields(
    volatile=(
        "properties.createdByWorkspaceArmId",
        "properties.group",
        "properties.error",
        "properties.peStatus",
        "properties.isDefault",
    ),
    # null in every answer of Azure so far; should that change, nothing leaks.
    secret=("properties.credentials",),
    items=(Items("properties.sharedUserList"),),
    defaults=(
        Default("properties.sharedUserList", []),
        Default("properties.metadata", {}),
        Default("properties.useWorkspaceManagedIdentity", value=False),
        Default("properties.peRequirement", "NotRequired"),
    ),
    case_insensitive=("properties.metadata.ResourceId", "properties.metadata.resourceId"),
)
_CONNECTION_REFERENCES = (
    Reference("properties.target", ""),
    Reference("properties.metadata.ResourceId", ""),
    Reference("properties.metadata.resourceId", ""),
)
_NO_CREDENTIALS = (
    "Made again by name; Azure never gives the credentials back, so they are asked from Key Vault "
    "or the environment."
)
_CONNECTIONS = "https://learn.microsoft.com/azure/ai-foundry/how-to/connections-add"

ACCOUNT_CONNECTION = Kind(
    name="account-connection",
    title="account connections",
    parent="account",
    applies=has_projects,
    location=Location(path="{id}/connections", params=API),
    fields=_CONNECTION,
    references=_CONNECTION_REFERENCES,
    comeback=Comeback(Recovery.RESTORED, _NO_CREDENTIALS, _CONNECTIONS),
)

PROJECT_CONNECTION = Kind(
    name="project-connection",
    title="project connections",
    parent="project",
    location=Location(path="{id}/connections", params=API),
    fields=_CONNECTION,
    references=_CONNECTION_REFERENCES,
    comeback=Comeback(Recovery.RESTORED, _NO_CREDENTIALS, _CONNECTIONS),
)

_CAPABILITY_HOST = Fields(
    items=(
        Items("properties.storageConnections"),
        Items("properties.vectorStoreConnections"),
        Items("properties.threadStorageConnections"),
        Items("properties.aiServicesConnections"),
    ),
    defaults=(
        Default("properties.storageConnections", []),
        Default("properties.vectorStoreConnections", []),
        Default("properties.threadStorageConnections", []),
        Default("properties.aiServicesConnections", []),
        Default("properties.tags", {}),
    ),
    case_insensitive=("properties.customerSubnet",),
)
_LISTS = (
    "properties.storageConnections[]",
    "properties.vectorStoreConnections[]",
    "properties.threadStorageConnections[]",
    "properties.aiServicesConnections[]",
)
_HOST_LOST = (
    "Made again by name with the same connections; resetting a capability host is "
    '"complete state loss of the project", and stores are keyed to a project\'s own id.'
)

ACCOUNT_CAPABILITY_HOST = Kind(
    name="account-capability-host",
    title="account capability hosts",
    parent="account",
    needs=("account-connection",),
    applies=has_projects,
    location=Location(path="{id}/capabilityHosts", params=API),
    fields=_CAPABILITY_HOST,
    references=(
        *(Reference(path, "account-connection", By.NAME) for path in _LISTS),
        Reference("properties.customerSubnet", ""),
    ),
    comeback=Comeback(Recovery.RESTORED, _HOST_LOST, _AGENT_DR),
)

PROJECT_CAPABILITY_HOST = Kind(
    name="project-capability-host",
    title="project capability hosts",
    parent="project",
    needs=("project-connection", "account-capability-host"),
    location=Location(path="{id}/capabilityHosts", params=API),
    fields=_CAPABILITY_HOST,
    references=tuple(Reference(path, "project-connection", By.NAME) for path in _LISTS),
    comeback=Comeback(Recovery.RESTORED, _HOST_LOST, _AGENT_DR),
)
