"""What is broken on purpose: outages, latency, errors, stuck operations, damaged answers."""

from __future__ import annotations

from drills.sandbox.wire import Body, Call
from drills.sandbox.world import World


class Faults:
    """The faults that are declared at the moment."""

    def __init__(self, world: World) -> None:
        self.world = world

    def operation(self, call: Call, id_: str, seconds: float) -> tuple[float, Body | str | None]:
        """How long a new long operation takes and how it ends.

        The outcome is None (success), "stuck" (never ends), or an error object it fails with.
        """
        return seconds, None
