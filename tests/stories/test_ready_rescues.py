"""Rescue clocks and evidence: what can still be taken back, until when, and what was proved."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muster.settings import Environment, load
from muster.wiring import Wiring
from tests.replicate_fixtures import Site


@pytest.fixture
def site(pair_site: Site) -> Site:
    """A site on an estate as freshly loaded, with a snapshot."""
    pair_site.configure()
    return pair_site


def checks(site: Site, name: str) -> list[Any]:
    """What `ready` says under a name."""
    from muster.cli import main

    main(["ready", "--config", str(site.file), "--format", "json", "--quiet"])
    found = json.loads(site.capsys.readouterr().out)["checks"]
    return [c for c in found if c["name"] == name]


def test_a_deleted_workspace_and_a_deleted_vault_have_clocks_with_ordered_steps(
    site: Site,
) -> None:
    assert {c["state"] for c in checks(site, "rescue clock")} == {"met"}
    group = f"/subscriptions/{site.prod}/resourceGroups/rg-shared-prod/providers"
    workspace = f"{group}/Microsoft.MachineLearningServices/workspaces/ml-claims"
    vault = f"{group}/Microsoft.KeyVault/vaults/kv-to-lose"
    made = {
        workspace: ("2025-06-01", {"location": "swedencentral", "properties": {}}),
        vault: (
            "2023-07-01",
            {
                "location": "swedencentral",
                "properties": {
                    "tenantId": site.sandbox.tenant,
                    "sku": {"family": "A", "name": "standard"},
                    "enableSoftDelete": True,
                    "softDeleteRetentionInDays": 30,
                },
            },
        ),
    }
    for path, (version, body) in made.items():
        answer = site.sandbox.call("PUT", f"{path}?api-version={version}", body)
        assert answer.ok, answer.text
    site.sandbox.control("POST", "clock", {"advance": 120})
    for path, (version, _) in made.items():
        answer = site.sandbox.call("DELETE", f"{path}?api-version={version}")
        assert answer.ok, answer.text
    site.sandbox.control("POST", "clock", {"advance": 1800})  # the log is minutes behind
    clocks = {c["subject"]: c for c in checks(site, "rescue clock")}
    ours = clocks["workspace ml-claims"]
    assert ours["state"] == "at risk"
    left = datetime.fromisoformat(ours["date"]) - datetime.now(UTC)
    assert timedelta(days=13, hours=22) < left < timedelta(days=14, hours=1)
    assert ours["remedy"].startswith("1. key vault, storage")
    ours = clocks["key vault kv-to-lose"]
    left = datetime.fromisoformat(ours["date"]) - datetime.now(UTC)
    assert timedelta(days=29) < left < timedelta(days=31)
    assert ours["remedy"].startswith("1. az keyvault recover -n kv-to-lose")


def test_the_last_drill_counts_when_it_passed_within_the_promised_hour(site: Site) -> None:
    assert [c["state"] for c in checks(site, "drill")] == ["not known"]
    at = datetime.now(UTC)
    for verdict, seconds, state in (
        ("passed", 600, "met"),
        ("passed", 7200, "not met"),
        ("failed", 600, "not met"),
    ):
        at += timedelta(seconds=1)
        with Wiring(load(site.file), Environment()) as wiring:
            ledger = wiring.ledger()
            drill = {
                "drill": "region-failover",
                "verdict": verdict,
                "finished_at": at.isoformat(),
                "seconds": seconds,
                "snapshot": ledger.resolve("live"),
            }
            path = f"drills/{at:%H%M%S}.json"
            ledger.put("evidence", {path: json.dumps(drill).encode()}, "a drill")
        assert [c["state"] for c in checks(site, "drill")] == [state]
