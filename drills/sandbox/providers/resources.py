"""Subscriptions, resource groups, providers and tags (Microsoft.Resources)."""

from __future__ import annotations

from drills.sandbox.world import World


def register(world: World) -> None:
    """Teach the engine subscriptions, resource groups, providers and tags."""
