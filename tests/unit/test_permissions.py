"""The roles of docs/roles grant exactly what the verbs need, and doctor's table says the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snapshots.cloud.place import Permission
from snapshots.permissions import (
    SCOPE_PLACEHOLDER,
    Role,
    Verb,
    definition,
    missing,
    needs,
    role_for,
)

ROLES = Path(__file__).parents[2] / "docs" / "roles"


def file_of(role: Role) -> dict[str, object]:
    found: dict[str, object] = json.loads((ROLES / f"{role.value}.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("role", list(Role))
def test_a_role_file_equals_the_table_that_doctor_checks(role: Role) -> None:
    found, wanted = file_of(role), definition(role)
    assert found["Actions"] == list(wanted.actions)
    assert found["DataActions"] == list(wanted.data_actions)
    assert found["NotActions"] == found["NotDataActions"] == []
    assert found["AssignableScopes"] == [SCOPE_PLACEHOLDER]
    assert found["IsCustom"] is True


@pytest.mark.parametrize("verb", list(Verb))
def test_the_role_is_enough_for_its_verbs_and_one_action_less_is_not(verb: Verb) -> None:
    wanted = definition(role_for(verb))
    granted = Permission(actions=wanted.actions, data_actions=wanted.data_actions)
    assert missing(verb, [granted]) == ()
    for need in needs(verb):
        less = Permission(
            actions=tuple(a for a in wanted.actions if a != need.action or need.data),
            data_actions=tuple(a for a in wanted.data_actions if a != need.action or not need.data),
        )
        assert need in missing(verb, [less])


def test_the_reader_writes_nothing() -> None:
    found = definition(Role.READER)
    # Asking whether a subdomain is free changes nothing, though Azure calls it an action.
    asking = {"Microsoft.CognitiveServices/checkDomainAvailability/action"}
    actions = {*found.actions, *found.data_actions} - asking
    assert all(action.endswith("/read") for action in actions)


def test_what_ready_asks_beside_a_snapshot_is_in_the_readers_role() -> None:
    beside = {need.action for need in needs(Verb.READY)} - {n.action for n in needs(Verb.SNAPSHOT)}
    assert beside == {
        "Microsoft.Authorization/roleDefinitions/read",
        "Microsoft.CognitiveServices/checkDomainAvailability/action",
        "Microsoft.CognitiveServices/deletedAccounts/read",
        "Microsoft.Insights/eventtypes/values/read",
        "Microsoft.KeyVault/deletedVaults/read",
        "Microsoft.KeyVault/vaults/read",
    }
    assert role_for(Verb.READY) is Role.READER


def test_no_role_reads_keys_or_holds_a_wildcard() -> None:
    for role in Role:
        found = definition(role)
        for action in (*found.actions, *found.data_actions):
            assert "*" not in action
            assert "listkeys" not in action.lower()


def test_azures_reader_lacks_the_data_actions_only() -> None:
    lacking = missing(Verb.SNAPSHOT, [Permission(actions=("*/read",))])
    assert lacking
    assert all(need.data for need in lacking)


def test_nothing_granted_is_everything_missing() -> None:
    assert missing(Verb.RESTORE, []) == needs(Verb.RESTORE)
