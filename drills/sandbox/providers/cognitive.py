"""Azure OpenAI, AI Services and Foundry (Microsoft.CognitiveServices)."""

from __future__ import annotations

from drills.sandbox.world import World


def register(world: World) -> None:
    """Teach the engine accounts and everything below them."""
