"""The sandbox's own rules, proved with Microsoft's clients: identity, access, ARM, logs, faults."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError
from azure.identity import ClientSecretCredential, DefaultAzureCredential, ManagedIdentityCredential
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.monitor import MonitorManagementClient
from azure.mgmt.resource.locks import ManagementLockClient
from azure.mgmt.resource.resources import ResourceManagementClient
from azure.mgmt.resource.subscriptions import SubscriptionClient
from azure.mgmt.resourcegraph import ResourceGraphClient
from azure.mgmt.resourcegraph.models import QueryRequest

from tests.sandbox_fixtures import ROOT, RunningSandbox, start_sandbox

SCOPES = ["https://management.azure.com/.default"]
SEARCH = "/providers/Microsoft.Search/searchServices"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
New = Callable[..., RunningSandbox]


def options(sandbox: RunningSandbox) -> dict[str, Any]:
    return {
        "base_url": sandbox.url,
        "credential_scopes": SCOPES,
        "connection_verify": sandbox.ca,
        "polling_interval": 0,
        "retry_total": 0,
    }


def resources(sandbox: RunningSandbox, name: str = "Owner") -> ResourceManagementClient:
    return ResourceManagementClient(
        sandbox.credential(name), sandbox.subscription, **options(sandbox)
    )


@pytest.fixture
def group(sandbox: RunningSandbox) -> str:
    """A fresh resource group's id."""
    name = "rg-core-test"
    resources(sandbox).resource_groups.create_or_update(name, {"location": "eastus2"})
    return f"/subscriptions/{sandbox.subscription}/resourceGroups/{name}"


def put(sandbox: RunningSandbox, path: str, body: Any, **more: Any) -> requests.Response:
    return sandbox.call("PUT", f"{path}?api-version=2025-05-01", body, **more)


def search(
    sandbox: RunningSandbox, group: str, called: str = "one", **more: Any
) -> requests.Response:
    body = {"location": "eastus2", "sku": {"name": "basic"}, "properties": {"replicaCount": 1}}
    return put(sandbox, f"{group}{SEARCH}/{called}", body, **more)


# -- identity -------------------------------------------------------------------------------------


def test_a_wrong_secret_is_refused_as_the_real_login_refuses_it(sandbox: RunningSandbox) -> None:
    found = sandbox.principal("Owner")
    credential = ClientSecretCredential(
        sandbox.tenant,
        found["client_id"],
        "wrong",
        authority=sandbox.url,
        disable_instance_discovery=True,
        connection_verify=sandbox.ca,
    )
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        credential.get_token(SCOPES[0])


def test_tokens_tell_principals_apart_and_verify_with_the_published_keys(
    sandbox: RunningSandbox,
) -> None:
    keys = requests.get(
        f"{sandbox.url}/{sandbox.tenant}/discovery/v2.0/keys", verify=sandbox.ca, timeout=10
    ).json()["keys"]
    claims = []
    for name in ("Owner", "Reader"):
        token = sandbox.token(name)
        key = jwt.PyJWK(keys[0])
        claims.append(
            jwt.decode(token, key, algorithms=["RS256"], audience="https://management.azure.com")
        )
        assert claims[-1]["appid"] == sandbox.principal(name)["client_id"]
        assert claims[-1]["oid"] == sandbox.principal(name)["object_id"]
    assert claims[0]["oid"] != claims[1]["oid"]
    assert {c["tid"] for c in claims} == {sandbox.tenant}


def test_the_default_credential_works_through_managed_identity(
    sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = sandbox.ready["managed_identity"]
    monkeypatch.setenv("IDENTITY_ENDPOINT", identity["endpoint"])
    monkeypatch.setenv("IDENTITY_HEADER", identity["header"])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", sandbox.ca)
    token = DefaultAzureCredential().get_token(SCOPES[0]).token
    assert jwt.decode(token, options={"verify_signature": False})["idtyp"] == "app"
    monkeypatch.setenv("IDENTITY_HEADER", "wrong")
    with pytest.raises(ClientAuthenticationError):
        ManagedIdentityCredential().get_token(SCOPES[0])


def test_the_default_credential_works_through_its_environment(
    sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    credential = DefaultAzureCredential(disable_instance_discovery=True)
    client = SubscriptionClient(credential, **options(sandbox))
    assert {s.subscription_id for s in client.subscriptions.list()} == set(sandbox.subscriptions)


@pytest.mark.parametrize(
    ("token", "code"),
    [("", "AuthenticationFailed"), ("Bearer nonsense", "InvalidAuthenticationToken")],
)
def test_no_token_or_a_wrong_one_is_401(sandbox: RunningSandbox, token: str, code: str) -> None:
    answer = requests.get(
        f"{sandbox.url}/subscriptions?api-version=2022-12-01",
        headers={"authorization": token} if token else {},
        verify=sandbox.ca,
        timeout=10,
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
    assert "Bearer" in answer.headers["www-authenticate"]


def test_both_forms_of_the_cloud_metadata(sandbox: RunningSandbox) -> None:
    for version, form in (("2022-09-01", dict), ("2019-05-01", list)):
        answer = requests.get(
            f"{sandbox.url}/metadata/endpoints?api-version={version}",
            verify=sandbox.ca,
            timeout=10,
        ).json()
        assert isinstance(answer, form)
        one = answer if isinstance(answer, dict) else answer[0]
        assert one["resourceManager"] == sandbox.url
        assert one["authentication"]["loginEndpoint"] == sandbox.url


# -- access ---------------------------------------------------------------------------------------


def test_a_reader_reads_but_may_not_write(sandbox: RunningSandbox, group: str) -> None:
    reader = resources(sandbox, "Reader")
    assert reader.resource_groups.get("rg-core-test").location == "eastus2"
    with pytest.raises(HttpResponseError) as caught:
        reader.resource_groups.create_or_update("rg-other", {"location": "eastus2"})
    assert caught.value.status_code == 403
    assert caught.value.error is not None
    assert caught.value.error.code == "AuthorizationFailed"
    oid = sandbox.principal("Reader")["object_id"]
    assert f"with object id '{oid}' does not have authorization to perform action" in (
        caught.value.message
    )
    assert "Microsoft.Resources/subscriptions/resourceGroups/write" in caught.value.message


def test_a_grant_counts_at_once_and_ends_with_its_assignment(
    sandbox: RunningSandbox, group: str
) -> None:
    client = AuthorizationManagementClient(
        sandbox.credential(), sandbox.subscription, **options(sandbox)
    )
    assert search(sandbox, group, called := "granted", name="Reader").status_code == 403
    contributor = f"/subscriptions/{sandbox.subscription}/providers/Microsoft.Authorization"
    contributor += "/roleDefinitions/b24988ac-6180-42a0-ab88-20f7382dd24c"
    parameters: Any = {
        "role_definition_id": contributor,
        "principal_id": sandbox.principal("Reader")["object_id"],
        "principal_type": "ServicePrincipal",
    }
    made = client.role_assignments.create(group, str(uuid.uuid4()), parameters)
    assert search(sandbox, group, called, name="Reader").status_code == 201
    with pytest.raises(HttpResponseError, match="RoleAssignmentExists"):
        client.role_assignments.create(group, str(uuid.uuid4()), parameters)
    listed = {a.id for a in client.role_assignments.list_for_scope(group)}
    assert made.id in listed
    client.role_assignments.delete_by_id(str(made.id))
    assert search(sandbox, group, called, name="Reader").status_code == 403


def test_the_permissions_api_says_what_the_caller_may(sandbox: RunningSandbox, group: str) -> None:
    def permissions(name: str) -> list[Any]:
        client = AuthorizationManagementClient(
            sandbox.credential(name), sandbox.subscription, **options(sandbox)
        )
        return list(client.permissions.list_for_resource_group("rg-core-test"))

    assert ["*/read"] in [p.actions for p in permissions("Reader")]
    assert ["*"] in [p.actions for p in permissions("Owner")]
    assert ["*"] not in [p.actions for p in permissions("Reader")]


def test_a_custom_role_grants_what_it_names_and_no_more(
    sandbox: RunningSandbox, group: str
) -> None:
    root = f"/subscriptions/{sandbox.subscription}"
    role, assignment = str(uuid.uuid4()), str(uuid.uuid4())
    body = {
        "properties": {
            "roleName": "Search maker",
            "assignableScopes": [root],
            "permissions": [{"actions": ["Microsoft.Search/searchServices/write"]}],
        }
    }
    base = f"{root}/providers/Microsoft.Authorization"
    assert put(sandbox, f"{base}/roleDefinitions/{role}", body).status_code == 201
    grant = {
        "properties": {
            "roleDefinitionId": f"{base}/roleDefinitions/{role}",
            "principalId": sandbox.principal("Reader")["object_id"],
        }
    }
    path = f"{group}/providers/Microsoft.Authorization/roleAssignments/{assignment}"
    assert put(sandbox, path, grant).status_code == 201
    assert search(sandbox, group, name="Reader").status_code == 201
    gone = sandbox.call("DELETE", f"{group}{SEARCH}/one?api-version=2025-05-01", name="Reader")
    assert gone.status_code == 403


# -- ARM ------------------------------------------------------------------------------------------


def test_the_generic_store_keeps_any_type_and_compares_ids_without_case(
    sandbox: RunningSandbox, group: str
) -> None:
    client = resources(sandbox)
    id_ = f"{group}{SEARCH}/MySearch"
    made = client.resources.begin_create_or_update_by_id(
        id_,
        {"location": "eastus2", "sku": {"name": "basic"}, "properties": {"future": {"x": 1}}},
        api_version="2025-05-01",
    ).result()
    assert made.name == "MySearch"
    found = client.resources.get_by_id(id_.upper(), api_version="2099-01-01-preview")
    assert found.as_dict()["properties"]["future"] == {"x": 1}
    assert found.id == id_
    listed = [r.name for r in client.resources.list_by_resource_group("rg-core-test")]
    assert listed == ["MySearch"]
    assert "MySearch" in [r.name for r in client.resources.list()]
    client.resources.begin_delete_by_id(id_, api_version="2025-05-01").result()
    with pytest.raises(HttpResponseError, match="ResourceNotFound"):
        client.resources.get_by_id(id_, api_version="2025-05-01")


def test_a_patch_merges_and_an_etag_guards(sandbox: RunningSandbox, group: str) -> None:
    made = search(sandbox, group)
    path = f"{group}{SEARCH}/one?api-version=2025-05-01"
    changed = sandbox.call("PATCH", path, {"tags": {"a": "b"}, "properties": {"replicaCount": 3}})
    assert changed.json()["properties"]["replicaCount"] == 3
    assert changed.json()["sku"] == {"name": "basic"}
    assert changed.json()["etag"] != made.json()["etag"]
    stale = sandbox.call("PUT", path, changed.json(), headers={"if-match": made.json()["etag"]})
    assert (stale.status_code, stale.json()["error"]["code"]) == (412, "PreconditionFailed")
    again = sandbox.call("PUT", path, changed.json(), headers={"if-none-match": "*"})
    assert again.status_code == 412
    assert sandbox.call("HEAD", path).status_code == 204


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("empty", [True, False])
def test_every_page_is_reached_by_its_next_link(
    sandbox: RunningSandbox, group: str, relative: bool, empty: bool
) -> None:
    for i in range(5):
        search(sandbox, group, f"s{i}")
    sandbox.control(
        "PUT", "settings", {"page_size": 2, "relative_next": relative, "empty_pages": empty}
    )
    names = [r.name for r in resources(sandbox).resources.list_by_resource_group("rg-core-test")]
    assert names == [f"s{i}" for i in range(5)]


def test_pages_of_a_disturbed_listing_still_hold_everything_once(
    sandbox: RunningSandbox, group: str
) -> None:
    everything = {f"s{i}" for i in range(9)}
    for name in everything:
        search(sandbox, group, name)
    sandbox.control("PUT", "settings", {"page_size": 2, "shuffle": True})
    orders = set()
    for _ in range(6):
        found = resources(sandbox).resources.list_by_resource_group("rg-core-test")
        names = tuple(str(r.name) for r in found)
        assert len(names) == len(everything)
        assert set(names) == everything
        orders.add(names)
    assert len(orders) > 1  # the control: it is another order now and then


def test_a_lock_stops_deletes_and_a_read_only_one_stops_writes(
    sandbox: RunningSandbox, group: str
) -> None:
    search(sandbox, group)
    locks = ManagementLockClient(sandbox.credential(), sandbox.subscription, **options(sandbox))
    level: Any = {"level": "CanNotDelete", "notes": "keep"}
    locks.management_locks.create_or_update_at_resource_group_level("rg-core-test", "keep", level)
    path = f"{group}{SEARCH}/one?api-version=2025-05-01"
    refused = sandbox.call("DELETE", path)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "ScopeLocked")
    assert search(sandbox, group).status_code == 200
    level = {"level": "ReadOnly"}
    locks.management_locks.create_or_update_at_resource_group_level("rg-core-test", "keep", level)
    assert search(sandbox, group).json()["error"]["code"] == "ScopeLocked"
    assert [x.name for x in locks.management_locks.list_at_resource_group_level("rg-core-test")]
    locks.management_locks.delete_at_resource_group_level("rg-core-test", "keep")
    assert sandbox.call("DELETE", path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/subscriptions/{other}/resourcegroups?api-version=1", 404, "SubscriptionNotFound"),
        ("GET", "{sub}/resourceGroups/none?api-version=1", 404, "ResourceGroupNotFound"),
        ("GET", "{group}" + SEARCH + "/none?api-version=1", 404, "ResourceNotFound"),
        ("GET", "{group}" + SEARCH + "/none/shared/x?api-version=1", 404, "ParentResourceNotFound"),
        ("GET", "{group}" + SEARCH + "/none", 400, "MissingApiVersionParameter"),
        ("PUT", "{sub}/resourceGroups/new?api-version=1", 400, "LocationRequired"),
        ("POST", "{sub}/something/else?api-version=1", 501, "SandboxUnsupported"),
    ],
)
def test_errors_are_arms_own(
    sandbox: RunningSandbox, group: str, method: str, path: str, status: int, code: str
) -> None:
    where = path.format(
        other=uuid.uuid4(), sub=f"/subscriptions/{sandbox.subscription}", group=group
    )
    answer = sandbox.call(method, where, {} if method == "PUT" else None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-ms-request-id"]


def test_tags_are_merged_replaced_and_removed(sandbox: RunningSandbox, group: str) -> None:
    client = resources(sandbox)
    client.tags.begin_create_or_update_at_scope(
        group, {"properties": {"tags": {"a": "1"}}}
    ).result()
    merged: Any = {"operation": "Merge", "properties": {"tags": {"b": "2"}}}
    client.tags.begin_update_at_scope(group, merged).result()
    assert client.resource_groups.get("rg-core-test").tags == {"a": "1", "b": "2"}
    client.tags.begin_delete_at_scope(group).result()
    assert not client.resource_groups.get("rg-core-test").tags


def test_deleting_a_group_deletes_what_it_holds(sandbox: RunningSandbox, group: str) -> None:
    search(sandbox, group)
    client = resources(sandbox)
    client.resource_groups.begin_delete("rg-core-test").result()
    assert not client.resource_groups.check_existence("rg-core-test")
    client.resource_groups.create_or_update("rg-core-test", {"location": "eastus2"})
    assert list(client.resources.list_by_resource_group("rg-core-test")) == []


# -- throttling -----------------------------------------------------------------------------------


def test_the_bucket_empties_answers_429_and_fills_again(
    sandbox: RunningSandbox, group: str
) -> None:
    sandbox.control("PUT", "settings", {"throttle": True, "buckets": {"reads": [5, 2.0]}})
    path = f"/subscriptions/{sandbox.subscription}/resourcegroups?api-version=2025-04-01"
    answers = [sandbox.call("GET", path) for _ in range(8)]
    left = [
        int(a.headers["x-ms-ratelimit-remaining-subscription-reads"])
        for a in answers
        if a.status_code == 200
    ]
    assert left == sorted(left, reverse=True)
    refused = [a for a in answers if a.status_code == 429]
    assert refused
    assert int(refused[0].headers["retry-after"]) >= 1
    assert refused[0].json()["error"]["code"] == "SubscriptionRequestsThrottled"
    assert search(sandbox, group).status_code == 201  # writes have a bucket of their own
    other = sandbox.call("GET", path, name="Reader")
    assert other.status_code == 200  # and so has every principal


# -- logs -----------------------------------------------------------------------------------------


def log_filter(**more: str) -> str:
    since = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    text = f"eventTimestamp ge '{since:%Y-%m-%dT%H:%M:%SZ}'"
    return text + "".join(f" and {name} eq '{value}'" for name, value in more.items())


def test_a_write_is_logged_after_its_delay_with_who_and_what(
    sandbox: RunningSandbox, group: str
) -> None:
    correlation = str(uuid.uuid4())
    search(sandbox, group, headers={"x-ms-correlation-request-id": correlation})
    client = MonitorManagementClient(
        sandbox.credential("Reader"), sandbox.subscription, **options(sandbox)
    )
    wanted = log_filter(correlationId=correlation)
    assert list(client.activity_logs.list(filter=wanted)) == []
    sandbox.control("POST", "clock", {"advance": 1300})
    events = list(client.activity_logs.list(filter=wanted))
    assert {e.status.value for e in events if e.status} == {"Started", "Succeeded"}
    owner = sandbox.principal("Owner")
    for event in events:
        assert event.resource_id == f"{group}{SEARCH}/one"
        assert event.caller in (owner.get("upn"), owner["object_id"])
        assert event.claims is not None
        assert event.claims["appid"] == owner["client_id"]
        assert event.operation_name is not None
        assert event.operation_name.value == "Microsoft.Search/searchServices/write"
        assert event.submission_timestamp is not None
        assert event.event_timestamp is not None
        delay = event.submission_timestamp - event.event_timestamp
        assert dt.timedelta(minutes=3) <= delay <= dt.timedelta(minutes=20)


def test_a_refused_write_is_logged_as_failed_and_a_read_not_at_all(
    sandbox: RunningSandbox, group: str
) -> None:
    search(sandbox, group, name="Reader")
    sandbox.call("GET", f"{group}{SEARCH}/one?api-version=2025-05-01")
    sandbox.control("POST", "clock", {"advance": 1300})
    client = MonitorManagementClient(sandbox.credential(), sandbox.subscription, **options(sandbox))
    wanted = log_filter(resourceUri=f"{group}{SEARCH}/one")
    events = list(client.activity_logs.list(filter=wanted))
    assert {e.status.value for e in events if e.status} == {"Started", "Failed"}
    assert {e.operation_name.value for e in events if e.operation_name} == {
        "Microsoft.Search/searchServices/write"
    }


@pytest.mark.parametrize(
    "wanted",
    [
        "caller eq 'x'",
        log_filter() + " or resourceUri eq 'x'",
        log_filter(resourceGroupName="a", resourceProvider="b"),
        "resourceGroupName eq 'a'",
        "eventTimestamp ge '2020-01-01T00:00:00Z'",
    ],
    # Two workers must call them the same, whatever the second in which they collect.
    ids=["by-caller", "or", "group-and-provider", "no-time", "older-than-90-days"],
)
def test_only_the_documented_filters_are_taken(sandbox: RunningSandbox, wanted: str) -> None:
    client = MonitorManagementClient(sandbox.credential(), sandbox.subscription, **options(sandbox))
    with pytest.raises(HttpResponseError) as caught:
        list(client.activity_logs.list(filter=wanted))
    assert caught.value.status_code == 400


def graph(sandbox: RunningSandbox, text: str, **more: Any) -> Any:
    client = ResourceGraphClient(sandbox.credential(), **options(sandbox))
    return client.resources(QueryRequest(query=text, subscriptions=sandbox.subscriptions, **more))


def test_resource_changes_name_property_and_author(sandbox: RunningSandbox, group: str) -> None:
    search(sandbox, group)
    sandbox.call(
        "PATCH", f"{group}{SEARCH}/one?api-version=2025-05-01", {"properties": {"replicaCount": 2}}
    )
    sandbox.control("POST", "clock", {"advance": 300})
    query = (
        "resourcechanges | extend at = todatetime(properties.changeAttributes.timestamp)"
        f" | where properties.targetResourceId =~ '{group}{SEARCH}/one'"
        " | where at > ago(1d) | order by at asc | project properties"
    )
    rows = [row["properties"] for row in graph(sandbox, query).data]
    assert [row["changeType"] for row in rows] == ["Create", "Update"]
    assert rows[1]["changes"]["properties.replicaCount"]["previousValue"] == "1"
    assert rows[1]["changes"]["properties.replicaCount"]["newValue"] == "2"
    assert rows[1]["changeAttributes"]["changedBy"] == sandbox.principal("Owner")["client_id"]
    sandbox.control("POST", "clock", {"advance": 15 * 86_400})
    assert graph(sandbox, query).data == []  # 14 days, no more


def test_the_graph_pages_and_does_not_know_deployments(sandbox: RunningSandbox) -> None:
    accounts = "resources | where type =~ 'Microsoft.CognitiveServices/accounts' | project name"
    everything = [row["name"] for row in graph(sandbox, accounts).data]
    assert len(everything) >= 8
    paged, token = [], None
    while True:
        page = graph(sandbox, accounts, options={"$top": 3, "$skipToken": token})
        paged += [row["name"] for row in page.data]
        token = page.skip_token
        if not token:
            break
    assert paged == everything
    kinds = graph(sandbox, "resources | summarize n = count() by type").data
    assert not [k for k in kinds if k["type"].count("/") > 1]


@pytest.mark.parametrize(
    "query",
    ["nothing", "resources | join x on y", "resources | where a ~~ 3", "resources | evil()"],
)
def test_a_query_that_is_not_played_is_refused(sandbox: RunningSandbox, query: str) -> None:
    with pytest.raises(HttpResponseError) as caught:
        graph(sandbox, query)
    assert caught.value.status_code == 400


# -- faults, clock, journal -----------------------------------------------------------------------


def first_account(sandbox: RunningSandbox) -> dict[str, Any]:
    path = f"/subscriptions/{sandbox.subscription}/providers/Microsoft.CognitiveServices/accounts"
    found = sandbox.call("GET", f"{path}?api-version=2025-09-01").json()["value"]
    return dict(found[0])


@pytest.mark.parametrize("mode", ["refused", "hanging", "503"])
def test_a_region_that_is_out_does_not_answer_and_others_do(
    sandbox: RunningSandbox, group: str, mode: str
) -> None:
    account = first_account(sandbox)
    region = account["location"].replace(" ", "").lower()
    sandbox.control(
        "POST", "faults", {"kind": "outage", "region": region, "mode": mode, "seconds": 0.3}
    )
    path = f"{account['id']}/deployments?api-version=2025-09-01"
    if mode == "503":
        assert sandbox.call("GET", path).status_code == 503
    else:
        with pytest.raises(requests.ConnectionError):
            sandbox.call("GET", path, timeout=5)
    with pytest.raises(requests.ConnectionError) if mode != "503" else _nothing():
        answer = sandbox.call("GET", account["properties"]["endpoint"] + "openai/v1/models")
        assert answer.status_code == 503
    assert resources(sandbox).resource_groups.get("rg-core-test").location == "eastus2"
    assert search(sandbox, group).status_code == 201
    sandbox.control("DELETE", "faults")
    assert sandbox.call("GET", path).status_code == 200


class _nothing:  # noqa: N801  reads as a statement
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def test_cut_and_corrupt_answers_are_seen_as_such(sandbox: RunningSandbox) -> None:
    path = f"/subscriptions/{sandbox.subscription}/resourcegroups?api-version=2025-04-01"
    sandbox.control("POST", "faults", {"kind": "damage", "mode": "cut", "path": "resourcegroups"})
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        _ = sandbox.call("GET", path).content
    sandbox.control("DELETE", "faults")
    sandbox.control("POST", "faults", {"kind": "damage", "mode": "corrupt"})
    with pytest.raises(requests.exceptions.JSONDecodeError):
        sandbox.call("GET", path).json()


def test_faults_hit_their_share_their_principal_and_end_by_themselves(
    sandbox: RunningSandbox,
) -> None:
    path = f"/subscriptions/{sandbox.subscription}/resourcegroups?api-version=2025-04-01"
    sandbox.control("POST", "faults", {"kind": "error", "status": 500, "rate": 0.5})
    statuses = [sandbox.call("GET", path).status_code for _ in range(40)]
    assert 5 <= statuses.count(500) <= 35
    assert set(statuses) == {200, 500}
    sandbox.control("DELETE", "faults")
    reader = sandbox.principal("Reader")["name"]
    sandbox.control("POST", "faults", {"kind": "deny", "principal": reader})
    assert sandbox.call("GET", path, name=reader).status_code == 403
    assert sandbox.call("GET", path).status_code == 200
    sandbox.control("DELETE", "faults")
    sandbox.control("POST", "faults", {"kind": "throttle", "times": 2, "retry_after": 3})
    answers = [sandbox.call("GET", path) for _ in range(3)]
    assert [a.status_code for a in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "3"


def test_a_wrong_fault_is_refused_with_words(sandbox: RunningSandbox) -> None:
    for fault in ({"kind": "flood"}, {"kind": "latency"}, {"kind": "error", "rate": 2}, {"x": 1}):
        with pytest.raises(requests.HTTPError) as caught:
            sandbox.control("POST", "faults", fault)
        assert caught.value.response.json()["error"]["message"]


def test_the_journal_says_who_did_what_with_which_outcome(
    sandbox: RunningSandbox, group: str
) -> None:
    sandbox.control("DELETE", "journal")
    search(sandbox, group, name="Reader")
    # The first call of a principal also fetches its token, which is in the journal, too.
    entries = [e for e in sandbox.journal() if e["path"].startswith("/subscriptions/")]
    assert [(e["method"], e["status"]) for e in entries] == [("PUT", 403)]
    assert entries[0]["oid"] == sandbox.principal("Reader")["object_id"]


def test_the_control_api_wants_its_own_token(sandbox: RunningSandbox) -> None:
    answer = sandbox.call("GET", "/_sandbox/journal")
    assert answer.status_code == 401


def test_what_is_dumped_can_be_loaded(sandbox: RunningSandbox, group: str) -> None:
    search(sandbox, group)
    dumped = sandbox.control("GET", "dump")
    sandbox.call("DELETE", f"{group}{SEARCH}/one?api-version=2025-05-01")
    sandbox.control("POST", "load", dumped)
    assert sandbox.call("GET", f"{group}{SEARCH}/one?api-version=2025-05-01").status_code == 200


def test_a_stuck_or_failing_operation_ends_as_declared(sandbox: RunningSandbox, group: str) -> None:
    client = resources(sandbox)
    sandbox.control("POST", "clock", {"scale": 50})
    sandbox.control(
        "POST", "faults", {"kind": "operation", "mode": "fail", "code": "Broken", "message": "no"}
    )
    with pytest.raises(HttpResponseError, match="Broken"):
        client.resource_groups.begin_delete("rg-core-test").result(20)


# -- surviving ------------------------------------------------------------------------------------


def test_what_was_written_is_there_after_a_restart(new_sandbox: New) -> None:
    first = new_sandbox("--estate", "empty", folder="same")
    path = f"/subscriptions/{first.subscription}/resourceGroups/kept?api-version=1"
    assert first.call("PUT", path, {"location": "eastus2"}).status_code == 201
    first.control("POST", "clock", {"advance": 86_400})
    before = first.control("GET", "clock")["now"]
    first.stop()
    second = new_sandbox(folder="same")
    assert second.tenant == first.tenant
    assert second.call("GET", path).json()["name"] == "kept"
    assert second.control("GET", "clock")["now"] >= before


@pytest.mark.timeout(180)
def test_kill_9_while_writing_leaves_whole_requests(tmp_path: Path) -> None:
    rounds = 20 if os.environ.get("MUSTER_STRESS") else 3
    count = 0
    for i in range(rounds):
        running = start_sandbox(tmp_path, *(("--estate", "empty") if i == 0 else ()))
        try:
            running.control("PUT", "settings", {"throttle": False})  # it is not what is tried here
            base = f"/subscriptions/{running.subscription}/resourceGroups"
            listed = running.call("GET", f"{base}?api-version=1").json()["value"]
            names = {g["name"] for g in listed}
            # Every group that was answered is there, and what it holds with it.
            assert {f"g{n}" for n in range(count)} <= names
            for n in range(count):
                kept = running.call("GET", f"{base}/g{n}{SEARCH}/s?api-version=1")
                assert kept.status_code == 200, kept.text
            until = time.monotonic() + 0.05 + 0.2 * (i % 3)
            while time.monotonic() < until:
                running.call("PUT", f"{base}/g{count}?api-version=1", {"location": "eastus2"})
                search(running, f"{base}/g{count}", "s")
                count += 1
        finally:
            running.kill()
        assert count


# -- starting -------------------------------------------------------------------------------------


def start(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "drills.sandbox", "--no-blob", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_bad_input_gets_one_clear_error(tmp_path: Path, new_sandbox: New) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("subscriptions:\n  - name: [1\n")
    results = [start("--state", str(tmp_path / "a"), "--estate", str(broken))]
    results.append(start("--state", str(tmp_path / "b"), "--estate", str(tmp_path / "none.yaml")))
    running = new_sandbox("--estate", "empty")
    port = running.url.rpartition(":")[2]
    results.append(start("--state", str(tmp_path / "c"), "--estate", "empty", "--port", port))
    results.append(start("--state", str(running.state)))  # in use
    other = tmp_path / "other"
    other.mkdir()
    import sqlite3

    with sqlite3.connect(other / "sandbox.db") as db:
        db.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT)")
        db.execute("INSERT INTO meta VALUES ('format', '99')")
    results.append(start("--state", str(other)))
    (tmp_path / "file").write_text("x")
    results.append(start("--state", str(tmp_path / "file")))
    for result in results:
        assert result.returncode == 1, result.args
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        assert lines[0].startswith("sandbox: "), result.stderr
        assert "Traceback" not in result.stderr
        assert len(lines) <= 4, result.stderr
    assert "broken.yaml" in results[0].stderr
    assert "port" in results[2].stderr
    assert "another sandbox" in results[3].stderr
    assert "another version" in results[4].stderr


def test_the_ready_file_is_private_complete_and_gone_after_the_end(new_sandbox: New) -> None:
    running = new_sandbox("--estate", "empty")
    assert running.ready_file.stat().st_mode & 0o077 == 0
    document = json.loads(running.ready_file.read_text())
    wanted = {"url", "ca", "tenant", "subscriptions", "principals", "managed_identity", "blob"}
    assert wanted | {"control"} <= set(document)
    running.stop()
    assert running.process.returncode == 0
    assert not running.ready_file.exists()


def test_only_loopback_is_served(sandbox: RunningSandbox) -> None:
    assert sandbox.url.startswith("https://localhost:")
    with pytest.raises((requests.ConnectionError, ServiceRequestError)):
        requests.get(sandbox.url.replace("https://", "http://"), timeout=5)
