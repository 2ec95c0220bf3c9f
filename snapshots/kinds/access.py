"""Who may do what, what is locked and what is logged: role assignments, locks, diagnostics."""

from __future__ import annotations

from collections.abc import Mapping

from snapshots.kinds.accounts import properties
from snapshots.kinds.base import (
    SUBSCRIPTION,
    By,
    Comeback,
    Kind,
    Location,
    Parent,
    Reference,
    own_name,
)
from snapshots.kinds.fields import Default, Fields, Items
from snapshots.model import Json, Recovery

_ACCOUNT = ("providers", "microsoft.cognitiveservices", "accounts")


def scope_names(scope: str) -> tuple[str, ...]:
    """Give the names of what an ARM id stands for, as keys have them.

    A subscription is (id,), a group (id, group), an account (id, group, account), a project one
    more. Any other resource is (id, group, "provider/type/name"). What lies above subscriptions
    (management groups, the tenant) is ().
    """
    parts = scope.strip("/").lower().split("/")
    if len(parts) < 2 or parts[0] != "subscriptions":
        return ()
    if len(parts) < 4 or parts[2] != "resourcegroups":
        rest = "/".join(parts[3:])
        return (parts[1], rest) if rest else (parts[1],)
    names: tuple[str, ...] = (parts[1], parts[3])
    rest_parts = parts[4:]
    if not rest_parts:
        return names
    if tuple(rest_parts[:3]) == _ACCOUNT and len(rest_parts) > 3:
        names, rest_parts = (*names, rest_parts[3]), rest_parts[4:]
        if rest_parts[:1] == ["projects"] and len(rest_parts) > 1:
            names, rest_parts = (*names, rest_parts[1]), rest_parts[2:]
        return (*names, "/".join(rest_parts)) if rest_parts else names
    return (*names, "/".join(rest_parts[1:]))


def _scope_of(wire: Mapping[str, Json]) -> str:
    scope = properties(wire).get("scope")
    if isinstance(scope, str):
        return scope
    id_ = str(wire.get("id", ""))
    return id_[: max(id_.lower().rfind("/providers/microsoft.authorization/"), 0)]


def _path(_parent: Parent, wire: Mapping[str, Json]) -> tuple[str, ...]:
    return (*scope_names(_scope_of(wire)), own_name(wire).lower())


def _in_subscription(parent: Parent, wire: Mapping[str, Json]) -> bool:
    """A subscription's list also holds what is inherited from management groups: not ours."""
    return scope_names(_scope_of(wire))[:1] == (parent.subscription,)


_EVERYTHING_ELSE = (
    "account",
    "project",
    "deployment",
    "agent",
    "project-capability-host",
    "project-connection",
    "outbound-rule",
    "private-endpoint-connection",
    "assistant",
    "encryption-scope",
    "defender-setting",
    "commitment-plan",
)

DIAGNOSTIC_SETTING = Kind(
    name="diagnostic-setting",
    title="diagnostic settings",
    parent="account",
    location=Location(
        path="{id}/providers/Microsoft.Insights/diagnosticSettings",
        params={"api-version": "2021-05-01-preview"},
    ),
    fields=Fields(
        volatile=("kind", "identity", "location"),
        items=(
            Items("properties.logs", ("category", "categoryGroup")),
            Items("properties.metrics", ("category", "timeGrain")),
        ),
        defaults=(
            Default("properties.logs", []),
            Default("properties.metrics", []),
            Default("properties.logs[].retentionPolicy", {"days": 0, "enabled": False}),
            Default("properties.metrics[].retentionPolicy", {"days": 0, "enabled": False}),
        ),
        case_insensitive=(
            "properties.workspaceId",
            "properties.storageAccountId",
            "properties.eventHubAuthorizationRuleId",
            "properties.serviceBusRuleId",
            "properties.marketplacePartnerId",
        ),
    ),
    references=(
        Reference("properties.workspaceId", ""),
        Reference("properties.storageAccountId", ""),
        Reference("properties.eventHubAuthorizationRuleId", ""),
        Reference("properties.serviceBusRuleId", ""),
        Reference("properties.marketplacePartnerId", ""),
    ),
    comeback=Comeback(
        Recovery.RESTORED,
        "Set again by name; what was logged stays where it was sent.",
        "https://learn.microsoft.com/rest/api/monitor/diagnostic-settings",
    ),
)

ROLE_ASSIGNMENT = Kind(
    name="role-assignment",
    title="role assignments",
    parent=SUBSCRIPTION,
    needs=("diagnostic-setting", *_EVERYTHING_ELSE),
    location=Location(
        path="/subscriptions/{subscription}/providers/Microsoft.Authorization/roleAssignments",
        params={"api-version": "2022-04-01"},
    ),
    path_of=_path,
    attached=True,
    keeps=_in_subscription,
    fields=Fields(
        volatile=(
            "properties.createdOn",
            "properties.updatedOn",
            "properties.createdBy",
            "properties.updatedBy",
        ),
        defaults=(Default("properties.description", ""), Default("properties.condition", "")),
        case_insensitive=(
            "name",
            "properties.scope",
            "properties.roleDefinitionId",
            "properties.principalId",
        ),
    ),
    references=(
        Reference("properties.scope", ""),
        Reference("properties.roleDefinitionId", ""),
        Reference("properties.principalId", "", By.PRINCIPAL),
    ),
    comeback=Comeback(
        Recovery.RESTORED,
        "Made again under the same GUID; system-assigned identities have new principals after "
        "their resource is made again, and the assignment is rewritten to them.",
        "https://learn.microsoft.com/rest/api/authorization/role-assignments",
    ),
)

LOCK = Kind(
    name="lock",
    title="locks",
    parent=SUBSCRIPTION,
    needs=("role-assignment",),  # a lock comes last: it forbids what comes after
    location=Location(
        path="/subscriptions/{subscription}/providers/Microsoft.Authorization/locks",
        params={"api-version": "2020-05-01"},
    ),
    path_of=_path,
    attached=True,
    keeps=_in_subscription,
    comeback=Comeback(
        Recovery.RESTORED,
        "Made again by name, last; delete locks do not protect agents, threads, indexes or blobs.",
        "https://learn.microsoft.com/azure/azure-resource-manager/management/lock-resources",
    ),
)
