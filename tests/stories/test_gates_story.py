"""Each gate stops a restore before the first call that changes anything, and says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muster.cli import main
from snapshots.gates import GateResult
from snapshots.model import Key, Resource, Snapshot
from snapshots.restore import gates, prepare
from tests.restoring_fixtures import API, Engine, changing, settle
from tests.sandbox_fixtures import RunningSandbox

LOCKS = "providers/Microsoft.Authorization/locks"


class Site:
    """A configuration with a snapshot, and what goes wrong around it."""

    def __init__(
        self, sandbox: RunningSandbox, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.sandbox, self.folder, self.capsys = sandbox, folder, capsys
        self.config = str(folder / "muster.toml")
        ready = str(sandbox.ready_file)
        self.run("init", "--sandbox", ready, "--principal", "muster")
        assert self.run("snapshot")[0] == 0

    def run(self, *words: str) -> tuple[int, Any]:
        """A command's exit code and what it tells."""
        code = main([*words, "--config", self.config, "--format", "json"])
        out = self.capsys.readouterr().out
        return code, json.loads(out) if out.strip() else None

    def id(self, account: str, rest: str = "", group: str = "rg-ai-care") -> str:
        head = f"/subscriptions/{self.sandbox.subscription}/resourceGroups/{group}/providers"
        return f"{head}/Microsoft.CognitiveServices/accounts/{account}{rest}"

    def ask(self, method: str, path: str, body: Any = None, api: str = API) -> Any:
        found = self.sandbox.call(method, path + api, body)
        assert found.ok, (method, path, found.status_code, found.text[:300])
        return found.json() if found.content else None

    def stopped(self, *only: str) -> dict[str, str]:
        """What closed a restore, by gate; nothing was changed, and exit code 1 says so."""
        self.sandbox.control("DELETE", "journal")
        words = [word for name in only for word in ("--only", name)]
        code, told = self.run("restore", "latest", *words, "--apply", "--yes", "--approve", "0")
        assert code == 1
        assert told["steps"], "there must be something to do"
        assert (told["applied"], told["record"]) == (False, None)
        assert changing(self.sandbox) == []
        closed = [gate for gate in told["gates"] if not gate["passed"]]
        assert all(gate["remedy"] for gate in closed)
        return {gate["name"]: f"{gate['detail']} | {gate['remedy']}" for gate in closed}


def test_each_gate_stops_a_restore_before_anything_is_changed(
    sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(sandbox, tmp_path, capsys)
    care, claims = site.id("ais-care-swc"), site.id("aoai-claims-swc", group="rg-ai-prod")
    lock = "?api-version=2020-05-01"
    site.ask("DELETE", f"{claims}/{LOCKS}/keep-claims", api=lock)
    for gone in (f"{care}/deployments/care-reason", f"{claims}/deployments/gpt4o-ptu"):
        site.ask("DELETE", gone)
    settle(sandbox)

    # A lock on the target: what forbids it, how to take it away and how to put it back.
    site.ask("PUT", f"{care}/{LOCKS}/frozen", {"properties": {"level": "ReadOnly"}}, lock)
    told = site.stopped("deployment/care-reason")
    assert set(told) == {"lock"}
    assert "ReadOnly forbids create deployment" in told["lock"]
    assert "az lock delete --ids" in told["lock"]
    site.ask("DELETE", f"{care}/{LOCKS}/frozen", api=lock)

    usage = {
        "subscription": sandbox.subscription, "region": "swedencentral",
        "usage": "OpenAI.GlobalStandard.o4-mini",
    }  # fmt: skip
    sandbox.control("PUT", "quota", {**usage, "limit": 39})
    assert "wanted 40, left 39" in site.stopped("deployment/care-reason")["quota"]
    sandbox.control("PUT", "quota", {**usage, "limit": 1000})

    few = {"region": "swedencentral", "sku": "ProvisionedManaged", "available": 20}
    sandbox.control("PUT", "capacity", few)
    told = site.stopped("deployment/gpt4o-ptu")
    assert set(told) == {"capacity"}
    assert "wanted 50 units, the region has 20 left" in told["capacity"]

    # A subdomain that somebody else has, and one that a soft-deleted account keeps.
    site.ask("DELETE", f"{care}/projects/care-lab")
    site.ask("DELETE", f"{care}/projects/care-desk")
    site.ask("DELETE", care)
    settle(sandbox)
    top = f"/subscriptions/{sandbox.subscription}/providers/Microsoft.CognitiveServices"
    for dead in site.ask("GET", f"{top}/deletedAccounts")["value"]:
        site.ask("DELETE", dead["id"])
    thief = site.id("thief", group="rg-shared-prod")
    body = {
        "location": "swedencentral", "kind": "OpenAI", "sku": {"name": "S0"},
        "properties": {"customSubDomainName": "ais-care-swc"},
    }  # fmt: skip
    site.ask("PUT", thief, body)
    assert "is taken" in site.stopped("account/ais-care-swc")["name"]
    settle(sandbox)
    site.ask("DELETE", thief)
    settle(sandbox)
    told = site.stopped("account/ais-care-swc")
    assert set(told) == {"name"}
    assert "soft-deleted account thief holds it" in told["name"]
    assert "account purge -n thief -g rg-shared-prod -l swedencentral" in told["name"]

    # The bytes are not in the vault.
    kept = {f.name: f for f in tmp_path.rglob("*") if "sha256" in f.parts and f.is_file()}
    endpoint = site.ask("GET", claims)["properties"]["endpoint"].rstrip("/")
    scope = "https://cognitiveservices.azure.com/.default"
    listed = sandbox.call("GET", f"{endpoint}/openai/v1/files", name="claims-app", scope=scope)
    train = next(f for f in listed.json()["data"] if f["filename"] == "claims-train.jsonl")
    gone_ = sandbox.call(
        "DELETE", f"{endpoint}/openai/v1/files/{train['id']}", name="claims-app", scope=scope
    )
    assert gone_.ok, gone_.text
    _, shown = site.run("plan", "latest", "--only", "file/claims-train.jsonl")
    (payload,) = shown["steps"][0]["payloads"]
    kept[payload["sha256"]].unlink()
    assert "is not in the vault" in site.stopped("file/claims-train.jsonl")["payload"]

    # A model that was retired meanwhile.
    sandbox.control("POST", "clock", {"advance": 400 * 86_400})
    told = site.stopped("deployment/gpt4o-ptu")
    assert "retired" in told["model"]


def test_a_principal_without_the_right_is_stopped_before_anything_is_changed(
    sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(sandbox, tmp_path, capsys)
    site.ask("DELETE", site.id("ais-care-swc", "/deployments/care-reason"))
    mine = sandbox.principal("muster")["object_id"]
    roles = "?api-version=2022-04-01"
    for subscription in sandbox.subscriptions:
        top = f"/subscriptions/{subscription}/providers/Microsoft.Authorization"
        reader = f"{top}/roleDefinitions/acdd72a7-3385-48ef-bd42-f606fba81ae7"
        for row in site.ask("GET", f"{top}/roleAssignments", api=roles)["value"]:
            if row["properties"]["principalId"] == mine:
                site.ask("DELETE", row["id"], api=roles)
        made = f"{top}/roleAssignments/{subscription[:-4]}feed"
        properties = {"roleDefinitionId": reader, "principalId": mine}
        site.ask("PUT", made, {"properties": properties}, roles)
    told = site.stopped("deployment/care-reason")
    assert set(told) == {"permission"}
    assert "accounts/deployments/write" in told["permission"]


def changed(snapshot: Snapshot, key_end: str, change: Callable[[Resource], Resource]) -> Snapshot:
    """A snapshot in which one resource was otherwise."""
    key = next(k for k in snapshot.resources if str(k).endswith(key_end))
    return replace(snapshot, resources={**snapshot.resources, key: change(snapshot.resources[key])})


def test_a_customer_managed_key_must_fit_the_account_it_shall_protect(
    sandbox: RunningSandbox, engine: Engine
) -> None:
    before = engine.take()
    hr = next(r for k, r in before.resources.items() if k.name == "aoai-hr-weu")
    assert sandbox.call("DELETE", hr.id + API).ok
    settle(sandbox)
    for dead in sandbox.call(
        "GET",
        f"/subscriptions/{sandbox.subscription}/providers/Microsoft.CognitiveServices"
        f"/deletedAccounts{API}",
    ).json()["value"]:
        assert sandbox.call("DELETE", dead["id"] + API).ok
    vault = (
        f"/subscriptions/{sandbox.subscription}/resourceGroups/rg-shared-prod/providers"
        "/Microsoft.KeyVault/vaults/kv-contoso-hr?api-version=2023-07-01"
    )
    wire = sandbox.call("GET", vault).json()

    def closed(snapshot: Snapshot) -> list[GateResult]:
        prepared = engine.prepare(snapshot, "account/aoai-hr-weu")
        asked = gates(prepared, engine.tools)
        return [gate for gate in asked if gate.name == "key" and not gate.passed]

    assert closed(before) == []  # the negative control: as it was, it fits
    user = changed(
        before, "/aoai-hr-weu", lambda r: replace(r, body={**r.body, "identity": {"type": "None"}})
    )
    assert "only a system-assigned one" in closed(user)[0].detail
    properties = {**wire["properties"], "enablePurgeProtection": False}
    assert sandbox.call("PUT", vault, {**wire, "properties": properties}).ok
    assert "no purge protection" in closed(before)[0].detail
    assert sandbox.call("DELETE", vault).ok
    assert sandbox.call("PUT", vault, {**wire, "location": "eastus2"}).ok
    (gate,) = closed(before)
    assert "is in eastus2, and must be in westeurope" in gate.detail
    assert "[estate.pair.keys]" in gate.remedy
    # A vault that cannot be seen is not known to fit, until somebody answers for just that one.
    assert sandbox.call("DELETE", vault).ok
    (gate,) = closed(before)
    assert gate.detail.startswith("not known: https://kv-contoso-hr.vault.azure.net is in no")
    assert "vouched_vaults" in gate.remedy
    prepared = engine.prepare(before, "account/aoai-hr-weu")

    def vouched(uri: str) -> list[bool]:
        tools = replace(engine.tools, vouched=(uri,))
        return [g.passed for g in gates(prepared, tools) if g.name == "key"]

    assert vouched("https://KV-contoso-hr.vault.azure.net/") == [True]
    assert vouched("https://kv-other.vault.azure.net/") == [False]


def test_credentials_of_a_wrong_form_are_found_beforehand_and_never_quoted(
    sandbox: RunningSandbox, engine: Engine
) -> None:
    before = engine.take()
    where = f"/subscriptions/{sandbox.subscription}/resourceGroups/rg-ai-care/providers"
    where += "/Microsoft.CognitiveServices/accounts/ais-care-swc/connections/care-search"
    assert sandbox.call("DELETE", where + API).ok
    path = (sandbox.subscription, "rg-ai-care", "ais-care-swc", "care-search")
    key = Key("account-connection", path)

    def with_oauth(resource: Resource) -> Resource:
        properties = resource.body["properties"]
        assert isinstance(properties, dict)
        return replace(
            resource, body={**resource.body, "properties": {**properties, "authType": "OAuth2"}}
        )

    asked = changed(before, str(key), with_oauth)
    prepared = prepare(engine.request(asked, "account-connection/care-search"), engine.tools)
    answers = {"half": '{"clientId": "only-half-of-it"}', "plain": "a-secret-that-is-no-object"}
    for answer in answers.values():
        tools = replace(engine.tools, secret={"env:CARE_SEARCH": answer}.__getitem__)
        (gate,) = [g for g in gates(prepared, tools) if g.name == "secret" and not g.passed]
        assert "OAuth2 needs a JSON object with clientId, clientSecret" in gate.detail
        assert answer not in str(gate)
    whole = '{"clientId": "a", "clientSecret": "b"}'
    tools = replace(engine.tools, secret=lambda _reference: whole)
    assert [g for g in gates(prepared, tools) if g.name == "secret" and not g.passed] == []
