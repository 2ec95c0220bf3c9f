"""Over to the standby and home again: validated, in time; and nobody calls a dead primary."""

from __future__ import annotations

import io
from typing import Any

import pytest
import requests

from tests.drill_scripts_fixtures import OPENAI, PairSite, changes, to_primary

KINDS_OF_CHECKS = {
    "no change is left",
    "endpoints answer",
    "identities and permissions are there",
    "there is quota for what is deployed",
    "filters stop what they must, and no more",
    "vectors lie where they lay",
    "stores are indexed",
    "models answer as recorded",
    "the fine-tuned model is itself",
    "every fine-tuned model stands",
    "the agent uses its tool",
    "answers come in time",
    "traffic points to the standby",
}


def proved(found: Any) -> None:
    """Every check passed, each failed on its broken copy, and nothing is left."""
    assert found["reasons"] == []
    assert found["verdict"] == "passed"
    for check in (*found["gate"], *found["checks"]):
        assert (check["state"], check["negative_control"]) == ("passed", "failed"), check
    assert found["cleanup"]["state"] == "clean"
    assert found["cleanup"]["left"] == []


def test_a_forced_failover_with_the_primary_dead_is_validated_and_never_calls_it(
    failover_site: PairSite,
) -> None:
    code, _ = failover_site.muster("snapshot", "--no-reference")
    assert to_primary(failover_site.sandbox.journal())  # that did: such calls can be seen
    before = failover_site.azure()
    failover_site.lose_primary()
    mark = failover_site.mark()
    code, found = failover_site.run("region-failover", "--approver", "Anna", "--yes")
    sent = failover_site.since(mark)
    assert to_primary(sent) == []
    assert code == 0, found
    proved(found)
    assert {check["name"] for check in found["checks"]} == KINDS_OF_CHECKS
    assert 0 < found["rto_seconds"] < 3600
    assert 0 <= found["rpo_seconds"] < 3600
    phases = [found["phases"][p] for p in ("detected", "decided", "restored", "switched")]
    assert phases == sorted(phases)
    assert phases[-1] <= found["phases"]["validated"] == found["rto_seconds"]
    assert [step["state"] for step in found["steps"]] == ["done"] * 5
    assert changes(sent)  # locks and role assignments were restored, and taken back
    assert failover_site.azure() == before
    assert not (failover_site.folder / "position.txt").exists()
    kept = failover_site.evidence()[-1]
    assert kept["approvals"] == ["Anna: Is swedencentral lost, and shall eastus2 take over?"]


@pytest.mark.stress
def test_a_dry_run_asks_the_same_changes_nothing_and_has_the_same_shape(
    failover_site: PairSite,
) -> None:
    before, mark = failover_site.azure(), failover_site.mark()
    code, dry = failover_site.drill("run", "region-failover", "--dry-run")
    assert (code, dry["verdict"]) == (0, "not proved")
    assert changes(failover_site.since(mark)) == []
    assert failover_site.azure() == before
    assert {check["name"] for check in dry["checks"]} == KINDS_OF_CHECKS
    assert all(check["state"] != "not-run" for check in dry["checks"])
    passed = {check["name"] for check in dry["checks"] if check["state"] == "passed"}
    assert KINDS_OF_CHECKS - passed == {"no change is left", "traffic points to the standby"}
    code, real = failover_site.drill("run", "region-failover", "--yes")
    assert (code, real["verdict"]) == (0, "passed")  # without a sandbox's control API, too
    assert set(real) == set(dry)
    assert [step["name"] for step in real["steps"]] == [step["name"] for step in dry["steps"]]
    assert real["steps"][0]["detail"] == "left out: no sandbox"


@pytest.mark.stress
def test_a_planned_failover_brings_the_latest_over_and_asks_both_regions(
    failover_site: PairSite,
) -> None:
    # Written in the primary after the snapshot: a forced failover would lose it.
    account = failover_site.claims.replace("rg-ai-dr", "rg-ai-prod").replace("-eus2", "-swc")
    production, recovery = failover_site.sandbox.subscriptions[:2]
    account = account.replace(recovery, production)
    pattern = {"properties": {"pattern": "Tailwind Re", "isRegex": False}}
    failover_site.arm(
        "PUT", f"{account}/raiBlocklists/competitors/raiBlocklistItems/tailwind", pattern
    )
    mark = failover_site.mark()
    code, found = failover_site.run("region-failover-planned", "--yes")
    assert code == 0, found
    proved(found)
    assert found["rpo_seconds"] < 60
    probed = {e["region"] for e in failover_site.since(mark) if "chat/completions" in e["path"]}
    assert probed == {"swedencentral", "eastus2"}
    brought = [s for s in found["steps"] if s["name"] == "bring the standby in step"]
    assert "rai-blocklist" in str(brought[0]["found"]["overwritten"])


def uploaded(site: PairSite, name: str, purpose: str, content: bytes) -> None:
    url = site.arm("GET", site.claims)["properties"]["endpoint"].rstrip("/")
    answer = requests.post(
        f"{url}/openai/v1/files",
        data={"purpose": purpose},
        files={"file": (name, io.BytesIO(content))},
        headers={"authorization": f"Bearer {site.sandbox.token('claims-app', OPENAI)}"},
        verify=site.sandbox.ca,
        timeout=30,
    )
    assert answer.status_code == 200, answer.text


def written(found: Any) -> dict[str, Any]:
    statement = found["steps"][0]["found"]
    return {w["key"].rsplit("/", 1)[-1]: w for w in statement["written_since"]}


def test_a_failback_says_beforehand_what_would_be_lost_and_brings_home_the_rest(
    failover_site: PairSite,
) -> None:
    failover_site.arm(
        "PUT",
        f"{failover_site.claims}/raiBlocklists/competitors/raiBlocklistItems/tailwind",
        {"properties": {"pattern": "Tailwind Re", "isRegex": False}},
    )
    failover_site.agent("storm-desk", {"instructions": "Help after storms."})
    line = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'
    uploaded(failover_site, "storm-train.jsonl", "fine-tune", line * 10)
    uploaded(failover_site, "storm-notes.md", "assistants", b"# Storm\n")
    before = failover_site.azure()
    words = ("--approver", "Anna Lindqvist", "--yes")
    code, found = failover_site.run("failback", *words)
    assert code == 0, found
    proved(found)
    statement = found["steps"][0]["found"]
    assert set(written(found)) == {
        "competitors", "storm-desk", "storm-train.jsonl", "storm-notes.md",
    }  # fmt: skip
    assert written(found)["competitors"]["what"] == "changed"
    assert [w.partition(":")[0].rsplit("/", 1)[-1] for w in statement["would_be_lost"]] == [
        "storm-notes.md"
    ]
    assert "threads" in statement["not_looked_at"]
    assert statement["comes_home"] == 3
    # The statement came before anybody was asked, and nothing was written before that.
    assert [step["kind"] for step in found["steps"][:3]] == [
        "verb:plan", "approve", "verb:restore",
    ]  # fmt: skip
    assert found["steps"][2]["found"]["steps"] == {"create": 2, "update": 1}
    assert failover_site.azure() == before  # a drill: the primary is as it was


@pytest.mark.stress
def test_a_failback_without_its_approver_says_what_would_be_lost_and_writes_nothing(
    failover_site: PairSite,
) -> None:
    mark, before = failover_site.mark(), failover_site.azure()
    code, found = failover_site.run("failback", "--approver", "Mallory", "--yes")
    assert (code, found["verdict"]) == (2, "failed")
    assert found["steps"][0]["detail"].startswith("nothing was written in the standby since")
    assert written(found) == {}
    assert [step["state"] for step in found["steps"]] == ["done", "failed", "skipped", "skipped"]
    assert changes(failover_site.since(mark)) == []
    assert failover_site.azure() == before


def test_stand_bys_of_fine_tuned_models_live_by_being_probed(failover_site: PairSite) -> None:
    eight_days = {"advance": 8 * 86400}
    for _ in range(2):
        failover_site.sandbox.control("POST", "clock", eight_days)
        code, found = failover_site.drill("run", "fine-tune-standby-probe", "--set", "most=60d")
        assert code == 0, found
        proved(found)
    # Nobody called the primary's for 16 days.
    listed = failover_site.arm("GET", f"{failover_site.claims}/deployments")["value"]
    assert {"claims-triage", "claims-tone"} <= {d["name"] for d in listed}


def test_a_stand_by_that_azure_deleted_is_named(failover_site: PairSite) -> None:
    failover_site.sandbox.control("POST", "clock", {"advance": 16 * 86400})
    code, found = failover_site.drill("run", "fine-tune-standby-probe", "--set", "most=60d")
    assert (code, found["verdict"]) == (2, "failed")
    told = " ".join(found["reasons"])
    assert "claims-tone is not there: never replicated, or deleted by Azure after 15 days" in told
    assert "claims-triage" in told


@pytest.mark.stress
@pytest.mark.parametrize("broken", ["nothing", "storm"])
def test_what_was_in_the_standby_before_was_not_written_since(
    failover_site: PairSite, broken: str
) -> None:
    if broken == "storm":
        failover_site.agent("storm-desk", {"instructions": "Help after storms."})
    code, found = failover_site.drill("run", "failback", "--dry-run")
    assert code == 0
    # A job, its model and its result file are the standby's own; a smaller size is the Mapping's.
    assert set(written(found)) == ({"storm-desk"} if broken == "storm" else set())
