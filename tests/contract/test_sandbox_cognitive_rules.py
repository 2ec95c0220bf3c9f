"""The rules of accounts and deployments, one test each, by a clock that the test moves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sandbox_play_fixtures import CS, NOW, Play

DAY = 86400.0
ACCOUNT = {"kind": "OpenAI", "location": "JAPANEAST", "sku": {"name": "S0"}, "properties": {}}


def in_use(play: Play) -> str:
    return f"/subscriptions/{play.subscriptions[0]}/{CS}"


# -- accounts -------------------------------------------------------------------------------------


def test_an_account_is_created_as_the_recording_shows(play: Play) -> None:
    id_ = f"{play.group()}/{CS}/accounts/cs_cli_test"
    reply = play.call("PUT", id_, ACCOUNT)
    assert reply.status == 201
    assert reply.body["properties"]["provisioningState"] == "Creating"
    assert reply.body["location"] == "JAPANEAST"
    assert reply.headers["etag"] == reply.body["etag"]
    assert "retry-after" not in reply.headers
    assert "location" not in reply.headers
    url = reply.headers["azure-asyncoperation"]
    assert re.search(r"/locations/\w+/operationResults/[0-9a-f-]{36}\?api-version=", url)
    path = url.removeprefix("https://localhost:4443").partition("?")[0]
    assert play.good("GET", path)["status"] == "InProgress"
    play.advance(10)
    ended = play.good("GET", path)
    assert ended["status"] == "Succeeded"
    assert set(ended) == {"id", "name", "status", "startTime", "endTime"}
    after = play.good("GET", id_)
    assert after["properties"]["provisioningState"] == "Succeeded"
    assert after["etag"] != reply.body["etag"]
    assert list(after)[:7] == ["id", "name", "type", "etag", "location", "sku", "kind"]


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("OpenAI", 4500, 7000), ("AIServices", 30000, 40000)]
)
def test_account_bodies_are_as_large_as_the_real_ones(
    play: Play, kind: str, low: int, high: int
) -> None:
    id_ = play.account("sized", kind=kind)
    assert low < len(json.dumps(play.good("GET", id_), separators=(",", ":"))) < high


def test_endpoints_lead_into_the_sandbox_and_follow_its_address(play: Play) -> None:
    openai = play.good("GET", play.account("one"))["properties"]
    assert openai["endpoint"] == "https://localhost:4443/dp/one.openai/"
    foundry = play.good("GET", play.account("two", kind="AIServices"))["properties"]
    assert foundry["endpoint"] == "https://localhost:4443/dp/two.cognitiveservices/"
    assert foundry["endpoints"]["AI Foundry API"] == "https://localhost:4443/dp/two.services.ai/"
    id_ = f"{play.group()}/{CS}/accounts/plain"
    play.good("PUT", id_, ACCOUNT)
    assert play.good("GET", id_)["properties"]["endpoint"].endswith("/dp/japaneast.api/")
    play.world.base = "https://localhost:5555"
    listed = play.good("GET", f"{in_use(play)}/accounts")["value"]
    assert all(a["properties"]["endpoint"].startswith("https://localhost:5555/") for a in listed)


def test_a_list_shows_what_get_shows(play: Play) -> None:
    ids = [play.account("one"), play.account("two", kind="AIServices")]
    play.good(
        "PUT",
        f"{ids[0]}/privateEndpointConnections/pe",
        {"properties": {"privateLinkServiceConnectionState": {"status": "Approved"}}},
    )
    for _ in range(2):
        listed = play.good("GET", f"{in_use(play)}/accounts")["value"]
        assert listed == [play.good("GET", id_) for id_ in ids]
    play.good("PATCH", ids[1], {"tags": {"a": "b"}})
    assert play.good("GET", f"{in_use(play)}/accounts")["value"][1]["tags"] == {"a": "b"}
    shown = play.good("GET", ids[0])["properties"]["privateEndpointConnections"]
    assert [c["name"] for c in shown] == ["pe"]


def test_a_changed_base_model_of_a_list_is_not_served_from_the_cache_after_a_rollback(
    play: Play,
) -> None:
    id_ = play.account("one")
    before = play.good("GET", f"{in_use(play)}/accounts")
    assert play.call("PUT", id_, {**ACCOUNT, "kind": "AIServices"}).status == 409
    assert play.good("GET", f"{in_use(play)}/accounts") == before


def test_location_and_kind_of_an_account_cannot_change(play: Play) -> None:
    id_ = play.account("fixed")
    body = {**ACCOUNT, "location": "swedencentral"}
    assert play.call("PUT", id_, {**body, "location": "eastus2"}).code == "InvalidResourceLocation"
    assert (
        play.call("PUT", id_, {**body, "kind": "AIServices"}).code == "AccountKindCannotBeChanged"
    )
    assert play.call("PUT", id_, {**body, "location": "Sweden Central"}).status == 200


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"location": None}, "LocationRequired"),
        ({"location": "atlantis"}, "LocationNotAvailableForResourceType"),
        ({"kind": "Oracle"}, "InvalidApiSetId"),
        ({"sku": {"name": "S9"}}, "InvalidSkuId"),
        ({"identity": {"type": "Borrowed"}}, "InvalidIdentityType"),
    ],
)
def test_bad_accounts_are_refused(play: Play, change: dict[str, object], code: str) -> None:
    reply = play.call("PUT", f"{play.group()}/{CS}/accounts/bad", {**ACCOUNT, **change})
    assert (reply.status, reply.code) == (400, code)
    assert play.call("GET", f"{play.group()}/{CS}/accounts/bad").status == 404


def test_a_custom_domain_is_unique_also_against_deleted_accounts(play: Play) -> None:
    first = play.account("unique")
    other = f"{play.group('rg-dr', 'eastus2', at=1)}/{CS}/accounts/other"
    body = {**ACCOUNT, "location": "eastus2", "properties": {"customSubDomainName": "UNIQUE"}}
    check = f"{in_use(play)}/checkDomainAvailability"
    asked = {"subdomainName": "unique", "type": "Microsoft.CognitiveServices/accounts"}
    assert play.call("PUT", other, body).code == "CustomDomainInUse"
    assert play.good("POST", check, asked)["isSubdomainAvailable"] is False
    play.good("DELETE", first)
    assert play.call("PUT", other, body).code == "CustomDomainInUse"
    purge = f"{in_use(play)}/locations/swedencentral/resourceGroups/rg-test/deletedAccounts/unique"
    play.good("DELETE", purge)
    assert play.good("POST", check, asked)["isSubdomainAvailable"] is True
    assert play.call("PUT", other, body).status == 201


def test_a_custom_domain_stays_once_it_is_set(play: Play) -> None:
    id_ = play.account("stays")
    body = {**ACCOUNT, "location": "swedencentral", "properties": {"customSubDomainName": "goes"}}
    assert play.call("PUT", id_, body).code == "CustomSubDomainNameCannotBeChanged"
    play.good("PUT", id_, {**body, "properties": {}})
    assert play.good("GET", id_)["properties"]["customSubDomainName"] == "stays"


def test_keys_are_listed_and_regenerated_but_never_shown(play: Play) -> None:
    id_ = play.account("keyed")
    before = play.good("POST", f"{id_}/listKeys")
    after = play.good("POST", f"{id_}/regenerateKey", {"keyName": "Key1"})
    assert after["key1"] != before["key1"]
    assert after["key2"] == before["key2"]
    assert play.call("POST", f"{id_}/regenerateKey", {"keyName": "Key3"}).status == 400
    assert before["key2"] not in json.dumps(play.good("GET", id_))
    assert play.call("POST", f"{id_}/listKeys", who="Reader").status == 403
    play.good("PATCH", id_, {"properties": {"disableLocalAuth": True}})
    play.advance(10)
    assert play.call("POST", f"{id_}/listKeys").status == 400


def test_a_patch_merges_and_only_tags_are_instant(play: Play) -> None:
    id_ = play.account("patched", disableLocalAuth=False)
    tags = play.call("PATCH", id_, {"tags": {"a": "1"}})
    assert (tags.status, "azure-asyncoperation" in tags.headers) == (200, False)
    network = play.call("PATCH", id_, {"properties": {"publicNetworkAccess": "Disabled"}})
    assert "azure-asyncoperation" in network.headers
    assert network.body["properties"]["provisioningState"] == "Accepted"
    assert play.call("PATCH", id_, {"tags": {"a": "2"}}).code == "RequestConflict"
    play.advance(10)
    after = play.good("GET", id_)
    assert after["tags"] == {"a": "1"}
    assert after["properties"]["publicNetworkAccess"] == "Disabled"
    assert after["properties"]["disableLocalAuth"] is False


def test_children_cannot_be_written_before_the_account_is_ready(play: Play) -> None:
    id_ = f"{play.group()}/{CS}/accounts/early"
    play.good("PUT", id_, {**ACCOUNT, "location": "swedencentral"})
    assert play.deploy(id_).code == "AccountProvisioningStateInvalid"
    list_ = f"{id_}/raiBlocklists/words"
    assert play.call("PUT", list_, {"properties": {}}).code == "AccountProvisioningStateInvalid"
    play.advance(10)
    assert play.deploy(id_).status == 201


def test_unknown_types_of_the_namespace_are_refused_loudly(play: Play) -> None:
    id_ = play.account("strict")
    assert play.call("GET", f"{id_}/wishes").code == "InvalidResourceType"
    assert play.call("PUT", f"{id_}/wishes/one", {}).code == "InvalidResourceType"
    assert play.call("POST", f"{id_}/dance").code == "InvalidResourceType"


# -- deletion -------------------------------------------------------------------------------------


def test_deletion_keeps_the_account_for_48_hours_to_the_tick(play: Play) -> None:
    id_ = play.account("gone", kind="AIServices", allowProjectManagement=True)
    reply = play.call("DELETE", id_)
    assert (reply.status, reply.body) == (200, None)
    assert play.call("DELETE", id_).status == 204
    [listed] = play.good("GET", f"{in_use(play)}/deletedAccounts")["value"]
    assert listed["type"] == "Microsoft.CognitiveServices/deletedAccounts"
    assert listed["id"].endswith(
        "/locations/swedencentral/resourceGroups/rg-test/deletedAccounts/gone"
    )
    gone, purge = (listed["properties"][n] for n in ("deletionDate", "scheduledPurgeDate"))
    assert gone[11:] == purge[11:]
    assert play.good("GET", listed["id"]) == listed
    play.advance(48 * 3600 - 1)
    assert play.call("GET", listed["id"]).status == 200
    play.advance(2)
    assert play.call("GET", listed["id"]).status == 404
    assert play.good("GET", f"{in_use(play)}/deletedAccounts")["value"] == []
    assert play.call("PUT", id_, {**ACCOUNT, "location": "swedencentral"}).status == 201


def test_a_deleted_account_must_be_restored_or_purged(play: Play) -> None:
    id_ = play.account("twin")
    principal = play.good("GET", id_)["identity"]["principalId"]
    play.good("DELETE", id_)
    body = {**ACCOUNT, "location": "swedencentral", "identity": {"type": "SystemAssigned"}}
    refused = play.call("PUT", id_, body)
    assert (refused.status, refused.code) == (409, "FlagMustBeSetForRestore")
    purge = f"{in_use(play)}/locations/swedencentral/resourceGroups/rg-test/deletedAccounts/twin"
    assert play.call("DELETE", purge, who="Reader").status == 403
    assert play.call("DELETE", purge).status == 202
    play.good("PUT", id_, body)
    play.advance(10)
    assert play.good("GET", id_)["identity"]["principalId"] != principal


def test_a_restore_brings_deployments_back_and_loses_projects_and_private_endpoints(
    play: Play,
) -> None:
    id_ = play.account("back", kind="AIServices", allowProjectManagement=True)
    assert play.deploy(id_, "chat").status == 201
    play.good("PUT", f"{id_}/raiBlocklists/words", {"properties": {}})
    play.good(
        "PUT",
        f"{id_}/privateEndpointConnections/pe",
        {"properties": {"privateLinkServiceConnectionState": {"status": "Approved"}}},
    )
    project = {"location": "swedencentral", "identity": {"type": "SystemAssigned"}}
    play.good("PUT", f"{id_}/projects/desk", project)
    play.world.store.put(f"dp:{id_.lower()}/projects/desk:agents", "a1", {"id": "a1"})
    refused = play.call("DELETE", id_)
    assert (refused.status, refused.code) == (409, "CannotDeleteResource")
    assert "projects/desk" in refused.message
    play.good("DELETE", f"{id_}/projects/desk")
    keys = play.good("POST", f"{id_}/listKeys")
    play.good("DELETE", id_)
    assert play.call("GET", f"{id_}/deployments/chat").status == 404
    play.good("PUT", id_, {"location": "swedencentral", "properties": {"restore": True}})
    play.advance(10)
    assert (
        play.good("GET", f"{id_}/deployments/chat")["properties"]["provisioningState"]
        == "Succeeded"
    )
    assert play.good("GET", f"{id_}/raiBlocklists/words")["name"] == "words"
    assert play.good("GET", f"{id_}/projects")["value"] == []
    assert play.good("GET", f"{id_}/privateEndpointConnections")["value"] == []
    assert play.good("POST", f"{id_}/listKeys") == keys
    assert play.world.store.count(f"dp:{id_.lower()}/projects/desk:agents") == 0
    assert "deletionDate" not in play.good("GET", id_)["properties"]
    assert play.good("GET", f"{in_use(play)}/deletedAccounts")["value"] == []


def test_restore_of_what_was_never_deleted_is_refused(play: Play) -> None:
    id_ = f"{play.group()}/{CS}/accounts/never"
    body = {**ACCOUNT, "properties": {"restore": True}}
    assert play.call("PUT", id_, body).status == 404


def test_deleting_a_group_soft_deletes_its_accounts(play: Play) -> None:
    id_ = play.account("inside")
    assert play.deploy(id_).status == 201
    play.call("DELETE", play.group())
    play.advance(60)
    assert [a["name"] for a in play.good("GET", f"{in_use(play)}/deletedAccounts")["value"]] == [
        "inside"
    ]
    play.group()
    play.good("PUT", id_, {"location": "swedencentral", "properties": {"restore": True}})
    play.advance(10)
    assert play.call("GET", f"{id_}/deployments/chat").status == 200


def test_provisioned_throughput_of_a_deleted_account_is_held_until_the_purge(play: Play) -> None:
    id_ = play.account("ptu")
    assert (
        play.deploy(
            id_, "big", sku="ProvisionedManaged", model="gpt-4o", version="2024-11-20", capacity=50
        ).status
        == 201
    )
    play.advance(120)
    usage = f"{in_use(play)}/locations/swedencentral/usages"
    name = {"$filter": "name.value eq 'OpenAI.ProvisionedManaged'"}
    assert play.good("GET", usage, **name)["value"][0]["currentValue"] == 50
    play.good("DELETE", id_)
    assert play.good("GET", usage, **name)["value"][0]["currentValue"] == 50
    play.advance(48 * 3600 + 1)
    assert play.good("GET", usage, **name)["value"][0]["currentValue"] == 0


# -- deployments ----------------------------------------------------------------------------------


def test_a_standard_deployment_answers_as_the_recording_shows(
    make_play: Callable[..., Play],
) -> None:
    play = make_play("empty", 1_761_662_900.0)  # 2025-10-28, when the recording was made
    id_ = play.account("recorded", location="JAPANEAST")
    reply = play.deploy(id_, "dpy", model="gpt-35-turbo", version="0125")
    assert reply.status == 201
    assert "azure-asyncoperation" not in reply.headers
    assert reply.body["properties"] == {
        "model": {"format": "OpenAI", "name": "gpt-35-turbo", "version": "0125"},
        "versionUpgradeOption": "OnceNewDefaultVersionAvailable",
        "currentCapacity": 1,
        "capabilities": {
            "completion": "true",
            "maxContextToken": "16385",
            "maxOutputToken": "4096",
            "chatCompletion": "true",
            "assistants": "true",
        },
        "provisioningState": "Succeeded",
        "rateLimits": [
            {"key": "request", "renewalPeriod": 10, "count": 1},
            {"key": "token", "renewalPeriod": 60, "count": 1000},
        ],
    }
    assert list(reply.body) == ["id", "type", "name", "sku", "properties", "systemData", "etag"]
    assert play.good("GET", f"{id_}/deployments/dpy") == reply.body
    assert play.good("GET", f"{id_}/deployments") == {"value": [reply.body]}


def test_a_capacity_sent_as_text_is_a_number(play: Play) -> None:
    id_ = play.account("text")
    assert play.deploy(id_, capacity="7").body["sku"] == {"name": "Standard", "capacity": 7}
    assert play.deploy(id_, "other", capacity="many").code == "InvalidCapacity"


def test_a_version_that_is_not_named_is_the_default_of_the_day(
    make_play: Callable[..., Play],
) -> None:
    for start, version in ((NOW, "2024-08-06"), (NOW + 70 * DAY, "2024-11-20")):
        play = make_play("empty", start)
        id_ = play.account("versions")
        play.world.store.put(
            "cs:customers", f"{play.subscriptions[0]}/gpt-4o/2024-08-06", {"since": 0}
        )
        assert play.deploy(id_, model="gpt-4o").body["properties"]["model"]["version"] == version


def test_quota_is_per_subscription_region_and_model(play: Play) -> None:
    one, two = play.account("one"), play.account("two")
    usage = "OpenAI.Standard.gpt-4o-mini"
    assert play.deploy(one, capacity=1500).status == 201
    refused = play.deploy(two, capacity=501)
    assert (refused.status, refused.code) == (400, "InsufficientQuota")
    assert refused.message == (
        "This operation require 501 new capacity in quota Tokens Per Minute (thousands) - "
        "gpt-4o-mini, which is bigger than the current available capacity 500. The current quota "
        "usage is 1500 and the quota limit is 2000 for quota Tokens Per Minute (thousands) - "
        "gpt-4o-mini."
    )
    assert play.deploy(two, capacity=500).status == 201
    shown = play.good(
        "GET",
        f"{in_use(play)}/locations/swedencentral/usages",
        **{"$filter": f"name.value eq '{usage}'"},
    )["value"]
    assert [(u["currentValue"], u["limit"]) for u in shown] == [(2000, 2000)]
    assert [u["name"]["value"] for u in play.good("GET", f"{one}/usages")["value"]] == [usage]
    elsewhere = play.account("three", location="eastus2")
    assert play.deploy(elsewhere, capacity=2000).status == 201
    assert play.deploy(one, capacity=1400).status == 200
    assert play.deploy(two, "more", capacity=100).status == 201


def test_free_quota_does_not_mean_capacity(play: Play) -> None:
    from drills.sandbox.providers.cognitive_quota import set_capacity

    id_ = play.account("short")
    set_capacity(play.world, "swedencentral", "ProvisionedManaged", 20)
    ask = {"sku": "ProvisionedManaged", "model": "gpt-4o", "version": "2024-11-20"}
    refused = play.deploy(id_, capacity=25, **ask)
    assert (refused.status, refused.code) == (400, "InsufficientCapacity")
    assert "no available capacity to scale out by 25 PTU" in refused.message
    capacities = play.good(
        "GET",
        f"{in_use(play)}/modelCapacities",
        modelFormat="OpenAI",
        modelName="gpt-4o",
        modelVersion="2024-11-20",
    )["value"]
    [here] = [
        c["properties"]["availableCapacity"]
        for c in capacities
        if (c["location"], c["name"]) == ("swedencentral", "ProvisionedManaged")
    ]
    assert here == 20
    assert play.deploy(id_, capacity=20, **ask).status == 201
    play.advance(60)
    assert play.deploy(id_, capacity=25, **ask).code == "InvalidCapacity"
    assert play.deploy(id_, "odd", capacity=17, **ask).code == "InvalidCapacity"


def test_provisioned_deployments_take_time_and_block_the_account(play: Play) -> None:
    id_ = play.account("busy")
    reply = play.deploy(
        id_, "ptu", sku="ProvisionedManaged", model="gpt-4o", version="2024-11-20", capacity=15
    )
    assert reply.status == 201
    assert reply.body["properties"]["provisioningState"] == "Creating"
    assert "azure-asyncoperation" in reply.headers
    for refused in (
        play.deploy(id_, "other"),
        play.call("DELETE", f"{id_}/deployments/ptu"),
        play.call("PUT", f"{id_}/raiBlocklists/words", {"properties": {}}),
        play.call("DELETE", id_),
    ):
        assert (refused.status, refused.code) == (409, "RequestConflict")
    assert (
        "Another operation is being performed on the parent resource"
        in play.deploy(id_, "o").message
    )
    play.advance(60)
    assert play.deploy(id_, "other").status == 201


def test_a_patch_of_a_deployment_changes_sku_and_tags_alone(play: Play) -> None:
    id_ = play.account("patch")
    assert play.deploy(id_).status == 201
    body = {
        "sku": {"name": "Standard", "capacity": 3},
        "tags": {"a": "b"},
        "properties": {"versionUpgradeOption": "NoAutoUpgrade"},
    }
    shown = play.good("PATCH", f"{id_}/deployments/chat", body)
    assert shown["sku"]["capacity"] == 3
    assert shown["properties"]["currentCapacity"] == 3
    assert shown["tags"] == {"a": "b"}
    assert shown["properties"]["versionUpgradeOption"] == "OnceNewDefaultVersionAvailable"


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        ({"model": "gpt-9"}, "DeploymentModelNotSupported"),
        ({"model": "gpt-4o", "version": "2023-01-01"}, "DeploymentModelNotSupported"),
        ({"model": "gpt-35-turbo", "version": "0125"}, "ServiceModelDeprecated"),
        ({"model": "dall-e-3", "version": "3.0"}, "ServiceModelDeprecated"),
        ({"model": "gpt-5", "version": "2025-08-07"}, "InvalidResourceProperties"),
        ({"sku": "Gigantic"}, "InvalidSku"),
        ({"raiPolicyName": "nowhere"}, "InvalidResourceProperties"),
        ({"spilloverDeploymentName": "nowhere"}, "InvalidResourceProperties"),
        ({"versionUpgradeOption": "Never"}, "InvalidResourceProperties"),
    ],
)
def test_deployments_that_cannot_be_are_refused(play: Play, ask: dict[str, str], code: str) -> None:
    id_ = play.account("refusing")
    reply = play.deploy(id_, **ask)
    assert (reply.status, reply.code) == (400, code)
    assert play.good("GET", f"{id_}/deployments") == {"value": []}


def test_a_closing_version_is_for_subscriptions_that_had_it(make_play: Callable[..., Play]) -> None:
    play = make_play("empty", 1_780_000_000.0)  # 2026-05-28: gpt-4o 2024-08-06 is open to all
    first = play.account("first")
    ask = {"model": "gpt-4o", "version": "2024-08-06"}
    assert play.deploy(first, **ask).status == 201
    play.advance(160 * DAY)
    assert play.deploy(first, "again", **ask).status == 201
    second = play.account("second", group=play.group("rg-dr", "eastus2", at=1), location="eastus2")
    refused = play.deploy(second, **ask)
    assert (refused.status, refused.code) == (400, "ServiceModelDeprecating")


def test_the_platform_upgrades_what_asked_for_it_and_nothing_else(
    make_play: Callable[..., Play],
) -> None:
    play = make_play("empty", 1_780_000_000.0)
    id_ = play.account("upgraded")
    ask = {"model": "gpt-4o", "version": "2024-08-06"}
    for name, option in (
        ("default", "OnceNewDefaultVersionAvailable"),
        ("expired", "OnceCurrentVersionExpired"),
        ("never", "NoAutoUpgrade"),
    ):
        assert play.deploy(id_, name, versionUpgradeOption=option, **ask).status == 201
    assert play.deploy(id_, "ptu", sku="ProvisionedManaged", capacity=15, **ask).status == 201

    def versions() -> dict[str, str]:
        listed = play.good("GET", f"{id_}/deployments")["value"]
        return {d["name"]: d["properties"]["model"]["version"] for d in listed}

    assert set(versions().values()) == {"2024-08-06"}
    before = play.good("GET", f"{id_}/deployments/default")["etag"]
    play.advance(240 * DAY)  # past 2027-01-15, when 2024-11-20 becomes the default
    assert versions() == {
        "default": "2024-11-20",
        "expired": "2024-08-06",
        "never": "2024-08-06",
        "ptu": "2024-08-06",
    }
    assert play.good("GET", f"{id_}/deployments/default")["etag"] != before
    play.advance(70 * DAY)  # past 2027-04-01, when 2024-08-06 ends
    assert versions()["expired"] == "2024-11-20"
    assert versions()["never"] == "2024-08-06"
    assert versions()["ptu"] == "2024-08-06"
    now = play.clock.timestamp()
    stream = f"activity:{play.subscriptions[0].lower()}"
    events = [e for _, e in play.world.store.events(stream, 0, now, now + DAY)]
    upgrades = [
        e for e in events if "was upgraded from gpt-4o 2024-08-06" in e.get("description", "")
    ]
    assert sorted(e["resourceId"].rpartition("/")[2] for e in upgrades) == ["default", "expired"]
    assert all("caller" not in e for e in upgrades)


def test_a_fine_tuned_model_deploys_where_it_is_or_from_its_source(play: Play) -> None:
    here = play.account("source")
    model = play.tuned(here)
    there = play.account("target", location="eastus2", group=play.group("rg-dr", "eastus2", at=1))
    assert play.deploy(here, "ft", model=model).status == 201
    assert play.deploy(there, "ft", model=model).code == "DeploymentModelNotSupported"
    reply = play.deploy(there, "ft", model=model, version="1", source=here)
    assert reply.status == 201
    assert reply.body["properties"]["provisioningState"] == "Creating"
    assert reply.body["properties"]["model"]["source"] == here
    play.advance(120)
    play.good("DELETE", f"{here}/deployments/ft")
    play.good("DELETE", here)
    again = play.call(
        "PATCH", f"{there}/deployments/ft", {"sku": {"name": "Standard", "capacity": 2}}
    )
    assert again.status in (200, 202), again  # the weights are here: the source may be gone


def test_the_right_on_the_source_is_needed(play: Play) -> None:
    here = play.account("source")
    model = play.tuned(here)
    target = play.group("rg-dr", "eastus2", at=1)
    there = play.account("target", location="eastus2", group=target)
    principals = {p["name"]: p for _, p in play.world.store.items("principals")}
    definition = "b24988ac-6180-42a0-ab88-20f7382dd24c"
    play.good(
        "PUT",
        f"{target}/providers/Microsoft.Authorization/roleAssignments/"
        "11111111-1111-4111-8111-111111111111",
        {
            "properties": {
                "roleDefinitionId": f"/subscriptions/{play.subscriptions[1]}/providers/"
                f"Microsoft.Authorization/roleDefinitions/{definition}",
                "principalId": principals["stranger"]["oid"],
            }
        },
    )
    refused = play.deploy(there, "ft", model=model, source=here, who="stranger")
    assert (refused.status, refused.code) == (403, "LinkedAuthorizationFailed")
    assert play.deploy(there, "plain", who="stranger").status == 201


def test_a_fine_tuned_model_needs_a_region_that_hosts_it(play: Play) -> None:
    here = play.account("source")
    model = play.tuned(here)
    there = play.account("japan", location="japaneast")
    assert play.deploy(there, "ft", model=model, source=here).code == "InvalidResourceProperties"
    assert play.deploy(there, "ft", model=model, source=here, sku="GlobalStandard").status == 201


def test_an_idle_fine_tuned_deployment_is_deleted_after_15_days(play: Play) -> None:
    id_ = play.account("idle")
    model = play.tuned(id_)
    for name in ("idle", "used"):
        assert play.deploy(id_, name, model=model).status == 201
        play.advance(120)
    assert play.deploy(id_, "plain").status == 201
    play.advance(10 * DAY)
    record = play.world.arm.find(f"{id_}/deployments/used")
    assert record is not None
    record.hidden["last_used"] = play.clock.timestamp()
    rid = record.rid
    play.world.store.put(play.world.arm.space(rid.parent, rid.type), rid.key, record.keep())
    play.advance(5 * DAY - 3600)
    assert play.call("GET", f"{id_}/deployments/idle").status == 200
    play.advance(3600)
    assert play.call("GET", f"{id_}/deployments/idle").status == 404
    assert play.call("GET", f"{id_}/deployments/used").status == 200
    play.advance(10 * DAY)
    assert play.call("GET", f"{id_}/deployments/used").status == 404
    assert play.call("GET", f"{id_}/deployments/plain").status == 200


def test_a_revoked_key_stops_fine_tuned_deployments_only(play: Play) -> None:
    from drills.sandbox.providers.cognitive_accounts import revoke_key

    key = {"keyName": "k", "keyVaultUri": "https://kv.vault.azure.net/", "keyVersion": "1"}
    id_ = play.account(
        "cmk", encryption={"keySource": "Microsoft.KeyVault", "keyVaultProperties": key}
    )
    model = play.tuned(id_)
    revoke_key(play.world, id_, revoked=True)
    assert play.deploy(id_, "ft", model=model).code == "KeyVaultKeyNotAccessible"
    assert play.deploy(id_, "plain").status == 201
    revoke_key(play.world, id_, revoked=False)
    assert play.deploy(id_, "ft", model=model).status == 201


def test_a_deployment_that_others_spill_into_stays(play: Play) -> None:
    id_ = play.account("spill")
    assert play.deploy(id_, "target").status == 201
    assert play.deploy(id_, "source", spilloverDeploymentName="target").status == 201
    assert play.call("DELETE", f"{id_}/deployments/target").code == "DeploymentInUse"
    play.good("DELETE", f"{id_}/deployments/source")
    play.good("DELETE", f"{id_}/deployments/target")


def test_pause_and_resume(play: Play) -> None:
    id_ = play.account("pause")
    assert play.deploy(id_).status == 201
    paused = play.good("POST", f"{id_}/deployments/chat/pause")
    assert paused["properties"]["deploymentState"] == "Paused"
    resumed = play.good("POST", f"{id_}/deployments/chat/resume")
    assert resumed["properties"]["deploymentState"] == "Running"
    assert play.call("POST", f"{id_}/deployments/chat/sleep").status == 404


def test_other_kinds_have_no_deployments(play: Play) -> None:
    id_ = play.account("forms", kind="FormRecognizer")
    assert play.deploy(id_).code == "InvalidResourceProperties"


def test_a_source_in_a_region_that_is_down_gives_nothing(play: Play) -> None:
    here = play.account("source")
    model = play.tuned(here)
    there = play.account("target", location="eastus2")
    play.world.faults.add({"kind": "outage", "region": "swedencentral", "plane": "data"})
    assert play.deploy(there, "ft", model=model, source=here).status == 503
    for id_, _ in play.world.store.items("faults"):
        play.world.faults.remove(id_)
    assert play.deploy(there, "ft", model=model, source=here).status == 201


def test_a_source_in_another_tenant_needs_a_token_of_that_tenant(
    make_play: Callable[..., Play], tmp_path: Path
) -> None:
    estate = tmp_path / "two-tenants.yaml"
    other = "99999999-9999-4999-8999-999999999999"
    estate.write_text(
        "name: two\n"
        "subscriptions:\n"
        "  - {name: ours}\n"
        f"  - {{name: theirs, tenant: {other}}}\n"
        "principals:\n"
        "  - {name: owner, role: Owner}\n"
        "role_assignments:\n"
        "  - {principal: owner, role: Owner}\n",
        encoding="utf-8",
    )
    play = make_play(str(estate))
    home, play.tenant = play.tenant, other
    theirs = play.account("theirs", group=play.group("rg-theirs", "eastus2", at=1))
    model = play.tuned(theirs)
    play.tenant = home
    assert play.call("GET", theirs).code == "InvalidAuthenticationTokenTenant"
    ours = play.account("ours", location="eastus2")
    refused = play.deploy(ours, "ft", model=model, sourceAccount=theirs)
    assert (refused.status, refused.code) == (403, "LinkedAuthorizationFailed")
    [principal] = [p for _, p in play.world.store.items("principals")]
    token = play.world.identity.mint(principal, "https://management.azure.com/", other)
    headers = {"x-ms-authorization-auxiliary": f"Bearer {token}"}
    # `source` is for accounts of the same tenant; the other spelling is needed across tenants.
    assert play.deploy(ours, "ft", model=model, source=theirs, headers=headers).status == 403
    reply = play.deploy(ours, "ft", model=model, sourceAccount=theirs, headers=headers)
    assert reply.status == 201, reply


def test_data_of_a_purged_account_is_gone(play: Play) -> None:
    id_ = play.account("wiped")
    model = play.tuned(id_)
    play.good("DELETE", id_)
    assert play.world.store.get(f"dp:{id_.lower()}:models", model) is not None
    purge = f"{in_use(play)}/locations/swedencentral/resourceGroups/rg-test/deletedAccounts/wiped"
    play.good("DELETE", purge)
    assert play.world.store.get(f"dp:{id_.lower()}:models", model) is None
