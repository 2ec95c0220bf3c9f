"""To come."""

from drills.sandbox.world import World


def register(world: World) -> None:
    """Nothing yet."""
