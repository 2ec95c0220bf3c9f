"""Who may do what: role assignments, role definitions and locks."""

from __future__ import annotations

from drills.sandbox.wire import ArmError, Call
from drills.sandbox.world import World


class Access:
    """Decides on every call. Control plane actions and data actions alike."""

    def __init__(self, world: World) -> None:
        self.world = world

    def check(self, call: Call, action: str, scope: str, *, data: bool = False) -> None:
        """Let the caller go on, or raise 401/403.

        `action` is an RBAC action ("Microsoft.CognitiveServices/accounts/read"), or a data action
        when `data`; `scope` the ARM id it is about.
        """
        if call.caller is None:
            raise ArmError(
                401,
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.",
                gateway=True,
            )

    def check_locks(self, call: Call, id_: str, *, delete: bool) -> None:
        """Raise 409 ScopeLocked when a lock at or above the resource forbids the write."""
