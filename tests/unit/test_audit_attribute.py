"""Who made a change, joined from records such as Azure writes them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from snapshots.audit.attribute import Told, Window, attribute
from snapshots.audit.records import Records, event_in
from snapshots.audit.report_model import Confidence, PrincipalKind
from snapshots.model import MISSING, Change, ChangeType, Json, Key, Missing, PathChange, Resource

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
WINDOW = Window(NOON - timedelta(hours=1), NOON + timedelta(hours=1))
ID = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.CognitiveServices/accounts/a"
KEY = Key("account", ("s", "rg", "a"))
TAGS = ID + "/providers/Microsoft.Resources/tags/default"


def event(operation: str, resource: str = ID, **more: Any) -> Any:
    """A record as the log gives it; `body` is what was asked for."""
    body = more.pop("body", None)
    at = more.pop("at", NOON)
    found = {
        "eventTimestamp": at.isoformat(),
        "resourceId": resource,
        "operationName": {"value": operation},
        "status": {"value": "Succeeded"},
        "category": {"value": "Administrative"},
        "correlationId": f"c-{operation}-{at:%H%M%S}",
        "caller": "bo@contoso.example",
        "claims": {"appid": "x"},
        "httpRequest": {"method": "PUT", "clientIpAddress": "192.0.2.1"},
        "properties": {} if body is None else {"requestbody": json.dumps(body)},
    }
    return {**found, "eventDataId": f"{operation}{at}{resource}", **more}


def told_of(change: Change, *events: Any) -> Told:
    records = Records()
    for item in events:
        found = event_in(item)
        assert found is not None
        records.events[found.id] = found
    return attribute(change, WINDOW, records, records.acts(), now=NOON + timedelta(hours=3))


def changed(path: str, before: Json | Missing, after: Json | Missing) -> Change:
    there = Resource(KEY, ID, {})
    return Change(ChangeType.CHANGED, KEY, there, there, (PathChange(path, before, after),))


CAPACITY = changed("/properties/publicNetworkAccess", "Disabled", "Enabled")


@pytest.mark.parametrize(
    ("category", "operation"),
    [
        ("ResourceHealth", "Microsoft.ResourceHealth/healthevent/Activated/action"),
        ("ServiceHealth", "Microsoft.ServiceHealth/incident/action"),
        ("Recommendation", "Microsoft.Advisor/recommendations/available/action"),
        ("Policy", "Microsoft.Authorization/policies/audit/action"),
        ("Alert", "Microsoft.Insights/AlertRules/Activated/action"),
    ],
)
def test_only_records_of_administration_tell_who_wrote(category: str, operation: str) -> None:
    record = event(operation, category={"value": category}, caller="", claims={})
    whole = told_of(CAPACITY, record).whole
    assert whole.confidence is Confidence.NONE
    assert whole.principal_kind is PrincipalKind.UNKNOWN
    # The control: in its own category the same record is Azure's own doing.
    own = told_of(CAPACITY, {**record, "category": {"value": "Administrative"}}).whole
    assert own.principal_kind is PrincipalKind.PLATFORM


def test_a_refused_write_made_nothing() -> None:
    write = "Microsoft.CognitiveServices/accounts/write"
    assert not told_of(CAPACITY, event(write, status={"value": "Failed"})).whole.known
    assert told_of(CAPACITY, event(write)).whole.who == "bo@contoso.example"


def test_one_correlation_id_over_several_resources_tells_each_its_own() -> None:
    write = "Microsoft.CognitiveServices/accounts/write"
    other = event(write, ID + "2", correlationId="one", caller="eve@contoso.example")
    assert not told_of(CAPACITY, other).whole.known
    both = told_of(CAPACITY, other, event(write, correlationId="one"))
    assert both.whole.who == "bo@contoso.example"


def test_tags_written_at_their_own_place_have_their_author() -> None:
    set_ = event(
        "Microsoft.Resources/tags/write",
        TAGS,
        body={"operation": "Merge", "properties": {"tags": {"a/b~c": "1"}}},
    )
    assert told_of(changed("/tags/a~1b~0c", MISSING, "1"), set_).whole.confidence is Confidence.HIGH
    group = Key("resource-group", ("s", "rg"))
    there = Resource(group, "/subscriptions/s/resourceGroups/rg", {})
    path = PathChange("/tags/x", MISSING, "1")
    change = Change(ChangeType.CHANGED, group, there, there, (path,))
    place = there.id + "/providers/Microsoft.Resources/tags/default"
    assert told_of(change, {**set_, "resourceId": place}).whole.who == "bo@contoso.example"
    # What is no tag was not changed by it, and what it holds was not deleted by it.
    assert not told_of(CAPACITY, set_).whole.known
    below = Resource(Key("deployment", ("s", "rg", "a", "d")), ID + "/deployments/d", {})
    gone = Change(ChangeType.REMOVED, below.key, below, None)
    assert not told_of(gone, event("Microsoft.Resources/tags/delete", TAGS)).whole.known


def test_of_several_writes_of_tags_the_one_that_asked_for_it_is_named() -> None:
    def write(minutes: int, who: str, operation: str, **tags: str) -> Any:
        body = {"operation": operation, "properties": {"tags": tags}}
        at = NOON + timedelta(minutes=minutes)
        sent = {"method": "PATCH"}
        name = "Microsoft.Resources/tags/write"
        return event(name, TAGS, body=body, at=at, caller=who, httpRequest=sent)

    writes = (
        write(1, "a@x", "Merge", team="red"),
        write(2, "b@x", "Delete", old="1"),
        write(3, "c@x", "Merge", cost="7"),
    )
    for path, before, after, who in (
        ("/tags/team", MISSING, "red", "a@x"),
        ("/tags/old", "1", MISSING, "b@x"),
        ("/tags/cost", MISSING, "7", "c@x"),
    ):
        assert told_of(changed(path, before, after), *writes).whole.who == who, path
    last = write(4, "d@x", "Replace", team="red", cost="7")
    assert told_of(changed("/tags/gone", "1", MISSING), *writes, last).whole.who == "d@x"


def test_the_identity_of_a_policy_assignment_is_called_so() -> None:
    place = "/subscriptions/s/providers/Microsoft.Authorization/policyAssignments/deny-public"
    write = event(
        "Microsoft.CognitiveServices/accounts/write",
        caller="6a1b",
        claims={"appid": "x", "xms_mirid": place, "idtyp": "app"},
    )
    whole = told_of(CAPACITY, write).whole
    assert whole.principal_kind is PrincipalKind.MANAGED_IDENTITY
    assert any("Azure Policy" in r and "deny-public" in r for r in whole.reasons)


def test_who_wrote_to_a_new_resource_before_it_was_read_is_told_beside_its_maker() -> None:
    there = Resource(KEY, ID, {})
    change = Change(ChangeType.ADDED, KEY, None, there)
    write = "Microsoft.CognitiveServices/accounts/write"
    made = event(write, at=NOON)
    later = event(write, at=NOON + timedelta(minutes=5), caller="eve@contoso.example")
    told = told_of(change, made, later)
    assert told.whole.who == "bo@contoso.example"
    assert told.paths[""].who == "eve@contoso.example"
    again = replace(told_of(change, made), acts=())
    assert again.paths == {}
