"""Token buckets as Azure Resource Manager keeps them, and the headers that tell of them."""

from __future__ import annotations

from drills.sandbox.wire import Answer, Call
from drills.sandbox.world import World


class Throttle:
    """Buckets per subscription, principal and operation type."""

    def __init__(self, world: World) -> None:
        self.world = world

    def charge(self, call: Call) -> dict[str, str]:
        """Take a token for an ARM call and return the rate-limit headers. Raises ArmError 429."""
        return {}

    def charge_data(self, call: Call, account: str) -> Answer | None:
        """Take a token of an account's data plane; the 429 answer when there is none left."""
        return None
