"""Roles in another subscription: the same GUID there, and a custom role that does not reach it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snapshots.gates import GateResult
from snapshots.mapping import role_in
from snapshots.restore import gates
from snapshots.steps import AccountPlace, Mapping
from tests.restoring_fixtures import Engine, changing

API = "?api-version=2022-04-01"
ROLE = "0b6ad5a1-6a8f-4f0e-9a77-5d2f3e1c9b01"
NAMED = "5b0f6b0e-7e55-4b4f-8a70-1a2b3c4d5e6f"
GUIDS = st.uuids().map(str)


@given(GUIDS, GUIDS, GUIDS)
def test_a_role_keeps_its_guid_and_takes_the_subscription(one: str, two: str, role: str) -> None:
    rest = f"/providers/microsoft.authorization/roledefinitions/{role}"
    assert role_in(f"/subscriptions/{one}{rest}", two) == f"/subscriptions/{two}{rest}"
    assert role_in(rest, two) == rest  # of the tenant: known everywhere


def define(engine: Engine, *subscriptions: str) -> str:
    """A custom role of the first subscription that is assignable in those named."""
    sandbox = engine.sandbox
    id_ = f"/subscriptions/{subscriptions[0]}/providers/Microsoft.Authorization/roleDefinitions"
    body = {
        "properties": {
            "roleName": "Claims reader",
            "assignableScopes": [f"/subscriptions/{s}" for s in subscriptions],
            "permissions": [{"actions": ["Microsoft.CognitiveServices/accounts/read"]}],
        }
    }
    answer = sandbox.call("PUT", f"{id_}/{ROLE}{API}", body)
    assert answer.ok, answer.text
    return f"{id_}/{ROLE}"


def role_gates(found: tuple[GateResult, ...]) -> dict[str, bool]:
    """Which roles the gates let through, by GUID."""
    return {g.subject.rsplit("/", 1)[-1]: g.passed for g in found if g.name == "role"}


def test_assignments_come_back_in_another_subscription_and_a_role_that_is_not_there_stops_it(
    engine: Engine,
) -> None:
    sandbox = engine.sandbox
    rows = sandbox.call("GET", "/subscriptions?api-version=2022-12-01").json()["value"]
    ids = {row["displayName"]: row["subscriptionId"] for row in rows}
    prod, dr = ids["Contoso AI Production"], ids["Contoso AI Recovery"]
    account = (
        f"/subscriptions/{prod}/resourceGroups/rg-ai-care/providers"
        "/Microsoft.CognitiveServices/accounts/ais-care-swc"
    )
    role = define(engine, prod)
    body = {
        "properties": {
            "roleDefinitionId": role,
            "principalId": sandbox.principal("auditor")["object_id"],
            "principalType": "ServicePrincipal",
        }
    }
    assignment = f"{account}/providers/Microsoft.Authorization/roleAssignments/{NAMED}{API}"
    assert sandbox.call("PUT", assignment, body).ok
    kept = engine.take()
    mapping = Mapping(
        regions={"swedencentral": "eastus2"},
        accounts={"ais-care-swc": AccountPlace("ais-care-eus2", "rg-ai-dr", dr)},
    )
    only = ("role-assignment/*",)

    def prepared() -> tuple[GateResult, ...]:
        return gates(
            engine.prepare(kept, *only, mapping=mapping, regions=("swedencentral",)), engine.tools
        )

    sandbox.control("DELETE", "journal")
    found = role_gates(prepared())
    assert found.pop(ROLE) is False
    assert found, "the demo estate has built-in roles, too"
    assert all(found.values())
    assert changing(sandbox) == []

    define(engine, prod, dr)
    assert all(role_gates(prepared()).values())
    plan = engine.prepare(kept, *only, mapping=mapping, regions=("swedencentral",))
    wanted = [s.after for s in plan.plan.steps if s.after is not None and "rg-ai-dr" in s.key.path]
    assert any(f"/{ROLE}" in str(resource.body) for resource in wanted)
    done = engine.restore(plan)
    assert done.remaining == ()
    assert done.complete
