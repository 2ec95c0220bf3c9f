"""Replication against the sandbox: in step, quiet the second time, and no wrong model counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from muster.cli import main
from muster.verbs.replicate import replicator_for
from muster.settings import Environment, load
from muster.wiring import Wiring
from snapshots.clock import SystemClock
from snapshots.steps import Action
from tests.sandbox_fixtures import RunningSandbox

ROOT = Path(__file__).parents[2]
API = "?api-version=2025-12-01"
CS = "providers/Microsoft.CognitiveServices/accounts"
FINE_TUNED = {"claims-triage", "claims-tone"}


class Site:
    """A configuration for the claims accounts of the demo estate, and what it is told."""

    def __init__(
        self, sandbox: RunningSandbox, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.sandbox, self.capsys = sandbox, capsys
        self.file = folder / "muster.toml"
        ready = str(sandbox.ready_file)
        assert main(["init", "--sandbox", ready, "--config", str(self.file), "--quiet"]) == 0
        capsys.readouterr()
        self.dr, self.prod = self._subscriptions()

    def _subscriptions(self) -> tuple[str, str]:
        rows = self.sandbox.call("GET", "/subscriptions?api-version=2022-12-01").json()["value"]
        found = {r["displayName"]: r["subscriptionId"] for r in rows}
        return found["Contoso AI Recovery"], found["Contoso AI Production"]

    @property
    def source(self) -> str:
        """The primary account's id."""
        return f"/subscriptions/{self.prod}/resourceGroups/rg-ai-prod/{CS}/aoai-claims-swc"

    @property
    def standby(self) -> str:
        """The standby account's id."""
        return f"/subscriptions/{self.dr}/resourceGroups/rg-ai-dr/{CS}/aoai-claims-eus2"

    def configure(self, policy: str = "") -> None:
        """Write the configuration: one account, what fits the standby, and a policy."""
        text = self.file.read_text("utf-8")
        head, _, rest = text.partition("# What is looked at.")
        _, _, rest = rest.partition("# Git keeps the state.")
        scope = f"""
[[estate.scope]]
subscription = "{self.prod}"
resource_groups = ["rg-ai-prod"]
accounts = ["aoai-claims-swc"]
[[estate.pair]]
primary = "swedencentral"
standby = "eastus2"
[estate.pair.accounts.aoai-claims-swc]
name = "aoai-claims-eus2"
resource_group = "rg-ai-dr"
subscription = "{self.dr}"
[estate.pair.sku]
gpt4o = {{ name = "Standard", capacity = 60 }}
gpt4o-ptu = {{ name = "GlobalStandard", capacity = 50 }}
[estate.pair.versions]
"gpt-4o@2024-08-06" = "2024-11-20"
[estate.pair.replicate]
{policy}
"""
        self.file.write_text(head + scope + "# Git keeps the state." + rest, "utf-8")
        assert main(["snapshot", "--config", str(self.file), "--quiet"]) == 0
        self.capsys.readouterr()

    def replicate(self, *options: str, expect: int = 0) -> Any:
        """Run it, hold its JSON to the schema, and give it."""
        code = main(["replicate", "--config", str(self.file), "--format", "json", *options])
        out, err = self.capsys.readouterr()
        assert code == expect, (code, out[-3000:], err[-2000:])
        found = json.loads(out)
        schema = json.loads((ROOT / "docs/schemas/replicate.schema.json").read_text("utf-8"))
        Draft202012Validator(schema).validate(found)
        return found

    def deployments(self) -> dict[str, Any]:
        """What stands in the standby account."""
        rows = self.sandbox.call("GET", f"{self.standby}/deployments{API}").json()["value"]
        return {row["name"]: row for row in rows}

    def asked(self, account: str, deployment: str, question: str) -> str:
        """What a deployment answers."""
        name = account.rsplit("/", 1)[-1]
        endpoint = self.sandbox.call("GET", f"{account}{API}").json()["properties"]["endpoint"]
        answer = self.sandbox.call(
            "POST",
            f"{endpoint.rstrip('/')}/openai/deployments/{deployment}/chat/completions"
            "?api-version=2024-10-21",
            {"messages": [{"role": "user", "content": question}], "temperature": 0},
            name="muster",
            scope="https://cognitiveservices.azure.com/.default",
        )
        assert answer.status_code == 200, (name, answer.text)
        return str(answer.json()["choices"][0]["message"]["content"])


@pytest.fixture
def site(sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """A site of a test's own, on an estate as freshly loaded, at fifty times the speed."""
    sandbox.control("POST", "clock", {"scale": 50})
    return Site(sandbox, tmp_path / "site", capsys)


def mutations(sandbox: RunningSandbox, *, after: int = 0) -> list[dict[str, Any]]:
    """The requests that change something; a probe is a POST that changes nothing."""
    return [
        row
        for row in sandbox.journal()
        if row["seq"] > after
        and row["method"] in {"PUT", "PATCH", "DELETE", "POST"}
        and not row["path"].endswith(("/chat/completions", "/oauth2/v2.0/token"))
    ]


def test_a_dry_replication_says_what_it_would_do_and_writes_nothing(site: Site) -> None:
    site.configure()
    before = site.sandbox.journal()[-1]["seq"]
    found = site.replicate()
    assert found["applied"] is False
    assert found["complete"] is False
    assert found["record"] is None
    assert {"copy", "create", "update"} <= {step["action"] for step in found["steps"]}
    assert mutations(site.sandbox, after=before) == []


def test_a_replication_proves_each_model_and_the_second_has_nothing_to_do(site: Site) -> None:
    site.configure()
    found = site.replicate("--apply", "--yes")
    assert found["complete"] is True
    assert found["remaining_changes"] == []
    assert all(step["state"] in {"done", "adopted"} for step in found["steps"])
    models = {m["target"].rsplit("/", 1)[-1]: m for m in found["pairs"][0]["models"]}
    assert set(models) == FINE_TUNED
    for model in models.values():
        assert (model["state"], model["way"]) == ("proved", "source")
        assert model["proof"]["same"] == model["proof"]["prompts"] > 0
        assert model["lag_seconds"] > 0
    triage = models["claims-triage"]["proof"]
    assert triage["base"] == "gpt4o-mini"
    assert triage["unlike_base"] > 0
    question = "A pipe burst in my kitchen."
    assert site.asked(site.standby, "claims-triage", question) == "queue: water"
    assert site.asked(site.standby, "gpt4o-mini", question) != "queue: water"
    again = site.replicate("--apply", "--yes")
    assert again["steps"] == []
    assert again["complete"] is True


QUESTION = "A pipe burst in my kitchen."
AI_USER = "53ca6127-db72-4b80-b1b0-d745d6d5456d"  # built-in role: Azure AI User


def with_identity(site: Site, *, role: bool = True) -> None:
    """Give the source account a user-assigned identity, and that a role on the standby."""
    sandbox = site.sandbox
    identity = (
        f"/subscriptions/{site.prod}/resourceGroups/rg-shared-prod/providers"
        "/Microsoft.ManagedIdentity/userAssignedIdentities/id-care"
    )
    patch = {
        "identity": {
            "type": "SystemAssigned, UserAssigned",
            "userAssignedIdentities": {identity: {}},
        }
    }
    answer = sandbox.call("PATCH", f"{site.source}{API}", patch)
    assert answer.status_code in (200, 202), answer.text
    sandbox.control("POST", "clock", {"advance": 120})
    account = sandbox.call("GET", f"{site.source}{API}").json()
    principals = account["identity"]["userAssignedIdentities"]
    if role:
        principal = next(iter(principals.values()))["principalId"]
        definition = "providers/Microsoft.Authorization/roleDefinitions"
        body = {
            "properties": {
                "roleDefinitionId": f"/subscriptions/{site.dr}/{definition}/{AI_USER}",
                "principalId": principal,
                "principalType": "ServicePrincipal",
            }
        }
        name = "0b0d7c11-9f4e-4d18-9f2a-3f3b5c8f7a10"
        path = f"{site.standby}/providers/Microsoft.Authorization/roleAssignments/{name}"
        answer = sandbox.call("PUT", f"{path}?api-version=2022-04-01", body)
        assert answer.status_code == 201, answer.text


def test_a_copied_checkpoint_answers_as_its_source_and_is_in_the_registry(site: Site) -> None:
    with_identity(site)
    site.configure('fine_tuned = ["checkpoint"]')
    found = site.replicate("--apply", "--yes")
    assert found["complete"] is True
    models = {m["target"].rsplit("/", 1)[-1]: m for m in found["pairs"][0]["models"]}
    assert {m["way"] for m in models.values()} == {"checkpoint"}
    assert all(m["name"].startswith("ftchkpt-") for m in models.values())
    assert site.asked(site.standby, "claims-triage", QUESTION) == "queue: water"
    there = site.deployments()
    assert "source" not in there["claims-triage"]["properties"]["model"]
    assert not [name for name in there if name.startswith("muster-proof")]
    assert site.replicate("--apply", "--yes")["steps"] == []


@pytest.mark.parametrize("lacks", ["identity", "role", "network"])
def test_what_a_checkpoint_copy_lacks_is_named_beforehand(site: Site, lacks: str) -> None:
    if lacks != "identity":
        with_identity(site, role=lacks != "role")
    if lacks == "network":
        body = {"properties": {"publicNetworkAccess": "Disabled"}}
        answer = site.sandbox.call("PATCH", f"{site.standby}{API}", body)
        assert answer.status_code in (200, 202), answer.text
        site.sandbox.control("POST", "clock", {"advance": 120})
    site.configure('fine_tuned = ["checkpoint"]')
    before = site.sandbox.journal()[-1]["seq"]
    # With its network closed, the standby's data cannot be read either: that is incomplete.
    found = site.replicate(expect=3 if lacks == "network" else 2)
    words = {
        "identity": "no user-assigned identity",
        "role": "Azure AI User",
        "network": "public network access",
    }
    for choice in found["pairs"][0]["choices"]:
        assert choice["way"] is None
        assert words[lacks] in choice["refused"][0]
    assert mutations(site.sandbox, after=before) == []


def test_a_copy_of_the_wrong_model_is_caught_and_never_goes_into_service(site: Site) -> None:
    with_identity(site)
    site.configure('fine_tuned = ["checkpoint"]')
    # Somebody else's weights under the checkpoints' names: what a mixed-up copy would be.
    dump = site.sandbox.control("GET", "dump")
    lessons = weights(dump)
    wrong = next(k for k, v in lessons.items() if v["lesson"] != main_lesson(lessons))
    for name, value in lessons.items():
        if name.startswith("ftchkpt-"):
            value["lesson"] = lessons[wrong]["lesson"]
    site.sandbox.control("POST", "load", dump)
    found = site.replicate("--apply", "--yes", expect=2)
    models = {m["target"].rsplit("/", 1)[-1]: m for m in found["pairs"][0]["models"]}
    states = {name: model["state"] for name, model in models.items()}
    assert "wrong" in states.values()
    for name, state in states.items():
        assert (name in site.deployments()) == (state == "proved")
    assert not [name for name in site.deployments() if name.startswith("muster-proof")]


def weights(dump: Any) -> dict[str, Any]:
    """The pretend models' weights within a dump, by name; changing them changes the dump."""
    found = {
        item["id"]: item["body"]
        for item in dump["items"]
        if isinstance(item["body"], dict) and {"lesson", "base"} == set(item["body"])
    }
    assert found, "the dump holds no weights"
    return found


def main_lesson(lessons: dict[str, Any]) -> str:
    """What claims-triage was taught."""
    return str(next(v["lesson"] for k, v in lessons.items() if k.endswith("-claims-triage")))


def test_retraining_is_done_only_when_asked_and_answers_alike(site: Site) -> None:
    site.configure('fine_tuned = ["retrain"]')
    refused = site.replicate(expect=2)
    assert {c["way"] for c in refused["pairs"][0]["choices"]} == {None}
    site.sandbox.control("POST", "clock", {"scale": 5000})
    found = site.replicate("--retrain", "--apply", "--yes")
    assert found["complete"] is True
    rebuilt = [step for step in found["steps"] if step["action"] == "rebuild"]
    assert len(rebuilt) == len(FINE_TUNED)
    assert all("hours" in step["note"] for step in rebuilt)
    models = found["pairs"][0]["models"]
    assert all(m["name"] != m["model"] for m in models)
    assert site.asked(site.standby, "claims-triage", QUESTION) == "queue: water"
    assert site.replicate("--apply", "--yes")["steps"] == []


def test_cold_copies_and_proves_and_leaves_nothing_standing(site: Site) -> None:
    with_identity(site)
    site.configure('deployments = "cold"')
    before = set(site.deployments())
    found = site.replicate("--apply", "--yes")
    assert found["complete"] is True
    assert set(site.deployments()) == before
    models = found["pairs"][0]["models"]
    assert {(m["state"], m["way"], m["deployed"]) for m in models} == {
        ("proved", "checkpoint", False)
    }
    assert found["pairs"][0]["cost"] == {"hosting_hours_a_month": 0, "calls_a_month": 0}
    assert site.replicate("--apply", "--yes")["steps"] == []


class Later:
    """The machine's clock, some days ahead."""

    def __init__(self, days: float) -> None:
        self.days = days

    def now(self) -> datetime:
        """The moment, that many days from now."""
        return datetime.now(UTC) + timedelta(days=self.days)

    def sleep(self, seconds: float) -> None:
        """Wait as anybody."""
        SystemClock().sleep(seconds)


@pytest.mark.parametrize("policy", ["ping", "off"])
def test_a_model_that_is_called_outlives_the_fifteen_days_and_one_that_is_not_goes(
    site: Site, policy: str
) -> None:
    site.configure(f'keep_alive = "{policy}"')
    site.replicate("--apply", "--yes")
    assert set(site.deployments()) >= FINE_TUNED
    settings = load(site.file)
    for days in (8.0, 16.0):
        site.sandbox.control("POST", "clock", {"advance": 8 * 86400})
        with Wiring(settings, Environment(), clock=Later(days)) as wiring:
            replicator = replicator_for(wiring, settings.estate.pairs[0])
            made = replicator.prepare(wiring.ledger().load())
            calls = [s for s in made.prepared.plan.steps if s.work is not None]
            assert all(s.action is Action.UPDATE for s in calls)
            assert len(calls) == (len(FINE_TUNED) if policy == "ping" else 0)
            if policy == "ping":
                replicator.run(made, wiring.records())
    alive = FINE_TUNED & set(site.deployments())
    assert alive == (FINE_TUNED if policy == "ping" else set())


def test_what_azure_deleted_for_idleness_is_deployed_again(site: Site) -> None:
    site.configure('keep_alive = "redeploy"')
    site.replicate("--apply", "--yes")
    for _ in range(2):
        site.sandbox.control("POST", "clock", {"advance": 8 * 86400})
        for name in sorted(FINE_TUNED):
            site.asked(site.source, name, QUESTION)  # the primary has its traffic
    assert not FINE_TUNED & set(site.deployments())
    found = site.replicate("--apply", "--yes")
    assert found["complete"] is True
    assert set(site.deployments()) >= FINE_TUNED
