"""Content filters: RAI policies, blocklists with their items, custom topics."""

from __future__ import annotations

from collections.abc import Mapping

from snapshots.kinds.accounts import API, properties, serves_models
from snapshots.kinds.base import By, Comeback, Fold, Kind, Location, Reference
from snapshots.kinds.fields import Default, Fields, Items
from snapshots.model import Json, Recovery

_FILTERS = "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/content-filters"


def _user_managed(body: Mapping[str, Json]) -> bool:
    """Microsoft.Default and its like cannot be written."""
    return properties(body).get("type") != "SystemManaged"


RAI_BLOCKLIST = Kind(
    name="rai-blocklist",
    title="blocklists with their items",
    parent="account",
    applies=serves_models,
    location=Location(path="{id}/raiBlocklists", params=API),
    folds=(Fold(into="items", location=Location(path="{id}/raiBlocklistItems", params=API)),),
    fields=Fields(
        volatile=(
            "items[].id",
            "items[].type",
            "items[].etag",
            "items[].systemData",
            "items[].properties.provisioningState",  # as of the list itself
        ),
        items=(Items("items", ("name",)),),
        defaults=(
            Default("items[].tags", {}),
            Default("items[].properties.isRegex", value=False),
            Default("properties.description", ""),
        ),
    ),
    comeback=Comeback(
        Recovery.RESTORED,
        "Made again by name, its items in one batch call.",
        "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/use-blocklists",
    ),
)

RAI_TOPIC = Kind(
    name="rai-topic",
    title="custom topics",
    parent="account",
    applies=serves_models,
    location=Location(path="{id}/raitopics", params=API),
    fields=Fields(
        # Not flagged read-only by the API, and set by the server all the same.
        volatile=(
            "properties.topicId",
            "properties.status",
            "properties.failedReason",
            "properties.createdAt",
            "properties.lastModifiedAt",
        )
    ),
    comeback=Comeback(
        Recovery.RESTORED,
        "Made again by name and trained again from its sample blob, which must be readable.",
        "https://learn.microsoft.com/rest/api/aiservices/accountmanagement/rai-topics",
    ),
)

RAI_POLICY = Kind(
    name="rai-policy",
    title="content filters (RAI policies)",
    parent="account",
    needs=("rai-blocklist", "rai-topic"),
    applies=serves_models,
    location=Location(path="{id}/raiPolicies", params=API),
    fields=Fields(
        read_only=("properties.type",),
        items=(
            Items("properties.contentFilters", ("name", "source")),
            Items("properties.customBlocklists", ("blocklistName", "source")),
            Items("properties.customTopics", ("topicName", "source")),
            Items("properties.safetyProviders", ("safetyProviderName", "source")),
        ),
        defaults=(
            Default("properties.customBlocklists", []),
            Default("properties.customTopics", []),
            Default("properties.safetyProviders", []),
        ),
    ),
    references=(
        Reference("properties.basePolicyName", "rai-policy", By.NAME),
        Reference("properties.customBlocklists[].blocklistName", "rai-blocklist", By.NAME),
        Reference("properties.customTopics[].topicName", "rai-topic", By.NAME),
    ),
    writable=_user_managed,
    comeback=Comeback(
        Recovery.RESTORED,
        "Filters are configured at resource level and made again by name in each resource; "
        "Microsoft gives no copy operation, and filters that are off need its approval.",
        _FILTERS,
    ),
)
