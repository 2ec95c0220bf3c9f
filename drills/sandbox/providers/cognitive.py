"""Azure OpenAI, AI Services and Foundry (Microsoft.CognitiveServices)."""

from __future__ import annotations

from drills.sandbox.providers import (
    cognitive_accounts,
    cognitive_catalogue,
    cognitive_deployments,
    cognitive_more,
    cognitive_projects,
    cognitive_rai,
)
from drills.sandbox.world import World


def register(world: World) -> None:
    """Teach the engine accounts and everything below them."""
    world.arm.strict.add("microsoft.cognitiveservices")
    for part in (
        cognitive_accounts,
        cognitive_deployments,
        cognitive_rai,
        cognitive_projects,
        cognitive_more,
        cognitive_catalogue,
    ):
        part.register(world)
