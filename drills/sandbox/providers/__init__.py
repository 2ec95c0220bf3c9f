"""What each resource provider does beyond the generic store."""

from __future__ import annotations

from drills.sandbox.providers import cognitive, resources
from drills.sandbox.world import World


def register_all(world: World) -> None:
    """Teach the engine every provider that this sandbox plays."""
    resources.register(world)
    cognitive.register(world)
    resources.register_operations(world)
