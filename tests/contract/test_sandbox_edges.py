"""What a careful tester tries on the sandbox's edges: tokens, overlaps, faults, dumps, logs."""

from __future__ import annotations

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from azure.storage.blob import BlobServiceClient

from drills.sandbox.wire import ArmError, Call
from tests.sandbox_fixtures import ARM_SCOPE, RunningSandbox
from tests.sandbox_play_fixtures import Play

CS = "/providers/Microsoft.CognitiveServices"
V = "?api-version=2025-09-01"
MODEL = {"format": "OpenAI", "name": "gpt-4o", "version": "2024-11-20"}


def deployment(capacity: int = 1, sku: str = "GlobalStandard") -> dict[str, Any]:
    return {"sku": {"name": sku, "capacity": capacity}, "properties": {"model": MODEL}}


def account(sandbox: RunningSandbox, name: str) -> str:
    """The id of an account of the demo estate."""
    for subscription in sandbox.subscriptions:
        found = sandbox.call("GET", f"/subscriptions/{subscription}{CS}/accounts{V}").json()
        for one in found["value"]:
            if one["name"] == name:
                return str(one["id"])
    raise LookupError(name)


def activity(sandbox: RunningSandbox) -> str:
    """The first subscription's whole Activity Log, as text, after everything became visible."""
    since = str(sandbox.control("GET", "clock")["now"])[:11] + "00:00:00Z"
    sandbox.control("POST", "clock", {"advance": 1300})
    return sandbox.call(
        "GET",
        f"/subscriptions/{sandbox.subscription}/providers/Microsoft.Insights/eventtypes/management/"
        f"values?api-version=2015-04-01&$filter=eventTimestamp ge '{since}'",
    ).text


@pytest.mark.parametrize(
    "scope", ["https://cognitiveservices.azure.com/.default", "https://ai.azure.com/.default"]
)
def test_arm_refuses_a_token_for_something_else(sandbox: RunningSandbox, scope: str) -> None:
    answer = sandbox.call("GET", f"/subscriptions{V}", scope=scope)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "InvalidAuthenticationTokenAudience"
    assert "invalid_token" in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    "scope", [ARM_SCOPE, "https://management.core.windows.net//.default"], ids=["arm", "classic"]
)
def test_arm_takes_tokens_for_both_of_its_names(sandbox: RunningSandbox, scope: str) -> None:
    assert sandbox.call("GET", f"/subscriptions{V}", scope=scope).status_code == 200


def test_a_token_that_has_expired_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = Play("demo").world.identity
    principal = next(p for _, p in identity.world.store.items("principals"))
    call = Call(
        method="GET",
        path="/subscriptions",
        query={},
        headers={},
        body=b"",
        base="https://localhost",
        client="127.0.0.1",
        id="",
        correlation_id="",
        now=identity.world.clock.now(),
    )
    fresh = identity.mint(principal, "https://management.azure.com", identity.tenant)
    call.headers = {"authorization": f"Bearer {fresh}"}
    assert identity.caller(call).oid == principal["oid"]
    with monkeypatch.context() as earlier:
        earlier.setattr(identity, "_token_time", lambda: time.time() - 7200)
        stale = identity.mint(principal, "https://management.azure.com", identity.tenant)
    call.headers = {"authorization": f"Bearer {stale}"}
    with pytest.raises(ArmError, match="ExpiredAuthenticationToken"):
        identity.caller(call)


def test_every_arm_path_wants_an_api_version(sandbox: RunningSandbox) -> None:
    s = f"/subscriptions/{sandbox.subscription}"
    for path in ("/subscriptions", s, f"{s}/resourceGroups", f"{s}{CS}/accounts", "/providers"):
        answer = sandbox.call("GET", path)
        assert answer.status_code == 400, path
        assert answer.json()["error"]["code"] == "MissingApiVersionParameter"


def test_a_revoked_session_meets_the_claims_challenge_and_the_client_answers_it(
    sandbox: RunningSandbox,
) -> None:
    credential = sandbox.credential()
    client = CognitiveServicesManagementClient(
        credential,
        sandbox.subscription,
        base_url=sandbox.url,
        credential_scopes=[ARM_SCOPE],
        connection_verify=sandbox.ca,
    )
    assert list(client.accounts.list())
    old = credential.get_token(ARM_SCOPE).token
    sandbox.control("POST", "revoke", {"principal": sandbox.principal("Owner")["client_id"]})
    answer = sandbox.call("GET", f"/subscriptions{V}", token=old)
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    claims = challenge.partition('claims="')[2].partition('"')[0]
    assert json.loads(base64.b64decode(claims))["access_token"]["nbf"]["essential"] is True
    assert list(client.accounts.list())  # the client fetched another token by itself
    statuses = [r["status"] for r in sandbox.journal() if r["path"].endswith(f"{CS}/accounts")]
    assert statuses[-2:] == [401, 200]


def test_overlapping_writes_on_one_account_conflict_and_others_do_not(
    sandbox: RunningSandbox,
) -> None:
    sandbox.control("PUT", "settings", {"write_seconds": 0.5})
    here, there = account(sandbox, "aoai-claims-swc"), account(sandbox, "aoai-hr-weu")
    sandbox.call("GET", f"{here}{V}")

    def write(path: str) -> Any:
        return sandbox.call("PUT", f"{path}{V}", deployment())

    with ThreadPoolExecutor(5) as pool:
        one = [pool.submit(write, f"{here}/deployments/new{n}") for n in range(4)]
        other = pool.submit(write, f"{there}/deployments/new")
        answers = [f.result() for f in one]
    assert other.result().status_code == 201
    assert sorted(a.status_code for a in answers) == [201, 409, 409, 409]
    codes = {a.json()["error"]["code"] for a in answers if a.status_code == 409}
    assert codes == {"RequestConflict"}
    assert write(f"{here}/deployments/later").status_code == 201


def test_while_a_deployment_is_made_its_account_takes_no_other_write(
    sandbox: RunningSandbox,
) -> None:
    sandbox.control("PUT", "settings", {"seconds": {"deployment-standard": 60.0}})
    here = account(sandbox, "aoai-hr-weu")
    assert sandbox.call("PUT", f"{here}/deployments/slow{V}", deployment()).status_code == 201
    closed = {"properties": {"publicNetworkAccess": "Disabled"}}
    for method, path, body in (
        ("PUT", f"{here}/deployments/next", deployment()),
        ("PATCH", f"{here}/deployments/slow", {"sku": {"name": "GlobalStandard", "capacity": 2}}),
        ("DELETE", f"{here}/deployments/slow", None),
        ("PATCH", here, closed),
        ("DELETE", here, None),
    ):
        answer = sandbox.call(method, f"{path}{V}", body)
        assert answer.status_code == 409, (method, path, answer.text)
        assert answer.json()["error"]["code"] == "RequestConflict"
    assert sandbox.call("PATCH", f"{here}{V}", {"tags": {"a": "b"}}).status_code == 200
    sandbox.control("POST", "clock", {"advance": 61})
    assert sandbox.call("PATCH", f"{here}{V}", closed).status_code in (200, 202)


def test_the_operation_of_a_new_account_runs_in_its_location_as_spelled(
    sandbox: RunningSandbox,
) -> None:
    group = "/".join(account(sandbox, "aoai-hr-weu").split("/")[:5])
    answer = sandbox.call(
        "PUT",
        f"{group}{CS}/accounts/acc-spelled{V}",
        {"kind": "OpenAI", "location": "JAPANEAST", "sku": {"name": "S0"}, "properties": {}},
    )
    assert "/locations/JAPANEAST/operationResults/" in answer.headers["azure-asyncoperation"]
    assert sandbox.call("GET", answer.headers["azure-asyncoperation"]).status_code == 200


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "outage", "region": 5},
        {"kind": "outage", "region": "eastus", "mode": "hanging", "seconds": "long"},
        {"kind": "latency", "seconds": -1},
        {"kind": "error", "status": "abc"},
        {"kind": "error", "status": 42},
        {"kind": "error", "times": "twice"},
        {"kind": "error", "plane": "moon"},
        {"kind": "error", "path": 3},
        {"kind": "error", "rate": True},
        {"kind": "throttle", "retry_after": "soon"},
        {"kind": "deny", "principal": 7},
    ],
)
def test_a_fault_with_a_wrong_value_is_refused_before_it_can_hurt(
    sandbox: RunningSandbox, fault: dict[str, Any]
) -> None:
    url = f"{sandbox.ready['control']['url']}/faults"
    token = sandbox.ready["control"]["token"]
    answer = sandbox.call("POST", url, fault, token=token)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "BadFault"
    assert sandbox.call("GET", f"/subscriptions{V}").status_code == 200


@pytest.mark.parametrize(
    "settings",
    [
        {"page_size": "x"},
        {"page_size": -1},
        {"throttle": "no"},
        {"buckets": {"reads": [1]}},
        {"buckets": {"sips": [1, 1]}},
        {"seconds": {"default": "x"}},
        {"activity_delay": 5},
    ],
)
def test_a_setting_of_another_form_is_refused(
    sandbox: RunningSandbox, settings: dict[str, Any]
) -> None:
    url = f"{sandbox.ready['control']['url']}/settings"
    answer = sandbox.call("PUT", url, settings, token=sandbox.ready["control"]["token"])
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "BadSetting"
    assert sandbox.call("GET", f"/subscriptions{V}").status_code == 200


def test_a_dump_brings_back_resources_contents_settings_and_the_time(
    sandbox: RunningSandbox,
) -> None:
    here = account(sandbox, "aoai-claims-swc")
    keys = sandbox.call("POST", f"{here}/listKeys{V}").json()

    def contents() -> list[bytes]:
        base = f"{sandbox.url}/dp/aoai-claims-swc.openai/openai/v1/files"
        sent = {"api-key": keys["key1"]}
        listed = sandbox.call("GET", base, headers=sent).json()["data"]
        assert listed
        return [
            sandbox.call("GET", f"{base}/{f['id']}/content", headers=sent).content for f in listed
        ]

    before, held = sandbox.call("GET", f"{here}/deployments{V}").json(), contents()
    sandbox.control("PUT", "settings", {"page_size": 0, "retry_after": 7})
    sandbox.control("POST", "clock", {"freeze": True})
    clock, dump = sandbox.control("GET", "clock"), sandbox.control("GET", "dump")
    for path in (sandbox.state / "files").iterdir():
        path.unlink()  # as in another state folder, which has none of them
    sandbox.control("POST", "clock", {"advance": 86400 * 400, "freeze": False})
    sandbox.call("DELETE", f"{here}/deployments/{before['value'][0]['name']}{V}")
    sandbox.control("POST", "load", dump)
    assert sandbox.call("GET", f"{here}/deployments{V}").json() == before
    assert contents() == held
    assert sandbox.control("GET", "clock") == clock
    assert sandbox.control("GET", "settings")["retry_after"] == 7
    assert "token" not in json.dumps(sorted(dump["meta"]))


@pytest.mark.parametrize(
    "dump",
    [
        {},
        {"format": 1, "items": [{}]},
        {"format": 1, "items": ["x"]},
        {"format": 1, "items": [], "files": {"a": "not base64!"}},
        {"format": 1, "items": [], "files": 3},
        {"format": 1, "items": [], "timers": [{"due": "x", "kind": []}]},
        {"format": 99, "items": []},
    ],
)
def test_what_is_no_dump_changes_nothing(sandbox: RunningSandbox, dump: dict[str, Any]) -> None:
    path = f"/subscriptions/{sandbox.subscription}{CS}/accounts{V}"
    before = sandbox.call("GET", path).json()
    url = f"{sandbox.ready['control']['url']}/load"
    answer = sandbox.call("POST", url, dump, token=sandbox.ready["control"]["token"])
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "BadDump"
    assert sandbox.call("GET", path).json() == before


def test_a_reset_brings_back_the_same_ids_and_the_time_of_day(sandbox: RunningSandbox) -> None:
    path = f"/subscriptions/{sandbox.subscription}{CS}/accounts{V}"

    def ids() -> list[tuple[str, str, str]]:
        found = sandbox.call("GET", path).json()["value"]
        return [(a["id"], a["etag"], a["properties"]["internalId"]) for a in found]

    before, started = ids(), sandbox.control("GET", "clock")["now"]
    sandbox.control("POST", "clock", {"advance": 86400 * 30, "freeze": True})
    sandbox.reset()
    assert ids() == before
    clock = sandbox.control("GET", "clock")
    assert clock["frozen"] is False
    assert clock["now"][:10] <= f"{started[:8]}{int(started[8:10]) + 1:02d}"


def test_no_form_of_credentials_gets_into_the_log(sandbox: RunningSandbox) -> None:
    here = account(sandbox, "ais-care-swc")
    forms: list[tuple[str, Any]] = [
        ("ApiKey", {"key": "canary-1"}),
        ("CustomKeys", {"keys": {"one": "canary-2", "x-header": "canary-3"}}),
        ("PAT", {"pat": "canary-4"}),
        (
            "UsernamePassword",
            {"username": "u", "password": "canary-5", "securityToken": "canary-6"},
        ),
        ("SAS", {"sas": "canary-7"}),
    ]
    for number, (auth, credentials) in enumerate(forms):
        answer = sandbox.call(
            "PUT",
            f"{here}/connections/kept{number}{V}",
            {
                "properties": {
                    "authType": auth,
                    "category": "CustomKeys",
                    "target": "https://crm.contoso.example",
                    "credentials": credentials,
                }
            },
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["properties"]["credentials"] is None
    patch = {"properties": {"authType": "ApiKey", "credentials": {"key": "canary-8"}}}
    assert sandbox.call("PATCH", f"{here}/connections/kept0{V}", patch).status_code == 200
    log = activity(sandbox)
    assert "crm.contoso.example" in log  # the bodies are there
    assert "canary-" not in log
    assert "canary-" not in json.dumps(sandbox.journal())


def test_a_read_only_lock_stops_actions_and_a_delete_lock_does_not(
    sandbox: RunningSandbox,
) -> None:
    here = account(sandbox, "ais-care-swc")
    lock = f"{here}/providers/Microsoft.Authorization/locks/still?api-version=2020-05-01"
    keys = f"{here}/listKeys{V}"
    for level, status in (("CanNotDelete", 200), ("ReadOnly", 409)):
        body = {"properties": {"level": level}}
        assert sandbox.call("PUT", lock, body).status_code in (200, 201)
        answer = sandbox.call("POST", keys)
        assert answer.status_code == status, (level, answer.text)
        assert ("ScopeLocked" in answer.text) == (status == 409)
    assert sandbox.call("DELETE", lock).status_code == 200
    assert sandbox.call("POST", keys).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"tags": ["x"]},
        {"tags": {"n": 5}},
        {"tags": "x"},
        {"properties": []},
        {"sku": "S0"},
        {"identity": "SystemAssigned"},
        {"location": 5},
    ],
)
@pytest.mark.parametrize("kind", ["Microsoft.CognitiveServices/accounts", "Microsoft.Foo/bars"])
def test_a_body_that_is_no_resource_is_refused(
    sandbox: RunningSandbox, kind: str, body: dict[str, Any]
) -> None:
    group = "/".join(account(sandbox, "ais-care-swc").split("/")[:5])
    whole = {"kind": "OpenAI", "location": "eastus", "sku": {"name": "S0"}, **body}
    answer = sandbox.call("PUT", f"{group}/providers/{kind}/odd{V}", whole)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "InvalidRequestContent"


def test_two_sandboxes_of_one_seed_have_the_same_ids(new_sandbox: Any) -> None:
    def ids(running: RunningSandbox) -> list[Any]:
        path = f"/subscriptions/{running.subscription}{CS}/accounts{V}"
        found = [
            (a["id"], a["etag"], a["properties"]["internalId"])
            for a in running.call("GET", path).json()["value"]
        ]
        return [running.tenant, running.ready["principals"], found]

    one, same, other = (new_sandbox("--seed", seed) for seed in ("3", "3", "4"))
    assert ids(one) == ids(same)
    assert ids(one) != ids(other)


def test_a_skip_token_that_nobody_gave_out_is_refused(sandbox: RunningSandbox) -> None:
    path = f"/subscriptions/{sandbox.subscription}{CS}/accounts{V}&$skiptoken="
    for token in ("-5", "zz", "1.5"):
        answer = sandbox.call("GET", path + token)
        assert answer.json()["error"]["code"] == "InvalidSkipToken", token


def test_a_429_is_waited_out_by_the_clients_own_retry(sandbox: RunningSandbox) -> None:
    sandbox.control("PUT", "settings", {"throttle": True, "buckets": {"reads": [2, 1.0]}})
    client = CognitiveServicesManagementClient(
        sandbox.credential(),
        sandbox.subscription,
        base_url=sandbox.url,
        credential_scopes=[ARM_SCOPE],
        connection_verify=sandbox.ca,
    )
    for _ in range(3):
        assert list(client.accounts.list())
    statuses = [r["status"] for r in sandbox.journal() if r["path"].endswith(f"{CS}/accounts")]
    assert 429 in statuses
    assert statuses.count(200) == 3
    impatient = CognitiveServicesManagementClient(
        sandbox.credential(),
        sandbox.subscription,
        base_url=sandbox.url,
        credential_scopes=[ARM_SCOPE],
        connection_verify=sandbox.ca,
        retry_total=0,
    )
    sandbox.control("PUT", "settings", {"buckets": {"reads": [1, 0.01]}})
    assert list(impatient.accounts.list())
    with pytest.raises(HttpResponseError, match="SubscriptionRequestsThrottled"):
        list(impatient.accounts.list())


def test_another_principal_has_a_bucket_of_its_own(sandbox: RunningSandbox) -> None:
    sandbox.control("PUT", "settings", {"throttle": True, "buckets": {"reads": [2, 0.01]}})
    path = f"/subscriptions/{sandbox.subscription}{CS}/accounts{V}"
    assert [sandbox.call("GET", path).status_code for _ in range(3)] == [200, 200, 429]
    assert sandbox.call("GET", path, name="auditor").status_code == 200


def test_an_operation_of_a_network_of_clients_is_served(sandbox: RunningSandbox) -> None:
    path = f"/subscriptions/{sandbox.subscription}{CS}/accounts{V}"
    sandbox.call("GET", path)
    with ThreadPoolExecutor(100) as pool:
        statuses = list(pool.map(lambda _: sandbox.call("GET", path).status_code, range(300)))
    assert statuses == [200] * 300


def test_storage_accounts_work_with_the_key_that_arm_lists(new_sandbox: Any) -> None:
    sandbox = new_sandbox(blob=True)
    blob = sandbox.ready["blob"]
    assert "error" not in blob, blob
    path = f"/subscriptions/{sandbox.subscription}/providers/Microsoft.Storage/storageAccounts"
    listed = sandbox.call("GET", f"{path}?api-version=2023-01-01").json()["value"]
    known = {a["name"]: a for a in blob["accounts"]}
    assert {a["name"] for a in listed} <= set(known)
    for one in listed:
        keys = sandbox.call("POST", f"{one['id']}/listKeys?api-version=2023-01-01").json()["keys"]
        endpoint = one["properties"]["primaryEndpoints"]["blob"]
        client = BlobServiceClient(
            endpoint, credential={"account_name": one["name"], "account_key": keys[0]["value"]}
        )
        container = client.create_container("sceptic")
        container.upload_blob("a/b", b"x" * 1000)
        assert container.download_blob("a/b").readall() == b"x" * 1000
