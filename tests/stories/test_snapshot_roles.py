"""The role of docs/roles is enough for a snapshot, and no part of it is too much."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snapshots.permissions import Role, Verb, definition, needs
from tests.muster_site_fixtures import Site
from tests.sandbox_fixtures import RunningSandbox

ROOT = Path(__file__).parents[2]
API = "?api-version=2022-04-01"
SNAPSHOT = {need.action for need in needs(Verb.SNAPSHOT)}
# Without these nothing is less complete: doctor's own question, and what an estate may not have.
QUIET = {"Microsoft.Authorization/permissions/read", "Microsoft.Resources/subscriptions/read"}

# Capacities are asked only when they are wanted, skus come with the models, and private endpoint
# connections with their account.
UNUSED = {
    "Microsoft.CognitiveServices/accounts/privateEndpointConnections/read",
    "Microsoft.CognitiveServices/modelCapacities/read",
    "Microsoft.CognitiveServices/skus/read",
}


class CustomRole:
    """A role of docs/roles in the sandbox, given to a principal that has no other."""

    def __init__(self, sandbox: RunningSandbox, role: Role, principal: str, name: str = "") -> None:
        self.sandbox = sandbox
        self.file: dict[str, Any] = json.loads(
            (ROOT / "docs" / "roles" / f"{role.value}.json").read_text("utf-8")
        )
        self.file["Name"] = name or self.file["Name"]
        self.id = str(uuid.uuid4())
        self.write(frozenset())
        holder = sandbox.principal(principal)["object_id"]
        for subscription in sandbox.subscriptions:
            properties = {
                "roleDefinitionId": self._at(subscription),
                "principalId": holder,
                "principalType": "ServicePrincipal",
            }
            path = f"/subscriptions/{subscription}/providers/Microsoft.Authorization"
            self._put(f"{path}/roleAssignments/{uuid.uuid4()}", {"properties": properties})

    def _at(self, subscription: str) -> str:
        path = f"/subscriptions/{subscription}/providers/Microsoft.Authorization"
        return f"{path}/roleDefinitions/{self.id}"

    def _put(self, path: str, body: Any) -> None:
        answer = self.sandbox.call("PUT", path + API, body, name="platform-owner")
        assert answer.status_code < 300, answer.text

    def write(self, without: frozenset[str]) -> None:
        """Make the role what its file says, without some actions."""
        scopes = [f"/subscriptions/{s}" for s in self.sandbox.subscriptions]
        left = {
            name: [action for action in self.file[given] if action not in without]
            for name, given in (
                ("actions", "Actions"),
                ("notActions", "NotActions"),
                ("dataActions", "DataActions"),
                ("notDataActions", "NotDataActions"),
            )
        }
        properties = {
            "roleName": self.file["Name"],
            "description": self.file["Description"],
            "assignableScopes": scopes,
            "permissions": [left],
        }
        self._put(self._at(self.sandbox.subscription), {"properties": properties})


def lacking(site: Site) -> set[str]:
    found = site.ask("doctor", "--verb", "snapshot", expect=None)
    return {need["action"] for check in found["checks"] for need in check["missing"]}


@pytest.mark.stress
def test_the_role_that_we_give_is_enough_and_each_part_of_it_is_needed(
    sandbox: RunningSandbox, new_site: Callable[..., Site], scaled: Callable[[int, int], int]
) -> None:
    role = CustomRole(sandbox, Role.READER, "stranger")
    site = new_site(sandbox, "stranger")
    whole = site.ask("snapshot", expect=None)
    assert whole["gaps"] == []
    assert lacking(site) == set()
    here = {resource["key"] for resource in site.ask("show", expect=None)["resources"]}
    given = definition(Role.READER)
    actions = sorted(SNAPSHOT & {*given.actions, *given.data_actions})
    assert set(actions) == SNAPSHOT, "the file grants what the table asks for"
    chosen = sorted(set(actions) - QUIET)
    needless: list[str] = []
    for action in random.Random(3).sample(chosen, min(len(chosen), scaled(4, len(chosen)))):
        role.write(frozenset({action}))
        assert lacking(site) == {action}
        told = site.ask("snapshot", "--no-content", expect=None)
        if not told["gaps"]:
            needless.append(action)
            continue
        changes = site.ask("diff", expect=None)["changes"]
        assert "removed" not in {c["change"] for c in changes}, action
        now = {r["key"] for r in site.ask("show", expect=None)["resources"]}
        stale = set(site.git("ls-tree", "-r", "--name-only", "live").stdout.splitlines())
        assert len(stale) >= len(here), "what a gap hides stays in the tree"
        assert now <= here, action
    role.write(frozenset())
    after = site.ask("snapshot", expect=None)
    assert after["gaps"] == []
    assert {r["key"] for r in site.ask("show", expect=None)["resources"]} == here
    assert set(needless) <= UNUSED, needless


@pytest.mark.parametrize("kept", [0, 3])
def test_doctor_lists_exactly_what_is_missing(
    sandbox: RunningSandbox, new_site: Callable[..., Site], kept: int
) -> None:
    role = CustomRole(sandbox, Role.READER, "stranger")
    site = new_site(sandbox, "stranger")
    never = "Microsoft.Resources/subscriptions/read"  # without it nobody is to be found at all
    gone = frozenset(random.Random(kept).sample(sorted(SNAPSHOT - {never}), 5 + kept))
    role.write(gone - {"Microsoft.Authorization/permissions/read"})
    assert lacking(site) == gone - {"Microsoft.Authorization/permissions/read"}
