"""Which permissions each verb needs at Azure, and which ready-made role gives them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from snapshots.cloud.place import Permission

SCOPE_PLACEHOLDER: Final = "/subscriptions/{subscription}"


class Role(StrEnum):
    """A custom role of docs/roles, least privilege for its verbs."""

    READER = "reader"  # snapshot, audit, ready
    OPERATOR = "operator"  # restore, revert, replicate


class Verb(StrEnum):
    """A verb that asks Azure for something."""

    SNAPSHOT = "snapshot"
    AUDIT = "audit"
    READY = "ready"
    RESTORE = "restore"
    REPLICATE = "replicate"


@dataclass(frozen=True, slots=True, order=True)
class Need:
    """One action that a verb needs, and what for. `data` tells a data action."""

    action: str
    why: str
    data: bool = False


def _reads(provider: str, why: str, *types: str) -> tuple[Need, ...]:
    return tuple(Need(f"{provider}/{type_}/read", why) for type_ in types)


# Action names are those of Microsoft's list of resource provider operations
# (learn.microsoft.com/azure/role-based-access-control/resource-provider-operations) and, for the
# data plane, of "Disable preview features with role-based access" in the Foundry documentation.
_CS: Final = "Microsoft.CognitiveServices"
_OPENAI: Final = f"{_CS}/accounts/OpenAI"
_FOUNDRY: Final = f"{_CS}/accounts/AIServices"
_KEYS: Final = "Microsoft.KeyVault"

_SNAPSHOT: Final = (
    *_reads("Microsoft.Resources", "find what there is", "subscriptions"),
    *_reads("Microsoft.Resources/subscriptions", "resource groups", "resourceGroups"),
    *_reads(
        _CS,
        "configuration",
        "accounts",
        "accounts/deployments",
        "accounts/raiPolicies",
        "accounts/raiBlocklists",
        "accounts/raiBlocklists/raiBlocklistItems",
        "accounts/raiTopics",
        "accounts/encryptionScopes",
        "accounts/defenderForAISettings",
        "accounts/commitmentPlans",
        "accounts/privateEndpointConnections",
        "accounts/managedNetworks",
        "accounts/managedNetworks/outboundRules",
        "accounts/connections",
        "accounts/capabilityHosts",
        "accounts/projects",
        "accounts/projects/connections",
        "accounts/projects/capabilityHosts",
    ),
    *_reads(
        _CS,
        "catalogue, quota and capacity",
        "locations/models",
        "locations/usages",
        "modelCapacities",
        "skus",
    ),
    *_reads("Microsoft.Authorization", "who may do what", "roleAssignments"),
    *_reads("Microsoft.Authorization", "locks", "locks"),
    *_reads("Microsoft.Authorization", "doctor's own check", "permissions"),
    *_reads("Microsoft.Insights", "diagnostic settings", "diagnosticSettings"),
    Need(f"{_OPENAI}/files/read", "training data and results", data=True),
    Need(f"{_OPENAI}/fine-tunes/read", "fine-tuning jobs and checkpoints", data=True),
    Need(f"{_OPENAI}/models/read", "fine-tuned models", data=True),
    Need(f"{_OPENAI}/assistants/read", "assistants", data=True),
    Need(f"{_OPENAI}/assistants/vector_stores/read", "vector stores", data=True),
    Need(f"{_FOUNDRY}/agents/read", "agents", data=True),
    Need(f"{_FOUNDRY}/assets/read", "files and vector stores of projects", data=True),
)

_AUDIT: Final = (
    *_SNAPSHOT,
    *_reads("Microsoft.Insights", "who changed what: the Activity Log", "eventtypes/values"),
    *_reads("Microsoft.ResourceGraph", "who changed what: resource changes", "resources"),
    *_reads("Microsoft.Authorization", "what a granted role allows", "roleDefinitions"),
)

_READY: Final = (
    *_SNAPSHOT,
    *_reads(_CS, "names that soft-deleted accounts still hold", "deletedAccounts"),
    # A question that changes nothing, though Azure calls it an action.
    Need(f"{_CS}/checkDomainAvailability/action", "whether a subdomain is free"),
    *_reads(_KEYS, "where the vaults of customer-managed keys lie", "vaults"),
    *_reads(_KEYS, "key vaults that can still be recovered", "deletedVaults"),
    *_reads("Microsoft.Insights", "workspaces that were deleted, and when", "eventtypes/values"),
    *_reads("Microsoft.Authorization", "whether a role is known there", "roleDefinitions"),
)

_WRITES: Final = (
    *(
        Need(f"{_CS}/{type_}/{verb}", "bring configuration back")
        for type_ in (
            "accounts",
            "accounts/deployments",
            "accounts/raiPolicies",
            "accounts/raiBlocklists",
            "accounts/raiBlocklists/raiBlocklistItems",
            "accounts/raiTopics",
            "accounts/encryptionScopes",
            "accounts/connections",
            "accounts/capabilityHosts",
            "accounts/projects",
            "accounts/projects/connections",
            "accounts/projects/capabilityHosts",
        )
        for verb in ("write", "delete")
    ),
    Need(f"{_CS}/accounts/raiBlocklists/addRaiBlocklistItems/action", "fill blocklists"),
    Need(f"{_CS}/accounts/raiBlocklists/deleteRaiBlocklistItems/action", "thin blocklists out"),
    Need(f"{_CS}/accounts/defenderForAISettings/write", "bring configuration back"),
    Need(f"{_CS}/accounts/managedNetworks/write", "bring configuration back"),
    Need(f"{_CS}/accounts/managedNetworks/outboundRules/write", "bring configuration back"),
    Need(f"{_CS}/accounts/privateEndpointConnections/write", "approve private endpoints"),
    Need(
        f"{_CS}/locations/resourceGroups/deletedAccounts/delete",
        "purge what a rehearsal or a name in the way left",
    ),
    Need("Microsoft.Resources/subscriptions/resourceGroups/write", "make missing groups"),
    Need("Microsoft.Resources/subscriptions/resourceGroups/delete", "undo, of empty groups"),
    Need("Microsoft.Resources/subscriptions/resourceGroups/resources/read", "undo: is it empty"),
    Need("Microsoft.Insights/diagnosticSettings/write", "bring diagnostic settings back"),
    Need("Microsoft.Insights/diagnosticSettings/delete", "undo"),
    Need("Microsoft.Authorization/locks/write", "set locks again, last"),
    Need("Microsoft.Authorization/locks/delete", "lift locks that a restore must pass"),
    Need("Microsoft.Authorization/roleAssignments/write", "grant roles to new identities"),
    Need("Microsoft.Authorization/roleAssignments/delete", "undo"),
    Need(f"{_OPENAI}/files/write", "upload training data", data=True),
    Need(f"{_OPENAI}/files/delete", "undo", data=True),
    Need(f"{_OPENAI}/fine-tunes/write", "copy or retrain models", data=True),
    Need(f"{_OPENAI}/assistants/write", "make assistants again", data=True),
    Need(f"{_OPENAI}/assistants/delete", "undo", data=True),
    Need(f"{_OPENAI}/assistants/vector_stores/write", "make vector stores again", data=True),
    Need(f"{_OPENAI}/assistants/vector_stores/delete", "undo", data=True),
    Need(f"{_FOUNDRY}/agents/write", "make agents again", data=True),
    Need(f"{_FOUNDRY}/agents/delete", "undo", data=True),
    Need(f"{_FOUNDRY}/assets/write", "make files and stores of projects again", data=True),
    Need(f"{_FOUNDRY}/assets/delete", "undo", data=True),
)

_RESTORE: Final = (*_READY, *_WRITES)

_REPLICATE: Final = (
    *_RESTORE,
    Need(
        f"{_OPENAI}/deployments/chat/completions/action",
        "ask source and replica the same, and call what stands idle",
        data=True,
    ),
    Need(f"{_OPENAI}/models/delete", "undo of a retraining", data=True),
)


def needs(verb: Verb) -> tuple[Need, ...]:
    """Give what a verb needs, in the order it is asked for."""
    match verb:
        case Verb.SNAPSHOT:
            return _SNAPSHOT
        case Verb.AUDIT:
            return _AUDIT
        case Verb.READY:
            return _READY
        case Verb.RESTORE:
            return _RESTORE
        case Verb.REPLICATE:
            return _REPLICATE


def role_for(verb: Verb) -> Role:
    """Give the role that is enough for a verb."""
    return Role.OPERATOR if verb in (Verb.RESTORE, Verb.REPLICATE) else Role.READER


@dataclass(frozen=True, slots=True)
class RoleDefinition:
    """What a role of docs/roles allows, sorted."""

    role: Role
    actions: tuple[str, ...]
    data_actions: tuple[str, ...]


def definition(role: Role) -> RoleDefinition:
    """Give exactly what the role's verbs need, and nothing more."""
    needed = {need for verb in Verb if role_for(verb) is role for need in needs(verb)}
    return RoleDefinition(
        role,
        tuple(sorted({need.action for need in needed if not need.data})),
        tuple(sorted({need.action for need in needed if need.data})),
    )


def missing(verb: Verb, granted: Iterable[Permission]) -> tuple[Need, ...]:
    """Give what `granted`, as the permissions API tells it for one scope, does not allow."""
    entries = tuple(granted)
    return tuple(
        need
        for need in needs(verb)
        if not any(
            entry.allows_data(need.action) if need.data else entry.allows(need.action)
            for entry in entries
        )
    )
