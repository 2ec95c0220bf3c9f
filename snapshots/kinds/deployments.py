"""Model deployments."""

from __future__ import annotations

from snapshots.kinds.accounts import API, serves_models
from snapshots.kinds.base import By, Comeback, Flow, Kind, Location, Reference
from snapshots.kinds.fields import Fields, Items
from snapshots.model import Recovery

DEPLOYMENT = Kind(
    name="deployment",
    title="model deployments",
    parent="account",
    needs=("rai-policy", "fine-tuned-model"),
    applies=serves_models,
    location=Location(path="{id}/deployments", params=API),
    fields=Fields(
        volatile=(
            "properties.capabilities",
            "properties.callRateLimit",
            "properties.rateLimits",
            "properties.dynamicThrottlingEnabled",
            "properties.currentCapacity",
            "properties.scaleSettings.activeCapacity",
            "properties.model.callRateLimit",
            "properties.routing.models[].callRateLimit",
        ),
        items=(Items("properties.routing.models", ("format", "name", "version", "source")),),
        # N. B.: versionUpgradeOption has no default here. The API says that absent means
        # OnceCurrentVersionExpired, and the server writes OnceNewDefaultVersionAvailable when it
        # is omitted (recorded 2025-10-28), so what was read must be sent.
        case_insensitive=(
            "properties.model.source",
            "properties.model.sourceAccount",
            "properties.routing.models[].source",
            "properties.routing.models[].sourceAccount",
        ),
    ),
    references=(
        Reference("properties.raiPolicyName", "rai-policy", By.NAME),
        Reference("properties.model.name", "fine-tuned-model", By.NAME, Flow.IN),
        Reference("properties.model.source", "account"),
        Reference("properties.model.sourceAccount", "account"),
        Reference("properties.routing.models[].name", "fine-tuned-model", By.NAME, Flow.IN),
        Reference("properties.parentDeploymentName", "deployment", By.NAME),
        Reference("properties.spilloverDeploymentName", "deployment", By.NAME),
    ),
    # Else 409 RequestConflict "Another operation is being performed on the parent resource".
    serial_per_account=True,
    comeback=Comeback(
        Recovery.RESTORED,
        "Made again by name; Microsoft asks for at least two resources in different regions, "
        "with each deployment duplicated in the second.",
        "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/"
        "business-continuity-disaster-recovery",
    ),
)
