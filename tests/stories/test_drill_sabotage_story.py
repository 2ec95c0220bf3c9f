"""A standby that is not what it should be is not switched to: each sabotage is caught by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.drill_scripts_fixtures import PairSite, changes, to_primary


def deployed(site: PairSite, name: str, model: dict[str, str], sku: str = "Standard") -> None:
    """Somebody puts another model behind a deployment of the standby."""
    properties = {"model": {"format": "OpenAI", **model}, "raiPolicyName": "claims-strict"}
    body = {"sku": {"name": sku, "capacity": 10}, "properties": properties}
    site.arm("PUT", f"{site.claims}/deployments/{name}", body)


def wrong_model(site: PairSite) -> None:
    deployed(site, "gpt4o-ptu", {"name": "gpt-4o-mini", "version": "2024-07-18"}, "GlobalStandard")


def looser_filter(site: PairSite) -> None:
    path = f"{site.claims}/raiPolicies/claims-strict"
    found = site.arm("GET", path)["properties"]
    for rule in found["contentFilters"]:
        if rule["name"] == "Hate":
            rule["severityThreshold"] = "High"
    site.arm("PUT", path, {"properties": {k: v for k, v in found.items() if k != "type"}})


def missing_file(site: PairSite) -> None:
    listed = site.data("GET", "/openai/v1/files")["data"]
    file = next(f["id"] for f in listed if f["filename"] == "claims-train.jsonl")
    site.data("DELETE", f"/openai/v1/files/{file}")


def stale_tuning(site: PairSite) -> None:
    # An earlier training, which the standby's account has of its own.
    listed = site.data("GET", "/openai/v1/models")["data"]
    old = next(m["id"] for m in listed if m["id"].endswith("-warmup") and ".ft-" in m["id"])
    deployed(site, "claims-triage", {"name": old, "version": "1"})


def lost_model(site: PairSite) -> None:
    site.arm("DELETE", f"{site.claims}/deployments/claims-tone")


def lost_tool(site: PairSite) -> None:
    site.agent("parcel-desk", {"instructions": "Tell customers where their parcel is."})


@pytest.mark.parametrize(
    ("sabotage", "state", "asked"),
    [
        (wrong_model, "aoai-claims-eus2/gpt4o-ptu changed", "claims-answers on gpt4o-ptu"),
        (looser_filter, "aoai-claims-eus2/claims-strict changed", "hate-low"),
        (missing_file, "aoai-claims-eus2/claims-train.jsonl removed", ""),
        (stale_tuning, "aoai-claims-eus2/claims-triage changed", "claims-triage: 6 of 6 answers"),
        (lost_tool, "care-desk/parcel-desk changed", "parcel-desk did not call parcel_status"),
        # With its weights in a dead region no restore could bring it back: the call tells.
        pytest.param(lost_model, "", "claims-tone is not there", marks=pytest.mark.stress),
    ],
    ids=[
        "wrong-model",
        "looser-filter",
        "missing-file",
        "stale-fine-tune",
        "lost-agent-tool",
        "lost-model",
    ],
)
def test_a_failover_to_a_sabotaged_standby_fails_and_names_the_sabotage(
    failover_site: PairSite, sabotage: Callable[[PairSite], None], state: str, asked: str
) -> None:
    sabotage(failover_site)
    before = failover_site.azure()
    failover_site.lose_primary()
    mark = failover_site.mark()
    code, found = failover_site.run("region-failover", "--yes")
    assert (code, found["verdict"]) == (2, "failed")
    told = "; ".join(found["reasons"])
    assert state in told, told
    assert asked in told, told
    # Traffic stays where it is, nothing was written, and nobody called the primary.
    assert not (failover_site.folder / "position.txt").exists()
    assert {step["state"] for step in found["steps"]} == {"skipped"}
    sent = failover_site.since(mark)
    assert changes(sent) == []
    assert to_primary(sent) == []
    assert failover_site.azure() == before
    # What was not sabotaged passed: the failure is no noise.
    held = {check["name"] for check in found["gate"] if check["state"] == "failed"}
    assert held <= {check["name"] for check in found["gate"] if _touches(check, sabotage)}


# Which questions have to see which sabotage; the others must pass.
_SEEN_BY: dict[Callable[[PairSite], None], set[str]] = {
    wrong_model: {"the standby is in step", "models answer as recorded"},
    looser_filter: {"the standby is in step", "filters stop what they must, and no more"},
    missing_file: {"the standby is in step"},
    stale_tuning: {
        "the standby is in step",
        "the fine-tuned model is itself",
        "models answer as recorded",
    },
    lost_tool: {"the standby is in step", "the agent uses its tool"},
    lost_model: {"every fine-tuned model stands"},
}


def _touches(check: Any, sabotage: Callable[[PairSite], None]) -> bool:
    return check["name"] in _SEEN_BY[sabotage]


@pytest.mark.stress
def test_weights_that_were_mixed_up_behind_the_right_name_are_caught_by_what_they_answer(
    failover_site: PairSite,
) -> None:
    # Nothing that Resource Manager shows is otherwise: only the answers are.
    dump = failover_site.sandbox.control("GET", "dump")
    lessons = {
        item["id"]: item["body"]
        for item in dump["items"]
        if isinstance(item["body"], dict) and {"lesson", "base"} == set(item["body"])
    }
    tone = next(v["lesson"] for k, v in lessons.items() if k.endswith("-claims-tone"))
    next(v for k, v in lessons.items() if k.endswith("-claims-triage"))["lesson"] = tone
    failover_site.sandbox.control("POST", "load", dump)
    failover_site.lose_primary()
    code, found = failover_site.run("region-failover", "--yes")
    assert (code, found["verdict"]) == (2, "failed")
    failed = {check["name"] for check in found["gate"] if check["state"] == "failed"}
    assert failed == {"the fine-tuned model is itself", "models answer as recorded"}
