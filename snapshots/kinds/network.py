"""Network: private endpoint connections, managed networks and their outbound rules."""

from __future__ import annotations

from collections.abc import Mapping

from snapshots.kinds.accounts import API, has_projects, properties
from snapshots.kinds.base import Comeback, Kind, Location, Reference, Way
from snapshots.kinds.fields import Default, Fields, Items
from snapshots.model import Json, Recovery

_MANAGED = "https://learn.microsoft.com/azure/ai-foundry/how-to/managed-virtual-network"


def _own_rule(body: Mapping[str, Json]) -> bool:
    """Rules of the categories Required, Recommended and Dependency are made by Azure."""
    return properties(body).get("category") in {None, "UserDefined"}


PRIVATE_ENDPOINT_CONNECTION = Kind(
    name="private-endpoint-connection",
    title="private endpoint connections",
    parent="account",
    # The account's own body carries them whole: no call.
    embedded="properties.privateEndpointConnections[]",
    fields=Fields(
        items=(Items("properties.groupIds"),),
        case_insensitive=("properties.privateEndpoint.id",),
    ),
    references=(Reference("properties.privateEndpoint.id", ""),),
    way=Way.NEVER,
    comeback=Comeback(
        Recovery.RECORDED,
        "Recovering an account restores neither its private endpoints nor its projects; they "
        "are made again in the network of the target region, with DNS by hand.",
        "https://learn.microsoft.com/azure/ai-foundry/how-to/agent-service-disaster-recovery",
    ),
)

MANAGED_NETWORK = Kind(
    name="managed-network",
    title="managed networks",
    parent="account",
    applies=has_projects,
    location=Location(path="{id}/managedNetworks", params=API),
    fields=Fields(
        volatile=(
            "properties.managedNetwork.changeableIsolationModes",
            "properties.managedNetwork.networkId",
            "properties.managedNetwork.outboundRules",  # a kind of its own
            "properties.managedNetwork.status",
            "properties.managedNetwork.firewallPublicIpAddress",
            "properties.managedNetwork.provisioningState",
        )
    ),
    comeback=Comeback(
        Recovery.RESTORED,
        "Set again on the account; an isolation mode cannot be loosened afterwards.",
        _MANAGED,
    ),
)

OUTBOUND_RULE = Kind(
    name="outbound-rule",
    title="outbound rules of managed networks",
    parent="managed-network",
    location=Location(path="{id}/outboundRules", params=API),
    fields=Fields(
        volatile=(
            "properties.status",
            "properties.errorInformation",
            "properties.parentRuleNames",
        ),
        items=(
            Items("properties.fqdns"),
            Items("properties.destination.addressPrefixes"),
        ),
        defaults=(
            Default("properties.fqdns", []),
            Default("properties.destination.addressPrefixes", []),
            Default("properties.category", "UserDefined"),
        ),
        case_insensitive=("properties.destination.serviceResourceId",),
    ),
    references=(Reference("properties.destination.serviceResourceId", ""),),
    writable=_own_rule,
    comeback=Comeback(Recovery.RESTORED, "Made again by name.", _MANAGED),
)
