"""The data planes of accounts and projects: files, fine-tuning, models, chat, agents, …"""

from __future__ import annotations

from drills.sandbox.wire import Answer, ArmError, Call
from drills.sandbox.world import World


class DataPlane:
    """Answers what is sent to an account's endpoint."""

    def __init__(self, world: World) -> None:
        self.world = world

    def handle(self, call: Call, name: str, suffix: str, path: str) -> Answer:
        """Answer a call to `https://{name}.{suffix}.azure.com{path}`.

        `name` is an account's custom subdomain, or with suffix "api" a region (the account is then
        the one whose key is sent).
        """
        raise ArmError(404, "404", f"Resource not found: {name}.{suffix} {path}")
