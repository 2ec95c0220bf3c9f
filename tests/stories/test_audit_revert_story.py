"""Reverts of a living estate: back to the baseline, only where live still is what was reported."""

from __future__ import annotations

from typing import Any

import pytest

from muster.settings import Environment, load
from muster.wiring import Wiring
from snapshots.audit.report_model import Finding
from snapshots.ledger import BASELINE, EVIDENCE
from tests.story_audit_fixtures import Person, Site

SWC = ("rg-ai-prod", "aoai-claims-swc")
CARE = ("rg-ai-care", "ais-care-swc")


def capacity_of(site: Site) -> int:
    body = site.person("platform-owner").does("GET", site.id(*SWC, "deployments", "gpt4o-mini"))
    return int(body["sku"]["capacity"])


def set_capacity(site: Site, who: Person, capacity: int) -> None:
    path = site.id(*SWC, "deployments", "gpt4o-mini")
    body = who.does("GET", path)
    body["sku"]["capacity"] = capacity
    who.does("PUT", path, {"sku": body["sku"], "properties": body["properties"]})


def finding_of(site: Site) -> Finding:
    found = site.audit().findings
    assert len(found) == 1, [(str(f.key), f.paths) for f in found]
    return found[0]


def writes(site: Site) -> list[str]:
    """What muster itself wrote, as the sandbox saw it."""
    return [
        f"{entry['method']} {entry['path']}"
        for entry in site.sandbox.journal()
        if entry["name"] == "muster"
        and entry["method"] in ("PUT", "PATCH", "DELETE")
        and "/accounts" in entry["path"]
    ]


def test_a_revert_is_dry_until_it_is_told_otherwise(site: Site) -> None:
    site.approve_all()
    set_capacity(site, site.person("pipeline"), 40)
    finding = finding_of(site)
    told = site.run("revert", finding.id)
    assert "/sku/capacity: 40 -> 200" in told
    assert "--apply" in told
    assert writes(site) == []
    assert capacity_of(site) == 40
    site.run("revert", finding.id, "--apply", expect=1)
    assert "reason" in site.error
    site.run("revert", finding.id, "--apply", "--reason", "nobody agreed", expect=1)


def test_a_revert_returns_the_resource_to_the_baseline_and_proves_it(site: Site) -> None:
    site.approve_all()
    set_capacity(site, site.person("pipeline"), 40)
    finding = finding_of(site)
    found = site.json("revert", finding.id, "--apply", "--yes", "--reason", "nobody planned it")
    assert [r["verified"] for r in found["reverts"]] == [True]
    assert capacity_of(site) == 200
    assert len(writes(site)) == 1
    entry = site.ledger().entry(EVIDENCE)
    assert entry.trailers["Reason"] == "nobody planned it"
    assert site.audit().findings == ()


@pytest.mark.parametrize("what", ["added", "removed", "filter", "blocklist"])
def test_whole_resources_come_and_go_back(site: Site, what: str) -> None:
    site.approve_all()
    owner = site.person("platform-owner")
    match what:
        case "added":
            owner.does(
                "PUT",
                site.id(*CARE, "deployments", "extra"),
                {
                    "sku": {"name": "GlobalStandard", "capacity": 1},
                    "properties": {
                        "model": {
                            "format": "OpenAI",
                            "name": "gpt-4.1-mini",
                            "version": "2025-04-14",
                        }
                    },
                },
            )
        case "removed":
            owner.does("DELETE", site.id("rg-ai-care", "aoai-hr-weu", "deployments", "hr-chat"))
        case "filter":
            path = site.id(*SWC, "raiPolicies", "claims-internal")
            body = owner.does("GET", path)
            for entry in body["properties"]["contentFilters"]:
                entry["blocking"] = False
            owner.does("PUT", path, {"properties": body["properties"]})
        case _:
            items = site.id(*CARE, "raiBlocklists", "rude-words", "raiBlocklistItems")
            first = owner.does("GET", items)["value"][0]["name"]
            owner.does("DELETE", f"{items}/{first}")
            owner.does("PUT", f"{items}/ours", {"properties": {"pattern": "Contoso"}})
    finding = finding_of(site)
    found = site.json("revert", finding.id, "--apply", "--yes", "--reason", "back")
    assert [r["verified"] for r in found["reverts"]] == [True], found
    rest = site.audit().findings
    assert rest == (), [(str(f.key), f.paths) for f in rest]


def test_what_changed_again_meanwhile_is_left_alone_and_reported(site: Site) -> None:
    site.approve_all()
    set_capacity(site, site.person("pipeline"), 40)
    finding = finding_of(site)
    set_capacity(site, site.person("Anna Lindqvist"), 41)
    found = site.json("revert", finding.id, "--apply", "--yes", "--reason", "back", expect=2)
    assert found["reverts"] == []
    assert "changed again meanwhile" in found["left"][0]["why"]
    assert capacity_of(site) == 41
    assert writes(site) == []


def test_what_is_back_already_is_no_failure(site: Site) -> None:
    site.approve_all()
    set_capacity(site, site.person("pipeline"), 40)
    finding = finding_of(site)
    set_capacity(site, site.person("pipeline"), 200)
    found = site.json("revert", finding.id, "--apply", "--yes", "--reason", "back")
    assert found["left"][0]["done"] is True
    assert writes(site) == []


def test_a_single_property_can_be_reverted(site: Site) -> None:
    site.approve_all()
    owner = site.person("platform-owner")
    path = site.id("rg-ai-prod", "vision-claims-swc")
    before: Any = owner.does("GET", path).get("tags") or {}
    owner.does("PATCH", path, {"tags": {**before, "a": "1", "b": "2"}})
    finding = finding_of(site)
    found = site.json(
        "revert", finding.id, "--path", "/tags/a", "--apply", "--yes", "--reason", "x"
    )
    assert found["reverts"][0]["verified"] is True
    assert owner.does("GET", path)["tags"] == {**before, "b": "2"}
    assert [p.path for p in finding_of(site).paths] == ["/tags/b"]


def test_what_cannot_be_read_again_is_left_alone(site: Site) -> None:
    site.approve_all()
    set_capacity(site, site.person("pipeline"), 40)
    finding = finding_of(site)
    site.deny("/accounts/aoai-claims-swc/deployments")
    found = site.json("revert", finding.id, "--apply", "--yes", "--reason", "back", expect=2)
    assert "cannot be read" in found["left"][0]["why"]
    site.sandbox.control("DELETE", "faults")
    assert capacity_of(site) == 40


def test_nothing_is_reverted_in_a_deny_window_or_beyond_the_cap(site: Site) -> None:
    site.approve_all()
    set_capacity(site, site.person("pipeline"), 40)
    finding = finding_of(site)
    site.run("revert", finding.id, "--cap", "0", expect=1)
    assert "--cap" in site.error
    tags = {"tags": {"a": "1"}}
    site.person("platform-owner").does("PATCH", site.id("rg-ai-prod", "vision-claims-swc"), tags)
    both = [found.id for found in site.audit().findings]
    assert len(both) == 2
    site.run("revert", *both)
    site.add_setting("audit", "cap = 1")
    site.run("revert", *both, expect=1)
    assert "more than the 1 that one run may undo" in site.error
    assert "[audit] cap" in site.error
    site.run("revert", *both, "--cap", "2")
    freeze = 'windows:\n  - {name: freeze, kind: deny, schedule: "* * * * *", duration: 2h}\n'
    site.ledger().put(BASELINE, {"changes/freeze.yaml": freeze.encode()}, "Freeze")
    found = site.json("revert", finding.id, "--apply", "--yes", "--reason", "back", expect=2)
    assert "freeze" in found["left"][0]["why"]
    assert capacity_of(site) == 40


def test_a_thing_that_comes_back_three_times_a_day_is_left_to_people(own_site: Site) -> None:
    site = own_site
    site.approve_all()
    found: dict[str, Any] = {}
    for turn in range(4):
        set_capacity(site, site.person("pipeline"), 40 + turn)
        finding = finding_of(site)
        expect = 0 if turn < 3 else 2
        found = site.json(
            "revert", finding.id, "--apply", "--yes", "--reason", "back", expect=expect
        )
    assert "3 times in 24 hours" in found["left"][0]["why"]
    assert capacity_of(site) == 43
    # The day goes by: Azure's clock counts, and it may be tried again.
    site.later(86400)
    site.run("revert", finding_of(site).id, "--apply", "--yes", "--reason", "back")
    assert capacity_of(site) == 200


def test_nothing_is_reverted_while_a_drill_or_failover_runs(site: Site) -> None:
    site.approve_all()
    set_capacity(site, site.person("pipeline"), 40)
    finding = finding_of(site)
    with Wiring(load(site.config), Environment.read({})) as wiring:
        with wiring.busy().hold("drill standby-loss"):
            for extra in ((), ("--apply", "--yes", "--reason", "now")):
                site.run("revert", finding.id, *extra, expect=1)
                assert "drill standby-loss" in site.error
                assert "wait until it ends" in site.error
        assert writes(site) == []
    site.run("revert", finding.id, "--apply", "--yes", "--reason", "now")
    assert capacity_of(site) == 200
