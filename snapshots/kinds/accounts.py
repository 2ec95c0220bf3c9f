"""Cognitive Services accounts: Azure OpenAI and AI Services (Foundry) resources."""

from __future__ import annotations

from collections.abc import Mapping

from snapshots.kinds.base import (
    SUBSCRIPTION,
    By,
    Comeback,
    Kind,
    Location,
    Parent,
    Reference,
    Way,
)
from snapshots.kinds.fields import Default, Fields, Items
from snapshots.model import Json, JsonObject, Recovery

# Newest stable shapes; 2026-07-01 does not differ from them.
API = {"api-version": "2025-12-01"}
_RECOVER = "https://learn.microsoft.com/azure/ai-services/recover-purge-resources"
_REST = "https://learn.microsoft.com/rest/api/aiservices/accountmanagement/"


def properties(wire: Mapping[str, Json]) -> JsonObject:
    """Give the `properties` of a body, empty when it has none."""
    found = wire.get("properties")
    return found if isinstance(found, dict) else {}


def serves_models(parent: Parent) -> bool:
    """Whether an account can hold deployments, content filters and OpenAI data."""
    return parent.wire.get("kind") in {"OpenAI", "AIServices"}


def has_projects(parent: Parent) -> bool:
    """Whether an account is a Foundry resource: projects, connections, agents."""
    return properties(parent.wire).get("allowProjectManagement") is True


def openai_endpoint(parent: Parent) -> str:
    """Give the base URL of an account's OpenAI data plane, "" while it has none."""
    found = properties(parent.wire)
    endpoints = found.get("endpoints")
    named = (
        endpoints.get("OpenAI Language Model Instance API") if isinstance(endpoints, dict) else None
    )
    return str(named or found.get("endpoint") or "").rstrip("/")


def _path(parent: Parent, wire: Mapping[str, Json]) -> tuple[str, ...]:
    parts = str(wire.get("id", "")).lower().split("/")
    group = parts[4] if len(parts) > 4 else ""
    return (parent.subscription, group, str(wire.get("name", "")).lower())


ACCOUNT = Kind(
    name="account",
    title="accounts",
    parent=SUBSCRIPTION,
    needs=("resource-group",),
    location=Location(
        path="/subscriptions/{subscription}/providers/Microsoft.CognitiveServices/accounts",
        params=API,
    ),
    path_of=_path,
    # Azure refuses to unregister a provider that still has resources: none is certain.
    absent_codes=frozenset({"MissingSubscriptionRegistration", "SubscriptionNotRegistered"}),
    fields=Fields(
        volatile=(
            "identity.tenantId",
            "identity.userAssignedIdentities.*.principalId",
            "identity.userAssignedIdentities.*.clientId",
            "properties.endpoint",
            "properties.endpoints",
            "properties.internalId",
            "properties.capabilities",
            "properties.isMigrated",
            "properties.skuChangeInfo",
            "properties.privateEndpointConnections",  # a kind of its own
            "properties.dateCreated",
            "properties.callRateLimit",
            "properties.quotaLimit",
            "properties.commitmentPlanAssociations",
            "properties.abusePenalty",
            "properties.deletionDate",
            "properties.scheduledPurgeDate",
            "properties.networkAcls.virtualNetworkRules[].state",
        ),
        # A system-assigned identity gets a new one when the account is made again: role
        # assignments are rewritten by it.
        read_only=("identity.principalId",),
        secret=(
            "properties.apiProperties.qnaAzureSearchEndpointKey",
            "properties.apiProperties.eventHubConnectionString",
            "properties.apiProperties.storageAccountConnectionString",
            "properties.migrationToken",
        ),
        items=(
            Items("properties.networkAcls.ipRules", ("value",)),
            Items("properties.networkAcls.virtualNetworkRules", ("id",)),
            Items("properties.userOwnedStorage", ("resourceId",)),
            Items("properties.allowedFqdnList"),
            Items("properties.associatedProjects"),
            Items("properties.locations.regions", ("name",)),
            Items("properties.networkInjections", ("scenario", "subnetArmId")),
        ),
        defaults=(
            Default("properties.apiProperties", {}),
            Default("properties.networkAcls.ipRules", []),
            Default("properties.networkAcls.virtualNetworkRules", []),
            Default("properties.userOwnedStorage", []),
            Default("properties.allowedFqdnList", []),
            Default("properties.associatedProjects", []),
            Default("properties.allowProjectManagement", value=False),
        ),
        case_insensitive=(
            "properties.networkAcls.virtualNetworkRules[].id",
            "properties.userOwnedStorage[].resourceId",
            "properties.amlWorkspace.resourceId",
            "properties.raiMonitorConfig.adxStorageResourceId",
            "properties.networkInjections[].subnetArmId",
            "properties.customSubDomainName",
        ),
        locations=("properties.locations.regions[].name",),
    ),
    references=(
        Reference("identity.principalId", "account", By.PRINCIPAL),
        Reference("properties.networkAcls.virtualNetworkRules[].id", ""),
        Reference("properties.userOwnedStorage[].resourceId", ""),
        Reference("properties.amlWorkspace.resourceId", ""),
        Reference("properties.raiMonitorConfig.adxStorageResourceId", ""),
        Reference("properties.networkInjections[].subnetArmId", ""),
        Reference("properties.defaultProject", "project", By.NAME),
        Reference("properties.associatedProjects[]", "project", By.NAME),
    ),
    comeback=Comeback(
        Recovery.RESTORED,
        "A deleted account can be recovered for 48 hours under its name, later it is made again "
        'with new keys; "your resource and all its operations stay associated with that Azure '
        'server region".',
        _RECOVER,
    ),
)

COMMITMENT_PLAN = Kind(
    name="commitment-plan",
    title="commitment plans",
    parent="account",
    location=Location(path="{id}/commitmentPlans", params=API),
    fields=Fields(
        volatile=(
            "properties.commitmentPlanGuid",
            "properties.last",
            "properties.provisioningIssues",
            "properties.current.quota",
            "properties.current.startDate",
            "properties.current.endDate",
            "properties.next.quota",
            "properties.next.startDate",
            "properties.next.endDate",
        )
    ),
    way=Way.NEVER,
    comeback=Comeback(
        Recovery.RECORDED,
        "A commitment plan is a purchase: it is recorded and never bought again by a restore.",
        _REST + "commitment-plans",
    ),
)

ENCRYPTION_SCOPE = Kind(
    name="encryption-scope",
    title="encryption scopes",
    parent="account",
    location=Location(path="{id}/encryptionScopes", params=API),
    comeback=Comeback(
        Recovery.RESTORED,
        "Made again by name; the Key Vault key must exist, in the account's region and tenant.",
        "https://learn.microsoft.com/azure/ai-foundry/openai/encrypt-data-at-rest",
    ),
)

DEFENDER_SETTING = Kind(
    name="defender-setting",
    title="Defender for AI settings",
    parent="account",
    applies=serves_models,
    location=Location(path="{id}/defenderForAISettings", params=API),
    off={"properties": {"state": "Disabled"}},  # the API lists get, put and patch alone
    comeback=Comeback(Recovery.RESTORED, "Set again by name.", _REST + "defender-for-ai-settings"),
)
