"""What hangs on accounts: filters, blocklists, topics, projects, connections, plans, networks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sandbox_play_fixtures import CS, Play

SYSTEM = {"identity": {"type": "SystemAssigned"}}


@pytest.fixture
def account(play: Play) -> str:
    """An account of kind OpenAI."""
    return play.account("aoai-parts")


@pytest.fixture
def foundry(play: Play) -> str:
    """An account of kind AIServices that may have projects."""
    return play.account("ais-parts", kind="AIServices", allowProjectManagement=True)


def put(play: Play, path: str, **properties: Any) -> Any:
    return play.call("PUT", path, {"properties": properties})


# -- content filters ------------------------------------------------------------------------------


def test_system_policies_are_listed_and_cannot_be_touched(play: Play, account: str) -> None:
    listed = play.good("GET", f"{account}/raiPolicies")["value"]
    assert [p["name"] for p in listed] == ["Microsoft.Default", "Microsoft.DefaultV2"]
    assert {p["properties"]["type"] for p in listed} == {"SystemManaged"}
    path = f"{account}/raiPolicies/microsoft.defaultv2"
    assert play.good("GET", path) == listed[1]
    assert put(play, path, mode="Blocking").code == "SystemManagedRaiPolicyNotWritable"
    assert play.call("DELETE", path).code == "SystemManagedRaiPolicyNotWritable"
    assert put(play, f"{account}/raiPolicies/Microsoft.Own").status == 400


def test_a_policy_is_filled_from_its_base(play: Play, account: str) -> None:
    hate = {"name": "Hate", "source": "Prompt", "severityThreshold": "Low"}
    path = f"{account}/raiPolicies/own"
    reply = put(play, path, contentFilters=[hate])
    assert reply.status == 201
    shown = reply.body["properties"]
    assert (shown["type"], shown["mode"], shown["basePolicyName"]) == (
        "UserManaged", "Default", "Microsoft.DefaultV2",
    )  # fmt: skip
    filters = {(f["name"], f["source"]): f for f in shown["contentFilters"]}
    assert filters["Hate", "Prompt"]["severityThreshold"] == "Low"
    assert filters["Hate", "Prompt"]["blocking"] is True
    assert filters["Violence", "Completion"]["severityThreshold"] == "Medium"
    assert "severityThreshold" not in filters["Jailbreak", "Prompt"]
    again = play.call("PUT", path, {"properties": shown})
    assert (again.status, again.body["properties"]) == (200, shown)


@pytest.mark.parametrize(
    "sent",
    [
        {"mode": "Loud"},
        {"basePolicyName": "nowhere"},
        {"contentFilters": [{"name": "Boredom", "source": "Prompt"}]},
        {"contentFilters": [{"name": "Hate", "source": "Air"}]},
        {"contentFilters": [{"name": "Hate", "source": "Prompt", "severityThreshold": "Huge"}]},
        {"contentFilters": [{"name": "Hate", "source": "Prompt"}] * 2},
        {"contentFilters": "all"},
        {"customBlocklists": [{"blocklistName": "nowhere", "source": "Prompt"}]},
        {"customTopics": [{"topicName": "nowhere"}]},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(
    play: Play, account: str, sent: dict[str, Any]
) -> None:
    assert put(play, f"{account}/raiPolicies/own", **sent).code == "InvalidResourceProperties"


def test_what_is_in_use_cannot_be_deleted(play: Play, account: str) -> None:
    assert put(play, f"{account}/raiBlocklists/words").status == 201
    used = [{"blocklistName": "words", "source": "Prompt"}]
    assert put(play, f"{account}/raiPolicies/own", customBlocklists=used).status == 201
    assert put(play, f"{account}/raiPolicies/child", basePolicyName="own").status == 201
    assert play.deploy(account, raiPolicyName="own").status == 201
    for path, code in (
        ("raiBlocklists/words", "RaiBlocklistInUse"),
        ("raiPolicies/own", "RaiPolicyInUse"),
    ):
        assert play.call("DELETE", f"{account}/{path}").code == code
    play.good("DELETE", f"{account}/deployments/chat")
    assert play.call("DELETE", f"{account}/raiPolicies/own").code == "RaiPolicyInUse"
    for path in ("raiPolicies/child", "raiPolicies/own", "raiBlocklists/words"):
        reply = play.call("DELETE", f"{account}/{path}")
        assert reply.status == 202
        assert "location" in reply.headers
        assert play.call("DELETE", f"{account}/{path}").status == 204


def test_blocklist_items_come_and_go_singly_and_in_batches(play: Play, account: str) -> None:
    words = f"{account}/raiBlocklists/words"
    assert put(play, words, description="Words").status == 201
    assert put(play, f"{words}/raiBlocklistItems/one", pattern="one").status == 201
    batch = [
        {"name": "two", "properties": {"pattern": "t.o", "isRegex": True}},
        {"name": "one", "properties": {"pattern": "uno"}},
    ]
    shown = play.good("POST", f"{words}/addRaiBlocklistItems", batch)
    assert (shown["name"], shown["properties"]) == ("words", {"description": "Words"})
    items = play.good("GET", f"{words}/raiBlocklistItems")["value"]
    assert {i["name"]: i["properties"] for i in items} == {
        "one": {"pattern": "uno", "isRegex": False},
        "two": {"pattern": "t.o", "isRegex": True},
    }
    for bad in ({"pattern": ""}, {"pattern": "("}, {"pattern": "x" * 1001}):
        reply = put(play, f"{words}/raiBlocklistItems/bad", **bad, isRegex=True)
        assert reply.status == 400
    broken = [{"name": "three", "properties": {"pattern": "3"}}, {"name": "no/name"}]
    assert play.call("POST", f"{words}/addRaiBlocklistItems", broken).status == 400
    assert play.call("GET", f"{words}/raiBlocklistItems/three").status == 404  # all or nothing
    gone = play.call("POST", f"{words}/deleteRaiBlocklistItems", ["one", "never"])
    assert (gone.status, gone.body) == (204, None)
    assert [i["name"] for i in play.good("GET", f"{words}/raiBlocklistItems")["value"]] == ["two"]
    assert play.call("POST", f"{words}/addRaiBlocklistItems", {"a": 1}).status == 400
    assert play.call("GET", f"{account}/raiBlocklists/ghost/raiBlocklistItems").status == 404


def test_a_topic_trains_by_the_clock_and_again_when_it_changes(play: Play, account: str) -> None:
    path = f"{account}/raitopics/law"
    first = put(play, path, topicName="law", description="Legal advice").body["properties"]
    assert first["status"] == "Training"
    play.advance(299)
    assert play.good("GET", path)["properties"]["status"] == "Training"
    play.advance(2)
    assert play.good("GET", path)["properties"]["status"] == "Succeeded"
    put(play, path, topicName="law", description="Legal advice")
    assert play.good("GET", path)["properties"]["status"] == "Succeeded"
    second = put(play, path, topicName="law", description="More").body["properties"]
    assert (second["status"], second["topicId"]) == ("Training", first["topicId"])


def test_the_catalogue_of_filters_is_per_location(play: Play) -> None:
    path = f"/subscriptions/{play.subscriptions[0]}/{CS}/locations/eastus2/raiContentFilters"
    listed = play.good("GET", path)["value"]
    assert {"Hate", "Jailbreak"} <= {f["properties"]["name"] for f in listed}
    assert play.good("GET", f"{path}/{listed[0]['name']}") == listed[0]
    assert play.call("GET", f"{path}/Boredom").status == 404


# -- projects -------------------------------------------------------------------------------------


def test_a_project_answers_as_the_recording_shows(play: Play, foundry: str) -> None:
    body = {
        **SYSTEM,
        "location": "swedencentral",
        "properties": {"displayName": "CLI Test Project"},
    }
    reply = play.call("PUT", f"{foundry}/projects/desk", body)
    assert reply.status == 201
    assert "azure-asyncoperation" not in reply.headers
    assert reply.body["name"] == "ais-parts/desk"
    assert reply.body["kind"] == "AIServices"
    shown = reply.body["properties"]
    assert shown["endpoints"] == {
        "AI Foundry API": "https://localhost:4443/dp/ais-parts.services.ai/api/projects/desk"
    }
    assert (shown["isDefault"], shown["provisioningState"]) == (True, "Succeeded")
    assert len(shown["internalId"]) == 32
    assert set(reply.body["identity"]) == {"principalId", "tenantId", "type"}
    assert play.good("GET", f"{foundry}/projects") == {"value": [reply.body]}


def test_the_first_project_is_the_default_and_the_next_takes_over(play: Play, foundry: str) -> None:
    for name in ("one", "two"):
        play.good("PUT", f"{foundry}/projects/{name}", {**SYSTEM, "location": "swedencentral"})
    account = play.good("GET", foundry)["properties"]
    assert (account["defaultProject"], account["associatedProjects"]) == ("one", ["one", "two"])
    assert play.good("GET", f"{foundry}/projects/two")["properties"]["isDefault"] is False
    play.good("DELETE", f"{foundry}/projects/one")
    assert play.good("GET", f"{foundry}/projects/two")["properties"]["isDefault"] is True
    account = play.good("GET", foundry)["properties"]
    assert (account["defaultProject"], account["associatedProjects"]) == ("two", ["two"])


def test_projects_need_an_account_that_may_have_them(play: Play, account: str) -> None:
    body = {**SYSTEM, "location": "swedencentral"}
    assert play.call("PUT", f"{account}/projects/desk", body).status == 400
    closed = play.account("closed", kind="AIServices")
    refused = play.call("PUT", f"{closed}/projects/desk", body)
    assert "allowProjectManagement" in refused.message
    play.good("PATCH", closed, {"properties": {"allowProjectManagement": True}})
    play.advance(10)
    assert play.call("PUT", f"{closed}/projects/desk", {"location": "swedencentral"}).status == 400
    assert (
        play.call("PUT", f"{closed}/projects/desk", {**SYSTEM, "location": "eastus"}).status == 400
    )
    play.good("PATCH", closed, {"identity": {"type": "None"}})
    play.advance(10)
    assert "managed identity" in play.call("PUT", f"{closed}/projects/desk", body).message


def test_project_management_needs_a_custom_domain(play: Play) -> None:
    body = {
        "kind": "AIServices", "location": "eastus2", "sku": {"name": "S0"},
        "properties": {"allowProjectManagement": True},
    }  # fmt: skip
    reply = play.call("PUT", f"{play.group()}/{CS}/accounts/nodomain", body)
    assert (reply.status, reply.code) == (400, "CustomDomainRequired")


def test_a_connection_answers_as_the_recording_shows(play: Play, foundry: str) -> None:
    play.good("PUT", f"{foundry}/projects/desk", {**SYSTEM, "location": "swedencentral"})
    path = f"{foundry}/projects/desk/connections/conn000004"
    sent = {
        "authType": "ManagedIdentity", "category": "ContainerRegistry", "metadata": {},
        "target": "https://test-feed.com",
        "credentials": {"clientId": "client_id", "resourceId": "resource_id"},
    }  # fmt: skip
    reply = put(play, path, **sent)
    assert reply.status == 200  # also when it is new
    assert "etag" not in reply.headers
    assert "azureml-served-by-cluster" in reply.headers
    assert list(reply.body) == [
        "tags", "location", "id", "name", "type", "properties", "systemData",
    ]  # fmt: skip
    assert reply.body["tags"] is None
    assert reply.body["properties"] == {
        "authType": "ManagedIdentity", "credentials": None, "group": "Azure",
        "category": "ContainerRegistry", "expiryTime": None, "target": "https://test-feed.com",
        "useWorkspaceManagedIdentity": False, "isSharedToAll": False, "sharedUserList": [],
        "peRequirement": "NotRequired", "peStatus": "NotApplicable", "error": None,
        "isDefault": True, "metadata": {},
    }  # fmt: skip
    listed = play.good("GET", f"{foundry}/projects/desk/connections", includeAll="false")
    assert listed == {"value": [reply.body]}


def test_credentials_of_a_connection_never_come_back(play: Play, foundry: str) -> None:
    path = f"{foundry}/connections/search"
    sent = {"authType": "ApiKey", "category": "CognitiveSearch", "target": "https://x"}
    assert put(play, path, **sent).code == "UserError"  # a new one needs its key
    reply = put(play, path, **sent, credentials={"key": "canary-key"})
    texts = [
        reply.body,
        play.good("GET", path),
        play.good("GET", f"{foundry}/connections"),
        play.good("PATCH", path, {"properties": {"metadata": {"a": "b"}}}),
        play.good("GET", foundry),
    ]
    assert "canary-key" not in json.dumps(texts)
    record = play.world.arm.find(path)
    assert record is not None
    assert record.hidden["credentials"] == {"key": "canary-key"}
    assert record.properties["metadata"] == {"a": "b"}
    put(play, path, **sent, credentials={"key": "second"})
    record = play.world.arm.find(path)
    assert record is not None
    assert record.hidden["credentials"] == {"key": "second"}
    assert put(play, path, **{**sent, "authType": "Handshake"}).code == "UserError"
    assert put(play, f"{foundry}/connections/x", **sent).code == "UserError"
    assert play.call("DELETE", path).status == 200
    assert play.call("DELETE", path).status == 204


def test_connections_are_chosen_by_category_and_shared_by_the_account(
    play: Play, foundry: str
) -> None:
    play.good("PUT", f"{foundry}/projects/desk", {**SYSTEM, "location": "swedencentral"})
    aad = {"authType": "AAD", "target": "https://x"}
    put(play, f"{foundry}/connections/cosmos", **aad, category="CosmosDb")
    put(play, f"{foundry}/connections/hidden", **aad, category="CosmosDb", isSharedToAll=False)
    put(play, f"{foundry}/projects/desk/connections/blob", **aad, category="AzureBlob")

    def names(parent: str, **query: str) -> list[str]:
        return [c["name"] for c in play.good("GET", f"{parent}/connections", **query)["value"]]

    desk = f"{foundry}/projects/desk"
    assert names(foundry, category="cosmosdb") == ["cosmos", "hidden"]
    assert names(foundry, category="AzureBlob") == []
    assert names(desk) == ["blob"]
    assert names(desk, includeAll="true") == ["blob", "cosmos"]


def test_a_capability_host_takes_time_needs_its_connections_and_is_alone(
    play: Play, foundry: str
) -> None:
    play.good("PUT", f"{foundry}/projects/desk", {**SYSTEM, "location": "swedencentral"})
    path = f"{foundry}/projects/desk/capabilityHosts/host"
    assert put(play, path, storageConnections=["store"]).code == "UserError"
    put(
        play,
        f"{foundry}/connections/store",
        authType="AAD",
        category="AzureBlob",
        target="https://x",
    )
    reply = put(play, path, storageConnections=["store"])
    assert reply.status == 201
    assert reply.body["properties"]["provisioningState"] == "Creating"
    assert "azure-asyncoperation" in reply.headers
    play.advance(30)
    assert play.good("GET", path)["properties"]["provisioningState"] == "Succeeded"
    assert put(play, f"{path}2").status == 409
    play.world.store.put(f"dp:{foundry.lower()}/projects/desk:agents", "a", {"id": "a"})
    deleted = play.call("DELETE", path)
    assert deleted.status == 202
    assert "location" in deleted.headers
    assert play.world.store.count(f"dp:{foundry.lower()}/projects/desk:agents") == 0
    account_host = put(play, f"{foundry}/capabilityHosts/agents").body
    assert account_host["properties"]["capabilityHostKind"] == "Agents"


def test_deleting_a_project_loses_all_that_it_held(play: Play, foundry: str) -> None:
    desk = f"{foundry}/projects/desk"
    play.good("PUT", desk, {**SYSTEM, "location": "swedencentral"})
    put(play, f"{desk}/connections/blob", authType="AAD", category="AzureBlob", target="https://x")
    play.world.store.put(f"dp:{desk.lower()}:agents", "a", {"id": "a"})
    play.good("DELETE", desk)
    assert play.world.store.count(f"dp:{desk.lower()}:agents") == 0
    play.good("PUT", desk, {**SYSTEM, "location": "swedencentral"})
    assert play.good("GET", f"{desk}/connections") == {"value": []}


def test_applications_and_their_deployments(play: Play, foundry: str) -> None:
    desk = f"{foundry}/projects/desk"
    play.good("PUT", desk, {**SYSTEM, "location": "swedencentral"})
    app = f"{desk}/applications/helper"
    shown = put(play, app, agents=[{"agentId": "1", "agentName": "a"}]).body["properties"]
    assert shown["baseUrl"].endswith("/api/projects/desk/applications/helper")
    deployment = f"{app}/agentDeployments/main"
    assert put(play, deployment, deploymentType="Managed").body["properties"]["state"] == "Running"
    assert play.good("POST", f"{deployment}/stop")["properties"]["state"] == "Stopped"
    assert len(play.good("POST", f"{app}/listAgents")["value"]) == 1


# -- the smaller parts ----------------------------------------------------------------------------


def test_encryption_scopes_and_defender(play: Play, account: str) -> None:
    scope = f"{account}/encryptionScopes/own"
    assert put(play, scope, keySource="Microsoft.KeyVault").status == 400
    assert put(play, scope, keySource="Nowhere").status == 400
    vault = {"keyName": "k", "keyVaultUri": "https://kv"}
    made = put(play, scope, keySource="Microsoft.KeyVault", keyVaultProperties=vault)
    assert (made.status, made.body["properties"]["state"]) == (201, "Enabled")
    assert play.call("DELETE", scope).status == 202
    setting = f"{account}/defenderForAISettings/Default"
    assert put(play, setting, state="Sometimes").status == 400
    assert put(play, setting, state="Enabled").status == 201
    changed = play.good("PATCH", setting, {"properties": {"state": "Disabled"}})
    assert changed["properties"]["state"] == "Disabled"


def test_plans_of_an_account_and_shared_ones(play: Play, account: str) -> None:
    sent = {"hostingModel": "Web", "planType": "TA", "current": {"tier": "T1", "count": 2}}
    made = put(play, f"{account}/commitmentPlans/own", **sent)
    assert made.status == 201
    assert made.body["properties"]["current"]["quota"]["quantity"] == 2_000_000
    assert put(play, f"{account}/commitmentPlans/bad", planType="TA").status == 400
    shared = f"{play.group()}/{CS}/commitmentPlans/shared"
    body = {"location": "swedencentral", "kind": "TextAnalytics", "sku": {"name": "S"}}
    reply = play.call("PUT", shared, {**body, "properties": sent})
    assert (reply.status, "azure-asyncoperation" in reply.headers) == (201, True)
    play.advance(10)
    link = f"{shared}/accountAssociations/first"
    assert put(play, link, accountId=f"{account}x").status == 400
    assert put(play, link, accountId=account).status == 201
    shown = play.good("GET", account)["properties"]["commitmentPlanAssociations"]
    assert shown == [{"commitmentPlanId": shared, "commitmentPlanLocation": "swedencentral"}]
    play.good("DELETE", shared)
    assert "commitmentPlanAssociations" not in play.good("GET", account)["properties"]


def test_private_endpoints_are_approved_and_rejected(play: Play, account: str) -> None:
    path = f"{account}/privateEndpointConnections/pe"
    assert put(play, path).status == 400
    for status in ("Approved", "Rejected"):
        reply = put(play, path, privateLinkServiceConnectionState={"status": status})
        state = reply.body["properties"]["privateLinkServiceConnectionState"]
        assert state["status"] == status
    assert "nextLink" not in play.good("GET", f"{account}/privateEndpointConnections")
    [link] = play.good("GET", f"{account}/privateLinkResources")["value"]
    assert "privatelink.openai.azure.com" in link["properties"]["requiredZoneNames"]


def test_managed_networks_and_their_rules(play: Play, foundry: str) -> None:
    network = f"{foundry}/managedNetworks/default"
    rule = {"type": "FQDN", "destination": "packages.contoso.example"}
    sent = {"isolationMode": "AllowOnlyApprovedOutbound", "outboundRules": {"packages": rule}}
    assert put(play, network, managedNetwork=sent).status == 201
    assert play.good("GET", f"{network}/outboundRules/packages")["properties"]["status"] == "Active"
    assert put(play, f"{network}/outboundRules/odd", type="Pigeon", destination="x").status == 400
    more = {"properties": {"outboundRules": {"conda": {**rule, "destination": "conda.io"}}}}
    assert len(play.good("POST", f"{network}/batchOutboundRules", more)["value"]) == 2
    shown = play.good("GET", network)["properties"]["managedNetwork"]
    assert set(shown["outboundRules"]) == {"packages", "conda"}
    assert put(play, network, managedNetwork={"isolationMode": "Disabled"}).status == 400


def test_perimeters_are_empty_and_the_quota_tier_is_one(play: Play, account: str) -> None:
    assert play.good("GET", f"{account}/networkSecurityPerimeterConfigurations") == {"value": []}
    tiers = f"/subscriptions/{play.subscriptions[0]}/{CS}/quotaTiers"
    assert [t["name"] for t in play.good("GET", tiers)["value"]] == ["default"]
    body = {"properties": {"tierUpgradePolicy": "NoAutoUpgrade"}}
    assert play.good("PATCH", f"{tiers}/default", body)["properties"]["currentTierName"] == "Tier 1"
    [after] = play.good("GET", tiers)["value"]
    assert after["properties"]["tierUpgradePolicy"] == "NoAutoUpgrade"


# -- what is only read ----------------------------------------------------------------------------


def test_models_tell_versions_skus_and_dates(play: Play, account: str) -> None:
    listed = {(m["name"], m["version"]): m for m in play.good("GET", f"{account}/models")["value"]}
    closing = listed["gpt-4o", "2024-08-06"]
    assert closing["lifecycleStatus"] == "Deprecating"
    assert closing["isDefaultVersion"] is True
    assert listed["gpt-35-turbo", "0125"]["lifecycleStatus"] == "Deprecated"
    assert closing["deprecation"]["inference"] == "2027-04-01T00:00:00Z"
    assert {s["name"] for s in closing["skus"]} >= {"Standard", "ProvisionedManaged"}
    assert not any(m["format"] != "OpenAI" for m in listed.values())
    model = play.tuned(account)
    tuned = [m for m in play.good("GET", f"{account}/models")["value"] if m["name"] == model]
    assert tuned[0]["baseModel"]["name"] == "gpt-4o-mini"
    where = f"/subscriptions/{play.subscriptions[0]}/{CS}/locations"
    sweden = {
        m["model"]["name"] for m in play.good("GET", f"{where}/swedencentral/models")["value"]
    }
    japan = {m["model"]["name"] for m in play.good("GET", f"{where}/japaneast/models")["value"]}
    assert "dall-e-3" in sweden - japan
    assert play.call("GET", f"{where}/atlantis/models").status == 400


def test_skus_and_checks(play: Play, account: str) -> None:
    top = f"/subscriptions/{play.subscriptions[0]}/{CS}"
    kinds = {s["kind"] for s in play.good("GET", f"{top}/skus")["value"]}
    assert {"OpenAI", "AIServices"} <= kinds
    assert play.good("GET", f"{account}/skus")["value"][0]["sku"]["name"] == "S0"
    assert play.deploy(account).status == 201
    skus = play.good("GET", f"{account}/deployments/chat/skus")["value"]
    assert "Standard" in {s["sku"]["name"] for s in skus}
    asked = {"kind": "OpenAI", "type": f"{CS}/accounts", "skus": ["S0", "S9"]}
    checked = play.good("POST", f"{top}/locations/eastus2/checkSkuAvailability", asked)["value"]
    assert [c["skuAvailable"] for c in checked] == [True, False]
    work = {
        "model": {"format": "OpenAI", "name": "gpt-4o", "version": "2024-11-20"},
        "skuName": "ProvisionedManaged",
        "workloads": [
            {"requestPerMinute": 100,
             "requestParameters": {"avgPromptTokens": 1000, "avgGeneratedTokens": 100}},
        ],
    }  # fmt: skip
    capacity = play.good("POST", f"{top}/calculateModelCapacity", work)["estimatedCapacity"]
    assert capacity["value"] == 55
    assert play.good("GET", f"{top}/locations/eastus2/commitmentTiers")["value"]
    operations = play.good("GET", f"/{CS}/operations")["value"]
    assert "Microsoft.CognitiveServices/accounts/write" in {o["name"] for o in operations}


def test_a_right_on_the_account_alone_is_enough_to_read_it(play: Play, account: str) -> None:
    stranger = next(p for _, p in play.world.store.items("principals") if p["name"] == "stranger")
    role = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
    assert play.call("GET", f"{account}/models", who="stranger").status == 403
    play.good(
        "PUT",
        f"{account}/providers/Microsoft.Authorization/roleAssignments/"
        "22222222-2222-4222-8222-222222222222",
        {"properties": {
            "roleDefinitionId": f"/subscriptions/{play.subscriptions[0]}/providers/"
            f"Microsoft.Authorization/roleDefinitions/{role}",
            "principalId": stranger["oid"],
        }},
    )  # fmt: skip
    for path in ("", "/models", "/usages", "/skus", "/deployments", "/raiPolicies"):
        assert play.call("GET", account + path, who="stranger").status == 200, path
    top = f"/subscriptions/{play.subscriptions[0]}/{CS}/locations/eastus2/usages"
    assert play.call("GET", top, who="stranger").status == 403
