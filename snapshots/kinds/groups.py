"""Resource groups."""

from __future__ import annotations

from snapshots.kinds.base import SUBSCRIPTION, Comeback, Kind, Location
from snapshots.kinds.fields import Fields
from snapshots.model import Recovery

RESOURCE_GROUP = Kind(
    name="resource-group",
    title="resource groups",
    parent=SUBSCRIPTION,
    location=Location(
        path="/subscriptions/{subscription}/resourcegroups", params={"api-version": "2025-04-01"}
    ),
    fields=Fields(case_insensitive=("managedBy",)),
    comeback=Comeback(
        Recovery.RESTORED,
        "A resource group is made again under its name; Microsoft: "
        '"Recovering a resource group isn\'t possible".',
        "https://learn.microsoft.com/azure/ai-services/recover-purge-resources",
    ),
)
