"""Microsoft's own client against the sandbox over HTTPS: accounts, deployments and all the rest."""

from __future__ import annotations

import asyncio
from typing import Any, Self, TypeAlias

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from azure.mgmt.cognitiveservices.aio import (
    CognitiveServicesManagementClient as AsyncManagementClient,
)
from azure.mgmt.cognitiveservices.models import (
    Account,
    AccountProperties,
    ApiKeyAuthConnectionProperties,
    CapabilityHost,
    CapabilityHostProperties,
    CommitmentPlan,
    CommitmentPlanProperties,
    ConnectionApiKey,
    ConnectionPropertiesV2BasicResource,
    CustomBlocklistConfig,
    DefenderForAISetting,
    Deployment,
    DeploymentModel,
    DeploymentProperties,
    EncryptionScope,
    EncryptionScopeProperties,
    Identity,
    PatchResourceTagsAndSku,
    PrivateEndpointConnection,
    PrivateEndpointConnectionProperties,
    PrivateLinkServiceConnectionState,
    Project,
    ProjectProperties,
    RaiBlocklist,
    RaiBlocklistItem,
    RaiBlocklistItemBulkRequest,
    RaiBlocklistItemProperties,
    RaiBlocklistProperties,
    RaiPolicy,
    RaiPolicyProperties,
    RaiTopic,
    RaiTopicProperties,
    Sku,
)

from tests.sandbox_fixtures import RunningSandbox

Client: TypeAlias = Any  # every model of the client is optional in every part
SCOPES = ["https://management.azure.com/.default"]
GROUP = "rg-sdk"
QUICK = {
    "account-create": 0.05, "account-update": 0.05, "deployment-provisioned": 0.05,
    "capability-host": 0.05, "purge": 0.05, "default": 0.05,
}  # fmt: skip


@pytest.fixture
def client(sandbox: RunningSandbox) -> Client:
    """The client of an owner; the sandbox is quick and runs a hundred times as fast."""
    sandbox.control("PUT", "settings", {"seconds": QUICK, "retry_after": 0})
    path = f"/subscriptions/{sandbox.subscription}/resourceGroups/{GROUP}"
    sandbox.call("PUT", f"{path}?api-version=2021-04-01", {"location": "swedencentral"})
    return CognitiveServicesManagementClient(
        sandbox.credential("Owner"),
        sandbox.subscription,
        base_url=sandbox.url,
        credential_scopes=SCOPES,
        connection_verify=sandbox.ca,
        polling_interval=0,
        retry_total=0,
    )


def code(error: HttpResponseError) -> str:
    """The code of an ARM error."""
    return str(error.error.code) if error.error else ""


def account(client: Client, name: str, kind: str = "OpenAI") -> Any:
    return client.accounts.begin_create(
        GROUP,
        name,
        Account(
            kind=kind,
            location="SWEDENCENTRAL",
            sku=Sku(name="S0"),
            identity=Identity(type="SystemAssigned"),
            properties=AccountProperties(
                custom_sub_domain_name=name, allow_project_management=kind == "AIServices"
            ),
        ),
    ).result(30)


def deployment(capacity: int = 1) -> Deployment:
    model = DeploymentModel(format="OpenAI", name="gpt-4o-mini", version="2024-07-18")
    return Deployment(
        sku=Sku(name="Standard", capacity=capacity), properties=DeploymentProperties(model=model)
    )


def test_an_account_lives_and_dies(client: Client) -> None:
    made = account(client, "sdk-life")
    assert made.properties.provisioning_state == "Succeeded"
    assert made.location == "SWEDENCENTRAL"
    assert made.identity.principal_id
    assert "sdk-life" in {a.name for a in client.accounts.list()}
    assert [a.name for a in client.accounts.list_by_resource_group(GROUP)] == ["sdk-life"]
    changed = client.accounts.begin_update(GROUP, "sdk-life", Account(tags={"a": "b"})).result(30)
    assert changed.tags == {"a": "b"}
    keys = client.accounts.list_keys(GROUP, "sdk-life")
    fresh = client.accounts.regenerate_key(GROUP, "sdk-life", "Key1")
    assert (fresh.key1 != keys.key1, fresh.key2 == keys.key2) == (True, True)
    client.accounts.begin_delete(GROUP, "sdk-life").result(30)
    with pytest.raises(ResourceNotFoundError) as gone:
        client.accounts.get(GROUP, "sdk-life")
    assert code(gone.value) == "ResourceNotFound"
    [deleted] = client.deleted_accounts.list()
    assert deleted.properties.scheduled_purge_date > deleted.properties.deletion_date
    with pytest.raises(ResourceExistsError) as exists:
        account(client, "sdk-life")
    assert code(exists.value) == "FlagMustBeSetForRestore"
    back = client.accounts.begin_create(
        GROUP,
        "sdk-life",
        Account(location="swedencentral", properties=AccountProperties(restore=True)),
    ).result(30)
    assert back.properties.provisioning_state == "Succeeded"
    client.accounts.begin_delete(GROUP, "sdk-life").result(30)
    client.deleted_accounts.begin_purge("swedencentral", GROUP, "sdk-life").result(30)
    assert list(client.deleted_accounts.list()) == []


def test_deployments_of_every_speed(client: Client) -> None:
    account(client, "sdk-deploy")
    group = client.deployments
    standard = group.begin_create_or_update(GROUP, "sdk-deploy", "chat", deployment()).result(30)
    assert standard.properties.version_upgrade_option == "OnceNewDefaultVersionAvailable"
    provisioned = group.begin_create_or_update(
        GROUP,
        "sdk-deploy",
        "ptu",
        Deployment(
            sku=Sku(name="ProvisionedManaged", capacity=15),
            properties=DeploymentProperties(
                model=DeploymentModel(format="OpenAI", name="gpt-4o", version="2024-11-20")
            ),
        ),
    ).result(30)
    assert provisioned.properties.provisioning_state == "Succeeded"
    changed = group.begin_update(
        GROUP, "sdk-deploy", "chat", PatchResourceTagsAndSku(sku=Sku(name="Standard", capacity=5))
    ).result(30)
    assert changed.sku.capacity == 5
    assert next(iter(group.list_skus(GROUP, "sdk-deploy", "chat"))).sku.name == "Standard"
    assert [d.name for d in group.list(GROUP, "sdk-deploy")] == ["chat", "ptu"]
    with pytest.raises(HttpResponseError) as refused:
        group.begin_create_or_update(
            GROUP, "sdk-deploy", "big", deployment(capacity=100_000)
        ).result(30)
    assert code(refused.value) == "InsufficientQuota"
    group.begin_delete(GROUP, "sdk-deploy", "chat").result(30)
    assert [d.name for d in group.list(GROUP, "sdk-deploy")] == ["ptu"]


def test_content_safety_of_an_account(client: Client) -> None:
    account(client, "sdk-rai")
    where = (GROUP, "sdk-rai")
    words = RaiBlocklist(properties=RaiBlocklistProperties(description="Words"))
    client.rai_blocklists.create_or_update(*where, "words", words)
    item = RaiBlocklistItemProperties(pattern="one")
    client.rai_blocklist_items.create_or_update(
        *where, "words", "one", RaiBlocklistItem(properties=item)
    )
    bulk = [RaiBlocklistItemBulkRequest(name=f"n{i}", properties=item) for i in range(3)]
    assert client.rai_blocklist_items.batch_add(*where, "words", bulk).name == "words"
    client.rai_blocklist_items.batch_delete(*where, "words", ["n0", "n1"])
    names = [i.name for i in client.rai_blocklist_items.list(*where, "words")]
    assert names == ["one", "n2"]
    client.rai_blocklist_items.begin_delete(*where, "words", "one").result(30)
    policy = RaiPolicy(
        properties=RaiPolicyProperties(
            base_policy_name="Microsoft.DefaultV2",
            custom_blocklists=[CustomBlocklistConfig(blocklist_name="words", source="Prompt")],
        )
    )
    made = client.rai_policies.create_or_update(*where, "own", policy)
    assert made.properties.type == "UserManaged"
    assert len(list(client.rai_policies.list(*where))) == 3
    topic = RaiTopic(properties=RaiTopicProperties(topic_name="law", description="Law"))
    assert client.rai_topics.create_or_update(*where, "law", topic).properties.status == "Training"
    client.rai_topics.begin_delete(*where, "law").result(30)
    client.rai_policies.begin_delete(*where, "own").result(30)
    client.rai_blocklists.begin_delete(*where, "words").result(30)
    assert list(client.rai_blocklists.list(*where)) == []


def test_projects_connections_and_capability_hosts(
    client: Client,
) -> None:
    account(client, "sdk-foundry", "AIServices")
    where = (GROUP, "sdk-foundry")
    project = client.projects.begin_create(
        *where,
        "desk",
        Project(
            location="swedencentral",
            identity=Identity(type="SystemAssigned"),
            properties=ProjectProperties(display_name="Desk"),
        ),
    ).result(30)
    assert (project.name, project.properties.is_default) == ("sdk-foundry/desk", True)
    secret = ConnectionPropertiesV2BasicResource(
        properties=ApiKeyAuthConnectionProperties(
            category="ApiKey", target="https://x", credentials=ConnectionApiKey(key="canary-sdk")
        )
    )
    shown = client.project_connections.create(*where, "desk", "api", secret)
    assert shown.properties.credentials is None
    assert client.account_connections.create(*where, "api", secret).properties.credentials is None
    assert [c.name for c in client.project_connections.list(*where, "desk")] == ["api"]
    host = CapabilityHost(properties=CapabilityHostProperties(capability_host_kind="Agents"))
    made = client.account_capability_hosts.begin_create_or_update(*where, "host", host).result(30)
    assert made.properties.provisioning_state == "Succeeded"
    client.account_capability_hosts.begin_delete(*where, "host").result(30)
    client.project_connections.delete(*where, "desk", "api")
    with pytest.raises(ResourceExistsError) as nested:
        client.accounts.begin_delete(*where).result(30)
    assert code(nested.value) == "CannotDeleteResource"
    client.projects.begin_delete(*where, "desk").result(30)
    client.accounts.begin_delete(*where).result(30)


def test_the_smaller_parts_of_an_account(client: Client) -> None:
    account(client, "sdk-small")
    where = (GROUP, "sdk-small")
    scope = EncryptionScope(
        properties=EncryptionScopeProperties(key_source="Microsoft.CognitiveServices")
    )
    client.encryption_scopes.create_or_update(*where, "own", scope)
    client.encryption_scopes.begin_delete(*where, "own").result(30)
    client.defender_for_ai_settings.create_or_update(
        *where, "Default", DefenderForAISetting(state="Enabled")
    )
    assert [d.state for d in client.defender_for_ai_settings.list(*where)] == ["Enabled"]
    plan = CommitmentPlan(properties=CommitmentPlanProperties(hosting_model="Web", plan_type="TA"))
    client.commitment_plans.create_or_update(*where, "own", plan)
    client.commitment_plans.begin_delete(*where, "own").result(30)
    state = PrivateLinkServiceConnectionState(status="Approved")
    client.private_endpoint_connections.begin_create_or_update(
        *where,
        "pe",
        PrivateEndpointConnection(
            properties=PrivateEndpointConnectionProperties(
                private_link_service_connection_state=state
            )
        ),
    ).result(30)
    assert len(client.private_endpoint_connections.list(*where).value) == 1
    client.private_endpoint_connections.begin_delete(*where, "pe").result(30)
    assert list(client.network_security_perimeter_configurations.list(*where)) == []
    assert client.private_link_resources.list(*where).value
    assert client.accounts.list_skus(*where).value
    assert client.accounts.list_usages(*where).value == []
    assert any(m.name == "gpt-4o" for m in client.accounts.list_models(*where))


def test_what_a_subscription_offers(client: Client) -> None:
    assert any(m.model.name == "gpt-4.1" for m in client.models.list("eastus2"))
    assert any(u.name.value == "OpenAI.Standard.gpt-4o" for u in client.usages.list("eastus2"))
    model = ("OpenAI", "gpt-4o", "2024-11-20")
    assert {c.location for c in client.model_capacities.list(*model)} >= {"eastus2"}
    there = client.location_based_model_capacities.list("eastus2", *model)
    assert {c.location for c in there} == {"eastus2"}
    assert next(iter(client.resource_skus.list())).resource_type == "accounts"
    assert list(client.commitment_tiers.list("eastus2"))
    assert list(client.rai_content_filters.list("eastus2"))
    assert client.quota_tiers.get("default").name == "default"
    assert list(client.operations.list())
    free = client.check_domain_availability(
        "nobody-has-this", "Microsoft.CognitiveServices/accounts"
    )
    assert free.is_subdomain_available
    checked = client.check_sku_availability(
        "eastus2", ["S0"], "OpenAI", "Microsoft.CognitiveServices/accounts"
    )
    assert checked.value[0].sku_available


def test_pages_are_followed_however_they_are_cut(sandbox: RunningSandbox, client: Client) -> None:
    whole = [a.name for a in client.accounts.list()]
    assert len(whole) > 5
    for settings in (
        {"page_size": 2},
        {"page_size": 3, "empty_pages": True},
        {"relative_next": True},
    ):
        sandbox.control("PUT", "settings", settings)
        assert [a.name for a in client.accounts.list()] == whole


def test_the_asynchronous_client_does_the_same(sandbox: RunningSandbox, client: Client) -> None:
    token = sandbox.token("Owner")

    class Fixed:
        async def get_token(self, *_: str, **__: Any) -> AccessToken:
            return AccessToken(token, 4_000_000_000)

        async def close(self) -> None:
            """Nothing is open."""

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            """Nothing is open."""

    async def run() -> list[str]:
        async with AsyncManagementClient(
            Fixed(),
            sandbox.subscription,
            base_url=sandbox.url,
            credential_scopes=SCOPES,
            connection_verify=sandbox.ca,
            polling_interval=0,
            retry_total=0,
        ) as aio:
            poller = await aio.accounts.begin_create(
                GROUP,
                "sdk-aio",
                Account(
                    kind="OpenAI",
                    location="swedencentral",
                    sku=Sku(name="S0"),
                    properties=AccountProperties(custom_sub_domain_name="sdk-aio"),
                ),
            )
            made_account: Any = await poller.result()
            assert made_account.properties.provisioning_state == "Succeeded"
            made = await aio.deployments.begin_create_or_update(
                GROUP, "sdk-aio", "chat", deployment()
            )
            await made.result()
            return [str(d.name) async for d in aio.deployments.list(GROUP, "sdk-aio")]

    assert asyncio.run(run()) == ["chat"]
    assert [d.name for d in client.deployments.list(GROUP, "sdk-aio")] == ["chat"]


def test_endpoints_lead_to_the_port_that_is_served(sandbox: RunningSandbox, client: Client) -> None:
    listed = list(client.accounts.list())
    assert all(a.properties.endpoint.startswith(sandbox.url + "/dp/") for a in listed)
