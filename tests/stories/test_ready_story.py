"""Readiness against the sandbox: each trap is named beforehand, with its negative control."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from muster.cli import main
from muster.settings import Environment, load
from muster.wiring import Wiring
from tests.sandbox_fixtures import RunningSandbox

ROOT = Path(__file__).parents[2]
API = "?api-version=2025-12-01"
CS = "providers/Microsoft.CognitiveServices/accounts"


class Site:
    """A configuration of the demo estate, with a snapshot, and what `ready` says of it."""

    def __init__(
        self,
        sandbox: RunningSandbox,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        principal: str = "muster",
    ) -> None:
        self.sandbox, self.capsys, self.file = sandbox, capsys, folder / "muster.toml"
        ready = str(sandbox.ready_file)
        line = ["init", "--sandbox", ready, "--principal", principal, "--config", str(self.file)]
        assert main([*line, "--quiet"]) == 0
        rows = sandbox.call("GET", "/subscriptions?api-version=2022-12-01").json()["value"]
        names = {row["displayName"]: row["subscriptionId"] for row in rows}
        self.dr, self.prod = names["Contoso AI Recovery"], names["Contoso AI Production"]
        capsys.readouterr()

    def also(self, settings: str) -> None:
        """Add settings of the pair."""
        text = self.file.read_text("utf-8")
        mark = "# Git keeps the state."
        self.file.write_text(text.replace(mark, f"{settings}\n{mark}"), "utf-8")

    def taken(self) -> None:
        """Take a snapshot."""
        code = main(["snapshot", "--config", str(self.file), "--quiet"])
        out, err = self.capsys.readouterr()
        assert code == 0, (out, err)

    def ready(self, *options: str) -> tuple[int, Any]:
        """Ask; hold the answer to its schema."""
        code = main(["ready", "--config", str(self.file), "--format", "json", *options])
        out, err = self.capsys.readouterr()
        assert code in (0, 2), err
        found = json.loads(out)
        schema = json.loads((ROOT / "docs/schemas/ready.schema.json").read_text("utf-8"))
        Draft202012Validator(schema).validate(found)
        return code, found

    def checks(self, name: str, subject: str = "", *options: str) -> list[Any]:
        """The checks of a name whose subject ends so."""
        _, found = self.ready(*options)
        ours = [c for c in found["checks"] if c["name"] == name and c["subject"].endswith(subject)]
        assert ours, f"no check {name} of {subject}"
        return ours

    def state(self, name: str, subject: str = "") -> str:
        """The state of exactly one check."""
        (only,) = self.checks(name, subject)
        return str(only["state"])

    def delete(self, id_: str) -> None:
        """Delete an account softly."""
        answer = self.sandbox.call("DELETE", f"{id_}{API}", name="platform-owner")
        assert answer.status_code in (200, 202, 204), answer.text
        self.sandbox.control("POST", "clock", {"advance": 300})


@pytest.fixture
def site(sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """The demo estate with a snapshot of it."""
    made = Site(sandbox, tmp_path / "site", capsys)
    made.taken()
    return made


def test_ready_only_reads(site: Site) -> None:
    before = site.sandbox.journal()[-1]["seq"]
    site.ready()
    rows = [row for row in site.sandbox.journal() if row["seq"] > before]
    assert len(rows) > 10
    for row in rows:
        if row["path"].endswith("/oauth2/v2.0/token"):
            continue
        reads = row["method"] == "GET" or row["path"].lower().endswith("/checkdomainavailability")
        assert reads, (row["method"], row["path"])


def test_what_stops_the_demo_estate_is_named_and_the_verdict_is_two(site: Site) -> None:
    code, found = site.ready()
    assert code == 2
    assert found["verdict"] == "not met"
    stopped = {c["name"] for c in found["checks"] if c["state"] == "not met"}
    assert {"quota", "capacity", "existing customer", "fine-tuned model", "replication"} <= stopped
    assert all(c["remedy"] for c in found["checks"] if c["state"] == "not met")
    assert "never" in next(c["detail"] for c in found["checks"] if c["name"] == "drill")


def test_quota_that_is_missing_is_named_and_enough_is_met(site: Site) -> None:
    (check,) = site.checks("quota", "/gpt4o")
    assert check["state"] == "not met"
    assert "120 more" in check["detail"]
    assert "80 are free" in check["detail"]
    offer = {"subscription": site.dr, "region": "eastus2", "usage": "OpenAI.Standard.gpt-4o"}
    site.sandbox.control("PUT", "quota", {**offer, "limit": 120})
    assert site.state("quota", "/gpt4o") == "met"


def test_capacity_that_is_missing_is_named_and_enough_is_met(site: Site) -> None:
    (check,) = site.checks("capacity", "/gpt4o-ptu")
    assert check["state"] == "not met"
    offer = {"region": "eastus2", "sku": "ProvisionedManaged"}
    site.sandbox.control("PUT", "capacity", {**offer, "available": 60})
    assert site.state("capacity", "/gpt4o-ptu") == "met"


def test_a_deprecated_model_is_for_existing_customers_and_a_retired_one_for_nobody(
    site: Site,
) -> None:
    assert site.state("existing customer", "/gpt4o") == "not met"
    assert site.state("lifecycle", "/gpt4o") == "met"
    (embed,) = site.checks("retirement", "/gpt4o")
    assert embed["date"].startswith("2027-04-01")
    assert embed["state"] == "met"  # further than the horizon of 90 days
    site.also('[estate.pair.versions]\n"gpt-4o@2024-08-06" = "2024-05-13"')
    (retired,) = site.checks("lifecycle", "/gpt4o")
    assert retired["state"] == "not met"
    assert "410" in retired["detail"]


def test_a_retirement_within_the_horizon_is_at_risk_with_its_date(site: Site) -> None:
    assert site.state("retirement", "/gpt4o") == "met"
    text = site.file.read_text("utf-8").replace('rpo = "1h"', 'rpo = "1h"\nhorizon = "365d"')
    site.file.write_text(text, "utf-8")
    (check,) = site.checks("retirement", "/gpt4o")
    assert check["state"] == "at risk"
    assert check["date"].startswith("2027-04-01")


def test_a_region_that_takes_no_fine_tuned_model_as_that_sku_is_named(site: Site) -> None:
    assert site.state("fine-tuning region", "/claims-triage") == "met"
    # Provisioned fine-tuned models are for two regions, and eastus2 is none of them.
    site.also('[estate.pair.sku]\nclaims-triage = { name = "ProvisionedManaged", capacity = 15 }')
    assert site.state("fine-tuning region", "/claims-triage") == "not met"


def test_missing_permissions_are_named_and_the_operator_has_them(
    sandbox: RunningSandbox, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {c["state"] for c in site.checks("permissions")} == {"met"}
    reader = Site(sandbox, tmp_path / "reader", capsys, "auditor")
    text = reader.file.read_text("utf-8")
    for store in ("ledger.git", "vault"):
        text = text.replace(f'"{store}"', f'"{site.file.parent / store}"')
    reader.file.write_text(text, "utf-8")
    found = reader.checks("permissions")
    assert {c["state"] for c in found} == {"not met"}
    assert any("accounts/deployments/write" in c["detail"] for c in found)
    assert all("docs/roles/operator.json" in c["remedy"] for c in found)


def test_a_soft_deleted_name_in_the_way_is_named_with_its_end_and_its_rescue(site: Site) -> None:
    assert site.state("name", "/di-claims-swc") == "met"
    account = f"/subscriptions/{site.dr}/resourceGroups/rg-ai-dr/{CS}/di-claims-eus2"
    site.delete(account)
    (check,) = site.checks("name", "/di-claims-swc")
    assert check["state"] == "not met"
    assert check["date"]
    assert "FlagMustBeSetForRestore" in check["detail"]
    assert site.state("custom subdomain", "/di-claims-swc") == "not met"
    (clock,) = site.checks("rescue clock", "di-claims-eus2 in rg-ai-dr")
    assert clock["state"] == "at risk"
    assert clock["remedy"].startswith("1. resource group")


def test_a_name_that_somebody_has_is_named_and_a_free_one_is_met(site: Site) -> None:
    site.also("")
    text = site.file.read_text("utf-8")
    site.file.write_text(text.replace('"di-claims-eus2"', '"lang-care-swc"'), "utf-8")
    assert site.state("custom subdomain", "/di-claims-swc") == "not met"
    site.file.write_text(text.replace('"di-claims-eus2"', '"di-claims-brand-new"'), "utf-8")
    assert site.state("custom subdomain", "/di-claims-swc") == "met"


def test_a_key_in_the_wrong_region_is_named_and_one_in_the_standby_is_met(site: Site) -> None:
    text = site.file.read_text("utf-8")
    pair = '\n[[estate.pair]]\nprimary = "westeurope"\nstandby = "northeurope"\n'
    site.file.write_text(text.replace("# Git keeps", f"{pair}# Git keeps"), "utf-8")
    (check,) = site.checks("customer-managed key", "/aoai-hr-weu")
    assert check["state"] == "not met"
    assert "westeurope" in check["detail"]
    vault = (
        f"/subscriptions/{site.prod}/resourceGroups/rg-shared-prod/providers"
        "/Microsoft.KeyVault/vaults/kv-contoso-neu"
    )
    body = {
        "location": "northeurope",
        "properties": {
            "tenantId": site.sandbox.tenant,
            "sku": {"family": "A", "name": "standard"},
            "enableSoftDelete": True,
            "enablePurgeProtection": True,
            "vaultUri": "https://kv-contoso-neu.vault.azure.net/",
        },
    }
    answer = site.sandbox.call(
        "PUT", f"{vault}?api-version=2023-07-01", body, name="platform-owner"
    )
    assert answer.status_code in (200, 201), answer.text
    site.sandbox.control("POST", "clock", {"advance": 60})
    keys = '"https://kv-contoso-hr.vault.azure.net/" = "https://kv-contoso-neu.vault.azure.net/"'
    site.also(f"[estate.pair.keys]\n{keys}")
    assert site.state("customer-managed key", "/aoai-hr-weu") == "met"


def test_private_endpoints_are_left_to_do_by_hand_until_one_is_approved(site: Site) -> None:
    (left,) = site.checks("private endpoint", "/aoai-claims-swc")
    assert left["state"] == "at risk"
    assert "pe-claims-apps" in left["detail"]
    assert left["remedy"].startswith("by hand: a private endpoint")
    assert "privatelink.openai.azure.com" in left["remedy"]
    account = f"/subscriptions/{site.dr}/resourceGroups/rg-ai-dr/{CS}/aoai-claims-eus2"
    body = {
        "properties": {
            "privateLinkServiceConnectionState": {"status": "Approved", "description": "by hand"},
            "groupIds": ["account"],
        }
    }
    path = f"{account}/privateEndpointConnections/pe-claims-eus2{API}"
    answer = site.sandbox.call("PUT", path, body, name="platform-owner")
    assert answer.status_code in (200, 201, 202), answer.text
    site.sandbox.control("POST", "clock", {"advance": 120})
    assert site.state("private endpoint", "/aoai-claims-swc") == "met"


def test_what_cannot_be_asked_is_not_known_and_never_passed(site: Site) -> None:
    before = {c["state"] for c in site.checks("lifecycle")}
    fault = {
        "kind": "error",
        "status": 403,
        "code": "AuthorizationFailed",
        "message": "no",
        "path": "/locations/eastus2/models",
    }
    site.sandbox.control("POST", "faults", fault)
    code, found = site.ready()
    assert code == 2
    states = {c["state"] for c in found["checks"] if c["name"] == "lifecycle"}
    assert "not known" not in before
    assert states == {"not known"}


def test_evidence_of_a_drill_and_a_verification_counts_until_something_changes(site: Site) -> None:
    assert site.state("drill") == "not known"
    assert site.state("verify") == "not known"
    with Wiring(load(site.file), Environment()) as wiring:
        at = wiring.clock.now().isoformat()
        # Named as real evidence names it: Git's times are whole seconds, and the next snapshot
        # may fall into the same one.
        drill = {
            "drill": "outage",
            "verdict": "passed",
            "finished_at": at,
            "seconds": 600,
            "snapshot": wiring.ledger().resolve("live"),
        }
        verify = {"verdict": "whole", "at": at}
        files = {
            "drills/one.json": json.dumps(drill).encode(),
            "verify/one.json": json.dumps(verify).encode(),
        }
        wiring.ledger().put("evidence", files, "what was proved")
    assert site.state("drill") == "met"
    assert site.state("verify") == "met"
    account = f"/subscriptions/{site.prod}/resourceGroups/rg-ai-prod/{CS}/di-claims-swc"
    tags = {"tags": {"touched": "yes"}}
    answer = site.sandbox.call("PATCH", f"{account}{API}", tags, name="platform-owner")
    assert answer.status_code in (200, 202), answer.text
    site.taken()
    (check,) = site.checks("drill")
    assert check["state"] == "at risk"
    assert "needs a new drill" in check["detail"]


def test_an_unknown_pair_is_refused(site: Site) -> None:
    assert main(["ready", "--config", str(site.file), "--pair", "mars:venus"]) == 1
    assert "swedencentral:eastus2" in site.capsys.readouterr().err
