"""What is written down of changes: the Activity Log and the resource changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drills.sandbox.wire import Answer, Call
from drills.sandbox.world import World

if TYPE_CHECKING:
    from drills.sandbox.arm import Record


class Activity:
    """Writes the logs; the engine calls it, the log endpoints read them."""

    def __init__(self, world: World) -> None:
        self.world = world

    def changed(self, call: Call, *, before: Record | None, after: Record | None) -> None:
        """Note that a resource was created, changed or deleted (for resourcechanges)."""

    def finished(self, call: Call, answer: Answer, *, code: str = "", message: str = "") -> None:
        """Note the start and the end of a control plane write (for the Activity Log)."""
