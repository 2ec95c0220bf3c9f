"""What tests of replication share: a site with a pair, and how it is asked and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from muster.cli import main
from tests.sandbox_fixtures import RunningSandbox

ROOT = Path(__file__).parents[1]
API = "?api-version=2025-12-01"
CS = "providers/Microsoft.CognitiveServices/accounts"
FINE_TUNED = {"claims-triage", "claims-tone"}


class Site:
    """A configuration for the claims accounts of the demo estate, and what it is told."""

    def __init__(
        self,
        sandbox: RunningSandbox,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        principal: str = "muster",
    ) -> None:
        self.sandbox, self.capsys = sandbox, capsys
        self.file = folder / "muster.toml"
        ready = str(sandbox.ready_file)
        line = ["init", "--sandbox", ready, "--principal", principal, "--quiet"]
        assert main([*line, "--config", str(self.file)]) == 0
        capsys.readouterr()
        self.dr, self.prod = self._subscriptions()

    def _subscriptions(self) -> tuple[str, str]:
        found = {str(r["name"]): str(r["id"]) for r in self.sandbox.ready["subscriptions"]}
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
        bad = [s for s in json.loads(out or "{}").get("steps", []) if s["error"]]
        assert code == expect, (code, bad, err[-2000:])
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
def pair_site(sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """A site of a test's own, on an estate as freshly loaded, at fifty times the speed."""
    sandbox.control("POST", "clock", {"scale": 50})
    sandbox.control("PUT", "settings", {"retry_after": 0})
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
